/* Tokenizer metadata that contradict themselves, lack something or were made to do harm: each is an error that names its key. And the rules for
 * what may be absent. */
#include "harness/harness.h"

#include "base/mem.h"
#include "harness/gguf_bytes.h"
#include "tokenizer/tokenizer.h"

#include <math.h>

#define T "tokenizer.ggml."

/* A vocabulary small enough to be seen at a glance; each test changes one thing. NULL or 0 leaves an entry out. */
struct spec {
    const char *model, *pre;
    struct m40_str tokens[320];
    size_t n_tokens;
    int32_t types[320];
    size_t n_types;
    float scores[320];
    size_t n_scores;
    struct m40_str merges[8];
    size_t n_merges;
    bool no_tokens, tokens_are_numbers, merges_are_numbers, types_are_strings, no_merges, add_bos_is_number;
    int64_t bos, eos, eot, unk; /* -1: absent */
    int add_bos, add_eos, add_space_prefix;
};

static void add_token(struct spec *s, const char *text, int32_t type, float score)
{
    s->tokens[s->n_tokens++] = m40_str_from(text);
    s->types[s->n_types++] = type;
    s->scores[s->n_scores++] = score;
}

static struct spec bpe_spec(void)
{
    struct spec s = {
        .model = "gpt2", .pre = "gpt-2", .bos = -1, .eos = -1, .eot = -1, .unk = -1, .add_bos = -1, .add_eos = -1, .add_space_prefix = -1};
    static const char *const tokens[] = {"a", "b", "c", "ab", "abc", "aa", "<s>", "</s>", "<x>", "<xy>"};
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 3, 3, 4, 4};
    static const char *const merges[] = {"a b", "ab c", "a a"};

    for (size_t i = 0; i < 10; i++)
        add_token(&s, tokens[i], types[i], 0);
    s.n_scores = 0;
    for (size_t i = 0; i < 3; i++)
        s.merges[s.n_merges++] = m40_str_from(merges[i]);
    return s;
}

static struct spec spm_spec(void)
{
    struct spec s = bpe_spec();

    s.model = "llama";
    s.pre = NULL;
    s.no_merges = true;
    s.n_tokens = s.n_types = s.n_scores = 0;
    add_token(&s, "<unk>", 2, 0);
    add_token(&s, "<s>", 3, 0);
    add_token(&s, "</s>", 3, 0);
    add_token(&s, "<0xC3>", 6, 0);
    add_token(&s, "<0xA9>", 6, 0);
    add_token(&s, "\xe2\x96\x81", 1, -5);
    add_token(&s, "a", 1, -6);
    add_token(&s, "b", 1, -7);
    add_token(&s,
              "\xe2\x96\x81"
              "a",
              1, -2);
    add_token(&s, "ab", 1, -1);
    add_token(&s, "<x>", 4, 0);
    return s;
}

static void write_spec(const struct spec *s, struct gguf_bytes *g)
{
    static const int32_t numbers[4] = {1, 2, 3, 4};

    if (s->model)
        gguf_put_string(g, T "model", s->model);
    if (s->pre)
        gguf_put_string(g, T "pre", s->pre);
    if (s->tokens_are_numbers)
        gguf_put_i32s(g, T "tokens", numbers, 4);
    else if (!s->no_tokens)
        gguf_put_strings(g, T "tokens", s->tokens, s->n_tokens);
    if (s->types_are_strings)
        gguf_put_strings(g, T "token_type", s->tokens, s->n_tokens);
    else if (s->n_types)
        gguf_put_i32s(g, T "token_type", s->types, s->n_types);
    if (s->n_scores)
        gguf_put_f32s(g, T "scores", s->scores, s->n_scores);
    if (s->merges_are_numbers)
        gguf_put_i32s(g, T "merges", numbers, 4);
    else if (!s->no_merges)
        gguf_put_strings(g, T "merges", s->merges, s->n_merges);
    if (s->bos >= 0)
        gguf_put_u32(g, T "bos_token_id", (uint32_t)s->bos);
    if (s->eos >= 0)
        gguf_put_u32(g, T "eos_token_id", (uint32_t)s->eos);
    if (s->eot >= 0)
        gguf_put_u32(g, T "eot_token_id", (uint32_t)s->eot);
    if (s->unk >= 0)
        gguf_put_u32(g, T "unknown_token_id", (uint32_t)s->unk);
    if (s->add_bos_is_number)
        gguf_put_string(g, T "add_bos_token", "yes");
    else if (s->add_bos >= 0)
        gguf_put_bool(g, T "add_bos_token", (uint8_t)s->add_bos);
    if (s->add_eos >= 0)
        gguf_put_bool(g, T "add_eos_token", (uint8_t)s->add_eos);
    if (s->add_space_prefix >= 0)
        gguf_put_bool(g, T "add_space_prefix", (uint8_t)s->add_space_prefix);
    gguf_finish(g);
}

static m40llm_status open_spec(const struct spec *s, struct m40_tokenizer **t, m40llm_error *err)
{
    struct gguf_bytes g = {0};
    struct m40_gguf *gguf;
    m40llm_status status;

    write_spec(s, &g);
    assert_int_equal(m40_gguf_parse(&gguf, g.file.data, g.file.n_bytes, "test", err), M40LLM_OK);
    status = m40_tokenizer_open(t, gguf, err);
    assert_true((status == M40LLM_OK) == (*t != NULL));
    m40_gguf_close(&gguf);
    gguf_bytes_free(&g);
    return status;
}

static void expect_error(const struct spec *s, m40llm_status expected, const char *named)
{
    struct m40_tokenizer *t;
    m40llm_error err = {0};
    m40llm_status status = open_spec(s, &t, &err);

    if (status != expected || !strstr(err.text, named))
        fail_msg("expected %d naming %s, got %d: %s", expected, named, status, err.text);
    assert_int_equal(err.code, expected);
}

static struct m40_tokenizer *open_good(const struct spec *s)
{
    struct m40_tokenizer *t;
    m40llm_error err;

    if (open_spec(s, &t, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return t;
}

/* ids as "1 2 3" */
static void expect_ids(const struct m40_tokenizer *t, const char *text, unsigned flags, const char *expected)
{
    int32_t ids[64];
    char line[512] = "";
    size_t n, at = 0;

    assert_int_equal(m40_tokenize(t, text, strlen(text), flags, ids, 64, &n, NULL), M40LLM_OK);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, i ? " %d" : "%d", ids[i]);
    assert_string_equal(line, expected);
}

#define EXPECT(base, change, status, named)                                                                                                          \
    do {                                                                                                                                             \
        struct spec s = base();                                                                                                                      \
                                                                                                                                                     \
        change;                                                                                                                                      \
        expect_error(&s, status, named);                                                                                                             \
    } while (0)

static void test_no_tokenizer(void **state)
{
    (void)state;
    EXPECT(bpe_spec, s.model = NULL, M40LLM_NO_TOKENIZER, T "model");
    EXPECT(bpe_spec, s.model = "bert", M40LLM_NO_TOKENIZER, "'bert'; known are gpt2, llama");
    EXPECT(bpe_spec, s.model = "", M40LLM_NO_TOKENIZER, T "model");
    EXPECT(bpe_spec, s.pre = "tomorrow", M40LLM_NO_TOKENIZER, T "pre: unknown 'tomorrow'; known are default, gpt-2, llama-bpe");
    EXPECT(bpe_spec, s.pre = "gpt-2 mpt", M40LLM_NO_TOKENIZER, T "pre");
}

static void test_bad_tokens(void **state)
{
    static char huge[12000];

    (void)state;
    memset(huge, 'a', sizeof huge - 1);
    EXPECT(bpe_spec, s.no_tokens = true, M40LLM_BAD_FILE, T "tokens is missing");
    EXPECT(bpe_spec, s.n_tokens = 0, M40LLM_BAD_FILE, T "tokens is empty");
    EXPECT(bpe_spec, s.tokens_are_numbers = true, M40LLM_BAD_FILE, T "tokens is not an array of strings");
    EXPECT(bpe_spec, s.tokens[5] = s.tokens[2], M40LLM_BAD_FILE, T "tokens: tokens 2 and 5 are the same: 'c'");
    EXPECT(bpe_spec, s.tokens[5] = m40_str_from(huge), M40LLM_BAD_FILE, T "tokens: token 5 has 11999 bytes");
    EXPECT(bpe_spec, s.n_types--, M40LLM_BAD_FILE, T "token_type has 9 elements for 10 tokens");
    EXPECT(bpe_spec, s.n_types++, M40LLM_BAD_FILE, T "token_type");
    EXPECT(bpe_spec, s.types_are_strings = true, M40LLM_BAD_FILE, T "token_type is not an array of numbers");
    EXPECT(bpe_spec, s.types[3] = 7, M40LLM_BAD_FILE, T "token_type: token 3 has type 7");
    EXPECT(bpe_spec, s.types[3] = -1, M40LLM_BAD_FILE, T "token_type");
    EXPECT(spm_spec, s.n_scores = 0, M40LLM_BAD_FILE, T "scores is missing");
    EXPECT(spm_spec, s.n_scores--, M40LLM_BAD_FILE, T "scores has 10 elements for 11 tokens");
    EXPECT(spm_spec, s.scores[7] = NAN, M40LLM_BAD_FILE, T "scores: the score of token 7 is not a number");
}

static void test_bad_merges(void **state)
{
    (void)state;
    EXPECT(bpe_spec, s.no_merges = true, M40LLM_BAD_FILE, T "merges is missing");
    EXPECT(bpe_spec, s.merges_are_numbers = true, M40LLM_BAD_FILE, T "merges is not an array of strings");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from("ab"), M40LLM_BAD_FILE, T "merges: rule 1 is not two tokens: 'ab'");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from(""), M40LLM_BAD_FILE, T "merges: rule 1");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from(" "), M40LLM_BAD_FILE, T "merges: rule 1");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from("a "), M40LLM_BAD_FILE, T "merges: rule 1");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from("a z"), M40LLM_BAD_FILE, T "merges: rule 1 names something that is no token: 'a z'");
    EXPECT(bpe_spec, s.merges[1] = m40_str_from("b c"), M40LLM_BAD_FILE, T "merges: rule 1"); /* both are tokens, "bc" is not */
    EXPECT(bpe_spec, s.merges[2] = s.merges[0], M40LLM_BAD_FILE, T "merges: rule 2 is there twice: 'a b'");
}

static void test_bad_ids(void **state)
{
    (void)state;
    EXPECT(bpe_spec, s.bos = 10, M40LLM_BAD_FILE, T "bos_token_id is 10, but there are 10 tokens");
    EXPECT(bpe_spec, s.eos = UINT32_MAX, M40LLM_BAD_FILE, T "eos_token_id");
    EXPECT(bpe_spec, s.eot = 1000, M40LLM_BAD_FILE, T "eot_token_id");
    EXPECT(bpe_spec, s.unk = 1 << 30, M40LLM_BAD_FILE, T "unknown_token_id");
    EXPECT(bpe_spec, s.add_bos = 1, M40LLM_BAD_FILE, T "add_bos_token is true, but there is no " T "bos_token_id");
    EXPECT(bpe_spec, s.add_eos = 1, M40LLM_BAD_FILE, T "add_eos_token");
    EXPECT(bpe_spec, s.add_bos_is_number = true, M40LLM_BAD_FILE, T "add_bos_token is not a boolean");
}

static void test_bpe_defaults(void **state)
{
    struct spec s = bpe_spec();
    struct m40_tokenizer *t = open_good(&s);

    (void)state;
    assert_int_equal(m40_tokenizer_bos(t), -1);
    assert_int_equal(m40_tokenizer_eos(t), -1);
    assert_true(m40_tokenizer_is_end(t, 7)); /* "</s>", a control token, by its name */
    expect_ids(t, "abcaab", M40LLM_TOKENIZE_ADD_BOS, "4 0 3");
    expect_ids(t, "<s>a", 0, "0"); /* no tokens for "<", "s", ">" */
    expect_ids(t, "<s>a", M40LLM_TOKENIZE_SPECIAL, "6 0");
    expect_ids(t, "a<xy><x>b", 0, "0 9 8 1"); /* user-defined: always, the longest first */
    m40_tokenizer_close(&t);

    s.bos = 6;
    s.eos = 7;
    s.unk = 2;
    t = open_good(&s);
    expect_ids(t, "z", M40LLM_TOKENIZE_ADD_BOS, "2"); /* GPT-2's family adds no BOS by default */
    m40_tokenizer_close(&t);
    s.pre = "llama-bpe"; /* this one does */
    t = open_good(&s);
    expect_ids(t, "a", M40LLM_TOKENIZE_ADD_BOS, "6 0");
    expect_ids(t, "a", 0, "0");
    m40_tokenizer_close(&t);
    s.add_bos = 0;
    s.add_eos = 1;
    t = open_good(&s);
    expect_ids(t, "a", M40LLM_TOKENIZE_ADD_BOS, "0 7");
    expect_ids(t, "a</s>", M40LLM_TOKENIZE_ADD_BOS | M40LLM_TOKENIZE_SPECIAL, "0 7"); /* there already */
    m40_tokenizer_close(&t);
}

/* Llama-3 takes a piece that is a token whole, even where no merge leads there. */
static void test_ignore_merges(void **state)
{
    struct spec s = bpe_spec();
    struct m40_tokenizer *t;

    (void)state;
    s.n_merges = 1; /* "a b" */
    t = open_good(&s);
    expect_ids(t, "abc", 0, "3 2");
    m40_tokenizer_close(&t);
    s.pre = "llama3";
    t = open_good(&s);
    expect_ids(t, "abc", 0, "4");
    expect_ids(t, "abca", 0, "3 2 0");
    m40_tokenizer_close(&t);
}

/* No pre-tokenizer named: llama.cpp's default, which cuts digits in threes and punctuation off. */
static void test_missing_pre(void **state)
{
    struct spec s = bpe_spec();
    struct m40_tokenizer *t;

    (void)state;
    s.pre = NULL;
    t = open_good(&s);
    expect_ids(t, "abc", 0, "4");
    m40_tokenizer_close(&t);
    s.pre = "";
    t = open_good(&s);
    m40_tokenizer_close(&t);
}

static void test_spm_rules(void **state)
{
    struct spec s = spm_spec();
    struct m40_tokenizer *t = open_good(&s);
    static const int32_t with_prefix[] = {1, 8, 2, 8};
    char text[16];
    size_t n;

    (void)state;
    assert_int_equal(m40_tokenizer_bos(t), 1);
    assert_int_equal(m40_tokenizer_eos(t), 2);
    expect_ids(t, "a", M40LLM_TOKENIZE_ADD_BOS, "1 8");
    expect_ids(t, "ab", 0, "5 9"); /* "ab" has the higher score than "_a" */
    expect_ids(t, "aab", 0, "8 9");
    expect_ids(t, "\xc3\xa9", 0, "5 3 4");
    expect_ids(t, "a\xc3\xa8", 0, "8 0"); /* a byte without a token: unknown */
    expect_ids(t, "<x>a", 0, "10 8");     /* the prefix behind a special token, not in front of it */
    expect_ids(t, "", 0, "");
    expect_ids(t, "", M40LLM_TOKENIZE_ADD_BOS, "1");
    assert_int_equal(m40_detokenize(t, with_prefix, 4, 0, text, sizeof text, &n, NULL), M40LLM_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(text, "aa", 2);
    m40_tokenizer_close(&t);

    s.add_space_prefix = 0;
    t = open_good(&s);
    expect_ids(t, "a a", 0, "6 8");
    assert_int_equal(m40_detokenize(t, with_prefix, 4, 0, text, sizeof text, &n, NULL), M40LLM_OK);
    assert_memory_equal(text, " a a", 4);
    m40_tokenizer_close(&t);
}

/* Without types, byte tokens are known by their form, BOS and EOS by their ids. */
static void test_missing_types(void **state)
{
    struct spec s = spm_spec();
    struct m40_tokenizer *t;

    (void)state;
    s.n_types = 0;
    t = open_good(&s);
    expect_ids(t, "\xc3\xa9", 0, "5 3 4");
    expect_ids(t, "<s>a", M40LLM_TOKENIZE_SPECIAL, "1 8");
    m40_tokenizer_close(&t);
}

/* Gaps in a vocabulary: empty texts, several of them. */
static void test_empty_tokens(void **state)
{
    struct spec s = bpe_spec();
    struct m40_tokenizer *t;
    static const int32_t ids[] = {0, 10, 11};
    char text[8];
    size_t n;

    (void)state;
    add_token(&s, "", 4, 0);
    add_token(&s, "", 1, 0);
    s.n_scores = 0;
    t = open_good(&s);
    expect_ids(t, "abc", 0, "4");
    assert_int_equal(m40_detokenize(t, ids, 3, 0, text, sizeof text, &n, NULL), M40LLM_OK);
    assert_int_equal(n, 1);
    m40_tokenizer_close(&t);
}

/* Whether "<|end|>" ends an answer, beside these tokens of this type. */
static bool message_end_is_end(const char *a, const char *b, int32_t type, bool is_eos, bool is_eot)
{
    struct spec s = bpe_spec();
    struct m40_tokenizer *t;
    bool is_end;

    add_token(&s, "<|end|>", 3, 0); /* 10 */
    add_token(&s, a, type, 0);
    add_token(&s, b, type, 0);
    s.n_scores = 0;
    s.eos = is_eos ? 10 : 11;
    s.eot = is_eot ? 10 : -1;
    t = open_good(&s);
    is_end = m40_tokenizer_is_end(t, 10);
    m40_tokenizer_close(&t);
    return is_end;
}

/* Messages end with it, where an answer has several; elsewhere answers do. */
static void test_message_ends(void **state)
{
    (void)state;
    assert_false(message_end_is_end("<|return|>", "<|call|>", 3, false, false));
    assert_false(message_end_is_end("<|return|>", "<|call|>", 3, false, true)); /* files have it as EOT */
    assert_false(message_end_is_end("<|calls|>", "<|flush|>", 3, false, false));
    assert_true(message_end_is_end("<|return|>", "<|call|>", 3, true, false));
    assert_true(message_end_is_end("<|return|>", "<|call|>", 1, false, false)); /* ordinary text */
    assert_true(message_end_is_end("<|return|>", "<|x|>", 3, false, false));
    assert_true(message_end_is_end("<|user|>", "<|assistant|>", 3, false, true));
}

static int n_allocations_left;

static bool fail_later(void *user)
{
    (void)user;
    return n_allocations_left-- <= 0;
}

/* Every allocation fails once; none leaks, none crashes. */
static void test_out_of_memory(void **state)
{
    struct spec specs[2] = {bpe_spec(), spm_spec()};

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct gguf_bytes g = {0};
        struct m40_gguf *gguf;
        m40llm_status status = M40LLM_NO_MEMORY;

        write_spec(&specs[k], &g);
        assert_int_equal(m40_gguf_parse(&gguf, g.file.data, g.file.n_bytes, "test", NULL), M40LLM_OK);
        for (int n = 0; status != M40LLM_OK; n++) {
            struct m40_tokenizer *t;
            struct m40_token_stream *stream = NULL;
            const char *piece;
            int32_t ids[16];
            size_t n_ids, n_bytes;

            assert_true(n < 200);
            n_allocations_left = n;
            m40_mem_set_failure_hook(fail_later, NULL);
            status = m40_tokenizer_open(&t, gguf, NULL);
            if (status == M40LLM_OK)
                status = m40_tokenize(t, "ab a", 4, 0, ids, 16, &n_ids, NULL);
            if (status == M40LLM_OK)
                status = m40_token_stream_open(&stream, t, 0, NULL);
            if (status == M40LLM_OK)
                status = m40_token_stream_push(stream, ids[0], &piece, &n_bytes, NULL);
            m40_mem_set_failure_hook(NULL, NULL);
            assert_true(status == M40LLM_OK || status == M40LLM_NO_MEMORY);
            m40_token_stream_close(&stream);
            m40_tokenizer_close(&t);
        }
        m40_gguf_close(&gguf);
        gguf_bytes_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_tokenizer), cmocka_unit_test(test_bad_tokens),   cmocka_unit_test(test_bad_merges),
        cmocka_unit_test(test_bad_ids),      cmocka_unit_test(test_bpe_defaults), cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_missing_pre),  cmocka_unit_test(test_spm_rules),    cmocka_unit_test(test_missing_types),
        cmocka_unit_test(test_empty_tokens), cmocka_unit_test(test_message_ends), cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("tokenizer metadata", tests, NULL, NULL);
}
