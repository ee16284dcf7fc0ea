/* A conversation as the model's template writes it. */
#include "call.h"

#include <stdio.h>
#include <stdlib.h>

enum { VARIABLES_DEPTH = 100 }; /* far below the template's own limit, whose error would blame the messages */

/* A part of a content: {"type": "text", "text": "..."} and nothing else. */
static bool read_part(json_t *part, const char *param, struct m40_buf *joined, struct failure *f)
{
    json_t *words = json_object_get(part, "text"), *value;
    const char *type = json_string_value(json_object_get(part, "type")), *name;
    char at[160];

    if (type && strcmp(type, "text") != 0)
        return fail(f, MHD_HTTP_BAD_REQUEST, param, "unsupported", "'%s' is of type '%.40s': only 'text' is supported", param, type);
    if (!type || !json_is_string(words))
        return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be an object with 'type': 'text' and a 'text'", param);
    json_object_foreach(part, name, value)
    {
        snprintf(at, sizeof at, "%s.%.40s", param, name);
        if (strcmp(name, "type") != 0 && strcmp(name, "text") != 0 && !json_is_null(value))
            return fail(f, MHD_HTTP_BAD_REQUEST, at, "unsupported", "'%s' is not supported", at);
    }
    if (!m40_buf_append(joined, json_string_value(words), json_string_length(words)))
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    return true;
}

/* A text, or an array of parts that are texts, which follow one another. NULL: *f says why. */
static json_t *read_content(json_t *content, const char *param, struct failure *f)
{
    struct m40_buf joined = {0};
    json_t *text = NULL;
    bool ok = true;

    if (json_is_string(content))
        return json_incref(content);
    if (!json_is_array(content)) {
        fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be a string or an array of text parts", param);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(content) && ok; i++) {
        char at[96];

        snprintf(at, sizeof at, "%s[%zu]", param, i);
        ok = read_part(json_array_get(content, i), at, &joined, f);
    }
    if (ok)
        text = json_stringn(joined.data ? joined.data : "", joined.n_bytes);
    m40_buf_free(&joined);
    return text;
}

static bool check_fields(json_t *message, const char *at, struct failure *f)
{
    static const char *const names[] = {"role", "content", "name", "reasoning_content"};
    const char *name;
    json_t *value;

    json_object_foreach(message, name, value)
    {
        bool is_known = json_is_null(value);
        char param[96];

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            is_known = is_known || strcmp(name, names[i]) == 0;
        snprintf(param, sizeof param, "%s.%.60s", at, name);
        if (!is_known)
            return fail(f, MHD_HTTP_BAD_REQUEST, param, "unsupported", "'%s' is not supported", param);
        if (!json_is_null(value) && !json_is_string(value) && strcmp(name, "content") != 0)
            return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be a string", param);
    }
    return true;
}

/* The message as templates know it; developer is a newer word for system. */
static json_t *read_message(json_t *message, size_t i, struct failure *f)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant"};
    const char *role = json_string_value(json_object_get(message, "role"));
    json_t *content = json_object_get(message, "content"), *out = NULL;
    char at[32], param[48];
    bool is_role = false;

    snprintf(at, sizeof at, "messages[%zu]", i);
    if (!json_is_object(message)) {
        fail(f, MHD_HTTP_BAD_REQUEST, at, NULL, "'%s' must be an object", at);
        return NULL;
    }
    if (!check_fields(message, at, f))
        return NULL;
    for (size_t r = 0; role && r < sizeof roles / sizeof *roles; r++)
        is_role = is_role || strcmp(role, roles[r]) == 0;
    snprintf(param, sizeof param, "%s.role", at);
    if (!is_role) {
        fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be system, developer, user or assistant", param);
        return NULL;
    }
    snprintf(param, sizeof param, "%s.content", at);
    content = read_content(content, param, f);
    if (content)
        out = json_copy(message);
    if (!out || json_object_set(out, "content", content) != 0 ||
        (strcmp(role, "developer") == 0 && json_object_set_new(out, "role", json_string("system")) != 0))
        fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    json_decref(content);
    return out;
}

static json_t *read_messages(const struct call *c, struct failure *f)
{
    json_t *messages = json_object_get(c->object, "messages"), *out = json_array();

    if (!json_is_array(messages) || json_array_size(messages) == 0)
        fail(f, MHD_HTTP_BAD_REQUEST, "messages", NULL, "'messages' must be an array of one message or more");
    for (size_t i = 0; f->status == 0 && i < json_array_size(messages); i++)
        if (json_array_append_new(out, read_message(json_array_get(messages, i), i, f)) != 0)
            fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    if (f->status == 0)
        return out;
    json_decref(out);
    return NULL;
}

/* "bos_token", "eos_token": a template that is not the model's own needs them, too. */
static bool set_token(json_t *context, const char *name, const struct server_model *m, int32_t id)
{
    char text[256];
    size_t n_bytes;

    if (id < 0 || m40llm_detokenize(m->tokenizer, &id, 1, M40LLM_DETOKENIZE_SPECIAL, text, sizeof text, &n_bytes, NULL) != M40LLM_OK)
        return true;
    return json_object_set_new(context, name, text_json(text, n_bytes)) == 0;
}

static bool nests_deeper(const json_t *value, unsigned most)
{
    const char *name;
    json_t *member;

    if (most == 0)
        return true;
    for (size_t i = 0; i < json_array_size(value); i++)
        if (nests_deeper(json_array_get(value, i), most - 1))
            return true;
    json_object_foreach((json_t *)value, name, member)
    {
        if (nests_deeper(member, most - 1))
            return true;
    }
    return false;
}

/* chat_template_kwargs: variables, but not those that the rest of the request gives. */
static bool add_variables(json_t *context, json_t *extra, struct failure *f)
{
    const char *name;
    json_t *value;

    if (!extra || json_is_null(extra))
        return true;
    if (!json_is_object(extra))
        return fail(f, MHD_HTTP_BAD_REQUEST, "chat_template_kwargs", NULL, "'chat_template_kwargs' must be an object");
    json_object_foreach(extra, name, value)
    {
        char param[96];

        snprintf(param, sizeof param, "chat_template_kwargs.%.60s", name);
        if (json_object_get(context, name))
            return fail(f, MHD_HTTP_BAD_REQUEST, param, "unsupported", "'%s' cannot be set: the server does", param);
    }
    if (nests_deeper(extra, VARIABLES_DEPTH))
        return fail(f, MHD_HTTP_BAD_REQUEST, "chat_template_kwargs", NULL, "'chat_template_kwargs' nests more than %d deep", VARIABLES_DEPTH);
    if (json_object_update(context, extra) != 0)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    return true;
}

static json_t *make_context(const struct call *c, const struct server_model *m, struct failure *f)
{
    json_t *messages = read_messages(c, f), *context;

    if (!messages)
        return NULL;
    context = json_pack("{s:o, s:n, s:n, s:b}", "messages", messages, "tools", "documents", "add_generation_prompt", 1);
    if (!context || !set_token(context, "bos_token", m, m40llm_tokenizer_bos(m->tokenizer)) ||
        !set_token(context, "eos_token", m, m40llm_tokenizer_eos(m->tokenizer)))
        fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    else
        add_variables(context, json_object_get(c->object, "chat_template_kwargs"), f);
    if (f->status == 0)
        return context;
    json_decref(context);
    return NULL;
}

bool chat_prompt(struct call *c, const struct server_model *m, struct failure *f)
{
    json_t *context;
    char *json = NULL, *text = NULL;
    size_t n_bytes;
    m40llm_error err;

    if (!m->template_)
        return fail(f, MHD_HTTP_BAD_REQUEST, "messages", "no_chat_template",
                    "the model '%.120s' has no chat template: start the server with --chat-template, or use /v1/completions", m->name);
    context = make_context(c, m, f);
    if (!context)
        return false;
    json = json_dumps(context, JSON_COMPACT);
    json_decref(context);
    if (!json)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the messages");
    if (m40llm_template_render(m->template_, json, strlen(json), NULL, &text, &n_bytes, &err) != M40LLM_OK)
        fail_of(f, "messages", &err);
    else
        tokenize_text(m, text, n_bytes, M40LLM_TOKENIZE_SPECIAL, &c->ids, &c->n_ids, f);
    m40llm_free(text);
    free(json);
    return f->status == 0;
}
