/* The HTTP server: one model behind OpenAI's API and a few endpoints of its own (docs/api.md). It listens from server_open on, and answers "starting" until it
 * is given its model. */
#ifndef M40_SERVER_SERVER_H
#define M40_SERVER_SERVER_H

#include "m40llm.h"

#include <stdbool.h>

/* Texts of a flag that may be given several times; each may also be several with commas between. */
struct server_list {
    const char *const *items; /* [n] */
    size_t n;
};

struct server_options {
    const char *host;         /* a name or an address; "127.0.0.1" */
    uint16_t port;            /* 0: any that is free */
    const char *api_key;      /* what clients must send as "Authorization: Bearer KEY"; NULL or empty: nothing */
    uint32_t max_connections; /* at once; one more is not accepted */
    uint64_t max_body_bytes;  /* of a request */
    uint32_t idle_s;          /* a client that neither sends nor takes anything for so long is disconnected */
    uint32_t drain_s;         /* how long server_run lets answers go on after `stop`; then they are cancelled */
    struct server_list cors;  /* origins whose web pages may read answers: "scheme://name[:port]", or "*" */
    /* Names beside its own that clients may call it by; "*": any. Checked where it listens at loopback only, or where there is one. */
    struct server_list allow_hosts;
    const char *tls_cert, *tls_key; /* PEM, both or none; not copied: valid until server_close */
    const char *nvml_library;       /* NULL: libnvidia-ml.so.1 */
    m40llm_logger logger;           /* of what few want to know; warnings and the access log go to stderr */
};
#define SERVER_OPTIONS_INIT                                                                                                                          \
    {                                                                                                                                                \
        .host = "127.0.0.1", .port = 8080, .max_connections = 512, .max_body_bytes = 8u << 20, .idle_s = 60, .drain_s = 30                           \
    }

/* What is served. Pointers must stay valid until server_close; the engine is closed after it. */
struct server_model {
    const char *name;          /* as clients call it */
    const char *chat_template; /* its text, for /props; NULL: none */
    m40llm_engine *engine;     /* opened with the tokenizer */
    m40llm_tokenizer *tokenizer;
    m40llm_template *template_; /* NULL: the model has none, and no chat */
    m40llm_device_info device_info;
    m40llm_model_info model_info;
    m40llm_engine_info engine_info;
};

struct server;

/* Listens. false: *why says, in a line, what went wrong. One that is reachable from elsewhere without a key warns on stderr. */
bool server_open(struct server **out, const struct server_options *options, char *why, size_t why_bytes);

/* The address it listens at: "http://127.0.0.1:8080". */
const char *server_url(const struct server *s);

/* From now on it answers for the model. Once. */
void server_set_model(struct server *s, const struct server_model *model);

/* Watches over its clients until stop() says true (asked several times a second), then accepts no more, lets what runs end, or cancels it after drain_s. */
void server_run(struct server *s, bool (*stop)(void));

void server_close(struct server **s);

#endif
