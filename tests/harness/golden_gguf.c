/* Recipes of golden models -> GGUF files.
 *
 * The file: the recipe's metadata, general.quantization_version and the tokenizer's keys; its constants and tensors, each on a multiple of 32 bytes. Element i of a tensor is
 *     float(sum of the four 16-bit chunks of splitmix64's output number i - 131070) * scale, rounded to float, plus base (rounded again),
 * plus 1 where the recipe says so, converted to the tensor's type; then rows of attention heads may be reordered. */
#define _GNU_SOURCE
#include "harness/golden_gguf.h"
#include "harness/harness.h"

#include "base/half.h"
#include "gguf/gguf_write.h"
#include "tensor/dtype.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DIMS 4

/* Calls that must not fail. */
#define WRITE(call)                                                                                                                                  \
    do {                                                                                                                                             \
        m40llm_error err = {0};                                                                                                                      \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("golden model: %s", err.text);                                                                                                  \
    } while (0)

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);

    if (!root)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

/* A member that must be there. */
static json_t *member(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);

    if (!value)
        fail_msg("golden model: no \"%s\" in the recipe", key);
    return value;
}

static const char *member_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(member(object, key));

    assert_non_null(text);
    return text;
}

static void *allocate(size_t n, size_t size)
{
    void *block = calloc(n ? n : 1, size);

    assert_non_null(block);
    return block;
}

/* ---- metadata ---- */

static void set_string_array(struct m40_gguf_writer *w, const char *key, const json_t *values)
{
    size_t n = json_array_size(values);
    const char **texts = allocate(n, sizeof *texts);

    for (size_t i = 0; i < n; i++)
        texts[i] = json_string_value(json_array_get(values, i));
    WRITE(m40_gguf_writer_set_string_array(w, key, texts, n, &err));
    free(texts);
}

static void set_i32_array(struct m40_gguf_writer *w, const char *key, const json_t *values)
{
    size_t n = json_array_size(values);
    int32_t *numbers = allocate(n, sizeof *numbers);

    for (size_t i = 0; i < n; i++)
        numbers[i] = (int32_t)json_integer_value(json_array_get(values, i));
    WRITE(m40_gguf_writer_set_i32_array(w, key, numbers, n, &err));
    free(numbers);
}

static void set_value(struct m40_gguf_writer *w, const char *key, const char *type, const json_t *value)
{
    if (strcmp(type, "u32") == 0)
        WRITE(m40_gguf_writer_set_u32(w, key, (uint32_t)json_integer_value(value), &err));
    else if (strcmp(type, "i32") == 0)
        WRITE(m40_gguf_writer_set_i32(w, key, (int32_t)json_integer_value(value), &err));
    else if (strcmp(type, "f32") == 0)
        WRITE(m40_gguf_writer_set_f32(w, key, (float)json_number_value(value), &err));
    else if (strcmp(type, "bool") == 0)
        WRITE(m40_gguf_writer_set_bool(w, key, json_is_true(value), &err));
    else if (strcmp(type, "str") == 0)
        WRITE(m40_gguf_writer_set_string(w, key, json_string_value(value), &err));
    else if (strcmp(type, "astr") == 0)
        set_string_array(w, key, value);
    else if (strcmp(type, "ai32") == 0)
        set_i32_array(w, key, value);
    else
        fail_msg("golden model: metadata %s: unknown type %s", key, type);
}

static void set_metadata(struct m40_gguf_writer *w, const json_t *recipe, const json_t *tokenizer)
{
    static const struct {
        const char *member, *type;
    } rows[] = {{"model", "str"},   {"pre", "str"},          {"tokens", "astr"},     {"token_type", "ai32"},
                {"merges", "astr"}, {"bos_token_id", "u32"}, {"eos_token_id", "u32"}};
    size_t i;
    json_t *entry;

    json_array_foreach(member(recipe, "metadata"), i, entry)
    {
        const char *key = json_string_value(json_array_get(entry, 0));
        const char *type = json_string_value(json_array_get(entry, 1));

        set_value(w, key, type, json_array_get(entry, 2));
    }
    WRITE(m40_gguf_writer_set_u32(w, "general.quantization_version", 2, &err));
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        char key[64];

        snprintf(key, sizeof key, "tokenizer.ggml.%s", rows[i].member);
        set_value(w, key, rows[i].type, member(tokenizer, rows[i].member));
    }
}

/* ---- weights ---- */

struct shape {
    uint32_t n_dims;
    uint64_t dims[MAX_DIMS]; /* fastest first */
    uint64_t n_elements, n_rows;
};

static struct shape read_shape(const json_t *slowest_first)
{
    struct shape shape = {.n_dims = (uint32_t)json_array_size(slowest_first), .n_elements = 1};

    assert_in_range(shape.n_dims, 1, MAX_DIMS);
    for (uint32_t d = 0; d < shape.n_dims; d++) {
        shape.dims[d] = (uint64_t)json_integer_value(json_array_get(slowest_first, shape.n_dims - 1 - d));
        shape.n_elements *= shape.dims[d];
    }
    shape.n_rows = shape.dims[shape.n_dims - 1]; /* what permute_heads calls rows */
    return shape;
}

static void fill(float *values, uint64_t n, const json_t *tensor)
{
    uint64_t state = strtoull(member_string(tensor, "seed"), NULL, 16);
    float scale = (float)json_number_value(member(tensor, "scale"));
    const json_t *base = json_object_get(tensor, "base");
    bool plus_one = json_is_true(json_object_get(tensor, "plus_one"));

    for (uint64_t i = 0; i < n; i++) {
        uint64_t z = test_random(&state);
        int32_t sum = (int32_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48)) - 131070;

        values[i] = (float)sum * scale;
        if (base)
            values[i] += (float)json_number_value(base);
        if (plus_one)
            values[i] += 1.0f;
    }
}

/* The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 (the smaller one of a tie) and the sign: an E2M1 number. */
static uint8_t to_e2m1(float x, float scale)
{
    static const float midpoints[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
    float magnitude = fabsf(x) / scale;
    uint8_t code = 0;

    while (code < 7 && magnitude > midpoints[code])
        code++;
    return (uint8_t)(code | (x < 0 ? 8 : 0));
}

/* Blocks of 32: a power of two, such that the greatest magnitude lies in [4, 8) of it, as an E8M0 byte; then 16 bytes with elements j (low) and j + 16 (high). */
static void to_mxfp4(const float *values, uint64_t n, uint8_t *out)
{
    for (uint64_t at = 0; at < n; at += 32, values += 32, out += 17) {
        float greatest = 0, scale = 1;
        int exponent = 0;

        for (int j = 0; j < 32; j++)
            greatest = fmaxf(greatest, fabsf(values[j]));
        if (greatest > 0) {
            frexpf(greatest, &exponent);
            scale = ldexpf(1.0f, exponent - 3);
        }
        out[0] = greatest > 0 ? (uint8_t)(exponent - 3 + 127) : 0;
        for (int j = 0; j < 16; j++)
            out[1 + j] = (uint8_t)(to_e2m1(values[j], scale) | to_e2m1(values[j + 16], scale) << 4);
    }
}

static void convert(const struct m40_dtype_info *type, const float *values, uint64_t n, uint8_t *out)
{
    if (type->number == M40_DTYPE_F32)
        memcpy(out, values, n * 4);
    else if (type->number == M40_DTYPE_F16)
        for (uint64_t i = 0; i < n; i++) {
            uint16_t half = m40_f32_to_f16(values[i]);

            memcpy(out + 2 * i, &half, 2);
        }
    else if (type->number == M40_DTYPE_MXFP4)
        to_mxfp4(values, n, out);
    else
        fail_msg("golden model: no conversion to %s", type->name);
}

/* Rows of each head from (half, i) to (i, half): what interleaved RoPE wants. */
static void permute_heads(const uint8_t *in, uint8_t *out, uint64_t n_rows, uint64_t row_bytes, uint64_t n_heads)
{
    uint64_t head_rows = n_rows / n_heads;

    for (uint64_t row = 0; row < n_rows; row++) {
        uint64_t head = row / head_rows, i = row % head_rows;
        uint64_t from = head * head_rows + i % 2 * (head_rows / 2) + i / 2;

        memcpy(out + row * row_bytes, in + from * row_bytes, row_bytes);
    }
}

static const struct m40_dtype_info *read_type(const json_t *tensor)
{
    const char *name = member_string(tensor, "type");
    char lower[16] = {0};
    const struct m40_dtype_info *type;

    for (size_t i = 0; name[i] && i < sizeof lower - 1; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
    type = m40_dtype_by_name(lower);
    if (!type)
        fail_msg("golden model: unknown tensor type %s", name);
    return type;
}

static void write_tensor(struct m40_gguf_writer *w, const json_t *tensor)
{
    const struct m40_dtype_info *type = read_type(tensor);
    struct shape shape = read_shape(member(tensor, "shape"));
    uint64_t n_bytes = shape.n_elements / type->block_elems * type->block_bytes;
    float *values = allocate(shape.n_elements, sizeof *values);
    uint8_t *bytes = allocate(n_bytes, 1);
    const json_t *heads = json_object_get(tensor, "permute_heads");

    fill(values, shape.n_elements, tensor);
    convert(type, values, shape.n_elements, bytes);
    free(values);
    if (heads) {
        uint8_t *permuted = allocate(n_bytes, 1);

        permute_heads(bytes, permuted, shape.n_rows, n_bytes / shape.n_rows, (uint64_t)json_integer_value(heads));
        free(bytes);
        bytes = permuted;
    }
    WRITE(m40_gguf_writer_data(w, bytes, n_bytes, &err));
    free(bytes);
}

static void write_constant(struct m40_gguf_writer *w, const json_t *constant)
{
    const json_t *values = member(constant, "values");

    for (size_t i = 0; i < json_array_size(values); i++) {
        float value = (float)json_number_value(json_array_get(values, i));

        WRITE(m40_gguf_writer_data(w, &value, sizeof value, &err));
    }
}

/* ---- the file ---- */

static void generate(const char *path, const json_t *recipe)
{
    json_t *tokenizer = load_json(test_data("golden/tokenizer.json"));
    struct m40_gguf_writer *w;
    json_t *item;
    size_t i;

    WRITE(m40_gguf_writer_open(&w, path, &err));
    set_metadata(w, recipe, tokenizer);
    json_array_foreach(member(recipe, "constants"), i, item)
    {
        uint64_t n = json_array_size(member(item, "values"));

        WRITE(m40_gguf_writer_add_tensor(w, member_string(item, "name"), M40_DTYPE_F32, 1, &n, &err));
    }
    json_array_foreach(member(recipe, "tensors"), i, item)
    {
        struct shape shape = read_shape(member(item, "shape"));

        WRITE(m40_gguf_writer_add_tensor(w, member_string(item, "name"), read_type(item)->number, shape.n_dims, shape.dims, &err));
    }
    json_array_foreach(member(recipe, "constants"), i, item) write_constant(w, item);
    json_array_foreach(member(recipe, "tensors"), i, item) write_tensor(w, item);
    WRITE(m40_gguf_writer_finish(w, &err));
    m40_gguf_writer_close(&w);
    json_decref(tokenizer);
}

/* By the sha256sum program; the path is one of ours and holds no quote. */
static bool has_sha256(const char *path, const char *expected)
{
    char command[1024], line[128] = "";
    FILE *pipe;

    if (snprintf(command, sizeof command, "sha256sum '%s'", path) >= (int)sizeof command || strchr(path, '\''))
        fail_msg("golden model: unusable path %s", path);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    if (!fgets(line, sizeof line, pipe))
        line[0] = 0;
    return pclose(pipe) == 0 && strlen(expected) == 64 && strncmp(line, expected, 64) == 0;
}

static bool is_made(const char *path, const json_t *model)
{
    struct stat info;

    return stat(path, &info) == 0 && info.st_size == json_integer_value(member(model, "gguf_bytes")) &&
           has_sha256(path, member_string(model, "gguf_sha256"));
}

char *golden_gguf_path(const char *name)
{
    const char *cache = getenv("M40LLM_GOLDEN_CACHE");
    char json_name[128], *path, *unfinished;
    json_t *model;

    snprintf(json_name, sizeof json_name, "golden/%s.json", name);
    model = load_json(test_data(json_name));
    assert_true(asprintf(&path, "%s/%s.gguf", cache && *cache ? cache : test_tmp_dir(), name) > 0);
    if (!is_made(path, model)) {
        /* Test programs may share the cache: nobody sees a file before it is whole. */
        assert_true(asprintf(&unfinished, "%s.%ld", path, (long)getpid()) > 0);
        generate(unfinished, member(model, "recipe"));
        assert_int_equal(rename(unfinished, path), 0);
        free(unfinished);
        if (!is_made(path, model))
            fail_msg("golden model %s: size or SHA-256 of the generated file differs from the recipe's", name);
    }
    json_decref(model);
    return path;
}
