/* Phi 3, 3.5 and 4: q, k and v are one tensor, gate and up another. The window, where a file has one, is every layer's. */
#include "model/model_arch.h"

/* clang-format off */
static const struct m40_weight_slot slots[] = {
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),
    M40_LAYER_MATRIX("attn_qkv.weight", QKV, EMBD, qkv),
    M40_LAYER_VECTOR("attn_qkv.bias", QKV, true, qkv_bias),
    M40_LAYER_MATRIX("attn_output.weight", EMBD, Q, attn_out),
    M40_LAYER_VECTOR("ffn_norm.weight", EMBD, false, ffn_norm),
    M40_LAYER_MATRIX("ffn_up.weight", FF_2, EMBD, gate_up),
    M40_LAYER_MATRIX("ffn_down.weight", EMBD, FF, down),
};
/* clang-format on */

const struct m40_arch m40_arch_phi3 = {
    .rope_style = M40_ROPE_NEOX,
    .window_period = 1,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
