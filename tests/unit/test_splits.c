/* Every family of pre-tokenizers against the pieces that another implementation makes of the same texts (tests/data/vocab/make_splits.py), and against long runs of one kind.
 * `test_splits FILE` checks the texts of another file of that form. */
#include "harness/harness.h"

#include "tokenizer/pretokenize.h"

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

static const char *file_of_splits;

struct pieces {
    const char *next;
    struct m40_buf lengths; /* "1 2 3" */
};

static m40llm_status take_piece(void *user, const char *piece, size_t n_bytes, m40llm_error *err)
{
    struct pieces *p = user;
    char number[24];
    int n = snprintf(number, sizeof number, p->lengths.n_bytes ? " %zu" : "%zu", n_bytes);

    (void)err;
    assert_ptr_equal(piece, p->next);
    assert_true(n_bytes > 0);
    p->next += n_bytes;
    assert_true(m40_buf_append(&p->lengths, number, (size_t)n));
    return M40LLM_OK;
}

static struct m40_pretokenizer *open_family(const char *name)
{
    struct m40_pretokenizer *pre;
    m40llm_error err;

    if (m40_pretokenizer_open(&pre, m40_str_from(name), &err) != M40LLM_OK)
        fail_msg("%s: %s", name, err.text);
    return pre;
}

/* Whether the pieces are the expected ones; says so where they are not. */
static bool is_split(const struct m40_pretokenizer *pre, const char *name, const char *text, size_t n_bytes, const char *expected)
{
    struct pieces p = {.next = text};
    m40llm_error err;
    bool same;

    if (m40_pretokenize(pre, text, n_bytes, take_piece, &p, &err) != M40LLM_OK)
        fail_msg("%s: %s", name, err.text);
    assert_ptr_equal(p.next, text + n_bytes);
    assert_true(m40_buf_append(&p.lengths, "", 0));
    same = strcmp(p.lengths.data, expected) == 0;
    if (!same)
        print_message("%s: '%.*s'\n got      %s\n expected %s\n", name, (int)n_bytes, text, p.lengths.data, expected);
    m40_buf_free(&p.lengths);
    return same;
}

static void test_published_splits(void **state)
{
    json_error_t error;
    json_t *root = json_load_file(file_of_splits, JSON_ALLOW_NUL, &error), *texts = json_object_get(root, "texts"), *expected;
    const char *name;
    size_t n_bad = 0, n = 0;

    (void)state;
    if (!root)
        fail_msg("%s: %s", file_of_splits, error.text);
    assert_true(json_object_size(json_object_get(root, "splits")) >= 10);
    json_object_foreach(json_object_get(root, "splits"), name, expected)
    {
        struct m40_pretokenizer *pre = open_family(name);
        size_t n_texts = json_array_size(texts);

        assert_int_equal(json_array_size(expected), n_texts);
        for (size_t i = 0; i < n_texts; i++, n++) {
            const json_t *text = json_array_get(texts, i);

            n_bad += !is_split(pre, name, json_string_value(text), json_string_length(text), json_string_value(json_array_get(expected, i)));
        }
        m40_pretokenizer_close(&pre);
    }
    print_message("%zu splits, %zu differ\n", n, n_bad);
    assert_true(n >= 500);
    assert_int_equal(n_bad, 0);
    json_decref(root);
}

/* The names that llama.cpp's files carry, and whose rules they mean. */
static void test_aliases(void **state)
{
    static const char *const same[][2] = {
        {"llama4", "gpt-4o"},
        {"kanana2", "gpt-4o"},
        {"talkie", "gpt-4o"},
        {"minimax-m2", "gpt-4o"},
        {"smollm", "command-r"},
        {"refact", "command-r"},
        {"starcoder", "command-r"},
        {"codeshell", "command-r"},
        {"exaone", "command-r"},
        {"minerva-7b", "command-r"},
        {"glm4", "dbrx"},
        {"chatglm-bpe", "dbrx"},
        {"smaug-bpe", "dbrx"},
        {"hunyuan-dense", "deepseek-v3"},
        {"joyai-llm", "deepseek-v3"},
        {"pixtral", "llama-bpe"},
        {"deepseek-r1-qwen", "qwen2"},
        {"bailingmoe2", "bailingmoe"},
        {"llada-moe", "bailingmoe"},
    };
    static const char text[] = "I'LL e\xcc\x81t 12345 \xe4\xb8\xad!\r\n\n  /x/\n OneTwo";

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct m40_pretokenizer *alias = open_family(same[i][0]), *family = open_family(same[i][1]);
        struct pieces p = {.next = text};

        assert_int_equal(m40_pretokenize(family, text, sizeof text - 1, take_piece, &p, NULL), M40LLM_OK);
        assert_true(is_split(alias, same[i][0], text, sizeof text - 1, p.lengths.data));
        m40_buf_free(&p.lengths);
        m40_pretokenizer_close(&alias);
        m40_pretokenizer_close(&family);
    }
}

static void test_traits(void **state)
{
    static const struct {
        const char *name;
        bool ignore_merges, adds_bos;
    } cases[] = {{"tekken", true, true},   {"llama-bpe", true, true},   {"gpt-4o", false, false},
                 {"qwen35", false, false}, {"command-r", false, false}, {"glm4", false, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct m40_pretokenizer *pre = open_family(cases[i].name);
        struct m40_pretokenizer_traits traits = m40_pretokenizer_traits(pre);

        assert_int_equal(traits.ignore_merges, cases[i].ignore_merges);
        assert_int_equal(traits.adds_bos, cases[i].adds_bos);
        m40_pretokenizer_close(&pre);
    }
}

static m40llm_status count_piece(void *user, const char *piece, size_t n_bytes, m40llm_error *err)
{
    (void)piece;
    (void)err;
    *(size_t *)user += n_bytes;
    return M40LLM_OK;
}

/* A run of one kind, which an expression may try from each of its places, is no slower than a text: time in proportion to the length. */
static void test_long_runs(void **state)
{
    static const char *const names[] = {"gpt-2",       "llama-bpe",  "dbrx",       "qwen2",  "qwen35",       "gpt-4o",         "tekken", "command-r",
                                        "deepseek-v3", "bailingmoe", "seed-coder", "falcon", "deepseek-llm", "deepseek-coder", "default"};
    static const char *const runs[] = {"A",   "a", "Aa", "aA", "\xe4\xb8\xad", "\xcc\x81",         "A\xcc\x81", " ", " \n",
                                       "\n ", "1", "'s", "/",  " /\n",         "\xf0\x9f\x98\x80", "\xc7\x85"};
    enum { N = SANITIZED ? 1 << 13 : 1 << 17 };
    char *text = malloc(N);

    (void)state;
    assert_non_null(text);
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        struct m40_pretokenizer *pre = open_family(names[k]);

        for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
            size_t n_run = strlen(runs[r]), n = N / n_run * n_run, n_out = 0;
            clock_t start = clock();
            double seconds;

            for (size_t i = 0; i < n; i++)
                text[i] = runs[r][i % n_run];
            assert_int_equal(m40_pretokenize(pre, text, n, count_piece, &n_out, NULL), M40LLM_OK);
            seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            assert_int_equal(n_out, n);
            if (!SANITIZED && seconds > 0.25)
                fail_msg("%s: %d KiB of '%s' take %.3f s", names[k], N / 1024, runs[r], seconds);
        }
        m40_pretokenizer_close(&pre);
    }
    free(text);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_splits),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_traits),
        cmocka_unit_test(test_long_runs),
    };

    file_of_splits = argc > 1 ? argv[1] : test_data("vocab/splits.json");
    return cmocka_run_group_tests_name("splits", tests, NULL, NULL);
}
