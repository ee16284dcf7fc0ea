/* What a model thought and what it says, however the answer is cut into pieces. */
#include "harness/harness.h"

#include "api/api.h"
#include "engine/answer.h"
#include "harness/gguf_bytes.h"
#include "server/thinking.h"
#include "tokenizer/utf8.h"

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
    {"<seed:think>a</think></seed:think>b", false, "a</think>", "b"},
    {"<|START_THINKING|>a<|END_THINKING|>b", false, "a", "b"},
    {"<|START_THINK|>a", false, "", "<|START_THINK|>a"},
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

/* ---- control tokens ---- */

enum { MAX_IDS = 2048, N_BYTES = 256 };

/* A tokenizer of bytes and these control tokens. */
static m40llm_tokenizer *make_tokenizer(const char *const *control, size_t n_control)
{
    struct m40_str tokens[N_BYTES + 16];
    int32_t types[N_BYTES + 16];
    char names[N_BYTES][2], path[4200];
    struct gguf_bytes g = {0};
    m40llm_tokenizer *t = NULL;
    m40llm_file *file;
    m40llm_error err;
    FILE *f;

    for (unsigned byte = 0, beyond = 0; byte < N_BYTES; byte++) {
        bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);

        tokens[byte] = (struct m40_str){names[byte], m40_utf8_encode_short(printable ? byte : 0x100 + beyond++, names[byte])};
        types[byte] = 1;
    }
    for (size_t i = 0; i < n_control; i++) {
        tokens[N_BYTES + i] = m40_str_from(control[i]);
        types[N_BYTES + i] = 3;
    }
    gguf_put_string(&g, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(&g, "tokenizer.ggml.pre", "gpt-4o");
    gguf_put_strings(&g, "tokenizer.ggml.tokens", tokens, N_BYTES + n_control);
    gguf_put_i32s(&g, "tokenizer.ggml.token_type", types, N_BYTES + n_control);
    gguf_put_strings(&g, "tokenizer.ggml.merges", tokens, 0);
    gguf_finish(&g);
    snprintf(path, sizeof path, "%s/vocab.gguf", test_tmp_dir());
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(g.file.data, 1, g.file.n_bytes, f), g.file.n_bytes);
    fclose(f);
    gguf_bytes_free(&g);
    if (m40llm_file_open(&file, path, &err) != M40LLM_OK || m40llm_tokenizer_open(&t, file, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    m40llm_file_close(&file);
    return t;
}

static size_t ids_of(const m40llm_tokenizer *t, const char *text, unsigned flags, int32_t *ids)
{
    size_t n;

    assert_int_equal(m40llm_tokenize(t, text, strlen(text), flags, ids, MAX_IDS, &n, NULL), M40LLM_OK);
    return n;
}

struct outcome {
    struct m40_buf thought, said;
    size_t n_late; /* bytes that came at the end only */
};

/* The answer as the engine would tell it, token by token. */
static struct outcome split(const m40llm_tokenizer *tokenizer, const struct thinking_markers *markers, const char *prompt, const int32_t *ids,
                            size_t n_ids)
{
    struct m40_answer answer = {0};
    struct m40_stops no_stops = {0};
    struct thinking t = {0};
    struct outcome o = {0};
    int32_t before[MAX_IDS];
    size_t n_before = ids_of(tokenizer, prompt, M40LLM_TOKENIZE_SPECIAL, before);
    struct m40_str text;
    bool is_stopped;

    assert_true(thinking_begin(&t, markers, before, n_before));
    assert_int_equal(m40_answer_init(&answer, tokenizer->tokenizer, &no_stops, before, n_before, NULL), M40LLM_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_int_equal(m40_answer_push(&answer, ids[i], true, &text, &is_stopped, NULL), M40LLM_OK);
        assert_true(thinking_push_token(&t, ids[i], text.data, text.n_bytes, &o.thought, &o.said));
    }
    o.n_late = o.thought.n_bytes + o.said.n_bytes;
    assert_int_equal(m40_answer_flush(&answer, &text, NULL), M40LLM_OK);
    assert_true(thinking_push(&t, text.data, text.n_bytes, true, &o.thought, &o.said));
    o.n_late = o.thought.n_bytes + o.said.n_bytes - o.n_late;
    m40_answer_free(&answer);
    m40_buf_free(&t.held);
    return o;
}

static void free_outcome(struct outcome *o)
{
    m40_buf_free(&o->thought);
    m40_buf_free(&o->said);
}

struct marked_case {
    const char *prompt, *answer, *thought, *said;
};

static void run_marked(const char *const *control, size_t n_control, const struct marked_case *all, size_t n)
{
    m40llm_tokenizer *tokenizer = make_tokenizer(control, n_control);
    struct thinking_markers markers;
    int32_t ids[MAX_IDS];

    thinking_markers_init(&markers, tokenizer);
    for (size_t i = 0; i < n; i++) {
        size_t n_ids = ids_of(tokenizer, all[i].answer, M40LLM_TOKENIZE_SPECIAL, ids);
        struct outcome o = split(tokenizer, &markers, all[i].prompt, ids, n_ids);

        expect(&o.thought, all[i].thought);
        expect(&o.said, all[i].said);
        free_outcome(&o);
    }
    m40llm_tokenizer_close(&tokenizer);
}

static const char *const harmony[] = {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"};
enum { N_HARMONY = sizeof harmony / sizeof *harmony };

#define TURN "<|start|>user<|message|>hi<|end|><|start|>assistant"

static void splits_channels(void **state)
{
    static char long_text[601];
    const struct marked_case all[] = {
        {TURN, "<|channel|>analysis<|message|> We think.\n<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>", " We think.\n",
         "Hello."},
        {TURN, "<|channel|>final<|message|>Hi", "", "Hi"},
        {TURN, "<|message|>Hi", "", "Hi"},
        {TURN, "", "", ""},
        {TURN, "<|channel|>analysis<|message|>cut off", "cut off", ""},
        {TURN, "<|channel|>anal", "", ""},
        {TURN, "<|channel|>analysis<|message|>a<|end|><|start|>assist", "a", ""},
        {TURN, "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Done.<|return|>", "", "I look.\nDone."},
        {TURN,
         "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>"
         "c",
         "a\nb", "c"},
        {TURN, "<|channel|>analysis<|message|>x<|end|><|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
         "x", "{}"},
        {TURN, "<|channel|>analysis to=python code<|message|>1+1<|call|>", "1+1", ""},
        {TURN, "<|channel|>analysisx<|message|>a", "", "a"},
        {TURN, "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>a<|channel|>analysis<|message|>b", "b", "a"},
        {TURN, "<think>a</think>b", "", "<think>a</think>b"}, /* not the format of its own: as it is */
        {TURN, "Hello", "", "Hello"},
        {TURN, long_text, "", long_text},
        {"hi", "Hello", "", "Hello"},
        {"hi", "Hello<|end|><|start|>assistant<|channel|>analysis<|message|>a", "a", "Hello"},
        {TURN "<|channel|>analysis<|message|>so far", " on<|end|><|start|>assistant<|channel|>final<|message|>b", " on", "b"},
        {TURN "<|channel|>analysis", "<|message|>a<|end|>", "a", ""},
        {TURN "<|channel|>final<|message|>", "b", "", "b"},
    };

    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    run_marked(harmony, N_HARMONY, all, sizeof all / sizeof *all);
}

/* Text that looks like marks is text, and comes at once. */
static void text_is_no_mark(void **state)
{
    static const char looks[] = "<|end|><|start|>assistant<|channel|>final<|message|>\xc3";
    m40llm_tokenizer *tokenizer = make_tokenizer(harmony, N_HARMONY);
    struct thinking_markers markers;
    int32_t ids[MAX_IDS];
    size_t n = ids_of(tokenizer, "<|channel|>analysis<|message|>", M40LLM_TOKENIZE_SPECIAL, ids);
    struct outcome o;

    (void)state;
    n += ids_of(tokenizer, looks, 0, ids + n);
    n += ids_of(tokenizer, "<|end|><|start|>assistant<|channel|>final<|message|>b", M40LLM_TOKENIZE_SPECIAL, ids + n);
    thinking_markers_init(&markers, tokenizer);
    o = split(tokenizer, &markers, TURN, ids, n);
    expect(&o.thought, "<|end|><|start|>assistant<|channel|>final<|message|>\xef\xbf\xbd"); /* half a character ends with its message */
    expect(&o.said, "b");
    assert_int_equal(o.n_late, 0);
    free_outcome(&o);
    m40llm_tokenizer_close(&tokenizer);
}

static void splits_at_control_tokens(void **state)
{
    static const char *const control[] = {"[THINK]", "[/THINK]", "[INST]", "[/INST]", "<|end|>"};
    static const struct marked_case all[] = {
        {"[INST]hi[/INST]", "[THINK]\n a b \n[/THINK]\n\nHi", "a b", "Hi"},
        {"[INST]hi[/INST]", "Hi", "", "Hi"},
        {"[INST]hi[/INST]", " \n[THINK]a", "a", ""},
        {"[INST]hi[/INST]", "<thi[THINK]a[/THINK]b", "a", "<thib"},
        {"[INST]hi[/INST]", "Hi[THINK]x[/THINK]y", "x", "Hiy"},
        {"[INST]hi[/INST]", "[THINK]a[/THINK]b[THINK]c[/THINK]d", "a\nc", "bd"},
        {"[INST]hi[/INST]", "[THINK]a</think>b[/THINK]c", "a</think>b", "c"},
        {"[INST]hi[/INST]", "[THINK][THINK]a[/THINK][/THINK]b", "a", "b"},
        {"[INST]hi[/INST]", "[/THINK]a", "", "a"},
        {"[INST]hi[/INST]", "<think>a</think>b", "a", "b"},
        {"[INST]hi[/INST][THINK]\n", "a[/THINK]b", "a", "b"},
        {"[INST]hi[/INST][THINK]x[/THINK]", "a", "", "a"},
        {"[INST]hi[/INST]<think>\n ", "a</think>b", "a", "b"},
        {"<think>", "a</think>b", "a", "b"},
        {"think>", "a</think>b", "", "a</think>b"},
        {"", "<think>a</think>b<|end|>", "a", "b"},
    };

    (void)state;
    run_marked(control, sizeof control / sizeof *control, all, sizeof all / sizeof *all);
}

/* Any tokens in any order: no text is lost but headers, white space and tags, and nothing is read out of bounds. */
static void takes_any_tokens(void **state)
{
    static const char *const sets[2][8] = {
        {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>", "[THINK]"},
        {"[THINK]", "[/THINK]", "<think>", "</think>", "<|end|>", "<|start|>", "<a>", "<b>"}};
    uint64_t random = test_seed();

    (void)state;
    for (int k = 0; k < 2; k++) {
        m40llm_tokenizer *tokenizer = make_tokenizer(sets[k], 8);
        struct thinking_markers markers;

        thinking_markers_init(&markers, tokenizer);
        for (int round = 0; round < 500; round++) {
            int32_t ids[64];
            size_t n = test_random(&random) % 64;
            struct outcome o;

            for (size_t i = 0; i < n; i++)
                ids[i] = (int32_t)(test_random(&random) % 3 ? N_BYTES + test_random(&random) % 8 : (uint8_t) " <a\xc3n"[test_random(&random) % 5]);
            o = split(tokenizer, &markers, round % 2 ? TURN : "<think>", ids, n);
            assert_true(o.thought.n_bytes + o.said.n_bytes <= 4 * n); /* U+FFFD and a line end for a byte */
            free_outcome(&o);
        }
        m40llm_tokenizer_close(&tokenizer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_in_pieces_of_any_size),
        cmocka_unit_test(gives_out_at_once),
        cmocka_unit_test(splits_channels),
        cmocka_unit_test(text_is_no_mark),
        cmocka_unit_test(splits_at_control_tokens),
        cmocka_unit_test(takes_any_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
