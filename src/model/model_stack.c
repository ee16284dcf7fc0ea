/* One matmul instead of two or three: matrices that read the same input, on top of each other. */
#include "model/model_weights.h"

#include "base/log.h"

static bool can_stack(const struct m40_backend *be, struct m40_matrix *const *parts, uint32_t n)
{
    if (!be->ops.matrix_stack)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (parts[i]->format != parts[0]->format || parts[i]->n_cols != parts[0]->n_cols || (i + 1 < n && parts[i]->n_rows % M40_STACK_ROWS))
            return false;
    return true;
}

/* Leaves the parts as they are where there is no memory to move them, or too many rows. */
static m40llm_status stack(struct m40_model *model, struct m40_matrix *const *parts, uint32_t n, struct m40_matrix *out, m40llm_error *err)
{
    struct m40_backend *be = model->backend;
    m40llm_status status = be->ops.matrix_stack(be, parts, n, out, err);

    if (status != M40LLM_OUT_OF_DEVICE_MEMORY && status != M40LLM_UNSUPPORTED)
        return status;
    m40_log(&be->logger, M40LLM_LOG_DEBUG, "matrices of a layer stay apart: %s", err ? err->text : m40llm_status_text(status));
    return M40LLM_OK;
}

static m40llm_status stack_biases(struct m40_model *model, struct m40_layer_weights *l, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = model->backend;
    uint64_t q_bytes = 4 * (uint64_t)model->config.n_heads * model->config.head_dim,
             kv_bytes = 4 * (uint64_t)model->config.n_kv_heads * model->config.head_dim;

    M40_TRY(be->ops.alloc(be, q_bytes + 2 * kv_bytes, &l->qkv_bias, err));
    model->vectors[model->n_vectors++] = l->qkv_bias;
    M40_TRY(be->ops.copy(be, l->qkv_bias, l->q_bias, q_bytes, err));
    M40_TRY(be->ops.copy(be, l->qkv_bias + q_bytes, l->k_bias, kv_bytes, err));
    M40_TRY(be->ops.copy(be, l->qkv_bias + q_bytes + kv_bytes, l->v_bias, kv_bytes, err));
fail:
    return status;
}

m40llm_status m40_model_stack_layer(struct m40_model *model, struct m40_layer_weights *l, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix *const qkv[] = {&l->q, &l->k, &l->v}, *const gate_up[] = {&l->gate, &l->up};
    bool has_all = l->q_bias && l->k_bias && l->v_bias, has_none = !l->q_bias && !l->k_bias && !l->v_bias;

    if (can_stack(model->backend, qkv, 3) && (has_all || has_none)) {
        M40_TRY(stack(model, qkv, 3, &l->qkv, err));
        if (has_all && l->qkv.n_rows)
            M40_TRY(stack_biases(model, l, err));
    }
    if (can_stack(model->backend, gate_up, 2))
        M40_TRY(stack(model, gate_up, 2, &l->gate_up, err));
fail:
    return status;
}
