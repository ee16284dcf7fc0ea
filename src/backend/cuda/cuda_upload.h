/* Weight matrices on their way to the card. */
#ifndef M40_CUDA_UPLOAD_H
#define M40_CUDA_UPLOAD_H

#include "backend/cuda/cuda_internal.h"

enum { M40_CUDA_UPLOAD_SLOTS = 2 };
enum { M40_CUDA_UPLOAD_BYTES = 16 << 20 }; /* of a slot */

/* As m40_backend_ops has them. The first matrix of a format loads its modules. */
m40llm_status m40_cuda_matrix_create(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, const void *rows,
                                     struct m40_matrix *out, m40llm_error *err);
m40llm_status m40_cuda_matrix_create_stacked(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                             const struct m40_matrix_part *parts, uint32_t n_parts, struct m40_matrix *out, m40llm_error *err);
m40llm_status m40_cuda_matrix_create_interleaved(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                                 const struct m40_matrix_part parts[2], struct m40_matrix *out, m40llm_error *err);
void m40_cuda_matrix_create_end(struct m40_backend *be);
void m40_cuda_matrix_destroy(struct m40_backend *be, struct m40_matrix *matrix);

#endif
