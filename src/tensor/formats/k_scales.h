/* The head of Q4_K and Q5_K blocks: d, dmin, and eight pairs of a 6-bit scale and minimum in 12 bytes. The first four pairs have their 6 bits in bytes 0-3 (scale)
 * and 4-7 (minimum); the last four have 4 bits in bytes 8-11 (scale low, minimum high nibble) and their upper 2 bits in the top of bytes 0-3 and 4-7.
 * Source: ggml's get_scale_min_k4. */
#ifndef M40_TENSOR_FORMATS_K_SCALES_H
#define M40_TENSOR_FORMATS_K_SCALES_H

#include "tensor/formats/piece.h"

/* packed: the 12 bytes as 3 little-endian words; b: 0..7. */
M40_HD void k_scales_get(const uint32_t *packed, unsigned b, unsigned *scale, unsigned *minimum)
{
    unsigned shift = b % 4 * 8;
    unsigned s = packed[0] >> shift & 0xff, m = packed[1] >> shift & 0xff, rest = packed[2] >> shift & 0xff;

    *scale = b < 4 ? s & 63 : (rest & 15) | (s >> 2 & 48);
    *minimum = b < 4 ? m & 63 : rest >> 4 | (m >> 2 & 48);
}

/* Scale and offset of sub-block b from a block's first 16 bytes: d * sc and dmin * mn, both exact. */
M40_HD float k_scales_open(const struct m40_piece *head, unsigned b, float *m)
{
    unsigned sc, mn;

    k_scales_get(head->u + 1, b, &sc, &mn);
    *m = m40_f16_to_f32((uint16_t)(head->u[0] >> 16)) * (float)mn;
    return m40_f16_to_f32((uint16_t)(head->u[0] & 0xffff)) * (float)sc;
}

#endif
