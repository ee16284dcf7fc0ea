/* Q5_1: 32 weights in 24 bytes (6 bits). value = d * q + min, q in 0..31. Source of the format: ggml's block_q5_1. */
#ifndef M40_TENSOR_FORMATS_Q5_1_H
#define M40_TENSOR_FORMATS_Q5_1_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q5_1_BLOCK = 32,
    q5_1_SUB = 32,
    q5_1_BIAS = 0,
    q5_1_HAS_OFFSETS = 1,
    q5_1_BIG_SCALES = 0,
    q5_1_D = 0,            /* plane: the eight blocks' d */
    q5_1_MIN = 512,        /* plane: the eight blocks' min */
    q5_1_HIGH = 2 * 512,   /* 2 planes of the fifth bits, ascending: word b of the 8 is sub-block b's */
    q5_1_QUANTS = 4 * 512, /* 8 planes of the low nibbles */
    q5_1_TILE_BYTES = 12 * 512,
};

struct q5_1_block {
    uint16_t d, min;    /* FP16 */
    uint8_t high[4];    /* bit i: the fifth bit of weight i */
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct q5_1_lane {
    struct m40_piece d, min, high[2];
};

M40_HD void q5_1_open(struct q5_1_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, q5_1_D, lane);
    lane_state->min = m40_piece_load(tile, q5_1_MIN, lane);
    lane_state->high[0] = m40_piece_load(tile, q5_1_HIGH, lane);
    lane_state->high[1] = m40_piece_load(tile, q5_1_HIGH + M40_PLANE_BYTES, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q5_1_quants {
    struct m40_piece low;
};

M40_HD void q5_1_load(struct q5_1_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q5_1_QUANTS + b * M40_PLANE_BYTES, lane);
}

M40_HD void q5_1_fields(const struct q5_1_lane *lane_state, const struct q5_1_quants *quants, unsigned b, uint32_t *fields)
{
    uint32_t high = m40_pieces_word(lane_state->high, b);

    m40_fields32(quants->low.u, 4, &high, 1, fields);
}

M40_HD int q5_1_bit(unsigned c)
{
    return m40_field_bit(c, 4, 1);
}

M40_HD void q5_1_scales(const struct q5_1_lane *lane_state, unsigned b, float *d, float *m)
{
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
    m[0] = -m40_f16_to_f32(m40_piece_half(&lane_state->min, b));
}

M40_BLOCK_WIDENING(q5_1)

M40_HD void q5_1_block_quants(const struct q5_1_block *block, uint8_t *q)
{
    m40_split_nibbles(block->quants, 16, q);
    m40_add_high_bits(block->high, q);
}

#ifndef M40_DEVICE_CODE

static inline void q5_1_block_scales(const struct q5_1_block *block, float *d, float *m)
{
    d[0] = m40_f16_to_f32(block->d);
    m[0] = -m40_f16_to_f32(block->min);
}

M40_BLOCK_WIDENING_ON_HOST(q5_1)

#endif

M40_HD void q5_1_block_pack(const struct q5_1_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    q5_1_block_quants(block, q);
    m40_plane_put(tile + q5_1_D + lane * 16, first / 16, &block->d, 2);
    m40_plane_put(tile + q5_1_MIN + lane * 16, first / 16, &block->min, 2);
    m40_planes_pack(tile + q5_1_HIGH + lane * 16, first, q, 32, 4, 1);
    m40_planes_pack(tile + q5_1_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
