/* m40llm render: a conversation as text, by a chat template. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The template of --template or of the model. */
static int open_template(const struct cli_settings *settings, m40llm_template **out)
{
    m40llm_file *file;
    m40llm_error err;
    m40llm_status status;

    *out = NULL;
    if (settings->template_file)
        return cli_compile_template(settings->template_file, NULL, out);
    status = m40llm_file_open(&file, settings->args[0], &err);
    if (status == M40LLM_OK)
        status = m40llm_template_open(out, file, settings->template_name, &err);
    m40llm_file_close(&file);
    return status == M40LLM_OK ? CLI_OK : cli_fail_at(settings->args[0], &err);
}

/* The library has the word on what is a time: asked with a template that needs nothing else, so that no other fault is taken for it. */
static int check_now(const char *now)
{
    m40llm_template_options options = M40LLM_TEMPLATE_OPTIONS_INIT;
    m40llm_template *t = NULL;
    m40llm_error err;
    m40llm_status status = m40llm_template_compile(&t, "", 0, &err);
    char *text = NULL;
    size_t n_bytes;

    options.now = now;
    if (status == M40LLM_OK)
        status = m40llm_template_render(t, "{}", 2, &options, &text, &n_bytes, &err);
    m40llm_free(text);
    m40llm_template_close(&t);
    return status == M40LLM_INVALID_ARGUMENT ? cli_usage("--now: %s", err.text) : status == M40LLM_OK ? CLI_OK : cli_fail(&err);
}

static int check_usage(const struct cli_settings *settings)
{
    if ((settings->n_args > 0) == (settings->template_file != NULL))
        return cli_usage("render needs a MODEL or --template FILE, and not both");
    if (settings->template_file && settings->template_name)
        return cli_usage("--name chooses among a model's templates; it does not go with --template");
    if (!settings->context)
        return cli_usage("render needs --context FILE.json");
    if (settings->template_file && strcmp(settings->template_file, "-") == 0 && strcmp(settings->context, "-") == 0)
        return cli_usage("only one of --template and --context can be standard input");
    return check_now(settings->now);
}

int cmd_render(struct cli_settings *settings)
{
    m40llm_template_options options = M40LLM_TEMPLATE_OPTIONS_INIT;
    m40llm_template *t = NULL;
    char *context = NULL, *text = NULL;
    size_t n_context, n_text = 0;
    m40llm_error err;
    int rc = check_usage(settings);

    if (rc == CLI_OK)
        rc = open_template(settings, &t);
    if (rc == CLI_OK)
        rc = cli_read_file_within(settings->context, CLI_MAX_JSON_BYTES, &context, &n_context);
    options.now = settings->now;
    if (rc == CLI_OK && m40llm_template_render(t, context, n_context, &options, &text, &n_text, &err) != M40LLM_OK)
        rc = cli_fail_at(err.code == M40LLM_INVALID_ARGUMENT ? settings->context
                         : settings->template_file           ? settings->template_file
                                                             : settings->args[0],
                         &err);
    if (rc == CLI_OK)
        fwrite(text, 1, n_text, stdout); /* main looks whether it could be written */
    m40llm_free(text);
    m40llm_template_close(&t);
    free(context);
    return rc;
}
