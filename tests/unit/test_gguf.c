/* gguf/: what the writer writes the reader reads; malformed files are refused, each with its reason; nothing reads beyond the bytes it was given (they lie in blocks of their
 * exact size, so that AddressSanitizer sees it); no failing allocation leaks. */
#define _POSIX_C_SOURCE 200809L
#include "harness/harness.h"

#include "base/clock.h"
#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf/gguf_write.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static m40llm_error err; /* of the last call */

/* ---- files as bytes ---- */

struct image {
    uint8_t *data;
    size_t n_bytes;
};

static void append(struct image *to, const void *data, size_t n_bytes)
{
    to->data = realloc(to->data, to->n_bytes + n_bytes + 1);
    assert_non_null(to->data);
    if (n_bytes)
        memcpy(to->data + to->n_bytes, data, n_bytes);
    to->n_bytes += n_bytes;
}

static void append_u32(struct image *to, uint32_t value)
{
    append(to, &value, 4);
}

static void append_u64(struct image *to, uint64_t value)
{
    append(to, &value, 8);
}

static void append_string(struct image *to, const char *text)
{
    append_u64(to, strlen(text));
    append(to, text, strlen(text));
}

static void pad(struct image *to, size_t alignment)
{
    while (to->n_bytes % alignment)
        append(to, "", 1);
}

/* Parses a copy in a block of exactly n bytes. */
static m40llm_status parse_copy(const void *data, size_t n_bytes)
{
    uint8_t *copy = malloc(n_bytes ? n_bytes : 1);
    struct m40_gguf *g;
    m40llm_status status;

    assert_non_null(copy);
    if (n_bytes)
        memcpy(copy, data, n_bytes);
    err.text[0] = 0;
    status = m40_gguf_parse(&g, n_bytes ? copy : copy + 1, n_bytes, "some/file.gguf", &err);
    assert_true((status == M40LLM_OK) == (g != NULL));
    m40_gguf_close(&g);
    free(copy);
    return status;
}

/* ---- malformed files ---- */

struct tensor_row {
    const char *name;
    uint32_t n_dims;
    uint64_t dims[5];
    uint32_t type;
    uint64_t offset;
};

/* A file in parts; what is not named is as in a good file. */
struct malformed {
    const char *name;
    const char *expected; /* part of the error's text */
    const char *magic;
    uint32_t version;
    uint64_t n_tensors, n_kvs; /* what the header says */
    const char *kvs;           /* bytes of the metadata */
    size_t n_kvs_bytes;
    struct tensor_row tensors[2];
    size_t n_data_bytes; /* zeros behind the padding */
    size_t n_cut_bytes;  /* missing at the end */
};

static struct image build(const struct malformed *row)
{
    struct image image = {0};
    uint64_t n_tensors = row->tensors[0].n_dims + row->tensors[1].n_dims ? row->tensors[1].n_dims ? 2 : 1 : 0;

    append(&image, row->magic ? row->magic : "GGUF", 4);
    append_u32(&image, row->version ? row->version : 3);
    append_u64(&image, row->n_tensors ? row->n_tensors : n_tensors);
    append_u64(&image, row->n_kvs);
    append(&image, row->kvs, row->n_kvs_bytes);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct tensor_row *t = &row->tensors[i];
        uint32_t n_dims = t->n_dims == UINT32_MAX ? 0 : t->n_dims;

        append_string(&image, t->name);
        append_u32(&image, n_dims);
        for (uint32_t d = 0; d < n_dims && d < 5; d++)
            append_u64(&image, t->dims[d]);
        append_u32(&image, t->type);
        append_u64(&image, t->offset);
    }
    if (row->n_data_bytes)
        pad(&image, 32);
    for (size_t i = 0; i < row->n_data_bytes; i++)
        append(&image, "", 1);
    image.n_bytes -= row->n_cut_bytes;
    return image;
}

#define NO_DIMS UINT32_MAX /* n_dims = 0, which would say that the row has no tensor */

/* Little-endian numbers as string literals. */
#define U32(byte)        byte "\0\0\0"
#define U64(byte)        byte "\0\0\0\0\0\0\0"
#define HUGE_U64         "\0\0\0\0\0\0\0\x80" /* 2^63 */
#define KEY_A            U64("\1") "a"
#define BYTES(literal)   .kvs = literal, .n_kvs_bytes = sizeof literal - 1
#define ALIGNMENT(value) .n_kvs = 1, BYTES(U64("\x11") "general.alignment" U32("\4") value)
#define ARRAY_HEAD       U32("\11") U64("\1") /* one element that is an array again */
/* Enough bytes that a count is believed at first, in a row whose point is something else. */
#define FILLER "................................................................................................................................"

static const struct malformed malformed_rows[] = {
    {"wrong magic", "not a GGUF file", .magic = "GGML"},
    {"version 1", "GGUF version 1 is not supported", .version = 1},
    {"version 4", "GGUF version 4 is not supported", .version = 4},
    {"big-endian version 3", "big-endian", .version = 0x03000000},
    {"big-endian version 2", "big-endian", .version = 0x02000000},
    {"header cut", "the file ends inside its header", .n_cut_bytes = 1},
    {"magic only", "the file ends inside its header", .n_cut_bytes = 20},
    {"magic cut", "not a GGUF file", .n_cut_bytes = 21},
    {"empty", "the file is empty", .n_cut_bytes = 24},

    {"2^63 metadata entries", "9223372036854775808 metadata entries", .n_kvs = 1ull << 63},
    {"2^64 - 1 metadata entries", "18446744073709551615 metadata entries", .n_kvs = UINT64_MAX},
    {"2^63 tensors", "9223372036854775808 tensors", .n_tensors = 1ull << 63},
    {"2^64 - 1 tensors", "18446744073709551615 tensors", .n_tensors = UINT64_MAX},
    {"a count that overflows its size", "metadata entries", .n_kvs = UINT64_MAX / 13 + 1},
    {"one entry too many", "metadata entry 1 at byte 45: the file ends", .n_kvs = 2, BYTES(KEY_A U32("\10") U64("\0") U64("\1"))},
    {"tensors behind long metadata", "the file ends inside the descriptions of its 2 tensors", .n_kvs = 1, .n_tensors = 2,
     BYTES(KEY_A U32("\10") U64("\x80") FILLER)},

    {"key length 2^63", "metadata entry 0 at byte 24: the file ends inside its name", .n_kvs = 1, BYTES(HUGE_U64 "aaaaaaaaaaaaaa")},
    {"key past the end", "metadata entry 0 at byte 24: the file ends inside its name", .n_kvs = 1, BYTES(U64("\x20") "aaaaaaaaaaaaaa")},
    {"key with NUL", "its name holds a NUL byte", .n_kvs = 1, BYTES(U64("\3") "a\0b" U32("\0") "\1")},
    {"unknown value type", "metadata 'a' at byte 24: its value is of an unknown type", .n_kvs = 1, BYTES(KEY_A U32("\15") "\1\1\1\1")},
    {"type cut", "metadata 'abc' at byte 24: the file ends inside it", .n_kvs = 1, BYTES(U64("\3") "abc\1\0")},
    {"u64 cut", "metadata 'a' at byte 24: the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\12") "1234567")},
    {"string length 2^63", "metadata 'a' at byte 24: the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\10") HUGE_U64 "b")},
    {"string past the end", "metadata 'a' at byte 24: the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\10") U64("\5") "bcde")},
    {"string length cut", "metadata 'a' at byte 24: the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\10") "\1\0\0")},
    {"bool of 2", "a bool in it is neither 0 nor 1", .n_kvs = 1, BYTES(KEY_A U32("\7") "\2")},
    {"key twice", "metadata 'a' is there twice", .n_kvs = 2, BYTES(KEY_A U32("\0") "\1" KEY_A U32("\0") "\1")},

    {"array head cut", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\0") "\1\0\0\0")},
    {"array of an unknown type", "its elements are of an unknown type", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\15") U64("\1") "1234")},
    {"array of 2^63 bytes", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\0") HUGE_U64 "1234")},
    {"array of 2^63 u64", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\12") HUGE_U64 "1234")},
    {"array of 2^63 strings", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\10") HUGE_U64 U64("\0") "12345")},
    {"array of 2^63 arrays", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\11") HUGE_U64 U32("\0") U64("\1") "1")},
    {"array with one u16 too few", "the file ends inside it", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\2") U64("\3") "12345")},
    {"string in an array past the end", "the file ends inside it", .n_kvs = 1,
     BYTES(KEY_A U32("\11") U32("\10") U64("\2") U64("\1") "a" U64("\2") "b")},
    {"array of bools with a 3", "a bool in it is neither 0 nor 1", .n_kvs = 1, BYTES(KEY_A U32("\11") U32("\7") U64("\2") "\1\3")},
    {"five nested arrays", "nested too deeply", .n_kvs = 1,
     BYTES(KEY_A U32("\11") ARRAY_HEAD ARRAY_HEAD ARRAY_HEAD ARRAY_HEAD U32("\0") U64("\1") "1")},
    {"unknown type in a nested array", "its elements are of an unknown type", .n_kvs = 1,
     BYTES(KEY_A U32("\11") ARRAY_HEAD U32("\77") U64("\1") "1")},

    {"alignment 0", "general.alignment is 0: it must be a power of two", ALIGNMENT(U32("\0"))},
    {"alignment 48", "general.alignment is 48: it must be a power of two", ALIGNMENT(U32("\x30"))},
    {"alignment 4", "general.alignment is 4: it must be a power of two", ALIGNMENT(U32("\4"))},
    {"alignment 2^31", "general.alignment is 2147483648: it must be a power of two", ALIGNMENT("\0\0\0\x80")},
    {"alignment is a string", "general.alignment is not an unsigned number", .n_kvs = 1,
     BYTES(U64("\x11") "general.alignment" U32("\10") U64("\2") "32")},
    {"alignment is negative", "general.alignment is not an unsigned number", .n_kvs = 1,
     BYTES(U64("\x11") "general.alignment" U32("\5") "\xff\xff\xff\xff")},

    {"tensor of no dimensions", "tensor 't' at byte 24: it must have 1 to 4 dimensions", .tensors = {{"t", NO_DIMS, {0}, 0, 0}}, .n_data_bytes = 64},
    {"tensor of 5 dimensions", "it must have 1 to 4 dimensions, not 5", .tensors = {{"t", 5, {1, 1, 1, 1, 1}, 0, 0}}, .n_data_bytes = 64},
    {"tensor of 2^31 dimensions", "not 2147483648", .tensors = {{"t", 1u << 31, {1, 1, 1, 1, 1}, 0, 0}}, .n_data_bytes = 64},
    {"dimension 0", "a dimension is 0", .tensors = {{"t", 2, {4, 0}, 0, 0}}, .n_data_bytes = 64},
    {"row length 0", "a dimension is 0", .tensors = {{"t", 2, {0, 4}, 0, 0}}, .n_data_bytes = 64},
    {"dimensions overflow", "the product of its dimensions overflows", .tensors = {{"t", 4, {1 << 16, 1 << 16, 1 << 16, 1 << 16}, 0, 0}},
     .n_data_bytes = 64},
    {"rows overflow", "the product of its dimensions overflows", .tensors = {{"t", 3, {1, 1ull << 32, 1ull << 32}, 0, 0}}, .n_data_bytes = 64},
    {"bytes overflow", "the product of its dimensions overflows", .tensors = {{"t", 1, {1ull << 62}, 0, 0}}, .n_data_bytes = 64},
    {"bytes of all rows overflow", "the product of its dimensions overflows", .tensors = {{"t", 2, {1ull << 31, 1ull << 32}, 27, 0}},
     .n_data_bytes = 64},
    {"unknown type", "unknown type 777", .tensors = {{"t", 1, {4}, 777, 0}}, .n_data_bytes = 64},
    {"removed type", "unknown type 4", .tensors = {{"t", 1, {32}, 4, 0}}, .n_data_bytes = 64},
    {"half a block", "no whole number of blocks", .tensors = {{"t", 2, {16, 2}, 2, 0}}, .n_data_bytes = 64},
    {"offset past the end", "tensor 't' at offset 96, 16 bytes, reaches past the end", .tensors = {{"t", 1, {4}, 0, 96}}, .n_data_bytes = 64},
    {"offset wraps into the header", "reaches past the end", .tensors = {{"t", 1, {4}, 0, 0xffffffffffffffe0}}, .n_data_bytes = 64},
    {"offset + size wraps", "reaches past the end", .tensors = {{"t", 1, {1ull << 61}, 0, 0x7fffffffffffffe0}}, .n_data_bytes = 64},
    {"offset not aligned", "offset 8 is no multiple of the alignment 32", .tensors = {{"t", 1, {4}, 0, 8}}, .n_data_bytes = 64},
    {"data one byte short", "reaches past the end", .tensors = {{"t", 1, {16}, 0, 0}}, .n_data_bytes = 63},
    {"no data", "reaches past the end", .tensors = {{"t", 1, {1}, 0, 0}}},
    {"tensors overlap", "tensors 'a' and 'b' overlap at byte 128", .tensors = {{"b", 1, {8}, 0, 32}, {"a", 1, {9}, 0, 0}}, .n_data_bytes = 96},
    {"tensors at one place", "overlap", .tensors = {{"a", 1, {8}, 0, 0}, {"b", 1, {8}, 0, 0}}, .n_data_bytes = 96},
    {"tensor twice", "tensor 'a' is there twice", .tensors = {{"a", 1, {8}, 0, 0}, {"a", 1, {8}, 0, 32}}, .n_data_bytes = 96},
    {"description cut", "tensor 't' at byte 24: the file ends inside its description", .tensors = {{"t", 4, {1, 1, 1, 1}, 0, 0}}, .n_cut_bytes = 1},
};

static void test_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed_rows / sizeof *malformed_rows; i++) {
        const struct malformed *row = &malformed_rows[i];
        struct image image = build(row);
        m40llm_status status = parse_copy(image.data, image.n_bytes);

        if (status != M40LLM_BAD_FILE || err.code != M40LLM_BAD_FILE || !strstr(err.text, row->expected) ||
            strncmp(err.text, "some/file.gguf: ", 16) != 0)
            fail_msg("%s: status %d, \"%s\"", row->name, (int)status, err.text);
        free(image.data);
    }
}

/* The builder's own rows are refused for their fault, not for the way they are built. */
static void test_the_same_without_fault(void **state)
{
    static const struct malformed rows[] = {
        {"nothing in it", "", .version = 3},
        {"version 2", "", .version = 2},
        {"four nested arrays", "", .n_kvs = 1, BYTES(KEY_A U32("\11") ARRAY_HEAD ARRAY_HEAD ARRAY_HEAD U32("\0") U64("\1") "1")},
        {"empty arrays", "", .n_kvs = 2, BYTES(KEY_A U32("\11") U32("\11") U64("\0") U64("\1") "b" U32("\11") U32("\10") U64("\0"))},
        {"alignment 65536", "", ALIGNMENT("\0\0\1\0")},
        {"tensors in any order", "", .tensors = {{"b", 1, {8}, 0, 32}, {"a", 1, {8}, 0, 0}}, .n_data_bytes = 64},
        {"version 2 with a tensor", "", .version = 2, .tensors = {{"t", 4, {1, 2, 3, 4}, 24, 0}}, .n_data_bytes = 24},
        {"a block", "", .tensors = {{"t", 2, {32, 2}, 2, 0}}, .n_data_bytes = 36},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct image image = build(&rows[i]);

        if (parse_copy(image.data, image.n_bytes) != M40LLM_OK)
            fail_msg("%s: %s", rows[i].name, err.text);
        free(image.data);
    }
}

static void test_long_path_does_not_hide_the_fault(void **state)
{
    char path[2000];
    struct m40_gguf *g;

    (void)state;
    for (size_t i = 0; i + 3 < sizeof path; i += 3)
        memcpy(path + i, "/\xc3\xa4", 3);
    for (size_t n = sizeof path - 2; n > sizeof path - 5; n--) { /* cut before and inside a character */
        path[n] = 0;
        assert_int_equal(m40_gguf_parse(&g, "GGML", 4, path, &err), M40LLM_BAD_FILE);
        assert_non_null(strstr(err.text, ": not a GGUF file"));
        assert_memory_equal(err.text, "...", 3);
        assert_true(err.text[3] == '/' || memcmp(err.text + 3, "\xc3\xa4/", 3) == 0);
    }
}

/* ---- the writer and back ---- */

static const char *tmp_path(const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", test_tmp_dir(), name);
    return path;
}

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s", err.text);                                                                                                                \
    } while (0)

static const uint8_t raw_nested[] = "\11\0\0\0" U64("\2") U32("\0") U64("\3") "\1\2\3" U32("\10") U64("\1") U64("\2") "hi";

static void set_all_kinds(struct m40_gguf_writer *w)
{
    static const char *const words[] = {"zero", "", "zwei \xe2\x82\xac"};
    static const int32_t ints[] = {1, -2, INT32_MIN};
    static const float floats[] = {0.5f, -1e-5f, 16777216.0f};

    OK(m40_gguf_writer_set_u32(w, "k.u32", UINT32_MAX, &err));
    OK(m40_gguf_writer_set_i32(w, "k.i32", -7, &err));
    OK(m40_gguf_writer_set_u64(w, "k.u64", UINT64_MAX, &err));
    OK(m40_gguf_writer_set_f32(w, "k.f32", 1e-5f, &err));
    OK(m40_gguf_writer_set_bool(w, "k.bool", true, &err));
    OK(m40_gguf_writer_set_string(w, "k.string", "a text", &err));
    OK(m40_gguf_writer_set_i32_array(w, "k.ints", ints, 3, &err));
    OK(m40_gguf_writer_set_f32_array(w, "k.floats", floats, 3, &err));
    OK(m40_gguf_writer_set_string_array(w, "k.words", words, 3, &err));
    OK(m40_gguf_writer_set_raw(w, "k.u8", M40LLM_VALUE_U8, "\xff", 1, &err));
    OK(m40_gguf_writer_set_raw(w, "k.i8", M40LLM_VALUE_I8, "\xff", 1, &err));
    OK(m40_gguf_writer_set_raw(w, "k.u16", M40LLM_VALUE_U16, "\xfe\xff", 2, &err));
    OK(m40_gguf_writer_set_raw(w, "k.i16", M40LLM_VALUE_I16, "\xfe\xff", 2, &err));
    OK(m40_gguf_writer_set_raw(w, "k.i64", M40LLM_VALUE_I64, "\0\0\0\0\0\0\0\x80", 8, &err));
    OK(m40_gguf_writer_set_raw(w, "k.f64", M40LLM_VALUE_F64, "\x9a\x99\x99\x99\x99\x99\xb9\x3f", 8, &err));
    OK(m40_gguf_writer_set_raw(w, "k.nested", M40LLM_VALUE_ARRAY, raw_nested, sizeof raw_nested - 1, &err));
    OK(m40_gguf_writer_set_string_array(w, "k.none", NULL, 0, &err));
    OK(m40_gguf_writer_set_raw(w, "k.bools", M40LLM_VALUE_ARRAY, U32("\7") U64("\2") "\1\0", 14, &err));
}

/* Every data type of the list, one tensor of 256 x 2 each; its bytes count up from its index. */
static const uint8_t type_numbers[] = {
#define DTYPE_NUMBER(number, suffix, name, elems, bytes, readable) number,
    M40_DTYPE_MAP(DTYPE_NUMBER)
#undef DTYPE_NUMBER
};

static uint64_t tensor_bytes(size_t i)
{
    const struct m40_dtype_info *type = m40_dtype_info(type_numbers[i]);

    return 512 / type->block_elems * type->block_bytes;
}

static void write_all_types(struct m40_gguf_writer *w)
{
    static const uint64_t dims[] = {256, 2};
    uint8_t data[4096];

    for (size_t i = 0; i < sizeof type_numbers; i++)
        OK(m40_gguf_writer_add_tensor(w, m40_dtype_info(type_numbers[i])->name, type_numbers[i], 2, dims, &err));
    for (size_t i = 0; i < sizeof type_numbers; i++) {
        size_t half = tensor_bytes(i) / 2;

        for (size_t at = 0; at < tensor_bytes(i); at++)
            data[at] = (uint8_t)(i + at);
        OK(m40_gguf_writer_data(w, data, half, &err));
        OK(m40_gguf_writer_data(w, data + half, tensor_bytes(i) - half, &err));
    }
}

static const char *write_sample(const char *name, uint32_t alignment)
{
    const char *path = tmp_path(name);
    struct m40_gguf_writer *w;

    OK(m40_gguf_writer_open(&w, path, &err));
    if (alignment)
        OK(m40_gguf_writer_set_u32(w, "general.alignment", alignment, &err));
    set_all_kinds(w);
    write_all_types(w);
    OK(m40_gguf_writer_finish(w, &err));
    m40_gguf_writer_close(&w);
    assert_null(w);
    return path;
}

static void check_all_types(const struct m40_gguf *g, uint64_t alignment)
{
    assert_int_equal(g->version, 3);
    assert_int_equal(g->n_parts, 1);
    assert_int_equal(g->alignment, alignment);
    assert_int_equal(g->n_tensors, sizeof type_numbers);
    for (size_t i = 0; i < sizeof type_numbers; i++) {
        const struct m40_gguf_tensor *t = m40_gguf_find_tensor(g, m40_dtype_info(type_numbers[i])->name);

        assert_ptr_equal(t, &g->tensors[i]);
        assert_int_equal(strlen(t->name.data), t->name.n_bytes);
        assert_int_equal(t->type->number, type_numbers[i]);
        assert_int_equal(t->n_dims, 2);
        assert_true(t->dims[0] == 256 && t->dims[1] == 2 && t->dims[2] == 1 && t->dims[3] == 1);
        assert_int_equal(t->n_elements, 512);
        assert_int_equal(t->size_bytes, tensor_bytes(i));
        assert_int_equal((uintptr_t)t->data % (alignment < 4096 ? alignment : 4096), 0);
        for (size_t at = 0; at < t->size_bytes; at++)
            assert_int_equal(t->data[at], (uint8_t)(i + at));
    }
    assert_null(m40_gguf_find_tensor(g, "f3"));
    assert_null(m40_gguf_find_tensor(g, ""));
}

static const struct {
    const char *key;
    const char *text; /* with 2 elements of an array at most; NULL: not there */
    int is_u64, is_i64, is_f64;
    uint64_t u64;
    int64_t i64;
    double f64;
} value_rows[] = {
    {"k.u32", "4294967295", 1, 1, 1, UINT32_MAX, UINT32_MAX, 4294967295.0},
    {"k.i32", "-7", 0, 1, 1, 0, -7, -7},
    {"k.u64", "18446744073709551615", 1, 0, 1, UINT64_MAX, 0, 0x1p64},
    {"k.f32", "1e-05", 0, 0, 1, 0, 0, 1e-5f},
    {"k.bool", "true", 1, 1, 0, 1, 1, 0},
    {"k.string", "a text", 0, 0, 0, 0, 0, 0},
    {"k.ints", "[1, -2, ...]", 0, 0, 0, 0, 0, 0},
    {"k.floats", "[0.5, -1e-05, ...]", 0, 0, 0, 0, 0, 0},
    {"k.words", "[zero, , ...]", 0, 0, 0, 0, 0, 0},
    {"k.u8", "255", 1, 1, 1, 255, 255, 255},
    {"k.i8", "-1", 0, 1, 1, 0, -1, -1},
    {"k.u16", "65534", 1, 1, 1, 65534, 65534, 65534},
    {"k.i16", "-2", 0, 1, 1, 0, -2, -2},
    {"k.i64", "-9223372036854775808", 0, 1, 1, 0, INT64_MIN, -0x1p63},
    {"k.f64", "0.1", 0, 0, 1, 0, 0, 0.1},
    {"k.nested", "[[1, 2, ...], [hi]]", 0, 0, 0, 0, 0, 0},
    {"k.none", "[]", 0, 0, 0, 0, 0, 0},
    {"k.bools", "[true, false]", 0, 0, 0, 0, 0, 0},
    {"k", NULL, 0, 0, 0, 0, 0, 0},
};

static void check_all_kinds(const struct m40_gguf *g)
{
    for (size_t i = 0; i < sizeof value_rows / sizeof *value_rows; i++) {
        const struct m40_gguf_kv *kv = m40_gguf_find_kv(g, value_rows[i].key);
        uint64_t u64 = 0;
        int64_t i64 = 0;
        double f64 = 0;
        char text[64];

        if (!value_rows[i].text) {
            assert_null(kv);
            continue;
        }
        assert_non_null(kv);
        assert_string_equal(kv->key.data, value_rows[i].key);
        assert_int_equal(m40_gguf_kv_u64(kv, &u64), value_rows[i].is_u64);
        assert_int_equal(m40_gguf_kv_i64(kv, &i64), value_rows[i].is_i64);
        assert_int_equal(m40_gguf_kv_f64(kv, &f64), value_rows[i].is_f64);
        assert_true(u64 == value_rows[i].u64 && i64 == value_rows[i].i64 && f64 == value_rows[i].f64);
        assert_int_equal(m40_gguf_kv_text(kv, 2, text, sizeof text), strlen(value_rows[i].text));
        assert_string_equal(text, value_rows[i].text);
        for (size_t capacity = 1; capacity <= strlen(value_rows[i].text); capacity++) { /* cut, and no byte beyond */
            memset(text, '#', sizeof text);
            assert_int_equal(m40_gguf_kv_text(kv, 2, text, capacity), strlen(value_rows[i].text));
            assert_int_equal(strlen(text), capacity - 1);
            assert_memory_equal(text, value_rows[i].text, capacity - 1);
            assert_int_equal(text[capacity], '#');
        }
        assert_int_equal(m40_gguf_kv_text(kv, 2, NULL, 0), strlen(value_rows[i].text));
    }
}

static void check_cursors(const struct m40_gguf *g)
{
    static const char *const words[] = {"zero", "", "zwei \xe2\x82\xac"};
    static const double ints[] = {1, -2, INT32_MIN};
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(g, "k.words");
    struct m40_gguf_cursor cursor = {0};
    struct m40_str text;
    double number;
    bool flag;

    for (int i = 0; i < 3; i++) {
        assert_true(m40_gguf_next_string(kv, &cursor, &text));
        assert_true(m40_str_equal(text, m40_str_from(words[i])));
    }
    assert_false(m40_gguf_next_string(kv, &cursor, &text));
    cursor = (struct m40_gguf_cursor){0};
    assert_false(m40_gguf_next_number(kv, &cursor, &number));
    kv = m40_gguf_find_kv(g, "k.ints");
    assert_false(m40_gguf_next_string(kv, &cursor, &text));
    for (int i = 0; i < 3; i++)
        assert_true(m40_gguf_next_number(kv, &cursor, &number) && number == ints[i]);
    assert_false(m40_gguf_next_number(kv, &cursor, &number));
    cursor = (struct m40_gguf_cursor){0};
    assert_false(m40_gguf_next_number(m40_gguf_find_kv(g, "k.nested"), &cursor, &number));
    assert_false(m40_gguf_next_number(m40_gguf_find_kv(g, "k.u8"), &cursor, &number));
    cursor = (struct m40_gguf_cursor){0};
    assert_true(m40_gguf_next_number(m40_gguf_find_kv(g, "k.bools"), &cursor, &number) && number == 1);
    assert_int_equal(m40_gguf_find_kv(g, "k.nested")->element_type, M40LLM_VALUE_ARRAY);
    assert_int_equal(m40_gguf_find_kv(g, "k.nested")->n_elements, 2);
    assert_true(m40_gguf_kv_string(m40_gguf_find_kv(g, "k.string"), &text) && m40_str_equal(text, m40_str_from("a text")));
    assert_false(m40_gguf_kv_string(m40_gguf_find_kv(g, "k.words"), &text));
    assert_true(m40_gguf_kv_bool(m40_gguf_find_kv(g, "k.bool"), &flag) && flag);
    assert_false(m40_gguf_kv_bool(m40_gguf_find_kv(g, "k.u8"), &flag));
}

static void test_round_trip(void **state)
{
    static const uint32_t alignments[] = {0, 8, 64, 8192};

    (void)state;
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        const char *path = write_sample("sample.gguf", alignments[i]);
        struct m40_gguf *g;
        struct stat info;

        OK(m40_gguf_open(&g, path, &err));
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(g->size_bytes, info.st_size);
        assert_int_equal(info.st_size % (alignments[i] ? alignments[i] : 32), 0);
        check_all_kinds(g);
        check_cursors(g);
        check_all_types(g, alignments[i] ? alignments[i] : 32);
        m40_gguf_close(&g);
        assert_null(g);
    }
}

static void test_writer_refuses(void **state)
{
    static const uint64_t dims[] = {32, 0};
    const char *path = tmp_path("refused.gguf");
    struct m40_gguf_writer *w;
    uint8_t data[32] = {0};

    (void)state;
    assert_int_equal(m40_gguf_writer_open(&w, tmp_path("no/such/folder.gguf"), &err), M40LLM_IO);
    assert_null(w);
    OK(m40_gguf_writer_open(&w, path = tmp_path("refused.gguf"), &err));
    assert_int_equal(m40_gguf_writer_add_tensor(w, "t", 777, 1, dims, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_add_tensor(w, "t", M40_DTYPE_Q4_K, 1, dims, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_add_tensor(w, "t", M40_DTYPE_I8, 2, dims, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_add_tensor(w, "t", M40_DTYPE_I8, 5, dims, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_set_u32(w, "general.alignment", 33, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_set_u64(w, "general.alignment", 64, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_set_raw(w, "k", M40LLM_VALUE_U16, "abc", 3, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_set_raw(w, "k", M40LLM_VALUE_ARRAY, "abc", 3, &err), M40LLM_INVALID_ARGUMENT);
    OK(m40_gguf_writer_add_tensor(w, "t", M40_DTYPE_I8, 1, dims, &err));
    assert_int_equal(m40_gguf_writer_set_u32(w, "general.alignment", 64, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_data(w, data, 33, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "tensor 't': 33 bytes of data where 32 are left"));
    OK(m40_gguf_writer_data(w, data, 31, &err));
    assert_int_equal(m40_gguf_writer_set_u32(w, "late", 1, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_add_tensor(w, "late", M40_DTYPE_I8, 1, dims, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_gguf_writer_finish(w, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "tensor 't': data is missing"));
    OK(m40_gguf_writer_data(w, data, 1, &err));
    assert_int_equal(m40_gguf_writer_data(w, data, 1, &err), M40LLM_INVALID_ARGUMENT);
    m40_gguf_writer_close(&w);
    assert_int_equal(access(path, F_OK), -1); /* not finished: removed */

    OK(m40_gguf_writer_open(&w, path, &err));
    OK(m40_gguf_writer_set_u32(w, "k", 1, &err));
    OK(m40_gguf_writer_set_u32(w, "k", 2, &err));
    assert_int_equal(m40_gguf_writer_finish(w, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "metadata 'k' was set twice"));
    m40_gguf_writer_close(&w);
    m40_gguf_writer_close(&w);
    m40_gguf_writer_close(NULL);
}

/* /dev/full takes nothing: the error must come out, and the device stay. */
static void test_writer_reports_a_full_disk(void **state)
{
    struct m40_gguf_writer *w;

    (void)state;
    if (access("/dev/full", W_OK) != 0)
        skip();
    OK(m40_gguf_writer_open(&w, "/dev/full", &err));
    OK(m40_gguf_writer_set_u32(w, "k", 1, &err));
    assert_int_equal(m40_gguf_writer_finish(w, &err), M40LLM_IO);
    assert_non_null(strstr(err.text, "/dev/full: cannot be written: "));
    m40_gguf_writer_close(&w);
    assert_int_equal(access("/dev/full", F_OK), 0);
}

/* ---- truncation ---- */

static void truncate_at_every_64th(const char *path)
{
    size_t n_bytes;
    char *data = test_read_file(path, &n_bytes);

    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(parse_copy(data, n_bytes * i / 64), M40LLM_BAD_FILE);
        assert_true(strlen(err.text) > strlen("some/file.gguf: "));
    }
    assert_int_equal(parse_copy(data, n_bytes), M40LLM_OK);
    free(data);
}

static void test_truncated(void **state)
{
    (void)state;
    truncate_at_every_64th(test_data("vocab/ggml-vocab-llama-spm.gguf"));
    truncate_at_every_64th(write_sample("sample.gguf", 0));
}

/* A small file cut at every byte. */
static void test_truncated_at_every_byte(void **state)
{
    const struct malformed row = {"",
                                  "",
                                  .n_kvs = 1,
                                  BYTES(KEY_A U32("\11") ARRAY_HEAD U32("\10") U64("\2") U64("\1") "x" U64("\0")),
                                  .tensors = {{"t", 2, {32, 3}, 2, 0}, {"u", 1, {9}, 0, 64}},
                                  .n_data_bytes = 100};
    struct image image = build(&row);

    (void)state;
    for (size_t n = 0; n < image.n_bytes; n++)
        assert_int_equal(parse_copy(image.data, n), M40LLM_BAD_FILE);
    assert_int_equal(parse_copy(image.data, image.n_bytes), M40LLM_OK);
    free(image.data);
}

/* ---- files ---- */

static void test_open_refuses(void **state)
{
    const char *path = tmp_path("empty.gguf");
    struct m40_gguf *g;

    (void)state;
    assert_int_equal(m40_gguf_open(&g, tmp_path("none.gguf"), &err), M40LLM_IO);
    assert_non_null(strstr(err.text, "none.gguf: cannot be opened"));
    assert_null(g);
    assert_int_equal(m40_gguf_open(&g, test_tmp_dir(), &err), M40LLM_IO);
    assert_non_null(strstr(err.text, "not a regular file"));
    fclose(fopen(path = tmp_path("empty.gguf"), "wb"));
    assert_int_equal(m40_gguf_open(&g, path, &err), M40LLM_BAD_FILE);
    assert_non_null(strstr(err.text, "empty.gguf: the file is empty"));
    assert_int_equal(mkfifo(path = tmp_path("pipe.gguf"), 0600), 0);
    assert_int_equal(m40_gguf_open(&g, path, &err), M40LLM_IO); /* without waiting for a writer */
    m40_gguf_close(&g);
    m40_gguf_close(NULL);
}

static void test_real_vocabularies(void **state)
{
    static const struct {
        const char *name;
        uint64_t n_tokens;
    } rows[] = {{"llama-spm", 32000}, {"gpt-2", 50257}, {"deepseek-llm", 102400}, {"falcon", 65024}, {"phi-3", 32064}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[64];
        struct m40_gguf *g;
        const struct m40_gguf_kv *kv;
        struct m40_gguf_cursor cursor = {0};
        struct m40_str text;
        uint64_t n = 0;

        snprintf(name, sizeof name, "vocab/ggml-vocab-%s.gguf", rows[i].name);
        OK(m40_gguf_open(&g, test_data(name), &err));
        assert_int_equal(g->n_tensors, 0);
        kv = m40_gguf_find_kv(g, "tokenizer.ggml.tokens");
        assert_int_equal(kv->n_elements, rows[i].n_tokens);
        while (m40_gguf_next_string(kv, &cursor, &text))
            n++;
        assert_int_equal(n, rows[i].n_tokens);
        assert_int_equal(cursor.offset_bytes, kv->n_bytes);
        m40_gguf_close(&g);
    }
}

/* ---- split files ---- */

struct part {
    const char *name;
    uint32_t no, count;
    const char *tensor;
    uint32_t n_tensors_in_all; /* 0: not said */
};

static void write_part(const struct part *part)
{
    static const uint64_t dims[] = {4};
    struct m40_gguf_writer *w;
    float data[4];

    for (int i = 0; i < 4; i++)
        data[i] = (float)part->no;
    OK(m40_gguf_writer_open(&w, tmp_path(part->name), &err));
    if (part->count) {
        uint16_t no = (uint16_t)part->no, count = (uint16_t)part->count;

        OK(m40_gguf_writer_set_raw(w, "split.no", M40LLM_VALUE_U16, &no, 2, &err));
        OK(m40_gguf_writer_set_raw(w, "split.count", M40LLM_VALUE_U16, &count, 2, &err));
    }
    if (part->n_tensors_in_all)
        OK(m40_gguf_writer_set_i32(w, "split.tensors.count", (int32_t)part->n_tensors_in_all, &err));
    if (part->tensor) {
        OK(m40_gguf_writer_add_tensor(w, part->tensor, M40_DTYPE_F32, 1, dims, &err));
        OK(m40_gguf_writer_data(w, data, sizeof data, &err));
    }
    OK(m40_gguf_writer_finish(w, &err));
    m40_gguf_writer_close(&w);
}

static void test_split_file(void **state)
{
    static const struct part parts[] = {
        {"s-00001-of-00003.gguf", 0, 3, NULL, 2}, {"s-00002-of-00003.gguf", 1, 3, "a", 2}, {"s-00003-of-00003.gguf", 2, 3, "b", 2}};
    struct m40_gguf *g;
    float value;

    (void)state;
    for (int i = 0; i < 3; i++)
        write_part(&parts[i]);
    OK(m40_gguf_open(&g, tmp_path(parts[0].name), &err));
    assert_int_equal(g->n_parts, 3);
    assert_int_equal(g->n_tensors, 2);
    memcpy(&value, m40_gguf_find_tensor(g, "b")->data, 4);
    assert_true(value == 2.0f);
    memcpy(&value, m40_gguf_find_tensor(g, "a")->data + 12, 4);
    assert_true(value == 1.0f);
    assert_string_equal(g->tensors[0].name.data, "a");
    assert_non_null(m40_gguf_find_kv(g, "split.no"));
    m40_gguf_close(&g);
}

/* The parts are written over the good ones, one row after the other; each row opens `open`. */
static void test_split_file_refused(void **state)
{
    static const struct {
        struct part part;
        const char *open, *expected;
    } rows[] = {
        {{"s-00002-of-00003.gguf", 1, 3, "a", 2}, "s-00002-of-00003.gguf", "part 2 of 3: open the first, whose name ends in -00001-of-00003.gguf"},
        {{"s-00002-of-00003.gguf", 1, 3, "b", 2}, "s-00001-of-00003.gguf", "tensor 'b' is there twice"},
        {{"s-00002-of-00003.gguf", 2, 3, "a", 2},
         "s-00001-of-00003.gguf",
         "s-00002-of-00003.gguf: its split.no and split.count do not say that it is part 2 of 3"},
        {{"s-00002-of-00003.gguf", 1, 4, "a", 2}, "s-00001-of-00003.gguf", "do not say that it is part 2 of 3"},
        {{"s-00002-of-00003.gguf", 0, 0, "a", 0}, "s-00001-of-00003.gguf", "do not say that it is part 2 of 3"},
        {{"s-00002-of-00003.gguf", 1, 3, NULL, 2}, "s-00001-of-00003.gguf", "the parts have 1 tensors, split.tensors.count says 2"},
        {{"s-00001-of-00003.gguf", 0, 4, NULL, 2}, "s-00001-of-00003.gguf", "the name says that there are 3 parts, split.count that there are 4"},
        {{"s-00001-of-00003.gguf", 0, 0, NULL, 0}, "s-00001-of-00003.gguf", "the name says that there are 3 parts, split.count that there are 1"},
        {{"s-00001-of-00003.gguf", 3, 3, NULL, 0}, "s-00001-of-00003.gguf", "split.no 3 of split.count 3 cannot be"},
        {{"whole.gguf", 0, 3, NULL, 2}, "whole.gguf", "part 1 of 3, but its name does not end in -00001-of-00003.gguf"},
        {{"t-00001-of-00002.gguf", 0, 2, NULL, 2}, "t-00001-of-00002.gguf", "t-00002-of-00002.gguf: cannot be opened"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct m40_gguf *g;

        test_split_file(NULL);
        write_part(&rows[i].part);
        if (m40_gguf_open(&g, tmp_path(rows[i].open), &err) == M40LLM_OK || g || !strstr(err.text, rows[i].expected))
            fail_msg("row %zu: \"%s\"", i, err.text);
    }
}

/* ---- allocation failure ---- */

struct countdown {
    int left;
};

static bool fail_once(void *user)
{
    struct countdown *countdown = user;

    return countdown->left-- == 0;
}

static m40llm_status open_and_close(const char *path)
{
    struct m40_gguf *g;
    m40llm_status status = m40_gguf_open(&g, path, &err);

    m40_gguf_close(&g);
    return status;
}

static m40llm_status write_small(const char *path)
{
    static const char *const words[] = {"a", "b"};
    static const uint64_t dims[] = {4};
    static const int32_t numbers[] = {1, 2, 3, 4};
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_writer *w;

    M40_TRY(m40_gguf_writer_open(&w, path, &err));
    M40_TRY(m40_gguf_writer_set_string(w, "name", "a text that is long enough to make the buffer grow, and then some more of it", &err));
    M40_TRY(m40_gguf_writer_set_string_array(w, "words", words, 2, &err));
    M40_TRY(m40_gguf_writer_set_i32_array(w, "numbers", numbers, 4, &err));
    M40_TRY(m40_gguf_writer_add_tensor(w, "t", M40_DTYPE_I32, 1, dims, &err));
    M40_TRY(m40_gguf_writer_data(w, numbers, sizeof numbers, &err));
    M40_TRY(m40_gguf_writer_finish(w, &err));
fail:
    m40_gguf_writer_close(&w);
    return status;
}

/* Fails the first, the second, ... allocation until none is left to fail. Leaks are LeakSanitizer's to see. */
static void fail_every_allocation(m40llm_status (*call)(const char *path), const char *path, int least)
{
    for (int k = 0; k < 1000; k++) {
        struct countdown countdown = {k};
        m40llm_status status;

        m40_mem_set_failure_hook(fail_once, &countdown);
        status = call(path);
        m40_mem_set_failure_hook(NULL, NULL);
        if (status == M40LLM_OK) {
            assert_true(k >= least && countdown.left >= 0);
            return;
        }
        assert_int_equal(status, M40LLM_NO_MEMORY);
        assert_int_equal(err.code, M40LLM_NO_MEMORY);
    }
    fail_msg("no end of allocations");
}

static void test_allocation_failures(void **state)
{
    (void)state;
    test_split_file(NULL);
    fail_every_allocation(open_and_close, tmp_path("s-00001-of-00003.gguf"), 20);
    fail_every_allocation(write_small, tmp_path("small.gguf"), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_the_same_without_fault),
        cmocka_unit_test(test_long_path_does_not_hide_the_fault),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_writer_reports_a_full_disk),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_truncated_at_every_byte),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_real_vocabularies),
        cmocka_unit_test(test_split_file),
        cmocka_unit_test(test_split_file_refused),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
