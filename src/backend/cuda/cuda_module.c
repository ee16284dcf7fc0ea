/* Modules, functions and launches. */
#include "backend/cuda/cuda_internal.h"
#include "backend/cuda/kernel_images.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_GRID_YZ = 65535 };

m40llm_status m40_cuda_enter(struct m40_cuda *c, m40llm_error *err)
{
    m40_cuda_resident_stop(c);
    return m40_cuda_check(c, c->driver->CtxSetCurrent(c->context), "making the context current", err);
}

static const char *function_name(const struct m40_cuda *c, CUfunction function)
{
    for (size_t i = 0; i < c->n_functions; i++)
        if (c->functions[i].function == function)
            return c->functions[i].name;
    return "none";
}

m40llm_status m40_cuda_check(struct m40_cuda *c, CUresult result, const char *call, m40llm_error *err)
{
    if (result == CUDA_SUCCESS)
        return M40LLM_OK;
    return m40_cuda_status(c->driver, result, err, "%s: %s (last kernel: %s)", c->info.spec, call, function_name(c, c->last_launched));
}

static m40llm_status find_image(const char *name, size_t *out, m40llm_error *err)
{
    for (size_t i = 0; i < m40_n_kernel_images; i++) {
        if (strcmp(m40_kernel_images[i].name, name) == 0) {
            *out = i;
            return M40LLM_OK;
        }
    }
    return m40_fail(err, M40LLM_UNSUPPORTED, "this build has no kernels %s", name);
}

/* Machine code may be refused by a driver that is older than the ptxas that made it; PTX then serves, and the log says so. */
static bool load_sass(struct m40_cuda *c, const struct m40_kernel_image *image, CUmodule *out)
{
    CUresult result;

    if (!c->use_sass || !image->cubin)
        return false;
    result = c->driver->ModuleLoadData(out, image->cubin);
    if (result == CUDA_SUCCESS)
        return true;
    c->use_sass = false;
    snprintf(c->info.code, sizeof c->info.code, "PTX compute_52");
    m40_log(&c->base.logger, M40LLM_LOG_INFO, "%s: the driver refused the sm_52 code of kernels %s (error %d): using PTX", c->info.spec, image->name,
            result);
    return false;
}

static m40llm_status load_ptx(struct m40_cuda *c, const struct m40_kernel_image *image, CUmodule *out, m40llm_error *err)
{
    char log[512] = "";
    int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)(sizeof log - 1)};
    CUresult result = c->driver->ModuleLoadDataEx(out, image->ptx, 2, options, values);

    if (result != CUDA_SUCCESS && log[0])
        m40_log(&c->base.logger, M40LLM_LOG_ERROR, "%s: compiling kernels %s: %s", c->info.spec, image->name, log);
    return m40_cuda_status(c->driver, result, err, "%s: loading kernels %s", c->info.spec, image->name);
}

static m40llm_status load_module(struct m40_cuda *c, size_t index, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_kernel_image *image = &m40_kernel_images[index];
    uint64_t start = m40_now_ns(), ns;

    if (c->modules[index])
        return M40LLM_OK;
    if (!load_sass(c, image, &c->modules[index]))
        M40_TRY(load_ptx(c, image, &c->modules[index], err));
    ns = m40_now_ns() - start;
    c->jit_ns += ns;
    c->n_loaded++;
    m40_log(&c->base.logger, M40LLM_LOG_DEBUG, "%s: kernels %s loaded in %.1f ms (%s)", c->info.spec, image->name, (double)ns * 1e-6, c->info.code);
    return M40LLM_OK;
fail:
    c->modules[index] = NULL;
    return status;
}

static m40llm_status remember_function(struct m40_cuda *c, CUfunction function, const char *name, m40llm_error *err)
{
    if (c->n_functions == c->functions_capacity) {
        size_t capacity = c->functions_capacity ? c->functions_capacity * 2 : 32;
        struct m40_cuda_function *grown = m40_realloc_array(c->functions, capacity, sizeof *grown);

        if (!grown)
            return m40_fail(err, M40LLM_NO_MEMORY, "table of kernels");
        c->functions = grown;
        c->functions_capacity = capacity;
    }
    c->functions[c->n_functions].function = function;
    snprintf(c->functions[c->n_functions].name, sizeof c->functions->name, "%s", name);
    c->n_functions++;
    return M40LLM_OK;
}

m40llm_status m40_cuda_kernel(struct m40_cuda *c, const char *image, const char *kernel, CUfunction *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t index = 0;

    *out = NULL;
    M40_TRY(m40_cuda_enter(c, err));
    M40_TRY(find_image(image, &index, err));
    M40_TRY(load_module(c, index, err));
    M40_CUDA_TRY(c->driver, c->driver->ModuleGetFunction(out, c->modules[index], kernel), "%s: kernel %s of %s", c->info.spec, kernel, image);
    M40_TRY(remember_function(c, *out, kernel, err));
    return M40LLM_OK;
fail:
    *out = NULL;
    return status;
}

m40llm_status m40_cuda_launch(struct m40_cuda *c, CUfunction function, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t threads, const void *args,
                              m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    void *params[1] = {(void *)(uintptr_t)args}; /* the driver's array is of void *, but it only reads */

    if (gx == 0 || gy == 0 || gz == 0)
        return M40LLM_OK;
    M40_FAIL_IF(gx > INT32_MAX || gy > MAX_GRID_YZ || gz > MAX_GRID_YZ, M40LLM_UNSUPPORTED, "%s over %u x %u x %u blocks", function_name(c, function),
                gx, gy, gz);
    M40_TRY(m40_cuda_enter(c, err));
    M40_CUDA_TRY(c->driver, c->driver->LaunchKernel(function, gx, gy, gz, threads, 1, 1, 0, c->stream, params, NULL),
                 "%s: launching %s (last kernel: %s)", c->info.spec, function_name(c, function), function_name(c, c->last_launched));
    c->last_launched = function;
    c->counters.n_launches++;
    if (c->steps.recording)
        m40_cuda_resident_note(c, function, function_name(c, function), (const uint32_t[3]){gx, gy, gz}, threads, args);
    return M40LLM_OK;
fail:
    return status;
}

void m40_cuda_report_loading(struct m40_cuda *c)
{
    if (c->jit_ns == c->jit_reported_ns)
        return;
    m40_log(&c->base.logger, M40LLM_LOG_INFO, "%s: %u kernel modules loaded (%s) in %.2f s", c->info.spec, c->n_loaded, c->info.code,
            (double)c->jit_ns * 1e-9);
    c->jit_reported_ns = c->jit_ns;
}

void m40_cuda_unload(struct m40_cuda *c)
{
    for (size_t i = 0; c->modules && i < m40_n_kernel_images; i++)
        if (c->modules[i])
            c->driver->ModuleUnload(c->modules[i]);
    m40_free(c->modules);
    m40_free(c->functions);
    c->modules = NULL;
    c->functions = NULL;
    c->n_functions = c->functions_capacity = 0;
}
