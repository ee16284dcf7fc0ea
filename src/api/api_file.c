/* Files, writers and tokenizers: everything that needs no device. */
#include "api/api.h"
#include "base/mem.h"
#include "model/synth.h"
#include "tensor/format.h"


const char *m40llm_version(void)
{
    return M40LLM_VERSION;
}

enum { MAX_STRUCT_BYTES = 1 << 16 }; /* of a struct of any version; more is memory that nobody set */

void m40_api_options(void *out, size_t out_bytes, const void *given)
{
    size_t given_bytes;

    if (!given)
        return;
    memcpy(&given_bytes, given, sizeof given_bytes);
    memcpy(out, given, given_bytes < out_bytes ? given_bytes : out_bytes);
    memcpy(out, &out_bytes, sizeof out_bytes);
}

static bool has_size(const void *out)
{
    size_t n_bytes;

    memcpy(&n_bytes, out, sizeof n_bytes);
    return n_bytes > sizeof n_bytes && n_bytes <= MAX_STRUCT_BYTES;
}

m40llm_status m40_api_check_result(const void *out, m40llm_error *err)
{
    return has_size(out) ? M40LLM_OK : m40_fail(err, M40LLM_INVALID_ARGUMENT, "struct_size is not set: use the struct's INIT macro");
}

void m40_api_result(void *out, const void *in, size_t in_bytes)
{
    size_t out_bytes;

    if (!has_size(out))
        return;
    memcpy(&out_bytes, out, sizeof out_bytes);
    memcpy((char *)out + sizeof out_bytes, (const char *)in + sizeof out_bytes, (out_bytes < in_bytes ? out_bytes : in_bytes) - sizeof out_bytes);
}

m40llm_status m40llm_file_open(m40llm_file **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_file *file = m40_calloc(1, sizeof *file);

    *out = NULL;
    M40_FAIL_IF(!file, M40LLM_NO_MEMORY, "file object");
    M40_FAIL_IF(!path, M40LLM_INVALID_ARGUMENT, "no path");
    M40_TRY(m40_gguf_open(&file->gguf, path, err));
    *out = file;
    return M40LLM_OK;
fail:
    m40llm_file_close(&file);
    return status;
}

void m40llm_file_close(m40llm_file **file)
{
    if (!file || !*file)
        return;
    m40_gguf_close(&(*file)->gguf);
    m40_free(*file);
    *file = NULL;
}

uint32_t m40llm_file_version(const m40llm_file *file)
{
    return file->gguf->version;
}

uint64_t m40llm_file_size_bytes(const m40llm_file *file)
{
    return file->gguf->size_bytes;
}

uint32_t m40llm_file_n_parts(const m40llm_file *file)
{
    return file->gguf->n_parts;
}

size_t m40llm_file_n_metadata(const m40llm_file *file)
{
    return file->gguf->n_kvs;
}

m40llm_status m40llm_file_metadata(const m40llm_file *file, size_t i, m40llm_metadata *out)
{
    const struct m40_gguf_kv *kv;
    m40llm_metadata m;

    if (i >= file->gguf->n_kvs)
        return M40LLM_NOT_FOUND;
    if (!has_size(out))
        return M40LLM_INVALID_ARGUMENT;
    kv = &file->gguf->kvs[i];
    m = (m40llm_metadata){sizeof m, kv->key.data, kv->type, kv->element_type, kv->n_elements};
    m40_api_result(out, &m, sizeof m);
    return M40LLM_OK;
}

size_t m40llm_file_metadata_text(const m40llm_file *file, size_t i, size_t max_elements, char *buffer, size_t capacity)
{
    if (i < file->gguf->n_kvs)
        return m40_gguf_kv_text(&file->gguf->kvs[i], max_elements, buffer, capacity);
    if (capacity > 0)
        buffer[0] = 0;
    return 0;
}

m40llm_status m40llm_file_get_u64(const m40llm_file *file, const char *key, uint64_t *out)
{
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(file->gguf, key);

    if (!kv)
        return M40LLM_NOT_FOUND;
    return m40_gguf_kv_u64(kv, out) ? M40LLM_OK : M40LLM_INVALID_ARGUMENT;
}

m40llm_status m40llm_file_get_f64(const m40llm_file *file, const char *key, double *out)
{
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(file->gguf, key);

    if (!kv)
        return M40LLM_NOT_FOUND;
    return m40_gguf_kv_f64(kv, out) ? M40LLM_OK : M40LLM_INVALID_ARGUMENT;
}

m40llm_status m40llm_file_get_string(const m40llm_file *file, const char *key, const char **out, size_t *out_bytes)
{
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(file->gguf, key);
    struct m40_str text;

    if (!kv)
        return M40LLM_NOT_FOUND;
    if (!m40_gguf_kv_string(kv, &text))
        return M40LLM_INVALID_ARGUMENT;
    *out = text.data;
    *out_bytes = text.n_bytes;
    return M40LLM_OK;
}

size_t m40llm_file_n_tensors(const m40llm_file *file)
{
    return file->gguf->n_tensors;
}

m40llm_status m40llm_file_tensor(const m40llm_file *file, size_t i, m40llm_tensor_info *out)
{
    const struct m40_gguf_tensor *t;
    m40llm_tensor_info info;

    if (i >= file->gguf->n_tensors)
        return M40LLM_NOT_FOUND;
    if (!has_size(out))
        return M40LLM_INVALID_ARGUMENT;
    t = &file->gguf->tensors[i];
    info = (m40llm_tensor_info){
        .name = t->name.data,
        .type_name = t->type->name,
        .type = t->type->number,
        .n_dims = t->n_dims,
        .dims = {t->dims[0], t->dims[1], t->dims[2], t->dims[3]},
        .n_elements = t->n_elements,
        .size_bytes = t->size_bytes,
        .is_readable = t->type->is_readable,
    };
    m40_api_result(out, &info, sizeof info);
    return M40LLM_OK;
}

m40llm_status m40llm_file_find_tensor(const m40llm_file *file, const char *name, size_t *out_index)
{
    const struct m40_gguf_tensor *t = m40_gguf_find_tensor(file->gguf, name);

    if (!t)
        return M40LLM_NOT_FOUND;
    *out_index = (size_t)(t - file->gguf->tensors);
    return M40LLM_OK;
}

m40llm_status m40llm_file_dequantize(const m40llm_file *file, size_t i, uint64_t first_row, uint64_t n_rows, float *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_tensor *t;
    const struct m40_format *format;
    uint64_t row_blocks;

    M40_FAIL_IF(i >= file->gguf->n_tensors, M40LLM_NOT_FOUND, "tensor %zu: the file has %zu", i, file->gguf->n_tensors);
    t = &file->gguf->tensors[i];
    format = m40_format(t->type->number);
    M40_FAIL_IF(!format, M40LLM_UNSUPPORTED, "tensor %s: type %s cannot be dequantised", t->name.data, t->type->name);
    M40_FAIL_IF(n_rows > t->n_elements / t->dims[0] || first_row > t->n_elements / t->dims[0] - n_rows, M40LLM_INVALID_ARGUMENT,
                "tensor %s: rows %llu to %llu of %llu", t->name.data, (unsigned long long)first_row, (unsigned long long)(first_row + n_rows),
                (unsigned long long)(t->n_elements / t->dims[0]));
    row_blocks = t->dims[0] / t->type->block_elems;
    format->dequant(t->data + first_row * row_blocks * t->type->block_bytes, n_rows * row_blocks, out);
fail:
    return status;
}

/* ---- writers ---- */

m40llm_status m40llm_writer_open(m40llm_writer **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_writer *w = m40_calloc(1, sizeof *w);

    *out = NULL;
    M40_FAIL_IF(!w, M40LLM_NO_MEMORY, "writer object");
    M40_TRY(m40_gguf_writer_open(&w->writer, path, err));
    *out = w;
    return M40LLM_OK;
fail:
    m40llm_writer_close(&w);
    return status;
}

void m40llm_writer_close(m40llm_writer **w)
{
    if (!w || !*w)
        return;
    m40_gguf_writer_close(&(*w)->writer);
    m40_free(*w);
    *w = NULL;
}

m40llm_status m40llm_writer_set_u32(m40llm_writer *w, const char *key, uint32_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_u32(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_i32(m40llm_writer *w, const char *key, int32_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_i32(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_u64(m40llm_writer *w, const char *key, uint64_t value, m40llm_error *err)
{
    return m40_gguf_writer_set_u64(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_f32(m40llm_writer *w, const char *key, float value, m40llm_error *err)
{
    return m40_gguf_writer_set_f32(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_bool(m40llm_writer *w, const char *key, int value, m40llm_error *err)
{
    return m40_gguf_writer_set_bool(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_string(m40llm_writer *w, const char *key, const char *value, m40llm_error *err)
{
    return m40_gguf_writer_set_string(w->writer, key, value, err);
}

m40llm_status m40llm_writer_set_i32_array(m40llm_writer *w, const char *key, const int32_t *values, size_t n, m40llm_error *err)
{
    return m40_gguf_writer_set_i32_array(w->writer, key, values, n, err);
}

m40llm_status m40llm_writer_set_f32_array(m40llm_writer *w, const char *key, const float *values, size_t n, m40llm_error *err)
{
    return m40_gguf_writer_set_f32_array(w->writer, key, values, n, err);
}

m40llm_status m40llm_writer_set_string_array(m40llm_writer *w, const char *key, const char *const *values, size_t n, m40llm_error *err)
{
    return m40_gguf_writer_set_string_array(w->writer, key, values, n, err);
}

m40llm_status m40llm_writer_add_tensor(m40llm_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, m40llm_error *err)
{
    return m40_gguf_writer_add_tensor(w->writer, name, type, n_dims, dims, err);
}

m40llm_status m40llm_writer_data(m40llm_writer *w, const void *data, size_t size_bytes, m40llm_error *err)
{
    return m40_gguf_writer_data(w->writer, data, size_bytes, err);
}

m40llm_status m40llm_writer_finish(m40llm_writer *w, m40llm_error *err)
{
    return m40_gguf_writer_finish(w->writer, err);
}

m40llm_status m40llm_synth_write(const char *shape, const char *type, const char *path, m40llm_progress_fn progress, void *user, m40llm_error *err)
{
    return m40_synth_write(shape, type, path, progress, user, err);
}

const char *m40llm_synth_shapes(void)
{
    return m40_synth_shapes();
}

/* ---- tokenizers ---- */

m40llm_status m40llm_tokenizer_open(m40llm_tokenizer **out, const m40llm_file *file, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_tokenizer *t = m40_calloc(1, sizeof *t);

    *out = NULL;
    M40_FAIL_IF(!t, M40LLM_NO_MEMORY, "tokenizer object");
    M40_TRY(m40_tokenizer_open(&t->tokenizer, file->gguf, err));
    *out = t;
    return M40LLM_OK;
fail:
    m40llm_tokenizer_close(&t);
    return status;
}

void m40llm_tokenizer_close(m40llm_tokenizer **tokenizer)
{
    if (!tokenizer || !*tokenizer)
        return;
    m40_tokenizer_close(&(*tokenizer)->tokenizer);
    m40_free(*tokenizer);
    *tokenizer = NULL;
}

size_t m40llm_tokenizer_n_vocab(const m40llm_tokenizer *t)
{
    return m40_tokenizer_n_vocab(t->tokenizer);
}

int32_t m40llm_tokenizer_bos(const m40llm_tokenizer *t)
{
    return m40_tokenizer_bos(t->tokenizer);
}

int32_t m40llm_tokenizer_eos(const m40llm_tokenizer *t)
{
    return m40_tokenizer_eos(t->tokenizer);
}

int m40llm_tokenizer_is_end(const m40llm_tokenizer *t, int32_t id)
{
    return m40_tokenizer_is_end(t->tokenizer, id);
}

m40llm_status m40llm_tokenize(const m40llm_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, int32_t *ids, size_t capacity,
                              size_t *n_out, m40llm_error *err)
{
    return m40_tokenize(t->tokenizer, text, n_bytes, flags, ids, capacity, n_out, err);
}

m40llm_status m40llm_detokenize(const m40llm_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags, char *text, size_t capacity,
                                size_t *n_bytes_out, m40llm_error *err)
{
    return m40_detokenize(t->tokenizer, ids, n_ids, flags, text, capacity, n_bytes_out, err);
}

m40llm_status m40llm_stream_open(m40llm_stream **out, const m40llm_tokenizer *tokenizer, unsigned flags, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_stream *s = m40_calloc(1, sizeof *s);

    *out = NULL;
    M40_FAIL_IF(!s, M40LLM_NO_MEMORY, "stream object");
    M40_TRY(m40_token_stream_open(&s->stream, tokenizer->tokenizer, flags, err));
    *out = s;
    return M40LLM_OK;
fail:
    m40llm_stream_close(&s);
    return status;
}

m40llm_status m40llm_stream_push(m40llm_stream *stream, int32_t id, const char **text, size_t *n_bytes, m40llm_error *err)
{
    return m40_token_stream_push(stream->stream, id, text, n_bytes, err);
}

m40llm_status m40llm_stream_flush(m40llm_stream *stream, const char **text, size_t *n_bytes, m40llm_error *err)
{
    return m40_token_stream_flush(stream->stream, text, n_bytes, err);
}

void m40llm_stream_close(m40llm_stream **stream)
{
    if (!stream || !*stream)
        return;
    m40_token_stream_close(&(*stream)->stream);
    m40_free(*stream);
    *stream = NULL;
}
