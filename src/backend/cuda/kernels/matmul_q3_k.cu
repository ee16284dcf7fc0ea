/* Mat-vec, GEMM and embedding of Q3_K weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q3_k.h"

#define MATMUL_FORMAT q3_k
#include "backend/cuda/kernels/matmul_tmpl.h"
