/* A rendering's variables from JSON. */
#include "tokenizer/template/run.h"

#include <jansson.h>

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

struct m40_tdict *m40_tr_context(struct m40_trun *r, const char *text, size_t n_bytes)
{
    json_error_t error;
    json_t *json = json_loadb(text, n_bytes, JSON_ALLOW_NUL, &error);
    struct m40_tdict *dict = NULL;

    if (!json)
        r->status = m40_fail(r->err, M40LLM_INVALID_ARGUMENT, "context: line %d: %s", error.line, error.text);
    else if (!json_is_object(json))
        r->status = m40_fail(r->err, M40LLM_INVALID_ARGUMENT, "context: not a JSON object");
    else
        dict = dict_of(r, json);
    json_decref(json);
    return r->failed ? NULL : dict;
}
