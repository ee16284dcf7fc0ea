/* GGUF metadata made in memory, for tests that need files nobody would write. Zero a struct gguf_bytes, put entries, finish, and parse `file`. */
#ifndef M40_TESTS_GGUF_BYTES_H
#define M40_TESTS_GGUF_BYTES_H

#include "base/str.h"
#include "m40llm.h"

#include <stdint.h>

struct gguf_bytes {
    struct m40_buf entries, file;
    uint64_t n_entries;
};

static inline void gguf_put_raw(struct m40_buf *buf, const void *data, size_t n_bytes)
{
    if (!m40_buf_append(buf, data, n_bytes))
        __builtin_trap();
}

static inline void gguf_put_str(struct m40_buf *buf, struct m40_str text)
{
    uint64_t n = text.n_bytes;

    gguf_put_raw(buf, &n, 8);
    gguf_put_raw(buf, text.data, text.n_bytes);
}

static inline void gguf_put_key(struct gguf_bytes *g, const char *key, uint32_t type)
{
    gguf_put_str(&g->entries, m40_str_from(key));
    gguf_put_raw(&g->entries, &type, 4);
    g->n_entries++;
}

static inline void gguf_put_string(struct gguf_bytes *g, const char *key, const char *value)
{
    gguf_put_key(g, key, M40LLM_VALUE_STRING);
    gguf_put_str(&g->entries, m40_str_from(value));
}

static inline void gguf_put_u32(struct gguf_bytes *g, const char *key, uint32_t value)
{
    gguf_put_key(g, key, M40LLM_VALUE_U32);
    gguf_put_raw(&g->entries, &value, 4);
}

static inline void gguf_put_bool(struct gguf_bytes *g, const char *key, uint8_t value)
{
    gguf_put_key(g, key, M40LLM_VALUE_BOOL);
    gguf_put_raw(&g->entries, &value, 1);
}

static inline void gguf_put_array(struct gguf_bytes *g, const char *key, uint32_t element_type, uint64_t n)
{
    gguf_put_key(g, key, M40LLM_VALUE_ARRAY);
    gguf_put_raw(&g->entries, &element_type, 4);
    gguf_put_raw(&g->entries, &n, 8);
}

static inline void gguf_put_strings(struct gguf_bytes *g, const char *key, const struct m40_str *values, size_t n)
{
    gguf_put_array(g, key, M40LLM_VALUE_STRING, n);
    for (size_t i = 0; i < n; i++)
        gguf_put_str(&g->entries, values[i]);
}

static inline void gguf_put_f32s(struct gguf_bytes *g, const char *key, const float *values, size_t n)
{
    gguf_put_array(g, key, M40LLM_VALUE_F32, n);
    gguf_put_raw(&g->entries, values, 4 * n);
}

static inline void gguf_put_i32s(struct gguf_bytes *g, const char *key, const int32_t *values, size_t n)
{
    gguf_put_array(g, key, M40LLM_VALUE_I32, n);
    gguf_put_raw(&g->entries, values, 4 * n);
}

/* Version 3, no tensors. */
static inline void gguf_finish(struct gguf_bytes *g)
{
    uint32_t head[2] = {0x46554747, 3};
    uint64_t counts[2] = {0, g->n_entries};

    g->file.n_bytes = 0;
    gguf_put_raw(&g->file, head, 8);
    gguf_put_raw(&g->file, counts, 16);
    gguf_put_raw(&g->file, g->entries.data, g->entries.n_bytes);
}

static inline void gguf_bytes_free(struct gguf_bytes *g)
{
    m40_buf_free(&g->entries);
    m40_buf_free(&g->file);
    g->n_entries = 0;
}

#endif
