/* What sample.cu takes: its kernels' argument, and the scratch memory of a row. Shared by device code and host. */
#ifndef M40_CUDA_KERNELS_SAMPLE_ARGS_H
#define M40_CUDA_KERNELS_SAMPLE_ARGS_H

#include "backend/sample.h"

enum { SAMPLE_COLS_A_THREAD = 8, SAMPLE_COLS_A_BLOCK = 256 * SAMPLE_COLS_A_THREAD };

/* The first and the last item of a block's columns; best 0: it has none. */
struct sample_ends {
    uint64_t best, least;
};

/* The list comes before what is read while it is written: no cache line has of both. */
struct sample_state {
    uint64_t masses[M40_SAMPLE_BINS];
    uint32_t counts[M40_SAMPLE_BINS];
    uint64_t list[M40_SAMPLE_LIST];
    struct m40_sample_scale scale;
    uint32_t is_done; /* the token was known without a plan */
    uint64_t min_mass;
    uint32_t n_list;     /* may exceed M40_SAMPLE_LIST */
    uint32_t n_gathered; /* blocks that have done their part */
} __attribute__((aligned(128)));

/* Grid (SAMPLE_COLS_A_BLOCK columns, row). */
struct sample_args {
    const float *x;                    /* [n_rows][n_cols] */
    const struct m40_sample_row *rows; /* [n_rows] */
    struct sample_state *states;       /* [n_rows] */
    struct sample_ends *ends;          /* [n_rows][blocks of a row] */
    int32_t *ids;                      /* [n_rows] */
    uint32_t n_cols;
};

#endif
