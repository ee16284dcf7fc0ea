/* From packed quants to FP32, on host and device, by cheap 32-bit operations.
 *
 * An integer q in the mantissa of a power of two is a float already: at bit p of the mantissa of 2^(23 - p), q makes 2^(23 - p) + q. So a field is widened where it
 * stands, by one LOP3 (an integer conversion runs at a quarter of its rate), and what is left is to take `zero`, the float of quant 0, away again:
 *  - a value, as ggml gives it, is scale * (t - zero): the difference is exact, the product rounds once, and its zeros keep their signs;
 *  - a weight is fmaf(t, scale, -(zero * scale)), one FFMA. zero * scale is exact, so this is RN(scale * q) too, but every zero is +0, and a scale that is not finite makes NaN. */
#ifndef M40_TENSOR_FORMATS_UNPACK_H
#define M40_TENSOR_FORMATS_UNPACK_H

#include "tensor/formats/piece.h"

/* (x & mask) | bits. On the device one LOP3; from C, ptxas makes two instructions with an immediate each. */
#ifdef M40_DEVICE_CODE
#define m40_and_or(x, mask, bits) simt_and_or(x, mask, bits)
#else
#define m40_and_or(x, mask, bits) (((x) & (mask)) | (bits))
#endif

/* t = zero + q (zero includes the bias) to scale * q. */
M40_HD float m40_scale_widened(float t, float zero, float scale, enum m40_view view)
{
    return view == M40_WEIGHT ? m40_fmaf(t, scale, -(zero * scale)) : scale * (t - zero);
}

/* scale * (q - bias); q: the `width` bits of `word` from bit `at`, at + width <= 23. A weight needs (2^(23 - at) + bias) * scale to be exact. */
M40_HD float m40_widen_field(uint32_t word, unsigned at, unsigned width, int bias, float scale, enum m40_view view)
{
    uint32_t t = m40_and_or(word, ((1u << width) - 1) << at, (150u - at) << 23);

    return m40_scale_widened(m40_bits_to_f32(t), (float)((1 << (23 - at)) + bias), scale, view);
}

/* Moves x up (by < 0: down). */
M40_HD uint32_t m40_move_bits(uint32_t x, int by)
{
    return by < 0 ? x >> -by : x << by;
}

/* 32 quants of low_width + high_width bits (high_width 0: no upper bits), kept apart in words of m40_planes_pack's layout: out[i] = scale[i / 16] * (q[i] - bias). */
M40_HD void m40_widen32(const uint32_t *low, unsigned low_width, const uint32_t *high, unsigned high_width, int bias, const float *scale,
                        enum m40_view view, float *out)
{
    const uint32_t low_mask = 0x01010101u * ((1u << low_width) - 1);

    M40_UNROLL
    for (unsigned g = 0; g < 8; g++) { /* four quants, one in each byte */
        uint32_t fields = low[g * low_width / 8];
        unsigned at = g * low_width % 8;

        if (high_width) {
            uint32_t upper = m40_move_bits(high[g * high_width / 8], (int)low_width - (int)(g * high_width % 8));

            fields = ((fields >> at) & low_mask) | (upper & ~low_mask);
            at = 0;
        }
        M40_UNROLL
        for (unsigned j = 0; j < 4; j++)
            out[g * 4 + j] = m40_widen_field(fields >> j / 2 * 16, at + j % 2 * 8, low_width + high_width, bias, scale[g / 4], view);
    }
}

/* Four bytes out of the eight of (upper, lower), chosen by the low four nibbles of `selector`, each 0..7. */
M40_HD uint32_t m40_select_bytes(uint32_t lower, uint32_t upper, uint32_t selector)
{
#if defined(M40_DEVICE_CODE) && defined(__clang__)
    return (uint32_t)__nvvm_prmt((int)lower, (int)upper, (int)selector);
#elif defined(M40_DEVICE_CODE)
    return __byte_perm(lower, upper, selector);
#else
    uint64_t bytes = (uint64_t)upper << 32 | lower;
    uint32_t out = 0;

    for (unsigned j = 0; j < 4; j++)
        out |= (uint32_t)(bytes >> (selector >> 4 * j & 7) * 8 & 0xff) << 8 * j;
    return out;
#endif
}

/* scale * (byte j of `bytes` - 128). The byte goes into bits 8..15 of 2^15: (2^15 + 128) * scale is exact for a scale of 15 bits, and for FP16 times an integer up to 32. */
M40_HD float m40_widen_byte(uint32_t bytes, unsigned j, float scale, enum m40_view view)
{
    uint32_t t = m40_select_bytes(bytes, 0x47000000, 0x7604 | j << 4);

    return m40_scale_widened(m40_bits_to_f32(t), 0x1p15f + 128, scale, view);
}

/* 32 nibbles in words of m40_planes_pack's layout that are indices into a table of 16 bytes: out[i] = scale * (table byte - 128). */
M40_HD void m40_widen32_table(const struct m40_piece *nibbles, const uint32_t *table, float scale, enum m40_view view, float *out)
{
    M40_UNROLL
    for (unsigned k = 0; k < 8; k++) {
        const uint32_t in_half = (nibbles->u[k / 2] & 0x77777777u) >> k % 2 * 16;
        /* bit 3 of a nibble takes byte j of `upper` (4 + j) rather than of `lower` (j) */
        const uint32_t half = m40_and_or(nibbles->u[k / 2] >> 1, 0x44444444u, 0x32103210u) >> k % 2 * 16;
        uint32_t lower = m40_select_bytes(table[0], table[1], in_half);
        uint32_t upper = m40_select_bytes(table[2], table[3], in_half);
        uint32_t bytes = m40_select_bytes(lower, upper, half);

        M40_UNROLL
        for (unsigned j = 0; j < 4; j++) /* nibbles of quants 0, 4, 1, 5, or 2, 6, 3, 7 */
            out[k / 2 * 8 + k % 2 * 2 + j % 2 * 4 + j / 2] = m40_widen_byte(bytes, j, scale, view);
    }
}

#endif
