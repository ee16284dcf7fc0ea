/* Reads memory as fast as the card can: the yardstick that decoding is measured with. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/words.h"

enum { READS_IN_FLIGHT = 8 };

SIMT_KERNEL(bandwidth_read, struct bandwidth_read_args, 256)
{
    uint64_t n_threads = (uint64_t)simt_grid_x() * 256;
    uint64_t i = (uint64_t)simt_block_x() * 256 + simt_thread();
    uint32_t sum = 0;

    for (; i + (READS_IN_FLIGHT - 1) * n_threads < args.n_words; i += READS_IN_FLIGHT * n_threads) {
        struct m40_u32x4 word[READS_IN_FLIGHT];

        M40_UNROLL
        for (uint32_t j = 0; j < READS_IN_FLIGHT; j++)
            word[j] = m40_load_u32x4(args.data + (i + j * n_threads) * 16);
        M40_UNROLL
        for (uint32_t j = 0; j < READS_IN_FLIGHT; j++)
            sum += word[j].u[0] ^ word[j].u[1] ^ word[j].u[2] ^ word[j].u[3];
    }
    if (sum == 0x9e3779b9u) /* never for memory that is zero, and not known to the compiler */
        args.sink[0] = sum;
}
