/* The engine: requests in, tokens out. A thread of its own runs the steps; the public functions in m40llm.h are thin covers of these and hold the contracts. docs/engine.md is the whole of it. */
#ifndef M40_ENGINE_ENGINE_H
#define M40_ENGINE_ENGINE_H

#include "model/model.h"
#include "tokenizer/tokenizer.h"

struct m40_engine;

/* tokenizer: makes text and knows the end tokens; NULL: neither. */
m40llm_status m40_engine_open(struct m40_engine **out, struct m40_model *model, const struct m40_tokenizer *tokenizer,
                              const m40llm_engine_options *options, m40llm_error *err);
void m40_engine_close(struct m40_engine **engine);
void m40_engine_get_info(const struct m40_engine *engine, m40llm_engine_info *out);
void m40_engine_get_stats(struct m40_engine *engine, m40llm_stats *out);
void m40_engine_pause(struct m40_engine *engine);
void m40_engine_resume(struct m40_engine *engine);

m40llm_status m40_engine_submit(struct m40_engine *engine, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *options,
                                uint64_t *out_id, m40llm_error *err);
m40llm_status m40_engine_submit_text(struct m40_engine *engine, const char *text, size_t n_bytes, unsigned flags,
                                     const m40llm_request_options *options, uint64_t *out_id, m40llm_error *err);
/* options->pooling is not NONE. */
m40llm_status m40_engine_submit_embeddings(struct m40_engine *engine, const int32_t *ids, const size_t *n_ids, size_t n_texts,
                                           const m40llm_embed_options *options, uint64_t *out_id, m40llm_error *err);
m40llm_status m40_engine_read(struct m40_engine *engine, uint64_t id, int timeout_ms, m40llm_event *out, m40llm_error *err);
m40llm_status m40_engine_wait(struct m40_engine *engine, uint64_t id, m40llm_result *result, m40llm_error *err);
void m40_engine_forget(struct m40_engine *engine, uint64_t id);
void m40_engine_cancel(struct m40_engine *engine, uint64_t id);

/* The limits of the forward pass for these options (zeroes filled in as m40_engine_open does; n_ctx must be given): what memory estimates are made of. */
void m40_engine_limits(const struct m40_model_config *config, const m40llm_engine_options *options, struct m40_forward_limits *out);

#endif
