/* The hyper-parameters of mixtures of experts. */
#include "model/config_reader.h"

enum { MAX_EXPERT_FF = 1 << 20 };
enum { GATING_NONE = 0, GATING_SOFTMAX = 1, GATING_SIGMOID = 2 }; /* expert_gating_func, as GGUF has it */

static m40llm_status read_counts(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    uint32_t n_dense = 0;

    M40_FAIL_IF(!r->arch->mixture_slots, M40LLM_UNSUPPORTED, "%s is %u: mixtures of experts are not known of this architecture", r->key,
                c->n_experts);
    M40_FAIL_IF(c->n_experts > M40_MAX_EXPERTS, M40LLM_UNSUPPORTED, "%s is %u, expected at most %d", r->key, c->n_experts, M40_MAX_EXPERTS);
    M40_TRY(m40_config_u32(r, "expert_used_count", false, 1, c->n_experts, &c->n_used));
    M40_FAIL_IF(c->n_used > M40_MAX_EXPERTS_USED, M40LLM_UNSUPPORTED, "%s is %u, expected at most %d", r->key, c->n_used, M40_MAX_EXPERTS_USED);
    M40_TRY(m40_config_u32(r, "leading_dense_block_count", true, 0, UINT32_MAX, &n_dense));
    M40_FAIL_IF(n_dense > 0, M40LLM_UNSUPPORTED, "%s is %u: dense layers before the mixtures are not supported", r->key, n_dense);
    M40_FAIL_IF(!m40_gguf_find_tensor(r->gguf, "blk.0.ffn_gate_exps.weight") && m40_gguf_find_tensor(r->gguf, "blk.0.ffn_gate.0.weight"),
                M40LLM_UNSUPPORTED, "tensor blk.0.ffn_gate.0.weight is of one expert, as old converters wrote them: convert the model anew");
fail:
    return status;
}

/* n_ff, which is what feed_forward_length says, becomes the shared expert's. */
static m40llm_status read_sizes(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;

    c->n_expert_ff = c->n_ff;
    c->has_shared_expert = r->arch->has_shared_expert;
    M40_TRY(m40_config_u32(r, "expert_feed_forward_length", true, 1, MAX_EXPERT_FF, &c->n_expert_ff));
    M40_FAIL_IF(c->n_expert_ff % M40_STACK_ROWS || c->n_embd % M40_STACK_ROWS, M40LLM_UNSUPPORTED,
                "experts of %u x %u are not supported: expected multiples of %d", c->n_expert_ff, c->n_embd, M40_STACK_ROWS);
    if (c->has_shared_expert)
        M40_TRY(m40_config_u32(r, "expert_shared_feed_forward_length", true, 1, MAX_EXPERT_FF, &c->n_ff));
    else
        c->n_ff = c->n_expert_ff;
fail:
    return status;
}

static m40llm_status read_gating(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model_config *c = r->config;
    uint32_t gating = GATING_NONE;
    double scale = 1.0;

    M40_TRY(m40_config_u32(r, "expert_gating_func", true, GATING_NONE, GATING_SIGMOID, &gating));
    c->gating = gating == GATING_SIGMOID ? M40_GATING_SIGMOID : M40_GATING_SOFTMAX;
    c->normalises_experts = r->arch->normalises_experts;
    M40_TRY(m40_config_bool(r, "expert_weights_norm", true, &c->normalises_experts));
    M40_TRY(m40_config_f64(r, "expert_weights_scale", true, 0, 1e6, &scale));
    c->expert_scale = scale == 0 ? 1.0f : (float)scale; /* 0: some converters' "none" */
fail:
    return status;
}

m40llm_status m40_config_read_experts(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model_config *c = r->config;

    M40_TRY(m40_config_u32(r, "expert_count", r->arch->layer_slots != NULL, r->arch->layer_slots ? 0 : 1, UINT32_MAX, &c->n_experts));
    if (c->n_experts == 0)
        return M40LLM_OK;
    M40_TRY(read_counts(r));
    M40_TRY(read_sizes(r));
    M40_TRY(read_gating(r));
fail:
    return status;
}
