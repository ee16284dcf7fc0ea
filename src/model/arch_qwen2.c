/* Qwen 1.5, 2 and 2.5: biases on q, k and v. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QKV_BIAS(false)};

const struct m40_arch m40_arch_qwen2 = {
    .rope_style = M40_ROPE_NEOX,
    .has_qkv_bias = true,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
