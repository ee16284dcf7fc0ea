/* A model so small that a test can make one in a millisecond, and edits that spoil it: written with the library's writer, opened with its reader. */
#ifndef M40_TESTS_TINY_MODEL_H
#define M40_TESTS_TINY_MODEL_H

#include "gguf/gguf.h"

enum edit_kind { NONE, DROP_KEY, SET_U32, SET_F32, SET_BOOL, SET_STRING, SET_TOKENS, DROP_TENSOR, SET_TYPE, SET_SHAPE, ADD_VECTOR, SPOIL_VALUES };

struct edit {
    enum edit_kind kind;
    const char *name; /* of the key or the tensor */
    double number;    /* SET_U32, SET_F32, SET_BOOL: the value; SET_TOKENS: how many; SET_TYPE: ggml's number; ADD_VECTOR: its length */
    const char *text; /* SET_STRING */
    uint64_t dims[2]; /* SET_SHAPE, fastest first */
};

/* The unspoilt model: architecture llama, F32, output not tied, no tokenizer. */
enum { EMBD = 64, HEADS = 4, KV_HEADS = 2, HEAD = 16, FF = 96, VOCAB = 40, LAYERS = 2, CTX = 128 };

/* The path of the tiny model with the edits applied, in test_tmp_dir(); to be freed with free(). Values are such that F32, F16 and BF16 hold them alike. */
char *tiny_model_path(const struct edit *edits, size_t n_edits);
/* The same, opened. */
struct m40_gguf *tiny_model_open(const struct edit *edits, size_t n_edits);

#endif
