/* Opens the kind of tokenizer that the file asks for, and does what both kinds have in common: special tokens, BOS and EOS. */
#include "tokenizer/tokenizer_internal.h"
#include "tokenizer/utf8.h"

#include "base/mem.h"

#include <inttypes.h>

m40llm_status m40_metadata_bool(const struct m40_gguf *gguf, const char *key, bool *out, m40llm_error *err)
{
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, key);

    if (kv && !m40_gguf_kv_bool(kv, out))
        return m40_fail(err, M40LLM_BAD_FILE, "%s is not a boolean", key);
    return M40LLM_OK;
}

/* A token id that may be absent: *out is then fallback where the vocabulary has it, or -1. */
static m40llm_status read_id(const struct m40_tokenizer *t, const struct m40_gguf *gguf, const char *key, int32_t fallback, int32_t *out,
                             m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, key);
    uint64_t id;

    *out = fallback >= 0 && (size_t)fallback < t->vocab.n_tokens ? fallback : -1;
    if (!kv)
        return M40LLM_OK;
    M40_FAIL_IF(!m40_gguf_kv_u64(kv, &id), M40LLM_BAD_FILE, "%s is not a token id", key);
    M40_FAIL_IF(id >= t->vocab.n_tokens, M40LLM_BAD_FILE, "%s is %" PRIu64 ", but there are %zu tokens", key, id, t->vocab.n_tokens);
    *out = (int32_t)id;
fail:
    return status;
}

/* Control tokens that end an answer whether or not the metadata say so. */
static const char *const end_names[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>" /* DeepSeek */
};

/* Formats in which an answer is several messages: the first token ends one of them, and the other two, where both are ends, the answer. */
static const char *const message_ends[][3] = {
    {"<|end|>", "<|return|>", "<|call|>"}, /* gpt-oss */
    {"<|end|>", "<|calls|>", "<|flush|>"}, /* Solar Open */
};

/* The control token of this name that is an end; -1: none. */
static int32_t find_end(const struct m40_tokenizer *t, const char *name)
{
    int32_t id = m40_vocab_find(&t->vocab, m40_str_from(name));

    return id >= 0 && t->vocab.types[id] == M40_TOKEN_CONTROL && t->is_end[id] ? id : -1;
}

static void drop_message_ends(struct m40_tokenizer *t)
{
    for (size_t i = 0; i < sizeof message_ends / sizeof message_ends[0]; i++) {
        int32_t id = find_end(t, message_ends[i][0]);

        if (id >= 0 && id != t->eos && find_end(t, message_ends[i][1]) >= 0 && find_end(t, message_ends[i][2]) >= 0)
            t->is_end[id] = 0;
    }
}

static m40llm_status find_ends(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    m40llm_status status = M40LLM_OK;
    int32_t id;

    t->is_end = m40_calloc(t->vocab.n_tokens, 1);
    M40_FAIL_IF(!t->is_end, M40LLM_NO_MEMORY, "end tokens");
    if (t->eos >= 0)
        t->is_end[t->eos] = 1;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        M40_TRY(read_id(t, gguf, keys[i], -1, &id, err));
        if (id >= 0)
            t->is_end[id] = 1;
    }
    for (size_t i = 0; i < sizeof end_names / sizeof end_names[0]; i++) {
        id = m40_vocab_find(&t->vocab, m40_str_from(end_names[i]));
        if (id >= 0 && t->vocab.types[id] == M40_TOKEN_CONTROL)
            t->is_end[id] = 1;
    }
    drop_message_ends(t);
fail:
    return status;
}

/* Phi-3's special tokens take the white space behind them (rstrip in its tokenizer_config.json), but for three. No key of the file says so. */
static m40llm_status find_space_takers(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    static const char *const others[] = {"<unk>", "<s>", "<|endoftext|>"};
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, "general.architecture");
    struct m40_str architecture;

    if (t->kind != M40_TOKENIZER_SPM || !kv || !m40_gguf_kv_string(kv, &architecture) || !m40_str_equal(architecture, m40_str_from("phi3")))
        return M40LLM_OK;
    t->takes_spaces = m40_calloc(t->vocab.n_tokens, 1);
    M40_FAIL_IF(!t->takes_spaces, M40LLM_NO_MEMORY, "special tokens");
    for (size_t id = 0; id < t->vocab.n_tokens; id++)
        t->takes_spaces[id] = t->vocab.types[id] == M40_TOKEN_CONTROL || t->vocab.types[id] == M40_TOKEN_USER_DEFINED;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        int32_t id = m40_vocab_find(&t->vocab, m40_str_from(others[i]));

        if (id >= 0)
            t->takes_spaces[id] = 0;
    }
fail:
    return status;
}

/* Ids and flags that are absent: "llama" files then mean 0, 1, 2 for unknown, BOS and EOS and add BOS; "gpt2" files mean none, and add BOS where
 * the pre-tokenizer's family does. */
static m40llm_status read_special_ids(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    static const char bos_key[] = "tokenizer.ggml.bos_token_id", eos_key[] = "tokenizer.ggml.eos_token_id";
    static const char add_bos_key[] = "tokenizer.ggml.add_bos_token", add_eos_key[] = "tokenizer.ggml.add_eos_token";
    m40llm_status status = M40LLM_OK;
    bool spm = t->kind == M40_TOKENIZER_SPM;

    M40_TRY(read_id(t, gguf, bos_key, spm ? 1 : -1, &t->bos, err));
    M40_TRY(read_id(t, gguf, eos_key, spm ? 2 : -1, &t->eos, err));
    M40_TRY(read_id(t, gguf, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &t->unk, err));
    if (t->bos < 0)
        t->add_bos = false;
    M40_TRY(m40_metadata_bool(gguf, add_bos_key, &t->add_bos, err));
    M40_TRY(m40_metadata_bool(gguf, add_eos_key, &t->add_eos, err));
    M40_FAIL_IF(t->add_bos && t->bos < 0, M40LLM_BAD_FILE, "%s is true, but there is no %s", add_bos_key, bos_key);
    M40_FAIL_IF(t->add_eos && t->eos < 0, M40LLM_BAD_FILE, "%s is true, but there is no %s", add_eos_key, eos_key);
    if (!t->vocab.has_types) {
        if (t->bos >= 0)
            t->vocab.types[t->bos] = M40_TOKEN_CONTROL;
        if (t->eos >= 0)
            t->vocab.types[t->eos] = M40_TOKEN_CONTROL;
    }
    M40_TRY(find_ends(t, gguf, err));
    M40_TRY(find_space_takers(t, gguf, err));
fail:
    return status;
}

static m40llm_status choose_kind(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *kv = m40_gguf_find_kv(gguf, "tokenizer.ggml.model");
    struct m40_str model;

    M40_FAIL_IF(!kv, M40LLM_NO_TOKENIZER, "the file has no tokenizer (tokenizer.ggml.model is missing)");
    M40_FAIL_IF(!m40_gguf_kv_string(kv, &model), M40LLM_BAD_FILE, "tokenizer.ggml.model is not a string");
    if (m40_str_equal(model, m40_str_from("gpt2")))
        t->kind = M40_TOKENIZER_BPE;
    else if (m40_str_equal(model, m40_str_from("llama")))
        t->kind = M40_TOKENIZER_SPM;
    else
        M40_FAIL_IF(true, M40LLM_NO_TOKENIZER, "tokenizer.ggml.model: unknown '%.*s'; known are gpt2, llama",
                    (int)(model.n_bytes < 40 ? model.n_bytes : 40), model.data);
fail:
    return status;
}

m40llm_status m40_tokenizer_open(struct m40_tokenizer **out, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_tokenizer *t = m40_calloc(1, sizeof *t);

    *out = NULL;
    M40_FAIL_IF(!t, M40LLM_NO_MEMORY, "tokenizer");
    M40_TRY(choose_kind(t, gguf, err));
    M40_TRY(m40_vocab_read(&t->vocab, gguf, err));
    M40_TRY(t->kind == M40_TOKENIZER_SPM ? m40_spm_open(t, gguf, err) : m40_bpe_open(t, gguf, err));
    M40_TRY(read_special_ids(t, gguf, err));
    M40_TRY(m40_specials_open(&t->user_defined, &t->vocab, false, err));
    M40_TRY(m40_specials_open(&t->all_specials, &t->vocab, true, err));
    *out = t;
    return M40LLM_OK;
fail:
    m40_tokenizer_close(&t);
    return status;
}

void m40_tokenizer_close(struct m40_tokenizer **tokenizer)
{
    struct m40_tokenizer *t = *tokenizer;

    if (!t)
        return;
    m40_specials_free(&t->user_defined);
    m40_specials_free(&t->all_specials);
    m40_pretokenizer_close(&t->pretokenizer);
    m40_merge_rules_free(&t->rules);
    m40_vocab_free(&t->vocab);
    m40_free(t->is_end);
    m40_free(t->takes_spaces);
    m40_free(t);
    *tokenizer = NULL;
}

size_t m40_tokenizer_n_vocab(const struct m40_tokenizer *t)
{
    return t->vocab.n_tokens;
}

size_t m40_tokenizer_most_bytes(const struct m40_tokenizer *t)
{
    if (t->takes_spaces)
        return SIZE_MAX;
    return t->vocab.longest_bytes > 4 ? t->vocab.longest_bytes : 4; /* the unknown token's are a character's */
}

int32_t m40_tokenizer_bos(const struct m40_tokenizer *t)
{
    return t->bos;
}

int32_t m40_tokenizer_eos(const struct m40_tokenizer *t)
{
    return t->eos;
}

bool m40_tokenizer_is_end(const struct m40_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab.n_tokens && t->is_end[id];
}

bool m40_tokenizer_is_control(const struct m40_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab.n_tokens && t->vocab.types[id] == M40_TOKEN_CONTROL;
}

static size_t n_white_space(const char *text, size_t n_bytes)
{
    size_t n = 0;

    while (n < n_bytes) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + n, n_bytes - n);

        if (!u.valid || !m40_utf8_is_white_space(u.code))
            break;
        n += u.n_bytes;
    }
    return n;
}

/* Special tokens, and ordinary text between them. */
static m40llm_status encode_text(struct m40_encoder *e, const char *text, size_t n_bytes, const struct m40_specials *specials, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_tokenizer *t = e->t;
    bool had_bos = e->sink.n > 0;
    bool at_start = true;

    for (size_t at = 0; at < n_bytes;) {
        struct m40_special_match match = m40_specials_find(specials, text, n_bytes, at);
        size_t n = match.begin - at;

        if (match.id >= 0 && t->takes_spaces && t->takes_spaces[match.id])
            match.end += n_white_space(text + match.end, n_bytes - match.end);
        if (n && t->kind == M40_TOKENIZER_SPM)
            M40_TRY(m40_spm_encode(e, text + at, n, at_start && t->add_space_prefix, err));
        else if (n)
            M40_TRY(m40_bpe_encode(e, text + at, n, err));
        if (match.id >= 0 && !(match.id == t->bos && match.begin == 0 && had_bos))
            m40_id_sink_push(&e->sink, match.id);
        at_start = match.id >= 0 && t->vocab.types[match.id] != M40_TOKEN_UNKNOWN;
        e->last_special = match.end == n_bytes ? match.id : -1;
        at = match.end;
    }
fail:
    return status;
}

m40llm_status m40_tokenize(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, int32_t *ids, size_t capacity,
                           size_t *n_out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_encoder e = {.t = t, .sink = {ids, capacity, 0}, .last_special = -1};

    *n_out = 0;
    M40_FAIL_IF(n_bytes > INT32_MAX, M40LLM_INVALID_ARGUMENT, "a text of %zu bytes: at most 2 GiB are possible", n_bytes);
    if ((flags & M40LLM_TOKENIZE_ADD_BOS) && t->add_bos)
        m40_id_sink_push(&e.sink, t->bos);
    M40_TRY(encode_text(&e, text, n_bytes, flags & M40LLM_TOKENIZE_SPECIAL ? &t->all_specials : &t->user_defined, err));
    if ((flags & M40LLM_TOKENIZE_ADD_BOS) && t->add_eos && e.last_special != t->eos)
        m40_id_sink_push(&e.sink, t->eos);
    *n_out = e.sink.n;
    M40_FAIL_IF(e.sink.n > capacity, M40LLM_BUFFER_TOO_SMALL, "%zu ids, room for %zu", e.sink.n, capacity);
fail:
    m40_merger_free(&e.merger);
    return status;
}

m40llm_status m40_token_decode(const struct m40_tokenizer *t, int32_t id, unsigned flags, bool *at_start, struct m40_buf *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint8_t type;
    bool strip;

    M40_FAIL_IF(id < 0 || (size_t)id >= t->vocab.n_tokens, M40LLM_INVALID_ARGUMENT, "token id %" PRId32 " is not in 0..%zu", id,
                t->vocab.n_tokens - 1);
    type = t->vocab.types[id];
    strip = *at_start && t->add_space_prefix && type != M40_TOKEN_USER_DEFINED;
    *at_start = type == M40_TOKEN_CONTROL || type == M40_TOKEN_USER_DEFINED;
    if ((type == M40_TOKEN_CONTROL || type == M40_TOKEN_UNKNOWN) && !(flags & M40LLM_DETOKENIZE_SPECIAL))
        return M40LLM_OK;
    M40_FAIL_IF(!(t->kind == M40_TOKENIZER_SPM ? m40_spm_decode(t, id, strip, out) : m40_bpe_decode(t, id, out)), M40LLM_NO_MEMORY,
                "detokenized text");
fail:
    return status;
}

m40llm_status m40_detokenize(const struct m40_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags, char *text, size_t capacity,
                             size_t *n_bytes_out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_buf all = {0};
    bool at_start = true;

    *n_bytes_out = 0;
    for (size_t i = 0; i < n_ids; i++)
        M40_TRY(m40_token_decode(t, ids[i], flags, &at_start, &all, err));
    *n_bytes_out = all.n_bytes;
    M40_FAIL_IF(all.n_bytes > capacity, M40LLM_BUFFER_TOO_SMALL, "%zu bytes of text, room for %zu", all.n_bytes, capacity);
    if (all.n_bytes)
        memcpy(text, all.data, all.n_bytes);
fail:
    m40_buf_free(&all);
    return status;
}
