/* What the commands of a chat do. */
#ifndef M40_CLI_CHAT_COMMANDS_H
#define M40_CLI_CHAT_COMMANDS_H

#include "chat_state.h"
#include "chat_input.h"

/* Carries the command out; what is wrong with it is said. Not for CHAT_MESSAGE. */
enum chat_next chat_command(struct chat *chat, const struct chat_command *command);

/* Answers the last question again; the old answer stays where no new one comes. (chat_state.c) */
void chat_regenerate(struct chat *chat);

#endif
