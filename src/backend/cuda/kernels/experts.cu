/* Mixtures of experts but for their matmuls: route, the order in which prompts' matmuls take the pairs of token and expert, and combine (docs/numerics.md). */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/expert_args.h"
#include "backend/cuda/kernels/head_norm.h"

/* ---- route: a warp a token; lane i has experts i, i + 32 ... ---- */

enum { ROUTE_OWN = ROUTE_EXPERTS / SIMT_WARP };
enum { KEY_TAKEN = 0, KEY_NAN = 1 };

/* Greater for a greater score, the same for zeros of either sign. */
M40_HD uint32_t route_key(float score)
{
    const uint32_t bits = m40_f32_to_bits(score + 0.0f);

    if (!(score == score))
        return KEY_NAN;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

M40_HD uint32_t warp_max_u32(uint32_t v)
{
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2) {
        const uint32_t other = simt_shfl_xor_u32(v, d);

        v = other > v ? other : v;
    }
    return v;
}

/* The next in rank: of those with the greatest key the lowest; its key becomes KEY_TAKEN. */
M40_HD uint32_t route_next(uint32_t keys[ROUTE_OWN], uint32_t n_experts)
{
    uint32_t key = 0, expert = 0, greatest;

    M40_UNROLL
    for (uint32_t i = 0; i < ROUTE_OWN; i++) {
        if (i * SIMT_WARP < n_experts && keys[i] > key) {
            key = keys[i];
            expert = i * SIMT_WARP + simt_lane();
        }
    }
    greatest = warp_max_u32(key);
    expert = ~warp_max_u32(key == greatest ? ~expert : 0);
    M40_UNROLL
    for (uint32_t i = 0; i < ROUTE_OWN; i++)
        keys[i] = expert == i * SIMT_WARP + simt_lane() ? KEY_TAKEN : keys[i];
    return expert;
}

M40_HD float route_sigmoid(float x)
{
    return 1.0f / (1.0f + m40_expf(-x));
}

/* The sum of exp(l - greatest) over all experts. */
M40_HD float route_total(const float logits[ROUTE_OWN], uint32_t n_experts, float *out_greatest)
{
    float greatest = m40_bits_to_f32(0xff800000u), p = 0.0f;

    M40_UNROLL
    for (uint32_t i = 0; i < ROUTE_OWN; i++) {
        if (i * SIMT_WARP + simt_lane() < n_experts)
            greatest = logits[i] > greatest ? logits[i] : greatest;
    }
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2) {
        const float other = simt_shfl_xor_f32(greatest, d);

        greatest = other > greatest ? other : greatest;
    }
    M40_UNROLL
    for (uint32_t i = 0; i < ROUTE_OWN; i++) {
        if (i * SIMT_WARP + simt_lane() < n_experts)
            p = p + m40_expf(logits[i] - greatest);
    }
    *out_greatest = greatest;
    return warp_tree(p);
}

SIMT_KERNEL(route, struct route_kernel_args, ROUTE_THREADS)
{
    const uint32_t token = simt_block_x() * ROUTE_TOKENS + simt_warp(), n_experts = args.n_experts;
    const float *row = args.logits + (uint64_t)token * n_experts;
    uint32_t keys[ROUTE_OWN], own = 0;
    float logits[ROUTE_OWN], from, weight, total = 1.0f;

    if (token >= args.n_tokens)
        return;
    M40_UNROLL
    for (uint32_t i = 0; i < ROUTE_OWN; i++) {
        const uint32_t expert = i * SIMT_WARP + simt_lane();

        logits[i] = expert < n_experts ? row[expert] : 0.0f;
        keys[i] = expert >= n_experts ? KEY_TAKEN : route_key(args.selection_bias ? logits[i] + args.selection_bias[expert] : logits[i]);
    }
    M40_ROLLED
    for (uint32_t rank = 0; rank < args.n_used; rank++) {
        const uint32_t expert = route_next(keys, n_experts);

        own = simt_lane() == rank ? expert : own;
    }
    weight = row[own]; /* of lane `rank`'s expert, as the rest from here on; lanes behind the last have one that is not used */
    from = simt_shfl_f32(weight, 0);
    if (!args.is_sigmoid && !args.is_normalised)
        total = route_total(logits, n_experts, &from);
    weight = args.is_sigmoid ? route_sigmoid(weight) : m40_expf(weight - from);
    if (args.is_normalised) {
        total = simt_shfl_f32(weight, 0);
        M40_ROLLED
        for (uint32_t rank = 1; rank < args.n_used; rank++)
            total = total + simt_shfl_f32(weight, rank);
    }
    if (simt_lane() < args.n_used) {
        args.ids[(uint64_t)token * args.n_used + simt_lane()] = (int32_t)own;
        args.weights[(uint64_t)token * args.n_used + simt_lane()] = (weight / total) * args.scale;
    }
}

/* ---- expert_plan: a block an expert. Each counts all pairs, so that none has to wait for another ---- */

enum { PLAN_WARPS = EXPERT_PLAN_THREADS / SIMT_WARP };

struct expert_plan_shared {
    uint32_t counts[ROUTE_EXPERTS];
    uint32_t own[PLAN_WARPS];           /* of the block's expert, in each warp's part of the pairs */
    uint32_t n_before, tiles_before[2]; /* of lower experts */
};

/* Whether an expert of n pairs has a tile in the second list. */
M40_HD uint32_t plan_small(const struct expert_plan_args *args, uint32_t n)
{
    return n % args->tile != 0 && n % args->tile <= args->small;
}

/* Its tiles in the first. */
M40_HD uint32_t plan_tiles(const struct expert_plan_args *args, uint32_t n)
{
    return (n + args->tile - 1) / args->tile - plan_small(args, n);
}

/* Counts a warp's part of the pairs. */
M40_HD void plan_count(const struct expert_plan_args *args, struct expert_plan_shared *shared, uint32_t begin, uint32_t end)
{
    uint32_t n_own = 0;

    for (uint32_t first = begin; first < end; first += SIMT_WARP) {
        const uint32_t pair = first + simt_lane(), expert = pair < end ? (uint32_t)args->ids[pair] : ROUTE_EXPERTS;

        if (pair < end)
            simt_atomic_add_u32(&shared->counts[expert], 1);
        n_own += simt_count_ones(simt_ballot(expert == simt_block_x()));
    }
    if (simt_lane() == 0)
        shared->own[simt_warp()] = n_own;
}

/* Writes the expert's pairs of a warp's part, ascending, from `at` on. */
M40_HD void plan_sort(const struct expert_plan_args *args, uint32_t begin, uint32_t end, uint32_t at)
{
    for (uint32_t first = begin; first < end; first += SIMT_WARP) {
        const uint32_t pair = first + simt_lane();
        const int is_own = pair < end && (uint32_t)args->ids[pair] == simt_block_x();
        const uint32_t votes = simt_ballot(is_own);

        if (is_own)
            args->pairs[at + simt_count_ones(votes & ((1u << simt_lane()) - 1))] = pair;
        at += simt_count_ones(votes);
    }
}

SIMT_KERNEL(expert_plan, struct expert_plan_args, EXPERT_PLAN_THREADS)
{
    SIMT_SHARED(struct expert_plan_shared, shared);
    const uint32_t part = (args.n_pairs + EXPERT_PLAN_THREADS - 1) / EXPERT_PLAN_THREADS * SIMT_WARP, own = simt_block_x();
    const uint32_t begin = simt_warp() * part, end = begin + part < args.n_pairs ? begin + part : args.n_pairs;
    uint32_t at, n_own, n_tiles;

    for (uint32_t e = simt_thread(); e < ROUTE_EXPERTS; e += EXPERT_PLAN_THREADS)
        shared->counts[e] = 0;
    if (simt_thread() == 0)
        shared->n_before = shared->tiles_before[0] = shared->tiles_before[1] = 0;
    simt_barrier();
    plan_count(&args, shared, begin, end);
    simt_barrier();
    for (uint32_t e = simt_thread(); e < own; e += EXPERT_PLAN_THREADS) {
        simt_atomic_add_u32(&shared->n_before, shared->counts[e]);
        simt_atomic_add_u32(&shared->tiles_before[0], plan_tiles(&args, shared->counts[e]));
        simt_atomic_add_u32(&shared->tiles_before[1], plan_small(&args, shared->counts[e]));
    }
    simt_barrier();
    n_own = shared->counts[own];
    n_tiles = plan_tiles(&args, n_own);
    for (uint32_t i = simt_thread(); i * args.tile < n_own; i += EXPERT_PLAN_THREADS) {
        struct expert_tile *tile = i < n_tiles ? &args.tiles[shared->tiles_before[0] + i] : &args.small_tiles[shared->tiles_before[1]];
        const uint32_t n_left = n_own - i * args.tile;

        tile->expert = own;
        tile->first = shared->n_before + i * args.tile;
        tile->n = n_left < args.tile ? n_left : args.tile;
    }
    if (own == simt_grid_x() - 1 && simt_thread() == 0) {
        args.n_tiles[0] = shared->tiles_before[0] + n_tiles;
        args.n_tiles[1] = shared->tiles_before[1] + plan_small(&args, n_own);
    }
    at = shared->n_before;
    for (uint32_t w = 0; w < simt_warp(); w++)
        at += shared->own[w];
    plan_sort(&args, begin, end, at);
}

/* ---- combine: a thread a column ---- */

enum { COMBINE_AHEAD = 8 }; /* experts whose values are asked for before the first is added */

SIMT_KERNEL(combine, struct combine_kernel_args, COMBINE_THREADS)
{
    const uint32_t c = simt_block_x() * COMBINE_THREADS + simt_thread(), token = simt_block_y(), n_used = args.n_used;
    const float *x = args.x + (uint64_t)token * n_used * args.n_cols + c, *weights = args.weights + (uint64_t)token * n_used;
    const uint64_t at = (uint64_t)token * args.n_cols + c;
    float acc = 0.0f;

    if (c >= args.n_cols)
        return;
    for (uint32_t first = 0; first < n_used; first += COMBINE_AHEAD) {
        float values[COMBINE_AHEAD], factors[COMBINE_AHEAD];

        M40_UNROLL
        for (uint32_t i = 0; i < COMBINE_AHEAD; i++) {
            const uint32_t rank = first + i < n_used ? first + i : n_used - 1;

            values[i] = x[(uint64_t)rank * args.n_cols];
            factors[i] = weights[rank];
        }
        M40_UNROLL
        for (uint32_t i = 0; i < COMBINE_AHEAD; i++) {
            if (first + i == 0)
                acc = factors[i] * values[i];
            else if (first + i < n_used)
                acc = m40_fmaf(factors[i], values[i], acc);
        }
    }
    if (args.shared)
        acc = m40_fmaf(args.shared_gate ? route_sigmoid(args.shared_gate[token]) : 1.0f, args.shared[at], acc);
    args.y[at] = acc + args.residual[at];
}
