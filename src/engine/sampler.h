/* The choice of the next token. The stages and their order are those of m40llm_sampling (m40llm.h); all arithmetic is FP32 in a written order, so that the same logits, parameters, seed
 * and position give the same token on every machine. */
#ifndef M40_ENGINE_SAMPLER_H
#define M40_ENGINE_SAMPLER_H

#include "base/status.h"

#include <stdbool.h>

struct m40_sampler {
    m40llm_sampling params; /* bias points to a copy */
    m40llm_logit_bias *bias;
    size_t n_vocab;
    uint32_t *counts;                     /* [n_vocab]: tokens of the penalty window; zero between calls */
    struct m40_sampler_candidate *sorted; /* [n_vocab]; made when the temperature is above 0 */
};

/* Checks the parameters (INVALID_ARGUMENT names the bad one) and copies them. */
m40llm_status m40_sampler_init(struct m40_sampler *sampler, const m40llm_sampling *params, size_t n_vocab, m40llm_error *err);
void m40_sampler_free(struct m40_sampler *sampler);

/* The token for position `pos`. logits: [n_vocab], changed by bias and penalties. history: all tokens before it, prompt and answer. */
int32_t m40_sampler_choose(struct m40_sampler *sampler, float *logits, const int32_t *history, size_t n_history, uint32_t choice, uint32_t pos);

/* Whether m40_sampler_choose takes the likeliest token of the logits as they are, so that only that token need be known. */
bool m40_sampler_is_argmax(const struct m40_sampler *sampler);

/* Uniform in [0, 1) in steps of 2^-24, a function of its arguments alone. */
float m40_sampler_uniform(uint64_t seed, uint32_t choice, uint32_t pos);

#endif
