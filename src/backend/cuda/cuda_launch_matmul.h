/* The operations on weight matrices: matmul and embed. */
#ifndef M40_CUDA_LAUNCH_MATMUL_H
#define M40_CUDA_LAUNCH_MATMUL_H

#include "backend/cuda/cuda_internal.h"

/* Loads the module matmul_<format>, unless that has been done: before the format's first matrix. */
m40llm_status m40_cuda_load_format(struct m40_cuda *c, const struct m40_format *format, m40llm_error *err);

/* As m40_backend_ops has them. */
m40llm_status m40_cuda_matmul(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err);
m40llm_status m40_cuda_norm_matmul(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *args,
                                   m40llm_error *err);
m40llm_status m40_cuda_norm_glu(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *args,
                                const struct m40_act_params *act, m40_addr y, m40llm_error *err);
m40llm_status m40_cuda_expert_matmul(struct m40_backend *be, const struct m40_expert_matmul_args *args, m40llm_error *err);
m40llm_status m40_cuda_embed(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err);

#endif
