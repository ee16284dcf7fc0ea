/* How much scratch memory a workload needs; pure, so that it can be told without a device. */
#include "backend/cuda/cuda_internal.h"

#include "backend/cuda/kernels/matmul_args.h"
#include "base/mem.h"

enum { AREA_UNIT = 256, MIN_SUB = 16 };

/* Of one step's attention pieces: more would only let more tokens share one launch. */
static const uint64_t attention_max_bytes = 64 << 20;

/* What a matmul of few tokens needs where blocks share K: the sums of every half of a group, for whole units of rows and as many tokens as the kernel is for. */
static uint64_t matmul_partials_bytes(const struct m40_workload *w)
{
    const uint64_t columns = M40_MATMUL_CHUNK * M40_MATMUL_HALF, n_weights = w->n_weights ? w->n_weights : (uint64_t)w->n_rows * w->n_cols;
    uint64_t n_tokens = w->n_tokens <= MATVEC_STREAM_TOKENS ? w->n_tokens : M40_CUDA_SMALL_TOKENS;

    return (n_weights / columns + w->n_rows + MATVEC_UNIT_ROWS * (w->n_cols / columns + 1)) * n_tokens * sizeof(float);
}

/* (o, m, l) of every piece, head and token, as far as the cap goes. */
static uint64_t attention_partials_bytes(const struct m40_workload *w)
{
    uint64_t n_pieces = m40_cuda_div_up(w->n_ctx, M40_ATTN_PIECE);
    uint64_t n_bytes = ((uint64_t)w->head_dim + 2) * sizeof(float);

    if (!m40_mul_u64(n_bytes, n_pieces, &n_bytes) || !m40_mul_u64(n_bytes, w->n_heads, &n_bytes) || !m40_mul_u64(n_bytes, w->n_tokens, &n_bytes))
        return attention_max_bytes;
    return n_bytes < attention_max_bytes ? n_bytes : attention_max_bytes;
}

static uint64_t area_bytes(uint64_t n_bytes)
{
    return m40_round_up(n_bytes ? n_bytes : 1, AREA_UNIT);
}

struct m40_cuda_scratch_sizes m40_cuda_scratch_sizes(const struct m40_workload *workload)
{
    uint64_t matmul_bytes = matmul_partials_bytes(workload), attention_bytes = attention_partials_bytes(workload);
    uint64_t sample_bytes = m40_cuda_sample_bytes(workload), partials_bytes = matmul_bytes > attention_bytes ? matmul_bytes : attention_bytes;
    uint64_t n_tokens = m40_round_up(workload->n_tokens, M40_CUDA_SMALL_TOKENS); /* the kernels for few have room for that many */
    uint64_t n_pair_floats = (uint64_t)workload->n_tokens * workload->n_used * m40_round_up(workload->n_expert_cols, MIN_SUB);
    uint64_t n_x_floats = n_tokens * m40_round_up(workload->n_cols, MIN_SUB);
    struct m40_cuda_scratch_sizes sizes;

    n_x_floats = n_pair_floats > n_x_floats ? n_pair_floats : n_x_floats;
    sizes.prepared_x_bytes = area_bytes(n_x_floats * sizeof(float));
    sizes.x_sums_bytes = area_bytes(n_x_floats / MIN_SUB * sizeof(float));
    sizes.partials_bytes = area_bytes(partials_bytes > sample_bytes ? partials_bytes : sample_bytes);
    sizes.counters_bytes = area_bytes(M40_CUDA_N_COUNTERS * sizeof(uint32_t));
    return sizes;
}

uint64_t m40_scratch_device_bytes(const struct m40_workload *workload)
{
    struct m40_cuda_scratch_sizes sizes = m40_cuda_scratch_sizes(workload);

    return sizes.prepared_x_bytes + sizes.x_sums_bytes + sizes.partials_bytes + sizes.counters_bytes;
}
