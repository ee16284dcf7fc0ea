/* 128-bit words, for kernels: a load or store of one is a single instruction where the address is a multiple of 16. */
#ifndef M40_CUDA_KERNELS_WORDS_H
#define M40_CUDA_KERNELS_WORDS_H

#include "base/portable.h"

#include <stdint.h>

struct m40_f32x4 {
    float v[4];
} __attribute__((aligned(16)));

struct m40_u32x4 {
    uint32_t u[4];
} __attribute__((aligned(16)));

M40_HD struct m40_f32x4 m40_load_f32x4(const float *p)
{
    return *(const struct m40_f32x4 *)(const void *)p;
}

M40_HD void m40_store_f32x4(float *p, struct m40_f32x4 word)
{
    *(struct m40_f32x4 *)(void *)p = word;
}

M40_HD struct m40_u32x4 m40_load_u32x4(const void *p)
{
    return *(const struct m40_u32x4 *)p;
}

M40_HD void m40_store_u32x4(uint32_t *p, struct m40_u32x4 word)
{
    *(struct m40_u32x4 *)(void *)p = word;
}

#endif
