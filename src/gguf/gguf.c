/* What is asked of a parsed file: entries by name, values as numbers, strings and text. */
#include "gguf/gguf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "gguf/gguf_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- look-ups ---- */

struct slot {
    struct m40_str name; /* data NULL: free */
    size_t i;
};

struct m40_gguf_index {
    uint64_t seed;
    uint64_t mask; /* slots - 1; at least twice as many slots as names, so that probes are short and end */
    struct slot slots[];
};

/* Eight bytes at a time through a 64 x 64 -> 128 bit product, its halves folded. */
static uint64_t hash_name(uint64_t seed, struct m40_str name)
{
    uint64_t h = seed ^ name.n_bytes;

    for (size_t at = 0; at < name.n_bytes; at += 8) {
        size_t n = name.n_bytes - at < 8 ? name.n_bytes - at : 8;
        uint64_t word = 0;
        unsigned __int128 product;

        memcpy(&word, name.data + at, n);
        product = (unsigned __int128)(h ^ word) * 0x9E3779B97F4A7C15u;
        h = (uint64_t)product ^ (uint64_t)(product >> 64) ^ seed;
    }
    return h ^ h >> 32;
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t find_slot(const struct m40_gguf_index *index, struct m40_str name)
{
    size_t at = hash_name(index->seed, name) & index->mask;

    while (index->slots[at].name.data && !m40_str_equal(index->slots[at].name, name))
        at = (at + 1) & index->mask;
    return at;
}

struct m40_gguf_index *m40_gguf_index_new(size_t n)
{
    struct m40_gguf_index *index;
    size_t n_slots = 4;

    while (n_slots / 2 < n)
        n_slots *= 2;
    if (n_slots > SIZE_MAX / 2 / sizeof *index->slots)
        return NULL;
    index = m40_calloc(1, sizeof *index + n_slots * sizeof *index->slots);
    if (!index)
        return NULL;
    index->seed = (m40_now_ns() ^ (uint64_t)(uintptr_t)index) * 0xD6E8FEB86659FD93u;
    index->mask = n_slots - 1;
    return index;
}

bool m40_gguf_index_add(struct m40_gguf_index *index, struct m40_str name, size_t i)
{
    struct slot *slot = &index->slots[find_slot(index, name)];

    if (slot->name.data)
        return false;
    *slot = (struct slot){name, i};
    return true;
}

bool m40_gguf_index_find(const struct m40_gguf_index *index, struct m40_str name, size_t *out)
{
    const struct slot *slot = &index->slots[find_slot(index, name)];

    if (!slot->name.data)
        return false;
    *out = slot->i;
    return true;
}

const struct m40_gguf_kv *m40_gguf_find_kv(const struct m40_gguf *gguf, const char *key)
{
    size_t i;

    return m40_gguf_index_find(gguf->kv_index, m40_str_from(key), &i) ? &gguf->kvs[i] : NULL;
}

const struct m40_gguf_tensor *m40_gguf_find_tensor(const struct m40_gguf *gguf, const char *name)
{
    size_t i;

    return m40_gguf_index_find(gguf->tensor_index, m40_str_from(name), &i) ? &gguf->tensors[i] : NULL;
}

/* ---- typed values ---- */

enum number_kind { NO_NUMBER, UNSIGNED, SIGNED, FLOATING };

struct number {
    enum number_kind kind;
    uint64_t u; /* the one that kind names */
    int64_t i;
    double f;
    uint32_t n_bytes; /* that it takes in the file */
};

/* bool counts as an unsigned number here. */
static struct number load_number(uint32_t type, const uint8_t *data)
{
    struct number n = {0};

#define LOAD_CASE(suffix, c_type, field, number_kind)                                                                                                \
    case M40LLM_VALUE_##suffix: {                                                                                                                    \
        c_type value;                                                                                                                                \
        memcpy(&value, data, sizeof value);                                                                                                          \
        n.kind = number_kind;                                                                                                                        \
        n.field = value;                                                                                                                             \
        n.n_bytes = sizeof value;                                                                                                                    \
        break;                                                                                                                                       \
    }
    switch (type) {
        LOAD_CASE(U8, uint8_t, u, UNSIGNED)
        LOAD_CASE(U16, uint16_t, u, UNSIGNED)
        LOAD_CASE(U32, uint32_t, u, UNSIGNED)
        LOAD_CASE(U64, uint64_t, u, UNSIGNED)
        LOAD_CASE(BOOL, uint8_t, u, UNSIGNED)
        LOAD_CASE(I8, int8_t, i, SIGNED)
        LOAD_CASE(I16, int16_t, i, SIGNED)
        LOAD_CASE(I32, int32_t, i, SIGNED)
        LOAD_CASE(I64, int64_t, i, SIGNED)
        LOAD_CASE(F32, float, f, FLOATING)
        LOAD_CASE(F64, double, f, FLOATING)
    }
#undef LOAD_CASE
    return n;
}

static double number_to_f64(struct number n)
{
    return n.kind == UNSIGNED ? (double)n.u : n.kind == SIGNED ? (double)n.i : n.f;
}

static bool is_scalar_number(const struct m40_gguf_kv *kv)
{
    return kv->type != M40LLM_VALUE_STRING && kv->type != M40LLM_VALUE_ARRAY;
}

bool m40_gguf_kv_u64(const struct m40_gguf_kv *kv, uint64_t *out)
{
    struct number n = {0};

    if (is_scalar_number(kv))
        n = load_number(kv->type, kv->data);
    if (n.kind == UNSIGNED)
        *out = n.u;
    else if (n.kind == SIGNED && n.i >= 0)
        *out = (uint64_t)n.i;
    else
        return false;
    return true;
}

bool m40_gguf_kv_i64(const struct m40_gguf_kv *kv, int64_t *out)
{
    struct number n = {0};

    if (is_scalar_number(kv))
        n = load_number(kv->type, kv->data);
    if (n.kind == SIGNED)
        *out = n.i;
    else if (n.kind == UNSIGNED && n.u <= INT64_MAX)
        *out = (int64_t)n.u;
    else
        return false;
    return true;
}

bool m40_gguf_kv_f64(const struct m40_gguf_kv *kv, double *out)
{
    if (!is_scalar_number(kv) || kv->type == M40LLM_VALUE_BOOL)
        return false;
    *out = number_to_f64(load_number(kv->type, kv->data));
    return true;
}

bool m40_gguf_kv_bool(const struct m40_gguf_kv *kv, bool *out)
{
    if (kv->type != M40LLM_VALUE_BOOL)
        return false;
    *out = kv->data[0] != 0;
    return true;
}

/* A string in front of the cursor, in bytes that the parser has checked. */
static struct m40_str take_string(struct m40_bytes *b)
{
    uint64_t n_bytes = m40_bytes_u64(b);

    return (struct m40_str){(const char *)m40_bytes_take(b, n_bytes), n_bytes};
}

bool m40_gguf_kv_string(const struct m40_gguf_kv *kv, struct m40_str *out)
{
    struct m40_bytes b = {.data = kv->data, .n_bytes = kv->n_bytes};

    if (kv->type != M40LLM_VALUE_STRING)
        return false;
    *out = take_string(&b);
    return true;
}

bool m40_gguf_next_string(const struct m40_gguf_kv *kv, struct m40_gguf_cursor *cursor, struct m40_str *out)
{
    struct m40_bytes b = {.data = kv->data, .n_bytes = kv->n_bytes, .pos = cursor->offset_bytes};

    if (kv->type != M40LLM_VALUE_ARRAY || kv->element_type != M40LLM_VALUE_STRING || cursor->i >= kv->n_elements)
        return false;
    *out = take_string(&b);
    cursor->i++;
    cursor->offset_bytes = b.pos;
    return true;
}

bool m40_gguf_next_number(const struct m40_gguf_kv *kv, struct m40_gguf_cursor *cursor, double *out)
{
    struct number n;

    if (kv->type != M40LLM_VALUE_ARRAY || cursor->i >= kv->n_elements)
        return false;
    if (kv->element_type == M40LLM_VALUE_STRING || kv->element_type == M40LLM_VALUE_ARRAY)
        return false;
    n = load_number(kv->element_type, kv->data + cursor->offset_bytes);
    *out = number_to_f64(n);
    cursor->i++;
    cursor->offset_bytes += n.n_bytes;
    return true;
}

/* ---- values as text ---- */

struct text {
    char *buffer;
    size_t capacity;
    size_t n_bytes; /* of the whole text, whether it fits or not */
};

static void text_append(struct text *text, const char *data, size_t n_bytes)
{
    if (text->n_bytes < text->capacity) {
        size_t room = text->capacity - text->n_bytes;

        memcpy(text->buffer + text->n_bytes, data, n_bytes < room ? n_bytes : room);
    }
    text->n_bytes += n_bytes;
}

/* The fewest digits that read back as the same number. */
static void format_float(char *line, size_t capacity, double value, bool is_f32)
{
    int digits = is_f32 ? 6 : 15;
    double back;

    do {
        snprintf(line, capacity, "%.*g", digits, value);
        back = is_f32 ? (double)strtof(line, NULL) : strtod(line, NULL);
    } while (back != value && digits++ < (is_f32 ? 9 : 17));
}

static void text_number(struct text *text, struct m40_bytes *b, uint32_t type)
{
    struct number n = load_number(type, b->data + b->pos);
    char line[40];

    m40_bytes_take(b, n.n_bytes);
    if (type == M40LLM_VALUE_BOOL)
        snprintf(line, sizeof line, "%s", n.u ? "true" : "false");
    else if (n.kind == UNSIGNED)
        snprintf(line, sizeof line, "%" PRIu64, n.u);
    else if (n.kind == SIGNED)
        snprintf(line, sizeof line, "%" PRId64, n.i);
    else
        format_float(line, sizeof line, n.f, type == M40LLM_VALUE_F32);
    text_append(text, line, strlen(line));
}

static void text_array(struct text *text, struct m40_bytes *b, uint32_t type, uint64_t n, size_t max_elements);

static void text_value(struct text *text, struct m40_bytes *b, uint32_t type, size_t max_elements)
{
    if (type == M40LLM_VALUE_STRING) {
        struct m40_str value = take_string(b);

        text_append(text, value.data, value.n_bytes);
    } else if (type == M40LLM_VALUE_ARRAY) {
        uint32_t element_type;
        uint64_t n;

        m40_gguf_read_array_head(b, &element_type, &n);
        text_array(text, b, element_type, n, max_elements);
    } else {
        text_number(text, b, type);
    }
}

static void text_array(struct text *text, struct m40_bytes *b, uint32_t type, uint64_t n, size_t max_elements)
{
    uint64_t n_shown = n < max_elements ? n : max_elements;

    text_append(text, "[", 1);
    for (uint64_t i = 0; i < n_shown; i++) {
        if (i)
            text_append(text, ", ", 2);
        text_value(text, b, type, max_elements);
    }
    if (n > n_shown) {
        m40_gguf_skip_values(b, type, n - n_shown, 1); /* for the sake of an array around this one */
        text_append(text, n_shown ? ", ..." : "...", n_shown ? 5 : 3);
    }
    text_append(text, "]", 1);
}

size_t m40_gguf_kv_text(const struct m40_gguf_kv *kv, size_t max_elements, char *buffer, size_t capacity)
{
    struct m40_bytes b = {.data = kv->data, .n_bytes = kv->n_bytes};
    struct text text = {.buffer = buffer, .capacity = capacity ? capacity - 1 : 0};

    if (kv->type == M40LLM_VALUE_ARRAY)
        text_array(&text, &b, kv->element_type, kv->n_elements, max_elements);
    else
        text_value(&text, &b, kv->type, max_elements);
    if (capacity)
        buffer[text.n_bytes < text.capacity ? text.n_bytes : text.capacity] = 0;
    return text.n_bytes;
}
