/* The kernels of one weight format. A file matmul_<format>.cu includes the format's description, defines MATMUL_FORMAT as its name there, and includes this. */
#include "backend/cuda/kernels/head_norm.h"
#include "backend/cuda/kernels/matmul_args.h"
#include "base/fmath.h"
#include "base/portable.h"

#define MATMUL_PASTE(a, b)          a##_##b
#define MATMUL_PASTE_EXPANDED(a, b) MATMUL_PASTE(a, b)
#define MATMUL_NAME(name)           MATMUL_PASTE_EXPANDED(name, MATMUL_FORMAT) /* name_<format> */
#define FORMAT_NAME(name)           MATMUL_PASTE_EXPANDED(MATMUL_FORMAT, name) /* <format>_name */
/* SIMT_KERNEL pastes its name: this expands it first. */
#define MATMUL_KERNEL(name, args_type, max_threads)                  SIMT_KERNEL(name, args_type, max_threads)
#define MATMUL_KERNEL_RESIDENT(name, args_type, max_threads, blocks) SIMT_KERNEL_RESIDENT(name, args_type, max_threads, blocks)

enum {
    MATMUL_HAS_OFFSETS = FORMAT_NAME(SUB) != 0,
    MATMUL_SUB = FORMAT_NAME(SUB) ? FORMAT_NAME(SUB) : MATMUL_TILE,                /* elements that share an offset */
    MATMUL_SUBS = MATMUL_TILE / MATMUL_SUB,                                        /* of them in a sub-block of 32 */
    MATMUL_PIECES = sizeof(struct FORMAT_NAME(quants)) / sizeof(struct m40_piece), /* of a sub-block */
    MATMUL_ANY_COLS = FORMAT_NAME(BLOCK) < MATMUL_TILE,                            /* rows need not be whole sub-blocks of 32 */
};

enum { MATMUL_CHUNK_SUBS = MATMUL_CHUNK / MATMUL_TILE }; /* sub-blocks of a chunk */

/* Four floats of shared memory in one 128-bit access. */
struct matmul_vec4 {
    float v[4];
} __attribute__((aligned(16), may_alias));

M40_HD struct matmul_vec4 matmul_load4(const float *p)
{
    return *(const struct matmul_vec4 *)(const void *)p;
}

M40_HD void matmul_store4(float *p, float a, float b, float c, float d)
{
    struct matmul_vec4 four = {{a, b, c, d}};

    *(struct matmul_vec4 *)(void *)p = four;
}

M40_HD uint32_t matmul_chunks(uint32_t n_cols)
{
    return (n_cols + MATMUL_CHUNK - 1) / MATMUL_CHUNK;
}

M40_HD const uint8_t *matmul_tile(const uint8_t *tiles, uint32_t n_cols, uint32_t row_tile, uint32_t chunk)
{
    return tiles + ((uint64_t)row_tile * matmul_chunks(n_cols) + chunk) * FORMAT_NAME(TILE_BYTES);
}

/* x[token][col], or 0 where there is none. */
M40_HD float matmul_x(const struct matmul_kernel_args *args, uint32_t token, uint32_t col)
{
    return token < args->n_tokens && col < args->n_cols ? args->x[(uint64_t)token * args->n_cols + col] : 0.0f;
}

/* x of the token, or of the last one where there is no such token. */
M40_HD const float *matmul_x_row(const struct matmul_kernel_args *args, uint32_t token)
{
    return args->x + (uint64_t)(token < args->n_tokens ? token : args->n_tokens - 1) * args->n_cols;
}

/* Columns of the chunk, 0..256. */
M40_HD uint32_t matmul_chunk_cols(uint32_t n_cols, uint32_t chunk)
{
    uint32_t first = chunk * MATMUL_CHUNK;

    return first >= n_cols ? 0 : n_cols - first < MATMUL_CHUNK ? n_cols - first : MATMUL_CHUNK;
}

/* A total's last steps. */
M40_HD void matmul_store(const struct matmul_kernel_args *args, uint32_t token, uint32_t row, float y)
{
    uint64_t i = (uint64_t)token * args->n_rows + row;

    if (args->bias)
        y = y + args->bias[row];
    if (args->residual)
        y = y + args->residual[i];
    args->y[i] = y;
}

#define MATVEC_T 1
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T 2
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T 4
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T 8
#include "backend/cuda/kernels/matvec_wide_tmpl.h"
#define MATVEC_T 16
#include "backend/cuda/kernels/matvec_wide_tmpl.h"
#define GEMM_T       32
#define GEMM_MICRO_T 4
#include "backend/cuda/kernels/gemm_tmpl.h"
#define GEMM_T       64
#define GEMM_MICRO_T 4
#include "backend/cuda/kernels/gemm_tmpl.h"
#define GEMM_T       128
#define GEMM_MICRO_T 8
#include "backend/cuda/kernels/gemm_tmpl.h"
#include "backend/cuda/kernels/embed_tmpl.h"
#include "backend/cuda/kernels/dequant_tmpl.h"
