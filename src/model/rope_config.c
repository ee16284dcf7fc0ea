/* Every variant of RoPE that files ask for, read into one struct m40_rope. Base, factors and divisors are bounded, so that all angles are within what rope_table.c computes. */
#include "model/config_reader.h"

#include <string.h>

static const double max_factor = 1e6;

static m40llm_status check_divisors(struct m40_config_reader *r, const struct m40_gguf_tensor *t, const char *name, uint32_t n)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    const float *divisors;

    M40_FAIL_IF(t->type->number != M40_DTYPE_F32, M40LLM_BAD_MODEL, "tensor %s has type %s, expected f32", name, t->type->name);
    M40_FAIL_IF(t->n_elements != n, M40LLM_BAD_MODEL, "tensor %s has %llu elements, expected %u (rope.dimension_count / 2)", name,
                (unsigned long long)t->n_elements, n);
    M40_FAIL_IF((uintptr_t)t->data % sizeof(float), M40LLM_BAD_MODEL, "tensor %s does not lie at a multiple of 4 bytes", name);
    divisors = (const float *)(const void *)t->data;
    for (uint32_t i = 0; i < n; i++)
        M40_FAIL_IF(!(divisors[i] >= 0.5f && divisors[i] <= 3.4e38f), M40LLM_BAD_MODEL, "tensor %s has %g at element %u, expected 0.5 or more", name,
                    (double)divisors[i], i);
fail:
    return status;
}

/* A tensor of one divisor for each pair; *out stays NULL where there is none. */
static m40llm_status read_divisors(struct m40_config_reader *r, const char *name, const float **out)
{
    const struct m40_gguf_tensor *t = m40_gguf_find_tensor(r->gguf, name);
    m40llm_status status = M40LLM_OK;

    if (!t)
        return M40LLM_OK;
    M40_TRY(check_divisors(r, t, name, r->config->rope.n_rot / 2));
    *out = (const float *)(const void *)t->data;
fail:
    return status;
}

/* rope_freqs.weight (Llama 3.1 and later), or a set of divisors for short contexts and one for long ones (LongRoPE: Phi-3). */
static m40llm_status read_all_divisors(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_rope *rope = &r->config->rope;
    const float *short_divisors = NULL;

    M40_TRY(read_divisors(r, "rope_freqs.weight", &rope->divisors));
    M40_TRY(read_divisors(r, "rope_factors_short.weight", &short_divisors));
    M40_TRY(read_divisors(r, "rope_factors_long.weight", &rope->long_divisors));
    M40_FAIL_IF(!short_divisors != !rope->long_divisors, M40LLM_BAD_MODEL, "tensor rope_factors_%s.weight is missing",
                short_divisors ? "long" : "short");
    M40_FAIL_IF(short_divisors && rope->divisors, M40LLM_BAD_MODEL, "tensors rope_freqs.weight and rope_factors_short.weight contradict each other");
    if (short_divisors)
        rope->divisors = short_divisors;
fail:
    return status;
}

static m40llm_status read_yarn(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_rope *rope = &r->config->rope;
    double beta_fast = 32.0, beta_slow = 1.0, extrapolation = 1.0, multiplier = 0.0;

    M40_TRY(m40_config_f64(r, "rope.scaling.factor", false, 1.0, max_factor, &rope->factor));
    M40_TRY(m40_config_f64(r, "rope.scaling.yarn_beta_slow", true, 1e-3, 1e3, &beta_slow));
    M40_TRY(m40_config_f64(r, "rope.scaling.yarn_beta_fast", true, beta_slow, 1e6, &beta_fast));
    M40_TRY(m40_config_f64(r, "rope.scaling.yarn_ext_factor", true, -1.0, 1.0, &extrapolation));
    M40_FAIL_IF(extrapolation != 1.0, M40LLM_UNSUPPORTED, "%s is %g: only 1 is supported", r->key, extrapolation);
    M40_TRY(m40_config_f64(r, "rope.scaling.yarn_log_multiplier", true, 0.0, 1e3, &multiplier));
    M40_FAIL_IF(rope->base < 1.001, M40LLM_BAD_MODEL, "%s.rope.freq_base is %g, too small for yarn", r->config->architecture, rope->base);
    m40_rope_set_yarn(rope, beta_fast, beta_slow, !r->arch->has_exact_yarn);
    rope->magnitude = m40_rope_yarn_magnitude(rope->factor, 1.0) / m40_rope_yarn_magnitude(rope->factor, multiplier);
fail:
    return status;
}

static m40llm_status read_linear(struct m40_config_reader *r)
{
    const char *key = m40_config_find(r, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";

    return m40_config_f64(r, key, true, 0.5, max_factor, &r->config->rope.factor);
}

static m40llm_status read_scaling(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_rope *rope = &r->config->rope;
    const struct m40_gguf_kv *kv = m40_config_find(r, "rope.scaling.type");
    struct m40_str type = m40_str_from(rope->long_divisors ? "longrope" : "linear"); /* what a factor alone means */
    double attn_factor = 1.0;
    char text[32], key[sizeof r->key];

    M40_FAIL_IF(kv && !m40_gguf_kv_string(kv, &type), M40LLM_BAD_MODEL, "metadata key %s is not a string", r->key);
    memcpy(key, r->key, sizeof key);
    m40_config_copy_text(type, text, sizeof text);
    M40_TRY(m40_config_f64(r, "rope.scaling.attn_factor", true, 1e-3, 1e3, &attn_factor));
    if (!strcmp(text, "linear"))
        M40_TRY(read_linear(r));
    else if (!strcmp(text, "yarn"))
        M40_TRY(read_yarn(r));
    else
        M40_FAIL_IF(strcmp(text, "none") && strcmp(text, "longrope"), M40LLM_UNSUPPORTED,
                    "%s \"%s\" is not supported (known: none, linear, yarn, longrope)%s", key, text,
                    !strcmp(text, "dynamic") ? ": with dynamic NTK, what the cache holds would have to change as a sequence grows" : "");
    M40_FAIL_IF(!strcmp(text, "longrope") && !rope->long_divisors, M40LLM_BAD_MODEL, "tensor rope_factors_long.weight is missing");
    if (!strcmp(text, "yarn") && m40_config_find(r, "rope.scaling.attn_factor")) /* instead of the formula, as in the original */
        rope->magnitude = attn_factor;
    else
        rope->magnitude *= attn_factor;
fail:
    return status;
}

/* Queries that grow with their position (Ministral 3). */
static m40llm_status read_temperature(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_rope *rope = &r->config->rope;

    M40_TRY(m40_config_f64(r, "attention.temperature_scale", true, 0.0, 1e3, &rope->temperature));
    M40_FAIL_IF(rope->temperature > 0 && rope->n_rot != r->config->head_dim, M40LLM_UNSUPPORTED,
                "%s is %g, but only %u of %u elements of a head are rotated", r->key, rope->temperature, rope->n_rot, r->config->head_dim);
fail:
    return status;
}

m40llm_status m40_config_read_rope(struct m40_config_reader *r)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = r->err;
    struct m40_model_config *c = r->config;
    double local_base = r->arch->local_rope_base;

    c->rope_style = r->arch->rope_style;
    c->rope = (struct m40_rope){.n_rot = c->head_dim, .base = 10000.0, .factor = 1.0, .magnitude = 1.0, .n_ctx_original = c->n_ctx_train};
    M40_TRY(m40_config_f64(r, "rope.freq_base", true, 1.0, 1e15, &c->rope.base));
    M40_TRY(m40_config_u32(r, "rope.dimension_count", true, 2, c->head_dim, &c->rope.n_rot));
    M40_FAIL_IF(c->rope.n_rot % 2, M40LLM_BAD_MODEL, "%s.rope.dimension_count is %u, expected an even number", c->architecture, c->rope.n_rot);
    M40_TRY(m40_config_u32(r, "rope.scaling.original_context_length", true, 1, UINT32_MAX, &c->rope.n_ctx_original));
    M40_TRY(read_all_divisors(r));
    M40_TRY(read_scaling(r));
    M40_TRY(read_temperature(r));
    local_base = r->arch->has_unscaled_local_rope ? c->rope.base : local_base;
    if (local_base > 0)
        M40_TRY(m40_config_f64(r, "rope.freq_base_swa", true, 1.0, 1e15, &local_base));
    c->has_local_rope = local_base > 0 && c->window > 0;
    if (c->has_local_rope) /* without any scaling */
        c->local_rope = (struct m40_rope){.n_rot = c->rope.n_rot, .base = local_base, .factor = 1.0, .magnitude = 1.0};
fail:
    return status;
}
