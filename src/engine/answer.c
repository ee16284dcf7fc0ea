#include "engine/answer.h"
#include "base/mem.h"
#include "base/status.h"
#include "tokenizer/utf8.h"

#include <string.h>

/* ---- stop strings ---- */

m40llm_status m40_stops_init(struct m40_stops *stops, const char *const *strings, size_t n_strings, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n_bytes = 0;

    *stops = (struct m40_stops){0};
    M40_FAIL_IF(n_strings > M40LLM_MAX_STOPS, M40LLM_INVALID_ARGUMENT, "%zu stop strings: at most %d", n_strings, M40LLM_MAX_STOPS);
    for (size_t i = 0; i < n_strings; i++) {
        size_t n = strlen(strings[i]);

        M40_FAIL_IF(n == 0, M40LLM_INVALID_ARGUMENT, "stop string %zu is empty", i);
        M40_FAIL_IF(n > M40LLM_MAX_STOP_BYTES, M40LLM_INVALID_ARGUMENT, "stop string %zu has %zu bytes: at most %d", i, n, M40LLM_MAX_STOP_BYTES);
        M40_FAIL_IF(!m40_utf8_is_valid(strings[i], n), M40LLM_INVALID_ARGUMENT, "stop string %zu is not UTF-8", i);
        n_bytes += n;
    }
    stops->strings = m40_calloc(n_strings, sizeof *stops->strings);
    stops->bytes = m40_calloc(n_bytes, 1);
    M40_FAIL_IF(!stops->strings || !stops->bytes, M40LLM_NO_MEMORY, "stop strings");
    n_bytes = 0;
    for (size_t i = 0; i < n_strings; i++) {
        struct m40_str s = {stops->bytes + n_bytes, strlen(strings[i])};

        memcpy(stops->bytes + n_bytes, strings[i], s.n_bytes);
        n_bytes += s.n_bytes;
        stops->strings[stops->n_strings++] = s;
    }
    return M40LLM_OK;
fail:
    m40_stops_free(stops);
    return status;
}

void m40_stops_free(struct m40_stops *stops)
{
    m40_free(stops->strings);
    m40_free(stops->bytes);
    *stops = (struct m40_stops){0};
}

/* Where the first stop string that is complete in text begins, if it ends behind `from`; n_bytes: there is none. */
static size_t find_stop(const struct m40_stops *stops, const char *text, size_t n_bytes, size_t from)
{
    for (size_t end = from + 1; end <= n_bytes; end++) {
        size_t longest = 0;

        for (uint32_t i = 0; i < stops->n_strings; i++) {
            struct m40_str s = stops->strings[i];

            if (s.n_bytes <= end && s.n_bytes > longest && memcmp(text + end - s.n_bytes, s.data, s.n_bytes) == 0)
                longest = s.n_bytes;
        }
        if (longest > 0)
            return end - longest;
    }
    return n_bytes;
}

/* Bytes at the end of text that a stop string may begin with. */
static size_t n_suspect(const struct m40_stops *stops, const char *text, size_t n_bytes)
{
    size_t most = 0;

    for (uint32_t i = 0; i < stops->n_strings; i++) {
        struct m40_str s = stops->strings[i];
        size_t n = s.n_bytes - 1 < n_bytes ? s.n_bytes - 1 : n_bytes;

        while (n > most && memcmp(text + n_bytes - n, s.data, n) != 0)
            n--;
        most = n > most ? n : most;
    }
    return most;
}

/* ---- answers ---- */

m40llm_status m40_answer_init(struct m40_answer *a, const struct m40_tokenizer *tokenizer, const struct m40_stops *stops, const int32_t *prompt,
                              size_t n_prompt, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *text;
    size_t n_bytes;

    a->stops = stops;
    a->tokenizer = tokenizer;
    M40_FAIL_IF(!m40_buf_append(&a->held, "", 0) || !m40_buf_append(&a->out, "", 0), M40LLM_NO_MEMORY, "answer");
    if (!tokenizer)
        return M40LLM_OK;
    M40_TRY(m40_token_stream_open(&a->stream, tokenizer, 0, err));
    for (size_t i = 0; i < n_prompt; i++) /* SentencePiece texts lose their first space where nothing came before */
        M40_TRY(m40_token_stream_push(a->stream, prompt[i], &text, &n_bytes, err));
fail:
    return status;
}

void m40_answer_free(struct m40_answer *a)
{
    if (a->stream)
        m40_token_stream_close(&a->stream);
    m40_buf_free(&a->held);
    m40_buf_free(&a->out);
}

/* Gives out the first n bytes of what is held. */
static m40llm_status give(struct m40_answer *a, size_t n, struct m40_str *text, m40llm_error *err)
{
    a->out.n_bytes = 0;
    if (!m40_buf_append(&a->out, a->held.data, n))
        return m40_fail(err, M40LLM_NO_MEMORY, "answer");
    memmove(a->held.data, a->held.data + n, a->held.n_bytes - n);
    a->held.n_bytes -= n;
    *text = (struct m40_str){a->out.data, n};
    return M40LLM_OK;
}

/* Nothing more comes of what the stream holds back. */
static m40llm_status hold_rest(struct m40_answer *a, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *piece;
    size_t n;

    M40_TRY(m40_token_stream_flush(a->stream, &piece, &n, err));
    M40_FAIL_IF(!m40_buf_append(&a->held, piece, n), M40LLM_NO_MEMORY, "answer");
fail:
    return status;
}

m40llm_status m40_answer_push(struct m40_answer *a, int32_t id, bool is_watched, struct m40_str *text, bool *is_stopped, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n_old = a->held.n_bytes, n_new, n_certain;
    const char *piece;

    *text = (struct m40_str){"", 0};
    *is_stopped = false;
    if (!a->tokenizer)
        return M40LLM_OK;
    if (m40_tokenizer_is_control(a->tokenizer, id))
        M40_TRY(hold_rest(a, err));
    M40_TRY(m40_token_stream_push(a->stream, id, &piece, &n_new, err));
    if (m40_tokenizer_is_control(a->tokenizer, id))
        return give(a, a->held.n_bytes, text, err);
    M40_FAIL_IF(!m40_buf_append(&a->held, piece, n_new), M40LLM_NO_MEMORY, "answer");
    n_certain = a->held.n_bytes;
    if (is_watched && a->stops->n_strings) {
        n_certain = find_stop(a->stops, a->held.data, a->held.n_bytes, n_old);
        *is_stopped = n_certain < a->held.n_bytes;
        if (!*is_stopped)
            n_certain -= n_suspect(a->stops, a->held.data, a->held.n_bytes);
    }
    M40_TRY(give(a, n_certain, text, err));
fail:
    return status;
}

m40llm_status m40_answer_flush(struct m40_answer *a, struct m40_str *text, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *text = (struct m40_str){"", 0};
    if (!a->tokenizer)
        return M40LLM_OK;
    M40_TRY(hold_rest(a, err));
    M40_TRY(give(a, a->held.n_bytes, text, err));
fail:
    return status;
}
