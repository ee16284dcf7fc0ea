/* A rendering's variables from JSON. */
#include "tokenizer/template/run.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

static struct m40_tv value_of(struct m40_trun *r, const json_t *json);

static struct m40_tv list_of(struct m40_trun *r, const json_t *json)
{
    struct m40_tv list = m40_tr_list(r, TV_LIST, json_array_size(json));

    for (size_t i = 0; i < json_array_size(json) && !r->failed; i++)
        m40_tr_push(r, list.list, value_of(r, json_array_get(json, i)));
    return list;
}

static struct m40_tdict *dict_of(struct m40_trun *r, json_t *json)
{
    struct m40_tdict *dict = m40_tdict_new(r);

    for (void *at = json_object_iter(json); at && !r->failed; at = json_object_iter_next(json, at)) {
        struct m40_tv key = m40_tr_string(r, json_object_iter_key(at), strlen(json_object_iter_key(at)));

        m40_tdict_set(r, dict, key, value_of(r, json_object_iter_value(at)));
    }
    return dict;
}

static struct m40_tv value_of(struct m40_trun *r, const json_t *json)
{
    struct m40_tv v = TV(TV_NONE);

    if (!m40_tr_enter(r)) {
        m40_tr_leave(r);
        return v;
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        v = (struct m40_tv){.type = TV_DICT, .dict = dict_of(r, (json_t *)(uintptr_t)json)};
        break;
    case JSON_ARRAY:
        v = list_of(r, json);
        break;
    case JSON_STRING:
        v = m40_tr_string(r, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        v = m40_tv_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = m40_tv_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = m40_tv_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    m40_tr_leave(r);
    return v;
}

/* The fault is the context's, not the template's. */
static void refuse(struct m40_trun *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct m40_trun *r, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = m40_fail(r->err, M40LLM_INVALID_ARGUMENT, "context: %s", text);
    r->failed = true;
}

/* Before the parser, which recurses, and takes up to 90 times the memory of its text: how deep brackets stand in one another, and how many values brackets and commas make at least. */
static bool is_within_bounds(struct m40_trun *r, const char *text, size_t n_bytes)
{
    size_t depth = 0, n_values = 1;
    bool is_string = false;

    if (n_bytes > M40_TEMPLATE_MAX_CONTEXT_BYTES)
        refuse(r, "it has %zu bytes, more than %d", n_bytes, M40_TEMPLATE_MAX_CONTEXT_BYTES);
    for (size_t i = 0; i < n_bytes && !r->failed; i++) {
        char c = text[i];

        if (is_string && c == '\\')
            i++;
        else if (c == '"')
            is_string = !is_string;
        if (is_string || c == '"')
            continue;
        n_values += c == ',' || c == '[' || c == '{';
        if ((c == '[' || c == '{') && ++depth > M40_TEMPLATE_MAX_CONTEXT_DEPTH)
            refuse(r, "values are nested more than %d deep", M40_TEMPLATE_MAX_CONTEXT_DEPTH);
        else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        if (n_values > M40_TEMPLATE_MAX_CONTEXT_VALUES)
            refuse(r, "it has more than %d values", M40_TEMPLATE_MAX_CONTEXT_VALUES);
    }
    return !r->failed;
}

struct m40_tdict *m40_tr_context(struct m40_trun *r, const char *text, size_t n_bytes)
{
    json_error_t error;
    json_t *json;
    struct m40_tdict *dict = NULL;

    if (!is_within_bounds(r, text, n_bytes))
        return NULL;
    json = json_loadb(text, n_bytes, JSON_ALLOW_NUL, &error);
    if (!json)
        refuse(r, "line %d: %s", error.line, error.text);
    else if (!json_is_object(json))
        refuse(r, "not a JSON object");
    else
        dict = dict_of(r, json);
    json_decref(json);
    return r->failed ? NULL : dict;
}
