/* attention: which rows are served by which kernels (kernels/attention_split.cu, attention_fused.cu). They give the same bits. */
#include "backend/cuda/cuda_internal.h"

enum {
    SPLIT_THREADS = 128,
    SPLIT_PIECES = 4,    /* of a block */
    SPLIT_MAX_HEADS = 8, /* query heads of a warp */
    SPLIT_MAX_HEADS_F32 = 4,
    SPLIT_MERGES = 16, /* pieces up to which the last block to arrive merges */
    MERGE_THREADS = 256,
    NEAR_HEADS = 4, /* query heads of a block of attention_near */
    NEAR_MAX_HEAD_DIM = 128,
    NEAR_SM_BLOCKS = 3, /* a multiprocessor, up to which latency counts for more than throughput */
    FUSED_COLS = 64,    /* elements of a head that a block of attention_fused_64 makes; the other one twice as many */
    FUSED_THREADS = 128,
    FUSED_QUERIES = 64, /* (token, head) pairs of a block of attention_fused */
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
    M40_FAIL_IF(args->q % 16 || args->y % 16 || args->q_stride % 4 || kv->base % 16, M40LLM_INVALID_ARGUMENT,
                "Q, Y and the cache must be aligned to 16 bytes");
fail:
    return status;
}

static uint32_t min_u32(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

/* Pieces that a row can see: a window may begin and end inside one. */
static uint32_t visible_pieces(uint32_t max_pos, uint32_t window)
{
    uint32_t n = max_pos / M40_ATTN_PIECE + 1;

    return window > 0 ? min_u32(((uint64_t)window + M40_ATTN_PIECE - 2) / M40_ATTN_PIECE + 1, n) : n;
}

static void share_heads(struct attention_args *a, uint32_t n_block_heads)
{
    a->n_block_heads = min_u32(a->n_group, n_block_heads);
    a->n_parts = m40_cuda_div_up(a->n_group, a->n_block_heads);
}

/* Which kernel writes the pieces of n_rows rows, and how many pieces a block of it takes; shares the heads out. */
static CUfunction choose_split(const struct m40_cuda *c, struct attention_args *a, uint32_t n_rows, uint32_t *block_pieces)
{
    uint32_t log2 = 0;

    *block_pieces = 1;
    share_heads(a, NEAR_HEADS);
    if (!a->kv.is_f32 && a->kv.head_dim <= NEAR_MAX_HEAD_DIM &&
        (uint64_t)a->n_pieces * a->kv.n_kv_heads * a->n_parts * n_rows <= (uint64_t)NEAR_SM_BLOCKS * c->n_sms)
        return c->kernels.attention_near;
    *block_pieces = SPLIT_PIECES;
    share_heads(a, a->kv.is_f32 ? SPLIT_MAX_HEADS_F32 : SPLIT_MAX_HEADS);
    while ((1u << log2) < a->n_block_heads)
        log2++;
    return a->kv.is_f32 ? c->kernels.attention_split_f32 : c->kernels.attention_split[log2];
}

/* Rows first .. end - 1, in slices of as many as scratch memory holds pieces of, and a merge of its own where there are many pieces. */
static m40llm_status run_split(struct m40_cuda *c, struct attention_args a, uint32_t first, uint32_t end, uint32_t n_slice, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t head_dim = a.kv.head_dim;
    uint32_t block_pieces, grid_y;
    CUfunction split = choose_split(c, &a, n_slice, &block_pieces);

    grid_y = a.kv.n_kv_heads * a.n_parts;
    a.o = m40_cuda_ptr(c->scratch.partials.addr);
    a.ml = m40_cuda_ptr(c->scratch.partials.addr + (uint64_t)n_slice * a.n_heads * a.n_pieces * head_dim * sizeof(float));
    if (a.n_pieces <= SPLIT_MERGES && (uint64_t)n_slice * grid_y <= M40_CUDA_N_COUNTERS)
        a.counters = m40_cuda_ptr(c->scratch.counters.addr);
    for (a.first_token = first; a.first_token < end; a.first_token += n_slice) {
        uint32_t n = min_u32(n_slice, end - a.first_token);

        M40_TRY(m40_cuda_launch(c, split, m40_cuda_div_up(a.n_pieces, block_pieces), grid_y, n, SPLIT_THREADS, &a, err));
        if (!a.counters)
            M40_TRY(m40_cuda_launch(c, c->kernels.attention_merge, a.n_heads * m40_cuda_div_up(head_dim, WARP), n, 1, MERGE_THREADS, &a, err));
    }
fail:
    return status;
}

static uint32_t fused_token_groups(const struct attention_args *a, uint32_t n_rows)
{
    return m40_cuda_div_up(n_rows, FUSED_QUERIES / min_u32(a->n_group, FUSED_QUERIES));
}

/* Rows first .. n_tokens - 1. */
static m40llm_status run_fused(struct m40_cuda *c, struct attention_args a, uint32_t first, m40llm_error *err)
{
    const uint32_t kernel = a.kv.head_dim > FUSED_COLS;

    a.first_token = first;
    share_heads(&a, FUSED_QUERIES);
    return m40_cuda_launch(c, c->kernels.attention_fused[kernel], a.kv.n_kv_heads * a.n_parts, fused_token_groups(&a, a.n_tokens - first),
                           m40_cuda_div_up(a.kv.head_dim, FUSED_COLS << kernel), FUSED_THREADS, &a, err);
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
        .n_pieces = visible_pieces(args->rows->max_pos, args->window),
        .window = args->window,
        .scale = args->softcap > 0 ? args->scale / args->softcap : args->scale,
        .softcap = args->softcap,
        .sinks = m40_cuda_ptr(args->sinks),
    };
    uint32_t n_slice, n_split = min_u32(args->rows->n_single, a.n_tokens);

    M40_TRY(check_arguments(c, args, err));
    if (a.n_tokens == 0 || a.n_heads == 0)
        return M40LLM_OK;
    a.n_group = a.n_heads / a.kv.n_kv_heads;
    n_slice = min_u32(c->scratch.partials.n_bytes / ((uint64_t)a.n_heads * a.n_pieces * (a.kv.head_dim + 2) * sizeof(float)), MAX_SLICE);
    if ((uint64_t)a.kv.n_kv_heads * fused_token_groups(&a, a.n_tokens - n_split) < c->n_sms / 2)
        n_split = a.n_tokens; /* too few for a prompt's way: most multiprocessors would have nothing to do */
    if (n_slice == 0)
        n_split = 0;
    n_slice = min_u32(n_slice, n_split);
    M40_TRY(run_split(c, a, 0, n_split, n_slice, err));
    M40_TRY(run_fused(c, a, n_split, err));
fail:
    return status;
}
