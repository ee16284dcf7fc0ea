/* What the kernels of matmul_<format>.cu take, and the sizes that host and kernels agree on. One module per weight format:
 *   matvec<T>_<format>   y for at most T tokens, T = 1, 2, 4, 8, 16; grid: (row tiles, groups of K), MATVEC_THREADS
 *   gemm_<format>        y for any number of tokens; grid: (row blocks, token blocks), GEMM_THREADS
 *   embed_<format>       rows of the matrix; grid: (tokens), EMBED_THREADS
 * The weights are tiles of 32 rows x 256 columns (tensor/format.h). */
#ifndef M40_CUDA_KERNELS_MATMUL_ARGS_H
#define M40_CUDA_KERNELS_MATMUL_ARGS_H

#include <stdint.h>

#define MATMUL_TILE  32  /* rows of a tile, columns of a sub-block */
#define MATMUL_CHUNK 256 /* columns of a chunk sum */
#define MATMUL_GROUP 8   /* chunks of a group sum */

#define MATVEC_THREADS    256 /* a warp for each chunk of a group */
#define MATVEC_MAX_TOKENS 16

#define GEMM_THREADS 128
#define GEMM_ROWS    64
#define GEMM_TOKENS  64

#define EMBED_THREADS 256

/* y[t][r] as m40_matmul_args has it. */
struct matmul_kernel_args {
    const uint8_t *tiles;    /* [row tiles][chunks][tile_bytes] */
    const float *x;          /* [n_tokens][n_cols] */
    const float *bias;       /* [n_rows] or NULL */
    const float *residual;   /* [n_tokens][n_rows] or NULL */
    float *y;                /* [n_tokens][n_rows] */
    const float *block_sums; /* [n_tokens][n_cols / sub]: sums of x over sub-blocks; only gemm of a format that has offsets */
    float *partials;         /* [groups][n_tokens][n_rows]: group sums; only matvec with more than one group */
    uint32_t *counters;      /* [row tiles], zero, and zero again afterwards; as partials */
    uint32_t n_rows, n_cols;
    uint32_t n_tokens;
};

struct embed_kernel_args {
    const uint8_t *tiles;
    const int32_t *ids; /* [grid_x], each < n_rows */
    float *y;           /* [grid_x][n_cols] */
    uint32_t n_cols;
};

#endif
