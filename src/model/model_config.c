/* Metadata to validated hyper-parameters. Whatever sizes an allocation later is bounded here, so that no product of two of them overflows 64 bits. */
#include "model/config_reader.h"

#include <math.h>
#include <string.h>

enum {
    MAX_DIM = 1 << 20,
    MAX_HEADS = 4096, /* MAX_HEADS * MAX_HEAD_DIM = MAX_DIM */
    MAX_HEAD_DIM = 256,
    MAX_VOCAB = 1 << 24,
    MAX_CTX = 1 << 24,
};

static m40llm_status read_architecture(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(r->gguf, "general.architecture");
    struct m40_str text = {"", 0};

    M40_FAIL_IF(!kv, M40LLM_BAD_MODEL, "metadata key general.architecture is missing");
    M40_FAIL_IF(!m40_gguf_kv_string(kv, &text), M40LLM_BAD_MODEL, "metadata key general.architecture is not a string");
    m40_config_copy_text(text, r->config->architecture, sizeof r->config->architecture);
    r->arch = m40_arch_find(r->config->architecture);
    M40_FAIL_IF(!r->arch, M40LLM_UNSUPPORTED, "architecture \"%s\" is not supported (known: %s)", r->config->architecture, m40_arch_names());
    kv = m40_gguf_find_kv(r->gguf, "general.name");
    if (kv && m40_gguf_kv_string(kv, &text))
        m40_config_copy_text(text, r->config->name, sizeof r->config->name);
fail:
    return status;
}

static m40llm_status read_heads(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    uint32_t value_dim;

    M40_TRY(m40_config_u32(r, "attention.head_count", false, 1, MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    M40_TRY(m40_config_u32(r, "attention.head_count_kv", true, 1, MAX_HEADS, &c->n_kv_heads));
    M40_FAIL_IF(c->n_heads % c->n_kv_heads, M40LLM_BAD_MODEL, "%s.attention.head_count is %u, not divisible by attention.head_count_kv, which is %u",
                c->architecture, c->n_heads, c->n_kv_heads);
    if (!m40_config_find(r, "attention.key_length"))
        M40_FAIL_IF(c->n_embd % c->n_heads, M40LLM_BAD_MODEL, "%s.embedding_length is %u, not divisible by attention.head_count, which is %u",
                    c->architecture, c->n_embd, c->n_heads);
    c->head_dim = c->n_embd / c->n_heads;
    M40_TRY(m40_config_u32(r, "attention.key_length", true, 1, MAX_DIM, &c->head_dim));
    value_dim = c->head_dim;
    M40_TRY(m40_config_u32(r, "attention.value_length", true, 1, MAX_DIM, &value_dim));
    M40_FAIL_IF(value_dim != c->head_dim, M40LLM_UNSUPPORTED,
                "%s.attention.key_length is %u and value_length %u; heads of two sizes are not supported", c->architecture, c->head_dim, value_dim);
    M40_FAIL_IF(c->head_dim % 8 || c->head_dim > MAX_HEAD_DIM, M40LLM_UNSUPPORTED,
                "heads of %u elements are not supported: expected a multiple of 8, at most %d", c->head_dim, MAX_HEAD_DIM);
fail:
    return status;
}

/* Features that change the result and that the forward pass does not have. */
static m40llm_status refuse_unsupported(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    bool is_causal = true;

    M40_TRY(m40_config_bool(r, "attention.causal", true, &is_causal));
    M40_FAIL_IF(!is_causal, M40LLM_UNSUPPORTED, "%s is false: only causal attention is supported", r->key);
fail:
    return status;
}

/* Which layers have the window, from a key of one bool a layer, or of the period, or the family's. */
static m40llm_status read_window_layers(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    const struct m40_gguf_kv *kv = m40_config_find(r, "attention.sliding_window_pattern");
    uint32_t period = r->arch->window_period == 1 ? 0 : r->arch->window_period; /* as the key has it: 0: all layers, 1: none */
    struct m40_gguf_cursor cursor = {0};
    double value;

    if (kv && kv->type == M40LLM_VALUE_ARRAY) {
        M40_FAIL_IF(kv->element_type != M40LLM_VALUE_BOOL || kv->n_elements != c->n_layers, M40LLM_BAD_MODEL,
                    "metadata key %s is not an array of %u bools", r->key, c->n_layers);
        for (uint32_t i = 0; m40_gguf_next_number(kv, &cursor, &value); i++)
            c->layer_flags[i] |= value != 0 ? M40_LAYER_WINDOW : 0;
        return M40LLM_OK;
    }
    M40_TRY(m40_config_u32(r, "attention.sliding_window_pattern", true, 0, M40_MAX_LAYERS, &period));
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layer_flags[i] |= period == 0 || i % period < period - 1 ? M40_LAYER_WINDOW : 0;
fail:
    return status;
}

/* What sets layers apart from their neighbours. */
static m40llm_status read_layers(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    uint32_t window = r->arch->window;

    for (uint32_t i = 0; r->arch->no_rope_period && i < c->n_layers; i++)
        c->layer_flags[i] |= (i + 1) % r->arch->no_rope_period == 0 ? M40_LAYER_NO_ROPE : 0;
    M40_TRY(m40_config_u32(r, "attention.sliding_window", true, 0, UINT32_MAX, &window));
    if (window > 0 && r->arch->window_period == 0) {
        M40_FAIL_IF(window < c->n_ctx_train, M40LLM_UNSUPPORTED,
                    "%s is %u, less than context_length, which is %u: sliding-window attention is not known of this architecture", r->key, window,
                    c->n_ctx_train);
        return M40LLM_OK;
    }
    c->window = window;
    if (window > 0)
        M40_TRY(read_window_layers(r));
fail:
    return status;
}

/* A factor that a family may have; 1 where the file says nothing. */
static m40llm_status read_multiplier(struct m40_config_reader *r, const char *key, double *out)
{
    *out = 1.0;
    return m40_config_f64(r, key, true, 1e-6, 1e6, out);
}

/* Factors of embeddings, scores, logits, and of what a layer's halves add to the residual stream. The last one needs no operation: a stream that is smaller by the factor from the embedding on, and
 * norms whose eps is smaller by its square, give the same. */
static m40llm_status read_scales(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    uint32_t score_dim = r->arch->wide_layers == c->n_layers ? c->n_embd / c->n_heads : c->head_dim;
    double embedding = r->arch->scales_embedding ? sqrt((double)c->n_embd) : 1.0, residual = 1.0, logit_divisor = 1.0, eps;
    double score = 1.0 / sqrt((double)score_dim), score_cap = r->arch->attn_softcap,
           logit_cap = r->arch->logit_softcap; /* exactly rounded operations */

    M40_FAIL_IF(score_dim == 0, M40LLM_BAD_MODEL, "%s.embedding_length is %u, less than attention.head_count, which is %u", c->architecture,
                c->n_embd, c->n_heads);
    M40_TRY(m40_config_f64(r, "attention.layer_norm_rms_epsilon", false, 1e-30, 1.0, &eps));
    M40_TRY(m40_config_f64(r, "attention.scale", true, 1e-6, 1e6, &score));
    M40_TRY(m40_config_f64(r, "attn_logit_softcapping", true, 0, 1e6, &score_cap));
    M40_TRY(m40_config_f64(r, "final_logit_softcapping", true, 0, 1e6, &logit_cap));
    if (r->arch->has_multipliers) {
        M40_TRY(read_multiplier(r, "embedding_scale", &embedding));
        M40_TRY(read_multiplier(r, "residual_scale", &residual));
        M40_TRY(read_multiplier(r, "logit_scale", &logit_divisor));
    }
    c->norm_eps = (float)(eps / (residual * residual));
    c->embed_scale = (float)(embedding / residual);
    c->attn_scale = (float)score;
    c->attn_softcap = (float)score_cap;
    c->logit_softcap = (float)logit_cap;
    c->logit_scale = (float)(1.0 / logit_divisor);
fail:
    return status;
}

/* The embedding has one row a token; the tokenizer, where there is one, must agree. */
static m40llm_status read_vocab(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const struct m40_gguf_tensor *t = m40_gguf_find_tensor(r->gguf, "token_embd.weight");
    const struct m40_gguf_kv *tokens = m40_gguf_find_kv(r->gguf, "tokenizer.ggml.tokens");

    M40_FAIL_IF(!t, M40LLM_BAD_MODEL, "tensor token_embd.weight is missing%s",
                r->gguf->n_tensors ? "" : ": the file has no tensors, a vocabulary at most");
    M40_FAIL_IF(t->dims[1] < 1 || t->dims[1] > MAX_VOCAB, M40LLM_BAD_MODEL, "tensor token_embd.weight has %llu rows, expected 1 to %d",
                (unsigned long long)t->dims[1], MAX_VOCAB);
    r->config->n_vocab = (uint32_t)t->dims[1];
    M40_FAIL_IF(tokens && tokens->n_elements != r->config->n_vocab, M40LLM_BAD_MODEL,
                "tensor token_embd.weight has %u rows, but the tokenizer has %llu tokens", r->config->n_vocab,
                (unsigned long long)tokens->n_elements);
    r->config->is_tied = !m40_gguf_find_tensor(r->gguf, "output.weight");
fail:
    return status;
}

m40llm_status m40_model_config_read(struct m40_model_config *out, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model_config config = {0};
    struct m40_config_reader r = {.gguf = gguf, .config = &config, .err = err};

    memset(out, 0, sizeof *out);
    M40_TRY(read_architecture(&r));
    M40_TRY(m40_config_u32(&r, "block_count", false, 1, M40_MAX_LAYERS, &config.n_layers));
    M40_TRY(m40_config_u32(&r, "context_length", false, 1, MAX_CTX, &config.n_ctx_train));
    M40_TRY(m40_config_u32(&r, "embedding_length", false, 1, MAX_DIM, &config.n_embd));
    M40_TRY(refuse_unsupported(&r));
    M40_TRY(m40_config_u32(&r, "feed_forward_length", false, 1, MAX_DIM, &config.n_ff));
    M40_TRY(m40_config_read_experts(&r));
    M40_TRY(read_heads(&r));
    M40_TRY(read_scales(&r));
    M40_TRY(read_layers(&r));
    M40_TRY(m40_config_read_rope(&r));
    M40_TRY(read_vocab(&r));
    config.act = r.arch->act;
    config.has_row_qk_norm = r.arch->has_row_qk_norm;
    config.has_qkv_bias = r.arch->has_qkv_bias || m40_gguf_find_tensor(gguf, "blk.0.attn_q.bias");
    *out = config;
fail:
    return status;
}
