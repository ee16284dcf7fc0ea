#define _GNU_SOURCE
/* The engine under many requests: the same 64 (random prompts that share beginnings, random parameters) give the same bytes alone, all at once, in any order, from several threads, with the prefix cache
 * on and off, in large pools and in small ones that force pre-emption, on the CPU and on a CUDA card (emulated unless M40LLM_CUDA_LIB names another driver). Cancelling from other threads frees pages;
 * no page is lost. With SAN=thread this is the program to run. */
#include "unit/cuda_fixture.h"

#include "base/half.h"
#include "engine/engine.h"
#include "model/synth.h"

#include <pthread.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
enum { IS_SLOW = 1, N_REQUESTS = 24 };
#elif defined(__SANITIZE_THREAD__)
enum { IS_SLOW = 1, N_REQUESTS = 64 };
#else
enum { IS_SLOW = 0, N_REQUESTS = 64 };
#endif
enum { N_VOCAB = 512, N_CTX = 192, MAX_PROMPT = 150, MAX_ANSWER = 100, MAX_CHOICES = 3, N_TOP = 3, N_THREADS = 4 };

static m40llm_error err;
static struct m40_gguf *gguf;
static struct m40_tokenizer *tokenizer;
static struct device {
    struct m40_backend *backend;
    struct m40_model *model;
} cpu;

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

static int open_all(void **state)
{
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q4_k", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    OK(m40_tokenizer_open(&tokenizer, gguf, &err));
    device_open(&cpu, NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    device_close(&cpu);
    m40_tokenizer_close(&tokenizer);
    m40_gguf_close(&gguf);
    return 0;
}

/* ---- what is asked ---- */

struct question {
    int32_t prompt[MAX_PROMPT];
    uint32_t n_prompt;
    m40llm_logit_bias bias[2];
    int32_t stop_tokens[2];
    const char *stops[2];
    char stop_text[2][4];
    m40llm_request_options options;
};

static struct question questions[N_REQUESTS];

static uint32_t below(uint64_t *random, uint32_t n)
{
    return (uint32_t)(test_random(random) % n);
}

/* One of four beginnings, then text of its own. */
static void make_prompt(struct question *q, uint64_t *random)
{
    uint64_t beginning = below(random, 4);
    uint32_t n_common = below(random, 120);

    q->n_prompt = 1 + below(random, below(random, 2) ? MAX_PROMPT : 30);
    for (uint32_t i = 0; i < q->n_prompt; i++)
        q->prompt[i] = (int32_t)below(i < n_common ? &beginning : random, N_VOCAB);
}

static void make_sampling(struct question *q, uint64_t *random)
{
    m40llm_sampling *s = &q->options.sampling;

    s->temperature = below(random, 3) ? 0.5f + (float)below(random, 10) / 8 : 0;
    s->seed = test_random(random);
    s->top_k = below(random, 2) ? 1 + below(random, 200) : 0;
    s->top_p = below(random, 2) ? 0.9f : 1;
    s->min_p = below(random, 3) ? 0 : 0.01f;
    if (below(random, 3) == 0) {
        s->repeat_penalty = 1.2f;
        s->presence_penalty = 0.3f;
        s->frequency_penalty = 0.1f;
        s->penalty_last_n = 1 + below(random, 90);
    }
    if (below(random, 4) == 0) {
        for (int i = 0; i < 2; i++)
            q->bias[i] = (m40llm_logit_bias){(int32_t)below(random, N_VOCAB), i ? 1.5f : -3};
        s->bias = q->bias;
        s->n_bias = 2;
    }
}

static void make_question(struct question *q, uint64_t random)
{
    m40llm_request_options *o = &q->options;

    *q = (struct question){.options = M40LLM_REQUEST_OPTIONS_INIT};
    make_prompt(q, &random);
    make_sampling(q, &random);
    o->n_max_tokens = 1 + below(&random, MAX_ANSWER);
    o->n_min_tokens = below(&random, 3) ? 0 : below(&random, o->n_max_tokens + 1);
    o->n_choices = below(&random, 4) ? 1 : 1 + below(&random, MAX_CHOICES);
    o->ignore_end = below(&random, 2) == 0;
    o->priority = (int)below(&random, 3) - 1;
    o->no_cache = below(&random, 4) == 0;
    o->logprobs = below(&random, 3) == 0;
    o->n_top_logprobs = o->logprobs ? below(&random, N_TOP + 1) : 0;
    for (int i = 0; i < 2; i++) {
        q->stop_tokens[i] = (int32_t)below(&random, N_VOCAB);
        snprintf(q->stop_text[i], sizeof q->stop_text[i], i ? "%c%c" : "%c", 'a' + (int)below(&random, 26), 'a' + (int)below(&random, 26));
        q->stops[i] = q->stop_text[i];
    }
    o->stop_tokens = q->stop_tokens;
    o->n_stop_tokens = below(&random, 3);
    o->stops = q->stops;
    o->n_stops = below(&random, 3);
}

/* ---- what comes of it ---- */

struct answer {
    uint32_t n_tokens, n_text, finish;
    int32_t tokens[MAX_ANSWER];
    uint32_t logprobs[MAX_ANSWER]; /* bits */
    m40llm_token_logprob top[MAX_ANSWER][N_TOP];
    char text[4096];
};

struct record {
    struct answer answers[MAX_CHOICES];
    uint32_t n_ends, n_finished, n_generated;
};

static void note(struct record *r, const m40llm_event *event)
{
    struct answer *a = &r->answers[event->choice];

    if (event->type == M40LLM_EVENT_TOKEN) {
        a->tokens[a->n_tokens] = event->token;
        a->logprobs[a->n_tokens] = m40_f32_to_bits(event->logprob);
        for (uint32_t i = 0; i < event->n_top; i++)
            a->top[a->n_tokens][i] = event->top[i];
        a->n_tokens++;
    }
    if (event->text) {
        assert_true(a->n_text + event->n_text <= sizeof a->text && event->text[event->n_text] == 0);
        memcpy(a->text + a->n_text, event->text, event->n_text);
        a->n_text += (uint32_t)event->n_text;
    }
    if (event->type == M40LLM_EVENT_FINISH) {
        a->finish = event->finish;
        r->n_finished++;
    }
    if (event->type == M40LLM_EVENT_END) {
        r->n_ends++;
        r->n_generated = event->result->n_generated;
    }
}

static void on_event(void *user, const m40llm_event *event)
{
    note(user, event);
}

/* ---- the ways to run them ---- */

struct way {
    uint32_t n_sequences, n_chunk, n_pages; /* pages 0: the default */
    bool no_cache, from_threads, is_reading;
    m40llm_prefill prefill;
    uint64_t order; /* 0: as they are numbered; otherwise the seed of a shuffle */
    uint32_t n_requests;
};

static struct m40_engine *open_engine(const struct device *d, const struct way *way)
{
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_engine_info info;
    struct m40_engine *e;

    options.n_ctx = N_CTX;
    options.n_sequences = way->n_sequences;
    options.n_chunk = way->n_chunk;
    options.no_prefix_cache = way->no_cache;
    options.prefill = way->prefill;
    options.kv_bytes = way->n_pages * (uint64_t)(2 * 2 * 4 * 32 * 32 * 2); /* layers, k and v, KV heads, tokens, head_dim, bytes */
    OK(m40_engine_open(&e, d->model, tokenizer, &options, &err));
    m40_engine_get_info(e, &info);
    assert_int_equal(info.n_pages, way->n_pages ? way->n_pages : N_CTX / 32 * way->n_sequences);
    return e;
}

static void submit(struct m40_engine *e, uint32_t i, struct record *r, uint64_t *id, bool is_reading)
{
    m40llm_request_options options = questions[i].options;
    m40llm_error error;

    memset(r, 0, sizeof *r);
    options.on_event = is_reading ? NULL : on_event;
    options.user = r;
    if (m40_engine_submit(e, questions[i].prompt, questions[i].n_prompt, &options, id, &error) != M40LLM_OK)
        fail_msg("%s", error.text);
}

static void finish(struct m40_engine *e, uint64_t id, struct record *r, bool is_reading)
{
    m40llm_event event = {0};
    m40llm_error error;

    while (is_reading && event.type != M40LLM_EVENT_END) {
        assert_int_equal(m40_engine_read(e, id, -1, &event, &error), M40LLM_OK);
        note(r, &event);
    }
    assert_int_equal(m40_engine_wait(e, id, NULL, &error), M40LLM_OK);
}

struct worker {
    struct m40_engine *engine;
    const struct way *way;
    const uint32_t *order;
    struct record *records;
    uint32_t first; /* this one and every N_THREADS-th after it */
};

static void *work(void *user)
{
    const struct worker *w = user;
    uint64_t ids[N_REQUESTS];

    for (uint32_t k = w->first; k < w->way->n_requests; k += N_THREADS)
        submit(w->engine, w->order[k], &w->records[w->order[k]], &ids[k], w->way->is_reading);
    for (uint32_t k = w->first; k < w->way->n_requests; k += N_THREADS)
        finish(w->engine, ids[k], &w->records[w->order[k]], w->way->is_reading);
    return NULL;
}

static void run_from_threads(struct worker worker)
{
    pthread_t threads[N_THREADS];
    struct worker workers[N_THREADS];

    for (uint32_t i = 0; i < N_THREADS; i++) {
        workers[i] = worker;
        workers[i].first = i;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void run_at_once(const struct worker *w)
{
    uint64_t ids[N_REQUESTS];
    bool is_reading = w->way->is_reading;

    if (w->way->n_sequences > 1)
        m40_engine_pause(w->engine);
    for (uint32_t k = 0; k < w->way->n_requests; k++) {
        submit(w->engine, w->order[k], &w->records[w->order[k]], &ids[k], is_reading);
        if (w->way->n_sequences == 1)
            finish(w->engine, ids[k], &w->records[w->order[k]], is_reading);
    }
    if (w->way->n_sequences == 1)
        return;
    m40_engine_resume(w->engine);
    for (uint32_t k = w->way->n_requests; k-- > 0;)
        finish(w->engine, ids[k], &w->records[w->order[k]], is_reading);
}

static m40llm_stats stats_of(struct m40_engine *e)
{
    m40llm_stats stats;

    m40_engine_get_stats(e, &stats);
    return stats;
}

/* All pages are free, or kept for what is in them. */
static void expect_no_page_lost(struct m40_engine *e)
{
    m40llm_stats stats = stats_of(e);

    assert_int_equal(stats.n_pages_used, 0);
    assert_int_equal(stats.n_pages_shared, 0);
    assert_int_equal(stats.n_running + stats.n_waiting, 0);
    assert_true(stats.n_pages_cached <= stats.n_pages);
}

static m40llm_stats run(const struct device *d, const struct way *way, struct record *records)
{
    struct m40_engine *e = open_engine(d, way);
    uint32_t order[N_REQUESTS];
    uint64_t random = way->order;
    struct worker worker = {e, way, order, records, 0};
    m40llm_stats stats;

    for (uint32_t i = 0; i < way->n_requests; i++)
        order[i] = i;
    for (uint32_t i = way->n_requests; way->order && i > 1; i--) {
        uint32_t k = below(&random, i), other = order[k];

        order[k] = order[i - 1];
        order[i - 1] = other;
    }
    if (way->from_threads)
        run_from_threads(worker);
    else
        run_at_once(&worker);
    expect_no_page_lost(e);
    stats = stats_of(e);
    m40_engine_close(&e);
    assert_int_equal(stats.n_requests, way->n_requests);
    return stats;
}

static void expect_same(const struct record *expected, const struct record *got, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(got[i].n_ends, 1);
        assert_int_equal(got[i].n_finished, questions[i].options.n_choices);
        if (memcmp(&expected[i], &got[i], sizeof got[i]) != 0)
            fail_msg("request %u has another answer", i);
    }
}

static struct record alone[N_REQUESTS], records[N_REQUESTS];

/* One at a time, each in an engine with nothing in its cache. */
static void run_alone(void)
{
    const struct way way = {.n_sequences = 1, .n_chunk = 512, .no_cache = true, .n_requests = N_REQUESTS};
    unsigned finishes[5] = {0}, n_logprobs = 0, n_choices = 0;

    if (alone[0].n_ends)
        return;
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        make_question(&questions[i], test_seed() * 1000 + i);
    run(&cpu, &way, alone);
    expect_same(alone, alone, N_REQUESTS);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        n_logprobs += questions[i].options.logprobs != 0;
        for (uint32_t c = 0; c < questions[i].options.n_choices; c++, n_choices++)
            finishes[alone[i].answers[c].finish]++;
    }
    if (IS_SLOW)
        return;
    /* the questions are of all kinds */
    assert_true(finishes[M40LLM_FINISH_STOP] > 3 && finishes[M40LLM_FINISH_LENGTH] > 3);
    assert_int_equal(finishes[M40LLM_FINISH_STOP] + finishes[M40LLM_FINISH_LENGTH], n_choices);
    assert_true(n_logprobs > 3 && n_choices > N_REQUESTS);
}

static void test_all_at_once(void **state)
{
    const struct way way = {.n_sequences = 16, .n_requests = N_REQUESTS};
    m40llm_stats stats;

    (void)state;
    run_alone();
    stats = run(&cpu, &way, records);
    expect_same(alone, records, N_REQUESTS);
    assert_true(stats.n_cache_hits > 0 && stats.n_cached_tokens > 0 && stats.n_preemptions == 0);
    assert_int_equal(stats.n_ended[M40LLM_FINISH_STOP] + stats.n_ended[M40LLM_FINISH_LENGTH], N_REQUESTS);
    assert_int_equal(stats.n_pages, 96);
}

static void test_other_orders_and_chunks(void **state)
{
    const struct way ways[] = {
        {.n_sequences = 7, .n_chunk = 33, .order = 5, .n_requests = N_REQUESTS},
        {.n_sequences = 64, .n_chunk = 512, .order = 6, .n_requests = N_REQUESTS, .is_reading = true},
        {.n_sequences = 3, .n_chunk = 1, .order = 7, .n_requests = N_REQUESTS},
    };

    (void)state;
    run_alone();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        run(&cpu, &ways[i], records);
        expect_same(alone, records, N_REQUESTS);
    }
}

static void test_without_cache(void **state)
{
    const struct way way = {.n_sequences = 16, .no_cache = true, .order = 8, .n_requests = N_REQUESTS};
    m40llm_stats stats;

    (void)state;
    run_alone();
    stats = run(&cpu, &way, records);
    expect_same(alone, records, N_REQUESTS);
    assert_int_equal(stats.n_cache_lookups + stats.n_cache_hits + stats.n_pages_cached, 0);
}

static void test_small_pools(void **state)
{
    const struct way ways[] = {
        {.n_sequences = 16, .n_pages = 6, .n_requests = N_REQUESTS},
        {.n_sequences = 16, .n_pages = 14, .order = 9, .n_requests = N_REQUESTS},
        {.n_sequences = 16, .n_pages = 14, .no_cache = true, .n_requests = N_REQUESTS},
        {.n_sequences = 32, .n_pages = 40, .n_chunk = 20, .order = 10, .n_requests = N_REQUESTS},
    };
    uint64_t n_preemptions = 0;

    (void)state;
    run_alone();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        m40llm_stats stats = run(&cpu, &ways[i], records);

        expect_same(alone, records, N_REQUESTS);
        n_preemptions += stats.n_preemptions;
        assert_true((stats.n_recomputed_tokens > 0) <= (stats.n_preemptions > 0));
    }
    assert_true(n_preemptions > 3);
}

static void test_from_several_threads(void **state)
{
    const struct way ways[] = {
        {.n_sequences = 16, .n_requests = N_REQUESTS, .from_threads = true, .is_reading = true},
        {.n_sequences = 8, .n_pages = 14, .order = 3, .n_requests = N_REQUESTS, .from_threads = true},
    };

    (void)state;
    run_alone();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        run(&cpu, &ways[i], records);
        expect_same(alone, records, N_REQUESTS);
    }
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* emulated kernels are slow there; test_cuda_*.c run under sanitizers */
static void test_on_cuda(void **state)
{
    const char *library = getenv("M40LLM_CUDA_LIB");
    const struct way ways[] = {
        {.n_sequences = 16, .n_requests = N_REQUESTS / 8},
        {.n_sequences = 16, .n_pages = 8, .order = 2, .n_requests = N_REQUESTS / 8},
        {.n_sequences = 16, .n_chunk = 40, .n_pages = 8, .order = 2, .n_requests = N_REQUESTS / 8, .prefill = M40LLM_PREFILL_STREAM},
    };
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_engine *e;
    struct device card;

    (void)state;
    options.prefill = M40LLM_PREFILL_STREAM;
    assert_int_equal(m40_engine_open(&e, cpu.model, tokenizer, &options, &err), M40LLM_UNSUPPORTED);
    run_alone();
    device_open(&card, library ? library : cuda_beside("libcuda-emu.so"));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        m40llm_stats stats = run(&card, &ways[i], records);

        expect_same(alone, records, ways[i].n_requests);
        assert_true(stats.n_mixed_prompt_tokens > 0);
    }
    device_close(&card);
}

/* Requests leave, the engine stands still, and is closed, while prompts are under way beside the steps. */
static void test_lane_is_waited_for(void **state)
{
    const struct way way = {.n_sequences = 6, .n_pages = 14, .n_chunk = 64, .prefill = M40LLM_PREFILL_STREAM};
    const char *library = getenv("M40LLM_CUDA_LIB");
    const uint32_t n = N_REQUESTS / 8;
    uint64_t ids[N_REQUESTS];
    struct m40_engine *e;
    struct device card;

    (void)state;
    run_alone();
    device_open(&card, library ? library : cuda_beside("libcuda-emu.so"));
    e = open_engine(&card, &way);
    for (uint32_t i = 0; i < n; i++) {
        submit(e, i, &records[i], &ids[i], false);
        if (i % 2) {
            sleep_ms((long)i);
            m40_engine_cancel(e, ids[i]);
        } else {
            m40_engine_pause(e);
            OK(card.backend->ops.sync(card.backend, &err)); /* the device is ours */
            m40_engine_resume(e);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        finish(e, ids[i], &records[i], false);
    for (uint32_t i = 0; i < n; i += 2)
        expect_same(&alone[i], &records[i], 1);
    expect_no_page_lost(e);
    for (uint32_t i = 0; i < n; i++)
        submit(e, i, &records[i], &ids[i], false);
    sleep_ms(20);
    m40_engine_close(&e);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(records[i].n_ends, 1);
    device_close(&card);
}
#endif

/* ---- cancelling ---- */

/* Until the statistics say that nothing runs; fails after 10 s. */
static void wait_until_idle(struct m40_engine *e)
{
    for (int i = 0; i < 1000; i++) {
        m40llm_stats stats = stats_of(e);

        if (stats.n_running + stats.n_waiting + stats.n_pages_used == 0)
            return;
        sleep_ms(10);
    }
    fail_msg("requests are still running");
}

struct canceller {
    struct m40_engine *engine;
    uint64_t ids[N_REQUESTS];
    uint32_t n;
    bool forgets;
};

static void *cancel_all(void *user)
{
    struct canceller *c = user;

    for (uint32_t i = 0; i < c->n; i++) {
        if (i % 8 == 0)
            sleep_ms(1);
        if (c->forgets && i % 2)
            m40_engine_forget(c->engine, c->ids[i]);
        else
            m40_engine_cancel(c->engine, c->ids[i]);
    }
    return NULL;
}

/* Some have begun, some wait. What a cancelled one gave up to then is the beginning of its whole answer. */
static void check_cancelling(bool forgets)
{
    const struct way way = {.n_sequences = 8, .n_pages = 20};
    struct canceller c = {.engine = open_engine(&cpu, &way), .n = N_REQUESTS, .forgets = forgets};
    m40llm_stats stats;
    pthread_t thread;

    for (uint32_t i = 0; i < N_REQUESTS; i++)
        submit(c.engine, i, &records[i], &c.ids[i], false);
    assert_int_equal(pthread_create(&thread, NULL, cancel_all, &c), 0);
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        if (!forgets || i % 2 == 0)
            finish(c.engine, c.ids[i], &records[i], false);
    pthread_join(thread, NULL);
    wait_until_idle(c.engine);
    expect_no_page_lost(c.engine);
    stats = stats_of(c.engine);
    m40_engine_close(&c.engine); /* and with it the last events of those that were forgotten */
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(records[i].n_ends, 1);
        for (uint32_t k = 0; k < questions[i].options.n_choices; k++) {
            const struct answer *whole = &alone[i].answers[k], *part = &records[i].answers[k];

            assert_true(part->n_tokens <= whole->n_tokens);
            assert_memory_equal(part->tokens, whole->tokens, part->n_tokens * sizeof *part->tokens);
        }
    }
    assert_true(stats.n_ended[M40LLM_FINISH_CANCELLED] > 0);
}

static void test_cancel_from_another_thread(void **state)
{
    (void)state;
    run_alone();
    check_cancelling(false);
    check_cancelling(true);
}

static void test_close_with_requests_under_way(void **state)
{
    const struct way way = {.n_sequences = 4};
    struct m40_engine *e = open_engine(&cpu, &way);
    uint64_t ids[N_REQUESTS];

    (void)state;
    run_alone();
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        submit(e, i, &records[i], &ids[i], i % 2);
    m40_engine_close(&e);
    for (uint32_t i = 0; i < N_REQUESTS; i += 2)
        assert_int_equal(records[i].n_ends, 1);
}

/* ---- reading ---- */

struct returner {
    struct m40_engine *engine;
    m40llm_request_options options;
    uint32_t n_accepted, n_ends;
    m40llm_status refusal;
};

static void submit_again(void *user, const m40llm_event *event)
{
    struct returner *r = user;
    const int32_t prompt = 1;
    m40llm_status status;
    uint64_t id;

    if (event->type != M40LLM_EVENT_END)
        return;
    r->n_ends++;
    m40_engine_forget(r->engine, event->id); /* or there would be no room at some time */
    status = m40_engine_submit(r->engine, &prompt, 1, &r->options, &id, NULL);
    if (status == M40LLM_OK)
        r->n_accepted++;
    else
        r->refusal = status;
}

/* Whoever submits whenever a request ends is refused in the end, and every request that was not has its END. */
static void test_close_while_callbacks_submit(void **state)
{
    const struct way way = {.n_sequences = 2, .n_pages = 20};
    struct m40_engine *e = open_engine(&cpu, &way);
    struct returner r = {.engine = e, .options = M40LLM_REQUEST_OPTIONS_INIT};
    const int32_t prompt = 1;
    uint64_t id;

    (void)state;
    r.options.n_max_tokens = 2;
    r.options.on_event = submit_again;
    r.options.user = &r;
    m40_engine_pause(e);
    for (; r.n_accepted < 4; r.n_accepted++)
        OK(m40_engine_submit(e, &prompt, 1, &r.options, &id, &err));
    m40_engine_resume(e);
    m40_engine_close(&e);
    assert_int_equal(r.n_ends, r.n_accepted);
    assert_int_equal(r.refusal, M40LLM_CANCELLED);
}

static void test_reading(void **state)
{
    const struct way way = {.n_sequences = 2};
    struct m40_engine *e = open_engine(&cpu, &way);
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    m40llm_event event;
    uint64_t id, other;
    char text[64] = "";

    (void)state;
    m40_engine_pause(e);
    options.n_max_tokens = 4;
    options.ignore_end = 1;
    OK(m40_engine_submit_text(e, "Hello", 5, M40LLM_TOKENIZE_ADD_BOS, &options, &id, &err));
    assert_int_equal(m40_engine_read(e, id, 20, &event, &err), M40LLM_TIMED_OUT);
    assert_int_equal(m40_engine_read(e, id + 1, 0, &event, &err), M40LLM_NOT_FOUND);
    options.on_event = on_event;
    options.user = &records[0];
    memset(records, 0, sizeof records);
    OK(m40_engine_submit_text(e, "Hello", 5, 0, &options, &other, &err));
    assert_int_equal(m40_engine_read(e, other, 0, &event, &err), M40LLM_INVALID_ARGUMENT);
    m40_engine_resume(e);
    OK(m40_engine_read(e, id, -1, &event, &err));
    assert_int_equal(event.type, M40LLM_EVENT_PREFILL);
    assert_int_equal(event.n_done, 6);
    for (uint32_t i = 0; i < 4; i++) {
        OK(m40_engine_read(e, id, 10000, &event, &err));
        assert_int_equal(event.type, M40LLM_EVENT_TOKEN);
        assert_int_equal(event.pos, 6 + i);
        strncat(text, event.text, sizeof text - strlen(text) - 1);
    }
    OK(m40_engine_read(e, id, -1, &event, &err));
    assert_int_equal(event.type, M40LLM_EVENT_FINISH);
    assert_int_equal(event.finish, M40LLM_FINISH_LENGTH);
    for (int i = 0; i < 2; i++) {
        OK(m40_engine_read(e, id, -1, &event, &err));
        assert_int_equal(event.type, M40LLM_EVENT_END);
        assert_int_equal(event.result->n_generated, 4);
        assert_int_equal(event.result->n_prompt, 6);
        assert_true(event.result->queue_ns > 0 && event.result->prefill_ns > 0 && event.result->decode_ns > 0);
    }
    m40_engine_forget(e, id);
    assert_int_equal(m40_engine_read(e, id, 0, &event, &err), M40LLM_NOT_FOUND);
    assert_int_equal(m40_engine_wait(e, id, NULL, &err), M40LLM_NOT_FOUND);
    m40_engine_forget(e, id);
    OK(m40_engine_wait(e, other, NULL, &err));
    m40_engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_other_orders_and_chunks),
        cmocka_unit_test(test_without_cache),
        cmocka_unit_test(test_small_pools),
        cmocka_unit_test(test_from_several_threads),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(test_on_cuda),
        cmocka_unit_test(test_lane_is_waited_for),
#endif
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_close_with_requests_under_way),
        cmocka_unit_test(test_close_while_callbacks_submit),
        cmocka_unit_test(test_reading),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
