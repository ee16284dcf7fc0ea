#define _POSIX_C_SOURCE 200809L
#include "engine/request.h"
#include "base/mem.h"

#include <string.h>
#include <time.h>

static m40llm_status check_priority(int priority, m40llm_error *err)
{
    if (priority >= -M40LLM_MAX_PRIORITY && priority <= M40LLM_MAX_PRIORITY)
        return M40LLM_OK;
    return m40_fail(err, M40LLM_INVALID_ARGUMENT, "priority %d: must be from %d to %d", priority, -M40LLM_MAX_PRIORITY, M40LLM_MAX_PRIORITY);
}

static m40llm_status check_options(const m40llm_request_options *o, const struct m40_request_limits *limits, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(o->n_choices > M40LLM_MAX_CHOICES, M40LLM_INVALID_ARGUMENT, "%u choices: at most %d", o->n_choices, M40LLM_MAX_CHOICES);
    M40_FAIL_IF(o->n_choices > 1 && o->on_logits, M40LLM_INVALID_ARGUMENT, "logits of %u choices: only one's can be looked at", o->n_choices);
    M40_TRY(check_priority(o->priority, err));
    M40_FAIL_IF(o->n_top_logprobs > M40LLM_MAX_TOP_LOGPROBS || o->n_top_logprobs > limits->n_vocab, M40LLM_INVALID_ARGUMENT,
                "log probabilities of %u tokens: at most %d", o->n_top_logprobs, M40LLM_MAX_TOP_LOGPROBS);
    M40_FAIL_IF(o->n_top_logprobs > 0 && !o->logprobs, M40LLM_INVALID_ARGUMENT, "n_top_logprobs is %u, but logprobs is off", o->n_top_logprobs);
    M40_FAIL_IF(o->n_stops > 0 && !limits->tokenizer, M40LLM_INVALID_ARGUMENT, "stop strings: the engine has no tokenizer to make text with");
    M40_FAIL_IF(o->n_stop_tokens > M40LLM_MAX_STOP_TOKENS, M40LLM_INVALID_ARGUMENT, "%zu stop tokens: at most %d", o->n_stop_tokens,
                M40LLM_MAX_STOP_TOKENS);
    for (size_t i = 0; i < o->n_stop_tokens; i++)
        M40_FAIL_IF(o->stop_tokens[i] < 0 || (uint32_t)o->stop_tokens[i] >= limits->n_vocab, M40LLM_INVALID_ARGUMENT,
                    "stop token %d: the vocabulary has %u tokens", o->stop_tokens[i], limits->n_vocab);
fail:
    return status;
}

static m40llm_status copy_stops(struct m40_request *r, const m40llm_request_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(m40_stops_init(&r->stops, given->stops, given->n_stops, err));
    r->options.stops = NULL;
    r->stop_tokens = m40_calloc(given->n_stop_tokens, sizeof *r->stop_tokens);
    M40_FAIL_IF(!r->stop_tokens, M40LLM_NO_MEMORY, "stop tokens");
    if (given->n_stop_tokens)
        memcpy(r->stop_tokens, given->stop_tokens, given->n_stop_tokens * sizeof *r->stop_tokens);
    r->options.stop_tokens = r->stop_tokens;
fail:
    return status;
}

static m40llm_status copy_prompt(struct m40_request *r, const int32_t *prompt, size_t n, m40llm_error *err)
{
    r->prompt = m40_calloc(n, sizeof *r->prompt);
    if (!r->prompt)
        return m40_fail(err, M40LLM_NO_MEMORY, "prompt of %zu tokens", n);
    memcpy(r->prompt, prompt, n * sizeof *prompt);
    return M40LLM_OK;
}

/* tail: of the prompt, as m40_answer_tail has it. */
static m40llm_status make_choice(struct m40_request *r, uint32_t i, const struct m40_request_limits *limits, uint32_t n_prompt, size_t tail,
                                 m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_sequence *s = &r->choices[i];

    s->request = r;
    s->choice = i;
    s->leader = i ? &r->choices[0] : NULL;
    s->uses_cache = !r->options.no_cache;
    s->all_logits = r->options.all_logits != 0;
    M40_TRY(m40_sequence_init(s, r->prompt, n_prompt, r->options.n_max_tokens, limits->n_ctx, err));
    M40_TRY(m40_sampler_init(&s->sampler, &r->options.sampling, limits->n_vocab, err));
    M40_TRY(m40_answer_init(&s->answer, limits->tokenizer, &r->stops, r->prompt + tail, n_prompt - tail, err));
fail:
    return status;
}

static void init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* Without choices; given->n_choices is what there is to be room for. */
static m40llm_status new_request(struct m40_request **out, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *given,
                                 m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_request *r = *out = m40_calloc(1, sizeof *r);

    M40_FAIL_IF(!r, M40LLM_NO_MEMORY, "request");
    init_condition(&r->changed);
    r->options = *given;
    r->n_left = r->options.n_choices;
    M40_TRY(copy_stops(r, given, err));
    M40_TRY(copy_prompt(r, prompt, n_prompt, err));
    r->choices = m40_calloc(r->options.n_choices, sizeof *r->choices);
    M40_FAIL_IF(!r->choices, M40LLM_NO_MEMORY, "request of %u choices", r->options.n_choices);
fail:
    return status;
}

m40llm_status m40_request_new(struct m40_request **out, const struct m40_request_limits *limits, const int32_t *prompt, uint32_t n_prompt,
                              const m40llm_request_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_request_options options = *given;
    struct m40_request *r = NULL;
    size_t tail;

    *out = NULL;
    M40_TRY(check_options(&options, limits, err));
    if (options.n_choices == 0)
        options.n_choices = 1;
    M40_TRY(new_request(&r, prompt, n_prompt, &options, err));
    tail = limits->tokenizer ? m40_answer_tail(limits->tokenizer, prompt, n_prompt) : n_prompt;
    for (uint32_t i = 0; i < options.n_choices; i++)
        M40_TRY(make_choice(r, i, limits, n_prompt, tail, err));
    r->options.sampling.bias = NULL; /* the samplers have copies */
    *out = r;
    return M40LLM_OK;
fail:
    m40_request_free(r);
    return status;
}

static m40llm_status check_embed_options(const m40llm_embed_options *o, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(o->pooling != M40LLM_POOLING_MEAN && o->pooling != M40LLM_POOLING_LAST, M40LLM_INVALID_ARGUMENT, "there is no pooling %d",
                (int)o->pooling);
    M40_TRY(check_priority(o->priority, err));
fail:
    return status;
}

m40llm_status m40_request_new_embeddings(struct m40_request **out, uint32_t n_ctx, const int32_t *ids, const size_t *n_ids, uint32_t n_texts,
                                         const m40llm_embed_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    struct m40_request *r = NULL;
    size_t n_all = 0;

    *out = NULL;
    M40_TRY(check_embed_options(given, err));
    options.n_choices = n_texts;
    options.priority = given->priority;
    options.no_cache = given->no_cache;
    options.on_event = given->on_event;
    options.user = given->user;
    for (uint32_t i = 0; i < n_texts; i++)
        n_all += n_ids[i];
    M40_TRY(new_request(&r, ids, n_all, &options, err));
    r->pooling = given->pooling;
    n_all = 0;
    for (uint32_t i = 0; i < n_texts; n_all += n_ids[i++]) {
        struct m40_sequence *s = &r->choices[i];

        s->request = r;
        s->choice = i;
        s->uses_cache = !options.no_cache;
        s->needs_all_rows = given->pooling == M40LLM_POOLING_MEAN;
        M40_TRY(m40_sequence_init(s, r->prompt + n_all, (uint32_t)n_ids[i], 0, n_ctx, err));
    }
    *out = r;
    return M40LLM_OK;
fail:
    m40_request_free(r);
    return status;
}

void m40_request_free(struct m40_request *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; r->choices && i < r->options.n_choices; i++)
        m40_sequence_free(&r->choices[i]);
    m40_event_list_free(&r->events);
    m40_free(r->choices);
    m40_free(r->stop_tokens);
    m40_free(r->prompt);
    m40_stops_free(&r->stops);
    pthread_cond_destroy(&r->changed);
    m40_free(r);
}

void m40_request_end_event(const struct m40_request *r, m40llm_event *out)
{
    *out = (m40llm_event){
        .struct_size = sizeof *out,
        .type = M40LLM_EVENT_END,
        .id = r->id,
        .result = &r->result,
        .status = r->error.code,
        .error = r->error.code == M40LLM_OK ? NULL : r->error.text,
    };
}

bool m40_request_is_stop_token(const struct m40_request *r, const struct m40_tokenizer *tokenizer, int32_t id)
{
    for (size_t i = 0; i < r->options.n_stop_tokens; i++)
        if (r->stop_tokens[i] == id)
            return true;
    return tokenizer && !r->options.ignore_end && m40_tokenizer_is_end(tokenizer, id);
}
