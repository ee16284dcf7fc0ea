/* tensor/format: every format gives ggml's values bit for bit, and the same weights, offsets and values from a tile as from its blocks. */
#include "harness/harness.h"

#include "base/half.h"
#include "base/mem.h"
#include "tensor/format.h"
#include "tensor/formats/all.h"

#include <jansson.h>

enum { MAX_COLS = 512, MAX_ROWS = 64, MAX_ROW_BYTES = MAX_COLS * 4 };

/* One format as a kernel sees it. */
struct tile_reader {
    uint32_t dtype;
    void (*read)(const uint8_t *tile, unsigned lane, unsigned b, float *q, float *d, float *m, float *values);
};

#define DEFINE_READER(suffix, name)                                                                                                                  \
    static void name##_read(const uint8_t *tile, unsigned lane, unsigned b, float *q, float *d, float *m, float *values)                             \
    {                                                                                                                                                \
        struct name##_lane lane_state;                                                                                                               \
        struct name##_quants quants;                                                                                                                 \
                                                                                                                                                     \
        name##_open(&lane_state, tile, lane);                                                                                                        \
        name##_load(&quants, tile, lane, b);                                                                                                         \
        name##_weights(&lane_state, &quants, b, q, d, m);                                                                                            \
        for (unsigned c = 0; c < 32; c++)                                                                                                            \
            q[c] *= m40_field_unit(name##_bit(c));                                                                                                   \
        name##_values(&lane_state, &quants, b, values);                                                                                              \
    }
M40_FORMAT_MAP(DEFINE_READER)

#define READER(suffix, name) {M40_DTYPE_##suffix, name##_read},
static const struct tile_reader readers[] = {M40_FORMAT_MAP(READER)};
enum { N_FORMATS = sizeof readers / sizeof *readers };

/* Where a block has FP16 fields; plain formats and MXFP4 have none. */
static const struct {
    uint32_t dtype;
    size_t at[2];
    unsigned n;
} half_fields[] = {
    {M40_DTYPE_Q4_0, {offsetof(struct q4_0_block, d)}, 1},
    {M40_DTYPE_Q4_1, {offsetof(struct q4_1_block, d), offsetof(struct q4_1_block, min)}, 2},
    {M40_DTYPE_Q5_0, {offsetof(struct q5_0_block, d)}, 1},
    {M40_DTYPE_Q5_1, {offsetof(struct q5_1_block, d), offsetof(struct q5_1_block, min)}, 2},
    {M40_DTYPE_Q8_0, {offsetof(struct q8_0_block, d)}, 1},
    {M40_DTYPE_Q2_K, {offsetof(struct q2_k_block, d), offsetof(struct q2_k_block, dmin)}, 2},
    {M40_DTYPE_Q3_K, {offsetof(struct q3_k_block, d)}, 1},
    {M40_DTYPE_Q4_K, {offsetof(struct q4_k_block, d), offsetof(struct q4_k_block, dmin)}, 2},
    {M40_DTYPE_Q5_K, {offsetof(struct q5_k_block, d), offsetof(struct q5_k_block, dmin)}, 2},
    {M40_DTYPE_Q6_K, {offsetof(struct q6_k_block, d)}, 1},
    {M40_DTYPE_IQ4_NL, {offsetof(struct iq4_nl_block, d)}, 1},
    {M40_DTYPE_IQ4_XS, {offsetof(struct iq4_xs_block, d)}, 1},
};

/* Finite; a quarter each of anything, subnormal, zero, and ordinary sizes; either sign. */
static uint16_t random_half(uint64_t *state)
{
    uint64_t r = test_random(state);
    uint16_t sign = r & 0x8000, mantissa = r >> 16 & 0x3ff;

    switch (r >> 62) {
    case 0:
        return (uint16_t)(sign | (r >> 32) % 31 << 10 | mantissa);
    case 1:
        return sign | mantissa;
    case 2:
        return sign;
    default:
        return (uint16_t)(sign | ((r >> 32 & 7) + 8) << 10 | mantissa);
    }
}

/* One row of n_blocks with random bits and finite scales; 32-bit and 16-bit floats lose the top bit of an exponent that would make them infinite or NaN. */
static void random_blocks(const struct m40_format *format, uint8_t *blocks, size_t n_blocks, uint64_t *state)
{
    const size_t block_bytes = format->type->block_bytes;

    for (size_t i = 0; i < n_blocks * block_bytes; i++)
        blocks[i] = (uint8_t)(test_random(state) >> 56);
    for (size_t i = 0; i < n_blocks; i++) {
        uint8_t *block = blocks + i * block_bytes;

        if (format->type->number == M40_DTYPE_F16) {
            uint16_t half = random_half(state);

            memcpy(block, &half, 2);
        } else if (format->type->number == M40_DTYPE_F32 || format->type->number == M40_DTYPE_BF16) {
            if ((block[block_bytes - 1] & 0x7f) == 0x7f)
                block[block_bytes - 1] &= 0xbf;
        } else if (format->type->number == M40_DTYPE_MXFP4 && i % 2) {
            block[0] = (const uint8_t[]){0, 1, 2, 255}[i / 2 % 4];
        }
        for (size_t f = 0; f < sizeof half_fields / sizeof *half_fields; f++)
            for (unsigned k = 0; half_fields[f].dtype == format->type->number && k < half_fields[f].n; k++) {
                uint16_t half = random_half(state);

                memcpy(block + half_fields[f].at[k], &half, 2);
            }
    }
}

static void test_table_has_the_readable_types(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < 300; number++) {
        const struct m40_dtype_info *type = m40_dtype_info(number);
        const struct m40_format *format = m40_format(number);

        assert_true((format != NULL) == (type && type->is_readable));
        assert_true(!format || format->type == type);
        assert_true(!type || m40_dtype_by_name(type->name) == type);
    }
    assert_null(m40_format(UINT32_MAX));
}

static void test_sizes(void **state)
{
    const struct m40_format *q4_k = m40_format(M40_DTYPE_Q4_K), *f32 = m40_format(M40_DTYPE_F32);
    uint64_t n;

    (void)state;
    assert_true(m40_format_tiled_bytes(q4_k, 33, 257, &n));
    assert_int_equal(n, 2 * 2 * 32 * 144);
    assert_true(m40_format_tiled_bytes(q4_k, 0, 256, &n));
    assert_int_equal(n, 0);
    assert_true(m40_format_tiled_bytes(f32, (uint64_t)1 << 53, 1, &n));
    assert_true(n == (uint64_t)1 << 63);
    assert_false(m40_format_tiled_bytes(f32, (uint64_t)1 << 54, 1, &n));
    assert_false(m40_format_tiled_bytes(f32, UINT64_MAX, UINT64_MAX, &n));
    for (size_t i = 0; i < N_FORMATS; i++) {
        const struct m40_format *format = m40_format(readers[i].dtype);
        uint32_t padding = readers[i].dtype == M40_DTYPE_Q3_K ? 2 : 0; /* bytes a row */

        assert_int_equal(format->tile_bytes, M40_TILE_ROWS * (M40_TILE_COLS / format->type->block_elems * format->type->block_bytes + padding));
    }
}

/* The value is d * (q - bias), or d * q - m. */
static void check_weights_give_values(const struct m40_format *format, const void *blocks, size_t n_elems, const float *values)
{
    float *q = malloc(n_elems * sizeof *q), *d = malloc(n_elems * sizeof *d), *m = malloc(n_elems * sizeof *m);

    assert_true(q && d && m);
    format->weights(blocks, n_elems / format->type->block_elems, q, format->sub ? d : NULL, format->has_offsets ? m : NULL);
    for (size_t i = 0; i < n_elems; i++) {
        float value = format->sub ? d[i / format->sub] * (q[i] - (float)format->bias) : q[i];

        assert_true((format->has_offsets ? value - m[i / format->sub] : value) == values[i]);
    }
    free(q);
    free(d);
    free(m);
}

/* Every row and sub-block of the packed matrix against the same row's blocks through the table. */
static void check_tiles(const struct tile_reader *reader, const uint8_t *tiles, const uint8_t *rows, unsigned n_rows, unsigned n_cols)
{
    const struct m40_format *format = m40_format(reader->dtype);
    const size_t n_blocks = n_cols / format->type->block_elems, row_bytes = n_blocks * format->type->block_bytes;
    const unsigned n_chunks = (n_cols + M40_TILE_COLS - 1) / M40_TILE_COLS, n_subs = format->sub ? 32 / format->sub : 0;

    for (unsigned r = 0; r < n_rows; r++) {
        float q[MAX_COLS] = {0}, d[MAX_COLS] = {0}, m[MAX_COLS] = {0}, values[MAX_COLS] = {0}; /* beyond n_cols: 0 */

        format->weights(rows + r * row_bytes, n_blocks, q, d, m);
        format->dequant(rows + r * row_bytes, n_blocks, values);
        for (unsigned k = 0; k < n_cols; k += 32) {
            const uint8_t *tile = tiles + (size_t)(r / 32 * n_chunks + k / M40_TILE_COLS) * format->tile_bytes;
            float tile_q[32], tile_d[2], tile_m[2], tile_values[32];

            reader->read(tile, r % 32, k % M40_TILE_COLS / 32, tile_q, tile_d, tile_m, tile_values);
            assert_memory_equal(tile_q, q + k, sizeof tile_q);
            assert_memory_equal(tile_values, values + k, sizeof tile_values);
            if (n_subs)
                assert_memory_equal(tile_d, d + k / 32 * n_subs, n_subs * sizeof *d);
            if (format->has_offsets)
                assert_memory_equal(tile_m, m + k / 32 * n_subs, n_subs * sizeof *m);
        }
    }
}

/* A ragged matrix packs as the same matrix extended with zero bytes to whole tiles does; and part by part as at once. */
static void check_padding(const struct m40_format *format, const uint8_t *tiles, const uint8_t *rows, unsigned n_rows, unsigned n_cols)
{
    const size_t row_bytes = n_cols / format->type->block_elems * format->type->block_bytes;
    const unsigned full_cols = (n_cols + 255) / 256 * 256, full_rows = (n_rows + 31) / 32 * 32;
    const size_t full_row_bytes = full_cols / format->type->block_elems * format->type->block_bytes;
    const size_t strip_bytes = (size_t)full_cols / 256 * format->tile_bytes;
    uint8_t *full = calloc(full_rows, full_row_bytes), *again = malloc(full_rows / 32 * strip_bytes);

    assert_true(full && again);
    for (unsigned r = 0; r < n_rows; r++)
        memcpy(full + r * full_row_bytes, rows + r * row_bytes, row_bytes);
    m40_format_pack_rows(format, full, full_rows, full_cols, 0, full_rows / 32, again);
    assert_memory_equal(tiles, again, full_rows / 32 * strip_bytes);
    for (unsigned t = 0; t < full_rows / 32; t++) {
        memset(again, 0xa5, strip_bytes);
        m40_format_pack_rows(format, rows, n_rows, n_cols, t, 1, again);
        assert_memory_equal(tiles + t * strip_bytes, again, strip_bytes);
    }
    free(full);
    free(again);
}

static void check_matrix(const struct tile_reader *reader, const uint8_t *rows, unsigned n_rows, unsigned n_cols)
{
    const struct m40_format *format = m40_format(reader->dtype);
    uint64_t n_bytes;
    uint8_t *tiles;

    assert_true(m40_format_tiled_bytes(format, n_rows, n_cols, &n_bytes));
    assert_non_null(tiles = m40_calloc_aligned(n_bytes, 1));
    memset(tiles, 0xa5, n_bytes);
    m40_format_pack_rows(format, rows, n_rows, n_cols, 0, (n_rows + 31) / 32, tiles);
    check_tiles(reader, tiles, rows, n_rows, n_cols);
    check_padding(format, tiles, rows, n_rows, n_cols);
    m40_free(tiles);
}

static void test_tiles_of_random_blocks(void **state)
{
    static const unsigned rows[] = {1, 31, 33}, cols[] = {1, 32, 37, 96, 256, 257, 288, 512};
    uint8_t *blocks = malloc((size_t)MAX_ROWS * MAX_ROW_BYTES);
    float *values = malloc((size_t)MAX_ROWS * MAX_COLS * sizeof *values);
    uint64_t random = test_seed() ^ 0x666f726d6174;

    (void)state;
    assert_true(blocks && values);
    for (size_t i = 0; i < N_FORMATS; i++) {
        const struct m40_format *format = m40_format(readers[i].dtype);

        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            for (size_t r = 0; cols[c] % format->type->block_elems == 0 && r < sizeof rows / sizeof *rows; r++) {
                const size_t n_elems = (size_t)rows[r] * cols[c], n_blocks = n_elems / format->type->block_elems;

                random_blocks(format, blocks, n_blocks, &random);
                check_matrix(&readers[i], blocks, rows[r], cols[c]);
                format->dequant(blocks, n_blocks, values);
                check_weights_give_values(format, blocks, n_elems, values);
            }
    }
    free(blocks);
    free(values);
}

static const struct tile_reader *find_reader(uint32_t dtype)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (readers[i].dtype == dtype)
            return &readers[i];
    return NULL;
}

/* The oracle's blocks, bit for bit, straight and through tiles. */
static void test_values_are_ggmls(void **state)
{
    uint8_t *data = (uint8_t *)test_read_file(test_data("quant/blocks.bin"), NULL);
    json_t *doc = json_load_file(test_data("quant/blocks.json"), 0, NULL), *type;
    int n_rows, n_cols, number, quant_offset, f32_offset;
    unsigned n_checked = 0;
    size_t i;

    (void)state;
    assert_int_equal(json_unpack(doc, "{s:i, s:i}", "rows", &n_rows, "cols", &n_cols), 0);
    json_array_foreach(json_object_get(doc, "types"), i, type)
    {
        const size_t n_elems = (size_t)n_rows * (size_t)n_cols;
        const struct m40_format *format;
        float *values;

        assert_int_equal(json_unpack(type, "{s:i, s:i, s:i}", "ggml_type", &number, "quant_offset", &quant_offset, "f32_offset", &f32_offset), 0);
        format = m40_format((uint32_t)number);
        if (!format)
            continue;
        assert_non_null(values = malloc(n_elems * sizeof *values));
        format->dequant(data + quant_offset, n_elems / format->type->block_elems, values);
        assert_memory_equal(values, data + f32_offset, n_elems * sizeof *values);
        check_weights_give_values(format, data + quant_offset, n_elems, values);
        check_matrix(find_reader((uint32_t)number), data + quant_offset, (unsigned)n_rows, (unsigned)n_cols);
        /* the values as a matrix of F32: they stay as they are */
        m40_format(M40_DTYPE_F32)->dequant(data + f32_offset, n_elems, values);
        assert_memory_equal(values, data + f32_offset, n_elems * sizeof *values);
        check_matrix(find_reader(M40_DTYPE_F32), data + f32_offset, (unsigned)n_rows, (unsigned)n_cols);
        free(values);
        n_checked++;
    }
    assert_int_equal(n_checked, N_FORMATS - 1); /* all but F32 have an oracle */
    json_decref(doc);
    free(data);
}

/* The extremes of MXFP4's exponent by hand: 2^(e - 128) times 1 and 12; the largest overflows. */
static void test_mxfp4_exponents(void **state)
{
    static const struct {
        uint8_t e;
        float one, twelve;
    } cases[] = {
        {0, 0x1p-128f, 0x1.8p-125f}, {1, 0x1p-127f, 0x1.8p-124f}, {2, 0x1p-126f, 0x1.8p-123f}, {127, 0.5f, 6.0f}, {252, 0x1p124f, 0x1.8p127f}};
    const struct m40_format *format = m40_format(M40_DTYPE_MXFP4);
    struct mxfp4_block block = {.quants = {0x1, 0x7, 0xf}};
    float values[32];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        block.exponent = cases[i].e;
        format->dequant(&block, 1, values);
        assert_true(values[0] == cases[i].one && values[1] == cases[i].twelve && values[2] == -cases[i].twelve && values[3] == 0.0f);
    }
    block.exponent = 255;
    format->dequant(&block, 1, values);
    assert_true(values[0] == 0x1p127f && values[1] > 0x1.fffffep127f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_has_the_readable_types), cmocka_unit_test(test_sizes),           cmocka_unit_test(test_values_are_ggmls),
        cmocka_unit_test(test_tiles_of_random_blocks),       cmocka_unit_test(test_mxfp4_exponents),
    };

    return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
