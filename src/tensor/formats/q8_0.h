/* Q8_0: 32 weights in 34 bytes (8.5 bits). value = d * q, q in -128..127. Source of the format: ggml's block_q8_0. */
#ifndef M40_TENSOR_FORMATS_Q8_0_H
#define M40_TENSOR_FORMATS_Q8_0_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q8_0_BLOCK = 32,
    q8_0_SUB = 32,
    q8_0_BIAS = 128,
    q8_0_HAS_OFFSETS = 0,
    q8_0_BIG_SCALES = 0,
    q8_0_D = 0,        /* plane: the eight blocks' d */
    q8_0_QUANTS = 512, /* 16 planes of 16 bytes q + 128 */
    q8_0_TILE_BYTES = 17 * 512,
};

struct q8_0_block {
    uint16_t d; /* FP16 */
    int8_t quants[32];
};

struct q8_0_lane {
    struct m40_piece d;
};

M40_HD void q8_0_open(struct q8_0_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, q8_0_D, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q8_0_quants {
    struct m40_piece bytes[2];
};

M40_HD void q8_0_load(struct q8_0_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    M40_UNROLL
    for (unsigned p = 0; p < 2; p++)
        quants->bytes[p] = m40_piece_load(tile, q8_0_QUANTS + (b * 2 + p) * M40_PLANE_BYTES, lane);
}

M40_HD void q8_0_fields(const struct q8_0_lane *lane_state, const struct q8_0_quants *quants, unsigned b, uint32_t *fields)
{
    (void)lane_state, (void)b;
    M40_UNROLL
    for (unsigned c = 0; c < 32; c++)
        fields[c] = m40_byte_field(quants->bytes[c / 16].u[c / 4 % 4], c % 4);
}

M40_HD int q8_0_bit(unsigned c)
{
    return m40_byte_bit(c % 4);
}

M40_HD void q8_0_scales(const struct q8_0_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
}

M40_BLOCK_WIDENING(q8_0)

M40_HD void q8_0_block_quants(const struct q8_0_block *block, uint8_t *q)
{
    for (unsigned i = 0; i < 32; i++)
        q[i] = (uint8_t)(block->quants[i] + q8_0_BIAS);
}

#ifndef M40_DEVICE_CODE

static inline void q8_0_block_scales(const struct q8_0_block *block, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(block->d);
}

M40_BLOCK_WIDENING_ON_HOST(q8_0)

#endif

M40_HD void q8_0_block_pack(const struct q8_0_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    q8_0_block_quants(block, q);
    m40_plane_put(tile + q8_0_D + lane * 16, first / 16, &block->d, 2);
    m40_planes_pack(tile + q8_0_QUANTS + lane * 16, first, q, 32, 0, 8);
}

#endif
