/* Mat-vec, GEMM and embedding of Q5_0 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q5_0.h"

#define MATMUL_FORMAT q5_0
#include "backend/cuda/kernels/matmul_tmpl.h"
