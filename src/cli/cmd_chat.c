/* m40llm run MODEL without a prompt: a chat in the terminal. */
#define _POSIX_C_SOURCE 200809L
#include "chat_state.h"
#include "chat_history.h"
#include "chat_input.h"
#include "chat_screen.h"
#include "cmd_chat.h"
#include "line.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int chat_open_template(const struct cli_settings *settings, m40llm_template **out)
{
    m40llm_file *file;
    m40llm_error err;
    m40llm_status status;

    *out = NULL;
    if (settings->template_file)
        return cli_compile_template(settings->template_file, NULL, out);
    status = m40llm_file_open(&file, settings->args[0], &err);
    if (status == M40LLM_OK)
        status = m40llm_template_open(out, file, NULL, &err);
    m40llm_file_close(&file);
    if (status == M40LLM_NOT_FOUND) {
        fprintf(stderr, "m40llm: %s: the model has no chat template: give one with --chat-template FILE, or a text to go on from with -p TEXT\n",
                settings->args[0]);
        return CLI_FAILURE;
    }
    return status == M40LLM_OK ? CLI_OK : cli_fail_at(settings->args[0], &err);
}

/* ---- what the chat shows ---- */

struct terminal_sink {
    struct chat_screen screen;
    bool is_broken;
};

static bool sink_text(void *user, bool is_thought, const char *text, size_t n_bytes)
{
    struct terminal_sink *sink = user;

    cli_progress_end();
    sink->is_broken = sink->is_broken || !chat_screen_text(&sink->screen, is_thought, text, n_bytes);
    return !sink->is_broken;
}

static void sink_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    if (done < total) /* no bar for what takes one step */
        cli_progress("prompt", done, total);
}

static void sink_end(void *user)
{
    struct terminal_sink *sink = user;

    cli_progress_end();
    sink->is_broken = !chat_screen_end(&sink->screen) || sink->is_broken;
}

/* ---- the loop ---- */

/* One line into the message that is being typed; a whole one is answered, or carried out. */
static enum chat_next take_line(struct chat *chat, struct chat_input *input, struct line_reader *reader, struct m40_str line)
{
    enum chat_next next = CHAT_GO_ON;
    enum chat_input_state state = chat_input_line(input, line);

    if (state == INPUT_MORE)
        return next;
    if (state == INPUT_DONE && input->text.n_bytes) {
        line_remember(reader, input->text.data);
        cli_echo(false);
        next = chat_line(chat, (struct m40_str){input->text.data, input->text.n_bytes});
        cli_echo(true);
    } else if (state == INPUT_NO_MEMORY) {
        cli_no_memory();
    }
    chat_input_reset(input);
    return next;
}

static void talk(struct chat *chat, struct line_reader *reader, const bool *is_broken)
{
    struct chat_input input = {0};
    enum chat_next next = CHAT_GO_ON;
    bool wants_to_leave = false;

    while (next == CHAT_GO_ON && !*is_broken && !cli_interrupted()) {
        bool is_begun = input.is_block || input.text.n_bytes;
        const char *line;
        size_t n_bytes;
        enum line_result result = line_read(reader, is_begun ? ". " : "> ", &line, &n_bytes);

        if (result == LINE_TEXT) {
            next = take_line(chat, &input, reader, (struct m40_str){line, n_bytes});
        } else if (result != LINE_CANCELLED) {
            next = CHAT_LEAVE;
        } else if (is_begun || n_bytes) {
            chat_input_reset(&input);
        } else if (wants_to_leave) {
            next = CHAT_LEAVE;
        } else {
            fprintf(stderr, "(Ctrl-C again, Ctrl-D or /exit leaves)\n");
            wants_to_leave = true;
            continue;
        }
        wants_to_leave = false;
    }
    chat_input_reset(&input);
}

static int chat_with(struct chat *chat, const char *history)
{
    struct terminal_sink sink = {.screen = {.out = stdout, .is_terminal = isatty(STDOUT_FILENO), .has_style = cli_has_style(stdout)}};
    struct line_reader *reader = line_open(history, chat_command_names());

    if (!reader)
        return cli_no_memory();
    chat->sink = (struct chat_sink){sink_text, sink_progress, sink_end, &sink};
    chat->has_style = cli_has_style(stderr);
    fprintf(stderr, "m40llm: a chat; /help tells the commands, Ctrl-C stops an answer, Ctrl-D leaves\n");
    cli_catch_interrupt_of_requests();
    talk(chat, reader, &sink.is_broken);
    line_close(&reader);
    return sink.is_broken ? CLI_FAILURE : CLI_OK;
}

int cli_chat(const struct cli_settings *settings)
{
    struct cli_session session = {0};
    struct chat chat = {0};
    m40llm_template *template_ = NULL;
    char *history = settings->no_history ? NULL : chat_history_path(getenv("XDG_STATE_HOME"), getenv("HOME"));
    int rc = chat_open_template(settings, &template_);

    if (rc == CLI_OK)
        rc = chat_open(&chat, settings);
    if (rc == CLI_OK)
        rc = cli_session_open(&session, settings, settings->args[0], SESSION_TOKENIZER | SESSION_SAY_CTX, 0);
    if (rc == CLI_OK) {
        chat.session = &session;
        chat.template_ = template_;
        rc = chat_with(&chat, history);
    }
    cli_session_close(&session);
    chat_close(&chat);
    m40llm_template_close(&template_);
    free(history);
    return rc;
}

int cli_message_prompt(const struct cli_settings *settings, const struct cli_session *session, const m40llm_template *template_, char **text,
                       size_t *n_bytes)
{
    struct chat chat;
    m40llm_error err;
    char *prompt = NULL;
    int rc = chat_open(&chat, settings);

    if (rc != CLI_OK)
        return rc;
    chat.session = session;
    chat.template_ = template_;
    while (*n_bytes && (*text)[*n_bytes - 1] == '\n') /* the end of the last line is no part of it */
        --*n_bytes;
    if (!conversation_ask(&chat.conversation, (struct m40_str){*text, *n_bytes})) {
        fprintf(stderr, "m40llm: standard input: the message is not UTF-8\n");
        rc = CLI_FAILURE;
    } else if (chat_render_prompt(&chat, &prompt, n_bytes, &err) != M40LLM_OK) {
        rc = cli_fail_at(settings->args[0], &err);
    }
    chat_close(&chat);
    free(*text);
    *text = NULL;
    if (prompt && !(*text = malloc(*n_bytes + 1)))
        rc = cli_no_memory();
    if (*text)
        memcpy(*text, prompt, *n_bytes + 1);
    m40llm_free(prompt);
    return rc;
}
