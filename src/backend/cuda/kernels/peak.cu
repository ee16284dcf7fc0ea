/* Multiplies and adds in FP32 as fast as the card can: the yardstick of prefill. Used by bench-kernels alone. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

enum { CHAINS = 16, STEPS = PEAK_ROUND_FMAS / CHAINS }; /* independent chains hide the latency of each */

SIMT_KERNEL(peak_fma, struct peak_fma_args, 256)
{
    float x[CHAINS], sum = 0.0f;

    M40_UNROLL
    for (uint32_t i = 0; i < CHAINS; i++)
        x[i] = (float)(simt_thread() + i);
    for (uint32_t round = 0; round < args.n_rounds; round++) {
        M40_UNROLL
        for (uint32_t step = 0; step < STEPS; step++) {
            M40_UNROLL
            for (uint32_t i = 0; i < CHAINS; i++)
                x[i] = m40_fmaf(x[i], args.factor, args.offset);
        }
    }
    M40_UNROLL
    for (uint32_t i = 0; i < CHAINS; i++)
        sum += x[i];
    if (sum == -1.0f) /* never, and not known to the compiler */
        args.sink[0] = sum;
}
