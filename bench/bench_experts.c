/* Mixtures of experts in bench-kernels: the matmuls of the chosen experts, gate with up and down, for the shapes of well-known models; route and combine beside them. */
#include "bench/bench_cases.h"

#include "base/mem.h"

#include <string.h>

/* Choices that are taken in turn, so that one finds another's experts in no cache. */
enum { N_CHOICES = 16, N_CHOICES_QUICK = 2 };

struct mixture {
    uint32_t n_experts, n_used, n_ff, n_embd, dtype;
};

static const struct mixture mixtures[] = {
    {128, 8, 768, 2048, M40_DTYPE_Q4_K},  /* Qwen3-30B-A3B */
    {32, 4, 2880, 2880, M40_DTYPE_MXFP4}, /* gpt-oss-20b */
};
static const struct mixture quick_mixtures[] = {{8, 2, 256, 256, M40_DTYPE_Q4_K}, {4, 2, 96, 96, M40_DTYPE_MXFP4}};

void bench_experts_reserve(const struct bench_device *d, struct m40_workload *workload)
{
    for (size_t i = 0; i < 2; i++) {
        const struct mixture *m = d->is_quick ? &quick_mixtures[i] : &mixtures[i];
        const uint32_t widest = m->n_embd > 2 * m->n_ff ? m->n_embd : 2 * m->n_ff;

        workload->n_used = m->n_used > workload->n_used ? m->n_used : workload->n_used;
        workload->n_expert_cols = m->n_ff > workload->n_expert_cols ? m->n_ff : workload->n_expert_cols;
        workload->n_cols = m->n_embd > workload->n_cols ? m->n_embd : workload->n_cols;
        workload->n_rows = widest > workload->n_rows ? widest : workload->n_rows;
    }
}

/* What one number of tokens works with. Of a choice: logits, ids, weights, plan, each stride bytes behind the one before. */
struct experts_work {
    struct m40_route_args route;          /* of the first choice */
    struct m40_expert_matmul_args matmul; /* the same */
    struct m40_combine_args combine;
    uint64_t logits_bytes, pair_bytes, plan_bytes; /* of a choice */
    uint32_t n_choices;
};

static struct m40_route_args choice(const struct experts_work *w, uint32_t i)
{
    struct m40_route_args args = w->route;

    i %= w->n_choices;
    args.logits += i * w->logits_bytes;
    args.ids += i * w->pair_bytes;
    args.weights += i * w->pair_bytes;
    args.plan += i * w->plan_bytes;
    return args;
}

static m40llm_status issue_route(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct m40_route_args args = choice(data, i);

    return be->ops.route(be, &args, err);
}

static m40llm_status issue_experts(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct experts_work *w = data;
    const struct m40_route_args route = choice(w, i);
    struct m40_expert_matmul_args args = w->matmul;

    args.ids = route.ids;
    args.plan = route.plan;
    return be->ops.expert_matmul(be, &args, err);
}

static m40llm_status issue_combine(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    (void)i;
    return be->ops.combine(be, &((const struct experts_work *)data)->combine, err);
}

/* Experts that a choice takes, on average. */
static m40llm_status count_busy(struct bench_device *d, const struct experts_work *w, double *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_pairs = w->route.n_tokens * w->route.n_used;
    int32_t *ids = m40_calloc(n_pairs, sizeof *ids);
    uint32_t n_busy = 0;

    M40_FAIL_IF(!ids, M40LLM_NO_MEMORY, "ids of experts");
    for (uint32_t i = 0; i < w->n_choices; i++) {
        bool is_busy[M40_MAX_EXPERTS] = {false};

        M40_TRY(d->backend->ops.read(d->backend, ids, w->route.ids + i * w->pair_bytes, n_pairs * sizeof *ids, err));
        for (uint32_t k = 0; k < n_pairs; k++) {
            n_busy += !is_busy[ids[k]];
            is_busy[ids[k]] = true;
        }
    }
    *out = (double)n_busy / w->n_choices;
fail:
    m40_free(ids);
    return status;
}

static m40llm_status time_op(struct bench_device *d, const struct experts_work *w,
                             m40llm_status (*issue)(struct m40_backend *, const void *, uint32_t, m40llm_error *), struct bench_row *row,
                             const struct bench_sink *sink, m40llm_error *err)
{
    const struct bench_work work = {.issue = issue, .args = w, .n_copies = w->n_choices};
    m40llm_status status = M40LLM_OK;

    M40_TRY(bench_time(d, &work, &row->time, err));
    M40_TRY(sink->row(sink->user, row, err));
fail:
    return status;
}

/* One matrix, whose experts have n_rows rows each; of y, half of them where it is gated. */
static m40llm_status time_matmul(struct bench_device *d, struct experts_work *w, const struct m40_matrix *matrix, bool is_gated, double n_busy,
                                 const struct bench_sink *sink, m40llm_error *err)
{
    const uint32_t n_rows = (uint32_t)(matrix->n_rows / w->route.n_experts), n_pairs = w->route.n_tokens * w->route.n_used;
    struct bench_row row = {
        .op = is_gated ? "experts gate+up" : "experts down",
        .type = matrix->format->type->name,
        .n_rows = n_rows,
        .n_cols = (uint32_t)matrix->n_cols,
        .n_tokens = w->route.n_tokens,
    };
    const double n_x = is_gated ? w->route.n_tokens : n_pairs, n_y = (double)n_pairs * n_rows / (is_gated ? 2 : 1);

    w->matmul.w = matrix;
    w->matmul.is_gated = is_gated;
    w->matmul.has_pair_rows = !is_gated;
    row.n_bytes = n_busy * (double)matrix->size_bytes / w->route.n_experts + (n_x * row.n_cols + n_y) * sizeof(float);
    row.n_flops = 2.0 * n_rows * row.n_cols * n_pairs;
    return time_op(d, w, issue_experts, &row, sink, err);
}

/* The operations of one number of tokens; x and y are large enough for all of them. */
static m40llm_status time_tokens(struct bench_device *d, const struct mixture *m, const struct m40_matrix w[2], uint32_t n_tokens, m40_addr x,
                                 m40_addr y, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_pairs = n_tokens * m->n_used;
    struct experts_work work = {
        .route = {.n_tokens = n_tokens, .n_experts = m->n_experts, .n_used = m->n_used, .is_normalised = true, .scale = 1},
        .matmul = {.x = x, .y = y, .n_experts = m->n_experts, .n_tokens = n_tokens, .n_used = m->n_used},
        .combine = {.x = x, .residual = y, .y = y, .n_tokens = n_tokens, .n_used = m->n_used, .n_cols = m->n_embd},
        .logits_bytes = (uint64_t)n_tokens * m->n_experts * sizeof(float),
        .pair_bytes = m40_round_up(n_pairs * sizeof(float), 256),
        .plan_bytes = m40_round_up(m40_expert_plan_bytes(n_pairs, m->n_experts), 256),
        .n_choices = d->is_quick ? N_CHOICES_QUICK : N_CHOICES,
    };
    struct bench_row route = {.op = "route", .n_rows = m->n_experts, .n_cols = m->n_used, .n_tokens = n_tokens};
    struct bench_row combine = {.op = "combine", .n_rows = m->n_used, .n_cols = m->n_embd, .n_tokens = n_tokens};
    double n_busy = 0;

    M40_TRY(bench_numbers(d, work.logits_bytes / sizeof(float) * work.n_choices, &work.route.logits, err));
    M40_TRY(m40_cuda_alloc(d->backend, work.pair_bytes * work.n_choices, &work.route.ids, err));
    M40_TRY(m40_cuda_alloc(d->backend, work.pair_bytes * work.n_choices, &work.route.weights, err));
    M40_TRY(m40_cuda_alloc(d->backend, work.plan_bytes * work.n_choices, &work.route.plan, err));
    for (uint32_t i = 0; i < work.n_choices; i++)
        M40_TRY(issue_route(d->backend, &work, i, err));
    M40_TRY(count_busy(d, &work, &n_busy, err));
    work.combine.weights = work.route.weights;
    route.n_bytes = (double)work.logits_bytes;
    combine.n_bytes = ((double)n_pairs + 2 * n_tokens) * m->n_embd * sizeof(float);
    M40_TRY(time_op(d, &work, issue_route, &route, sink, err));
    M40_TRY(time_matmul(d, &work, &w[0], true, n_busy, sink, err));
    M40_TRY(time_matmul(d, &work, &w[1], false, n_busy, sink, err));
    M40_TRY(time_op(d, &work, issue_combine, &combine, sink, err));
fail:
    m40_cuda_free(d->backend, work.route.logits);
    m40_cuda_free(d->backend, work.route.ids);
    m40_cuda_free(d->backend, work.route.weights);
    m40_cuda_free(d->backend, work.route.plan);
    return status;
}

static m40llm_status bench_mixture(struct bench_device *d, const struct mixture *m, struct bench_sizes tokens, const struct bench_sink *sink,
                                   m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t widest = m->n_embd > m->n_ff ? m->n_embd : m->n_ff;
    const uint64_t n_floats = (uint64_t)bench_max(tokens) * m->n_used * widest;
    struct m40_matrix w[2] = {{0}};
    m40_addr x = 0, y = 0;

    M40_TRY(bench_weights(d, m40_format(m->dtype), m->n_experts * 2 * m->n_ff, m->n_embd, &w[0], err));
    M40_TRY(bench_weights(d, m40_format(m->dtype), m->n_experts * m->n_embd, m->n_ff, &w[1], err));
    M40_TRY(bench_numbers(d, n_floats, &x, err));
    M40_TRY(bench_numbers(d, n_floats, &y, err));
    for (size_t i = 0; i < tokens.n; i++)
        M40_TRY(time_tokens(d, m, w, tokens.values[i], x, y, sink, err));
fail:
    for (size_t i = 0; i < 2; i++)
        m40_cuda_free(d->backend, w[i].data);
    m40_cuda_free(d->backend, x);
    m40_cuda_free(d->backend, y);
    return status;
}

m40llm_status bench_experts(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (size_t i = 0; i < 2; i++)
        M40_TRY(bench_mixture(d, d->is_quick ? &quick_mixtures[i] : &mixtures[i], tokens, sink, err));
fail:
    return status;
}
