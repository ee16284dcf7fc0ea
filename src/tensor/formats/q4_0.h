/* Q4_0: 32 weights in 18 bytes (4.5 bits). value = d * (q - 8), q in 0..15. Source of the format: ggml's block_q4_0. */
#ifndef M40_TENSOR_FORMATS_Q4_0_H
#define M40_TENSOR_FORMATS_Q4_0_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q4_0_BLOCK = 32,
    q4_0_SUB = 32,
    q4_0_BIAS = 8,
    q4_0_HAS_OFFSETS = 0,
    q4_0_BIG_SCALES = 0,
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

M40_HD void q4_0_fields(const struct q4_0_lane *lane_state, const struct q4_0_quants *quants, unsigned b, uint32_t *fields)
{
    (void)lane_state, (void)b;
    m40_fields32(quants->low.u, 4, quants->low.u, 0, fields);
}

M40_HD int q4_0_bit(unsigned c)
{
    return m40_field_bit(c, 4, 0);
}

M40_HD void q4_0_scales(const struct q4_0_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
}

M40_BLOCK_WIDENING(q4_0)

M40_HD void q4_0_block_quants(const struct q4_0_block *block, uint8_t *q)
{
    m40_split_nibbles(block->quants, 16, q);
}

#ifndef M40_DEVICE_CODE

static inline void q4_0_block_scales(const struct q4_0_block *block, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(block->d);
}

M40_BLOCK_WIDENING_ON_HOST(q4_0)

#endif

M40_HD void q4_0_block_pack(const struct q4_0_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    q4_0_block_quants(block, q);
    m40_plane_put(tile + q4_0_D + lane * 16, first / 16, &block->d, 2);
    m40_planes_pack(tile + q4_0_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
