#define _GNU_SOURCE
#include "fake_cublas/fake_cublas.h"

#include "backend/cuda/cuda_cublas.h"
#include "emu_kernels/fake_sgemm.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

struct cublasContext {
    struct m40_cuda_driver driver; /* only the functions found below */
    CUcontext context;
    CUmodule module;
    CUfunction sgemm;
    CUstream stream;
    void *workspace;
    int math_mode;
};

/* With the signatures that the backend calls them by. */
#define DECLARE(field, symbol, params) EXPORT cublasStatus_t symbol params;
M40_CUBLAS_SYMBOLS(DECLARE)
#undef DECLARE

EXPORT struct fake_cublas_calls fake_cublas_calls;

/* The emulator looks its kernels up by their names in the PTX. */
static const char ptx[] = ".version 6.0\n.target sm_52\n.address_size 64\n.visible .entry fake_sgemm(\n)\n";

static bool fails(const char *function)
{
    const char *chosen = getenv("M40LLM_FAKE_CUBLAS_FAIL");

    return chosen && strcmp(chosen, function) == 0;
}

/* The driver that the backend has open: the one beside this library. */
static bool find_driver(struct m40_cuda_driver *d)
{
    static const char name[] = "libcuda-emu-test.so";
    char path[PATH_MAX];
    Dl_info self;
    const char *slash;
    void *symbol;

    if (!dladdr(&fake_cublas_calls, &self))
        return false;
    slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash + 1 - self.dli_fname) : 0, self.dli_fname, name);
    d->library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (!d->library)
        return false;
#define FIND(field, function)                                                                                                                        \
    symbol = dlsym(d->library, #function);                                                                                                           \
    memcpy(&d->field, &symbol, sizeof symbol);
    FIND(CtxGetCurrent, cuCtxGetCurrent)
    FIND(ModuleLoadData, cuModuleLoadData)
    FIND(ModuleUnload, cuModuleUnload)
    FIND(ModuleGetFunction, cuModuleGetFunction)
    FIND(LaunchKernel, cuLaunchKernel)
#undef FIND
    return true;
}

cublasStatus_t cublasGetProperty(int property, int *value)
{
    const char *major = getenv("M40LLM_FAKE_CUBLAS_MAJOR");

    if (fails("cublasGetProperty"))
        return CUBLAS_STATUS_INVALID_VALUE;
    *value = property == MAJOR_VERSION ? (major ? atoi(major) : 12) : property == MINOR_VERSION ? 4 : 5;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    if (handle->module)
        handle->driver.ModuleUnload(handle->module);
    if (handle->driver.library)
        dlclose(handle->driver.library);
    free(handle);
    fake_cublas_calls.n_handles--;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *out)
{
    cublasHandle_t handle = calloc(1, sizeof *handle);

    if (!handle || fails("cublasCreate_v2")) {
        free(handle);
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    fake_cublas_calls.n_handles++;
    if (!find_driver(&handle->driver) || handle->driver.CtxGetCurrent(&handle->context) != CUDA_SUCCESS || !handle->context ||
        handle->driver.ModuleLoadData(&handle->module, ptx) != CUDA_SUCCESS ||
        handle->driver.ModuleGetFunction(&handle->sgemm, handle->module, "fake_sgemm") != CUDA_SUCCESS) {
        cublasDestroy_v2(handle);
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    *out = handle;
    return CUBLAS_STATUS_SUCCESS;
}

/* As the real one, it forgets the workspace. */
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, CUstream stream)
{
    handle->stream = stream;
    handle->workspace = NULL;
    return fails("cublasSetStream_v2") ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t n_bytes)
{
    if (fails("cublasSetWorkspace_v2") || (uintptr_t)workspace % 256 || n_bytes < 4 << 20)
        return CUBLAS_STATUS_INVALID_VALUE;
    handle->workspace = workspace;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, int mode)
{
    handle->math_mode = mode;
    return fails("cublasSetMathMode") ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

static int at_least_one(int n)
{
    return n > 1 ? n : 1;
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, int op_a, int op_b, int m, int n, int k, const float *alpha, const float *a, int lda,
                              const float *b, int ldb, const float *beta, float *c, int ldc)
{
    struct fake_sgemm_args args = {.a = a, .b = b, .c = c, .alpha = *alpha, .beta = *beta, .is_a_transposed = op_a != CUBLAS_OP_N};
    void *params[1] = {&args};
    CUcontext context = NULL;

    fake_cublas_calls =
        (struct fake_cublas_calls){fake_cublas_calls.n_handles, fake_cublas_calls.n_products + 1, op_a, op_b, m, n, k, lda, ldb, ldc, *alpha, *beta};
    if (fails("cublasSgemm_v2"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (m < 0 || n < 0 || k < 0 || lda < at_least_one(op_a == CUBLAS_OP_N ? m : k) || ldb < at_least_one(op_b == CUBLAS_OP_N ? k : n) ||
        ldc < at_least_one(m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (handle->driver.CtxGetCurrent(&context) != CUDA_SUCCESS || context != handle->context || !handle->stream || !handle->workspace ||
        handle->math_mode != CUBLAS_PEDANTIC_MATH)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    args.is_b_transposed = op_b != CUBLAS_OP_N;
    args.m = (uint32_t)m;
    args.n = (uint32_t)n;
    args.k = (uint32_t)k;
    args.lda = (uint32_t)lda;
    args.ldb = (uint32_t)ldb;
    args.ldc = (uint32_t)ldc;
    if (handle->driver.LaunchKernel(handle->sgemm, (unsigned)(((uint64_t)m * (uint64_t)n + 63) / 64), 1, 1, 64, 1, 1, 0, handle->stream, params,
                                    NULL) != CUDA_SUCCESS)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return CUBLAS_STATUS_SUCCESS;
}
