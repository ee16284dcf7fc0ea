/* The operations in double precision, in whatever order is simplest. Each gives the exact value as nearly as doubles allow, and a bound of the error that binary32 in the
 * contract's order may have (tolerances.h). Arrays are dense as in backend.h. */
#ifndef M40_TESTS_PARITY_REF64_H
#define M40_TESTS_PARITY_REF64_H

#include "backend/backend.h"

/* x [n_tokens][n_cols] times the matrix; bias [n_rows] and residual [n_tokens][n_rows] may be NULL. y, bound: [n_tokens][n_rows]. */
void ref64_matmul(const struct m40_format *format, const void *rows, uint32_t n_rows, uint32_t n_cols, const float *x, const float *bias,
                  const float *residual, uint32_t n_tokens, double *y, double *bound);

/* residual: as x, or NULL. */
void ref64_rms_norm(const float *x, const float *weight, const float *residual, uint32_t n_rows, uint32_t n_cols, float eps, double *y,
                    double *bound);

/* n_heads heads with the same position; cos_sin: [n_rot / 2][2]. */
void ref64_rope(const float *x, const float *cos_sin, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, enum m40_rope_style style, double *y,
                double *bound);

/* One query head over n positions of k and v, stride elements apart; softcap 0 and sink NULL: none. Returns the largest sum of |q k| of any position, times scale. */
double ref64_attention(const float *q, const float *k, const float *v, size_t stride, uint32_t n, uint32_t head_dim, float scale, float softcap,
                       const float *sink, double *y, double *bound);

void ref64_glu(const struct m40_act_params *act, const float *gate, const float *up, size_t n, double *y, double *bound);

void ref64_softcap(const float *x, size_t n, float scale, float softcap, double *y, double *bound);

/* The FP16 value nearest to x, ties to even, found without half.h. */
double ref64_round_to_f16(double x);

#endif
