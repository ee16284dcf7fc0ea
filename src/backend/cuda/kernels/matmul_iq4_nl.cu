/* Mat-vec, GEMM and embedding of IQ4_NL weights. */
#include "backend/cuda/kernels/simt.h"
#include "tensor/formats/iq4_nl.h"

#define MATMUL_FORMAT iq4_nl
#include "backend/cuda/kernels/matmul_tmpl.h"
