#include "engine/logprobs.h"
#include "base/fmath.h"

#include <math.h>
#include <stdbool.h>

double m40_logprobs_offset(const float *logits, size_t n)
{
    float best = -INFINITY;
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        if (logits[i] > best)
            best = logits[i];
    if (isinf(best)) /* the likeliest tokens' probability is then 1, and no other has any */
        return (double)best;
    for (size_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY)
            sum += (double)m40_expf(logits[i] - best);
    return (double)best + log(sum);
}

float m40_logprob(float logit, double offset)
{
    if (!(logit > -INFINITY)) /* a NaN's, too */
        return -INFINITY;
    return isinf(logit) ? 0 : (float)((double)logit - offset);
}

/* NaN counts as -infinity. */
static bool is_likelier(float a, float b)
{
    return a > b || (isnan(b) && a > -INFINITY);
}

void m40_logprobs_top(const float *logits, size_t n, double offset, m40llm_token_logprob *top, uint32_t n_top)
{
    uint32_t n_found = 0;

    for (size_t i = 0; i < n && n_top > 0; i++) {
        uint32_t k = n_found;

        if (n_found < n_top)
            n_found++;
        else if (is_likelier(logits[i], logits[top[n_top - 1].id]))
            k--;
        else
            continue;
        for (; k > 0 && is_likelier(logits[i], logits[top[k - 1].id]); k--)
            top[k] = top[k - 1];
        top[k].id = (int32_t)i;
    }
    for (uint32_t k = 0; k < n_found; k++)
        top[k].logprob = m40_logprob(logits[top[k].id], offset);
}
