/* BF16: the upper half of an FP32. */
#ifndef M40_TENSOR_FORMATS_BF16_H
#define M40_TENSOR_FORMATS_BF16_H

#include "tensor/formats/piece.h"
#include "tensor/formats/pack.h"

enum {
    bf16_BLOCK = 1,
    bf16_SUB = 0,
    bf16_BIAS = 0,
    bf16_HAS_OFFSETS = 0,
    bf16_BIG_SCALES = 0,
    bf16_ELEMS = 0, /* 32 planes of 8 elements */
    bf16_TILE_BYTES = 32 * 512,
};

struct bf16_block {
    uint16_t bits;
};

/* Nothing is kept from one sub-block to the next. */
struct bf16_lane {
    uint8_t unused;
};

M40_HD void bf16_open(struct bf16_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    (void)tile, (void)lane;
    lane_state->unused = 0;
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct bf16_quants {
    struct m40_piece elems[4];
};

M40_HD void bf16_load(struct bf16_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    M40_UNROLL
    for (unsigned p = 0; p < 4; p++)
        quants->elems[p] = m40_piece_load(tile, bf16_ELEMS + (b * 4 + p) * M40_PLANE_BYTES, lane);
}

M40_HD void bf16_values(const struct bf16_lane *lane_state, const struct bf16_quants *quants, unsigned b, float *values)
{
    (void)lane_state, (void)b;
    M40_UNROLL
    for (unsigned p = 0; p < 4; p++) {
        M40_UNROLL
        for (unsigned i = 0; i < 8; i++)
            values[p * 8 + i] = m40_bf16_to_f32((uint16_t)(quants->elems[p].u[i / 2] >> i % 2 * 16 & 0xffff));
    }
}

M40_HD void bf16_weights(const struct bf16_lane *lane_state, const struct bf16_quants *quants, unsigned b, float *q, float *d, float *m)
{
    (void)d, (void)m;
    bf16_values(lane_state, quants, b, q);
}

M40_HD int bf16_bit(unsigned c)
{
    (void)c;
    return 0;
}

#ifndef M40_DEVICE_CODE

static inline void bf16_row_values(const struct bf16_block *elems, size_t n, float *values)
{
    for (size_t i = 0; i < n; i++)
        values[i] = m40_bf16_to_f32(elems[i].bits);
}

static inline void bf16_row_pack(const struct bf16_block *elems, size_t n, uint8_t *tile, unsigned lane)
{
    m40_planes_copy(tile + bf16_ELEMS + lane * 16, (const uint8_t *)elems, n * sizeof *elems);
}

#endif
#endif
