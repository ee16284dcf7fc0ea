/* libFuzzer target of the tokenizers. The first byte chooses: 'G' and up: the rest is a GGUF file, whose tokenizer, if it opens, reads a few texts;
 * below: the rest is text for a small tokenizer of either kind. Ids must be in the vocabulary, a stream must give valid UTF-8, and where every byte
 * has a token the text must come back. */
#include "gguf/gguf.h"
#include "harness/gguf_bytes.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                                                             \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            __builtin_trap();                                                                                                                        \
    } while (0)

static void check_stream(const struct m40_tokenizer *t, const int32_t *ids, size_t n_ids)
{
    struct m40_token_stream *s;
    const char *piece;
    size_t n;

    CHECK(m40_token_stream_open(&s, t, M40LLM_DETOKENIZE_SPECIAL, NULL) == M40LLM_OK);
    for (size_t i = 0; i <= n_ids; i++) {
        CHECK((i < n_ids ? m40_token_stream_push(s, ids[i], &piece, &n, NULL) : m40_token_stream_flush(s, &piece, &n, NULL)) == M40LLM_OK);
        for (size_t at = 0; at < n;) {
            struct m40_utf8 u = m40_utf8_decode((const uint8_t *)piece + at, n - at);

            CHECK(u.valid);
            at += u.n_bytes;
        }
    }
    m40_token_stream_close(&s);
}

static void check_text(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, bool comes_back)
{
    size_t capacity = 4 * n_bytes + 16, n_ids, n;
    int32_t *ids = malloc(capacity * sizeof *ids);
    char *back = malloc(n_bytes + 1);

    CHECK(ids && back);
    CHECK(m40_tokenize(t, text, n_bytes, flags, ids, capacity, &n_ids, NULL) == M40LLM_OK);
    for (size_t i = 0; i < n_ids; i++)
        CHECK(ids[i] >= 0 && (size_t)ids[i] < m40_tokenizer_n_vocab(t));
    check_stream(t, ids, n_ids);
    if (comes_back) {
        CHECK(n_ids <= n_bytes + 8);
        CHECK(m40_detokenize(t, ids, n_ids, M40LLM_DETOKENIZE_SPECIAL, back, n_bytes, &n, NULL) == M40LLM_OK);
        CHECK(n == n_bytes && memcmp(text, back, n) == 0);
    }
    free(ids);
    free(back);
}

/* All 256 bytes (GPT-2's notation for the first kind), some merges, a control and a user-defined token. */
static struct m40_tokenizer *make_tokenizer(const char *model, const char *pre)
{
    static const char *const more[] = {"th", "he", "the", "'s", "12", "<s>", "<|", "\xe2\x96\x81", "\xe2\x96\x81t"};
    static const int32_t more_types[] = {1, 1, 1, 1, 1, 3, 4, 1, 1};
    static const char *const merges[] = {"t h", "h e", "th e", "t he", "' s", "1 2"};
    bool spm = strcmp(model, "llama") == 0;
    char names[256][8];
    struct m40_str tokens[256 + 95 + 9], rules[6];
    int32_t types[256 + 95 + 9];
    float scores[256 + 95 + 9];
    size_t n = 0;
    struct gguf_bytes g = {0};
    struct m40_gguf *gguf;
    struct m40_tokenizer *t;

    for (unsigned byte = 0, beyond = 0; byte < 256; byte++, n++) {
        bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        size_t n_name =
            spm ? (size_t)snprintf(names[byte], 8, "<0x%02X>", byte) : m40_utf8_encode_short(printable ? byte : 0x100 + beyond++, names[byte]);

        tokens[n] = (struct m40_str){names[byte], n_name};
        types[n] = spm ? 6 : 1;
    }
    for (char c = '!'; spm && c <= '~'; c++, n++) {
        static char letters[128];

        letters[(int)c] = c;
        tokens[n] = (struct m40_str){&letters[(int)c], 1};
        types[n] = 1;
    }
    for (size_t i = 0; i < 9; i++, n++) {
        tokens[n] = m40_str_from(more[i]);
        types[n] = more_types[i];
    }
    for (size_t i = 0; i < 6; i++)
        rules[i] = m40_str_from(merges[i]);
    for (size_t i = 0; i < n; i++)
        scores[i] = -(float)(i % 7);
    gguf_put_string(&g, "tokenizer.ggml.model", model);
    gguf_put_string(&g, "tokenizer.ggml.pre", pre);
    gguf_put_strings(&g, "tokenizer.ggml.tokens", tokens, n);
    gguf_put_i32s(&g, "tokenizer.ggml.token_type", types, n);
    gguf_put_f32s(&g, "tokenizer.ggml.scores", scores, n);
    gguf_put_strings(&g, "tokenizer.ggml.merges", rules, 6);
    gguf_put_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)n - 4);
    gguf_put_bool(&g, "tokenizer.ggml.add_space_prefix", 0);
    gguf_finish(&g);
    CHECK(m40_gguf_parse(&gguf, g.file.data, g.file.n_bytes, "fuzz", NULL) == M40LLM_OK);
    CHECK(m40_tokenizer_open(&t, gguf, NULL) == M40LLM_OK);
    m40_gguf_close(&gguf);
    gguf_bytes_free(&g);
    return t;
}

static void try_file(const uint8_t *data, size_t size)
{
    static const char *const samples[] = {"", "a", "The year 1984, he'll say\r\n\n  \tthat's <s>it</s>. ", "\xe6\x97\xa5\xf0\x9f\x98\x80 \xff\xc3"};
    struct m40_gguf *gguf;
    struct m40_tokenizer *t;

    if (m40_gguf_parse(&gguf, data, size, "fuzz", NULL) != M40LLM_OK)
        return;
    if (m40_tokenizer_open(&t, gguf, NULL) == M40LLM_OK) {
        for (size_t i = 0; i < 4; i++)
            check_text(t, samples[i], strlen(samples[i]), i % 2 ? 0 : M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, false);
        m40_tokenizer_close(&t);
    }
    m40_gguf_close(&gguf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pres[] = {"default",      "gpt-2",  "llama-bpe", "qwen2",  "starcoder",   "falcon",     "deepseek-llm", "deepseek-coder",
                                       NULL /* SPM */, "qwen35", "gpt-4o",    "tekken", "deepseek-v3", "bailingmoe", "seed-coder"};
    enum { N_KINDS = sizeof pres / sizeof *pres };
    static struct m40_tokenizer *tokenizers[N_KINDS]; /* made once */
    unsigned which;
    bool has_mark = false;

    if (size == 0)
        return 0;
    if (data[0] >= 'G') {
        try_file(data + 1, size - 1);
        return 0;
    }
    which = data[0] % N_KINDS;
    if (!tokenizers[which])
        tokenizers[which] = make_tokenizer(pres[which] ? "gpt2" : "llama", pres[which] ? pres[which] : "default");
    for (size_t i = 1; i + 3 <= size; i++)
        has_mark = has_mark || memcmp(data + i, "\xe2\x96\x81", 3) == 0; /* SentencePiece makes a space of it */
    check_text(tokenizers[which], (const char *)data + 1, size - 1, data[0] % 2 ? M40LLM_TOKENIZE_SPECIAL : 0, pres[which] || !has_mark);
    return 0;
}
