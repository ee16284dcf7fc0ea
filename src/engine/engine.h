/* The engine: requests in, tokens out. It owns the KV pages and decides what the next step computes; the forward pass does the computing. The caller's thread drives it through
 * m40_engine_wait; m40_engine_cancel may come from anywhere. The public functions in m40llm.h are thin covers of these and hold the contracts. */
#ifndef M40_ENGINE_ENGINE_H
#define M40_ENGINE_ENGINE_H

#include "model/model.h"
#include "tokenizer/tokenizer.h"

struct m40_engine;

/* tokenizer: knows the end tokens; NULL: there are none. */
m40llm_status m40_engine_open(struct m40_engine **out, struct m40_model *model, const struct m40_tokenizer *tokenizer,
                              const m40llm_engine_options *options, m40llm_error *err);
void m40_engine_close(struct m40_engine **engine);
void m40_engine_get_info(const struct m40_engine *engine, m40llm_engine_info *out);
void m40_engine_get_stats(const struct m40_engine *engine, m40llm_stats *out);

m40llm_status m40_engine_submit(struct m40_engine *engine, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *options,
                                uint64_t *out_id, m40llm_error *err);
m40llm_status m40_engine_wait(struct m40_engine *engine, uint64_t id, m40llm_result *result, m40llm_error *err);
/* Async-signal-safe. */
void m40_engine_cancel(struct m40_engine *engine, uint64_t id);

/* The limits of the forward pass for these options (zeroes filled in as m40_engine_open does; n_ctx must be given): what memory estimates are made of. */
void m40_engine_limits(const struct m40_model_config *config, const m40llm_engine_options *options, struct m40_forward_limits *out);

#endif
