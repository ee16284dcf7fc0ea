/* silu_mul of docs/numerics.md. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

M40_HD float silu_mul_one(float g, float u)
{
    return (g / (1.0f + m40_expf(-g))) * u;
}

SIMT_KERNEL(silu_mul, struct silu_mul_args, 256)
{
    uint64_t i = (uint64_t)simt_block_x() * 256 + simt_thread();
    uint64_t rest = args.n_quads * 4 + (i - args.n_quads);

    if (i < args.n_quads) {
        struct m40_f32x4 g = m40_load_f32x4(args.gate + i * 4);
        struct m40_f32x4 u = m40_load_f32x4(args.up + i * 4);
        struct m40_f32x4 y;

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            y.v[j] = silu_mul_one(g.v[j], u.v[j]);
        m40_store_f32x4(args.y + i * 4, y);
    } else if (rest < args.n) {
        args.y[rest] = silu_mul_one(args.gate[rest], args.up[rest]);
    }
}
