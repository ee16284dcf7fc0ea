#include "model/forward_step.h"

m40llm_status m40_step_norm(const struct m40_step *s, m40_addr x, m40_addr weight, m40_addr residual, m40_addr y, uint32_t n_rows)
{
    const struct m40_model_config *c = &s->f->model->config;
    struct m40_rms_norm_args args = {
        .x = x, .y = y, .weight = weight, .residual = residual, .n_rows = n_rows, .n_cols = c->n_embd, .eps = c->norm_eps};

    return s->f->backend->ops.rms_norm(s->f->backend, &args, s->err);
}

m40llm_status m40_step_matmul(const struct m40_step *s, const struct m40_matrix *w, m40_addr x, m40_addr bias, m40_addr residual, m40_addr y,
                              uint32_t n_rows)
{
    struct m40_matmul_args args = {.w = w, .x = x, .bias = bias, .residual = residual, .y = y, .n_tokens = n_rows};

    return s->f->backend->ops.matmul(s->f->backend, &args, s->err);
}

m40llm_status m40_step_norm_matmul(const struct m40_step *s, m40_addr x, m40_addr weight, const struct m40_matrix *w, m40_addr bias, m40_addr y,
                                   uint32_t n_rows)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    const struct m40_model_config *c = &f->model->config;
    struct m40_rms_norm_args norm = {.x = x, .y = f->normed, .weight = weight, .n_rows = n_rows, .n_cols = c->n_embd, .eps = c->norm_eps};
    struct m40_matmul_args args = {.w = w, .x = f->normed, .bias = bias, .y = y, .n_tokens = n_rows};

    if (!weight)
        return m40_step_matmul(s, w, x, bias, 0, y, n_rows);
    if (f->backend->ops.norm_matmul)
        return f->backend->ops.norm_matmul(f->backend, &norm, &args, err);
    M40_TRY(f->backend->ops.rms_norm(f->backend, &norm, err));
    M40_TRY(f->backend->ops.matmul(f->backend, &args, err));
fail:
    return status;
}

m40llm_status m40_step_input(const struct m40_step *s, m40_addr weight, m40_addr *out)
{
    struct m40_forward *f = s->f;

    *out = weight ? f->normed : f->x;
    return weight ? m40_step_norm(s, f->x, weight, 0, f->normed, s->rows.n_tokens) : M40LLM_OK;
}

m40llm_status m40_step_add(const struct m40_step *s, const struct m40_matrix *w, m40_addr x, m40_addr bias, m40_addr post_norm)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = s->f;
    uint32_t n = s->rows.n_tokens;

    if (!post_norm)
        return m40_step_matmul(s, w, x, bias, f->x, f->x, n);
    M40_TRY(m40_step_matmul(s, w, x, bias, 0, f->normed, n));
    M40_TRY(m40_step_norm(s, f->normed, post_norm, f->x, f->x, n));
fail:
    return status;
}
