/* From packed quants to FP32, on host and device, by cheap 32-bit operations.
 *
 * An integer q < 2^23 in the low mantissa bits of 2^23 is the float 2^23 + q; subtracting 2^23 + bias leaves q - bias exactly. On Maxwell that is one LOP3 and one
 * FADD at full rate, where an integer conversion runs at a quarter of it. The multiplication by the scale then rounds once: RN(scale * (q - bias)), and signs of
 * zero, infinities and subnormal scales come out as for a plain product. */
#ifndef M40_TENSOR_FORMATS_UNPACK_H
#define M40_TENSOR_FORMATS_UNPACK_H

#include "tensor/formats/piece.h"

#define M40_TWO_23      8388608.0f
#define M40_TWO_23_BITS 0x4b000000u

/* (x & mask) | bits. On the device one LOP3; from C, ptxas makes two instructions with an immediate each. */
#ifdef M40_DEVICE_CODE
#define m40_and_or(x, mask, bits) simt_and_or(x, mask, bits)
#else
#define m40_and_or(x, mask, bits) (((x) & (mask)) | (bits))
#endif

/* w[j * stride] = scale * (byte j - bias), j = 0..3. Bytes 1 and 3 are used where they stand, times 256; so scale / 256 must be exact (2^-141 and up is). */
M40_HD void m40_widen4(uint32_t bytes, int bias, float scale, int stride, float *w)
{
    uint32_t upper = bytes >> 16;
    float zero = M40_TWO_23 + (float)bias, zero_256 = M40_TWO_23 + (float)(bias * 256);
    float scale_256 = scale * 0.00390625f;

    w[0] = scale * (m40_bits_to_f32(m40_and_or(bytes, 0xff, M40_TWO_23_BITS)) - zero);
    w[stride] = scale_256 * (m40_bits_to_f32(m40_and_or(bytes, 0xff00, M40_TWO_23_BITS)) - zero_256);
    w[stride * 2] = scale * (m40_bits_to_f32(m40_and_or(upper, 0xff, M40_TWO_23_BITS)) - zero);
    w[stride * 3] = scale_256 * (m40_bits_to_f32(m40_and_or(upper, 0xff00, M40_TWO_23_BITS)) - zero_256);
}

/* w[i] = scale * (nibble i - bias), i = 0..7. Nibbles 1 to 3 of each half are used where they stand, times 16, 256 and 4096; so scale / 4096 must be exact. */
M40_HD void m40_widen_nibbles(uint32_t nibbles, int bias, float scale, float *w)
{
    M40_UNROLL
    for (int j = 0; j < 4; j++) {
        float unit = (float)(1 << 4 * j), scale_j = scale * (1.0f / unit), zero = M40_TWO_23 + (float)bias * unit;

        w[j] = scale_j * (m40_bits_to_f32(m40_and_or(nibbles, 15u << 4 * j, M40_TWO_23_BITS)) - zero);
        w[4 + j] = scale_j * (m40_bits_to_f32(m40_and_or(nibbles >> 16, 15u << 4 * j, M40_TWO_23_BITS)) - zero);
    }
}

/* The k-th eight fields of `width` bits (1, 2 or 4) as four bytes: fields 2j and 2j + 1 are the low 2 * width bits of byte j. */
M40_HD uint32_t m40_field_pairs(const uint32_t *words, unsigned k, unsigned width)
{
    uint32_t x = words[k * width / 4] >> k * width % 4 * 8;

    if (width == 4)
        return x;
    x &= (1u << 8 * width) - 1;
    x = (x | x << (16 - 4 * width)) & 0x00010001u * ((1u << 4 * width) - 1);
    return (x | x << (8 - 2 * width)) & 0x01010101u * ((1u << 2 * width) - 1);
}

/* 32 quants of low_width + high_width bits, kept apart as ascending fields (high_width 0: none): w[i] = scale[i / 16] * (q[i] - bias). */
M40_HD void m40_widen32(const uint32_t *low, unsigned low_width, const uint32_t *high, unsigned high_width, int bias, const float *scale, float *w)
{
    const uint32_t low_mask = 0x01010101u * ((1u << low_width) - 1), high_mask = 0x01010101u * ((1u << high_width) - 1);

    M40_UNROLL
    for (unsigned k = 0; k < 4 && low_width == 4 && !high_width; k++)
        m40_widen_nibbles(low[k], bias, scale[k / 2], w + k * 8);
    if (low_width == 4 && !high_width)
        return;
    M40_UNROLL
    for (unsigned k = 0; k < 4; k++) {
        uint32_t pairs = m40_field_pairs(low, k, low_width);
        uint32_t even = pairs & low_mask, odd = pairs >> low_width & low_mask;

        if (high_width) {
            pairs = m40_field_pairs(high, k, high_width);
            even |= (pairs & high_mask) << low_width;
            odd |= (pairs >> high_width & high_mask) << low_width;
        }
        m40_widen4(even, bias, scale[k / 2], 2, w + k * 8);
        m40_widen4(odd, bias, scale[k / 2], 2, w + k * 8 + 1);
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

/* 32 nibbles that are indices into a table of 16 bytes: w[i] = scale * (table byte - bias). */
M40_HD void m40_widen32_table(const struct m40_piece *nibbles, const uint32_t *table, int bias, float scale, float *w)
{
    M40_UNROLL
    for (unsigned k = 0; k < 8; k++) {
        uint32_t index = nibbles->u[k / 2] >> k % 2 * 16;
        uint32_t in_half = index & 0x7777;
        uint32_t lower = m40_select_bytes(table[0], table[1], in_half);
        uint32_t upper = m40_select_bytes(table[2], table[3], in_half);

        /* bit 3 of a nibble takes byte j of `upper` (4 + j) rather than of `lower` (j) */
        m40_widen4(m40_select_bytes(lower, upper, 0x3210 | (index & 0x8888) >> 1), bias, scale, 1, w + k * 4);
    }
}

#endif
