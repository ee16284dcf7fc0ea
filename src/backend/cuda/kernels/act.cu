/* silu_mul of docs/numerics.md. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

SIMT_KERNEL(silu_mul, struct silu_mul_args, 256)
{
    uint32_t i = simt_block_x() * 256 + simt_thread();
    const float *gate = args.gate + (uint64_t)simt_block_y() * args.stride, *up = args.up + (uint64_t)simt_block_y() * args.stride;
    float *y = args.y + (uint64_t)simt_block_y() * args.n_cols;

    if (!args.is_wide) {
        if (i < args.n_cols)
            y[i] = m40_swiglu(gate[i], up[i]);
    } else if (i < args.n_cols / 4) {
        struct m40_f32x4 g = m40_load_f32x4(gate + 4 * i), u = m40_load_f32x4(up + 4 * i), out;

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            out.v[j] = m40_swiglu(g.v[j], u.v[j]);
        m40_store_f32x4(y + 4 * i, out);
    }
}
