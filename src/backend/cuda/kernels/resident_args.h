/* What the host and the resident loop (resident_tmpl.h) share: programs in device memory, and the ring in pinned host memory through which commands come and tokens go. */
#ifndef M40_CUDA_KERNELS_RESIDENT_ARGS_H
#define M40_CUDA_KERNELS_RESIDENT_ARGS_H

#include "backend/cuda/kernels/kernel_args.h"
#include "backend/cuda/kernels/matmul_args.h"

#define RESIDENT_THREADS   256
#define RESIDENT_ARG_BYTES 160
#define RESIDENT_MAX_ROWS  16 /* sequences of a step */
#define RESIDENT_MAX_AHEAD 32 /* tokens of a command */
#define RESIDENT_MAX_INTS  65536

/* The kernels that a program may be made of: name, argument struct; then those of the weight format, whose names end with it. */
#define RESIDENT_OPS(X)                                                                                                                              \
    X(rms_norm, struct rms_norm_args)                                                                                                                \
    X(rms_norm_short, struct rms_norm_args)                                                                                                          \
    X(rope_append, struct rope_append_args)                                                                                                          \
    X(silu_mul, struct silu_mul_args)                                                                                                                \
    X(gather_rows, struct gather_rows_args)                                                                                                          \
    X(argmax, struct argmax_args)                                                                                                                    \
    X(attention_split_1, struct attention_args)                                                                                                      \
    X(attention_split_2, struct attention_args)                                                                                                      \
    X(attention_split_4, struct attention_args)                                                                                                      \
    X(attention_split_8, struct attention_args)                                                                                                      \
    X(attention_merge, struct attention_args)
#define RESIDENT_FORMAT_OPS(X)                                                                                                                       \
    X(embed, struct embed_kernel_args)                                                                                                               \
    X(matvec1, struct matmul_kernel_args)                                                                                                            \
    X(matvec2, struct matmul_kernel_args)                                                                                                            \
    X(matvec4, struct matmul_kernel_args)                                                                                                            \
    X(matvec8, struct matmul_kernel_args)

enum resident_op {
#define RESIDENT_ENUM(name, args_type) RESIDENT_##name,
    RESIDENT_OPS(RESIDENT_ENUM) RESIDENT_FORMAT_OPS(RESIDENT_ENUM)
#undef RESIDENT_ENUM
        N_RESIDENT_OPS
};

/* A launch: every block of the loop takes each n-th block of its grid. */
struct resident_instruction {
    uint32_t op, n_threads;
    uint32_t grid[3];
    uint32_t n_prefetch; /* lines of 128 bytes that are brought into the L2 cache meanwhile */
    const uint8_t *prefetch;
    uint8_t args[RESIDENT_ARG_BYTES];
} __attribute__((aligned(16)));

/* One decode step and where its inputs lie; after it, each row's token is the one found and its position the next. */
struct resident_program {
    const struct resident_instruction *instructions;
    int32_t *inputs;     /* [n_ints] of a command: ids first, then pos, `stride` apart */
    const int32_t *best; /* [n_rows] */
    uint32_t n_instructions, n_rows, stride;
    uint32_t poll_at; /* an instruction with few blocks */
};

struct resident_token {
    uint32_t command; /* which it belongs to; written last */
    int32_t ids[RESIDENT_MAX_ROWS];
};

/* Pinned host memory. Commands are counted; the loop takes the newest after the token that it is at. A command for another launch ends this one. */
struct resident_ring {
    /* the host's */
    uint32_t command; /* number of the newest; written last */
    uint32_t launch;  /* that shall take it */
    uint32_t program; /* index, or NO_PROGRAM */
    uint32_t n_tokens, n_ints;
    uint32_t padding[27];
    /* the loop's */
    uint32_t ended;                                   /* the last launch that has ended */
    struct resident_token tokens[RESIDENT_MAX_AHEAD]; /* of the command, by index */
    /* the host's */
    int32_t inputs[RESIDENT_MAX_INTS];
};
#define RESIDENT_NO_PROGRAM UINT32_MAX

/* Device memory: what one block tells the others, before a barrier of the grid. */
struct resident_control {
    uint32_t program, n_tokens, command; /* block 0 */
    uint32_t go_on;                      /* the last block, in each token */
};

struct resident_args {
    struct resident_ring *ring; /* as the device sees it */
    struct resident_control *control;
    const struct resident_program *programs; /* by index */
    uint32_t *arrived;                       /* [1]: how often a block has come to a barrier of the grid; zero at first */
    uint32_t launch;                         /* number of this one */
    uint32_t taken;                          /* number of the last command that is not for it */
    uint32_t idle_ns, life_ns;               /* ends after so long without a command, or altogether */
};

#endif
