/* What the server's files share. Threads: MHD's, a few, of which one has a connection at a time; the engine's, which calls exchange_on_event; and the one in
 * server_run. */
#ifndef M40_SERVER_INTERNAL_H
#define M40_SERVER_INTERNAL_H

#include "base/str.h"
#include "nvml.h"
#include "server.h"
#include "thinking.h"

#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* ---- failures (reply.c) ---- */

/* Why a request is refused, as an error object shows it. status 0: it is not. */
struct failure {
    unsigned status;   /* HTTP's */
    const char *code;  /* a word for programs; NULL: none */
    unsigned retry_s;  /* Retry-After; 0: none */
    const char *allow; /* 405: the method that there is */
    char param[96];    /* the field at fault; empty: none */
    char message[384];
};

/* Fills f, unless it tells of an earlier failure; returns false. param may be NULL. */
bool fail(struct failure *f, unsigned status, const char *param, const char *code, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The same from the library's error: of what the client sent, unless it is the server's fault. */
bool fail_of(struct failure *f, const char *param, const m40llm_error *err);

/* {"error": {...}} */
json_t *failure_json(const struct failure *f);

/* A JSON string of any bytes: what is no UTF-8 becomes U+FFFD. NULL: no memory. */
json_t *text_json(const char *text, size_t n_bytes);

/* ---- exchanges (exchange.c) ---- */

struct exchange;

/* An endpoint: runs when the whole request is there. Queues a response, or suspends the connection and is called again. */
struct route {
    const char *method, *path;
    enum MHD_Result (*handle)(struct exchange *x);
    bool without_model; /* works before there is a model, and while draining */
    bool without_key;
};

enum server_state { SERVER_STARTING, SERVER_READY, SERVER_DRAINING };

struct server {
    struct server_options options;
    struct server_model model;       /* once the state is not STARTING */
    struct thinking_markers markers; /* of the model; likewise */
    struct MHD_Daemon *daemon;
    int listen_fd; /* -1: none */
    char url[128];
    bool is_loopback;            /* listens there only */
    struct nvml_watch *gpu;      /* NULL: no card */
    char mhd_says[128];          /* why it did not start */
    atomic_bool mhd_has_started; /* from then on it has nothing to say */
    _Atomic(enum server_state) state;
    time_t start_time;
    atomic_ullong n_exchanges;   /* so far: numbers them */
    atomic_ullong n_body_bytes;  /* that are held */
    atomic_ullong n_by_class[6]; /* of answers: by the status' first digit */
    pthread_mutex_t lock;        /* of what follows */
    struct exchange *active;     /* those with a request in the engine */
    uint32_t n_open;             /* exchanges whose connection lives */
    struct connection *connections;
};

/* One request and its answer. The connection holds it, and so does the engine while it has a request of it. */
struct exchange {
    struct server *server;
    const struct route *route; /* NULL: none, see failure */
    struct MHD_Connection *connection;
    atomic_int n_holders;
    unsigned long long number;
    uint64_t start_ns;
    char method[12], path[96]; /* as the log shows them */
    struct m40_buf body;
    uint64_t n_received;
    struct failure failure;
    unsigned status; /* answered; 0: nothing was */
    int fd;
    struct exchange *next, **link; /* in server.active, under its lock; link NULL: not there */
    uint64_t id;                   /* of the engine's request; set before it is in that list; 0: none */
    struct completion *completion; /* completion.h's; the connection's alone. NULL: no text is asked for */
    m40llm_engine *engine;         /* the events outlive the server */
    bool wants_tokens;             /* events without text are kept, too */
    atomic_bool is_gone;           /* the client hung up */

    pthread_mutex_t lock;  /* of what follows, which the engine's thread fills */
    struct m40_buf events; /* struct event_record and what belongs to it, one behind the other */
    bool is_suspended, has_ended, is_closed;
    bool wakes_at_end; /* the connection waits for the end only */
    bool no_memory;    /* an event was lost */
    m40llm_result result;
    m40llm_error error; /* code OK: the request did not fail */
};

/* In exchange.events: followed by n_top of m40llm_token_logprob and n_text bytes. */
struct event_record {
    m40llm_event_type type;
    uint32_t choice;
    int32_t token;
    float logprob;
    uint32_t n_top;
    m40llm_finish finish;
    size_t n_text;
};

/* NULL: no memory. */
struct exchange *exchange_open(struct server *s, struct MHD_Connection *connection, const char *method, const char *path);
/* Frees the body when it has been read, or is not wanted. */
void exchange_drop_body(struct exchange *x);
/* The connection is through with it. */
void exchange_close(struct exchange *x);

/* Gives the engine the request; options->on_event and user are set here. false: *f says why; where the
 * prompt is too long, prompt_param is the field. */
bool exchange_submit(struct exchange *x, const int32_t *ids, size_t n_ids, m40llm_request_options *options, const char *prompt_param,
                     struct failure *f);
/* Takes the events that have come into *out (which must be empty). false: there are none, and the connection is suspended until there are, or, with
 * `at_end`, until there are all. *ended: no more will come. With x->is_gone nothing is waited for. */
bool exchange_take(struct exchange *x, bool at_end, struct m40_buf *out, bool *ended);

/* Cancels the requests of clients that hung up. Suspended connections see nothing by themselves. */
void exchanges_watch(struct server *s);
/* Cancels all; at_once: without waiting for what the engine says to it, their connections are closed. */
void exchanges_cancel(struct server *s, bool at_once);

/* ---- connections (connections.c) ---- */

/* MHD_NotifyConnectionCallback */
void connections_on_change(void *user, struct MHD_Connection *connection, void **slot, enum MHD_ConnectionNotificationCode code);
/* From now on its connection waits for the client (true) or for us. */
void connection_await(struct exchange *x, bool client);
/* Cuts those whose clients have been awaited for too long, or in vain. Several times a second. */
void connections_watch(struct server *s);

/* ---- who may ask (access.c), TLS (tls.c) ---- */

bool access_is_loopback(const struct sockaddr *a);
/* Are the options' origins such? */
bool access_check(const struct server_options *o, char *why, size_t why_bytes);
/* Fails for a Host that is no name of the server: a page whose name was made to lead here. */
void check_host(struct exchange *x);
/* The route of a browser's question before a request of another origin's page; NULL: it is none, or there is no CORS. */
const struct route *cors_preflight(const struct exchange *x);
/* What lets the page read the answer. */
void cors_add_headers(const struct exchange *x, struct MHD_Response *response);

/* Can the options' certificate and key be used, as far as their text tells? Without any they can. */
bool tls_check(const struct server_options *o, char *why, size_t why_bytes);
/* MHD's options for them: at most TLS_MAX_OPTIONS; returns how many. */
enum { TLS_MAX_OPTIONS = 3 };
size_t tls_options(const struct server_options *o, struct MHD_OptionItem *out);

/* ---- answers (reply.c) ---- */

/* Queues an object (taken; NULL: out of memory), x->failure, or a text. */
enum MHD_Result reply_json(struct exchange *x, unsigned status, json_t *object);
enum MHD_Result reply_failure(struct exchange *x);
enum MHD_Result reply_text(struct exchange *x, const char *content_type, struct m40_buf *text);
/* Queues a response that is made; it is released. NULL: closes the connection. It is not to be stored, unless it says otherwise. content_type NULL: it has no
 * content. */
enum MHD_Result reply(struct exchange *x, unsigned status, const char *content_type, struct MHD_Response *response);

/* ---- endpoints ---- */

enum MHD_Result handle_page(struct exchange *x);
enum MHD_Result handle_health(struct exchange *x);
enum MHD_Result handle_models(struct exchange *x);
enum MHD_Result handle_props(struct exchange *x);
enum MHD_Result handle_chat(struct exchange *x);
enum MHD_Result handle_completions(struct exchange *x);
enum MHD_Result handle_generate(struct exchange *x);
enum MHD_Result handle_tokenize(struct exchange *x);
enum MHD_Result handle_detokenize(struct exchange *x);
enum MHD_Result handle_metrics(struct exchange *x);

/* metrics_gpu.c: false: no memory. */
bool metrics_add_gpu(struct m40_buf *b, struct server *s);

/* completion.c */
void completion_free(struct completion **c);

uint64_t server_now_ns(void);

#endif
