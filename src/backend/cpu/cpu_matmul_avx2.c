/* matmul for processors with AVX2, FMA and F16C: 12 sums, 3 values of x and a vector of weights fill the 16 registers. */
#define CPU_VARIANT(name) name##_avx2
enum { TOKENS_AT_ONCE = 3, STEP_COLS = 256 };
#include "backend/cpu/cpu_matmul_simd.inc"
