/* What packing to tiles shares, on host and device: blocks to quants as bytes, bytes into a tile's planes; and, on the host, bytes to floats. */
#ifndef M40_TENSOR_FORMATS_PACK_H
#define M40_TENSOR_FORMATS_PACK_H

#include "tensor/formats/piece.h"

#ifndef M40_DEVICE_CODE
#include <string.h>
#elif defined(__clang__)
#define memcpy __builtin_memcpy /* no headers there */
#endif

/* n bytes of two nibbles -> q[2n]: the low nibbles, then the high ones. */
M40_HD void m40_split_nibbles(const uint8_t *bytes, unsigned n, uint8_t *q)
{
    for (unsigned i = 0; i < n; i++) {
        q[i] = bytes[i] & 15;
        q[i + n] = bytes[i] >> 4;
    }
}

/* Bit i of the four bytes -> bit 4 of q[i], i = 0..31. */
M40_HD void m40_add_high_bits(const uint8_t *bits, uint8_t *q)
{
    for (unsigned i = 0; i < 32; i++)
        q[i] |= (uint8_t)((bits[i / 8] >> i % 8 & 1) << 4);
}

/* 64 bytes of four 2-bit fields -> q[256]: per 32 bytes, bits 2j, 2j + 1 of byte i are q[32j + i]. */
M40_HD void m40_split_crumbs(const uint8_t *bytes, uint8_t *q)
{
    for (unsigned b = 0; b < 8; b++)
        for (unsigned i = 0; i < 32; i++)
            q[b * 32 + i] = bytes[b / 4 * 32 + i] >> b % 4 * 2 & 3;
}

/* Bit b of byte i of the 32 -> bit `to` of q[32b + i], b = 0..7. */
M40_HD void m40_add_high_planes(const uint8_t *bytes, unsigned to, uint8_t *q)
{
    for (unsigned b = 0; b < 8; b++)
        for (unsigned i = 0; i < 32; i++)
            q[b * 32 + i] |= (uint8_t)((bytes[i] >> b & 1) << to);
}

#ifndef M40_DEVICE_CODE

/* q[i] = byte q[i] (0..15) of the table, whose words are little-endian. */
static inline void m40_look_up(const uint32_t *table, uint8_t *q, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        q[i] = (uint8_t)(table[q[i] / 4] >> q[i] % 4 * 8);
}

/* out[i] = q[i], n a multiple of 16 */
static inline void m40_bytes_to_floats(const uint8_t *q, unsigned n, float *out)
{
    for (unsigned i = 0; i < n; i++)
        out[i] = (float)q[i];
}

/* The same two views of a block as it lies in the file, from NAME_block_quants(block, q), bytes with the bias added, and NAME_block_scales(block, d, m). q has a block's elements, d and m
 * have one for every SUB. */
#define M40_BLOCK_WIDENING_ON_HOST(name)                                                                                                             \
    static inline void name##_block_weights(const struct name##_block *block, float *q, float *d, float *m)                                          \
    {                                                                                                                                                \
        uint8_t bytes[name##_BLOCK];                                                                                                                 \
                                                                                                                                                     \
        name##_block_quants(block, bytes);                                                                                                           \
        name##_block_scales(block, d, m);                                                                                                            \
        m40_bytes_to_floats(bytes, name##_BLOCK, q);                                                                                                 \
    }                                                                                                                                                \
                                                                                                                                                     \
    static inline void name##_block_values(const struct name##_block *block, float *values)                                                          \
    {                                                                                                                                                \
        float d[name##_BLOCK / name##_SUB], m[name##_BLOCK / name##_SUB];                                                                            \
        uint8_t bytes[name##_BLOCK];                                                                                                                 \
                                                                                                                                                     \
        name##_block_quants(block, bytes);                                                                                                           \
        name##_block_scales(block, d, m);                                                                                                            \
        for (unsigned i = 0; i < name##_BLOCK; i++) {                                                                                                \
            values[i] = d[i / name##_SUB] * (float)((int)bytes[i] - name##_BIAS);                                                                    \
            if (name##_HAS_OFFSETS)                                                                                                                  \
                values[i] = values[i] - m[i / name##_SUB];                                                                                           \
        }                                                                                                                                            \
    }

/* n_bytes from the row's start, over as many planes as they take. */
static inline void m40_planes_copy(uint8_t *plane_row, const uint8_t *bytes, size_t n_bytes)
{
    size_t n_whole = n_bytes / 16;

    for (size_t i = 0; i < n_whole; i++)
        memcpy(plane_row + i * M40_PLANE_BYTES, bytes + i * 16, 16);
    if (n_bytes % 16)
        memcpy(plane_row + n_whole * M40_PLANE_BYTES, bytes + n_whole * 16, n_bytes % 16);
}

#endif

/* Where byte `at` of a row lies, from the row's piece in the first of its planes. */
M40_HD uint8_t *m40_plane_at(uint8_t *plane_row, unsigned at)
{
    return plane_row + at / 16 * M40_PLANE_BYTES + at % 16;
}

/* n_bytes that do not cross a piece, to byte `at` of the row. */
M40_HD void m40_plane_put(uint8_t *plane_row, unsigned at, const void *bytes, unsigned n_bytes)
{
    memcpy(m40_plane_at(plane_row, at), bytes, n_bytes);
}

/* n quants (a multiple of 32) from column `first` of the chunk, bits [shift, shift + width) of each (width 1, 2, 4 or 8), in words of 32 / width quants: each four
 * neighbours lie at the same place of the word's four bytes, the first four lowest. */
M40_HD void m40_planes_pack(uint8_t *plane_row, unsigned first, const uint8_t *q, unsigned n, unsigned shift, unsigned width)
{
    const uint32_t mask = 0x01010101u * ((1u << width) - 1);

    for (unsigned i = 0; i < n; i += 32 / width) {
        uint32_t word = 0;

        for (unsigned at = 0; at < 8; at += width) {
            uint32_t four;

            memcpy(&four, q + i + at / width * 4, 4);
            word |= (four >> shift & mask) << at;
        }
        *(m40_piece4 *)(void *)m40_plane_at(plane_row, (first + i) * width / 8) = word;
    }
}

#endif
