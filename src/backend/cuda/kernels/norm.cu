/* rms_norm of docs/numerics.md: 256 partial sums, a tree over them, one scale. */
#include "backend/cuda/kernels/head_norm.h"
#include "backend/cuda/kernels/kernel_args.h"

struct rms_norm_shared {
    float s[NORM_WARPS];
};

enum { N_KEPT = 16 }; /* elements of its row that a thread keeps: rows of up to 4096 are read once, and all loads are under way together */

/* Thread j owns partial sum j, so the loads are coalesced and the order is the contract's. What lies behind the row's end is 0, and fmaf(0, 0, p) is p. residual: the row's, or 0 as a
 * constant: a kernel of its own, so that the plain one has no registers to spare for it. */
M40_HD void norm_row(const struct rms_norm_args *args, struct rms_norm_shared *shared, const float *x, const float *residual, float *y)
{
    float kept[N_KEPT], weight[N_KEPT], p = 0.0f, r;

    M40_UNROLL
    for (uint32_t k = 0; k < N_KEPT; k++) {
        uint32_t c = 256 * k + simt_thread();

        kept[k] = c < args->n_cols ? x[c] : 0.0f;
        weight[k] = c < args->n_cols ? args->weight[c] : 0.0f;
    }
    M40_UNROLL
    for (uint32_t k = 0; k < N_KEPT; k++)
        p = m40_fmaf(kept[k], kept[k], p);
    for (uint32_t c = 256 * N_KEPT + simt_thread(); c < args->n_cols; c += 256)
        p = m40_fmaf(x[c], x[c], p);
    p = warp_tree(p);
    if (simt_lane() == 0)
        shared->s[simt_warp()] = p;
    simt_barrier();
    r = norm_scale(block_tree(shared->s), args->n_cols, args->eps);
    M40_UNROLL
    for (uint32_t k = 0; k < N_KEPT; k++) {
        uint32_t c = 256 * k + simt_thread();

        if (c < args->n_cols)
            y[c] = residual ? (kept[k] * r) * weight[k] + residual[c] : (kept[k] * r) * weight[k];
    }
    for (uint32_t c = 256 * N_KEPT + simt_thread(); c < args->n_cols; c += 256)
        y[c] = residual ? (x[c] * r) * args->weight[c] + residual[c] : (x[c] * r) * args->weight[c];
}

SIMT_KERNEL(rms_norm, struct rms_norm_args, 256)
{
    SIMT_SHARED(struct rms_norm_shared, shared);
    uint64_t offset = (uint64_t)simt_block_x() * args.stride;

    norm_row(&args, shared, args.x + offset, 0, args.y + offset);
}

SIMT_KERNEL(rms_norm_residual, struct rms_norm_args, 256)
{
    SIMT_SHARED(struct rms_norm_shared, shared);
    uint64_t offset = (uint64_t)simt_block_x() * args.stride;

    norm_row(&args, shared, args.x + offset, args.residual + offset, args.y + offset);
}

/* A warp a row of at most 256 columns. */
SIMT_KERNEL(rms_norm_short, struct rms_norm_args, 256)
{
    uint32_t row = simt_block_x() * 8 + simt_warp();
    uint64_t offset = (uint64_t)row * args.stride;
    float x[8];

    if (row >= args.n_rows)
        return;
    load_short_row(args.x + offset, args.n_cols, x);
    norm_short_row(x, args.weight, args.n_cols, args.eps);
    M40_UNROLL
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t c = 32 * g + simt_lane();

        if (c < args.n_cols)
            args.y[offset + c] = args.residual ? x[g] + args.residual[offset + c] : x[g];
    }
}
