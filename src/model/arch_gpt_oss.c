/* gpt-oss, as far as its attention: sinks, biases, every other layer with a window, YaRN whose ramp ends between pairs, as its authors have it. */
#include "model/model_arch.h"

/* clang-format off */
static const struct m40_weight_slot slots[] = {
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),
    M40_SLOTS_ATTENTION,
    M40_SLOTS_QKV_BIAS(false),
    M40_LAYER_VECTOR("attn_output.bias", EMBD, false, attn_out_bias),
    M40_LAYER_VECTOR("attn_sinks.weight", HEADS, false, sinks),
    M40_LAYER_VECTOR("post_attention_norm.weight", EMBD, false, ffn_norm),
};
/* clang-format on */

const struct m40_arch m40_arch_gpt_oss = {
    .rope_style = M40_ROPE_NEOX,
    .has_qkv_bias = true,
    .has_exact_yarn = true,
    .act = {M40_ACT_SWIGLU_OAI, 1.702f, 7.0f},
    .window_period = 2,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
