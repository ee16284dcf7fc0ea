/* One step: the scheduler's plan becomes a batch; the rows whose logits are wanted come back, or the tokens that the backend chose; events are told. Which rows share a step changes no bit of any of
 * them (docs/numerics.md). */
#include "engine/engine_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/embedding.h"
#include "engine/logprobs.h"

#include <math.h>
#include <string.h>

/* ---- statistics ---- */

static void count_value(m40llm_histogram *h, uint64_t value, uint64_t unit)
{
    uint32_t i = 0;

    while (i + 1 < M40LLM_HISTOGRAM_BUCKETS && value > unit << i)
        i++;
    h->counts[i]++;
    h->sum += value;
}

static void count_time(m40llm_histogram *h, uint64_t ns)
{
    count_value(h, ns, 100000);
}

/* ---- events and ends ---- */

void m40_engine_tell(struct m40_engine *e, struct m40_request *r, const m40llm_event *event)
{
    struct m40_event_node *node;

    if (r->options.on_event) {
        r->options.on_event(r->options.user, event);
        return;
    }
    pthread_mutex_lock(&e->lock);
    node = m40_event_take_node(&e->event_pool, event);
    pthread_mutex_unlock(&e->lock);
    node = m40_event_fill(node, event);
    if (!node && r->error.code == M40LLM_OK)
        m40_fail(&r->error, M40LLM_NO_MEMORY, "request %llu: no memory for an event", (unsigned long long)r->id);
    if (!node)
        return;
    pthread_mutex_lock(&e->lock);
    m40_event_append(&r->events, node);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&e->lock);
}

static void leave_active(struct m40_engine *e, struct m40_request *r)
{
    *r->link = r->next;
    if (r->next)
        r->next->link = r->link;
    r->next = e->ending;
    e->ending = r;
}

/* What its choices have come to. */
static void sum_up(struct m40_request *r)
{
    const struct m40_sequence *first = &r->choices[0], *last = first;
    m40llm_result result = {.struct_size = sizeof result, .finish = r->error.code == M40LLM_OK ? first->finish : M40LLM_FINISH_ERROR};

    for (uint32_t i = 0; i < r->options.n_choices; i++) {
        const struct m40_sequence *s = &r->choices[i];

        result.n_generated += s->n_generated;
        result.n_preemptions += s->n_preemptions;
        if (i == 0 || r->pooling) { /* answers have one prompt */
            result.n_prompt += s->n_prompt;
            result.n_cached += s->n_cached;
        }
        if (r->pooling && s->first_token_ns > last->first_token_ns)
            last = s;
    }
    result.queue_ns = first->started_ns ? first->started_ns - r->submitted_ns : 0;
    result.prefill_ns = first->started_ns && last->first_token_ns ? last->first_token_ns - first->started_ns : 0;
    result.decode_ns = first->last_token_ns - first->first_token_ns;
    r->result = result;
}

static void end_choice(struct m40_engine *e, struct m40_sequence *s, m40llm_finish finish, struct m40_str text)
{
    struct m40_request *r = s->request;

    m40_scheduler_remove(&e->scheduler, s);
    s->finish = finish;
    m40_engine_tell(e, r,
                    &(m40llm_event){.struct_size = sizeof(m40llm_event),
                                    .type = M40LLM_EVENT_FINISH,
                                    .id = r->id,
                                    .choice = s->choice,
                                    .finish = finish,
                                    .text = text.data,
                                    .n_text = text.n_bytes});
    if (--r->n_left > 0)
        return;
    sum_up(r);
    e->working.n_ended[r->result.finish]++;
    leave_active(e, r);
}

/* Text that was held back comes with the end. */
static void flush_and_end(struct m40_engine *e, struct m40_sequence *s, m40llm_finish finish)
{
    struct m40_request *r = s->request;
    struct m40_str text = {"", 0};
    m40llm_error *err = r->error.code == M40LLM_OK ? &r->error : NULL;

    if (finish != M40LLM_FINISH_ERROR)
        m40_answer_flush(&s->answer, &text, err);
    end_choice(e, s, finish, text);
}

void m40_engine_end_request(struct m40_engine *e, struct m40_request *r, m40llm_finish finish)
{
    uint32_t n = r->options.n_choices;

    for (uint32_t i = 0; i < n; i++)
        if (r->choices[i].state != M40_SEQUENCE_ENDED)
            flush_and_end(e, &r->choices[i], finish);
}

/* ---- the batch ---- */

static void add_rows(struct m40_engine *e, struct m40_batch *batch, struct m40_sequence *s, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        uint32_t pos = s->n_evaluated + k, row = batch->n_tokens++;

        e->ids[row] = m40_sequence_token(s, pos);
        e->pos[row] = (int32_t)pos;
        e->slot[row] = (int32_t)s->slot;
        if (s->request->pooling) {
            batch->wants_hidden = true;
        } else if (pos + 1 == s->n_tokens || (s->all_logits && pos >= s->n_seen)) {
            e->row_owner[batch->n_logits] = s;
            e->logit_rows[batch->n_logits++] = (int32_t)row;
        }
    }
}

static void make_batch(struct m40_engine *e, struct m40_batch *batch, uint64_t now)
{
    *batch = (struct m40_batch){.ids = e->ids, .pos = e->pos, .slot = e->slot, .logit_rows = e->logit_rows, .pages = e->scheduler.page_table};
    for (uint32_t i = 0; i < e->scheduler.n_items; i++) {
        struct m40_plan_item *item = &e->scheduler.items[i];

        if (item->sequence->started_ns == 0)
            item->sequence->started_ns = now;
        add_rows(e, batch, item->sequence, item->n_rows);
    }
}

/* ---- who chooses: the backend wherever it can, so that a token and not a row of logits comes back ---- */

static bool forbids_ends(const struct m40_engine *e, const struct m40_sequence *s)
{
    const m40llm_request_options *o = &s->request->options;

    return s->n_generated < o->n_min_tokens && (o->n_stop_tokens > 0 || (e->n_end_ids > 0 && !o->ignore_end));
}

static bool needs_logits(const struct m40_engine *e, const struct m40_sequence *s)
{
    return s->request->options.on_logits || s->request->options.logprobs || forbids_ends(e, s) || !m40_sampler_is_plain(&s->sampler);
}

/* What the backend is to do with the step's logits: nothing, where all have to come back. */
static enum m40_step_end choose_end(const struct m40_engine *e, const struct m40_batch *batch)
{
    enum m40_step_end end = M40_STEP_LOGITS;

    for (uint32_t i = 0; i < batch->n_logits; i++)
        if (!needs_logits(e, e->row_owner[i]))
            end = end == M40_STEP_SAMPLE || !m40_sampler_is_argmax(&e->row_owner[i]->sampler) ? M40_STEP_SAMPLE : M40_STEP_ARGMAX;
    return end;
}

/* The parameters of every row; a row whose logits come back is given the cheapest. */
static void set_sampling(struct m40_engine *e, const struct m40_batch *batch)
{
    for (uint32_t i = 0; i < batch->n_logits; i++) {
        const struct m40_sequence *s = e->row_owner[i];

        e->sampling[i] = needs_logits(e, s) ? (struct m40_sample_row){.top_p = 1} : m40_sampler_row(&s->sampler, s->choice, s->n_tokens);
    }
}

/* The logits of those rows that need them, neighbours together. */
static m40llm_status read_needed_logits(struct m40_engine *e, const struct m40_batch *batch, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (uint32_t i = 0, n; i < batch->n_logits; i += n + 1) {
        for (n = 0; i + n < batch->n_logits && needs_logits(e, e->row_owner[i + n]); n++)
            ;
        if (n > 0)
            M40_TRY(m40_forward_read_logits(e->forward, i, n, e->logits + (size_t)i * e->model->config.n_vocab, err));
    }
fail:
    return status;
}

/* ---- embeddings ---- */

static float *pooled_of(const struct m40_engine *e, const struct m40_sequence *s)
{
    return e->pooled + (size_t)s->slot * e->model->config.n_embd;
}

/* Hidden states of rows first .. first + n - 1 of the batch, which are the next n of the sequence. What was pre-empted begins anew. */
static m40llm_status pool_rows(struct m40_engine *e, const struct m40_sequence *s, uint32_t first, uint32_t n, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_pooling pooling = s->request->pooling;
    uint32_t is_end = s->n_evaluated + n == s->n_tokens;

    for (uint32_t k = pooling == M40LLM_POOLING_LAST ? n - is_end : 0, n_read; k < n; k += n_read) {
        n_read = n - k < M40_HIDDEN_ROWS ? n - k : M40_HIDDEN_ROWS;
        M40_TRY(m40_forward_read_hidden(e->forward, first + k, n_read, e->hidden, err));
        m40_embedding_add(pooling, pooled_of(e, s), e->hidden, s->n_evaluated + k, n_read, e->model->config.n_embd);
    }
fail:
    return status;
}

static m40llm_status pool_all(struct m40_engine *e, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t row = 0;

    for (uint32_t i = 0; i < e->scheduler.n_items; row += e->scheduler.items[i++].n_rows) {
        const struct m40_plan_item *item = &e->scheduler.items[i];

        if (item->sequence->request->pooling)
            M40_TRY(pool_rows(e, item->sequence, row, item->n_rows, err));
    }
fail:
    return status;
}

/* ---- running it ---- */

static m40llm_status run_batch(struct m40_engine *e, const struct m40_batch *batch, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    switch (choose_end(e, batch)) {
    case M40_STEP_LOGITS:
        M40_TRY(m40_forward_step(e->forward, batch, e->logits, err));
        return batch->wants_hidden ? pool_all(e, err) : M40LLM_OK;
    case M40_STEP_ARGMAX:
        M40_TRY(m40_forward_step_greedy(e->forward, batch, e->chosen, err));
        break;
    case M40_STEP_SAMPLE:
        set_sampling(e, batch);
        M40_TRY(m40_forward_step_sample(e->forward, batch, e->sampling, e->chosen, err));
        break;
    }
    M40_TRY(read_needed_logits(e, batch, err));
    if (batch->wants_hidden)
        M40_TRY(pool_all(e, err));
fail:
    return status;
}

/* ---- what the step means for its sequences ---- */

/* Of the row that came back; with a copy of it where it is needed unchanged afterwards. */
static int32_t choose_on_host(struct m40_engine *e, struct m40_sequence *s, float *logits)
{
    const m40llm_request_options *o = &s->request->options;

    if (forbids_ends(e, s)) {
        for (size_t i = 0; i < e->n_end_ids && !o->ignore_end; i++)
            logits[e->end_ids[i]] = -INFINITY;
        for (size_t i = 0; i < o->n_stop_tokens; i++)
            logits[o->stop_tokens[i]] = -INFINITY;
    }
    return m40_sampler_choose(&s->sampler, logits, &(struct m40_history){s->prompt, s->generated, s->n_prompt, s->n_tokens - s->n_prompt}, s->choice,
                              s->n_tokens);
}

/* The token of a row, and what options.logprobs asks for in *event. top: [M40LLM_MAX_TOP_LOGPROBS]. */
static int32_t choose(struct m40_engine *e, struct m40_sequence *s, uint32_t row, m40llm_event *event, m40llm_token_logprob *top)
{
    const m40llm_request_options *o = &s->request->options;
    uint32_t n_vocab = e->model->config.n_vocab;
    float *logits = e->logits + (size_t)row * n_vocab;
    double offset;
    int32_t id;

    if (!needs_logits(e, s))
        return e->chosen[row];
    if (!o->logprobs)
        return choose_on_host(e, s, logits);
    memcpy(e->scratch, logits, n_vocab * sizeof *logits);
    offset = m40_logprobs_offset(logits, n_vocab);
    m40_logprobs_top(logits, n_vocab, offset, top, o->n_top_logprobs);
    id = choose_on_host(e, s, e->scratch);
    event->logprob = m40_logprob(logits[id], offset);
    event->n_top = o->n_top_logprobs;
    event->top = top;
    return id;
}

static void note_time(struct m40_engine *e, struct m40_sequence *s, uint64_t now)
{
    if (s->first_token_ns == 0) {
        s->first_token_ns = now;
        if (s->request->options.n_max_tokens > 0)
            count_time(&e->working.first_token_times, now - s->request->submitted_ns);
    } else {
        count_time(&e->working.token_times, now - s->last_token_ns);
    }
    s->last_token_ns = now;
}

/* A new token for a sequence whose last one has the logits of `row`. */
static void advance(struct m40_engine *e, struct m40_sequence *s, uint32_t row, uint64_t now)
{
    struct m40_request *r = s->request;
    m40llm_event event = {.struct_size = sizeof event, .type = M40LLM_EVENT_TOKEN, .id = r->id, .choice = s->choice, .pos = s->n_tokens};
    m40llm_token_logprob top[M40LLM_MAX_TOP_LOGPROBS];
    m40llm_error *err = r->error.code == M40LLM_OK ? &r->error : NULL;
    struct m40_str text;
    bool is_stopped;

    note_time(e, s, now);
    if (r->options.n_max_tokens == 0) { /* only the prompt was to be evaluated */
        end_choice(e, s, M40LLM_FINISH_LENGTH, (struct m40_str){"", 0});
        return;
    }
    event.token = choose(e, s, row, &event, top);
    if (m40_request_is_stop_token(r, e->tokenizer, event.token)) {
        flush_and_end(e, s, M40LLM_FINISH_STOP);
        return;
    }
    m40_sequence_push(s, event.token);
    s->n_generated++;
    e->working.n_generated_tokens++;
    if (m40_answer_push(&s->answer, event.token, s->n_generated >= r->options.n_min_tokens, &text, &is_stopped, err) != M40LLM_OK)
        return; /* the request has its error: it ends with the step */
    event.text = text.data;
    event.n_text = text.n_bytes;
    m40_engine_tell(e, r, &event);
    if (is_stopped)
        end_choice(e, s, M40LLM_FINISH_STOP, (struct m40_str){"", 0});
    else if (s->n_generated == r->options.n_max_tokens || s->n_tokens > e->info.n_ctx)
        flush_and_end(e, s, M40LLM_FINISH_LENGTH);
}

/* All of its tokens are evaluated. */
static void finish_embedding(struct m40_engine *e, struct m40_sequence *s, uint64_t now)
{
    struct m40_request *r = s->request;
    m40llm_event event = {.struct_size = sizeof event, .type = M40LLM_EVENT_EMBEDDING, .id = r->id, .choice = s->choice};

    note_time(e, s, now);
    event.embedding = pooled_of(e, s);
    event.n_embedding = e->model->config.n_embd;
    m40_embedding_finish(r->pooling, pooled_of(e, s), s->n_prompt, e->model->config.n_embd);
    m40_engine_tell(e, r, &event);
    end_choice(e, s, M40LLM_FINISH_LENGTH, (struct m40_str){"", 0});
}

void m40_engine_tell_prefill(struct m40_engine *e, struct m40_sequence *s)
{
    struct m40_request *r = s->request;
    uint32_t n_done = s->n_evaluated < s->n_prompt ? s->n_evaluated : s->n_prompt;

    if (s->choice > 0 || n_done <= r->n_prefill_told)
        return;
    r->n_prefill_told = n_done;
    m40_engine_tell(e, r, &(m40llm_event){.struct_size = sizeof(m40llm_event), .type = M40LLM_EVENT_PREFILL, .id = r->id, .n_done = n_done});
}

/* Logits come in the order of the plan's items. */
static void take_results(struct m40_engine *e, const struct m40_batch *batch, uint64_t now)
{
    uint32_t next = 0, n_vocab = e->model->config.n_vocab;

    for (uint32_t i = 0; i < e->scheduler.n_items; i++) {
        struct m40_sequence *s = e->scheduler.items[i].sequence;
        uint32_t first = next;

        for (; next < batch->n_logits && e->row_owner[next] == s; next++)
            if (s->request->options.on_logits)
                s->request->options.on_logits(s->request->options.user, (uint32_t)e->pos[e->logit_rows[next]], e->logits + (size_t)next * n_vocab,
                                              n_vocab);
        m40_engine_tell_prefill(e, s);
        if (s->request->pooling && s->n_evaluated == s->n_tokens)
            finish_embedding(e, s, now);
        else if (next > first && s->n_evaluated == s->n_tokens)
            advance(e, s, next - 1, now);
    }
}

/* A step that failed takes all its requests with it: the cache's state is not known. */
static void fail_all(struct m40_engine *e, const m40llm_error *error)
{
    for (uint32_t i = 0; i < e->scheduler.n_items; i++)
        if (e->scheduler.items[i].sequence->request->error.code == M40LLM_OK)
            e->scheduler.items[i].sequence->request->error = *error;
}

static void end_if_failed(struct m40_engine *e, struct m40_request *r)
{
    if (r->error.code == M40LLM_OK)
        return;
    m40_engine_settle(e, true); /* another of its choices may be in the lane */
    m40_engine_end_request(e, r, M40LLM_FINISH_ERROR);
}

/* Nothing fails outside of steps. */
static void end_failed(struct m40_engine *e)
{
    for (uint32_t i = 0; i < e->scheduler.n_items; i++)
        end_if_failed(e, e->scheduler.items[i].sequence->request);
    for (uint32_t i = 0; i < e->n_lane_failed; i++)
        end_if_failed(e, e->scheduler.lane_items[i].sequence->request);
    e->n_lane_failed = 0;
}

/* false: only the lane has something to do, and has done it. */
static bool plan(struct m40_engine *e)
{
    m40_scheduler_plan(&e->scheduler);
    if (!e->is_lane_busy && e->scheduler.n_lane_items > 0)
        m40_engine_start_lane(e);
    if (e->scheduler.n_items > 0) {
        e->lane_had_company = true;
        return true;
    }
    m40_engine_settle(e, true);
    end_failed(e);
    return false;
}

void m40_engine_step(struct m40_engine *e)
{
    uint64_t start = m40_now_ns(), computed;
    struct m40_batch batch;
    m40llm_error error;

    m40_engine_settle(e, m40_scheduler_may_preempt(&e->scheduler));
    if (!e->active || !plan(e)) /* a lane that failed may have been the last there was */
        return;
    make_batch(e, &batch, start);
    if (run_batch(e, &batch, &error) == M40LLM_OK) {
        computed = m40_now_ns();
        m40_scheduler_done(&e->scheduler, computed - start);
        take_results(e, &batch, computed);
    } else {
        fail_all(e, &error);
    }
    end_failed(e);
    computed = m40_now_ns() - start;
    e->working.n_steps++;
    e->working.step_ns += computed;
    count_time(&e->working.step_times, computed);
    count_value(&e->working.batch_rows, batch.n_tokens, 1);
    if (e->scheduler.n_answer_rows > 0 && e->scheduler.n_prompt_rows > 0) {
        e->working.n_mixed_steps++;
        e->working.n_mixed_prompt_tokens += e->scheduler.n_prompt_rows;
        e->working.mixed_step_ns += computed;
    }
    m40_log(&e->model->backend->logger, M40LLM_LOG_TRACE, "step %llu: %u rows, %u logits, %.3f ms", (unsigned long long)e->working.n_steps,
            batch.n_tokens, batch.n_logits, (double)computed * 1e-6);
}
