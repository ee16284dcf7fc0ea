#include "tokenizer/vocab.h"

#include "base/mem.h"

#include <inttypes.h>

static const char tokens_key[] = "tokenizer.ggml.tokens";
static const char types_key[] = "tokenizer.ggml.token_type";
static const char scores_key[] = "tokenizer.ggml.scores";

struct m40_vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
};

static uint64_t hash_text(uint64_t seed, struct m40_str text)
{
    uint64_t h = seed ^ text.n_bytes;
    size_t i = 0;
    uint64_t word;

    for (; i + 8 <= text.n_bytes; i += 8) {
        memcpy(&word, text.data + i, 8);
        h = m40_hash_mix(h ^ word);
    }
    if (i < text.n_bytes) {
        word = 0;
        memcpy(&word, text.data + i, text.n_bytes - i);
        h = m40_hash_mix(h ^ word);
    }
    return m40_hash_mix(h);
}

/* The slot of this text, or the free one where it belongs. */
static struct m40_vocab_slot *find_slot(const struct m40_vocab *vocab, struct m40_str text, uint64_t hash)
{
    size_t mask = vocab->n_slots - 1;

    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct m40_vocab_slot *slot = &vocab->slots[i];

        if (slot->id < 0 || (slot->hash == (uint32_t)(hash >> 32) && m40_str_equal(m40_vocab_text(vocab, slot->id), text)))
            return slot;
    }
}

int32_t m40_vocab_find(const struct m40_vocab *vocab, struct m40_str text)
{
    if (text.n_bytes == 0 || text.n_bytes > vocab->longest_bytes)
        return -1;
    return find_slot(vocab, text, hash_text(vocab->seed, text))->id;
}

static m40llm_status index_texts(struct m40_vocab *vocab, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    vocab->seed = m40_hash_seed(vocab);
    for (vocab->n_slots = 16; vocab->n_slots < 2 * vocab->n_tokens;)
        vocab->n_slots *= 2;
    vocab->slots = m40_calloc(vocab->n_slots, sizeof *vocab->slots);
    M40_FAIL_IF(!vocab->slots, M40LLM_NO_MEMORY, "token index");
    for (size_t i = 0; i < vocab->n_slots; i++)
        vocab->slots[i].id = -1;
    for (size_t i = 0; i < vocab->n_tokens; i++) {
        struct m40_str text = m40_vocab_text(vocab, (int32_t)i);
        uint64_t hash = hash_text(vocab->seed, text);
        struct m40_vocab_slot *slot;

        if (text.n_bytes == 0)
            continue;
        slot = find_slot(vocab, text, hash);
        M40_FAIL_IF(slot->id >= 0, M40LLM_BAD_FILE, "%s: tokens %" PRId32 " and %zu are the same: '%.*s'", tokens_key, slot->id, i, (int)text.n_bytes,
                    text.data);
        *slot = (struct m40_vocab_slot){(uint32_t)(hash >> 32), (int32_t)i};
    }
fail:
    return status;
}

static m40llm_status read_texts(struct m40_vocab *vocab, const struct m40_gguf_kv *kv, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_cursor cursor = {0};
    struct m40_buf all = {0};
    struct m40_str text;

    M40_FAIL_IF(kv->type != M40LLM_VALUE_ARRAY || kv->element_type != M40LLM_VALUE_STRING, M40LLM_BAD_FILE, "%s is not an array of strings",
                tokens_key);
    M40_FAIL_IF(kv->n_elements == 0, M40LLM_BAD_FILE, "%s is empty", tokens_key);
    M40_FAIL_IF(kv->n_elements > INT32_MAX / 4, M40LLM_BAD_FILE, "%s: %" PRIu64 " tokens", tokens_key, kv->n_elements);
    vocab->n_tokens = (size_t)kv->n_elements;
    vocab->offsets = m40_calloc(vocab->n_tokens + 1, sizeof *vocab->offsets);
    M40_FAIL_IF(!vocab->offsets || !m40_buf_reserve(&all, kv->n_bytes), M40LLM_NO_MEMORY, "%zu tokens", vocab->n_tokens);
    for (size_t i = 0; i < vocab->n_tokens; i++) {
        M40_FAIL_IF(!m40_gguf_next_string(kv, &cursor, &text), M40LLM_BAD_FILE, "%s ends at %zu", tokens_key, i);
        M40_FAIL_IF(text.n_bytes > M40_TOKEN_MAX_BYTES, M40LLM_BAD_FILE, "%s: token %zu has %zu bytes; at most %d are possible", tokens_key, i,
                    text.n_bytes, M40_TOKEN_MAX_BYTES);
        M40_FAIL_IF(!m40_buf_append(&all, text.data, text.n_bytes), M40LLM_NO_MEMORY, "%zu tokens", vocab->n_tokens);
        vocab->offsets[i + 1] = all.n_bytes;
        if (text.n_bytes > vocab->longest_bytes)
            vocab->longest_bytes = text.n_bytes;
    }
    vocab->bytes = all.data;
    return M40LLM_OK;
fail:
    m40_buf_free(&all);
    return status;
}

/* kv is an array of n_tokens numbers. */
static m40llm_status check_numbers(const struct m40_vocab *vocab, const struct m40_gguf_kv *kv, const char *key, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(kv->type != M40LLM_VALUE_ARRAY || kv->element_type == M40LLM_VALUE_STRING || kv->element_type == M40LLM_VALUE_ARRAY, M40LLM_BAD_FILE,
                "%s is not an array of numbers", key);
    M40_FAIL_IF(kv->n_elements != vocab->n_tokens, M40LLM_BAD_FILE, "%s has %" PRIu64 " elements for %zu tokens", key, kv->n_elements,
                vocab->n_tokens);
fail:
    return status;
}

static m40llm_status read_types(struct m40_vocab *vocab, const struct m40_gguf_kv *kv, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_cursor cursor = {0};
    double value;

    vocab->types = m40_calloc(vocab->n_tokens, 1);
    M40_FAIL_IF(!vocab->types, M40LLM_NO_MEMORY, "token types");
    memset(vocab->types, M40_TOKEN_NORMAL, vocab->n_tokens);
    if (!kv)
        return M40LLM_OK;
    vocab->has_types = true;
    M40_TRY(check_numbers(vocab, kv, types_key, err));
    for (size_t i = 0; i < vocab->n_tokens; i++) {
        M40_FAIL_IF(!m40_gguf_next_number(kv, &cursor, &value), M40LLM_BAD_FILE, "%s is not an array of numbers", types_key);
        M40_FAIL_IF(!(value >= 0 && value <= M40_TOKEN_BYTE && value == (double)(int)value), M40LLM_BAD_FILE, "%s: token %zu has type %g", types_key,
                    i, value);
        if (value > 0) /* 0 is "undefined" */
            vocab->types[i] = (uint8_t)value;
    }
fail:
    return status;
}

static m40llm_status read_scores(struct m40_vocab *vocab, const struct m40_gguf_kv *kv, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_gguf_cursor cursor = {0};
    double value;

    if (!kv)
        return M40LLM_OK;
    M40_TRY(check_numbers(vocab, kv, scores_key, err));
    vocab->scores = m40_calloc(vocab->n_tokens, sizeof *vocab->scores);
    M40_FAIL_IF(!vocab->scores, M40LLM_NO_MEMORY, "token scores");
    for (size_t i = 0; i < vocab->n_tokens; i++) {
        M40_FAIL_IF(!m40_gguf_next_number(kv, &cursor, &value) || !(value == value), M40LLM_BAD_FILE, "%s: the score of token %zu is not a number",
                    scores_key, i);
        vocab->scores[i] = (float)value;
    }
fail:
    return status;
}

m40llm_status m40_vocab_read(struct m40_vocab *vocab, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_kv *tokens = m40_gguf_find_kv(gguf, tokens_key);

    M40_FAIL_IF(!tokens, M40LLM_BAD_FILE, "%s is missing", tokens_key);
    M40_TRY(read_texts(vocab, tokens, err));
    M40_TRY(read_types(vocab, m40_gguf_find_kv(gguf, types_key), err));
    M40_TRY(read_scores(vocab, m40_gguf_find_kv(gguf, scores_key), err));
    M40_TRY(index_texts(vocab, err));
fail:
    return status;
}

void m40_vocab_free(struct m40_vocab *vocab)
{
    m40_free(vocab->bytes);
    m40_free(vocab->offsets);
    m40_free(vocab->types);
    m40_free(vocab->scores);
    m40_free(vocab->slots);
    *vocab = (struct m40_vocab){0};
}
