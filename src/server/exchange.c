/* Exchanges: between a connection, whose thread must not wait, and the engine, whose thread must not be kept. The engine's events are copied into a buffer under
 * the exchange's lock; the connection is suspended while the buffer is empty. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "server_internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t server_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Fit for a log: a client chose it. */
static void copy_printable(char *to, size_t capacity, const char *from)
{
    size_t n = 0;

    for (; from[n] && n + 1 < capacity; n++)
        to[n] = from[n] > 0x20 && from[n] < 0x7f ? from[n] : '?';
    to[n] = 0;
}

struct exchange *exchange_open(struct server *s, struct MHD_Connection *connection, const char *method, const char *path)
{
    struct exchange *x = calloc(1, sizeof *x);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!x || !info || pthread_mutex_init(&x->lock, NULL) != 0) {
        free(x);
        return NULL;
    }
    x->server = s;
    x->connection = connection;
    x->fd = info->connect_fd;
    x->n_holders = 1;
    x->number = ++s->n_exchanges;
    x->start_ns = server_now_ns();
    copy_printable(x->method, sizeof x->method, method);
    copy_printable(x->path, sizeof x->path, path);
    pthread_mutex_lock(&s->lock);
    s->n_open++;
    pthread_mutex_unlock(&s->lock);
    return x;
}

void exchange_drop_body(struct exchange *x)
{
    x->server->n_body_bytes -= x->body.n_bytes;
    m40_buf_free(&x->body);
}

static void let_go(struct exchange *x)
{
    if (--x->n_holders > 0)
        return;
    m40_buf_free(&x->events);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static void write_log(struct exchange *x, const m40llm_result *r)
{
    char time_text[32];
    time_t now = time(NULL);
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(stderr, "m40llm: %s #%llu %s %s %u prompt=%u cached=%u answer=%u queue=%.1fms prefill=%.1fms decode=%.1fms total=%.1fms%s\n", time_text,
            x->number, x->method, x->path, x->status, r->n_prompt, r->n_cached, r->n_generated, (double)r->queue_ns * 1e-6,
            (double)r->prefill_ns * 1e-6, (double)r->decode_ns * 1e-6, (double)(server_now_ns() - x->start_ns) * 1e-6, x->is_gone ? " gone" : "");
}

void exchange_close(struct exchange *x)
{
    struct server *s = x->server;
    m40llm_result result;
    bool has_ended;

    pthread_mutex_lock(&x->lock);
    x->is_closed = true;
    has_ended = x->has_ended;
    result = x->result;
    pthread_mutex_unlock(&x->lock);
    if (x->id && !has_ended) {
        x->is_gone = true;
        m40llm_forget(x->engine, x->id);
    }
    completion_free(&x->completion);
    embeddings_free(&x->embeddings);
    exchange_drop_body(x);
    pthread_mutex_lock(&s->lock);
    if (x->link) {
        *x->link = x->next;
        if (x->next)
            x->next->link = x->link;
    }
    s->n_open--;
    pthread_mutex_unlock(&s->lock);
    s->n_by_class[x->status / 100 < 6 ? x->status / 100 : 0]++;
    write_log(x, &result);
    let_go(x);
}

static void append_event(struct exchange *x, const m40llm_event *e)
{
    struct event_record record = {e->type, e->choice, e->token, e->logprob, e->n_top, e->finish, e->n_text};
    size_t n_top_bytes = e->n_top * sizeof *e->top;
    const void *text = e->text;

    if (e->type == M40LLM_EVENT_TOKEN && e->n_text == 0 && !x->wants_tokens)
        return;
    if (e->type == M40LLM_EVENT_EMBEDDING) {
        text = e->embedding;
        record.n_text = e->n_embedding * sizeof *e->embedding;
    }
    if (!m40_buf_reserve(&x->events, sizeof record + n_top_bytes + record.n_text)) {
        x->no_memory = true;
        return;
    }
    m40_buf_append(&x->events, &record, sizeof record);
    if (n_top_bytes)
        m40_buf_append(&x->events, e->top, n_top_bytes);
    if (record.n_text)
        m40_buf_append(&x->events, text, record.n_text);
}

/* On the engine's thread. */
static void exchange_on_event(void *user, const m40llm_event *e)
{
    struct exchange *x = user;
    m40llm_engine *engine = x->engine;
    bool is_end = e->type == M40LLM_EVENT_END, cancel;

    if (e->type == M40LLM_EVENT_PREFILL)
        return;
    pthread_mutex_lock(&x->lock);
    if (!is_end && !x->is_closed && !x->no_memory)
        append_event(x, e);
    cancel = x->no_memory && !is_end;
    if (is_end) {
        x->has_ended = true;
        x->result = *e->result;
        x->error.code = x->no_memory ? M40LLM_NO_MEMORY : e->result->finish == M40LLM_FINISH_CANCELLED ? M40LLM_CANCELLED : e->status;
        snprintf(x->error.text, sizeof x->error.text, "%s",
                 x->no_memory ? "out of memory for the answer"
                 : e->error   ? e->error
                              : m40llm_status_text(x->error.code));
    }
    if (x->is_suspended && !x->is_closed && (is_end || !x->wakes_at_end)) {
        x->is_suspended = false;
        MHD_resume_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    if (cancel)
        m40llm_cancel(engine, e->id);
    if (!is_end)
        return;
    m40llm_forget(engine, e->id);
    let_go(x);
}

/* The engine holds the exchange from here on. */
static void begin_submit(struct exchange *x)
{
    x->engine = x->server->model.engine;
    x->n_holders++;
}

static bool end_submit(struct exchange *x, m40llm_status status, const char *param, const m40llm_error *err, struct failure *f)
{
    struct server *s = x->server;

    if (status != M40LLM_OK) {
        x->n_holders--;
        return fail_of(f, param, err);
    }
    pthread_mutex_lock(&s->lock);
    x->next = s->active;
    x->link = &s->active;
    if (x->next)
        x->next->link = &x->next;
    s->active = x;
    pthread_mutex_unlock(&s->lock);
    return true;
}

bool exchange_submit(struct exchange *x, const int32_t *ids, size_t n_ids, m40llm_request_options *options, const char *prompt_param,
                     struct failure *f)
{
    m40llm_error err;

    begin_submit(x);
    options->on_event = exchange_on_event;
    options->user = x;
    return end_submit(x, m40llm_submit(x->engine, ids, n_ids, options, &x->id, &err), prompt_param, &err, f);
}

bool exchange_submit_embeddings(struct exchange *x, const int32_t *ids, const size_t *n_ids, size_t n_texts, m40llm_embed_options *options,
                                const char *param, struct failure *f)
{
    m40llm_error err;

    begin_submit(x);
    options->on_event = exchange_on_event;
    options->user = x;
    return end_submit(x, m40llm_submit_embeddings(x->engine, ids, n_ids, n_texts, options, &x->id, &err), param, &err, f);
}

bool exchange_take(struct exchange *x, bool at_end, struct m40_buf *out, bool *ended)
{
    bool is_there;

    pthread_mutex_lock(&x->lock);
    *ended = x->has_ended;
    is_there = x->is_gone || x->has_ended || (!at_end && x->events.n_bytes > 0);
    if (is_there) {
        *out = x->events;
        x->events = (struct m40_buf){0};
    } else {
        x->wakes_at_end = at_end;
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    return is_there;
}

/* Cancels the request, and has its connection closed. */
static void hang_up(struct exchange *x)
{
    m40llm_cancel(x->engine, x->id);
    pthread_mutex_lock(&x->lock);
    x->is_gone = x->is_gone || !x->has_ended; /* one that has all, and leaves, is no loss */
    if (x->is_suspended) {
        x->is_suspended = false;
        MHD_resume_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
}

void exchanges_watch(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    for (struct exchange *x = s->active; x; x = x->next) {
        struct pollfd p = {.fd = x->fd, .events = POLLRDHUP};

        /* MHD closes a socket after exchange_close, which needs this lock: it is still ours. */
        if (!x->is_gone && poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)))
            hang_up(x);
    }
    pthread_mutex_unlock(&s->lock);
}

void exchanges_cancel(struct server *s, bool at_once)
{
    pthread_mutex_lock(&s->lock);
    for (struct exchange *x = s->active; x; x = x->next)
        if (at_once)
            hang_up(x);
        else
            m40llm_cancel(x->engine, x->id);
    pthread_mutex_unlock(&s->lock);
}
