/* Mat-vec, GEMM and embedding of Q2_K weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q2_k.h"

#define MATMUL_FORMAT q2_k
#include "backend/cuda/kernels/matmul_tmpl.h"
