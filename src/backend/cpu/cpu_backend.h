/* Inside of the CPU backend. An m40_addr is a host pointer; operations have ended when they return.
 *
 * Files: cpu_backend.c memory and the table; cpu_experts.c matmuls of mixtures of experts; cpu_ops.inc every operation but matmul, compiled twice (cpu_scalar.c: plain, the reference; cpu_ops_avx2.c: the same
 * source for processors with AVX2 and FMA, where fmaf is an instruction); cpu_matmul.c the reference; cpu_matmul_simd.inc the fast one, compiled twice
 * (cpu_matmul_avx2.c, cpu_matmul_avx512.c) on the vectors of cpu_simd.h and cpu_unpack.h.
 */
#ifndef M40_BACKEND_CPU_CPU_BACKEND_H
#define M40_BACKEND_CPU_CPU_BACKEND_H

#include "backend/backend.h"

#ifdef _OPENMP
#include <omp.h>
#endif

struct m40_cpu_backend;

/* What a matmul multiplies, and which rows of x and y its tokens have. */
struct m40_cpu_matmul {
    const struct m40_matmul_args *args;
    const uint32_t *x_rows, *y_rows; /* [args->n_tokens], or both NULL: every token its own */
};

typedef m40llm_status (*m40_cpu_matmul_fn)(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, m40llm_error *err);

struct m40_cpu_backend {
    struct m40_backend base; /* first */
    int n_threads;
    m40llm_cpu_level level;       /* of the variants in the table; never AUTO */
    struct m40_workload workload; /* what reserve() was asked for; zeros before */
    float *prepared_x;            /* [n_tokens][n_cols]: matmul's x, for formats with scales */
    float *sub_sums;              /* [n_tokens][sub-blocks of a row of x]: its sx */
    float *thread_scratch;        /* [n_threads][thread_floats] */
    size_t thread_floats;
    m40_cpu_matmul_fn matmul; /* the level's */
    uint32_t *pair_rows;      /* [2][n_tokens * n_used]: rows of x and of y of an expert's pairs */
};

enum { CPU_MIN_SUB = 16 };       /* the shortest sub-block of any format */
enum { CPU_ATTENTION_ROWS = 8 }; /* rows of one sequence that share a widened piece of the cache */

static inline struct m40_cpu_backend *m40_cpu(struct m40_backend *be)
{
    return (struct m40_cpu_backend *)be;
}

static inline void *m40_cpu_ptr(m40_addr addr)
{
    return (void *)(uintptr_t)addr;
}

/* The calling thread's scratch memory, inside a parallel region of at most n_threads. */
static inline float *m40_cpu_scratch(const struct m40_cpu_backend *cpu)
{
#ifdef _OPENMP
    return cpu->thread_scratch + (size_t)omp_get_thread_num() * cpu->thread_floats;
#else
    return cpu->thread_scratch;
#endif
}

/* Threads for an operation of about this many multiply-adds: starting them costs microseconds, so that small ones stay on one. */
static inline int m40_cpu_threads(const struct m40_cpu_backend *cpu, uint64_t n_mads)
{
    return n_mads < 1u << 16 ? 1 : cpu->n_threads;
}

/* Bytes of one row of the matrix; matrix_create has checked that they do not overflow. */
size_t m40_cpu_row_bytes(const struct m40_matrix *matrix);

/* Checks a matmul's arguments against the reserved workload. */
m40llm_status m40_cpu_matmul_check(const struct m40_cpu_backend *cpu, const struct m40_matmul_args *args, m40llm_error *err);

/* Token t's row of x, or of y and residual. */
static inline size_t m40_cpu_row_of(const uint32_t *rows, uint32_t t)
{
    return rows ? rows[t] : t;
}

/* Whether x is multiplied as prepared, in cpu->prepared_x (each variant fills it in; where the format has scales, over its sub-blocks cpu->sub_sums, too), not where it lies. */
static inline bool m40_cpu_is_prepared(const struct m40_cpu_matmul *matmul)
{
    return matmul->args->w->format->sub || matmul->x_rows;
}

/* The x to multiply with, a row for each token. */
const float *m40_cpu_matmul_x(const struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul);

/* Floats of scratch memory that one thread needs, for each matmul. */
size_t m40_cpu_matmul_floats_scalar(const struct m40_workload *workload);
size_t m40_cpu_matmul_floats_avx2(const struct m40_workload *workload);
size_t m40_cpu_matmul_floats_avx512(const struct m40_workload *workload);

m40llm_status m40_cpu_matmul_scalar(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, m40llm_error *err);
m40llm_status m40_cpu_matmul_avx2(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, m40llm_error *err);
m40llm_status m40_cpu_matmul_avx512(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, m40llm_error *err);

/* The operation, by cpu->matmul. */
m40llm_status m40_cpu_matmul_op(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err);
m40llm_status m40_cpu_expert_matmul(struct m40_backend *be, const struct m40_expert_matmul_args *args, m40llm_error *err);

/* What format->weights is, for processors with AVX2. */
typedef void (*m40_cpu_weights_fn)(const void *blocks, size_t n_blocks, float *q, float *d, float *m);
m40_cpu_weights_fn m40_cpu_weights_avx2(const struct m40_format *format);

/* Fill in every operation. */
void m40_cpu_set_ops_scalar(struct m40_backend_ops *ops);
void m40_cpu_set_ops_avx2(struct m40_backend_ops *ops);

#endif
