#include "backend/cuda/cuda_driver.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *result_name(CUresult result)
{
    switch (result) {
#define RESULT_NAME(number, name, text)                                                                                                              \
    case number:                                                                                                                                     \
        return #name;
        M40_CUDA_RESULTS(RESULT_NAME)
#undef RESULT_NAME
    }
    return "CUDA error";
}

static const char *result_text(CUresult result)
{
    switch (result) {
#define RESULT_TEXT(number, name, text)                                                                                                              \
    case number:                                                                                                                                     \
        return text;
        M40_CUDA_RESULTS(RESULT_TEXT)
#undef RESULT_TEXT
    }
    return "no description";
}

static m40llm_status status_of(CUresult result)
{
    switch (result) {
    case CUDA_SUCCESS:
        return M40LLM_OK;
    case CUDA_ERROR_OUT_OF_MEMORY:
        return M40LLM_OUT_OF_DEVICE_MEMORY;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_INVALID_DEVICE:
        return M40LLM_NO_DEVICE;
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
        return M40LLM_DRIVER_TOO_OLD;
    default:
        return M40LLM_DRIVER;
    }
}

m40llm_status m40_cuda_status(const struct m40_cuda_driver *driver, CUresult result, m40llm_error *err, const char *what_format, ...)
{
    const char *name = NULL, *text = NULL;
    char what[128];
    va_list args;

    if (result == CUDA_SUCCESS)
        return M40LLM_OK;
    va_start(args, what_format);
    vsnprintf(what, sizeof what, what_format, args);
    va_end(args);
    if (!driver || driver->GetErrorName(result, &name) != CUDA_SUCCESS || !name)
        name = result_name(result);
    if (!driver || driver->GetErrorString(result, &text) != CUDA_SUCCESS || !text)
        text = result_text(result);
    return m40_fail(err, status_of(result), "%s: %s (%d): %s", what, name, result, text);
}

/* dlsym gives an object pointer; ISO C has no cast from it to a function pointer, but POSIX promises that the bits are the same. */
static void *find_symbol(void *library, const char *name, void *function_ptr)
{
    void *symbol = dlsym(library, name);

    memcpy(function_ptr, &symbol, sizeof symbol);
    return symbol;
}

static m40llm_status find_symbols(struct m40_cuda_driver *d, m40llm_error *err)
{
    const char *missing = NULL;

#define FIND_SYMBOL(field, symbol, params)                                                                                                           \
    if (!find_symbol(d->library, #symbol, &d->field) && !missing)                                                                                    \
        missing = #symbol;
    M40_CUDA_SYMBOLS(FIND_SYMBOL)
#undef FIND_SYMBOL
    if (!d->DriverGetVersion)
        return m40_fail(err, M40LLM_DRIVER, "%s is not a CUDA driver library", d->path);
    if (d->DriverGetVersion(&d->version) != CUDA_SUCCESS)
        return m40_fail(err, M40LLM_DRIVER, "%s does not tell its version", d->path);
    if (d->version < M40_CUDA_DRIVER_MIN)
        return m40_fail(err, M40LLM_DRIVER_TOO_OLD, "%s serves CUDA %d.%d; %d.%d (driver 470) or newer is needed", d->path, d->version / 1000,
                        d->version % 1000 / 10, M40_CUDA_DRIVER_MIN / 1000, M40_CUDA_DRIVER_MIN % 1000 / 10);
    if (missing)
        return m40_fail(err, M40LLM_DRIVER, "%s lacks %s", d->path, missing);
    return M40LLM_OK;
}

m40llm_status m40_cuda_driver_open(struct m40_cuda_driver **out, const char *path, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *d = m40_calloc(1, sizeof *d);

    *out = NULL;
    M40_FAIL_IF(!d, M40LLM_NO_MEMORY, "driver table");
    snprintf(d->path, sizeof d->path, "%s", path && *path ? path : "libcuda.so.1");
    d->library = dlopen(path && *path ? path : d->path, RTLD_NOW | RTLD_LOCAL);
    M40_FAIL_IF(!d->library, M40LLM_NO_DEVICE, "no CUDA driver: %s", dlerror());
    M40_TRY(find_symbols(d, err));
    M40_CUDA_TRY(d, d->Init(0), "starting the CUDA driver");
    *out = d;
    return M40LLM_OK;
fail:
    m40_cuda_driver_close(&d);
    return status;
}

void m40_cuda_driver_close(struct m40_cuda_driver **driver)
{
    struct m40_cuda_driver *d = *driver;

    *driver = NULL;
    if (!d)
        return;
    if (d->library)
        dlclose(d->library);
    m40_free(d);
}
