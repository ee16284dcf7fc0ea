/* The chat template that a GGUF file brings, with the texts of its special tokens. */
#include "tokenizer/template/template.h"

#include "gguf/gguf.h"
#include "tokenizer/utf8.h"

#include <stdio.h>

/* The variables that the Python tooling gives to every template, and the keys of their tokens' ids. */
static const struct {
    const char *variable, *key;
} special_tokens[] = {
    {"bos_token", "tokenizer.ggml.bos_token_id"},     {"eos_token", "tokenizer.ggml.eos_token_id"},
    {"unk_token", "tokenizer.ggml.unknown_token_id"}, {"sep_token", "tokenizer.ggml.seperator_token_id"}, /* so written in the format */
    {"pad_token", "tokenizer.ggml.padding_token_id"}, {"cls_token", "tokenizer.ggml.cls_token_id"},
    {"mask_token", "tokenizer.ggml.mask_token_id"},
};

enum { N_SPECIAL = sizeof special_tokens / sizeof *special_tokens };

/* The texts of those tokens that the file names, in one pass over the vocabulary. A token may be any bytes; a template's strings are UTF-8: such a token is left out. */
static m40llm_status set_special_tokens(struct m40_template *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *tokens = m40_gguf_find_kv(gguf, "tokenizer.ggml.tokens"), *kv;
    struct m40_gguf_cursor cursor = {0};
    struct m40_str text;
    uint64_t ids[N_SPECIAL];

    if (!tokens)
        return M40LLM_OK;
    for (int k = 0; k < N_SPECIAL; k++) {
        kv = m40_gguf_find_kv(gguf, special_tokens[k].key);
        if (!kv || !m40_gguf_kv_u64(kv, &ids[k]))
            ids[k] = UINT64_MAX;
    }
    for (uint64_t id = 0; m40_gguf_next_string(tokens, &cursor, &text); id++)
        for (int k = 0; k < N_SPECIAL; k++)
            if (ids[k] == id && m40_utf8_is_valid(text.data, text.n_bytes))
                M40_TRY(m40_template_set_default(t, special_tokens[k].variable, text, err));
fail:
    return status;
}

m40llm_status m40_template_of_gguf(struct m40_template **out, const struct m40_gguf *gguf, const char *name, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_template *t = NULL;
    const struct m40_gguf_kv *kv;
    struct m40_str text;
    char key[128];

    *out = NULL;
    M40_FAIL_IF((size_t)snprintf(key, sizeof key, "tokenizer.chat_template%s%s", name ? "." : "", name ? name : "") >= sizeof key, M40LLM_NOT_FOUND,
                "no chat template of so long a name");
    kv = m40_gguf_find_kv(gguf, key);
    M40_FAIL_IF(!kv, M40LLM_NOT_FOUND, "the model has no chat template (%s)", key);
    M40_FAIL_IF(!m40_gguf_kv_string(kv, &text), M40LLM_BAD_FILE, "%s is not a string", key);
    M40_TRY(m40_template_compile(&t, text.data, text.n_bytes, err));
    M40_TRY(set_special_tokens(t, gguf, err));
    *out = t;
    return M40LLM_OK;
fail:
    m40_template_free(&t);
    return status;
}
