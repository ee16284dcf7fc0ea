/* The 6-bit scales and minimums of Q4_K and Q5_K: eight pairs in 12 bytes. The first four pairs have their 6 bits in bytes 0-3 (scale) and 4-7 (minimum); the
 * last four have 4 bits in bytes 8-11 (scale low, minimum high nibble) and their upper 2 bits in the top of bytes 0-3 and 4-7. Source: ggml's get_scale_min_k4. */
#ifndef M40_TENSOR_FORMATS_K_SCALES_H
#define M40_TENSOR_FORMATS_K_SCALES_H

#include "base/portable.h"

#include <stdint.h>

/* packed: the 12 bytes as 3 little-endian words; b: 0..7. */
M40_HD void k_scales_get(const uint32_t *packed, unsigned b, unsigned *scale, unsigned *minimum)
{
    unsigned shift = b % 4 * 8;
    unsigned s = packed[0] >> shift & 0xff, m = packed[1] >> shift & 0xff, upper = packed[2] >> shift & 0xff;

    if (b < 4) {
        *scale = s & 63;
        *minimum = m & 63;
    } else {
        *scale = (upper & 15) | (s >> 6) << 4;
        *minimum = upper >> 4 | (m >> 6) << 4;
    }
}

#endif
