/* m40_expf (base/fmath.h) for eight values: the same operations in the same order, so the same bits. */
#ifndef M40_BACKEND_CPU_CPU_EXP_AVX2_H
#define M40_BACKEND_CPU_CPU_EXP_AVX2_H

#include <immintrin.h>

/* 2^i as a float, -126 <= i <= 127. */
static inline __m256 power_of_two_8(__m256i i)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(i, _mm256_set1_epi32(127)), 23));
}

static inline __m256 exp_8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f), one = _mm256_set1_ps(1.0f);
    __m256 n = _mm256_sub_ps(_mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), magic), magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-1.42860677e-6f), _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693145752f), x));
    __m256i i = _mm256_cvttps_epi32(n);
    __m256i half = _mm256_srai_epi32(_mm256_add_epi32(i, _mm256_srli_epi32(i, 31)), 1); /* i / 2, towards zero */
    __m256 p = _mm256_set1_ps(1.98412698e-4f);

    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.38888889e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.33333333e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.16666667e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.66666667e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_mul_ps(_mm256_mul_ps(p, power_of_two_8(half)), power_of_two_8(_mm256_sub_epi32(i, half)));
    p = _mm256_blendv_ps(p, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000)), _mm256_cmp_ps(x, _mm256_set1_ps(88.722839f), _CMP_GT_OQ));
    p = _mm256_blendv_ps(p, _mm256_setzero_ps(), _mm256_cmp_ps(x, _mm256_set1_ps(-104.0f), _CMP_LT_OQ));
    return _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

#endif
