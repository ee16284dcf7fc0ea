/* The GGUF writer. Metadata and tensor descriptions gather in memory; data go straight to the file. */
#define _POSIX_C_SOURCE 200809L
#include "gguf/gguf_write.h"
#include "base/mem.h"
#include "base/str.h"
#include "gguf/gguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BUFFER_BYTES (1u << 20)

/* A key or a tensor's name, inside the buffer that holds its entry. */
struct entry {
    size_t name_offset, n_name_bytes;
    uint64_t size_bytes; /* of a tensor */
};

struct entries {
    struct m40_buf bytes; /* as they will be in the file */
    struct entry *items;
    size_t n, capacity;
};

struct m40_gguf_writer {
    FILE *file;
    char *path;
    char *file_buffer;
    char shown[M40_GGUF_SHOWN_BYTES];
    struct entries kvs, tensors;
    uint64_t alignment;
    uint64_t next_offset; /* where the next tensor to be added begins, from the data section's start */
    size_t i_tensor;      /* the tensor whose data comes next, */
    uint64_t n_written;   /* and how much of it has come */
    bool is_regular_file, is_header_written, is_finished;
};

m40llm_status m40_gguf_writer_open(struct m40_gguf_writer **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char shown[M40_GGUF_SHOWN_BYTES];
    struct m40_gguf_writer *w = m40_calloc(1, sizeof *w);
    struct stat info;

    *out = NULL;
    m40_gguf_shown_path(shown, path);
    M40_FAIL_IF(!w, M40LLM_NO_MEMORY, "%s: out of memory", shown);
    memcpy(w->shown, shown, sizeof shown);
    w->alignment = M40_GGUF_DEFAULT_ALIGNMENT;
    w->path = m40_strndup(path, strlen(path));
    w->file_buffer = m40_calloc(FILE_BUFFER_BYTES, 1);
    M40_FAIL_IF(!w->path || !w->file_buffer, M40LLM_NO_MEMORY, "%s: out of memory", shown);
    w->file = fopen(path, "wb");
    M40_FAIL_IF(!w->file, M40LLM_IO, "%s: cannot be written: %s", shown, strerror(errno));
    setvbuf(w->file, w->file_buffer, _IOFBF, FILE_BUFFER_BYTES);
    w->is_regular_file = fstat(fileno(w->file), &info) == 0 && S_ISREG(info.st_mode);
    *out = w;
    return M40LLM_OK;
fail:
    m40_gguf_writer_close(&w);
    return status;
}

void m40_gguf_writer_close(struct m40_gguf_writer **writer)
{
    struct m40_gguf_writer *w = writer ? *writer : NULL;

    if (!w)
        return;
    if (w->file)
        fclose(w->file);
    if (w->is_regular_file && !w->is_finished) /* never a device or a pipe that was given as the path */
        unlink(w->path);
    m40_buf_free(&w->kvs.bytes);
    m40_buf_free(&w->tensors.bytes);
    m40_free(w->kvs.items);
    m40_free(w->tensors.items);
    m40_free(w->file_buffer);
    m40_free(w->path);
    m40_free(w);
    *writer = NULL;
}

/* ---- entries ---- */

static bool append_u32(struct m40_buf *buf, uint32_t value)
{
    return m40_buf_append(buf, &value, sizeof value);
}

static bool append_u64(struct m40_buf *buf, uint64_t value)
{
    return m40_buf_append(buf, &value, sizeof value);
}

static bool append_string(struct m40_buf *buf, const char *text)
{
    size_t n = strlen(text);

    return append_u64(buf, n) && m40_buf_append(buf, text, n);
}

/* A new entry, that begins with its name. */
static bool begin_entry(struct entries *entries, const char *name, uint64_t size_bytes)
{
    if (entries->n == entries->capacity) {
        size_t capacity = entries->capacity ? entries->capacity * 2 : 64;
        struct entry *items = m40_realloc_array(entries->items, capacity, sizeof *items);

        if (!items)
            return false;
        entries->items = items;
        entries->capacity = capacity;
    }
    if (!append_string(&entries->bytes, name))
        return false;
    entries->items[entries->n++] = (struct entry){entries->bytes.n_bytes - strlen(name), strlen(name), size_bytes};
    return true;
}

/* Takes the last entries back, after a failure. */
static void truncate_entries(struct entries *entries, size_t n, size_t n_bytes)
{
    entries->n = n;
    entries->bytes.n_bytes = n_bytes;
}

static struct m40_str entry_name(const struct entries *entries, size_t i)
{
    return (struct m40_str){entries->bytes.data + entries->items[i].name_offset, entries->items[i].n_name_bytes};
}

static m40llm_status read_alignment(const struct m40_gguf_writer *w, m40llm_value_type type, const void *value, uint64_t *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t alignment;

    M40_FAIL_IF(type != M40LLM_VALUE_U32, M40LLM_INVALID_ARGUMENT, "%s: " M40_GGUF_ALIGNMENT_KEY " must be a u32", w->shown);
    M40_FAIL_IF(w->tensors.n, M40LLM_INVALID_ARGUMENT, "%s: " M40_GGUF_ALIGNMENT_KEY " must be set before the first tensor", w->shown);
    memcpy(&alignment, value, sizeof alignment);
    M40_FAIL_IF(!m40_gguf_alignment_is_valid(alignment), M40LLM_INVALID_ARGUMENT, "%s: " M40_GGUF_ALIGNMENT_KEY " %" PRIu32 " is not possible",
                w->shown, alignment);
    *out = alignment;
fail:
    return status;
}

m40llm_status m40_gguf_writer_set_raw(struct m40_gguf_writer *w, const char *key, m40llm_value_type type, const void *value, size_t n_bytes,
                                      m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_bytes b = {.data = value, .n_bytes = n_bytes};
    size_t n_before = w->kvs.n, n_bytes_before = w->kvs.bytes.n_bytes;
    uint64_t alignment = w->alignment;

    M40_FAIL_IF(w->is_header_written, M40LLM_INVALID_ARGUMENT, "%s: metadata '%.48s' comes after data", w->shown, key);
    M40_FAIL_IF((unsigned)type > M40LLM_VALUE_F64 || m40_gguf_skip_values(&b, type, 1, 0) || b.pos != n_bytes, M40LLM_INVALID_ARGUMENT,
                "%s: metadata '%.48s': the bytes are no value of type %d", w->shown, key, (int)type);
    if (strcmp(key, M40_GGUF_ALIGNMENT_KEY) == 0)
        M40_TRY(read_alignment(w, type, value, &alignment, err));
    if (!begin_entry(&w->kvs, key, 0) || !append_u32(&w->kvs.bytes, type) || !m40_buf_append(&w->kvs.bytes, value, n_bytes)) {
        truncate_entries(&w->kvs, n_before, n_bytes_before);
        return m40_fail(err, M40LLM_NO_MEMORY, "%s: out of memory (metadata '%.48s')", w->shown, key);
    }
    w->alignment = alignment;
fail:
    return status;
}

m40llm_status m40_gguf_writer_set_u32(struct m40_gguf_writer *w, const char *key, uint32_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_raw(w, key, M40LLM_VALUE_U32, &value, sizeof value, err);
}

m40llm_status m40_gguf_writer_set_i32(struct m40_gguf_writer *w, const char *key, int32_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_raw(w, key, M40LLM_VALUE_I32, &value, sizeof value, err);
}

m40llm_status m40_gguf_writer_set_u64(struct m40_gguf_writer *w, const char *key, uint64_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_raw(w, key, M40LLM_VALUE_U64, &value, sizeof value, err);
}

m40llm_status m40_gguf_writer_set_f32(struct m40_gguf_writer *w, const char *key, float value, m40llm_error *err)
{
    return m40_gguf_writer_set_raw(w, key, M40LLM_VALUE_F32, &value, sizeof value, err);
}

m40llm_status m40_gguf_writer_set_bool(struct m40_gguf_writer *w, const char *key, bool value, m40llm_error *err)
{
    uint8_t byte = value;

    return m40_gguf_writer_set_raw(w, key, M40LLM_VALUE_BOOL, &byte, sizeof byte, err);
}

/* Sets the value that was gathered in buf, unless memory ran out on the way, and frees buf. */
static m40llm_status set_gathered(struct m40_gguf_writer *w, const char *key, m40llm_value_type type, struct m40_buf *buf, bool is_complete,
                                  m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(!is_complete, M40LLM_NO_MEMORY, "%s: out of memory (metadata '%.48s')", w->shown, key);
    M40_TRY(m40_gguf_writer_set_raw(w, key, type, buf->data, buf->n_bytes, err));
fail:
    m40_buf_free(buf);
    return status;
}

m40llm_status m40_gguf_writer_set_string(struct m40_gguf_writer *w, const char *key, const char *value, m40llm_error *err)
{
    struct m40_buf buf = {0};

    return set_gathered(w, key, M40LLM_VALUE_STRING, &buf, append_string(&buf, value), err);
}

/* An array of four-byte numbers. */
static m40llm_status set_array_of_4(struct m40_gguf_writer *w, const char *key, m40llm_value_type type, const void *values, size_t n,
                                    m40llm_error *err)
{
    struct m40_buf buf = {0};
    bool is_complete = append_u32(&buf, type) && append_u64(&buf, n) && m40_buf_append(&buf, values, n * 4);

    return set_gathered(w, key, M40LLM_VALUE_ARRAY, &buf, is_complete, err);
}

m40llm_status m40_gguf_writer_set_i32_array(struct m40_gguf_writer *w, const char *key, const int32_t *values, size_t n, m40llm_error *err)
{
    return set_array_of_4(w, key, M40LLM_VALUE_I32, values, n, err);
}

m40llm_status m40_gguf_writer_set_f32_array(struct m40_gguf_writer *w, const char *key, const float *values, size_t n, m40llm_error *err)
{
    return set_array_of_4(w, key, M40LLM_VALUE_F32, values, n, err);
}

m40llm_status m40_gguf_writer_set_string_array(struct m40_gguf_writer *w, const char *key, const char *const *values, size_t n, m40llm_error *err)
{
    struct m40_buf buf = {0};
    bool is_complete = append_u32(&buf, M40LLM_VALUE_STRING) && append_u64(&buf, n);

    for (size_t i = 0; i < n && is_complete; i++)
        is_complete = append_string(&buf, values[i]);
    return set_gathered(w, key, M40LLM_VALUE_ARRAY, &buf, is_complete, err);
}

m40llm_status m40_gguf_writer_add_tensor(struct m40_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                                         m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_dtype_info *info = m40_dtype_info(type);
    size_t n_before = w->tensors.n, n_bytes_before = w->tensors.bytes.n_bytes;
    struct m40_buf *bytes = &w->tensors.bytes;
    uint64_t n_elements, size_bytes, end;
    const char *why;

    M40_FAIL_IF(w->is_header_written, M40LLM_INVALID_ARGUMENT, "%s: tensor '%.48s' comes after data", w->shown, name);
    M40_FAIL_IF(!info, M40LLM_INVALID_ARGUMENT, "%s: tensor '%.48s': unknown type %" PRIu32, w->shown, name, type);
    why = m40_gguf_tensor_size(info, n_dims, dims, &n_elements, &size_bytes);
    M40_FAIL_IF(why, M40LLM_INVALID_ARGUMENT, "%s: tensor '%.48s': %s", w->shown, name, why);
    M40_FAIL_IF(!m40_add_u64(w->next_offset, size_bytes, &end) || end > INT64_MAX, M40LLM_INVALID_ARGUMENT,
                "%s: tensor '%.48s': the file would be too large", w->shown, name);
    if (!begin_entry(&w->tensors, name, size_bytes) || !append_u32(bytes, n_dims) || !m40_buf_append(bytes, dims, n_dims * sizeof *dims) ||
        !append_u32(bytes, type) || !append_u64(bytes, w->next_offset)) {
        truncate_entries(&w->tensors, n_before, n_bytes_before);
        return m40_fail(err, M40LLM_NO_MEMORY, "%s: out of memory (tensor '%.48s')", w->shown, name);
    }
    w->next_offset = m40_round_up(end, w->alignment);
fail:
    return status;
}

/* ---- the file ---- */

static m40llm_status write_bytes(struct m40_gguf_writer *w, const void *data, size_t n_bytes, m40llm_error *err)
{
    if (n_bytes && fwrite(data, 1, n_bytes, w->file) != n_bytes)
        return m40_fail(err, M40LLM_IO, "%s: cannot be written: %s", w->shown, strerror(errno));
    return M40LLM_OK;
}

/* Zeros from n_bytes on to the next multiple of the alignment. */
static m40llm_status write_padding(struct m40_gguf_writer *w, uint64_t n_bytes, m40llm_error *err)
{
    static const uint8_t zeros[4096];
    uint64_t left = m40_round_up(n_bytes, w->alignment) - n_bytes;
    m40llm_status status = M40LLM_OK;

    while (left && status == M40LLM_OK) {
        size_t n = left < sizeof zeros ? left : sizeof zeros;

        status = write_bytes(w, zeros, n, err);
        left -= n;
    }
    return status;
}

static m40llm_status check_unique(const struct m40_gguf_writer *w, const struct entries *entries, const char *what, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_index *index = m40_gguf_index_new(entries->n);

    M40_FAIL_IF(!index, M40LLM_NO_MEMORY, "%s: out of memory (%zu names)", w->shown, entries->n);
    for (size_t i = 0; i < entries->n; i++)
        M40_FAIL_IF(!m40_gguf_index_add(index, entry_name(entries, i), i), M40LLM_INVALID_ARGUMENT, "%s: %s '%.*s' was set twice", w->shown, what,
                    M40_GGUF_SHOWN_NAME(entry_name(entries, i)));
fail:
    m40_free(index);
    return status;
}

static m40llm_status write_header(struct m40_gguf_writer *w, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t head[2] = {0, 3};
    uint64_t counts[2] = {w->tensors.n, w->kvs.n};

    if (w->is_header_written)
        return M40LLM_OK;
    M40_TRY(check_unique(w, &w->kvs, "metadata", err));
    M40_TRY(check_unique(w, &w->tensors, "tensor", err));
    memcpy(head, "GGUF", 4);
    M40_TRY(write_bytes(w, head, sizeof head, err));
    M40_TRY(write_bytes(w, counts, sizeof counts, err));
    M40_TRY(write_bytes(w, w->kvs.bytes.data, w->kvs.bytes.n_bytes, err));
    M40_TRY(write_bytes(w, w->tensors.bytes.data, w->tensors.bytes.n_bytes, err));
    M40_TRY(write_padding(w, sizeof head + sizeof counts + w->kvs.bytes.n_bytes + w->tensors.bytes.n_bytes, err));
    w->is_header_written = true;
fail:
    return status;
}

m40llm_status m40_gguf_writer_data(struct m40_gguf_writer *w, const void *data, size_t size_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t left;

    M40_FAIL_IF(w->i_tensor == w->tensors.n, M40LLM_INVALID_ARGUMENT, "%s: %zu bytes of data behind the last tensor's end", w->shown, size_bytes);
    left = w->tensors.items[w->i_tensor].size_bytes - w->n_written;
    M40_FAIL_IF(size_bytes > left, M40LLM_INVALID_ARGUMENT, "%s: tensor '%.*s': %zu bytes of data where %" PRIu64 " are left", w->shown,
                M40_GGUF_SHOWN_NAME(entry_name(&w->tensors, w->i_tensor)), size_bytes, left);
    M40_TRY(write_header(w, err));
    M40_TRY(write_bytes(w, data, size_bytes, err));
    w->n_written += size_bytes;
    if (size_bytes < left)
        return M40LLM_OK;
    M40_TRY(write_padding(w, w->n_written, err));
    w->i_tensor++;
    w->n_written = 0;
fail:
    return status;
}

m40llm_status m40_gguf_writer_finish(struct m40_gguf_writer *w, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    bool is_closed;

    M40_FAIL_IF(!w->file, M40LLM_INVALID_ARGUMENT, "%s: finished already", w->shown);
    M40_FAIL_IF(w->i_tensor < w->tensors.n, M40LLM_INVALID_ARGUMENT, "%s: tensor '%.*s': data is missing", w->shown,
                M40_GGUF_SHOWN_NAME(entry_name(&w->tensors, w->i_tensor)));
    M40_TRY(write_header(w, err));
    M40_FAIL_IF(ferror(w->file) || fflush(w->file) != 0, M40LLM_IO, "%s: cannot be written: %s", w->shown, strerror(errno));
    is_closed = fclose(w->file) == 0; /* some file systems tell of a full disk only now */
    w->file = NULL;
    M40_FAIL_IF(!is_closed, M40LLM_IO, "%s: cannot be written: %s", w->shown, strerror(errno));
    w->is_finished = true;
fail:
    return status;
}
