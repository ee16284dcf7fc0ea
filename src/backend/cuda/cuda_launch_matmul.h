/* Weight matrices on the card, and the operations on them: matmul and embed. */
#ifndef M40_CUDA_LAUNCH_MATMUL_H
#define M40_CUDA_LAUNCH_MATMUL_H

#include "backend/cuda/cuda_internal.h"

/* As m40_backend_ops has them. matrix_create loads the module matmul_<format> on the format's first matrix, and packs the rows to tiles on all cores. */
m40llm_status m40_cuda_matrix_create(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, const void *rows,
                                     struct m40_matrix *out, m40llm_error *err);
void m40_cuda_matrix_destroy(struct m40_backend *be, struct m40_matrix *matrix);
m40llm_status m40_cuda_matmul(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err);
m40llm_status m40_cuda_embed(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err);

#endif
