/* Which backend a spec means. */
#include "backend/backend.h"

#include "base/log.h"

#include <string.h>

static bool is_cuda_spec(const char *spec)
{
    return strcmp(spec, "cuda") == 0 || (strncmp(spec, "cuda:", 5) == 0 && spec[5] && strspn(spec + 5, "0123456789") == strlen(spec + 5));
}

/* The best card, or the CPU with a warning that says why. Running out of host memory is no reason to go on, nor is a cuBLAS that was asked for and cannot be. */
static m40llm_status open_auto(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err)
{
    m40llm_error why = {0};
    m40llm_status status = m40_backend_open_cuda(out, options, &why);

    if (status == M40LLM_OK)
        return M40LLM_OK;
    if (status == M40LLM_NO_MEMORY || status == M40LLM_NO_CUBLAS)
        return m40_fail(err, status, "%s", why.text);
    m40_log(&options->logger, M40LLM_LOG_WARN, "no CUDA card is used (%s): running on the CPU", why.text);
    return m40_backend_open_cpu(out, options, err);
}

static void log_device(struct m40_backend *be, const char *spec)
{
    m40llm_device_info info;

    if (!m40_log_wants(&be->logger, M40LLM_LOG_INFO))
        return;
    be->ops.get_info(be, &info);
    if (be->is_cuda)
        m40_log(&be->logger, M40LLM_LOG_INFO, "device %s: %s, compute capability %d.%d, %.1f GiB (%.1f free), driver for CUDA %s, %s; %s", info.spec,
                info.name, info.cc_major, info.cc_minor, (double)info.memory_total_bytes / 0x1p30, (double)info.memory_free_bytes / 0x1p30,
                info.driver, info.code, info.why);
    else
        m40_log(&be->logger, M40LLM_LOG_INFO, "device %s: %s, %s; %s", info.spec, info.name, info.code,
                strcmp(spec, "cpu") == 0 ? "asked for" : "no card could be used");
}

m40llm_status m40_backend_open(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const char *spec = options->spec ? options->spec : "auto";

    *out = NULL;
    if (strcmp(spec, "auto") == 0)
        M40_TRY(open_auto(out, options, err));
    else if (strcmp(spec, "cpu") == 0)
        M40_TRY(m40_backend_open_cpu(out, options, err));
    else if (is_cuda_spec(spec))
        M40_TRY(m40_backend_open_cuda(out, options, err));
    else
        M40_FAIL_IF(true, M40LLM_INVALID_ARGUMENT, "no device is called '%s': auto, cpu, cuda or cuda:N", spec);
    log_device(*out, spec);
fail:
    return status;
}

void m40_backend_close(struct m40_backend **be)
{
    if (be && *be) {
        (*be)->ops.close(*be);
        *be = NULL;
    }
}

uint64_t m40_matrix_device_bytes(const struct m40_format *format, uint64_t n_rows, uint64_t n_cols)
{
    uint64_t n_bytes;

    return m40_format_tiled_bytes(format, n_rows, n_cols, &n_bytes) ? n_bytes : UINT64_MAX;
}

m40llm_status m40_route_check(const struct m40_route_args *args, m40llm_error *err)
{
    if (args->n_used >= 1 && args->n_used <= args->n_experts && args->n_used <= M40_MAX_EXPERTS_USED && args->n_experts <= M40_MAX_EXPERTS)
        return M40LLM_OK;
    return m40_fail(err, M40LLM_UNSUPPORTED, "%u of %u experts: at most %d of %d", args->n_used, args->n_experts, M40_MAX_EXPERTS_USED,
                    M40_MAX_EXPERTS);
}
