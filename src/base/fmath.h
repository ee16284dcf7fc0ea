/* exp, and what is made of it, for host and device: the same bits everywhere, because it is made of IEEE multiply, add and fma in a written order. See docs/numerics.md.
 * m40_fmaf, m40_bits_to_f32 and m40_f32_to_bits come from half.h (host) or simt.h (device). */
#ifndef M40_BASE_FMATH_H
#define M40_BASE_FMATH_H

#include "base/portable.h"
#include "base/half.h"

/* One rounding, on host and device alike. */
#define m40_fmaf(a, b, c) __builtin_fmaf(a, b, c)

/* e^x for -104 <= x <= 88.722839 and NaN; of anything else any value, but no trap.
 * x = n ln2 + r with |r| <= ln2/2; e^r by its Taylor polynomial to r^7 (the tail is below 1e-8 of the result's ulp-scale); 2^n is multiplied in two steps, so that
 * subnormal results are rounded once. */
M40_HD float m40_expf_within(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, nearest even */
    float t, n, r, p;
    int i, half;

    t = m40_fmaf(x, 1.44269504f, magic);
    n = t - magic;
    r = m40_fmaf(n, -0.693145752f, x); /* ln2's upper bits: n * this is exact */
    r = m40_fmaf(n, -1.42860677e-6f, r);
    p = 1.98412698e-4f;
    p = m40_fmaf(p, r, 1.38888889e-3f);
    p = m40_fmaf(p, r, 8.33333333e-3f);
    p = m40_fmaf(p, r, 4.16666667e-2f);
    p = m40_fmaf(p, r, 1.66666667e-1f);
    p = m40_fmaf(p, r, 0.5f);
    p = m40_fmaf(p, r, 1.0f);
    p = m40_fmaf(p, r, 1.0f);
    i = (int)(m40_f32_to_bits(t) - m40_f32_to_bits(magic)); /* n; or any number, where t is not near magic */
    half = i / 2;
    return p * m40_bits_to_f32((unsigned)(half + 127) << 23) * m40_bits_to_f32((unsigned)(i - half + 127) << 23);
}

/* e^x, within 1 ulp in the normal range. x > 88.722839 gives infinity, x < -103.97 gives 0, NaN gives NaN. */
M40_HD float m40_expf(float x)
{
    if (!(x == x))
        return x;
    if (x > 88.722839f)
        return m40_bits_to_f32(0x7f800000u);
    if (x < -104.0f)
        return 0.0f;
    return m40_expf_within(x);
}

/* The same without branches, for x <= 0 and NaN; of x > 0 any value. */
M40_HD float m40_expf_down(float x)
{
    float y = m40_expf_within(x < -104.0f ? -104.0f : x);

    return x < -104.0f ? 0.0f : y;
}

/* tanh x, within 2.5 ulp: e = e^(2|x|) - 1 without cancellation (2^n (e^r - 1) + (2^n - 1), r as in m40_expf_within), e / (e + 2), x's sign. From |x| = 10 on it is 1. NaN gives NaN. */
M40_HD float m40_tanhf(float x)
{
    const float magic = 12582912.0f;
    const unsigned sign = m40_f32_to_bits(x) & 0x80000000u;
    float y = m40_bits_to_f32(m40_f32_to_bits(x) & 0x7fffffffu) * 2.0f, t, n, r, p, two_n, e;

    y = y > 20.0f ? 20.0f : y;
    t = m40_fmaf(y, 1.44269504f, magic);
    n = t - magic;
    r = m40_fmaf(n, -0.693145752f, y);
    r = m40_fmaf(n, -1.42860677e-6f, r);
    p = 1.98412698e-4f;
    p = m40_fmaf(p, r, 1.38888889e-3f);
    p = m40_fmaf(p, r, 8.33333333e-3f);
    p = m40_fmaf(p, r, 4.16666667e-2f);
    p = m40_fmaf(p, r, 1.66666667e-1f);
    p = m40_fmaf(p, r, 0.5f);
    p = m40_fmaf(p * r, r, r);
    two_n = m40_bits_to_f32((m40_f32_to_bits(t) - m40_f32_to_bits(magic) + 127u) << 23);
    e = m40_fmaf(two_n, p, two_n - 1.0f);
    return m40_bits_to_f32(m40_f32_to_bits(e / (e + 2.0f)) | sign);
}

/* silu(g) * u. */
M40_HD float m40_swiglu(float g, float u)
{
    return (g / (1.0f + m40_expf(-g))) * u;
}

#endif
