/* What a model thought and what it says, however the answer is cut into pieces. */
#include "harness/harness.h"
#include "server/thinking.h"

static const struct {
    const char *answer;
    bool starts_thinking;
    const char *thought, *said;
} cases[] = {
    {"", false, "", ""},
    {"Hello", false, "", "Hello"},
    {" Hello \n", false, "", " Hello \n"},
    {"  ", false, "", "  "},
    {"<think>", false, "", ""},
    {"<think>a b</think>c d", false, "a b", "c d"},
    {"\n <think>\n a\n\nb \n</think>\n\n c </think> d\n", false, "a\n\nb", "c </think> d\n"},
    {"<think>a", false, "a", ""},
    {"<think>a </thin", false, "a </thin", ""},
    {"<think> \n </think>x", false, "", "x"},
    {"<think></think>", false, "", ""},
    {"<think>a</think>  <think>b</think>", false, "a", "<think>b</think>"},
    {"<thin", false, "", "<thin"},
    {" <thinking>", false, "", " <thinking>"},
    {"a <think>b</think>", false, "", "a <think>b</think>"},
    {"<think>a < b </ c </think >d", false, "a < b </ c </think >d", ""},
    {"<think>a<</think>b", false, "a<", "b"},
    {"a</think>b", true, "a", "b"},
    {"\na \n", true, "a", ""},
    {"", true, "", ""},
};

enum { N_CASES = sizeof cases / sizeof *cases };

static void expect(const struct m40_buf *b, const char *text)
{
    assert_int_equal(b->n_bytes, strlen(text));
    assert_memory_equal(b->n_bytes ? b->data : "", text, b->n_bytes);
}

static void splits_in_pieces_of_any_size(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (size_t piece = 1; piece <= 40; piece++) {
            struct thinking t = {.state = cases[i].starts_thinking ? THINKING_YES : THINKING_MAYBE};
            struct m40_buf thought = {0}, said = {0};
            const char *text = cases[i].answer;
            size_t n = strlen(text);

            for (size_t at = 0; at < n; at += piece)
                assert_true(thinking_push(&t, text + at, n - at < piece ? n - at : piece, false, &thought, &said));
            assert_true(thinking_push(&t, NULL, 0, true, &thought, &said));
            expect(&thought, cases[i].thought);
            expect(&said, cases[i].said);
            m40_buf_free(&t.held);
            m40_buf_free(&thought);
            m40_buf_free(&said);
        }
}

/* What has been given out does not depend on what comes: so nothing that can be told is held back. */
static void gives_out_at_once(void **state)
{
    struct thinking t = {0};
    struct m40_buf thought = {0}, said = {0};

    (void)state;
    assert_true(thinking_push(&t, "<think>one two</thi", 19, false, &thought, &said));
    expect(&thought, "one two");
    assert_true(thinking_push(&t, "nk>three", 8, false, &thought, &said));
    expect(&said, "three");
    m40_buf_free(&t.held);
    m40_buf_free(&thought);
    m40_buf_free(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_in_pieces_of_any_size),
        cmocka_unit_test(gives_out_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
