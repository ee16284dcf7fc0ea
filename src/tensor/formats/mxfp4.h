/* MXFP4: 32 weights in 17 bytes (4.25 bits). value = 2^(e - 128) * table[q]; e is a shared 8-bit exponent, the table E2M1's values doubled. e = 255 is no NaN here but
 * 2^127, as in ggml. Sources of the format: the OCP Microscaling specification, ggml's block_mxfp4. */
#ifndef M40_TENSOR_FORMATS_MXFP4_H
#define M40_TENSOR_FORMATS_MXFP4_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

/* 0 1 2 3  4 6 8 12  0 -1 -2 -3  -4 -6 -8 -12, as bytes with 128 added */
#define MXFP4_TABLE                                                                                                                                  \
    {                                                                                                                                                \
        0x83828180u, 0x8c888684u, 0x7d7e7f80u, 0x74787a7cu                                                                                           \
    }

enum {
    mxfp4_BLOCK = 32,
    mxfp4_SUB = 0,
    mxfp4_BIAS = 128,          /* of the table's bytes */
    mxfp4_QUANTS = 0,          /* 8 planes of nibbles */
    mxfp4_EXPONENTS = 8 * 512, /* plane of 8 bytes: the eight blocks' e */
    mxfp4_TILE_BYTES = 8 * 512 + 256,
};

struct mxfp4_block {
    uint8_t exponent;
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct mxfp4_lane {
    struct m40_piece8 exponents;
};

M40_HD void mxfp4_open(struct mxfp4_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->exponents = m40_piece8_load(tile, mxfp4_EXPONENTS, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct mxfp4_quants {
    struct m40_piece low;
};

M40_HD void mxfp4_load(struct mxfp4_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, mxfp4_QUANTS + b * M40_PLANE_BYTES, lane);
}

/* 2^(e - 128); the two least are subnormal. */
M40_HD float mxfp4_scale(unsigned e)
{
    return m40_bits_to_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

M40_HD void mxfp4_unpack(const struct mxfp4_lane *lane_state, const struct mxfp4_quants *quants, unsigned b, enum m40_view view, float *out)
{
    const uint32_t table[4] = MXFP4_TABLE;
    unsigned e = (b & 4 ? lane_state->exponents.u[1] : lane_state->exponents.u[0]) >> b % 4 * 8 & 0xff;

    m40_widen32_table(&quants->low, table, mxfp4_scale(e), view, out);
}

M40_HD void mxfp4_weights(const struct mxfp4_lane *lane_state, const struct mxfp4_quants *quants, unsigned b, float *w, float *m)
{
    (void)m;
    mxfp4_unpack(lane_state, quants, b, M40_VALUE, w);
}

M40_HD void mxfp4_values(const struct mxfp4_lane *lane_state, const struct mxfp4_quants *quants, unsigned b, float *values)
{
    mxfp4_unpack(lane_state, quants, b, M40_VALUE, values);
}

#ifndef M40_DEVICE_CODE

static inline void mxfp4_block_unpack(const struct mxfp4_block *block, enum m40_view view, float *out)
{
    const uint32_t table[4] = MXFP4_TABLE;
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_look_up(table, q, 32);
    m40_scale_quants(q, 32, mxfp4_BIAS, mxfp4_scale(block->exponent), view, out);
}

static inline void mxfp4_block_weights(const struct mxfp4_block *block, float *w, float *m)
{
    (void)m;
    mxfp4_block_unpack(block, M40_VALUE, w);
}

static inline void mxfp4_block_values(const struct mxfp4_block *block, float *values)
{
    mxfp4_block_unpack(block, M40_VALUE, values);
}

#endif

M40_HD void mxfp4_block_pack(const struct mxfp4_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_planes_pack(tile + mxfp4_QUANTS + lane * 16, first, q, 32, 0, 4);
    tile[mxfp4_EXPONENTS + lane * 8 + first / 32] = block->exponent;
}

#endif
