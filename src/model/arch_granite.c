/* Granite 3: a Llama with factors of embeddings, scores, logits, and of what a half adds to the residual stream. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QKV_BIAS(true)};

const struct m40_arch m40_arch_granite = {
    .rope_style = M40_ROPE_NORM,
    .has_multipliers = true,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
