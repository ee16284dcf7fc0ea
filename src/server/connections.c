/* Connections: one whose client sends a request's head or body a byte at a time looks alive to libmicrohttpd, and would hold one of the few for ever. So each has
 * a time by which what is awaited of it must be there. And where a client sends the end of its side together with the last of half a request, libmicrohttpd may
 * not hear of that end: nothing more can come, and it need not be awaited. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "server_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    PATIENCE = 2,   /* times options.idle_s, for a head or a body as a whole */
    END_LOOKS = 10, /* so often must a client's end be seen: what it sent before may be on its way through MHD */
};

struct connection {
    int fd;
    uint64_t since_ns;    /* its client is awaited since; 0: it waits for us */
    unsigned n_ends_seen; /* meanwhile, one look after the other */
    struct connection *next, **link;
};

static void unlink_connection(struct connection *c)
{
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
}

void connections_on_change(void *user, struct MHD_Connection *connection, void **slot, enum MHD_ConnectionNotificationCode code)
{
    struct server *s = user;
    struct connection *c = *slot;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        c = *slot = info ? malloc(sizeof *c) : NULL;
        if (!c) /* it goes unwatched */
            return;
        *c = (struct connection){.fd = info->connect_fd, .since_ns = server_now_ns()};
        pthread_mutex_lock(&s->lock);
        c->next = s->connections;
        c->link = &s->connections;
        if (c->next)
            c->next->link = &c->next;
        s->connections = c;
        pthread_mutex_unlock(&s->lock);
    } else if (c) {
        pthread_mutex_lock(&s->lock);
        unlink_connection(c);
        pthread_mutex_unlock(&s->lock);
        free(c);
        *slot = NULL;
    }
}

void connection_await(struct exchange *x, bool client)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *c = info ? info->socket_context : NULL;

    if (!c)
        return;
    pthread_mutex_lock(&x->server->lock);
    c->since_ns = client ? server_now_ns() : 0;
    c->n_ends_seen = 0;
    pthread_mutex_unlock(&x->server->lock);
}

/* Its client will send no more, and all that it did send was read. */
static bool is_at_end(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int n_unread = 0;

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) && ioctl(fd, FIONREAD, &n_unread) == 0 && n_unread == 0;
}

static bool is_hopeless(struct connection *c, uint64_t now, uint64_t patience_ns)
{
    if (c->since_ns == 0)
        return false;
    c->n_ends_seen = is_at_end(c->fd) ? c->n_ends_seen + 1 : 0;
    return c->n_ends_seen >= END_LOOKS || (patience_ns && now > c->since_ns + patience_ns);
}

void connections_watch(struct server *s)
{
    uint64_t now = server_now_ns(), patience = (uint64_t)s->options.idle_s * PATIENCE * 1000000000u;

    pthread_mutex_lock(&s->lock);
    for (struct connection *c = s->connections; c; c = c->next)
        if (is_hopeless(c, now, patience))
            shutdown(c->fd, SHUT_RDWR); /* MHD closes a socket after connections_on_change, which needs this lock: it is still ours */
    pthread_mutex_unlock(&s->lock);
}
