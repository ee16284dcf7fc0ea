/* Q4_1: 32 weights in 20 bytes (5 bits). value = d * q + min, q in 0..15. Source of the format: ggml's block_q4_1. */
#ifndef M40_TENSOR_FORMATS_Q4_1_H
#define M40_TENSOR_FORMATS_Q4_1_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q4_1_BLOCK = 32,
    q4_1_SUB = 32,
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

M40_HD void q4_1_unpack(const struct q4_1_lane *lane_state, const struct q4_1_quants *quants, unsigned b, enum m40_view view, float *w, float *m)
{
    float d = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
    const float scale[2] = {d, d};

    m40_widen32(quants->low.u, 4, quants->low.u, 0, 0, scale, view, w);
    m[0] = -m40_f16_to_f32(m40_piece_half(&lane_state->min, b));
}

M40_HD void q4_1_weights(const struct q4_1_lane *lane_state, const struct q4_1_quants *quants, unsigned b, float *w, float *m)
{
    q4_1_unpack(lane_state, quants, b, M40_WEIGHT, w, m);
}

M40_HD void q4_1_values(const struct q4_1_lane *lane_state, const struct q4_1_quants *quants, unsigned b, float *values)
{
    float m;

    q4_1_unpack(lane_state, quants, b, M40_VALUE, values, &m);
    M40_UNROLL
    for (int i = 0; i < 32; i++)
        values[i] -= m;
}

#ifndef M40_DEVICE_CODE

static inline void q4_1_block_unpack(const struct q4_1_block *block, enum m40_view view, float *w, float *m)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_scale_quants(q, 32, 0, m40_f16_to_f32(block->d), view, w);
    m[0] = -m40_f16_to_f32(block->min);
}

static inline void q4_1_block_weights(const struct q4_1_block *block, float *w, float *m)
{
    q4_1_block_unpack(block, M40_WEIGHT, w, m);
}

static inline void q4_1_block_values(const struct q4_1_block *block, float *values)
{
    float m;

    q4_1_block_unpack(block, M40_VALUE, values, &m);
    m40_subtract_offsets(values, 32, &m, 32);
}

#endif

M40_HD void q4_1_block_pack(const struct q4_1_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_plane_put(tile + q4_1_D + lane * 16, first / 16, &block->d, 2);
    m40_plane_put(tile + q4_1_MIN + lane * 16, first / 16, &block->min, 2);
    m40_planes_pack(tile + q4_1_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
