/* F32: IEEE single precision, as it is. */
#ifndef M40_TENSOR_FORMATS_F32_H
#define M40_TENSOR_FORMATS_F32_H

#include "tensor/formats/piece.h"
#include "tensor/formats/pack.h"

enum {
    f32_BLOCK = 1,
    f32_SUB = 0,
    f32_BIAS = 0,
    f32_HAS_OFFSETS = 0,
    f32_BIG_SCALES = 0,
    f32_ELEMS = 0, /* 64 planes of 4 elements */
    f32_TILE_BYTES = 64 * 512,
};

struct f32_block {
    float value;
};

/* Nothing is kept from one sub-block to the next. */
struct f32_lane {
    uint8_t unused;
};

M40_HD void f32_open(struct f32_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    (void)tile, (void)lane;
    lane_state->unused = 0;
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct f32_quants {
    struct m40_piece elems[8];
};

M40_HD void f32_load(struct f32_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    M40_UNROLL
    for (unsigned p = 0; p < 8; p++)
        quants->elems[p] = m40_piece_load(tile, f32_ELEMS + (b * 8 + p) * M40_PLANE_BYTES, lane);
}

M40_HD void f32_values(const struct f32_lane *lane_state, const struct f32_quants *quants, unsigned b, float *values)
{
    (void)lane_state, (void)b;
    M40_UNROLL
    for (unsigned p = 0; p < 8; p++) {
        M40_UNROLL
        for (unsigned i = 0; i < 4; i++)
            values[p * 4 + i] = m40_bits_to_f32(quants->elems[p].u[i]);
    }
}

M40_HD void f32_weights(const struct f32_lane *lane_state, const struct f32_quants *quants, unsigned b, float *q, float *d, float *m)
{
    (void)d, (void)m;
    f32_values(lane_state, quants, b, q);
}

M40_HD int f32_bit(unsigned c)
{
    (void)c;
    return 0;
}

#ifndef M40_DEVICE_CODE

static inline void f32_row_values(const struct f32_block *elems, size_t n, float *values)
{
    memcpy(values, elems, n * sizeof *elems);
}

static inline void f32_row_pack(const struct f32_block *elems, size_t n, uint8_t *tile, unsigned lane)
{
    m40_planes_copy(tile + f32_ELEMS + lane * 16, (const uint8_t *)elems, n * sizeof *elems);
}

#endif
#endif
