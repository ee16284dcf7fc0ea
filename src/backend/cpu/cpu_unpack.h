/* Quants of LANES rows from the file's blocks to floats with the rows side by side, without a detour over bytes: 16 or 32 bytes of every row are transposed as words,
 * and fields are then cut out of a word of all rows at once. The formats that are not here go through their own files. */
#ifndef M40_BACKEND_CPU_CPU_UNPACK_H
#define M40_BACKEND_CPU_CPU_UNPACK_H

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_simd.h"

#include "tensor/formats/all.h"

enum { PANEL_VECTORS = 4, PANEL_ROWS = PANEL_VECTORS * LANES };
enum { MAX_SUBS = M40_MATMUL_CHUNK / CPU_MIN_SUB };

/* What the one token of a matmul sees of a chunk. */
struct token {
    const float *x, *sx;           /* at the chunk's first column and sub-block; x as columns_unit() has it */
    const float *scales, *offsets; /* d and m of the sub-blocks: [MAX_SUBS][PANEL_ROWS] */
};

/* How a format's chunk (up to 256 columns; rows[i]: where it starts in row i of the panel) becomes columns of PANEL_ROWS floats. */
struct unpacker {
    uint32_t unit;        /* columns: `first` and `n` below are multiples of it */
    uint32_t mask;        /* the greatest value that a field of put_fields() may have; 0: a plain format */
    uint32_t nibble_cols; /* so many columns are low nibbles, then as many high ones; 0: fields begin at bit 0 of a byte */
    /* Before the chunk's columns: all its scales and its offsets m of LANES rows; n columns. NULL: it has none. */
    void (*open)(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets);
    /* tile: where column `first` goes. A quant is 1 / columns_unit() times too large. */
    void (*widen)(const uint8_t *const *rows, uint32_t first, uint32_t n, float *tile);
    /* One token: the columns' share is added to sums[PANEL_ROWS], which it sets to zero first where `first` is 0. */
    void (*dot)(const uint8_t *const *rows, uint32_t first, uint32_t n, const struct token *token, float *sums);
};

/* Where put_fields() leaves a field of `mask` that begins at `bit` of a word: at its place, or at the bottom if there it would make a negative number. */
static inline unsigned field_bit(unsigned bit, uint32_t mask)
{
    return (uint64_t)mask << bit > INT32_MAX ? 0 : bit;
}

/* A quant stays at its bit of the word, which makes it a power of two too large; the x of its column is that much smaller (exactly: docs/numerics.md gives it room for
 * this). 1 / that power, for column c of any chunk. */
static inline float columns_unit(const struct unpacker *unpacker, uint32_t c)
{
    const unsigned shift = unpacker->nibble_cols ? c / unpacker->nibble_cols % 2 * 4 : 0;

    return 1.0f / (float)(1u << field_bit(c % 4 * 8 + shift, unpacker->mask));
}

/* Where a format's columns go: to a tile, or straight into the sums of one token, vector by vector. The first members are constants, so that each function has what it
 * needs of this. */
struct columns {
    bool is_sum;                /* to the sums */
    bool has_offsets;           /* of the format */
    uint32_t bias;              /* of the format */
    uint32_t first;             /* column */
    float *tile;                /* where column `first` goes */
    const struct token *token;  /* whose sums */
    vfloat part[PANEL_VECTORS]; /* sums, of vector v of the panel, of the present sub-block; in a plain format of the chunk */
    vfloat sums[PANEL_VECTORS]; /* of the chunk's sub-blocks so far */
};

/* Column c, counted from the chunk's first, of vector v. */
static inline __attribute__((always_inline)) void put(struct columns *out, unsigned v, uint32_t c, vfloat weights)
{
    if (out->is_sum)
        out->part[v] = v_fmadd(weights, v_set(out->token->x[c]), out->part[v]);
    else
        v_store(out->tile + (size_t)(c - out->first) * PANEL_ROWS + v * LANES, weights);
}

/* What the sum of a sub-block starts from; sx: its sum of x. */
static inline __attribute__((always_inline)) float sub_block_start(uint32_t bias, float sx)
{
    return bias ? -((float)bias * sx) : 0.0f;
}

/* Before the first column of sub-block s of a format with scales. */
static inline __attribute__((always_inline)) void start_sub_block(struct columns *out, uint32_t s)
{
    if (!out->is_sum)
        return;
#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++)
        out->part[v] = v_set(sub_block_start(out->bias, out->token->sx[s]));
}

/* After its last one. */
static inline __attribute__((always_inline)) void end_sub_block(struct columns *out, uint32_t s)
{
    if (!out->is_sum)
        return;
#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++) {
        const size_t at = (size_t)s * PANEL_ROWS + v * LANES;

        out->sums[v] = v_fmadd(v_load(out->token->scales + at), out->part[v], out->sums[v]);
        if (out->has_offsets)
            out->sums[v] = v_fnmadd(v_load(out->token->offsets + at), v_set(out->token->sx[s]), out->sums[v]);
    }
}

/* name_widen() and name_dot() from name_columns(). */
#define COLUMNS_TO_BOTH(name)                                                                                                                        \
    static void name##_widen(const uint8_t *const *rows, uint32_t first, uint32_t n, float *tile)                                                    \
    {                                                                                                                                                \
        struct columns out = {.tile = tile, .first = first};                                                                                         \
                                                                                                                                                     \
        name##_columns(rows, first, n, &out);                                                                                                        \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_dot(const uint8_t *const *rows, uint32_t first, uint32_t n, const struct token *token, float *sums)                           \
    {                                                                                                                                                \
        struct columns out = {.is_sum = true, .has_offsets = name##_HAS_OFFSETS, .bias = name##_BIAS, .first = first, .token = token};               \
        vfloat *so_far = name##_SUB ? out.sums : out.part;                                                                                           \
                                                                                                                                                     \
        _Pragma("GCC unroll 4") for (unsigned v = 0; v < PANEL_VECTORS; v++) so_far[v] = first ? v_load(sums + v * LANES) : v_zero();                \
        name##_columns(rows, first, n, &out);                                                                                                        \
        _Pragma("GCC unroll 4") for (unsigned v = 0; v < PANEL_VECTORS; v++) v_store(sums + v * LANES, so_far[v]);                                   \
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

COLUMNS f32_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    for (uint32_t c = first; c < first + n; c += 16)
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            f32_put(rows + v * LANES, c, v, out);
}

COLUMNS f16_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    for (uint32_t c = first; c < first + n; c += 32) {
        uint16_t halves[PANEL_VECTORS][32][LANES] __attribute__((aligned(64)));

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_half_lines(rows + v * LANES, (size_t)c * 2, halves[v][0]);
        for (unsigned j = 0; j < 32; j++)
#pragma GCC unroll 4
            for (unsigned v = 0; v < PANEL_VECTORS; v++)
                put(out, v, c + j, v_from_halves((const void *)halves[v][j]));
    }
}

COLUMNS bf16_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
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

/* Four columns from c on: the field of `mask` (a constant) from bit `shift` on of byte j of every lane, times a power of two: see columns_unit(). */
COLUMNS put_fields(vint words, unsigned shift, uint32_t mask, struct columns *out, unsigned v, uint32_t c)
{
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++) {
        const unsigned bit = 8 * j + shift;

        if (field_bit(bit, mask) == bit)
            put(out, v, c + j, v_from_int(words & v_ints((int)(mask << bit))));
        else /* it ends at bit 31 */
            put(out, v, c + j, v_from_int(v_right(words, bit)));
    }
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
    uint16_t halves[8][LANES] __attribute__((aligned(64)));

    for (unsigned i = 0; i < LANES; i++)
        for (uint32_t b = 0; b < n_blocks; b++)
            memcpy(&halves[b][i], rows[i] + b * block_bytes + at, 2);
    for (uint32_t b = 0; b < n_blocks; b++)
        v_store(out + b * PANEL_ROWS, v_from_halves((const void *)halves[b]));
}

static inline void q8_0_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    (void)offsets;
    load_halves(rows, n / 32, sizeof(struct q8_0_block), offsetof(struct q8_0_block, d), scales);
}

static inline void q4_0_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    (void)offsets;
    load_halves(rows, n / 32, sizeof(struct q4_0_block), offsetof(struct q4_0_block, d), scales);
}

static inline void q4_1_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    load_halves(rows, n / 32, sizeof(struct q4_1_block), offsetof(struct q4_1_block, d), scales);
    load_halves(rows, n / 32, sizeof(struct q4_1_block), offsetof(struct q4_1_block, min), offsets);
    for (uint32_t b = 0; b < n / 32; b++)
        v_store(offsets + b * PANEL_ROWS, -v_load(offsets + b * PANEL_ROWS));
}

static inline void iq4_nl_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    (void)offsets;
    load_halves(rows, n / 32, sizeof(struct iq4_nl_block), offsetof(struct iq4_nl_block, d), scales);
}

/* mxfp4_scale() of every lane. */
static inline vfloat mxfp4_powers(vint exponents)
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
        v_store(scales + b * PANEL_ROWS, mxfp4_powers((vint)exponents[b]));
}

COLUMNS q8_0_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    for (uint32_t c = first; c < first + n; c += 32) {
        vint words[PANEL_VECTORS][8];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_8_words(rows + v * LANES, c / 32 * sizeof(struct q8_0_block) + offsetof(struct q8_0_block, quants), words[v]);
        start_sub_block(out, c / 32);
        for (unsigned j = 0; j < 8; j++)
#pragma GCC unroll 4
            for (unsigned v = 0; v < PANEL_VECTORS; v++)
                put_fields(words[v][j] ^ v_ints((int)0x80808080), 0, 255, out, v, c + 4 * j); /* adds the bias of 128 */
        end_sub_block(out, c / 32);
    }
}

/* 16 bytes every block_bytes from byte `at` on: low nibbles the first 16 weights, high nibbles the others. table: of 16 bytes that the nibbles are indices of, or
 * NULL. */
COLUMNS nibbles_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t block_bytes, size_t at, const uint32_t *table,
                        struct columns *out)
{
    const vint values = table ? v_repeat_16(_mm_loadu_si128((const void *)table)) : v_ints(0);

    for (uint32_t b = first / 32; b < (first + n) / 32; b++) {
        vint words[PANEL_VECTORS][4];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_words(rows + v * LANES, b * block_bytes + at, words[v]);
        start_sub_block(out, b);
#pragma GCC unroll 2
        for (unsigned half = 0; half < 2; half++) {
            for (unsigned j = 0; j < 4; j++) {
                const uint32_t c = b * 32 + half * 16 + j * 4;

#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    if (table)
                        put_fields(v_pick_bytes(values, fields(words[v][j], 4 * half, 15)), 0, 255, out, v, c);
                    else
                        put_fields(words[v][j], 4 * half, 15, out, v, c);
                }
            }
        }
        end_sub_block(out, b);
    }
}

COLUMNS q4_0_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    nibbles_columns(rows, first, n, sizeof(struct q4_0_block), offsetof(struct q4_0_block, quants), NULL, out);
}

COLUMNS q4_1_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    nibbles_columns(rows, first, n, sizeof(struct q4_1_block), offsetof(struct q4_1_block, quants), NULL, out);
}

COLUMNS iq4_nl_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_columns(rows, first, n, sizeof(struct iq4_nl_block), offsetof(struct iq4_nl_block, quants), table, out);
}

COLUMNS mxfp4_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    const uint32_t table[4] = MXFP4_TABLE;

    nibbles_columns(rows, first, n, sizeof(struct mxfp4_block), offsetof(struct mxfp4_block, quants), table, out);
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
COLUMNS k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, size_t at, const vint (*high)[8], struct columns *out)
{
    for (uint32_t b = first / 32; b < (first + n) / 32; b += 2) {
        vint words[PANEL_VECTORS][8];

#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            v_load_8_words(rows + v * LANES, at + b * 16, words[v]);
#pragma GCC unroll 2
        for (unsigned half = 0; half < 2; half++) {
            start_sub_block(out, b + half);
            for (unsigned j = 0; j < 8; j++) {
                const uint32_t c = (b + half) * 32 + j * 4;

#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    if (high)
                        put_fields(fields(words[v][j], 4 * half, 15) | v_left(fields(high[v][j], b + half, 1), 4), 0, 31, out, v, c);
                    else
                        put_fields(words[v][j], 4 * half, 15, out, v, c);
                }
            }
            end_sub_block(out, b + half);
        }
    }
}

COLUMNS q4_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    k_columns(rows, first, n, offsetof(struct q4_k_block, quants), NULL, out);
}

COLUMNS q5_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    vint high[PANEL_VECTORS][8];

#pragma GCC unroll 4
    for (unsigned v = 0; v < PANEL_VECTORS; v++)
        v_load_8_words(rows + v * LANES, offsetof(struct q5_k_block, high), high[v]);
    k_columns(rows, first, n, offsetof(struct q5_k_block, quants), high, out);
}

static inline void q6_k_open_rows(const uint8_t *const *rows, uint32_t n, float *scales, float *offsets)
{
    float d_rows[LANES] __attribute__((aligned(64)));
    vint words[4];
    vfloat d;

    (void)n;
    (void)offsets;
    load_halves(rows, 1, 0, offsetof(struct q6_k_block, d), d_rows);
    d = v_load(d_rows);
    v_load_words(rows, offsetof(struct q6_k_block, scales), words);
    for (unsigned s = 0; s < 16; s++)
        v_store(scales + s * PANEL_ROWS, d * v_from_int(v_right_signed(v_left(words[s / 4], 24 - s % 4 * 8), 24)));
}

COLUMNS q6_k_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
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
            start_sub_block(out, group * 8 + s);
            for (unsigned j = s % 2 * 4; j < s % 2 * 4 + 4; j++)
#pragma GCC unroll 4
                for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                    vint q = fields(low[v][s / 2 % 2 * 8 + j], s / 4 * 4, 15) | v_left(fields(high[v][j], s / 2 * 2, 3), 4);

                    put_fields(q, 0, 63, out, v, group * 128 + s / 2 * 32 + j * 4);
                }
            end_sub_block(out, group * 8 + s);
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

COLUMNS iq4_xs_columns(const uint8_t *const *rows, uint32_t first, uint32_t n, struct columns *out)
{
    const uint32_t table[4] = IQ4_NL_TABLE;

    nibbles_columns(rows, first, n, 16, offsetof(struct iq4_xs_block, quants), table, out);
}

COLUMNS_TO_BOTH(q4_k)
COLUMNS_TO_BOTH(q5_k)
COLUMNS_TO_BOTH(q6_k)
COLUMNS_TO_BOTH(iq4_xs)

/* NULL: the format goes through its own file's functions. */
static inline const struct unpacker *unpacker_of(const struct m40_format *format)
{
    static const struct unpacker unpackers[M40_DTYPE_LIMIT] = {
        [M40_DTYPE_F32] = {16, 0, 0, NULL, f32_widen, f32_dot},
        [M40_DTYPE_F16] = {32, 0, 0, NULL, f16_widen, f16_dot},
        [M40_DTYPE_BF16] = {32, 0, 0, NULL, bf16_widen, bf16_dot},
        [M40_DTYPE_Q8_0] = {32, 255, 0, q8_0_open_rows, q8_0_widen, q8_0_dot},
        [M40_DTYPE_Q4_0] = {32, 15, 16, q4_0_open_rows, q4_0_widen, q4_0_dot},
        [M40_DTYPE_Q4_1] = {32, 15, 16, q4_1_open_rows, q4_1_widen, q4_1_dot},
        [M40_DTYPE_IQ4_NL] = {32, 255, 0, iq4_nl_open_rows, iq4_nl_widen, iq4_nl_dot},
        [M40_DTYPE_MXFP4] = {32, 255, 0, mxfp4_open_rows, mxfp4_widen, mxfp4_dot},
        [M40_DTYPE_Q4_K] = {64, 15, 32, k_open_rows, q4_k_widen, q4_k_dot},
        [M40_DTYPE_Q5_K] = {64, 31, 0, k_open_rows, q5_k_widen, q5_k_dot},
        [M40_DTYPE_Q6_K] = {128, 63, 0, q6_k_open_rows, q6_k_widen, q6_k_dot},
        [M40_DTYPE_IQ4_XS] = {32, 255, 0, iq4_xs_open_rows, iq4_xs_widen, iq4_xs_dot},
    };
    const struct unpacker *found = &unpackers[format->type->number];

    return found->widen ? found : NULL;
}

#endif
