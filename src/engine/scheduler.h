/* Which sequences run, and which rows the next step has. It keeps the sequences, the page pool and the prefix cache, and plans a step from their state and from how long steps took: no device calls,
 * no clock, nothing random.
 *
 * Order: by key, which is the time of submission moved forward by the priority. So within a priority it is first come, first served, and a low priority waits only for what was submitted within a
 * bounded time after it: none starves.
 * Pages: an admitted sequence has pages for all tokens it has; later ones are taken when they are needed. Where there is none, the running sequence that is last in the order gives its pages back and
 * waits; its tokens stay, and are evaluated again. The first in the order is never pre-empted, so something always gets done. */
#ifndef M40_ENGINE_SCHEDULER_H
#define M40_ENGINE_SCHEDULER_H

#include "engine/pace.h"
#include "engine/waiting.h"

struct m40_scheduler_limits {
    uint32_t n_slots;      /* sequences that run at once */
    uint32_t n_slot_pages; /* pages of a context */
    uint32_t n_pages;      /* in the pool, at least n_slot_pages */
    uint32_t n_chunk;      /* rows of prompts in a step */
    uint32_t n_all_logits; /* of those, rows of sequences that want all logits */
    double step_growth;    /* this and the next: see pace.h */
    double longest_ns;
    bool has_cache;
    bool has_lane;      /* prompts are evaluated beside the steps, but for their last token */
    uint64_t hash_seed; /* see prefix_cache.h */
};

/* Tokens n_evaluated .. n_evaluated + n_rows - 1 of a sequence. */
struct m40_plan_item {
    struct m40_sequence *sequence;
    uint32_t n_rows;
};

struct m40_scheduler {
    struct m40_scheduler_limits limits;
    struct m40_page_pool pool;
    struct m40_prefix_cache cache;
    struct m40_pace pace;
    int32_t *page_table;           /* [n_slots][n_slot_pages] */
    struct m40_sequence **running; /* [n_running], in order */
    uint32_t n_running;
    uint32_t *free_slots; /* [n_slots - n_running] */
    struct m40_waiting waiting;
    uint32_t n_waiting;
    uint64_t n_prompt_tokens, n_recomputed; /* rows of prompts that were evaluated for the first time; all rows that were evaluated again */
    uint64_t n_preemptions, n_lookups, n_hits, n_cached_tokens;

    /* The plan. */
    struct m40_plan_item *items; /* [n_items] */
    uint32_t n_items;
    struct m40_plan_item *lane_items; /* [n_lane_items]: what the lane is given, or is at */
    uint32_t n_lane_items;
    uint32_t n_answer_rows, n_prompt_rows; /* rows of sequences of which one token is left to evaluate, and others */
};

m40llm_status m40_scheduler_init(struct m40_scheduler *s, const struct m40_scheduler_limits *limits, m40llm_error *err);
/* Sequences that are still in it are not touched. */
void m40_scheduler_free(struct m40_scheduler *s);

/* The place in the order of what was submitted at submitted_ns. */
int64_t m40_scheduler_key(uint64_t submitted_ns, int priority);

/* One more sequence; key, order, choice, leader, uses_cache, all_logits and needs_all_rows are set. A leader comes before its followers, in the order too. */
void m40_scheduler_add(struct m40_scheduler *s, struct m40_sequence *sequence);
/* The sequence has ended or is given up: its pages are released, and it is ENDED. */
void m40_scheduler_remove(struct m40_scheduler *s, struct m40_sequence *sequence);

/* Plans the next step, and with a lane that has nothing to do also what it is to do; with sequences in it, not both are empty. */
void m40_scheduler_plan(struct m40_scheduler *s);
/* Whether the next plan may take a sequence's pages away: then the lane must have come to its end before. Nor may a sequence be removed that is in it. */
bool m40_scheduler_may_preempt(const struct m40_scheduler *s);
/* What the lane was given is done, or (is_whole false) has failed. */
void m40_scheduler_lane_done(struct m40_scheduler *s, bool is_whole);
/* The plan was carried out and took so long: tokens count as evaluated, full pages become known to the prefix cache. */
void m40_scheduler_done(struct m40_scheduler *s, uint64_t ns);

#endif
