/* MXFP4: 32 weights in 17 bytes (4.25 bits). value = 2^(e - 128) * table[q]; e is a shared 8-bit exponent, the table E2M1's values doubled. e = 255 is no NaN here but
 * 2^127, as in ggml. Sources of the format: the OCP Microscaling specification, ggml's block_mxfp4. */
#ifndef M40_TENSOR_FORMATS_MXFP4_H
#define M40_TENSOR_FORMATS_MXFP4_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

/* 0 1 2 3  4 6 8 12  0 -1 -2 -3  -4 -6 -8 -12, as bytes with 16 added */
#define MXFP4_TABLE                                                                                                                                  \
    {                                                                                                                                                \
        0x13121110u, 0x1c181614u, 0x0d0e0f10u, 0x04080a0cu                                                                                           \
    }

enum {
    mxfp4_BLOCK = 32,
    mxfp4_SUB = 32,
    mxfp4_BIAS = 16, /* of the table's bytes */
    mxfp4_HAS_OFFSETS = 0,
    mxfp4_BIG_SCALES = 1,
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

M40_HD void mxfp4_fields(const struct mxfp4_lane *lane_state, const struct mxfp4_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t table[4] = MXFP4_TABLE;

    (void)lane_state, (void)b;
    m40_small_table_fields32(&quants->low, table, fields);
}

M40_HD int mxfp4_bit(unsigned c)
{
    return m40_table_bit(c);
}

M40_HD void mxfp4_scales(const struct mxfp4_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = mxfp4_scale((b & 4 ? lane_state->exponents.u[1] : lane_state->exponents.u[0]) >> b % 4 * 8 & 0xff);
}

M40_BLOCK_WIDENING(mxfp4)

#ifndef M40_DEVICE_CODE

static inline void mxfp4_block_quants(const struct mxfp4_block *block, uint8_t *q)
{
    const uint32_t table[4] = MXFP4_TABLE;

    m40_split_nibbles(block->quants, 16, q);
    m40_look_up(table, q, 32);
}

static inline void mxfp4_block_scales(const struct mxfp4_block *block, float *d, float *m)
{
    (void)m;
    d[0] = mxfp4_scale(block->exponent);
}

M40_BLOCK_WIDENING_ON_HOST(mxfp4)

#endif

M40_HD void mxfp4_block_pack(const struct mxfp4_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_planes_pack(tile + mxfp4_QUANTS + lane * 16, first, q, 32, 0, 4);
    tile[mxfp4_EXPONENTS + lane * 8 + first / 32] = block->exponent;
}

#endif
