/* Q5_1: 32 weights in 24 bytes (6 bits). value = d * q + min, q in 0..31. Source of the format: ggml's block_q5_1. */
#ifndef M40_TENSOR_FORMATS_Q5_1_H
#define M40_TENSOR_FORMATS_Q5_1_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q5_1_BLOCK = 32,
    q5_1_SUB = 32,
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

M40_HD void q5_1_unpack(const struct q5_1_lane *lane_state, const struct q5_1_quants *quants, unsigned b, enum m40_view view, float *w, float *m)
{
    uint32_t high = m40_pieces_word(lane_state->high, b);
    float d = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
    const float scale[2] = {d, d};

    m40_widen32(quants->low.u, 4, &high, 1, 0, scale, view, w);
    m[0] = -m40_f16_to_f32(m40_piece_half(&lane_state->min, b));
}

M40_HD void q5_1_weights(const struct q5_1_lane *lane_state, const struct q5_1_quants *quants, unsigned b, float *w, float *m)
{
    q5_1_unpack(lane_state, quants, b, M40_WEIGHT, w, m);
}

M40_HD void q5_1_values(const struct q5_1_lane *lane_state, const struct q5_1_quants *quants, unsigned b, float *values)
{
    float m;

    q5_1_unpack(lane_state, quants, b, M40_VALUE, values, &m);
    M40_UNROLL
    for (int i = 0; i < 32; i++)
        values[i] -= m;
}

#ifndef M40_DEVICE_CODE

static inline void q5_1_block_unpack(const struct q5_1_block *block, enum m40_view view, float *w, float *m)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_add_high_bits(block->high, q);
    m40_scale_quants(q, 32, 0, m40_f16_to_f32(block->d), view, w);
    m[0] = -m40_f16_to_f32(block->min);
}

static inline void q5_1_block_weights(const struct q5_1_block *block, float *w, float *m)
{
    q5_1_block_unpack(block, M40_WEIGHT, w, m);
}

static inline void q5_1_block_values(const struct q5_1_block *block, float *values)
{
    float m;

    q5_1_block_unpack(block, M40_VALUE, values, &m);
    m40_subtract_offsets(values, 32, &m, 32);
}

#endif

M40_HD void q5_1_block_pack(const struct q5_1_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_plane_put(tile + q5_1_D + lane * 16, first / 16, &block->d, 2);
    m40_plane_put(tile + q5_1_MIN + lane * 16, first / 16, &block->min, 2);
    m40_add_high_bits(block->high, q);
    m40_planes_pack(tile + q5_1_HIGH + lane * 16, first, q, 32, 4, 1);
    m40_planes_pack(tile + q5_1_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
