/* The engine over the CPU backend, on a small random model: what a request gives must not depend on its neighbours or on how its prompt was cut; limits, cancelling, statistics, and running
 * out of memory at every point. */
#include "harness/harness.h"

#include "base/half.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "model/synth.h"

#include <math.h>

enum { MAX_TOKENS = 256, MAX_ROWS = 256, N_VOCAB = 512 };

static struct m40_gguf *gguf;
static struct m40_backend *backend;
static struct m40_model *model;
static struct m40_tokenizer *tokenizer;

static int open_model(void **state)
{
    char path[512];
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_error err;

    (void)state;
    options.n_threads = 1;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    if (m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err) != M40LLM_OK || m40_gguf_open(&gguf, path, &err) != M40LLM_OK ||
        m40_backend_open_cpu(&backend, &options, &err) != M40LLM_OK || m40_model_open(&model, gguf, backend, NULL, NULL, &err) != M40LLM_OK ||
        m40_tokenizer_open(&tokenizer, gguf, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    m40_tokenizer_close(&tokenizer);
    m40_model_close(&model);
    m40_backend_close(&backend);
    m40_gguf_close(&gguf);
    return 0;
}

static struct m40_engine *open_engine(uint32_t n_ctx, uint32_t n_chunk, uint32_t n_sequences)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e;
    m40llm_error err;

    options.n_ctx = n_ctx;
    options.n_chunk = n_chunk;
    options.n_sequences = n_sequences;
    if (m40_engine_open(&e, model, tokenizer, &options, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return e;
}

/* What a request gave. */
struct record {
    struct m40_engine *engine;
    uint64_t id;
    int32_t tokens[MAX_TOKENS];
    uint32_t n_tokens, n_rows, row_pos[MAX_ROWS];
    uint64_t row_hash[MAX_ROWS];
    uint32_t n_prefilled, n_prompt;
    uint32_t cancel_after; /* tokens; 0: never */
    uint32_t n_ends;
    m40llm_finish finish;
    m40llm_result result;
};

static void on_event(void *user, const m40llm_event *event)
{
    struct record *r = user;

    assert_int_equal(r->n_ends, 0);
    switch (event->type) {
    case M40LLM_EVENT_PREFILL:
        assert_true(event->n_done > r->n_prefilled && event->n_done <= r->n_prompt);
        r->n_prefilled = event->n_done;
        break;
    case M40LLM_EVENT_TOKEN:
        assert_int_equal(event->pos, r->n_prompt + r->n_tokens);
        r->tokens[r->n_tokens++] = event->token;
        if (r->n_tokens == r->cancel_after)
            m40_engine_cancel(r->engine, event->id);
        break;
    case M40LLM_EVENT_FINISH:
        r->finish = event->finish;
        break;
    case M40LLM_EVENT_END:
        r->n_ends++;
        assert_int_equal(event->result->finish, r->finish);
        break;
    case M40LLM_EVENT_EMBEDDING:
        fail_msg("an embedding");
    }
}

static void on_logits(void *user, uint32_t pos, const float *logits, size_t n_vocab)
{
    struct record *r = user;
    uint64_t hash = 0xcbf29ce484222325u;

    assert_int_equal(n_vocab, N_VOCAB);
    for (size_t i = 0; i < n_vocab; i++) {
        uint32_t bits;

        assert_true(isfinite(logits[i]));
        memcpy(&bits, &logits[i], 4);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    r->row_pos[r->n_rows] = pos;
    r->row_hash[r->n_rows++] = hash;
}

static m40llm_request_options request(struct record *r, uint32_t n_max_tokens)
{
    m40llm_request_options o = M40LLM_REQUEST_OPTIONS_INIT;

    memset(r, 0, sizeof *r);
    o.n_max_tokens = n_max_tokens;
    o.ignore_end = 1;
    o.on_event = on_event;
    o.on_logits = on_logits;
    o.user = r;
    return o;
}

static void make_prompt(int32_t *prompt, uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(test_random(&seed) % N_VOCAB);
}

static void submit(struct m40_engine *e, struct record *r, const int32_t *prompt, uint32_t n_prompt, const m40llm_request_options *options)
{
    m40llm_error err;

    r->engine = e;
    r->n_prompt = n_prompt;
    if (m40_engine_submit(e, prompt, n_prompt, options, &r->id, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    assert_true(r->id != 0);
}

static void wait_for(struct record *r)
{
    m40llm_error err;

    if (m40_engine_wait(r->engine, r->id, &r->result, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    assert_int_equal(r->result.n_generated, r->n_tokens);
    assert_int_equal(r->result.n_prompt, r->n_prompt);
    assert_int_equal(r->n_ends, 1);
}

static void expect_same(const struct record *a, const struct record *b)
{
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_memory_equal(a->row_pos, b->row_pos, a->n_rows * sizeof *a->row_pos);
    assert_memory_equal(a->row_hash, b->row_hash, a->n_rows * sizeof *a->row_hash);
    assert_int_equal(a->result.finish, b->result.finish);
}

static uint64_t pages_used(struct m40_engine *e)
{
    m40llm_stats stats;

    m40_engine_get_stats(e, &stats);
    return stats.n_pages_used;
}

/* ---- the same bits, whatever shares the steps ---- */

enum { N_REQUESTS = 5 };

static const uint32_t lengths[N_REQUESTS] = {1, 5, 33, 70, 32};

static m40llm_request_options nth_request(struct record *r, int i)
{
    m40llm_request_options o = request(r, 6 + 3 * (uint32_t)i);

    o.sampling.temperature = i % 2 ? 0.9f : 0;
    o.sampling.seed = test_seed() + (uint64_t)i;
    o.sampling.repeat_penalty = i == 3 ? 1.3f : 1;
    o.all_logits = i >= 3;
    return o;
}

static void run_together(struct m40_engine *e, struct record *records)
{
    m40_engine_pause(e);
    for (int i = 0; i < N_REQUESTS; i++) {
        m40llm_request_options o = nth_request(&records[i], i);
        int32_t prompt[128];

        make_prompt(prompt, lengths[i], test_seed() ^ (uint64_t)i);
        submit(e, &records[i], prompt, lengths[i], &o);
    }
    m40_engine_resume(e);
    for (int i = 0; i < N_REQUESTS; i++)
        wait_for(&records[(i + 2) % N_REQUESTS]);
}

static void test_together_equals_alone(void **state)
{
    static struct record alone[N_REQUESTS], together[N_REQUESTS];
    static const uint32_t chunks[] = {1, 7, 32, 512};
    struct m40_engine *e = open_engine(128, 512, 1);

    (void)state;
    for (int i = 0; i < N_REQUESTS; i++) {
        m40llm_request_options o = nth_request(&alone[i], i);
        int32_t prompt[128];

        make_prompt(prompt, lengths[i], test_seed() ^ (uint64_t)i);
        submit(e, &alone[i], prompt, lengths[i], &o);
        wait_for(&alone[i]);
        assert_int_equal(alone[i].n_prefilled, lengths[i]);
        assert_int_equal(alone[i].result.finish, M40LLM_FINISH_LENGTH);
        assert_int_equal(pages_used(e), 0);
    }
    m40_engine_close(&e);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        e = open_engine(128, chunks[k], N_REQUESTS);
        for (int again = 0; again < 2; again++) { /* the second time the pages come in another order */
            run_together(e, together);
            for (int i = 0; i < N_REQUESTS; i++)
                expect_same(&alone[i], &together[i]);
            assert_int_equal(pages_used(e), 0);
        }
        m40_engine_close(&e);
    }
}

/* A request gives the same tokens when nobody looks at its logits, so that the backend chooses them; alone, beside one that has its logits looked at, and beside one with penalties. */
static void check_without_logits(const m40llm_sampling *sampling)
{
    static struct record with, without, beside;
    struct m40_engine *e = open_engine(128, 32, 2);
    m40llm_request_options o = request(&with, 20);
    int32_t prompt[40];

    o.sampling = *sampling;
    make_prompt(prompt, 40, test_seed() ^ 99);
    submit(e, &with, prompt, 40, &o);
    wait_for(&with);
    for (int turn = 0; turn < 3; turn++) {
        m40llm_request_options other = request(&beside, 9);

        o = request(&without, 20);
        o.on_logits = NULL;
        o.sampling = *sampling;
        m40_engine_pause(e);
        submit(e, &without, prompt, 40, &o);
        other.sampling.temperature = 0.9f;
        if (turn == 2) {
            other.on_logits = NULL;
            other.sampling.repeat_penalty = 1.2f;
        }
        if (turn > 0)
            submit(e, &beside, prompt, 5, &other);
        m40_engine_resume(e);
        wait_for(&without);
        if (turn > 0)
            wait_for(&beside);
        assert_int_equal(without.n_tokens, with.n_tokens);
        assert_memory_equal(without.tokens, with.tokens, with.n_tokens * sizeof *with.tokens);
    }
    m40_engine_close(&e);
}

static void test_without_logits(void **state)
{
    m40llm_sampling sampling = M40LLM_SAMPLING_INIT;

    (void)state;
    check_without_logits(&sampling);
    sampling.temperature = 1.1f;
    sampling.seed = test_seed();
    check_without_logits(&sampling);
    sampling.top_k = 30;
    sampling.top_p = 0.8f;
    sampling.min_p = 0.01f;
    check_without_logits(&sampling);
    sampling.penalty_last_n = 0; /* no window: no penalty */
    sampling.repeat_penalty = 2;
    check_without_logits(&sampling);
}

static void test_rows_of_logits(void **state)
{
    static struct record all, last;
    struct m40_engine *e = open_engine(64, 7, 1);
    m40llm_request_options o = request(&all, 4);
    int32_t prompt[20];

    (void)state;
    make_prompt(prompt, 20, 9);
    o.all_logits = 1;
    submit(e, &all, prompt, 20, &o);
    wait_for(&all);
    assert_int_equal(all.n_rows, 20 + 4 - 1); /* of the last token none are made */
    for (uint32_t i = 0; i < all.n_rows; i++)
        assert_int_equal(all.row_pos[i], i);
    o = request(&last, 4);
    submit(e, &last, prompt, 20, &o);
    wait_for(&last);
    assert_int_equal(last.n_rows, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(last.row_pos[i], 19 + i);
        assert_true(last.row_hash[i] == all.row_hash[19 + i]);
    }
    o = request(&last, 0); /* the prompt alone */
    submit(e, &last, prompt, 20, &o);
    wait_for(&last);
    assert_int_equal(last.n_rows, 1);
    assert_int_equal(last.n_tokens, 0);
    assert_int_equal(last.result.finish, M40LLM_FINISH_LENGTH);
    m40_engine_close(&e);
}

/* ---- how requests end ---- */

static void test_cancel(void **state)
{
    static struct record one, other, late, undisturbed;
    struct m40_engine *e = open_engine(128, 8, 3);
    m40llm_request_options o = request(&undisturbed, 12);
    int32_t prompt[10];

    (void)state;
    make_prompt(prompt, 10, 4);
    submit(e, &undisturbed, prompt, 10, &o);
    wait_for(&undisturbed);
    m40_engine_pause(e);
    o = request(&one, 50);
    one.cancel_after = 3;
    submit(e, &one, prompt, 7, &o);
    o = request(&other, 12);
    submit(e, &other, prompt, 10, &o);
    o = request(&late, 5);
    submit(e, &late, prompt, 5, &o);
    m40_engine_cancel(e, late.id); /* before it began */
    m40_engine_cancel(e, 12345);
    m40_engine_cancel(e, 0);
    m40_engine_resume(e);
    wait_for(&one);
    wait_for(&other);
    wait_for(&late);
    assert_int_equal(one.result.finish, M40LLM_FINISH_CANCELLED);
    assert_int_equal(one.n_tokens, 3);
    assert_int_equal(late.result.finish, M40LLM_FINISH_CANCELLED);
    assert_int_equal(late.n_tokens + late.n_rows, 0);
    expect_same(&other, &undisturbed);
    assert_int_equal(pages_used(e), 0);
    m40_engine_close(&e);
}

static void test_end_tokens(void **state)
{
    static struct record r;
    struct m40_engine *e = open_engine(64, 0, 1);
    int32_t eos = m40_tokenizer_eos(tokenizer), prompt[3] = {1, 2, 3};
    m40llm_logit_bias bias = {eos, 1000};
    m40llm_request_options o = request(&r, 5);

    (void)state;
    o.sampling.bias = &bias;
    o.sampling.n_bias = 1;
    submit(e, &r, prompt, 3, &o);
    wait_for(&r);
    assert_int_equal(r.n_tokens, 5); /* end tokens are ignored here */
    assert_int_equal(r.tokens[4], eos);
    o = request(&r, 5);
    o.sampling.bias = &bias;
    o.sampling.n_bias = 1;
    o.ignore_end = 0;
    submit(e, &r, prompt, 3, &o);
    wait_for(&r);
    assert_int_equal(r.n_tokens, 0);
    assert_int_equal(r.result.finish, M40LLM_FINISH_STOP);
    m40_engine_close(&e);
}

static void test_context_limit(void **state)
{
    static char text[1 << 20];
    static struct record r;
    struct m40_engine *e = open_engine(40, 0, 1);
    m40llm_request_options o = request(&r, 100);
    int32_t prompt[64];
    uint64_t id = 1;
    m40llm_error err;

    (void)state;
    make_prompt(prompt, 64, 2);
    assert_int_equal(m40_engine_submit(e, prompt, 48, &o, &id, &err), M40LLM_CONTEXT_FULL);
    assert_int_equal(id, 0);
    assert_non_null(strstr(err.text, "48 tokens"));
    assert_non_null(strstr(err.text, "8 more"));
    assert_non_null(strstr(err.text, "context of 40"));
    memset(text, 'a', sizeof text); /* a text that is too long whatever its tokens is not made into any */
    assert_int_equal(m40_engine_submit_text(e, text, sizeof text, 0, &o, &id, &err), M40LLM_CONTEXT_FULL);
    assert_non_null(strstr(err.text, "1048576 bytes, at least"));
    assert_non_null(strstr(err.text, "context of 40"));
    submit(e, &r, prompt, 40, &o); /* a full context has logits for one more token */
    wait_for(&r);
    assert_int_equal(r.n_tokens, 1);
    assert_int_equal(r.result.finish, M40LLM_FINISH_LENGTH);
    o = request(&r, 100);
    submit(e, &r, prompt, 37, &o);
    wait_for(&r);
    assert_int_equal(r.n_tokens, 4);
    m40_engine_close(&e);
}

static void test_refused_requests(void **state)
{
    static struct record r;
    m40llm_request_options o = request(&r, 2), bad = o;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e;
    int32_t prompt[2] = {1, N_VOCAB};
    uint64_t id;
    m40llm_error err;

    (void)state;
    options.n_ctx = 64;
    options.n_requests = 2;
    assert_int_equal(m40_engine_open(&e, model, tokenizer, &options, &err), M40LLM_OK);
    assert_int_equal(m40_engine_submit(e, prompt, 0, &o, &id, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_engine_submit(e, prompt, 2, &o, &id, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "512"));
    prompt[1] = -1;
    assert_int_equal(m40_engine_submit(e, prompt, 2, &o, &id, &err), M40LLM_INVALID_ARGUMENT);
    bad.sampling.top_p = 7;
    assert_int_equal(m40_engine_submit(e, prompt, 1, &bad, &id, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "top_p"));
    m40_engine_pause(e);
    o.on_event = NULL;
    for (int i = 0; i < 2; i++)
        assert_int_equal(m40_engine_submit(e, prompt, 1, &o, &id, &err), M40LLM_OK);
    assert_int_equal(m40_engine_submit(e, prompt, 1, &o, &id, &err), M40LLM_QUEUE_FULL);
    assert_int_equal(id, 0);
    assert_int_equal(m40_engine_wait(e, 99, NULL, &err), M40LLM_NOT_FOUND);
    assert_int_equal(m40_engine_wait(e, 0, NULL, &err), M40LLM_NOT_FOUND);
    m40_engine_close(&e); /* with two requests under way */
}

static void test_engine_options(void **state)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_engine_info info;
    struct m40_engine *e;
    m40llm_error err;

    (void)state;
    e = open_engine(0, 0, 0);
    m40_engine_get_info(e, &info);
    assert_int_equal(info.n_ctx, 1024); /* the model's: less than 8192 */
    assert_string_equal(info.n_ctx_why, "the model's");
    assert_int_equal(info.n_chunk, 512);
    assert_int_equal(info.n_sequences, 1);
    assert_int_equal(info.kv_bytes, 1024 * 2 * 2 * 4 * 32 * 2); /* tokens, layers, k and v, KV heads, head_dim, bytes */
    m40_engine_close(&e);
    options.n_ctx = 1025;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_INVALID_ARGUMENT);
    assert_null(e);
    assert_non_null(strstr(err.text, "1025"));
    assert_non_null(strstr(err.text, "1024"));
    options.n_ctx = 32;
    options.n_sequences = 100000;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_INVALID_ARGUMENT);
}

static uint64_t memory_free_bytes;

static void get_small_info(const struct m40_backend *be, m40llm_device_info *out)
{
    (void)be;
    *out = (m40llm_device_info){.memory_total_bytes = 1 << 30, .memory_free_bytes = memory_free_bytes};
}

/* A device with room for less than the model's context. */
static void test_context_that_fits(void **state)
{
    void (*get_info)(const struct m40_backend *, m40llm_device_info *) = backend->ops.get_info;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e = open_engine(512, 64, 1);
    m40llm_engine_info info;
    m40llm_error err;

    (void)state;
    m40_engine_get_info(e, &info);
    m40_engine_close(&e);
    backend->ops.get_info = get_small_info;
    memory_free_bytes = (info.kv_bytes + info.other_bytes) * 33 / 32; /* what 512 tokens need, a little more */
    options.n_chunk = 64;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_OK);
    m40_engine_get_info(e, &info);
    assert_true(info.n_ctx == 512 || info.n_ctx == 256);
    assert_string_equal(info.n_ctx_why, "what fits in memory");
    m40_engine_close(&e);
    options.n_ctx = 1024;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_non_null(strstr(err.text, "1024 tokens needs"));
    assert_non_null(strstr(err.text, "at most"));
    memory_free_bytes = 1000;
    options.n_ctx = 0;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    backend->ops.get_info = get_info;
}

static void test_statistics(void **state)
{
    static struct record a, b;
    struct m40_engine *e = open_engine(128, 16, 2);
    m40llm_request_options o = request(&a, 5);
    int32_t prompt[70];
    m40llm_stats stats;

    (void)state;
    make_prompt(prompt, 70, 1);
    m40_engine_pause(e);
    submit(e, &a, prompt, 70, &o);
    o = request(&b, 3);
    submit(e, &b, prompt, 10, &o);
    m40_engine_resume(e);
    wait_for(&a);
    wait_for(&b);
    m40_engine_get_stats(e, &stats);
    assert_int_equal(stats.n_requests, 2);
    assert_int_equal(stats.n_prompt_tokens, 80);
    assert_int_equal(stats.n_generated_tokens, 8);
    assert_int_equal(stats.n_pages, 8);
    assert_int_equal(stats.n_pages_used, 0);
    assert_int_equal(stats.n_pages_used_max, 3 + 1);
    assert_true(stats.n_steps >= 5 && stats.step_ns > 0);
    assert_true(a.result.prefill_ns > 0 && a.result.decode_ns > 0);
    m40_engine_close(&e);
}

/* ---- what may be asked of an answer ---- */

static void refuse(struct m40_engine *e, const m40llm_request_options *o, const char *word)
{
    const int32_t prompt[1] = {1};
    uint64_t id = 1;
    m40llm_error err;

    assert_int_equal(m40_engine_submit(e, prompt, 1, o, &id, &err), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(id, 0);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not say '%s'", err.text, word);
}

static void test_refused_options(void **state)
{
    static struct record r;
    struct m40_engine *e = open_engine(64, 0, 2), *textless;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    const char *empty[] = {""}, *stop[] = {"x"};
    const int32_t outside[] = {N_VOCAB};
    m40llm_request_options o;
    uint64_t id;
    m40llm_error err;

    (void)state;
#define REFUSE(field, value, word)                                                                                                                   \
    o = request(&r, 2);                                                                                                                              \
    o.field = value;                                                                                                                                 \
    refuse(e, &o, word)
    REFUSE(n_choices, 129, "129 choices");
    REFUSE(n_choices, 2, "logits of 2 choices"); /* beside on_logits */
    REFUSE(priority, 101, "priority 101");
    REFUSE(priority, INT32_MIN, "priority");
    REFUSE(n_top_logprobs, 3, "logprobs is off");
    REFUSE(n_top_logprobs, 65, "65 tokens");
    REFUSE(sampling.temperature, -1, "temperature");
#undef REFUSE
    o = request(&r, 2);
    o.stops = empty;
    o.n_stops = 1;
    refuse(e, &o, "empty");
    o = request(&r, 2);
    o.stop_tokens = outside;
    o.n_stop_tokens = 1;
    refuse(e, &o, "stop token 512");
    m40_engine_close(&e);
    options.n_ctx = 64;
    assert_int_equal(m40_engine_open(&textless, model, NULL, &options, &err), M40LLM_OK);
    o = request(&r, 2);
    o.stops = stop;
    o.n_stops = 1;
    refuse(textless, &o, "no tokenizer");
    assert_int_equal(m40_engine_submit_text(textless, "x", 1, 0, &o, &id, &err), M40LLM_NO_TOKENIZER);
    m40_engine_close(&textless);
    options.step_growth = 1;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_INVALID_ARGUMENT);
    options.step_growth = 0;
    options.n_requests = 70000;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_INVALID_ARGUMENT);
    options.n_requests = 0;
    options.kv_bytes = 32 * 1024;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_non_null(strstr(err.text, "needs 2 pages of KV cache, 1 more"));
}

/* The end token is the likeliest by far: with n_min_tokens it is put off, and then it comes. */
static void test_min_tokens(void **state)
{
    static struct record r;
    struct m40_engine *e = open_engine(64, 0, 1);
    int32_t eos = m40_tokenizer_eos(tokenizer), stop = 77, prompt[3] = {1, 2, 3};
    m40llm_logit_bias bias[] = {{eos, 1000}, {stop, 900}};
    m40llm_request_options o = request(&r, 9);

    (void)state;
    o.ignore_end = 0;
    o.sampling.bias = bias;
    o.sampling.n_bias = 2;
    o.n_min_tokens = 4;
    submit(e, &r, prompt, 3, &o);
    wait_for(&r);
    assert_int_equal(r.n_tokens, 4);
    assert_int_equal(r.tokens[3], stop); /* the next likeliest, meanwhile */
    assert_int_equal(r.result.finish, M40LLM_FINISH_STOP);
    o = request(&r, 9);
    o.sampling.bias = bias;
    o.sampling.n_bias = 2;
    o.n_min_tokens = 4;
    o.stop_tokens = &stop;
    o.n_stop_tokens = 1;
    submit(e, &r, prompt, 3, &o); /* end tokens are ignored here, so that they come */
    wait_for(&r);
    assert_int_equal(r.n_tokens, 9);
    assert_int_equal(r.tokens[0], eos);
    bias[0].bias = 0;
    o = request(&r, 9);
    o.sampling.bias = bias;
    o.sampling.n_bias = 2;
    o.n_min_tokens = 4;
    o.stop_tokens = &stop;
    o.n_stop_tokens = 1;
    submit(e, &r, prompt, 3, &o);
    wait_for(&r);
    assert_int_equal(r.n_tokens, 4);
    for (int i = 0; i < 4; i++)
        assert_int_not_equal(r.tokens[i], stop);
    m40_engine_close(&e);
}

/* A repeated prompt is found, but for its last page; a request may keep out of it. */
static void test_cached_prompt(void **state)
{
    static struct record first, again;
    struct m40_engine *e = open_engine(128, 0, 2);
    m40llm_request_options o = request(&first, 3);
    int32_t prompt[100];

    (void)state;
    make_prompt(prompt, 100, 3);
    submit(e, &first, prompt, 100, &o);
    wait_for(&first);
    assert_int_equal(first.result.n_cached, 0);
    o = request(&again, 3);
    submit(e, &again, prompt, 100, &o);
    wait_for(&again);
    assert_int_equal(again.result.n_cached, 96);
    expect_same(&first, &again);
    o = request(&again, 3);
    o.no_cache = 1;
    submit(e, &again, prompt, 100, &o);
    wait_for(&again);
    assert_int_equal(again.result.n_cached, 0);
    expect_same(&first, &again);
    o = request(&again, 3);
    o.all_logits = 1; /* of every token: so every token is evaluated */
    submit(e, &again, prompt, 100, &o);
    wait_for(&again);
    assert_int_equal(again.result.n_cached, 0);
    assert_int_equal(again.n_rows, 102);
    m40_engine_close(&e);
}

/* ---- a device that fails ---- */

static m40llm_status (*real_embed)(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err);
static int n_embeds_left;

static m40llm_status failing_embed(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err)
{
    if (n_embeds_left-- == 0)
        return m40_fail(err, M40LLM_DRIVER, "the card has fallen off the bus");
    return real_embed(be, args, err);
}

/* The requests of the step that failed end with its error, those that waited go on. */
static void test_failing_step(void **state)
{
    static struct record a, b, waiting;
    struct m40_engine *e = open_engine(64, 64, 2);
    m40llm_request_options o;
    const int32_t prompt[5] = {1, 2, 3, 4, 5};
    m40llm_stats stats;
    m40llm_error err;

    (void)state;
    m40_engine_pause(e);
    real_embed = backend->ops.embed;
    backend->ops.embed = failing_embed;
    n_embeds_left = 2;
    o = request(&a, 8);
    submit(e, &a, prompt, 5, &o);
    o = request(&b, 8);
    submit(e, &b, prompt, 4, &o);
    o = request(&waiting, 8);
    submit(e, &waiting, prompt, 5, &o);
    m40_engine_resume(e);
    assert_int_equal(m40_engine_wait(e, a.id, &a.result, &err), M40LLM_DRIVER);
    assert_string_equal(err.text, "the card has fallen off the bus");
    assert_int_equal(m40_engine_wait(e, b.id, &b.result, &err), M40LLM_DRIVER);
    wait_for(&waiting);
    backend->ops.embed = real_embed;
    assert_int_equal(a.n_tokens, 2);
    assert_int_equal(a.finish, M40LLM_FINISH_ERROR);
    assert_int_equal(a.result.finish, M40LLM_FINISH_ERROR);
    assert_int_equal(waiting.n_tokens, 8);
    m40_engine_get_stats(e, &stats);
    assert_int_equal(stats.n_ended[M40LLM_FINISH_ERROR], 2);
    assert_int_equal(stats.n_ended[M40LLM_FINISH_LENGTH], 1);
    assert_int_equal(stats.n_pages_used, 0);
    m40_engine_close(&e);
}

/* ---- the cache ---- */

/* One step of 40 tokens over two pages in reverse order; K and V of layer 0 depend on the tokens alone, so an FP16 cache holds an FP32 cache's values, rounded. */
static void read_cache(m40llm_kv_type type, float *k, float *v)
{
    struct m40_forward_limits limits = {.n_tokens = 40, .n_logits = 1, .n_slots = 1, .n_slot_pages = 2, .n_pages = 2, .kv_type = type};
    int32_t ids[40], pos[40], slot[40] = {0}, pages[2] = {1, 0};
    struct m40_batch batch = {.n_tokens = 40, .ids = ids, .pos = pos, .slot = slot, .pages = pages};
    struct m40_forward *f;
    m40llm_error err;

    make_prompt(ids, 40, 6);
    for (int i = 0; i < 40; i++)
        pos[i] = i;
    assert_int_equal(m40_forward_open(&f, model, &limits, &err), M40LLM_OK);
    assert_int_equal(m40_forward_step(f, &batch, NULL, &err), M40LLM_OK);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(m40_forward_read_kv(f, 0, (uint32_t)pages[i / 32], i % 32, k + i * 128, v + i * 128, &err), M40LLM_OK);
    m40_forward_close(&f);
}

static void test_cache_is_rounded_once(void **state)
{
    static float k16[40 * 128], v16[40 * 128], k32[40 * 128], v32[40 * 128];

    (void)state;
    read_cache(M40LLM_KV_F16, k16, v16);
    read_cache(M40LLM_KV_F32, k32, v32);
    for (int i = 0; i < 40 * 128; i++) {
        assert_true(k16[i] == m40_f16_to_f32(m40_f32_to_f16(k32[i])));
        assert_true(v16[i] == m40_f16_to_f32(m40_f32_to_f16(v32[i])));
    }
    assert_memory_not_equal(k32, v32, sizeof k32);
}

/* ---- out of memory ---- */

static bool fail_one(void *user)
{
    return (*(int *)user)-- == 0;
}

/* Opens an engine and runs a request; 0: it went through. */
static m40llm_status try_everything(int k, bool is_read)
{
    static struct record r;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_request_options o = request(&r, 2);
    m40llm_logit_bias bias = {1, 1};
    int32_t prompt[3] = {1, 2, 3};
    const char *stop = "stop";
    struct m40_engine *e;
    m40llm_error err;
    m40llm_status status;
    int n_left = k;

    options.n_ctx = 64;
    options.n_sequences = 2;
    o.sampling.temperature = 1;
    o.sampling.bias = &bias;
    o.sampling.n_bias = 1;
    r.n_prompt = 3;
    if (is_read) {
        o.on_event = NULL;
        o.on_logits = NULL;
        o.n_choices = 2;
        o.stops = &stop;
        o.n_stops = 1;
        o.sampling.repeat_penalty = 1.1f;
    }
    m40_mem_set_failure_hook(fail_one, &n_left);
    status = m40_engine_open(&e, model, tokenizer, &options, &err);
    if (status == M40LLM_OK) {
        status = m40_engine_submit(e, prompt, 3, &o, &r.id, &err);
        if (status != M40LLM_OK)
            assert_int_equal(r.id, 0);
    }
    if (status == M40LLM_OK)
        status = m40_engine_wait(e, r.id, NULL, &err);
    m40_mem_set_failure_hook(NULL, NULL);
    if (e)
        assert_int_equal(pages_used(e), 0);
    m40_engine_close(&e);
    return status;
}

static _Atomic int n_allocations;

static bool count_one(void *user)
{
    (void)user;
    n_allocations++;
    return false;
}

/* How often memory is allocated for a request whose events are read. */
static int count_allocations(struct m40_engine *e, uint32_t n_tokens)
{
    m40llm_request_options o = M40LLM_REQUEST_OPTIONS_INIT;
    int32_t prompt[] = {1, 2, 3};
    m40llm_event event = M40LLM_EVENT_INIT;
    m40llm_stats stats;
    uint64_t id, n_before;
    m40llm_error err;

    o.n_max_tokens = n_tokens;
    m40_engine_get_stats(e, &stats);
    n_before = stats.n_ended[M40LLM_FINISH_LENGTH];
    n_allocations = 0;
    m40_mem_set_failure_hook(count_one, NULL);
    assert_int_equal(m40_engine_submit(e, prompt, 3, &o, &id, &err), M40LLM_OK);
    do /* all events are there before the first is read */
        m40_engine_get_stats(e, &stats);
    while (stats.n_ended[M40LLM_FINISH_LENGTH] == n_before);
    while (event.type != M40LLM_EVENT_END)
        assert_int_equal(m40_engine_read(e, id, -1, &event, &err), M40LLM_OK);
    assert_int_equal(m40_engine_wait(e, id, NULL, &err), M40LLM_OK);
    m40_mem_set_failure_hook(NULL, NULL);
    return n_allocations;
}

/* Events that wait to be read take memory once, not for every token. */
static void test_events_reuse_memory(void **state)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e;
    m40llm_error err;

    (void)state;
    options.n_ctx = 100;
    assert_int_equal(m40_engine_open(&e, model, NULL, &options, &err), M40LLM_OK);
    count_allocations(e, 90);
    assert_true(count_allocations(e, 90) < 20);
    m40_engine_close(&e);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    for (int is_read = 0; is_read < 2; is_read++) {
        m40llm_status status = M40LLM_NO_MEMORY;
        int k;

        for (k = 0; status != M40LLM_OK; k++) {
            status = try_everything(k, is_read);
            assert_true(status == M40LLM_OK || status == M40LLM_NO_MEMORY || status == M40LLM_OUT_OF_DEVICE_MEMORY);
        }
        assert_true(k > 30);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together_equals_alone),
        cmocka_unit_test(test_without_logits),
        cmocka_unit_test(test_rows_of_logits),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_context_limit),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_engine_options),
        cmocka_unit_test(test_context_that_fits),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_min_tokens),
        cmocka_unit_test(test_cached_prompt),
        cmocka_unit_test(test_failing_step),
        cmocka_unit_test(test_cache_is_rounded_once),
        cmocka_unit_test(test_events_reuse_memory),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
