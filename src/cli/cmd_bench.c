/* m40llm bench: prefill and decode speed of a file or of a random model, beside the device's measured read bandwidth. m40llm synth: writes such a model. */
#define _POSIX_C_SOURCE 200809L
#include "session.h"
#include "terminal.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_REPETITIONS = 100 };

/* Sorted tok/s of the runs. */
struct series {
    double values[MAX_REPETITIONS];
    uint32_t n;
};

struct bench {
    struct cli_session session;
    double read_bandwidth; /* bytes a second */
    struct series prefill, decode;
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const struct series *s)
{
    return s->n ? (s->values[(s->n - 1) / 2] + s->values[s->n / 2]) / 2 : 0;
}

/* Nothing is kept to be read. */
static void ignore_event(void *user, const m40llm_event *event)
{
    (void)user;
    (void)event;
}

/* One request of n_prompt tokens and n answers, its result in *result. */
static int run_once(m40llm_engine *engine, uint32_t n_vocab, uint32_t n_prompt, uint32_t n, m40llm_result *result)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    int32_t *prompt = malloc(n_prompt * sizeof *prompt);
    m40llm_error err;
    uint64_t id;
    m40llm_status status;

    if (!prompt)
        return cli_no_memory();
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)((i * 7919u + 13u) % n_vocab);
    options.n_max_tokens = n;
    options.ignore_end = 1;
    options.no_cache = 1;
    options.on_event = ignore_event;
    status = m40llm_submit(engine, prompt, n_prompt, &options, &id, &err);
    free(prompt);
    if (status != M40LLM_OK)
        return cli_fail(&err);
    cli_set_request(engine, id);
    status = m40llm_wait(engine, id, result, &err);
    cli_set_request(NULL, 0);
    if (status != M40LLM_OK)
        return cli_fail(&err);
    return result->finish == M40LLM_FINISH_CANCELLED ? cli_stopped() : CLI_OK;
}

/* One warm-up, then the repetitions; prefill with the prompt alone, decode behind a short prompt. */
static int measure(struct bench *b, const struct cli_settings *settings)
{
    uint32_t n_vocab = b->session.model_info.n_vocab;
    int rc = CLI_OK;

    for (uint32_t i = 0; i <= settings->repetitions && rc == CLI_OK; i++) {
        m40llm_result result = M40LLM_RESULT_INIT;

        if (settings->prompt_tokens > 0)
            rc = run_once(b->session.engine, n_vocab, settings->prompt_tokens, 0, &result);
        if (rc == CLI_OK && settings->prompt_tokens > 0 && i > 0)
            b->prefill.values[b->prefill.n++] = settings->prompt_tokens / ((double)result.prefill_ns * 1e-9);
        if (rc == CLI_OK && settings->n > 0)
            rc = run_once(b->session.engine, n_vocab, 1, settings->n + 1, &result);
        if (rc == CLI_OK && settings->n > 0 && i > 0)
            b->decode.values[b->decode.n++] = settings->n / ((double)result.decode_ns * 1e-9);
        cli_progress("bench", i, settings->repetitions);
    }
    cli_progress_end();
    qsort(b->prefill.values, b->prefill.n, sizeof *b->prefill.values, compare_doubles);
    qsort(b->decode.values, b->decode.n, sizeof *b->decode.values, compare_doubles);
    return rc;
}

static json_t *series_json(const struct series *s)
{
    return s->n ? json_pack("{s:f, s:f, s:f, s:i}", "median", median(s), "min", s->values[0], "max", s->values[s->n - 1], "runs", (int)s->n)
                : json_null();
}

static int print_result(const struct bench *b, const struct cli_settings *settings, const char *name)
{
    const struct cli_session *s = &b->session;
    double gbs = (double)s->model_info.weight_bytes_per_token * median(&b->decode) * 1e-9;
    double percent = b->read_bandwidth > 0 ? gbs * 1e11 / b->read_bandwidth : 0;
    double memory = (double)(s->engine_info.weight_bytes + s->engine_info.kv_bytes + s->engine_info.other_bytes) / 1048576.0;
    json_t *object;
    int rc;

    if (!settings->json) {
        printf("%s on %s (%s), read bandwidth %.1f GB/s, memory %.0f MiB\n", name, s->device_info.name, s->device_info.code, b->read_bandwidth * 1e-9,
               memory);
        if (b->prefill.n)
            printf("prefill %5u tokens: %9.2f tok/s  (%.2f .. %.2f, %u runs)\n", settings->prompt_tokens, median(&b->prefill), b->prefill.values[0],
                   b->prefill.values[b->prefill.n - 1], b->prefill.n);
        if (b->decode.n)
            printf("decode  %5u tokens: %9.2f tok/s  (%.2f .. %.2f, %u runs)  %.1f GB/s of weights, %.1f%% of read bandwidth\n", settings->n,
                   median(&b->decode), b->decode.values[0], b->decode.values[b->decode.n - 1], b->decode.n, gbs, percent);
        return CLI_OK;
    }
    object = json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:i, s:o, s:i, s:o, s:f, s:f}", "model", name, "device", s->device_info.spec, "device_name",
                       s->device_info.name, "code", s->device_info.code, "read_bandwidth_gb_s", b->read_bandwidth * 1e-9, "memory_mib", memory,
                       "prompt_tokens", (int)settings->prompt_tokens, "prefill_tok_s", series_json(&b->prefill), "generated_tokens", (int)settings->n,
                       "decode_tok_s", series_json(&b->decode), "decode_gb_s", gbs, "decode_percent_of_bandwidth", percent);
    rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
    json_decref(object);
    printf("\n");
    return rc == 0 ? CLI_OK : CLI_FAILURE;
}

/* "8b:q4_k" -> a random model in a file of $TMPDIR, which its caller removes. */
static int write_synth(const char *synth, char *path, size_t path_bytes)
{
    const char *colon = strchr(synth, ':'), *folder = getenv("TMPDIR");
    char shape[32];
    m40llm_error err;
    m40llm_status status;
    int fd;

    if (!colon || (size_t)(colon - synth) >= sizeof shape)
        return cli_usage("--synth %s: must be SHAPE:TYPE, e.g. 8b:q4_k", synth);
    snprintf(shape, sizeof shape, "%.*s", (int)(colon - synth), synth);
    snprintf(path, path_bytes, "%s/m40llm-synth-XXXXXX", folder ? folder : "/tmp");
    fd = mkstemp(path);
    if (fd < 0) {
        fprintf(stderr, "m40llm: %s: %s\n", path, strerror(errno));
        path[0] = 0;
        return CLI_FAILURE;
    }
    close(fd);
    status = m40llm_synth_write(shape, colon + 1, path, cli_load_progress, (void *)"writing", &err);
    cli_progress_end();
    if (status == M40LLM_OK)
        return CLI_OK;
    unlink(path);
    path[0] = 0;
    return status == M40LLM_INVALID_ARGUMENT ? cli_usage("%s", err.text) : cli_fail(&err);
}

static int check_bench(const struct cli_settings *settings)
{
    if (!settings->synth == !settings->n_args)
        return cli_usage("bench needs a model, MODEL or --synth SHAPE:TYPE, and not both");
    if (settings->repetitions < 1 || settings->repetitions > MAX_REPETITIONS)
        return cli_usage("--repetitions %u: must be from 1 to %d", settings->repetitions, MAX_REPETITIONS);
    if (settings->prompt_tokens == 0 && settings->n == 0)
        return cli_usage("bench has nothing to do: -p and -n are both 0");
    return CLI_OK;
}

static int measure_bandwidth(struct bench *b)
{
    m40llm_status status;
    m40llm_error err;

    m40llm_engine_pause(b->session.engine); /* the device is the engine's otherwise */
    status = m40llm_device_measure_bandwidth(b->session.device, &b->read_bandwidth, &err);
    m40llm_engine_resume(b->session.engine);
    return status == M40LLM_OK ? CLI_OK : cli_fail(&err);
}

int cmd_bench(struct cli_settings *settings)
{
    struct bench bench = {0};
    char path[512] = "";
    const char *model = settings->n_args ? settings->args[0] : path;
    uint32_t need = settings->prompt_tokens > settings->n + 2 ? settings->prompt_tokens : settings->n + 2;
    int rc = check_bench(settings);

    cli_catch_interrupt();
    if (rc == CLI_OK && settings->synth)
        rc = write_synth(settings->synth, path, sizeof path);
    if (rc == CLI_OK)
        rc = cli_session_open(&bench.session, settings, model, SESSION_SAY_CTX, need);
    if (path[0])
        unlink(path);
    if (rc == CLI_OK)
        rc = measure_bandwidth(&bench);
    if (rc == CLI_OK)
        rc = measure(&bench, settings);
    if (rc == CLI_OK)
        rc = print_result(&bench, settings, settings->synth ? settings->synth : model);
    cli_session_close(&bench.session);
    return rc;
}

int cmd_synth(struct cli_settings *settings)
{
    m40llm_error err;
    m40llm_status status;

    if (!settings->shape || !settings->type || !settings->output)
        return cli_usage("synth needs --shape, --type and -o FILE; shapes: %s", m40llm_synth_shapes());
    cli_catch_interrupt();
    status = m40llm_synth_write(settings->shape, settings->type, settings->output, cli_load_progress, (void *)"writing", &err);
    cli_progress_end();
    if (status == M40LLM_OK)
        return CLI_OK;
    return status == M40LLM_INVALID_ARGUMENT ? cli_usage("%s", err.text) : cli_fail(&err);
}
