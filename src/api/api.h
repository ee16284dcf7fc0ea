/* The public handles. Each wraps one internal object; the functions of m40llm.h check arguments and pass on. */
#ifndef M40_API_API_H
#define M40_API_API_H

#include "backend/backend.h"
#include "engine/engine.h"
#include "gguf/gguf.h"
#include "gguf/gguf_write.h"
#include "model/model.h"
#include "tokenizer/template/template.h"
#include "tokenizer/tokenizer.h"

struct m40llm_file {
    struct m40_gguf *gguf;
};

struct m40llm_writer {
    struct m40_gguf_writer *writer;
};

struct m40llm_tokenizer {
    struct m40_tokenizer *tokenizer;
};

struct m40llm_stream {
    struct m40_token_stream *stream;
};

struct m40llm_template {
    struct m40_template *tmpl;
};

struct m40llm_device {
    struct m40_backend *backend;
};

struct m40llm_model {
    struct m40_model *model;
    m40llm_model_info info;
};

struct m40llm_engine {
    struct m40_engine *engine;
    m40llm_pooling pooling; /* where none is asked for */
};

/* Copies a caller's options struct of any earlier or later version over `*out`, which holds the defaults: the fields both know. `given` may be NULL. */
void m40_api_options(void *out, size_t out_bytes, const void *given);

/* Whether a struct that is to be filled has a struct_size that can be one: INVALID_ARGUMENT. */
m40llm_status m40_api_check_result(const void *out, m40llm_error *err);
/* Fills such a struct, of any earlier or later version, with the fields it has in common with `in`, the library's own. Its struct_size stays as it is. */
void m40_api_result(void *out, const void *in, size_t in_bytes);

#endif
