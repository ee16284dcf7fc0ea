/* Q4_0: 32 weights in 18 bytes (4.5 bits). value = d * (q - 8), q in 0..15. Source of the format: ggml's block_q4_0. */
#ifndef M40_TENSOR_FORMATS_Q4_0_H
#define M40_TENSOR_FORMATS_Q4_0_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q4_0_BLOCK = 32,
    q4_0_SUB = 32,
    q4_0_BIAS = 8,
    q4_0_D = 0,        /* plane: the eight blocks' d */
    q4_0_QUANTS = 512, /* 8 planes of nibbles */
    q4_0_TILE_BYTES = 9 * 512,
};

struct q4_0_block {
    uint16_t d;         /* FP16 */
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct q4_0_lane {
    struct m40_piece d;
};

M40_HD void q4_0_open(struct q4_0_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, q4_0_D, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q4_0_quants {
    struct m40_piece low;
};

M40_HD void q4_0_load(struct q4_0_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q4_0_QUANTS + b * M40_PLANE_BYTES, lane);
}

/* out = d * (q - bias); returns d. */
M40_HD float q4_0_unpack(const struct q4_0_lane *lane_state, const struct q4_0_quants *quants, unsigned b, int bias, enum m40_view view, float *out)
{
    float d = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
    const float scale[2] = {d, d};

    m40_widen32(quants->low.u, 4, quants->low.u, 0, bias, scale, view, out);
    return d;
}

M40_HD void q4_0_weights(const struct q4_0_lane *lane_state, const struct q4_0_quants *quants, unsigned b, float *w, float *m)
{
    m[0] = (float)q4_0_BIAS * q4_0_unpack(lane_state, quants, b, 0, M40_WEIGHT, w);
}

M40_HD void q4_0_values(const struct q4_0_lane *lane_state, const struct q4_0_quants *quants, unsigned b, float *values)
{
    (void)q4_0_unpack(lane_state, quants, b, q4_0_BIAS, M40_VALUE, values);
}

#ifndef M40_DEVICE_CODE

static inline float q4_0_block_unpack(const struct q4_0_block *block, int bias, enum m40_view view, float *out)
{
    float d = m40_f16_to_f32(block->d);
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_scale_quants(q, 32, bias, d, view, out);
    return d;
}

static inline void q4_0_block_weights(const struct q4_0_block *block, float *w, float *m)
{
    m[0] = (float)q4_0_BIAS * q4_0_block_unpack(block, 0, M40_WEIGHT, w);
}

static inline void q4_0_block_values(const struct q4_0_block *block, float *values)
{
    (void)q4_0_block_unpack(block, q4_0_BIAS, M40_VALUE, values);
}

#endif

M40_HD void q4_0_block_pack(const struct q4_0_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_plane_put(tile + q4_0_D + lane * 16, first / 16, &block->d, 2);
    m40_planes_pack(tile + q4_0_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
