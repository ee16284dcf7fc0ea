/* Q4_K: 256 weights in 144 bytes (4.5 bits). Eight sub-blocks of 32; value = d * sc * q - dmin * mn, q in 0..15, sc and mn in 0..63.
 * Source of the format: ggml's block_Q4_K. */
#ifndef M40_TENSOR_FORMATS_Q4_K_H
#define M40_TENSOR_FORMATS_Q4_K_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"
#include "tensor/formats/k_scales.h"

enum {
    q4_k_BLOCK = 256,
    q4_k_SUB = 32,
    q4_k_BIAS = 0,
    q4_k_HAS_OFFSETS = 1,
    q4_k_BIG_SCALES = 0,
    q4_k_HEAD = 0,     /* plane: d, dmin, 12 bytes of scales: the block's first 16 bytes */
    q4_k_QUANTS = 512, /* 8 planes of nibbles */
    q4_k_TILE_BYTES = 9 * 512,
};

struct q4_k_block {
    uint16_t d, dmin;    /* FP16 */
    uint8_t scales[12];  /* 6-bit sc and mn, see k_scales.h */
    uint8_t quants[128]; /* 4 groups of 64 weights in 32 bytes: low nibbles the first 32, high nibbles the next */
};

/* What a lane keeps of one tile while it walks the sub-blocks. */
struct q4_k_lane {
    struct m40_piece head;
};

M40_HD void q4_k_open(struct q4_k_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->head = m40_piece_load(tile, q4_k_HEAD, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct q4_k_quants {
    struct m40_piece low;
};

M40_HD void q4_k_load(struct q4_k_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, q4_k_QUANTS + b * M40_PLANE_BYTES, lane);
}

M40_HD void q4_k_fields(const struct q4_k_lane *lane_state, const struct q4_k_quants *quants, unsigned b, uint32_t *fields)
{
    (void)lane_state, (void)b;
    m40_fields32(quants->low.u, 4, quants->low.u, 0, fields);
}

M40_HD int q4_k_bit(unsigned c)
{
    return m40_field_bit(c, 4, 0);
}

M40_HD void q4_k_scales(const struct q4_k_lane *lane_state, unsigned b, float *d, float *m)
{
    d[0] = k_scales_open(&lane_state->head, b, m);
}

M40_BLOCK_WIDENING(q4_k)

M40_HD void q4_k_block_quants(const struct q4_k_block *block, uint8_t *q)
{
    for (unsigned i = 0; i < 4; i++)
        m40_split_nibbles(block->quants + i * 32, 32, q + i * 64);
}

#ifndef M40_DEVICE_CODE

static inline void q4_k_block_scales(const struct q4_k_block *block, float *d, float *m)
{
    struct m40_piece head;

    memcpy(&head, block, 16);
    for (unsigned b = 0; b < 8; b++)
        d[b] = k_scales_open(&head, b, &m[b]);
}

M40_BLOCK_WIDENING_ON_HOST(q4_k)

#endif

M40_HD void q4_k_block_pack(const struct q4_k_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[256];

    (void)first; /* a block fills the chunk */
    q4_k_block_quants(block, q);
    m40_plane_put(tile + q4_k_HEAD + lane * 16, 0, block, 16);
    m40_planes_pack(tile + q4_k_QUANTS + lane * 16, 0, q, 256, 0, 4);
}

#endif
