/* How much memory there is for what: the context, the pool of KV pages, and the rows of a step. */
#include "engine/engine_internal.h"

enum {
    DEFAULT_CTX = 8192,
    DEFAULT_CHUNK = 512,
    LOGITS_BYTES = 32 << 20, /* of logits in one step, beyond one row for each sequence */
};

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

/* why: of m40llm_engine_info. */
static m40llm_status choose_ctx(const struct m40_model_config *config, m40llm_engine_options *options, uint64_t available, const char **why,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t asked = options->n_ctx, most = asked, fits;

    *why = "asked for";
    M40_FAIL_IF(asked > config->n_ctx_train, M40LLM_INVALID_ARGUMENT, "a context of %u tokens was asked for: the model was trained for %u", asked,
                config->n_ctx_train);
    if (asked == 0) {
        most = config->n_ctx_train < DEFAULT_CTX ? config->n_ctx_train : DEFAULT_CTX;
        *why = config->n_ctx_train <= DEFAULT_CTX ? "the model's" : "the default";
    }
    fits = largest_ctx_that_fits(config, options, most, available);
    if (fits < most && (asked || fits == 0))
        return refuse_ctx(config, options, most, fits, available, err);
    if (fits < most)
        *why = "what fits in memory";
    options->n_ctx = fits;
fail:
    return status;
}

/* As many pages as were asked for, or as n_sequences contexts need and memory has room for. The CPU's memory is shared with everything else: half of it is left alone. */
static m40llm_status choose_pages(const struct m40_model *model, const m40llm_engine_options *options, uint64_t available,
                                  struct m40_forward_limits *limits, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_model_config *config = &model->config;
    uint64_t other;
    uint32_t n_fit;

    m40_engine_limits(config, options, limits);
    /* here, before tables of as many pages are allocated */
    M40_FAIL_IF(options->kv_bytes && memory_for(config, *limits, limits->n_pages) > available, M40LLM_OUT_OF_DEVICE_MEMORY,
                "a KV cache of %llu MiB was asked for: %llu MiB are free, and a step takes %llu", (unsigned long long)(options->kv_bytes >> 20),
                (unsigned long long)(available >> 20), (unsigned long long)(memory_for(config, *limits, 0) >> 20));
    if (options->kv_bytes || available == UINT64_MAX)
        return M40LLM_OK;
    if (!model->backend->is_cuda)
        available /= 2;
    other = memory_for(config, *limits, 0);
    n_fit = pages_in(config, *limits, available > other ? available - other : 0);
    if (n_fit < limits->n_slot_pages)
        n_fit = limits->n_slot_pages; /* choose_ctx saw to it that one context fits */
    if (n_fit < limits->n_pages)
        limits->n_pages = n_fit;
fail:
    return status;
}

/* What a lane takes with the largest context there may be. */
static uint64_t lane_memory(const struct m40_model_config *config, const m40llm_engine_options *options)
{
    uint32_t n_ctx = options->n_ctx ? options->n_ctx : config->n_ctx_train < DEFAULT_CTX ? config->n_ctx_train : DEFAULT_CTX;
    struct m40_forward_limits limits;

    limits_of_ctx(config, options, n_ctx, &limits);
    return m40_forward_lane_memory(config, &limits, limits.n_tokens - limits.n_slots);
}

m40llm_status m40_engine_choose_limits(const struct m40_model *model, m40llm_engine_options *options, struct m40_forward_limits *out,
                                       const char **why, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t available = available_memory(model->backend),
             lane = options->prefill == M40LLM_PREFILL_STREAM ? lane_memory(&model->config, options) : 0;

    if (available != UINT64_MAX)
        available -= lane < available ? lane : available;
    M40_TRY(choose_ctx(&model->config, options, available, why, err));
    M40_TRY(choose_pages(model, options, available, out, err));
fail:
    return status;
}
