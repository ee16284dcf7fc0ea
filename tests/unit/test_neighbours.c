#define _GNU_SOURCE
/* One request gives the same logits and tokens alone and beside 1, 3, 7 and 15 others of random lengths, in prefill chunks of any size: through the engine, on the CPU and on a CUDA card, whose kernels
 * depend on how many rows a step has. For a plain model, and for one whose layers have windows shorter than the prompts. The card is emulated unless M40LLM_TEST_DEVICE=cuda; M40LLM_CUDA_LIB names another driver. */
#include "unit/cuda_fixture.h"

#include "base/half.h"
#include "engine/engine.h"
#include "harness/golden_gguf.h"
#include "model/synth.h"

#if defined(__SANITIZE_ADDRESS__)
enum { N_CASES = 1 }; /* emulated kernels are slow there */
#else
enum { N_CASES = 5 };
#endif
enum { N_VOCAB = 512, N_CTX = 96, N_PROMPT = 37, N_ANSWER = 20, MAX_OTHERS = 15, MAX_ROWS = N_CTX };

static m40llm_error err;
static struct m40_gguf *gguf; /* of the test that is running */

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

struct device {
    struct m40_backend *backend;
    struct m40_model *model;
};

static bool is_set(const char *name, const char *value)
{
    const char *text = getenv(name);

    return text && strcmp(text, value) == 0;
}

static m40llm_status backend_open(struct m40_backend **out, bool is_cuda)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;

    options.n_threads = 1;
    options.cuda_library = getenv("M40LLM_CUDA_LIB");
    if (!options.cuda_library && !is_set("M40LLM_TEST_DEVICE", "cuda"))
        options.cuda_library = cuda_beside("libcuda-emu.so");
    return is_cuda ? m40_backend_open_cuda(out, &options, &err) : m40_backend_open_cpu(out, &options, &err);
}

static void device_open(struct device *d, bool is_cuda)
{
    OK(backend_open(&d->backend, is_cuda));
    OK(m40_model_open(&d->model, gguf, d->backend, NULL, NULL, &err));
}

static void device_close(struct device *d)
{
    m40_model_close(&d->model);
    m40_backend_close(&d->backend);
}

/* What the request gave: its tokens, and the bits of every row of logits. */
struct answer {
    int32_t tokens[N_ANSWER];
    uint32_t n_tokens, n_rows;
    uint64_t rows[MAX_ROWS];
};

static void on_event(void *user, const m40llm_event *event)
{
    struct answer *a = user;

    if (event->type != M40LLM_EVENT_TOKEN)
        return;
    assert_true(a->n_tokens < N_ANSWER);
    a->tokens[a->n_tokens++] = event->token;
}

static void on_logits(void *user, uint32_t pos, const float *logits, size_t n_vocab)
{
    struct answer *a = user;
    uint64_t hash = 0xcbf29ce484222325u;

    (void)pos;
    for (size_t i = 0; i < n_vocab; i++)
        hash = (hash ^ m40_f32_to_bits(logits[i])) * 0x100000001b3u;
    assert_true(a->n_rows < MAX_ROWS);
    a->rows[a->n_rows++] = hash;
}

static uint64_t submit(struct m40_engine *e, uint32_t n_prompt, uint64_t seed, const m40llm_request_options *options)
{
    int32_t prompt[N_CTX];
    uint64_t id;

    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)(test_random(&seed) % N_VOCAB);
    OK(m40_engine_submit(e, prompt, n_prompt, options, &id, &err));
    return id;
}

/* with_logits: of every row; otherwise greedy steps may leave them on the device. */
static uint64_t submit_watched(struct m40_engine *e, bool with_logits, struct answer *a)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;

    memset(a, 0, sizeof *a);
    options.n_max_tokens = N_ANSWER;
    options.ignore_end = 1;
    options.on_event = on_event;
    options.on_logits = with_logits ? on_logits : NULL;
    options.all_logits = with_logits;
    options.user = a;
    return submit(e, N_PROMPT, test_seed() ^ 4242, &options);
}

static uint64_t submit_other(struct m40_engine *e, bool is_greedy, uint64_t *random)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    uint32_t n_prompt = 1 + (uint32_t)(test_random(random) % 50);

    options.n_max_tokens = 1 + (uint32_t)(test_random(random) % 30);
    options.ignore_end = 1;
    options.sampling.temperature = is_greedy ? 0 : 0.9f;
    options.sampling.seed = test_random(random);
    return submit(e, n_prompt, test_random(random), &options);
}

/* The request beside n_others, about half of which were there before it. */
static void run(struct device *d, uint32_t n_others, uint32_t n_chunk, bool with_logits, struct answer *a)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    uint64_t random = test_seed() ^ n_others, ids[MAX_OTHERS + 1];
    struct m40_engine *e;

    options.n_ctx = N_CTX;
    options.n_chunk = n_chunk;
    options.n_sequences = n_others + 1;
    OK(m40_engine_open(&e, d->model, NULL, &options, &err));
    for (uint32_t i = 0; i <= n_others; i++) {
        if (i == (n_others + 1) / 2) {
            ids[i] = submit_watched(e, with_logits, a);
            continue;
        }
        ids[i] = submit_other(e, !with_logits || i % 2, &random);
        if (i == 0 && n_others > 1) { /* the others come and go */
            OK(m40_engine_wait(e, ids[i], NULL, &err));
            ids[i] = submit_other(e, !with_logits, &random);
        }
    }
    for (uint32_t i = 0; i <= n_others; i++)
        OK(m40_engine_wait(e, ids[i], NULL, &err));
    m40_engine_close(&e);
    assert_int_equal(a->n_tokens, N_ANSWER);
}

struct neighbours {
    uint32_t n_others, n_chunk;
};

static void check_device(bool is_cuda, const struct neighbours *cases, size_t n_cases, struct answer *alone)
{
    struct device d = {0};

    device_open(&d, is_cuda);
    run(&d, 0, 512, true, alone);
    assert_int_equal(alone->n_rows, N_PROMPT + N_ANSWER - 1);
    for (size_t k = 0; k < n_cases; k++) {
        for (int with_logits = 0; with_logits < 2; with_logits++) {
            struct answer a;

            run(&d, cases[k].n_others, cases[k].n_chunk, with_logits, &a);
            assert_memory_equal(a.tokens, alone->tokens, sizeof a.tokens);
            if (with_logits)
                assert_memory_equal(a.rows, alone->rows, sizeof a.rows);
        }
    }
    device_close(&d);
}

/* A driver that is named must be there. */
static bool may_be_skipped(void)
{
    struct m40_backend *card = NULL;
    bool is_missing = backend_open(&card, true) == M40LLM_NO_DEVICE;

    m40_backend_close(&card);
    return is_missing && !getenv("M40LLM_CUDA_LIB") && !is_set("M40LLM_REQUIRE_GPU", "1");
}

static void check_model(const char *path, const struct neighbours *cases, size_t n_cases)
{
    static struct answer cpu, cuda;

    OK(m40_gguf_open(&gguf, path, &err));
    check_device(false, cases, n_cases, &cpu);
    check_device(true, cases, n_cases, &cuda);
    assert_memory_equal(&cpu, &cuda, sizeof cpu);
    m40_gguf_close(&gguf);
}

static void test_neighbours_change_nothing(void **state)
{
    static const struct neighbours cases[] = {{15, 7}, {3, 1}, {1, 512}, {7, 33}, {15, 512}};
    char path[512];

    (void)state;
    if (may_be_skipped())
        skip();
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    check_model(path, cases, N_CASES);
}

static void test_nor_with_windows(void **state)
{
    static const struct neighbours some = {3, 7};
    char *path;

    (void)state;
    if (may_be_skipped())
        skip();
    path = golden_gguf_path("gemma2"); /* windows of 16 */
    check_model(path, &some, 1);
    free(path);
}

/* Other tokens that go to the same experts, in prompts long enough for the grouped kernels. */
static void test_nor_in_a_mixture(void **state)
{
    static const struct neighbours many = {15, 512};
    char path[512];

    (void)state;
    if (may_be_skipped())
        skip();
    snprintf(path, sizeof path, "%s/tiny-moe.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny-moe", "q4_k", path, NULL, NULL, &err));
    check_model(path, &many, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbours_change_nothing), cmocka_unit_test(test_nor_with_windows),
                                       cmocka_unit_test(test_nor_in_a_mixture)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
