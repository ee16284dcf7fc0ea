/* Mat-vec, GEMM and embedding of IQ4_XS weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/iq4_xs.h"

#define MATMUL_FORMAT iq4_xs
#include "backend/cuda/kernels/matmul_tmpl.h"
