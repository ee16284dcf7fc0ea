/* Qwen 3: every head of q and k is normalised before rope. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QKV_BIAS(true), M40_SLOTS_QK_NORM};

const struct m40_arch m40_arch_qwen3 = {
    .rope_style = M40_ROPE_NEOX,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
