#include "engine/sampler.h"
#include "base/fmath.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

/* Candidates further than this below the best, after temperature, are left out: their probability is less than e^-24 of the best one's, and ordering a whole vocabulary for them is the
 * most expensive step. */
#define CUT_BELOW_BEST 24.0f

struct m40_sampler_candidate {
    float logit;
    float weight; /* exp((logit - best) / temperature) */
    int32_t id;
};

static m40llm_status check_params(const m40llm_sampling *p, size_t n_vocab, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(!(p->temperature >= 0) || isinf(p->temperature), M40LLM_INVALID_ARGUMENT, "temperature %g: must be 0 or more",
                (double)p->temperature);
    M40_FAIL_IF(!(p->top_p > 0 && p->top_p <= 1), M40LLM_INVALID_ARGUMENT, "top_p %g: must be above 0 and at most 1", (double)p->top_p);
    M40_FAIL_IF(!(p->min_p >= 0 && p->min_p <= 1), M40LLM_INVALID_ARGUMENT, "min_p %g: must be between 0 and 1", (double)p->min_p);
    M40_FAIL_IF(!(p->repeat_penalty > 0) || isinf(p->repeat_penalty), M40LLM_INVALID_ARGUMENT, "repeat_penalty %g: must be above 0",
                (double)p->repeat_penalty);
    M40_FAIL_IF(!isfinite(p->frequency_penalty) || !isfinite(p->presence_penalty), M40LLM_INVALID_ARGUMENT, "penalties must be finite");
    for (size_t i = 0; i < p->n_bias; i++) {
        M40_FAIL_IF(p->bias[i].id < 0 || (size_t)p->bias[i].id >= n_vocab, M40LLM_INVALID_ARGUMENT,
                    "logit bias for token %d: the vocabulary has %zu tokens", p->bias[i].id, n_vocab);
        M40_FAIL_IF(isnan(p->bias[i].bias), M40LLM_INVALID_ARGUMENT, "logit bias for token %d is not a number", p->bias[i].id);
    }
fail:
    return status;
}

m40llm_status m40_sampler_init(struct m40_sampler *sampler, const m40llm_sampling *params, size_t n_vocab, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *sampler = (struct m40_sampler){.params = *params, .n_vocab = n_vocab};
    M40_TRY(check_params(params, n_vocab, err));
    if (params->n_bias) {
        sampler->bias = m40_calloc(params->n_bias, sizeof *sampler->bias);
        M40_FAIL_IF(!sampler->bias, M40LLM_NO_MEMORY, "logit bias");
        memcpy(sampler->bias, params->bias, params->n_bias * sizeof *sampler->bias);
    }
    sampler->params.bias = sampler->bias;
    sampler->counts = m40_calloc(n_vocab, sizeof *sampler->counts);
    M40_FAIL_IF(!sampler->counts, M40LLM_NO_MEMORY, "sampler");
    if (params->temperature > 0) {
        sampler->sorted = m40_calloc(n_vocab, sizeof *sampler->sorted);
        M40_FAIL_IF(!sampler->sorted, M40LLM_NO_MEMORY, "sampler");
    }
    return M40LLM_OK;
fail:
    m40_sampler_free(sampler);
    return status;
}

void m40_sampler_free(struct m40_sampler *sampler)
{
    m40_free(sampler->bias);
    m40_free(sampler->counts);
    m40_free(sampler->sorted);
    *sampler = (struct m40_sampler){0};
}

static uint64_t mix(uint64_t z) /* splitmix64's finaliser */
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

float m40_sampler_uniform(uint64_t seed, uint32_t choice, uint32_t pos)
{
    uint64_t z = mix(seed + 0x9E3779B97F4A7C15u);

    z = mix(z ^ ((uint64_t)choice << 32 | pos));
    return (float)(z >> 40) * 0x1p-24f;
}

/* Each token of the window once: `counts` both gathers and, cleared on the way, says that a token was done. */
static void apply_penalties(struct m40_sampler *s, float *logits, const int32_t *window, size_t n)
{
    const m40llm_sampling *p = &s->params;

    if (p->repeat_penalty == 1.0f && p->frequency_penalty == 0.0f && p->presence_penalty == 0.0f)
        return;
    for (size_t i = 0; i < n; i++)
        s->counts[window[i]]++;
    for (size_t i = 0; i < n; i++) {
        float *logit = &logits[window[i]];
        uint32_t count = s->counts[window[i]];

        if (count == 0)
            continue;
        s->counts[window[i]] = 0;
        *logit = *logit > 0 ? *logit / p->repeat_penalty : *logit * p->repeat_penalty;
        *logit = *logit - (float)count * p->frequency_penalty - p->presence_penalty;
    }
}

/* The highest logit, ties to the lower id; NaNs never win. */
static int32_t best_token(const float *logits, size_t n_vocab)
{
    int32_t best = 0;
    float best_logit = -INFINITY;

    for (size_t i = 0; i < n_vocab; i++)
        if (logits[i] > best_logit) {
            best_logit = logits[i];
            best = (int32_t)i;
        }
    return best;
}

static int compare_candidates(const void *a, const void *b)
{
    const struct m40_sampler_candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* c[0..n) is a heap whose root is the candidate that comes last in order; its entry i may be out of place. */
static void sift_down(struct m40_sampler_candidate *c, size_t n, size_t i)
{
    for (;;) {
        size_t child = 2 * i + 1;
        struct m40_sampler_candidate held = c[i];

        if (child >= n)
            return;
        if (child + 1 < n && compare_candidates(&c[child + 1], &c[child]) > 0)
            child++;
        if (compare_candidates(&c[child], &held) < 0)
            return;
        c[i] = c[child];
        c[child] = held;
        i = child;
    }
}

/* Fills s->sorted with the first candidates in order, at most top_k of them, and returns how many there are. With top_k they pass through a heap of that size: ordering a whole
 * vocabulary takes longer than computing its logits. */
static size_t order_candidates(struct m40_sampler *s, const float *logits, float best_logit)
{
    size_t limit = s->params.top_k > 0 && s->params.top_k < s->n_vocab ? s->params.top_k : s->n_vocab, n = 0;
    struct m40_sampler_candidate *c = s->sorted;

    for (size_t i = 0; i < s->n_vocab; i++) {
        struct m40_sampler_candidate new = {.logit = logits[i], .id = (int32_t)i};

        if (n == limit && limit < s->n_vocab && !(new.logit > c[0].logit)) /* a tie goes to the lower id, which came first */
            continue;
        if (!((new.logit - best_logit) / s->params.temperature >= -CUT_BELOW_BEST))
            continue;
        if (n < limit) {
            c[n++] = new;
            for (size_t k = n / 2; n == limit && limit < s->n_vocab && k-- > 0;)
                sift_down(c, n, k);
        } else {
            c[0] = new;
            sift_down(c, n, 0);
        }
    }
    qsort(c, n, sizeof *c, compare_candidates);
    for (size_t i = 0; i < n; i++)
        c[i].weight = m40_expf((c[i].logit - best_logit) / s->params.temperature);
    return n;
}

static float sum_weights(const struct m40_sampler_candidate *c, size_t n)
{
    float sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += c[i].weight;
    return sum;
}

/* How many of the n candidates, which top_k has cut already, are left. */
static size_t cut_candidates(const struct m40_sampler *s, size_t n)
{
    const m40llm_sampling *p = &s->params;
    const struct m40_sampler_candidate *c = s->sorted;

    if (p->top_p < 1.0f) {
        float need = p->top_p * sum_weights(c, n), sum = 0;
        size_t kept = 0;

        while (kept < n && sum < need)
            sum += c[kept++].weight;
        n = kept;
    }
    if (p->min_p > 0)
        while (n > 1 && c[n - 1].weight < p->min_p * c[0].weight)
            n--;
    return n;
}

bool m40_sampler_is_argmax(const struct m40_sampler *s)
{
    const m40llm_sampling *p = &s->params;
    bool has_penalty = p->repeat_penalty != 1.0f || p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f;

    return p->temperature == 0 && p->n_bias == 0 && (!has_penalty || p->penalty_last_n == 0);
}

int32_t m40_sampler_choose(struct m40_sampler *s, float *logits, const int32_t *history, size_t n_history, uint32_t choice, uint32_t pos)
{
    size_t window = n_history < s->params.penalty_last_n ? n_history : s->params.penalty_last_n, n;
    int32_t best;
    float target, sum = 0;

    for (size_t i = 0; i < s->params.n_bias; i++)
        logits[s->bias[i].id] += s->bias[i].bias;
    apply_penalties(s, logits, history + n_history - window, window);
    best = best_token(logits, s->n_vocab);
    if (s->params.temperature == 0 || !isfinite(logits[best]))
        return best;
    n = cut_candidates(s, order_candidates(s, logits, logits[best]));
    target = m40_sampler_uniform(s->params.seed, choice, pos) * sum_weights(s->sorted, n);
    for (size_t i = 0; i < n; i++) {
        sum += s->sorted[i].weight;
        if (sum > target)
            return s->sorted[i].id;
    }
    return s->sorted[n - 1].id;
}
