/* Q6_K: 256 weights in 210 bytes (6.6 bits). Sixteen sub-blocks of 16; value = d * sc * (q - 32), q in 0..63, sc in -128..127.
 * Source of the format: ggml's block_q6_K. */
#ifndef M40_TENSOR_FORMATS_Q6_K_H
#define M40_TENSOR_FORMATS_Q6_K_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q6_k_BLOCK = 256,
    q6_k_SUB = 16,
    q6_k_BIAS = 32,
    q6_k_HAS_OFFSETS = 0,
    q6_k_BIG_SCALES = 0,
    q6_k_SCALES = 0,     /* plane: the block's 16 signed bytes sc */
    q6_k_QUANTS = 512,   /* 8 planes of the low nibbles */
    q6_k_HIGH = 9 * 512, /* 4 planes of the upper 2 bits, ascending */
    q6_k_D = 13 * 512,   /* plane of 2 bytes: d */
    q6_k_TILE_BYTES = 13 * 512 + 64,
};

struct q6_k_block {
    uint8_t quants[128]; /* 2 groups of 128 weights in 64 bytes: low nibbles the first 64, high nibbles the next */
    uint8_t high[64];    /* 2 groups of 128 weights in 32 bytes: bits 2j, 2j + 1 of byte i are the upper bits of weight 32j + i */
    int8_t scales[16];
    uint16_t d; /* FP16 */
};

struct q6_k_lane {
    struct m40_piece scales;
    float d;
};

M40_HD void q6_k_open(struct q6_k_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->scales = m40_piece_load(tile, q6_k_SCALES, lane);
    lane_state->d = m40_f16_to_f32(m40_piece2_load(tile, q6_k_D, lane));
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q6_k_quants {
    struct m40_piece low;
    struct m40_piece high;
};

M40_HD void q6_k_load(struct q6_k_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q6_k_QUANTS + b * M40_PLANE_BYTES, lane);
    quants->high = m40_piece_load(tile, q6_k_HIGH + b / 2 * M40_PLANE_BYTES, lane);
}

M40_HD void q6_k_fields(const struct q6_k_lane *lane_state, const struct q6_k_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t high[2] = {m40_piece_word(&quants->high, b % 2 * 2), m40_piece_word(&quants->high, b % 2 * 2 + 1)};

    (void)lane_state;
    m40_fields32(quants->low.u, 4, high, 2, fields);
}

M40_HD int q6_k_bit(unsigned c)
{
    return m40_field_bit(c, 4, 2);
}

M40_HD void q6_k_scales(const struct q6_k_lane *lane_state, unsigned b, float *d, float *m)
{
    unsigned sc = m40_piece_half(&lane_state->scales, b);

    (void)m;
    d[0] = lane_state->d * (float)(int8_t)(sc & 0xff);
    d[1] = lane_state->d * (float)(int8_t)(sc >> 8);
}

M40_BLOCK_WIDENING(q6_k)

M40_HD void q6_k_block_quants(const struct q6_k_block *block, uint8_t *q)
{
    uint8_t upper[256];

    m40_split_nibbles(block->quants, 64, q);
    m40_split_nibbles(block->quants + 64, 64, q + 128);
    m40_split_crumbs(block->high, upper);
    for (unsigned i = 0; i < 256; i++)
        q[i] |= (uint8_t)(upper[i] << 4);
}

#ifndef M40_DEVICE_CODE

static inline void q6_k_block_scales(const struct q6_k_block *block, float *d, float *m)
{
    (void)m;
    for (unsigned s = 0; s < 16; s++)
        d[s] = m40_f16_to_f32(block->d) * (float)block->scales[s];
}

M40_BLOCK_WIDENING_ON_HOST(q6_k)

#endif

M40_HD void q6_k_block_pack(const struct q6_k_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[256];

    (void)first; /* a block fills the chunk */
    q6_k_block_quants(block, q);
    m40_plane_put(tile + q6_k_SCALES + lane * 16, 0, block->scales, 16);
    m40_planes_pack(tile + q6_k_QUANTS + lane * 16, 0, q, 256, 0, 4);
    m40_planes_pack(tile + q6_k_HIGH + lane * 16, 0, q, 256, 4, 2);
    memcpy(tile + q6_k_D + lane * 2, &block->d, 2);
}

#endif
