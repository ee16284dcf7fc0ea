/* For tests that talk to a CUDA driver directly: opens one with a context, finds kernels, launches. Everything fails the test on error. */
#ifndef M40_TESTS_CUDA_FIXTURE_H
#define M40_TESTS_CUDA_FIXTURE_H

#include "harness/harness.h"

#include "backend/cuda/cuda_driver.h"
#include "backend/cuda/kernel_images.h"

#include <libgen.h>
#include <limits.h>
#include <unistd.h>

struct cuda {
    struct m40_cuda_driver *d;
    CUcontext context;
    CUmodule module;
    CUstream stream; /* non-blocking */
};

#define CUDA_OK(call) assert_int_equal(call, CUDA_SUCCESS)

/* A library beside the folder of this program, where the build puts the emulators. */
static inline const char *cuda_beside(const char *name)
{
    static char path[PATH_MAX + 64];
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(n > 0);
    self[n] = 0;
    snprintf(path, sizeof path, "%s/../%s", dirname(self), name);
    return path;
}

static inline void cuda_seed(unsigned seed)
{
    char text[16];

    snprintf(text, sizeof text, "%u", seed);
    setenv("M40LLM_EMU_SEED", text, 1);
}

static inline const char *cuda_ptx(const char *name)
{
    for (size_t i = 0; i < m40_n_kernel_images; i++)
        if (strcmp(m40_kernel_images[i].name, name) == 0)
            return m40_kernel_images[i].ptx;
    fail_msg("no kernel image %s", name);
    return NULL;
}

static inline struct cuda cuda_open(const char *library, const char *ptx)
{
    struct cuda c = {0};
    m40llm_error err;

    if (m40_cuda_driver_open(&c.d, library, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    CUDA_OK(c.d->DevicePrimaryCtxRetain(&c.context, 0));
    CUDA_OK(c.d->CtxSetCurrent(c.context));
    CUDA_OK(c.d->ModuleLoadData(&c.module, ptx));
    CUDA_OK(c.d->StreamCreate(&c.stream, CU_STREAM_NON_BLOCKING));
    return c;
}

static inline void cuda_close(struct cuda *c)
{
    c->d->StreamDestroy(c->stream);
    c->d->ModuleUnload(c->module);
    CUDA_OK(c->d->DevicePrimaryCtxRelease(0));
    m40_cuda_driver_close(&c->d);
}

static inline CUfunction cuda_function(const struct cuda *c, const char *name)
{
    CUfunction f;

    CUDA_OK(c->d->ModuleGetFunction(&f, c->module, name));
    return f;
}

/* Device memory with a copy of data (NULL: as it comes). */
static inline CUdeviceptr cuda_new(const struct cuda *c, const void *data, size_t n_bytes)
{
    CUdeviceptr ptr;

    CUDA_OK(c->d->MemAlloc(&ptr, n_bytes));
    if (data)
        CUDA_OK(c->d->MemcpyHtoD(ptr, data, n_bytes));
    return ptr;
}

static inline void *cuda_pointer(CUdeviceptr ptr)
{
    return (void *)(uintptr_t)ptr;
}

static inline CUresult cuda_launch(const struct cuda *c, const char *name, unsigned grid, unsigned block, void *args)
{
    void *params[1] = {args};

    return c->d->LaunchKernel(cuda_function(c, name), grid, 1, 1, block, 1, 1, 0, c->stream, params, NULL);
}

/* Waits for the stream, then copies. */
static inline void cuda_get(const struct cuda *c, void *to, CUdeviceptr from, size_t n_bytes)
{
    CUDA_OK(c->d->StreamSynchronize(c->stream));
    CUDA_OK(c->d->MemcpyDtoH(to, from, n_bytes));
}

#endif
