#define _GNU_SOURCE
/* What decoding asks of the driver and of the host's allocator: no memory, one wait a step, whatever chooses the tokens. Counted at the driver's table, beside the backend's own counters. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "model/model.h"
#include "model/synth.h"

enum { N_SEQUENCES = 2, N_PROMPT = 40, N_MAX_TOKENS = 36 /* over the end of a piece of attention */, WARM_UP = 8 };

static m40llm_error err;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

/* ---- the driver's calls, counted ---- */

static struct m40_cuda_driver real;
static struct counts {
    uint64_t n_allocs, n_syncs, n_mallocs;
} counts;

static CUresult mem_alloc(CUdeviceptr *ptr, size_t n_bytes)
{
    counts.n_allocs++;
    return real.MemAlloc(ptr, n_bytes);
}

static CUresult mem_free(CUdeviceptr ptr)
{
    counts.n_allocs++;
    return real.MemFree(ptr);
}

static CUresult host_alloc(void **ptr, size_t n_bytes, unsigned flags)
{
    counts.n_allocs++;
    return real.MemHostAlloc(ptr, n_bytes, flags);
}

static CUresult host_free(void *ptr)
{
    counts.n_allocs++;
    return real.MemFreeHost(ptr);
}

static CUresult sync_context(void)
{
    counts.n_syncs++;
    return real.CtxSynchronize();
}

static CUresult sync_stream(CUstream stream)
{
    counts.n_syncs++;
    return real.StreamSynchronize(stream);
}

static CUresult sync_event(CUevent event)
{
    counts.n_syncs++;
    return real.EventSynchronize(event);
}

static CUresult copy_in(CUdeviceptr to, const void *from, size_t n_bytes)
{
    counts.n_syncs++;
    return real.MemcpyHtoD(to, from, n_bytes);
}

static CUresult copy_out(void *to, CUdeviceptr from, size_t n_bytes)
{
    counts.n_syncs++;
    return real.MemcpyDtoH(to, from, n_bytes);
}

static bool count_malloc(void *user)
{
    (void)user;
    counts.n_mallocs++;
    return false;
}

static void count_calls(struct m40_cuda_driver *d)
{
    real = *d;
    d->MemAlloc = mem_alloc;
    d->MemFree = mem_free;
    d->MemHostAlloc = host_alloc;
    d->MemFreeHost = host_free;
    d->CtxSynchronize = sync_context;
    d->StreamSynchronize = sync_stream;
    d->EventSynchronize = sync_event;
    d->MemcpyHtoD = copy_in;
    d->MemcpyDtoH = copy_out;
    memset(&counts, 0, sizeof counts);
}

static struct m40_backend *open_cuda(int no_graphs)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    const char *library = getenv("M40LLM_CUDA_LIB");
    struct m40_backend *be;

    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    options.no_graphs = no_graphs;
    OK(m40_backend_open_cuda(&be, &options, &err));
    return be;
}

/* ---- decoding ---- */

/* One request's view of the steps: what has been counted when its tokens came. */
struct request {
    const struct m40_backend *be;
    uint32_t n_tokens;
    struct counts at[N_MAX_TOKENS];
    struct m40_cuda_counters backend_at[N_MAX_TOKENS];
};

static void on_event(void *user, const m40llm_event *event)
{
    struct request *r = user;

    if (event->type != M40LLM_EVENT_TOKEN)
        return;
    r->at[r->n_tokens] = counts;
    r->backend_at[r->n_tokens++] = ((const struct m40_cuda *)r->be)->counters;
}

/* From token to token of a request that decodes alone or beside others, none of which begins or ends meanwhile. */
static void check_steps(const struct request *r, bool with_graphs)
{
    assert_int_equal(r->n_tokens, N_MAX_TOKENS);
    for (uint32_t i = WARM_UP; i < N_MAX_TOKENS; i++) {
        const struct counts *a = &r->at[i - 1], *b = &r->at[i];
        const struct m40_cuda_counters *p = &r->backend_at[i - 1], *q = &r->backend_at[i];

        assert_int_equal(b->n_allocs - a->n_allocs, 0);
        assert_int_equal(b->n_syncs - a->n_syncs, 1);
        assert_int_equal(b->n_mallocs - a->n_mallocs, 0);
        assert_int_equal(q->n_allocs - p->n_allocs, 0);
        assert_int_equal(q->n_syncs - p->n_syncs, 1);
        assert_true(q->n_graph_launches - p->n_graph_launches <= with_graphs);
        assert_true(q->n_launches > p->n_launches || q->n_graph_launches > p->n_graph_launches);
    }
    if (with_graphs)
        assert_true(r->backend_at[N_MAX_TOKENS - 1].n_graph_launches - r->backend_at[WARM_UP].n_graph_launches > N_MAX_TOKENS / 2);
}

static void run_requests(struct m40_backend *be, struct m40_model *model, m40llm_sampling sampling, bool with_graphs)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *engine;
    static struct request requests[N_SEQUENCES];
    int32_t prompt[N_PROMPT];
    uint64_t ids[N_SEQUENCES];
    m40llm_result result;

    options.n_ctx = 256;
    options.n_chunk = 64;
    options.n_sequences = N_SEQUENCES;
    OK(m40_engine_open(&engine, model, NULL, &options, &err));
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = i * 7 % 500;
    memset(requests, 0, sizeof requests);
    m40_engine_pause(engine);
    for (int i = 0; i < N_SEQUENCES; i++) {
        m40llm_request_options o = M40LLM_REQUEST_OPTIONS_INIT;

        requests[i].be = be;
        o.sampling = sampling;
        o.sampling.seed = (uint64_t)i + 1;
        o.n_max_tokens = N_MAX_TOKENS;
        o.ignore_end = 1;
        o.on_event = on_event;
        o.user = &requests[i];
        OK(m40_engine_submit(engine, prompt, N_PROMPT, &o, &ids[i], &err));
    }
    m40_engine_resume(engine);
    for (int i = 0; i < N_SEQUENCES; i++)
        OK(m40_engine_wait(engine, ids[i], &result, &err));
    for (int i = 0; i < N_SEQUENCES; i++)
        check_steps(&requests[i], with_graphs);
    m40_engine_close(&engine);
}

static void test_a_step_of_decoding_allocates_nothing_and_waits_once(void **state)
{
    m40llm_sampling greedy = M40LLM_SAMPLING_INIT, on_host = M40LLM_SAMPLING_INIT;
    struct m40_gguf *gguf;
    char path[512];

    (void)state;
    greedy.temperature = 0.0f;
    on_host.temperature = 0.9f;
    on_host.top_k = 40;
    on_host.top_p = 0.95f;
    on_host.repeat_penalty = 1.1f;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    for (int no_graphs = 0; no_graphs < 2; no_graphs++) {
        struct m40_backend *be = open_cuda(no_graphs);
        struct m40_model *model;

        OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
        count_calls(m40_cuda_of(be)->driver);
        m40_mem_set_failure_hook(count_malloc, NULL);
        run_requests(be, model, greedy, !no_graphs);
        if (!no_graphs)
            run_requests(be, model, on_host, true);
        m40_mem_set_failure_hook(NULL, NULL);
        m40_model_close(&model);
        m40_backend_close(&be);
    }
    m40_gguf_close(&gguf);
}

/* ---- reads and writes by themselves ---- */

static void test_a_read_of_the_reserved_size_waits_once(void **state)
{
    struct m40_backend *be = open_cuda(0);
    struct m40_workload workload = {.n_tokens = 1, .n_cols = 256, .n_rows = 32, .n_heads = 1, .head_dim = 32, .n_ctx = 64};
    const uint64_t n_bytes = (5 << 20) + 12;
    uint8_t *sent = malloc(n_bytes), *got = malloc(n_bytes);
    m40_addr memory;

    (void)state;
    assert_true(sent && got);
    for (uint64_t i = 0; i < n_bytes; i++)
        sent[i] = (uint8_t)(i * 31 >> 3);
    workload.read_bytes = n_bytes;
    OK(be->ops.reserve(be, &workload, &err));
    OK(be->ops.alloc(be, n_bytes, &memory, &err));
    OK(be->ops.write(be, memory, sent, n_bytes, &err));
    count_calls(m40_cuda_of(be)->driver);
    OK(be->ops.read(be, got, memory, n_bytes, &err));
    assert_int_equal(counts.n_syncs, 1);
    assert_memory_equal(sent, got, n_bytes);
    workload.read_bytes = 0; /* the larger buffer stays */
    OK(be->ops.reserve(be, &workload, &err));
    counts.n_syncs = 0;
    OK(be->ops.read(be, got, memory, n_bytes, &err));
    assert_int_equal(counts.n_syncs, 1);
    be->ops.free(be, memory);
    m40_backend_close(&be);
    free(sent);
    free(got);
}

/* The ring of stages starts over with every wait: writes never wait as long as a step's fit in it. */
static void test_writes_between_waits_do_not_wait(void **state)
{
    struct m40_backend *be = open_cuda(0);
    const uint64_t n_bytes = 3 << 20;
    uint8_t *data = calloc(n_bytes, 1), last[16];
    m40_addr memory;

    (void)state;
    assert_non_null(data);
    OK(be->ops.alloc(be, n_bytes, &memory, &err));
    count_calls(m40_cuda_of(be)->driver);
    for (int step = 1; step <= 9; step++) {
        for (int i = 0; i < 3; i++) {
            memset(data, 16 * i + step, n_bytes);
            OK(be->ops.write(be, memory, data, n_bytes, &err));
        }
        OK(be->ops.read(be, last, memory + n_bytes - 16, 16, &err));
        assert_int_equal(last[15], 32 + step);
        assert_int_equal(counts.n_syncs, step);
    }
    assert_int_equal(counts.n_allocs, 0);
    be->ops.free(be, memory);
    m40_backend_close(&be);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_step_of_decoding_allocates_nothing_and_waits_once),
        cmocka_unit_test(test_a_read_of_the_reserved_size_waits_once),
        cmocka_unit_test(test_writes_between_waits_do_not_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
