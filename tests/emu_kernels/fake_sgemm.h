/* Arguments of the kernel behind tests/fake_cublas. */
#ifndef M40_TESTS_FAKE_SGEMM_H
#define M40_TESTS_FAKE_SGEMM_H

#include <stdint.h>

/* C = alpha op(A) op(B) + beta C, column-major, as BLAS defines it. Grid (64 elements of C). C is not read where beta is 0. */
struct fake_sgemm_args {
    const float *a, *b;
    float *c;
    float alpha, beta;
    uint32_t is_a_transposed, is_b_transposed;
    uint32_t m, n, k, lda, ldb, ldc;
};

#endif
