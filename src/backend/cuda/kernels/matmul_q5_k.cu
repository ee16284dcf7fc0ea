/* Mat-vec, GEMM and embedding of Q5_K weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q5_k.h"

#define MATMUL_FORMAT q5_k
#include "backend/cuda/kernels/matmul_tmpl.h"
