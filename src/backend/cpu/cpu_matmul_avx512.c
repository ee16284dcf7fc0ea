/* matmul for processors with AVX-512 (F, BW, DQ and VL): 24 sums, 6 values of x and a vector of weights of the 32 registers. */
#define CPU_VARIANT(name) name##_avx512
enum { TOKENS_AT_ONCE = 6, STEP_COLS = 128 };
#include "backend/cpu/cpu_matmul_simd.inc"
