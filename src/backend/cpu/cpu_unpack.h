/* Weights of LANES rows from the file's blocks to floats with the rows side by side, without a detour over bytes: 16 or 32 bytes of every row are transposed as words,
 * and fields are then cut out of a word of all rows at once. The results are those of the formats' own files; the formats that are not here go through those. */
#ifndef M40_BACKEND_CPU_CPU_UNPACK_H
#define M40_BACKEND_CPU_CPU_UNPACK_H

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_simd.h"

#include "tensor/formats/all.h"

enum { PANEL_VECTORS = 4, PANEL_ROWS = PANEL_VECTORS * LANES };
enum { MAX_SUBS = M40_MATMUL_CHUNK / CPU_MIN_SUB };

/* What the one token of a matmul sees of a chunk. */
struct token {
    const float *x, *sx; /* at the chunk's first column and sub-block */
    const float *offsets;
};

/* How a format's chunk (up to 256 columns; rows[i]: where it starts in row i of the panel) becomes columns of PANEL_ROWS floats.
 * scales, offsets: [MAX_SUBS][PANEL_ROWS]. */
struct unpacker {
    uint32_t unit; /* columns: `first` and `n` below are multiples of it */
    /* Before the chunk's columns: all its scales and its offsets m of LANES rows; n columns. NULL: it has none. */
    void (*open)(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets);
    /* tile: where column `first` goes. */
    void (*widen)(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile);
    /* One token: the columns' share is added to sums[PANEL_ROWS], which it sets to zero first where `first` is 0. */
    void (*dot)(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, const struct token *token, float *sums);
};

/* Where a format's columns go: to a tile, or straight into the sums of one token, vector by vector. */
struct columns {
    uint32_t first;             /* column */
    bool is_sum;                /* to the sums; a constant, so that each function has one of the two */
    float *tile;                /* where column `first` goes */
    const struct token *token;  /* whose sums */
    vfloat sums[PANEL_VECTORS]; /* of vector v of the panel */
};

/* Column c, counted from the chunk's first, of vector v. */
static inline __attribute__((always_inline)) void put(struct columns *out, unsigned v, uint32_t c, vfloat weights)
{
    if (out->is_sum)
        out->sums[v] = v_fmadd(weights, v_set(out->token->x[c]), out->sums[v]);
    else
        v_store(out->tile + (size_t)(c - out->first) * PANEL_ROWS + v * LANES, weights);
}

/* After all columns of sub-block s of a format with offsets. */
static inline __attribute__((always_inline)) void put_offsets(struct columns *out, uint32_t s)
{
    if (!out->is_sum)
        return;
#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++)
        out->sums[v] = v_fnmadd(v_load(out->token->offsets + s * PANEL_ROWS + v * LANES), v_set(out->token->sx[s]), out->sums[v]);
}

/* name_widen() and name_dot() from name_columns(). */
#define COLUMNS_TO_BOTH(name)                                                                                                                        \
    static void name##_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, float *tile)                               \
    {                                                                                                                                                \
        struct columns out = {.tile = tile, .first = first};                                                                                         \
                                                                                                                                                     \
        name##_columns(rows, first, n, scales, &out);                                                                                                \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_dot(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, const struct token *token, float *sums)      \
    {                                                                                                                                                \
        struct columns out = {.token = token, .is_sum = true, .first = first};                                                                       \
                                                                                                                                                     \
        _Pragma("GCC unroll 4") for (unsigned v = 0; v < PANEL_VECTORS; v++) out.sums[v] = first ? v_load(sums + v * LANES) : v_zero();              \
        name##_columns(rows, first, n, scales, &out);                                                                                                \
        _Pragma("GCC unroll 4") for (unsigned v = 0; v < PANEL_VECTORS; v++) v_store(sums + v * LANES, out.sums[v]);                                 \
    }

#define COLUMNS static inline __attribute__((always_inline)) void

/* ---- plain formats: 64 bytes of every row at a time ---- */

/* Sixteen columns of vector v; rows: its own. */
COLUMNS f32_put(const uint8_t *const *rows, uint32_t c, unsigned v, struct columns *out)
{
    vint words[16];

    v_load_lines(rows, (size_t)c * 4, words);
#pragma GCC unroll 16
    for (unsigned j = 0; j < 16; j++)
        put(out, v, c + j, v_bits(words[j]));
}

COLUMNS f32_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 16)
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            f32_put(rows + v * LANES, c, v, out);
}

COLUMNS f16_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 32) {
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++) {
            vint words[16];

            v_load_lines(rows + v * LANES, (size_t)c * 2, words);
#pragma GCC unroll 16
            for (unsigned j = 0; j < 16; j++) {
                put(out, v, c + 2 * j, v_lower_halves(words[j]));
                put(out, v, c + 2 * j + 1, v_lower_halves(v_right(words[j], 16)));
            }
        }
    }
}

COLUMNS bf16_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    (void)scales;
    for (uint32_t c = first; c < first + n; c += 32) {
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++) {
            vint words[16];

            v_load_lines(rows + v * LANES, (size_t)c * 2, words);
#pragma GCC unroll 16
            for (unsigned j = 0; j < 16; j++) {
                put(out, v, c + 2 * j, v_bits(v_left(words[j], 16)));
                put(out, v, c + 2 * j + 1, v_bits(words[j] & v_ints((int)0xffff0000)));
            }
        }
    }
}

COLUMNS_TO_BOTH(f32)
COLUMNS_TO_BOTH(f16)
COLUMNS_TO_BOTH(bf16)

/* ---- bytes to floats ---- */

/* scale[v]: of vector v. Before the loop over a sub-block's columns, for what is made of it to be made once. */
COLUMNS load_scales(const float *scales, vfloat *scale)
{
#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++)
        scale[v] = v_load(scales + v * LANES);
}

/* What a product is added to: makes every zero +0, and NaN under a scale that is not finite (docs/numerics.md, Weights). */
static inline vfloat weight_zero(vfloat scale)
{
    return scale - scale;
}

/* scale * q for a q of up to 7 bits at bit `bit` of every word (a constant, as is mask, the q's greatest value): behind the exponent of a power of two they are
 * that power + q, whose product with scale exceeds that of the power, which is exact, by just scale * q. */
static inline __attribute__((always_inline)) vfloat field_weight(vint words, unsigned bit, uint32_t mask, vfloat scale)
{
    if (bit >= 20) {
        words = v_right(words, 16);
        bit -= 16;
    }
    words = (words & v_ints((int)(mask << bit))) | v_ints((int)((127 + 23 - bit) << 23));
    return v_fmsub(v_bits(words), scale, scale * v_set((float)(1u << (23 - bit))));
}

/* Four columns from c on: scale * the field of `mask` from bit `shift` on of byte j of every lane. */
COLUMNS put_fields(vint words, unsigned shift, uint32_t mask, vfloat scale, struct columns *out, unsigned v, uint32_t c)
{
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++)
        put(out, v, c + j, field_weight(words, 8 * j + shift, mask, scale));
}

/* The same of whole bytes, signed, with scales of up to 15 bits: 2^15 + 128 + q has its byte as the word's second. */
COLUMNS put_signed_bytes(vint words, vfloat scale, struct columns *out, unsigned v, uint32_t c)
{
    const vint turned[4] = {v_left(words, 8), words, v_right(words, 8), v_right(words, 16)};

#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++) {
        vint value = (turned[j] & v_ints(0xff00)) ^ v_ints((int)(0x47000000 | 0x8000));

        put(out, v, c + j, v_fmsub(v_bits(value), scale, scale * v_set(0x8080)));
    }
}

/* The same of any scale; zero: weight_zero(scale), or -0 where the format keeps the products as they are. */
COLUMNS put_table_bytes(vint bytes, vfloat scale, vfloat zero, struct columns *out, unsigned v, uint32_t c)
{
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++)
        put(out, v, c + j, scale * v_from_int(v_right_signed(v_left(bytes, 24 - 8 * j), 24)) + zero);
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

COLUMNS q8_0_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    for (uint32_t c = first; c < first + n; c += 32) {
        vint words[PANEL_VECTORS][8];
        vfloat scale[PANEL_VECTORS];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_8_words(rows + v * LANES, c / 32 * sizeof(struct q8_0_block) + offsetof(struct q8_0_block, quants), words[v]);
        load_scales(scales + c / 32 * PANEL_ROWS, scale);
        for (unsigned j = 0; j < 8; j++)
#pragma GCC unroll 4
            for (unsigned v = 0; v < PANEL_VECTORS; v++)
                put_signed_bytes(words[v][j], scale[v], out, v, c + 4 * j);
    }
}

/* 16 bytes every block_bytes from byte `at` on: low nibbles the first 16 weights, high nibbles the others. table: of 16 bytes with 128 added that the nibbles are
 * indices of, or NULL. keeps_zeros: see put_table_bytes. */
COLUMNS nibbles_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t block_bytes, size_t at, const uint32_t *table,
                        bool keeps_zeros, const float *scales, struct columns *out)
{
    vint values = v_ints(0);

    if (table)
        values = v_repeat_16(_mm_loadu_si128((const void *)table)) ^ v_ints((int)0x80808080);
    for (uint32_t b = first / 32; b < (first + n) / 32; b++) {
        vint words[PANEL_VECTORS][4];
        vfloat scale[PANEL_VECTORS];

        load_scales(scales + b * PANEL_ROWS, scale);
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_words(rows + v * LANES, b * block_bytes + at, words[v]);
#pragma GCC unroll 2
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned j = 0; j < 4; j++) {
                const uint32_t c = b * 32 + half * 16 + j * 4;

#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    if (table)
                        put_table_bytes(v_pick_bytes(values, fields(words[v][j], 4 * half, 15)), scale[v],
                                        keeps_zeros ? v_set(-0.0f) : weight_zero(scale[v]), out, v, c);
                    else
                        put_fields(words[v][j], 4 * half, 15, scale[v], out, v, c);
                }
            }
        }
        if (!table)
            put_offsets(out, b);
    }
}

COLUMNS q4_0_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    nibbles_columns(rows, first, n, sizeof(struct q4_0_block), offsetof(struct q4_0_block, quants), NULL, false, scales, out);
}

COLUMNS q4_1_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    nibbles_columns(rows, first, n, sizeof(struct q4_1_block), offsetof(struct q4_1_block, quants), NULL, false, scales, out);
}

COLUMNS iq4_nl_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_columns(rows, first, n, sizeof(struct iq4_nl_block), offsetof(struct iq4_nl_block, quants), table, false, scales, out);
}

COLUMNS mxfp4_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    const uint32_t table[4] = MXFP4_TABLE;

    nibbles_columns(rows, first, n, sizeof(struct mxfp4_block), offsetof(struct mxfp4_block, quants), table, true, scales, out);
}

COLUMNS_TO_BOTH(q8_0)
COLUMNS_TO_BOTH(q4_0)
COLUMNS_TO_BOTH(q4_1)
COLUMNS_TO_BOTH(iq4_nl)
COLUMNS_TO_BOTH(mxfp4)

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

/* Groups of 64 weights in 32 bytes from byte `at` on; high: the 32 bytes of fifth bits of each vector, or NULL. */
COLUMNS k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t at, const vint (*high)[8], const float *scales, struct columns *out)
{
    for (uint32_t b = first / 32; b < (first + n) / 32; b += 2) {
        vint words[PANEL_VECTORS][8];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_8_words(rows + v * LANES, at + b * 16, words[v]);
#pragma GCC unroll 2
        for (unsigned half = 0; half < 2; half++) {
            vfloat scale[PANEL_VECTORS];

            load_scales(scales + (b + half) * PANEL_ROWS, scale);
            for (unsigned j = 0; j < 8; j++) {
                const uint32_t c = (b + half) * 32 + j * 4;

#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    if (high)
                        put_fields(fields(words[v][j], 4 * half, 15) | v_left(fields(high[v][j], b + half, 1), 4), 0, 31, scale[v], out, v, c);
                    else
                        put_fields(words[v][j], 4 * half, 15, scale[v], out, v, c);
                }
            }
            put_offsets(out, b + half);
        }
    }
}

COLUMNS q4_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    k_columns(rows, first, n, offsetof(struct q4_k_block, quants), NULL, scales, out);
}

COLUMNS q5_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    vint high[PANEL_VECTORS][8];

#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++)
        v_load_8_words(rows + v * LANES, offsetof(struct q5_k_block, high), high[v]);
    k_columns(rows, first, n, offsetof(struct q5_k_block, quants), high, scales, out);
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

COLUMNS q6_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    for (uint32_t group = first / 128; group < (first + n) / 128; group++) {
        vint low[PANEL_VECTORS][16], high[PANEL_VECTORS][8];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++) {
            const uint8_t *const *from = rows + v * LANES;

            v_load_8_words(from, offsetof(struct q6_k_block, quants) + group * 64, low[v]);
            v_load_8_words(from, offsetof(struct q6_k_block, quants) + group * 64 + 32, low[v] + 8);
            v_load_8_words(from, offsetof(struct q6_k_block, high) + group * 32, high[v]);
        }
        for (unsigned s = 0; s < 8; s++) { /* sub-blocks of 16 weights */
            vfloat scale[PANEL_VECTORS];

            load_scales(scales + (group * 8 + s) * PANEL_ROWS, scale);
            for (unsigned j = s % 2 * 4; j < s % 2 * 4 + 4; j++)
#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    vint q = fields(low[v][s / 2 % 2 * 8 + j], s / 4 * 4, 15) | v_left(fields(high[v][j], s / 2 * 2, 3), 4);

                    put_fields(q, 0, 63, scale[v], out, v, group * 128 + s / 2 * 32 + j * 4);
                }
            put_offsets(out, group * 8 + s);
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

COLUMNS iq4_xs_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, const float *scales, struct columns *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_columns(rows, first, n, 16, offsetof(struct iq4_xs_block, quants), table, false, scales, out);
}

COLUMNS_TO_BOTH(q4_k)
COLUMNS_TO_BOTH(q5_k)
COLUMNS_TO_BOTH(q6_k)
COLUMNS_TO_BOTH(iq4_xs)

/* NULL: the format goes through its own file's functions. */
static inline const struct unpacker *unpacker_of(const struct m40_format *format)
{
    static const struct unpacker unpackers[M40_DTYPE_LIMIT] = {
        [M40_DTYPE_F32] = {16, NULL, f32_widen, f32_dot},
        [M40_DTYPE_F16] = {32, NULL, f16_widen, f16_dot},
        [M40_DTYPE_BF16] = {32, NULL, bf16_widen, bf16_dot},
        [M40_DTYPE_Q8_0] = {32, q8_0_open_rows, q8_0_widen, q8_0_dot},
        [M40_DTYPE_Q4_0] = {32, q4_0_open_rows, q4_0_widen, q4_0_dot},
        [M40_DTYPE_Q4_1] = {32, q4_1_open_rows, q4_1_widen, q4_1_dot},
        [M40_DTYPE_IQ4_NL] = {32, iq4_nl_open_rows, iq4_nl_widen, iq4_nl_dot},
        [M40_DTYPE_MXFP4] = {32, mxfp4_open_rows, mxfp4_widen, mxfp4_dot},
        [M40_DTYPE_Q4_K] = {64, k_open_rows, q4_k_widen, q4_k_dot},
        [M40_DTYPE_Q5_K] = {64, k_open_rows, q5_k_widen, q5_k_dot},
        [M40_DTYPE_Q6_K] = {128, q6_k_open_rows, q6_k_widen, q6_k_dot},
        [M40_DTYPE_IQ4_XS] = {32, iq4_xs_open_rows, iq4_xs_widen, iq4_xs_dot},
    };
    const struct unpacker *found = &unpackers[format->type->number];

    return found->widen ? found : NULL;
}

#endif
