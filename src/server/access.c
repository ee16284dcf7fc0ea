/* Who may ask: the names that the server answers to, and the web pages of other origins that may read its answers. */
#define _GNU_SOURCE /* memmem */
#include "server_internal.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { PREFLIGHT_S = 600 }; /* a browser need not ask again for so long */

static const char *header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* Neither names of hosts nor origins know upper case. */
static bool list_has(const struct server_list *list, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < list->n; i++)
        for (const char *at = list->items[i];; at++) {
            size_t n = strcspn(at, ",");

            if (n == n_bytes && strncasecmp(at, text, n) == 0)
                return true;
            at += n;
            if (!*at)
                break;
        }
    return false;
}

/* ---- Host ---- */

bool access_is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* "name:80" without the port, "[::1]" without the brackets. false: it is no such thing. */
static bool split_host(const char *host, struct m40_str *name, bool *in_brackets)
{
    const char *rest;

    *in_brackets = *host == '[';
    name->data = host + *in_brackets;
    name->n_bytes = strcspn(name->data, *in_brackets ? "]" : ":");
    rest = name->data + name->n_bytes;
    if (*in_brackets && *rest++ != ']')
        return false;
    return name->n_bytes > 0 && (!*rest || (*rest == ':' && strspn(rest + 1, "0123456789") == strlen(rest + 1)));
}

/* Is it an address? A page that had its own name resolved anew sends that name, never one. */
static bool is_address(struct m40_str name, bool in_brackets, bool *loopback)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    char text[INET6_ADDRSTRLEN];

    if (name.n_bytes >= sizeof text)
        return false;
    memcpy(text, name.data, name.n_bytes);
    text[name.n_bytes] = 0;
    if (inet_pton(in_brackets ? AF_INET6 : AF_INET, text, in_brackets ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
        return false;
    *loopback = access_is_loopback(in_brackets ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4);
    return true;
}

static bool answers_to(const struct server *s, const char *host)
{
    const struct server_options *o = &s->options;
    bool in_brackets, loopback;
    struct m40_str name;

    if (!split_host(host, &name, &in_brackets))
        return false;
    if (is_address(name, in_brackets, &loopback))
        return loopback || !s->is_loopback;
    if (in_brackets)
        return false;
    if (name.n_bytes == 9 && strncasecmp(name.data, "localhost", 9) == 0)
        return true;
    return (name.n_bytes == strlen(o->host) && strncasecmp(name.data, o->host, name.n_bytes) == 0) ||
           list_has(&o->allow_hosts, name.data, name.n_bytes);
}

void check_host(struct exchange *x)
{
    const struct server_list *allowed = &x->server->options.allow_hosts;
    const char *host = header(x, MHD_HTTP_HEADER_HOST); /* NULL: HTTP/1.0, which no browser speaks */

    if (!host || (!x->server->is_loopback && allowed->n == 0) || list_has(allowed, "*", 1))
        return;
    if (!answers_to(x->server, host))
        fail(&x->failure, MHD_HTTP_FORBIDDEN, NULL, "host_not_allowed", "this server does not answer to the name '%.100s' (--allow-host adds names)",
             host);
}

/* ---- CORS ---- */

/* scheme://name[:port], as browsers send it. */
static bool is_origin(const char *text, size_t n_bytes)
{
    const char *name = memmem(text, n_bytes, "://", 3);

    if (n_bytes == 1 && *text == '*')
        return true;
    if (!name || name == text || name + 3 == text + n_bytes)
        return false;
    for (const char *c = text; c < text + n_bytes; c++)
        if (*c <= ' ' || *c >= 0x7f || (c >= name + 3 && strchr("/?#@*", *c)))
            return false;
    return true;
}

bool access_check(const struct server_options *o, char *why, size_t why_bytes)
{
    for (size_t i = 0; i < o->cors.n; i++)
        for (const char *at = o->cors.items[i];; at++) {
            size_t n = strcspn(at, ",");

            if (!is_origin(at, n)) {
                snprintf(why, why_bytes, "--cors %.100s: an origin is * or scheme://name[:port], without a path", o->cors.items[i]);
                return false;
            }
            at += n;
            if (!*at)
                break;
        }
    return true;
}

/* What Access-Control-Allow-Origin says; NULL: the page may not read answers, or it is no page that asks. */
static const char *allowed_origin(const struct exchange *x)
{
    const struct server_list *list = &x->server->options.cors;
    const char *origin = header(x, MHD_HTTP_HEADER_ORIGIN);

    if (!origin)
        return NULL;
    return list_has(list, "*", 1) ? "*" : list_has(list, origin, strlen(origin)) ? origin : NULL;
}

void cors_add_headers(const struct exchange *x, struct MHD_Response *response)
{
    const char *origin = allowed_origin(x);

    if (x->server->options.cors.n)
        MHD_add_response_header(response, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ORIGIN);
    if (!origin)
        return;
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_EXPOSE_HEADERS, "X-Request-Id, Retry-After");
}

/* Clients in browsers send headers of their own, of which '*' would not cover Authorization: whatever is asked for is allowed. */
static const char *headers_to_allow(const struct exchange *x)
{
    static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_!#$%&'*+.^`|~, ";
    const char *asked = header(x, MHD_HTTP_HEADER_ACCESS_CONTROL_REQUEST_HEADERS);

    return asked && asked[strspn(asked, token)] == 0 ? asked : "Authorization, Content-Type";
}

/* OPTIONS, before a page's request. Browsers send no key with it. */
static enum MHD_Result handle_preflight(struct exchange *x)
{
    static char nothing[1];
    struct MHD_Response *response;
    char seconds[16];

    if (!allowed_origin(x)) {
        fail(&x->failure, MHD_HTTP_FORBIDDEN, NULL, "origin_not_allowed", "pages of '%.100s' may not use this server (--cors adds origins)",
             header(x, MHD_HTTP_HEADER_ORIGIN));
        return reply_failure(x);
    }
    response = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    snprintf(seconds, sizeof seconds, "%d", PREFLIGHT_S);
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST");
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_ALLOW_HEADERS, headers_to_allow(x));
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCESS_CONTROL_MAX_AGE, seconds);
    return reply(x, MHD_HTTP_NO_CONTENT, NULL, response);
}

const struct route *cors_preflight(const struct exchange *x)
{
    static const struct route preflight = {.method = "OPTIONS", .path = "*", .handle = handle_preflight, .without_model = true, .without_key = true};

    if (x->server->options.cors.n == 0 || strcmp(x->method, preflight.method) != 0 || !header(x, MHD_HTTP_HEADER_ORIGIN) ||
        !header(x, MHD_HTTP_HEADER_ACCESS_CONTROL_REQUEST_METHOD))
        return NULL;
    return &preflight;
}
