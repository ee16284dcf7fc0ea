/* libFuzzer target of what the server makes of a request's body. The first byte chooses the endpoint: c chat, t completion, g generate, k tokenize, d detokenize; the rest is the body. It is either refused,
 * with the status, the one line and the JSON of an error that is the client's, or gives tokens of the vocabulary and options within their limits. */
#include "server/call.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                                                             \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            __builtin_trap();                                                                                                                        \
    } while (0)

static const char template_text[] =
    "{% for m in messages %}[{{ m.role }}{{ m.name }}] {{ m.content }}{% if m.content == 'raise' %}{{ raise_exception('no') }}"
    "{% endif %}{% endfor %}{{ x }}{% if add_generation_prompt %}[assistant] {% endif %}";

/* The bundled model's tokenizer: of the file's other parts nothing is read. Opened once. */
static const struct server_model *the_model(void)
{
    static struct server_model m = {.name = "demo"};
    static m40llm_file *file;

    if (m.tokenizer)
        return &m;
    CHECK(m40llm_file_open(&file, "models/demo.gguf", NULL) == M40LLM_OK);
    CHECK(m40llm_tokenizer_open(&m.tokenizer, file, NULL) == M40LLM_OK);
    CHECK(m40llm_template_compile(&m.template_, template_text, sizeof template_text - 1, NULL) == M40LLM_OK);
    m.engine_info.n_ctx = 1024;
    return &m;
}

/* The error that the client sees. Chats are refused for a missing memory's sake never: there is enough. */
static void check_failure(const struct failure *f)
{
    json_t *object, *error;

    CHECK(f->status >= 400 && f->status < 500 && f->message[0]);
    for (const char *c = f->message; *c; c++)
        CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
    object = failure_json(f);
    error = json_object_get(object, "error");
    CHECK(json_object_size(error) == 4 && json_is_string(json_object_get(error, "message")) && json_is_string(json_object_get(error, "type")));
    CHECK(f->param[0] ? json_is_string(json_object_get(error, "param")) : json_is_null(json_object_get(error, "param")));
    json_decref(object);
}

static void check_ids(const int32_t *ids, size_t n, const struct server_model *m)
{
    for (size_t i = 0; i < n; i++)
        CHECK(ids[i] >= 0 && (size_t)ids[i] < m40llm_tokenizer_n_vocab(m->tokenizer));
}

static void check_call(const struct call *c, const struct server_model *m)
{
    const m40llm_request_options *o = &c->options;
    const m40llm_sampling *s = &o->sampling;

    check_ids(c->ids, c->n_ids, m);
    check_ids(o->stop_tokens, o->n_stop_tokens, m);
    CHECK(c->n >= 1 && c->n <= M40LLM_MAX_CHOICES && o->n_choices == c->n && o->n_top_logprobs <= M40LLM_MAX_TOP_LOGPROBS);
    CHECK(o->n_max_tokens >= 1 && o->n_max_tokens <= m->engine_info.n_ctx && o->n_min_tokens <= m->engine_info.n_ctx);
    CHECK(o->n_stops <= M40LLM_MAX_STOPS && o->n_stop_tokens <= M40LLM_MAX_STOP_TOKENS);
    for (size_t i = 0; i < o->n_stops; i++)
        CHECK(o->stops[i][0] && strlen(o->stops[i]) <= M40LLM_MAX_STOP_BYTES);
    for (size_t i = 0; i < s->n_bias; i++)
        CHECK(s->bias[i].id >= 0 && (size_t)s->bias[i].id < m40llm_tokenizer_n_vocab(m->tokenizer) && s->bias[i].bias >= -100 &&
              s->bias[i].bias <= 100);
    CHECK(s->temperature >= 0 && s->temperature <= 2 && s->top_p > 0 && s->top_p <= 1 && s->min_p >= 0 && s->min_p <= 1);
    CHECK(!c->include_usage || c->stream);
}

static void try_call(enum call_kind kind, const struct m40_buf *body)
{
    const struct server_model *m = the_model();
    struct call c = {0};
    struct failure f = {0};

    if (call_parse(&c, kind, m, body, &f)) {
        CHECK(f.status == 0);
        check_call(&c, m);
    } else {
        check_failure(&f);
    }
    call_free(&c);
}

static void try_tokens(json_t *(*answer_of)(const struct server_model *m, const struct m40_buf *body, struct failure *f), const struct m40_buf *body)
{
    struct failure f = {0};
    json_t *answer = answer_of(the_model(), body, &f);

    CHECK((f.status == 0) == (answer != NULL));
    if (f.status)
        check_failure(&f);
    json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct m40_buf body = {0};

    if (size == 0 || !strchr("ctgkd", data[0]) || !data[0])
        return 0;
    CHECK(size == 1 || m40_buf_append(&body, data + 1, size - 1));
    if (data[0] == 'k' || data[0] == 'd')
        try_tokens(data[0] == 'k' ? tokenize_answer : detokenize_answer, &body);
    else
        try_call(data[0] == 'c' ? CALL_CHAT : data[0] == 't' ? CALL_TEXT : CALL_GENERATE, &body);
    m40_buf_free(&body);
    return 0;
}
