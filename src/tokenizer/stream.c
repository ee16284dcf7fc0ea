/* The streaming detokenizer: what a token's bytes leave incomplete waits for the next token. */
#include "tokenizer/tokenizer_internal.h"
#include "tokenizer/utf8.h"

#include "base/mem.h"

struct m40_token_stream {
    const struct m40_tokenizer *t;
    unsigned flags;
    bool at_start;
    struct m40_buf raw; /* bytes that came in and have not gone out */
    struct m40_buf out; /* the text of the last call */
};

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

m40llm_status m40_token_stream_open(struct m40_token_stream **out, const struct m40_tokenizer *t, unsigned flags, m40llm_error *err)
{
    struct m40_token_stream *s = m40_calloc(1, sizeof *s);

    *out = s;
    if (!s)
        return m40_fail(err, M40LLM_NO_MEMORY, "token stream");
    s->t = t;
    s->flags = flags;
    s->at_start = true;
    return M40LLM_OK;
}

/* Moves what is complete from raw to out, and U+FFFD for what can no longer become complete; with `last` nothing can. false: no memory. */
static bool move_complete(struct m40_token_stream *s, bool last)
{
    size_t at = 0;

    s->out.n_bytes = 0;
    if (!m40_buf_append(&s->out, "", 0)) /* NUL-terminated even if empty */
        return false;
    while (at < s->raw.n_bytes) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)s->raw.data + at, s->raw.n_bytes - at);

        if (u.incomplete && !last)
            break;
        if (!m40_buf_append(&s->out, u.valid ? s->raw.data + at : replacement, u.valid ? u.n_bytes : sizeof replacement - 1))
            return false;
        at += u.n_bytes;
    }
    if (at)
        memmove(s->raw.data, s->raw.data + at, s->raw.n_bytes - at);
    s->raw.n_bytes -= at;
    return true;
}

static m40llm_status give(struct m40_token_stream *s, bool last, const char **text, size_t *n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(!move_complete(s, last), M40LLM_NO_MEMORY, "token stream");
    *text = s->out.data;
    *n_bytes = s->out.n_bytes;
fail:
    return status;
}

m40llm_status m40_token_stream_push(struct m40_token_stream *s, int32_t id, const char **text, size_t *n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(m40_token_decode(s->t, id, s->flags, &s->at_start, &s->raw, err));
    M40_TRY(give(s, false, text, n_bytes, err));
fail:
    return status;
}

m40llm_status m40_token_stream_flush(struct m40_token_stream *s, const char **text, size_t *n_bytes, m40llm_error *err)
{
    return give(s, true, text, n_bytes, err);
}

void m40_token_stream_close(struct m40_token_stream **s)
{
    if (!*s)
        return;
    m40_buf_free(&(*s)->raw);
    m40_buf_free(&(*s)->out);
    m40_free(*s);
    *s = NULL;
}
