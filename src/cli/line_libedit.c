/* Lines through libedit: editing, history, completion of commands, and pastes of several lines as one. */
#define _GNU_SOURCE
#include "chat_history.h"
#include "line.h"
#include "terminal.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum {
    MAX_PASTE = 1 << 20, /* characters */
    LOOK_MS = 100,       /* a signal that comes just before a wait for a key is seen after it */
};

struct line_reader {
    EditLine *editor;
    History *history;
    const char *prompt, *history_path;
    const char *const *words;
    FILE *screen; /* where what is typed shows */
    char *text;
    mbstate_t decoder;
    bool is_cancelled, says_paste;
    size_t n_dropped; /* bytes of the line that was cancelled */
};

static struct line_reader *reader_of(EditLine *editor)
{
    void *reader = NULL;

    el_get(editor, EL_CLIENTDATA, &reader);
    return reader;
}

static char *show_prompt(EditLine *editor)
{
    return (char *)(uintptr_t)reader_of(editor)->prompt;
}

/* The next character for libedit: 1; 0 at the end, which SIGTERM is, too; -1. */
static int next_character(EditLine *editor, wchar_t *out)
{
    struct line_reader *reader = reader_of(editor);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    for (;;) {
        char byte;
        size_t n;
        int n_ready = poll(&input, 1, LOOK_MS);

        if (cli_interrupted())
            return 0;
        if (n_ready < 0 && errno == EINTR)
            el_set(editor, EL_REFRESH); /* the window's size, or back from a stop */
        else if (n_ready < 0)
            return -1;
        if (n_ready <= 0)
            continue;
        if (read(STDIN_FILENO, &byte, 1) != 1)
            return 0;
        n = mbrtowc(out, &byte, 1, &reader->decoder);
        if (n == (size_t)-1) { /* not UTF-8 */
            memset(&reader->decoder, 0, sizeof reader->decoder);
            *out = L'?';
            return 1;
        }
        if (n != (size_t)-2)
            return 1;
    }
}

/* ---- keys ---- */

static unsigned char cancel_line(EditLine *editor, int key)
{
    struct line_reader *reader = reader_of(editor);
    const LineInfo *line = el_line(editor);

    (void)key;
    reader->is_cancelled = true;
    reader->n_dropped = (size_t)(line->lastchar - line->buffer);
    el_cursor(editor, (int)(line->lastchar - line->cursor));
    el_push(editor, "\n"); /* what is on the screen stays there, the cursor below it */
    return CC_CURSOR;
}

/* The terminal's own Ctrl-Z is off while a line is edited; libedit sets the terminal right around the signal. */
static unsigned char suspend(EditLine *editor, int key)
{
    (void)editor;
    (void)key;
    raise(SIGTSTP);
    return CC_REDISPLAY;
}

static unsigned char add_newline(EditLine *editor, int key)
{
    (void)key;
    return el_winsertstr(editor, L"\n") == 0 ? CC_REFRESH : CC_ERROR;
}

/* What the terminal sends between ESC [200~ and ESC [201~ is text, whatever is in it. */
static unsigned char take_paste(EditLine *editor, int key)
{
    static const wchar_t end[] = L"\033[201~";
    const size_t n_end = 6;
    wchar_t *pasted = malloc((MAX_PASTE + 1) * sizeof *pasted);
    size_t n = 0;
    bool is_over = false;

    (void)key;
    while (pasted && !is_over && n < MAX_PASTE && el_wgetc(editor, &pasted[n]) == 1) {
        if (pasted[n] == L'\r')
            pasted[n] = L'\n';
        n++;
        is_over = n >= n_end && wmemcmp(pasted + n - n_end, end, n_end) == 0;
    }
    if (pasted) {
        pasted[is_over ? n - n_end : n] = 0;
        el_winsertstr(editor, pasted);
    }
    free(pasted);
    return CC_REFRESH;
}

/* Completes the command that the line is, as far as all that begin so agree. */
static unsigned char complete_word(EditLine *editor, int key)
{
    const char *const *words = reader_of(editor)->words, *found = NULL;
    const LineInfo *line = el_line(editor);
    size_t n = (size_t)(line->lastchar - line->buffer), n_common = 0;
    char rest[64];

    (void)key;
    if (line->cursor != line->lastchar || n == 0)
        return CC_ERROR;
    for (int i = 0; words && words[i]; i++) {
        if (strncmp(words[i], line->buffer, n) != 0)
            continue;
        if (!found)
            n_common = strlen(words[i]);
        while (found && strncmp(words[i], found, n_common) != 0)
            n_common--;
        found = found ? found : words[i];
    }
    if (n_common <= n)
        return CC_ERROR;
    snprintf(rest, sizeof rest, "%.*s%s", (int)(n_common - n), found + n, n_common == strlen(found) ? " " : "");
    return el_insertstr(editor, rest) == 0 ? CC_REFRESH : CC_ERROR;
}

/* ---- history ---- */

static void enter(void *user, const char *text)
{
    struct line_reader *reader = user;
    HistEvent event;

    history(reader->history, &event, H_ENTER, text);
}

static void load_history(struct line_reader *reader)
{
    char why[512];
    FILE *file = chat_history_open(reader->history_path, why, sizeof why);
    size_t n_entries;

    if (!file) {
        fprintf(stderr, "m40llm: warning: no history is kept: %s\n", why);
        reader->history_path = NULL;
        return;
    }
    n_entries = chat_history_read(file, enter, reader);
    if (n_entries >= CHAT_HISTORY_LINES) /* else it would grow for ever */
        chat_history_shorten(file, n_entries);
    fclose(file);
}

void line_remember(struct line_reader *reader, const char *text)
{
    char why[512];
    HistEvent event;
    FILE *file = NULL;

    if (history(reader->history, &event, H_ENTER, text) > 0 && reader->history_path) /* 0: the same as the one before */
        file = chat_history_open(reader->history_path, why, sizeof why);
    if (!file)
        return;
    chat_history_add(file, text);
    fclose(file);
}

/* ---- the reader ---- */

static void set_keys(EditLine *editor)
{
    /* wide, because libedit makes copies of the others and never frees them */
    el_wset(editor, EL_ADDFN, L"m40-cancel", L"drop the line", cancel_line);
    el_wset(editor, EL_ADDFN, L"m40-suspend", L"stop the program, as the shell does", suspend);
    el_wset(editor, EL_ADDFN, L"m40-newline", L"put a newline into the line", add_newline);
    el_wset(editor, EL_ADDFN, L"m40-paste", L"take a paste as text", take_paste);
    el_wset(editor, EL_ADDFN, L"m40-complete", L"complete a command", complete_word);
    el_set(editor, EL_SETTY, "-d", "-isig", NULL); /* Ctrl-C is a key, so that no signal meets libedit at work */
    el_set(editor, EL_BIND, "^C", "m40-cancel", NULL);
    el_set(editor, EL_BIND, "^Z", "m40-suspend", NULL);
    el_set(editor, EL_BIND, "^I", "m40-complete", NULL);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(editor, EL_BIND, "\033\n", "m40-newline", NULL);
    el_set(editor, EL_BIND, "\033\r", "m40-newline", NULL);
    el_set(editor, EL_BIND, "\033[200~", "m40-paste", NULL);
}

struct line_reader *line_open(const char *history_path, const char *const *words)
{
    struct line_reader *reader = calloc(1, sizeof *reader);
    const char *terminal = getenv("TERM");
    HistEvent event;

    if (!reader)
        return NULL;
    reader->screen = isatty(STDERR_FILENO) ? stderr : stdout;
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) /* what models write and read is UTF-8 */
        setlocale(LC_CTYPE, "C.UTF-8");
    reader->editor = el_init("m40llm", stdin, reader->screen, reader->screen);
    reader->history = history_init();
    if (!reader->editor || !reader->history) {
        line_close(&reader);
        return NULL;
    }
    reader->prompt = "";
    reader->history_path = history_path;
    reader->words = words;
    reader->says_paste = terminal && *terminal && strcmp(terminal, "dumb") != 0;
    history(reader->history, &event, H_SETSIZE, CHAT_HISTORY_LINES);
    history(reader->history, &event, H_SETUNIQUE, 1);
    if (history_path)
        load_history(reader);
    el_set(reader->editor, EL_CLIENTDATA, reader);
    el_set(reader->editor, EL_HIST, history, reader->history);
    el_set(reader->editor, EL_EDITOR, "emacs");
    el_set(reader->editor, EL_SIGNAL, 1); /* changes of the window's size */
    el_set(reader->editor, EL_PROMPT, show_prompt);
    el_wset(reader->editor, EL_GETCFN, next_character);
    el_source(reader->editor, NULL);
    set_keys(reader->editor);
    return reader;
}

void line_close(struct line_reader **reader)
{
    if (!*reader)
        return;
    if ((*reader)->editor)
        el_end((*reader)->editor);
    if ((*reader)->history)
        history_end((*reader)->history);
    free((*reader)->text);
    free(*reader);
    *reader = NULL;
}

enum line_result line_read(struct line_reader *reader, const char *prompt, const char **text, size_t *n_bytes)
{
    const char *got;
    int n = 0;

    reader->prompt = prompt;
    reader->is_cancelled = false;
    el_set(reader->editor, EL_PREP_TERM, 1); /* before the prompt: libedit would do so behind it, and lose a Ctrl-D that is typed at once */
    if (reader->says_paste)
        fputs("\033[?2004h", reader->screen);
    fflush(reader->screen);
    if (cli_take_idle_interrupt()) /* it came before Ctrl-C became a key */
        el_push(reader->editor, "\003");
    got = el_gets(reader->editor, &n);
    if (reader->says_paste)
        fputs("\033[?2004l", reader->screen);
    if (reader->is_cancelled) {
        *n_bytes = reader->n_dropped;
        return LINE_CANCELLED;
    }
    if (!got || n <= 0) {
        fputs("\n", reader->screen);
        el_reset(reader->editor);
        return LINE_END;
    }
    free(reader->text);
    reader->text = malloc((size_t)n + 1);
    if (!reader->text)
        return LINE_FAILED;
    memcpy(reader->text, got, (size_t)n);
    if (reader->text[n - 1] == '\n')
        n--;
    reader->text[n] = 0;
    *text = reader->text;
    *n_bytes = (size_t)n;
    return LINE_TEXT;
}
