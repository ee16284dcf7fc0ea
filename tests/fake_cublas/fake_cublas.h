/* What tests see of the fake cuBLAS: a library with the seven functions that the backend uses, on the emulated driver libcuda-emu-test.so beside it, whose kernel fake_sgemm it launches.
 * It refuses what the real one refuses, and use that the backend must not make of it: a product before stream, workspace and arithmetic are set, or in another context.
 *
 *   M40LLM_FAKE_CUBLAS_MAJOR  the first number of its version (default 12)
 *   M40LLM_FAKE_CUBLAS_FAIL   the function that fails, e.g. cublasCreate_v2 */
#ifndef M40_TESTS_FAKE_CUBLAS_H
#define M40_TESTS_FAKE_CUBLAS_H

#include <stddef.h>
#include <stdint.h>

/* Exported as `fake_cublas_calls`: what was asked of it since it was opened. */
struct fake_cublas_calls {
    unsigned n_handles, n_products;         /* handles now, products in all */
    int op_a, op_b, m, n, k, lda, ldb, ldc; /* of the last product */
    float alpha, beta;
};

#endif
