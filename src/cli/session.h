/* What the computing commands share: a model on a device with an engine, opened from the settings, and the texts that go in. */
#ifndef M40_CLI_SESSION_H
#define M40_CLI_SESSION_H

#include "options.h"

struct cli_session {
    m40llm_file *file;
    m40llm_tokenizer *tokenizer; /* NULL where the command needs none */
    m40llm_device *device;
    m40llm_model *model;
    m40llm_engine *engine;
    m40llm_device_info device_info;
    m40llm_model_info model_info;
    m40llm_engine_info engine_info;
};

enum cli_session_flags {
    SESSION_TOKENIZER = 1, /* the file must have one */
    SESSION_SAY_CTX = 2,   /* print the device and the context on stderr */
};

/* Opens all of it; n_ctx: at least this much context where --ctx says nothing else (0: the engine's default). Returns CLI_OK, or CLI_FAILURE after saying why. Close it in any case. */
int cli_session_open(struct cli_session *session, const struct cli_settings *settings, const char *model_path, unsigned flags, uint32_t n_ctx);
void cli_session_close(struct cli_session *session);

/* The settings' device options; the logger writes to stderr. */
m40llm_device_options cli_device_options(const struct cli_settings *settings);

m40llm_kv_type cli_kv_type(const struct cli_settings *settings);

/* A whole file ("-": standard input) into *text (to be freed), NUL-terminated. One of more than max_bytes, or CLI_MAX_FILE_BYTES, is refused. */
int cli_read_file(const char *path, char **text, size_t *n_bytes);
int cli_read_file_within(const char *path, size_t max_bytes, char **text, size_t *n_bytes);
enum { CLI_MAX_FILE_BYTES = 256 << 20, CLI_MAX_TEMPLATE_BYTES = 4 << 20, CLI_MAX_JSON_BYTES = 16 << 20 };

/* The text of -p, -f or '-' among the arguments, which may be none (*text = NULL). */
int cli_read_prompt(const struct cli_settings *settings, char **text, size_t *n_bytes);

/* The template of a file (--template, --chat-template); with its text (to be freed) in *text, where that is not NULL. */
int cli_compile_template(const char *path, char **text, m40llm_template **out);

/* Ids of a text into *ids (to be freed). */
int cli_tokenize(const m40llm_tokenizer *tokenizer, const char *text, size_t n_bytes, unsigned flags, int32_t **ids, size_t *n_ids);

/* An output file of raw bytes; says what is wrong and returns false. */
bool cli_write_all(void *file, const char *path, const void *data, size_t n_bytes);

#endif
