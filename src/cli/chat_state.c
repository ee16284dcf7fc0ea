#include "chat_state.h"
#include "chat_commands.h"
#include "request.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

int chat_open(struct chat *chat, const struct cli_settings *settings)
{
    *chat = (struct chat){.settings = *settings, .say = stderr, .seed = cli_choose_seed(settings)};
    if (!conversation_open(&chat->conversation))
        return cli_no_memory();
    if (!conversation_set_system(&chat->conversation, settings->system)) {
        conversation_close(&chat->conversation);
        return cli_usage("--system: not UTF-8");
    }
    return CLI_OK;
}

void chat_close(struct chat *chat)
{
    conversation_close(&chat->conversation);
    chat_tokens_free(&chat->tokens);
    free(chat->path);
    chat->path = NULL;
}

/* ---- answers ---- */

static uint32_t context_size(const struct chat *chat)
{
    return chat->session ? chat->session->engine_info.n_ctx : 0;
}

static void say_what_came(const struct chat *chat, const m40llm_result *r)
{
    const uint32_t n_ctx = context_size(chat), n_all = r->n_prompt + r->n_generated,
                   n_used = n_all < n_ctx ? n_all : n_ctx; /* the last token is not in it */

    const char *why = "";

    if (r->finish == M40LLM_FINISH_CANCELLED)
        why = " | stopped";
    else if (r->finish == M40LLM_FINISH_LENGTH)
        why = n_used >= n_ctx ? " | the context is full: /undo or /clear makes room" : " | cut off by max-tokens";
    fprintf(chat->say, "%s[%u tokens, %.1f tok/s | prompt %u, %u of it cached | context %u of %u%s]%s\n", chat->has_style ? "\033[2m" : "",
            r->n_generated, cli_answer_speed(r), r->n_prompt, r->n_cached, n_used, n_ctx, why, chat->has_style ? "\033[0m" : "");
}

static void say_failure(const struct chat *chat, const m40llm_error *err)
{
    cli_say(chat->say, "%s%s", err->code == M40LLM_TEMPLATE ? "the chat template: " : "", err->text);
    fprintf(chat->say, err->code == M40LLM_CONTEXT_FULL
                           ? "The message was left out. /undo or /clear makes room; --ctx N, at the next start, a larger context.\n"
                           : "The message was left out.\n");
}

/* Answers the conversation, which ends with a question, and adds the answer to it. false: nothing came, and it is as it was. */
static bool answer(struct chat *chat)
{
    struct chat_answer a;
    m40llm_error err;
    bool ok = chat_answer(chat, chat->seed + chat->n_answers, &a, &err) == M40LLM_OK;

    chat->sink.end(chat->sink.user);
    if (!ok) {
        say_failure(chat, &err);
        return false;
    }
    chat->n_answers++;
    chat->last = a.result;
    chat->last_seed = a.seed;
    say_what_came(chat, &a.result);
    if (a.text.n_bytes == 0 && a.thought.n_bytes == 0 && a.result.finish == M40LLM_FINISH_CANCELLED) {
        ok = false; /* stopped before it began */
    } else {
        ok = conversation_answer(&chat->conversation, (struct m40_str){a.text.data, a.text.n_bytes},
                                 (struct m40_str){a.thought.data, a.thought.n_bytes});
        if (!ok)
            fprintf(chat->say, "m40llm: out of memory: the answer cannot be kept\n");
    }
    m40_buf_free(&a.text);
    m40_buf_free(&a.thought);
    return ok;
}

static void ask(struct chat *chat, struct m40_str text)
{
    if (!conversation_ask(&chat->conversation, text))
        fprintf(chat->say, "m40llm: the message is not UTF-8\n");
    else if (!answer(chat))
        json_decref(conversation_take(&chat->conversation, "user"));
}

void chat_regenerate(struct chat *chat)
{
    json_t *old = conversation_take(&chat->conversation, "assistant");

    if (strcmp(conversation_last_role(&chat->conversation), "user") != 0) {
        fprintf(chat->say, "There is no message to answer.\n");
    } else if (answer(chat)) {
        json_decref(old);
        return;
    }
    if (old)
        conversation_put(&chat->conversation, old);
}

enum chat_next chat_line(struct chat *chat, struct m40_str text)
{
    struct chat_command command = chat_read_command(text);
    bool is_blank = true;

    for (size_t i = 0; i < text.n_bytes; i++)
        is_blank = is_blank && strchr(" \t\r\n", text.data[i]) && text.data[i];
    if (is_blank)
        return CHAT_GO_ON;
    if (command.id != CHAT_MESSAGE)
        return chat_command(chat, &command);
    ask(chat, text);
    return CHAT_GO_ON;
}
