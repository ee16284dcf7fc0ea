#include "completion.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void completion_free(struct completion **out)
{
    struct completion *c = *out;

    if (!c)
        return;
    for (uint32_t i = 0; c->choices && i < c->call.n; i++) {
        m40_buf_free(&c->choices[i].thinking.held);
        m40_buf_free(&c->choices[i].said);
        m40_buf_free(&c->choices[i].thought);
        json_decref(c->choices[i].logprobs);
    }
    free(c->choices);
    m40_buf_free(&c->out);
    call_free(&c->call);
    free(c);
    *out = NULL;
}

/* ---- what the engine tells ---- */

/* Takes the object. */
static bool send_object(struct completion *c, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    bool ok = text && m40_buf_append(&c->out, "data: ", 6) && m40_buf_append(&c->out, text, strlen(text)) && m40_buf_append(&c->out, "\n\n", 2);

    free(text);
    json_decref(object);
    return ok;
}

static bool take_text(struct completion *c, struct choice *choice, const struct event_record *e, const char *text)
{
    if (c->call.kind != CALL_CHAT)
        return e->n_text == 0 || m40_buf_append(&choice->said, text, e->n_text);
    if (e->type == M40LLM_EVENT_FINISH)
        return thinking_push(&choice->thinking, text, e->n_text, true, &choice->thought, &choice->said);
    return thinking_push_token(&choice->thinking, e->token, text, e->n_text, &choice->thought, &choice->said);
}

static bool take_event(struct completion *c, const struct server_model *m, const struct event_record *e, const m40llm_token_logprob *top,
                       const char *text)
{
    struct choice *choice = &c->choices[e->choice];
    bool is_finish = e->type == M40LLM_EVENT_FINISH;

    if (!is_finish && c->call.options.logprobs && !choice_add_logprob(choice, c->call.kind, m, e, top))
        return false;
    if (!take_text(c, choice, e, text))
        return false;
    if (is_finish)
        choice->finish = e->finish;
    if (!c->call.stream)
        return true;
    if ((choice->said.n_bytes || choice->thought.n_bytes || choice->logprobs) && !send_object(c, answer_delta(c, e->choice)))
        return false;
    return !is_finish || c->call.kind == CALL_GENERATE || send_object(c, answer_finish(c, e->choice));
}

/* Frees the events. */
static bool take_events(struct completion *c, const struct server_model *m, struct m40_buf *events)
{
    bool ok = true;

    for (size_t i = 0; ok && i < events->n_bytes;) {
        m40llm_token_logprob top[M40LLM_MAX_TOP_LOGPROBS];
        struct event_record e;

        memcpy(&e, events->data + i, sizeof e);
        i += sizeof e;
        memcpy(top, events->data + i, e.n_top * sizeof *top);
        i += e.n_top * sizeof *top;
        ok = take_event(c, m, &e, top, events->data + i);
        i += e.n_text;
    }
    m40_buf_free(events);
    return ok;
}

/* ---- streams ---- */

static bool end_stream(struct exchange *x)
{
    struct completion *c = x->completion;

    c->is_over = true;
    if (x->error.code != M40LLM_OK) {
        fail_of(&x->failure, NULL, &x->error);
        return send_object(c, failure_json(&x->failure));
    }
    if ((c->call.include_usage || c->call.kind == CALL_GENERATE) && !send_object(c, answer_usage(c, &x->result)))
        return false;
    return m40_buf_append(&c->out, "data: [DONE]\n\n", 14);
}

/* More to send into c->out, or suspends the connection. false: the stream cannot go on. */
static bool fill_stream(struct exchange *x, bool *is_waiting)
{
    struct completion *c = x->completion;
    struct m40_buf events = {0};
    bool ended;

    *is_waiting = false;
    while (c->n_sent == c->out.n_bytes && !c->is_over) {
        c->n_sent = c->out.n_bytes = 0;
        if (!exchange_take(x, false, &events, &ended)) {
            *is_waiting = true;
            return true;
        }
        if (x->is_gone || !take_events(c, &x->server->model, &events) || (ended && !end_stream(x))) {
            m40_buf_free(&events);
            return false;
        }
    }
    return true;
}

/* MHD_ContentReaderCallback */
static ssize_t read_stream(void *user, uint64_t pos, char *to, size_t capacity)
{
    struct exchange *x = user;
    struct completion *c = x->completion;
    bool is_waiting;
    size_t n;

    (void)pos;
    if (!fill_stream(x, &is_waiting))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (is_waiting)
        return 0;
    n = c->out.n_bytes - c->n_sent;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    n = n < capacity ? n : capacity;
    memcpy(to, c->out.data + c->n_sent, n);
    c->n_sent += n;
    return (ssize_t)n;
}

static enum MHD_Result reply_stream(struct exchange *x)
{
    struct completion *c = x->completion;
    bool ok = true;

    for (uint32_t i = 0; c->call.kind == CALL_CHAT && i < c->call.n; i++)
        ok = ok && send_object(c, answer_role(c, i));
    if (!ok)
        return MHD_NO;
    return reply(x, MHD_HTTP_OK, "text/event-stream", MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, x, NULL));
}

/* ---- endpoints ---- */

static void make_id(struct completion *c)
{
    uint64_t random[2] = {server_now_ns(), (uintptr_t)c};

    if (getrandom(random, sizeof random, 0) != sizeof random)
        random[0] = server_now_ns(); /* it need not be secret, only new */
    snprintf(c->id, sizeof c->id, "%s-%016llx", c->call.kind == CALL_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)(random[0] ^ random[1]));
}

static bool start(struct exchange *x, enum call_kind kind)
{
    const struct server_model *m = &x->server->model;
    struct completion *c = x->completion = calloc(1, sizeof *c);
    bool ok;

    if (!c)
        return fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the request");
    ok = call_parse(&c->call, kind, m, &x->body, &x->failure);
    exchange_drop_body(x);
    if (!ok)
        return false;
    c->created = time(NULL);
    c->model = m->name;
    make_id(c);
    c->choices = calloc(c->call.n, sizeof *c->choices);
    if (!c->choices)
        return fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for %u choices", c->call.n);
    for (uint32_t i = 0; i < c->call.n; i++) {
        c->choices[i].before = c->call.n_ids ? c->call.ids[c->call.n_ids - 1] : 0;
        if (kind == CALL_CHAT && !thinking_begin(&c->choices[i].thinking, &x->server->markers, c->call.ids, c->call.n_ids))
            return fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for %u choices", c->call.n);
    }
    x->wants_tokens = c->call.options.logprobs || (kind == CALL_CHAT && x->server->markers.n > 0);
    ok = exchange_submit(x, c->call.ids, c->call.n_ids, &c->call.options, call_prompt_field(kind), &x->failure);
    call_free(&c->call); /* many may wait */
    return ok;
}

static enum MHD_Result generate(struct exchange *x, enum call_kind kind)
{
    struct m40_buf events = {0};
    bool ended;

    if (!x->completion) {
        if (!start(x, kind))
            return reply_failure(x);
        if (x->completion->call.stream)
            return reply_stream(x);
    }
    if (!exchange_take(x, true, &events, &ended))
        return MHD_YES; /* called again at the end */
    if (x->is_gone) {
        m40_buf_free(&events);
        return MHD_NO;
    }
    if (!take_events(x->completion, &x->server->model, &events))
        fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the answer");
    if (x->error.code != M40LLM_OK)
        fail_of(&x->failure, NULL, &x->error);
    return x->failure.status ? reply_failure(x) : reply_json(x, MHD_HTTP_OK, answer_whole(x->completion, &x->result));
}

enum MHD_Result handle_chat(struct exchange *x)
{
    return generate(x, CALL_CHAT);
}

enum MHD_Result handle_completions(struct exchange *x)
{
    return generate(x, CALL_TEXT);
}

enum MHD_Result handle_generate(struct exchange *x)
{
    return generate(x, CALL_GENERATE);
}
