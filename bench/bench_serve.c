/* bench-serve: what m40llm serve makes of many clients. N streams at once over HTTP, each a completion with its own prompt and seed; how fast they are, and, with --check, whether each got what it gets
 * when it is alone.
 *
 *     build/bench-serve [--host H] [--port P] [--key K] [--streams N] [--requests N] [--tokens N] [--words N] [--same] [--greedy] [--check] [--pid PID] [--json]
 *
 * --same: all prompts begin with the same words (for the prefix cache). --greedy: temperature 0, as m40llm bench has it, and not 1. --pid: the server's, for the processor time of its threads. Exit status 1: a stream failed, or was not what it should be. */
#define _GNU_SOURCE
#include "bench/bench_times.h"
#include "bench/sse_client.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_STREAMS = 4096, PATIENCE_MS = 120000 };

struct settings {
    const char *host, *port, *key;
    uint32_t n_streams, n_requests, n_tokens, n_words;
    int pid;
    bool same, greedy, check, json;
};

/* A request and what came of it. */
struct answer {
    struct m40_buf text;
    uint32_t n_tokens; /* as the usage says; 0: no usage came */
    bool is_finished, is_done;
    double sent, first, last; /* seconds; first, last: of its text */
    char failure[200];        /* empty: none */
};

struct slot {
    struct sse_client client;
    struct answer *answer;
};

struct bench {
    struct settings settings;
    struct sockaddr_storage to;
    socklen_t n_to;
    struct slot *slots;      /* [n_streams] */
    struct pollfd *polled;   /* [n_streams] */
    struct answer *answers;  /* [n_requests] */
    struct bench_times gaps; /* between parts of the same stream */
    bool keeps_times;
};

static void out_of_memory(void)
{
    fprintf(stderr, "bench-serve: out of memory\n");
    exit(1);
}

/* ---- requests ---- */

/* Prompts are made of these by a number, so that any two differ at once, or, with --same, in the last word. */
static char *make_body(const struct settings *s, uint32_t number)
{
    static const char *const words[] = {"the",  "old",   "man",   "sea",   "house", "and",  "went", "night",
                                        "said", "river", "green", "child", "stone", "wind", "long", "far"};
    struct m40_buf prompt = {0};
    uint32_t state = s->same ? 1 : number * 2654435761u + 1;
    bool ok = s->same || m40_buf_printf(&prompt, "%u:", number);
    json_t *body;
    char *text;

    for (uint32_t i = 0; ok && i < s->n_words; i++) {
        state = state * 1664525u + 1013904223u;
        ok = m40_buf_printf(&prompt, " %s", words[state >> 28]);
    }
    ok = ok && m40_buf_printf(&prompt, " %u", number);
    body = ok ? json_pack("{s:s, s:i, s:i, s:i, s:b, s:b, s:{s:b}}", "prompt", prompt.data, "max_tokens", (int)s->n_tokens, "seed", (int)number,
                          "temperature", s->greedy ? 0 : 1, "ignore_eos", 1, "stream", 1, "stream_options", "include_usage", 1)
              : NULL;
    text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    m40_buf_free(&prompt);
    if (!text)
        out_of_memory();
    return text;
}

static bool start(struct bench *b, struct slot *slot, uint32_t number, struct answer *answer)
{
    char *body = make_body(&b->settings, number);
    bool ok;

    slot->answer = answer;
    *answer = (struct answer){.sent = bench_now()};
    ok = sse_open(&slot->client, (struct sockaddr *)&b->to, b->n_to, "/v1/completions", b->settings.key, body);
    if (!ok) {
        snprintf(answer->failure, sizeof answer->failure, "%s", strerror(errno));
        sse_close(&slot->client);
    }
    free(body);
    return ok;
}

/* ---- answers ---- */

static void take_text(struct bench *b, struct answer *a, const char *text)
{
    double now = bench_now();

    if (!*text)
        return;
    if (a->first == 0)
        a->first = now;
    else if (b->keeps_times)
        bench_times_add(&b->gaps, now - a->last);
    a->last = now;
    if (!m40_buf_append(&a->text, text, strlen(text)))
        out_of_memory();
}

static void take_event(struct bench *b, struct answer *a, const char *data)
{
    json_t *event = NULL, *choice, *text;

    if (a->is_done) {
        snprintf(a->failure, sizeof a->failure, "an event behind the last");
    } else if (strcmp(data, "[DONE]") == 0) {
        a->is_done = true;
    } else if ((event = json_loads(data, 0, NULL)) == NULL || json_object_get(event, "error")) {
        snprintf(a->failure, sizeof a->failure, "%s", data);
    } else {
        choice = json_array_get(json_object_get(event, "choices"), 0);
        text = json_object_get(choice, "text");
        if (text)
            take_text(b, a, json_string_value(text));
        if (json_is_string(json_object_get(choice, "finish_reason")))
            a->is_finished = true;
        if (!choice)
            a->n_tokens = (uint32_t)json_integer_value(json_object_get(json_object_get(event, "usage"), "completion_tokens"));
    }
    json_decref(event);
}

static void judge(const struct bench *b, struct slot *slot)
{
    struct answer *a = slot->answer;
    const struct sse_client *c = &slot->client;

    if (a->failure[0])
        return;
    if (c->status != 200 && c->status != 0)
        snprintf(a->failure, sizeof a->failure, "HTTP %d: %.150s", c->status, c->events.n_bytes ? c->events.data : "");
    else if (c->failure)
        snprintf(a->failure, sizeof a->failure, "%s", c->failure);
    else if (!a->is_done || !a->is_finished || a->n_tokens != b->settings.n_tokens)
        snprintf(a->failure, sizeof a->failure, "%u of %u tokens, %s finish, %s end", a->n_tokens, b->settings.n_tokens, a->is_finished ? "a" : "no",
                 a->is_done ? "an" : "no");
}

/* false: the answer is complete, or will never be. */
static bool go_on(struct bench *b, struct slot *slot)
{
    bool more = !slot->answer->failure[0] && sse_go_on(&slot->client);
    const char *data;

    while ((data = sse_next(&slot->client)) != NULL)
        take_event(b, slot->answer, data);
    if (more)
        return true;
    judge(b, slot);
    sse_close(&slot->client);
    return false;
}

/* Requests first..first+n, at most n_streams at once, into answers. */
static void run(struct bench *b, uint32_t n_streams, uint32_t first, uint32_t n, struct answer *answers)
{
    uint32_t n_started = 0, n_open = 0;

    while (n_started < n || n_open > 0) {
        while (n_started < n && n_open < n_streams) {
            n_open += start(b, &b->slots[n_open], first + n_started, &answers[n_started]);
            n_started++;
        }
        for (uint32_t i = 0; i < n_open; i++)
            b->polled[i] = (struct pollfd){.fd = b->slots[i].client.fd, .events = sse_waits_for(&b->slots[i].client)};
        if (poll(b->polled, n_open, PATIENCE_MS) == 0)
            for (uint32_t i = 0; i < n_open; i++)
                snprintf(b->slots[i].answer->failure, sizeof b->slots[i].answer->failure, "nothing came for %d s", PATIENCE_MS / 1000);
        for (uint32_t i = n_open; i-- > 0;) /* from the end: the last takes the place of one that is over */
            if ((b->polled[i].revents || b->slots[i].answer->failure[0]) && !go_on(b, &b->slots[i]))
                b->slots[i] = b->slots[--n_open];
    }
}

/* ---- the report ---- */

struct report {
    uint32_t n_failed, n_mixed;
    uint64_t n_tokens;
    double seconds;
    struct bench_times first_token, speed; /* seconds; tok/s of each stream behind its first token */
    double engine_us, other_us;            /* processor time a token of threads that compute, and of the others */
};

static void count(struct bench *b, struct report *r)
{
    double from = 1e300, to = 0;

    for (uint32_t i = 0; i < b->settings.n_requests; i++) {
        const struct answer *a = &b->answers[i];

        if (a->failure[0]) {
            fprintf(stderr, "bench-serve: request %u: %s\n", i, a->failure);
            r->n_failed++;
            continue;
        }
        r->n_tokens += a->n_tokens;
        from = a->sent < from ? a->sent : from;
        to = a->last > to ? a->last : to;
        bench_times_add(&r->first_token, a->first - a->sent);
        if (a->n_tokens > 1 && a->last > a->first)
            bench_times_add(&r->speed, (a->n_tokens - 1) / (a->last - a->first));
    }
    r->seconds = to > from ? to - from : 0;
}

/* Each request once more, with nobody beside it. */
static void check_alone(struct bench *b, struct report *r)
{
    b->keeps_times = false;
    for (uint32_t i = 0; i < b->settings.n_requests; i++) {
        struct answer alone;
        const struct answer *a = &b->answers[i];

        run(b, 1, i, 1, &alone);
        if (alone.failure[0] || a->failure[0] || alone.text.n_bytes != a->text.n_bytes ||
            memcmp(alone.text.data, a->text.data, a->text.n_bytes) != 0) {
            fprintf(stderr, "bench-serve: request %u: alone it gets another answer %s\n", i, alone.failure);
            r->n_mixed++;
        }
        m40_buf_free(&alone.text);
    }
}

static void print_text(const struct bench *b, struct report *r, struct bench_times *gaps)
{
    const struct settings *s = &b->settings;

    printf("%u requests, %u at once, %llu tokens in %.2f s: %.1f tok/s in all; %u failed\n", s->n_requests, s->n_streams,
           (unsigned long long)r->n_tokens, r->seconds, r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0, r->n_failed);
    printf("each stream:   %9.2f tok/s   (5%%: %.2f, 95%%: %.2f)\n", bench_times_at(&r->speed, 0.5), bench_times_at(&r->speed, 0.05),
           bench_times_at(&r->speed, 0.95));
    printf("first token:   %9.2f ms      (95%%: %.2f, 99%%: %.2f, most: %.2f)\n", bench_times_at(&r->first_token, 0.5) * 1e3,
           bench_times_at(&r->first_token, 0.95) * 1e3, bench_times_at(&r->first_token, 0.99) * 1e3, bench_times_at(&r->first_token, 1) * 1e3);
    printf("between parts: %9.2f ms      (95%%: %.2f, 99%%: %.2f, most: %.2f)\n", bench_times_at(gaps, 0.5) * 1e3, bench_times_at(gaps, 0.95) * 1e3,
           bench_times_at(gaps, 0.99) * 1e3, bench_times_at(gaps, 1) * 1e3);
    if (s->pid)
        printf("processor time a token: %.1f us computing, %.1f us for HTTP\n", r->engine_us, r->other_us);
    if (s->check)
        printf("answers that differ from the same request's alone: %u\n", r->n_mixed);
}

static json_t *times_json(struct bench_times *t)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "p5", bench_times_at(t, 0.05), "median", bench_times_at(t, 0.5), "p95", bench_times_at(t, 0.95),
                     "p99", bench_times_at(t, 0.99), "max", bench_times_at(t, 1));
}

static void print_json(const struct bench *b, struct report *r, struct bench_times *gaps)
{
    const struct settings *s = &b->settings;
    json_t *o = json_pack("{s:i, s:i, s:i, s:I, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o}", "requests", (int)s->n_requests, "streams",
                          (int)s->n_streams, "failed", (int)r->n_failed, "tokens", (json_int_t)r->n_tokens, "seconds", r->seconds, "tok_s",
                          r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0, "stream_tok_s", times_json(&r->speed), "first_token_s",
                          times_json(&r->first_token), "between_parts_s", times_json(gaps), "differ",
                          s->check ? json_integer(r->n_mixed) : json_null(), "compute_us_per_token", s->pid ? json_real(r->engine_us) : json_null(),
                          "http_us_per_token", s->pid ? json_real(r->other_us) : json_null());

    if (!o || json_dumpf(o, stdout, JSON_INDENT(2)) != 0)
        out_of_memory();
    printf("\n");
    json_decref(o);
}

/* ---- the program ---- */

static bool parse_number(const char *text, uint32_t *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *out = (uint32_t)value;
    return *text >= '0' && *text <= '9' && !*end && value <= INT32_MAX;
}

static bool parse(struct settings *s, int argc, char **argv)
{
    uint32_t pid = 0;

    *s = (struct settings){.host = "127.0.0.1", .port = "8080", .n_streams = 16, .n_tokens = 64, .n_words = 8};
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        const struct {
            const char *name;
            uint32_t *number;
            const char **text;
        } with_value[] = {{"--streams", &s->n_streams, NULL},
                          {"--requests", &s->n_requests, NULL},
                          {"--tokens", &s->n_tokens, NULL},
                          {"--words", &s->n_words, NULL},
                          {"--pid", &pid, NULL},
                          {"--host", NULL, &s->host},
                          {"--port", NULL, &s->port},
                          {"--key", NULL, &s->key}};
        size_t k = 0, n = sizeof with_value / sizeof *with_value;

        while (k < n && strcmp(flag, with_value[k].name) != 0)
            k++;
        if (k < n && with_value[k].text)
            *with_value[k].text = value;
        else if (k < n && !parse_number(value, with_value[k].number))
            return false;
        if (k < n)
            i++;
        else if (!strcmp(flag, "--same"))
            s->same = true;
        else if (!strcmp(flag, "--greedy"))
            s->greedy = true;
        else if (!strcmp(flag, "--check"))
            s->check = true;
        else if (!strcmp(flag, "--json"))
            s->json = true;
        else
            return false;
    }
    s->pid = (int)pid;
    s->n_requests = s->n_requests ? s->n_requests : s->n_streams;
    return s->n_streams >= 1 && s->n_streams <= MAX_STREAMS && s->n_tokens >= 1;
}

static bool resolve(struct bench *b)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(b->settings.host, b->settings.port, &hints, &found);

    if (rc != 0) {
        fprintf(stderr, "bench-serve: %s: %s\n", b->settings.host, gai_strerror(rc));
        return false;
    }
    memcpy(&b->to, found->ai_addr, found->ai_addrlen);
    b->n_to = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void measure(struct bench *b, struct report *r)
{
    struct bench_cpu before = {0}, after = {0};

    if (b->settings.pid)
        before = bench_cpu_of(b->settings.pid);
    run(b, b->settings.n_streams, 0, b->settings.n_requests, b->answers);
    if (b->settings.pid)
        after = bench_cpu_of(b->settings.pid);
    count(b, r);
    if (r->n_tokens > 0) {
        r->engine_us = (after.compute_s - before.compute_s) * 1e6 / (double)r->n_tokens;
        r->other_us = (after.other_s - before.other_s) * 1e6 / (double)r->n_tokens;
    }
    if (b->settings.check)
        check_alone(b, r);
}

int main(int argc, char **argv)
{
    struct bench b = {.keeps_times = true};
    struct report r = {0};

    if (!parse(&b.settings, argc, argv)) {
        fprintf(
            stderr,
            "usage: bench-serve [--host H] [--port P] [--key K] [--streams N] [--requests N] [--tokens N] [--words N] [--same] [--greedy] [--check] "
            "[--pid PID] [--json]\n");
        return 2;
    }
    if (!resolve(&b))
        return 1;
    b.slots = calloc(b.settings.n_streams, sizeof *b.slots);
    b.polled = calloc(b.settings.n_streams, sizeof *b.polled);
    b.answers = calloc(b.settings.n_requests, sizeof *b.answers);
    if (!b.slots || !b.polled || !b.answers)
        out_of_memory();
    measure(&b, &r);
    (b.settings.json ? print_json : print_text)(&b, &r, &b.gaps);
    for (uint32_t i = 0; i < b.settings.n_requests; i++)
        m40_buf_free(&b.answers[i].text);
    bench_times_free(&b.gaps);
    bench_times_free(&r.first_token);
    bench_times_free(&r.speed);
    free(b.slots);
    free(b.polled);
    free(b.answers);
    return r.n_failed || r.n_mixed;
}
