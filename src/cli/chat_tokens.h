/* The tokens of a conversation. An answer's tokens, made to text and back, may come out as others, and the engine would evaluate again from the first that differs. So what the model has
 * read and written is kept as it was, and only what is new is tokenized. */
#ifndef M40_CLI_CHAT_TOKENS_H
#define M40_CLI_CHAT_TOKENS_H

#include "base/str.h"

#include "m40llm.h"

#include <stdbool.h>

/* Where the tokens of a prompt or an answer end. */
struct chat_mark {
    size_t n_bytes, n_ids;
};

/* Zero it to begin. */
struct chat_tokens {
    struct m40_buf text; /* the last prompt, and what was answered */
    int32_t *ids;        /* [n_ids] of it */
    size_t n_ids, n_ids_capacity;
    struct chat_mark *marks; /* [n_marks], ascending */
    size_t n_marks;
};

/* Tokens of this prompt. From the last mark up to which it is the text known already, if it goes on with a control token there (or ends), ids are made anew; otherwise from an earlier one, or the beginning:
 * a control token is where a tokenizer begins anew, so that nothing else would come of the whole. */
m40llm_status chat_tokens_prompt(struct chat_tokens *t, const m40llm_tokenizer *tokenizer, struct m40_str prompt, m40llm_error *err);

/* The next token of the answer, and text that has become certain (either may be missing: id < 0, no bytes). false: no memory. */
bool chat_tokens_add(struct chat_tokens *t, int32_t id, struct m40_str text);

/* What was added so far is an answer, or begins one. false: no memory. */
bool chat_tokens_mark(struct chat_tokens *t);

void chat_tokens_free(struct chat_tokens *t);

#endif
