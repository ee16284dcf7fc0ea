/* An answer of a chat: conversation to prompt, prompt to tokens, tokens to text. */
#include "chat_state.h"
#include "request.h"
#include "terminal.h"

#include "server/thinking.h"

#include <stdlib.h>

/* A template that is not the model's own does not know its special tokens. */
static bool set_token(json_t *context, const char *name, const m40llm_tokenizer *tokenizer, int32_t id)
{
    char text[256];
    json_t *string;
    size_t n_bytes;

    if (id < 0 || m40llm_detokenize(tokenizer, &id, 1, M40LLM_DETOKENIZE_SPECIAL, text, sizeof text, &n_bytes, NULL) != M40LLM_OK)
        return true;
    string = json_stringn(text, n_bytes);
    return !string || json_object_set_new(context, name, string) == 0;
}

static char *make_context(const struct chat *chat)
{
    const m40llm_tokenizer *tokenizer = chat->session->tokenizer;
    json_t *context = json_pack("{s:O, s:n, s:n, s:b}", "messages", chat->conversation.messages, "tools", "documents", "add_generation_prompt", 1);
    bool ok = context && set_token(context, "bos_token", tokenizer, m40llm_tokenizer_bos(tokenizer)) &&
              set_token(context, "eos_token", tokenizer, m40llm_tokenizer_eos(tokenizer));
    char *json = NULL;

    if (ok && chat->think != CHAT_THINK_AUTO)
        ok = json_object_set_new(context, "enable_thinking", json_boolean(chat->think == CHAT_THINK_ON)) == 0;
    if (ok)
        json = json_dumps(context, JSON_COMPACT);
    json_decref(context);
    return json;
}

static m40llm_status no_memory(m40llm_error *err)
{
    *err = (m40llm_error){M40LLM_NO_MEMORY, "out of memory"};
    return M40LLM_NO_MEMORY;
}

m40llm_status chat_render_prompt(const struct chat *chat, char **prompt, size_t *n_bytes, m40llm_error *err)
{
    char *json = make_context(chat);
    m40llm_status status;

    *prompt = NULL;
    if (!json)
        return no_memory(err);
    status = m40llm_template_render(chat->template_, json, strlen(json), NULL, prompt, n_bytes, err);
    free(json);
    return status;
}

/* The text goes on: shows what is certain, and keeps it. */
static bool take_text(const struct chat *chat, struct thinking *thinking, const m40llm_event *event, struct chat_answer *out)
{
    size_t n_thought = out->thought.n_bytes, n_text = out->text.n_bytes;
    const char *text = event->text ? event->text : "";

    if (event->type == M40LLM_EVENT_TOKEN ? !thinking_push_token(thinking, event->token, text, event->n_text, &out->thought, &out->text)
                                          : !thinking_push(thinking, text, event->n_text, event->type == M40LLM_EVENT_END, &out->thought, &out->text))
        return false;
    if (out->thought.n_bytes > n_thought && !chat->sink.text(chat->sink.user, true, out->thought.data + n_thought, out->thought.n_bytes - n_thought))
        return false;
    return out->text.n_bytes == n_text || chat->sink.text(chat->sink.user, false, out->text.data + n_text, out->text.n_bytes - n_text);
}

/* Reads the request's events to its end. */
static m40llm_status follow(struct chat *chat, uint64_t id, size_t n_prompt, struct thinking *thinking, struct chat_answer *out, m40llm_error *err)
{
    m40llm_engine *engine = chat->session->engine;
    m40llm_event event = M40LLM_EVENT_INIT;
    m40llm_status status;
    bool ok = true;

    while (event.type != M40LLM_EVENT_END) {
        if ((status = m40llm_read(engine, id, -1, &event, err)) != M40LLM_OK)
            return status;
        if (event.type == M40LLM_EVENT_PREFILL)
            chat->sink.progress(chat->sink.user, event.n_done, n_prompt);
        if (event.text)
            ok =
                chat_tokens_add(&chat->tokens, event.type == M40LLM_EVENT_TOKEN ? event.token : -1, (struct m40_str){event.text, event.n_text}) && ok;
        if (ok && event.type != M40LLM_EVENT_PREFILL && !(ok = take_text(chat, thinking, &event, out)))
            m40llm_cancel(engine, id);
    }
    return m40llm_wait(engine, id, &out->result, err);
}

m40llm_status chat_answer(struct chat *chat, uint64_t seed, struct chat_answer *out, m40llm_error *err)
{
    m40llm_engine *engine = chat->session->engine;
    const uint32_t n_max = chat->settings.has_n && chat->settings.n ? chat->settings.n : chat->session->engine_info.n_ctx;
    m40llm_request_options options = cli_request_options(&chat->settings, seed, n_max);
    struct chat_tokens *tokens = &chat->tokens;
    struct thinking_markers markers = {0};
    struct thinking thinking = {0};
    size_t n_bytes = 0;
    uint64_t id;
    char *prompt;
    m40llm_status status = chat_render_prompt(chat, &prompt, &n_bytes, err);

    *out = (struct chat_answer){.result = M40LLM_RESULT_INIT, .seed = seed};
    if (status == M40LLM_OK)
        status = chat_tokens_prompt(tokens, chat->session->tokenizer, (struct m40_str){prompt, n_bytes}, err);
    m40llm_free(prompt);
    thinking_markers_init(&markers, chat->session->tokenizer);
    if (status == M40LLM_OK && !thinking_begin(&thinking, &markers, tokens->ids, tokens->n_ids))
        status = no_memory(err);
    if (status == M40LLM_OK)
        status = m40llm_submit(engine, tokens->ids, tokens->n_ids, &options, &id, err);
    if (status != M40LLM_OK) {
        m40_buf_free(&thinking.held);
        return status;
    }
    cli_set_request(engine, id);
    status = follow(chat, id, tokens->n_ids, &thinking, out, err);
    cli_set_request(NULL, 0);
    m40_buf_free(&thinking.held);
    if (status == M40LLM_OK && !chat_tokens_mark(tokens))
        status = no_memory(err);
    if (status != M40LLM_OK) {
        m40_buf_free(&out->text);
        m40_buf_free(&out->thought);
    }
    return status;
}
