/* What the server says about itself. */
#include "server_internal.h"

enum MHD_Result handle_health(struct exchange *x)
{
    static const char *const names[] = {"starting", "ready", "draining"};
    enum server_state state = x->server->state;

    return reply_json(x, state == SERVER_READY ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, json_pack("{s:s}", "status", names[state]));
}

enum MHD_Result handle_models(struct exchange *x)
{
    const struct server *s = x->server;
    const struct server_model *m = &s->model;

    return reply_json(x, MHD_HTTP_OK,
                      json_pack("{s:s, s:[{s:o, s:s, s:I, s:s, s:{s:I, s:I, s:I, s:I}}]}", "object", "list", "data", "id",
                                text_json(m->name, strlen(m->name)), "object", "model", "created", (json_int_t)s->start_time, "owned_by", "m40llm",
                                "meta", "n_ctx", (json_int_t)m->engine_info.n_ctx, "n_ctx_train", (json_int_t)m->model_info.n_ctx_train, "n_vocab",
                                (json_int_t)m->model_info.n_vocab, "n_params", (json_int_t)m->model_info.n_parameters));
}

enum MHD_Result handle_props(struct exchange *x)
{
    const struct server_model *m = &x->server->model;
    const m40llm_engine_info *e = &m->engine_info;
    const m40llm_device_info *d = &m->device_info;
    json_t *o = json_pack("{s:s, s:o, s:s, s:s, s:s, s:s}", "version", m40llm_version(), "model", text_json(m->name, strlen(m->name)), "architecture",
                          m->model_info.architecture, "device", d->spec, "device_name", d->name, "code", d->code);
    json_t *limits = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "n_ctx", (json_int_t)e->n_ctx, "n_sequences", (json_int_t)e->n_sequences,
                               "n_requests", (json_int_t)e->n_requests, "n_pages", (json_int_t)e->n_pages, "n_vocab",
                               (json_int_t)m->model_info.n_vocab, "max_body_bytes", (json_int_t)x->server->options.max_body_bytes);
    json_t *memory = json_pack("{s:I, s:I, s:I}", "weight_bytes", (json_int_t)e->weight_bytes, "kv_bytes", (json_int_t)e->kv_bytes, "other_bytes",
                               (json_int_t)e->other_bytes);
    json_t *chat = m->chat_template ? text_json(m->chat_template, strlen(m->chat_template)) : json_null();
    bool failed =
        !o ||
        json_object_set_new(o, "limits", limits) + json_object_set_new(o, "memory", memory) + json_object_set_new(o, "chat_template", chat) != 0;

    if (!o) {
        json_decref(limits);
        json_decref(memory);
        json_decref(chat);
    }
    if (failed) {
        json_decref(o);
        o = NULL;
    }
    return reply_json(x, MHD_HTTP_OK, o);
}
