/* Work on rows of activations: gather_rows, argmax. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"

SIMT_KERNEL(gather_rows, struct gather_rows_args, 256)
{
    const float *x = args.x + (uint64_t)(uint32_t)args.rows[simt_block_x()] * args.n_cols;
    float *y = args.y + (uint64_t)simt_block_x() * args.n_cols;
    uint32_t i = simt_block_y() * 256 + simt_thread();

    if (args.is_wide) {
        if (i < args.n_cols / 4)
            m40_store_f32x4(y + 4 * i, m40_load_f32x4(x + 4 * i));
    } else if (i < args.n_cols) {
        y[i] = x[i];
    }
}

SIMT_KERNEL(matmul_start, struct matmul_start_args, 256)
{
    const uint32_t row = simt_block_x() * 256 + simt_thread();
    const uint64_t i = (uint64_t)simt_block_y() * args.n_rows + row;

    if (row < args.n_rows)
        args.y[i] = (args.bias ? args.bias[row] : 0.0f) + (args.residual ? args.residual[i] : 0.0f);
}

/* ---- argmax ---- */

struct best {
    float value;
    uint32_t col;
};

/* A total order of pairs that are no NaNs, so that the order of merging does not matter; equal values, zeros of either sign among them, go to the lower column. */
M40_HD struct best better(struct best a, struct best b)
{
    return b.value > a.value || (b.value == a.value && b.col < a.col) ? b : a;
}

struct argmax_shared {
    struct best warps[8];
    uint32_t is_last;
};

/* The best of a block's; whole only in thread 0. */
M40_HD struct best block_best(struct argmax_shared *shared, struct best mine)
{
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2) {
        struct best other;

        other.value = simt_shfl_xor_f32(mine.value, d);
        other.col = simt_shfl_xor_u32(mine.col, d);
        mine = better(mine, other);
    }
    if (simt_lane() == 0)
        shared->warps[simt_warp()] = mine;
    simt_barrier();
    for (uint32_t i = 1; i < 8 && simt_thread() == 0; i++)
        mine = better(mine, shared->warps[i]);
    return mine;
}

SIMT_KERNEL(argmax, struct argmax_args, 256)
{
    SIMT_SHARED(struct argmax_shared, shared);
    uint32_t row = simt_block_y(), n_parts = simt_grid_x();
    const float *x = args.x + (uint64_t)row * args.n_cols;
    float *found = args.found + (uint64_t)row * n_parts * 2;
    struct best mine = {m40_bits_to_f32(0xff800000u), 0};

    for (uint32_t c = simt_block_x() * 256 + simt_thread(); c < args.n_cols; c += n_parts * 256) {
        float value = x[c];

        if (value > mine.value) {
            mine.value = value;
            mine.col = c;
        }
    }
    mine = block_best(shared, mine);
    if (simt_thread() == 0) {
        found[simt_block_x() * 2] = mine.value;
        found[simt_block_x() * 2 + 1] = m40_bits_to_f32(mine.col);
        simt_fence();
        shared->is_last = simt_atomic_add_u32(args.counters + row, 1) == n_parts - 1;
    }
    simt_barrier();
    simt_fence(); /* before is_last is read: the compiler takes the barrier alone for no reason to read shared memory again */
    if (!shared->is_last)
        return;
    mine.value = m40_bits_to_f32(0xff800000u);
    mine.col = 0;
    for (uint32_t i = simt_thread(); i < n_parts; i += 256) {
        struct best other;

        other.value = found[i * 2];
        other.col = m40_f32_to_bits(found[i * 2 + 1]);
        mine = better(mine, other);
    }
    mine = block_best(shared, mine);
    if (simt_thread() == 0) {
        args.ids[row] = (int32_t)mine.col;
        args.counters[row] = 0;
    }
}
