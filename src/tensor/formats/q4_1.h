/* Q4_1: 32 weights in 20 bytes (5 bits). value = d * q + min, q in 0..15. Source of the format: ggml's block_q4_1. */
#ifndef M40_TENSOR_FORMATS_Q4_1_H
#define M40_TENSOR_FORMATS_Q4_1_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q4_1_BLOCK = 32,
    q4_1_SUB = 32,
    q4_1_BIAS = 0,
    q4_1_HAS_OFFSETS = 1,
    q4_1_BIG_SCALES = 0,
    q4_1_D = 0,            /* plane: the eight blocks' d */
    q4_1_MIN = 512,        /* plane: the eight blocks' min */
    q4_1_QUANTS = 2 * 512, /* 8 planes of nibbles */
    q4_1_TILE_BYTES = 10 * 512,
};

struct q4_1_block {
    uint16_t d, min;    /* FP16 */
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct q4_1_lane {
    struct m40_piece d, min;
};

M40_HD void q4_1_open(struct q4_1_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, q4_1_D, lane);
    lane_state->min = m40_piece_load(tile, q4_1_MIN, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q4_1_quants {
    struct m40_piece low;
};

M40_HD void q4_1_load(struct q4_1_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q4_1_QUANTS + b * M40_PLANE_BYTES, lane);
}

M40_HD void q4_1_fields(const struct q4_1_lane *lane_state, const struct q4_1_quants *quants, unsigned b, uint32_t *fields)
{
    (void)lane_state, (void)b;
    m40_fields32(quants->low.u, 4, quants->low.u, 0, fields);
}

M40_HD int q4_1_bit(unsigned c)
{
    return m40_field_bit(c, 4, 0);
}

M40_HD void q4_1_scales(const struct q4_1_lane *lane_state, unsigned b, float *d, float *m)
{
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
    m[0] = -m40_f16_to_f32(m40_piece_half(&lane_state->min, b));
}

M40_BLOCK_WIDENING(q4_1)

M40_HD void q4_1_block_quants(const struct q4_1_block *block, uint8_t *q)
{
    m40_split_nibbles(block->quants, 16, q);
}

#ifndef M40_DEVICE_CODE

static inline void q4_1_block_scales(const struct q4_1_block *block, float *d, float *m)
{
    d[0] = m40_f16_to_f32(block->d);
    m[0] = -m40_f16_to_f32(block->min);
}

M40_BLOCK_WIDENING_ON_HOST(q4_1)

#endif

M40_HD void q4_1_block_pack(const struct q4_1_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    q4_1_block_quants(block, q);
    m40_plane_put(tile + q4_1_D + lane * 16, first / 16, &block->d, 2);
    m40_plane_put(tile + q4_1_MIN + lane * 16, first / 16, &block->min, 2);
    m40_planes_pack(tile + q4_1_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
