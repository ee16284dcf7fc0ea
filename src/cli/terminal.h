/* What a person sees on stderr while waiting, and Ctrl-C. */
#ifndef M40_CLI_TERMINAL_H
#define M40_CLI_TERMINAL_H

#include "m40llm.h"

#include <stdbool.h>
#include <stdio.h>

/* Draws "label [=====     ] 42%" over the current line of stderr, at most ten times a second; nothing where stderr is no terminal. */
void cli_progress(const char *label, uint64_t done, uint64_t total);
/* Takes the bar away. */
void cli_progress_end(void);

/* From now on the first Ctrl-C (or SIGTERM) sets the flag below and cancels the request given; the second ends the program. */
void cli_catch_interrupt(void);
bool cli_interrupted(void);
/* Whether SIGINT has come since this was asked last, when no request was given (cli_catch_interrupt_of_requests ignores it otherwise). */
bool cli_take_idle_interrupt(void);
/* For a chat, instead: Ctrl-C cancels the request given and sets no flag; the third during one request ends the program, should the device hang. SIGTERM as above. */
void cli_catch_interrupt_of_requests(void);
/* Whether a read of standard input ends (EINTR) at a signal. */
void cli_let_interrupt_reads(bool yes);
/* The request to cancel at Ctrl-C; NULL: none. */
void cli_set_request(m40llm_engine *engine, uint64_t id);

/* Whether what is typed shows. Where standard input is no terminal, nothing. */
void cli_echo(bool yes);

/* Whether the stream is a terminal that may be sent escape sequences, and NO_COLOR is not set. */
bool cli_has_style(FILE *stream);

/* Takes out of UTF-8 text what a terminal would obey instead of showing: control characters but newline and tabulator. Returns the bytes left. */
size_t cli_printable(char *text, size_t n_bytes);

/* "m40llm: text" and a newline, on one line: what comes from a file or a template may hold anything. */
void cli_say(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* m40llm_progress_fn for loading: draws, and cancels after Ctrl-C. user: the label. */
int cli_load_progress(void *user, uint64_t done, uint64_t total);

/* m40llm_logger.write: "m40llm: level: line" on stderr. */
void cli_log_line(void *user, m40llm_log_level level, const char *line);

#endif
