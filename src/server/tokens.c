/* POST /tokenize, /detokenize. */
#include "call.h"

#include <stdlib.h>

static const struct known_field of_tokenize[] = {{"text", 1, NULL}, {"add_bos", 1, NULL}, {"special", 1, NULL}};
static const struct known_field of_detokenize[] = {{"tokens", 1, NULL}, {"special", 1, NULL}};

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(array, json_integer(ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

json_t *tokenize_answer(const struct server_model *m, const struct m40_buf *body, struct failure *f)
{
    struct fields o = {fields_parse(body, f), f};
    bool add_bos = true, special = false;
    const char *text = NULL;
    int32_t *ids = NULL;
    json_t *answer = NULL;
    size_t n_ids = 0;

    if (!o.object)
        return NULL;
    fields_check_known(&o, of_tokenize, sizeof of_tokenize / sizeof *of_tokenize, 1);
    fields_text(&o, "text", &text);
    fields_bool(&o, "add_bos", &add_bos);
    fields_bool(&o, "special", &special);
    if (!text)
        fail(f, MHD_HTTP_BAD_REQUEST, "text", NULL, "'text' is missing");
    else if (f->status == 0 && tokenize_text(m, text, json_string_length(json_object_get(o.object, "text")),
                                             (add_bos ? M40LLM_TOKENIZE_ADD_BOS : 0) | (special ? M40LLM_TOKENIZE_SPECIAL : 0), &ids, &n_ids, f))
        answer = json_pack("{s:o, s:I}", "tokens", ids_json(ids, n_ids), "count", (json_int_t)n_ids);
    free(ids);
    json_decref(o.object);
    return answer;
}

/* {"text"} of the ids; NULL: *f says why, or no memory. */
static json_t *detokenize(const struct server_model *m, const int32_t *ids, size_t n_ids, unsigned flags, struct failure *f)
{
    m40llm_error err = {0};
    size_t n_bytes = 0;
    json_t *object = NULL;
    m40llm_status status = m40llm_detokenize(m->tokenizer, ids, n_ids, flags, NULL, 0, &n_bytes, &err);
    char *text = status == M40LLM_OK || status == M40LLM_BUFFER_TOO_SMALL ? malloc(n_bytes + 1) : NULL;

    if (text)
        status = m40llm_detokenize(m->tokenizer, ids, n_ids, flags, text, n_bytes, &n_bytes, &err);
    if (text && status == M40LLM_OK)
        object = json_pack("{s:o}", "text", text_json(text, n_bytes));
    else if (status != M40LLM_OK && status != M40LLM_BUFFER_TOO_SMALL)
        fail_of(f, "tokens", &err);
    free(text);
    return object;
}

json_t *detokenize_answer(const struct server_model *m, const struct m40_buf *body, struct failure *f)
{
    struct fields o = {fields_parse(body, f), f};
    json_t *tokens, *answer = NULL;
    bool special = false;
    int32_t *ids = NULL;
    size_t n_ids = 0;

    if (!o.object)
        return NULL;
    fields_check_known(&o, of_detokenize, sizeof of_detokenize / sizeof *of_detokenize, 1);
    fields_bool(&o, "special", &special);
    tokens = json_object_get(o.object, "tokens");
    if (!json_is_array(tokens))
        fail(f, MHD_HTTP_BAD_REQUEST, "tokens", NULL, "'tokens' must be an array of token ids");
    if (f->status == 0 && fields_ids(tokens, "tokens", m40llm_tokenizer_n_vocab(m->tokenizer), &ids, &n_ids, f))
        answer = detokenize(m, ids, n_ids, special ? M40LLM_DETOKENIZE_SPECIAL : 0, f);
    free(ids);
    json_decref(o.object);
    return answer;
}

enum MHD_Result handle_tokenize(struct exchange *x)
{
    json_t *answer = tokenize_answer(&x->server->model, &x->body, &x->failure);

    return x->failure.status ? reply_failure(x) : reply_json(x, MHD_HTTP_OK, answer);
}

enum MHD_Result handle_detokenize(struct exchange *x)
{
    json_t *answer = detokenize_answer(&x->server->model, &x->body, &x->failure);

    return x->failure.status ? reply_failure(x) : reply_json(x, MHD_HTTP_OK, answer);
}
