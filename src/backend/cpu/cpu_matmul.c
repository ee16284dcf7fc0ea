/* The reference matmul: docs/numerics.md to the letter. */
#include "backend/cpu/cpu_backend.h"

#include "base/fmath.h"
#include "base/mem.h"
#include "tensor/formats/unpack.h"

size_t m40_cpu_row_bytes(const struct m40_matrix *matrix)
{
    return matrix->n_cols / matrix->format->type->block_elems * matrix->format->type->block_bytes;
}

m40llm_status m40_cpu_matmul_check(const struct m40_cpu_backend *cpu, const struct m40_matmul_args *args, m40llm_error *err)
{
    const struct m40_workload *limit = &cpu->workload;
    uint64_t n_cols = args->w->n_cols;

    if (args->n_tokens > limit->n_tokens || n_cols > limit->n_cols || args->w->n_rows > limit->n_rows)
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "matmul of %u tokens, %llu x %llu, is beyond the reserved %u tokens, %u x %u", args->n_tokens,
                        (unsigned long long)args->w->n_rows, (unsigned long long)n_cols, limit->n_tokens, limit->n_rows, limit->n_cols);
    return M40LLM_OK;
}

const float *m40_cpu_matmul_x(const struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul)
{
    return m40_cpu_is_prepared(matmul) ? cpu->prepared_x : m40_cpu_ptr(matmul->args->x);
}

m40llm_status m40_cpu_matmul_op(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err)
{
    const struct m40_cpu_matmul matmul = {.args = args};

    return m40_cpu(be)->matmul(m40_cpu(be), &matmul, err);
}

/* x as the contract has it for formats with scales, and its sums over sub-blocks; for others (sub 0) as it is. */
static void prepare_row(const float *x, uint64_t n_cols, uint32_t sub, float *prepared, float *sums)
{
    for (uint64_t c = 0; c < n_cols; c++)
        prepared[c] = sub ? m40_prepare_x(x[c], 0) : x[c];
    for (uint64_t first = 0; sub && first < n_cols; first += sub) {
        float sx = 0;

        for (uint32_t c = 0; c < sub; c++)
            sx = sx + prepared[first + c];
        *sums++ = sx;
    }
}

static void prepare_x(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul)
{
    const struct m40_matmul_args *args = matmul->args;
    const uint64_t n_cols = args->w->n_cols;
    const uint32_t sub = args->w->format->sub;
    const float *x = m40_cpu_ptr(args->x);

#pragma omp parallel for num_threads(m40_cpu_threads(cpu, args->n_tokens *n_cols))
    for (uint32_t t = 0; t < args->n_tokens; t++)
        prepare_row(x + m40_cpu_row_of(matmul->x_rows, t) * n_cols, n_cols, sub, cpu->prepared_x + t * n_cols,
                    cpu->sub_sums + (sub ? t * (n_cols / sub) : 0));
}

size_t m40_cpu_matmul_floats_scalar(const struct m40_workload *workload)
{
    return (size_t)workload->n_cols + 2 * (workload->n_cols / CPU_MIN_SUB); /* one row's q, d and m */
}

/* A row's weights, at some column. */
struct row {
    const struct m40_format *format;
    const float *q, *d, *m; /* d, m: of the sub-block there */
};

/* acc and what one sub-block adds to it; sx: its sum of x. */
static float add_sub_block(const struct row *row, const float *x, float sx, float acc)
{
    float s = row->format->bias ? -((float)row->format->bias * sx) : 0;

    for (uint32_t c = 0; c < row->format->sub; c++)
        s = m40_fmaf(row->q[c], x[c], s);
    acc = m40_fmaf(*row->d, s, acc);
    return row->format->has_offsets ? m40_fmaf(-*row->m, sx, acc) : acc;
}

/* Sum of one chunk of n columns. */
static float chunk_sum(struct row row, const float *x, const float *sx, uint32_t n)
{
    const uint32_t sub = row.format->sub;
    float acc = 0;

    if (!sub) {
        for (uint32_t c = 0; c < n; c++)
            acc = m40_fmaf(row.q[c], x[c], acc);
        return acc;
    }
    for (uint32_t first = 0; first < n; first += sub) {
        acc = add_sub_block(&row, x + first, *sx++, acc);
        row.q += sub;
        row.d++;
        row.m++;
    }
    return acc;
}

static float row_sum(const struct row *row, const float *x, const float *sx, uint64_t n_cols)
{
    uint64_t n_chunks = (n_cols + M40_MATMUL_CHUNK - 1) / M40_MATMUL_CHUNK;
    float half = 0, group = 0, total = 0;

    for (uint64_t chunk = 0; chunk < n_chunks; chunk++) {
        uint64_t first = chunk * M40_MATMUL_CHUNK, left = n_cols - first;
        uint32_t n = left < M40_MATMUL_CHUNK ? (uint32_t)left : M40_MATMUL_CHUNK;
        uint64_t first_sub = row->format->sub ? first / row->format->sub : 0;
        struct row at = {.format = row->format, .q = row->q + first, .d = row->d + first_sub, .m = row->m + first_sub};
        float sum = chunk_sum(at, x + first, sx + first_sub, n);

        half = chunk % M40_MATMUL_HALF == 0 ? sum : half + sum;
        if (chunk % M40_MATMUL_HALF == M40_MATMUL_HALF - 1 || chunk == n_chunks - 1)
            group = chunk % M40_MATMUL_GROUP < M40_MATMUL_HALF ? half : group + half;
        if (chunk % M40_MATMUL_GROUP == M40_MATMUL_GROUP - 1 || chunk == n_chunks - 1)
            total = chunk < M40_MATMUL_GROUP ? group : total + group;
    }
    return total;
}

static void matmul_row(const struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, uint64_t r)
{
    const struct m40_matmul_args *args = matmul->args;
    const struct m40_matrix *matrix = args->w;
    const struct m40_format *format = matrix->format;
    const float *x = m40_cpu_matmul_x(cpu, matmul), *bias = m40_cpu_ptr(args->bias), *residual = m40_cpu_ptr(args->residual);
    uint64_t n_cols = matrix->n_cols, n_subs = format->sub ? n_cols / format->sub : 0;
    float *q = m40_cpu_scratch(cpu), *d = q + n_cols, *m = d + n_subs, *y = m40_cpu_ptr(args->y);
    const struct row row = {.format = format, .q = q, .d = d, .m = m};

    format->weights((const uint8_t *)m40_cpu_ptr(matrix->data) + r * m40_cpu_row_bytes(matrix), n_cols / format->type->block_elems, q, d, m);
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        const size_t at = m40_cpu_row_of(matmul->y_rows, t) * matrix->n_rows + r;
        float value = row_sum(&row, x + t * n_cols, cpu->sub_sums + t * n_subs, n_cols);

        if (bias)
            value = value + bias[r];
        if (residual)
            value = value + residual[at];
        y[at] = value;
    }
}

m40llm_status m40_cpu_matmul_scalar(struct m40_cpu_backend *cpu, const struct m40_cpu_matmul *matmul, m40llm_error *err)
{
    const struct m40_matmul_args *args = matmul->args;
    m40llm_status status = m40_cpu_matmul_check(cpu, args, err);

    if (status != M40LLM_OK)
        return status;
    if (m40_cpu_is_prepared(matmul))
        prepare_x(cpu, matmul);
#pragma omp parallel for num_threads(m40_cpu_threads(cpu, args->n_tokens * args->w->n_rows * args->w->n_cols))
    for (uint64_t r = 0; r < args->w->n_rows; r++)
        matmul_row(cpu, matmul, r);
    return M40LLM_OK;
}
