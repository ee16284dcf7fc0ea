/* Mat-vec, GEMM and embedding of Q8_0 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/q8_0.h"

#define MATMUL_FORMAT q8_0
#include "backend/cuda/kernels/matmul_tmpl.h"
