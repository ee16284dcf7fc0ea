/* Mat-vec, GEMM and embedding of BF16 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/bf16.h"

#define MATMUL_FORMAT bf16
#define MATMUL_FORMAT_IS_PLAIN
#include "backend/cuda/kernels/matmul_tmpl.h"
