/* `run` without a prompt: a chat, or the answer to a message. */
#ifndef M40_CLI_CMD_CHAT_H
#define M40_CLI_CMD_CHAT_H

#include "session.h"

/* The chat in the terminal that standard input is. Returns an exit code. */
int cli_chat(const struct cli_settings *settings);

/* Takes a message, *text, which is freed, and gives the prompt that the template makes of it and the system prompt (to be freed). It says what is wrong. */
int cli_message_prompt(const struct cli_settings *settings, const struct cli_session *session, const m40llm_template *template_, char **text,
                       size_t *n_bytes);

#endif
