/* What a person sees on stderr while waiting, and Ctrl-C. */
#ifndef M40_CLI_TERMINAL_H
#define M40_CLI_TERMINAL_H

#include "m40llm.h"

#include <stdbool.h>

/* Draws "label [=====     ] 42%" over the current line of stderr, at most ten times a second; nothing where stderr is no terminal. */
void cli_progress(const char *label, uint64_t done, uint64_t total);
/* Takes the bar away. */
void cli_progress_end(void);

/* From now on the first Ctrl-C (or SIGTERM) sets the flag below and cancels the request given; the second ends the program. */
void cli_catch_interrupt(void);
bool cli_interrupted(void);
/* The request to cancel at Ctrl-C; NULL: none. */
void cli_set_request(m40llm_engine *engine, uint64_t id);

/* m40llm_progress_fn for loading: draws, and cancels after Ctrl-C. user: the label. */
int cli_load_progress(void *user, uint64_t done, uint64_t total);

/* m40llm_logger.write: "m40llm: level: line" on stderr. */
void cli_log_line(void *user, m40llm_log_level level, const char *line);

#endif
