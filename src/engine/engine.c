#define _POSIX_C_SOURCE 200809L
/* Opening and closing, and the engine's thread. A step is in step.c, what other threads call in engine_calls.c. */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine_internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SEQUENCES = 1024, DEFAULT_REQUESTS = 1024 };

/* ---- opening ---- */

static m40llm_status find_end_ids(struct m40_engine *e, m40llm_error *err)
{
    size_t n = e->tokenizer ? m40_tokenizer_n_vocab(e->tokenizer) : 0;

    if (n > e->model->config.n_vocab)
        n = e->model->config.n_vocab;
    for (size_t i = 0; i < n; i++)
        e->n_end_ids += m40_tokenizer_is_end(e->tokenizer, (int32_t)i);
    e->end_ids = m40_calloc(e->n_end_ids, sizeof *e->end_ids);
    if (!e->end_ids)
        return m40_fail(err, M40LLM_NO_MEMORY, "end tokens");
    for (size_t i = 0, k = 0; i < n; i++)
        if (m40_tokenizer_is_end(e->tokenizer, (int32_t)i))
            e->end_ids[k++] = (int32_t)i;
    return M40LLM_OK;
}

static m40llm_status make_scheduler(struct m40_engine *e, const m40llm_engine_options *options, m40llm_error *err)
{
    const struct m40_forward_limits *l = &e->limits;
    struct m40_scheduler_limits limits = {
        .n_slots = l->n_slots,
        .n_slot_pages = l->n_slot_pages,
        .n_pages = l->n_pages,
        .n_chunk = l->n_tokens - l->n_slots,
        .n_all_logits = l->n_logits - l->n_slots,
        .step_growth = options->step_growth != 0 ? (double)options->step_growth : 2,
        .longest_ns = options->longest_step_ms * 1e6,
        .has_cache = !options->no_prefix_cache,
        .has_lane = options->prefill == M40LLM_PREFILL_STREAM,
        .hash_seed = m40_hash_seed(e),
    };

    return m40_scheduler_init(&e->scheduler, &limits, err);
}

static m40llm_status make_arrays(struct m40_engine *e, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_forward_limits *l = &e->limits;
    uint32_t n_vocab = e->model->config.n_vocab, n_embd = e->model->config.n_embd;

    e->ids = m40_calloc(l->n_tokens, sizeof *e->ids);
    e->pos = m40_calloc(l->n_tokens, sizeof *e->pos);
    e->slot = m40_calloc(l->n_tokens, sizeof *e->slot);
    e->logit_rows = m40_calloc(l->n_logits, sizeof *e->logit_rows);
    e->row_owner = m40_calloc(l->n_logits, sizeof *e->row_owner);
    e->sampling = m40_calloc(l->n_logits, sizeof *e->sampling);
    e->chosen = m40_calloc(l->n_logits, sizeof *e->chosen);
    e->logits = m40_calloc((size_t)l->n_logits * n_vocab, sizeof *e->logits);
    e->scratch = m40_calloc(n_vocab, sizeof *e->scratch);
    M40_FAIL_IF(!e->ids || !e->pos || !e->slot || !e->logit_rows || !e->row_owner || !e->logits || !e->scratch || !e->sampling || !e->chosen,
                M40LLM_NO_MEMORY, "engine for %u sequences", l->n_slots);
    e->pooled = m40_calloc((size_t)l->n_slots * n_embd, sizeof *e->pooled);
    e->hidden = m40_calloc((size_t)M40_HIDDEN_ROWS * n_embd, sizeof *e->hidden);
    M40_FAIL_IF(!e->pooled || !e->hidden, M40LLM_NO_MEMORY, "embeddings of %u sequences", l->n_slots);
    e->places = m40_calloc(e->info.n_requests, sizeof *e->places);
    e->free_places = m40_calloc(e->info.n_requests, sizeof *e->free_places);
    M40_FAIL_IF(!e->places || !e->free_places, M40LLM_NO_MEMORY, "engine for %u requests", e->info.n_requests);
    for (uint32_t i = 0; i < e->info.n_requests; i++)
        e->free_places[e->n_free_places++] = e->info.n_requests - 1 - i;
fail:
    return status;
}

static m40llm_status check_options(const m40llm_engine_options *o, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(o->n_sequences > MAX_SEQUENCES, M40LLM_INVALID_ARGUMENT, "%u sequences at once: at most %d", o->n_sequences, MAX_SEQUENCES);
    M40_FAIL_IF(o->n_requests > M40_ID_PLACES, M40LLM_INVALID_ARGUMENT, "%u requests at once: at most %d", o->n_requests, M40_ID_PLACES);
    M40_FAIL_IF(o->prefill != M40LLM_PREFILL_MIXED && o->prefill != M40LLM_PREFILL_STREAM, M40LLM_INVALID_ARGUMENT,
                "there is no way %d to read prompts", (int)o->prefill);
    M40_FAIL_IF(o->step_growth != 0 && !(o->step_growth > 1 && o->step_growth <= 1e6f), M40LLM_INVALID_ARGUMENT,
                "step_growth %g: must be above 1 and at most 1e6", (double)o->step_growth);
fail:
    return status;
}

static void set_info(struct m40_engine *e, uint32_t n_ctx)
{
    e->info.n_ctx = n_ctx;
    e->info.n_sequences = e->limits.n_slots;
    e->info.n_chunk = e->limits.n_tokens - e->limits.n_slots;
    e->info.n_pages = e->limits.n_pages;
    e->info.weight_bytes = e->model->weight_bytes;
    m40_forward_memory(&e->model->config, &e->limits, &e->info.kv_bytes, &e->info.other_bytes);
    m40_log(&e->model->backend->logger, M40LLM_LOG_INFO, "context %u tokens (%s), prefill chunk %u, KV cache %llu MiB, other buffers %llu MiB", n_ctx,
            e->info.n_ctx_why, e->info.n_chunk, (unsigned long long)(e->info.kv_bytes >> 20), (unsigned long long)(e->info.other_bytes >> 20));
}

static void *run_engine(void *user);

/* Signals are for the program's own threads. */
static m40llm_status start_thread(struct m40_engine *e, m40llm_error *err)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&e->thread, NULL, run_engine, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return m40_fail(err, M40LLM_NO_MEMORY, "cannot start the engine's thread: %s", strerror(rc));
    e->has_thread = true;
    return M40LLM_OK;
}

m40llm_status m40_engine_open(struct m40_engine **out, struct m40_model *model, const struct m40_tokenizer *tokenizer,
                              const m40llm_engine_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_engine_options options = *given;
    struct m40_engine *e = NULL;
    const char *why;

    *out = NULL;
    M40_TRY(check_options(&options, err));
    e = m40_calloc(1, sizeof *e);
    M40_FAIL_IF(!e, M40LLM_NO_MEMORY, "engine");
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->stopped, NULL);
    e->inbox_end = &e->inbox;
    e->model = model;
    e->tokenizer = tokenizer;
    e->info.n_requests = options.n_requests ? options.n_requests : DEFAULT_REQUESTS;
    M40_TRY(m40_engine_choose_limits(model, &options, &e->limits, &why, err));
    snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, "%s", why);
    M40_TRY(find_end_ids(e, err));
    M40_TRY(make_scheduler(e, &options, err));
    M40_TRY(make_arrays(e, err));
    M40_TRY(m40_forward_open(&e->forward, model, &e->limits, err));
    set_info(e, options.n_ctx);
    if (options.prefill == M40LLM_PREFILL_STREAM)
        M40_TRY(m40_engine_open_lane(e, err));
    e->info.struct_size = sizeof e->info;
    e->working.struct_size = e->published.struct_size = sizeof e->working;
    e->working.n_pages = e->published.n_pages = e->limits.n_pages;
    M40_TRY(start_thread(e, err));
    *out = e;
    return M40LLM_OK;
fail:
    m40_engine_close(&e);
    return status;
}

static void stop_thread(struct m40_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->is_closing = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
}

void m40_engine_close(struct m40_engine **engine)
{
    struct m40_engine *e = engine ? *engine : NULL;

    if (!e)
        return;
    if (e->has_thread)
        stop_thread(e); /* callbacks may still come, and may use the engine */
    *engine = NULL;
    m40_engine_close_lane(e);
    m40_forward_close(&e->forward);
    for (uint32_t i = 0; e->places && i < e->info.n_requests; i++)
        m40_request_free(e->places[i].request);
    m40_event_pool_free(&e->event_pool);
    m40_scheduler_free(&e->scheduler);
    m40_free(e->places);
    m40_free(e->free_places);
    m40_free(e->end_ids);
    m40_free(e->ids);
    m40_free(e->pos);
    m40_free(e->slot);
    m40_free(e->logit_rows);
    m40_free(e->row_owner);
    m40_free(e->logits);
    m40_free(e->scratch);
    m40_free(e->sampling);
    m40_free(e->chosen);
    m40_free(e->pooled);
    m40_free(e->hidden);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->stopped);
    pthread_mutex_destroy(&e->lock);
    m40_free(e);
}

/* ---- the engine's thread ---- */

void m40_engine_vacate(struct m40_engine *e, struct m40_request *r)
{
    struct m40_request_place *place = &e->places[r->id % M40_ID_PLACES];

    atomic_store(&place->id, 0);
    place->request = NULL;
    e->free_places[e->n_free_places++] = (uint32_t)(r->id % M40_ID_PLACES);
}

/* Waits until there is something to do, and takes what was submitted; false: the engine closes, and nothing more is accepted. */
static bool wait_for_work(struct m40_engine *e, struct m40_request **submitted)
{
    bool is_closing;

    pthread_mutex_lock(&e->lock);
    while (!e->is_closing && (e->n_pauses > 0 || (!e->inbox && !e->active && !e->ending))) {
        if (e->is_lane_busy) { /* it must stand still, too */
            pthread_mutex_unlock(&e->lock);
            m40_engine_settle(e, true);
            pthread_mutex_lock(&e->lock);
            continue;
        }
        e->is_standing = true;
        pthread_cond_broadcast(&e->stopped);
        pthread_cond_wait(&e->work, &e->lock);
    }
    e->is_standing = false;
    *submitted = e->inbox;
    e->inbox = NULL;
    e->inbox_end = &e->inbox;
    e->n_inbox = 0;
    is_closing = e->is_closing;
    pthread_mutex_unlock(&e->lock);
    return !is_closing;
}

static void start_requests(struct m40_engine *e, struct m40_request *submitted)
{
    struct m40_request *next;

    for (struct m40_request *r = submitted; r; r = next) {
        next = r->next;
        r->next = e->active;
        r->link = &e->active;
        if (r->next)
            r->next->link = &r->next;
        e->active = r;
        for (uint32_t i = 0; i < r->options.n_choices; i++) {
            r->choices[i].key = m40_scheduler_key(r->submitted_ns, r->options.priority);
            r->choices[i].order = r->id;
            m40_scheduler_add(&e->scheduler, &r->choices[i]);
        }
    }
}

/* is_new: there are requests that may have been cancelled before they were seen. */
static bool is_cancelled(struct m40_engine *e, const struct m40_request *r)
{
    return atomic_load(&e->places[r->id % M40_ID_PLACES].cancel_id) == r->id;
}

static void end_cancelled(struct m40_engine *e, bool all, bool is_new)
{
    struct m40_request *next;
    uint64_t n_cancels = atomic_load(&e->n_cancels);
    bool is_any = all;

    if (!all && !is_new && n_cancels == e->n_cancels_seen)
        return;
    e->n_cancels_seen = n_cancels;
    for (struct m40_request *r = e->active; r && !is_any; r = r->next)
        is_any = is_cancelled(e, r);
    if (!is_any)
        return;
    m40_engine_settle(e, true);
    for (struct m40_request *r = e->active; r; r = next) {
        next = r->next;
        if (all || is_cancelled(e, r))
            m40_engine_end_request(e, r, M40LLM_FINISH_CANCELLED);
    }
}

static void publish(struct m40_engine *e)
{
    const struct m40_scheduler *s = &e->scheduler;
    m40llm_stats *w = &e->working;

    w->n_prompt_tokens = s->n_prompt_tokens;
    w->n_recomputed_tokens = s->n_recomputed;
    w->n_preemptions = s->n_preemptions;
    w->n_cache_lookups = s->n_lookups;
    w->n_cache_hits = s->n_hits;
    w->n_cached_tokens = s->n_cached_tokens;
    w->n_evicted_pages = s->pool.n_evicted;
    w->n_pages_used = s->pool.n_used;
    w->n_pages_used_max = s->pool.n_used_max;
    w->n_pages_shared = s->pool.n_shared;
    w->n_pages_cached = s->pool.n_idle;
    w->n_waiting = s->n_waiting;
    w->n_running = s->n_running;
    pthread_mutex_lock(&e->lock);
    e->published = *w;
    pthread_mutex_unlock(&e->lock);
}

/* The last event of every request that has ended; the statistics know of it already. */
static void tell_ends(struct m40_engine *e)
{
    while (e->ending) {
        struct m40_request *r = e->ending;
        m40llm_event event;
        bool is_forgotten;

        e->ending = r->next;
        m40_log(&e->model->backend->logger, M40LLM_LOG_DEBUG, "request %llu: %u prompt tokens in %.1f ms, %u generated in %.1f ms",
                (unsigned long long)r->id, r->result.n_prompt, (double)r->result.prefill_ns * 1e-6, r->result.n_generated,
                (double)r->result.decode_ns * 1e-6);
        if (r->options.on_event) {
            m40_request_end_event(r, &event);
            r->options.on_event(r->options.user, &event);
        }
        pthread_mutex_lock(&e->lock);
        r->is_ended = true;
        is_forgotten = r->is_forgotten;
        if (is_forgotten)
            m40_engine_vacate(e, r);
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&e->lock);
        if (is_forgotten)
            m40_request_free(r);
    }
}

static void *run_engine(void *user)
{
    struct m40_engine *e = user;
    struct m40_request *submitted;
    bool is_open;

    do {
        is_open = wait_for_work(e, &submitted);
        start_requests(e, submitted);
        end_cancelled(e, !is_open, submitted != NULL);
        if (e->active)
            m40_engine_step(e);
        publish(e);
        tell_ends(e);
    } while (is_open);
    return NULL;
}
