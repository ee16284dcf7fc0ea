/* IQ4_XS: 256 weights in 136 bytes (4.25 bits). Eight sub-blocks of 32; value = d * (sc - 32) * table[q], q in 0..15, sc in 0..63, IQ4_NL's table.
 * Source of the format: ggml's block_iq4_xs. */
#ifndef M40_TENSOR_FORMATS_IQ4_XS_H
#define M40_TENSOR_FORMATS_IQ4_XS_H

#include "tensor/formats/iq4_nl.h"

enum {
    iq4_xs_BLOCK = 256,
    iq4_xs_SUB = 32,
    iq4_xs_BIAS = 128, /* of the table's bytes */
    iq4_xs_HAS_OFFSETS = 0,
    iq4_xs_BIG_SCALES = 0,
    iq4_xs_QUANTS = 0,     /* 8 planes of nibbles */
    iq4_xs_HEAD = 8 * 512, /* plane of 8 bytes: the block's first 8: d, scales_high, scales_low */
    iq4_xs_TILE_BYTES = 8 * 512 + 256,
};

struct iq4_xs_block {
    uint16_t d;            /* FP16 */
    uint16_t scales_high;  /* bits 2b, 2b + 1: the upper 2 bits of sub-block b's sc */
    uint8_t scales_low[4]; /* nibble b: its lower 4 bits */
    uint8_t quants[128];   /* 16 bytes a sub-block: low nibbles the first 16 weights, high nibbles the others */
};

struct iq4_xs_lane {
    struct m40_piece8 head;
};

M40_HD void iq4_xs_open(struct iq4_xs_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->head = m40_piece8_load(tile, iq4_xs_HEAD, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct iq4_xs_quants {
    struct m40_piece low;
};

M40_HD void iq4_xs_load(struct iq4_xs_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, iq4_xs_QUANTS + b * M40_PLANE_BYTES, lane);
}

/* d * (sc - 32) of sub-block b: exact. */
M40_HD float iq4_xs_scale(const struct m40_piece8 *head, unsigned b)
{
    unsigned sc = (head->u[1] >> b * 4 & 15) | (head->u[0] >> (16 + b * 2) & 3) << 4;

    return m40_f16_to_f32((uint16_t)(head->u[0] & 0xffff)) * (float)((int)sc - 32);
}

M40_HD void iq4_xs_fields(const struct iq4_xs_lane *lane_state, const struct iq4_xs_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    (void)lane_state, (void)b;
    m40_table_fields32(&quants->low, table, fields);
}

M40_HD int iq4_xs_bit(unsigned c)
{
    return m40_table_bit(c);
}

M40_HD void iq4_xs_scales(const struct iq4_xs_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = iq4_xs_scale(&lane_state->head, b);
}

M40_BLOCK_WIDENING(iq4_xs)

#ifndef M40_DEVICE_CODE

static inline void iq4_xs_block_quants(const struct iq4_xs_block *block, uint8_t *q)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    for (unsigned b = 0; b < 8; b++)
        m40_split_nibbles(block->quants + b * 16, 16, q + b * 32);
    m40_look_up(table, q, 256);
}

static inline void iq4_xs_block_scales(const struct iq4_xs_block *block, float *d, float *m)
{
    struct m40_piece8 head;

    (void)m;
    memcpy(&head, block, 8);
    for (unsigned b = 0; b < 8; b++)
        d[b] = iq4_xs_scale(&head, b);
}

M40_BLOCK_WIDENING_ON_HOST(iq4_xs)

#endif

M40_HD void iq4_xs_block_pack(const struct iq4_xs_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[256];

    (void)first; /* a block fills the chunk */
    for (unsigned b = 0; b < 8; b++)
        m40_split_nibbles(block->quants + b * 16, 16, q + b * 32);
    m40_planes_pack(tile + iq4_xs_QUANTS + lane * 16, 0, q, 256, 0, 4);
    memcpy(tile + iq4_xs_HEAD + lane * 8, block, 8);
}

#endif
