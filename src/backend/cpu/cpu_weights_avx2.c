/* The formats' own conversion of blocks to weights, compiled once more for processors with AVX2: the same bits, several times as fast. The helpers of formats/pack.h
 * that take most of the time have vector twins here; the format files below are compiled with those. */
#include "backend/cpu/cpu_backend.h"

#include "tensor/formats/pack.h"

#include <immintrin.h>

static inline __m128i load_16(const void *bytes)
{
    return _mm_loadu_si128(bytes);
}

/* n: a multiple of 16 */
static inline void split_nibbles(const uint8_t *bytes, unsigned n, uint8_t *q)
{
    const __m128i low = _mm_set1_epi8(15);

    for (unsigned i = 0; i < n; i += 16) {
        __m128i b = load_16(bytes + i);

        _mm_storeu_si128((void *)(q + i), _mm_and_si128(b, low));
        _mm_storeu_si128((void *)(q + n + i), _mm_and_si128(_mm_srli_epi16(b, 4), low));
    }
}

static inline void split_crumbs(const uint8_t *bytes, uint8_t *q)
{
    for (unsigned b = 0; b < 8; b++) {
        __m256i fields = _mm256_loadu_si256((const void *)(bytes + b / 4 * 32));

        fields = _mm256_and_si256(_mm256_srli_epi16(fields, (int)(b % 4 * 2)), _mm256_set1_epi8(3));
        _mm256_storeu_si256((void *)(q + b * 32), fields);
    }
}

static inline void add_high_bits(const uint8_t *bits, uint8_t *q)
{
    /* byte i of the vector gets byte i / 8 of the bits, then bit i % 8 of it */
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i one_each = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    int32_t word;
    __m256i set;

    memcpy(&word, bits, sizeof word);
    set = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), spread), one_each);
    set = _mm256_and_si256(_mm256_cmpeq_epi8(set, one_each), _mm256_set1_epi8(16));
    _mm256_storeu_si256((void *)q, _mm256_or_si256(_mm256_loadu_si256((const void *)q), set));
}

static inline void add_high_planes(const uint8_t *bytes, unsigned to, uint8_t *q)
{
    const __m256i planes = _mm256_loadu_si256((const void *)bytes);

    for (unsigned b = 0; b < 8; b++) {
        __m256i bit = _mm256_set1_epi8((char)(1 << b)), set = _mm256_cmpeq_epi8(_mm256_and_si256(planes, bit), bit);

        set = _mm256_and_si256(set, _mm256_set1_epi8((char)(1 << to)));
        _mm256_storeu_si256((void *)(q + b * 32), _mm256_or_si256(_mm256_loadu_si256((const void *)(q + b * 32)), set));
    }
}

/* n: a multiple of 16 */
static inline void look_up(const uint32_t *table, uint8_t *q, unsigned n)
{
    for (unsigned i = 0; i < n; i += 16)
        _mm_storeu_si128((void *)(q + i), _mm_shuffle_epi8(load_16(table), load_16(q + i)));
}

/* n: a multiple of 16 */
static inline void bytes_to_floats(const uint8_t *q, unsigned n, float *out)
{
    for (unsigned i = 0; i < n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(q + i)))));
}

#define m40_split_nibbles   split_nibbles
#define m40_split_crumbs    split_crumbs
#define m40_add_high_bits   add_high_bits
#define m40_add_high_planes add_high_planes
#define m40_look_up         look_up
#define m40_bytes_to_floats bytes_to_floats
#include "tensor/formats/all.h"

#define DEFINE_PLAIN(suffix, name)                                                                                                                   \
    static void name##_rows(const void *elems, size_t n, float *q, float *d, float *m)                                                               \
    {                                                                                                                                                \
        (void)d, (void)m;                                                                                                                            \
        name##_row_values(elems, n, q);                                                                                                              \
    }

#define DEFINE_BLOCKS(suffix, name)                                                                                                                  \
    static void name##_rows(const void *blocks, size_t n_blocks, float *q, float *d, float *m)                                                       \
    {                                                                                                                                                \
        const struct name##_block *block = blocks;                                                                                                   \
        const size_t n_subs = name##_BLOCK / name##_SUB;                                                                                             \
                                                                                                                                                     \
        for (size_t i = 0; i < n_blocks; i++)                                                                                                        \
            name##_block_weights(block + i, q + i * name##_BLOCK, d + i * n_subs, m + i * n_subs);                                                   \
    }

M40_PLAIN_FORMAT_MAP(DEFINE_PLAIN)
M40_BLOCK_FORMAT_MAP(DEFINE_BLOCKS)

m40_cpu_weights_fn m40_cpu_weights_avx2(const struct m40_format *format)
{
    switch (format->type->number) {
#define FUNCTION(suffix, name)                                                                                                                       \
    case M40_DTYPE_##suffix:                                                                                                                         \
        return name##_rows;
        M40_FORMAT_MAP(FUNCTION)
#undef FUNCTION
    default:
        return format->weights;
    }
}
