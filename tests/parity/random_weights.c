#include "parity/random_weights.h"

#include "harness/harness.h"

/* Where a block's scales are that must not be random: FP16, or an exponent byte for MXFP4. */
static const struct {
    uint32_t dtype;
    unsigned n_halves;
    unsigned offset[2];
} scales[] = {
    {M40_DTYPE_Q4_0, 1, {0}},    {M40_DTYPE_Q4_1, 2, {0, 2}},   {M40_DTYPE_Q5_0, 1, {0}},   {M40_DTYPE_Q5_1, 2, {0, 2}},
    {M40_DTYPE_Q8_0, 1, {0}},    {M40_DTYPE_Q2_K, 2, {80, 82}}, {M40_DTYPE_Q3_K, 1, {108}}, {M40_DTYPE_Q4_K, 2, {0, 2}},
    {M40_DTYPE_Q5_K, 2, {0, 2}}, {M40_DTYPE_Q6_K, 1, {208}},    {M40_DTYPE_IQ4_NL, 1, {0}}, {M40_DTYPE_IQ4_XS, 1, {0}},
};

static uint16_t random_half(uint64_t *random)
{
    uint64_t bits = test_random(random);
    uint16_t sign = (uint16_t)(bits & 0x8000), mantissa = (uint16_t)(bits >> 16 & 0x3ff);

    switch (bits >> 32 & 15) {
    case 0:
        return sign;
    case 1:
        return sign | mantissa;
    default:
        return (uint16_t)(sign | (3 + (bits >> 36) % 8) << 10 | mantissa);
    }
}

static void plain_weight(uint64_t *random, uint32_t dtype, uint8_t *out)
{
    uint32_t half = random_half(random), sign = (half & 0x8000) << 16;
    uint32_t bits = half & 0x7c00 ? sign | ((half & 0x7fff) + ((127 - 15) << 10)) << 13 : sign | (half & 0x3ff); /* FP32 of the same kind */

    if (dtype == M40_DTYPE_F32) {
        bits ^= test_random(random) & 0x1fff; /* the lower mantissa, and subnormals of few bits */
        memcpy(out, &bits, 4);
    } else if (dtype == M40_DTYPE_BF16) {
        uint16_t upper = (uint16_t)(half & 0x7c00 ? bits >> 16 : sign >> 16 | (half & 0x7f));

        memcpy(out, &upper, 2);
    } else {
        uint16_t bits16 = (uint16_t)half;

        memcpy(out, &bits16, 2);
    }
}

static void set_scales(uint64_t *random, uint32_t dtype, uint8_t *block)
{
    if (dtype == M40_DTYPE_MXFP4)
        block[0] = (uint8_t)(test_random(random) % 16 == 0 ? test_random(random) % 3 : 112 + test_random(random) % 12);
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        if (scales[i].dtype != dtype)
            continue;
        for (unsigned j = 0; j < scales[i].n_halves; j++) {
            uint16_t half = random_half(random);

            memcpy(block + scales[i].offset[j], &half, 2);
        }
    }
}

void *random_weights(uint64_t *random, const struct m40_format *format, uint64_t n_elems)
{
    const struct m40_dtype_info *type = format->type;
    size_t n_blocks = n_elems / type->block_elems;
    uint8_t *blocks = malloc(n_blocks * type->block_bytes);

    for (size_t i = 0; blocks && i < n_blocks; i++) {
        uint8_t *block = blocks + i * type->block_bytes;

        if (type->block_elems == 1) {
            plain_weight(random, type->number, block);
            continue;
        }
        for (size_t j = 0; j < type->block_bytes; j++)
            block[j] = (uint8_t)test_random(random);
        set_scales(random, type->number, block);
    }
    if (!blocks) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return blocks;
}
