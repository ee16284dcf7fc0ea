/* The resident loop for Q4_K weights. */
#define RESIDENT_MATMUL "backend/cuda/kernels/matmul_q4_k.cu"
#include "backend/cuda/kernels/resident_tmpl.h"
