/* What the kernels of experts.cu take, and the plan that they leave for gemm<T>_<format>. */
#ifndef M40_CUDA_KERNELS_EXPERT_ARGS_H
#define M40_CUDA_KERNELS_EXPERT_ARGS_H

#include <stdint.h>

#define ROUTE_THREADS       256
#define ROUTE_TOKENS        8   /* of a block: a warp each */
#define ROUTE_EXPERTS       512 /* at most */
#define ROUTE_USED          32  /* at most: a lane each */
#define EXPERT_PLAN_THREADS 256
#define COMBINE_THREADS     256

/* A block of pairs (p = token * n_used + rank) of one expert. */
struct expert_tile {
    uint32_t expert;
    uint32_t first, n; /* in the sorted pairs */
    uint32_t unused;   /* 16 bytes */
};

/* route, grid (tokens / 8). As m40_route_args. */
struct route_kernel_args {
    const float *logits;         /* [n_tokens][n_experts] */
    const float *selection_bias; /* [n_experts] or NULL */
    int32_t *ids;                /* [n_tokens][n_used] */
    float *weights;              /* [n_tokens][n_used] */
    uint32_t n_tokens, n_experts, n_used;
    uint32_t is_sigmoid, is_normalised;
    float scale;
};

/* expert_plan, grid (experts): sorts the pairs by expert, and by number within one, and cuts what each expert has into tiles. There are two lists of them: where `small` is set, a last tile of no more
 * pairs than that goes to the second. */
struct expert_plan_args {
    const int32_t *ids;              /* [n_pairs] */
    uint32_t *n_tiles;               /* [2] */
    struct expert_tile *tiles;       /* the first list: [n_pairs / tile + experts] at most */
    struct expert_tile *small_tiles; /* the second: [experts] at most */
    uint32_t *pairs;                 /* [n_pairs] */
    uint32_t n_pairs, tile, small;
};

/* combine, grid (columns / COMBINE_THREADS, tokens). As m40_combine_args. */
struct combine_kernel_args {
    const float *x;           /* [n_tokens][n_used][n_cols] */
    const float *weights;     /* [n_tokens][n_used] */
    const float *shared;      /* [n_tokens][n_cols] or NULL */
    const float *shared_gate; /* [n_tokens] or NULL */
    const float *residual;    /* [n_tokens][n_cols] */
    float *y;                 /* [n_tokens][n_cols] */
    uint32_t n_used, n_cols;
};

#endif
