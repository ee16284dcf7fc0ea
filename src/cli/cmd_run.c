/* m40llm run: a prompt or a message in, text out as it comes, one line of statistics at the end. */
#define _POSIX_C_SOURCE 200809L
#include "chat_state.h"
#include "cmd_chat.h"
#include "request.h"
#include "session.h"
#include "terminal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run {
    struct cli_session session;
    bool quiet; /* --json: text is gathered, not printed */
    char *text; /* [n_text], gathered for --json */
    size_t n_text;
    bool is_broken; /* output or memory failed: the request was cancelled */
    uint64_t id;
};

static void emit(struct run *run, const char *text, size_t n_bytes)
{
    char *grown;

    if (n_bytes == 0 || run->is_broken)
        return;
    if (!run->quiet) {
        run->is_broken = fwrite(text, 1, n_bytes, stdout) != n_bytes || fflush(stdout) != 0;
    } else {
        grown = realloc(run->text, run->n_text + n_bytes);
        run->is_broken = !grown;
        if (grown) {
            memcpy(grown + run->n_text, text, n_bytes);
            run->text = grown;
            run->n_text += n_bytes;
        }
    }
    if (run->is_broken)
        m40llm_cancel(run->session.engine, run->id);
}

static const char *finish_name(m40llm_finish finish)
{
    switch (finish) {
    case M40LLM_FINISH_STOP:
        return "stop";
    case M40LLM_FINISH_LENGTH:
        return "length";
    case M40LLM_FINISH_CANCELLED:
        return "cancelled";
    default:
        return "error";
    }
}

static double memory_mib(const struct cli_session *s)
{
    return (double)(s->engine_info.weight_bytes + s->engine_info.kv_bytes + s->engine_info.other_bytes) / 1048576.0;
}

static void print_statistics(const struct run *run, const m40llm_result *r)
{
    fprintf(stderr, "m40llm: %s (%s) | prompt %u tokens, %.1f tok/s | answer %u tokens, %.1f tok/s | memory %.0f MiB\n",
            run->session.device_info.spec, run->session.device_info.name, r->n_prompt, cli_prompt_speed(r), r->n_generated, cli_answer_speed(r),
            memory_mib(&run->session));
}

static int print_json(const struct run *run, const m40llm_result *r, uint64_t seed)
{
    json_t *object =
        json_pack("{s:s%, s:s, s:i, s:i, s:I, s:s, s:s, s:f, s:f, s:f}", "text", run->text ? run->text : "", run->n_text, "finish",
                  finish_name(r->finish), "prompt_tokens", (int)r->n_prompt, "completion_tokens", (int)r->n_generated, "seed", (json_int_t)seed,
                  "device", run->session.device_info.spec, "device_name", run->session.device_info.name, "prompt_tokens_per_s", cli_prompt_speed(r),
                  "completion_tokens_per_s", cli_answer_speed(r), "memory_mib", memory_mib(&run->session));
    int rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;

    json_decref(object);
    if (rc != 0)
        fprintf(stderr, "m40llm: cannot write the JSON result\n");
    else
        printf("\n");
    return rc == 0 ? CLI_OK : CLI_FAILURE;
}

/* Shows what happens to the request until it has ended; *result is what came of it. */
static int follow(struct run *run, uint32_t n_prompt, m40llm_result *result)
{
    m40llm_engine *engine = run->session.engine;
    m40llm_event event = M40LLM_EVENT_INIT;
    m40llm_error err;

    while (event.type != M40LLM_EVENT_END) {
        if (m40llm_read(engine, run->id, -1, &event, &err) != M40LLM_OK)
            return cli_fail(&err);
        if (event.type == M40LLM_EVENT_PREFILL)
            cli_progress("prompt", event.n_done, n_prompt);
        else
            cli_progress_end();
        if (event.text)
            emit(run, event.text, event.n_text);
    }
    return m40llm_wait(engine, run->id, result, &err) == M40LLM_OK ? CLI_OK : cli_fail(&err);
}

static int generate(struct run *run, const struct cli_settings *settings, const int32_t *ids, size_t n_ids)
{
    uint64_t seed = cli_choose_seed(settings);
    m40llm_request_options options = cli_request_options(settings, seed, settings->n);
    m40llm_engine *engine = run->session.engine;
    m40llm_result result = M40LLM_RESULT_INIT;
    m40llm_error err;
    int rc;

    if (!settings->has_seed && settings->temp > 0)
        fprintf(stderr, "m40llm: seed %llu\n", (unsigned long long)seed);
    if (m40llm_submit(engine, ids, n_ids, &options, &run->id, &err) != M40LLM_OK)
        return cli_fail_at(settings->args[0], &err);
    cli_set_request(engine, run->id);
    rc = follow(run, (uint32_t)n_ids, &result);
    cli_set_request(NULL, 0);
    if (rc != CLI_OK)
        return rc;
    if (run->quiet)
        return print_json(run, &result, seed);
    if (run->is_broken) /* main says that standard output failed */
        return CLI_FAILURE;
    printf("\n");
    fflush(stdout);
    print_statistics(run, &result);
    return CLI_OK;
}

/* A message on standard input is answered as in a chat. */
static int read_message(char **text, size_t *n_bytes)
{
    int rc = cli_read_file("-", text, n_bytes);

    if (rc == CLI_OK && strspn(*text, " \t\r\n") == *n_bytes)
        rc = cli_usage("run needs a prompt: -p TEXT, -f FILE or -; or a message on standard input; or a terminal to chat in");
    return rc;
}

int cmd_run(struct cli_settings *settings)
{
    struct run run = {.quiet = settings->json};
    unsigned flags = (settings->no_bos ? 0 : M40LLM_TOKENIZE_ADD_BOS) | (settings->special ? M40LLM_TOKENIZE_SPECIAL : 0);
    m40llm_template *template_ = NULL;
    char *prompt = NULL;
    int32_t *ids = NULL;
    size_t n_bytes, n_ids;
    int rc = cli_read_prompt(settings, &prompt, &n_bytes);
    bool is_message = rc == CLI_OK && !prompt;

    if (rc == CLI_OK && prompt && (settings->system || settings->template_file))
        rc = cli_usage("--system and --chat-template are for chats: leave -p, -f and - out, and type the message, or pipe it in");
    if (is_message && (settings->special || settings->no_bos))
        return cli_usage("--special and --no-bos go with -p, -f or -: a chat's template writes control tokens");
    if (is_message && isatty(STDIN_FILENO))
        return settings->json || settings->echo ? cli_usage("--json and --echo need a prompt: -p TEXT, -f FILE or -; or a message on standard input")
                                                : cli_chat(settings);
    if (is_message)
        rc = read_message(&prompt, &n_bytes);
    if (rc == CLI_OK && is_message)
        rc = chat_open_template(settings, &template_);
    if (rc == CLI_OK)
        rc = cli_session_open(&run.session, settings, settings->args[0], SESSION_TOKENIZER | SESSION_SAY_CTX, 0);
    if (rc == CLI_OK && is_message) {
        rc = cli_message_prompt(settings, &run.session, template_, &prompt, &n_bytes);
        flags = M40LLM_TOKENIZE_SPECIAL;
        settings->n = settings->has_n ? settings->n : run.session.engine_info.n_ctx;
    }
    if (rc == CLI_OK)
        rc = cli_tokenize(run.session.tokenizer, prompt, n_bytes, flags, &ids, &n_ids);
    if (rc == CLI_OK && settings->echo && !run.quiet)
        fwrite(prompt, 1, n_bytes, stdout);
    if (rc == CLI_OK)
        rc = generate(&run, settings, ids, n_ids);
    cli_session_close(&run.session);
    m40llm_template_close(&template_);
    free(ids);
    free(prompt);
    free(run.text);
    return rc;
}
