#include "conversation.h"

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));

    return role ? role : "";
}

static bool starts_with_system(const struct conversation *c)
{
    return strcmp(role_of(json_array_get(c->messages, 0)), "system") == 0;
}

bool conversation_open(struct conversation *c)
{
    c->messages = json_array();
    return c->messages != NULL;
}

void conversation_close(struct conversation *c)
{
    json_decref(c->messages);
    c->messages = NULL;
}

const char *conversation_system(const struct conversation *c)
{
    return starts_with_system(c) ? json_string_value(json_object_get(json_array_get(c->messages, 0), "content")) : NULL;
}

/* NULL: no memory, or not UTF-8. */
static json_t *make_message(const char *role, struct m40_str content)
{
    return json_pack("{s:s, s:o}", "role", role, "content", json_stringn(content.n_bytes ? content.data : "", content.n_bytes));
}

bool conversation_set_system(struct conversation *c, const char *text)
{
    json_t *message;

    if (!text || !*text) {
        if (starts_with_system(c))
            json_array_remove(c->messages, 0);
        return true;
    }
    message = make_message("system", m40_str_from(text));
    if (!message)
        return false;
    return (starts_with_system(c) ? json_array_set_new(c->messages, 0, message) : json_array_insert_new(c->messages, 0, message)) == 0;
}

size_t conversation_length(const struct conversation *c)
{
    return json_array_size(c->messages) - starts_with_system(c);
}

const char *conversation_last_role(const struct conversation *c)
{
    return conversation_length(c) ? role_of(json_array_get(c->messages, json_array_size(c->messages) - 1)) : "";
}

bool conversation_ask(struct conversation *c, struct m40_str text)
{
    return json_array_append_new(c->messages, make_message("user", text)) == 0;
}

bool conversation_answer(struct conversation *c, struct m40_str text, struct m40_str thought)
{
    json_t *message = make_message("assistant", text);

    if (message && thought.n_bytes && json_object_set_new(message, "reasoning_content", json_stringn(thought.data, thought.n_bytes)) != 0) {
        json_decref(message);
        return false;
    }
    return json_array_append_new(c->messages, message) == 0;
}

json_t *conversation_take(struct conversation *c, const char *role)
{
    json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);

    if (conversation_length(c) == 0 || strcmp(role_of(last), role) != 0)
        return NULL;
    json_incref(last);
    json_array_remove(c->messages, json_array_size(c->messages) - 1);
    return last;
}

bool conversation_put(struct conversation *c, json_t *message)
{
    return json_array_append_new(c->messages, message) == 0;
}

void conversation_clear(struct conversation *c)
{
    while (conversation_length(c))
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

bool conversation_write(const struct conversation *c, FILE *to)
{
    json_t *object = json_pack("{s:O}", "messages", c->messages);
    bool ok = object && json_dumpf(object, to, JSON_INDENT(2)) == 0 && fputc('\n', to) != EOF;

    json_decref(object);
    return ok;
}

/* The i-th message of a file, with what is known of it; NULL: why says what is wrong. */
static json_t *read_message(json_t *message, size_t i, char *why, size_t capacity)
{
    const char *role = role_of(message);
    json_t *content = json_object_get(message, "content"), *thought = json_object_get(message, "reasoning_content"), *out;
    bool is_answer = strcmp(role, "assistant") == 0;

    if (!is_answer && strcmp(role, "user") != 0 && (i > 0 || strcmp(role, "system") != 0)) {
        snprintf(why, capacity, "message %zu: its role is not user or assistant%s", i + 1, i == 0 ? ", nor system" : "");
        return NULL;
    }
    if (!json_is_string(content) || (thought && !json_is_null(thought) && !json_is_string(thought))) {
        snprintf(why, capacity, "message %zu: its content is not a string", i + 1);
        return NULL;
    }
    out = json_pack("{s:s, s:O}", "role", role, "content", content);
    if (out && is_answer && json_is_string(thought) && json_object_set(out, "reasoning_content", thought) != 0) {
        json_decref(out);
        out = NULL;
    }
    if (!out)
        snprintf(why, capacity, "out of memory");
    return out;
}

bool conversation_read(struct conversation *c, struct m40_str text, char *why, size_t capacity)
{
    json_error_t error;
    json_t *json = json_loadb(text.data, text.n_bytes, JSON_ALLOW_NUL, &error), *out = json_array(), *array = json;
    bool ok = out != NULL;

    if (json_is_object(json))
        array = json_object_get(json, "messages");
    if (!json)
        snprintf(why, capacity, "line %d: %s", error.line, error.text);
    else if (!json_is_array(array))
        snprintf(why, capacity, "no conversation: neither an array of messages nor an object that has one");
    else if (!ok)
        snprintf(why, capacity, "out of memory");
    ok = ok && json_is_array(array);
    for (size_t i = 0; ok && i < json_array_size(array); i++) {
        json_t *message = read_message(json_array_get(array, i), i, why, capacity);

        ok = message && json_array_append_new(out, message) == 0;
    }
    json_decref(json);
    if (!ok) {
        json_decref(out);
        return false;
    }
    json_decref(c->messages);
    c->messages = out;
    return true;
}
