/* The reference: every operation but matmul, for any processor. */
#define CPU_VARIANT(name) name##_scalar
#include "backend/cpu/cpu_ops.inc"
