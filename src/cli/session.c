#define _POSIX_C_SOURCE 200809L
#include "session.h"
#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

m40llm_device_options cli_device_options(const struct cli_settings *settings)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;

    options.spec = settings->device;
    options.cuda_library = settings->cuda_library;
    options.require_sm52 = settings->force_m40;
    options.n_threads = (int)settings->threads;
    options.cpu_level = strcmp(settings->cpu_level, "scalar") == 0   ? M40LLM_CPU_SCALAR
                        : strcmp(settings->cpu_level, "avx2") == 0   ? M40LLM_CPU_AVX2
                        : strcmp(settings->cpu_level, "avx512") == 0 ? M40LLM_CPU_AVX512
                                                                     : M40LLM_CPU_AUTO;
    options.no_graphs = settings->no_graphs;
    options.use_cublas = settings->use_cublas;
    options.cublas_library = settings->cublas_library;
    options.logger = (m40llm_logger){.write = cli_log_line, .level = settings->log_level};
    return options;
}

m40llm_kv_type cli_kv_type(const struct cli_settings *settings)
{
    return strcmp(settings->kv_type, "f32") == 0 ? M40LLM_KV_F32 : M40LLM_KV_F16;
}

static void say_device(const struct cli_session *s)
{
    const m40llm_device_info *d = &s->device_info;

    fprintf(stderr, "m40llm: device %s: %s", d->spec, d->name);
    if (d->cc_major)
        fprintf(stderr, ", compute capability %d.%d, driver %s", d->cc_major, d->cc_minor, d->driver);
    fprintf(stderr, ", %s (%s)\n", d->code, d->why);
    fprintf(stderr, "m40llm: context %u tokens (%s)\n", s->engine_info.n_ctx, s->engine_info.n_ctx_why);
}

static m40llm_status open_all(struct cli_session *s, const struct cli_settings *settings, const char *path, unsigned flags, uint32_t n_ctx,
                              m40llm_error *err)
{
    m40llm_device_options device_options = cli_device_options(settings);
    m40llm_model_options model_options = M40LLM_MODEL_OPTIONS_INIT;
    m40llm_engine_options engine_options = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_status status;

    if ((status = m40llm_file_open(&s->file, path, err)) != M40LLM_OK)
        return status;
    if ((flags & SESSION_TOKENIZER) && (status = m40llm_tokenizer_open(&s->tokenizer, s->file, err)) != M40LLM_OK)
        return status;
    if ((status = m40llm_device_open(&s->device, &device_options, err)) != M40LLM_OK)
        return status;
    model_options.progress = cli_load_progress;
    model_options.user = (void *)"loading";
    status = m40llm_model_open(&s->model, s->file, s->device, &model_options, err);
    cli_progress_end();
    if (status != M40LLM_OK)
        return status;
    engine_options.n_ctx = settings->ctx ? settings->ctx : n_ctx;
    engine_options.n_chunk = settings->chunk;
    engine_options.kv_type = cli_kv_type(settings);
    engine_options.prefill = strcmp(settings->prefill, "stream") == 0 ? M40LLM_PREFILL_STREAM : M40LLM_PREFILL_MIXED;
    engine_options.kv_bytes = settings->kv_mem;
    engine_options.n_sequences = settings->parallel;
    engine_options.n_requests = settings->max_requests;
    engine_options.longest_step_ms = settings->longest_step_ms;
    engine_options.tokenizer = s->tokenizer;
    return m40llm_engine_open(&s->engine, s->model, &engine_options, err);
}

int cli_session_open(struct cli_session *s, const struct cli_settings *settings, const char *path, unsigned flags, uint32_t n_ctx)
{
    m40llm_error err;

    *s = (struct cli_session){0};
    cli_catch_interrupt();
    if (open_all(s, settings, path, flags, n_ctx, &err) != M40LLM_OK) {
        bool is_of_device =
            err.code == M40LLM_NO_DEVICE || err.code == M40LLM_DRIVER || err.code == M40LLM_DRIVER_TOO_OLD || err.code == M40LLM_NO_CUBLAS;

        return is_of_device ? cli_fail(&err) : cli_fail_at(path, &err);
    }
    s->device_info = (m40llm_device_info)M40LLM_DEVICE_INFO_INIT;
    s->model_info = (m40llm_model_info)M40LLM_MODEL_INFO_INIT;
    s->engine_info = (m40llm_engine_info)M40LLM_ENGINE_INFO_INIT;
    m40llm_device_get_info(s->device, &s->device_info);
    m40llm_model_get_info(s->model, &s->model_info);
    m40llm_engine_get_info(s->engine, &s->engine_info);
    if (flags & SESSION_SAY_CTX)
        say_device(s);
    return CLI_OK;
}

void cli_session_close(struct cli_session *s)
{
    cli_set_request(NULL, 0);
    m40llm_engine_close(&s->engine);
    m40llm_model_close(&s->model);
    m40llm_device_close(&s->device);
    m40llm_tokenizer_close(&s->tokenizer);
    m40llm_file_close(&s->file);
}

/* Reads to the end, or one byte beyond max_bytes. NULL: errno says why. */
static char *read_all(FILE *f, size_t max_bytes, size_t *n_bytes)
{
    size_t capacity = 65536, n = 0, got = 0;
    char *data = malloc(capacity), *grown;

    while (data && n <= max_bytes && (got = fread(data + n, 1, capacity - 1 - n, f)) > 0) {
        n += got;
        if (n + 1 == capacity) {
            grown = realloc(data, capacity *= 2);
            if (!grown)
                free(data);
            data = grown;
        }
    }
    if (data && ferror(f)) {
        free(data);
        data = NULL;
    }
    if (data)
        data[n] = 0;
    *n_bytes = n;
    return data;
}

int cli_read_file_within(const char *path, size_t max_bytes, char **text, size_t *n_bytes)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    const char *name = is_stdin ? "standard input" : path;

    *text = f ? read_all(f, max_bytes, n_bytes) : NULL;
    if (!*text)
        fprintf(stderr, "m40llm: %s: %s\n", name, strerror(errno));
    if (f && f != stdin)
        fclose(f);
    if (*text && *n_bytes > max_bytes) {
        fprintf(stderr, "m40llm: %s: more than %zu bytes\n", name, max_bytes);
        free(*text);
        *text = NULL;
    }
    return *text ? CLI_OK : CLI_FAILURE;
}

int cli_read_file(const char *path, char **text, size_t *n_bytes)
{
    return cli_read_file_within(path, CLI_MAX_FILE_BYTES, text, n_bytes);
}

int cli_compile_template(const char *path, char **text, m40llm_template **out)
{
    m40llm_error err;
    m40llm_status status;
    char *read;
    size_t n_bytes;
    int rc = cli_read_file_within(path, CLI_MAX_TEMPLATE_BYTES, &read, &n_bytes);

    *out = NULL;
    if (text)
        *text = NULL;
    if (rc != CLI_OK)
        return rc;
    status = m40llm_template_compile(out, read, n_bytes, &err);
    if (status == M40LLM_OK && text)
        *text = read;
    else
        free(read);
    return status == M40LLM_OK ? CLI_OK : cli_fail_at(path, &err);
}

int cli_read_prompt(const struct cli_settings *settings, char **text, size_t *n_bytes)
{
    bool from_stdin = settings->n_args > 1 && strcmp(settings->args[1], "-") == 0;

    *text = NULL;
    *n_bytes = 0;
    if (settings->n_args > 1 && !from_stdin)
        return cli_usage("unexpected argument '%s': give the text with -p", settings->args[1]);
    if ((settings->prompt != NULL) + (settings->prompt_file != NULL) + from_stdin > 1)
        return cli_usage("give only one of -p, -f and -");
    if (settings->prompt_file || from_stdin)
        return cli_read_file(from_stdin ? "-" : settings->prompt_file, text, n_bytes);
    if (!settings->prompt)
        return CLI_OK;
    *text = strdup(settings->prompt);
    *n_bytes = strlen(settings->prompt);
    return *text ? CLI_OK : cli_no_memory();
}

int cli_tokenize(const m40llm_tokenizer *tokenizer, const char *text, size_t n_bytes, unsigned flags, int32_t **ids, size_t *n_ids)
{
    size_t capacity = n_bytes + 8;
    m40llm_error err;

    *ids = malloc(capacity * sizeof **ids);
    if (!*ids)
        return cli_no_memory();
    if (m40llm_tokenize(tokenizer, text, n_bytes, flags, *ids, capacity, n_ids, &err) == M40LLM_OK)
        return CLI_OK;
    free(*ids);
    *ids = NULL;
    return cli_fail(&err);
}

bool cli_write_all(void *file, const char *path, const void *data, size_t n_bytes)
{
    if (fwrite(data, 1, n_bytes, file) == n_bytes)
        return true;
    fprintf(stderr, "m40llm: %s: %s\n", path, strerror(errno));
    return false;
}
