/* The resident loop for F16 weights. */
#define RESIDENT_MATMUL "backend/cuda/kernels/matmul_f16.cu"
#include "backend/cuda/kernels/resident_tmpl.h"
