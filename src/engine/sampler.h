/* The choice of the next token. The stages and their order are those of m40llm_sampling (m40llm.h). Bias and penalties are applied here; the rest is the "sample" of docs/numerics.md, which a
 * backend can do as well, to the same token on every machine. */
#ifndef M40_ENGINE_SAMPLER_H
#define M40_ENGINE_SAMPLER_H

#include "backend/sample.h"
#include "base/status.h"

#include <stdbool.h>

struct m40_sampler {
    m40llm_sampling params; /* bias points to a copy */
    m40llm_logit_bias *bias;
    size_t n_vocab;
    uint32_t *counts;             /* [n_vocab]: tokens of the penalty window, zero between calls; NULL: there are no penalties */
    float inv_temperature, min_z; /* of struct m40_sample_row */
};

/* Checks the parameters (INVALID_ARGUMENT names the bad one) and copies them. */
m40llm_status m40_sampler_init(struct m40_sampler *sampler, const m40llm_sampling *params, size_t n_vocab, m40llm_error *err);
void m40_sampler_free(struct m40_sampler *sampler);

/* The tokens before the one that is chosen. */
struct m40_history {
    const int32_t *prompt, *answer;
    size_t n_prompt, n_answer;
};

/* The token for position `pos`. logits: [n_vocab], changed by bias and penalties. */
int32_t m40_sampler_choose(struct m40_sampler *sampler, float *logits, const struct m40_history *history, uint32_t choice, uint32_t pos);

/* Whether m40_sampler_choose takes the logits as they are, so that a backend can choose instead, by m40_sampler_row; and whether it takes the likeliest token of these. */
bool m40_sampler_is_plain(const struct m40_sampler *sampler);
bool m40_sampler_is_argmax(const struct m40_sampler *sampler);

/* How the token for position `pos` is chosen, once bias and penalties are applied. */
struct m40_sample_row m40_sampler_row(const struct m40_sampler *sampler, uint32_t choice, uint32_t pos);

/* Uniform in 0 .. 2^64 - 1, a function of its arguments alone. */
uint64_t m40_sampler_random(uint64_t seed, uint32_t choice, uint32_t pos);

#endif
