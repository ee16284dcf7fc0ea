/* Q4_K: 256 weights in 144 bytes (4.5 bits). Eight sub-blocks of 32; value = d * sc * q - dmin * mn, q in 0..15, sc and mn in 0..63.
 * Source of the format: ggml's block_q4_K. */
#ifndef M40_TENSOR_FORMATS_Q4_K_H
#define M40_TENSOR_FORMATS_Q4_K_H

#include "tensor/formats/piece.h"
#include "tensor/formats/k_scales.h"

enum {
    q4_k_BLOCK = 256,      /* elements a block */
    q4_k_SUB = 32,         /* elements an offset; 0: no offset */
    q4_k_HEAD = 0,         /* plane: d, dmin, 12 bytes of scales: the block's first 16 bytes */
    q4_k_QUANTS = 16 * 32, /* 8 planes: nibble i of the piece = weight i of the sub-block */
    q4_k_TILE_BYTES = 9 * 16 * 32,
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

/* w[32] and m[32 / SUB] of sub-block b (0..7) of row `lane`. */
M40_HD void q4_k_weights(const struct q4_k_lane *lane_state, const uint8_t *tile, unsigned lane, unsigned b, float *w, float *m)
{
    struct m40_piece quants = m40_piece_load(tile, q4_k_QUANTS + b * 512, lane);
    float d = m40_f16_to_f32((uint16_t)(lane_state->head.u[0] & 0xffff));
    float dmin = m40_f16_to_f32((uint16_t)(lane_state->head.u[0] >> 16));
    unsigned sc, mn;
    float scale;

    k_scales_get(lane_state->head.u + 1, b, &sc, &mn);
    scale = d * (float)sc;
    m[0] = dmin * (float)mn;
    M40_UNROLL
    for (int i = 0; i < 32; i++)
        w[i] = scale * (float)(quants.u[i / 8] >> 4 * (i % 8) & 15);
}

/* The 32 values of sub-block b, as ggml dequantises them: here w - m, because w is exact. */
M40_HD void q4_k_values(const struct q4_k_lane *lane_state, const uint8_t *tile, unsigned lane, unsigned b, float *values)
{
    float m;

    q4_k_weights(lane_state, tile, lane, b, values, &m);
    M40_UNROLL
    for (int i = 0; i < 32; i++)
        values[i] -= m;
}

#ifndef M40_DEVICE_CODE

static inline unsigned q4_k_quant(const struct q4_k_block *block, unsigned i)
{
    return block->quants[i / 64 * 32 + i % 32] >> (i & 32 ? 4 : 0) & 15;
}

static inline void q4_k_block_weights(const struct q4_k_block *block, float *w, float *m)
{
    uint32_t packed[3];

    memcpy(packed, block->scales, sizeof packed);
    for (unsigned b = 0; b < 8; b++) {
        unsigned sc, mn;
        float scale;

        k_scales_get(packed, b, &sc, &mn);
        scale = m40_f16_to_f32(block->d) * (float)sc;
        m[b] = m40_f16_to_f32(block->dmin) * (float)mn;
        for (unsigned i = 0; i < 32; i++)
            w[b * 32 + i] = scale * (float)q4_k_quant(block, b * 32 + i);
    }
}

static inline void q4_k_block_values(const struct q4_k_block *block, float *values)
{
    float m[8];

    q4_k_block_weights(block, values, m);
    for (unsigned i = 0; i < 256; i++)
        values[i] -= m[i / 32];
}

static inline void q4_k_block_pack(const struct q4_k_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    (void)first; /* a block fills the chunk */
    m40_piece_store(tile, q4_k_HEAD, lane, block);
    for (unsigned b = 0; b < 8; b++) {
        uint8_t piece[16];

        for (unsigned i = 0; i < 16; i++)
            piece[i] = (uint8_t)(q4_k_quant(block, b * 32 + 2 * i) | q4_k_quant(block, b * 32 + 2 * i + 1) << 4);
        m40_piece_store(tile, q4_k_QUANTS + b * 512, lane, piece);
    }
}

#endif
#endif
