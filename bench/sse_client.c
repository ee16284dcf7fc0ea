#define _GNU_SOURCE
#include "bench/sse_client.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

bool sse_open(struct sse_client *c, const struct sockaddr *to, socklen_t n_to, const char *path, const char *key, const char *body)
{
    *c = (struct sse_client){.fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (c->fd < 0 || (connect(c->fd, to, n_to) != 0 && errno != EINPROGRESS))
        return false;
    errno = ENOMEM;
    return m40_buf_printf(
        &c->request, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n%s%s%sContent-Length: %zu\r\n\r\n%s",
        path, key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "", strlen(body), body);
}

void sse_close(struct sse_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    m40_buf_free(&c->request);
    m40_buf_free(&c->received);
    m40_buf_free(&c->events);
}

short sse_waits_for(const struct sse_client *c)
{
    return (short)(c->n_sent < c->request.n_bytes ? POLLIN | POLLOUT : POLLIN);
}

static bool fail(struct sse_client *c, const char *why)
{
    c->failure = why;
    return false;
}

/* ---- the answer's frame ---- */

/* A line's end behind n_read, as an offset; 0: it is not there yet. */
static size_t find_end(const struct sse_client *c, const char *mark)
{
    const char *from = c->received.data + c->n_read;
    const char *at = c->received.n_bytes > c->n_read ? memmem(from, c->received.n_bytes - c->n_read, mark, strlen(mark)) : NULL;

    return at ? (size_t)(at - c->received.data) + strlen(mark) : 0;
}

static bool read_head(struct sse_client *c)
{
    size_t end = find_end(c, "\r\n\r\n");

    if (end == 0)
        return false;
    c->received.data[end - 1] = 0;
    c->status = strncmp(c->received.data, "HTTP/1.1 ", 9) == 0 ? atoi(c->received.data + 9) : 0;
    c->n_read = end;
    c->place = c->status == 200 ? SSE_CHUNK_SIZE : SSE_CHUNK;
    c->n_chunk_left = SIZE_MAX; /* an error's body goes on until the connection ends */
    if (c->status == 0 || (c->status == 200 && !strcasestr(c->received.data, "\r\nTransfer-Encoding: chunked")))
        fail(c, "the answer is no stream");
    return true;
}

static bool read_chunk_size(struct sse_client *c)
{
    size_t end = find_end(c, "\r\n");
    char *after;

    if (end == 0)
        return false;
    c->n_chunk_left = strtoul(c->received.data + c->n_read, &after, 16);
    if (after == c->received.data + c->n_read)
        fail(c, "a chunk has no length");
    c->n_read = end;
    c->place = c->n_chunk_left > 0 ? SSE_CHUNK : SSE_CHUNK_END;
    return true;
}

static bool read_chunk(struct sse_client *c)
{
    size_t n = c->received.n_bytes - c->n_read;

    n = n < c->n_chunk_left ? n : c->n_chunk_left;
    if (n == 0)
        return false;
    if (!m40_buf_append(&c->events, c->received.data + c->n_read, n))
        fail(c, "out of memory");
    c->n_read += n;
    if (c->n_chunk_left != SIZE_MAX)
        c->n_chunk_left -= n;
    if (c->n_chunk_left == 0) {
        c->n_chunk_left = 1; /* not the last */
        c->place = SSE_CHUNK_END;
    }
    return true;
}

static bool read_chunk_end(struct sse_client *c)
{
    size_t end = find_end(c, "\r\n");

    if (end == 0)
        return false;
    c->n_read = end;
    c->place = c->n_chunk_left == 0 ? SSE_OVER : SSE_CHUNK_SIZE;
    return true;
}

/* Understands some of what was received; false: more must come. */
static bool understand(struct sse_client *c)
{
    switch (c->place) {
    case SSE_HEAD:
        return read_head(c);
    case SSE_CHUNK_SIZE:
        return read_chunk_size(c);
    case SSE_CHUNK:
        return read_chunk(c);
    case SSE_CHUNK_END:
        return read_chunk_end(c);
    case SSE_OVER:
        return false;
    }
    return false;
}

/* ---- the socket ---- */

static bool send_rest(struct sse_client *c)
{
    while (c->n_sent < c->request.n_bytes) {
        ssize_t n = send(c->fd, c->request.data + c->n_sent, c->request.n_bytes - c->n_sent, MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
            return true;
        if (n < 0)
            return fail(c, strerror(errno));
        c->n_sent += (size_t)n;
    }
    return true;
}

/* Forgets what was understood. */
static void make_room(struct m40_buf *b, size_t *n_done)
{
    if (*n_done == 0)
        return;
    memmove(b->data, b->data + *n_done, b->n_bytes - *n_done);
    b->n_bytes -= *n_done;
    b->data[b->n_bytes] = 0;
    *n_done = 0;
}

bool sse_go_on(struct sse_client *c)
{
    char data[16384];
    ssize_t n;

    if (!send_rest(c))
        return false;
    make_room(&c->events, &c->n_taken);
    while ((n = recv(c->fd, data, sizeof data, 0)) > 0) {
        make_room(&c->received, &c->n_read);
        if (!m40_buf_append(&c->received, data, (size_t)n))
            return fail(c, "out of memory");
        while (!c->failure && understand(c))
            ;
        if (c->failure || c->place == SSE_OVER)
            return false;
    }
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
        return true;
    if (n < 0)
        return fail(c, strerror(errno));
    return c->status != 0 && c->status != 200 ? false : fail(c, "the server hung up in the midst of it");
}

const char *sse_next(struct sse_client *c)
{
    char *from = c->events.data + c->n_taken, *end;

    if (c->status != 200 || c->events.n_bytes == c->n_taken)
        return NULL;
    end = memmem(from, c->events.n_bytes - c->n_taken, "\n\n", 2);
    if (!end)
        return NULL;
    *end = 0;
    c->n_taken = (size_t)(end - c->events.data) + 2;
    return strncmp(from, "data: ", 6) == 0 ? from + 6 : from;
}
