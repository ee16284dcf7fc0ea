#define _GNU_SOURCE
/* The resident loop: the same tokens as recorded steps, whatever comes between them, at the ends of pages, with one sequence and several; what it ran ahead leaves no trace; and how it fails. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "model/model.h"
#include "model/synth.h"

enum { N_VOCAB = 512, N_SLOTS = 4, N_SLOT_PAGES = 4, N_CTX = N_SLOT_PAGES * M40_KV_PAGE };

static m40llm_error err;
static struct m40_gguf *gguf;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

/* A model and its sequences; each one's tokens, of which n_done are evaluated. */
struct decoder {
    struct m40_backend *be;
    struct m40_model *model;
    struct m40_forward *forward;
    int32_t tokens[N_SLOTS][N_CTX + 1];
    uint32_t n_done[N_SLOTS];
    int32_t pages[N_SLOTS * N_SLOT_PAGES];
};

static struct m40_cuda *cuda_of(struct decoder *d)
{
    return m40_cuda_of(d->be);
}

static void decoder_open(struct decoder *d, int resident_loop)
{
    const struct m40_forward_limits limits = {64, N_SLOTS, N_SLOTS, N_SLOT_PAGES, N_SLOTS * N_SLOT_PAGES, M40LLM_KV_F16};
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    const char *library = getenv("M40LLM_CUDA_LIB");

    memset(d, 0, sizeof *d);
    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    options.resident_loop = resident_loop;
    OK(m40_backend_open_cuda(&d->be, &options, &err));
    OK(m40_model_open(&d->model, gguf, d->be, NULL, NULL, &err));
    OK(m40_forward_open(&d->forward, d->model, &limits, &err));
    for (int32_t i = 0; i < N_SLOTS * N_SLOT_PAGES; i++)
        d->pages[i] = (i * 5 + 3) % (N_SLOTS * N_SLOT_PAGES);
}

static void decoder_close(struct decoder *d)
{
    m40_forward_close(&d->forward);
    m40_model_close(&d->model);
    m40_backend_close(&d->be);
}

/* n tokens of every slot of the mask, and the likeliest ones after them. */
static m40llm_status try_step(struct decoder *d, uint32_t slots, uint32_t n)
{
    int32_t ids[64], pos[64], slot[64], rows[N_SLOTS], best[N_SLOTS];
    struct m40_batch batch = {.ids = ids, .pos = pos, .slot = slot, .logit_rows = rows, .pages = d->pages};
    m40llm_status status;

    for (uint32_t s = 0; s < N_SLOTS; s++) {
        for (uint32_t i = 0; slots >> s & 1 && i < n; i++) {
            ids[batch.n_tokens] = d->tokens[s][d->n_done[s] + i];
            pos[batch.n_tokens] = (int32_t)(d->n_done[s] + i);
            slot[batch.n_tokens++] = (int32_t)s;
        }
        if (slots >> s & 1)
            rows[batch.n_logits++] = (int32_t)batch.n_tokens - 1;
    }
    status = m40_forward_step_greedy(d->forward, &batch, best, &err);
    for (uint32_t s = 0, k = 0; s < N_SLOTS && status == M40LLM_OK; s++) {
        if (~slots >> s & 1)
            continue;
        d->n_done[s] += n;
        d->tokens[s][d->n_done[s]] = best[k++];
    }
    return status;
}

static void decode(struct decoder *d, uint32_t slots, uint32_t n_steps)
{
    while (n_steps--)
        OK(try_step(d, slots, 1));
}

/* A new sequence in the slot. */
static void prefill(struct decoder *d, uint32_t s, uint32_t n)
{
    d->n_done[s] = 0;
    for (uint32_t i = 0; i < n; i++)
        d->tokens[s][i] = (int32_t)((i * 37 + s * 11 + 5) % N_VOCAB);
    OK(try_step(d, 1u << s, n));
}

/* Everything that a server may do with it. */
static void play(struct decoder *d)
{
    prefill(d, 0, 5);
    decode(d, 1, 70); /* over ends of pages and of a piece */
    prefill(d, 1, 21);
    decode(d, 3, 30);
    prefill(d, 2, 40);
    decode(d, 7, 9);
    decode(d, 3, 3); /* one stands still for a while */
    decode(d, 7, 6);
    prefill(d, 0, 3); /* one ends, and its place is taken */
    decode(d, 5, 12);
}

/* ---- the same tokens ---- */

static void test_the_same_tokens_as_recorded_steps(void **state)
{
    static struct decoder graph, loop;

    (void)state;
    for (unsigned seed = 1; seed <= 2; seed++) {
        cuda_seed(seed);
        decoder_open(&graph, 0);
        play(&graph);
        decoder_open(&loop, 1);
        play(&loop);
        assert_true(cuda_of(&loop)->counters.n_loop_tokens > 100);
        assert_true(cuda_of(&loop)->counters.n_loop_launches <= cuda_of(&loop)->counters.n_loop_commands);
        assert_true(cuda_of(&graph)->counters.n_loop_tokens == 0);
        assert_memory_equal(graph.tokens, loop.tokens, sizeof loop.tokens);
        decoder_close(&graph);
        decoder_close(&loop);
    }
}

/* It ends after every token, and starts again. */
static void test_a_short_life(void **state)
{
    static struct decoder graph, loop;

    (void)state;
    decoder_open(&graph, 0);
    decoder_open(&loop, 1);
    cuda_of(&loop)->resident_timing.life_ns = 1;
    for (struct decoder *d = &graph; d; d = d == &graph ? &loop : NULL) {
        prefill(d, 0, 5);
        decode(d, 1, 12);
    }
    assert_memory_equal(graph.tokens, loop.tokens, sizeof loop.tokens);
    assert_int_equal(cuda_of(&loop)->counters.n_loop_launches, cuda_of(&loop)->counters.n_loop_tokens);
    decoder_close(&graph);
    decoder_close(&loop);
}

/* ---- failures ---- */

static void test_a_token_that_does_not_come(void **state)
{
    static struct decoder d;

    (void)state;
    decoder_open(&d, 1);
    prefill(&d, 0, 5);
    decode(&d, 1, 4);
    cuda_of(&d)->resident_timing.timeout_ns = 0;
    d.tokens[0][d.n_done[0]] ^= 1; /* not what the loop went on with */
    assert_int_equal(try_step(&d, 1, 1), M40LLM_DRIVER);
    assert_non_null(strstr(err.text, "no token from the resident loop"));
    cuda_of(&d)->resident_timing.timeout_ns = 10000000000;
    decode(&d, 1, 4);
    assert_true(cuda_of(&d)->counters.n_loop_tokens >= 6);
    decoder_close(&d);
}

/* A kernel without a place in the loop: the step stays a graph. */
static void test_weights_without_a_loop(void **state)
{
    static struct decoder d;
    uint64_t n_before;

    (void)state;
    decoder_open(&d, 1);
    prefill(&d, 0, 5);
    prefill(&d, 1, 5);
    prefill(&d, 2, 5);
    prefill(&d, 3, 5);
    for (size_t i = 0; i < cuda_of(&d)->n_functions; i++)
        if (strcmp(cuda_of(&d)->functions[i].name, "silu_mul") == 0)
            strcpy(cuda_of(&d)->functions[i].name, "other");
    n_before = cuda_of(&d)->counters.n_graph_launches;
    decode(&d, 15, 4);
    assert_int_equal(cuda_of(&d)->counters.n_loop_tokens, 0);
    assert_int_equal(cuda_of(&d)->counters.n_graph_launches, n_before + 3);
    decoder_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_tokens_as_recorded_steps),
        cmocka_unit_test(test_a_short_life),
        cmocka_unit_test(test_a_token_that_does_not_come),
        cmocka_unit_test(test_weights_without_a_loop),
    };
    char path[512];
    int rc;

    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    if (m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err) != M40LLM_OK || m40_gguf_open(&gguf, path, &err) != M40LLM_OK)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    m40_gguf_close(&gguf);
    return rc;
}
