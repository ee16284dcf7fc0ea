/* POST /v1/embeddings. */
#include "call.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* What is asked, until the engine has all texts' vectors. */
struct embeddings {
    bool as_base64;
    size_t n_texts;
    size_t *n_ids; /* [n_texts] */
    int32_t *ids;  /* of all texts, one behind the other */
    size_t n_all, capacity;
    m40llm_embed_options options;
};

static const struct known_field known[] = {
    {"model", 1, NULL}, {"input", 1, NULL}, {"encoding_format", 1, NULL}, {"dimensions", 1, NULL}, {"pooling", 1, NULL}, {"user", 1, ANY_TEXT},
};

void embeddings_free(struct embeddings **out)
{
    struct embeddings *e = *out;

    if (!e)
        return;
    free(e->n_ids);
    free(e->ids);
    free(e);
    *out = NULL;
}

/* ---- the request ---- */

/* Takes the ids of the next text. */
static bool add_text(struct embeddings *e, int32_t *ids, size_t n_ids, struct failure *f)
{
    int32_t *grown;

    if (e->n_all + n_ids > e->capacity) {
        size_t capacity = e->capacity * 2 > e->n_all + n_ids ? e->capacity * 2 : e->n_all + n_ids;

        grown = realloc(e->ids, capacity * sizeof *e->ids);
        if (!grown) {
            free(ids);
            return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the tokens of 'input'");
        }
        e->ids = grown;
        e->capacity = capacity;
    }
    memcpy(e->ids + e->n_all, ids, n_ids * sizeof *ids);
    e->n_all += n_ids;
    e->n_ids[e->n_texts++] = n_ids;
    free(ids);
    return true;
}

/* A text or its token ids. param names it. */
static bool read_text(struct embeddings *e, const json_t *text, const char *param, const struct server_model *m, struct failure *f)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    bool ok;

    if (json_is_string(text) ? json_string_length(text) == 0 : json_array_size(text) == 0)
        return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' is empty", param);
    if (json_is_string(text))
        ok = tokenize_text(m, json_string_value(text), json_string_length(text), M40LLM_TOKENIZE_ADD_BOS, &ids, &n_ids, f);
    else
        ok = fields_ids(text, param, m40llm_tokenizer_n_vocab(m->tokenizer), &ids, &n_ids, f);
    if (ok)
        return add_text(e, ids, n_ids, f);
    free(ids);
    return false;
}

/* A text, token ids, or an array of either. */
static bool read_input(struct embeddings *e, const json_t *input, const struct server_model *m, struct failure *f)
{
    const json_t *first = json_array_get(input, 0);
    bool is_several = json_is_string(first) || json_is_array(first);
    size_t n = is_several ? json_array_size(input) : 1;

    if (!json_is_string(input) && !is_several && !json_is_integer(first))
        return fail(f, MHD_HTTP_BAD_REQUEST, "input", NULL, "'input' must be a string, an array of token ids, or an array of either");
    if (n > M40LLM_MAX_EMBED_TEXTS)
        return fail(f, MHD_HTTP_BAD_REQUEST, "input", NULL, "'input' has %zu texts: at most %d", n, M40LLM_MAX_EMBED_TEXTS);
    e->n_ids = calloc(n, sizeof *e->n_ids);
    if (!e->n_ids)
        return fail(f, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for %zu texts", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *text = is_several ? json_array_get(input, i) : input;
        char param[32] = "input";

        if (is_several)
            snprintf(param, sizeof param, "input[%zu]", i);
        if (is_several && json_typeof(text) != json_typeof(first))
            return fail(f, MHD_HTTP_BAD_REQUEST, param, NULL, "'%s' must be %s, as 'input[0]' is", param,
                        json_is_string(first) ? "a string" : "an array of token ids");
        if (!read_text(e, text, param, m, f))
            return false;
    }
    return true;
}

/* The field's value, which must be one of the two words: 0 or 1; -1: it is not there. */
static int read_choice(const struct fields *o, const char *name, const char *word0, const char *word1)
{
    const char *word = NULL;

    fields_text(o, name, &word);
    if (word && strcmp(word, word0) != 0 && strcmp(word, word1) != 0)
        fail(o->failure, MHD_HTTP_BAD_REQUEST, name, NULL, "'%s' must be \"%s\" or \"%s\"", name, word0, word1);
    return word ? strcmp(word, word1) == 0 : -1;
}

static bool parse(struct embeddings *e, const struct server_model *m, const struct m40_buf *body, struct failure *f)
{
    struct fields o = {fields_parse(body, f), f};
    int64_t dimensions = m->model_info.n_embd;
    int pooling;

    e->options = (m40llm_embed_options)M40LLM_EMBED_OPTIONS_INIT;
    if (!o.object)
        return false;
    fields_check_known(&o, known, sizeof known / sizeof *known, 1);
    call_check_model(o.object, m, f);
    e->as_base64 = read_choice(&o, "encoding_format", "float", "base64") == 1;
    pooling = read_choice(&o, "pooling", "mean", "last");
    if (pooling >= 0)
        e->options.pooling = pooling ? M40LLM_POOLING_LAST : M40LLM_POOLING_MEAN;
    fields_whole(&o, "dimensions", 1, INT32_MAX, &dimensions);
    if (dimensions != m->model_info.n_embd)
        fail(f, MHD_HTTP_BAD_REQUEST, "dimensions", "unsupported", "'dimensions' may only be %u, which is what this model gives",
             m->model_info.n_embd);
    if (f->status == 0)
        read_input(e, json_object_get(o.object, "input"), m, f);
    json_decref(o.object);
    return f->status == 0;
}

/* ---- the answer ---- */

static bool add_base64(struct m40_buf *b, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    if (!m40_buf_reserve(b, (n + 2) / 3 * 4 + 2) || !m40_buf_append(b, "\"", 1))
        return false;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)data[i] << 16 | (i + 1 < n ? (uint32_t)data[i + 1] << 8 : 0) | (i + 2 < n ? data[i + 2] : 0);
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], i + 1 < n ? digits[bits >> 6 & 63] : '=', i + 2 < n ? digits[bits & 63] : '='};

        m40_buf_append(b, four, 4);
    }
    return m40_buf_append(b, "\"", 1);
}

/* Nine digits tell every float. */
static bool add_numbers(struct m40_buf *b, const float *vector, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!m40_buf_printf(b, i ? ",%.9g" : "[%.9g", (double)vector[i]))
            return false;
    return m40_buf_append(b, "]", 1);
}

/* As the engine's machine has its floats: this library runs on little-endian ones, which is what clients expect. */
static bool add_embedding(struct m40_buf *b, const struct embeddings *e, size_t index, const float *vector, size_t n)
{
    return m40_buf_printf(b, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", index ? "," : "", index) &&
           (e->as_base64 ? add_base64(b, (const uint8_t *)vector, n * sizeof *vector) : add_numbers(b, vector, n)) && m40_buf_append(b, "}", 1);
}

/* vectors: [n_texts][n_embd], from the events, which have them in any order; false: one is missing or not finite. */
static bool sort_events(const struct embeddings *e, const struct m40_buf *events, size_t n_embd, float *vectors)
{
    size_t n_found = 0;

    for (size_t i = 0; i < events->n_bytes;) {
        struct event_record record;

        memcpy(&record, events->data + i, sizeof record);
        i += sizeof record;
        if (record.type == M40LLM_EVENT_EMBEDDING && record.choice < e->n_texts && record.n_text == n_embd * sizeof *vectors) {
            memcpy(vectors + record.choice * n_embd, events->data + i, record.n_text);
            n_found++;
        }
        i += record.n_text;
    }
    for (size_t i = 0; i < e->n_texts * n_embd; i++)
        if (!isfinite(vectors[i]))
            return false;
    return n_found == e->n_texts;
}

static bool write_answer(struct m40_buf *b, const struct embeddings *e, const struct server_model *m, const float *vectors, uint32_t n_tokens)
{
    json_t *name = text_json(m->name, strlen(m->name));
    char *name_text = name ? json_dumps(name, JSON_ENCODE_ANY) : NULL;
    size_t n_embd = m->model_info.n_embd;
    bool ok = name_text && m40_buf_printf(b, "{\"object\":\"list\",\"data\":[");

    for (size_t i = 0; ok && i < e->n_texts; i++)
        ok = add_embedding(b, e, i, vectors + i * n_embd, n_embd);
    ok = ok && m40_buf_printf(b, "],\"model\":%s,\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u}}", name_text, n_tokens, n_tokens);
    free(name_text);
    json_decref(name);
    return ok;
}

/* Takes the events. */
static enum MHD_Result answer(struct exchange *x, struct m40_buf *events)
{
    const struct server_model *m = &x->server->model;
    struct embeddings *e = x->embeddings;
    float *vectors = calloc(e->n_texts * m->model_info.n_embd, sizeof *vectors);
    struct m40_buf text = {0};

    if (x->error.code != M40LLM_OK)
        fail_of(&x->failure, NULL, &x->error);
    else if (vectors && !sort_events(e, events, m->model_info.n_embd, vectors))
        fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "the model gave no finite numbers");
    m40_buf_free(events);
    if (x->failure.status == 0 && (!vectors || !write_answer(&text, e, m, vectors, x->result.n_prompt)))
        fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the answer");
    free(vectors);
    if (x->failure.status == 0)
        return reply_text(x, "application/json", &text);
    m40_buf_free(&text);
    return reply_failure(x);
}

static bool start(struct exchange *x)
{
    struct embeddings *e = x->embeddings = calloc(1, sizeof *e);
    bool ok;

    if (!e)
        return fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the request");
    ok = parse(e, &x->server->model, &x->body, &x->failure);
    exchange_drop_body(x);
    if (!ok || !exchange_submit_embeddings(x, e->ids, e->n_ids, e->n_texts, &e->options, "input", &x->failure))
        return false;
    free(e->ids); /* many may wait */
    e->ids = NULL;
    return true;
}

enum MHD_Result handle_embeddings(struct exchange *x)
{
    struct m40_buf events = {0};
    bool ended;

    if (!x->embeddings && !start(x))
        return reply_failure(x);
    if (!exchange_take(x, true, &events, &ended))
        return MHD_YES; /* called again at the end */
    if (x->is_gone) {
        m40_buf_free(&events);
        return MHD_NO;
    }
    return answer(x, &events);
}
