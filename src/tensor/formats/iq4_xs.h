/* IQ4_XS: 256 weights in 136 bytes (4.25 bits). Eight sub-blocks of 32; value = d * (sc - 32) * table[q], q in 0..15, sc in 0..63, IQ4_NL's table.
 * Source of the format: ggml's block_iq4_xs. */
#ifndef M40_TENSOR_FORMATS_IQ4_XS_H
#define M40_TENSOR_FORMATS_IQ4_XS_H

#include "tensor/formats/iq4_nl.h"

enum {
    iq4_xs_BLOCK = 256,
    iq4_xs_SUB = 0,
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

M40_HD void iq4_xs_unpack(const struct iq4_xs_lane *lane_state, const struct iq4_xs_quants *quants, unsigned b, enum m40_view view, float *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    m40_widen32_table(&quants->low, table, iq4_xs_scale(&lane_state->head, b), view, out);
}

M40_HD void iq4_xs_weights(const struct iq4_xs_lane *lane_state, const struct iq4_xs_quants *quants, unsigned b, float *w, float *m)
{
    (void)m;
    iq4_xs_unpack(lane_state, quants, b, M40_WEIGHT, w);
}

M40_HD void iq4_xs_values(const struct iq4_xs_lane *lane_state, const struct iq4_xs_quants *quants, unsigned b, float *values)
{
    iq4_xs_unpack(lane_state, quants, b, M40_VALUE, values);
}

#ifndef M40_DEVICE_CODE

static inline void iq4_xs_block_unpack(const struct iq4_xs_block *block, enum m40_view view, float *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;
    struct m40_piece8 head;
    uint8_t q[32];

    memcpy(&head, block, 8);
    for (unsigned b = 0; b < 8; b++) {
        m40_split_nibbles(block->quants + b * 16, 16, q);
        m40_look_up(table, q, 32);
        m40_scale_quants(q, 32, iq4_nl_BIAS, iq4_xs_scale(&head, b), view, out + b * 32);
    }
}

static inline void iq4_xs_block_weights(const struct iq4_xs_block *block, float *w, float *m)
{
    (void)m;
    iq4_xs_block_unpack(block, M40_WEIGHT, w);
}

static inline void iq4_xs_block_values(const struct iq4_xs_block *block, float *values)
{
    iq4_xs_block_unpack(block, M40_VALUE, values);
}

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
