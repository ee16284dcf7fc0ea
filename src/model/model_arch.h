/* What differs between architecture families, as data: one small file each (arch_NAME.c) and one line in M40_ARCH_MAP. The forward pass itself is written once,
 * in forward.c, and asks no family's name. */
#ifndef M40_MODEL_MODEL_ARCH_H
#define M40_MODEL_MODEL_ARCH_H

#include "model/model.h"

#include <stddef.h>

/* The sizes that tensors are made of; m40_arch_dim gives their values. */
enum m40_dim {
    M40_DIM_ONE,
    M40_DIM_EMBD,  /* n_embd */
    M40_DIM_FF,    /* n_ff */
    M40_DIM_VOCAB, /* n_vocab */
    M40_DIM_Q,     /* n_heads * head_dim */
    M40_DIM_KV,    /* n_kv_heads * head_dim */
    M40_DIM_HEAD,  /* head_dim */
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
    size_t offset_bytes; /* of the field */
};

#define M40_LAYER_MATRIX(name, rows, cols, field)                                                                                                    \
    {                                                                                                                                                \
        name, M40_SLOT_MATRIX, false, M40_DIM_##rows, M40_DIM_##cols, offsetof(struct m40_layer_weights, field)                                      \
    }
#define M40_LAYER_VECTOR(name, cols, is_optional, field)                                                                                             \
    {                                                                                                                                                \
        name, M40_SLOT_VECTOR, is_optional, M40_DIM_ONE, M40_DIM_##cols, offsetof(struct m40_layer_weights, field)                                   \
    }

/* Slots that every family with RMS norms, grouped attention and a gated feed-forward shares. */
/* clang-format off */
#define M40_SLOTS_DENSE                                                    \
    M40_LAYER_VECTOR("attn_norm.weight", EMBD, false, attn_norm),          \
    M40_LAYER_MATRIX("attn_q.weight", Q, EMBD, q),                         \
    M40_LAYER_MATRIX("attn_k.weight", KV, EMBD, k),                        \
    M40_LAYER_MATRIX("attn_v.weight", KV, EMBD, v),                        \
    M40_LAYER_MATRIX("attn_output.weight", EMBD, Q, attn_out),             \
    M40_LAYER_VECTOR("ffn_norm.weight", EMBD, false, ffn_norm),            \
    M40_LAYER_MATRIX("ffn_gate.weight", FF, EMBD, gate),                   \
    M40_LAYER_MATRIX("ffn_up.weight", FF, EMBD, up),                       \
    M40_LAYER_MATRIX("ffn_down.weight", EMBD, FF, down)
#define M40_SLOTS_QKV_BIAS(is_optional)                                    \
    M40_LAYER_VECTOR("attn_q.bias", Q, is_optional, q_bias),               \
    M40_LAYER_VECTOR("attn_k.bias", KV, is_optional, k_bias),              \
    M40_LAYER_VECTOR("attn_v.bias", KV, is_optional, v_bias)
#define M40_SLOTS_QK_NORM                                                  \
    M40_LAYER_VECTOR("attn_q_norm.weight", HEAD, false, q_norm),           \
    M40_LAYER_VECTOR("attn_k_norm.weight", HEAD, false, k_norm)
/* clang-format on */

struct m40_arch {
    const char *name; /* general.architecture */
    enum m40_rope_style rope_style;
    bool has_qkv_bias; /* must have; where they are optional the file decides */
    bool has_qk_norm;
    const struct m40_weight_slot *layer_slots;
    size_t n_layer_slots;
};

/* Every family: NAME is defined by arch_NAME.c as m40_arch_NAME. */
#define M40_ARCH_MAP(X)                                                                                                                              \
    X(llama)                                                                                                                                         \
    X(qwen2)                                                                                                                                         \
    X(qwen3)

#define M40_ARCH_DECLARE(name) extern const struct m40_arch m40_arch_##name;
M40_ARCH_MAP(M40_ARCH_DECLARE)
#undef M40_ARCH_DECLARE

/* NULL: no such family. */
const struct m40_arch *m40_arch_find(const char *name);
/* "llama, qwen2, qwen3" */
const char *m40_arch_names(void);

uint64_t m40_arch_dim(const struct m40_model_config *config, enum m40_dim dim);

#endif
