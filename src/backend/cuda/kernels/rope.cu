/* rope of docs/numerics.md: one thread a pair. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "base/fmath.h"

SIMT_KERNEL(rope, struct rope_args, 256)
{
    uint32_t token = simt_block_x();
    uint32_t item = simt_block_y() * 256 + simt_thread();
    uint32_t head = item / args.n_half, i = item % args.n_half;
    const float *cs;
    float *x;
    float a, b, c, s;

    if (head >= args.n_heads)
        return;
    cs = args.table + ((uint64_t)(uint32_t)args.pos[token] * args.n_half + i) * 2;
    x = args.x + ((uint64_t)token * args.n_heads + head) * args.head_dim + args.a_stride * i;
    a = x[0];
    b = x[args.b_offset];
    c = cs[0];
    s = cs[1];
    x[0] = m40_fmaf(a, c, -(b * s));
    x[args.b_offset] = m40_fmaf(a, s, b * c);
}
