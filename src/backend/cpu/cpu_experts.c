/* expert_matmul: the pairs of an expert are the tokens of a matmul, whatever tokens they belong to. */
#include "backend/cpu/cpu_backend.h"

static m40llm_status check(const struct m40_cpu_backend *cpu, const struct m40_expert_matmul_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_workload *limit = &cpu->workload;
    const int32_t *ids = m40_cpu_ptr(args->ids);

    M40_FAIL_IF(args->is_gated, M40LLM_UNSUPPORTED, "gate and up in one matrix on the CPU");
    M40_FAIL_IF(args->n_experts == 0 || args->w->n_rows % args->n_experts, M40LLM_UNSUPPORTED, "a matrix of %llu rows for %u experts",
                (unsigned long long)args->w->n_rows, args->n_experts);
    M40_FAIL_IF(args->n_tokens > limit->n_tokens || args->n_used > limit->n_used, M40LLM_INVALID_ARGUMENT,
                "%u tokens with %u experts each are beyond the reserved %u with %u", args->n_tokens, args->n_used, limit->n_tokens, limit->n_used);
    for (uint32_t i = 0; i < args->n_tokens * args->n_used; i++)
        M40_FAIL_IF(ids[i] < 0 || (uint32_t)ids[i] >= args->n_experts, M40LLM_INVALID_ARGUMENT, "expert %d of %u", ids[i], args->n_experts);
fail:
    return status;
}

/* The rows of x and y of an expert's pairs, into cpu->pair_rows; how many. */
static uint32_t collect(struct m40_cpu_backend *cpu, const struct m40_expert_matmul_args *args, uint32_t expert, uint32_t **out_y_rows)
{
    const int32_t *ids = m40_cpu_ptr(args->ids);
    const uint32_t n_pairs = args->n_tokens * args->n_used;
    uint32_t *x_rows = cpu->pair_rows, *y_rows = x_rows + (size_t)cpu->workload.n_tokens * cpu->workload.n_used, n = 0;

    for (uint32_t pair = 0; pair < n_pairs; pair++) {
        if ((uint32_t)ids[pair] != expert)
            continue;
        x_rows[n] = args->has_pair_rows ? pair : pair / args->n_used;
        y_rows[n++] = pair;
    }
    *out_y_rows = y_rows;
    return n;
}

m40llm_status m40_cpu_expert_matmul(struct m40_backend *be, const struct m40_expert_matmul_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cpu_backend *cpu = m40_cpu(be);
    struct m40_matrix w = *args->w;
    struct m40_matmul_args expert = {.w = &w, .x = args->x, .y = args->y};

    M40_TRY(check(cpu, args, err));
    w.n_rows = args->w->n_rows / args->n_experts;
    for (uint32_t e = 0; e < args->n_experts; e++) {
        uint32_t *y_rows, n = collect(cpu, args, e, &y_rows);

        w.data = args->w->data + e * w.n_rows * m40_cpu_row_bytes(&w);
        expert.bias = args->bias ? args->bias + e * w.n_rows * sizeof(float) : 0;
        for (uint32_t first = 0; first < n; first += expert.n_tokens) {
            const struct m40_cpu_matmul matmul = {&expert, cpu->pair_rows + first, y_rows + first};

            expert.n_tokens = n - first < cpu->workload.n_tokens ? n - first : cpu->workload.n_tokens;
            M40_TRY(cpu->matmul(cpu, &matmul, err));
        }
    }
fail:
    return status;
}
