#define _POSIX_C_SOURCE 200809L
#include "terminal.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static bool bar_is_drawn;
static uint64_t bar_drawn_ns;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cli_progress(const char *label, uint64_t done, uint64_t total)
{
    uint64_t now = now_ns();
    int filled;

    if (!isatty(STDERR_FILENO) || total == 0 || (bar_is_drawn && done < total && now - bar_drawn_ns < 100000000u))
        return;
    bar_drawn_ns = now;
    bar_is_drawn = true;
    filled = (int)((double)done / (double)total * 30.0);
    fprintf(stderr, "\r%s [%.*s%*s] %3d%%", label, filled, "==============================", 30 - filled, "",
            (int)((double)done / (double)total * 100.0));
    fflush(stderr);
}

void cli_progress_end(void)
{
    if (!bar_is_drawn)
        return;
    bar_is_drawn = false;
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
}

static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t keeps_running;  /* SIGINT ends requests, not the program */
static volatile sig_atomic_t n_interrupts;   /* of the request */
static volatile sig_atomic_t idle_interrupt; /* a SIGINT came when there was none */
static m40llm_engine *volatile request_engine;
static volatile uint64_t request_id;
static volatile sig_atomic_t echo_is_off;
static struct termios with_echo; /* what the terminal was set to when echo was switched off */

enum { PATIENCE = 3 };

static void on_interrupt(int signal_number)
{
    m40llm_engine *engine = request_engine;

    if (engine)
        m40llm_cancel(engine, request_id);
    if (keeps_running && signal_number == SIGINT) {
        idle_interrupt = !engine;
        if (!engine || ++n_interrupts < PATIENCE)
            return;
        cli_echo(true); /* tcsetattr may be called here */
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    interrupted = 1;
    signal(signal_number, SIG_DFL);
}

static void catch_signals(int flags)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = flags};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    if (!interrupted)
        sigaction(SIGTERM, &action, NULL);
}

void cli_catch_interrupt(void)
{
    keeps_running = 0;
    catch_signals(SA_RESTART);
}

void cli_catch_interrupt_of_requests(void)
{
    keeps_running = 1;
    catch_signals(SA_RESTART);
}

void cli_let_interrupt_reads(bool yes)
{
    catch_signals(yes ? 0 : SA_RESTART);
}

void cli_echo(bool yes)
{
    struct termios quiet;

    if (!yes && !echo_is_off && tcgetattr(STDIN_FILENO, &with_echo) == 0) {
        quiet = with_echo;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        echo_is_off = 1;
        tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
    } else if (yes && echo_is_off) {
        tcsetattr(STDIN_FILENO, TCSANOW, &with_echo);
        echo_is_off = 0;
    }
}

bool cli_has_style(FILE *stream)
{
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");

    return isatty(fileno(stream)) && !(no_color && *no_color) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

size_t cli_printable(char *text, size_t n_bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte = (unsigned char)text[i], next = i + 1 < n_bytes ? (unsigned char)text[i + 1] : 0;

        if (byte == 0xc2 && next >= 0x80 && next < 0xa0)
            i++; /* U+0080 to U+009F: escape sequences in one character */
        else if ((byte >= ' ' && byte != 0x7f) || byte == '\n' || byte == '\t')
            text[n++] = (char)byte;
    }
    return n;
}

bool cli_take_idle_interrupt(void)
{
    bool was = idle_interrupt != 0;

    idle_interrupt = 0;
    return was;
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}

void cli_set_request(m40llm_engine *engine, uint64_t id)
{
    request_engine = NULL; /* the handler must never see a new id with an old engine */
    n_interrupts = 0;
    request_id = id;
    request_engine = engine;
    if (interrupted && engine)
        m40llm_cancel(engine, id);
}

void cli_say(FILE *to, const char *format, ...)
{
    char text[2048];
    va_list args;
    size_t n;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    n = cli_printable(text, strlen(text));
    for (size_t i = 0; i < n; i++)
        text[i] = text[i] == '\n' || text[i] == '\t' ? ' ' : text[i];
    fprintf(to, "m40llm: %.*s\n", (int)n, text);
}

int cli_load_progress(void *user, uint64_t done, uint64_t total)
{
    cli_progress(user, done, total);
    return interrupted != 0;
}

void cli_log_line(void *user, m40llm_log_level level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug", "trace"};

    (void)user;
    cli_progress_end();
    cli_say(stderr, "%s: %s", names[level], line);
}
