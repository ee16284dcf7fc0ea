/* Q2_K: 256 weights in 84 bytes (2.6 bits). Sixteen sub-blocks of 16; value = d * sc * q - dmin * mn, q in 0..3, sc and mn in 0..15.
 * Source of the format: ggml's block_q2_K. */
#ifndef M40_TENSOR_FORMATS_Q2_K_H
#define M40_TENSOR_FORMATS_Q2_K_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

enum {
    q2_k_BLOCK = 256,
    q2_k_SUB = 16,
    q2_k_BIAS = 0,
    q2_k_HAS_OFFSETS = 1,
    q2_k_BIG_SCALES = 0,
    q2_k_SCALES = 0,   /* plane: the block's 16 bytes of sc and mn */
    q2_k_QUANTS = 512, /* 4 planes of 2-bit quants, ascending */
    q2_k_D = 5 * 512,  /* plane of 4 bytes: d, dmin */
    q2_k_TILE_BYTES = 5 * 512 + 128,
};

struct q2_k_block {
    uint8_t scales[16]; /* of each sub-block: low nibble sc, high nibble mn */
    uint8_t quants[64]; /* 2 groups of 128 weights in 32 bytes: bits 2j, 2j + 1 of byte i are weight 32j + i */
    uint16_t d, dmin;   /* FP16 */
};

struct q2_k_lane {
    struct m40_piece scales;
    float d, dmin;
};

M40_HD void q2_k_open(struct q2_k_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    uint32_t d = m40_piece4_load(tile, q2_k_D, lane);

    lane_state->scales = m40_piece_load(tile, q2_k_SCALES, lane);
    lane_state->d = m40_f16_to_f32((uint16_t)(d & 0xffff));
    lane_state->dmin = m40_f16_to_f32((uint16_t)(d >> 16));
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q2_k_quants {
    struct m40_piece low;
};

M40_HD void q2_k_load(struct q2_k_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q2_k_QUANTS + b / 2 * M40_PLANE_BYTES, lane);
}

M40_HD void q2_k_fields(const struct q2_k_lane *lane_state, const struct q2_k_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t low[2] = {m40_piece_word(&quants->low, b % 2 * 2), m40_piece_word(&quants->low, b % 2 * 2 + 1)};

    (void)lane_state;
    m40_fields32(low, 2, low, 0, fields);
}

M40_HD int q2_k_bit(unsigned c)
{
    return m40_field_bit(c, 2, 0);
}

M40_HD void q2_k_scales(const struct q2_k_lane *lane_state, unsigned b, float *d, float *m)
{
    unsigned packed = m40_piece_half(&lane_state->scales, b);

    d[0] = lane_state->d * (float)(packed & 15);
    d[1] = lane_state->d * (float)(packed >> 8 & 15);
    m[0] = lane_state->dmin * (float)(packed >> 4 & 15);
    m[1] = lane_state->dmin * (float)(packed >> 12);
}

M40_BLOCK_WIDENING(q2_k)

M40_HD void q2_k_block_quants(const struct q2_k_block *block, uint8_t *q)
{
    m40_split_crumbs(block->quants, q);
}

#ifndef M40_DEVICE_CODE

static inline void q2_k_block_scales(const struct q2_k_block *block, float *d, float *m)
{
    for (unsigned s = 0; s < 16; s++) {
        d[s] = m40_f16_to_f32(block->d) * (float)(block->scales[s] & 15);
        m[s] = m40_f16_to_f32(block->dmin) * (float)(block->scales[s] >> 4);
    }
}

M40_BLOCK_WIDENING_ON_HOST(q2_k)

#endif

M40_HD void q2_k_block_pack(const struct q2_k_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[256];

    (void)first; /* a block fills the chunk */
    q2_k_block_quants(block, q);
    m40_plane_put(tile + q2_k_SCALES + lane * 16, 0, block->scales, 16);
    m40_planes_pack(tile + q2_k_QUANTS + lane * 16, 0, q, 256, 0, 2);
    memcpy(tile + q2_k_D + lane * 4, &block->d, 4);
}

#endif
