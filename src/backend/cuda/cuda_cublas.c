#include "backend/cuda/cuda_cublas.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Version 12 first: it serves every card from Maxwell on, and drivers that 13 does not. */
static const char *const names[] = {"libcublas.so.12", "libcublas.so.11", "libcublas.so.13"};
#define NAMES_TEXT "libcublas.so.12, .11 or .13"

enum { N_NAMES = sizeof names / sizeof *names };
enum { CUT_MAJOR = 13, CUT_CC = 75 }; /* CUDA 13 dropped Maxwell, Pascal and Volta */

static const char *status_name(cublasStatus_t result)
{
    switch (result) {
#define STATUS_NAME(number, name)                                                                                                                    \
    case number:                                                                                                                                     \
        return #name;
        M40_CUBLAS_STATUSES(STATUS_NAME)
#undef STATUS_NAME
    }
    return "unknown status";
}

static m40llm_status check(const struct m40_cublas *b, cublasStatus_t result, m40llm_status code, const char *call, m40llm_error *err)
{
    if (result == CUBLAS_STATUS_SUCCESS)
        return M40LLM_OK;
    return m40_fail(err, code, "%s: %s: %s (%d)", b->path, call, status_name(result), result);
}

/* ---- opening ---- */

static m40llm_status open_library(struct m40_cublas *b, const char *path, m40llm_error *err)
{
    const bool is_named = path && *path;

    for (unsigned i = 0; i < (is_named ? 1 : N_NAMES) && !b->library; i++) {
        snprintf(b->path, sizeof b->path, "%s", is_named ? path : names[i]);
        b->library = dlopen(is_named ? path : names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (b->library)
        return M40LLM_OK;
    return is_named ? m40_fail(err, M40LLM_NO_CUBLAS, "no cuBLAS: %s", dlerror())
                    : m40_fail(err, M40LLM_NO_CUBLAS, "no cuBLAS: there is no " NAMES_TEXT);
}

static m40llm_status find_symbols(struct m40_cublas *b, m40llm_error *err)
{
    void *symbol;

    /* dlsym gives an object pointer; POSIX promises that its bits are the function's. */
#define FIND_SYMBOL(field, name, params)                                                                                                             \
    symbol = dlsym(b->library, #name);                                                                                                               \
    if (!symbol)                                                                                                                                     \
        return m40_fail(err, M40LLM_NO_CUBLAS, "%s lacks %s", b->path, #name);                                                                       \
    memcpy(&b->field, &symbol, sizeof symbol);
    M40_CUBLAS_SYMBOLS(FIND_SYMBOL)
#undef FIND_SYMBOL
    return M40LLM_OK;
}

static m40llm_status check_version(struct m40_cublas *b, int cc, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    int version[3];

    for (int i = MAJOR_VERSION; i <= PATCH_LEVEL; i++)
        M40_TRY(check(b, b->GetProperty(i, &version[i]), M40LLM_NO_CUBLAS, "asking for the version", err));
    snprintf(b->version, sizeof b->version, "%d.%d.%d", version[0], version[1], version[2]);
    M40_FAIL_IF(version[0] >= CUT_MAJOR && cc < CUT_CC, M40LLM_NO_CUBLAS,
                "%s is cuBLAS %s, which has no code for compute capability %d.%d (CUDA 13 removed all below 7.5): use libcublas.so.12 or .11",
                b->path, b->version, cc / 10, cc % 10);
fail:
    return status;
}

m40llm_status m40_cublas_open(struct m40_cublas **out, const char *path, int cc, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cublas *b = m40_calloc(1, sizeof *b);

    *out = NULL;
    M40_FAIL_IF(!b, M40LLM_NO_MEMORY, "cuBLAS table");
    M40_TRY(open_library(b, path, err));
    M40_TRY(find_symbols(b, err));
    M40_TRY(check_version(b, cc, err));
    *out = b;
    return M40LLM_OK;
fail:
    m40_cublas_close(&b);
    return status;
}

m40llm_status m40_cublas_start(struct m40_cublas *b, CUstream stream, m40_addr workspace, size_t workspace_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(check(b, b->Create(&b->handle), M40LLM_NO_CUBLAS, "starting", err));
    M40_TRY(check(b, b->SetStream(b->handle, stream), M40LLM_NO_CUBLAS, "setting the stream", err));
    /* after the stream, which brings the library's own workspace back */
    M40_TRY(check(b, b->SetWorkspace(b->handle, (void *)(uintptr_t)workspace, workspace_bytes), M40LLM_NO_CUBLAS, "setting the workspace", err));
    M40_TRY(check(b, b->SetMathMode(b->handle, CUBLAS_PEDANTIC_MATH), M40LLM_NO_CUBLAS, "choosing FP32 arithmetic", err));
fail:
    return status;
}

void m40_cublas_close(struct m40_cublas **cublas)
{
    struct m40_cublas *b = *cublas;

    *cublas = NULL;
    if (!b)
        return;
    if (b->handle)
        b->Destroy(b->handle);
    if (b->library)
        dlclose(b->library);
    m40_free(b);
}

/* ---- the product ---- */

/* Bytes from the first element to behind the last; false where the matrix breaks a rule. */
static bool measure(const struct m40_cublas_matrix *m, uint64_t *out_bytes)
{
    if (m->n_rows == 0 || m->n_cols == 0 || m->n_rows > INT32_MAX || m->n_cols > INT32_MAX || m->stride > INT32_MAX || m->stride < m->n_cols)
        return false;
    *out_bytes = ((m->n_rows - 1) * m->stride + m->n_cols) * sizeof(float); /* below 2^64 */
    return m->addr != 0 && m->addr % sizeof(float) == 0 && *out_bytes <= m->n_bytes;
}

static m40llm_status check_matrix(const char *name, const struct m40_cublas_matrix *m, uint64_t *out_bytes, m40llm_error *err)
{
    if (measure(m, out_bytes))
        return M40LLM_OK;
    return m40_fail(err, M40LLM_INVALID_ARGUMENT, "product by cuBLAS: %s of %llu x %llu, rows %llu floats apart, does not lie in %llu bytes at %#llx",
                    name, (unsigned long long)m->n_rows, (unsigned long long)m->n_cols, (unsigned long long)m->stride, (unsigned long long)m->n_bytes,
                    (unsigned long long)m->addr);
}

static bool overlap(const struct m40_cublas_matrix *a, uint64_t a_bytes, const struct m40_cublas_matrix *b, uint64_t b_bytes)
{
    return a->addr < b->addr + b_bytes && b->addr < a->addr + a_bytes;
}

m40llm_status m40_cublas_multiply(const struct m40_cublas *b, const struct m40_cublas_matrix *x, const struct m40_cublas_matrix *w,
                                  const struct m40_cublas_matrix *y, bool is_added, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const float alpha = 1, beta = is_added ? 1 : 0;
    uint64_t x_bytes = 0, w_bytes = 0, y_bytes = 0;
    cublasStatus_t result;

    M40_TRY(check_matrix("x", x, &x_bytes, err));
    M40_TRY(check_matrix("w", w, &w_bytes, err));
    M40_TRY(check_matrix("y", y, &y_bytes, err));
    M40_FAIL_IF(x->n_cols != w->n_cols || y->n_rows != x->n_rows || y->n_cols != w->n_rows, M40LLM_INVALID_ARGUMENT,
                "product by cuBLAS: x of %llu x %llu and w of %llu x %llu do not make y of %llu x %llu", (unsigned long long)x->n_rows,
                (unsigned long long)x->n_cols, (unsigned long long)w->n_rows, (unsigned long long)w->n_cols, (unsigned long long)y->n_rows,
                (unsigned long long)y->n_cols);
    M40_FAIL_IF(overlap(y, y_bytes, x, x_bytes) || overlap(y, y_bytes, w, w_bytes), M40LLM_INVALID_ARGUMENT,
                "product by cuBLAS: y shares memory with x or w");
    result = b->Sgemm(b->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)w->n_rows, (int)x->n_rows, (int)x->n_cols, &alpha, (const float *)(uintptr_t)w->addr,
                      (int)w->stride, (const float *)(uintptr_t)x->addr, (int)x->stride, &beta, (float *)(uintptr_t)y->addr, (int)y->stride);
    M40_TRY(check(b, result, M40LLM_DRIVER, "cublasSgemm", err));
fail:
    return status;
}
