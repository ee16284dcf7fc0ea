/* Mat-vec, GEMM and embedding of Q6_K weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q6_k.h"

#define MATMUL_FORMAT q6_k
#include "backend/cuda/kernels/matmul_tmpl.h"
