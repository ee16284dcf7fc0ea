/* One step: every sequence whose prompt is done gives one row (its newest token); prompts fill the rest of the batch, oldest request first. The rows whose logits are
 * wanted come back, tokens are chosen, callbacks are called. Which rows share a step changes no bit of any of them (docs/numerics.md). */
#include "engine/engine.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/sequence.h"

#include <stdio.h>

enum {
    DEFAULT_CTX = 8192,
    DEFAULT_CHUNK = 512,
    MAX_SEQUENCES = 1024,
    LOGITS_BYTES = 32 << 20, /* of logits in one step, beyond one row for each sequence */
};

struct m40_engine {
    struct m40_model *model;
    const struct m40_tokenizer *tokenizer;
    struct m40_forward *forward;
    struct m40_forward_limits limits;
    m40llm_engine_info info;
    struct m40_page_pool pool;
    struct m40_sequence *sequences; /* [n_sequences] */
    uint64_t next_id;
    int32_t *page_table;             /* [n_sequences][n_slot_pages] */
    int32_t *ids, *pos, *slot;       /* [limits.n_tokens]: the batch being made */
    int32_t *logit_rows;             /* [limits.n_logits] */
    float *logits;                   /* [limits.n_logits][n_vocab] */
    struct m40_sample_row *sampling; /* [limits.n_logits]: how the backend is to choose */
    int32_t *chosen;                 /* [limits.n_logits]: what it chose */
    m40llm_stats stats;
};

/* ---- opening ---- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

void m40_engine_limits(const struct m40_model_config *config, const m40llm_engine_options *options, struct m40_forward_limits *out)
{
    uint32_t n_sequences = or_default(options->n_sequences, 1);
    uint32_t n_chunk = or_default(options->n_chunk, DEFAULT_CHUNK);
    uint64_t n_rows = LOGITS_BYTES / ((uint64_t)config->n_vocab * sizeof(float));

    if (n_chunk > options->n_ctx)
        n_chunk = options->n_ctx;
    if (n_rows > n_chunk)
        n_rows = n_chunk;
    *out = (struct m40_forward_limits){
        .n_tokens = n_chunk + n_sequences,
        .n_logits = (uint32_t)(n_rows ? n_rows : 1) + n_sequences,
        .n_slots = n_sequences,
        .n_slot_pages = (options->n_ctx + M40_KV_PAGE - 1) / M40_KV_PAGE,
        .kv_type = options->kv_type,
    };
    out->n_pages = out->n_slot_pages * n_sequences;
}

static uint64_t memory_for_ctx(const struct m40_model_config *config, m40llm_engine_options options, uint32_t n_ctx, uint64_t *kv, uint64_t *other)
{
    struct m40_forward_limits limits;

    options.n_ctx = n_ctx;
    m40_engine_limits(config, &options, &limits);
    m40_forward_memory(config, &limits, kv, other);
    return *kv + *other;
}

/* The largest context, in steps of 256, whose memory fits; 0: not even the smallest. */
static uint32_t largest_ctx_that_fits(const struct m40_model_config *config, const m40llm_engine_options *options, uint32_t most, uint64_t available)
{
    uint64_t kv, other;

    if (memory_for_ctx(config, *options, most, &kv, &other) <= available)
        return most;
    for (uint32_t n = (most - 1) / 256 * 256; n > 0; n -= 256)
        if (memory_for_ctx(config, *options, n, &kv, &other) <= available)
            return n;
    return 0;
}

static m40llm_status choose_ctx(struct m40_engine *e, m40llm_engine_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_model_config *config = &e->model->config;
    uint32_t asked = options->n_ctx, most = asked, fits;
    m40llm_device_info device;
    uint64_t available, kv, other;

    snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, "asked for");
    M40_FAIL_IF(asked > config->n_ctx_train, M40LLM_INVALID_ARGUMENT, "a context of %u tokens was asked for: the model was trained for %u", asked,
                config->n_ctx_train);
    if (asked == 0) {
        most = config->n_ctx_train < DEFAULT_CTX ? config->n_ctx_train : DEFAULT_CTX;
        snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, config->n_ctx_train <= DEFAULT_CTX ? "the model's" : "the default");
    }
    e->model->backend->ops.get_info(e->model->backend, &device);
    available = device.memory_free_bytes ? device.memory_free_bytes - device.memory_free_bytes / 32 : UINT64_MAX;
    fits = largest_ctx_that_fits(config, options, most, available);
    M40_FAIL_IF(fits < most && (asked || fits == 0), M40LLM_OUT_OF_DEVICE_MEMORY,
                "a context of %u tokens needs %llu MiB beside the weights, %llu MiB are free: at most %u tokens fit", most,
                (unsigned long long)(memory_for_ctx(config, *options, most, &kv, &other) >> 20), (unsigned long long)(available >> 20), fits);
    if (fits < most)
        snprintf(e->info.n_ctx_why, sizeof e->info.n_ctx_why, "what fits in memory");
    options->n_ctx = fits;
fail:
    return status;
}

static m40llm_status make_arrays(struct m40_engine *e, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_forward_limits *l = &e->limits;

    M40_TRY(m40_page_pool_init(&e->pool, l->n_pages, err));
    e->sequences = m40_calloc(l->n_slots, sizeof *e->sequences);
    e->page_table = m40_calloc((size_t)l->n_slots * l->n_slot_pages, sizeof *e->page_table);
    e->ids = m40_calloc(l->n_tokens, sizeof *e->ids);
    e->pos = m40_calloc(l->n_tokens, sizeof *e->pos);
    e->slot = m40_calloc(l->n_tokens, sizeof *e->slot);
    e->logit_rows = m40_calloc(l->n_logits, sizeof *e->logit_rows);
    e->sampling = m40_calloc(l->n_logits, sizeof *e->sampling);
    e->chosen = m40_calloc(l->n_logits, sizeof *e->chosen);
    e->logits = m40_calloc((size_t)l->n_logits * e->model->config.n_vocab, sizeof *e->logits);
    M40_FAIL_IF(!e->sequences || !e->page_table || !e->ids || !e->pos || !e->slot || !e->logit_rows || !e->logits || !e->sampling || !e->chosen,
                M40LLM_NO_MEMORY, "engine for %u sequences", l->n_slots);
    for (uint32_t i = 0; i < l->n_slots; i++)
        e->sequences[i].pages = e->page_table + (size_t)i * l->n_slot_pages;
fail:
    return status;
}

m40llm_status m40_engine_open(struct m40_engine **out, struct m40_model *model, const struct m40_tokenizer *tokenizer,
                              const m40llm_engine_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_engine_options options = *given;
    struct m40_engine *e = m40_calloc(1, sizeof *e);

    *out = NULL;
    M40_FAIL_IF(!e, M40LLM_NO_MEMORY, "engine");
    M40_FAIL_IF(options.n_sequences > MAX_SEQUENCES, M40LLM_INVALID_ARGUMENT, "%u sequences at once: at most %d", options.n_sequences, MAX_SEQUENCES);
    e->model = model;
    e->tokenizer = tokenizer;
    e->next_id = 1;
    M40_TRY(choose_ctx(e, &options, err));
    m40_engine_limits(&model->config, &options, &e->limits);
    M40_TRY(make_arrays(e, err));
    M40_TRY(m40_forward_open(&e->forward, model, &e->limits, err));
    e->info.n_ctx = options.n_ctx;
    e->info.n_sequences = e->limits.n_slots;
    e->info.n_chunk = e->limits.n_tokens - e->limits.n_slots;
    e->info.weight_bytes = model->weight_bytes;
    m40_forward_memory(&model->config, &e->limits, &e->info.kv_bytes, &e->info.other_bytes);
    m40_log(&model->backend->logger, M40LLM_LOG_INFO, "context %u tokens (%s), prefill chunk %u, KV cache %llu MiB, other buffers %llu MiB",
            e->info.n_ctx, e->info.n_ctx_why, e->info.n_chunk, (unsigned long long)(e->info.kv_bytes >> 20),
            (unsigned long long)(e->info.other_bytes >> 20));
    *out = e;
    return M40LLM_OK;
fail:
    m40_engine_close(&e);
    return status;
}

void m40_engine_close(struct m40_engine **engine)
{
    struct m40_engine *e = engine ? *engine : NULL;

    if (!e)
        return;
    *engine = NULL;
    m40_forward_close(&e->forward);
    for (uint32_t i = 0; e->sequences && i < e->limits.n_slots; i++)
        m40_sequence_forget(&e->sequences[i]);
    m40_page_pool_free(&e->pool);
    m40_free(e->sequences);
    m40_free(e->page_table);
    m40_free(e->ids);
    m40_free(e->pos);
    m40_free(e->slot);
    m40_free(e->logit_rows);
    m40_free(e->logits);
    m40_free(e->sampling);
    m40_free(e->chosen);
    m40_free(e);
}

void m40_engine_get_info(const struct m40_engine *e, m40llm_engine_info *out)
{
    *out = e->info;
}

void m40_engine_get_stats(const struct m40_engine *e, m40llm_stats *out)
{
    *out = e->stats;
    out->n_pages = e->pool.n_pages;
    out->n_pages_used = e->pool.n_used;
    out->n_pages_used_max = e->pool.n_used_max;
}

/* ---- requests ---- */

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

m40llm_status m40_engine_submit(struct m40_engine *e, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *options, uint64_t *out_id,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_sequence *s = NULL;

    *out_id = 0;
    M40_TRY(check_prompt(e, prompt, n_prompt, err));
    for (uint32_t i = 0; i < e->limits.n_slots && !s; i++)
        if (atomic_load(&e->sequences[i].id) == 0)
            s = &e->sequences[i];
    M40_FAIL_IF(!s, M40LLM_QUEUE_FULL, "%u requests are under way, which is all there is room for", e->limits.n_slots);
    M40_TRY(m40_sequence_start(s, e->next_id, prompt, n_prompt, e->info.n_ctx, e->model->config.n_vocab, options, err));
    *out_id = e->next_id++;
    e->stats.n_requests++;
fail:
    return status;
}

void m40_engine_cancel(struct m40_engine *e, uint64_t id)
{
    for (uint32_t i = 0; i < e->limits.n_slots; i++)
        if (id != 0 && atomic_load(&e->sequences[i].id) == id)
            atomic_store(&e->sequences[i].cancel_id, id);
}

/* ---- the step ---- */

static void fail_sequence(struct m40_engine *e, struct m40_sequence *s, const m40llm_error *error)
{
    s->error = *error;
    m40_sequence_end(s, &e->pool, M40LLM_FINISH_ERROR);
}

/* Adds rows for tokens n_evaluated .. n_evaluated + n - 1 of slot i. */
static void add_rows(struct m40_engine *e, struct m40_batch *batch, uint32_t i, uint32_t n)
{
    const struct m40_sequence *s = &e->sequences[i];

    for (uint32_t k = 0; k < n; k++) {
        uint32_t pos = s->n_evaluated + k, row = batch->n_tokens++;

        e->ids[row] = s->tokens[pos];
        e->pos[row] = (int32_t)pos;
        e->slot[row] = (int32_t)i;
        if (s->options.all_logits || pos + 1 == s->n_tokens)
            e->logit_rows[batch->n_logits++] = (int32_t)row;
    }
}

/* What prompts may still add to a batch. One row of logits for every slot is set aside: it is for sequences that want only their last token's. */
struct prompt_budget {
    uint32_t n_rows, n_all_logits;
};

/* How many rows a prompt may have in this batch; taken from the budget. */
static uint32_t prompt_rows(const struct m40_sequence *s, struct prompt_budget *budget)
{
    uint32_t n = s->n_tokens - s->n_evaluated;

    if (n > budget->n_rows)
        n = budget->n_rows;
    if (s->options.all_logits) {
        if (n > budget->n_all_logits)
            n = budget->n_all_logits;
        budget->n_all_logits -= n;
    }
    budget->n_rows -= n;
    return n;
}

static bool is_decoding(const struct m40_sequence *s)
{
    return s->n_evaluated >= s->n_prompt;
}

/* Slots in the order of their requests; returns how many run. */
static uint32_t running_in_order(struct m40_engine *e, uint32_t *order)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < e->limits.n_slots; i++) {
        uint32_t k = n;

        if (!m40_sequence_is_running(&e->sequences[i]))
            continue;
        for (; k > 0 && atomic_load(&e->sequences[order[k - 1]].id) > atomic_load(&e->sequences[i].id); k--)
            order[k] = order[k - 1];
        order[k] = i;
        n++;
    }
    return n;
}

static void add_sequence(struct m40_engine *e, struct m40_batch *batch, uint32_t i, uint32_t n)
{
    struct m40_sequence *s = &e->sequences[i];
    m40llm_error error;

    if (n == 0)
        return;
    if (!m40_sequence_grow(s, &e->pool, s->n_evaluated + n)) {
        m40_fail(&error, M40LLM_CONTEXT_FULL, "no KV page is free for token %u", s->n_evaluated);
        fail_sequence(e, s, &error);
        return;
    }
    if (s->started_ns == 0)
        s->started_ns = m40_now_ns();
    add_rows(e, batch, i, n);
}

/* The rows of one step. */
static void make_batch(struct m40_engine *e, struct m40_batch *batch)
{
    uint32_t order[MAX_SEQUENCES], n = running_in_order(e, order);
    struct prompt_budget budget = {e->info.n_chunk, e->limits.n_logits - e->limits.n_slots};

    *batch = (struct m40_batch){.ids = e->ids, .pos = e->pos, .slot = e->slot, .logit_rows = e->logit_rows, .pages = e->page_table};
    for (uint32_t k = 0; k < n; k++)
        if (is_decoding(&e->sequences[order[k]]))
            add_sequence(e, batch, order[k], 1);
    for (uint32_t k = 0; k < n; k++)
        if (!is_decoding(&e->sequences[order[k]]))
            add_sequence(e, batch, order[k], prompt_rows(&e->sequences[order[k]], &budget));
}

/* ---- who chooses: the backend wherever it can, so that a token and not a row of logits comes back ---- */

static const struct m40_sequence *sequence_of(const struct m40_engine *e, const struct m40_batch *batch, uint32_t logit_row)
{
    return &e->sequences[batch->slot[batch->logit_rows[logit_row]]];
}

static bool needs_logits(const struct m40_sequence *s)
{
    return s->options.on_logits || !m40_sampler_is_plain(&s->sampler);
}

/* What the backend is to do with the step's logits: nothing, where all have to come back. */
static enum m40_step_end choose_end(const struct m40_engine *e, const struct m40_batch *batch)
{
    enum m40_step_end end = M40_STEP_LOGITS;

    for (uint32_t i = 0; i < batch->n_logits; i++) {
        const struct m40_sequence *s = sequence_of(e, batch, i);

        if (!needs_logits(s))
            end = end == M40_STEP_SAMPLE || !m40_sampler_is_argmax(&s->sampler) ? M40_STEP_SAMPLE : M40_STEP_ARGMAX;
    }
    return end;
}

/* The parameters of every row; a row whose logits come back is given the cheapest. */
static void set_sampling(struct m40_engine *e, const struct m40_batch *batch)
{
    for (uint32_t i = 0; i < batch->n_logits; i++) {
        const struct m40_sequence *s = sequence_of(e, batch, i);

        e->sampling[i] = needs_logits(s) ? (struct m40_sample_row){.top_p = 1} : m40_sampler_row(&s->sampler, 0, s->n_tokens);
    }
}

/* The logits of those rows that need them, neighbours together. */
static m40llm_status read_needed_logits(struct m40_engine *e, const struct m40_batch *batch, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (uint32_t i = 0, n; i < batch->n_logits; i += n + 1) {
        for (n = 0; i + n < batch->n_logits && needs_logits(sequence_of(e, batch, i + n)); n++)
            ;
        if (n > 0)
            M40_TRY(m40_forward_read_logits(e->forward, i, n, e->logits + (size_t)i * e->model->config.n_vocab, err));
    }
fail:
    return status;
}

static m40llm_status run_batch(struct m40_engine *e, const struct m40_batch *batch, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    switch (choose_end(e, batch)) {
    case M40_STEP_LOGITS:
        return m40_forward_step(e->forward, batch, e->logits, err);
    case M40_STEP_ARGMAX:
        M40_TRY(m40_forward_step_greedy(e->forward, batch, e->chosen, err));
        break;
    case M40_STEP_SAMPLE:
        set_sampling(e, batch);
        M40_TRY(m40_forward_step_sample(e->forward, batch, e->sampling, e->chosen, err));
        break;
    }
    M40_TRY(read_needed_logits(e, batch, err));
fail:
    return status;
}

/* A new token for a sequence whose last one has the logits of row `next`. */
static void advance(struct m40_engine *e, struct m40_sequence *s, uint32_t next)
{
    int32_t id;

    s->last_token_ns = m40_now_ns();
    if (s->first_token_ns == 0)
        s->first_token_ns = s->last_token_ns;
    if (s->options.n_max_tokens == 0) { /* only the prompt was to be evaluated */
        m40_sequence_end(s, &e->pool, M40LLM_FINISH_LENGTH);
        return;
    }
    if (!needs_logits(s))
        id = e->chosen[next];
    else
        id = m40_sampler_choose(&s->sampler, e->logits + (size_t)next * e->model->config.n_vocab, s->tokens, s->n_tokens, 0, s->n_tokens);
    if (e->tokenizer && !s->options.ignore_end && m40_tokenizer_is_end(e->tokenizer, id)) {
        m40_sequence_end(s, &e->pool, M40LLM_FINISH_STOP);
        return;
    }
    s->tokens[s->n_tokens++] = id;
    s->n_generated++;
    e->stats.n_generated_tokens++;
    if (s->options.on_token)
        s->options.on_token(s->options.user, id, s->n_tokens - 1);
    if (s->n_generated == s->options.n_max_tokens || s->n_tokens > e->info.n_ctx)
        m40_sequence_end(s, &e->pool, M40LLM_FINISH_LENGTH);
}

/* What a finished step means for its sequences. Each sequence's rows are contiguous in the batch. */
static void take_results(struct m40_engine *e, const struct m40_batch *batch)
{
    uint32_t next = 0, n_vocab = e->model->config.n_vocab;

    for (uint32_t row = 0; row < batch->n_tokens; row++) {
        struct m40_sequence *s = &e->sequences[batch->slot[row]];
        bool is_last = row + 1 == batch->n_tokens || batch->slot[row + 1] != batch->slot[row];
        bool was_prefill = s->n_evaluated < s->n_prompt;
        bool has_logits = next < batch->n_logits && batch->logit_rows[next] == (int32_t)row;
        float *logits = e->logits + (size_t)next * n_vocab;

        s->n_evaluated++;
        e->stats.n_prompt_tokens += was_prefill;
        if (has_logits) {
            next++;
            if (s->options.on_logits)
                s->options.on_logits(s->options.user, (uint32_t)batch->pos[row], logits, n_vocab);
        }
        if (is_last && was_prefill && s->options.on_prefill)
            s->options.on_prefill(s->options.user, s->n_evaluated, s->n_prompt);
        if (is_last && s->n_evaluated == s->n_tokens)
            advance(e, s, next - 1);
    }
}

static void end_cancelled(struct m40_engine *e)
{
    for (uint32_t i = 0; i < e->limits.n_slots; i++) {
        struct m40_sequence *s = &e->sequences[i];

        if (m40_sequence_is_running(s) && atomic_load(&s->cancel_id) == atomic_load(&s->id))
            m40_sequence_end(s, &e->pool, M40LLM_FINISH_CANCELLED);
    }
}

/* A step that failed takes all its sequences with it: the cache's state is not known. */
static void run_step(struct m40_engine *e)
{
    uint64_t start = m40_now_ns();
    struct m40_batch batch;
    m40llm_status status;
    m40llm_error error;

    end_cancelled(e);
    make_batch(e, &batch);
    if (batch.n_tokens == 0)
        return;
    status = run_batch(e, &batch, &error);
    if (status == M40LLM_OK)
        take_results(e, &batch);
    else
        for (uint32_t row = 0; row < batch.n_tokens; row++)
            if (e->sequences[batch.slot[row]].finish == M40LLM_FINISH_NONE)
                fail_sequence(e, &e->sequences[batch.slot[row]], &error);
    e->stats.n_steps++;
    e->stats.step_ns += m40_now_ns() - start;
    m40_log(&e->model->backend->logger, M40LLM_LOG_TRACE, "step %llu: %u rows, %u logits, %.3f ms", (unsigned long long)e->stats.n_steps,
            batch.n_tokens, batch.n_logits, (double)(m40_now_ns() - start) * 1e-6);
}

m40llm_status m40_engine_wait(struct m40_engine *e, uint64_t id, m40llm_result *result, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_sequence *s = NULL;

    for (uint32_t i = 0; i < e->limits.n_slots && id != 0; i++)
        if (atomic_load(&e->sequences[i].id) == id)
            s = &e->sequences[i];
    M40_FAIL_IF(!s, M40LLM_NOT_FOUND, "there is no request %llu", (unsigned long long)id);
    while (s->finish == M40LLM_FINISH_NONE)
        run_step(e);
    if (result)
        *result = (m40llm_result){
            .finish = s->finish,
            .n_prompt = s->n_prompt,
            .n_generated = s->n_generated,
            .prefill_ns = s->first_token_ns ? s->first_token_ns - s->started_ns : 0,
            .decode_ns = s->last_token_ns - s->first_token_ns,
        };
    if (s->finish == M40LLM_FINISH_ERROR)
        status = m40_fail(err, s->error.code, "%s", s->error.text);
    m40_log(&e->model->backend->logger, M40LLM_LOG_DEBUG, "request %llu: %u prompt tokens in %.1f ms, %u generated in %.1f ms",
            (unsigned long long)id, s->n_prompt, s->first_token_ns ? (double)(s->first_token_ns - s->started_ns) * 1e-6 : 0.0, s->n_generated,
            (double)(s->last_token_ns - s->first_token_ns) * 1e-6);
    m40_sequence_forget(s);
fail:
    return status;
}
