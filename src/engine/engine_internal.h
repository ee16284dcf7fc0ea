/* What engine.c (opening, the thread), engine_memory.c (what has room), engine_calls.c (what other threads call) and step.c (a step of the engine's thread) share. */
#ifndef M40_ENGINE_ENGINE_INTERNAL_H
#define M40_ENGINE_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/request.h"
#include "engine/scheduler.h"

#include <stdatomic.h>

enum { M40_HIDDEN_ROWS = 64 };    /* of hidden states that are read at once */
enum { M40_ID_PLACES = 1 << 16 }; /* an id is a number times this, plus the request's place */

/* Where a request is found by its id: id % 2^16 is its place in the table. The atomics are all that m40_engine_cancel touches. */
struct m40_request_place {
    _Atomic uint64_t id;        /* 0: none, or forgotten */
    _Atomic uint64_t cancel_id; /* = id: the request is to end */
    struct m40_request *request;
};

struct m40_engine {
    struct m40_model *model;
    const struct m40_tokenizer *tokenizer;
    struct m40_forward *forward;
    struct m40_forward_limits limits;
    m40llm_engine_info info;
    int32_t *end_ids; /* [n_end_ids]: the tokenizer's end tokens */
    size_t n_end_ids;

    /* The engine's thread's own. */
    struct m40_scheduler scheduler;
    struct m40_request *active; /* not ended */
    uint64_t n_cancels_seen;
    struct m40_request *ending; /* ended, not told yet */
    m40llm_stats working;
    int32_t *ids, *pos, *slot;       /* [limits.n_tokens]: the batch being made */
    int32_t *logit_rows;             /* [limits.n_logits] */
    struct m40_sequence **row_owner; /* [limits.n_logits]: whose logits these are */
    float *logits;                   /* [limits.n_logits][n_vocab] */
    float *scratch;                  /* [n_vocab] */
    struct m40_sample_row *sampling; /* [limits.n_logits]: how the backend is to choose */
    int32_t *chosen;                 /* [limits.n_logits]: what it chose */
    float *pooled;                   /* [limits.n_slots][n_embd]: embeddings that are being made */
    float *hidden;                   /* [M40_HIDDEN_ROWS][n_embd] */

    _Atomic uint64_t n_cancels; /* so far */

    /* Prompts beside the steps (lane.c). */
    struct m40_forward *lane;                 /* NULL: there are none */
    int32_t *lane_ids, *lane_pos, *lane_slot; /* [info.n_chunk] */
    bool is_lane_busy, lane_had_company;      /* rows are under way; steps were made meanwhile */
    uint32_t n_lane_failed;                   /* of the scheduler's lane_items, those that could not be issued, and whose requests are to end */
    uint64_t lane_start_ns;

    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t work;              /* for the engine's thread: something came, or it may go on */
    pthread_cond_t stopped;           /* it stands still */
    struct m40_request_place *places; /* [info.n_requests] */
    uint32_t *free_places;            /* [n_free_places] */
    uint32_t n_free_places;
    uint64_t n_accepted;                    /* requests */
    struct m40_request *inbox, **inbox_end; /* submitted, not seen by the thread; where the next one goes */
    uint32_t n_inbox;                       /* choices */
    struct m40_event_pool event_pool;
    m40llm_stats published;
    uint32_t n_pauses;
    bool is_standing, is_closing, has_thread;
    pthread_t thread;
};

/* The limits for these options, and the context in options->n_ctx, which may be 0. *why: what set it (m40llm_engine_info). INVALID_ARGUMENT, OUT_OF_DEVICE_MEMORY say what would fit. */
m40llm_status m40_engine_choose_limits(const struct m40_model *model, m40llm_engine_options *options, struct m40_forward_limits *out,
                                       const char **why, m40llm_error *err);
/* Gives a request's place back; the request is freed by the caller. Under the lock. */
void m40_engine_vacate(struct m40_engine *e, struct m40_request *r);
/* lane.c. Opens the lane, whose memory is added to e->info; closes what there is. */
m40llm_status m40_engine_open_lane(struct m40_engine *e, m40llm_error *err);
void m40_engine_close_lane(struct m40_engine *e);
/* Issues the plan's lane_items. Where that fails, their requests have the error, and end_failed of step.c ends them. */
void m40_engine_start_lane(struct m40_engine *e);
/* Takes what the lane has done; wait: it comes to its end. Requests of a lane that failed end. Before anything that ends requests while the lane may be busy. */
void m40_engine_settle(struct m40_engine *e, bool wait);

/* Tells how much of a prompt is evaluated. */
void m40_engine_tell_prefill(struct m40_engine *e, struct m40_sequence *s);
/* One step of all active requests, of which there is at least one. Requests that end in it go to e->ending. */
void m40_engine_step(struct m40_engine *e);
/* Ends what is left of an active request. */
void m40_engine_end_request(struct m40_engine *e, struct m40_request *r, m40llm_finish finish);
/* Hands an event to whom it belongs. */
void m40_engine_tell(struct m40_engine *e, struct m40_request *r, const m40llm_event *event);

#endif
