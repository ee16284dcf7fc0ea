/* A parsed GGUF file, read-only. Nothing here does I/O: gguf_file.h maps files and calls m40_gguf_parse.
 * Format: ggml's docs/gguf.md, versions 2 and 3, little-endian. */
#ifndef M40_GGUF_GGUF_H
#define M40_GGUF_GGUF_H

#include "base/status.h"
#include "base/str.h"
#include "tensor/dtype.h"

#include <stdbool.h>

/* One metadata entry. Value bytes stay in the file's memory. */
struct m40_gguf_kv {
    struct m40_str key; /* NUL-terminated behind its end too */
    m40llm_value_type type;
    m40llm_value_type element_type; /* of an array (nested arrays: M40LLM_VALUE_ARRAY); otherwise = type */
    uint64_t n_elements;            /* of an array; otherwise 1 */
    const uint8_t *data;            /* the value: first element of an array, or the u64 length in front of a string's bytes */
    uint64_t n_bytes;               /* all of the value's bytes from data on */
};

struct m40_gguf_tensor {
    struct m40_str name; /* NUL-terminated behind its end too */
    const struct m40_dtype_info *type;
    uint32_t n_dims;
    uint64_t dims[4]; /* fastest first; 1 beyond n_dims */
    uint64_t n_elements;
    uint64_t size_bytes;
    const uint8_t *data; /* in the mapped file: valid for size_bytes, aligned as the file is */
};

struct m40_gguf {
    uint32_t version;
    uint32_t n_parts;
    uint64_t alignment;
    uint64_t size_bytes; /* of all parts */
    size_t n_kvs, n_tensors;
    struct m40_gguf_kv *kvs;
    struct m40_gguf_tensor *tensors;
    struct m40_gguf_index *kv_index, *tensor_index; /* by name: gguf.c */
    struct m40_gguf_strings *strings;               /* the NUL-terminated names */
    struct m40_gguf_map *maps;                      /* n_parts mapped files; NULL for m40_gguf_parse */
};

/* Parses one file's bytes, which stay the caller's and must outlive the result. Trusts nothing: every count, length, offset, dimension product and alignment is
 * checked against n_bytes; names are unique; every tensor lies inside the file, behind the header, on its alignment, and overlaps no other. `name` is what errors call the file.
 * BAD_FILE, NO_MEMORY. */
m40llm_status m40_gguf_parse(struct m40_gguf **out, const void *data, uint64_t n_bytes, const char *name, m40llm_error *err);

/* Maps a file read-only and parses it; all parts of a split one (split.count, names ending in -00001-of-0000N.gguf), whose tensors then form one list while the metadata are the first
 * part's. IO, BAD_FILE, NO_MEMORY; the text begins with the path. */
m40llm_status m40_gguf_open(struct m40_gguf **out, const char *path, m40llm_error *err);
void m40_gguf_close(struct m40_gguf **gguf);

/* Tells the system that a tensor of a mapped file will soon be needed. */
void m40_gguf_read_ahead(const struct m40_gguf *gguf, const struct m40_gguf_tensor *tensor);

/* NULL: not there. Constant time. */
const struct m40_gguf_kv *m40_gguf_find_kv(const struct m40_gguf *gguf, const char *key);
const struct m40_gguf_tensor *m40_gguf_find_tensor(const struct m40_gguf *gguf, const char *name);

/* Typed values; false where the entry is of another kind or (u64) negative. Any integer width and bool convert to u64/i64; floats and integers to f64. */
bool m40_gguf_kv_u64(const struct m40_gguf_kv *kv, uint64_t *out);
bool m40_gguf_kv_i64(const struct m40_gguf_kv *kv, int64_t *out);
bool m40_gguf_kv_f64(const struct m40_gguf_kv *kv, double *out);
bool m40_gguf_kv_bool(const struct m40_gguf_kv *kv, bool *out);
bool m40_gguf_kv_string(const struct m40_gguf_kv *kv, struct m40_str *out);

/* Elements of an array in order, in constant time each: start with *cursor = {0}. false: no more, or not an array of strings (of numbers; bools count as 0 and 1). */
struct m40_gguf_cursor {
    uint64_t i, offset_bytes;
};
bool m40_gguf_next_string(const struct m40_gguf_kv *kv, struct m40_gguf_cursor *cursor, struct m40_str *out);
bool m40_gguf_next_number(const struct m40_gguf_kv *kv, struct m40_gguf_cursor *cursor, double *out);

/* The value as text, as m40llm_file_metadata_text describes. */
size_t m40_gguf_kv_text(const struct m40_gguf_kv *kv, size_t max_elements, char *buffer, size_t capacity);

#endif
