/* Every golden model's file comes out as its recipe says, bit for bit (the SHA-256 is checked where it is made), and the reader takes it. */
#include "harness/golden_gguf.h"
#include "harness/harness.h"

#include "gguf/gguf.h"

static void test_golden_model(void **state)
{
    char *path = golden_gguf_path(*state);
    char *again;
    struct m40_gguf *g;
    m40llm_error err = {0};
    struct m40_str text;

    if (m40_gguf_open(&g, path, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    assert_true(m40_gguf_kv_string(m40_gguf_find_kv(g, "general.type"), &text));
    assert_true(m40_str_equal(text, m40_str_from("model")));
    assert_int_equal(m40_gguf_find_kv(g, "tokenizer.ggml.tokens")->n_elements, 512);
    assert_int_equal(m40_gguf_find_tensor(g, "token_embd.weight")->n_elements, 512 * 256);
    m40_gguf_close(&g);
    again = golden_gguf_path(*state); /* the file is used as it is */
    assert_string_equal(path, again);
    free(again);
    free(path);
}

int main(void)
{
    static char names[][16] = {"llama",  "llama_f16", "llama31",       "mistral", "qwen2",   "qwen3", "qwen3_f16", "gemma2",
                               "gemma3", "phi3",      "phi3_longrope", "granite", "smollm3", "olmo2", "olmo3",     "ministral3"};
    struct CMUnitTest tests[sizeof names / sizeof *names];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        tests[i] = (struct CMUnitTest){.name = names[i], .test_func = test_golden_model, .initial_state = names[i]};
    return cmocka_run_group_tests_name("golden_gguf", tests, NULL, NULL);
}
