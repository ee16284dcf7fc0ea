#include "tokenizer/pretokenize.h"

#include "base/mem.h"
#include "tokenizer/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MAX_PATTERNS = 6 };

/* Unicode's White_Space, spelled out for use inside brackets: PCRE2's \s also has U+180E, which the engines that the models were made with do not. */
#define SPACES   "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACE    "[" SPACES "]"
#define NO_SPACE "[^" SPACES "]"
#define OTHER    "[^" SPACES "\\p{L}\\p{N}]" /* neither space, letter nor number */

/* The models' published expressions, from their tokenizer.json files. */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACE "+(?!" NO_SPACE ")|" SPACE "+"
#define CL100K(digits)                                                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?" OTHER "+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACE "+(?!" NO_SPACE         \
    ")|" SPACE "+"
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* DeepSeek's list of cased letters, an older Unicode's. */
#define CASED                                                                                                                                        \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{"    \
    "377}"                                                                                                                                           \
    "\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{"    \
    "556}"                                                                                                                                           \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"          \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"  \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}" \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"   \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}"   \
    "\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"           \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"        \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_PUNCTUATION "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}"
/* Spaces at the end: \s+$ in the original. The look-behind keeps a long run that is not at the end from being tried at each of its places. */
#define TRAILING_SPACES "(?<!" SPACE ")" SPACE "++\\z"

/* The expressions are applied one after the other, each to every piece that those before it made; what lies between matches is a piece too. */
struct family {
    const char *names; /* separated by spaces */
    struct m40_pretokenizer_traits traits;
    const char *patterns[MAX_PATTERNS];
};

static const struct family families[] = {
    {"default", {false, false}, {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 mpt phi-2 olmo jais trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum exaone4 modern-bert",
     {false, false},
     {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", {true, true}, {CL100K("\\p{N}{1,3}")}},
    {"dbrx smaug-bpe", {false, false}, {CL100K("\\p{N}{1,3}")}},
    {"qwen2 deepseek-r1-qwen megrez kormo f2llmv2 stablelm2 hunyuan solar-open grok-2", {false, false}, {CL100K("\\p{N}")}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", {false, false}, {"\\p{N}", GPT2}},
    {"falcon", {false, false}, {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-llm", {false, false}, {"[\\r\\n]", SPACE "?[" CASED "]+", SPACE "?[" DEEPSEEK_PUNCTUATION "]+", TRAILING_SPACES, CJK, "\\p{N}+"}},
    {"deepseek-coder", {false, false}, {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", CJK, "\\p{N}"}},
};

struct m40_pretokenizer {
    const struct family *family;
    pcre2_general_context *memory;
    pcre2_code *codes[MAX_PATTERNS];
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

static bool has_name(const char *names, struct m40_str name)
{
    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");

        if (m40_str_equal((struct m40_str){p, n}, name))
            return true;
        p += n;
    }
    return false;
}

static const struct family *find_family(struct m40_str name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (has_name(families[i].names, name))
            return &families[i];
    return NULL;
}

/* The error's text is too short for every alias: the first name of each family stands for it. */
static m40llm_status fail_unknown(struct m40_str name, m40llm_error *err)
{
    char known[160] = "";
    size_t n = 0;

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        size_t n_name = strcspn(families[i].names, " ");

        if (n + n_name + 3 > sizeof known)
            break;
        memcpy(known + n, families[i].names, n_name);
        memcpy(known + n + n_name, ", ", 3);
        n += n_name + 2;
    }
    known[n - 2] = 0;
    return m40_fail(err, M40LLM_NO_TOKENIZER, "tokenizer.ggml.pre: unknown '%.*s'; known are %s and aliases",
                    (int)(name.n_bytes < 40 ? name.n_bytes : 40), name.data, known);
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
    const struct family *family = find_family(name);

    *out = NULL;
    if (!family)
        return fail_unknown(name, err);
    p = m40_calloc(1, sizeof *p);
    M40_FAIL_IF(!p, M40LLM_NO_MEMORY, "pre-tokenizer");
    p->family = family;
    p->memory = pcre2_general_context_create(pcre_malloc, pcre_free, NULL);
    M40_FAIL_IF(!p->memory, M40LLM_NO_MEMORY, "pre-tokenizer");
    for (size_t i = 0; i < MAX_PATTERNS && family->patterns[i]; i++)
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
