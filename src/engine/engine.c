#define _POSIX_C_SOURCE 200809L
/* Opening and closing, the engine's thread, and what other threads call. A step is in step.c. */
#include "engine/engine.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    DEFAULT_CTX = 8192,
    DEFAULT_CHUNK = 512,
    MAX_SEQUENCES = 1024,
    DEFAULT_REQUESTS = 1024,
    ID_PLACES = 1 << 16,     /* an id is a number times this, plus the request's place */
    LOGITS_BYTES = 32 << 20, /* of logits in one step, beyond one row for each sequence */
};

/* ---- opening: how much memory there is for what ---- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

/* With pages for one context. */
static void limits_of_ctx(const struct m40_model_config *config, const m40llm_engine_options *options, uint32_t n_ctx, struct m40_forward_limits *out)
{
    uint32_t n_sequences = or_default(options->n_sequences, 1);
    uint32_t n_chunk = or_default(options->n_chunk, DEFAULT_CHUNK);
    uint64_t n_rows = LOGITS_BYTES / ((uint64_t)config->n_vocab * sizeof(float));

    if (n_chunk > n_ctx)
        n_chunk = n_ctx;
    if (n_rows > n_chunk)
        n_rows = n_chunk;
    *out = (struct m40_forward_limits){
        .n_tokens = n_chunk + n_sequences,
        .n_logits = (uint32_t)(n_rows ? n_rows : 1) + n_sequences,
        .n_slots = n_sequences,
        .n_slot_pages = m40_pages_of(n_ctx),
        .n_pages = m40_pages_of(n_ctx),
        .kv_type = options->kv_type,
    };
}

/* What the forward pass takes with n_pages pages. */
static uint64_t memory_for(const struct m40_model_config *config, struct m40_forward_limits limits, uint32_t n_pages)
{
    uint64_t kv, other;

    limits.n_pages = n_pages;
    m40_forward_memory(config, &limits, &kv, &other);
    return kv + other;
}

/* Pages that so much memory has room for. */
static uint32_t pages_in(const struct m40_model_config *config, struct m40_forward_limits limits, uint64_t n_bytes)
{
    uint64_t page, other;

    limits.n_pages = 1;
    m40_forward_memory(config, &limits, &page, &other);
    return n_bytes / page < INT32_MAX ? (uint32_t)(n_bytes / page) : INT32_MAX;
}

void m40_engine_limits(const struct m40_model_config *config, const m40llm_engine_options *options, struct m40_forward_limits *out)
{
    limits_of_ctx(config, options, options->n_ctx, out);
    out->n_pages = options->kv_bytes ? pages_in(config, *out, options->kv_bytes) : out->n_slot_pages * out->n_slots;
}

static bool ctx_fits(const struct m40_model_config *config, const m40llm_engine_options *options, uint32_t n_ctx, uint64_t available)
{
    struct m40_forward_limits limits;

    limits_of_ctx(config, options, n_ctx, &limits);
    if (options->kv_bytes && pages_in(config, limits, options->kv_bytes) < limits.n_pages)
        return false;
    return memory_for(config, limits, limits.n_pages) <= available;
}

/* The largest context, in steps of 256 tokens where it is not `most`, of which one fits; 0: not even the smallest. */
static uint32_t largest_ctx_that_fits(const struct m40_model_config *config, const m40llm_engine_options *options, uint32_t most, uint64_t available)
{
    if (ctx_fits(config, options, most, available))
        return most;
    for (uint32_t n = (most - 1) / 256 * 256; n > 0; n -= 256)
        if (ctx_fits(config, options, n, available))
            return n;
    return 0;
}

static m40llm_status refuse_ctx(const struct m40_model_config *config, const m40llm_engine_options *options, uint32_t n_ctx, uint32_t fits,
                                uint64_t available, m40llm_error *err)
{
    struct m40_forward_limits limits;
    uint32_t n_pages;

    limits_of_ctx(config, options, n_ctx, &limits);
    n_pages = pages_in(config, limits, options->kv_bytes);
    if (options->kv_bytes && n_pages < limits.n_pages)
        return m40_fail(err, M40LLM_OUT_OF_DEVICE_MEMORY, "a context of %u tokens needs %u pages of KV cache, %u more than %llu MiB have room for",
                        n_ctx, limits.n_pages, limits.n_pages - n_pages, (unsigned long long)(options->kv_bytes >> 20));
    return m40_fail(err, M40LLM_OUT_OF_DEVICE_MEMORY,
                    "a context of %u tokens needs %llu MiB beside the weights, %llu MiB are free: at most %u tokens fit", n_ctx,
                    (unsigned long long)(memory_for(config, limits, limits.n_pages) >> 20), (unsigned long long)(available >> 20), fits);
}

/* Memory for the forward pass; UINT64_MAX: not known. */
static uint64_t available_memory(struct m40_backend *be)
{
    m40llm_device_info device;

    be->ops.get_info(be, &device);
    return device.memory_free_bytes ? device.memory_free_bytes - device.memory_free_bytes / 32 : UINT64_MAX;
}

static m40llm_status choose_ctx(struct m40_engine *e, m40llm_engine_options *options, uint64_t available, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_model_config *config = &e->model->config;
    uint32_t asked = options->n_ctx, most = asked, fits;

    snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, "asked for");
    M40_FAIL_IF(asked > config->n_ctx_train, M40LLM_INVALID_ARGUMENT, "a context of %u tokens was asked for: the model was trained for %u", asked,
                config->n_ctx_train);
    if (asked == 0) {
        most = config->n_ctx_train < DEFAULT_CTX ? config->n_ctx_train : DEFAULT_CTX;
        snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, config->n_ctx_train <= DEFAULT_CTX ? "the model's" : "the default");
    }
    fits = largest_ctx_that_fits(config, options, most, available);
    if (fits < most && (asked || fits == 0))
        return refuse_ctx(config, options, most, fits, available, err);
    if (fits < most)
        snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, "what fits in memory");
    options->n_ctx = fits;
fail:
    return status;
}

/* As many pages as were asked for, or as n_sequences contexts need and memory has room for. The CPU's memory is shared with everything else: half of it is left alone. */
static void choose_pages(struct m40_engine *e, const m40llm_engine_options *options, uint64_t available)
{
    const struct m40_model_config *config = &e->model->config;
    uint64_t other;
    uint32_t n_fit;

    m40_engine_limits(config, options, &e->limits);
    if (options->kv_bytes || available == UINT64_MAX)
        return;
    if (!e->model->backend->is_cuda)
        available /= 2;
    other = memory_for(config, e->limits, 0);
    n_fit = pages_in(config, e->limits, available > other ? available - other : 0);
    if (n_fit < e->limits.n_slot_pages)
        n_fit = e->limits.n_slot_pages; /* choose_ctx saw to it that one context fits */
    if (n_fit < e->limits.n_pages)
        e->limits.n_pages = n_fit;
}

/* ---- opening: the parts ---- */

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
    };

    return m40_scheduler_init(&e->scheduler, &limits, err);
}

static m40llm_status make_arrays(struct m40_engine *e, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_forward_limits *l = &e->limits;
    uint32_t n_vocab = e->model->config.n_vocab;

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
    M40_FAIL_IF(o->n_requests > ID_PLACES, M40LLM_INVALID_ARGUMENT, "%u requests at once: at most %d", o->n_requests, ID_PLACES);
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
    uint64_t available = available_memory(model->backend);

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
    e->info.n_requests = or_default(options.n_requests, DEFAULT_REQUESTS);
    M40_TRY(choose_ctx(e, &options, available, err));
    choose_pages(e, &options, available);
    M40_TRY(find_end_ids(e, err));
    M40_TRY(make_scheduler(e, &options, err));
    M40_TRY(make_arrays(e, err));
    M40_TRY(m40_forward_open(&e->forward, model, &e->limits, err));
    set_info(e, options.n_ctx);
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
    m40_forward_close(&e->forward);
    for (uint32_t i = 0; e->places && i < e->info.n_requests; i++)
        m40_request_free(e->places[i].request);
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
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->stopped);
    pthread_mutex_destroy(&e->lock);
    m40_free(e);
}

/* ---- the engine's thread ---- */

/* Gives a place back; the request is freed by the caller. Under the lock. */
static void vacate(struct m40_engine *e, struct m40_request *r)
{
    struct m40_request_place *place = &e->places[r->id % ID_PLACES];

    atomic_store(&place->id, 0);
    place->request = NULL;
    e->free_places[e->n_free_places++] = (uint32_t)(r->id % ID_PLACES);
}

/* Waits until there is something to do, and takes what was submitted; false: the engine closes, and nothing more is accepted. */
static bool wait_for_work(struct m40_engine *e, struct m40_request **submitted)
{
    bool is_closing;

    pthread_mutex_lock(&e->lock);
    while (!e->is_closing && (e->n_pauses > 0 || (!e->inbox && !e->active))) {
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
        e->active = r;
        for (uint32_t i = 0; i < r->options.n_choices; i++) {
            r->choices[i].key = m40_scheduler_key(r->submitted_ns, r->options.priority);
            r->choices[i].order = r->id;
            m40_scheduler_add(&e->scheduler, &r->choices[i]);
        }
    }
}

static void end_cancelled(struct m40_engine *e, bool all)
{
    struct m40_request *next;

    for (struct m40_request *r = e->active; r; r = next) {
        next = r->next;
        if (all || atomic_load(&e->places[r->id % ID_PLACES].cancel_id) == r->id)
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
            vacate(e, r);
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
        end_cancelled(e, !is_open);
        if (e->active)
            m40_engine_step(e);
        publish(e);
        tell_ends(e);
    } while (is_open);
    return NULL;
}

/* ---- what any thread may call ---- */

void m40_engine_get_info(const struct m40_engine *e, m40llm_engine_info *out)
{
    *out = e->info;
}

void m40_engine_get_stats(struct m40_engine *e, m40llm_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->published;
    out->n_requests = e->n_accepted;
    out->n_waiting += e->n_inbox;
    pthread_mutex_unlock(&e->lock);
}

void m40_engine_pause(struct m40_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->n_pauses++;
    while (!e->is_standing)
        pthread_cond_wait(&e->stopped, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

void m40_engine_resume(struct m40_engine *e)
{
    pthread_mutex_lock(&e->lock);
    if (e->n_pauses > 0 && --e->n_pauses == 0)
        pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

static m40llm_status check_prompt(const struct m40_engine *e, const int32_t *prompt, size_t n_prompt, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t n_vocab = e->model->config.n_vocab;

    M40_FAIL_IF(n_prompt == 0, M40LLM_INVALID_ARGUMENT, "the prompt is empty: it must have at least one token");
    M40_FAIL_IF(n_prompt > e->info.n_ctx, M40LLM_CONTEXT_FULL, "the prompt has %zu tokens, %zu more than the context of %u", n_prompt,
                n_prompt - e->info.n_ctx, e->info.n_ctx);
    for (size_t i = 0; i < n_prompt; i++)
        M40_FAIL_IF(prompt[i] < 0 || (uint32_t)prompt[i] >= n_vocab, M40LLM_INVALID_ARGUMENT,
                    "token id %d is out of range: the vocabulary has %u tokens", prompt[i], n_vocab);
fail:
    return status;
}

static m40llm_status reserve_place(struct m40_engine *e, uint32_t *place, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    pthread_mutex_lock(&e->lock);
    if (e->is_closing) /* a callback submits at a request's end: nobody would take it from the inbox */
        status = m40_fail(err, M40LLM_CANCELLED, "the engine is being closed");
    else if (e->n_free_places == 0)
        status = m40_fail(err, M40LLM_QUEUE_FULL, "there are %u requests, which is all there is room for", e->info.n_requests);
    else
        *place = e->free_places[--e->n_free_places];
    pthread_mutex_unlock(&e->lock);
    return status;
}

/* r: NULL: the place is given back unused. Returns the id. */
static uint64_t fill_place(struct m40_engine *e, uint32_t place, struct m40_request *r)
{
    uint64_t id = 0;

    pthread_mutex_lock(&e->lock);
    if (r) {
        id = r->id = ++e->n_accepted * ID_PLACES + place;
        r->submitted_ns = m40_now_ns();
        e->places[place].request = r;
        atomic_store(&e->places[place].id, id);
        *e->inbox_end = r;
        e->inbox_end = &r->next;
        e->n_inbox += r->options.n_choices;
        pthread_cond_signal(&e->work);
    } else {
        e->free_places[e->n_free_places++] = place;
    }
    pthread_mutex_unlock(&e->lock);
    return id;
}

m40llm_status m40_engine_submit(struct m40_engine *e, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *options, uint64_t *out_id,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_request_limits limits = {e->info.n_ctx, e->model->config.n_vocab, e->tokenizer};
    struct m40_request *r;
    uint32_t place = 0;

    *out_id = 0;
    M40_TRY(check_prompt(e, prompt, n_prompt, err));
    M40_TRY(reserve_place(e, &place, err));
    status = m40_request_new(&r, &limits, prompt, (uint32_t)n_prompt, options, err);
    *out_id = fill_place(e, place, r);
fail:
    return status;
}

m40llm_status m40_engine_submit_text(struct m40_engine *e, const char *text, size_t n_bytes, unsigned flags, const m40llm_request_options *options,
                                     uint64_t *out_id, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n_ids = n_bytes + 8, n;
    int32_t *ids = NULL;

    *out_id = 0;
    M40_FAIL_IF(!e->tokenizer, M40LLM_NO_TOKENIZER, "a text was submitted, but the engine has no tokenizer");
    status = M40LLM_BUFFER_TOO_SMALL;
    while (status == M40LLM_BUFFER_TOO_SMALL) {
        m40_free(ids);
        ids = m40_calloc(n_ids, sizeof *ids);
        M40_FAIL_IF(!ids, M40LLM_NO_MEMORY, "tokens of a text of %zu bytes", n_bytes);
        status = m40_tokenize(e->tokenizer, text, n_bytes, flags, ids, n_ids, &n, err);
        n_ids = n;
    }
    if (status == M40LLM_OK)
        status = m40_engine_submit(e, ids, n, options, out_id, err);
fail:
    m40_free(ids);
    return status;
}

/* NULL: there is none, or it was forgotten. Under the lock. */
static struct m40_request *find_request(struct m40_engine *e, uint64_t id)
{
    struct m40_request_place *place = &e->places[id % ID_PLACES];

    return id != 0 && id % ID_PLACES < e->info.n_requests && atomic_load(&place->id) == id ? place->request : NULL;
}

static struct timespec after_ms(int ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_nsec -= 1000000000L;
        t.tv_sec++;
    }
    return t;
}

/* The request's next event into *out. Under the lock. */
static m40llm_status take_event(struct m40_engine *e, struct m40_request *r, int timeout_ms, m40llm_event *out, m40llm_error *err)
{
    struct timespec until = after_ms(timeout_ms < 0 ? 0 : timeout_ms);

    while (!r->first && !r->is_ended) {
        if (timeout_ms < 0)
            pthread_cond_wait(&r->changed, &e->lock);
        else if (pthread_cond_timedwait(&r->changed, &e->lock, &until) == ETIMEDOUT && !r->first && !r->is_ended)
            return m40_fail(err, M40LLM_TIMED_OUT, "request %llu: no event within %d ms", (unsigned long long)r->id, timeout_ms);
    }
    m40_free(r->shown);
    r->shown = r->first;
    if (!r->first) {
        m40_request_end_event(r, out);
        return M40LLM_OK;
    }
    r->first = r->first->next;
    if (!r->first)
        r->last = NULL;
    *out = r->shown->event;
    return M40LLM_OK;
}

m40llm_status m40_engine_read(struct m40_engine *e, uint64_t id, int timeout_ms, m40llm_event *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_request *r;

    pthread_mutex_lock(&e->lock);
    r = find_request(e, id);
    M40_FAIL_IF(!r, M40LLM_NOT_FOUND, "there is no request %llu", (unsigned long long)id);
    M40_FAIL_IF(r->options.on_event, M40LLM_INVALID_ARGUMENT, "request %llu has a callback for its events", (unsigned long long)id);
    M40_TRY(take_event(e, r, timeout_ms, out, err));
fail:
    pthread_mutex_unlock(&e->lock);
    return status;
}

m40llm_status m40_engine_wait(struct m40_engine *e, uint64_t id, m40llm_result *result, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_request *r;

    pthread_mutex_lock(&e->lock);
    r = find_request(e, id);
    M40_FAIL_IF(!r, M40LLM_NOT_FOUND, "there is no request %llu", (unsigned long long)id);
    while (!r->is_ended)
        pthread_cond_wait(&r->changed, &e->lock);
    if (result)
        *result = r->result;
    if (r->error.code != M40LLM_OK)
        status = m40_fail(err, r->error.code, "%s", r->error.text);
    vacate(e, r);
fail:
    pthread_mutex_unlock(&e->lock);
    m40_request_free(r);
    return status;
}

void m40_engine_forget(struct m40_engine *e, uint64_t id)
{
    struct m40_request *r;
    bool is_ended = false;

    m40_engine_cancel(e, id);
    pthread_mutex_lock(&e->lock);
    r = find_request(e, id);
    if (r) {
        is_ended = r->is_ended;
        r->is_forgotten = true;
        atomic_store(&e->places[id % ID_PLACES].id, 0);
        if (is_ended)
            vacate(e, r);
    }
    pthread_mutex_unlock(&e->lock);
    if (is_ended)
        m40_request_free(r);
}

/* Ids of a place only grow, and so does cancel_id: a late cancel of an earlier request does not undo one of a later request. */
void m40_engine_cancel(struct m40_engine *e, uint64_t id)
{
    struct m40_request_place *place = &e->places[id % ID_PLACES];
    uint64_t before;

    if (id == 0 || id % ID_PLACES >= e->info.n_requests || atomic_load(&place->id) != id)
        return;
    before = atomic_load(&place->cancel_id);
    while (before < id && !atomic_compare_exchange_weak(&place->cancel_id, &before, id))
        ;
}
