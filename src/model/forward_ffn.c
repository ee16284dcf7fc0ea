/* The second half of a layer, where it is dense: gate and up, their activation, down, and what that adds to the residual stream. */
#include "model/forward_step.h"

m40llm_status m40_step_gate_up(const struct m40_step *s, const struct m40_layer_weights *w, m40_addr x)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    struct m40_backend *be = f->backend;
    const struct m40_model_config *c = &f->model->config;
    uint32_t n = s->rows.n_tokens;
    struct m40_glu_args glu = {.gate = f->gate, .up = f->up, .y = f->act, .n_rows = n, .n_cols = c->n_ff, .stride = c->n_ff, .act = c->act};

    if (w->gate_up.n_rows) {
        M40_TRY(m40_step_matmul(s, &w->gate_up, x, 0, 0, f->gate, n));
        glu.up = f->gate + 4 * (uint64_t)c->n_ff;
        glu.stride = 2 * c->n_ff;
    } else {
        M40_TRY(m40_step_matmul(s, &w->gate, x, 0, 0, f->gate, n));
        M40_TRY(m40_step_matmul(s, &w->up, x, 0, 0, f->up, n));
    }
    M40_TRY(be->ops.glu(be, &glu, err));
fail:
    return status;
}

/* The same of the residual stream's norm. */
static m40llm_status norm_gate_up(const struct m40_step *s, const struct m40_layer_weights *w)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    struct m40_backend *be = f->backend;
    const struct m40_model_config *c = &f->model->config;
    uint32_t n = s->rows.n_tokens;
    struct m40_rms_norm_args norm = {.x = f->x, .y = f->normed, .weight = w->ffn_norm, .n_rows = n, .n_cols = c->n_embd, .eps = c->norm_eps};
    struct m40_matmul_args both = {.w = &w->gate_up, .x = f->normed, .y = f->gate, .n_tokens = n};
    m40_addr x;

    if (w->gate_up.n_rows && w->ffn_norm && be->ops.norm_glu)
        return be->ops.norm_glu(be, &norm, &both, &c->act, f->act, err);
    M40_TRY(m40_step_input(s, w->ffn_norm, &x));
    M40_TRY(m40_step_gate_up(s, w, x));
fail:
    return status;
}

m40llm_status m40_step_feed_forward(const struct m40_step *s, uint32_t layer)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = s->f;
    const struct m40_layer_weights *w = &f->model->layers[layer];

    M40_TRY(norm_gate_up(s, w));
    M40_TRY(m40_step_add(s, &w->down, f->act, 0, w->ffn_post_norm));
fail:
    return status;
}
