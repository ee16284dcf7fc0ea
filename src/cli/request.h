/* What `run` and its chat ask the engine for, and the figures of what came of it. */
#ifndef M40_CLI_REQUEST_H
#define M40_CLI_REQUEST_H

#include "options.h"

/* The settings' seed, or a random one that is short enough to type. */
uint64_t cli_choose_seed(const struct cli_settings *settings);

/* The settings' sampling with this seed, and n_max_tokens tokens at most. */
m40llm_request_options cli_request_options(const struct cli_settings *settings, uint64_t seed, uint32_t n_max_tokens);

/* Tokens a second: of the prompt's evaluation (without what the prefix cache had), and of the answer behind its first token. 0: too few to tell. */
double cli_prompt_speed(const m40llm_result *result);
double cli_answer_speed(const m40llm_result *result);

#endif
