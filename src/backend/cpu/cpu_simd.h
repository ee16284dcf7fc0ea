/* Vectors of as many 32-bit lanes as the file that includes this is compiled for: 16 with AVX-512 (F, BW, DQ, VL), 8 with AVX2. One name for each instruction that
 * the matmul needs, so that its source is the same for both; +, *, &, | and ^ are C's own on vectors. */
#ifndef M40_BACKEND_CPU_CPU_SIMD_H
#define M40_BACKEND_CPU_CPU_SIMD_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __AVX512BW__

enum { LANES = 16 };
typedef __m512 vfloat;
typedef __m512i vint;

#define v_load(address)                  _mm512_load_ps(address)
#define v_store(address, value)          _mm512_store_ps(address, value)
#define v_load_anywhere(address)         _mm512_loadu_ps(address)
#define v_store_anywhere(address, value) _mm512_storeu_ps(address, value)
#define v_zero()                         _mm512_setzero_ps()
#define v_set(value)                     _mm512_set1_ps(value)
#define v_fmadd(a, b, c)                 _mm512_fmadd_ps(a, b, c)
#define v_fnmadd(a, b, c)                _mm512_fnmadd_ps(a, b, c)
#define v_from_int(value)                _mm512_cvtepi32_ps(value)
#define v_sub(a, b)                      _mm512_sub_epi32(a, b)
#define v_bits(value)                    _mm512_castsi512_ps(value)
#define v_ints(value)                    _mm512_set1_epi32(value)
#define v_low_halves(a, b)               _mm512_unpacklo_epi16(a, b)
#define v_high_halves(a, b)              _mm512_unpackhi_epi16(a, b)
#define v_low_words(a, b)                _mm512_unpacklo_epi32(a, b)
#define v_high_words(a, b)               _mm512_unpackhi_epi32(a, b)
#define v_low_pairs(a, b)                _mm512_unpacklo_epi64(a, b)
#define v_high_pairs(a, b)               _mm512_unpackhi_epi64(a, b)
#define v_pick_bytes(a, which)           _mm512_shuffle_epi8(a, which)
#define v_repeat_16(bytes)               _mm512_broadcast_i32x4(bytes)
#define v_from_halves(address)           _mm512_cvtph_ps(_mm256_load_si256(address))

/* The lower half of every lane as an FP16 number. */
static inline vfloat v_lower_halves(vint lanes)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(lanes));
}

/* 32 bytes of rows k and k + 4. */
static inline vint v_load_pair(const uint8_t *const *rows, unsigned k, size_t at)
{
    vint v = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(rows[k] + at)));

    return _mm512_mask_broadcast_i64x4(v, 0xf0, _mm256_loadu_si256((const void *)(rows[k + 4] + at)));
}

/* The same of rows k and k + 8. */
static inline vint v_load_32_bytes(const uint8_t *const *rows, unsigned k, size_t at)
{
    vint v = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(rows[k] + at)));

    return _mm512_mask_broadcast_i64x4(v, 0xf0, _mm256_loadu_si256((const void *)(rows[k + 8] + at)));
}

/* For v_transpose_halves: columns j and j + 8, and j + 1 and j + 9, two pieces of 8 rows each. */
static inline void v_store_columns(uint16_t *columns, vint even, vint odd)
{
    _mm512_store_si512(columns, _mm512_shuffle_i32x4(even, odd, 0x88));
    _mm512_store_si512(columns + 8 * LANES, _mm512_shuffle_i32x4(even, odd, 0xdd));
}

/* 16 bytes of rows k, k + 4, ... */
static inline vint v_load_pieces(const uint8_t *const *rows, unsigned k, size_t at)
{
    vint v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(rows[k] + at)));

    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128((const void *)(rows[k + 4] + at)));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128((const void *)(rows[k + 8] + at)));
    return _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128((const void *)(rows[k + 12] + at)));
}

#else

enum { LANES = 8 };
typedef __m256 vfloat;
typedef __m256i vint;

#define v_load(address)                  _mm256_load_ps(address)
#define v_store(address, value)          _mm256_store_ps(address, value)
#define v_load_anywhere(address)         _mm256_loadu_ps(address)
#define v_store_anywhere(address, value) _mm256_storeu_ps(address, value)
#define v_zero()                         _mm256_setzero_ps()
#define v_set(value)                     _mm256_set1_ps(value)
#define v_fmadd(a, b, c)                 _mm256_fmadd_ps(a, b, c)
#define v_fnmadd(a, b, c)                _mm256_fnmadd_ps(a, b, c)
#define v_from_int(value)                _mm256_cvtepi32_ps(value)
#define v_sub(a, b)                      _mm256_sub_epi32(a, b)
#define v_bits(value)                    _mm256_castsi256_ps(value)
#define v_ints(value)                    _mm256_set1_epi32(value)
#define v_low_halves(a, b)               _mm256_unpacklo_epi16(a, b)
#define v_high_halves(a, b)              _mm256_unpackhi_epi16(a, b)
#define v_low_words(a, b)                _mm256_unpacklo_epi32(a, b)
#define v_high_words(a, b)               _mm256_unpackhi_epi32(a, b)
#define v_low_pairs(a, b)                _mm256_unpacklo_epi64(a, b)
#define v_high_pairs(a, b)               _mm256_unpackhi_epi64(a, b)
#define v_pick_bytes(a, which)           _mm256_shuffle_epi8(a, which)
#define v_repeat_16(bytes)               _mm256_broadcastsi128_si256(bytes)
#define v_from_halves(address)           _mm256_cvtph_ps(_mm_load_si128(address))

static inline vfloat v_lower_halves(vint lanes)
{
    lanes = lanes & v_ints(0xffff);
    lanes = _mm256_permute4x64_epi64(_mm256_packus_epi32(lanes, lanes), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(lanes));
}

static inline vint v_load_32_bytes(const uint8_t *const *rows, unsigned k, size_t at)
{
    return _mm256_loadu_si256((const void *)(rows[k] + at));
}

static inline void v_store_columns(uint16_t *columns, vint even, vint odd)
{
    _mm256_store_si256((void *)columns, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_store_si256((void *)(columns + 8 * LANES), _mm256_permute2x128_si256(even, odd, 0x31));
}

static inline vint v_load_pieces(const uint8_t *const *rows, unsigned k, size_t at)
{
    vint v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)(rows[k] + at)));

    return _mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(rows[k + 4] + at)), 1);
}

#endif

typedef uint32_t vuint_lanes __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t vint_lanes __attribute__((vector_size(4 * LANES), may_alias));

/* Shifts of every lane; n need not be a constant. */
static inline vint v_left(vint a, unsigned n)
{
    return (vint)((vuint_lanes)a << n);
}

static inline vint v_right(vint a, unsigned n)
{
    return (vint)((vuint_lanes)a >> n);
}

static inline vint v_right_signed(vint a, unsigned n)
{
    return (vint)((vint_lanes)a >> (int)n);
}

/* All bits set where a >= b, else none. */
static inline vint v_mask_not_less(vint a, vint b)
{
    return (vint)((vint_lanes)a >= (vint_lanes)b);
}

/* pieces[k]: 16 bytes of rows k, k + 4, ... -> words[j]: word j of row i in lane i. */
static inline void v_transpose(const vint *pieces, vint *words)
{
    vint low01 = v_low_words(pieces[0], pieces[1]), high01 = v_high_words(pieces[0], pieces[1]);
    vint low23 = v_low_words(pieces[2], pieces[3]), high23 = v_high_words(pieces[2], pieces[3]);

    words[0] = v_low_pairs(low01, low23);
    words[1] = v_high_pairs(low01, low23);
    words[2] = v_low_pairs(high01, high23);
    words[3] = v_high_pairs(high01, high23);
}

/* 16 bytes of every row, from byte `at` on, as four vectors: word j of row i is lane i of words[j]. */
static inline void v_load_words(const uint8_t *const *rows, size_t at, vint *words)
{
    const vint pieces[4] = {v_load_pieces(rows, 0, at), v_load_pieces(rows, 1, at), v_load_pieces(rows, 2, at), v_load_pieces(rows, 3, at)};

    v_transpose(pieces, words);
}

/* The same for 32 bytes: words[8]. */
static inline void v_load_8_words(const uint8_t *const *rows, size_t at, vint *words)
{
#ifdef __AVX512BW__
    vint pieces[4], low[4], high[4]; /* two 16 bytes of the lower and the upper eight rows */

#pragma GCC unroll 4
    for (unsigned k = 0; k < 4; k++)
        pieces[k] = v_load_pair(rows, k, at);
    v_transpose(pieces, low);
#pragma GCC unroll 4
    for (unsigned k = 0; k < 4; k++)
        pieces[k] = v_load_pair(rows, k + 8, at);
    v_transpose(pieces, high);
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++) {
        words[j] = _mm512_shuffle_i32x4(low[j], high[j], 0x88);
        words[j + 4] = _mm512_shuffle_i32x4(low[j], high[j], 0xdd);
    }
#else
    v_load_words(rows, at, words);
    v_load_words(rows, at + 16, words + 4);
#endif
}

/* The same for 64 bytes: words[16]. The rows of a plain format often lie a power of two apart, where a cache keeps fewer lines than there are lanes; so a row's line
 * is read all at once. */
static inline void v_load_lines(const uint8_t *const *rows, size_t at, vint *words)
{
    vint pieces[4][4];

#pragma GCC unroll 4
    for (unsigned k = 0; k < 4; k++)
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++)
            pieces[i][k] = v_load_pieces(rows, k, at + 16 * i);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++)
        v_transpose(pieces[i], words + 4 * i);
}

/* 32 bytes of each row, 16 columns: pieces[k] are rows k and k + 8 with 16 lanes, row k with 8. columns: [16][LANES] */
static inline void v_transpose_halves(const vint *pieces, uint16_t *columns)
{
    vint pairs[8], fours[8];

#pragma GCC unroll 4
    for (unsigned k = 0; k < 4; k++) { /* two rows; columns 0-3 and 8-11, 4-7 and 12-15 */
        pairs[k] = v_low_halves(pieces[2 * k], pieces[2 * k + 1]);
        pairs[k + 4] = v_high_halves(pieces[2 * k], pieces[2 * k + 1]);
    }
#pragma GCC unroll 2
    for (unsigned upper = 0; upper < 2; upper++) { /* rows 4 * upper to 4 * upper + 3; columns j, j + 1, j + 8 and j + 9 for j = 0, 2, 4, 6 */
        fours[4 * upper] = v_low_words(pairs[2 * upper], pairs[2 * upper + 1]);
        fours[4 * upper + 1] = v_high_words(pairs[2 * upper], pairs[2 * upper + 1]);
        fours[4 * upper + 2] = v_low_words(pairs[2 * upper + 4], pairs[2 * upper + 5]);
        fours[4 * upper + 3] = v_high_words(pairs[2 * upper + 4], pairs[2 * upper + 5]);
    }
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++)
        v_store_columns(columns + 2 * j * LANES, v_low_pairs(fours[j], fours[j + 4]), v_high_pairs(fours[j], fours[j + 4]));
}

/* 64 bytes of halves of every row, as v_load_lines() reads them -> columns: [32][LANES], aligned. */
static inline void v_load_half_lines(const uint8_t *const *rows, size_t at, uint16_t *columns)
{
    vint pieces[2][8];

#pragma GCC unroll 8
    for (unsigned k = 0; k < 8; k++)
#pragma GCC unroll 2
        for (unsigned i = 0; i < 2; i++)
            pieces[i][k] = v_load_32_bytes(rows, k, at + 32 * i);
    v_transpose_halves(pieces[0], columns);
    v_transpose_halves(pieces[1], columns + 16 * LANES);
}

#endif
