/* Work on rows of activations: gather_rows, and the sums of x that formats with offsets need. */
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

enum { SUMS_A_BLOCK = 32, SUMS_STRIDE = 33 }; /* a stride that keeps the lanes of the summing warp on different banks */

struct block_sums_shared {
    float x[SUMS_A_BLOCK * SUMS_STRIDE];
};

/* The block brings 32 sub-blocks of one row into shared memory, coalesced; then one lane sums each, in order. */
SIMT_KERNEL(block_sums, struct block_sums_args, 128)
{
    SIMT_SHARED(struct block_sums_shared, shared);
    uint32_t first_sum = simt_block_y() * SUMS_A_BLOCK;
    uint32_t first_col = first_sum * args.sub;
    const float *x = args.x + (uint64_t)simt_block_x() * args.n_cols + first_col;
    uint32_t n_cols = args.n_cols - first_col;

    if (n_cols > SUMS_A_BLOCK * args.sub)
        n_cols = SUMS_A_BLOCK * args.sub;
    for (uint32_t c = simt_thread(); c < n_cols; c += 128)
        shared->x[c / args.sub * SUMS_STRIDE + c % args.sub] = x[c];
    simt_barrier();
    if (simt_thread() < SUMS_A_BLOCK && first_sum + simt_thread() < args.n_sums) {
        const float *mine = shared->x + simt_thread() * SUMS_STRIDE;
        uint32_t begin = simt_thread() * args.sub;
        uint32_t n = n_cols - begin < args.sub ? n_cols - begin : args.sub;
        float sum = 0.0f;

        for (uint32_t i = 0; i < n; i++)
            sum = sum + mine[i];
        args.sums[(uint64_t)simt_block_x() * args.n_sums + first_sum + simt_thread()] = sum;
    }
}
