/* Mat-vec, GEMM and embedding of F16 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/f16.h"

#define MATMUL_FORMAT f16
#define MATMUL_FORMAT_IS_PLAIN
#include "backend/cuda/kernels/matmul_tmpl.h"
