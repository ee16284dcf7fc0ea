/* One matmul instead of two or three: matrices of a layer that read the same input, on top of each other. */
#include "model/model_weights.h"

#include "base/log.h"

enum { MAX_PARTS = 3 };

#define FIELD(name) offsetof(struct m40_layer_weights, name)

static const struct stack {
    size_t stacked, parts[MAX_PARTS]; /* fields of struct m40_layer_weights */
    size_t biases[MAX_PARTS];         /* 0: none has one */
    uint32_t n_parts;
    bool is_interleaved;
} stacks[] = {
    {FIELD(qkv), {FIELD(q), FIELD(k), FIELD(v)}, {FIELD(q_bias), FIELD(k_bias), FIELD(v_bias)}, 3, false},
    {FIELD(gate_up), {FIELD(gate), FIELD(up)}, {0}, 2, false},
    {FIELD(gate_up_exps), {FIELD(gate_exps), FIELD(up_exps)}, {0}, 2, true},
};

/* The layer's weight for a field, or NULL. */
static const struct m40_weight *find(const struct m40_weight *weights, size_t n, size_t field)
{
    for (size_t i = 0; i < n; i++)
        if (weights[i].slot->offset_bytes == field)
            return &weights[i];
    return NULL;
}

/* Whether the parts, which are set, go on top of each other. */
static bool can_stack(const struct stack *s, const struct m40_weight *weights, size_t n, const struct m40_weight **parts)
{
    uint32_t n_biases = 0;

    for (uint32_t i = 0; i < s->n_parts; i++) {
        parts[i] = find(weights, n, s->parts[i]);
        if (!parts[i] || parts[i]->tensor->type != parts[0]->tensor->type || parts[i]->tensor->dims[0] != parts[0]->tensor->dims[0] ||
            ((i + 1 < s->n_parts || s->is_interleaved) && parts[i]->tensor->dims[1] % M40_STACK_ROWS))
            return false;
        n_biases += s->biases[i] && find(weights, n, s->biases[i]);
    }
    return n_biases == 0 || n_biases == s->n_parts;
}

static m40llm_status upload_stack(const struct m40_model *model, const struct stack *s, const struct m40_weight *const *weights,
                                  struct m40_layer_weights *layer, m40llm_error *err)
{
    struct m40_matrix_part parts[MAX_PARTS];
    struct m40_matrix *out;
    const struct m40_gguf_tensor *first = weights[0]->tensor;
    struct m40_backend *be = model->backend;

    for (uint32_t i = 0; i < s->n_parts; i++)
        parts[i] =
            (struct m40_matrix_part){weights[i]->tensor->data, weights[i]->tensor->dims[1] * weights[i]->tensor->dims[2], model->gguf->maps != NULL};
    out = (struct m40_matrix *)(void *)((char *)layer + s->stacked);
    if (s->is_interleaved)
        return be->ops.matrix_create_interleaved(be, m40_format(first->type->number), first->dims[0], parts, out, err);
    return be->ops.matrix_create_stacked(be, m40_format(first->type->number), first->dims[0], parts, s->n_parts, out, err);
}

m40llm_status m40_model_upload_stacks(struct m40_model *model, struct m40_layer_weights *layer, const struct m40_weight *weights, size_t n,
                                      bool *is_done, m40llm_error *err)
{
    struct m40_backend *be = model->backend;
    const struct m40_weight *parts[MAX_PARTS];

    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++) {
        m40llm_status status;

        if (!be->ops.matrix_create_stacked || !can_stack(&stacks[i], weights, n, parts))
            continue;
        status = upload_stack(model, &stacks[i], parts, layer, err);
        if (status == M40LLM_UNSUPPORTED) { /* more rows than one may have */
            m40_log(&be->logger, M40LLM_LOG_DEBUG, "matrices of a layer stay apart: %s", err ? err->text : m40llm_status_text(status));
            continue;
        }
        if (status != M40LLM_OK)
            return status;
        for (uint32_t k = 0; k < stacks[i].n_parts; k++)
            is_done[parts[k] - weights] = true;
    }
    return M40LLM_OK;
}

m40llm_status m40_model_stack_biases(struct m40_model *model, struct m40_layer_weights *l, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = model->backend;
    uint64_t q_bytes = 4 * (uint64_t)model->config.n_heads * model->config.head_dim,
             kv_bytes = 4 * (uint64_t)model->config.n_kv_heads * model->config.head_dim;

    if (!l->qkv.n_rows || !l->q_bias || l->qkv_bias)
        return M40LLM_OK;
    M40_TRY(be->ops.alloc(be, q_bytes + 2 * kv_bytes, &l->qkv_bias, err));
    model->vectors[model->n_vectors++] = l->qkv_bias;
    M40_TRY(be->ops.copy(be, l->qkv_bias, l->q_bias, q_bytes, err));
    M40_TRY(be->ops.copy(be, l->qkv_bias + q_bytes, l->k_bias, kv_bytes, err));
    M40_TRY(be->ops.copy(be, l->qkv_bias + q_bytes + kv_bytes, l->v_bias, kv_bytes, err));
fail:
    return status;
}
