/* Llama 1 to 3.x and the many that copy it, Mistral among them, and Mixtral. Converters interleave the rows of q and k, hence NORM rope. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QKV_BIAS(true)};
static const struct m40_weight_slot mixture_slots[] = {M40_SLOTS_MIXTURE, M40_SLOTS_QKV_BIAS(true)};

const struct m40_arch m40_arch_llama = {
    .rope_style = M40_ROPE_NORM,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
    .normalises_experts = true,
    .mixture_slots = mixture_slots,
    .n_mixture_slots = sizeof mixture_slots / sizeof *mixture_slots,
};
