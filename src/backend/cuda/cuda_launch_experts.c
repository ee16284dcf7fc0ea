/* Mixtures of experts but for their matmuls: route, with the plan for prompts, and combine. */
#include "backend/cuda/cuda_internal.h"

#include "base/mem.h"

_Static_assert(ROUTE_EXPERTS == M40_MAX_EXPERTS && ROUTE_USED == M40_MAX_EXPERTS_USED && ROUTE_USED == 32, "experts of route");

enum {
    PLAN_HEAD_BYTES = 16,
    PLAN_LEAST_TILE = 32,
    MIN_PLAN_TOKENS = M40_CUDA_SMALL_TOKENS + 1 /* fewer are recorded steps, for few of which a plan pays */
};

/* Clocks that a tile of 32 rows x 256 columns takes by matvec_experts, gemm32 and gemm64: from those in cuda_launch_matmul.c. */
enum { PAIR_CLOCKS = 293, SMALL_CLOCKS = 3990, LARGE_CLOCKS = 5860, SMALL = 32, LARGE = 64 };

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* An expert's last block of tokens is half full on average; one of gemm64 that is no more than that is gemm32's. More tokens a block cost more, by the clocks. */
uint32_t m40_cuda_expert_tile(uint32_t n_tokens, uint32_t n_used, uint32_t n_experts)
{
    const uint64_t n_pairs = (uint64_t)n_tokens * n_used, n_busy = n_pairs < n_experts ? n_pairs : n_experts;
    const uint64_t small_clocks = max_u64(n_busy, n_pairs / SMALL + n_busy / 2) * SMALL_CLOCKS;
    const uint64_t large_clocks = max_u64(n_busy * SMALL_CLOCKS, n_pairs * LARGE_CLOCKS / LARGE + n_busy * SMALL_CLOCKS / 2);
    const uint64_t pair_clocks = n_pairs * PAIR_CLOCKS;

    if (n_tokens < MIN_PLAN_TOKENS || (pair_clocks <= small_clocks && pair_clocks <= large_clocks))
        return 0;
    return small_clocks <= large_clocks ? SMALL : LARGE;
}

static uint32_t max_tiles(uint32_t n_pairs, uint32_t n_experts, uint32_t tile)
{
    return n_pairs / tile + (n_pairs < n_experts ? n_pairs : n_experts);
}

uint64_t m40_expert_plan_bytes(uint32_t n_pairs, uint32_t n_experts)
{
    return PLAN_HEAD_BYTES + (max_tiles(n_pairs, n_experts, SMALL) + n_experts) * sizeof(struct expert_tile) + n_pairs * sizeof(uint32_t);
}

struct m40_cuda_expert_plan m40_cuda_expert_plan(m40_addr plan, uint32_t n_pairs, uint32_t n_experts, uint32_t tile)
{
    struct m40_cuda_expert_plan p = {.n_tiles = plan, .tiles = plan + PLAN_HEAD_BYTES, .max_tiles = max_tiles(n_pairs, n_experts, tile)};

    p.small_tile = tile == LARGE ? SMALL : 0;
    p.max_small_tiles = p.small_tile ? n_experts : 0;
    p.small_tiles = p.tiles + p.max_tiles * sizeof(struct expert_tile);
    p.pairs = p.small_tiles + p.max_small_tiles * sizeof(struct expert_tile);
    return p;
}

static m40llm_status launch_plan(struct m40_cuda *c, const struct m40_route_args *args, uint32_t tile, m40llm_error *err)
{
    const uint32_t n_pairs = args->n_tokens * args->n_used;
    const struct m40_cuda_expert_plan plan = m40_cuda_expert_plan(args->plan, n_pairs, args->n_experts, tile);
    const struct expert_plan_args a = {
        .ids = m40_cuda_ptr(args->ids),
        .n_tiles = m40_cuda_ptr(plan.n_tiles),
        .tiles = m40_cuda_ptr(plan.tiles),
        .small_tiles = m40_cuda_ptr(plan.small_tiles),
        .pairs = m40_cuda_ptr(plan.pairs),
        .n_pairs = n_pairs,
        .tile = tile,
        .small = plan.small_tile,
    };

    return m40_cuda_launch(c, c->kernels.expert_plan, args->n_experts, 1, 1, EXPERT_PLAN_THREADS, &a, err);
}

m40llm_status m40_cuda_route(struct m40_backend *be, const struct m40_route_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const uint32_t tile = m40_cuda_expert_tile(args->n_tokens, args->n_used, args->n_experts);
    const struct route_kernel_args a = {
        .logits = m40_cuda_ptr(args->logits),
        .selection_bias = m40_cuda_ptr(args->selection_bias),
        .ids = m40_cuda_ptr(args->ids),
        .weights = m40_cuda_ptr(args->weights),
        .n_tokens = args->n_tokens,
        .n_experts = args->n_experts,
        .n_used = args->n_used,
        .is_sigmoid = args->gating == M40_GATING_SIGMOID,
        .is_normalised = args->is_normalised,
        .scale = args->scale,
    };

    M40_TRY(m40_route_check(args, err));
    M40_FAIL_IF((uint64_t)args->n_tokens * args->n_used > INT32_MAX, M40LLM_UNSUPPORTED, "%u tokens with %u experts each", args->n_tokens,
                args->n_used);
    M40_TRY(m40_cuda_launch(c, c->kernels.route, m40_cuda_div_up(args->n_tokens, ROUTE_TOKENS), 1, 1, ROUTE_THREADS, &a, err));
    if (tile)
        M40_TRY(launch_plan(c, args, tile, err));
fail:
    return status;
}

m40llm_status m40_cuda_combine(struct m40_backend *be, const struct m40_combine_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const struct combine_kernel_args a = {
        .x = m40_cuda_ptr(args->x),
        .weights = m40_cuda_ptr(args->weights),
        .shared = m40_cuda_ptr(args->shared),
        .shared_gate = m40_cuda_ptr(args->shared_gate),
        .residual = m40_cuda_ptr(args->residual),
        .y = m40_cuda_ptr(args->y),
        .n_used = args->n_used,
        .n_cols = args->n_cols,
    };

    return m40_cuda_launch(c, c->kernels.combine, m40_cuda_div_up(args->n_cols, COMBINE_THREADS), args->n_tokens, 1, COMBINE_THREADS, &a, err);
}
