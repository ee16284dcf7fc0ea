#include "tokenizer/pretokenize.h"

#include "base/mem.h"
#include "tokenizer/pretokenize_families.h"
#include "tokenizer/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct m40_pretokenizer {
    const struct m40_split_family *family;
    pcre2_general_context *memory;
    pcre2_code *codes[M40_SPLIT_MAX_PATTERNS];
    size_t n_codes;
};

static void *pcre_malloc(size_t n_bytes, void *user)
{
    (void)user;
    return m40_realloc_array(NULL, n_bytes, 1);
}

static void pcre_free(void *block, void *user)
{
    (void)user;
    m40_free(block);
}

static m40llm_status compile(struct m40_pretokenizer *p, const char *pattern, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    pcre2_compile_context *context = pcre2_compile_context_create(p->memory);
    PCRE2_SIZE offset;
    int code;

    M40_FAIL_IF(!context, M40LLM_NO_MEMORY, "pre-tokenizer");
    p->codes[p->n_codes] = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
    /* our own patterns: a PCRE2 without Unicode is the other way to fail */
    M40_FAIL_IF(!p->codes[p->n_codes], code == PCRE2_ERROR_HEAP_FAILED ? M40LLM_NO_MEMORY : M40LLM_UNSUPPORTED,
                "pre-tokenizer: PCRE2 error %d at %zu", code, offset);
    /* where this machine allows no JIT, the interpreter serves */
    (void)pcre2_jit_compile(p->codes[p->n_codes], PCRE2_JIT_COMPLETE);
    p->n_codes++;
fail:
    pcre2_compile_context_free(context);
    return status;
}

m40llm_status m40_pretokenizer_open(struct m40_pretokenizer **out, struct m40_str name, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_pretokenizer *p = NULL;
    const struct m40_split_family *family = m40_split_family_find(name);

    *out = NULL;
    if (!family)
        return m40_split_family_unknown(name, err);
    p = m40_calloc(1, sizeof *p);
    M40_FAIL_IF(!p, M40LLM_NO_MEMORY, "pre-tokenizer");
    p->family = family;
    p->memory = pcre2_general_context_create(pcre_malloc, pcre_free, NULL);
    M40_FAIL_IF(!p->memory, M40LLM_NO_MEMORY, "pre-tokenizer");
    for (size_t i = 0; i < M40_SPLIT_MAX_PATTERNS && family->patterns[i]; i++)
        M40_TRY(compile(p, family->patterns[i], err));
    *out = p;
    return M40LLM_OK;
fail:
    m40_pretokenizer_close(&p);
    return status;
}

void m40_pretokenizer_close(struct m40_pretokenizer **pretokenizer)
{
    struct m40_pretokenizer *p = *pretokenizer;

    if (!p)
        return;
    for (size_t i = 0; i < p->n_codes; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_general_context_free(p->memory);
    m40_free(p);
    *pretokenizer = NULL;
}

struct m40_pretokenizer_traits m40_pretokenizer_traits(const struct m40_pretokenizer *pretokenizer)
{
    return pretokenizer->family->traits;
}

struct split {
    const struct m40_pretokenizer *p;
    pcre2_match_context *context;
    pcre2_match_data *match;
    m40_piece_fn fn;
    void *user;
};

/* The next match at or after `from`; *begin = *end = n_bytes: none. The text is valid UTF-8. */
static m40llm_status find_match(const struct split *s, size_t level, const char *text, size_t n_bytes, size_t from, size_t *begin, size_t *end,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const pcre2_code *code = s->p->codes[level];
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->match);
    int rc = pcre2_match(code, (PCRE2_SPTR)text, n_bytes, from, PCRE2_NO_UTF_CHECK, s->match, s->context);

    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, (PCRE2_SPTR)text, n_bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, s->context);
    M40_FAIL_IF(rc == PCRE2_ERROR_NOMEMORY, M40LLM_NO_MEMORY, "pre-tokenizer: %zu bytes of text", n_bytes);
    M40_FAIL_IF(rc < 0 && rc != PCRE2_ERROR_NOMATCH, M40LLM_UNSUPPORTED, "pre-tokenizer: PCRE2 error %d in %zu bytes of text", rc, n_bytes);
    *begin = rc < 0 ? n_bytes : span[0];
    *end = rc < 0 ? n_bytes : span[1];
fail:
    return status;
}

/* Splits by expression `level` and hands the pieces to the next one. Every expression matches at least one character, so `at` moves on. */
static m40llm_status split_level(const struct split *s, size_t level, const char *text, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t begin = n_bytes, end = n_bytes;

    if (level == s->p->n_codes)
        return s->fn(s->user, text, n_bytes, err);
    for (size_t at = 0; at < n_bytes; at = end) {
        M40_TRY(find_match(s, level, text, n_bytes, at, &begin, &end, err));
        if (begin > at)
            M40_TRY(split_level(s, level + 1, text + at, begin - at, err));
        if (end > begin)
            M40_TRY(split_level(s, level + 1, text + begin, end - begin, err));
    }
fail:
    return status;
}

static size_t valid_prefix(const char *text, size_t n_bytes)
{
    size_t at = 0;

    while (at < n_bytes) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + at, n_bytes - at);

        if (!u.valid)
            break;
        at += u.n_bytes;
    }
    return at;
}

static m40llm_status split_text(const struct split *s, const char *text, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t at = 0;

    while (at < n_bytes) {
        size_t n_valid = valid_prefix(text + at, n_bytes - at);

        if (n_valid)
            M40_TRY(split_level(s, 0, text + at, n_valid, err));
        at += n_valid;
        if (at == n_bytes)
            break;
        M40_TRY(s->fn(s->user, text + at, 1, err));
        at++;
    }
fail:
    return status;
}

m40llm_status m40_pretokenize(const struct m40_pretokenizer *pretokenizer, const char *text, size_t n_bytes, m40_piece_fn fn, void *user,
                              m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct split s = {.p = pretokenizer, .fn = fn, .user = user};

    s.context = pcre2_match_context_create(pretokenizer->memory);
    s.match = pcre2_match_data_create(1, pretokenizer->memory);
    M40_FAIL_IF(!s.context || !s.match, M40LLM_NO_MEMORY, "pre-tokenizer");
    /* A long run of spaces takes a few steps a byte; anything far beyond is text made to hang the matcher. */
    pcre2_set_match_limit(s.context, n_bytes < 100000000 ? 1000000 + 32 * (uint32_t)n_bytes : UINT32_MAX);
    M40_TRY(split_text(&s, text, n_bytes, err));
fail:
    pcre2_match_data_free(s.match);
    pcre2_match_context_free(s.context);
    return status;
}
