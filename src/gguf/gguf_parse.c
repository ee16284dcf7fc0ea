/* A GGUF file's bytes -> struct m40_gguf. No I/O, and no trust: whatever is read is checked before it is used, counts against the bytes that are left before memory is asked for. */
#include "base/mem.h"
#include "gguf/gguf.h"
#include "gguf/gguf_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define MAX_ARRAY_DEPTH 4
#define MIN_ALIGNMENT   8 /* the format asks for a multiple of 8; the largest numbers in a tensor have 8 bytes */
#define MAX_ALIGNMENT   65536

/* The least that an entry takes: length of an empty name, type, a value of one byte; length, n_dims, one dimension, type, offset. */
#define MIN_KV_BYTES     (8 + 4 + 1)
#define MIN_TENSOR_BYTES (8 + 4 + 8 + 4 + 8)

static const char ends_inside[] = "the file ends inside it";

struct parser {
    struct m40_gguf *g;
    struct m40_bytes b;
    uint64_t *offsets; /* of the tensors, from the data section's start */
    char path[M40_GGUF_SHOWN_BYTES];
};

const char *m40_gguf_shown_path(char out[M40_GGUF_SHOWN_BYTES], const char *path)
{
    size_t n = strlen(path);

    if (n < M40_GGUF_SHOWN_BYTES) {
        memcpy(out, path, n + 1);
        return out;
    }
    path += n - (M40_GGUF_SHOWN_BYTES - 4);
    while (((unsigned char)*path & 0xc0) == 0x80) /* not in the middle of a UTF-8 sequence */
        path++;
    memcpy(out, "...", 3);
    memcpy(out + 3, path, strlen(path) + 1);
    return out;
}

/* ---- values ---- */

static uint32_t scalar_bytes(uint32_t type)
{
    switch (type) {
    case M40LLM_VALUE_U8:
    case M40LLM_VALUE_I8:
    case M40LLM_VALUE_BOOL:
        return 1;
    case M40LLM_VALUE_U16:
    case M40LLM_VALUE_I16:
        return 2;
    case M40LLM_VALUE_U32:
    case M40LLM_VALUE_I32:
    case M40LLM_VALUE_F32:
        return 4;
    case M40LLM_VALUE_U64:
    case M40LLM_VALUE_I64:
    case M40LLM_VALUE_F64:
        return 8;
    default:
        return 0;
    }
}

static const char *skip_scalars(struct m40_bytes *b, uint32_t type, uint64_t n)
{
    uint32_t size = scalar_bytes(type);
    const uint8_t *data;

    if (n > m40_bytes_left(b) / size)
        return ends_inside;
    data = m40_bytes_take(b, n * size);
    if (type == M40LLM_VALUE_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (data[i] > 1)
                return "a bool in it is neither 0 nor 1";
    return NULL;
}

const char *m40_gguf_read_array_head(struct m40_bytes *b, uint32_t *type, uint64_t *n)
{
    *type = m40_bytes_u32(b);
    *n = m40_bytes_u64(b);
    if (b->failed)
        return ends_inside;
    return *type > M40LLM_VALUE_F64 ? "its elements are of an unknown type" : NULL;
}

/* Ends with the file's bytes at the latest: every element takes some. */
const char *m40_gguf_skip_values(struct m40_bytes *b, uint32_t type, uint64_t n, unsigned depth)
{
    const char *why = NULL;

    if (type == M40LLM_VALUE_STRING) {
        for (uint64_t i = 0; i < n; i++)
            if (!m40_bytes_take(b, m40_bytes_u64(b)))
                return ends_inside;
        return NULL;
    }
    if (type != M40LLM_VALUE_ARRAY)
        return skip_scalars(b, type, n);
    if (depth >= MAX_ARRAY_DEPTH)
        return "its arrays are nested too deeply";
    for (uint64_t i = 0; i < n && !why; i++) {
        uint32_t element_type;
        uint64_t n_elements;

        why = m40_gguf_read_array_head(b, &element_type, &n_elements);
        if (!why)
            why = m40_gguf_skip_values(b, element_type, n_elements, depth + 1);
    }
    return why;
}

/* ---- metadata ---- */

/* NULL: a name was read; it still lies in the file's bytes. */
static const char *read_name(struct m40_bytes *b, struct m40_str *out)
{
    uint64_t n_bytes = m40_bytes_u64(b);
    const char *data = (const char *)m40_bytes_take(b, n_bytes);

    if (!data)
        return "the file ends inside its name";
    *out = (struct m40_str){data, n_bytes};
    return memchr(data, 0, n_bytes) ? "its name holds a NUL byte" : NULL;
}

static const char *read_value(struct m40_bytes *b, struct m40_gguf_kv *kv)
{
    uint32_t type = m40_bytes_u32(b);
    uint32_t element_type = type;
    uint64_t start;
    const char *why = NULL;

    kv->n_elements = 1;
    if (b->failed)
        return ends_inside;
    if (type > M40LLM_VALUE_F64)
        return "its value is of an unknown type";
    if (type == M40LLM_VALUE_ARRAY)
        why = m40_gguf_read_array_head(b, &element_type, &kv->n_elements);
    if (why)
        return why;
    kv->type = (m40llm_value_type)type;
    kv->element_type = (m40llm_value_type)element_type;
    start = b->pos;
    kv->data = b->data + start;
    why = m40_gguf_skip_values(b, element_type, kv->n_elements, type == M40LLM_VALUE_ARRAY);
    kv->n_bytes = b->pos - start;
    return why;
}

static m40llm_status read_kv(struct parser *p, size_t i, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_kv *kv = &p->g->kvs[i];
    uint64_t at = p->b.pos;
    const char *why = read_name(&p->b, &kv->key);

    M40_FAIL_IF(why, M40LLM_BAD_FILE, "%s: metadata entry %zu at byte %" PRIu64 ": %s", p->path, i, at, why);
    why = read_value(&p->b, kv);
    M40_FAIL_IF(why, M40LLM_BAD_FILE, "%s: metadata '%.*s' at byte %" PRIu64 ": %s", p->path, M40_GGUF_SHOWN_NAME(kv->key), at, why);
fail:
    return status;
}

/* ---- tensors ---- */

const char *m40_gguf_tensor_size(const struct m40_dtype_info *type, uint32_t n_dims, const uint64_t *dims, uint64_t *n_elements, uint64_t *size_bytes)
{
    uint64_t n_rows = 1;

    if (n_dims < 1 || n_dims > 4)
        return "it must have 1 to 4 dimensions";
    for (uint32_t i = 0; i < n_dims; i++)
        if (dims[i] == 0)
            return "a dimension is 0";
    if (dims[0] % type->block_elems != 0)
        return "its rows are no whole number of blocks";
    for (uint32_t i = 1; i < n_dims; i++)
        if (!m40_mul_u64(n_rows, dims[i], &n_rows))
            return "the product of its dimensions overflows";
    if (!m40_mul_u64(n_rows, dims[0], n_elements) || !m40_dtype_row_bytes(type, dims[0], size_bytes) || !m40_mul_u64(*size_bytes, n_rows, size_bytes))
        return "the product of its dimensions overflows";
    return NULL;
}

static m40llm_status read_tensor(struct parser *p, size_t i, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_tensor *t = &p->g->tensors[i];
    uint64_t at = p->b.pos;
    uint32_t type;
    const char *why = read_name(&p->b, &t->name);

    M40_FAIL_IF(why, M40LLM_BAD_FILE, "%s: tensor %zu at byte %" PRIu64 ": %s", p->path, i, at, why);
    t->n_dims = m40_bytes_u32(&p->b);
    M40_FAIL_IF(t->n_dims > 4, M40LLM_BAD_FILE, "%s: tensor '%.*s' at byte %" PRIu64 ": it must have 1 to 4 dimensions, not %" PRIu32, p->path,
                M40_GGUF_SHOWN_NAME(t->name), at, t->n_dims);
    for (uint32_t d = 0; d < 4; d++)
        t->dims[d] = d < t->n_dims ? m40_bytes_u64(&p->b) : 1;
    type = m40_bytes_u32(&p->b);
    p->offsets[i] = m40_bytes_u64(&p->b);
    M40_FAIL_IF(p->b.failed, M40LLM_BAD_FILE, "%s: tensor '%.*s' at byte %" PRIu64 ": the file ends inside its description", p->path,
                M40_GGUF_SHOWN_NAME(t->name), at);
    t->type = m40_dtype_info(type);
    M40_FAIL_IF(!t->type, M40LLM_BAD_FILE, "%s: tensor '%.*s' at byte %" PRIu64 ": unknown type %" PRIu32, p->path, M40_GGUF_SHOWN_NAME(t->name), at,
                type);
    why = m40_gguf_tensor_size(t->type, t->n_dims, t->dims, &t->n_elements, &t->size_bytes);
    M40_FAIL_IF(why, M40LLM_BAD_FILE, "%s: tensor '%.*s' at byte %" PRIu64 ": %s", p->path, M40_GGUF_SHOWN_NAME(t->name), at, why);
fail:
    return status;
}

bool m40_gguf_alignment_is_valid(uint64_t alignment)
{
    return alignment >= MIN_ALIGNMENT && alignment <= MAX_ALIGNMENT && (alignment & (alignment - 1)) == 0;
}

static m40llm_status read_alignment(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(p->g, M40_GGUF_ALIGNMENT_KEY);

    p->g->alignment = M40_GGUF_DEFAULT_ALIGNMENT;
    if (!kv)
        return M40LLM_OK;
    M40_FAIL_IF(!m40_gguf_kv_u64(kv, &p->g->alignment), M40LLM_BAD_FILE, "%s: " M40_GGUF_ALIGNMENT_KEY " is not an unsigned number", p->path);
    M40_FAIL_IF(!m40_gguf_alignment_is_valid(p->g->alignment), M40LLM_BAD_FILE,
                "%s: " M40_GGUF_ALIGNMENT_KEY " is %" PRIu64 ": it must be a power of two from %d to %d", p->path, p->g->alignment, MIN_ALIGNMENT,
                MAX_ALIGNMENT);
fail:
    return status;
}

/* Points every tensor into the data section, which begins at the next multiple of the alignment behind the descriptions. */
static m40llm_status place_tensors(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t data_start = m40_round_up(p->b.pos, p->g->alignment);

    for (size_t i = 0; i < p->g->n_tensors; i++) {
        struct m40_gguf_tensor *t = &p->g->tensors[i];
        uint64_t begin, end;

        M40_FAIL_IF(p->offsets[i] % p->g->alignment != 0, M40LLM_BAD_FILE,
                    "%s: tensor '%.*s': offset %" PRIu64 " is no multiple of the alignment %" PRIu64, p->path, M40_GGUF_SHOWN_NAME(t->name),
                    p->offsets[i], p->g->alignment);
        M40_FAIL_IF(!m40_add_u64(data_start, p->offsets[i], &begin) || !m40_add_u64(begin, t->size_bytes, &end) || end > p->b.n_bytes,
                    M40LLM_BAD_FILE, "%s: tensor '%.*s' at offset %" PRIu64 ", %" PRIu64 " bytes, reaches past the end of the file", p->path,
                    M40_GGUF_SHOWN_NAME(t->name), p->offsets[i], t->size_bytes);
        t->data = p->b.data + begin;
    }
fail:
    return status;
}

static int compare_places(const void *a, const void *b)
{
    const struct m40_gguf_tensor *x = *(const struct m40_gguf_tensor *const *)a;
    const struct m40_gguf_tensor *y = *(const struct m40_gguf_tensor *const *)b;

    return (x->data > y->data) - (x->data < y->data);
}

static m40llm_status check_overlaps(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n = p->g->n_tensors;
    const struct m40_gguf_tensor **sorted = m40_calloc(n, sizeof *sorted);

    M40_FAIL_IF(!sorted, M40LLM_NO_MEMORY, "%s: out of memory (%zu tensors)", p->path, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &p->g->tensors[i];
    qsort(sorted, n, sizeof *sorted, compare_places);
    for (size_t i = 1; i < n; i++)
        M40_FAIL_IF(sorted[i]->data < sorted[i - 1]->data + sorted[i - 1]->size_bytes, M40LLM_BAD_FILE,
                    "%s: tensors '%.*s' and '%.*s' overlap at byte %" PRIu64, p->path, M40_GGUF_SHOWN_NAME(sorted[i - 1]->name),
                    M40_GGUF_SHOWN_NAME(sorted[i]->name), (uint64_t)(sorted[i]->data - p->b.data));
fail:
    m40_free(sorted);
    return status;
}

/* ---- names ---- */

static void move_name(struct m40_str *name, char **to)
{
    memcpy(*to, name->data, name->n_bytes);
    name->data = *to;
    *to += name->n_bytes + 1; /* the NUL is there: the block is zeroed */
}

/* Copies all names out of the file, to have a NUL behind each. */
static m40llm_status keep_names(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf *g = p->g;
    size_t n_bytes = 0;
    char *to;

    for (size_t i = 0; i < g->n_kvs; i++)
        n_bytes += g->kvs[i].key.n_bytes + 1;
    for (size_t i = 0; i < g->n_tensors; i++)
        n_bytes += g->tensors[i].name.n_bytes + 1;
    g->strings = m40_calloc(1, sizeof *g->strings + n_bytes);
    M40_FAIL_IF(!g->strings, M40LLM_NO_MEMORY, "%s: out of memory (%zu bytes of names)", p->path, n_bytes);
    to = g->strings->text;
    for (size_t i = 0; i < g->n_kvs; i++)
        move_name(&g->kvs[i].key, &to);
    for (size_t i = 0; i < g->n_tensors; i++)
        move_name(&g->tensors[i].name, &to);
fail:
    return status;
}

static m40llm_status index_kvs(struct parser *p, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf *g = p->g;

    g->kv_index = m40_gguf_index_new(g->n_kvs);
    M40_FAIL_IF(!g->kv_index, M40LLM_NO_MEMORY, "%s: out of memory (%zu metadata entries)", p->path, g->n_kvs);
    for (size_t i = 0; i < g->n_kvs; i++)
        M40_FAIL_IF(!m40_gguf_index_add(g->kv_index, g->kvs[i].key, i), M40LLM_BAD_FILE, "%s: metadata '%.*s' is there twice", p->path,
                    M40_GGUF_SHOWN_NAME(g->kvs[i].key));
fail:
    return status;
}

m40llm_status m40_gguf_index_tensors(struct m40_gguf *g, const char *shown_path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    g->tensor_index = m40_gguf_index_new(g->n_tensors);
    M40_FAIL_IF(!g->tensor_index, M40LLM_NO_MEMORY, "%s: out of memory (%zu tensors)", shown_path, g->n_tensors);
    for (size_t i = 0; i < g->n_tensors; i++)
        M40_FAIL_IF(!m40_gguf_index_add(g->tensor_index, g->tensors[i].name, i), M40LLM_BAD_FILE, "%s: tensor '%.*s' is there twice", shown_path,
                    M40_GGUF_SHOWN_NAME(g->tensors[i].name));
fail:
    return status;
}

/* ---- the whole ---- */

static m40llm_status read_header(struct parser *p, uint64_t *n_tensors, uint64_t *n_kvs, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint8_t *magic;
    uint32_t version;

    M40_FAIL_IF(p->b.n_bytes == 0, M40LLM_BAD_FILE, "%s: the file is empty", p->path);
    magic = m40_bytes_take(&p->b, 4);
    M40_FAIL_IF(!magic || memcmp(magic, "GGUF", 4) != 0, M40LLM_BAD_FILE, "%s: not a GGUF file (it does not begin with 'GGUF')", p->path);
    version = m40_bytes_u32(&p->b);
    *n_tensors = m40_bytes_u64(&p->b);
    *n_kvs = m40_bytes_u64(&p->b);
    M40_FAIL_IF(version == 0x02000000 || version == 0x03000000, M40LLM_BAD_FILE, "%s: a big-endian GGUF file; only little-endian ones are supported",
                p->path);
    M40_FAIL_IF(p->b.failed, M40LLM_BAD_FILE, "%s: the file ends inside its header (%" PRIu64 " bytes)", p->path, p->b.n_bytes);
    M40_FAIL_IF(version != 2 && version != 3, M40LLM_BAD_FILE, "%s: GGUF version %" PRIu32 " is not supported (2 and 3 are)", p->path, version);
    M40_FAIL_IF(*n_kvs > m40_bytes_left(&p->b) / MIN_KV_BYTES, M40LLM_BAD_FILE,
                "%s: a count of %" PRIu64 " metadata entries cannot be true of a file of %" PRIu64 " bytes", p->path, *n_kvs, p->b.n_bytes);
    M40_FAIL_IF(*n_tensors > (m40_bytes_left(&p->b) - *n_kvs * MIN_KV_BYTES) / MIN_TENSOR_BYTES, M40LLM_BAD_FILE,
                "%s: a count of %" PRIu64 " tensors cannot be true of a file of %" PRIu64 " bytes", p->path, *n_tensors, p->b.n_bytes);
    p->g->version = version;
fail:
    return status;
}

static m40llm_status read_metadata(struct parser *p, uint64_t n_kvs, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    p->g->kvs = m40_calloc(n_kvs, sizeof *p->g->kvs);
    M40_FAIL_IF(!p->g->kvs, M40LLM_NO_MEMORY, "%s: out of memory (%" PRIu64 " metadata entries)", p->path, n_kvs);
    for (size_t i = 0; i < n_kvs; i++)
        M40_TRY(read_kv(p, i, err));
    p->g->n_kvs = n_kvs;
fail:
    return status;
}

static m40llm_status read_tensors(struct parser *p, uint64_t n_tensors, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(n_tensors > m40_bytes_left(&p->b) / MIN_TENSOR_BYTES, M40LLM_BAD_FILE,
                "%s: the file ends inside the descriptions of its %" PRIu64 " tensors", p->path, n_tensors);
    p->g->tensors = m40_calloc(n_tensors, sizeof *p->g->tensors);
    p->offsets = m40_calloc(n_tensors, sizeof *p->offsets);
    M40_FAIL_IF(!p->g->tensors || !p->offsets, M40LLM_NO_MEMORY, "%s: out of memory (%" PRIu64 " tensors)", p->path, n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        M40_TRY(read_tensor(p, i, err));
    p->g->n_tensors = n_tensors;
fail:
    return status;
}

m40llm_status m40_gguf_parse(struct m40_gguf **out, const void *data, uint64_t n_bytes, const char *name, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct parser p = {.b = {.data = data, .n_bytes = n_bytes}};
    uint64_t n_tensors = 0, n_kvs = 0;

    *out = NULL;
    m40_gguf_shown_path(p.path, name);
    p.g = m40_calloc(1, sizeof *p.g);
    M40_FAIL_IF(!p.g, M40LLM_NO_MEMORY, "%s: out of memory", p.path);
    p.g->n_parts = 1;
    p.g->size_bytes = n_bytes;
    M40_TRY(read_header(&p, &n_tensors, &n_kvs, err));
    M40_TRY(read_metadata(&p, n_kvs, err));
    M40_TRY(read_tensors(&p, n_tensors, err));
    M40_TRY(keep_names(&p, err));
    M40_TRY(index_kvs(&p, err));
    M40_TRY(m40_gguf_index_tensors(p.g, p.path, err));
    M40_TRY(read_alignment(&p, err));
    M40_TRY(place_tensors(&p, err));
    M40_TRY(check_overlaps(&p, err));
    m40_free(p.offsets);
    *out = p.g;
    return M40LLM_OK;
fail:
    m40_free(p.offsets);
    m40_gguf_close(&p.g);
    return status;
}
