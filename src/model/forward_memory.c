/* Sizes, allocation and release of what a forward pass works in. */
#include "model/forward.h"

#include "backend/sample.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    MAX_STEP_TOKENS = (1 << 16) - 1, /* a grid has no more rows */
    MAX_SLOTS = 1 << 16,
    MAX_CTX = 1 << 24,
};

/* a * b, saturating, so that estimates for absurd limits are absurd and not small. */
static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;

    return m40_mul_u64(a, b, &product) ? product : UINT64_MAX;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;

    return m40_add_u64(a, b, &sum) ? sum : UINT64_MAX;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Weights of the largest matrix, stacked or not. */
static uint64_t largest_matrix(const struct m40_model_config *c)
{
    uint64_t qkv = (c->n_heads + 2 * (uint64_t)c->n_kv_heads) * c->head_dim, rows = 2 * (uint64_t)max_u32(c->n_ff, c->n_expert_ff);

    if (qkv > rows)
        rows = qkv;
    if (max_u32(c->n_vocab, c->n_experts) > rows)
        rows = max_u32(c->n_vocab, c->n_experts);
    return rows * c->n_embd;
}

void m40_forward_sizes(struct m40_forward_sizes *out, const struct m40_model_config *config, const struct m40_forward_limits *limits)
{
    uint64_t q_bytes = 4 * (uint64_t)config->n_heads * config->head_dim, kv_bytes = 4 * (uint64_t)config->n_kv_heads * config->head_dim;
    uint64_t page_bytes = 2 * M40_KV_PAGE * (uint64_t)config->n_kv_heads * config->head_dim * m40_kv_element_bytes(limits->kv_type);
    uint64_t attention_bytes = 2 * (q_bytes + kv_bytes), ff_bytes = config->n_experts ? 0 : 12 * (uint64_t)config->n_ff;
    uint32_t q_dim = config->n_heads * config->head_dim, qkv_dim = q_dim + 2 * config->n_kv_heads * config->head_dim;
    struct m40_mixture_places mixture;

    out->kv_layer = times(limits->n_pages, page_bytes);
    out->kv_pool = times(out->kv_layer, config->n_layers);
    out->rope_table = times(times(limits->n_slot_pages, M40_KV_PAGE), 4 * (uint64_t)config->rope.n_rot);
    out->x = times(limits->n_tokens, 4 * (uint64_t)config->n_embd);
    out->work = times(limits->n_tokens, attention_bytes > ff_bytes ? attention_bytes : ff_bytes);
    if (config->n_experts) {
        m40_mixture_places(&mixture, config, limits->n_tokens);
        out->work = mixture.n_bytes > out->work ? mixture.n_bytes : out->work;
    }
    out->logits = times(limits->n_logits, 4 * (uint64_t)config->n_vocab + 4);
    out->inputs = 16 * (uint64_t)limits->n_tokens + limits->n_logits * sizeof(struct m40_sample_row);
    out->inputs = plus(out->inputs, times(times(limits->n_slots, limits->n_slot_pages), 4));
    out->workload = (struct m40_workload){
        .n_tokens = limits->n_tokens,
        .n_cols = max_u32(max_u32(config->n_embd, max_u32(config->n_ff, config->n_expert_ff)), q_dim),
        .n_rows = max_u32(max_u32(max_u32(config->n_vocab, config->n_experts), 2 * max_u32(config->n_ff, config->n_expert_ff)),
                          max_u32(config->n_embd, qkv_dim)),
        .n_weights = largest_matrix(config),
        .n_heads = config->n_heads,
        .head_dim = config->head_dim,
        .n_ctx = limits->n_slot_pages * M40_KV_PAGE,
        .n_used = config->n_used,
        .n_expert_cols = config->n_expert_ff,
        .read_bytes = times(limits->n_slots, 4 * (uint64_t)config->n_vocab), /* decoding: a row of logits for each sequence */
    };
}

void m40_forward_memory(const struct m40_model_config *config, const struct m40_forward_limits *limits, uint64_t *kv_bytes, uint64_t *other_bytes)
{
    struct m40_forward_sizes sizes;
    uint64_t other;

    m40_forward_sizes(&sizes, config, limits);
    other = plus(times(sizes.rope_table, 1 + config->has_local_rope + (config->rope.temperature > 0)), plus(times(sizes.x, 2), sizes.work));
    other = plus(other, plus(sizes.logits, sizes.inputs));
    *kv_bytes = sizes.kv_pool;
    *other_bytes = plus(other, m40_scratch_device_bytes(&sizes.workload));
}

static m40llm_status check_limits(const struct m40_forward_limits *l, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(l->n_tokens < 1 || l->n_tokens > MAX_STEP_TOKENS, M40LLM_INVALID_ARGUMENT, "a step of %u tokens was asked for, expected 1 to %d",
                l->n_tokens, MAX_STEP_TOKENS);
    M40_FAIL_IF(l->n_logits > l->n_tokens, M40LLM_INVALID_ARGUMENT, "%u rows of logits were asked for in a step of %u tokens", l->n_logits,
                l->n_tokens);
    M40_FAIL_IF(l->n_slots < 1 || l->n_slots > MAX_SLOTS, M40LLM_INVALID_ARGUMENT, "%u sequences were asked for, expected 1 to %d", l->n_slots,
                MAX_SLOTS);
    M40_FAIL_IF(l->n_slot_pages < 1 || l->n_slot_pages > MAX_CTX / M40_KV_PAGE, M40LLM_INVALID_ARGUMENT,
                "a context of %llu tokens was asked for, expected 1 to %d", (unsigned long long)l->n_slot_pages * M40_KV_PAGE, MAX_CTX);
    M40_FAIL_IF(l->n_pages < 1 || l->n_pages > INT32_MAX, M40LLM_INVALID_ARGUMENT, "%u pages of KV cache were asked for", l->n_pages);
fail:
    return status;
}

/* Says beforehand what would fit; where the device does not tell what is free, its allocator has the word. */
static m40llm_status check_memory(const struct m40_forward *f, const struct m40_forward_sizes *sizes, m40llm_error *err)
{
    struct m40_backend *be = f->backend;
    m40llm_device_info info = {0};
    uint64_t kv_bytes, other_bytes, left, page_bytes;

    m40_forward_memory(&f->model->config, &f->limits, &kv_bytes, &other_bytes);
    be->ops.get_info(be, &info);
    if (info.memory_free_bytes == 0 || plus(kv_bytes, other_bytes) <= info.memory_free_bytes)
        return M40LLM_OK;
    page_bytes = sizes->kv_pool / f->limits.n_pages;
    left = info.memory_free_bytes > other_bytes ? info.memory_free_bytes - other_bytes : 0;
    return m40_fail(err, M40LLM_OUT_OF_DEVICE_MEMORY,
                    "a KV cache of %llu tokens needs %.2f GiB and a step %.2f more, but %s has %.2f GiB free; %llu tokens would fit",
                    (unsigned long long)f->limits.n_pages * M40_KV_PAGE, (double)kv_bytes / (1 << 30), (double)other_bytes / (1 << 30), info.name,
                    (double)info.memory_free_bytes / (1 << 30), (unsigned long long)(left / page_bytes * M40_KV_PAGE));
}

static m40llm_status make_rope_table(struct m40_forward *f, const struct m40_rope *rope, bool for_queries, uint64_t n_bytes, m40_addr *out,
                                     m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = f->backend;
    float *table = m40_calloc(n_bytes, 1);

    M40_FAIL_IF(!table, M40LLM_NO_MEMORY, "no memory for a rope table of %llu bytes", (unsigned long long)n_bytes);
    m40_rope_table(rope, f->limits.n_slot_pages * M40_KV_PAGE, for_queries, table);
    M40_TRY(be->ops.alloc(be, n_bytes, out, err));
    M40_TRY(be->ops.write(be, *out, table, n_bytes, err));
fail:
    m40_free(table);
    return status;
}

static m40llm_status make_kv(struct m40_forward *f, const struct m40_forward_sizes *sizes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_model_config *c = &f->model->config;

    f->kv = m40_calloc(c->n_layers, sizeof *f->kv);
    M40_FAIL_IF(!f->kv, M40LLM_NO_MEMORY, "no memory for the list of layers");
    M40_TRY(f->backend->ops.alloc(f->backend, sizes->kv_pool, &f->kv_pool, err));
    for (uint32_t i = 0; i < c->n_layers; i++)
        f->kv[i] = (struct m40_kv_layer){f->kv_pool + i * sizes->kv_layer, f->limits.kv_type, f->limits.n_pages, c->n_kv_heads, c->head_dim};
fail:
    return status;
}

/* The parts of `work`; each is a multiple of 32 bytes, since head_dim is one of 8 elements. */
static void place_work(struct m40_forward *f)
{
    const struct m40_model_config *c = &f->model->config;
    uint64_t q_bytes = 4 * (uint64_t)f->limits.n_tokens * c->n_heads * c->head_dim,
             kv_bytes = 4 * (uint64_t)f->limits.n_tokens * c->n_kv_heads * c->head_dim, ff_bytes = 4 * (uint64_t)f->limits.n_tokens * c->n_ff;

    f->q = f->work;
    f->k = f->q + q_bytes;
    f->v = f->k + kv_bytes;
    f->attn = f->v + kv_bytes;
    f->gate = f->work;
    f->up = f->gate + ff_bytes;
    f->act = f->up + ff_bytes;
    if (c->n_experts)
        m40_mixture_places(&f->mixture, c, f->limits.n_tokens);
}

static m40llm_status make_buffers(struct m40_forward *f, const struct m40_forward_sizes *sizes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = f->backend;

    M40_TRY(be->ops.alloc(be, sizes->x, &f->x, err));
    M40_TRY(be->ops.alloc(be, sizes->x, &f->normed, err));
    M40_TRY(be->ops.alloc(be, sizes->work, &f->work, err));
    place_work(f);
    if (sizes->logits)
        M40_TRY(be->ops.alloc(be, sizes->logits, &f->logits, err));
    f->tokens = f->logits + 4 * (uint64_t)f->limits.n_logits * f->model->config.n_vocab;
    M40_TRY(be->ops.alloc(be, sizes->inputs, &f->inputs, err));
    f->staging = m40_calloc(sizes->inputs, 1);
    f->last_pos = m40_calloc(f->limits.n_slots, sizeof *f->last_pos);
    M40_FAIL_IF(!f->staging || !f->last_pos, M40LLM_NO_MEMORY, "no memory for a step's inputs");
    M40_TRY(be->ops.reserve(be, &sizes->workload, err));
fail:
    return status;
}

m40llm_status m40_forward_open(struct m40_forward **out, struct m40_model *model, const struct m40_forward_limits *limits, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = m40_calloc(1, sizeof *f);
    struct m40_forward_sizes sizes;

    *out = NULL;
    M40_FAIL_IF(!f, M40LLM_NO_MEMORY, "no memory for the forward pass");
    f->model = model;
    f->backend = model->backend;
    f->limits = *limits;
    M40_TRY(check_limits(limits, err));
    m40_forward_sizes(&sizes, &model->config, limits);
    M40_TRY(check_memory(f, &sizes, err));
    M40_TRY(make_buffers(f, &sizes, err));
    M40_TRY(make_rope_table(f, &model->config.rope, false, sizes.rope_table, &f->rope_table, err));
    if (model->config.has_local_rope)
        M40_TRY(make_rope_table(f, &model->config.local_rope, false, sizes.rope_table, &f->local_rope_table, err));
    if (model->config.rope.temperature > 0)
        M40_TRY(make_rope_table(f, &model->config.rope, true, sizes.rope_table, &f->q_rope_table, err));
    M40_TRY(make_kv(f, &sizes, err));
    m40_log(&f->backend->logger, M40LLM_LOG_DEBUG, "forward: %u pages of KV cache, %.1f MiB; steps of %u tokens", limits->n_pages,
            (double)sizes.kv_pool / (1 << 20), limits->n_tokens);
    *out = f;
    return M40LLM_OK;
fail:
    m40_forward_close(&f);
    return status;
}

static struct m40_forward_limits lane_limits(const struct m40_forward_limits *limits, uint32_t n_tokens)
{
    struct m40_forward_limits l = *limits;

    l.n_tokens = n_tokens;
    l.n_logits = 0;
    return l;
}

uint64_t m40_forward_lane_memory(const struct m40_model_config *config, const struct m40_forward_limits *limits, uint32_t n_tokens)
{
    struct m40_forward_limits l = lane_limits(limits, n_tokens);
    uint64_t kv_bytes, other_bytes;

    m40_forward_memory(config, &l, &kv_bytes, &other_bytes); /* with tables that it shares: not much */
    return other_bytes;
}

m40llm_status m40_forward_open_lane(struct m40_forward **out, const struct m40_forward *forward, uint32_t n_tokens, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = m40_calloc(1, sizeof *f);
    struct m40_forward_sizes sizes;

    *out = NULL;
    M40_FAIL_IF(!f, M40LLM_NO_MEMORY, "no memory for the forward pass");
    *f = *forward;
    f->is_lane = true;
    f->backend = NULL;
    f->x = f->normed = f->work = f->logits = f->inputs = 0;
    f->staging = f->last_pos = NULL;
    f->limits = lane_limits(&forward->limits, n_tokens);
    M40_FAIL_IF(!forward->backend->ops.open_lane, M40LLM_UNSUPPORTED, "this device runs prompts and answers in the same steps only");
    M40_TRY(forward->backend->ops.open_lane(forward->backend, &f->backend, err));
    M40_TRY(check_limits(&f->limits, err));
    m40_forward_sizes(&sizes, &f->model->config, &f->limits);
    M40_TRY(make_buffers(f, &sizes, err));
    *out = f;
    return M40LLM_OK;
fail:
    m40_forward_close(&f);
    return status;
}

static void close_lane(struct m40_forward *f)
{
    m40_addr *buffers[] = {&f->x, &f->normed, &f->work, &f->logits, &f->inputs};

    for (size_t i = 0; f->backend && i < sizeof buffers / sizeof *buffers; i++)
        f->backend->ops.free(f->backend, *buffers[i]);
    m40_backend_close(&f->backend);
    m40_free(f->staging);
    m40_free(f->last_pos);
    m40_free(f);
}

void m40_forward_close(struct m40_forward **forward)
{
    struct m40_forward *f = forward ? *forward : NULL;

    if (!f)
        return;
    *forward = NULL;
    if (f->is_lane) {
        close_lane(f);
        return;
    }
    m40_addr *buffers[] = {&f->x, &f->normed, &f->work, &f->logits, &f->inputs, &f->rope_table, &f->local_rope_table, &f->q_rope_table, &f->kv_pool};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        f->backend->ops.free(f->backend, *buffers[i]);
    m40_free(f->kv);
    m40_free(f->staging);
    m40_free(f->last_pos);
    m40_free(f);
}
