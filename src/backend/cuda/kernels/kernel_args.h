/* The argument structs of the kernels, shared by device code and host: plain structs of fixed-size fields and device pointers (64-bit). A kernel takes one by value. */
#ifndef M40_CUDA_KERNELS_KERNEL_ARGS_H
#define M40_CUDA_KERNELS_KERNEL_ARGS_H

#include <stdint.h>

/* ---- selftest.cu ---- */

/* x[i] = x[i] * factor + offset, rounded once; h[i] = x[i] as FP16 and r[i] = sqrt(x[i]), both of the new value. */
struct selftest_scale_args {
    float *x;    /* [n] */
    uint16_t *h; /* [n] */
    float *r;    /* [n] */
    uint32_t n;
    float factor, offset;
};

/* Each block sums its 256 values of x, pairs at distance 128, 64, ... 1: sums[block]. */
struct selftest_reduce_args {
    const float *x; /* [grid_x * 256] */
    float *sums;    /* [grid_x] */
};

/* Warp by warp: rotated[i] = the value of the next lane, summed[i] = the warp's sum by xor, votes[i] = ballot of odd values. */
struct selftest_shuffle_args {
    const uint32_t *x; /* [n], n = all threads */
    uint32_t *rotated, *summed, *votes;
};

/* All blocks (which must be resident together) take n_rounds steps in lockstep by a grid barrier: in round r block b writes cells[b] = cells[b + 1] + 1 of the round before. */
struct selftest_grid_args {
    uint32_t *cells;    /* [2][grid_x], zero at first */
    uint32_t *arrivals; /* [1], zero at first */
    uint32_t n_rounds;
};

#endif
