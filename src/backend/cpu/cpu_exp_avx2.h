/* m40_expf (base/fmath.h) for eight values: the same operations in the same order, so the same bits. */
#ifndef M40_BACKEND_CPU_CPU_EXP_AVX2_H
#define M40_BACKEND_CPU_CPU_EXP_AVX2_H

#include "base/act.h"

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

/* m40_tanhf, likewise. */
static inline __m256 tanh_8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f), one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f), limit = _mm256_set1_ps(20.0f);
    __m256 y = _mm256_mul_ps(_mm256_andnot_ps(sign, x), _mm256_set1_ps(2.0f)), n, r, p, two_n, e;

    y = _mm256_blendv_ps(y, limit, _mm256_cmp_ps(y, limit, _CMP_GT_OQ));
    n = _mm256_sub_ps(_mm256_fmadd_ps(y, _mm256_set1_ps(1.44269504f), magic), magic);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-1.42860677e-6f), _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693145752f), y));
    p = _mm256_set1_ps(1.98412698e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.38888889e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.33333333e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.16666667e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.66666667e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
    two_n = power_of_two_8(_mm256_cvttps_epi32(n));
    e = _mm256_fmadd_ps(two_n, p, _mm256_sub_ps(two_n, one));
    return _mm256_or_ps(_mm256_div_ps(e, _mm256_add_ps(e, _mm256_set1_ps(2.0f))), _mm256_and_ps(x, sign));
}

/* m40_glu (base/act.h), likewise. */
static inline __m256 glu_8(enum m40_act act, float alpha, float limit, __m256 g, __m256 u)
{
    const __m256 one = _mm256_set1_ps(1.0f), most = _mm256_set1_ps(limit), least = _mm256_set1_ps(-limit);
    __m256 z = g;

    if (act == M40_ACT_GELU_TANH) {
        z = _mm256_mul_ps(g, _mm256_fmadd_ps(_mm256_set1_ps(0.0713548163f), _mm256_mul_ps(g, g), _mm256_set1_ps(1.59576912f)));
    } else if (act == M40_ACT_SWIGLU_OAI) {
        g = _mm256_blendv_ps(g, most, _mm256_cmp_ps(g, most, _CMP_GT_OQ));
        u = _mm256_blendv_ps(u, least, _mm256_cmp_ps(u, least, _CMP_LT_OQ));
        u = _mm256_add_ps(_mm256_blendv_ps(u, most, _mm256_cmp_ps(u, most, _CMP_GT_OQ)), one);
        z = _mm256_mul_ps(_mm256_set1_ps(alpha), g);
    }
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, exp_8(_mm256_xor_ps(z, _mm256_set1_ps(-0.0f))))), u);
}

#endif
