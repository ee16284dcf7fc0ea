/* The text of an answer: stop strings across the borders of tokens, whole characters, whatever tokens the text is cut into; and log probabilities. */
#include "harness/harness.h"

#include "engine/answer.h"
#include "engine/logprobs.h"
#include "gguf/gguf.h"
#include "tokenizer/utf8.h"

#include <math.h>

enum { MAX_IDS = 512 };

static struct m40_gguf *gguf;
static struct m40_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    m40llm_error err;

    (void)state;
    if (m40_gguf_open(&gguf, test_data("vocab/ggml-vocab-gpt-2.gguf"), &err) != M40LLM_OK || m40_tokenizer_open(&tokenizer, gguf, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    m40_tokenizer_close(&tokenizer);
    m40_gguf_close(&gguf);
    return 0;
}

/* Ids of a text, as the tokenizer has them, or (by_bytes) one for each byte. */
static size_t ids_of(const char *text, bool by_bytes, int32_t *ids)
{
    size_t n = 0, n_bytes = strlen(text), n_more;

    if (!by_bytes) {
        assert_int_equal(m40_tokenize(tokenizer, text, n_bytes, 0, ids, MAX_IDS, &n, NULL), M40LLM_OK);
        return n;
    }
    for (size_t i = 0; i < n_bytes; i++, n += n_more) /* a lone byte is taken as it is */
        assert_int_equal(m40_tokenize(tokenizer, text + i, 1, 0, ids + n, MAX_IDS - n, &n_more, NULL), M40LLM_OK);
    return n;
}

static bool is_whole(const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + i, n_bytes - i);

        if (!u.valid)
            return false;
        i += u.n_bytes;
    }
    return true;
}

struct outcome {
    char text[2048];
    size_t n_text, n_longest_held; /* bytes that had come and were not given out */
    bool is_stopped;
};

static void append(struct outcome *o, struct m40_str text)
{
    assert_true(o->n_text + text.n_bytes < sizeof o->text && text.data[text.n_bytes] == 0);
    assert_true(is_whole(text.data, text.n_bytes));
    memcpy(o->text + o->n_text, text.data, text.n_bytes);
    o->n_text += text.n_bytes;
    o->text[o->n_text] = 0;
}

/* Tokens from n_unwatched on are watched. */
static void feed(const char *text, bool by_bytes, const char *const *strings, size_t n_strings, size_t n_unwatched, struct outcome *o)
{
    struct m40_answer answer = {0};
    struct m40_stops stops;
    int32_t ids[MAX_IDS];
    size_t n = ids_of(text, by_bytes, ids), n_in = 0;
    struct m40_str piece;

    memset(o, 0, sizeof *o);
    assert_int_equal(m40_stops_init(&stops, strings, n_strings, NULL), M40LLM_OK);
    assert_int_equal(m40_answer_init(&answer, tokenizer, &stops, NULL, 0, NULL), M40LLM_OK);
    for (size_t i = 0; i < n && !o->is_stopped; i++) {
        char bytes[256];
        size_t n_bytes;

        assert_int_equal(m40_answer_push(&answer, ids[i], i >= n_unwatched, &piece, &o->is_stopped, NULL), M40LLM_OK);
        append(o, piece);
        assert_int_equal(m40_detokenize(tokenizer, &ids[i], 1, 0, bytes, sizeof bytes, &n_bytes, NULL), M40LLM_OK);
        n_in += n_bytes;
        if (!o->is_stopped && n_in - o->n_text > o->n_longest_held)
            o->n_longest_held = n_in - o->n_text;
    }
    if (!o->is_stopped) {
        assert_int_equal(m40_answer_flush(&answer, &piece, NULL), M40LLM_OK);
        append(o, piece);
    }
    m40_answer_free(&answer);
    m40_stops_free(&stops);
}

static void expect(const char *text, const char *const *strings, size_t n_strings, const char *expected, bool is_stopped)
{
    struct outcome o;

    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        feed(text, by_bytes, strings, n_strings, 0, &o);
        assert_string_equal(o.text, expected);
        assert_int_equal(o.is_stopped, is_stopped);
    }
}

static void test_stop_strings(void **state)
{
    (void)state;
    expect("The end. More", (const char *const[]){"end"}, 1, "The ", true);
    expect("The end. More", (const char *const[]){"en d", "x"}, 2, "The end. More", false);
    expect("one\n\ntwo", (const char *const[]){"\n\n"}, 1, "one", true);
    expect("one\ntwo\n", (const char *const[]){"\n\n"}, 1, "one\ntwo\n", false); /* what was held back comes at the end */
    expect("abcabcabd!", (const char *const[]){"abcabd"}, 1, "abc", true);
    expect("aaab", (const char *const[]){"aab"}, 1, "a", true);
    expect("stop", (const char *const[]){"stop"}, 1, "", true);
    expect("x abc", (const char *const[]){"b", "abc"}, 2, "x a", true); /* the one that is complete first */
    expect("x abc", (const char *const[]){"bc", "abc"}, 2, "x ", true); /* of those the longest */
    expect("naïve café", (const char *const[]){"é"}, 1, "naïve caf", true);
    expect("日本語です", (const char *const[]){"語で"}, 1, "日本", true);
    expect("", (const char *const[]){"x"}, 1, "", false);
    expect("no stop strings", NULL, 0, "no stop strings", false);
}

/* Nothing is held back for longer than it may matter. */
static void test_what_is_held_back(void **state)
{
    struct outcome o;

    (void)state;
    feed("some ordinary text, in one byte a token", true, (const char *const[]){"ordinal", "xyz"}, 2, 0, &o);
    assert_int_equal(o.n_longest_held, 6); /* "ordina", and then "r" tells */
    feed("some ordinary text", true, NULL, 0, 0, &o);
    assert_int_equal(o.n_longest_held, 0);
    feed("日本", true, NULL, 0, 0, &o);
    assert_int_equal(o.n_longest_held, 2);
}

/* The text that has come when these bytes, a control token, and one more byte have. */
static void expect_around_control(const char *bytes, const char *before, const char *at, const char *behind)
{
    static const char *const strings[] = {"abc"};
    const char *const expected[] = {before, at, behind};
    struct m40_answer answer = {0};
    struct m40_stops stops;
    int32_t ids[MAX_IDS];
    size_t n = ids_of(bytes, true, ids);
    struct outcome o = {0};
    struct m40_str piece;

    assert_true(m40_tokenizer_is_control(tokenizer, m40_tokenizer_eos(tokenizer)));
    ids[n] = m40_tokenizer_eos(tokenizer);
    assert_int_equal(ids_of("c", true, ids + n + 1), 1);
    assert_int_equal(m40_stops_init(&stops, strings, 1, NULL), M40LLM_OK);
    assert_int_equal(m40_answer_init(&answer, tokenizer, &stops, NULL, 0, NULL), M40LLM_OK);
    for (size_t i = 0; i < n + 2; i++) {
        assert_int_equal(m40_answer_push(&answer, ids[i], true, &piece, &o.is_stopped, NULL), M40LLM_OK);
        append(&o, piece);
        assert_false(o.is_stopped);
        if (i + 1 >= n)
            assert_string_equal(o.text, expected[i + 1 - n]);
    }
    m40_answer_free(&answer);
    m40_stops_free(&stops);
}

/* Neither characters nor stop strings reach across a control token; what was held back comes with it. */
static void test_control_tokens(void **state)
{
    (void)state;
    expect_around_control("xab", "x", "xab", "xabc");
    expect_around_control("x\xe6\x97", "x", "x\xef\xbf\xbd",
                          "x\xef\xbf\xbd"
                          "c");
    expect_around_control("xab\xe6\x97", "x", "xab\xef\xbf\xbd",
                          "xab\xef\xbf\xbd"
                          "c");
    expect_around_control("x", "x", "x", "xc");
    assert_false(m40_tokenizer_is_control(tokenizer, 0) || m40_tokenizer_is_control(tokenizer, -1) || m40_tokenizer_is_control(tokenizer, 1 << 20));
}

static void test_min_tokens(void **state)
{
    struct outcome o;

    (void)state;
    feed("abababab", true, (const char *const[]){"ba"}, 1, 4, &o);
    assert_string_equal(o.text, "ababa"); /* bytes 5 and 6 are the first "ba" that is watched */
    assert_true(o.is_stopped);
}

/* Against the definition, over two letters so that matches and near misses abound. */
static void test_against_a_search(void **state)
{
    uint64_t random = test_seed() ^ 31;

    (void)state;
    for (int round = 0; round < 300; round++) {
        char text[80] = "", strings[3][8] = {"", "", ""}, expected[80];
        const char *const list[3] = {strings[0], strings[1], strings[2]};
        size_t n_text = 1 + test_random(&random) % 70, n_strings = 1 + test_random(&random) % 3;
        bool is_stopped = false;

        for (size_t i = 0; i < n_text; i++)
            text[i] = (char)('a' + test_random(&random) % 2);
        for (size_t k = 0; k < n_strings; k++)
            for (size_t i = 0, n = 2 + test_random(&random) % 5; i < n; i++)
                strings[k][i] = (char)('a' + test_random(&random) % 2);
        memcpy(expected, text, sizeof expected);
        for (size_t end = 1; end <= n_text && !is_stopped; end++)
            for (size_t begin = 0; begin < end && !is_stopped; begin++)
                for (size_t k = 0; k < n_strings; k++)
                    if (strlen(strings[k]) == end - begin && memcmp(text + begin, strings[k], end - begin) == 0) {
                        is_stopped = true;
                        expected[begin] = 0;
                    }
        expect(text, list, n_strings, expected, is_stopped);
    }
}

static void test_bad_stop_strings(void **state)
{
    static char text[M40LLM_MAX_STOP_BYTES + 2];
    const char *many[M40LLM_MAX_STOPS + 1];
    struct m40_stops stops;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_stops_init(&stops, (const char *const[]){"a", ""}, 2, &err), M40LLM_INVALID_ARGUMENT);
    assert_string_equal(err.text, "stop string 1 is empty");
    assert_int_equal(m40_stops_init(&stops, (const char *const[]){"a\xff"}, 1, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_stops_init(&stops, (const char *const[]){"\xe6\x97"}, 1, &err), M40LLM_INVALID_ARGUMENT);
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(m40_stops_init(&stops, (const char *const[]){text}, 1, &err), M40LLM_INVALID_ARGUMENT);
    for (size_t i = 0; i <= M40LLM_MAX_STOPS; i++)
        many[i] = "a";
    assert_int_equal(m40_stops_init(&stops, many, M40LLM_MAX_STOPS + 1, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_stops_init(&stops, many, M40LLM_MAX_STOPS, &err), M40LLM_OK);
    m40_stops_free(&stops);
}

/* ---- log probabilities ---- */

static void test_logprobs(void **state)
{
    float logits[1000];
    m40llm_token_logprob top[20];
    uint64_t random = test_seed() ^ 5;
    double offset, sum = 0, best = -INFINITY;

    (void)state;
    for (int i = 0; i < 1000; i++)
        logits[i] = 20 * test_random_float(&random);
    logits[17] = -INFINITY;
    logits[18] = NAN;
    logits[700] = logits[70] = 21; /* a tie */
    for (int i = 0; i < 1000; i++)
        best = logits[i] > best ? (double)logits[i] : best;
    for (int i = 0; i < 1000; i++)
        sum += i == 18 ? 0 : exp((double)logits[i] - best);
    offset = m40_logprobs_offset(logits, 1000);
    assert_true(fabs(offset - best - log(sum)) < 1e-5);
    assert_true(m40_logprob(logits[17], offset) == -INFINITY && m40_logprob(logits[18], offset) == -INFINITY);
    m40_logprobs_top(logits, 1000, offset, top, 20);
    assert_int_equal(top[0].id, 70);
    assert_int_equal(top[1].id, 700);
    for (int k = 1; k < 20; k++) {
        int n_before = 0;

        assert_true(top[k - 1].logprob >= top[k].logprob);
        assert_true(top[k].logprob == m40_logprob(logits[top[k].id], offset));
        for (int i = 0; i < 1000; i++)
            n_before += logits[i] > logits[top[k].id] || (logits[i] == logits[top[k].id] && i < top[k].id);
        assert_int_equal(n_before, k);
    }
}

static void test_logprobs_of_odd_rows(void **state)
{
    const float infinite[] = {1, INFINITY, NAN, 2}, none[] = {-INFINITY, NAN, -INFINITY};
    m40llm_token_logprob top[4];

    (void)state;
    m40_logprobs_top(infinite, 4, m40_logprobs_offset(infinite, 4), top, 4);
    assert_int_equal(top[0].id, 1);
    assert_true(top[0].logprob == 0 && top[1].id == 3 && top[1].logprob == -INFINITY);
    m40_logprobs_top(none, 3, m40_logprobs_offset(none, 3), top, 3);
    for (int i = 0; i < 3; i++)
        assert_true(top[i].logprob == -INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_strings), cmocka_unit_test(test_what_is_held_back),    cmocka_unit_test(test_control_tokens),
        cmocka_unit_test(test_min_tokens),   cmocka_unit_test(test_against_a_search),     cmocka_unit_test(test_bad_stop_strings),
        cmocka_unit_test(test_logprobs),     cmocka_unit_test(test_logprobs_of_odd_rows),
    };

    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
