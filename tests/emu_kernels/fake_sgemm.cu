#include "backend/cuda/kernels/simt.h"
#include "tests/emu_kernels/fake_sgemm.h"

SIMT_KERNEL(fake_sgemm, struct fake_sgemm_args, 64)
{
    const uint64_t element = (uint64_t)simt_block_x() * 64 + simt_thread(), i = element % args.m, j = element / args.m;
    float sum = 0, *c = args.c + i + j * args.ldc;

    if (j >= args.n)
        return;
    for (uint64_t l = 0; l < args.k; l++) {
        const float a = args.a[args.is_a_transposed ? l + i * args.lda : i + l * args.lda];
        const float b = args.b[args.is_b_transposed ? j + l * args.ldb : l + j * args.ldb];

        sum += a * b;
    }
    *c = args.beta == 0 ? args.alpha * sum : args.alpha * sum + args.beta * *c;
}
