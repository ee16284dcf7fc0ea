/* Q4_K: 256 weights in 144 bytes (4.5 bits). Eight sub-blocks of 32; value = d * sc * q - dmin * mn, q in 0..15, sc and mn in 0..63.
 * Source of the format: ggml's block_Q4_K. */
#ifndef M40_TENSOR_FORMATS_Q4_K_H
#define M40_TENSOR_FORMATS_Q4_K_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"
#include "tensor/formats/k_scales.h"

enum {
    q4_k_BLOCK = 256,  /* elements a block */
    q4_k_SUB = 32,     /* elements an offset; 0: no offset */
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

/* Scaled quants w[32] and offsets m[32 / SUB] of sub-block b (0..7) of row `lane`. */
M40_HD void q4_k_unpack(const struct q4_k_lane *lane_state, const struct q4_k_quants *quants, unsigned b, enum m40_view view, float *w, float *m)
{
    float d = k_scales_open(&lane_state->head, b, m);
    const float scale[2] = {d, d};

    m40_widen32(quants->low.u, 4, quants->low.u, 0, 0, scale, view, w);
}

M40_HD void q4_k_weights(const struct q4_k_lane *lane_state, const struct q4_k_quants *quants, unsigned b, float *w, float *m)
{
    q4_k_unpack(lane_state, quants, b, M40_WEIGHT, w, m);
}

/* The 32 values of sub-block b, as ggml dequantises them: here w - m, because w is exact. */
M40_HD void q4_k_values(const struct q4_k_lane *lane_state, const struct q4_k_quants *quants, unsigned b, float *values)
{
    float m;

    q4_k_unpack(lane_state, quants, b, M40_VALUE, values, &m);
    M40_UNROLL
    for (int i = 0; i < 32; i++)
        values[i] -= m;
}

M40_HD void q4_k_block_quants(const struct q4_k_block *block, uint8_t *q)
{
    for (unsigned i = 0; i < 4; i++)
        m40_split_nibbles(block->quants + i * 32, 32, q + i * 64);
}

#ifndef M40_DEVICE_CODE

static inline void q4_k_block_unpack(const struct q4_k_block *block, enum m40_view view, float *w, float *m)
{
    struct m40_piece head;
    uint8_t q[256];

    memcpy(&head, block, 16);
    q4_k_block_quants(block, q);
    for (unsigned b = 0; b < 8; b++) {
        float scale = k_scales_open(&head, b, &m[b]);

        m40_scale_quants(q + b * 32, 32, 0, scale, view, w + b * 32);
    }
}

static inline void q4_k_block_weights(const struct q4_k_block *block, float *w, float *m)
{
    q4_k_block_unpack(block, M40_WEIGHT, w, m);
}

static inline void q4_k_block_values(const struct q4_k_block *block, float *values)
{
    float m[8];

    q4_k_block_unpack(block, M40_VALUE, values, m);
    m40_subtract_offsets(values, 256, m, 32);
}

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
