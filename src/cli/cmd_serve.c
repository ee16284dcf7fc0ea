/* m40llm serve: a model behind HTTP. */
#define _POSIX_C_SOURCE 200809L
#include "session.h"
#include "terminal.h"

#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Clients that leave are looked for ten times a second, and within one their memory is to be free. */
enum { LONGEST_STEP_MS = 700 };

/* The key of --api-key-file: its first line. */
static int read_key(const struct cli_settings *settings, char **key)
{
    size_t n_bytes;
    int rc;

    *key = NULL;
    if (settings->api_key && settings->api_key_file)
        return cli_usage("give only one of --api-key and --api-key-file");
    if (settings->api_key) {
        *key = strdup(settings->api_key);
        rc = *key ? CLI_OK : cli_no_memory();
    } else if (settings->api_key_file) {
        rc = cli_read_file(settings->api_key_file, key, &n_bytes);
        if (rc == CLI_OK)
            (*key)[strcspn(*key, "\r\n")] = 0;
    } else {
        return CLI_OK;
    }
    if (rc == CLI_OK && !**key)
        return cli_usage("the API key is empty");
    return rc;
}

/* PEM of --tls-cert and --tls-key; NULL: there is none. */
static int read_tls(const struct cli_settings *settings, char **cert, char **key)
{
    size_t n_bytes;
    int rc = CLI_OK;

    if (!settings->tls_cert != !settings->tls_key)
        return cli_usage("--tls-cert and --tls-key need each other");
    if (settings->tls_cert)
        rc = cli_read_file(settings->tls_cert, cert, &n_bytes);
    if (settings->tls_key && rc == CLI_OK)
        rc = cli_read_file(settings->tls_key, key, &n_bytes);
    return rc;
}

/* The text of the model's own template, or of --chat-template; NULL: there is none. */
static int read_template(const struct cli_settings *settings, const m40llm_file *file, char **text, m40llm_template **compiled)
{
    m40llm_error err;
    m40llm_status status;
    const char *own;
    size_t n_bytes;

    if (settings->template_file)
        return cli_compile_template(settings->template_file, text, compiled);
    status = m40llm_template_open(compiled, file, NULL, &err);
    if (status == M40LLM_NOT_FOUND)
        return CLI_OK;
    if (status != M40LLM_OK) { /* the rest of the API works without */
        cli_say(stderr, "warning: the model's chat template cannot be used: %s", err.text);
        return CLI_OK;
    }
    if (m40llm_file_get_string(file, "tokenizer.chat_template", &own, &n_bytes) == M40LLM_OK)
        *text = strndup(own, n_bytes);
    return CLI_OK;
}

/* "models/demo.gguf" is called "demo". */
static char *model_name(const struct cli_settings *settings)
{
    const char *path = settings->args[0], *slash = strrchr(path, '/');
    const char *name = settings->alias ? settings->alias : slash ? slash + 1 : path;
    size_t n = strlen(name);

    if (!settings->alias && n > 5 && strcmp(name + n - 5, ".gguf") == 0)
        n -= 5;
    return strndup(name, n);
}

static int serve_model(struct server *server, struct cli_settings *settings)
{
    struct cli_session session = {0};
    struct server_model model = {0};
    char *name = model_name(settings), *text = NULL;
    int rc = name ? cli_session_open(&session, settings, settings->args[0], SESSION_TOKENIZER | SESSION_SAY_CTX, 0) : cli_no_memory();

    if (rc == CLI_OK)
        rc = read_template(settings, session.file, &text, &model.template_);
    if (rc == CLI_OK) {
        model.name = name;
        model.chat_template = text;
        model.engine = session.engine;
        model.tokenizer = session.tokenizer;
        model.device_info = session.device_info;
        model.model_info = session.model_info;
        model.engine_info = session.engine_info;
        server_set_model(server, &model);
        fprintf(stderr, "m40llm: ready: %s at %s\n", name, server_url(server));
        server_run(server, cli_interrupted);
    }
    if (cli_interrupted()) /* while it was loading, too */
        rc = CLI_OK;
    server_close(&server); /* before the engine: nobody may ask for anything then */
    cli_session_close(&session);
    m40llm_template_close(&model.template_);
    free(text);
    free(name);
    return rc;
}

int cmd_serve(struct cli_settings *settings)
{
    struct server_options options = SERVER_OPTIONS_INIT;
    struct server *server = NULL;
    char why[256], *key = NULL, *tls_cert = NULL, *tls_key = NULL;
    int rc = read_key(settings, &key);

    if (rc == CLI_OK)
        rc = read_tls(settings, &tls_cert, &tls_key);
    if (settings->parallel == 0)
        settings->parallel = 16;
    if (settings->max_requests == 0)
        settings->max_requests = 256;
    settings->longest_step_ms = LONGEST_STEP_MS;
    if (settings->host)
        options.host = settings->host;
    options.port = (uint16_t)settings->port;
    options.api_key = key;
    options.max_connections = settings->max_connections;
    options.max_body_bytes = settings->max_body;
    options.idle_s = settings->idle;
    options.drain_s = settings->drain;
    options.cors = (struct server_list){settings->cors.items, settings->cors.n};
    options.allow_hosts = (struct server_list){settings->allow_hosts.items, settings->allow_hosts.n};
    options.tls_cert = tls_cert;
    options.tls_key = tls_key;
    options.nvml_library = settings->nvml_library;
    options.logger = cli_device_options(settings).logger;
    if (rc == CLI_OK && !server_open(&server, &options, why, sizeof why)) {
        fprintf(stderr, "m40llm: %s\n", why);
        rc = CLI_FAILURE;
    }
    if (rc == CLI_OK) {
        fprintf(stderr, "m40llm: listening at %s\n", server_url(server));
        rc = serve_model(server, settings);
    }
    free(key);
    free(tls_cert);
    free(tls_key);
    return rc;
}
