/* IQ4_NL: 32 weights in 18 bytes (4.5 bits). value = d * table[q], q in 0..15; the table is finer around zero. Source of the format: ggml's block_iq4_nl. */
#ifndef M40_TENSOR_FORMATS_IQ4_NL_H
#define M40_TENSOR_FORMATS_IQ4_NL_H

#include "tensor/formats/unpack.h"
#include "tensor/formats/pack.h"

/* -127 -104 -83 -65  -49 -35 -22 -10  1 13 25 38  53 69 89 113, as bytes with 128 added */
#define IQ4_NL_TABLE                                                                                                                                 \
    {                                                                                                                                                \
        0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u                                                                                           \
    }

enum {
    iq4_nl_BLOCK = 32,
    iq4_nl_SUB = 32,
    iq4_nl_BIAS = 128, /* of the table's bytes */
    iq4_nl_HAS_OFFSETS = 0,
    iq4_nl_BIG_SCALES = 0,
    iq4_nl_D = 0,        /* plane: the eight blocks' d */
    iq4_nl_QUANTS = 512, /* 8 planes of nibbles */
    iq4_nl_TILE_BYTES = 9 * 512,
};

struct iq4_nl_block {
    uint16_t d;         /* FP16 */
    uint8_t quants[16]; /* low nibbles the first 16 weights, high nibbles the others */
};

struct iq4_nl_lane {
    struct m40_piece d;
};

M40_HD void iq4_nl_open(struct iq4_nl_lane *lane_state, const uint8_t *tile, unsigned lane)
{
    lane_state->d = m40_piece_load(tile, iq4_nl_D, lane);
}

/* A sub-block as it lies in the tile, loaded ahead of its use. */
struct iq4_nl_quants {
    struct m40_piece low;
};

M40_HD void iq4_nl_load(struct iq4_nl_quants *quants, const uint8_t *tile, unsigned lane, unsigned b)
{
    quants->low = m40_piece_load(tile, iq4_nl_QUANTS + b * M40_PLANE_BYTES, lane);
}

M40_HD void iq4_nl_fields(const struct iq4_nl_lane *lane_state, const struct iq4_nl_quants *quants, unsigned b, uint32_t *fields)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    (void)lane_state, (void)b;
    m40_table_fields32(&quants->low, table, fields);
}

M40_HD int iq4_nl_bit(unsigned c)
{
    return m40_table_bit(c);
}

M40_HD void iq4_nl_scales(const struct iq4_nl_lane *lane_state, unsigned b, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(m40_piece_half(&lane_state->d, b));
}

M40_BLOCK_WIDENING(iq4_nl)

#ifndef M40_DEVICE_CODE

static inline void iq4_nl_block_quants(const struct iq4_nl_block *block, uint8_t *q)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    m40_split_nibbles(block->quants, 16, q);
    m40_look_up(table, q, 32);
}

static inline void iq4_nl_block_scales(const struct iq4_nl_block *block, float *d, float *m)
{
    (void)m;
    d[0] = m40_f16_to_f32(block->d);
}

M40_BLOCK_WIDENING_ON_HOST(iq4_nl)

#endif

M40_HD void iq4_nl_block_pack(const struct iq4_nl_block *block, unsigned first, uint8_t *tile, unsigned lane)
{
    uint8_t q[32];

    m40_split_nibbles(block->quants, 16, q);
    m40_plane_put(tile + iq4_nl_D + lane * 16, first / 16, &block->d, 2);
    m40_planes_pack(tile + iq4_nl_QUANTS + lane * 16, first, q, 32, 0, 4);
}

#endif
