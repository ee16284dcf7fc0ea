/* Argument checks and launch shapes of the operations, but for matmul, embed and attention. */
#include "backend/cuda/cuda_internal.h"

enum { ELEMENTS_A_WORD = 4, HEADS_A_BLOCK = 8, ARGMAX_MAX_PARTS = 64, ARGMAX_PART = 1024, SHORT_ROWS = 8 };

static uint32_t min_u32(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

static bool is_aligned(m40_addr addr)
{
    return addr % 16 == 0;
}

m40llm_status m40_cuda_load_op_kernels(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_op_kernels *k = &c->kernels;

    M40_TRY(m40_cuda_kernel(c, "norm", "rms_norm", &k->rms_norm, err));
    M40_TRY(m40_cuda_kernel(c, "norm", "rms_norm_residual", &k->rms_norm_residual, err));
    M40_TRY(m40_cuda_kernel(c, "norm", "rms_norm_short", &k->rms_norm_short, err));
    M40_TRY(m40_cuda_kernel(c, "rope_append", "rope_append", &k->rope_append, err));
    M40_TRY(m40_cuda_kernel(c, "act", "glu", &k->glu, err));
    M40_TRY(m40_cuda_kernel(c, "act", "softcap", &k->softcap, err));
    M40_TRY(m40_cuda_kernel(c, "rows", "gather_rows", &k->gather_rows, err));
    M40_TRY(m40_cuda_kernel(c, "rows", "argmax", &k->argmax, err));
    M40_TRY(m40_cuda_kernel(c, "experts", "route", &k->route, err));
    M40_TRY(m40_cuda_kernel(c, "experts", "expert_plan", &k->expert_plan, err));
    M40_TRY(m40_cuda_kernel(c, "experts", "combine", &k->combine, err));
    M40_TRY(m40_cuda_kernel(c, "sample", "sample_measure", &k->sample_measure, err));
    M40_TRY(m40_cuda_kernel(c, "sample", "sample_bin", &k->sample_bin, err));
    M40_TRY(m40_cuda_kernel(c, "sample", "sample_choose", &k->sample_choose, err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_split_1", &k->attention_split[0], err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_split_2", &k->attention_split[1], err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_split_4", &k->attention_split[2], err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_split_8", &k->attention_split[3], err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_split_f32", &k->attention_split_f32, err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_near", &k->attention_near, err));
    M40_TRY(m40_cuda_kernel(c, "attention_split", "attention_merge", &k->attention_merge, err));
    M40_TRY(m40_cuda_kernel(c, "attention_fused", "attention_fused_64", &k->attention_fused[0], err));
    M40_TRY(m40_cuda_kernel(c, "attention_fused", "attention_fused_128", &k->attention_fused[1], err));
fail:
    return status;
}

m40llm_status m40_cuda_rms_norm(struct m40_backend *be, const struct m40_rms_norm_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    struct rms_norm_args a = {
        .x = m40_cuda_ptr(args->x),
        .weight = m40_cuda_ptr(args->weight),
        .residual = m40_cuda_ptr(args->residual),
        .y = m40_cuda_ptr(args->y),
        .n_rows = args->n_rows,
        .n_cols = args->n_cols,
        .stride = args->stride ? args->stride : args->n_cols,
        .eps = args->eps,
    };

    if (args->n_cols == 0)
        return m40_fail(err, M40LLM_UNSUPPORTED, "a norm over rows of 0 columns");
    if (args->n_cols <= M40_NORM_LANES)
        return m40_cuda_launch(c, c->kernels.rms_norm_short, m40_cuda_div_up(args->n_rows, SHORT_ROWS), 1, 1, M40_CUDA_MAX_THREADS, &a, err);
    return m40_cuda_launch(c, args->residual ? c->kernels.rms_norm_residual : c->kernels.rms_norm, args->n_rows, 1, 1, M40_CUDA_MAX_THREADS, &a, err);
}

struct kv_view m40_cuda_kv_view(const struct m40_kv_layer *kv, const struct m40_rows *rows)
{
    return (struct kv_view){
        .base = m40_cuda_ptr(kv->base),
        .pos = m40_cuda_ptr(rows->pos),
        .slot = m40_cuda_ptr(rows->slot),
        .pages = m40_cuda_ptr(rows->pages),
        .n_slot_pages = rows->n_slot_pages,
        .n_kv_heads = kv->n_kv_heads,
        .head_dim = kv->head_dim,
        .is_f32 = kv->type == M40LLM_KV_F32,
    };
}

m40llm_status m40_cuda_rope_append(struct m40_backend *be, const struct m40_rope_append_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const struct m40_kv_layer *kv = args->kv;
    struct rope_append_args a = {
        .kv = m40_cuda_kv_view(kv, args->rows),
        .q = m40_cuda_ptr(args->q),
        .k = m40_cuda_ptr(args->k),
        .v = m40_cuda_ptr(args->v),
        .q_norm = m40_cuda_ptr(args->q_norm),
        .k_norm = m40_cuda_ptr(args->k_norm),
        .table = m40_cuda_ptr(args->table),
        .q_table = m40_cuda_ptr(args->q_table ? args->q_table : args->table),
        .q_stride = args->q_stride,
        .kv_stride = args->kv_stride,
        .n_heads = args->n_heads,
        .n_rot = args->n_rot,
        .is_neox = args->style == M40_ROPE_NEOX,
        .eps = args->norm_eps,
    };

    M40_FAIL_IF(kv->head_dim % 8 || kv->head_dim > M40_NORM_LANES, M40LLM_UNSUPPORTED, "a KV cache with heads of %u", kv->head_dim);
    M40_FAIL_IF(args->n_rot % 2 || args->n_rot > kv->head_dim, M40LLM_UNSUPPORTED, "rope over %u of %u elements of a head", args->n_rot,
                kv->head_dim);
    M40_TRY(m40_cuda_launch(c, c->kernels.rope_append, args->rows->n_tokens, m40_cuda_div_up(args->n_heads + 2 * kv->n_kv_heads, HEADS_A_BLOCK), 1,
                            M40_CUDA_MAX_THREADS, &a, err));
fail:
    return status;
}

m40llm_status m40_cuda_glu(struct m40_backend *be, const struct m40_glu_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const bool is_wide = is_aligned(args->gate) && is_aligned(args->up) && is_aligned(args->y) && args->n_cols % ELEMENTS_A_WORD == 0 &&
                         args->stride % ELEMENTS_A_WORD == 0;
    const uint32_t n_words = is_wide ? args->n_cols / ELEMENTS_A_WORD : args->n_cols;
    struct glu_args a = {
        .gate = m40_cuda_ptr(args->gate),
        .up = m40_cuda_ptr(args->up),
        .y = m40_cuda_ptr(args->y),
        .n_cols = args->n_cols,
        .stride = args->stride,
        .is_wide = is_wide,
        .act = args->act.act,
        .alpha = args->act.alpha,
        .limit = args->act.limit,
    };

    return m40_cuda_launch(c, c->kernels.glu, m40_cuda_div_up(n_words, M40_CUDA_MAX_THREADS), args->n_rows, 1, M40_CUDA_MAX_THREADS, &a, err);
}

m40llm_status m40_cuda_softcap(struct m40_backend *be, const struct m40_softcap_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    struct softcap_args a = {
        .x = m40_cuda_ptr(args->x),
        .n = args->n,
        .scale = args->softcap > 0 ? args->scale / args->softcap : args->scale,
        .softcap = args->softcap,
    };

    return m40_cuda_launch(c, c->kernels.softcap, m40_cuda_div_up(args->n, M40_CUDA_MAX_THREADS), 1, 1, M40_CUDA_MAX_THREADS, &a, err);
}

m40llm_status m40_cuda_gather_rows(struct m40_backend *be, const struct m40_gather_rows_args *args, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const bool is_wide = is_aligned(args->x) && is_aligned(args->y) && args->n_cols % ELEMENTS_A_WORD == 0;
    const uint32_t n_words = is_wide ? args->n_cols / ELEMENTS_A_WORD : args->n_cols;
    struct gather_rows_args a = {
        .x = m40_cuda_ptr(args->x),
        .rows = m40_cuda_ptr(args->rows),
        .y = m40_cuda_ptr(args->y),
        .n_cols = args->n_cols,
        .is_wide = is_wide,
    };

    return m40_cuda_launch(c, c->kernels.gather_rows, args->n_rows, m40_cuda_div_up(n_words, M40_CUDA_MAX_THREADS), 1, M40_CUDA_MAX_THREADS, &a, err);
}

/* Rows in slices of as many as scratch memory can hold what is found of. */
m40llm_status m40_cuda_argmax(struct m40_backend *be, const struct m40_argmax_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    uint64_t n_room = c->scratch.partials.n_bytes / (2 * sizeof(float));
    uint32_t n_parts = min_u32(min_u32(n_room, ARGMAX_MAX_PARTS), m40_cuda_div_up(args->n_cols, ARGMAX_PART)), n_slice;
    struct argmax_args a = {
        .found = m40_cuda_ptr(c->scratch.partials.addr), .counters = m40_cuda_ptr(c->scratch.counters.addr), .n_cols = args->n_cols};

    M40_FAIL_IF(args->n_cols == 0, M40LLM_UNSUPPORTED, "argmax over rows of 0 columns");
    M40_FAIL_IF(args->n_rows > c->workload.n_tokens || args->n_cols > c->workload.n_rows, M40LLM_INVALID_ARGUMENT,
                "argmax of %u rows of %u is beyond the reserved %u of %u", args->n_rows, args->n_cols, c->workload.n_tokens, c->workload.n_rows);
    n_slice = min_u32(n_room / n_parts, M40_CUDA_N_COUNTERS);
    for (uint32_t first = 0; first < args->n_rows; first += n_slice) {
        a.x = m40_cuda_ptr(args->x + (uint64_t)first * args->n_cols * sizeof(float));
        a.ids = m40_cuda_ptr(args->ids + (uint64_t)first * sizeof(int32_t));
        M40_TRY(m40_cuda_launch(c, c->kernels.argmax, n_parts, min_u32(n_slice, args->n_rows - first), 1, M40_CUDA_MAX_THREADS, &a, err));
    }
fail:
    return status;
}
