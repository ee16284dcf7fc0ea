/* Weights of LANES rows from the file's blocks to floats with the rows side by side, without a detour over bytes: 16 bytes of every row are transposed as words,
 * and fields are then cut out of a word of all rows at once. The results are those of the formats' own files; the formats that are not here go through those. */
#ifndef M40_BACKEND_CPU_CPU_UNPACK_H
#define M40_BACKEND_CPU_CPU_UNPACK_H

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_simd.h"

#include "tensor/formats/all.h"

enum { PANEL_VECTORS = 4, PANEL_ROWS = PANEL_VECTORS * LANES };
enum { MAX_SUBS = M40_MATMUL_CHUNK / CPU_MIN_SUB };

/* How a format's chunk (up to 256 columns; rows[i]: where it starts in row i) becomes columns of PANEL_ROWS floats, of which these functions write LANES.
 * scales, offsets: [MAX_SUBS][PANEL_ROWS]. */
struct unpacker {
    uint32_t unit; /* columns: `first` and `n` below are multiples of it */
    /* Before the chunk's columns: all its scales and its offsets m; n columns. NULL: it has none. */
    void (*open)(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets);
    /* tile: where column `first` goes. */
    void (*widen)(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile);
};

/* ---- plain formats: 64 bytes of every row at a time ---- */

static inline void f32_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 16, tile += 16 * PANEL_ROWS) {
        vint words[16];

        v_load_lines(rows, (size_t)c * 4, words);
#pragma GCC unroll 16
        for (unsigned j = 0; j < 16; j++)
            v_store(tile + j * PANEL_ROWS, v_bits(words[j]));
    }
}

static inline void f16_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 32, tile += 32 * PANEL_ROWS) {
        vint words[16];

        v_load_lines(rows, (size_t)c * 2, words);
#pragma GCC unroll 16
        for (unsigned j = 0; j < 16; j++) {
            v_store(tile + 2 * j * PANEL_ROWS, v_lower_halves(words[j]));
            v_store(tile + (2 * j + 1) * PANEL_ROWS, v_lower_halves(v_right(words[j], 16)));
        }
    }
}

static inline void bf16_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 32, tile += 32 * PANEL_ROWS) {
        vint words[16];

        v_load_lines(rows, (size_t)c * 2, words);
#pragma GCC unroll 16
        for (unsigned j = 0; j < 16; j++) {
            v_store(tile + 2 * j * PANEL_ROWS, v_bits(v_left(words[j], 16)));
            v_store(tile + (2 * j + 1) * PANEL_ROWS, v_bits(words[j] & v_ints((int)0xffff0000)));
        }
    }
}

/* ---- bytes to floats ---- */

/* What a product is added to: makes every zero +0, and NaN under a scale that is not finite (docs/numerics.md, Weights). */
static inline vfloat weight_zero(vfloat scale)
{
    return scale - scale;
}

/* Four columns: scale * byte j of every lane, unsigned. */
static inline void put_bytes(vint bytes, vfloat scale, float *tile)
{
    const vfloat zero = weight_zero(scale);
    const vint second = v_repeat_16(_mm_setr_epi8(1, -1, -1, -1, 5, -1, -1, -1, 9, -1, -1, -1, 13, -1, -1, -1));
    const vint third = v_repeat_16(_mm_setr_epi8(2, -1, -1, -1, 6, -1, -1, -1, 10, -1, -1, -1, 14, -1, -1, -1));

    v_store(tile, scale * v_from_int(bytes & v_ints(255)) + zero);
    v_store(tile + PANEL_ROWS, scale * v_from_int(v_pick_bytes(bytes, second)) + zero);
    v_store(tile + 2 * PANEL_ROWS, scale * v_from_int(v_pick_bytes(bytes, third)) + zero);
    v_store(tile + 3 * PANEL_ROWS, scale * v_from_int(v_right(bytes, 24)) + zero);
}

/* The same of signed bytes; zero: weight_zero(scale), or -0 where the format keeps the products as they are. */
static inline void put_signed_bytes(vint bytes, vfloat scale, vfloat zero, float *tile)
{
    v_store(tile, scale * v_from_int(v_right_signed(v_left(bytes, 24), 24)) + zero);
    v_store(tile + PANEL_ROWS, scale * v_from_int(v_right_signed(v_left(bytes, 16), 24)) + zero);
    v_store(tile + 2 * PANEL_ROWS, scale * v_from_int(v_right_signed(v_left(bytes, 8), 24)) + zero);
    v_store(tile + 3 * PANEL_ROWS, scale * v_from_int(v_right_signed(bytes, 24)) + zero);
}

/* Four fields of `mask` from bit `shift` of every byte on. */
static inline vint fields(vint words, unsigned shift, uint32_t mask)
{
    return v_right(words, shift) & v_ints((int)(mask * 0x01010101u));
}

/* ---- formats of 32 weights a block ---- */

/* The FP16 number at byte `at` of each of the chunk's blocks -> out[block][row]. All are fetched before the first is used: a vector cannot be read back from
 * halves that have just been written. */
static inline void load_halves(const uint8_t *const *rows, uint32_t n_blocks, size_t block_bytes, size_t at, float *out)
{
    uint16_t halves[8][LANES];

    for (unsigned i = 0; i < LANES; i++)
        for (uint32_t b = 0; b < n_blocks; b++)
            memcpy(&halves[b][i], rows[i] + b * block_bytes + at, 2);
    for (uint32_t b = 0; b < n_blocks; b++)
        v_store(out + b * PANEL_ROWS, v_from_halves((const void *)halves[b]));
}

static inline void scale_all(float *offsets, const float *scales, uint32_t n_subs, float factor)
{
    for (uint32_t s = 0; s < n_subs; s++)
        v_store(offsets + s * PANEL_ROWS, v_set(factor) * v_load(scales + s * PANEL_ROWS));
}

static inline void q8_0_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    (void)offsets;
    load_halves(rows, n / 32, sizeof(struct q8_0_block), offsetof(struct q8_0_block, d), scales);
}

static inline void q4_0_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    load_halves(rows, n / 32, sizeof(struct q4_0_block), offsetof(struct q4_0_block, d), scales);
    scale_all(offsets, scales, n / 32, (float)q4_0_BIAS);
}

static inline void q4_1_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    load_halves(rows, n / 32, sizeof(struct q4_1_block), offsetof(struct q4_1_block, d), scales);
    load_halves(rows, n / 32, sizeof(struct q4_1_block), offsetof(struct q4_1_block, min), offsets);
    scale_all(offsets, offsets, n / 32, -1.0f);
}

static inline void iq4_nl_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    (void)offsets;
    load_halves(rows, n / 32, sizeof(struct iq4_nl_block), offsetof(struct iq4_nl_block, d), scales);
}

/* mxfp4_scale() of every lane. */
static inline vfloat mxfp4_scales(vint exponents)
{
    const vuint_lanes e = (vuint_lanes)exponents, is_subnormal = (vuint_lanes)(e < 2);

    return v_bits((vint)((is_subnormal & (0x00200000 << (e & 1))) | (~is_subnormal & ((e - 1) << 23))));
}

static inline void mxfp4_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    vuint_lanes exponents[8];

    (void)offsets;
    for (unsigned i = 0; i < LANES; i++)
        for (uint32_t b = 0; b < n / 32; b++)
            ((uint32_t *)&exponents[b])[i] = rows[i][b * sizeof(struct mxfp4_block) + offsetof(struct mxfp4_block, exponent)];
    for (uint32_t b = 0; b < n / 32; b++)
        v_store(scales + b * PANEL_ROWS, mxfp4_scales((vint)exponents[b]));
}

static inline void q8_0_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    for (uint32_t c = first; c < first + n; c += 16, tile += 16 * PANEL_ROWS) {
        size_t at = c / 32 * sizeof(struct q8_0_block) + offsetof(struct q8_0_block, quants) + c % 32;
        vfloat scale = v_load(scales + c / 32 * PANEL_ROWS);
        vint words[4];

        v_load_words(rows, at, words);
        for (unsigned j = 0; j < 4; j++)
            put_signed_bytes(words[j], scale, weight_zero(scale), tile + 4 * j * PANEL_ROWS);
    }
}

/* 16 bytes every block_bytes from byte `at` on: low nibbles the first 16 weights, high nibbles the others. table: of 16 bytes with 128 added that the nibbles are
 * indices of, or NULL. keeps_zeros: see put_signed_bytes. */
static inline __attribute__((always_inline)) void nibbles_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t block_bytes, size_t at,
                                                                const uint32_t *table, bool keeps_zeros, const float *scales, float *tile)
{
    vint values = v_ints(0);

    if (table)
        values = v_repeat_16(_mm_loadu_si128((const void *)table)) ^ v_ints((int)0x80808080);
    for (uint32_t b = first / 32; b < (first + n) / 32; b++) {
        vfloat scale = v_load(scales + b * PANEL_ROWS), zero = keeps_zeros ? v_set(-0.0f) : weight_zero(scale);
        vint words[4];

        v_load_words(rows, b * block_bytes + at, words);
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned j = 0; j < 4; j++, tile += 4 * PANEL_ROWS) {
                vint q = fields(words[j], 4 * half, 15);

                if (table)
                    put_signed_bytes(v_pick_bytes(values, q), scale, zero, tile);
                else
                    put_bytes(q, scale, tile);
            }
        }
    }
}

static inline void q4_0_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    nibbles_widen(rows, first, n, sizeof(struct q4_0_block), offsetof(struct q4_0_block, quants), NULL, false, scales, tile);
}

static inline void q4_1_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    nibbles_widen(rows, first, n, sizeof(struct q4_1_block), offsetof(struct q4_1_block, quants), NULL, false, scales, tile);
}

static inline void iq4_nl_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_widen(rows, first, n, sizeof(struct iq4_nl_block), offsetof(struct iq4_nl_block, quants), table, false, scales, tile);
}

static inline void mxfp4_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    const uint32_t table[4] = MXFP4_TABLE;

    nibbles_widen(rows, first, n, sizeof(struct mxfp4_block), offsetof(struct mxfp4_block, quants), table, true, scales, tile);
}

/* ---- formats of 256 weights a block: a chunk is one ---- */

/* Byte b % 4 of every lane. */
static inline vint byte_of(vint words, unsigned b)
{
    return v_right(words, b % 4 * 8) & v_ints(255);
}

/* The head of Q4_K and Q5_K (k_scales.h). */
static inline void k_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    vfloat d, dmin;
    vint head[4];

    (void)n;
    v_load_words(rows, 0, head);
    d = v_lower_halves(head[0]);
    dmin = v_lower_halves(v_right(head[0], 16));
    for (unsigned b = 0; b < 8; b++) {
        vint s = byte_of(head[1], b), m = byte_of(head[2], b), rest = byte_of(head[3], b);

        if (b < 4) {
            s = s & v_ints(63);
            m = m & v_ints(63);
        } else {
            s = (rest & v_ints(15)) | (v_right(s, 2) & v_ints(48));
            m = v_right(rest, 4) | (v_right(m, 2) & v_ints(48));
        }
        v_store(scales + b * PANEL_ROWS, d * v_from_int(s));
        v_store(offsets + b * PANEL_ROWS, dmin * v_from_int(m));
    }
}

/* Groups of 64 weights in 32 bytes from byte `at` on; high: the 32 bytes of fifth bits, or NULL. */
static inline __attribute__((always_inline)) void k_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t at, const vint *high,
                                                          const float *scales, float *tile)
{
    for (uint32_t b = first / 32; b < (first + n) / 32; b += 2) {
        vint words[8];

        v_load_words(rows, at + b * 16, words);
        v_load_words(rows, at + b * 16 + 16, words + 4);
        for (unsigned half = 0; half < 2; half++) {
            vfloat scale = v_load(scales + (b + half) * PANEL_ROWS);

            for (unsigned j = 0; j < 8; j++, tile += 4 * PANEL_ROWS) {
                vint q = fields(words[j], 4 * half, 15);

                if (high)
                    q = q | v_left(fields(high[j], b + half, 1), 4);
                put_bytes(q, scale, tile);
            }
        }
    }
}

static inline void q4_k_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    k_widen(rows, first, n, offsetof(struct q4_k_block, quants), NULL, scales, tile);
}

static inline void q5_k_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    vint high[8];

    v_load_words(rows, offsetof(struct q5_k_block, high), high);
    v_load_words(rows, offsetof(struct q5_k_block, high) + 16, high + 4);
    k_widen(rows, first, n, offsetof(struct q5_k_block, quants), high, scales, tile);
}

static inline void q6_k_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    float d_rows[LANES] __attribute__((aligned(64)));
    vint words[4];
    vfloat d;

    (void)n;
    load_halves(rows, 1, 0, offsetof(struct q6_k_block, d), d_rows);
    d = v_load(d_rows);
    v_load_words(rows, offsetof(struct q6_k_block, scales), words);
    for (unsigned s = 0; s < 16; s++)
        v_store(scales + s * PANEL_ROWS, d * v_from_int(v_right_signed(v_left(words[s / 4], 24 - s % 4 * 8), 24)));
    scale_all(offsets, scales, 16, (float)q6_k_BIAS);
}

static inline void q6_k_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    for (uint32_t group = first / 128; group < (first + n) / 128; group++) {
        vint low[16], high[8];

        for (unsigned i = 0; i < 4; i++)
            v_load_words(rows, offsetof(struct q6_k_block, quants) + group * 64 + i * 16, low + i * 4);
        for (unsigned i = 0; i < 2; i++)
            v_load_words(rows, offsetof(struct q6_k_block, high) + group * 32 + i * 16, high + i * 4);
        for (unsigned b = 0; b < 4; b++) {
            for (unsigned j = 0; j < 8; j++, tile += 4 * PANEL_ROWS) {
                vint q = fields(low[b % 2 * 8 + j], b / 2 * 4, 15);

                q = q | v_left(fields(high[j], b * 2, 3), 4);
                put_bytes(q, v_load(scales + (group * 8 + b * 2 + j / 4) * PANEL_ROWS), tile);
            }
        }
    }
}

static inline void iq4_xs_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    vint head[4];
    vfloat d;

    (void)n;
    (void)offsets;
    v_load_words(rows, 0, head);
    d = v_lower_halves(head[0]);
    for (unsigned b = 0; b < 8; b++) {
        vint low = v_right(head[1], b * 4) & v_ints(15), high = v_right(head[0], 16 + b * 2) & v_ints(3);

        v_store(scales + b * PANEL_ROWS, d * v_from_int(v_sub(low | v_left(high, 4), v_ints(32))));
    }
}

static inline void iq4_xs_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_widen(rows, first, n, 16, offsetof(struct iq4_xs_block, quants), table, false, scales, tile);
}

/* NULL: the format goes through its own file's functions. */
static inline const struct unpacker *unpacker_of(const struct m40_format *format)
{
    static const struct unpacker unpackers[M40_DTYPE_LIMIT] = {
        [M40_DTYPE_F32] = {16, NULL, f32_widen},
        [M40_DTYPE_F16] = {32, NULL, f16_widen},
        [M40_DTYPE_BF16] = {32, NULL, bf16_widen},
        [M40_DTYPE_Q8_0] = {32, q8_0_open_rows, q8_0_widen},
        [M40_DTYPE_Q4_0] = {32, q4_0_open_rows, q4_0_widen},
        [M40_DTYPE_Q4_1] = {32, q4_1_open_rows, q4_1_widen},
        [M40_DTYPE_IQ4_NL] = {32, iq4_nl_open_rows, iq4_nl_widen},
        [M40_DTYPE_MXFP4] = {32, mxfp4_open_rows, mxfp4_widen},
        [M40_DTYPE_Q4_K] = {64, k_open_rows, q4_k_widen},
        [M40_DTYPE_Q5_K] = {64, k_open_rows, q5_k_widen},
        [M40_DTYPE_Q6_K] = {128, q6_k_open_rows, q6_k_widen},
        [M40_DTYPE_IQ4_XS] = {32, iq4_xs_open_rows, iq4_xs_widen},
    };
    const struct unpacker *found = &unpackers[format->type->number];

    return found->widen ? found : NULL;
}

#endif
