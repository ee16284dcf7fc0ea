/* The kernels of one weight format. A file matmul_<format>.cu includes the format's description, defines MATMUL_FORMAT as its name there, and includes this. */
#include "backend/cuda/kernels/head_norm.h"
#include "backend/cuda/kernels/matmul_args.h"
#include "base/act.h"
#include "base/portable.h"
#include "tensor/formats/unpack.h"

#define MATMUL_PASTE(a, b)          a##_##b
#define MATMUL_PASTE_EXPANDED(a, b) MATMUL_PASTE(a, b)
#define MATMUL_NAME(name)           MATMUL_PASTE_EXPANDED(name, MATMUL_FORMAT) /* name_<format> */
#define FORMAT_NAME(name)           MATMUL_PASTE_EXPANDED(MATMUL_FORMAT, name) /* <format>_name */
/* SIMT_KERNEL pastes its name: this expands it first. */
#define MATMUL_KERNEL(name, args_type, max_threads)                  SIMT_KERNEL(name, args_type, max_threads)
#define MATMUL_KERNEL_RESIDENT(name, args_type, max_threads, blocks) SIMT_KERNEL_RESIDENT(name, args_type, max_threads, blocks)

enum {
    MATMUL_IS_PLAIN = FORMAT_NAME(SUB) == 0, /* no scales: all columns of a chunk are one chain */
    MATMUL_BIAS = FORMAT_NAME(BIAS),
    MATMUL_HAS_OFFSETS = FORMAT_NAME(HAS_OFFSETS),
    MATMUL_HAS_SUMS = MATMUL_BIAS != 0 || MATMUL_HAS_OFFSETS,                      /* uses x's sums over sub-blocks */
    MATMUL_SUB = FORMAT_NAME(SUB) ? FORMAT_NAME(SUB) : MATMUL_TILE,                /* elements that share a scale */
    MATMUL_SUBS = MATMUL_TILE / MATMUL_SUB,                                        /* of them in a sub-block of 32 */
    MATMUL_PIECES = sizeof(struct FORMAT_NAME(quants)) / sizeof(struct m40_piece), /* of a sub-block */
    MATMUL_ANY_COLS = FORMAT_NAME(BLOCK) < MATMUL_TILE,                            /* rows need not be whole sub-blocks of 32; plain formats only */
};

enum { MATMUL_CHUNK_SUBS = MATMUL_CHUNK / MATMUL_TILE, MATMUL_TOTAL_AHEAD = 8 }; /* sub-blocks of a chunk; groups */

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

/* What the kernels do with a sub-block, where x is prepared (m40_prepare_x) and sums are in units of M40_SUM_UNIT:
 *     sum = matmul_first(.., sums);  sum = fmaf(q, x, sum) ...;  acc = matmul_scaled(d, sum, acc);  acc = matmul_offset(m, sums, acc)
 * with q, d, m from matmul_weights and `sums` from matmul_sum_link and matmul_sum_end. A plain format's sum is acc itself. */

/* x of column c, for use as a factor. */
M40_HD float matmul_prepare(float x, uint32_t c)
{
    return MATMUL_IS_PLAIN ? x : m40_prepare_x(x, FORMAT_NAME(bit)(c % MATMUL_TILE));
}

/* sum + the prepared x of column c of a sub-block; each product is exact. */
M40_HD float matmul_sum_link(float sum, float x, uint32_t c)
{
    return m40_fmaf(x, m40_field_unit(-FORMAT_NAME(bit)(c)), sum);
}

/* The sum of a sub-block's x as the kernels use it: what its sum of products begins with; or, for offsets, itself. */
M40_HD float matmul_sum_end(float sum)
{
    return sum * (MATMUL_HAS_OFFSETS ? M40_X_UNIT : -(float)MATMUL_BIAS * M40_BIAS_UNIT); /* by one factor: bias * sum might be infinite */
}

M40_HD float matmul_first(float sums, float acc)
{
    return MATMUL_IS_PLAIN ? acc : MATMUL_BIAS ? sums : 0.0f;
}

M40_HD float matmul_scaled(float d, float sum, float acc)
{
    return MATMUL_IS_PLAIN ? sum : m40_fmaf(d, FORMAT_NAME(BIG_SCALES) ? sum * M40_SUM_UNIT : sum, acc);
}

M40_HD float matmul_offset(float m, float sums, float acc)
{
    return MATMUL_HAS_OFFSETS ? m40_fmaf(-m, sums, acc) : acc;
}

/* The factors of sub-block b, and the scales and offsets of its parts of MATMUL_SUB columns, as matmul_scaled and matmul_offset take them. */
M40_HD void matmul_weights(const struct FORMAT_NAME(lane) * state, const struct FORMAT_NAME(quants) * quants, uint32_t b, float q[MATMUL_TILE],
                           float d[MATMUL_SUBS], float m[MATMUL_SUBS])
{
    FORMAT_NAME(weights)(state, quants, b, q, d, m);
    M40_UNROLL
    for (uint32_t sub = 0; sub < MATMUL_SUBS && !MATMUL_IS_PLAIN && !FORMAT_NAME(BIG_SCALES); sub++)
        d[sub] = d[sub] * M40_SUM_UNIT;
}

/* Columns of the chunk, 0..256. */
M40_HD uint32_t matmul_chunk_cols(uint32_t n_cols, uint32_t chunk)
{
    uint32_t first = chunk * MATMUL_CHUNK;

    return first >= n_cols ? 0 : n_cols - first < MATMUL_CHUNK ? n_cols - first : MATMUL_CHUNK;
}

/* The sum of the first n of a group's chunks; n may be more than there are. */
M40_HD float matmul_group(const float chunks[MATMUL_GROUP], uint32_t n)
{
    float half = chunks[0], other = chunks[MATMUL_HALF];

    M40_UNROLL
    for (uint32_t c = 1; c < MATMUL_HALF; c++) {
        half = c < n ? half + chunks[c] : half;
        other = MATMUL_HALF + c < n ? other + chunks[MATMUL_HALF + c] : other;
    }
    return n > MATMUL_HALF ? half + other : half;
}

/* The sum of the partials of all groups of a mat-vec's row, in order; MATMUL_TOTAL_AHEAD are asked for before the first of them is added. */
M40_HD float matmul_total(const struct matmul_kernel_args *args, uint32_t n_groups, uint32_t token, uint32_t row)
{
    const float *partial = &args->partials[(uint64_t)token * args->n_rows + row];
    const uint64_t stride = (uint64_t)args->n_tokens * args->n_rows;
    float total = 0.0f;

    for (uint32_t first = 0; first < n_groups; first += MATMUL_TOTAL_AHEAD) {
        float sums[MATMUL_TOTAL_AHEAD];

        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TOTAL_AHEAD; i++)
            sums[i] = partial[(first + i < n_groups ? first + i : n_groups - 1) * stride];
        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TOTAL_AHEAD; i++)
            total = first + i == 0 ? sums[i] : first + i < n_groups ? total + sums[i] : total;
    }
    return total;
}

/* A total's last steps. expert: whose bias it is; 0 where there are none. */
M40_HD void matmul_store(const struct matmul_kernel_args *args, uint32_t expert, uint32_t token, uint32_t row, float y)
{
    uint64_t i = (uint64_t)token * args->n_rows + row;

    if (args->bias)
        y = y + args->bias[(uint64_t)expert * args->n_rows + row];
    if (args->residual)
        y = y + args->residual[i];
    args->y[i] = y;
}

/* The same of gate and up, whose row is `row` of n_rows / 2. */
M40_HD void matmul_store_gated(const struct matmul_kernel_args *args, uint32_t expert, uint32_t token, uint32_t row, float gate, float up)
{
    const uint64_t n_rows = args->n_rows / 2;

    if (args->bias) {
        gate = gate + args->bias[expert * n_rows + row];
        up = up + args->up_bias[expert * n_rows + row];
    }
    args->y[token * n_rows + row] = m40_glu((enum m40_act)args->act, args->act_alpha, args->act_limit, gate, up);
}

#define MATVEC_T       1
#define MATVEC_EXPERTS 0
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T       1
#define MATVEC_EXPERTS 1
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T       2
#define MATVEC_EXPERTS 0
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T       4
#define MATVEC_EXPERTS 0
#include "backend/cuda/kernels/matvec_tmpl.h"
#define MATVEC_T 8
#include "backend/cuda/kernels/matvec_wide_tmpl.h"
#define MATVEC_T 16
#include "backend/cuda/kernels/matvec_wide_tmpl.h"
#define GEMM_T 32
#include "backend/cuda/kernels/gemm_tmpl.h"
#define GEMM_T 64
#include "backend/cuda/kernels/gemm_tmpl.h"
#define GEMM_T 128
#include "backend/cuda/kernels/gemm_tmpl.h"
#include "backend/cuda/kernels/prepare_tmpl.h"
#include "backend/cuda/kernels/embed_tmpl.h"
#include "backend/cuda/kernels/dequant_tmpl.h"
