/* Opening a model: check everything, say whether it fits, then the only slow step. */
#include "model/model_weights.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* Of the file, that the system is asked to read ahead of what is being uploaded. */
static const uint64_t read_ahead_bytes = 256 << 20;

struct upload {
    struct m40_model *model;
    const struct m40_weight_list *list;
    m40llm_progress_fn progress;
    void *user;
    float *staging; /* one vector as F32 */
    bool *is_done;  /* [list->n]: uploaded in a stack */
    size_t n_asked; /* weights that the system was asked to read */
    uint64_t asked_bytes, done_bytes;
};

static double mib(uint64_t n_bytes)
{
    return (double)n_bytes / (1 << 20);
}

static m40llm_status check_memory(const struct m40_model *model, const struct m40_weight_list *list, m40llm_error *err)
{
    struct m40_backend *be = model->backend;
    m40llm_device_info info = {0};

    if (!be->is_cuda) /* the CPU reads the mapped file in place */
        return M40LLM_OK;
    be->ops.get_info(be, &info);
    if (info.memory_free_bytes == 0 || list->device_bytes <= info.memory_free_bytes)
        return M40LLM_OK;
    return m40_fail(err, M40LLM_OUT_OF_DEVICE_MEMORY,
                    "the weights need %.0f MiB, but %s has %.0f MiB free of %.0f; a file of about %.0f MiB would fit", mib(list->device_bytes),
                    info.name, mib(info.memory_free_bytes), mib(info.memory_total_bytes),
                    mib(list->file_bytes) * (double)info.memory_free_bytes / (double)list->device_bytes);
}

static m40llm_status upload_vector(struct upload *u, const struct m40_gguf_tensor *t, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = u->model->backend;
    uint64_t n_bytes = t->n_elements * sizeof(float);

    m40_format(t->type->number)->dequant(t->data, t->n_elements, u->staging);
    M40_TRY(be->ops.alloc(be, n_bytes, out, err));
    u->model->vectors[u->model->n_vectors++] = *out;
    M40_TRY(be->ops.write(be, *out, u->staging, n_bytes, err));
fail:
    return status;
}

static m40llm_status upload_matrix(const struct upload *u, const struct m40_gguf_tensor *t, struct m40_matrix *out, m40llm_error *err)
{
    struct m40_backend *be = u->model->backend;
    const struct m40_format *format = m40_format(t->type->number);
    const struct m40_matrix_part rows = {t->data, t->dims[1] * t->dims[2], u->model->gguf->maps != NULL};

    if (be->ops.matrix_create_stacked) /* a card has its own copy: the file's pages need not stay */
        return be->ops.matrix_create_stacked(be, format, t->dims[0], &rows, 1, out, err);
    return be->ops.matrix_create(be, format, rows.n_rows, t->dims[0], t->data, out, err);
}

static m40llm_status upload_one(struct upload *u, const struct m40_weight *w, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model *model = u->model;
    const struct m40_gguf_tensor *t = w->tensor;
    char *base = w->layer < 0 ? (char *)model : (char *)&model->layers[w->layer];
    void *field = base + w->slot->offset_bytes;

    if (w->slot->kind == M40_SLOT_VECTOR)
        M40_TRY(upload_vector(u, t, field, err));
    else if (!u->is_done[w - u->list->items])
        M40_TRY(upload_matrix(u, t, field, err));
    u->done_bytes += t->size_bytes;
    M40_FAIL_IF(u->progress && u->progress(u->user, u->done_bytes, u->list->file_bytes), M40LLM_CANCELLED, "loading was cancelled");
fail:
    return status;
}

/* What comes next is fetched from disk while the card works; the CPU reads the file as it computes. */
static void read_ahead(struct upload *u)
{
    for (; u->model->backend->is_cuda && u->n_asked < u->list->n && u->asked_bytes < u->done_bytes + read_ahead_bytes; u->n_asked++) {
        m40_gguf_read_ahead(u->model->gguf, u->list->items[u->n_asked].tensor);
        u->asked_bytes += u->list->items[u->n_asked].tensor->size_bytes;
    }
}

/* n weights from `first` on: those of one layer, or one that is in no layer. */
static m40llm_status upload_group(struct upload *u, size_t first, size_t n, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_weight *weights = &u->list->items[first];
    struct m40_layer_weights *layer = weights->layer < 0 ? NULL : &u->model->layers[weights->layer];

    read_ahead(u);
    if (layer)
        M40_TRY(m40_model_upload_stacks(u->model, layer, weights, n, u->is_done + first, err));
    for (size_t i = 0; i < n; i++)
        M40_TRY(upload_one(u, &weights[i], err));
    if (layer)
        M40_TRY(m40_model_stack_biases(u->model, layer, err));
fail:
    return status;
}

static m40llm_status upload_all(struct m40_model *model, const struct m40_weight_list *list, m40llm_progress_fn progress, void *user,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = model->backend;
    struct upload u = {.model = model, .list = list, .progress = progress, .user = user};
    uint64_t longest = 0;

    for (size_t i = 0; i < list->n; i++)
        if (list->items[i].slot->kind == M40_SLOT_VECTOR && list->items[i].tensor->n_elements > longest)
            longest = list->items[i].tensor->n_elements;
    u.staging = m40_calloc(longest, sizeof *u.staging);
    u.is_done = m40_calloc(list->n, sizeof *u.is_done);
    model->vectors = m40_calloc(list->n + model->config.n_layers, sizeof *model->vectors);
    model->layers = m40_calloc(model->config.n_layers, sizeof *model->layers);
    M40_FAIL_IF(!u.staging || !u.is_done || !model->vectors || !model->layers, M40LLM_NO_MEMORY, "no memory for the list of layers");
    for (size_t i = 0, n; i < list->n; i += n) {
        for (n = 1; i + n < list->n && list->items[i].layer >= 0 && list->items[i + n].layer == list->items[i].layer; n++)
            ;
        M40_TRY(upload_group(&u, i, n, err));
    }
    if (model->config.is_tied) {
        model->output = model->embedding;
        model->output.size_bytes = 0;
    }
    M40_TRY(be->ops.sync(be, err));
fail:
    if (be->ops.matrix_create_end)
        be->ops.matrix_create_end(be);
    m40_free(u.staging);
    m40_free(u.is_done);
    return status;
}

m40llm_status m40_model_open(struct m40_model **out, const struct m40_gguf *gguf, struct m40_backend *backend, m40llm_progress_fn progress,
                             void *user, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_weight_list list = {0};
    struct m40_model *model = m40_calloc(1, sizeof *model);
    uint64_t start_ns = m40_now_ns();
    double seconds;

    *out = NULL;
    M40_FAIL_IF(!model, M40LLM_NO_MEMORY, "no memory for the model");
    model->backend = backend;
    model->gguf = gguf;
    M40_TRY(m40_model_config_read(&model->config, gguf, err));
    M40_TRY(m40_weight_list_make(&list, gguf, &model->config, &backend->logger, err));
    M40_TRY(check_memory(model, &list, err));
    M40_TRY(upload_all(model, &list, progress, user, err));
    model->weight_bytes = backend->is_cuda ? list.device_bytes : list.file_bytes;
    m40_log(&backend->logger, M40LLM_LOG_INFO, "model: %s \"%s\", %.2f M parameters, %u layers, %.1f MiB of weights", model->config.architecture,
            model->config.name, (double)list.n_elements / 1e6, model->config.n_layers, (double)model->weight_bytes / (1 << 20));
    seconds = (double)(m40_now_ns() - start_ns) * 1e-9;
    if (backend->is_cuda)
        m40_log(&backend->logger, M40LLM_LOG_INFO, "model: %.3f GB of weights loaded in %.3f s (%.2f GB/s)", (double)list.file_bytes * 1e-9, seconds,
                (double)list.file_bytes * 1e-9 / seconds);
    m40_weight_list_free(&list);
    *out = model;
    return M40LLM_OK;
fail:
    m40_weight_list_free(&list);
    m40_model_close(&model);
    return status;
}

void m40_model_close(struct m40_model **model)
{
    struct m40_model *m = model ? *model : NULL;
    struct m40_backend *be;

    if (!m)
        return;
    be = m->backend;
    for (size_t i = 0; i < m->n_vectors; i++)
        be->ops.free(be, m->vectors[i]);
    for (uint32_t i = 0; m->layers && i < m->config.n_layers; i++) {
        struct m40_layer_weights *l = &m->layers[i];
        struct m40_matrix *matrices[] = {&l->qkv,          &l->q,         &l->k,       &l->v,         &l->attn_out,
                                         &l->gate_up,      &l->gate,      &l->up,      &l->down,      &l->router,
                                         &l->gate_up_exps, &l->gate_exps, &l->up_exps, &l->down_exps, &l->shared_gate};

        for (size_t j = 0; j < sizeof matrices / sizeof *matrices; j++)
            be->ops.matrix_destroy(be, matrices[j]);
    }
    if (!m->config.is_tied)
        be->ops.matrix_destroy(be, &m->output);
    be->ops.matrix_destroy(be, &m->embedding);
    m40_free(m->layers);
    m40_free(m->vectors);
    m40_free(m);
    *model = NULL;
}

/* Of something that a mixture's experts share evenly, what is of those that a token does not use. */
static uint64_t idle_share(const struct m40_model_config *config, uint64_t of_experts)
{
    return config->n_experts ? of_experts / config->n_experts * (config->n_experts - config->n_used) : 0;
}

/* <architecture>.pooling_type: 1 mean, 3 last; the others need what decoders do not have. */
static m40llm_pooling named_pooling(const struct m40_gguf *gguf, const char *architecture)
{
    const struct m40_gguf_kv *kv;
    char key[64];
    uint64_t type;

    snprintf(key, sizeof key, "%s.pooling_type", architecture);
    kv = m40_gguf_find_kv(gguf, key);
    if (!kv || !m40_gguf_kv_u64(kv, &type))
        return M40LLM_POOLING_NONE;
    return type == 1 ? M40LLM_POOLING_MEAN : type == 3 ? M40LLM_POOLING_LAST : M40LLM_POOLING_NONE;
}

m40llm_status m40_model_describe(const struct m40_gguf *gguf, m40llm_kv_type kv_type, m40llm_model_info *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model_config c;
    struct m40_weight_list list = {0};
    const struct m40_gguf_tensor *embedding;

    *out = (m40llm_model_info)M40LLM_MODEL_INFO_INIT;
    M40_TRY(m40_model_config_read(&c, gguf, err));
    M40_TRY(m40_weight_list_make(&list, gguf, &c, NULL, err));
    memcpy(out->architecture, c.architecture, sizeof out->architecture);
    memcpy(out->name, c.name, sizeof out->name);
    out->n_layers = c.n_layers;
    out->n_heads = c.n_heads;
    out->n_kv_heads = c.n_kv_heads;
    out->head_dim = c.head_dim;
    out->n_embd = c.n_embd;
    out->n_ff = c.n_ff;
    out->n_vocab = c.n_vocab;
    out->n_ctx_train = c.n_ctx_train;
    out->n_parameters = list.n_elements;
    out->n_active_parameters = list.n_elements - idle_share(&c, list.n_expert_elements);
    out->expert_bytes = list.expert_bytes;
    out->weight_bytes = list.file_bytes;
    /* Of the embedding a token reads one row, unless it serves as the output matrix too. */
    embedding = list.items[0].tensor;
    out->weight_bytes_per_token = list.file_bytes - idle_share(&c, list.expert_bytes);
    if (!c.is_tied)
        out->weight_bytes_per_token -= embedding->size_bytes - embedding->size_bytes / c.n_vocab;
    out->kv_bytes_per_token = (uint64_t)c.n_layers * 2 * c.n_kv_heads * c.head_dim * (kv_type == M40LLM_KV_F16 ? 2 : 4);
    out->window = c.window;
    for (uint32_t i = 0; i < c.n_layers; i++)
        out->window_kv_bytes_per_token += m40_layer_has(&c, i, M40_LAYER_WINDOW) ? out->kv_bytes_per_token / c.n_layers : 0;
    out->pooling = named_pooling(gguf, c.architecture);
    m40_weight_list_free(&list);
fail:
    return status;
}

m40llm_status m40_model_device_bytes(const struct m40_gguf *gguf, uint64_t *out_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_model_config config;
    struct m40_weight_list list = {0};

    *out_bytes = 0;
    M40_TRY(m40_model_config_read(&config, gguf, err));
    M40_TRY(m40_weight_list_make(&list, gguf, &config, NULL, err));
    *out_bytes = list.device_bytes;
    m40_weight_list_free(&list);
fail:
    return status;
}
