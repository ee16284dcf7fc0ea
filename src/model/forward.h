/* What the parts of the forward pass share: forward_memory.c makes and frees the buffers, forward.c runs steps in them. */
#ifndef M40_MODEL_FORWARD_H
#define M40_MODEL_FORWARD_H

#include "model/model.h"

/* Where a mixture of experts has what it writes, in bytes from the beginning of `work`. */
struct m40_mixture_places {
    uint64_t logits;              /* [n_tokens][n_experts] */
    uint64_t ids, weights;        /* [n_tokens][n_used] */
    uint64_t plan;                /* route's notes */
    uint64_t shared, shared_gate; /* [n_tokens][n_embd], [n_tokens] */
    uint64_t gate, up, act;       /* [n_tokens][n_used][n_expert_ff]; gate and up share their memory with out */
    uint64_t out;                 /* [n_tokens][n_used][n_embd] */
    uint64_t n_bytes;             /* of all */
};

/* For steps of n_tokens (forward_moe.c). */
void m40_mixture_places(struct m40_mixture_places *out, const struct m40_model_config *config, uint32_t n_tokens);

/* Everything that a step writes, allocated once. Buffers that are never alive together share memory. */
struct m40_forward {
    struct m40_model *model;
    struct m40_backend *backend;
    struct m40_forward_limits limits;
    bool is_lane; /* cache and tables are another's; the backend is its own */

    struct m40_kv_layer *kv; /* [n_layers], in kv_pool */
    m40_addr kv_pool;
    m40_addr rope_table;       /* [n_slot_pages * 32][n_rot / 2][2] */
    m40_addr local_rope_table; /* likewise, where the model has one; else 0 */
    m40_addr q_rope_table;     /* instead of rope_table for q, where the model has a temperature; else 0 */

    m40_addr x;        /* [n_tokens][n_embd]: the residual stream */
    m40_addr normed;   /* [n_tokens][n_embd]; at the end of a step the rows whose logits, or all whose hidden states are wanted */
    m40_addr work;     /* q, k, v, attn in the first half of a layer; gate, up, act in the second */
    m40_addr q;        /* [n_tokens][n_heads][head_dim]; or with k and v in one row: [n_tokens][q, k, v] */
    m40_addr k, v;     /* [n_tokens][n_kv_heads][head_dim] */
    m40_addr attn;     /* [n_tokens][n_heads][head_dim] */
    m40_addr gate, up; /* [n_tokens][n_ff]; or gate with up in one row: [n_tokens][gate, up] */
    m40_addr act;      /* [n_tokens][n_ff] */
    struct m40_mixture_places mixture;
    m40_addr logits; /* [n_logits][n_vocab] */
    m40_addr tokens; /* int32 [n_logits], behind them */

    /* What a step takes, on the host as it is on the device: ids, pos, slot, logit rows ([n_tokens] each), how to sample (m40_sample_row [n_logits]), then pages [n_slots][n_slot_pages]. One
     * upload a step. */
    int32_t *staging;
    m40_addr inputs;
    int32_t *last_pos; /* [n_slots]: the batch's last position of a slot, -1: none */
};

/* Sizes in bytes of all buffers. */
struct m40_forward_sizes {
    uint64_t kv_layer, kv_pool, rope_table, x, work, logits, inputs;
    struct m40_workload workload;
};

/* UINT64_MAX stands for whatever is larger. */
void m40_forward_sizes(struct m40_forward_sizes *out, const struct m40_model_config *config, const struct m40_forward_limits *limits);

static inline uint64_t m40_kv_element_bytes(m40llm_kv_type type)
{
    return type == M40LLM_KV_F16 ? 2 : 4;
}

#endif
