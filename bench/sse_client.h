/* One POST over a socket that does not block, whose answer is a stream of server-sent events. As much of HTTP/1.1 as a load generator needs of a server it knows. */
#ifndef M40_BENCH_SSE_CLIENT_H
#define M40_BENCH_SSE_CLIENT_H

#include "base/str.h"

#include <sys/socket.h>

enum sse_place { SSE_HEAD, SSE_CHUNK_SIZE, SSE_CHUNK, SSE_CHUNK_END, SSE_OVER };

struct sse_client {
    int fd; /* -1: closed */
    struct m40_buf request;
    size_t n_sent;
    struct m40_buf received; /* from n_read on not looked at yet */
    size_t n_read;
    enum sse_place place; /* in the answer */
    size_t n_chunk_left;
    struct m40_buf events; /* from n_taken on not taken yet */
    size_t n_taken;
    int status;          /* HTTP's; 0: none yet. Other than 200: there are no events, and `events` is the body */
    const char *failure; /* why it cannot go on; NULL: it can, or it is over */
};

/* Connects and begins to send; false: errno says why not. body is copied; key may be NULL. Close it in either case. */
bool sse_open(struct sse_client *c, const struct sockaddr *to, socklen_t n_to, const char *path, const char *key, const char *body);

/* What to wait for: poll()'s events. */
short sse_waits_for(const struct sse_client *c);

/* Sends and receives what can be without waiting. false: nothing more will come (see failure). */
bool sse_go_on(struct sse_client *c);

/* The data of the next event, until the next call of any of these; NULL: none is there. */
const char *sse_next(struct sse_client *c);

void sse_close(struct sse_client *c);

#endif
