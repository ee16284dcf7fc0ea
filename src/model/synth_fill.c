#include "model/synth_fill.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15u

static inline uint64_t mix(uint64_t z) /* splitmix64's finaliser */
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* How a format's random bits become weights. Plain floats: `mantissa_bits` is set, and each keeps its sign, its mantissa and two random bits of exponent. Blocks: their d, at byte d_at, is
 * chosen so that rms * d is the standard deviation; where there is an offset, at m_at, it is `offset` * d; `tidy` (may be NULL) sets what else needs an order. */
struct m40_synth_recipe {
    uint32_t dtype;
    float rms; /* of random quants, in units of d */
    float offset;
    uint8_t d_at, m_at;
    uint8_t mantissa_bits, exponent_bias;
    void (*tidy)(uint8_t *block);
};

/* Q2_K: the offset's scale equals the weights' scale in each of the 16 bytes. */
static void tidy_q2_k(uint8_t *block)
{
    for (int i = 0; i < 16; i++)
        block[i] = (uint8_t)((block[i] & 15) * 0x11);
}

/* Q4_K, Q5_K: mn = sc for all eight sub-blocks (k_scales.h has the packing). */
static void tidy_k_scales(uint8_t *block)
{
    memcpy(block + 8, block + 4, 4);
    for (int i = 12; i < 16; i++)
        block[i] = (uint8_t)((block[i] & 15) * 0x11);
}

/* rms: that of the uniform quants (of the table's values) times that of the uniform sub-block scales. */
static const struct m40_synth_recipe recipes[] = {
    {M40_DTYPE_F32, .mantissa_bits = 23, .exponent_bias = 127},
    {M40_DTYPE_F16, .mantissa_bits = 10, .exponent_bias = 15},
    {M40_DTYPE_BF16, .mantissa_bits = 7, .exponent_bias = 127},
    {M40_DTYPE_Q4_0, .rms = 4.64f},
    {M40_DTYPE_Q4_1, .rms = 4.61f, .offset = -7.5f, .m_at = 2},
    {M40_DTYPE_Q5_0, .rms = 9.25f},
    {M40_DTYPE_Q5_1, .rms = 9.23f, .offset = -15.5f, .m_at = 2},
    {M40_DTYPE_Q8_0, .rms = 73.9f},
    {M40_DTYPE_Q2_K, .rms = 1.118f * 8.80f, .offset = 1.5f, .d_at = 80, .m_at = 82, .tidy = tidy_q2_k},
    {M40_DTYPE_Q3_K, .rms = 2.345f * 18.48f, .d_at = 108},
    {M40_DTYPE_Q4_K, .rms = 4.61f * 36.5f, .offset = 7.5f, .m_at = 2, .tidy = tidy_k_scales},
    {M40_DTYPE_Q5_K, .rms = 9.23f * 36.5f, .offset = 15.5f, .m_at = 2, .tidy = tidy_k_scales},
    {M40_DTYPE_Q6_K, .rms = 18.48f * 73.9f, .d_at = 208},
    {M40_DTYPE_IQ4_NL, .rms = 67.4f},
    {M40_DTYPE_IQ4_XS, .rms = 67.4f * 18.48f},
    {M40_DTYPE_MXFP4, .rms = 5.85f * 1.58f}, /* its d is an exponent: see fill_scales */
};

enum { N_RECIPES = sizeof recipes / sizeof *recipes };

static const struct m40_synth_recipe *find_recipe(uint32_t dtype)
{
    for (size_t i = 0; i < N_RECIPES; i++)
        if (recipes[i].dtype == dtype)
            return &recipes[i];
    return NULL;
}

/* Each lane of a word: sign and mantissa, and two bits that spread the exponent over e .. e + 3. */
static void fill_lanes(struct m40_synth_filling *f, float std)
{
    unsigned mantissa = f->recipe->mantissa_bits, lane_bits = f->type->block_bytes * 8;
    /* the root mean square of 1.m * 2^(0..3) is 7.04 */
    uint64_t exponent = (uint64_t)(lrintf(log2f(std / 7.04f)) + f->recipe->exponent_bias);
    uint64_t keep = (uint64_t)1 << (lane_bits - 1) | (((uint64_t)4 << mantissa) - 1);

    f->keep = f->add = 0;
    for (unsigned shift = 0; shift < 64; shift += lane_bits) {
        f->keep |= keep << shift;
        f->add |= exponent << mantissa << shift;
    }
}

/* Scales from 0.75 to 1.25 times what the standard deviation asks for. Where the quants are centred by the format itself half of the scales are negative, which evens out that q - 8 and the
 * like have a mean of -1/2. */
static void fill_scales(struct m40_synth_filling *f, float std)
{
    const struct m40_synth_recipe *r = f->recipe;

    for (unsigned i = 0; i < M40_SYNTH_SCALES; i++) {
        float d = std / r->rms * (0.75f + (float)i / (2 * M40_SYNTH_SCALES)) * (r->offset == 0 && (i & 1) ? -1.0f : 1.0f);

        f->d[i] = m40_f32_to_f16(d);
        f->offset[i] = m40_f32_to_f16(r->offset * m40_f16_to_f32(f->d[i]));
        if (r->dtype == M40_DTYPE_MXFP4) /* 2^(e - 128), one of two neighbours */
            f->d[i] = (uint16_t)(128 + lrintf(log2f(std / r->rms)) + (int)(i & 1));
    }
}

void m40_synth_filling_init(struct m40_synth_filling *f, uint32_t dtype, uint64_t i_tensor, float std)
{
    f->recipe = find_recipe(dtype);
    f->type = m40_dtype_info(dtype);
    f->seed = mix((i_tensor + 1) * GOLDEN);
    f->slice_bytes = M40_SYNTH_SLICE_BYTES / f->type->block_bytes / 8 * 8 * f->type->block_bytes;
    if (f->recipe->mantissa_bits)
        fill_lanes(f, std);
    else
        fill_scales(f, std);
}

void m40_synth_make_slice(const struct m40_synth_filling *f, uint64_t i, uint8_t *out, size_t n_bytes)
{
    const struct m40_synth_recipe *r = f->recipe;
    uint64_t state = mix(f->seed + i), word, keep = r->mantissa_bits ? f->keep : UINT64_MAX, add = r->mantissa_bits ? f->add : 0;
    size_t at = 0, step = f->type->block_bytes;

    for (; at + 8 <= n_bytes; at += 8) {
        word = (mix(state += GOLDEN) & keep) + add;
        memcpy(out + at, &word, 8);
    }
    word = (mix(state + GOLDEN) & keep) + add;
    memcpy(out + at, &word, n_bytes - at);
    if (r->mantissa_bits)
        return;
    for (uint8_t *block = out; block < out + n_bytes; block += step) {
        unsigned pick = block[r->d_at] % M40_SYNTH_SCALES;

        if (r->tidy)
            r->tidy(block);
        memcpy(block + r->d_at, &f->d[pick], r->dtype == M40_DTYPE_MXFP4 ? 1 : 2);
        if (r->offset != 0)
            memcpy(block + r->m_at, &f->offset[pick], 2);
    }
}

void m40_synth_filling_init_norm(struct m40_synth_filling *f, uint64_t i_tensor)
{
    m40_synth_filling_init(f, M40_DTYPE_F32, i_tensor, 1.0f);
    f->keep = 0x000fffff000fffffu;
    f->add = 0x3f8000003f800000u;
}

const char *m40_synth_type_name(size_t i)
{
    return i < N_RECIPES ? m40_dtype_info(recipes[i].dtype)->name : NULL;
}

bool m40_synth_can_make(uint32_t dtype)
{
    return find_recipe(dtype) != NULL;
}
