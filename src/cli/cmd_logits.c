/* m40llm logits: the door through which the engine is compared with others. m40llm tensor: one tensor as floats. */
#define _POSIX_C_SOURCE 200809L
#include "session.h"
#include "terminal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct logits {
    FILE *file;
    const char *path;
    uint32_t last_prompt_pos;
    bool is_broken;
    int n_printed;
};

static void on_logits(void *user, uint32_t pos, const float *row, size_t n_vocab)
{
    struct logits *l = user;

    if (pos <= l->last_prompt_pos && !l->is_broken)
        l->is_broken = !cli_write_all(l->file, l->path, row, n_vocab * sizeof *row);
}

static void on_event(void *user, const m40llm_event *event)
{
    struct logits *l = user;

    if (event->type == M40LLM_EVENT_TOKEN)
        printf("%s%d", l->n_printed++ ? " " : "", event->token);
}

/* "1,2,3" (spaces serve too) into *ids (to be freed). */
static int parse_tokens(const char *text, int32_t **ids, size_t *n_ids)
{
    const char *p = text;

    *n_ids = 0;
    *ids = calloc(strlen(text) / 2 + 1, sizeof **ids);
    while (*ids && *p) {
        char *end;
        long id = strtol(p, &end, 10);

        if (end == p || id < 0 || id > INT32_MAX || (*end && *end != ',' && *end != ' '))
            return cli_usage("--tokens %s: '%s' is not a token id", text, p);
        (*ids)[(*n_ids)++] = (int32_t)id;
        p = end + strspn(end, " ");
        p += *p == ',';
        p += strspn(p, " ");
    }
    if (*ids && *n_ids == 0)
        return cli_usage("--tokens: there is no token id");
    return *ids ? CLI_OK : cli_no_memory();
}

/* Closes the output; a file (not a device or a pipe) that could not be written whole is removed. */
static int finish_file(FILE *file, const char *path, int rc)
{
    struct stat info;
    bool is_regular = file && fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode);

    if (file && fclose(file) != 0 && rc == CLI_OK) {
        fprintf(stderr, "m40llm: %s: %s\n", path, strerror(errno));
        rc = CLI_FAILURE;
    }
    if (is_regular && rc != CLI_OK)
        unlink(path);
    return rc;
}

static FILE *create_file(const char *path)
{
    FILE *file = fopen(path, "wb");

    if (!file)
        fprintf(stderr, "m40llm: %s: %s\n", path, strerror(errno));
    return file;
}

static int evaluate(struct cli_session *session, const struct cli_settings *settings, const int32_t *ids, size_t n_ids)
{
    struct logits logits = {.path = settings->output, .last_prompt_pos = (uint32_t)n_ids - 1};
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;
    m40llm_error err;
    uint64_t id;
    m40llm_result result = M40LLM_RESULT_INIT;
    int rc = CLI_OK;

    options.n_max_tokens = settings->greedy;
    options.ignore_end = 1;
    options.all_logits = settings->all;
    options.on_logits = on_logits;
    options.on_event = on_event;
    options.user = &logits;
    m40llm_engine_pause(session->engine); /* a request that is refused leaves no file behind, and one that is not has one to write to */
    if (m40llm_submit(session->engine, ids, n_ids, &options, &id, &err) != M40LLM_OK)
        return cli_fail_at(settings->args[0], &err);
    logits.file = create_file(settings->output);
    if (!logits.file)
        return CLI_FAILURE;
    m40llm_engine_resume(session->engine);
    cli_set_request(session->engine, id);
    if (m40llm_wait(session->engine, id, &result, &err) != M40LLM_OK)
        rc = cli_fail(&err);
    else if (logits.is_broken)
        rc = CLI_FAILURE;
    else if (result.finish == M40LLM_FINISH_CANCELLED)
        rc = cli_stopped();
    if (settings->greedy)
        printf("\n");
    return finish_file(logits.file, settings->output, rc);
}

int cmd_logits(struct cli_settings *settings)
{
    struct cli_session session = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int rc;

    if (!settings->tokens || !settings->output)
        return cli_usage("logits needs --tokens 1,2,3 and -o FILE");
    rc = parse_tokens(settings->tokens, &ids, &n_ids);
    if (rc == CLI_OK)
        rc = cli_session_open(&session, settings, settings->args[0], SESSION_SAY_CTX, 0);
    if (rc == CLI_OK)
        rc = evaluate(&session, settings, ids, n_ids);
    cli_session_close(&session);
    free(ids);
    return rc;
}

static int write_tensor(const m40llm_file *file, size_t index, const m40llm_tensor_info *info, const char *path)
{
    uint64_t n_rows = info->n_elements / info->dims[0], rows_at_once = (1 << 20) / info->dims[0] + 1;
    float *rows = malloc(rows_at_once * info->dims[0] * sizeof *rows);
    FILE *out = rows ? create_file(path) : NULL;
    m40llm_error err;
    int rc = !rows ? cli_no_memory() : out ? CLI_OK : CLI_FAILURE;

    for (uint64_t r = 0; r < n_rows && rc == CLI_OK; r += rows_at_once) {
        uint64_t n = n_rows - r < rows_at_once ? n_rows - r : rows_at_once;

        if (m40llm_file_dequantize(file, index, r, n, rows, &err) != M40LLM_OK)
            rc = cli_fail(&err);
        else if (!cli_write_all(out, path, rows, n * info->dims[0] * sizeof *rows))
            rc = CLI_FAILURE;
    }
    free(rows);
    return finish_file(out, path, rc);
}

int cmd_tensor(struct cli_settings *settings)
{
    m40llm_file *file;
    m40llm_tensor_info info = M40LLM_TENSOR_INFO_INIT;
    m40llm_error err;
    size_t index;
    int rc;

    if (!settings->output)
        return cli_usage("tensor needs -o FILE");
    if (m40llm_file_open(&file, settings->args[0], &err) != M40LLM_OK)
        return cli_fail(&err);
    if (m40llm_file_find_tensor(file, settings->args[1], &index) != M40LLM_OK) {
        fprintf(stderr, "m40llm: %s: there is no tensor '%s'\n", settings->args[0], settings->args[1]);
        rc = CLI_FAILURE;
    } else {
        m40llm_file_tensor(file, index, &info);
        rc = write_tensor(file, index, &info, settings->output);
        for (uint32_t d = info.n_dims; rc == CLI_OK && d > 0; d--)
            printf("%" PRIu64 "%s", info.dims[d - 1], d > 1 ? " " : "\n");
    }
    m40llm_file_close(&file);
    return rc;
}
