/* What the files of gguf/ share among themselves. */
#ifndef M40_GGUF_GGUF_INTERNAL_H
#define M40_GGUF_GGUF_INTERNAL_H

#include "base/bytes.h"
#include "gguf/gguf.h"

#define M40_GGUF_DEFAULT_ALIGNMENT 32
#define M40_GGUF_ALIGNMENT_KEY     "general.alignment"

/* Names of one part, each NUL-terminated; the parts' blocks are chained. */
struct m40_gguf_strings {
    struct m40_gguf_strings *next;
    char text[];
};

struct m40_gguf_map {
    void *data;
    uint64_t n_bytes;
};

/* A hash table from names to numbers, made for at most n names, which must outlive it. Its seed differs from run to run, so that nobody can prepare names that collide. */
struct m40_gguf_index *m40_gguf_index_new(size_t n); /* NULL: no memory */
/* false: the name is there already. */
bool m40_gguf_index_add(struct m40_gguf_index *index, struct m40_str name, size_t i);
bool m40_gguf_index_find(const struct m40_gguf_index *index, struct m40_str name, size_t *out);

/* Passes over n values of the type. NULL: done; otherwise what is wrong with them ("the file ends inside it", ...). depth: how many arrays they lie in. */
const char *m40_gguf_skip_values(struct m40_bytes *b, uint32_t type, uint64_t n, unsigned depth);

/* An array's type and count, whose elements come next; the reason as above. */
const char *m40_gguf_read_array_head(struct m40_bytes *b, uint32_t *type, uint64_t *n);

/* Elements and bytes of a tensor; otherwise what is wrong with its shape. */
const char *m40_gguf_tensor_size(const struct m40_dtype_info *type, uint32_t n_dims, const uint64_t *dims, uint64_t *n_elements,
                                 uint64_t *size_bytes);

bool m40_gguf_alignment_is_valid(uint64_t alignment);

/* Fills a zeroed tensor_index from g->tensors. BAD_FILE: a name is there twice. */
m40llm_status m40_gguf_index_tensors(struct m40_gguf *g, const char *shown_path, m40llm_error *err);

/* A path as error texts show it: its end, behind "..." where it is long, so that it cannot crowd out the fault. */
#define M40_GGUF_SHOWN_BYTES 100
const char *m40_gguf_shown_path(char out[M40_GGUF_SHOWN_BYTES], const char *path);

/* For "%.*s": a name as error texts show it, cut where it is long. */
#define M40_GGUF_SHOWN_NAME(name) (int)((name).n_bytes < 48 ? (name).n_bytes : 48), (name).data

#endif
