/* The server's start and end, and what every request passes: limits, key, routing. */
#define _GNU_SOURCE
#include "server_internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    N_THREADS = 4,        /* a long template or prompt keeps one busy */
    HEADER_BYTES = 32768, /* of a request's first line and headers, and MHD's buffers for the connection */
    SEND_BYTES = 65536,   /* that the kernel holds for a client that does not read; by itself it would take megabytes */
    WATCH_MS = 100,
    END_MS = 5000,       /* for cancelled answers to leave */
    BODIES_FACTOR = 32,  /* so many times the limit of one are all bodies that are held together */
    DISCARD_FACTOR = 64, /* so many times the limit of a body is read before the connection is cut */
    GPU_MS = 5000,       /* between two looks at the card */
};

static const struct route routes[] = {
    {.method = "GET", .path = "/", .handle = handle_page, .without_model = true, .without_key = true},
    {.method = "GET", .path = "/health", .handle = handle_health, .without_model = true, .without_key = true},
    {.method = "GET", .path = "/v1/models", .handle = handle_models},
    {.method = "GET", .path = "/props", .handle = handle_props},
    {.method = "POST", .path = "/v1/chat/completions", .handle = handle_chat},
    {.method = "POST", .path = "/v1/completions", .handle = handle_completions},
    {.method = "POST", .path = "/v1/embeddings", .handle = handle_embeddings},
    {.method = "POST", .path = "/generate", .handle = handle_generate},
    {.method = "POST", .path = "/tokenize", .handle = handle_tokenize},
    {.method = "POST", .path = "/detokenize", .handle = handle_detokenize},
    {.method = "GET", .path = "/metrics", .handle = handle_metrics},
};

enum { N_ROUTES = sizeof routes / sizeof *routes };

/* ---- one request ---- */

static bool has_method(const struct route *r, const char *method)
{
    return strcmp(r->method, method) == 0 || (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void find_route(struct exchange *x, const char *method, const char *path)
{
    x->route = cors_preflight(x);
    for (int i = 0; i < N_ROUTES && !x->route; i++) {
        if (strcmp(routes[i].path, path) != 0)
            continue;
        if (has_method(&routes[i], method)) {
            x->route = &routes[i];
            return;
        }
        x->failure.allow = routes[i].method;
    }
}

static void check_route(struct exchange *x, const char *path)
{
    if (x->route)
        return;
    if (x->failure.allow)
        fail(&x->failure, MHD_HTTP_METHOD_NOT_ALLOWED, NULL, "method_not_allowed", "%s is for %s", path, x->failure.allow);
    else
        fail(&x->failure, MHD_HTTP_NOT_FOUND, NULL, "not_found", "there is no %s", x->path);
}

/* In a time that depends on the length of what was sent alone. */
static bool equals_key(const char *sent, const char *key)
{
    size_t n_sent = strlen(sent), n_key = strlen(key);
    volatile unsigned char difference = n_sent != n_key;

    for (size_t i = 0; i < n_sent; i++)
        difference |= (unsigned char)(sent[i] ^ key[i % n_key]);
    return difference == 0;
}

static void check_key(struct exchange *x)
{
    const char *key = x->server->options.api_key;
    const char *sent = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);

    if (!key || !*key || (x->route && x->route->without_key))
        return;
    if (!sent || strncasecmp(sent, "Bearer ", 7) != 0)
        fail(&x->failure, MHD_HTTP_UNAUTHORIZED, NULL, "invalid_api_key", "this server wants a key: send 'Authorization: Bearer KEY'");
    else if (!equals_key(sent + 7, key))
        fail(&x->failure, MHD_HTTP_UNAUTHORIZED, NULL, "invalid_api_key", "wrong API key");
}

/* Only application/json: a page of another origin can send anything else without being asked. */
static void check_content_type(struct exchange *x)
{
    const char *type = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    size_t n = type ? strcspn(type, "; \t") : 0;

    if (strcmp(x->method, "POST") == 0 && !(n == 16 && strncasecmp(type, "application/json", n) == 0))
        fail(&x->failure, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, NULL, NULL, "send a JSON object with 'Content-Type: application/json'");
}

static void check_state(struct exchange *x)
{
    enum server_state state = x->server->state;

    if (state == SERVER_READY || (x->route && x->route->without_model))
        return;
    if (x->failure.status == 0)
        x->failure.retry_s = 5;
    fail(&x->failure, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, NULL,
         state == SERVER_STARTING ? "the model is still being loaded" : "the server is shutting down");
}

static void refuse_body(struct exchange *x)
{
    fail(&x->failure, MHD_HTTP_CONTENT_TOO_LARGE, NULL, "body_too_large", "the request's body is longer than %llu bytes",
         (unsigned long long)x->server->options.max_body_bytes);
    exchange_drop_body(x);
}

/* The headers are there. */
static enum MHD_Result begin(struct server *s, struct MHD_Connection *connection, const char *method, const char *path, void **slot)
{
    struct exchange *x = exchange_open(s, connection, method, path);
    const char *length, *expect;

    *slot = x;
    if (!x)
        return MHD_NO;
    connection_await(x, true); /* its body */
    find_route(x, method, path);
    check_host(x); /* before all: who was led here learns nothing */
    check_key(x);  /* without it nobody learns anything else */
    check_route(x, path);
    check_content_type(x);
    check_state(x);
    length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (length && strtoull(length, NULL, 10) > s->options.max_body_bytes)
        refuse_body(x);
    /* A client that asked before it sends its body need not send it; any other might not read the answer before it has. */
    expect = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);
    return expect && x->failure.status ? reply_failure(x) : MHD_YES;
}

static enum MHD_Result take_body(struct exchange *x, const char *data, size_t n_bytes)
{
    uint64_t limit = x->server->options.max_body_bytes;

    x->n_received += n_bytes;
    if (x->n_received > limit)
        refuse_body(x);
    if (x->n_received / DISCARD_FACTOR > limit)
        return MHD_NO;
    if (x->failure.status)
        return MHD_YES;
    if (x->server->n_body_bytes + n_bytes > limit * BODIES_FACTOR) {
        x->failure.retry_s = 1;
        fail(&x->failure, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, NULL, "too many large requests at once");
        exchange_drop_body(x);
    } else if (m40_buf_append(&x->body, data, n_bytes)) {
        x->server->n_body_bytes += n_bytes;
    } else {
        fail(&x->failure, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "out of memory for the request");
    }
    return MHD_YES;
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
                                  const char *data, size_t *n_data, void **slot)
{
    struct exchange *x = *slot;

    (void)version;
    if (!x)
        return begin(user, connection, method, url, slot);
    if (*n_data > 0) {
        size_t n = *n_data;

        *n_data = 0;
        return take_body(x, data, n);
    }
    connection_await(x, false);
    return x->failure.status ? reply_failure(x) : x->route->handle(x);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **slot, enum MHD_RequestTerminationCode code)
{
    (void)user;
    (void)connection;
    (void)code;
    if (*slot) {
        connection_await(*slot, true); /* its next head */
        exchange_close(*slot);
    }
    *slot = NULL;
}

/* ---- start ---- */

static bool make_url(struct server *s)
{
    struct sockaddr_storage at = {0};
    socklen_t n = sizeof at;
    char host[INET6_ADDRSTRLEN + 20], port[8];

    if (getsockname(s->listen_fd, (struct sockaddr *)&at, &n) != 0 ||
        getnameinfo((struct sockaddr *)&at, n, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return false;
    s->is_loopback = access_is_loopback((struct sockaddr *)&at);
    snprintf(s->url, sizeof s->url, at.ss_family == AF_INET6 ? "%s://[%s]:%s" : "%s://%s:%s", s->options.tls_cert ? "https" : "http", host, port);
    return true;
}

/* -1: errno says why. */
static int listen_at(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1, send_bytes = SEND_BYTES, reason;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes); /* connections have it from here */
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 256) == 0)
        return fd;
    reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static bool open_socket(struct server *s, char *why, size_t why_bytes)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char port[8];
    int rc;

    snprintf(port, sizeof port, "%u", s->options.port);
    rc = getaddrinfo(s->options.host, port, &hints, &found);
    for (struct addrinfo *a = found; rc == 0 && a && s->listen_fd < 0; a = a->ai_next)
        s->listen_fd = listen_at(a);
    if (s->listen_fd < 0)
        snprintf(why, why_bytes, "cannot listen at %s, port %s: %s", s->options.host, port, rc == 0 ? strerror(errno) : gai_strerror(rc));
    if (found)
        freeaddrinfo(found);
    return s->listen_fd >= 0;
}

/* MHD's reason for not starting: its first. Later ones are of clients, who must not fill the log. */
static void on_mhd_log(void *user, const char *format, va_list args)
{
    struct server *s = user;

    if (s->mhd_has_started)
        return;
    pthread_mutex_lock(&s->lock);
    if (!s->mhd_says[0])
        vsnprintf(s->mhd_says, sizeof s->mhd_says, format, args);
    s->mhd_says[strcspn(s->mhd_says, "\n")] = 0;
    pthread_mutex_unlock(&s->lock);
}

static bool start_daemon(struct server *s, char *why, size_t why_bytes)
{
    /* poll, not epoll: with epoll libmicrohttpd 0.9.75 does not hear of a client's end that comes with its data, and now and then leaves all 128 connections of a
     * thread unread until they time out (make soak, on a busy machine). */
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem more[TLS_MAX_OPTIONS + 1];
    /* MHD wants one for each thread. */
    unsigned n_connections = s->options.max_connections < N_THREADS ? N_THREADS : s->options.max_connections;

    more[tls_options(&s->options, more)] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    flags |= s->options.tls_cert ? MHD_USE_TLS : 0;
    s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, s, MHD_OPTION_LISTEN_SOCKET,
                                 s->listen_fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)N_THREADS, MHD_OPTION_CONNECTION_LIMIT, n_connections,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->options.idle_s,
                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, connections_on_change, s,
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    s->mhd_has_started = true;
    if (!s->daemon)
        snprintf(why, why_bytes, "cannot start the HTTP server%s%s", s->mhd_says[0] ? ": " : "", s->mhd_says);
    return s->daemon != NULL;
}

bool server_open(struct server **out, const struct server_options *options, char *why, size_t why_bytes)
{
    struct server *s = calloc(1, sizeof *s);

    *out = NULL;
    if (!s || pthread_mutex_init(&s->lock, NULL) != 0) {
        snprintf(why, why_bytes, "out of memory");
        free(s);
        return false;
    }
    s->options = *options;
    s->listen_fd = -1;
    s->start_time = time(NULL);
    json_object_seed(0); /* before there are threads */
    if (!access_check(options, why, why_bytes) || !tls_check(options, why, why_bytes) || !open_socket(s, why, why_bytes))
        goto fail;
    if (!make_url(s)) {
        snprintf(why, why_bytes, "cannot tell where the server listens");
        goto fail;
    }
    if (!start_daemon(s, why, why_bytes))
        goto fail;
    if (!s->is_loopback && !(options->api_key && *options->api_key))
        fprintf(stderr, "m40llm: warning: %s is open to the network, and anybody may use it: give it an --api-key-file\n", s->url);
    *out = s;
    return true;
fail:
    server_close(&s);
    return false;
}

const char *server_url(const struct server *s)
{
    return s->url;
}

void server_set_model(struct server *s, const struct server_model *model)
{
    const char *pci = model->device_info.pci;

    s->model = *model;
    thinking_markers_init(&s->markers, model->tokenizer);
    if (*pci)
        s->gpu = nvml_watch_open(s->options.nvml_library, &s->options.logger, &pci, 1, GPU_MS);
    s->state = SERVER_READY;
}

/* ---- end ---- */

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&t, NULL); /* a signal ends it early, and that is as well */
}

/* Connections that have nothing to answer do not count. */
static bool is_busy(struct server *s)
{
    bool busy;

    pthread_mutex_lock(&s->lock);
    busy = s->n_open > 0;
    pthread_mutex_unlock(&s->lock);
    return busy;
}

/* The socket is closed with the server: MHD's threads may be about to accept. */
static void stop_accepting(struct server *s)
{
    if (s->daemon)
        MHD_quiesce_daemon(s->daemon);
    if (s->listen_fd >= 0)
        shutdown(s->listen_fd, SHUT_RDWR);
}

static void wait_until_idle(struct server *s, uint64_t ms)
{
    uint64_t end = server_now_ns() + ms * 1000000;

    while (is_busy(s) && server_now_ns() < end) {
        exchanges_watch(s);
        connections_watch(s);
        sleep_ms(WATCH_MS / 4);
    }
}

void server_run(struct server *s, bool (*stop)(void))
{
    while (!stop()) {
        exchanges_watch(s);
        connections_watch(s);
        sleep_ms(WATCH_MS);
    }
    s->state = SERVER_DRAINING;
    stop_accepting(s);
    wait_until_idle(s, s->options.drain_s * (uint64_t)1000);
    exchanges_cancel(s, false);
    wait_until_idle(s, END_MS);
    exchanges_cancel(s, true); /* MHD must not be stopped with suspended connections */
    wait_until_idle(s, END_MS);
}

void server_close(struct server **out)
{
    struct server *s = *out;

    if (!s)
        return;
    stop_accepting(s);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    nvml_watch_close(&s->gpu);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *out = NULL;
}
