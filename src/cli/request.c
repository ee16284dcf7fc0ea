#include "request.h"

#include <sys/random.h>

uint64_t cli_choose_seed(const struct cli_settings *settings)
{
    uint64_t seed = 0;

    if (settings->has_seed)
        return settings->seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uintptr_t)&seed;
    return seed & 0xffffffff;
}

m40llm_request_options cli_request_options(const struct cli_settings *settings, uint64_t seed, uint32_t n_max_tokens)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;

    options.sampling.temperature = settings->temp;
    options.sampling.top_k = settings->top_k;
    options.sampling.top_p = settings->top_p;
    options.sampling.min_p = settings->min_p;
    options.sampling.repeat_penalty = settings->repeat_penalty;
    options.sampling.frequency_penalty = settings->frequency_penalty;
    options.sampling.presence_penalty = settings->presence_penalty;
    options.sampling.penalty_last_n = settings->repeat_last_n;
    options.sampling.seed = seed;
    options.n_max_tokens = n_max_tokens;
    options.ignore_end = settings->ignore_eos;
    return options;
}

static double per_second(double n, uint64_t ns)
{
    return ns ? n / ((double)ns * 1e-9) : 0;
}

double cli_prompt_speed(const m40llm_result *result)
{
    return per_second(result->n_prompt - result->n_cached, result->prefill_ns);
}

double cli_answer_speed(const m40llm_result *result)
{
    return result->n_generated > 1 ? per_second(result->n_generated - 1, result->decode_ns) : 0;
}
