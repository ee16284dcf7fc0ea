/* Asynchronous work. Operations wait in their stream until a call needs their result; which stream goes on next, and how much is done early, is drawn by the seed. Everything that CUDA does not
 * promise is thus seen not to hold: a copy reads its host memory when it is executed, other streams lag behind or run ahead. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct CUctx_st emu_contexts[EMU_MAX_DEVICES];

static struct CUstream_st *streams; /* those that were created; default streams are in the contexts */
static uint32_t n_captures;

/* ---- queues ---- */

struct emu_op *emu_op_new(enum emu_op_kind kind, size_t arg_bytes)
{
    size_t n_bytes = (sizeof(struct emu_op) + arg_bytes + 15) / 16 * 16;
    struct emu_op *op = aligned_alloc(16, n_bytes);

    if (!op)
        return NULL;
    memset(op, 0, n_bytes);
    op->kind = kind;
    op->arg_bytes = arg_bytes;
    return op;
}

static void op_free(struct emu_op *op)
{
    CUevent event = op->event;

    if (op->suspended)
        emu_launch_abandon(op->suspended);
    if (event && --event->n_refs == 0 && event->destroyed)
        free(event);
    free(op);
}

static void queue_append(struct emu_queue *queue, struct emu_op *op)
{
    if (queue->head)
        queue->last->next = op;
    else
        queue->head = op;
    queue->last = op;
}

static struct emu_op *queue_take(struct emu_queue *queue)
{
    struct emu_op *op = queue->head;

    queue->head = op->next;
    return op;
}

static void queue_put_back(struct emu_queue *queue, struct emu_op *op)
{
    if (!queue->head)
        queue->last = op;
    op->next = queue->head;
    queue->head = op;
}

void emu_queue_free(struct emu_queue *queue)
{
    while (queue->head)
        op_free(queue_take(queue));
}

static struct emu_op *op_copy(const struct emu_op *from)
{
    struct emu_op *op = emu_op_new(from->kind, from->arg_bytes);

    if (!op)
        return NULL;
    memcpy(op, from, sizeof *from + from->arg_bytes);
    op->next = NULL;
    if (op->event)
        op->event->n_refs++;
    return op;
}

static bool queue_copy(const struct emu_queue *from, struct emu_queue *to)
{
    for (const struct emu_op *op = from->head; op; op = op->next) {
        struct emu_op *copy = op_copy(op);

        if (!copy)
            return false;
        queue_append(to, copy);
    }
    return true;
}

/* ---- execution ---- */

static bool can_run(const struct CUstream_st *stream)
{
    const struct emu_op *op = stream->ops.head;

    return op && (op->kind != EMU_OP_WAIT || op->event->done >= op->ticket);
}

static void record(struct emu_op *op)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    op->event->done_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    if (op->event->done < op->ticket)
        op->event->done = op->ticket;
}

/* The stream's first operation. After an error the context's work is dropped unseen, except that events are passed. */
static void run_one(struct CUstream_st *stream)
{
    struct emu_op *op = queue_take(&stream->ops);
    struct CUctx_st *context = stream->context;

    if (op->kind == EMU_OP_RECORD) {
        record(op);
    } else if (!context->error) {
        switch (op->kind) {
        case EMU_OP_COPY:
            memmove(op->to, op->from, op->n);
            break;
        case EMU_OP_SET8:
            memset(op->to, (int)op->value, op->n);
            break;
        case EMU_OP_SET32:
            for (size_t i = 0; i < op->n; i++)
                ((uint32_t *)op->to)[i] = op->value;
            break;
        case EMU_OP_LAUNCH:
            context->error = emu_launch_run(&op->launch, op->args, &op->suspended);
            if (op->suspended) {
                queue_put_back(&stream->ops, op);
                return;
            }
            break;
        default: /* a wait that is over */
            break;
        }
    }
    op_free(op);
}

/* A stream that can go on, each with the same chance; NULL: none. */
static struct CUstream_st *any_runnable(void)
{
    struct CUstream_st *chosen = NULL;
    uint32_t n = 0;

    for (struct CUstream_st *s = streams; s; s = s->next)
        if (can_run(s) && emu_chance(++n))
            chosen = s;
    for (int i = 0; i < emu_settings.n_devices; i++)
        if (can_run(&emu_contexts[i].default_stream) && emu_chance(++n))
            chosen = &emu_contexts[i].default_stream;
    return chosen;
}

static void show_memory(bool show)
{
    for (int i = 0; i < emu_settings.n_devices; i++)
        (show ? emu_memory_show : emu_memory_hide)(&emu_contexts[i].arena);
}

void emu_progress(void)
{
    struct CUstream_st *stream;
    uint32_t n;

    if (!emu_chance(8))
        return;
    show_memory(true);
    for (n = 1 + emu_random_below(8); n > 0 && (stream = any_runnable()) != NULL; n--)
        run_one(stream);
    show_memory(false);
}

CUresult emu_drain(CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    bool idle = stream && !stream->ops.head;

    if (idle)
        return stream->context->error;
    show_memory(true);
    while (!stream || stream->ops.head) {
        /* Half of the time others get a turn although this stream could go on. */
        struct CUstream_st *next = stream && can_run(stream) && emu_chance(2) ? stream : any_runnable();

        if (!next)
            break;
        run_one(next);
    }
    show_memory(false);
    for (int i = 0; i < emu_settings.n_devices; i++)
        if (emu_contexts[i].error && (!stream || stream->context == &emu_contexts[i]))
            result = emu_contexts[i].error;
    return result;
}

/* ---- streams ---- */

CUresult emu_stream_create(CUstream *out, struct CUctx_st *context, bool blocking)
{
    CUstream s = calloc(1, sizeof *s);

    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->context = context;
    s->blocking = blocking;
    s->next = streams;
    streams = s;
    *out = s;
    return CUDA_SUCCESS;
}

bool emu_stream_valid(CUstream stream)
{
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (s == stream)
            return true;
    for (int i = 0; i < EMU_MAX_DEVICES; i++)
        if (stream == &emu_contexts[i].default_stream)
            return true;
    return false;
}

static void stream_free(CUstream stream)
{
    struct CUstream_st **at = &streams;

    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    if (stream->capture && stream->capture_origin) {
        emu_queue_free(&stream->capture->ops);
        free(stream->capture);
        n_captures--;
    }
    emu_queue_free(&stream->ops);
    free(stream);
}

CUresult emu_stream_destroy(CUstream stream)
{
    CUresult result = emu_drain(stream);

    stream_free(stream);
    return result;
}

void emu_streams_drop(struct CUctx_st *context)
{
    struct CUstream_st *s = streams;

    while (s) {
        struct CUstream_st *next = s->next;

        if (s->context == context)
            stream_free(s);
        s = next;
    }
    emu_queue_free(&context->default_stream.ops);
}

/* The default stream and the blocking ones wait for each other. */
static CUresult order_with_default(CUstream stream)
{
    struct CUctx_st *context = stream->context;
    CUresult result = CUDA_SUCCESS;

    if (stream != &context->default_stream)
        return stream->blocking ? emu_drain(&context->default_stream) : CUDA_SUCCESS;
    for (struct CUstream_st *s = streams; s && !result; s = s->next)
        if (s->blocking && s->context == context)
            result = emu_drain(s);
    return result;
}

CUresult emu_stream_push(CUstream stream, struct emu_op *op)
{
    CUresult result;

    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (stream->capture) {
        queue_append(&stream->capture->ops, op);
        return CUDA_SUCCESS;
    }
    result = order_with_default(stream);
    queue_append(&stream->ops, op);
    emu_progress();
    return result;
}

/* ---- events ---- */

CUresult emu_event_create(CUevent *out, bool timed)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->timed = timed;
    return CUDA_SUCCESS;
}

void emu_event_destroy(CUevent event)
{
    event->destroyed = true;
    if (event->n_refs == 0)
        free(event);
}

static CUresult push_event_op(CUstream stream, CUevent event, enum emu_op_kind kind)
{
    struct emu_op *op = emu_op_new(kind, 0);

    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    op->event = event;
    op->ticket = event->recorded;
    event->n_refs++;
    return emu_stream_push(stream, op);
}

CUresult emu_event_record(CUevent event, CUstream stream)
{
    event->captured = stream->capture;
    if (stream->capture) /* an edge of the graph; the linear order of capture already keeps it */
        return CUDA_SUCCESS;
    event->recorded++;
    return push_event_op(stream, event, EMU_OP_RECORD);
}

CUresult emu_event_wait(CUstream stream, CUevent event)
{
    if (event->captured) {
        if (stream->capture && stream->capture != event->captured)
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        stream->capture = event->captured; /* the stream joins */
        return CUDA_SUCCESS;
    }
    if (stream->capture)
        return emu_complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a captured stream cannot wait for an event from outside");
    if (event->recorded == 0) /* never recorded: nothing to wait for */
        return CUDA_SUCCESS;
    return push_event_op(stream, event, EMU_OP_WAIT);
}

CUresult emu_event_drain(CUevent event)
{
    struct CUstream_st *next;

    if (event->done == event->recorded)
        return CUDA_SUCCESS;
    show_memory(true);
    while (event->done < event->recorded && (next = any_runnable()) != NULL)
        run_one(next);
    show_memory(false);
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

bool emu_capturing(void)
{
    return n_captures > 0;
}

CUresult emu_capture_begin(CUstream stream)
{
    if (stream->capture || stream == &stream->context->default_stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    stream->capture = calloc(1, sizeof *stream->capture);
    if (!stream->capture)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stream->capture_origin = true;
    n_captures++;
    return CUDA_SUCCESS;
}

CUresult emu_capture_end(CUstream stream, CUgraph *out)
{
    CUgraph graph = stream->capture;

    *out = NULL;
    if (!graph || !stream->capture_origin)
        return CUDA_ERROR_INVALID_VALUE;
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (s->capture == graph)
            s->capture = NULL;
    stream->capture_origin = false;
    n_captures--;
    if (graph->broken) {
        emu_queue_free(&graph->ops);
        free(graph);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    *out = graph;
    return CUDA_SUCCESS;
}

CUresult emu_graph_instantiate(CUgraphExec *out, CUgraph graph)
{
    CUgraphExec exec = calloc(1, sizeof *exec);

    *out = NULL;
    if (!exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!queue_copy(&graph->ops, &exec->ops)) {
        emu_queue_free(&exec->ops);
        free(exec);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = exec;
    return CUDA_SUCCESS;
}

CUresult emu_graph_launch(CUgraphExec exec, CUstream stream)
{
    CUresult result = CUDA_SUCCESS;

    if (stream->capture)
        return CUDA_ERROR_NOT_SUPPORTED;
    for (const struct emu_op *op = exec->ops.head; op && !result; op = op->next)
        result = emu_stream_push(stream, op_copy(op));
    return result;
}
