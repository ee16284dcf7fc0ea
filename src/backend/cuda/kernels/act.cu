/* glu and softcap of docs/numerics.md. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"
#include "base/act.h"

M40_HD float glu_of(const struct glu_args *args, float gate, float up)
{
    return m40_glu((enum m40_act)args->act, args->alpha, args->limit, gate, up);
}

SIMT_KERNEL(glu, struct glu_args, 256)
{
    uint32_t i = simt_block_x() * 256 + simt_thread();
    const float *gate = args.gate + (uint64_t)simt_block_y() * args.stride, *up = args.up + (uint64_t)simt_block_y() * args.stride;
    float *y = args.y + (uint64_t)simt_block_y() * args.n_cols;

    if (!args.is_wide) {
        if (i < args.n_cols)
            y[i] = glu_of(&args, gate[i], up[i]);
    } else if (i < args.n_cols / 4) {
        struct m40_f32x4 g = m40_load_f32x4(gate + 4 * i), u = m40_load_f32x4(up + 4 * i), out;

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            out.v[j] = glu_of(&args, g.v[j], u.v[j]);
        m40_store_f32x4(y + 4 * i, out);
    }
}

SIMT_KERNEL(softcap, struct softcap_args, 256)
{
    uint64_t i = (uint64_t)simt_block_x() * 256 + simt_thread();

    if (i < args.n) {
        float x = args.scale * args.x[i];

        args.x[i] = args.softcap > 0.0f ? args.softcap * m40_tanhf(x) : x;
    }
}
