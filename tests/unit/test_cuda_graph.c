#define _GNU_SOURCE
/* Steps that are recorded and issued whole: the same bits as step by step, one call to the driver, no allocation, one wait; and what makes the backend forget them. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "backend/sample.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/synth.h"

enum { N_VOCAB = 512, N_PROMPT = 62, N_DECODED = 8 };

static m40llm_error err;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

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

/* ---- whole steps ---- */

/* Two sequences, the second three positions behind: prompts together, then a token of each at a time, over the end of a piece and of a page. */
struct decoder {
    struct m40_model *model;
    struct m40_forward *forward;
    int32_t ids[2 * N_PROMPT], pos[2 * N_PROMPT], slot[2 * N_PROMPT];
};

/* logits NULL: only ids, [2]: the likeliest, or with params [2] sampled. */
static void decoder_step(struct decoder *d, uint32_t first, uint32_t n, float *logits, const struct m40_sample_row *params, int32_t *ids)
{
    static const int32_t pages[] = {5, 1, 0, 2, 4, 3};
    struct m40_batch batch = {.ids = d->ids, .pos = d->pos, .slot = d->slot, .pages = pages, .n_logits = 2};
    int32_t rows[2];

    for (uint32_t s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < n - (first == 0 ? 3 * s : 0); i++) {
            int32_t pos = (int32_t)(first + i) - (first ? 3 * (int32_t)s : 0);

            d->ids[batch.n_tokens] = (pos * 37 + (int32_t)s * 11) % N_VOCAB;
            d->pos[batch.n_tokens] = pos;
            d->slot[batch.n_tokens++] = (int32_t)s;
        }
        rows[s] = (int32_t)batch.n_tokens - 1;
    }
    batch.logit_rows = rows;
    if (logits)
        OK(m40_forward_step(d->forward, &batch, logits, &err));
    else if (params)
        OK(m40_forward_step_sample(d->forward, &batch, params, ids, &err));
    else
        OK(m40_forward_step_greedy(d->forward, &batch, ids, &err));
}

/* The last step again, as one that gives only the likeliest tokens: it is another step than the one that gives logits. */
static void check_greedy(struct decoder *d, const float *logits)
{
    for (int turn = 0; turn < 3; turn++) {
        int32_t best[2] = {-1, -1};

        decoder_step(d, N_PROMPT + N_DECODED - 1, 1, NULL, NULL, best);
        for (uint32_t row = 0; row < 2; row++)
            for (uint32_t i = 0; i < N_VOCAB; i++)
                assert_true(logits[row * N_VOCAB + i] <= logits[row * N_VOCAB + (uint32_t)best[row]]);
    }
}

/* The last step again, as one that samples: its parameters are no part of what is recorded. Its logits can be had all the same. */
static void check_sampled(struct decoder *d, const float *logits)
{
    static float again[2 * N_VOCAB];
    uint64_t random = test_seed();

    for (int turn = 0; turn < 6; turn++) {
        struct m40_sample_row params[2] = {{test_random(&random), 1, 0.9f, M40_SAMPLE_LEAST_Z, 100u + (uint32_t)turn},
                                           {test_random(&random), turn == 4 ? 0 : 0.5f, 1, m40_sample_min_z(0.01f), 0}};
        int32_t ids[2] = {-1, -1};

        decoder_step(d, N_PROMPT + N_DECODED - 1, 1, NULL, params, ids);
        for (uint32_t row = 0; row < 2; row++)
            assert_int_equal(ids[row], m40_sample(logits + row * N_VOCAB, N_VOCAB, &params[row]));
    }
    OK(m40_forward_read_logits(d->forward, 0, 2, again, &err));
    assert_memory_equal(again, logits, sizeof again);
    OK(m40_forward_read_logits(d->forward, 1, 1, again, &err));
    assert_memory_equal(again, logits + N_VOCAB, sizeof again / 2);
    assert_int_equal(m40_forward_read_logits(d->forward, 1, 2, again, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_forward_read_logits(d->forward, 2, 0, again, &err), M40LLM_INVALID_ARGUMENT);
}

/* logits: [1 + N_DECODED][2][N_VOCAB]; counters: of the last step */
static void decode(struct m40_backend *be, const struct m40_gguf *gguf, float *logits, struct m40_cuda_counters *counters)
{
    const struct m40_forward_limits limits = {2 * N_PROMPT, 2, 2, 3, 6, M40LLM_KV_F16};
    struct decoder d = {0};
    struct m40_cuda_counters *now = &m40_cuda_of(be)->counters;

    OK(m40_model_open(&d.model, gguf, be, NULL, NULL, &err));
    OK(m40_forward_open(&d.forward, d.model, &limits, &err));
    decoder_step(&d, 0, N_PROMPT, logits, NULL, NULL);
    for (uint32_t i = 0; i < N_DECODED; i++) {
        *counters = *now;
        decoder_step(&d, N_PROMPT + i, 1, logits + (size_t)(i + 1) * 2 * N_VOCAB, NULL, NULL);
    }
    counters->n_launches = now->n_launches - counters->n_launches;
    counters->n_graph_launches = now->n_graph_launches - counters->n_graph_launches;
    counters->n_syncs = now->n_syncs - counters->n_syncs;
    counters->n_allocs = now->n_allocs - counters->n_allocs;
    check_greedy(&d, logits + (size_t)N_DECODED * 2 * N_VOCAB);
    check_sampled(&d, logits + (size_t)N_DECODED * 2 * N_VOCAB);
    m40_forward_close(&d.forward);
    m40_model_close(&d.model);
}

static void test_recorded_steps_give_the_same_bits(void **state)
{
    static float direct[(1 + N_DECODED) * 2 * N_VOCAB], recorded[(1 + N_DECODED) * 2 * N_VOCAB];
    char path[512];
    struct m40_gguf *gguf;

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    for (unsigned seed = 1; seed <= 2; seed++) {
        struct m40_backend *be;
        struct m40_cuda_counters counters;

        cuda_seed(seed);
        be = open_cuda(1);
        decode(be, gguf, direct, &counters);
        assert_int_equal(counters.n_graph_launches, 0);
        assert_true(counters.n_launches > 0);
        m40_backend_close(&be);
        be = open_cuda(0);
        decode(be, gguf, recorded, &counters);
        assert_int_equal(m40_cuda_of(be)->steps.n, 0); /* its memory is gone */
        m40_backend_close(&be);
        assert_memory_equal(recorded, direct, sizeof direct);
        assert_int_equal(counters.n_launches, 0);
        assert_int_equal(counters.n_graph_launches, 1);
        assert_int_equal(counters.n_syncs, 1);
        assert_int_equal(counters.n_allocs, 0);
    }
    m40_gguf_close(&gguf);
}

/* ---- what is kept ---- */

/* A step of one operation: y = x, two floats. Returns whether the backend had it. */
static bool copy_step(struct m40_backend *be, m40_addr memory, uint32_t number, bool is_whole)
{
    struct m40_step_key key = {memory, 1, number, number, M40_STEP_LOGITS};
    struct m40_gather_rows_args args = {.x = memory, .rows = memory + 256, .y = memory + 512, .n_rows = 1, .n_cols = 2};
    bool is_issued;

    OK(be->ops.step_begin(be, &key, &is_issued, &err));
    if (is_issued)
        return true;
    OK(be->ops.gather_rows(be, &args, &err));
    OK(be->ops.step_end(be, is_whole, &err));
    return false;
}

static m40_addr new_memory(struct m40_backend *be)
{
    m40_addr memory;
    const int32_t row = 0;

    OK(be->ops.alloc(be, 1024, &memory, &err));
    OK(be->ops.write(be, memory + 256, &row, sizeof row, &err));
    return memory;
}

static void test_steps_are_kept_and_forgotten(void **state)
{
    struct m40_backend *be = open_cuda(0);
    m40_addr memory = new_memory(be), other = new_memory(be);
    struct m40_workload workload = {.n_tokens = 1, .n_cols = 256, .n_rows = 32, .n_heads = 1, .head_dim = 32, .n_ctx = 64};
    float x[2] = {1.0f, 2.0f}, y[2];

    (void)state;
    for (int turn = 0; turn < 4; turn++) {
        x[0] = (float)turn;
        OK(be->ops.write(be, memory, x, sizeof x, &err));
        assert_int_equal(copy_step(be, memory, 0, true), turn >= 2); /* directly, recorded, and from then on whole */
        OK(be->ops.read(be, y, memory + 512, sizeof y, &err));
        assert_memory_equal(x, y, sizeof x);
    }
    assert_false(copy_step(be, other, 0, true)); /* another's */
    OK(be->ops.reserve(be, &workload, &err));
    assert_false(copy_step(be, memory, 0, true));
    assert_false(copy_step(be, memory, 0, true));
    assert_true(copy_step(be, memory, 0, true));
    be->ops.free(be, other);
    assert_false(copy_step(be, memory, 0, true));
    assert_false(copy_step(be, memory, 0, false)); /* broken off while it was recorded */
    assert_false(copy_step(be, memory, 0, true));
    be->ops.free(be, memory);
    m40_backend_close(&be);
}

static void test_the_step_unused_for_longest_goes(void **state)
{
    struct m40_backend *be = open_cuda(0);
    m40_addr memory = new_memory(be);
    uint64_t n_syncs;

    (void)state;
    for (uint32_t i = 0; i < M40_CUDA_N_STEPS; i++)
        for (int turn = 0; turn < 3; turn++)
            assert_int_equal(copy_step(be, memory, i, true), turn == 2);
    OK(be->ops.sync(be, &err));
    n_syncs = m40_cuda_of(be)->counters.n_syncs;
    assert_true(copy_step(be, memory, 0, true));
    assert_false(copy_step(be, memory, M40_CUDA_N_STEPS, true));  /* in the place of step 1 */
    assert_int_equal(m40_cuda_of(be)->counters.n_syncs, n_syncs); /* which cannot be running any more */
    assert_true(copy_step(be, memory, 0, true));
    assert_true(copy_step(be, memory, 2, true));
    assert_false(copy_step(be, memory, 1, true));
    assert_int_equal(m40_cuda_of(be)->steps.n, M40_CUDA_N_STEPS);
    be->ops.free(be, memory);
    m40_backend_close(&be);
}

static CUresult fail_to_instantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    (void)exec;
    (void)graph;
    (void)flags;
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void test_a_step_that_cannot_be_recorded_fails(void **state)
{
    struct m40_backend *be = open_cuda(0);
    struct m40_cuda_driver *driver = m40_cuda_of(be)->driver;
    CUresult (*instantiate)(CUgraphExec *, CUgraph, unsigned long long) = driver->GraphInstantiate;
    m40_addr memory = new_memory(be);
    struct m40_step_key key = {memory, 1, 1, 1, M40_STEP_LOGITS};
    bool is_issued;

    (void)state;
    assert_false(copy_step(be, memory, 1, true));
    driver->GraphInstantiate = fail_to_instantiate;
    OK(be->ops.step_begin(be, &key, &is_issued, &err));
    assert_int_equal(be->ops.step_end(be, true, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_non_null(strstr(err.text, "recorded step"));
    driver->GraphInstantiate = instantiate;
    assert_false(copy_step(be, memory, 1, true));
    assert_false(copy_step(be, memory, 1, true));
    assert_true(copy_step(be, memory, 1, true));
    be->ops.free(be, memory);
    m40_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_steps_give_the_same_bits),
        cmocka_unit_test(test_steps_are_kept_and_forgotten),
        cmocka_unit_test(test_the_step_unused_for_longest_goes),
        cmocka_unit_test(test_a_step_that_cannot_be_recorded_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
