/* Mat-vec, GEMM and embedding of F32 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/f32.h"

#define MATMUL_FORMAT f32
#define MATMUL_FORMAT_IS_PLAIN
#include "backend/cuda/kernels/matmul_tmpl.h"
