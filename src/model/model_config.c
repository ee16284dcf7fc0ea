/* Metadata to validated hyper-parameters. Whatever sizes an allocation later is bounded here, so that no product of two of them overflows 64 bits. */
#include "model/model_arch.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_LAYERS = 1024,
    MAX_DIM = 1 << 20,
    MAX_HEADS = 4096, /* MAX_HEADS * MAX_HEAD_DIM = MAX_DIM */
    MAX_HEAD_DIM = 256,
    MAX_VOCAB = 1 << 24,
    MAX_CTX = 1 << 24,
};

/* What one call of m40_model_config_read works on. */
struct reader {
    const struct m40_gguf *gguf;
    struct m40_model_config *config;
    m40llm_error *err;
    char key[128]; /* the key that was looked up last, in full */
};

static const struct m40_gguf_kv *find(struct reader *r, const char *key)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->config->architecture, key);
    return m40_gguf_find_kv(r->gguf, r->key);
}

/* An integer key in [min, max]; where it is absent, *out stays what it is if may_lack. */
static m40llm_status read_u32(struct reader *r, const char *key, bool may_lack, uint32_t min, uint32_t max, uint32_t *out)
{
    const struct m40_gguf_kv *kv = find(r, key);
    uint64_t value;

    if (!kv && may_lack)
        return M40LLM_OK;
    if (!kv)
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is missing", r->key);
    if (!m40_gguf_kv_u64(kv, &value))
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is not a whole number >= 0", r->key);
    if (value < min || value > max)
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is %llu, expected %u to %u", r->key, (unsigned long long)value, min, max);
    *out = (uint32_t)value;
    return M40LLM_OK;
}

/* The same for a real number; NaN is outside every range. */
static m40llm_status read_f64(struct reader *r, const char *key, bool may_lack, double min, double max, double *out)
{
    const struct m40_gguf_kv *kv = find(r, key);
    double value;

    if (!kv && may_lack)
        return M40LLM_OK;
    if (!kv)
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is missing", r->key);
    if (!m40_gguf_kv_f64(kv, &value))
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is not a number", r->key);
    if (!(value >= min && value <= max))
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is %g, expected %g to %g", r->key, value, min, max);
    *out = value;
    return M40LLM_OK;
}

/* Copies a string value, cut to the buffer at a character's border, control bytes made visible. */
static void copy_text(struct m40_str text, char *out, size_t capacity)
{
    size_t n = text.n_bytes < capacity ? text.n_bytes : capacity - 1;

    while (n < text.n_bytes && n > 0 && ((unsigned char)text.data[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f ? '?' : text.data[i];
    out[n] = 0;
}

static m40llm_status read_architecture(struct reader *r, const struct m40_arch **out_arch)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(r->gguf, "general.architecture");
    struct m40_str text = {"", 0};

    M40_FAIL_IF(!kv, M40LLM_BAD_MODEL, "metadata key general.architecture is missing");
    M40_FAIL_IF(!m40_gguf_kv_string(kv, &text), M40LLM_BAD_MODEL, "metadata key general.architecture is not a string");
    copy_text(text, r->config->architecture, sizeof r->config->architecture);
    *out_arch = m40_arch_find(r->config->architecture);
    M40_FAIL_IF(!*out_arch, M40LLM_UNSUPPORTED, "architecture \"%s\" is not supported (known: %s)", r->config->architecture, m40_arch_names());
    kv = m40_gguf_find_kv(r->gguf, "general.name");
    if (kv && m40_gguf_kv_string(kv, &text))
        copy_text(text, r->config->name, sizeof r->config->name);
fail:
    return status;
}

static m40llm_status read_heads(struct reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    uint32_t value_dim;

    M40_TRY(read_u32(r, "attention.head_count", false, 1, MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    M40_TRY(read_u32(r, "attention.head_count_kv", true, 1, MAX_HEADS, &c->n_kv_heads));
    M40_FAIL_IF(c->n_heads % c->n_kv_heads, M40LLM_BAD_MODEL, "%s.attention.head_count is %u, not divisible by attention.head_count_kv, which is %u",
                c->architecture, c->n_heads, c->n_kv_heads);
    if (!find(r, "attention.key_length"))
        M40_FAIL_IF(c->n_embd % c->n_heads, M40LLM_BAD_MODEL, "%s.embedding_length is %u, not divisible by attention.head_count, which is %u",
                    c->architecture, c->n_embd, c->n_heads);
    c->head_dim = c->n_embd / c->n_heads;
    M40_TRY(read_u32(r, "attention.key_length", true, 1, MAX_DIM, &c->head_dim));
    value_dim = c->head_dim;
    M40_TRY(read_u32(r, "attention.value_length", true, 1, MAX_DIM, &value_dim));
    M40_FAIL_IF(value_dim != c->head_dim, M40LLM_UNSUPPORTED,
                "%s.attention.key_length is %u and value_length %u; heads of two sizes are not supported", c->architecture, c->head_dim, value_dim);
    M40_FAIL_IF(c->head_dim % 8 || c->head_dim > MAX_HEAD_DIM, M40LLM_UNSUPPORTED,
                "heads of %u elements are not supported: expected a multiple of 8, at most %d", c->head_dim, MAX_HEAD_DIM);
fail:
    return status;
}

static m40llm_status read_rope_scaling(struct reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const struct m40_gguf_kv *kv = find(r, "rope.scaling.type");
    struct m40_str type = m40_str_from("linear"); /* what a factor alone means */
    char text[32];

    M40_FAIL_IF(kv && !m40_gguf_kv_string(kv, &type), M40LLM_BAD_MODEL, "metadata key %s is not a string", r->key);
    r->config->rope_scale = 1.0;
    if (m40_str_equal(type, m40_str_from("none")))
        return M40LLM_OK;
    copy_text(type, text, sizeof text);
    M40_FAIL_IF(!m40_str_equal(type, m40_str_from("linear")), M40LLM_UNSUPPORTED, "%s \"%s\" is not supported (known: none, linear)", r->key, text);
    if (find(r, "rope.scaling.factor"))
        return read_f64(r, "rope.scaling.factor", false, 0.5, 1e6, &r->config->rope_scale);
    return read_f64(r, "rope.scale_linear", true, 0.5, 1e6, &r->config->rope_scale);
fail:
    return status;
}

/* rope_freqs.weight: one divisor for each pair (Llama 3.1 and later). */
static m40llm_status read_rope_divisors(struct reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const struct m40_gguf_tensor *t = m40_gguf_find_tensor(r->gguf, "rope_freqs.weight");
    const float *divisors;

    if (!t)
        return M40LLM_OK;
    M40_FAIL_IF(t->type->number != M40_DTYPE_F32, M40LLM_BAD_MODEL, "tensor rope_freqs.weight has type %s, expected f32", t->type->name);
    M40_FAIL_IF(t->n_elements != r->config->n_rot / 2, M40LLM_BAD_MODEL,
                "tensor rope_freqs.weight has %llu elements, expected %u (rope.dimension_count / 2)", (unsigned long long)t->n_elements,
                r->config->n_rot / 2);
    M40_FAIL_IF((uintptr_t)t->data % sizeof(float), M40LLM_BAD_MODEL, "tensor rope_freqs.weight does not lie at a multiple of 4 bytes");
    divisors = (const float *)(const void *)t->data;
    for (uint32_t i = 0; i < r->config->n_rot / 2; i++)
        M40_FAIL_IF(!(divisors[i] >= 0.5f && divisors[i] <= 3.4e38f), M40LLM_BAD_MODEL,
                    "tensor rope_freqs.weight has %g at element %u, expected 0.5 or more", (double)divisors[i], i);
    r->config->rope_freq_divisors = divisors;
fail:
    return status;
}

static m40llm_status read_rope(struct reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;

    c->rope_base = 10000.0;
    M40_TRY(read_f64(r, "rope.freq_base", true, 1.0, 1e15, &c->rope_base));
    c->n_rot = c->head_dim;
    M40_TRY(read_u32(r, "rope.dimension_count", true, 2, c->head_dim, &c->n_rot));
    M40_FAIL_IF(c->n_rot % 2, M40LLM_BAD_MODEL, "%s.rope.dimension_count is %u, expected an even number", c->architecture, c->n_rot);
    M40_TRY(read_rope_scaling(r));
    M40_TRY(read_rope_divisors(r));
fail:
    return status;
}

/* Features that change the result and that the forward pass does not have. */
static m40llm_status refuse_unsupported(struct reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    const struct m40_gguf_kv *kv;
    uint32_t n_experts = 0, window = 0;
    bool is_causal = true;

    M40_TRY(read_u32(r, "expert_count", true, 0, UINT32_MAX, &n_experts));
    M40_FAIL_IF(n_experts > 0, M40LLM_UNSUPPORTED, "%s is %u: mixtures of experts are not supported", r->key, n_experts);
    M40_TRY(read_u32(r, "attention.sliding_window", true, 0, UINT32_MAX, &window));
    M40_FAIL_IF(window > 0 && window < c->n_ctx_train, M40LLM_UNSUPPORTED,
                "%s is %u, less than context_length, which is %u: sliding-window attention is not supported", r->key, window, c->n_ctx_train);
    kv = find(r, "attention.causal");
    M40_FAIL_IF(kv && !m40_gguf_kv_bool(kv, &is_causal), M40LLM_BAD_MODEL, "metadata key %s is not a bool", r->key);
    M40_FAIL_IF(!is_causal, M40LLM_UNSUPPORTED, "%s is false: only causal attention is supported", r->key);
fail:
    return status;
}

/* The embedding has one row a token; the tokenizer, where there is one, must agree. */
static m40llm_status read_vocab(struct reader *r)
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
    struct reader r = {.gguf = gguf, .config = &config, .err = err};
    const struct m40_arch *arch = NULL;
    double norm_eps;

    memset(out, 0, sizeof *out);
    M40_TRY(read_architecture(&r, &arch));
    M40_TRY(read_u32(&r, "block_count", false, 1, MAX_LAYERS, &config.n_layers));
    M40_TRY(read_u32(&r, "context_length", false, 1, MAX_CTX, &config.n_ctx_train));
    M40_TRY(read_u32(&r, "embedding_length", false, 1, MAX_DIM, &config.n_embd));
    M40_TRY(refuse_unsupported(&r));
    M40_TRY(read_u32(&r, "feed_forward_length", false, 1, MAX_DIM, &config.n_ff));
    M40_TRY(read_heads(&r));
    M40_TRY(read_f64(&r, "attention.layer_norm_rms_epsilon", false, 1e-30, 1.0, &norm_eps));
    config.norm_eps = (float)norm_eps;
    M40_TRY(read_rope(&r));
    M40_TRY(read_vocab(&r));
    config.rope_style = arch->rope_style;
    config.has_qk_norm = arch->has_qk_norm;
    config.has_qkv_bias = arch->has_qkv_bias || m40_gguf_find_tensor(gguf, "blk.0.attn_q.bias");
    *out = config;
fail:
    return status;
}
