/* OLMo 2 and 3: norms behind the halves of a layer instead of in front of them, and of a token's whole q and k. In OLMo 3 three layers of four have a window, and rotate without scaling. */
#include "model/model_arch.h"

/* clang-format off */
static const struct m40_weight_slot slots[] = {
    M40_SLOTS_ATTENTION,
    M40_LAYER_VECTOR("attn_q_norm.weight", Q, false, q_norm),
    M40_LAYER_VECTOR("attn_k_norm.weight", KV, false, k_norm),
    M40_SLOTS_FFN,
    M40_SLOTS_POST_NORMS,
};
/* clang-format on */

const struct m40_arch m40_arch_olmo2 = {
    .rope_style = M40_ROPE_NEOX,
    .has_row_qk_norm = true,
    .window_period = 4,
    .has_unscaled_local_rope = true,
    .layer_slots = slots,
    .n_layer_slots = sizeof slots / sizeof *slots,
};
