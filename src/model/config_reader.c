#include "model/config_reader.h"

#include <stdio.h>

const struct m40_gguf_kv *m40_config_find(struct m40_config_reader *r, const char *key)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->config->architecture, key);
    return m40_gguf_find_kv(r->gguf, r->key);
}

m40llm_status m40_config_u32(struct m40_config_reader *r, const char *key, bool may_lack, uint32_t min, uint32_t max, uint32_t *out)
{
    const struct m40_gguf_kv *kv = m40_config_find(r, key);
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

m40llm_status m40_config_f64(struct m40_config_reader *r, const char *key, bool may_lack, double min, double max, double *out)
{
    const struct m40_gguf_kv *kv = m40_config_find(r, key);
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

m40llm_status m40_config_bool(struct m40_config_reader *r, const char *key, bool may_lack, bool *out)
{
    const struct m40_gguf_kv *kv = m40_config_find(r, key);

    if (!kv && may_lack)
        return M40LLM_OK;
    if (!kv)
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is missing", r->key);
    if (!m40_gguf_kv_bool(kv, out))
        return m40_fail(r->err, M40LLM_BAD_MODEL, "metadata key %s is not a bool", r->key);
    return M40LLM_OK;
}

void m40_config_copy_text(struct m40_str text, char *out, size_t capacity)
{
    size_t n = text.n_bytes < capacity ? text.n_bytes : capacity - 1;

    while (n < text.n_bytes && n > 0 && ((unsigned char)text.data[n] & 0xc0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f ? '?' : text.data[i];
    out[n] = 0;
}
