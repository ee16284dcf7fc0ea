/* bench-engine: what the engine makes of many requests. One greedy stream, then N at once; what a long prompt does to streams that run; and the time to the first token of a prompt that is known already.
 *
 *     build/bench-engine MODEL [--device D] [--streams N] [--tokens N] [--prompt N] [--threads N] [--growth G] [--prefill mixed|stream] */
#define _POSIX_C_SOURCE 200809L
#include "m40llm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_STREAMS = 256, SHORT_PROMPT = 32, MAX_TOKENS = 4096 };

struct settings {
    const char *model, *device;
    uint32_t n_streams, n_tokens, n_prompt, n_threads;
    float growth;
    m40llm_prefill prefill;
};

struct bench {
    struct settings settings;
    m40llm_file *file;
    m40llm_device *device;
    m40llm_model *model;
    m40llm_engine *engine;
    m40llm_model_info info;
};

/* When a stream's tokens came. */
struct stream {
    double at[MAX_TOKENS];
    uint32_t n;
    double submitted;
    uint64_t id;
};

static struct stream streams[MAX_STREAMS];

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(m40llm_status status, const m40llm_error *err)
{
    if (status == M40LLM_OK)
        return;
    fprintf(stderr, "bench-engine: %s\n", err->text);
    exit(1);
}

static void on_event(void *user, const m40llm_event *event)
{
    struct stream *s = user;

    if (event->type == M40LLM_EVENT_TOKEN && s->n < MAX_TOKENS)
        s->at[s->n++] = now();
}

static void submit(struct bench *b, struct stream *s, uint32_t n_prompt, uint32_t n_tokens, uint32_t salt, int no_cache)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    int32_t *prompt = calloc(n_prompt, sizeof *prompt);
    m40llm_error err;

    for (uint32_t i = 0; prompt && i < n_prompt; i++)
        prompt[i] = (int32_t)((i * 7919u + salt * 104729u + 13u) % b->info.n_vocab);
    options.n_max_tokens = n_tokens;
    options.ignore_end = 1;
    options.no_cache = no_cache;
    options.on_event = on_event;
    options.user = s;
    s->n = 0;
    s->submitted = now();
    check(m40llm_submit(b->engine, prompt, n_prompt, &options, &s->id, &err), &err);
    free(prompt);
}

static void finish(struct bench *b, struct stream *s)
{
    m40llm_error err;

    check(m40llm_wait(b->engine, s->id, NULL, &err), &err);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Times from token to token within [from, to], sorted; returns how many. */
static size_t gaps(const struct stream *s, uint32_t n_streams, double from, double to, double *out, size_t capacity)
{
    size_t n = 0;

    for (uint32_t i = 0; i < n_streams; i++)
        for (uint32_t k = 1; k < s[i].n && n < capacity; k++)
            if (s[i].at[k - 1] >= from && s[i].at[k] <= to)
                out[n++] = s[i].at[k] - s[i].at[k - 1];
    qsort(out, n, sizeof *out, compare_doubles);
    return n;
}

static double found[MAX_STREAMS * 512];

/* Tokens a second of n streams, over the time in which all of them decode. */
static double run_streams(struct bench *b, uint32_t n)
{
    double from = 0, to = 1e300;
    uint64_t n_tokens = 0;
    size_t n_gaps;

    m40llm_engine_pause(b->engine);
    for (uint32_t i = 0; i < n; i++)
        submit(b, &streams[i], SHORT_PROMPT, b->settings.n_tokens, i, 1);
    m40llm_engine_resume(b->engine);
    for (uint32_t i = 0; i < n; i++)
        finish(b, &streams[i]);
    for (uint32_t i = 0; i < n; i++) {
        from = streams[i].at[0] > from ? streams[i].at[0] : from;
        to = streams[i].at[streams[i].n - 1] < to ? streams[i].at[streams[i].n - 1] : to;
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < streams[i].n; k++)
            n_tokens += streams[i].at[k] > from && streams[i].at[k] <= to;
    n_gaps = gaps(streams, n, from, to, found, sizeof found / sizeof *found);
    printf("%3u streams: %9.1f tok/s in all, %7.1f each, %.2f ms a token (95%%: %.2f)\n", n, (double)n_tokens / (to - from),
           (double)n_tokens / (to - from) / n, n_gaps ? found[n_gaps / 2] * 1e3 : 0, n_gaps ? found[n_gaps * 95 / 100] * 1e3 : 0);
    return (double)n_tokens / (to - from);
}

/* A prompt comes while n streams decode. */
static void run_mixed(struct bench *b, uint32_t n)
{
    struct stream *late = &streams[n];
    double plain, mixed, begun;
    size_t n_gaps;

    for (uint32_t i = 0; i < n; i++)
        submit(b, &streams[i], SHORT_PROMPT, MAX_TOKENS < b->settings.n_tokens * 8 ? MAX_TOKENS : b->settings.n_tokens * 8, i, 1);
    for (int i = 0; i < 20; i++) /* until all decode */
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    submit(b, late, b->settings.n_prompt, 1, 1000, 1);
    finish(b, late);
    for (uint32_t i = 0; i < n; i++)
        m40llm_cancel(b->engine, streams[i].id);
    for (uint32_t i = 0; i < n; i++)
        finish(b, &streams[i]);
    begun = late->submitted;
    n_gaps = gaps(streams, n, begun - 0.5, begun, found, sizeof found / sizeof *found);
    plain = n_gaps ? found[n_gaps / 2] : 0;
    n_gaps = gaps(streams, n, begun, late->at[0], found, sizeof found / sizeof *found);
    mixed = n_gaps ? found[n_gaps / 2] : 0;
    printf("%3u streams and a prompt of %u: %.2f -> %.2f ms a token (%.2f times; 95%%: %.2f ms), prompt %.1f tok/s\n", n, b->settings.n_prompt,
           plain * 1e3, mixed * 1e3, plain > 0 ? mixed / plain : 0, n_gaps ? found[n_gaps * 95 / 100] * 1e3 : 0,
           b->settings.n_prompt / (late->at[0] - begun));
}

static void run_cached(struct bench *b)
{
    double first, again;

    submit(b, &streams[0], b->settings.n_prompt, 2, 2000, 0);
    finish(b, &streams[0]);
    first = streams[0].at[0] - streams[0].submitted;
    submit(b, &streams[0], b->settings.n_prompt, 2, 2000, 0);
    finish(b, &streams[0]);
    again = streams[0].at[0] - streams[0].submitted;
    printf("first token of a prompt of %u: %.2f ms, again: %.2f ms (%.1f%%)\n", b->settings.n_prompt, first * 1e3, again * 1e3, again / first * 100);
}

static void open_all(struct bench *b)
{
    m40llm_device_options device = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_engine_options engine = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_device_info info = M40LLM_DEVICE_INFO_INIT;
    m40llm_error err;

    device.spec = b->settings.device;
    device.cuda_library = getenv("M40LLM_CUDA_LIB");
    device.n_threads = (int)b->settings.n_threads;
    check(m40llm_file_open(&b->file, b->settings.model, &err), &err);
    check(m40llm_device_open(&b->device, &device, &err), &err);
    check(m40llm_model_open(&b->model, b->file, b->device, NULL, &err), &err);
    b->info = (m40llm_model_info)M40LLM_MODEL_INFO_INIT;
    m40llm_model_get_info(b->model, &b->info);
    engine.n_sequences = b->settings.n_streams + 1;
    engine.step_growth = b->settings.growth;
    engine.prefill = b->settings.prefill;
    check(m40llm_engine_open(&b->engine, b->model, &engine, &err), &err);
    m40llm_device_get_info(b->device, &info);
    printf("%s on %s (%s)\n", b->settings.model, info.name, info.code);
}

static void close_all(struct bench *b)
{
    m40llm_engine_close(&b->engine);
    m40llm_model_close(&b->model);
    m40llm_device_close(&b->device);
    m40llm_file_close(&b->file);
}

static int parse(struct settings *s, int argc, char **argv)
{
    *s = (struct settings){.n_streams = 16, .n_tokens = 128, .n_prompt = 2000};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (argv[i][0] != '-')
            s->model = argv[i];
        else if (!strcmp(argv[i], "--device"))
            s->device = argv[++i];
        else if (!strcmp(argv[i], "--streams"))
            s->n_streams = (uint32_t)atoi(value), i++;
        else if (!strcmp(argv[i], "--tokens"))
            s->n_tokens = (uint32_t)atoi(value), i++;
        else if (!strcmp(argv[i], "--prompt"))
            s->n_prompt = (uint32_t)atoi(value), i++;
        else if (!strcmp(argv[i], "--threads"))
            s->n_threads = (uint32_t)atoi(value), i++;
        else if (!strcmp(argv[i], "--prefill") && (!strcmp(value, "mixed") || !strcmp(value, "stream")))
            s->prefill = strcmp(value, "stream") == 0 ? M40LLM_PREFILL_STREAM : M40LLM_PREFILL_MIXED, i++;
        else if (!strcmp(argv[i], "--growth"))
            s->growth = (float)atof(value), i++;
        else
            return 0;
    }
    return s->model && s->n_streams >= 1 && s->n_streams < MAX_STREAMS && s->n_tokens >= 2 && s->n_tokens <= MAX_TOKENS && s->n_prompt >= 1;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    double one, many;

    if (!parse(&b.settings, argc, argv)) {
        fprintf(stderr, "usage: bench-engine MODEL [--device D] [--streams N] [--tokens N] [--prompt N] [--threads N] [--growth G] [--prefill mixed|stream]\n");
        return 2;
    }
    open_all(&b);
    run_streams(&b, 1); /* warm */
    one = run_streams(&b, 1);
    run_streams(&b, b.settings.n_streams);
    many = run_streams(&b, b.settings.n_streams);
    printf("%u streams give %.2f times the throughput of one\n", b.settings.n_streams, many / one);
    run_mixed(&b, 1);
    run_mixed(&b, b.settings.n_streams);
    run_cached(&b);
    close_all(&b);
    return 0;
}
