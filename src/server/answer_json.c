/* The shapes of answers: docs/api.md. */
#include "completion.h"

static const char *finish_name(m40llm_finish finish)
{
    return finish == M40LLM_FINISH_LENGTH ? "length" : "stop";
}

static json_t *buf_json(const struct m40_buf *b)
{
    return text_json(b->n_bytes ? b->data : "", b->n_bytes);
}

static json_t *usage_json(const m40llm_result *r)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)r->n_prompt, "completion_tokens", (json_int_t)r->n_generated,
                     "total_tokens", (json_int_t)r->n_prompt + r->n_generated, "prompt_tokens_details", "cached_tokens", (json_int_t)r->n_cached);
}

/* What all of OpenAI's objects begin with. choices: taken. */
static json_t *envelope(const struct completion *c, bool is_part, json_t *choices)
{
    const char *object = c->call.kind == CALL_TEXT ? "text_completion" : is_part ? "chat.completion.chunk" : "chat.completion";

    return json_pack("{s:s, s:s, s:I, s:o, s:s, s:o}", "id", c->id, "object", object, "created", (json_int_t)c->created, "model",
                     text_json(c->model, strlen(c->model)), "system_fingerprint", "m40llm-" M40LLM_VERSION, "choices", choices);
}

static json_t *logprobs_json(const struct choice *choice, enum call_kind kind)
{
    if (!choice->logprobs)
        return json_null();
    return kind == CALL_CHAT ? json_pack("{s:O, s:n}", "content", choice->logprobs, "refusal") : json_incref(choice->logprobs);
}

static json_t *finish_json(m40llm_finish finish)
{
    return finish == M40LLM_FINISH_NONE ? json_null() : json_string(finish_name(finish));
}

static json_t *whole_choice(const struct completion *c, uint32_t i)
{
    const struct choice *choice = &c->choices[i];
    json_t *logprobs = logprobs_json(choice, c->call.kind), *finish = finish_json(choice->finish), *message;

    if (c->call.kind == CALL_TEXT)
        return json_pack("{s:i, s:o, s:o, s:o}", "index", (int)i, "text", buf_json(&choice->said), "logprobs", logprobs, "finish_reason", finish);
    message = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", buf_json(&choice->said), "refusal");
    if (choice->thought.n_bytes)
        json_object_set_new(message, "reasoning_content", buf_json(&choice->thought));
    return json_pack("{s:i, s:o, s:o, s:o}", "index", (int)i, "message", message, "logprobs", logprobs, "finish_reason", finish);
}

json_t *answer_whole(const struct completion *c, const m40llm_result *r)
{
    json_t *choices, *whole;

    if (c->call.kind == CALL_GENERATE)
        return json_pack("{s:o, s:o, s:o}", "text", buf_json(&c->choices[0].said), "finish_reason", finish_json(c->choices[0].finish), "usage",
                         usage_json(r));
    choices = json_array();
    for (uint32_t i = 0; i < c->call.n; i++)
        json_array_append_new(choices, whole_choice(c, i));
    whole = envelope(c, false, choices);
    json_object_set_new(whole, "usage", usage_json(r));
    return whole;
}

/* A part of a stream with one choice. delta, logprobs: taken; text completions have a text instead of a delta. */
static json_t *part(const struct completion *c, uint32_t i, json_t *delta, json_t *logprobs, m40llm_finish finish)
{
    bool is_text = c->call.kind == CALL_TEXT;
    json_t *object = envelope(c, true,
                              json_pack("[{s:i, s:o, s:o, s:o}]", "index", (int)i, is_text ? "text" : "delta", delta, "logprobs", logprobs,
                                        "finish_reason", finish_json(finish)));

    if (c->call.include_usage)
        json_object_set_new(object, "usage", json_null());
    return object;
}

json_t *answer_role(const struct completion *c, uint32_t i)
{
    return part(c, i, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), json_null(), M40LLM_FINISH_NONE);
}

json_t *answer_delta(struct completion *c, uint32_t i)
{
    struct choice *choice = &c->choices[i];
    json_t *said = buf_json(&choice->said), *logprobs = logprobs_json(choice, c->call.kind), *delta = said;

    if (c->call.kind == CALL_GENERATE) {
        delta = json_pack("{s:o, s:n}", "text", said, "finish_reason");
        json_decref(logprobs);
    } else if (c->call.kind == CALL_CHAT) {
        delta = json_object();
        if (choice->said.n_bytes || !choice->thought.n_bytes)
            json_object_set(delta, "content", said);
        json_decref(said);
        if (choice->thought.n_bytes)
            json_object_set_new(delta, "reasoning_content", buf_json(&choice->thought));
    }
    choice->said.n_bytes = 0;
    choice->thought.n_bytes = 0;
    if (choice->logprobs)
        json_decref(choice->logprobs);
    choice->logprobs = NULL;
    return c->call.kind == CALL_GENERATE ? delta : part(c, i, delta, logprobs, M40LLM_FINISH_NONE);
}

json_t *answer_finish(const struct completion *c, uint32_t i)
{
    return part(c, i, c->call.kind == CALL_TEXT ? json_string("") : json_object(), json_null(), c->choices[i].finish);
}

json_t *answer_usage(const struct completion *c, const m40llm_result *r)
{
    json_t *object;

    if (c->call.kind == CALL_GENERATE)
        return json_pack("{s:s, s:o, s:o}", "text", "", "finish_reason", finish_json(c->choices[0].finish), "usage", usage_json(r));
    object = envelope(c, true, json_array());
    json_object_set_new(object, "usage", usage_json(r));
    return object;
}
