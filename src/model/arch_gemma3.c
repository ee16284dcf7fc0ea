/* Gemma 3, its text: norms of q and k and behind both halves of a layer; five layers of six have a window and RoPE with a base of their own. */
#include "model/model_arch.h"

static const struct m40_weight_slot slots[] = {M40_SLOTS_DENSE, M40_SLOTS_QK_NORM, M40_SLOTS_POST_NORMS};

const struct m40_arch m40_arch_gemma3 = {
    .rope_style = M40_ROPE_NEOX,
    .scales_embedding = true,
    .act = {.act = M40_ACT_GELU_TANH},
    .wide_layers = 62, /* 27B */
    .window_period = 6,
    .local_rope_base = 10000.0,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
