#include "engine/sampler.h"
#include "base/mem.h"

#include <math.h>

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

static bool has_penalty(const m40llm_sampling *p)
{
    return p->penalty_last_n > 0 && (p->repeat_penalty != 1.0f || p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f);
}

m40llm_status m40_sampler_init(struct m40_sampler *sampler, const m40llm_sampling *params, size_t n_vocab, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *sampler = (struct m40_sampler){.params = *params, .n_vocab = n_vocab};
    M40_TRY(check_params(params, n_vocab, err));
    M40_FAIL_IF(n_vocab > M40_SAMPLE_MAX_COLS, M40LLM_UNSUPPORTED, "sampling from a vocabulary of %zu tokens: at most %d", n_vocab,
                M40_SAMPLE_MAX_COLS);
    sampler->inv_temperature = m40_sample_inv_temperature(params->temperature);
    sampler->min_z = m40_sample_min_z(params->min_p);
    if (params->n_bias) {
        sampler->bias = m40_calloc(params->n_bias, sizeof *sampler->bias);
        M40_FAIL_IF(!sampler->bias, M40LLM_NO_MEMORY, "logit bias");
        memcpy(sampler->bias, params->bias, params->n_bias * sizeof *sampler->bias);
    }
    sampler->params.bias = sampler->bias;
    if (has_penalty(params)) {
        sampler->counts = m40_calloc(n_vocab, sizeof *sampler->counts);
        M40_FAIL_IF(!sampler->counts, M40LLM_NO_MEMORY, "sampler");
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
    *sampler = (struct m40_sampler){0};
}

static uint64_t mix(uint64_t z) /* splitmix64's finaliser */
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t m40_sampler_random(uint64_t seed, uint32_t choice, uint32_t pos)
{
    return mix(mix(seed + 0x9E3779B97F4A7C15u) ^ ((uint64_t)choice << 32 | pos));
}

/* The last n tokens, or as many as there are, as two runs. */
static struct m40_history window_of(const struct m40_history *h, size_t n)
{
    struct m40_history w = *h;

    if (w.n_answer > n)
        w.n_answer = n;
    if (w.n_prompt > n - w.n_answer)
        w.n_prompt = n - w.n_answer;
    w.prompt = w.n_prompt ? h->prompt + (h->n_prompt - w.n_prompt) : NULL;
    w.answer = w.n_answer ? h->answer + (h->n_answer - w.n_answer) : NULL;
    return w;
}

static void count_tokens(struct m40_sampler *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->counts[ids[i]]++;
}

/* Each token once: `counts`, cleared on the way, says that one was done. */
static void penalize(struct m40_sampler *s, float *logits, const int32_t *ids, size_t n)
{
    const m40llm_sampling *p = &s->params;

    for (size_t i = 0; i < n; i++) {
        float *logit = &logits[ids[i]];
        uint32_t count = s->counts[ids[i]];

        if (count == 0)
            continue;
        s->counts[ids[i]] = 0;
        *logit = *logit > 0 ? *logit / p->repeat_penalty : *logit * p->repeat_penalty;
        *logit = *logit - (float)count * p->frequency_penalty - p->presence_penalty;
    }
}

static void apply_penalties(struct m40_sampler *s, float *logits, const struct m40_history *history)
{
    struct m40_history w = window_of(history, s->params.penalty_last_n);

    if (!has_penalty(&s->params))
        return;
    count_tokens(s, w.prompt, w.n_prompt);
    count_tokens(s, w.answer, w.n_answer);
    penalize(s, logits, w.prompt, w.n_prompt);
    penalize(s, logits, w.answer, w.n_answer);
}

bool m40_sampler_is_plain(const struct m40_sampler *s)
{
    return s->params.n_bias == 0 && !has_penalty(&s->params);
}

bool m40_sampler_is_argmax(const struct m40_sampler *s)
{
    return s->params.temperature == 0 && m40_sampler_is_plain(s);
}

struct m40_sample_row m40_sampler_row(const struct m40_sampler *s, uint32_t choice, uint32_t pos)
{
    const m40llm_sampling *p = &s->params;

    return (struct m40_sample_row){m40_sampler_random(p->seed, choice, pos), s->inv_temperature, p->top_p, s->min_z, p->top_k};
}

int32_t m40_sampler_choose(struct m40_sampler *s, float *logits, const struct m40_history *history, uint32_t choice, uint32_t pos)
{
    struct m40_sample_row row = m40_sampler_row(s, choice, pos);

    for (size_t i = 0; i < s->params.n_bias; i++)
        logits[s->bias[i].id] += s->bias[i].bias;
    apply_penalties(s, logits, history);
    return m40_sample(logits, (uint32_t)s->n_vocab, &row);
}
