#define _GNU_SOURCE
/* Embeddings: hidden states are those that the output matrix makes logits of; a text's vector has the same bits alone and beside others, whatever the chunk, with pre-emption, with the prefix cache, on the
 * CPU and on a CUDA card (emulated unless M40LLM_CUDA_LIB names another driver). */
#include "unit/cuda_fixture.h"

#include "base/mem.h"
#include "engine/engine.h"
#include "model/synth.h"

#include <math.h>

enum { N_VOCAB = 512, N_CTX = 160, N_TEXTS = 7, MAX_EMBD = 512, MAX_ROWS = 160 };

static const size_t lengths[N_TEXTS] = {1, 2, 33, 64, 150, 5, 100};
static const m40llm_pooling poolings[] = {M40LLM_POOLING_MEAN, M40LLM_POOLING_LAST};

static m40llm_error err;
static struct m40_gguf *gguf;
static struct device {
    struct m40_backend *backend;
    struct m40_model *model;
} cpu;
static uint32_t n_embd;
static int32_t texts[N_TEXTS * N_CTX];
static size_t n_all;
static float expected[2][N_TEXTS][MAX_EMBD];

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

static void device_open(struct device *d, const char *cuda_library)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;

    options.n_threads = 1;
    options.cuda_library = cuda_library;
    OK(cuda_library ? m40_backend_open_cuda(&d->backend, &options, &err) : m40_backend_open_cpu(&d->backend, &options, &err));
    OK(m40_model_open(&d->model, gguf, d->backend, NULL, NULL, &err));
}

static void device_close(struct device *d)
{
    m40_model_close(&d->model);
    m40_backend_close(&d->backend);
}

static const char *cuda_library(void)
{
    return getenv("M40LLM_CUDA_LIB") ? getenv("M40LLM_CUDA_LIB") : cuda_beside("libcuda-emu.so");
}

/* ---- by the forward pass alone ---- */

/* All hidden states of a text in one step, and all logits. */
static void run_text(const struct device *d, const int32_t *ids, uint32_t n, float *hidden, float *logits)
{
    struct m40_forward_limits limits = {.n_tokens = MAX_ROWS, .n_logits = MAX_ROWS, .n_slots = 1, .n_slot_pages = 5, .n_pages = 5};
    int32_t pos[MAX_ROWS], slot[MAX_ROWS] = {0}, pages[5] = {3, 1, 4, 0, 2};
    struct m40_batch batch = {n, ids, pos, slot, logits ? n : 0, pos, pages, true};
    struct m40_forward *f;

    for (uint32_t i = 0; i < n; i++)
        pos[i] = (int32_t)i;
    OK(m40_forward_open(&f, d->model, &limits, &err));
    OK(m40_forward_step(f, &batch, logits, &err));
    OK(m40_forward_read_hidden(f, 0, n, hidden, &err));
    assert_int_equal(m40_forward_read_hidden(f, MAX_ROWS, 1, hidden, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_forward_read_hidden(f, 1, MAX_ROWS, hidden, &err), M40LLM_INVALID_ARGUMENT);
    m40_forward_close(&f);
}

/* Pooled as the header has it. */
static void expect_text(const float *hidden, uint32_t n, bool is_mean, float *out)
{
    double length = 0;

    for (uint32_t c = 0; c < n_embd; c++) {
        float sum = hidden[c];

        for (uint32_t i = 1; i < n; i++)
            sum = sum + hidden[i * n_embd + c];
        out[c] = is_mean ? sum / (float)n : hidden[(n - 1) * n_embd + c];
        length += (double)out[c] * out[c];
    }
    for (uint32_t c = 0; c < n_embd; c++)
        out[c] = (float)(out[c] / sqrt(length));
}

static int open_all(void **state)
{
    static float hidden[MAX_ROWS * MAX_EMBD];
    uint64_t random = test_seed();
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    device_open(&cpu, NULL);
    n_embd = cpu.model->config.n_embd;
    assert_true(n_embd <= MAX_EMBD);
    for (int t = 0; t < N_TEXTS; n_all += lengths[t++]) {
        for (size_t i = 0; i < lengths[t]; i++)
            texts[n_all + i] = (int32_t)(test_random(&random) % N_VOCAB);
        if (t == 4) /* begins as the one before */
            memcpy(texts + n_all, texts + n_all - lengths[3], lengths[3] * sizeof *texts);
        run_text(&cpu, texts + n_all, (uint32_t)lengths[t], hidden, NULL);
        for (int p = 0; p < 2; p++)
            expect_text(hidden, (uint32_t)lengths[t], p == 0, expected[p][t]);
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    device_close(&cpu);
    m40_gguf_close(&gguf);
    return 0;
}

static void check_hidden(const struct device *d)
{
    static float hidden[20 * MAX_EMBD], logits[20 * N_VOCAB], again[20 * N_VOCAB];
    struct m40_backend *be = d->backend;
    struct m40_matmul_args args = {.w = &d->model->output, .n_tokens = 20};

    run_text(d, texts + n_all - 20, 20, hidden, logits);
    OK(be->ops.reserve(be, &(struct m40_workload){.n_tokens = 20, .n_cols = n_embd, .n_rows = N_VOCAB}, &err));
    OK(be->ops.alloc(be, sizeof hidden, &args.x, &err));
    OK(be->ops.alloc(be, sizeof again, &args.y, &err));
    OK(be->ops.write(be, args.x, hidden, 4 * (uint64_t)20 * n_embd, &err));
    OK(be->ops.matmul(be, &args, &err));
    OK(be->ops.read(be, again, args.y, sizeof again, &err));
    assert_memory_equal(again, logits, sizeof logits);
    be->ops.free(be, args.x);
    be->ops.free(be, args.y);
}

static void test_hidden_states_make_the_logits(void **state)
{
    struct device cuda;

    (void)state;
    check_hidden(&cpu);
    device_open(&cuda, cuda_library());
    check_hidden(&cuda);
    device_close(&cuda);
}

/* ---- through the engine ---- */

struct record {
    float embeddings[N_TEXTS][MAX_EMBD];
    uint32_t n_embeddings, n_finished, n_ends;
    m40llm_result result;
};

static void take_event(struct record *r, const m40llm_event *event)
{
    assert_int_equal(r->n_ends, 0);
    switch (event->type) {
    case M40LLM_EVENT_EMBEDDING:
        assert_true(event->choice < N_TEXTS);
        assert_int_equal(event->n_embedding, n_embd);
        memcpy(r->embeddings[event->choice], event->embedding, n_embd * sizeof(float));
        r->n_embeddings++;
        break;
    case M40LLM_EVENT_FINISH:
        r->n_finished++;
        break;
    case M40LLM_EVENT_END:
        r->result = *event->result;
        r->n_ends++;
        break;
    case M40LLM_EVENT_PREFILL:
        break;
    default:
        fail_msg("event %d", (int)event->type);
    }
}

static void on_event(void *user, const m40llm_event *event)
{
    take_event(user, event);
}

/* How the texts are asked for. */
struct way {
    uint32_t n_chunk, n_sequences, n_answers; /* answers that are generated beside them */
    uint64_t kv_bytes;
    bool is_reading;
};

static struct m40_engine *open_engine(const struct device *d, const struct way *way)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e;

    options.n_ctx = N_CTX;
    options.n_chunk = way->n_chunk;
    options.n_sequences = way->n_sequences;
    options.kv_bytes = way->kv_bytes;
    OK(m40_engine_open(&e, d->model, NULL, &options, &err));
    return e;
}

static void run_texts(struct m40_engine *e, m40llm_pooling pooling, bool is_reading, struct record *r)
{
    m40llm_embed_options options = M40LLM_EMBED_OPTIONS_INIT;
    m40llm_event event = {0};
    uint64_t id;

    memset(r, 0, sizeof *r);
    options.pooling = pooling;
    options.on_event = is_reading ? NULL : on_event;
    options.user = r;
    OK(m40_engine_submit_embeddings(e, texts, lengths, N_TEXTS, &options, &id, &err));
    m40_engine_resume(e);
    while (is_reading && event.type != M40LLM_EVENT_END) {
        OK(m40_engine_read(e, id, -1, &event, &err));
        take_event(r, &event);
    }
    OK(m40_engine_wait(e, id, NULL, &err));
    assert_int_equal(r->n_embeddings, N_TEXTS);
    assert_int_equal(r->n_finished, N_TEXTS);
    assert_int_equal(r->n_ends, 1);
    assert_int_equal(r->result.n_prompt, n_all);
    assert_int_equal(r->result.n_generated, 0);
}

/* Both poolings, beside answers that take pages. */
static void check_way(const struct device *d, const struct way *way)
{
    static struct record r;
    struct m40_engine *e = open_engine(d, way);
    m40llm_stats stats;

    for (int p = 0; p < 2; p++) {
        m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
        uint64_t ids[8];

        options.n_max_tokens = 90;
        m40_engine_pause(e);
        for (uint32_t i = 0; i < way->n_answers; i++)
            OK(m40_engine_submit(e, texts + 10 * i, 20, &options, &ids[i], &err));
        run_texts(e, poolings[p], way->is_reading, &r);
        for (uint32_t i = 0; i < way->n_answers; i++)
            OK(m40_engine_wait(e, ids[i], NULL, &err));
        for (int t = 0; t < N_TEXTS; t++)
            assert_memory_equal(r.embeddings[t], expected[p][t], n_embd * sizeof(float));
        if (p == 0)
            assert_int_equal(r.result.n_cached, 0);
    }
    m40_engine_get_stats(e, &stats);
    assert_int_equal(stats.n_pages_used, 0);
    m40_engine_close(&e);
}

static void test_the_same_bits(void **state)
{
    static const struct way ways[] = {
        {.n_sequences = 1},
        {.n_sequences = 1, .n_chunk = 7, .is_reading = true},
        {.n_sequences = 8, .n_chunk = 100},
        {.n_sequences = 12, .n_chunk = 9, .n_answers = 5, .is_reading = true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        check_way(&cpu, &ways[i]);
}

/* The answer comes first in the order, and wants a fourth page while the text, which has the other five, is on its way at a row a step. */
static void test_preemption(void **state)
{
    static struct record r;
    struct way way = {.n_sequences = 2, .n_chunk = 1};
    m40llm_embed_options options = M40LLM_EMBED_OPTIONS_INIT;
    m40llm_request_options answer = M40LLM_REQUEST_OPTIONS_INIT;
    const size_t at = lengths[0] + lengths[1] + lengths[2] + lengths[3];
    m40llm_engine_info info;
    struct m40_engine *e = open_engine(&cpu, &way);
    uint64_t ids[2];

    (void)state;
    m40_engine_get_info(e, &info);
    way.kv_bytes = 8 * (info.kv_bytes / info.n_pages);
    m40_engine_close(&e);
    options.on_event = on_event;
    options.user = &r;
    answer.n_max_tokens = 90;
    for (int p = 0; p < 2; p++) {
        e = open_engine(&cpu, &way);
        memset(&r, 0, sizeof r);
        options.pooling = poolings[p];
        m40_engine_pause(e);
        OK(m40_engine_submit(e, texts, 60, &answer, &ids[0], &err));
        OK(m40_engine_submit_embeddings(e, texts + at, &lengths[4], 1, &options, &ids[1], &err));
        m40_engine_resume(e);
        for (int i = 0; i < 2; i++)
            OK(m40_engine_wait(e, ids[i], NULL, &err));
        assert_int_equal(r.result.n_preemptions, 1);
        assert_memory_equal(r.embeddings[0], expected[p][4], n_embd * sizeof(float));
        m40_engine_close(&e);
    }
}

static void test_on_cuda(void **state)
{
    struct way way = {.n_sequences = 6, .n_chunk = 40, .n_answers = 2};
    struct device cuda;

    (void)state;
    device_open(&cuda, cuda_library());
    check_way(&cuda, &way);
    device_close(&cuda);
}

/* What LAST finds in the prefix cache changes nothing. */
static void test_prefix_cache(void **state)
{
    static struct record r;
    struct way way = {.n_sequences = 2};
    struct m40_engine *e = open_engine(&cpu, &way);

    (void)state;
    for (int i = 0; i < 3; i++) {
        m40_engine_pause(e);
        run_texts(e, poolings[i > 0], false, &r);
        for (int t = 0; t < N_TEXTS; t++)
            assert_memory_equal(r.embeddings[t], expected[i > 0][t], n_embd * sizeof(float));
        assert_true(i == 0 ? r.result.n_cached == 0 : r.result.n_cached >= 32 + 32 + 128 + 96);
    }
    m40_engine_close(&e);
}

static void refuse(struct m40_engine *e, const size_t *n_ids, size_t n_texts, const m40llm_embed_options *o, m40llm_status status, const char *word)
{
    uint64_t id = 1;

    assert_int_equal(m40_engine_submit_embeddings(e, texts, n_ids, n_texts, o, &id, &err), status);
    assert_int_equal(id, 0);
    if (!strstr(err.text, word))
        fail_msg("'%s' in: %s", word, err.text);
}

static void test_bad_input(void **state)
{
    struct m40_engine *e = open_engine(&cpu, &(struct way){.n_sequences = 1});
    m40llm_embed_options o = M40LLM_EMBED_OPTIONS_INIT, wrong;

    (void)state;
    o.pooling = M40LLM_POOLING_MEAN;
    refuse(e, lengths, 0, &o, M40LLM_INVALID_ARGUMENT, "0 texts");
    refuse(e, lengths, M40LLM_MAX_EMBED_TEXTS + 1, &o, M40LLM_INVALID_ARGUMENT, "2049 texts");
    refuse(e, (size_t[]){3, 0}, 2, &o, M40LLM_INVALID_ARGUMENT, "text 2 of 2: the prompt is empty");
    refuse(e, (size_t[]){3, 161, 1}, 3, &o, M40LLM_CONTEXT_FULL, "text 2 of 3: the prompt has 161 tokens, 1 more");
    refuse(e, (size_t[]){3, SIZE_MAX}, 2, &o, M40LLM_CONTEXT_FULL, "text 2 of 2");
    wrong = o;
    wrong.pooling = (m40llm_pooling)7;
    refuse(e, lengths, 1, &wrong, M40LLM_INVALID_ARGUMENT, "pooling 7");
    wrong = o;
    wrong.priority = 101;
    refuse(e, lengths, 1, &wrong, M40LLM_INVALID_ARGUMENT, "priority 101");
    texts[0] += N_VOCAB;
    refuse(e, lengths, 1, &o, M40LLM_INVALID_ARGUMENT, "text 1 of 1: token id");
    texts[0] -= N_VOCAB;
    m40_engine_close(&e);
}

/* Cancelled before, and on its way, and closed with. */
static void test_cancel(void **state)
{
    struct m40_engine *e = open_engine(&cpu, &(struct way){.n_sequences = 2, .n_chunk = 2});
    m40llm_embed_options o = M40LLM_EMBED_OPTIONS_INIT;
    m40llm_result result;
    uint64_t id;

    (void)state;
    o.pooling = M40LLM_POOLING_MEAN;
    for (int i = 0; i < 3; i++) {
        m40llm_event event = {0};

        OK(m40_engine_submit_embeddings(e, texts, lengths, N_TEXTS, &o, &id, &err));
        while (i > 0 && event.type != M40LLM_EVENT_EMBEDDING)
            OK(m40_engine_read(e, id, -1, &event, &err));
        if (i == 2)
            break;
        m40_engine_cancel(e, id);
        OK(m40_engine_wait(e, id, &result, &err));
        assert_int_equal(result.n_generated, 0);
    }
    m40_engine_close(&e);
}

/* ---- out of memory at every point ---- */

static int n_left;

static bool fail_now(void *user)
{
    (void)user;
    return n_left-- == 0;
}

static void test_allocation_failures(void **state)
{
    struct m40_engine *e = open_engine(&cpu, &(struct way){.n_sequences = 2});
    m40llm_embed_options o = M40LLM_EMBED_OPTIONS_INIT;
    m40llm_status status = M40LLM_NO_MEMORY;
    int k;

    (void)state;
    o.pooling = M40LLM_POOLING_LAST;
    for (k = 0; status != M40LLM_OK; k++) {
        uint64_t id = 0;

        n_left = k;
        m40_engine_pause(e);
        m40_mem_set_failure_hook(fail_now, NULL);
        status = m40_engine_submit_embeddings(e, texts, lengths, 2, &o, &id, &err);
        m40_engine_resume(e);
        if (status == M40LLM_OK)
            status = m40_engine_wait(e, id, NULL, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        assert_true(status == M40LLM_OK || status == M40LLM_NO_MEMORY);
    }
    assert_true(k > 5);
    m40_engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hidden_states_make_the_logits),
        cmocka_unit_test(test_the_same_bits),
        cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_on_cuda),
        cmocka_unit_test(test_prefix_cache),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
