/* What a request for text asks: its JSON object, validated, as tokens and engine options. */
#ifndef M40_SERVER_CALL_H
#define M40_SERVER_CALL_H

#include "fields.h"

enum call_kind { CALL_CHAT = 1, CALL_TEXT = 2, CALL_GENERATE = 4 };

struct call {
    enum call_kind kind;
    bool stream, include_usage;
    uint32_t n;   /* choices */
    int32_t *ids; /* [n_ids]: the prompt */
    size_t n_ids;
    m40llm_request_options options; /* points into what follows */
    m40llm_logit_bias *bias;
    const char **stops;
    int32_t *stop_tokens;
    json_t *object;
};

/* Zero it first. false: *f says why. Free it in any case. Freed, it has no pointers left; the rest stays. */
bool call_parse(struct call *c, enum call_kind kind, const struct server_model *m, const struct m40_buf *body, struct failure *f);
void call_free(struct call *c);

/* "messages" or "prompt" */
const char *call_prompt_field(enum call_kind kind);

/* chat.c: the object's messages as the model's template writes them, into c->ids. */
bool chat_prompt(struct call *c, const struct server_model *m, struct failure *f);

/* tokens.c: what /tokenize and /detokenize answer to a body. NULL: *f says why, or, where it does not, there was no memory. */
json_t *tokenize_answer(const struct server_model *m, const struct m40_buf *body, struct failure *f);
json_t *detokenize_answer(const struct server_model *m, const struct m40_buf *body, struct failure *f);

/* Ids of a text into *ids (to be freed). */
bool tokenize_text(const struct server_model *m, const char *text, size_t n_bytes, unsigned flags, int32_t **ids, size_t *n_ids, struct failure *f);

#endif
