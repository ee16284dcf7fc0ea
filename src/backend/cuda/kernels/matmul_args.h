/* What the kernels of matmul_<format>.cu take, and the sizes that host and kernels agree on. One module per weight format:
 *   matvec<T>_<format>   y for at most T tokens; T = 1, 2, 4: grid (spans of K, blocks that share the row tiles), MATVEC_GROUP_THREADS for each group of the span;
 *                        T = 8, 16: grid (row tiles / MATVEC_ROW_TILES, chunks / MATVEC_CHUNKS), a warp for each of the chunks
 *   matvec_experts_<format>  as matvec1; grid z: pairs of token and expert, which read an expert's matrix each
 *   gemm<T>_<format>     y for any number of tokens, in blocks of T = 32, 64, 128; grid: (row blocks, token blocks, groups of K or 1), GEMM_TEAMS_OF(T) teams of
 *                        GEMM_THREADS_OF(T)
 *                        With experts the token blocks are those of the plan, T at most, and the grid's z is 1; surplus blocks do nothing.
 *   prepare_<format>     what gemm, matvec8 and matvec16 take of x, for formats with scales; grid: (tokens, sub-blocks / PREPARE_SUBS), PREPARE_THREADS
 *   embed_<format>       rows of the matrix; grid: (tokens), EMBED_THREADS
 *   dequant_<format>     weights as FP32, for cuBLAS; grid: (row tiles, chunks of columns), DEQUANT_THREADS
 * The weights are tiles of 32 rows x 256 columns (tensor/format.h). */
#ifndef M40_CUDA_KERNELS_MATMUL_ARGS_H
#define M40_CUDA_KERNELS_MATMUL_ARGS_H

#include "backend/cuda/kernels/expert_args.h"

#define MATMUL_TILE  32  /* rows of a tile, columns of a sub-block */
#define MATMUL_CHUNK 256 /* columns of a chunk sum */
#define MATMUL_HALF  4   /* chunks in the sum of half a group */
#define MATMUL_GROUP 8   /* chunks in a group sum */

#define MATVEC_CHUNK_THREADS 32 /* a warp */
#define MATVEC_GROUP_THREADS (MATMUL_GROUP * MATVEC_CHUNK_THREADS)
/* The kernels for so many tokens or fewer stream through row tiles with x in shared memory (matvec_tmpl.h); it has no room for the x of more (matvec_wide_tmpl.h). */
#define MATVEC_STREAM_TOKENS 4
/* Row tiles that a warp works on at once. From four tokens on each x that is loaded serves several rows of a lane: measured to pay there, and not below; four where a format leaves the
 * registers for it (docs/performance.md). */
#define MATVEC_ROW_TILES(n_tokens, is_plain) ((n_tokens) < 4 ? 1 : (n_tokens) == 8 && (is_plain) ? 4 : 2)
#define MATVEC_SPAN_GROUPS(n_tokens)         ((n_tokens) == 1 ? 2 : 1) /* groups of K that a streaming block may own */
#define MATVEC_BUFFERS(n_tokens)             ((n_tokens) < 4 ? 2 : 1)  /* of chunk sums */
#define MATVEC_RESIDENT_WARPS                16                        /* of mat-vec blocks on a multiprocessor: 128 registers each */
#define MATVEC_UNIT_ROWS                     128                       /* row tiles that a warp works on at once have that many rows at most */
/* Chunks, and so warps, of a block for 8 or 16 tokens. Blocks of whole groups are fewer than is good for an even load of the multiprocessors, but leave half as many sums; which counts for more
 * where memory is the limit. */
#define MATVEC_CHUNKS(n_tokens, is_plain) ((n_tokens) == 8 && (is_plain) ? MATMUL_GROUP : MATMUL_HALF)

#define GEMM_ROWS             128                 /* of a block */
#define GEMM_THREADS_OF(t)    ((t)*2)             /* of a team: 8 rows x 8 tokens each */
#define GEMM_TEAMS_OF(t)      ((t) == 32 ? 2 : 1) /* of a block */
#define GEMM_PAD              4                   /* keeps 16-byte alignment and spreads the columns over the banks */
#define GEMM_RESIDENT_THREADS 256                 /* on a multiprocessor, or more: 255 registers each */

#define EMBED_THREADS 256

#define PREPARE_SUBS    8
#define PREPARE_THREADS 128

#define DEQUANT_THREADS 256 /* a warp for each 32 columns of a tile */

/* y[t][r] as m40_matmul_args has it. */
struct matmul_kernel_args {
    const uint8_t *tiles; /* [row tiles][chunks][tile_bytes] */
    const float *x;    /* [n_tokens][n_cols]; prepared for gemm of a format with scales; for its matvec8 and matvec16, [n_cols][8 or 16] prepared */
    const float *bias; /* [n_rows] or NULL */
    const float *residual; /* [n_tokens][n_rows] or NULL */
    float *y;              /* [n_tokens][n_rows] */
    const float *x_sums;   /* [n_tokens][n_cols / sub], or [n_cols / sub][8 or 16]; where x is prepared */
    float *
        partials; /* sums, where blocks share K: matvec1 to 4 [groups][n_tokens][n_rows], matvec8 and 16 [row blocks][blocks that share K][tokens * rows], gemm [groups][token blocks][row blocks][rows * tokens] */
    uint32_t *counters; /* [row tiles or blocks of the gemm], zero, and zero again afterwards; as partials */
    uint32_t n_rows, n_cols;
    uint32_t n_tokens;
    float norm_eps;
    /* matvec1 (norm_weight, is_gated), matvec_experts and gemm (is_gated): */
    const float *norm_weight; /* [n_cols] or NULL; x is normalised first, as rms_norm does it */
    uint32_t
        is_gated; /* n_rows / 2 rows of gate, a multiple of 32, and as many of up: y is silu(gate) * up, or with experts act(gate, up), whose bias is gate's; without residual */
    /* matvec_experts and gemm: */
    uint32_t act; /* gated: enum m40_act */
    float act_alpha, act_limit;
    const float *up_bias; /* gated: [n_rows / 2] where there is bias */
    const int32_t *
        expert_ids; /* matvec_experts: [pairs]. Experts of n_rows rows each, a multiple of 32, lie on top of each other, and so do bias and up_bias */
    const struct expert_tile *plan_tiles; /* gemm: or NULL: no experts */
    const uint32_t *plan_n_tiles;         /* [1] */
    const uint32_t *plan_pairs;           /* of tile i: from plan_tiles[i].first on */
    uint32_t first_pair;                  /* of matvec_experts' grid; n_tokens: its pairs */
    uint32_t x_share;                     /* pairs that have one row of x: y's row is the pair, x's is pair / x_share */
};

struct prepare_kernel_args {
    const float *x;  /* [grid_x][n_cols] */
    float *prepared; /* x of token t and column c: t * token_stride + c * col_stride */
    float *sums;     /* of token t and sub-block s: t * sum_token_stride + s * col_stride */
    uint32_t n_cols;
    uint32_t col_stride, token_stride, sum_token_stride;
};

struct embed_kernel_args {
    const uint8_t *tiles;
    const int32_t *ids; /* [grid_x], each < n_rows */
    float *y;           /* [grid_x][n_cols] */
    uint32_t n_cols;
    float scale; /* of every value */
};

struct dequant_kernel_args {
    const uint8_t *tiles;
    float *w;                /* [32 * grid_x] rows stride floats apart; what is behind n_cols in a row is undefined */
    uint32_t n_cols, stride; /* stride: n_cols or more, a multiple of 4 */
    uint32_t first_row_tile;
};

#endif
