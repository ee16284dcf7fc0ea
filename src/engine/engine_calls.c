#define _POSIX_C_SOURCE 200809L
/* What any thread may call while the engine runs. */
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_internal.h"

#include <errno.h>
#include <time.h>

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

/* An error names the text. */
static m40llm_status check_texts(const struct m40_engine *e, const int32_t *ids, const size_t *n_ids, size_t n_texts, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error why = {0};

    M40_FAIL_IF(n_texts < 1 || n_texts > M40LLM_MAX_EMBED_TEXTS, M40LLM_INVALID_ARGUMENT, "embeddings of %zu texts: from 1 to %d are possible",
                n_texts, M40LLM_MAX_EMBED_TEXTS);
    for (size_t i = 0, at = 0; i < n_texts; at += n_ids[i++]) {
        status = check_prompt(e, ids + at, n_ids[i], &why);
        M40_FAIL_IF(status != M40LLM_OK, status, "text %zu of %zu: %.200s", i + 1, n_texts, why.text);
    }
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
        id = r->id = ++e->n_accepted * M40_ID_PLACES + place;
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

m40llm_status m40_engine_submit_embeddings(struct m40_engine *e, const int32_t *ids, const size_t *n_ids, size_t n_texts,
                                           const m40llm_embed_options *options, uint64_t *out_id, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_request *r;
    uint32_t place = 0;

    *out_id = 0;
    M40_TRY(check_texts(e, ids, n_ids, n_texts, err));
    M40_TRY(reserve_place(e, &place, err));
    status = m40_request_new_embeddings(&r, e->info.n_ctx, ids, n_ids, (uint32_t)n_texts, options, err);
    *out_id = fill_place(e, place, r);
fail:
    return status;
}

m40llm_status m40_engine_submit_text(struct m40_engine *e, const char *text, size_t n_bytes, unsigned flags, const m40llm_request_options *options,
                                     uint64_t *out_id, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n_ids = n_bytes + 8, n, n_least;
    int32_t *ids = NULL;

    *out_id = 0;
    M40_FAIL_IF(!e->tokenizer, M40LLM_NO_TOKENIZER, "a text was submitted, but the engine has no tokenizer");
    n_least = n_bytes / m40_tokenizer_most_bytes(e->tokenizer); /* tokenizing takes time and memory in proportion to the text */
    M40_FAIL_IF(n_least > e->info.n_ctx, M40LLM_CONTEXT_FULL, "the prompt has %zu bytes, at least %zu tokens, %zu more than the context of %u",
                n_bytes, n_least, n_least - e->info.n_ctx, e->info.n_ctx);
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
    struct m40_request_place *place = &e->places[id % M40_ID_PLACES];

    return id != 0 && id % M40_ID_PLACES < e->info.n_requests && atomic_load(&place->id) == id ? place->request : NULL;
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
    const m40llm_event *event;

    while (!r->events.first && !r->is_ended) {
        if (timeout_ms < 0)
            pthread_cond_wait(&r->changed, &e->lock);
        else if (pthread_cond_timedwait(&r->changed, &e->lock, &until) == ETIMEDOUT && !r->events.first && !r->is_ended)
            return m40_fail(err, M40LLM_TIMED_OUT, "request %llu: no event within %d ms", (unsigned long long)r->id, timeout_ms);
    }
    event = m40_event_take(&r->events, &e->event_pool);
    if (event)
        *out = *event;
    else
        m40_request_end_event(r, out);
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
    m40_engine_vacate(e, r);
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
        atomic_store(&e->places[id % M40_ID_PLACES].id, 0);
        if (is_ended)
            m40_engine_vacate(e, r);
    }
    pthread_mutex_unlock(&e->lock);
    if (is_ended)
        m40_request_free(r);
}

/* Ids of a place only grow, and so does cancel_id: a late cancel of an earlier request does not undo one of a later request. */
void m40_engine_cancel(struct m40_engine *e, uint64_t id)
{
    struct m40_request_place *place = &e->places[id % M40_ID_PLACES];
    uint64_t before;

    if (id == 0 || id % M40_ID_PLACES >= e->info.n_requests || atomic_load(&place->id) != id)
        return;
    before = atomic_load(&place->cancel_id);
    while (before < id && !atomic_compare_exchange_weak(&place->cancel_id, &before, id))
        ;
    atomic_fetch_add(&e->n_cancels, 1);
}
