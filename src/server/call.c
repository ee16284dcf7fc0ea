#include "call.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define ANY    (CALL_CHAT | CALL_TEXT | CALL_GENERATE)
#define OPENAI (CALL_CHAT | CALL_TEXT)

static const struct known_field known[] = {
    {"model", ANY, NULL},
    {"messages", CALL_CHAT, NULL},
    {"chat_template_kwargs", CALL_CHAT, NULL},
    {"prompt", CALL_TEXT | CALL_GENERATE, NULL},
    {"stream", ANY, NULL},
    {"stream_options", OPENAI, NULL},
    {"max_tokens", ANY, NULL},
    {"max_completion_tokens", CALL_CHAT, NULL},
    {"min_tokens", ANY, NULL},
    {"n", OPENAI, NULL},
    {"stop", ANY, NULL},
    {"stop_token_ids", ANY, NULL},
    {"ignore_eos", ANY, NULL},
    {"seed", ANY, NULL},
    {"temperature", ANY, NULL},
    {"top_p", ANY, NULL},
    {"top_k", ANY, NULL},
    {"min_p", ANY, NULL},
    {"repetition_penalty", ANY, NULL},
    {"frequency_penalty", ANY, NULL},
    {"presence_penalty", ANY, NULL},
    {"logit_bias", ANY, NULL},
    {"logprobs", OPENAI, NULL},
    {"top_logprobs", CALL_CHAT, NULL},
    {"user", OPENAI, ANY_TEXT},
    {"metadata", OPENAI, ANY_OBJECT},
    {"safety_identifier", OPENAI, ANY_TEXT},
    {"prompt_cache_key", OPENAI, ANY_TEXT},
    {"prompt_cache_retention", OPENAI, ANY_TEXT},
    {"service_tier", OPENAI, "\"auto\""},
    {"store", OPENAI, "false"},
    {"response_format", CALL_CHAT, "{\"type\": \"text\"}"},
    {"modalities", CALL_CHAT, "[\"text\"]"},
    {"tools", CALL_CHAT, "[]"},
    {"tool_choice", CALL_CHAT, "\"none\""},
    {"parallel_tool_calls", CALL_CHAT, "true"},
    {"functions", CALL_CHAT, "[]"},
    {"function_call", CALL_CHAT, "\"none\""},
    {"audio", CALL_CHAT, "null"},
    {"prediction", CALL_CHAT, "null"},
    {"reasoning_effort", CALL_CHAT, "null"},
    {"web_search_options", CALL_CHAT, "null"},
    {"verbosity", CALL_CHAT, "null"},
    {"suffix", CALL_TEXT, "\"\""},
    {"echo", CALL_TEXT, "false"},
    {"best_of", CALL_TEXT, "1"},
};

const char *call_prompt_field(enum call_kind kind)
{
    return kind == CALL_CHAT ? "messages" : "prompt";
}

bool tokenize_text(const struct server_model *m, const char *text, size_t n_bytes, unsigned flags, int32_t **ids, size_t *n_ids, struct failure *f)
{
    m40llm_error err;

    *ids = malloc((n_bytes + 8) * sizeof **ids);
    if (!*ids)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the tokens of %zu bytes", n_bytes);
    if (m40llm_tokenize(m->tokenizer, text, n_bytes, flags, *ids, n_bytes + 8, n_ids, &err) != M40LLM_OK)
        return fail_of(f, NULL, &err);
    return true;
}

static bool all_are(const json_t *array, bool (*is)(const json_t *value))
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!is(json_array_get(array, i)))
            return false;
    return true;
}

static bool is_text(const json_t *value)
{
    return json_is_string(value);
}

static bool is_array(const json_t *value)
{
    return json_is_array(value);
}

/* A text, token ids, or an array of one of either. */
static bool read_prompt(struct call *c, const struct server_model *m, struct failure *f)
{
    json_t *prompt = json_object_get(c->object, "prompt");

    if (json_is_array(prompt) && json_array_size(prompt) > 0 && (all_are(prompt, is_text) || all_are(prompt, is_array))) {
        if (json_array_size(prompt) > 1)
            return fail(f, MHD_HTTP_BAD_REQUEST, "prompt", "unsupported", "'prompt' has %zu prompts: one request can have one",
                        json_array_size(prompt));
        prompt = json_array_get(prompt, 0);
    }
    if (json_is_string(prompt))
        return tokenize_text(m, json_string_value(prompt), json_string_length(prompt), M40LLM_TOKENIZE_ADD_BOS, &c->ids, &c->n_ids, f);
    if (!json_is_array(prompt))
        return fail(f, MHD_HTTP_BAD_REQUEST, "prompt", NULL, "'prompt' must be a string or an array of token ids");
    return fields_ids(prompt, "prompt", m40llm_tokenizer_n_vocab(m->tokenizer), &c->ids, &c->n_ids, f);
}

static bool check_model(const struct call *c, const struct server_model *m, struct failure *f)
{
    struct fields o = {c->object, f};
    const char *name = NULL;

    fields_text(&o, "model", &name);
    if (f->status == 0 && name && strcmp(name, m->name) != 0)
        return fail(f, MHD_HTTP_NOT_FOUND, "model", "model_not_found", "there is no model '%.80s': this server has '%.120s'", name, m->name);
    return f->status == 0;
}

static void read_sampling(const struct fields *o, m40llm_sampling *s, uint32_t n_ctx)
{
    int64_t top_k = 0, seed = 0;

    s->temperature = 1;
    s->penalty_last_n = n_ctx;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (int64_t)server_now_ns();
    fields_real(o, "temperature", 0, 2, &s->temperature);
    fields_real(o, "top_p", 0, 1, &s->top_p);
    fields_real(o, "min_p", 0, 1, &s->min_p);
    fields_real(o, "repetition_penalty", 0.01, 100, &s->repeat_penalty);
    fields_real(o, "frequency_penalty", -2, 2, &s->frequency_penalty);
    fields_real(o, "presence_penalty", -2, 2, &s->presence_penalty);
    fields_whole(o, "top_k", 0, INT32_MAX, &top_k);
    fields_whole(o, "seed", INT64_MIN, INT64_MAX, &seed);
    s->top_k = (uint32_t)top_k;
    s->seed = (uint64_t)seed;
    if (s->top_p < 1e-6f) /* the likeliest alone */
        s->top_p = 1e-6f;
}

/* {"50256": -100, ...} */
static bool read_bias(struct call *c, size_t n_vocab, struct failure *f)
{
    json_t *bias = json_object_get(c->object, "logit_bias"), *value;
    const char *name;
    size_t n = 0;

    if (!bias || json_is_null(bias))
        return true;
    if (!json_is_object(bias))
        return fail(f, MHD_HTTP_BAD_REQUEST, "logit_bias", NULL, "'logit_bias' must be an object of token ids and numbers");
    c->bias = calloc(json_object_size(bias) + 1, sizeof *c->bias);
    if (!c->bias)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for 'logit_bias'");
    json_object_foreach(bias, name, value)
    {
        char *end;
        unsigned long id = strtoul(name, &end, 10);

        if (*name < '0' || *name > '9' || *end || id >= n_vocab)
            return fail(f, MHD_HTTP_BAD_REQUEST, "logit_bias", NULL, "'logit_bias' has '%.40s', which is no token id from 0 to %zu", name,
                        n_vocab - 1);
        if (!json_is_number(value) || !(json_number_value(value) >= -100 && json_number_value(value) <= 100))
            return fail(f, MHD_HTTP_BAD_REQUEST, "logit_bias", NULL, "'logit_bias' of token %lu must be a number from -100 to 100", id);
        c->bias[n++] = (m40llm_logit_bias){(int32_t)id, (float)json_number_value(value)};
    }
    c->options.sampling.bias = c->bias;
    c->options.sampling.n_bias = n;
    return true;
}

/* One string or several. */
static bool read_stops(struct call *c, struct failure *f)
{
    json_t *stop = json_object_get(c->object, "stop");
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;

    if (!stop || json_is_null(stop))
        return true;
    if (n > M40LLM_MAX_STOPS)
        return fail(f, MHD_HTTP_BAD_REQUEST, "stop", NULL, "'stop' has %zu strings: at most %d", n, M40LLM_MAX_STOPS);
    c->stops = calloc(n + 1, sizeof *c->stops);
    if (!c->stops)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for 'stop'");
    for (size_t i = 0; i < n; i++) {
        json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;

        if (!json_is_string(text) || json_string_length(text) == 0 || json_string_length(text) > M40LLM_MAX_STOP_BYTES)
            return fail(f, MHD_HTTP_BAD_REQUEST, "stop", NULL, "'stop' must be a string of 1 to %d bytes, or an array of such",
                        M40LLM_MAX_STOP_BYTES);
        c->stops[i] = json_string_value(text);
    }
    c->options.stops = c->stops;
    c->options.n_stops = n;
    return true;
}

static bool read_stop_tokens(struct call *c, size_t n_vocab, struct failure *f)
{
    json_t *stop = json_object_get(c->object, "stop_token_ids");

    if (!stop || json_is_null(stop))
        return true;
    if (!json_is_array(stop) || json_array_size(stop) > M40LLM_MAX_STOP_TOKENS)
        return fail(f, MHD_HTTP_BAD_REQUEST, "stop_token_ids", NULL, "'stop_token_ids' must be an array of at most %d token ids",
                    M40LLM_MAX_STOP_TOKENS);
    if (!fields_ids(stop, "stop_token_ids", n_vocab, &c->stop_tokens, &c->options.n_stop_tokens, f))
        return false;
    c->options.stop_tokens = c->stop_tokens;
    return true;
}

static void read_logprobs(struct call *c, const struct fields *o)
{
    int64_t n_top = -1;
    bool wanted = false;

    if (c->kind == CALL_TEXT) {
        fields_whole(o, "logprobs", 0, 20, &n_top);
        wanted = n_top >= 0;
    } else if (c->kind == CALL_CHAT) {
        fields_bool(o, "logprobs", &wanted);
        fields_whole(o, "top_logprobs", 0, 20, &n_top);
        if (n_top >= 0 && !wanted)
            fail(o->failure, MHD_HTTP_BAD_REQUEST, "top_logprobs", NULL, "'top_logprobs' needs 'logprobs': true");
    }
    c->options.logprobs = wanted;
    c->options.n_top_logprobs = n_top > 0 ? (uint32_t)n_top : 0;
}

static void read_lengths(struct call *c, const struct fields *o, uint32_t n_ctx)
{
    int64_t most = c->kind == CALL_CHAT ? n_ctx : c->kind == CALL_TEXT ? 16 : 128, least = 0, n = 1;

    fields_whole(o, "max_tokens", 1, INT32_MAX, &most);
    fields_whole(o, "max_completion_tokens", 1, INT32_MAX, &most);
    fields_whole(o, "min_tokens", 0, INT32_MAX, &least);
    fields_whole(o, "n", 1, M40LLM_MAX_CHOICES, &n);
    c->n = (uint32_t)n;
    c->options.n_choices = c->n;
    c->options.n_max_tokens = most < n_ctx ? (uint32_t)most : n_ctx;
    c->options.n_min_tokens = least < n_ctx ? (uint32_t)least : n_ctx;
}

static void read_stream(struct call *c, const struct fields *o)
{
    static const struct known_field of_options[] = {{"include_usage", OPENAI, NULL}, {"include_obfuscation", OPENAI, "false"}};
    json_t *options = json_object_get(o->object, "stream_options");
    struct fields inner = {options, o->failure};
    char param[sizeof o->failure->param];

    fields_bool(o, "stream", &c->stream);
    if (!options || json_is_null(options) || o->failure->status)
        return;
    if (!c->stream || !json_is_object(options)) {
        fail(o->failure, MHD_HTTP_BAD_REQUEST, "stream_options", NULL, "'stream_options' must be an object, and needs 'stream': true");
        return;
    }
    fields_check_known(&inner, of_options, sizeof of_options / sizeof *of_options, c->kind);
    fields_bool(&inner, "include_usage", &c->include_usage);
    if (o->failure->status) {
        snprintf(param, sizeof param, "stream_options.%.60s", o->failure->param);
        memcpy(o->failure->param, param, sizeof param);
    }
}

bool call_parse(struct call *c, enum call_kind kind, const struct server_model *m, const struct m40_buf *body, struct failure *f)
{
    struct fields o = {fields_parse(body, f), f};
    size_t n_vocab = m40llm_tokenizer_n_vocab(m->tokenizer);
    bool ignore_end = false;

    c->kind = kind;
    c->object = o.object;
    c->options = (m40llm_request_options)M40LLM_REQUEST_OPTIONS_INIT;
    if (!o.object)
        return false;
    fields_check_known(&o, known, sizeof known / sizeof *known, kind);
    if (!check_model(c, m, f))
        return false;
    read_stream(c, &o);
    read_lengths(c, &o, m->engine_info.n_ctx);
    read_sampling(&o, &c->options.sampling, m->engine_info.n_ctx);
    read_logprobs(c, &o);
    fields_bool(&o, "ignore_eos", &ignore_end);
    c->options.ignore_end = ignore_end;
    if (f->status || !read_bias(c, n_vocab, f) || !read_stops(c, f) || !read_stop_tokens(c, n_vocab, f))
        return false;
    return kind == CALL_CHAT ? chat_prompt(c, m, f) : read_prompt(c, m, f);
}

void call_free(struct call *c)
{
    free(c->ids);
    free(c->bias);
    free(c->stops);
    free(c->stop_tokens);
    json_decref(c->object);
    c->ids = c->stop_tokens = NULL;
    c->bias = NULL;
    c->stops = NULL;
    c->object = NULL;
}
