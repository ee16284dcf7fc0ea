/* gpt-oss: biases everywhere, a sink for each head, a window in every second layer, YaRN, and experts with a SwiGLU of their own. The norm behind attention is the one that the experts read. */
#include "model/model_arch.h"

/* clang-format off */
static const struct m40_weight_slot slots[] = {
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),
    M40_SLOTS_ATTENTION,
    M40_SLOTS_QKV_BIAS(false),
    M40_LAYER_VECTOR("attn_output.bias", EMBD, false, attn_out_bias),
    M40_LAYER_VECTOR("attn_sinks.weight", HEADS, false, sinks),
    M40_LAYER_VECTOR("post_attention_norm.weight", EMBD, false, ffn_norm),
    M40_SLOTS_EXPERTS,
    M40_LAYER_VECTOR("ffn_gate_inp.bias", EXPERTS, false, router_bias),
    M40_LAYER_VECTORS("ffn_gate_exps.bias", EXPERTS, EXPERT_FF, gate_exps_bias),
    M40_LAYER_VECTORS("ffn_up_exps.bias", EXPERTS, EXPERT_FF, up_exps_bias),
    M40_LAYER_VECTORS("ffn_down_exps.bias", EXPERTS, EMBD, down_exps_bias),
};
/* clang-format on */

const struct m40_arch m40_arch_gpt_oss = {
    .rope_style = M40_ROPE_NEOX,
    .has_qkv_bias = true,
    .has_exact_yarn = true,
    .act = {.act = M40_ACT_SWIGLU_OAI, .alpha = 1.702f, .limit = 7.0f},
    .window_period = 2,
    .normalises_experts = true,
    .mixture_slots = slots,
    .n_mixture_slots = sizeof slots / sizeof *slots,
};
