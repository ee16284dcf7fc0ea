#include "fields.h"

#include <stdio.h>
#include <stdlib.h>

/* Where in the text stands what jansson stumbled over: the name of the object's field whose value, or itself, holds the byte at `end`. Only hints: the text is no
 * JSON. Names with escapes are not told. */
static void name_of_place(const char *text, size_t end, char *name, size_t capacity)
{
    size_t depth = 0, begin = 0, n = 0;
    bool in_text = false, is_name = false;

    for (size_t i = 0; i < end; i++) {
        char c = text[i];

        if (in_text && c == '\\') {
            i++;
            is_name = false;
        } else if (in_text && c == '"') {
            in_text = false;
            if (is_name)
                n = i - begin;
        } else if (in_text) {
            is_name = is_name && c >= ' ' && c < 0x7f;
        } else if (c == '"') {
            in_text = true;
            is_name = depth == 1 && n == 0;
            begin = is_name ? i + 1 : begin;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c == ',' && depth == 1) {
            n = 0;
        }
    }
    snprintf(name, capacity, "%.*s", (int)(n < capacity ? n : 0), text + begin);
}

json_t *fields_parse(const struct m40_buf *body, struct failure *f)
{
    json_error_t error;
    const char *text = body->n_bytes ? body->data : "";
    json_t *object = json_loadb(text, body->n_bytes, JSON_REJECT_DUPLICATES, &error);
    size_t end = error.position > 0 ? (size_t)error.position : 0;
    char name[64];

    if (object && json_is_object(object))
        return object;
    if (object) {
        fail(f, MHD_HTTP_BAD_REQUEST, NULL, "invalid_json", "the body is no JSON object");
    } else {
        name_of_place(text, end < body->n_bytes ? end : body->n_bytes, name, sizeof name);
        fail(f, MHD_HTTP_BAD_REQUEST, *name ? name : NULL, "invalid_json", "the body is no JSON: line %d, column %d: %s", error.line, error.column,
             error.text);
    }
    json_decref(object);
    return NULL;
}

static bool is_neutral(json_t *value, const char *neutral)
{
    json_t *expected;
    bool same;

    if (json_is_null(value) || strcmp(neutral, ANY_VALUE) == 0)
        return true;
    if (*neutral == '*')
        return strcmp(neutral, ANY_TEXT) == 0 ? json_is_string(value) : json_is_object(value);
    expected = json_loads(neutral, JSON_DECODE_ANY, NULL);
    same = json_is_number(value) && json_is_number(expected) ? json_number_value(value) == json_number_value(expected) : json_equal(value, expected);
    json_decref(expected);
    return same;
}

static void refuse_value(struct failure *f, const char *param, const char *neutral)
{
    if (*neutral == '*')
        fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be %s", param, strcmp(neutral, ANY_TEXT) == 0 ? "a string" : "an object");
    else if (strcmp(neutral, "null") == 0)
        fail(f, MHD_HTTP_BAD_REQUEST, param, "unsupported", "'%s' is not supported", param);
    else
        fail(f, MHD_HTTP_BAD_REQUEST, param, "unsupported", "'%s' is not supported: it may only be %s", param, neutral);
}

void fields_check_known(const struct fields *o, const struct known_field *table, size_t n_table, unsigned endpoint)
{
    const char *name;
    json_t *value;

    json_object_foreach(o->object, name, value)
    {
        const struct known_field *k = NULL;

        for (size_t i = 0; i < n_table && !k; i++)
            if ((table[i].endpoints & endpoint) && strcmp(table[i].name, name) == 0)
                k = &table[i];
        if (!k)
            fail(o->failure, MHD_HTTP_BAD_REQUEST, name, "unknown_field", "there is no field '%.80s'", name);
        else if (k->neutral && !is_neutral(value, k->neutral))
            refuse_value(o->failure, name, k->neutral);
    }
}

/* The field's value; NULL where there is none, or an earlier failure. */
static json_t *value_of(const struct fields *o, const char *name)
{
    json_t *value = json_object_get(o->object, name);

    return o->failure->status || json_is_null(value) ? NULL : value;
}

void fields_bool(const struct fields *o, const char *name, bool *out)
{
    json_t *value = value_of(o, name);

    if (value && !json_is_boolean(value))
        fail(o->failure, MHD_HTTP_BAD_REQUEST, name, NULL, "'%s' must be true or false", name);
    else if (value)
        *out = json_is_true(value);
}

void fields_whole(const struct fields *o, const char *name, int64_t least, int64_t most, int64_t *out)
{
    json_t *value = value_of(o, name);

    if (!value)
        return;
    if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
        fail(o->failure, MHD_HTTP_BAD_REQUEST, name, NULL, "'%s' must be a whole number from %lld to %lld", name, (long long)least, (long long)most);
    else
        *out = json_integer_value(value);
}

void fields_real(const struct fields *o, const char *name, double least, double most, float *out)
{
    json_t *value = value_of(o, name);
    double number = json_number_value(value);

    if (!value)
        return;
    if (!json_is_number(value) || !(number >= least && number <= most))
        fail(o->failure, MHD_HTTP_BAD_REQUEST, name, NULL, "'%s' must be a number from %g to %g", name, least, most);
    else
        *out = (float)number;
}

void fields_text(const struct fields *o, const char *name, const char **out)
{
    json_t *value = value_of(o, name);

    if (value && !json_is_string(value))
        fail(o->failure, MHD_HTTP_BAD_REQUEST, name, NULL, "'%s' must be a string", name);
    else if (value)
        *out = json_string_value(value);
}

bool fields_ids(const json_t *array, const char *param, size_t n_vocab, int32_t **ids, size_t *n_ids, struct failure *f)
{
    size_t n = json_array_size(array);

    *n_ids = 0;
    *ids = malloc((n + 1) * sizeof **ids);
    if (!*ids)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for %zu token ids", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);

        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= (json_int_t)n_vocab)
            return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s[%zu]' must be a token id from 0 to %zu", param, i, n_vocab - 1);
        (*ids)[(*n_ids)++] = (int32_t)json_integer_value(value);
    }
    return true;
}
