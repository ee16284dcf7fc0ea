/* One request on its way: its tokens, its pages, and how far it has come. */
#ifndef M40_ENGINE_SEQUENCE_H
#define M40_ENGINE_SEQUENCE_H

#include "engine/kv_pages.h"
#include "engine/sampler.h"

#include <stdatomic.h>
#include <stdbool.h>

struct m40_sequence {
    _Atomic uint64_t id;        /* 0: the slot is free */
    _Atomic uint64_t cancel_id; /* = id: the request is to end */
    m40llm_request_options options;
    struct m40_sampler sampler;
    int32_t *tokens; /* [capacity]: prompt, then answer */
    uint32_t n_tokens, capacity, n_prompt;
    uint32_t n_evaluated; /* tokens whose K and V are in the cache */
    uint32_t n_generated;
    uint32_t n_pages;
    int32_t *pages; /* the slot's row of the engine's page table */
    m40llm_finish finish;
    m40llm_error error; /* with FINISH_ERROR */
    uint64_t started_ns, first_token_ns, last_token_ns;
};

static inline bool m40_sequence_is_running(const struct m40_sequence *s)
{
    return atomic_load_explicit(&s->id, memory_order_relaxed) != 0 && s->finish == M40LLM_FINISH_NONE;
}

/* Takes a free slot for a request; copies prompt and options. `s->pages` is set by the engine once. */
m40llm_status m40_sequence_start(struct m40_sequence *s, uint64_t id, const int32_t *prompt, size_t n_prompt, uint32_t n_ctx, size_t n_vocab,
                                 const m40llm_request_options *options, m40llm_error *err);
/* Pages for the first n_tokens positions; false: the pool has too few (those taken stay the sequence's). */
bool m40_sequence_grow(struct m40_sequence *s, struct m40_page_pool *pool, uint32_t n_tokens);
/* Gives the pages back; the result may still be read. */
void m40_sequence_end(struct m40_sequence *s, struct m40_page_pool *pool, m40llm_finish finish);
/* Forgets the request: the slot is free. */
void m40_sequence_forget(struct m40_sequence *s);

#endif
