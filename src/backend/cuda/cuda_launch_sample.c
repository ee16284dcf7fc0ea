/* sample: three launches for as many rows at a time as scratch memory has room for. */
#include "backend/cuda/cuda_internal.h"
#include "backend/cuda/kernels/sample_args.h"

enum { MIN_ROWS = 16 }; /* that scratch memory has room for, if a step has as many */

static uint64_t row_bytes(uint32_t n_cols)
{
    return sizeof(struct sample_state) + (uint64_t)m40_cuda_div_up(n_cols, SAMPLE_COLS_A_BLOCK) * sizeof(struct sample_ends);
}

uint64_t m40_cuda_sample_bytes(const struct m40_workload *w)
{
    return row_bytes(w->n_rows) * (w->n_tokens < MIN_ROWS ? w->n_tokens : MIN_ROWS);
}

m40llm_status m40_cuda_sample(struct m40_backend *be, const struct m40_sample_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const struct m40_cuda_op_kernels *k = &c->kernels;
    const uint32_t n_parts = m40_cuda_div_up(args->n_cols, SAMPLE_COLS_A_BLOCK);
    const uint64_t n_slice = c->scratch.partials.n_bytes / row_bytes(args->n_cols);
    struct sample_args a = {.states = m40_cuda_ptr(c->scratch.partials.addr), .n_cols = args->n_cols};

    M40_FAIL_IF(args->n_cols == 0 || args->n_cols > M40_SAMPLE_MAX_COLS, M40LLM_UNSUPPORTED, "sampling from rows of %u columns", args->n_cols);
    M40_FAIL_IF(args->n_rows > c->workload.n_tokens || args->n_cols > c->workload.n_rows, M40LLM_INVALID_ARGUMENT,
                "sampling from %u rows of %u is beyond the reserved %u of %u", args->n_rows, args->n_cols, c->workload.n_tokens, c->workload.n_rows);
    for (uint32_t first = 0, n = 0; first < args->n_rows; first += n) {
        n = args->n_rows - first < n_slice ? args->n_rows - first : (uint32_t)n_slice;
        a.x = m40_cuda_ptr(args->x + (uint64_t)first * args->n_cols * sizeof(float));
        a.rows = m40_cuda_ptr(args->rows + first * sizeof(struct m40_sample_row));
        a.ends = m40_cuda_ptr(c->scratch.partials.addr + n * sizeof(struct sample_state));
        a.ids = m40_cuda_ptr(args->ids + first * sizeof(int32_t));
        M40_TRY(m40_cuda_launch(c, k->sample_measure, n_parts, n, 1, M40_CUDA_MAX_THREADS, &a, err));
        M40_TRY(m40_cuda_launch(c, k->sample_bin, n_parts, n, 1, M40_CUDA_MAX_THREADS, &a, err));
        M40_TRY(m40_cuda_launch(c, k->sample_choose, n_parts, n, 1, M40_CUDA_MAX_THREADS, &a, err));
    }
fail:
    return status;
}
