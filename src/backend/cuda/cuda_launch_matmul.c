#include "backend/cuda/cuda_launch_matmul.h"
#include "backend/cuda/cuda_launch_cublas.h"

#include "backend/cuda/kernels/matmul_args.h"
#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { N_MATVECS = 5 }; /* for 1, 2, 4, 8, 16 tokens */
enum { N_GEMMS = 3, BY_MATVEC = N_GEMMS };
enum { MATMUL_LANES = MATVEC_GROUP_THREADS / MATMUL_GROUP }; /* of a warp */
enum { MAX_GRID_Z = 65535 };
enum { ENOUGH_WAVES = 4 }; /* of blocks: with fewer, blocks share K, so that the last wave is a smaller part */

static const uint32_t gemm_tiles[N_GEMMS] = {32, 64, 128}; /* tokens of a block */

struct format_kernels {
    CUfunction matvec[N_MATVECS]; /* for at most 1 << i tokens */
    CUfunction experts;           /* for pairs of a token and an expert */
    CUfunction gemm[N_GEMMS], embed;
    CUfunction prepare; /* of formats with scales */
    CUfunction dequant; /* with cuBLAS only */
    bool is_loaded;
};

/* Functions are looked up when the first matrix of a format is made. */
struct m40_cuda_matmul {
    struct format_kernels of[M40_DTYPE_LIMIT]; /* by type number */
};

static m40llm_status find_kernel(struct m40_cuda *c, const struct m40_format *format, const char *kernel, CUfunction *out, m40llm_error *err)
{
    char image[64], name[64];

    snprintf(image, sizeof image, "matmul_%s", format->type->name);
    snprintf(name, sizeof name, "%s_%s", kernel, format->type->name);
    return m40_cuda_kernel(c, image, name, out, err);
}

m40llm_status m40_cuda_load_format(struct m40_cuda *c, const struct m40_format *format, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct format_kernels *kernels;

    if (!c->matmul)
        c->matmul = m40_calloc(1, sizeof *c->matmul);
    M40_FAIL_IF(!c->matmul, M40LLM_NO_MEMORY, "table of matmul kernels");
    kernels = &c->matmul->of[format->type->number];
    if (kernels->is_loaded)
        return M40LLM_OK;
    for (unsigned i = 0; i < N_MATVECS; i++) {
        char name[16];

        snprintf(name, sizeof name, "matvec%u", 1u << i);
        M40_TRY(find_kernel(c, format, name, &kernels->matvec[i], err));
    }
    for (unsigned i = 0; i < N_GEMMS; i++) {
        char name[16];

        snprintf(name, sizeof name, "gemm%u", gemm_tiles[i]);
        M40_TRY(find_kernel(c, format, name, &kernels->gemm[i], err));
    }
    M40_TRY(find_kernel(c, format, "matvec_experts", &kernels->experts, err));
    M40_TRY(find_kernel(c, format, "embed", &kernels->embed, err));
    if (format->sub)
        M40_TRY(find_kernel(c, format, "prepare", &kernels->prepare, err));
    if (c->cublas)
        M40_TRY(find_kernel(c, format, "dequant", &kernels->dequant, err));
    kernels->is_loaded = true;
    return M40LLM_OK;
fail:
    return status;
}

/* ---- matmul ---- */

static const struct format_kernels *kernels_of(const struct m40_cuda *c, const struct m40_matrix *matrix)
{
    const struct format_kernels *kernels = &c->matmul->of[matrix->format->type->number];

    assert(kernels->is_loaded); /* by matrix_create */
    return kernels;
}

/* `count` floats further on, where there is anything. */
static m40_addr advance(m40_addr addr, uint64_t count)
{
    return addr ? addr + count * sizeof(float) : 0;
}

/* y for n_tokens from `first` on. The addresses become pointers that only the device follows. */
static struct matmul_kernel_args kernel_args(const struct m40_cuda *c, const struct m40_matmul_args *args, uint32_t first, uint32_t n_tokens)
{
    const struct m40_matrix *w = args->w;
    struct matmul_kernel_args k = {.n_rows = (uint32_t)w->n_rows, .n_cols = (uint32_t)w->n_cols, .n_tokens = n_tokens};

    k.tiles = (const uint8_t *)(uintptr_t)w->data;
    k.x = (const float *)(uintptr_t)advance(args->x, first * w->n_cols);
    k.bias = (const float *)(uintptr_t)args->bias;
    k.residual = (const float *)(uintptr_t)advance(args->residual, first * w->n_rows);
    k.y = (float *)(uintptr_t)advance(args->y, first * w->n_rows);
    k.partials = (float *)(uintptr_t)c->scratch.partials.addr;
    k.counters = (uint32_t *)(uintptr_t)c->scratch.counters.addr;
    return k;
}

static uint32_t n_groups_of(const struct m40_matrix *w)
{
    return m40_cuda_div_up(w->n_cols, MATMUL_CHUNK * MATMUL_GROUP);
}

/* Groups of K that a streaming block owns: all where they fit, else one. */
static uint32_t stream_span(const struct m40_matrix *w, uint32_t tokens)
{
    const uint32_t n_groups = n_groups_of(w);

    return n_groups <= MATVEC_SPAN_GROUPS(tokens) ? n_groups : 1;
}

/* A grid of streaming blocks that are all resident: K's groups by one block where they fit, else by as many as there are groups; each of these takes every n-th unit of rows. All of it
 * n_matmuls times. */
static m40llm_status launch_stream(struct m40_cuda *c, CUfunction kernel, struct matmul_kernel_args *k, const struct m40_matrix *w, uint32_t tokens,
                                   uint32_t n_matmuls, m40llm_error *err)
{
    uint32_t n_span = stream_span(w, tokens), n_spans = n_groups_of(w) / n_span, n_chunks = m40_cuda_div_up(w->n_cols, MATMUL_CHUNK);
    uint32_t n_warps = n_chunks < MATMUL_GROUP && !k->norm_weight ? n_chunks : n_span * MATMUL_GROUP; /* the norm takes all of a group's */
    uint32_t n_resident = c->n_sms * (MATVEC_RESIDENT_WARPS / n_warps), n_blocks = n_resident / n_spans / n_matmuls;
    uint32_t n_units = m40_cuda_div_up(k->n_rows / (k->is_gated ? 2 : 1), MATMUL_TILE * MATVEC_ROW_TILES(tokens, !w->format->sub));

    if (n_blocks > n_units)
        n_blocks = n_units;
    return m40_cuda_launch(c, kernel, n_spans, n_blocks ? n_blocks : 1, n_matmuls, n_warps * MATMUL_LANES, k, err);
}

/* Makes k->x and k->x_sums what a format with scales takes: n_interleaved tokens side by side, or, where that is 0, a token's columns. */
static m40llm_status launch_prepare(struct m40_cuda *c, const struct m40_matrix *w, struct matmul_kernel_args *k, uint32_t n_interleaved,
                                    m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_subs = k->n_cols / w->format->sub, n_tokens = n_interleaved ? n_interleaved : k->n_tokens;
    const struct m40_cuda_area *prepared = &c->scratch.prepared_x, *sums = &c->scratch.x_sums;
    struct prepare_kernel_args a = {
        .x = k->x,
        .prepared = m40_cuda_ptr(prepared->addr),
        .sums = m40_cuda_ptr(sums->addr),
        .n_cols = k->n_cols,
        .col_stride = n_interleaved ? n_interleaved : 1,
        .token_stride = n_interleaved ? 1 : k->n_cols,
        .sum_token_stride = n_interleaved ? 1 : n_subs,
    };

    assert((uint64_t)n_tokens * k->n_cols * sizeof(float) <= prepared->n_bytes && (uint64_t)n_tokens * n_subs * sizeof(float) <= sums->n_bytes);
    M40_TRY(m40_cuda_launch(c, kernels_of(c, w)->prepare, k->n_tokens, m40_cuda_div_up(n_subs, PREPARE_SUBS), 1, PREPARE_THREADS, &a, err));
    k->x = a.prepared;
    k->x_sums = a.sums;
fail:
    return status;
}

static m40llm_status launch_matvec(struct m40_cuda *c, const struct m40_matmul_args *args, uint32_t first, uint32_t n_tokens, m40llm_error *err)
{
    struct matmul_kernel_args k = kernel_args(c, args, first, n_tokens);
    m40llm_status status = M40LLM_OK;
    const bool is_plain = !args->w->format->sub;
    uint32_t n_rows, n_chunks; /* of a block */
    unsigned i = 0;

    while (1u << i < n_tokens)
        i++;
    if (1u << i <= MATVEC_STREAM_TOKENS)
        return launch_stream(c, kernels_of(c, args->w)->matvec[i], &k, args->w, 1u << i, 1, err);
    n_rows = MATMUL_TILE * MATVEC_ROW_TILES(1u << i, is_plain);
    n_chunks = MATVEC_CHUNKS(1u << i, is_plain);
    if (!is_plain)
        M40_TRY(launch_prepare(c, args->w, &k, 1u << i, err));
    M40_TRY(m40_cuda_launch(c, kernels_of(c, args->w)->matvec[i], m40_cuda_div_up(k.n_rows, n_rows),
                            m40_cuda_div_up(k.n_cols, MATMUL_CHUNK * n_chunks), 1, n_chunks * MATVEC_CHUNK_THREADS, &k, err));
fail:
    return status;
}

static uint32_t gemm_threads(uint32_t tile)
{
    return GEMM_TEAMS_OF(tile) * GEMM_THREADS_OF(tile);
}

/* The grid's z: how many blocks share K. */
static uint32_t gemm_sharing(const struct m40_cuda *c, const struct m40_matrix *w, uint32_t n_tokens, uint32_t tile)
{
    uint64_t n_blocks = (uint64_t)m40_cuda_div_up(w->n_rows, GEMM_ROWS) * m40_cuda_div_up(n_tokens, tile);
    uint64_t n_groups = n_groups_of(w), n_resident = (uint64_t)c->n_sms * (GEMM_RESIDENT_THREADS / gemm_threads(tile));

    if (n_blocks >= ENOUGH_WAVES * n_resident || n_blocks > M40_CUDA_N_COUNTERS)
        return 1;
    return n_groups * n_blocks * GEMM_ROWS * tile * sizeof(float) <= c->scratch.partials.n_bytes ? (uint32_t)n_groups : 1;
}

static m40llm_status launch_gemm(struct m40_cuda *c, const struct m40_matmul_args *args, uint32_t first, uint32_t n_tokens, unsigned kernel,
                                 m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_matrix *w = args->w;
    const uint32_t tile = gemm_tiles[kernel];
    struct matmul_kernel_args k = kernel_args(c, args, first, n_tokens);

    if (w->format->sub)
        M40_TRY(launch_prepare(c, w, &k, 0, err));
    M40_TRY(m40_cuda_launch(c, kernels_of(c, w)->gemm[kernel], m40_cuda_div_up(w->n_rows, GEMM_ROWS), m40_cuda_div_up(n_tokens, tile),
                            gemm_sharing(c, w, n_tokens, tile), gemm_threads(tile), &k, err));
fail:
    return status;
}

/* ---- which kernels for how many tokens ----
 *
 * A matmul is done in pieces of tokens, each by one launch: the plan is the one that takes the fewest clocks by a simple model of a multiprocessor, fitted to an H200 and
 * Q4_K. The other formats differ in what all kernels share, the unpacking; an M40 has as many lanes to a multiprocessor, but fewer of those. */

enum {
    LAUNCH_CLOCKS = 12000,   /* of any piece: the launch and the first loads */
    GEMM_STEP_CLOCKS = 1000, /* of a step of 32 columns by each team, however many blocks a multiprocessor has: barriers, loads that nothing hides */
    MATVEC_PLAN_TOKENS = 64, /* with more tokens the mat-vec kernels are not considered */
};
/* Of a block for a step; of a warp for a chunk. */
static const uint64_t gemm_clocks[N_GEMMS] = {4770, 2930, 6240}, matvec_clocks[N_MATVECS] = {293, 468, 680, 1145, 2220};

struct piece {
    unsigned kernel;   /* of format_kernels.gemm, or BY_MATVEC */
    uint32_t n_tokens; /* the first ones */
    uint64_t clocks;   /* of all tokens */
};

/* The whole by mat-vec kernels: the next larger one, or the next smaller one and what is left by others. */
static struct piece plan_matvecs(const struct m40_cuda *c, const struct m40_matrix *w, uint32_t n_tokens)
{
    uint64_t n_warps = (uint64_t)m40_cuda_div_up(w->n_rows, MATMUL_TILE) * m40_cuda_div_up(w->n_cols, MATMUL_CHUNK);
    struct piece best = {BY_MATVEC, n_tokens, UINT64_MAX};

    for (unsigned i = 0; i < N_MATVECS; i++) {
        uint32_t n = n_tokens < 1u << i ? n_tokens : 1u << i;
        uint64_t clocks = LAUNCH_CLOCKS + matvec_clocks[i] * n_warps / c->n_sms;

        if (n < n_tokens && i < N_MATVECS - 1 && n_tokens >= 2u << i)
            continue; /* not the next smaller one */
        if (n < n_tokens)
            clocks += plan_matvecs(c, w, n_tokens - n).clocks;
        if (clocks < best.clocks)
            best = (struct piece){BY_MATVEC, n, clocks};
        if (n == n_tokens)
            break;
    }
    return best;
}

static uint64_t clocks_of_gemm(const struct m40_cuda *c, const struct m40_matrix *w, unsigned kernel, uint32_t n_tokens)
{
    const uint32_t tile = gemm_tiles[kernel], sharing = gemm_sharing(c, w, n_tokens, tile);
    uint64_t n_blocks = (uint64_t)sharing * m40_cuda_div_up(w->n_rows, GEMM_ROWS) * m40_cuda_div_up(n_tokens, tile);
    uint64_t n_cols = sharing > 1 ? MATMUL_GROUP * MATMUL_CHUNK : w->n_cols;

    return LAUNCH_CLOCKS + m40_cuda_div_up(n_cols, MATMUL_TILE * GEMM_TEAMS_OF(tile)) *
                               (GEMM_STEP_CLOCKS + gemm_clocks[kernel] * m40_cuda_div_up(n_blocks, c->n_sms));
}

/* The first piece of the best plan: all tokens by one kernel, or as many as fill its blocks and the rest as planned for them. */
static struct piece plan(const struct m40_cuda *c, const struct m40_matrix *w, uint32_t n_tokens)
{
    struct piece best = {BY_MATVEC, n_tokens, UINT64_MAX};

    if (n_tokens <= MATVEC_PLAN_TOKENS)
        best = plan_matvecs(c, w, n_tokens);
    for (unsigned i = 0; i < N_GEMMS; i++) {
        uint32_t n_left = n_tokens % gemm_tiles[i], n_whole = n_tokens - n_left;
        struct piece all = {i, n_tokens, clocks_of_gemm(c, w, i, n_tokens)}, whole = {i, n_whole, UINT64_MAX};

        if (n_whole && n_left)
            whole.clocks = clocks_of_gemm(c, w, i, n_whole) + plan(c, w, n_left).clocks;
        if (all.clocks < best.clocks)
            best = all;
        if (whole.clocks < best.clocks)
            best = whole;
    }
    return best;
}

static m40llm_status check_limits(const struct m40_cuda *c, const struct m40_matmul_args *args, m40llm_error *err)
{
    const struct m40_workload *limit = &c->workload;
    const struct m40_matrix *w = args->w;

    if (args->n_tokens > limit->n_tokens || w->n_cols > limit->n_cols || w->n_rows > limit->n_rows)
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "matmul of %u tokens, %llu x %llu, is beyond the reserved %u tokens, %u x %u", args->n_tokens,
                        (unsigned long long)w->n_rows, (unsigned long long)w->n_cols, limit->n_tokens, limit->n_rows, limit->n_cols);
    if (limit->n_weights && w->n_rows * w->n_cols > limit->n_weights)
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "matmul of %llu weights is beyond the reserved %llu",
                        (unsigned long long)(w->n_rows * w->n_cols), (unsigned long long)limit->n_weights);
    return M40LLM_OK;
}

m40llm_status m40_cuda_matmul(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const struct m40_matrix *w = args->w;
    m40llm_status status = M40LLM_OK;
    struct piece piece;

    M40_TRY(check_limits(c, args, err));
    if (c->cublas && args->n_tokens >= c->cublas->min_tokens)
        return m40_cuda_cublas_matmul(c, kernels_of(c, w)->dequant, args, err);
    for (uint32_t first = 0; first < args->n_tokens; first += piece.n_tokens) {
        piece = plan(c, w, args->n_tokens - first);
        M40_TRY(piece.kernel == BY_MATVEC ? launch_matvec(c, args, first, piece.n_tokens, err)
                                          : launch_gemm(c, args, first, piece.n_tokens, piece.kernel, err));
    }
fail:
    return status;
}

/* Norm and matmul by one launch, for one token; gated: 0, or y of norm_glu. With more tokens every block would have to read all of x. */
static m40llm_status launch_normed(struct m40_cuda *c, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *args, m40_addr gated,
                                   m40llm_error *err)
{
    struct matmul_kernel_args k = kernel_args(c, args, 0, 1);

    k.x = m40_cuda_ptr(norm->x);
    k.norm_weight = m40_cuda_ptr(norm->weight);
    k.norm_eps = norm->eps;
    if (gated) {
        k.is_gated = 1;
        k.y = m40_cuda_ptr(gated);
    }
    return launch_stream(c, kernels_of(c, args->w)->matvec[0], &k, args->w, 1, 1, err);
}

m40llm_status m40_cuda_norm_matmul(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *args,
                                   m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    assert(args->x == norm->y && norm->n_rows == args->n_tokens && norm->n_cols == args->w->n_cols && !norm->stride && !norm->residual);
    M40_TRY(check_limits(c, args, err));
    if (args->n_tokens == 1)
        return launch_normed(c, norm, args, 0, err);
    M40_TRY(m40_cuda_rms_norm(be, norm, err));
    M40_TRY(m40_cuda_matmul(be, args, err));
fail:
    return status;
}

m40llm_status m40_cuda_norm_glu(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *args,
                                const struct m40_act_params *act, m40_addr y, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const uint32_t n_rows = (uint32_t)args->w->n_rows;
    const struct m40_glu_args glu = {
        .gate = args->y, .up = advance(args->y, n_rows / 2), .y = y, .n_rows = args->n_tokens, .n_cols = n_rows / 2, .stride = n_rows, .act = *act};

    assert(n_rows % 2 == 0 && !args->bias && !args->residual);
    M40_TRY(check_limits(c, args, err));
    if (args->n_tokens == 1 && n_rows % (2 * MATMUL_TILE) == 0 && act->act == M40_ACT_SILU)
        return launch_normed(c, norm, args, y, err);
    M40_TRY(m40_cuda_norm_matmul(be, norm, args, err));
    M40_TRY(m40_cuda_glu(be, &glu, err));
fail:
    return status;
}

/* ---- experts ---- */

/* The pairs of a token and one of its experts one by one, by one launch, or by more where blocks share K and scratch memory has not room for all. */
static m40llm_status launch_pairs(struct m40_cuda *c, struct matmul_kernel_args *k, const struct m40_matrix *w, uint32_t n_pairs, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint64_t n_groups = n_groups_of(w), n_units = k->n_rows / (k->is_gated ? 2 : 1) / MATMUL_TILE;
    uint64_t n_slice = MAX_GRID_Z;

    if (n_groups > stream_span(w, 1)) {
        n_slice = c->scratch.partials.n_bytes / (n_groups * k->n_rows * sizeof(float));
        n_slice = n_slice < M40_CUDA_N_COUNTERS / n_units ? n_slice : M40_CUDA_N_COUNTERS / n_units;
    }
    M40_FAIL_IF(n_slice == 0, M40LLM_UNSUPPORTED, "experts of %u x %u", k->n_rows, k->n_cols);
    for (uint32_t first = 0; first < n_pairs; first += k->n_tokens) {
        k->first_pair = first;
        k->n_tokens = n_pairs - first < n_slice ? n_pairs - first : (uint32_t)n_slice;
        M40_TRY(launch_stream(c, kernels_of(c, w)->experts, k, w, 1, k->n_tokens, err));
    }
fail:
    return status;
}

/* The blocks of one list of the plan. */
static m40llm_status launch_tiles(struct m40_cuda *c, struct matmul_kernel_args *k, const struct m40_matrix *w, m40_addr tiles, m40_addr n_tiles,
                                  uint32_t max_tiles, uint32_t tile, m40llm_error *err)
{
    unsigned i = 0;

    while (gemm_tiles[i] != tile)
        i++;
    k->plan_tiles = m40_cuda_ptr(tiles);
    k->plan_n_tiles = m40_cuda_ptr(n_tiles);
    return m40_cuda_launch(c, kernels_of(c, w)->gemm[i], m40_cuda_div_up(k->n_rows, GEMM_ROWS), max_tiles, 1, gemm_threads(tile), k, err);
}

static m40llm_status launch_planned(struct m40_cuda *c, struct matmul_kernel_args *k, const struct m40_expert_matmul_args *args, uint32_t tile,
                                    m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_matrix *w = args->w;
    const uint32_t n_pairs = args->n_tokens * args->n_used;
    const struct m40_cuda_expert_plan plan = m40_cuda_expert_plan(args->plan, n_pairs, args->n_experts, tile);

    k->n_tokens = args->has_pair_rows ? n_pairs : args->n_tokens;
    M40_FAIL_IF(k->n_tokens * w->n_cols > UINT32_MAX, M40LLM_UNSUPPORTED, "experts with %u rows of %llu columns", k->n_tokens,
                (unsigned long long)w->n_cols);
    if (w->format->sub)
        M40_TRY(launch_prepare(c, w, k, 0, err));
    k->plan_pairs = m40_cuda_ptr(plan.pairs);
    M40_TRY(launch_tiles(c, k, w, plan.tiles, plan.n_tiles, plan.max_tiles, tile, err));
    if (plan.small_tile)
        M40_TRY(launch_tiles(c, k, w, plan.small_tiles, plan.n_tiles + sizeof(uint32_t), plan.max_small_tiles, plan.small_tile, err));
fail:
    return status;
}

static m40llm_status check_experts(const struct m40_cuda *c, const struct m40_expert_matmul_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_workload *limit = &c->workload;
    const struct m40_matrix *w = args->w;
    const uint64_t n_rows = args->n_experts ? w->n_rows / args->n_experts : 0;

    M40_FAIL_IF(n_rows == 0 || w->n_rows % args->n_experts || n_rows % (MATMUL_TILE << args->is_gated), M40LLM_UNSUPPORTED,
                "a matrix of %llu rows for %u experts", (unsigned long long)w->n_rows, args->n_experts);
    M40_FAIL_IF(args->n_tokens > limit->n_tokens || args->n_used > limit->n_used || n_rows > limit->n_rows ||
                    w->n_cols > (args->has_pair_rows ? limit->n_expert_cols : limit->n_cols),
                M40LLM_INVALID_ARGUMENT, "experts of %llu x %llu for %u tokens, %u each, are beyond what was reserved", (unsigned long long)n_rows,
                (unsigned long long)w->n_cols, args->n_tokens, args->n_used);
fail:
    return status;
}

m40llm_status m40_cuda_expert_matmul(struct m40_backend *be, const struct m40_expert_matmul_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const uint32_t tile = m40_cuda_expert_tile(args->n_tokens, args->n_used, args->n_experts);
    const struct m40_matmul_args plain = {.w = args->w, .x = args->x, .bias = args->bias, .y = args->y};
    struct matmul_kernel_args k;

    M40_TRY(check_experts(c, args, err));
    k = kernel_args(c, &plain, 0, 0);
    k.n_rows = (uint32_t)(args->w->n_rows / args->n_experts);
    k.is_gated = args->is_gated;
    k.act = args->act.act;
    k.act_alpha = args->act.alpha;
    k.act_limit = args->act.limit;
    k.up_bias = m40_cuda_ptr(args->up_bias);
    k.x_share = args->has_pair_rows ? 1 : args->n_used;
    if (tile)
        return launch_planned(c, &k, args, tile, err);
    k.expert_ids = m40_cuda_ptr(args->ids);
    return launch_pairs(c, &k, args->w, args->n_tokens * args->n_used, err);
fail:
    return status;
}

m40llm_status m40_cuda_embed(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    struct embed_kernel_args k = {.n_cols = (uint32_t)args->table->n_cols, .scale = args->scale};

    if (args->n_tokens == 0)
        return M40LLM_OK;
    k.tiles = (const uint8_t *)(uintptr_t)args->table->data;
    k.ids = (const int32_t *)(uintptr_t)args->ids;
    k.y = (float *)(uintptr_t)args->y;
    return m40_cuda_launch(c, kernels_of(c, args->table)->embed, args->n_tokens, 1, 1, EMBED_THREADS, &k, err);
}
