#define _POSIX_C_SOURCE 200809L /* localtime_r */
#include "tokenizer/template/template.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tokenizer/template/parser.h"
#include "tokenizer/template/run.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocab.h"

#include <time.h>

enum { MAX_TREE_BYTES = 1 << 30 }; /* of the tree of a template of the greatest length */

struct template_default {
    char *name, *value;
    size_t n_value_bytes;
};

struct m40_template {
    struct m40_arena arena; /* the source, the tree */
    const struct m40_tnode *body;
    struct template_default *defaults;
    size_t n_defaults;
};

/* A copy with all newlines as "\n" and without the last one, as Jinja2 reads it. TEMPLATE: no UTF-8. */
static m40llm_status normalise(struct m40_template *t, const char *text, size_t n_bytes, struct m40_str *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char *copy = m40_arena_alloc(&t->arena, n_bytes + 1);
    unsigned line = 1;
    size_t n = 0;

    M40_FAIL_IF(!copy, M40LLM_NO_MEMORY, "template");
    for (size_t at = 0; at < n_bytes;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + at, n_bytes - at);

        M40_FAIL_IF(!u.valid, M40LLM_TEMPLATE, "line %u: not UTF-8", line);
        if (u.code == '\r') {
            copy[n++] = '\n';
            at += at + 1 < n_bytes && text[at + 1] == '\n' ? 2 : 1;
            line++;
            continue;
        }
        line += u.code == '\n';
        memcpy(copy + n, text + at, u.n_bytes);
        n += u.n_bytes;
        at += u.n_bytes;
    }
    if (n > 0 && copy[n - 1] == '\n')
        n--;
    *out = (struct m40_str){copy, n};
fail:
    return status;
}

m40llm_status m40_template_compile(struct m40_template **out, const char *text, size_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_template *t = m40_calloc(1, sizeof *t);
    struct m40_ttokens tokens = {0};
    struct m40_tnode *body;
    struct m40_str source;

    *out = NULL;
    M40_FAIL_IF(!t, M40LLM_NO_MEMORY, "template");
    M40_FAIL_IF(n_bytes > M40_TEMPLATE_MAX_BYTES, M40LLM_TEMPLATE, "the template has %zu bytes, more than %d", n_bytes, M40_TEMPLATE_MAX_BYTES);
    t->arena.limit_bytes = MAX_TREE_BYTES;
    M40_TRY(normalise(t, text, n_bytes, &source, err));
    M40_TRY(m40_template_lex(&tokens, &t->arena, source, err));
    M40_TRY(m40_template_parse(&body, &tokens, &t->arena, err));
    M40_FAIL_IF(m40_arena_failed(&t->arena), M40LLM_NO_MEMORY, "template");
    t->body = body;
    m40_template_tokens_free(&tokens);
    *out = t;
    return M40LLM_OK;
fail:
    m40_template_tokens_free(&tokens);
    m40_template_free(&t);
    return status;
}

void m40_template_free(struct m40_template **t)
{
    if (!t || !*t)
        return;
    for (size_t i = 0; i < (*t)->n_defaults; i++) {
        m40_free((*t)->defaults[i].name);
        m40_free((*t)->defaults[i].value);
    }
    m40_free((*t)->defaults);
    m40_arena_free(&(*t)->arena);
    m40_free(*t);
    *t = NULL;
}

m40llm_status m40_template_set_default(struct m40_template *t, const char *name, struct m40_str value, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct template_default *grown = m40_realloc_array(t->defaults, t->n_defaults + 1, sizeof *grown), *added;

    M40_FAIL_IF(!grown, M40LLM_NO_MEMORY, "template");
    t->defaults = grown;
    added = &grown[t->n_defaults];
    *added = (struct template_default){m40_strndup(name, strlen(name)), m40_strndup(value.data, value.n_bytes), value.n_bytes};
    t->n_defaults++; /* from here on it is freed with the template */
    M40_FAIL_IF(!added->name || !added->value, M40LLM_NO_MEMORY, "template");
fail:
    return status;
}

static void add_defaults(struct m40_trun *r, const struct m40_template *t, struct m40_tdict *context)
{
    for (size_t i = 0; i < t->n_defaults && !r->failed; i++)
        if (t->defaults[i].name && t->defaults[i].value && !m40_tdict_get_text(r, context, m40_str_from(t->defaults[i].name)))
            m40_tdict_set(r, context, m40_tr_string(r, t->defaults[i].name, strlen(t->defaults[i].name)),
                          m40_tr_string(r, t->defaults[i].value, t->defaults[i].n_value_bytes));
}

static struct m40_template_time local_time(void)
{
    time_t seconds = time(NULL);
    struct tm t = {.tm_mday = 1, .tm_year = 70};

    localtime_r(&seconds, &t);
    return (struct m40_template_time){t.tm_year + 1900,   (uint8_t)(t.tm_mon + 1), (uint8_t)t.tm_mday,
                                      (uint8_t)t.tm_hour, (uint8_t)t.tm_min,       (uint8_t)t.tm_sec};
}

m40llm_status m40_template_render(const struct m40_template *t, const char *context, size_t n_bytes, const struct m40_template_time *now,
                                  const struct m40_template_limits *limits, struct m40_buf *out, m40llm_error *err)
{
    static const struct m40_template_limits default_limits = M40_TEMPLATE_LIMITS_DEFAULT;
    struct m40_template_time local = local_time();
    struct m40_trun r = {.limits = limits ? limits : &default_limits, .now = now ? now : &local, .start_ns = m40_now_ns(), .line = 1, .err = err};
    struct m40_tdict *variables;

    r.arena.limit_bytes = r.limits->memory_bytes;
    r.seed = m40_hash_seed(&r);
    *out = (struct m40_buf){0};
    variables = m40_tr_context(&r, context, n_bytes);
    if (variables) {
        add_defaults(&r, t, variables);
        m40_tr_render(&r, t->body, variables);
        m40_tr_step(&r, 0);
        if (r.status == M40LLM_OK && !m40_buf_reserve(&r.out, 0))
            r.status = m40_fail(err, M40LLM_NO_MEMORY, "rendering a template");
    }
    m40_arena_free(&r.arena);
    if (r.status == M40LLM_OK) {
        r.out.data[r.out.n_bytes] = 0;
        *out = r.out;
    } else {
        m40_buf_free(&r.out);
    }
    return r.status;
}
