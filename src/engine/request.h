/* A request: its options, its answers, and what is known of it outside the engine's thread. */
#ifndef M40_ENGINE_REQUEST_H
#define M40_ENGINE_REQUEST_H

#include "engine/events.h"
#include "engine/sequence.h"

#include <pthread.h>

struct m40_request {
    uint64_t id;
    struct m40_request *next, **link; /* in one of the engine's lists */
    m40llm_request_options options;   /* sampling.bias, stops: not to be used; stop_tokens: the request's */
    struct m40_stops stops;
    int32_t *stop_tokens;
    int32_t *prompt;              /* that all choices share; of embeddings the texts, one behind the other */
    m40llm_pooling pooling;       /* of embeddings; NONE: it is for answers */
    struct m40_sequence *choices; /* [options.n_choices] */
    uint32_t n_left;              /* choices that have not ended */
    uint32_t n_prefill_told;
    uint64_t submitted_ns;
    m40llm_error error; /* code OK: none */

    /* Under the engine's lock. */
    pthread_cond_t changed;       /* an event came, or the end */
    struct m40_event_list events; /* not read yet */
    bool is_ended, is_forgotten;
    m40llm_result result; /* once it has ended */
};

/* What a request is checked against. */
struct m40_request_limits {
    uint32_t n_ctx, n_vocab;
    const struct m40_tokenizer *tokenizer; /* NULL: none */
};

/* prompt: 1 .. n_ctx ids of the vocabulary. INVALID_ARGUMENT names the bad option; NO_MEMORY. */
m40llm_status m40_request_new(struct m40_request **out, const struct m40_request_limits *limits, const int32_t *prompt, uint32_t n_prompt,
                              const m40llm_request_options *options, m40llm_error *err);
/* A request whose choices are texts, none of them longer than the context. */
m40llm_status m40_request_new_embeddings(struct m40_request **out, uint32_t n_ctx, const int32_t *ids, const size_t *n_ids, uint32_t n_texts,
                                         const m40llm_embed_options *options, m40llm_error *err);
void m40_request_free(struct m40_request *r);

/* The last event of a request that has ended. */
void m40_request_end_event(const struct m40_request *r, m40llm_event *out);

/* Whether a token ends an answer. */
bool m40_request_is_stop_token(const struct m40_request *r, const struct m40_tokenizer *tokenizer, int32_t id);

#endif
