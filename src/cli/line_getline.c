/* Without libedit: whole lines, as the terminal's own editing gives them; no history. */
#define _POSIX_C_SOURCE 200809L
#include "line.h"
#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct line_reader {
    char *text;
    size_t capacity;
};

struct line_reader *line_open(const char *history_path, const char *const *words)
{
    (void)history_path;
    (void)words;
    return calloc(1, sizeof(struct line_reader));
}

void line_close(struct line_reader **reader)
{
    if (*reader)
        free((*reader)->text);
    free(*reader);
    *reader = NULL;
}

enum line_result line_read(struct line_reader *reader, const char *prompt, const char **text, size_t *n_bytes)
{
    FILE *screen = isatty(STDERR_FILENO) ? stderr : stdout;
    ssize_t n;

    fputs(prompt, screen);
    fflush(screen);
    cli_let_interrupt_reads(true);
    errno = 0;
    n = getline(&reader->text, &reader->capacity, stdin);
    cli_let_interrupt_reads(false);
    *n_bytes = 0;
    if (n < 0) {
        bool is_interrupt = errno == EINTR && !cli_interrupted();

        clearerr(stdin);
        fputs("\n", screen);
        return is_interrupt ? LINE_CANCELLED : errno == ENOMEM ? LINE_FAILED : LINE_END;
    }
    if (n > 0 && reader->text[n - 1] == '\n')
        reader->text[--n] = 0;
    *text = reader->text;
    *n_bytes = (size_t)n;
    return LINE_TEXT;
}

void line_remember(struct line_reader *reader, const char *text)
{
    (void)reader;
    (void)text;
}
