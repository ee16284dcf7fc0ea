/* Log probabilities of tokens by a row of logits, as it came from the model: x - max - log(sum of exp(x - max)), added in double precision in ascending order. */
#ifndef M40_ENGINE_LOGPROBS_H
#define M40_ENGINE_LOGPROBS_H

#include "m40llm.h"

/* What has to be subtracted from a logit of the row [n >= 1]. */
double m40_logprobs_offset(const float *logits, size_t n);
/* Of one of its logits. */
float m40_logprob(float logit, double offset);
/* The n_top <= n likeliest into top, likeliest first; of equal ones the lower id. offset: of m40_logprobs_offset. */
void m40_logprobs_top(const float *logits, size_t n, double offset, m40llm_token_logprob *top, uint32_t n_top);

#endif
