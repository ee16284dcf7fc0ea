/* Mat-vec, GEMM and embedding of Q4_0 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q4_0.h"

#define MATMUL_FORMAT q4_0
#include "backend/cuda/kernels/matmul_tmpl.h"
