/* Writes a GGUF v3 file: open, metadata, tensors, their data in the same order, finish, close. m40llm.h's m40llm_writer_* are these functions. */
#ifndef M40_GGUF_GGUF_WRITE_H
#define M40_GGUF_GGUF_WRITE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct m40_gguf_writer;

/* Makes the file, or empties it. IO, NO_MEMORY. */
m40llm_status m40_gguf_writer_open(struct m40_gguf_writer **out, const char *path, m40llm_error *err);
/* Removes the file unless it was finished. */
void m40_gguf_writer_close(struct m40_gguf_writer **writer);

/* Metadata, in file order; values are copied. INVALID_ARGUMENT: data has been written already. NO_MEMORY. */
m40llm_status m40_gguf_writer_set_u32(struct m40_gguf_writer *w, const char *key, uint32_t value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_i32(struct m40_gguf_writer *w, const char *key, int32_t value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_u64(struct m40_gguf_writer *w, const char *key, uint64_t value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_f32(struct m40_gguf_writer *w, const char *key, float value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_bool(struct m40_gguf_writer *w, const char *key, bool value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_string(struct m40_gguf_writer *w, const char *key, const char *value, m40llm_error *err);
m40llm_status m40_gguf_writer_set_i32_array(struct m40_gguf_writer *w, const char *key, const int32_t *values, size_t n, m40llm_error *err);
m40llm_status m40_gguf_writer_set_f32_array(struct m40_gguf_writer *w, const char *key, const float *values, size_t n, m40llm_error *err);
m40llm_status m40_gguf_writer_set_string_array(struct m40_gguf_writer *w, const char *key, const char *const *values, size_t n, m40llm_error *err);

/* A value of any type, as the format has it: a string is its u64 length and its bytes; an array its u32 element type, u64 count and elements.
 * INVALID_ARGUMENT: the bytes are no such value, or no whole one. general.alignment sets where tensors may begin, and must come before the first tensor. */
m40llm_status m40_gguf_writer_set_raw(struct m40_gguf_writer *w, const char *key, m40llm_value_type type, const void *value, size_t n_bytes,
                                      m40llm_error *err);

/* type: ggml's number. dims: fastest first. INVALID_ARGUMENT: no such type, or no such shape of it. */
m40llm_status m40_gguf_writer_add_tensor(struct m40_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                                         m40llm_error *err);

/* The next size_bytes of tensor data; the first call writes the header. A piece may not cross a tensor's end: INVALID_ARGUMENT. IO. */
m40llm_status m40_gguf_writer_data(struct m40_gguf_writer *w, const void *data, size_t size_bytes, m40llm_error *err);

/* INVALID_ARGUMENT: data is missing (the text says of which tensor), or a name was used twice. IO: not all could be written. */
m40llm_status m40_gguf_writer_finish(struct m40_gguf_writer *w, m40llm_error *err);

#endif
