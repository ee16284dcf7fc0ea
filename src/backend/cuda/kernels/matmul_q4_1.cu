/* Mat-vec, GEMM and embedding of Q4_1 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q4_1.h"

#define MATMUL_FORMAT q4_1
#include "backend/cuda/kernels/matmul_tmpl.h"
