/* Qwen 1.5's and 2's mixtures: biases on q, k and v; beside the chosen experts, whose weights are those among all, one that every token goes to, with a gate of its own. */
#include "model/model_arch.h"

/* clang-format off */
static const struct m40_weight_slot slots[] = {
    M40_SLOTS_MIXTURE,
    M40_LAYER_MATRIX("ffn_gate_inp_shexp.weight", ONE, EMBD, shared_gate),
    M40_LAYER_MATRIX("ffn_gate_shexp.weight", FF, EMBD, gate),
    M40_LAYER_MATRIX("ffn_up_shexp.weight", FF, EMBD, up),
    M40_LAYER_MATRIX("ffn_down_shexp.weight", EMBD, FF, down),
    M40_SLOTS_QKV_BIAS(false),
};
/* clang-format on */

const struct m40_arch m40_arch_qwen2moe = {
    .rope_style = M40_ROPE_NEOX,
    .has_qkv_bias = true,
    .has_shared_expert = true,
    .mixture_slots = slots,
    .n_mixture_slots = sizeof slots / sizeof *slots,
};
