/* Gemma 2: norms behind both halves of a layer too, soft-caps, every other layer with a window. Converters have added 1 to the norms' weights. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_POST_NORMS};

const struct m40_arch m40_arch_gemma2 = {
    .rope_style = M40_ROPE_NEOX,
    .scales_embedding = true,
    .act = {.act = M40_ACT_GELU_TANH},
    .attn_softcap = 50.0f,
    .logit_softcap = 30.0f,
    .wide_layers = 46, /* 27B */
    .window = 4096,
    .window_period = 2,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
