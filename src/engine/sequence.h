/* One answer on its way (a request has one or several): its tokens, its pages, and how far it has come. */
#ifndef M40_ENGINE_SEQUENCE_H
#define M40_ENGINE_SEQUENCE_H

#include "backend/backend.h"
#include "engine/answer.h"
#include "engine/prefix_cache.h"
#include "engine/sampler.h"

enum { M40_WAITING_LEVELS = 10 };

enum m40_sequence_state {
    M40_SEQUENCE_WAITING, /* has no slot and no pages: new, or pre-empted */
    M40_SEQUENCE_RUNNING, /* has a slot, and pages for all its tokens but the newest */
    M40_SEQUENCE_ENDED,
};

struct m40_sequence {
    /* What the scheduler goes by. */
    enum m40_sequence_state state;
    int64_t key; /* lower ones come first; of equal ones the lower `order` */
    uint64_t order;
    uint32_t choice;                   /* of its request */
    const struct m40_sequence *leader; /* choice 0 of its request, whose pages of the prompt it shares; NULL: it is choice 0 */
    bool uses_cache, all_logits;
    bool is_in_lane;                               /* rows of it are under way there: its pages must stay */
    bool needs_all_rows;                           /* every token is to be evaluated: nothing is taken from the prefix cache */
    struct m40_sequence *next[M40_WAITING_LEVELS]; /* while waiting: see waiting.h */
    uint32_t slot;
    int32_t *pages; /* [n_pages], the slot's row of the page table */
    uint32_t n_pages;

    const int32_t *prompt;                 /* [n_prompt]: the request's, which its choices share */
    int32_t *generated;                    /* [capacity - n_prompt] */
    uint32_t n_tokens, capacity, n_prompt; /* tokens: prompt, then answer */
    uint32_t n_evaluated;                  /* tokens whose K and V are in the cache */
    uint32_t n_generated;
    uint32_t n_seen;   /* the greatest n_evaluated so far: what is evaluated below it, is evaluated again */
    uint32_t n_known;  /* pages at the beginning that the prefix cache knows */
    uint64_t hash;     /* of their tokens */
    uint32_t n_cached; /* tokens of pages that were found at the first admission */
    uint32_t n_preemptions;

    /* What the engine goes by. */
    struct m40_request *request;
    struct m40_sampler sampler;
    struct m40_answer answer;
    m40llm_finish finish;
    bool is_told; /* its end is */
    uint64_t started_ns, first_token_ns, last_token_ns;
};

/* Zeroed memory becomes a sequence that waits. The prompt must outlive it; sampler and answer are the caller's to set up. */
m40llm_status m40_sequence_init(struct m40_sequence *s, const int32_t *prompt, uint32_t n_prompt, uint32_t n_max_tokens, uint32_t n_ctx,
                                m40llm_error *err);
void m40_sequence_free(struct m40_sequence *s);

/* i < n_tokens */
static inline int32_t m40_sequence_token(const struct m40_sequence *s, uint32_t i)
{
    return i < s->n_prompt ? s->prompt[i] : s->generated[i - s->n_prompt];
}

/* One more; n_tokens < capacity. */
static inline void m40_sequence_push(struct m40_sequence *s, int32_t id)
{
    s->generated[s->n_tokens++ - s->n_prompt] = id;
}

/* The tokens of page i, which is full; in `copy` [M40_KV_PAGE] where the answer begins inside it. */
const int32_t *m40_sequence_page(const struct m40_sequence *s, uint32_t i, int32_t *copy);

/* How many pages hold n tokens. */
static inline uint32_t m40_pages_of(uint32_t n_tokens)
{
    return (n_tokens + M40_KV_PAGE - 1) / M40_KV_PAGE;
}

#endif
