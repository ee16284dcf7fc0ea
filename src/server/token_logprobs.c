/* Tokens as text with their log probabilities, in the shapes of chats and of text completions. */
#include "completion.h"

#include <math.h>
#include <stdlib.h>

enum { PIECE_BYTES = 4096 };

/* What the token adds to a text that ends with the token before it: a SentencePiece token's space is not there at a text's beginning. Cut to PIECE_BYTES. */
static size_t piece_of(const struct server_model *m, int32_t before, int32_t id, char text[static 2 * PIECE_BYTES])
{
    const int32_t both[2] = {before, id};
    size_t n_before = 0, n = 0;

    if (m40llm_detokenize(m->tokenizer, both, 1, M40LLM_DETOKENIZE_SPECIAL, text, PIECE_BYTES, &n_before, NULL) != M40LLM_OK ||
        m40llm_detokenize(m->tokenizer, both, 2, M40LLM_DETOKENIZE_SPECIAL, text, 2 * PIECE_BYTES, &n, NULL) != M40LLM_OK || n < n_before)
        return 0;
    memmove(text, text + n_before, n - n_before);
    return n - n_before;
}

/* JSON has no infinity. */
static json_t *logprob_json(float logprob)
{
    return json_real(isfinite(logprob) ? (double)logprob : -9999.0);
}

static json_t *bytes_json(const char *text, size_t n_bytes)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n_bytes; i++)
        json_array_append_new(array, json_integer((unsigned char)text[i]));
    return array;
}

/* {"token", "logprob", "bytes"} */
static json_t *chat_token(const struct server_model *m, int32_t before, int32_t id, float logprob)
{
    char text[2 * PIECE_BYTES];
    size_t n = piece_of(m, before, id, text);

    return json_pack("{s:o, s:o, s:o}", "token", text_json(text, n), "logprob", logprob_json(logprob), "bytes", bytes_json(text, n));
}

static bool add_of_chat(struct choice *choice, const struct server_model *m, const struct event_record *e, const m40llm_token_logprob *top)
{
    json_t *token = chat_token(m, choice->before, e->token, e->logprob), *others = json_array();

    for (uint32_t i = 0; i < e->n_top; i++)
        json_array_append_new(others, chat_token(m, choice->before, top[i].id, top[i].logprob));
    if (!choice->logprobs)
        choice->logprobs = json_array();
    if (json_array_size(others) == e->n_top && json_object_set_new(token, "top_logprobs", others) == 0)
        return json_array_append_new(choice->logprobs, token) == 0;
    json_decref(token);
    return false;
}

static bool append(json_t *object, const char *name, json_t *value)
{
    return json_array_append_new(json_object_get(object, name), value) == 0;
}

static bool add_of_text(struct choice *choice, const struct server_model *m, const struct event_record *e, const m40llm_token_logprob *top)
{
    char text[2 * PIECE_BYTES];
    size_t n = piece_of(m, choice->before, e->token, text), offset = choice->n_characters;
    json_t *token = text_json(text, n), *others = json_object();

    for (size_t i = 0; i < n; i++)
        choice->n_characters += ((unsigned char)text[i] & 0xc0) != 0x80;
    for (uint32_t i = 0; i < e->n_top; i++) {
        char piece[2 * PIECE_BYTES];
        size_t n_piece = piece_of(m, choice->before, top[i].id, piece);
        json_t *name = text_json(piece, n_piece);

        /* of tokens that look alike the likeliest stays */
        if (name && !json_object_get(others, json_string_value(name)))
            json_object_set_new(others, json_string_value(name), logprob_json(top[i].logprob));
        json_decref(name);
    }
    if (!choice->logprobs)
        choice->logprobs = json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs", "text_offset");
    return append(choice->logprobs, "tokens", token) + append(choice->logprobs, "token_logprobs", logprob_json(e->logprob)) +
               append(choice->logprobs, "top_logprobs", others) + append(choice->logprobs, "text_offset", json_integer((json_int_t)offset)) ==
           4;
}

bool choice_add_logprob(struct choice *choice, enum call_kind kind, const struct server_model *m, const struct event_record *e,
                        const m40llm_token_logprob *top)
{
    bool ok = kind == CALL_CHAT ? add_of_chat(choice, m, e, top) : add_of_text(choice, m, e, top);

    choice->before = e->token;
    return ok;
}
