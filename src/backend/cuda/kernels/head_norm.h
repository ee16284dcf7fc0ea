/* The parts of rms_norm (docs/numerics.md), and the whole of it for a row of at most 256 columns, by one warp: each partial sum has one term or none, and a lane keeps eight of them (j = 32 g + lane). */
#ifndef M40_CUDA_KERNELS_HEAD_NORM_H
#define M40_CUDA_KERNELS_HEAD_NORM_H

#include "backend/cuda/kernels/simt.h"
#include "base/fmath.h"
#include "base/portable.h"

/* The tree's first five levels: every lane ends with the sum of its 32 partial sums. */
M40_HD float warp_tree(float p)
{
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2)
        p = p + simt_shfl_xor_f32(p, d);
    return p;
}

enum { NORM_WARPS = 8 }; /* whose lanes have a long row's 256 partial sums */

/* The tree's last levels: s[g] is the sum of warp g. Every lane of a warp calls it and gets the sum. */
M40_HD float block_tree(const float *s)
{
    float p = s[simt_lane() % NORM_WARPS];

    M40_UNROLL
    for (uint32_t d = 4; d > 0; d /= 2)
        p = p + simt_shfl_xor_f32(p, d);
    return p;
}

M40_HD float norm_scale(float sum, uint32_t n, float eps)
{
    return 1.0f / simt_sqrt(sum / (float)n + eps);
}

/* Columns 32 g + lane of the row; zeros behind its end. */
M40_HD void load_short_row(const float *row, uint32_t n_cols, float *x)
{
    M40_UNROLL
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t c = 32 * g + simt_lane();

        x[g] = c < n_cols ? row[c] : 0.0f;
    }
}

/* x = (x * r) * weight, in place. */
M40_HD void norm_short_row(float *x, const float *weight, uint32_t n_cols, float eps)
{
    float s[8], r;

    M40_UNROLL
    for (uint32_t g = 0; g < 8; g++)
        s[g] = warp_tree(m40_fmaf(x[g], x[g], 0.0f));
    M40_UNROLL
    for (uint32_t d = 4; d > 0; d /= 2) {
        M40_UNROLL
        for (uint32_t g = 0; g < d; g++)
            s[g] = s[g] + s[g + d];
    }
    r = norm_scale(s[0], n_cols, eps);
    M40_UNROLL
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t c = 32 * g + simt_lane();

        if (c < n_cols)
            x[g] = (x[g] * r) * weight[c];
    }
}

#endif
