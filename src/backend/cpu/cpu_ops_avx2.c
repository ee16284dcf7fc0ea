/* The operations of cpu_ops.inc, compiled for processors with AVX2, FMA and F16C. */
#define CPU_VARIANT(name) name##_avx2
#include "backend/cpu/cpu_ops.inc"
