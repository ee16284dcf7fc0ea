/* Qwen 3's mixtures: Qwen 3's attention; the weights of the chosen experts add up to 1, though no key says so. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_MIXTURE, M40_SLOTS_QKV_BIAS(true), M40_SLOTS_QK_NORM};

const struct m40_arch m40_arch_qwen3moe = {
    .rope_style = M40_ROPE_NEOX,
    .normalises_experts = true,
    .mixture_slots = slots,
    .n_mixture_slots = sizeof slots / sizeof *slots,
};
