/* Kernels with the mistakes that the emulator is to show. */
#include "backend/cuda/kernels/simt.h"
#include "tests/emu_kernels/wrong.h"

struct wrong_shared {
    uint32_t v[128];
};

/* No barrier between writing and reading shared memory. */
SIMT_KERNEL(wrong_no_barrier, struct wrong_args, 128)
{
    SIMT_SHARED(struct wrong_shared, shared);
    uint32_t t = simt_thread();

    shared->v[t] = t;
    args.out[simt_block_x() * 128 + t] = shared->v[127 - t];
}

/* Half of a warp waits at a barrier, the other half at a shuffle. */
SIMT_KERNEL(wrong_deadlock, struct wrong_args, 128)
{
    if (simt_lane() < 16)
        simt_barrier();
    else
        args.out[simt_thread()] = simt_shfl_u32(simt_thread(), 0);
}

/* Legal: threads that have returned do not count. */
SIMT_KERNEL(right_early_exit, struct wrong_args, 128)
{
    SIMT_SHARED(struct wrong_shared, shared);
    uint32_t t = simt_thread();

    if (t >= args.n)
        return;
    shared->v[t] = t;
    simt_barrier();
    args.out[t] = shared->v[args.n - 1 - t];
}

/* Waits for a value that nobody writes. */
SIMT_KERNEL(wrong_spin, struct wrong_args, 128)
{
    while (simt_load_volatile_u32(args.out) != 0xFFFFFFFFu)
        ;
}

SIMT_KERNEL(wrong_misaligned, struct wrong_args, 128)
{
    simt_atomic_add_u32((uint32_t *)((uintptr_t)args.out + 1), 1);
}

/* Writes behind its allocation of n words. */
SIMT_KERNEL(wrong_overrun, struct wrong_args, 128)
{
    args.out[args.n + simt_thread()] = 1;
}

/* Writes what shared memory holds at first. */
SIMT_KERNEL(wrong_uninitialised, struct wrong_args, 128)
{
    SIMT_SHARED(struct wrong_shared, shared);

    args.out[simt_thread()] = shared->v[simt_thread()];
}

/* out[i]++, without waiting for anything. */
SIMT_KERNEL(count_up, struct wrong_args, 128)
{
    uint32_t i = simt_block_x() * simt_block_dim() + simt_thread();

    if (i < args.n)
        args.out[i]++;
}
