/* Q5_0: 32 weights in 22 bytes (5.5 bits). value = d * (q - 16), q in 0..31. Source of the format: ggml's block_q5_0. */
#ifndef M40_TENSOR_FORMATS_Q5_0_H
#define M40_TENSOR_FORMATS_Q5_0_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q5_0_BLOCK = 32,
    q5_0_SUB = 32,
    q5_0_BIAS = 16,
    q5_0_HAS_OFFSETS = 0,
    q5_0_BIG_SCALES = 0,
    q5_0_D = 0,            /* plane: the eight blocks' d */
    q5_0_HIGH = 512,       /* 2 planes of the fifth bits, ascending: word b of the 8 is sub-block b's */
    q5_0_QUANTS = 3 * 512, /* 8 planes of the low nibbles */
    q5_0_TILE_BYTES = 11 * 512,
};

struct q5_0_block {
    uint16_t d;         /* FP16 */
    uint8_t high[4];    /* bit i: the fifth bit of weight i */
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct q5_0_lane {
    struct m40_piece d, high[2];
};

M40_HD void q5_0_open(struct q5_0_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, q5_0_D, lane);
    lane_state->high[0] = m40_piece_load(tile, q5_0_HIGH, lane);
    lane_state->high[1] = m40_piece_load(tile, q5_0_HIGH + M40_PLANE_BYTES, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q5_0_quants {
    struct m40_piece low;
};

M40_HD void q5_0_load(struct q5_0_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q5_0_QUANTS + b * M40_PLANE_BYTES, lane);
}

M40_HD void q5_0_fields(const struct q5_0_lane *lane_state, const struct q5_0_quants *quants, unsigned b, uint32_t *fields)
{
    uint32_t high = m40_pieces_word(lane_state->high, b);

    m40_fields32(quants->low.u, 4, &high, 1, fields);
}

M40_HD int q5_0_bit(unsigned c)
{
    return m40_field_bit(c, 4, 1);
}

M40_HD void q5_0_scales(const struct q5_0_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
}

M40_BLOCK_WIDENING(q5_0)

M40_HD void q5_0_block_quants(const struct q5_0_block *block, uint8_t *q)
{
    m40_split_nibbles(block->quants, 16, q);
    m40_add_high_bits(block->high, q);
}

#ifndef M40_DEVICE_CODE

static inline void q5_0_block_scales(const struct q5_0_block *block, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(block->d);
}

M40_BLOCK_WIDENING_ON_HOST(q5_0)

#endif

M40_HD void q5_0_block_pack(const struct q5_0_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    q5_0_block_quants(block, q);
    m40_plane_put(tile + q5_0_D + lane * 16, first / 16, &block->d, 2);
    m40_planes_pack(tile + q5_0_HIGH + lane * 16, first, q, 32, 4, 1);
    m40_planes_pack(tile + q5_0_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
