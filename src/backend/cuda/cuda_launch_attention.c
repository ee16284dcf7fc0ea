/* attention: which of the two ways of sharing the work (kernels/attention.cu) serves a step. They give the same bits. */
#include "backend/cuda/cuda_internal.h"

enum {
    SPLIT_THREADS = 128,
    SPLIT_MAX_HEADS = 16,  /* query heads of a block of attention_split_8 */
    FUSED_QUERIES = 32,    /* (token, head) pairs of a block of attention_fused */
    FUSED_MIN_TOKENS = 32, /* below, a step is mostly decoding, and its rows share nothing that fused could use */
    MAX_HEAD_DIM = 256,
    WARP = 32,
    MAX_SLICE = 65535, /* a grid's z */
};

static m40llm_status check_arguments(const struct m40_cuda *c, const struct m40_attention_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_kv_layer *kv = args->kv;
    const struct m40_rows *rows = args->rows;
    const struct m40_workload *limit = &c->workload;

    M40_FAIL_IF(kv->n_kv_heads == 0 || args->n_heads % kv->n_kv_heads || kv->head_dim == 0 || kv->head_dim % 8 || kv->head_dim > MAX_HEAD_DIM,
                M40LLM_UNSUPPORTED, "attention with %u heads over %u KV heads of %u", args->n_heads, kv->n_kv_heads, kv->head_dim);
    M40_FAIL_IF(rows->n_tokens > limit->n_tokens || args->n_heads > limit->n_heads || kv->head_dim > limit->head_dim || rows->max_pos >= limit->n_ctx,
                M40LLM_INVALID_ARGUMENT, "attention of %u tokens, %u heads of %u, position %u, is beyond the reserved %u, %u of %u, %u",
                rows->n_tokens, args->n_heads, kv->head_dim, rows->max_pos, limit->n_tokens, limit->n_heads, limit->head_dim, limit->n_ctx);
    M40_FAIL_IF(args->q % 16 || args->q_stride % 4 || kv->base % 16, M40LLM_INVALID_ARGUMENT, "Q and the cache must be aligned to 16 bytes");
fail:
    return status;
}

static uint32_t min_u32(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

/* Slice by slice of tokens, as many as scratch memory holds pieces of: a block for every piece, then the merge. */
static m40llm_status run_split(struct m40_cuda *c, struct attention_args *a, uint32_t n_slice, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t head_dim = a->kv.head_dim;
    uint32_t log2_mine = 0, n_parts;

    a->n_block_heads = min_u32(a->n_group, SPLIT_MAX_HEADS);
    while ((2u << log2_mine) < a->n_block_heads)
        log2_mine++;
    n_parts = m40_cuda_div_up(a->n_group, a->n_block_heads);
    a->o = m40_cuda_ptr(c->scratch.partials.addr);
    a->ml = m40_cuda_ptr(c->scratch.partials.addr + (uint64_t)n_slice * a->n_heads * a->n_pieces * head_dim * sizeof(float));
    for (a->first_token = 0; a->first_token < a->n_tokens; a->first_token += n_slice) {
        uint32_t n = min_u32(n_slice, a->n_tokens - a->first_token);

        M40_TRY(m40_cuda_launch(c, c->kernels.attention_split[log2_mine], a->n_pieces, a->kv.n_kv_heads * n_parts, n, SPLIT_THREADS, a, err));
        M40_TRY(m40_cuda_launch(c, c->kernels.attention_merge, n, a->n_heads, 1, m40_cuda_div_up(head_dim, WARP) * WARP, a, err));
    }
fail:
    return status;
}

static m40llm_status run_fused(struct m40_cuda *c, struct attention_args *a, m40llm_error *err)
{
    a->n_block_heads = min_u32(a->n_group, FUSED_QUERIES);
    return m40_cuda_launch(c, c->kernels.attention_fused, m40_cuda_div_up(a->n_tokens, FUSED_QUERIES / a->n_block_heads),
                           a->kv.n_kv_heads * m40_cuda_div_up(a->n_group, a->n_block_heads), 1, M40_CUDA_MAX_THREADS, a, err);
}

m40llm_status m40_cuda_attention(struct m40_backend *be, const struct m40_attention_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    struct attention_args a = {
        .kv = m40_cuda_kv_view(args->kv, args->rows),
        .q = m40_cuda_ptr(args->q),
        .y = m40_cuda_ptr(args->y),
        .q_stride = args->q_stride,
        .n_tokens = args->rows->n_tokens,
        .n_heads = args->n_heads,
        .n_pieces = args->rows->max_pos / M40_ATTN_PIECE + 1,
        .scale = args->scale,
    };
    uint64_t token_bytes;
    uint32_t n_slice;

    M40_TRY(check_arguments(c, args, err));
    if (a.n_tokens == 0 || a.n_heads == 0)
        return M40LLM_OK;
    a.n_group = a.n_heads / a.kv.n_kv_heads;
    token_bytes = (uint64_t)a.n_heads * a.n_pieces * (a.kv.head_dim + 2) * sizeof(float);
    n_slice = min_u32(min_u32(c->scratch.partials.n_bytes / token_bytes, a.n_tokens), MAX_SLICE);
    if (a.n_tokens < FUSED_MIN_TOKENS && n_slice > 0)
        return run_split(c, &a, n_slice, err);
    return run_fused(c, &a, err);
fail:
    return status;
}
