/* Real tokenizers against the ids that their original implementations give; texts back from ids, whole and streamed; any bytes; speed. */
#include "harness/harness.h"

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

#include <jansson.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char separator[] = "\n__ggml_vocab_test__\n";

/* Of tests/data/vocab/ggml-vocab-NAME.gguf, models/demo.gguf for "demo", or, with a slash in it, NAME.gguf. */
static const char *path_of(const char *name, const char *suffix)
{
    static char path[4096];
    char file[128];

    snprintf(file, sizeof file, strcmp(name, "demo") ? "vocab/ggml-vocab-%s.gguf%s" : "../../models/demo.gguf", name, suffix);
    snprintf(path, sizeof path, "%s%s%s", strchr(name, '/') ? name : test_data(file), strchr(name, '/') ? ".gguf" : "",
             strchr(name, '/') ? suffix : "");
    return path;
}

static struct m40_tokenizer *open_tokenizer(const char *name)
{
    struct m40_tokenizer *t = NULL;
    struct m40_gguf *gguf;
    m40llm_error err;

    if (m40_gguf_open(&gguf, path_of(name, ""), &err) != M40LLM_OK || m40_tokenizer_open(&t, gguf, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    m40_gguf_close(&gguf);
    return t;
}

/* To be freed. */
static int32_t *tokenize(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, size_t *n_ids)
{
    int32_t *ids = calloc(n_bytes + 8, sizeof *ids);
    m40llm_error err;

    assert_non_null(ids);
    if (m40_tokenize(t, text, n_bytes, flags, ids, n_bytes + 8, n_ids, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < *n_ids; i++)
        assert_in_range(ids[i], 0, m40_tokenizer_n_vocab(t) - 1);
    return ids;
}

/* Fails unless text becomes exactly these ids. */
static void expect_ids(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags, const int32_t *expected, size_t n_expected)
{
    size_t n;
    int32_t *ids = tokenize(t, text, n_bytes, flags, &n);

    if (n != n_expected || (n && memcmp(ids, expected, n * sizeof *ids) != 0)) {
        print_message("got     ");
        for (size_t i = 0; i < n; i++)
            print_message(" %d", ids[i]);
        print_message("\nexpected");
        for (size_t i = 0; i < n_expected; i++)
            print_message(" %d", expected[i]);
        fail_msg("\ntext '%.*s'", (int)n_bytes, text);
    }
    free(ids);
}

/* Fails unless the ids' text is exactly this. */
static void expect_text(const struct m40_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags, const char *text, size_t n_bytes)
{
    size_t n;
    char *back = calloc(n_bytes + 1, 1);

    assert_non_null(back);
    assert_int_equal(m40_detokenize(t, ids, n_ids, flags, back, n_bytes, &n, NULL), M40LLM_OK);
    assert_int_equal(n, n_bytes);
    assert_memory_equal(back, text, n_bytes);
    free(back);
}

static void expect_round_trip(const struct m40_tokenizer *t, const char *text, size_t n_bytes, unsigned flags)
{
    size_t n;
    int32_t *ids = tokenize(t, text, n_bytes, flags, &n);

    expect_text(t, ids, n, M40LLM_DETOKENIZE_SPECIAL, text, n_bytes);
    free(ids);
}

/* Feeds ids one by one: every piece given out is valid UTF-8 by itself. To be freed. */
static char *stream_all(const struct m40_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags, size_t *n_bytes)
{
    struct m40_buf all = {0};
    struct m40_token_stream *s;

    assert_int_equal(m40_token_stream_open(&s, t, flags, NULL), M40LLM_OK);
    for (size_t i = 0; i <= n_ids; i++) {
        const char *piece;
        size_t n;

        if (i < n_ids)
            assert_int_equal(m40_token_stream_push(s, ids[i], &piece, &n, NULL), M40LLM_OK);
        else
            assert_int_equal(m40_token_stream_flush(s, &piece, &n, NULL), M40LLM_OK);
        assert_int_equal(piece[n], 0);
        for (size_t at = 0; at < n;) {
            struct m40_utf8 u = m40_utf8_decode((const uint8_t *)piece + at, n - at);

            assert_true(u.valid);
            at += u.n_bytes;
        }
        assert_true(m40_buf_append(&all, piece, n));
    }
    m40_token_stream_close(&s);
    *n_bytes = all.n_bytes;
    return all.data;
}

static void expect_stream(const struct m40_tokenizer *t, const char *text, size_t n_bytes)
{
    size_t n_ids, n;
    int32_t *ids = tokenize(t, text, n_bytes, 0, &n_ids);
    char *streamed = stream_all(t, ids, n_ids, 0, &n);

    assert_int_equal(n, n_bytes);
    assert_memory_equal(streamed, text, n_bytes);
    free(streamed);
    free(ids);
}

/* One line of numbers; returns how many, or -1 at the end of the text. */
static int parse_line(char **at, int32_t *ids, int capacity)
{
    char *line = *at, *end = strchr(line, '\n');
    int n = 0;

    if (!end)
        return -1;
    *end = 0;
    *at = end + 1;
    for (char *next; n < capacity; line = next) {
        long id = strtol(line, &next, 10);

        if (next == line)
            break;
        ids[n++] = (int32_t)id;
    }
    return n;
}

static void check_vocab(const char *name)
{
    struct m40_tokenizer *t = open_tokenizer(name);
    char *texts = test_read_file(path_of(name, ".inp"), NULL), *expected = test_read_file(path_of(name, ".out"), NULL);
    char *text = texts, *line = expected;
    int n_cases = 0, n;
    int32_t ids[4096];

    while ((n = parse_line(&line, ids, 4096)) >= 0) {
        char *end = strstr(text, separator);

        assert_non_null(end);
        expect_ids(t, text, (size_t)(end - text), 0, ids, (size_t)n);
        expect_round_trip(t, text, (size_t)(end - text), 0);
        expect_stream(t, text, (size_t)(end - text));
        text = end + strlen(separator);
        n_cases++;
    }
    assert_int_equal(*text, 0);
    assert_true(n_cases >= 40);
    print_message("%s: %d cases\n", name, n_cases);
    free(texts);
    free(expected);
    m40_tokenizer_close(&t);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_vocab("gpt-2");
}

static void test_falcon(void **state)
{
    (void)state;
    check_vocab("falcon");
}

static void test_deepseek_llm(void **state)
{
    (void)state;
    check_vocab("deepseek-llm");
}

static void test_llama_spm(void **state)
{
    (void)state;
    check_vocab("llama-spm");
}

static void test_phi3(void **state)
{
    (void)state;
    check_vocab("phi-3");
}

/* Runs of spaces and of line ends are single tokens; no space in front. */
static void test_gemma(void **state)
{
    (void)state;
    check_vocab("gemma-small");
}

static size_t json_ids(const json_t *array, int32_t *ids, size_t capacity)
{
    size_t n = json_array_size(array);

    assert_true(n <= capacity);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

static json_t *load_json(const char *name)
{
    json_error_t error;
    json_t *root = json_load_file(test_data(name), JSON_ALLOW_NUL, &error);

    if (!root)
        fail_msg("%s: %s", name, error.text);
    return root;
}

/* The demo model's tokenizer: Llama-3's split. */
static void test_demo_cases(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("demo");
    json_t *root = load_json("demo/tokenizer_cases.json"), *cases = json_object_get(root, "cases"), *one;
    size_t i;
    int32_t ids[4096];

    (void)state;
    assert_true(json_array_size(cases) >= 30);
    json_array_foreach(cases, i, one)
    {
        const char *text = json_string_value(json_array_get(one, 0));
        size_t n_bytes = json_string_length(json_array_get(one, 0));
        size_t n = json_ids(json_array_get(one, 1), ids, 4096);

        expect_ids(t, text, n_bytes, 0, ids, n);
        expect_text(t, ids, n, 0, text, n_bytes);
        expect_stream(t, text, n_bytes);
    }
    json_decref(root);
    m40_tokenizer_close(&t);
}

static void test_demo_prompts(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("demo");
    json_t *root = load_json("demo/demo_ref.json"), *prompts = json_object_get(root, "prompts"), *one;
    size_t i;
    int32_t ids[4096];

    (void)state;
    assert_int_equal(m40_tokenizer_n_vocab(t), 4096);
    assert_int_equal(m40_tokenizer_bos(t), 4094);
    assert_int_equal(m40_tokenizer_eos(t), 4095);
    assert_true(m40_tokenizer_is_end(t, 4095));
    assert_false(m40_tokenizer_is_end(t, 4094) || m40_tokenizer_is_end(t, -1) || m40_tokenizer_is_end(t, 4096));
    assert_int_equal(json_array_size(prompts), 8);
    json_array_foreach(prompts, i, one)
    {
        const json_t *text = json_object_get(one, "text");
        size_t n = json_ids(json_object_get(one, "ids"), ids, 4096);

        expect_ids(t, json_string_value(text), json_string_length(text), M40LLM_TOKENIZE_ADD_BOS, ids, n);
    }
    json_decref(root);
    m40_tokenizer_close(&t);
}

/* Every byte, valid or not, comes back, unless the vocabulary lacks it, as Falcon's lacks some control characters: those are left out, as in the
 * original. (DeepSeek's has the bytes that UTF-8 never has as added tokens, which come back as characters.) */
static void test_any_bytes(void **state)
{
    static const char *const names[] = {"demo", "gpt-2", "falcon", "llama-spm"};
    uint64_t random = test_seed();
    bool lacks[256];

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        struct m40_tokenizer *t = open_tokenizer(names[k]);
        int n_lacking = 0;

        for (int i = 0; i < 256; i++) {
            char byte = (char)i;
            size_t n;

            free(tokenize(t, &byte, 1, 0, &n));
            lacks[i] = n == 0;
            n_lacking += lacks[i];
        }
        assert_int_equal(n_lacking, k == 2 ? 28 : 0); /* 65024 tokens - 12 control - 64784 merged */
        for (int round = 0; round < 300; round++) {
            char text[400], kept[400];
            size_t n = test_random(&random) % sizeof text, n_kept = 0, n_ids;
            int32_t *ids;

            for (size_t i = 0; i < n; i++) {
                text[i] = round % 3 ? (char)test_random(&random) : "a \n\xc3\xa9\xf0\x9f\x98\x80\xe2\x96"[test_random(&random) % 11];
                if (!lacks[(uint8_t)text[i]])
                    kept[n_kept++] = text[i];
            }
            ids = tokenize(t, text, n, 0, &n_ids);
            expect_text(t, ids, n_ids, 0, kept, n_kept);
            free(ids);
        }
        m40_tokenizer_close(&t);
    }
}

/* A byte that belongs to no valid sequence is one token, wherever it stands. */
static void test_invalid_byte_is_one_token(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("demo");
    size_t n_whole, n_left, n_right;
    int32_t *whole = tokenize(t, "caf\xc3 time\xe6\x97", 11, 0, &n_whole);
    int32_t *left = tokenize(t, "caf", 3, 0, &n_left), *right = tokenize(t, " time", 5, 0, &n_right);

    (void)state;
    assert_int_equal(n_whole, n_left + 1 + n_right + 2);
    assert_memory_equal(whole, left, n_left * sizeof *left);
    assert_memory_equal(whole + n_left + 1, right, n_right * sizeof *right);
    free(whole);
    free(left);
    free(right);
    m40_tokenizer_close(&t);
}

/* The example of the Unicode standard (Table 3-8): one U+FFFD for each maximal subpart, nothing before it is certain, the rest at the flush. */
static void test_stream_of_invalid_bytes(void **state)
{
    static const char bytes[] = "\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64\xe2\x82";
    static const char expected[] = "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                   "b\xef\xbf\xbd"
                                   "c\xef\xbf\xbd\xef\xbf\xbd"
                                   "d\xef\xbf\xbd";
    struct m40_tokenizer *t = open_tokenizer("gpt-2");
    size_t n_ids, n;
    int32_t *ids = tokenize(t, bytes, sizeof bytes - 1, 0, &n_ids);
    char *text = stream_all(t, ids, n_ids, 0, &n);

    (void)state;
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(text, expected, n);
    free(text);
    free(ids);
    m40_tokenizer_close(&t);
}

static void test_stream_holds_back(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("gpt-2");
    static const char rocket[] = "\xf0\x9f\x9a\x80";
    struct m40_token_stream *s;
    const char *piece;
    size_t n_ids, n;
    int32_t *ids = tokenize(t, rocket, 4, 0, &n_ids);

    (void)state;
    assert_true(n_ids >= 2);
    assert_int_equal(m40_token_stream_open(&s, t, 0, NULL), M40LLM_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_int_equal(m40_token_stream_push(s, ids[i], &piece, &n, NULL), M40LLM_OK);
        assert_int_equal(n, i + 1 < n_ids ? 0 : 4);
    }
    assert_string_equal(piece, rocket);
    assert_int_equal(m40_token_stream_push(s, 1 << 20, &piece, &n, NULL), M40LLM_INVALID_ARGUMENT);
    m40_token_stream_close(&s);
    m40_token_stream_close(&s);
    free(ids);
    m40_tokenizer_close(&t);
}

static void test_special_tokens(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("demo");
    static const char text[] = "<|begin_of_text|>A<|end_of_text|>";
    static const int32_t special[] = {4094, 32, 4095};
    size_t n;
    int32_t *ids = tokenize(t, text, strlen(text), 0, &n);

    (void)state;
    assert_true(n > 10); /* ordinary text without the flag */
    free(ids);
    expect_round_trip(t, text, strlen(text), 0);
    expect_ids(t, text, strlen(text), M40LLM_TOKENIZE_SPECIAL, special, 3);
    /* a BOS that is there is not added again */
    expect_ids(t, text, strlen(text), M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, special, 3);
    expect_ids(t, "A", 1, M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, special, 2);
    expect_ids(t, "", 0, M40LLM_TOKENIZE_ADD_BOS, special, 1);
    expect_text(t, special, 3, 0, "A", 1);
    expect_text(t, special, 3, M40LLM_DETOKENIZE_SPECIAL, text, strlen(text));
    m40_tokenizer_close(&t);
}

/* SentencePiece: the space prefix stands at the beginning and behind special tokens; user-defined tokens are always found. Ids as llama.cpp's
 * vocabulary file lists them. */
static void test_spm_prefix_and_special(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("phi-3");
    static const char text[] = "<|user|>Hello<|end|>";
    static const int32_t special[] = {1, 32010, 15043, 32007}; /* "_Hello" is 15043 */
    static const int32_t user_defined[] = {15043, 2}, spaced[] = {1, 32010, 15043, 32007, 32001}, unspaced[] = {32000, 259, 15043, 2, 15043};
    static const char spaces[] = "<|user|>\n \xc2\xa0\xe3\x80\x80\tHello<|end|>\n<|assistant|>\n\n";

    (void)state;
    expect_ids(t, text, strlen(text), M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, special, 4);
    expect_text(t, special, 4, 0, "Hello", 5);
    expect_text(t, special + 1, 3, M40LLM_DETOKENIZE_SPECIAL, text, strlen(text));
    expect_ids(t, "Hello</s>", 9, 0, user_defined, 2);
    /* white space behind special tokens is theirs, but for <|endoftext|>'s ("__" is 259) */
    expect_ids(t, spaces, strlen(spaces), M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, spaced, 5);
    expect_ids(t, "<|endoftext|>  Hello</s> Hello", 30, M40LLM_TOKENIZE_SPECIAL, unspaced, 5);
    expect_round_trip(t, "  Hello</s>Hello</s>Hello", 25, 0);
    assert_true(m40_tokenizer_is_end(t, 32000) && m40_tokenizer_is_end(t, 32007));
    assert_false(m40_tokenizer_is_end(t, 32010));
    m40_tokenizer_close(&t);
    t = open_tokenizer("llama-spm"); /* another model's take none */
    expect_round_trip(t, "  Hello</s> Hello</s>\nHello", 27, M40LLM_TOKENIZE_SPECIAL);
    m40_tokenizer_close(&t);
}

/* A conversation as Gemma's template writes it: no space follows a special token. */
static void test_gemma_turns(void **state)
{
    static const char *const parts[] = {"<start_of_turn>", "user\nHi,  you", "<end_of_turn>", "\n", "<start_of_turn>", "model\n"};
    static const int32_t start = 6, end = 7;
    struct m40_tokenizer *t = open_tokenizer("gemma-small");
    char text[256] = "";
    int32_t expected[64] = {2}; /* <bos> */
    size_t n = 1, n_part;
    int32_t *ids;

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        ids = tokenize(t, parts[i], strlen(parts[i]), 0, &n_part);
        assert_true(n + n_part < 64);
        strcat(text, parts[i]);
        if (parts[i][0] == '<') {
            assert_true(n_part > 3); /* ordinary text without the flag */
            ids[0] = i == 2 ? end : start;
            n_part = 1;
        }
        memcpy(expected + n, ids, n_part * sizeof *ids);
        n += n_part;
        free(ids);
    }
    expect_ids(t, text, strlen(text), M40LLM_TOKENIZE_SPECIAL | M40LLM_TOKENIZE_ADD_BOS, expected, n);
    expect_text(t, expected + 1, n - 1, M40LLM_DETOKENIZE_SPECIAL, text, strlen(text));
    expect_text(t, expected, n, 0, "user\nHi,  you\nmodel\n", 20);
    assert_true(m40_tokenizer_is_end(t, end) && m40_tokenizer_is_end(t, m40_tokenizer_eos(t)));
    assert_false(m40_tokenizer_is_end(t, start));
    ids = tokenize(t, "</s>", 4, 0, &n); /* Gemma's end of struck out text: user-defined */
    assert_int_equal(n, 1);
    assert_false(m40_tokenizer_is_end(t, ids[0]));
    free(ids);
    m40_tokenizer_close(&t);
}

static void test_buffers(void **state)
{
    struct m40_tokenizer *t = open_tokenizer("demo");
    int32_t ids[4] = {-7, -7, -7, -7};
    char text[4] = "....";
    size_t n;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_tokenize(t, "Hello, world!", 13, 0, ids, 3, &n, &err), M40LLM_BUFFER_TOO_SMALL);
    assert_int_equal(n, 6);
    assert_int_equal(ids[2], 78);
    assert_int_equal(ids[3], -7);
    assert_int_equal(m40_tokenize(t, "Hello", 5, 0, NULL, 0, &n, NULL), M40LLM_BUFFER_TOO_SMALL);
    assert_int_equal(m40_tokenize(t, NULL, 0, 0, NULL, 0, &n, NULL), M40LLM_OK);
    ids[0] = 39;
    ids[1] = 504;
    assert_int_equal(m40_detokenize(t, ids, 2, 0, text, 1, &n, &err), M40LLM_BUFFER_TOO_SMALL);
    assert_int_equal(n, 4);
    assert_memory_equal(text, "....", 4);
    ids[1] = 4096;
    assert_int_equal(m40_detokenize(t, ids, 2, 0, text, 4, &n, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "4096"));
    m40_tokenizer_close(&t);
}

/* The limits are 1 s for English and 2 s for runs; here a third of that, of processor time, for the machine may be busy. */
static void check_speed(const char *name)
{
    struct m40_tokenizer *t = open_tokenizer(name);
    enum { N = SANITIZED ? 1 << 16 : 1 << 20 };
    char *english = test_read_file(test_data("demo/valid.txt"), NULL), *text = malloc(N);
    static const char *const what[] = {"English", "letters", "spaces", "spaces and a letter", "newlines", "punctuation"};

    for (size_t k = 0; k < 6; k++) {
        size_t n_english = strlen(english), n_ids;
        clock_t start;
        double seconds;
        int32_t *ids;

        for (size_t i = 0; i < N; i++)
            text[i] = k == 0 ? english[i % n_english] : "?a  \n."[k];
        if (k == 3)
            memcpy(text + N - 3, "\xed\x95\x9c", 3); /* a letter that no class of DeepSeek's joins to spaces */
        start = clock();
        ids = tokenize(t, text, N, 0, &n_ids);
        seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        print_message("%s, %d KiB of %s: %.3f s, %zu ids\n", name, N / 1024, what[k], seconds, n_ids);
        if (!SANITIZED)
            assert_true(seconds < (k == 0 ? 1.0 : 2.0) / 3);
        expect_text(t, ids, n_ids, 0, text, N);
        free(ids);
    }
    free(english);
    free(text);
    m40_tokenizer_close(&t);
}

static void test_speed(void **state)
{
    (void)state;
    check_speed("demo");
    check_speed("deepseek-llm");
    check_speed("llama-spm");
}

static void test_open_speed(void **state)
{
    struct m40_gguf *gguf;
    struct m40_tokenizer *t;
    clock_t start;
    double seconds;

    (void)state;
    assert_int_equal(m40_gguf_open(&gguf, test_data("vocab/ggml-vocab-deepseek-llm.gguf"), NULL), M40LLM_OK);
    start = clock();
    assert_int_equal(m40_tokenizer_open(&t, gguf, NULL), M40LLM_OK);
    seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("deepseek-llm, 102400 tokens: opened in %.3f s\n", seconds);
    if (!SANITIZED)
        assert_true(seconds < 0.2);
    m40_tokenizer_close(&t);
    m40_gguf_close(&gguf);
}

static const char *vocab_of_user;

static void test_vocab_of_user(void **state)
{
    (void)state;
    check_vocab(vocab_of_user);
}

/* An argument: another vocabulary with its texts and ids (tests/data/vocab/make_vocab.py). */
int main(int argc, char **argv)
{
    const struct CMUnitTest test_of_user[] = {cmocka_unit_test(test_vocab_of_user)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_falcon),
        cmocka_unit_test(test_deepseek_llm),
        cmocka_unit_test(test_llama_spm),
        cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_gemma_turns),
        cmocka_unit_test(test_demo_cases),
        cmocka_unit_test(test_demo_prompts),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_invalid_byte_is_one_token),
        cmocka_unit_test(test_stream_of_invalid_bytes),
        cmocka_unit_test(test_stream_holds_back),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_spm_prefix_and_special),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_speed),
        cmocka_unit_test(test_open_speed),
    };

    if (argc > 1) {
        vocab_of_user = argv[1];
        return cmocka_run_group_tests_name("vocabulary", test_of_user, NULL, NULL);
    }
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
