/* The argument structs of the kernels, shared by device code and host: plain structs of fixed-size fields and device pointers (64-bit). A kernel takes one by value. */
#ifndef M40_CUDA_KERNELS_KERNEL_ARGS_H
#define M40_CUDA_KERNELS_KERNEL_ARGS_H

#include <stdint.h>

/* ---- selftest.cu ---- */

/* x[i] = x[i] * factor + offset, rounded once; h[i] = x[i] as FP16 and r[i] = sqrt(x[i]), both of the new value. */
struct selftest_scale_args {
    float *x;    /* [n] */
    uint16_t *h; /* [n] */
    float *r;    /* [n] */
    uint32_t n;
    float factor, offset;
};

/* Each block sums its 256 values of x, pairs at distance 128, 64, ... 1: sums[block]. */
struct selftest_reduce_args {
    const float *x; /* [grid_x * 256] */
    float *sums;    /* [grid_x] */
};

/* Warp by warp: rotated[i] = the value of the next lane, summed[i] = the warp's sum by xor, votes[i] = ballot of odd values. */
struct selftest_shuffle_args {
    const uint32_t *x; /* [n], n = all threads */
    uint32_t *rotated, *summed, *votes;
};

/* All blocks (which must be resident together) take n_rounds steps in lockstep by a grid barrier: in round r block b writes cells[b] = cells[b + 1] + 1 of the round before. */
struct selftest_grid_args {
    uint32_t *cells;    /* [2][grid_x], zero at first */
    uint32_t *arrivals; /* [1], zero at first */
    uint32_t n_rounds;
};

/* ---- norm.cu ---- */

/* The kernels of m40_rms_norm_args; y may be x or residual. rms_norm, rms_norm_residual: a block of 256 threads a row. rms_norm_short: a warp a row, 8 rows a block, n_cols <= 256. */
struct rms_norm_args {
    const float *x;        /* [n_rows] rows of n_cols, stride apart */
    const float *weight;   /* [n_cols] */
    const float *residual; /* as x; rms_norm_short: or NULL; rms_norm: NULL */
    float *y;              /* as x */
    uint32_t n_rows, n_cols, stride;
    float eps;
};

/* ---- what rope_append.cu and attention_*.cu know of the cache and the rows ---- */

struct kv_view {
    uint8_t *base;        /* [n_pages][k, v][n_kv_heads][32][head_dim] of FP16 or FP32 */
    const int32_t *pos;   /* [n_tokens] */
    const int32_t *slot;  /* [n_tokens] */
    const int32_t *pages; /* [n_slots][n_slot_pages] */
    uint32_t n_slot_pages;
    uint32_t n_kv_heads, head_dim;
    uint32_t is_f32;
};

/* ---- rope_append.cu: a warp a head; grid (token, 8 heads of q, then k, then v) ---- */

struct rope_append_args {
    struct kv_view kv;
    float *q;                     /* [n_tokens] rows q_stride apart: [n_heads][head_dim] */
    const float *k, *v;           /* [n_tokens] rows kv_stride apart: [n_kv_heads][head_dim] */
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    const float *table, *q_table; /* [n_ctx][n_rot / 2][cos, sin]: of k, of q */
    uint32_t q_stride, kv_stride;
    uint32_t n_heads, n_rot;
    uint32_t is_neox; /* pairs (i, i + n_rot / 2), else (2i, 2i + 1) */
    float eps;
};

/* ---- attention_split.cu, attention_fused.cu ---- */

struct attention_args {
    struct kv_view kv;
    const float *q;     /* [n_tokens] rows q_stride apart: [n_heads][head_dim] */
    float *y;           /* [n_tokens][n_heads][head_dim] */
    float *o;           /* split, merge: [n_slice][n_heads][n_pieces][head_dim], a piece's weighted sum of V */
    float *ml;          /* split, merge: [n_slice][n_heads][n_pieces][max, sum of exponentials] */
    uint32_t *counters; /* split: [n_slice][grid's y], zero, and zero again afterwards; NULL: attention_merge merges */
    uint32_t q_stride;
    uint32_t n_tokens, n_heads; /* n_tokens: fused: end of the rows */
    uint32_t first_token;       /* of this slice */
    uint32_t n_pieces;          /* split, merge: that any row can see */
    uint32_t window;            /* positions that a row sees; 0: all up to its own */
    uint32_t n_group;           /* query heads that share a KV head */
    uint32_t n_block_heads;     /* of these, how many one block takes; the last block of a KV head may have fewer */
    uint32_t n_parts;           /* n_group / n_block_heads, rounded up */
    float scale;                /* of a score; with a soft-cap divided by it */
    float softcap;              /* 0: none */
    const float *sinks;         /* [n_heads] or NULL */
};

/* ---- act.cu ---- */

/* y = act(gate, up). Grid (256 words, row); a word is 128 bits where is_wide, else one float. */
struct glu_args {
    const float *gate, *up; /* [n_rows] rows stride apart */
    float *y;               /* [n_rows][n_cols] */
    uint32_t n_cols, stride, is_wide;
    uint32_t act; /* enum m40_act */
    float alpha, limit;
};

/* x = softcap * tanh(scale * x), or scale * x. Grid (256 elements). */
struct softcap_args {
    float *x; /* [n] */
    uint64_t n;
    float scale;
    float softcap; /* 0: none */
};

/* ---- rows.cu ---- */

/* Grid (row, 256 words); a word is 128 bits where is_wide, else one float. */
struct gather_rows_args {
    const float *x;      /* [..][n_cols] */
    const int32_t *rows; /* [n_rows] */
    float *y;            /* [n_rows][n_cols] */
    uint32_t n_cols, is_wide;
};

/* y = bias + residual, what a matmul adds to; y may be residual. Grid (256 rows, token). */
struct matmul_start_args {
    const float *bias;     /* [n_rows] or NULL: 0 */
    const float *residual; /* [n_tokens][n_rows] or NULL: 0 */
    float *y;              /* [n_tokens][n_rows] */
    uint32_t n_rows;
};

/* Grid (parts of a row, row); the last block of a row to end merges what the others found. */
struct argmax_args {
    const float *x;     /* [n_rows][n_cols] */
    float *found;       /* [n_rows][n_parts][value, its column as bits] */
    uint32_t *counters; /* [n_rows], zero, and zero again afterwards */
    int32_t *ids;       /* [n_rows] */
    uint32_t n_cols;
};

/* ---- bandwidth.cu ---- */

/* Reads n_words 128-bit words; the sink gets a value that depends on all of them, so that no load can be left out. */
struct bandwidth_read_args {
    const uint8_t *data;
    uint32_t *sink; /* [1] */
    uint64_t n_words;
};

/* ---- peak.cu ---- */

/* Every thread: n_rounds of PEAK_ROUND_FMAS fused multiply-adds x = x * factor + offset; the sink as above. */
enum { PEAK_ROUND_FMAS = 256 };
struct peak_fma_args {
    float *sink; /* [1] */
    uint32_t n_rounds;
    float factor, offset;
};

/* ---- repack.cu ---- */

/* repack_<format>: rows as a file has them, one after another, to tiles of 32 rows x 256 columns (tensor/format.h) whose bytes are zero. A warp a tile: grid (row tiles * chunks, 1, 1), 32
 * threads. */
struct repack_args {
    const uint8_t *rows; /* [n_rows][row_bytes], aligned to 1 */
    uint8_t *tiles;      /* [ceil(n_rows / 32)][n_chunks][tile_bytes] */
    uint32_t n_rows, row_bytes, n_chunks;
    uint32_t tile_step; /* row tiles from one to the next: 2 where another matrix has those in between */
};

#endif
