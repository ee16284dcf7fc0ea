/* A loaded model: hyper-parameters, weights on a backend, and the forward pass. One small file per architecture family describes what differs (model_arch.h). */
#ifndef M40_MODEL_MODEL_H
#define M40_MODEL_MODEL_H

#include "backend/backend.h"
#include "gguf/gguf.h"
#include "model/rope.h"

enum { M40_MAX_LAYERS = 1024 };

/* What sets a layer apart from its neighbours. */
enum m40_layer_flag {
    M40_LAYER_WINDOW = 1,  /* attention sees the last `window` positions only */
    M40_LAYER_NO_ROPE = 2, /* q and k are not rotated */
};

/* Validated hyper-parameters: everything that the forward pass is told about a family. */
struct m40_model_config {
    char architecture[32]; /* general.architecture */
    char name[96];
    uint32_t n_layers, n_embd, n_ff, n_vocab;
    uint32_t n_heads, n_kv_heads, head_dim; /* n_heads % n_kv_heads == 0; head_dim % 8 == 0, <= 256 */
    uint32_t n_ctx_train;
    float norm_eps;
    bool has_qkv_bias;    /* tensors attn_{q,k,v}.bias exist (qwen2: must; other families: some files) */
    bool has_row_qk_norm; /* attn_{q,k}_norm.weight is for a token's whole q or k, not for each head of it */
    bool is_tied;         /* no output.weight: the embedding serves */
    struct m40_act_params act;
    /* mixtures of experts; n_ff is then the shared expert's, or, where there is none, the others': */
    uint32_t n_experts, n_used, n_expert_ff; /* n_experts 0: dense; n_used: by a token */
    enum m40_gating gating;
    bool normalises_experts, has_shared_expert;
    float expert_scale;
    float embed_scale;                 /* that embeddings are multiplied by; 1: none */
    float logit_scale;                 /* logits likewise */
    float attn_scale;                  /* scores likewise */
    float attn_softcap, logit_softcap; /* of scores and of logits; 0: none */
    uint32_t window;                   /* of layers with M40_LAYER_WINDOW */
    uint8_t layer_flags[M40_MAX_LAYERS];
    enum m40_rope_style rope_style;
    struct m40_rope rope;
    bool has_local_rope; /* layers with a window rotate by local_rope */
    struct m40_rope local_rope;
};

static inline bool m40_layer_has(const struct m40_model_config *config, uint32_t layer, enum m40_layer_flag flag)
{
    return config->layer_flags[layer] & flag;
}

/* Positions that the layer's attention sees; 0: all. */
static inline uint32_t m40_layer_window(const struct m40_model_config *config, uint32_t layer)
{
    return m40_layer_has(config, layer, M40_LAYER_WINDOW) ? config->window : 0;
}

/* Reads and validates. UNSUPPORTED: an architecture or a rope scaling that is not known (with the list of those that are); BAD_MODEL: a key is missing or contradicts
 * another; the text names the key, what was found and what was expected. */
m40llm_status m40_model_config_read(struct m40_model_config *out, const struct m40_gguf *gguf, m40llm_error *err);

struct m40_layer_weights {
    m40_addr attn_norm, ffn_norm;           /* [n_embd]: of what a half reads; 0: none */
    m40_addr attn_post_norm, ffn_post_norm; /* [n_embd]: of what a half adds to the residual stream; 0: none */
    struct m40_matrix qkv; /* q, k and v as one, where the file has them so or the backend stacks them and they are of one type; zeroed otherwise */
    m40_addr qkv_bias;     /* theirs as one */
    struct m40_matrix q, k, v;       /* [n_heads * head_dim][n_embd], [n_kv_heads * head_dim][n_embd]; zeroed where qkv is there */
    m40_addr q_bias, k_bias, v_bias; /* 0: none */
    m40_addr q_norm, k_norm;         /* [head_dim], or with has_row_qk_norm [n_heads * head_dim], [n_kv_heads * head_dim]; 0: none */
    m40_addr sinks;                  /* [n_heads]; 0: none */
    struct m40_matrix attn_out;      /* [n_embd][n_heads * head_dim] */
    m40_addr attn_out_bias;          /* [n_embd]; 0: none */
    struct m40_matrix gate_up;       /* gate and up as one, as qkv */
    struct m40_matrix gate, up;      /* [n_ff][n_embd]; zeroed where gate_up is there */
    struct m40_matrix down;          /* [n_embd][n_ff] */
    /* mixtures of experts; what a dense layer has is the shared expert's: */
    struct m40_matrix router;                              /* [n_experts][n_embd] */
    m40_addr router_bias;                                  /* [n_experts]; 0: none */
    struct m40_matrix gate_up_exps;                        /* gate and up of each expert as one, interleaved */
    struct m40_matrix gate_exps, up_exps;                  /* [n_experts][n_expert_ff][n_embd]; zeroed where gate_up_exps is there */
    struct m40_matrix down_exps;                           /* [n_experts][n_embd][n_expert_ff] */
    m40_addr gate_exps_bias, up_exps_bias, down_exps_bias; /* [n_experts][rows]; 0: none */
    struct m40_matrix shared_gate;                         /* [1][n_embd]; zeroed: none */
};

struct m40_model {
    struct m40_model_config config;
    struct m40_backend *backend; /* not owned */
    const struct m40_gguf *gguf; /* not owned; the CPU backend reads weights in it */
    struct m40_matrix embedding; /* [n_vocab][n_embd] */
    struct m40_matrix output;    /* [n_vocab][n_embd]; with is_tied a copy of `embedding`'s descriptor, not owned */
    m40_addr output_norm;
    struct m40_layer_weights *layers; /* [n_layers] */
    m40_addr *vectors;                /* every vector allocation, for close */
    size_t n_vectors;
    uint64_t weight_bytes; /* device memory of all weights (CPU: the file's bytes used) */
};

/* Checks every tensor (name, shape, type; the error names the tensor, what was found and what was expected), then uploads. `progress` in bytes of the file. OUT_OF_DEVICE_MEMORY comes
 * before anything is uploaded when the sum is known not to fit, and says what would. */
m40llm_status m40_model_open(struct m40_model **out, const struct m40_gguf *gguf, struct m40_backend *backend, m40llm_progress_fn progress,
                             void *user, m40llm_error *err);
void m40_model_close(struct m40_model **model);

/* Public summary of a file without loading it; kv_type for kv_bytes_per_token. */
m40llm_status m40_model_describe(const struct m40_gguf *gguf, m40llm_kv_type kv_type, m40llm_model_info *out, m40llm_error *err);

/* Device memory that the file's weights take on a card. */
m40llm_status m40_model_device_bytes(const struct m40_gguf *gguf, uint64_t *out_bytes, m40llm_error *err);

/* The KV cache and the activations of a forward pass, on the model's backend. */
struct m40_forward;

struct m40_forward_limits {
    uint32_t n_tokens;     /* rows in one step */
    uint32_t n_logits;     /* rows of logits in one step, <= n_tokens */
    uint32_t n_slots;      /* sequences */
    uint32_t n_slot_pages; /* pages a sequence may have: n_ctx / 32 rounded up */
    uint32_t n_pages;      /* pages in the pool */
    m40llm_kv_type kv_type;
};

/* One step: n_tokens rows of any sequences, prefill and decode alike. Rows of one sequence have ascending positions without gaps, and its earlier positions are in the cache. */
struct m40_batch {
    uint32_t n_tokens;
    const int32_t *ids, *pos, *slot; /* [n_tokens] */
    uint32_t n_logits;
    const int32_t *logit_rows; /* [n_logits]: rows of the batch whose logits are wanted, ascending */
    const int32_t *pages;      /* [n_slots][n_slot_pages]: page ids; entries beyond what a sequence uses are not read */
    bool wants_hidden;         /* m40_forward_read_hidden will be called */
};

m40llm_status m40_forward_open(struct m40_forward **out, struct m40_model *model, const struct m40_forward_limits *limits, m40llm_error *err);
void m40_forward_close(struct m40_forward **forward);

/* Device bytes that m40_forward_open will take: KV cache, and everything else (activations, rope table, scratch). */
void m40_forward_memory(const struct m40_model_config *config, const struct m40_forward_limits *limits, uint64_t *kv_bytes, uint64_t *other_bytes);

/* Runs the step and waits. logits: [n_logits][n_vocab] floats, caller's memory (may be NULL when n_logits is 0). */
m40llm_status m40_forward_step(struct m40_forward *forward, const struct m40_batch *batch, float *logits, m40llm_error *err);

/* A forward pass over the same KV cache that runs beside the first one, on a lane of its backend, and is closed before it. For steps of n_tokens rows that want no logits: the other functions for steps do not
 * take it. UNSUPPORTED: the backend has no lanes. */
m40llm_status m40_forward_open_lane(struct m40_forward **out, const struct m40_forward *forward, uint32_t n_tokens, m40llm_error *err);
/* Device bytes that it takes. */
uint64_t m40_forward_lane_memory(const struct m40_model_config *config, const struct m40_forward_limits *limits, uint32_t n_tokens);
/* Issues a step of a lane; returns at once. Until it is done nobody else may use the pages that it writes. */
m40llm_status m40_forward_lane_issue(struct m40_forward *lane, const struct m40_batch *batch, m40llm_error *err);
/* Whether what was issued is done; wait: it is, unless it fails. */
m40llm_status m40_forward_lane_is_done(struct m40_forward *lane, bool wait, bool *out, m40llm_error *err);

/* As m40_forward_step, but of each row of logits only the likeliest token comes back, in ids [n_logits]: the lowest of several, never a NaN's (as m40_sampler_choose has it at temperature 0). */
m40llm_status m40_forward_step_greedy(struct m40_forward *forward, const struct m40_batch *batch, int32_t *ids, m40llm_error *err);

struct m40_sample_row;

/* As m40_forward_step, but only a token comes back of each row of logits, in ids [n_logits]: chosen by the backend with params [n_logits] ("sample" of docs/numerics.md). */
m40llm_status m40_forward_step_sample(struct m40_forward *forward, const struct m40_batch *batch, const struct m40_sample_row *params, int32_t *ids,
                                      m40llm_error *err);

/* Rows first .. first + n - 1 (n >= 1) of the logits of the step before, whatever came back of it: [n][n_vocab]. */
m40llm_status m40_forward_read_logits(struct m40_forward *forward, uint32_t first, uint32_t n, float *logits, m40llm_error *err);

/* Hidden states behind the last norm, which the output matrix makes logits of: of rows first .. first + n - 1 (n >= 1) of the step before, whose batch had wants_hidden: [n][n_embd]. */
m40llm_status m40_forward_read_hidden(struct m40_forward *forward, uint32_t first, uint32_t n, float *hidden, m40llm_error *err);

/* Debug: K and V of one token, widened to FP32: [n_kv_heads][head_dim] each. */
m40llm_status m40_forward_read_kv(struct m40_forward *forward, uint32_t layer, uint32_t page, uint32_t token_in_page, float *k, float *v,
                                  m40llm_error *err);

#endif
