/* m40llm tokenize, detokenize. */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int open_tokenizer(const char *path, m40llm_tokenizer **out)
{
    m40llm_file *file;
    m40llm_error err;
    m40llm_status status;

    *out = NULL;
    if (m40llm_file_open(&file, path, &err) != M40LLM_OK)
        return cli_fail(&err);
    status = m40llm_tokenizer_open(out, file, &err);
    m40llm_file_close(&file);
    if (status == M40LLM_OK)
        return CLI_OK;
    return cli_fail_at(path, &err);
}

/* id, tab, the token's text with control characters and backslashes escaped. */
static void print_piece(const m40llm_tokenizer *t, int32_t id)
{
    char text[1024];
    size_t n = 0;

    m40llm_detokenize(t, &id, 1, M40LLM_DETOKENIZE_SPECIAL, text, sizeof text, &n, NULL);
    printf("%d\t", id);
    for (size_t i = 0; i < n && i < sizeof text; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else if (c == '\\')
            printf("\\\\");
        else
            putchar(c);
    }
    printf("\n");
}

int cmd_tokenize(struct cli_settings *settings)
{
    unsigned flags = (settings->no_bos ? 0 : M40LLM_TOKENIZE_ADD_BOS) | (settings->special ? M40LLM_TOKENIZE_SPECIAL : 0);
    m40llm_tokenizer *t = NULL;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n_bytes, n_ids;
    int rc = cli_read_prompt(settings, &text, &n_bytes);

    if (rc == CLI_OK && !text)
        rc = cli_usage("tokenize needs a text: -p TEXT or -f FILE");
    if (rc == CLI_OK)
        rc = open_tokenizer(settings->args[0], &t);
    if (rc == CLI_OK)
        rc = cli_tokenize(t, text, n_bytes, flags, &ids, &n_ids);
    for (size_t i = 0; rc == CLI_OK && i < n_ids; i++)
        if (settings->pieces)
            print_piece(t, ids[i]);
        else
            printf("%s%d", i ? " " : "", ids[i]);
    if (rc == CLI_OK && !settings->pieces)
        printf("\n");
    m40llm_tokenizer_close(&t);
    free(ids);
    free(text);
    return rc;
}

static int parse_ids(const struct cli_settings *settings, int32_t *ids)
{
    for (int i = 1; i < settings->n_args; i++) {
        char *end;
        long id;

        errno = 0;
        id = strtol(settings->args[i], &end, 10);
        if (*settings->args[i] == 0 || *end || errno || id < 0 || id > INT32_MAX)
            return cli_usage("'%s' is not a token id", settings->args[i]);
        ids[i - 1] = (int32_t)id;
    }
    return CLI_OK;
}

int cmd_detokenize(struct cli_settings *settings)
{
    size_t n_ids = (size_t)settings->n_args - 1, n_bytes = 0;
    int32_t *ids = calloc(n_ids + 1, sizeof *ids);
    unsigned flags = settings->special ? M40LLM_DETOKENIZE_SPECIAL : 0;
    m40llm_tokenizer *t = NULL;
    char *text = NULL;
    m40llm_error err;
    int rc = ids ? parse_ids(settings, ids) : cli_no_memory();

    if (rc == CLI_OK)
        rc = open_tokenizer(settings->args[0], &t);
    if (rc == CLI_OK) {
        m40llm_status status = m40llm_detokenize(t, ids, n_ids, flags, NULL, 0, &n_bytes, &err);

        if (status == M40LLM_OK || status == M40LLM_BUFFER_TOO_SMALL) {
            text = malloc(n_bytes + 1);
            status = text ? m40llm_detokenize(t, ids, n_ids, flags, text, n_bytes, &n_bytes, &err) : M40LLM_NO_MEMORY;
        }
        if (status == M40LLM_OK) {
            fwrite(text, 1, n_bytes, stdout);
            printf("\n");
        } else {
            rc = status == M40LLM_NO_MEMORY ? cli_no_memory() : cli_fail_at(settings->args[0], &err);
        }
    }
    m40llm_tokenizer_close(&t);
    free(text);
    free(ids);
    return rc;
}
