/* A conversation: the messages that a chat template makes a prompt of, in memory and in files. No terminal, no model. */
#ifndef M40_CLI_CONVERSATION_H
#define M40_CLI_CONVERSATION_H

#include "base/str.h"

#include <jansson.h>
#include <stdio.h>

/* An array of {"role", "content"}, an answer with its "reasoning_content" where it has one: a system message or none, then user and assistant, which need not take turns. */
struct conversation {
    json_t *messages;
};

/* false, here and below: no memory; nothing has changed. */
bool conversation_open(struct conversation *c);
void conversation_close(struct conversation *c);

/* The system prompt, or NULL; one that is NULL or empty is taken away. The text must be UTF-8: false otherwise, too. */
const char *conversation_system(const struct conversation *c);
bool conversation_set_system(struct conversation *c, const char *text);

/* Messages beside the system's. */
size_t conversation_length(const struct conversation *c);
/* The last one's role, "" where there is none. */
const char *conversation_last_role(const struct conversation *c);

/* A question, and an answer with what the model thought before it (may be empty). UTF-8, false otherwise, too. */
bool conversation_ask(struct conversation *c, struct m40_str text);
bool conversation_answer(struct conversation *c, struct m40_str text, struct m40_str thought);

/* Takes the last message out, if it has this role: NULL, or the message (to be given back with conversation_put, or json_decref). */
json_t *conversation_take(struct conversation *c, const char *role);
bool conversation_put(struct conversation *c, json_t *message);

/* Leaves the system prompt alone. */
void conversation_clear(struct conversation *c);

/* One JSON object, {"messages": [...]}. false: it could not be written. */
bool conversation_write(const struct conversation *c, FILE *to);
/* Reads what conversation_write wrote, or the array alone. false: c is as it was, and why says what is wrong. */
bool conversation_read(struct conversation *c, struct m40_str text, char *why, size_t capacity);

#endif
