/* Mat-vec, GEMM and embedding of MXFP4 weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/mxfp4.h"

#define MATMUL_FORMAT mxfp4
#include "backend/cuda/kernels/matmul_tmpl.h"
