/* Q3_K: 256 weights in 110 bytes (3.4 bits). Sixteen sub-blocks of 16; value = d * (sc - 32) * (q - 4), q in 0..7, sc in 0..63.
 * Source of the format: ggml's block_q3_K. */
#ifndef M40_TENSOR_FORMATS_Q3_K_H
#define M40_TENSOR_FORMATS_Q3_K_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q3_k_BLOCK = 256,
    q3_k_SUB = 16,
    q3_k_BIAS = 4,
    q3_k_HAS_OFFSETS = 0,
    q3_k_BIG_SCALES = 0,
    q3_k_HEAD = 0,         /* plane: 12 bytes of scales, d, two bytes of zero */
    q3_k_HIGH = 512,       /* 2 planes of the third bits, ascending: word b of the 8 is sub-block b's */
    q3_k_QUANTS = 3 * 512, /* 4 planes of the lower 2 bits, ascending */
    q3_k_TILE_BYTES = 7 * 512,
};

struct q3_k_block {
    uint8_t high[32];   /* bit b of byte i: the third bit of weight 32b + i */
    uint8_t quants[64]; /* 2 groups of 128 weights in 32 bytes: bits 2j, 2j + 1 of byte i are weight 32j + i */
    uint8_t scales[12]; /* 6 bits of sc s: low 4 in nibble s / 8 of byte s % 8, upper 2 in bits 2 * (s / 4) of byte 8 + s % 4 */
    uint16_t d;         /* FP16 */
};

struct q3_k_lane {
    struct m40_piece head, high[2];
};

M40_HD void q3_k_open(struct q3_k_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->head = m40_piece_load(tile, q3_k_HEAD, lane);
    lane_state->high[0] = m40_piece_load(tile, q3_k_HIGH, lane);
    lane_state->high[1] = m40_piece_load(tile, q3_k_HIGH + M40_PLANE_BYTES, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q3_k_quants {
    struct m40_piece low;
};

M40_HD void q3_k_load(struct q3_k_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q3_k_QUANTS + b / 2 * M40_PLANE_BYTES, lane);
}

/* d * (sc - 32) of the 16 weights s, 0..15: exact. */
M40_HD float q3_k_scale(const struct m40_piece *head, unsigned s)
{
    unsigned low = (s & 4 ? head->u[1] : head->u[0]) >> (s % 4 * 8 + s / 8 * 4) & 15;
    unsigned upper = head->u[2] >> (s % 4 * 8 + s / 4 * 2) & 3;

    return m40_f16_to_f32((uint16_t)(head->u[3] & 0xffff)) * (float)((int)(low | upper << 4) - 32);
}

M40_HD void q3_k_fields(const struct q3_k_lane *lane_state, const struct q3_k_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t low[2] = {m40_piece_word(&quants->low, b % 2 * 2), m40_piece_word(&quants->low, b % 2 * 2 + 1)};
    uint32_t high = m40_pieces_word(lane_state->high, b);

    m40_fields32(low, 2, &high, 1, fields);
}

M40_HD int q3_k_bit(unsigned c)
{
    return m40_field_bit(c, 2, 1);
}

M40_HD void q3_k_scales(const struct q3_k_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = q3_k_scale(&lane_state->head, b * 2);
    d[1] = q3_k_scale(&lane_state->head, b * 2 + 1);
}

M40_BLOCK_WIDENING(q3_k)

M40_HD void q3_k_block_quants(const struct q3_k_block *block, uint8_t *q)
{
    m40_split_crumbs(block->quants, q);
    m40_add_high_planes(block->high, 2, q);
}

#ifndef M40_DEVICE_CODE

static inline void q3_k_block_scales(const struct q3_k_block *block, float *d, float *m)
{
    struct m40_piece head = {{0}};

    (void)m;
    memcpy(head.u, block->scales, 12);
    head.u[3] = block->d;
    for (unsigned s = 0; s < 16; s++)
        d[s] = q3_k_scale(&head, s);
}

M40_BLOCK_WIDENING_ON_HOST(q3_k)

#endif

M40_HD void q3_k_block_pack(const struct q3_k_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[256];

    (void)first; /* a block fills the chunk */
    q3_k_block_quants(block, q);
    m40_plane_put(tile + q3_k_HEAD + lane * 16, 0, block->scales, 12);
    m40_plane_put(tile + q3_k_HEAD + lane * 16, 12, &block->d, 2);
    m40_planes_pack(tile + q3_k_HIGH + lane * 16, 0, q, 256, 2, 1);
    m40_planes_pack(tile + q3_k_QUANTS + lane * 16, 0, q, 256, 0, 2);
}

#endif
