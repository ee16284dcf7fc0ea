/* Mat-vec, GEMM and embedding of Q4_K weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q4_k.h"

#define MATMUL_FORMAT q4_k
#include "backend/cuda/kernels/matmul_tmpl.h"
