#define _GNU_SOURCE
/* Who chooses a token is not seen in it: an engine over the CUDA backend gives the tokens of one over the CPU, for greedy, sampled and penalised requests side by side, recorded steps or not; and only
 * the rows of logits that somebody needs are copied. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "backend/sample.h"
#include "engine/engine.h"
#include "model/synth.h"

enum { N_VOCAB = 512, N_REQUESTS = 5, N_TOKENS = 12 };

static m40llm_error err;
static struct m40_gguf *gguf;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

static int make_model(void **state)
{
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    m40_gguf_close(&gguf);
    return 0;
}

static struct m40_backend *open_backend(bool is_cuda, bool has_graphs)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    const char *library = getenv("M40LLM_CUDA_LIB");
    struct m40_backend *be;

    options.n_threads = 1;
    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    options.no_graphs = !has_graphs;
    OK(is_cuda ? m40_backend_open_cuda(&be, &options, &err) : m40_backend_open_cpu(&be, &options, &err));
    return be;
}

/* Bytes that came back from the device, counted in the driver's place. */
static uint64_t n_bytes_read;
static CUresult (*copy_back)(void *to, CUdeviceptr from, size_t n_bytes, CUstream stream);

static CUresult count_and_copy_back(void *to, CUdeviceptr from, size_t n_bytes, CUstream stream)
{
    n_bytes_read += n_bytes;
    return copy_back(to, from, n_bytes, stream);
}

static void count_reads(struct m40_backend *be)
{
    struct m40_cuda_driver *driver = m40_cuda_of(be)->driver;

    copy_back = driver->MemcpyDtoHAsync;
    driver->MemcpyDtoHAsync = count_and_copy_back;
    n_bytes_read = 0;
}

struct record {
    int32_t tokens[N_TOKENS];
    uint32_t n_tokens, n_rows;
};

static void on_event(void *user, const m40llm_event *event)
{
    struct record *r = user;

    if (event->type != M40LLM_EVENT_TOKEN)
        return;
    r->tokens[r->n_tokens++] = event->token;
}

static void on_logits(void *user, uint32_t pos, const float *logits, size_t n_vocab)
{
    struct record *r = user;

    (void)pos;
    for (size_t i = 0; i < n_vocab; i++)
        assert_true(logits[i] > -1e30f && logits[i] < 1e30f);
    r->n_rows++;
}

/* Kinds: greedy; sampled; sampled with every cut; sampled with a penalty; sampled with somebody looking. */
static m40llm_request_options request(struct record *r, int kind)
{
    m40llm_request_options o = M40LLM_REQUEST_OPTIONS_INIT;

    memset(r, 0, sizeof *r);
    o.n_max_tokens = N_TOKENS;
    o.ignore_end = 1;
    o.on_event = on_event;
    o.on_logits = kind == 4 ? on_logits : NULL;
    o.user = r;
    o.sampling.temperature = kind ? 1.2f : 0;
    o.sampling.seed = 1000 + (uint64_t)kind;
    o.sampling.repeat_penalty = kind == 3 ? 1.3f : 1;
    if (kind == 2) {
        o.sampling.top_k = 100;
        o.sampling.top_p = 0.9f;
        o.sampling.min_p = 0.02f;
    }
    return o;
}

/* The requests of `kinds` together. */
static void generate(struct m40_backend *be, const int *kinds, int n, struct record *records)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_model *model;
    struct m40_engine *e;
    uint64_t ids[N_REQUESTS];

    options.n_ctx = 64;
    options.n_sequences = N_REQUESTS;
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    OK(m40_engine_open(&e, model, NULL, &options, &err));
    m40_engine_pause(e);
    for (int i = 0; i < n; i++) {
        m40llm_request_options o = request(&records[i], kinds[i]);
        const int32_t prompt[] = {kinds[i] * 50, 7, 300};

        OK(m40_engine_submit(e, prompt, 3, &o, &ids[i], &err));
    }
    m40_engine_resume(e);
    for (int i = 0; i < n; i++) {
        OK(m40_engine_wait(e, ids[i], NULL, &err));
        assert_int_equal(records[i].n_tokens, N_TOKENS);
    }
    m40_engine_close(&e);
    m40_model_close(&model);
}

static void test_tokens_are_those_of_the_cpu(void **state)
{
    static const int kinds[N_REQUESTS] = {0, 1, 2, 3, 4};
    static struct record cpu[N_REQUESTS], cuda[N_REQUESTS];
    struct m40_backend *be = open_backend(false, false);

    (void)state;
    generate(be, kinds, N_REQUESTS, cpu);
    m40_backend_close(&be);
    for (unsigned turn = 0; turn < 2; turn++) {
        cuda_seed(turn + 1);
        be = open_backend(true, turn);
        generate(be, kinds, N_REQUESTS, cuda);
        m40_backend_close(&be);
        for (int i = 0; i < N_REQUESTS; i++)
            assert_memory_equal(cuda[i].tokens, cpu[i].tokens, sizeof cpu[i].tokens);
        assert_int_equal(cuda[4].n_rows, N_TOKENS);
    }
}

static void test_only_tokens_come_back(void **state)
{
    static const struct {
        int kinds[3], n, n_rows; /* n_rows: rows of logits in each step */
    } cases[] = {{{0}, 1, 0}, {{1}, 1, 0}, {{0, 2}, 2, 0}, {{1, 4, 2}, 3, 1}, {{3, 1, 4}, 3, 2}, {{0, 3}, 2, 1}, {{4, 3}, 2, 2}};
    static struct record records[3];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct m40_backend *be = open_backend(true, true);
        bool needs_all = cases[i].n_rows == cases[i].n; /* then no token is chosen on the device */

        count_reads(be);
        generate(be, cases[i].kinds, cases[i].n, records);
        assert_int_equal(n_bytes_read, N_TOKENS * 4 * (cases[i].n_rows * N_VOCAB + (needs_all ? 0 : cases[i].n)));
        m40_backend_close(&be);
    }
}

/* Rows without columns, with more than masses can be added up of, and (on the card) beyond what is reserved. */
static void test_refused_rows(void **state)
{
    const struct m40_workload workload = {.n_tokens = 2, .n_cols = 32, .n_rows = 64, .n_heads = 1, .head_dim = 32, .n_ctx = 32};

    (void)state;
    for (int is_cuda = 0; is_cuda < 2; is_cuda++) {
        struct m40_backend *be = open_backend(is_cuda, false);
        m40_addr memory;

        OK(be->ops.reserve(be, &workload, &err));
        OK(be->ops.alloc(be, 4096, &memory, &err));
#define SAMPLE(n_rows, n_cols) be->ops.sample(be, &(struct m40_sample_args){memory, memory, memory, n_rows, n_cols}, &err)
        assert_int_equal(SAMPLE(1, 0), M40LLM_UNSUPPORTED);
        assert_int_equal(SAMPLE(1, M40_SAMPLE_MAX_COLS + 1), M40LLM_UNSUPPORTED);
        if (is_cuda) {
            assert_int_equal(SAMPLE(3, 64), M40LLM_INVALID_ARGUMENT);
            assert_int_equal(SAMPLE(1, 65), M40LLM_INVALID_ARGUMENT);
            assert_non_null(strstr(err.text, "reserved 2 of 64"));
        }
#undef SAMPLE
        be->ops.free(be, memory);
        m40_backend_close(&be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_are_those_of_the_cpu),
        cmocka_unit_test(test_only_tokens_come_back),
        cmocka_unit_test(test_refused_rows),
    };

    return cmocka_run_group_tests(tests, make_model, close_model);
}
