/* SmolLM 3: a Llama of which every fourth layer does not rotate. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QKV_BIAS(true)};

const struct m40_arch m40_arch_smollm3 = {
    .rope_style = M40_ROPE_NORM,
    .no_rope_period = 4,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
