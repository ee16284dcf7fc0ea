/* Small kernels that use every primitive of simt.h, to check a device (or the emulator) before anything is built on it. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "base/fmath.h"
#include "base/portable.h"

SIMT_KERNEL(selftest_scale, struct selftest_scale_args, 256)
{
    uint32_t i = simt_block_x() * simt_block_dim() + simt_thread();
    float v;

    if (i >= args.n)
        return;
    v = m40_fmaf(args.x[i], args.factor, args.offset);
    args.x[i] = v;
    args.h[i] = m40_f32_to_f16(v);
    args.r[i] = simt_sqrt(v);
}

struct selftest_reduce_shared {
    float v[256];
};

SIMT_KERNEL(selftest_reduce, struct selftest_reduce_args, 256)
{
    SIMT_SHARED(struct selftest_reduce_shared, shared);
    uint32_t t = simt_thread();

    shared->v[t] = args.x[simt_block_x() * 256 + t];
    for (uint32_t distance = 128; distance > 0; distance /= 2) {
        simt_barrier();
        if (t < distance)
            shared->v[t] += shared->v[t + distance];
    }
    if (t == 0)
        args.sums[simt_block_x()] = shared->v[0];
}

SIMT_KERNEL(selftest_shuffle, struct selftest_shuffle_args, 256)
{
    uint32_t i = simt_block_x() * simt_block_dim() + simt_thread();
    uint32_t v = args.x[i], sum = v;

    args.rotated[i] = simt_shfl_u32(v, (simt_lane() + 1) % SIMT_WARP);
    M40_UNROLL
    for (uint32_t mask = 16; mask > 0; mask /= 2)
        sum += simt_shfl_xor_u32(sum, mask);
    args.summed[i] = sum;
    args.votes[i] = simt_ballot((int)(v & 1));
}

SIMT_KERNEL(selftest_grid, struct selftest_grid_args, 64)
{
    uint32_t n = simt_grid_x(), b = simt_block_x();

    for (uint32_t round = 0; round < args.n_rounds; round++) {
        const uint32_t *before = args.cells + round % 2 * n;
        uint32_t *after = args.cells + (round + 1) % 2 * n;

        if (simt_thread() == 0) {
            after[b] = simt_load_volatile_u32(&before[(b + 1) % n]) + 1;
            simt_fence();
            simt_atomic_add_u32(args.arrivals, 1);
            while (simt_load_volatile_u32(args.arrivals) < (round + 1) * n)
                ;
            simt_fence();
        }
        simt_barrier();
    }
}
