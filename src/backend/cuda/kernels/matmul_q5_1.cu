/* Mat-vec, GEMM and embedding of Q5_1 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q5_1.h"

#define MATMUL_FORMAT q5_1
#include "backend/cuda/kernels/matmul_tmpl.h"
