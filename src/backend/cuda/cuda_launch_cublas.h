/* Matmuls of many tokens by cuBLAS, where the device's options ask for it: weights are widened to FP32 in scratch memory, in pieces of rows, and multiplied by cublasSgemm. Exempt
 * from the bit-equality of docs/numerics.md. */
#ifndef M40_CUDA_LAUNCH_CUBLAS_H
#define M40_CUDA_LAUNCH_CUBLAS_H

#include "backend/cuda/cuda_cublas.h"
#include "backend/cuda/cuda_internal.h"

enum { M40_CUBLAS_MIN_TOKENS = 128 };          /* with fewer, widening costs more than cublasSgemm gains */
enum { M40_CUBLAS_SCRATCH_BYTES = 256 << 20 }; /* most that the widened weights may have */

struct m40_cuda_cublas {
    struct m40_cublas *library;
    struct m40_cuda_area workspace; /* cuBLAS's own */
    struct m40_cuda_area weights;   /* float [rows of a piece][stride] */
    CUfunction start;
    uint32_t min_tokens; /* a matmul of so many goes through cuBLAS; M40_CUBLAS_MIN_TOKENS, or what tests and benchmarks set */
};

/* Makes c->cublas: opens the library (options->cublas_library) and takes its memory, a sixteenth of the card's at most for the weights; says in the log, as a warning, what is now
 * computed by cuBLAS. NO_CUBLAS, OUT_OF_DEVICE_MEMORY. */
m40llm_status m40_cuda_cublas_open(struct m40_cuda *c, const m40llm_device_options *options, m40llm_error *err);
/* c->cublas may be NULL. */
void m40_cuda_cublas_close(struct m40_cuda *c);

/* matmul of m40_backend_ops, whatever the number of tokens. dequant: dequant_<format> of the weights' format. UNSUPPORTED: 32 rows do not fit into the scratch memory. */
m40llm_status m40_cuda_cublas_matmul(struct m40_cuda *c, CUfunction dequant, const struct m40_matmul_args *args, m40llm_error *err);

#endif
