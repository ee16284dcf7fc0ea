/* From packed quants to FP32, on host and device, by cheap 32-bit operations.
 *
 * A quant stays where it lies. Its bits alone, the rest of the word zero, are a field: the float with the same bits is q * 2^(bit - 149), exactly, as long as the field
 * ends at bit 23 or below (a subnormal number, or one of the least normal ones, which have the same spacing). So a kernel widens a quant with one LOP3, and multiplies it
 * with an x that was brought up by 2^(80 - bit) before (m40_prepare_x): all sums of products are the true ones times 2^-69, without a rounding more or less
 * (docs/numerics.md, matmul). The emulator does the same with fields as integers, because processors take a hundred clocks for a subnormal. */
#ifndef M40_TENSOR_FORMATS_UNPACK_H
#define M40_TENSOR_FORMATS_UNPACK_H

#include "tensor/formats/piece.h"

#ifdef M40_DEVICE_CODE
#define M40_X_UNIT   0x1p-80f /* a prepared x of one is 1 / M40_X_UNIT (times 2^-bit) */
#define M40_SUM_UNIT 0x1p+69f /* a sum of one, of products of such x with fields, is 1 / M40_SUM_UNIT */
#define M40_BIAS_UNIT 0x1p-149f /* M40_X_UNIT / M40_SUM_UNIT */
#else
#define M40_X_UNIT    1.0f
#define M40_SUM_UNIT  1.0f
#define M40_BIAS_UNIT 1.0f
#endif

/* The float that a field stands for: what kernels multiply with. */
M40_HD float m40_field_factor(uint32_t field)
{
#ifdef M40_DEVICE_CODE
    return m40_bits_to_f32(field);
#else
    return (float)field;
#endif
}

/* 2^-bit, bit: -100 .. 100. */
M40_HD float m40_field_unit(int bit)
{
    return m40_bits_to_f32((uint32_t)(127 - bit) << 23);
}

/* x as matmul takes it (docs/numerics.md), for a factor whose field is at `bit`, in units of M40_X_UNIT. */
M40_HD float m40_prepare_x(float x, int bit)
{
    float up = x * 0x1p86f; /* infinite from 2^42 on */

    up = __builtin_fabsf(up) < 0x1p29f ? 0.0f : up;
#ifdef M40_DEVICE_CODE
    return up * m40_field_unit(bit + 6);
#else
    return up * 0x1p-86f * m40_field_unit(bit);
#endif
}

/* Moves x up (by < 0: down). */
M40_HD uint32_t m40_move_bits(uint32_t x, int by)
{
    return by < 0 ? x >> -by : x << by;
}

/* Where m40_fields32 has quant c, 0..31. */
M40_HD int m40_field_bit(unsigned c, unsigned low_width, unsigned high_width)
{
    const unsigned at = high_width ? 0 : c / 4 * low_width % 8, byte = c % 4;

    return (int)(at + (byte < 3 ? byte * 8 : 16));
}

/* 32 quants of low_width + high_width < 8 bits (high_width 0: no upper bits), kept apart in words of m40_planes_pack's layout, as fields. */
M40_HD void m40_fields32(const uint32_t *low, unsigned low_width, const uint32_t *high, unsigned high_width, uint32_t *fields)
{
    const uint32_t low_mask = 0x01010101u * ((1u << low_width) - 1), mask = (1u << (low_width + high_width)) - 1;

    M40_UNROLL
    for (unsigned g = 0; g < 8; g++) { /* four quants, one in each byte */
        uint32_t word = low[g * low_width / 8];
        unsigned at = g * low_width % 8;

        if (high_width) {
            uint32_t upper = m40_move_bits(high[g * high_width / 8], (int)low_width - (int)(g * high_width % 8));

            word = ((word >> at) & low_mask) | (upper & ~low_mask);
            at = 0;
        }
        M40_UNROLL
        for (unsigned j = 0; j < 4; j++) /* the last comes down to the third's place */
            fields[g * 4 + j] = (j < 3 ? word : word >> 8) & mask << (at + (j < 3 ? j * 8 : 16));
    }
}

/* Where m40_byte_field has byte j of a word, 0..3. */
M40_HD int m40_byte_bit(unsigned j)
{
    return j < 3 ? (int)j * 8 : 0;
}

M40_HD uint32_t m40_byte_field(uint32_t word, unsigned j)
{
    return j < 3 ? word & 0xffu << j * 8 : word >> 24;
}

/* Four bytes out of the eight of (upper, lower), chosen by the low four nibbles of `selector`: 0..7; with 8 added, the byte's top bit in all places. */
M40_HD uint32_t m40_select_bytes(uint32_t lower, uint32_t upper, uint32_t selector)
{
#if defined(M40_DEVICE_CODE) && defined(__clang__)
    return (uint32_t)__nvvm_prmt((int)lower, (int)upper, (int)selector);
#elif defined(M40_DEVICE_CODE)
    return __byte_perm(lower, upper, selector);
#else
    uint64_t bytes = (uint64_t)upper << 32 | lower;
    uint32_t out = 0;

    for (unsigned j = 0; j < 4; j++) {
        uint32_t byte = (uint32_t)(bytes >> (selector >> 4 * j & 7) * 8 & 0xff);

        out |= (selector >> 4 * j & 8 ? byte >> 7 ? 0xffu : 0 : byte) << 8 * j;
    }
    return out;
#endif
}

/* (x & mask) | bits. On the device one LOP3; from C, ptxas makes two instructions with an immediate each. */
#ifdef M40_DEVICE_CODE
#define m40_and_or(x, mask, bits) simt_and_or(x, mask, bits)
#else
#define m40_and_or(x, mask, bits) (((x) & (mask)) | (bits))
#endif

/* Where m40_table_fields32 has quant c, 0..31: its nibbles are those of quants 0, 4, 1, 5, or 2, 6, 3, 7. */
M40_HD int m40_table_bit(unsigned c)
{
    return m40_byte_bit(c % 2 * 2 + c / 4 % 2);
}

/* The fields of the four bytes that nibbles 4 * half .. + 3 of word i of a piece stand for: quants 0, 4, 1, 5 of eight, or 2, 6, 3, 7. */
M40_HD void m40_put_table_fields(uint32_t bytes, unsigned i, unsigned half, uint32_t *fields)
{
    M40_UNROLL
    for (unsigned j = 0; j < 4; j++)
        fields[i * 8 + half * 2 + j % 2 * 4 + j / 2] = m40_byte_field(bytes, j);
}

/* 32 nibbles in words of m40_planes_pack's layout that are indices into a table of 16 bytes: the bytes as fields. */
M40_HD void m40_table_fields32(const struct m40_piece *nibbles, const uint32_t *table, uint32_t *fields)
{
    M40_UNROLL
    for (unsigned k = 0; k < 8; k++) {
        const uint32_t in_half = (nibbles->u[k / 2] & 0x77777777u) >> k % 2 * 16;
        /* bit 3 of a nibble takes byte j of `upper` (4 + j) rather than of `lower` (j) */
        const uint32_t half = m40_and_or(nibbles->u[k / 2] >> 1, 0x44444444u, 0x32103210u) >> k % 2 * 16;
        uint32_t lower = m40_select_bytes(table[0], table[1], in_half);
        uint32_t upper = m40_select_bytes(table[2], table[3], in_half);

        m40_put_table_fields(m40_select_bytes(lower, upper, half), k / 2, k % 2, fields);
    }
}

/* The same for a table of bytes below 128: the half of the table that a nibble is not in gives a byte of zeros. */
M40_HD void m40_small_table_fields32(const struct m40_piece *nibbles, const uint32_t *table, uint32_t *fields)
{
    M40_UNROLL
    for (unsigned k = 0; k < 8; k++) {
        const uint32_t nibble = nibbles->u[k / 2], other = nibble ^ 0x88888888u;
        uint32_t lower = m40_select_bytes(table[0], table[1], nibble >> k % 2 * 16);
        uint32_t upper = m40_select_bytes(table[2], table[3], other >> k % 2 * 16);

        m40_put_table_fields(lower | upper, k / 2, k % 2, fields);
    }
}

/* The two ways out of a format's fields and scales, NAME_fields(lane_state, quants, b, fields[32]), NAME_bit(c) and NAME_scales(lane_state, b, d, m), which fills in d[32 / SUB]
 * and, where HAS_OFFSETS, as many m:
 *   NAME_weights  factors of sub-block b (0..7) of row `lane`, with their d and m
 *   NAME_values   its 32 values, as ggml dequantises them */
#define M40_BLOCK_WIDENING(name)                                                                                                                     \
    M40_HD void name##_weights(const struct name##_lane *lane_state, const struct name##_quants *quants, unsigned b, float *q, float *d, float *m)   \
    {                                                                                                                                                \
        uint32_t fields[32];                                                                                                                         \
                                                                                                                                                     \
        name##_scales(lane_state, b, d, m);                                                                                                          \
        name##_fields(lane_state, quants, b, fields);                                                                                                \
        M40_UNROLL                                                                                                                                   \
        for (unsigned c = 0; c < 32; c++)                                                                                                            \
            q[c] = m40_field_factor(fields[c]);                                                                                                      \
    }                                                                                                                                                \
                                                                                                                                                     \
    M40_HD void name##_values(const struct name##_lane *lane_state, const struct name##_quants *quants, unsigned b, float *values)                   \
    {                                                                                                                                                \
        float d[2], m[2];                                                                                                                            \
        uint32_t fields[32];                                                                                                                         \
                                                                                                                                                     \
        name##_scales(lane_state, b, d, m);                                                                                                          \
        name##_fields(lane_state, quants, b, fields);                                                                                                \
        M40_UNROLL                                                                                                                                   \
        for (unsigned c = 0; c < 32; c++) {                                                                                                          \
            values[c] = d[c / name##_SUB] * (float)((int)(fields[c] >> name##_bit(c)) - name##_BIAS);                                                \
            if (name##_HAS_OFFSETS)                                                                                                                  \
                values[c] = values[c] - m[c / name##_SUB];                                                                                           \
        }                                                                                                                                            \
    }

#endif
