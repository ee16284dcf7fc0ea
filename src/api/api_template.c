/* Chat templates. */
#include "api/api.h"
#include "base/mem.h"

/* Takes over *tmpl, which is freed where there is no memory. */
static m40llm_status wrap(m40llm_template **out, struct m40_template **tmpl, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_template *t = m40_calloc(1, sizeof *t);

    M40_FAIL_IF(!t, M40LLM_NO_MEMORY, "template object");
    t->tmpl = *tmpl;
    *out = t;
    return M40LLM_OK;
fail:
    m40_template_free(tmpl);
    return status;
}

m40llm_status m40llm_template_compile(m40llm_template **out, const char *text, size_t n_bytes, m40llm_error *err)
{
    struct m40_template *tmpl;
    m40llm_status status = m40_template_compile(&tmpl, text, n_bytes, err);

    *out = NULL;
    return status == M40LLM_OK ? wrap(out, &tmpl, err) : status;
}

m40llm_status m40llm_template_open(m40llm_template **out, const m40llm_file *file, const char *name, m40llm_error *err)
{
    struct m40_template *tmpl;
    m40llm_status status = m40_template_of_gguf(&tmpl, file->gguf, name, err);

    *out = NULL;
    return status == M40LLM_OK ? wrap(out, &tmpl, err) : status;
}

void m40llm_template_close(m40llm_template **t)
{
    if (!t || !*t)
        return;
    m40_template_free(&(*t)->tmpl);
    m40_free(*t);
    *t = NULL;
}

/* The bounds that were asked for, and the defaults of the others. */
static struct m40_template_limits limits_of(const m40llm_template_options *options)
{
    struct m40_template_limits limits = M40_TEMPLATE_LIMITS_DEFAULT;

    if (options->n_max_steps)
        limits.n_steps = options->n_max_steps;
    if (options->max_time_ms)
        limits.time_ns = options->max_time_ms < UINT64_MAX / 1000000 ? options->max_time_ms * 1000000 : UINT64_MAX;
    if (options->max_output_bytes)
        limits.output_bytes = options->max_output_bytes;
    if (options->max_memory_bytes)
        limits.memory_bytes = options->max_memory_bytes;
    return limits;
}

m40llm_status m40llm_template_render(const m40llm_template *t, const char *context_json, size_t n_bytes, const m40llm_template_options *given,
                                     char **text, size_t *out_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_template_options options = M40LLM_TEMPLATE_OPTIONS_INIT;
    struct m40_template_limits limits;
    struct m40_template_time now;
    struct m40_buf out;

    *text = NULL;
    *out_bytes = 0;
    m40_api_options(&options, sizeof options, given);
    limits = limits_of(&options);
    M40_FAIL_IF(options.now && !m40_template_parse_time(options.now, &now), M40LLM_INVALID_ARGUMENT, "'%.40s' is not a time like 2026-01-15T12:00:00",
                options.now);
    M40_TRY(m40_template_render(t->tmpl, context_json, n_bytes, options.now ? &now : NULL, &limits, &out, err));
    *text = out.data;
    *out_bytes = out.n_bytes;
fail:
    return status;
}

void m40llm_free(void *block)
{
    m40_free(block);
}
