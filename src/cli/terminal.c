#define _POSIX_C_SOURCE 200809L
#include "terminal.h"

#include <signal.h>
#include <stdio.h>
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
static m40llm_engine *volatile request_engine;
static volatile uint64_t request_id;

static void on_interrupt(int signal_number)
{
    m40llm_engine *engine = request_engine;

    interrupted = 1;
    if (engine)
        m40llm_cancel(engine, request_id);
    signal(signal_number, SIG_DFL);
}

void cli_catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}

void cli_set_request(m40llm_engine *engine, uint64_t id)
{
    request_engine = NULL; /* the handler must never see a new id with an old engine */
    request_id = id;
    request_engine = engine;
    if (interrupted && engine)
        m40llm_cancel(engine, id);
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
    fprintf(stderr, "m40llm: %s: %s\n", names[level], line);
}
