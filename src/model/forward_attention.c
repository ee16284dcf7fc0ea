/* The first half of a layer: projections, norms of q and k, rotation, the cache, attention, and what it adds to the residual stream. */
#include "model/forward_step.h"

/* q, k and v, and where they are: in rows of their own, or in one row a token. The addresses of args, and its strides, are set. */
static m40llm_status project(const struct m40_step *s, const struct m40_layer_weights *w, struct m40_rope_append_args *args)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = s->f;
    const struct m40_model_config *c = &f->model->config;
    uint32_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim, n = s->rows.n_tokens;
    m40_addr x;

    args->q = f->q;
    if (w->qkv.n_rows) {
        args->k = f->q + 4 * (uint64_t)q_dim;
        args->v = args->k + 4 * (uint64_t)kv_dim;
        args->q_stride = args->kv_stride = q_dim + 2 * kv_dim;
        return m40_step_norm_matmul(s, f->x, w->attn_norm, &w->qkv, w->qkv_bias, f->q, n);
    }
    M40_TRY(m40_step_input(s, w->attn_norm, &x));
    args->k = f->k;
    args->v = f->v;
    args->q_stride = q_dim;
    args->kv_stride = kv_dim;
    M40_TRY(m40_step_matmul(s, &w->q, x, w->q_bias, 0, f->q, n));
    M40_TRY(m40_step_matmul(s, &w->k, x, w->k_bias, 0, f->k, n));
    M40_TRY(m40_step_matmul(s, &w->v, x, w->v_bias, 0, f->v, n));
fail:
    return status;
}

/* Norms of a token's whole q and k, in place. */
static m40llm_status norm_rows(const struct m40_step *s, const struct m40_layer_weights *w, const struct m40_rope_append_args *args)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_backend *be = s->f->backend;
    const struct m40_model_config *c = &s->f->model->config;
    struct m40_rms_norm_args norm = {.x = args->q,
                                     .y = args->q,
                                     .weight = w->q_norm,
                                     .n_rows = s->rows.n_tokens,
                                     .n_cols = c->n_heads * c->head_dim,
                                     .stride = args->q_stride,
                                     .eps = c->norm_eps};

    M40_TRY(be->ops.rms_norm(be, &norm, err));
    norm.x = norm.y = args->k;
    norm.weight = w->k_norm;
    norm.n_cols = c->n_kv_heads * c->head_dim;
    norm.stride = args->kv_stride;
    M40_TRY(be->ops.rms_norm(be, &norm, err));
fail:
    return status;
}

/* Rotation, and k and v into the cache. */
static m40llm_status append(const struct m40_step *s, uint32_t layer, struct m40_rope_append_args *args)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    const struct m40_model_config *c = &f->model->config;
    const struct m40_layer_weights *w = &f->model->layers[layer];
    bool is_local = c->has_local_rope && m40_layer_has(c, layer, M40_LAYER_WINDOW);

    args->kv = &f->kv[layer];
    args->rows = &s->rows;
    args->norm_eps = c->norm_eps;
    args->table = is_local ? f->local_rope_table : f->rope_table;
    args->q_table = is_local ? 0 : f->q_rope_table;
    args->n_heads = c->n_heads;
    args->n_rot = m40_layer_has(c, layer, M40_LAYER_NO_ROPE) ? 0 : c->rope.n_rot;
    args->style = c->rope_style;
    if (c->has_row_qk_norm) {
        M40_TRY(norm_rows(s, w, args));
    } else {
        args->q_norm = w->q_norm;
        args->k_norm = w->k_norm;
    }
    M40_TRY(f->backend->ops.rope_append(f->backend, args, err));
fail:
    return status;
}

m40llm_status m40_step_attention(const struct m40_step *s, uint32_t layer)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    const struct m40_model_config *c = &f->model->config;
    const struct m40_layer_weights *w = &f->model->layers[layer];
    struct m40_rope_append_args turn = {0};
    struct m40_attention_args attention = {.kv = &f->kv[layer],
                                           .rows = &s->rows,
                                           .q = f->q,
                                           .y = f->attn,
                                           .n_heads = c->n_heads,
                                           .window = m40_layer_window(c, layer),
                                           .scale = c->attn_scale,
                                           .softcap = c->attn_softcap,
                                           .sinks = w->sinks};

    M40_TRY(project(s, w, &turn));
    M40_TRY(append(s, layer, &turn));
    attention.q_stride = turn.q_stride;
    M40_TRY(f->backend->ops.attention(f->backend, &attention, err));
    M40_TRY(m40_step_add(s, &w->attn_out, f->attn, w->attn_out_bias, w->attn_post_norm));
fail:
    return status;
}
