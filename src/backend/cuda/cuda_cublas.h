/* cuBLAS, opened at run time: only what an FP32 matrix product needs. No CUDA header is needed to build; types and numbers are the library's binary interface, the same in its
 * versions 11, 12 and 13, from NVIDIA's cuBLAS documentation ("cuBLAS Datatypes Reference", "cuBLAS Helper Function Reference", "cublas<t>gemm()") and cublas_api.h.
 *
 * Its sums have an order of its own: results are near those of docs/numerics.md, and not bit-equal to them. */
#ifndef M40_CUDA_CUBLAS_H
#define M40_CUDA_CUBLAS_H

#include "backend/backend.h"
#include "backend/cuda/cuda_driver.h"

/* ---- types and constants of cuBLAS ---- */

typedef struct cublasContext *cublasHandle_t;
typedef int cublasStatus_t;

/* number, name */
#define M40_CUBLAS_STATUSES(X)                                                                                                                       \
    X(0, CUBLAS_STATUS_SUCCESS)                                                                                                                      \
    X(1, CUBLAS_STATUS_NOT_INITIALIZED)                                                                                                              \
    X(3, CUBLAS_STATUS_ALLOC_FAILED)                                                                                                                 \
    X(7, CUBLAS_STATUS_INVALID_VALUE)                                                                                                                \
    X(8, CUBLAS_STATUS_ARCH_MISMATCH)                                                                                                                \
    X(11, CUBLAS_STATUS_MAPPING_ERROR)                                                                                                               \
    X(13, CUBLAS_STATUS_EXECUTION_FAILED)                                                                                                            \
    X(14, CUBLAS_STATUS_INTERNAL_ERROR)                                                                                                              \
    X(15, CUBLAS_STATUS_NOT_SUPPORTED)                                                                                                               \
    X(16, CUBLAS_STATUS_LICENSE_ERROR)

enum {
#define M40_CUBLAS_STATUS_ENUM(number, name) name = number,
    M40_CUBLAS_STATUSES(M40_CUBLAS_STATUS_ENUM)
#undef M40_CUBLAS_STATUS_ENUM
};

enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 }; /* cublasOperation_t */
enum {
    CUBLAS_DEFAULT_MATH = 0,
    CUBLAS_PEDANTIC_MATH = 2
}; /* cublasMath_t; pedantic: FP32 products and sums whatever the environment asks for, no TF32 */
enum { MAJOR_VERSION = 0, MINOR_VERSION = 1, PATCH_LEVEL = 2 }; /* libraryPropertyType */

/* field, exported symbol, parameters. Every one returns a cublasStatus_t and is required. A cudaStream_t is a CUstream. */
#define M40_CUBLAS_SYMBOLS(X)                                                                                                                        \
    X(GetProperty, cublasGetProperty, (int property, int *value))                                                                                    \
    X(Create, cublasCreate_v2, (cublasHandle_t * handle))                                                                                            \
    X(Destroy, cublasDestroy_v2, (cublasHandle_t handle))                                                                                            \
    X(SetStream, cublasSetStream_v2, (cublasHandle_t handle, CUstream stream))                                                                       \
    X(SetWorkspace, cublasSetWorkspace_v2, (cublasHandle_t handle, void *workspace, size_t n_bytes))                                                 \
    X(SetMathMode, cublasSetMathMode, (cublasHandle_t handle, int mode))                                                                             \
    X(Sgemm, cublasSgemm_v2,                                                                                                                         \
      (cublasHandle_t handle, int op_a, int op_b, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,         \
       const float *beta, float *c, int ldc))

/* ---- the library ---- */

struct m40_cublas {
    void *library;         /* dlopen's handle */
    char path[256];        /* what was opened */
    char version[24];      /* "12.4.5" */
    cublasHandle_t handle; /* of the context that was current at start */
#define M40_CUBLAS_FIELD(field, symbol, params) cublasStatus_t(*field) params;
    M40_CUBLAS_SYMBOLS(M40_CUBLAS_FIELD)
#undef M40_CUBLAS_FIELD
};

/* Opens the library at path (NULL or "": the first there is of libcublas.so.12, .11 and .13) for a card of compute capability cc (e.g. 52) and finds every symbol. NO_CUBLAS says what
 * is missing; so does a version that has no code for the card: 13 for those below 7.5. */
m40llm_status m40_cublas_open(struct m40_cublas **out, const char *path, int cc, m40llm_error *err);

/* Makes the handle, in the current context: its work is issued on stream, in workspace (device memory aligned to 256, which is the caller's and lives on), so that it allocates
 * nothing and can be captured into a graph. NO_CUBLAS. */
m40llm_status m40_cublas_start(struct m40_cublas *b, CUstream stream, m40_addr workspace, size_t workspace_bytes, m40llm_error *err);

/* NULL and half-opened are fine. The context of the handle, where there is one, must be current. */
void m40_cublas_close(struct m40_cublas **b);

/* ---- the product ---- */

/* FP32 in device memory, row-major: element (i, j) is float number i * stride + j from addr on. */
struct m40_cublas_matrix {
    m40_addr addr;
    uint64_t n_bytes; /* of memory from addr on that is the matrix's */
    uint64_t n_rows, n_cols;
    uint64_t stride; /* floats from one row to the next, n_cols or more; what lies between is neither read nor written */
};

/* y[t][r] = sum over k of x[t][k] * w[r][k], or (is_added) that is added to y. All three are row-major: x is [tokens][K], w [rows][K], y [tokens][rows].
 *
 * cuBLAS is column-major: in its eyes the same memory holds x and w as K x tokens and K x rows, with leading dimension stride, and y as rows x tokens. So the call is
 * C = op(A) op(B) with A = w transposed, B = x, C = y, m = rows, n = tokens, k = K, lda = w's stride, ldb = x's, ldc = y's.
 *
 * INVALID_ARGUMENT, and nothing is issued, where the three do not fit each other, a stride is shorter than its row, a matrix is empty, goes beyond its n_bytes or lies at an address that
 * is none of a float's, a number is more than cuBLAS's int holds, or y shares memory with x or w. DRIVER: cuBLAS failed, the text has its status. The context must be current. */
m40llm_status m40_cublas_multiply(const struct m40_cublas *b, const struct m40_cublas_matrix *x, const struct m40_cublas_matrix *w,
                                  const struct m40_cublas_matrix *y, bool is_added, m40llm_error *err);

#endif
