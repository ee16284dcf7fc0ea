/* What differs between architecture families, as data: one small file each (arch_NAME.c) and one line in M40_ARCH_MAP. The forward pass itself is written once,
 * in forward.c, and asks no family's name. */
#ifndef M40_MODEL_MODEL_ARCH_H
#define M40_MODEL_MODEL_ARCH_H

#include "model/model.h"

#include <stddef.h>

/* The sizes that tensors are made of; m40_arch_dim gives their values. */
enum m40_dim {
    M40_DIM_ONE,
    M40_DIM_EMBD,      /* n_embd */
    M40_DIM_FF,        /* n_ff */
    M40_DIM_VOCAB,     /* n_vocab */
    M40_DIM_Q,         /* n_heads * head_dim */
    M40_DIM_KV,        /* n_kv_heads * head_dim */
    M40_DIM_HEAD,      /* head_dim */
    M40_DIM_HEADS,     /* n_heads */
    M40_DIM_QKV,       /* q, k and v as one */
    M40_DIM_FF_2,      /* gate and up as one */
    M40_DIM_EXPERTS,   /* n_experts */
    M40_DIM_EXPERT_FF, /* n_expert_ff */
};

enum m40_slot_kind {
    M40_SLOT_MATRIX, /* struct m40_matrix, in the file's format */
    M40_SLOT_VECTOR, /* m40_addr of F32 */
};

/* A place in struct m40_layer_weights (or struct m40_model) and the tensor that fills it. */
struct m40_weight_slot {
    const char *name; /* in the file; of a layer's tensors what follows "blk.N." */
    enum m40_slot_kind kind;
    bool is_optional; /* in every layer or in none */
    enum m40_dim rows, cols;
    enum m40_dim count;  /* M40_DIM_EXPERTS: so many matrices in one tensor; else M40_DIM_ONE */
    size_t offset_bytes; /* of the field */
};

#define M40_LAYER_MATRIX(name, rows, cols, field)                                                                                                    \
    {                                                                                                                                                \
        name, M40_SLOT_MATRIX, false, M40_DIM_##rows, M40_DIM_##cols, M40_DIM_ONE, offsetof(struct m40_layer_weights, field)                         \
    }
#define M40_LAYER_EXPERTS(name, rows, cols, field)                                                                                                   \
    {                                                                                                                                                \
        name, M40_SLOT_MATRIX, false, M40_DIM_##rows, M40_DIM_##cols, M40_DIM_EXPERTS, offsetof(struct m40_layer_weights, field)                     \
    }
#define M40_LAYER_VECTOR(name, cols, is_optional, field)                                                                                             \
    {                                                                                                                                                \
        name, M40_SLOT_VECTOR, is_optional, M40_DIM_ONE, M40_DIM_##cols, M40_DIM_ONE, offsetof(struct m40_layer_weights, field)                      \
    }
/* As many vectors as rows. */
#define M40_LAYER_VECTORS(name, rows, cols, field)                                                                                                   \
    {                                                                                                                                                \
        name, M40_SLOT_VECTOR, false, M40_DIM_##rows, M40_DIM_##cols, M40_DIM_ONE, offsetof(struct m40_layer_weights, field)                         \
    }

/* Slots that families share: a row of norms, projections, biases. In the order of the forward pass, which is the order of loading. */
/* clang-format off */
#define M40_SLOTS_ATTENTION                                                \
    M40_LAYER_MATRIX("attn_q.weight", Q, EMBD, q),                         \
    M40_LAYER_MATRIX("attn_k.weight", KV, EMBD, k),                        \
    M40_LAYER_MATRIX("attn_v.weight", KV, EMBD, v),                        \
    M40_LAYER_MATRIX("attn_output.weight", EMBD, Q, attn_out)
#define M40_SLOTS_FFN                                                      \
    M40_LAYER_MATRIX("ffn_gate.weight", FF, EMBD, gate),                   \
    M40_LAYER_MATRIX("ffn_up.weight", FF, EMBD, up),                       \
    M40_LAYER_MATRIX("ffn_down.weight", EMBD, FF, down)
#define M40_SLOTS_DENSE                                                    \
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),          \
    M40_SLOTS_ATTENTION,                                                   \
    M40_LAYER_VECTOR("ffn_norm.weight", EMBD, false, ffn_norm),            \
    M40_SLOTS_FFN
#define M40_SLOTS_EXPERTS                                                  \
    M40_LAYER_MATRIX("ffn_gate_inp.weight", EXPERTS, EMBD, router),        \
    M40_LAYER_EXPERTS("ffn_gate_exps.weight", EXPERT_FF, EMBD, gate_exps), \
    M40_LAYER_EXPERTS("ffn_up_exps.weight", EXPERT_FF, EMBD, up_exps),     \
    M40_LAYER_EXPERTS("ffn_down_exps.weight", EMBD, EXPERT_FF, down_exps)
#define M40_SLOTS_MIXTURE                                                  \
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),          \
    M40_SLOTS_ATTENTION,                                                   \
    M40_LAYER_VECTOR("ffn_norm.weight", EMBD, false, ffn_norm),            \
    M40_SLOTS_EXPERTS
#define M40_SLOTS_POST_NORMS                                               \
    M40_LAYER_VECTOR("post_attention_norm.weight", EMBD, false, attn_post_norm), \
    M40_LAYER_VECTOR("post_ffw_norm.weight", EMBD, false, ffn_post_norm)
#define M40_SLOTS_QKV_BIAS(is_optional)                                    \
    M40_LAYER_VECTOR("attn_q.bias", Q, is_optional, q_bias),               \
    M40_LAYER_VECTOR("attn_k.bias", KV, is_optional, k_bias),              \
    M40_LAYER_VECTOR("attn_v.bias", KV, is_optional, v_bias)
#define M40_SLOTS_QK_NORM                                                  \
    M40_LAYER_VECTOR("attn_q_norm.weight", HEAD, false, q_norm),           \
    M40_LAYER_VECTOR("attn_k_norm.weight", HEAD, false, k_norm)
/* clang-format on */

/* What is 0 or false, the family does not have. */
struct m40_arch {
    enum m40_rope_style rope_style;
    bool has_qkv_bias; /* must have; where they are optional the file decides */
    bool has_row_qk_norm;
    bool scales_embedding; /* by sqrt(n_embd) */
    bool has_multipliers;  /* keys embedding_scale, residual_scale and logit_scale (a divisor) */
    bool has_exact_yarn;   /* the ramp's ends are not rounded to whole pairs */
    struct m40_act_params act;
    float attn_softcap, logit_softcap; /* where the file says nothing */
    uint32_t wide_layers;              /* the family's model of so many layers scales scores by (n_embd / n_heads)^-0.5 instead of head_dim^-0.5 */
    uint32_t window;                   /* where the file says nothing */
    uint32_t window_period;            /* all layers but every window_period-th have the window; 1: all have it */
    double local_rope_base;            /* of layers with a window, where the file says nothing; without it they rotate as the others do */
    bool has_unscaled_local_rope;      /* layers with a window have the others' base, without its scaling */
    uint32_t no_rope_period;           /* every no_rope_period-th layer is not rotated */
    const struct m40_weight_slot *layer_slots; /* NULL: there are only mixtures of it */
    size_t n_layer_slots;
    /* mixtures of experts, where the file has expert_count: */
    const struct m40_weight_slot *mixture_slots; /* NULL: there are none of it */
    size_t n_mixture_slots;
    bool normalises_experts; /* where the file says nothing: the weights of a token's experts add up to 1 */
    bool has_shared_expert;  /* that every token goes to */
};

/* Every value of general.architecture that is known, and its family: m40_arch_FAMILY is defined by arch_FAMILY.c. */
#define M40_ARCH_MAP(X)                                                                                                                              \
    X("llama", llama)                                                                                                                                \
    X("qwen2", qwen2)                                                                                                                                \
    X("qwen3", qwen3)                                                                                                                                \
    X("gemma2", gemma2)                                                                                                                              \
    X("gemma3", gemma3)                                                                                                                              \
    X("phi3", phi3)                                                                                                                                  \
    X("granite", granite)                                                                                                                            \
    X("smollm3", smollm3)                                                                                                                            \
    X("olmo2", olmo2)                                                                                                                                \
    X("mistral3", llama)                                                                                                                             \
    X("qwen2moe", qwen2moe)                                                                                                                          \
    X("qwen3moe", qwen3moe)                                                                                                                          \
    X("gpt-oss", gpt_oss)

#define M40_ARCH_DECLARE(name, family) extern const struct m40_arch m40_arch_##family;
M40_ARCH_MAP(M40_ARCH_DECLARE)
#undef M40_ARCH_DECLARE

/* NULL: no such family. */
const struct m40_arch *m40_arch_find(const char *name);
/* "llama, qwen2, ..." */
const char *m40_arch_names(void);

uint64_t m40_arch_dim(const struct m40_model_config *config, enum m40_dim dim);

#endif
