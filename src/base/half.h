/* FP16 and BF16 to FP32 and back, one definition for the host and for the emulated device. Device code takes the same names from simt.h, where they are
 * single instructions: every value and NaN-ness agree, NaN payloads may not. */
#ifndef M40_BASE_HALF_H
#define M40_BASE_HALF_H

#ifndef M40_DEVICE_CODE

#include <stdint.h>
#include <string.h>

static inline float m40_bits_to_f32(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

static inline uint32_t m40_f32_to_bits(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, 4);
    return bits;
}

/* Exact, subnormals included. */
static inline float m40_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t magnitude = h & 0x7fff;

    if (magnitude >= 0x7c00) /* infinity, NaN */
        return m40_bits_to_f32(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude < 0x0400) /* zero, subnormal: magnitude * 2^-24 */
        return m40_bits_to_f32(sign | m40_f32_to_bits((float)magnitude * 0x1p-24f));
    return m40_bits_to_f32(sign | ((magnitude << 13) + 0x38000000));
}

/* Round to nearest even; overflow gives infinity, NaN stays NaN. */
static inline uint16_t m40_f32_to_f16(float f)
{
    uint32_t bits = m40_f32_to_bits(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half, rest;

    if (magnitude > 0x7f800000)
        return sign | 0x7fff;
    if (magnitude >= 0x477ff000) /* 65520 and up */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24, nearest even */
        return (uint16_t)(sign | (m40_f32_to_bits(m40_bits_to_f32(magnitude) + 0.5f) - 0x3f000000));
    half = (magnitude - 0x38000000) >> 13;
    rest = magnitude & 0x1fff;
    return (uint16_t)(sign | (half + (rest > 0x1000 || (rest == 0x1000 && (half & 1)))));
}

static inline float m40_bf16_to_f32(uint16_t h)
{
    return m40_bits_to_f32((uint32_t)h << 16);
}

#endif
#endif
