/* Devices, models, engines and requests. */
#include "api/api.h"
#include "base/mem.h"

#include <assert.h>

static_assert(offsetof(m40llm_device_options, struct_size) == 0 && offsetof(m40llm_request_options, struct_size) == 0,
              "m40_api_options reads struct_size first");

/* ---- devices ---- */

/* Element i of the caller's array, whose first one says how far they are apart. */
static void write_element(m40llm_device_info *array, size_t i, const m40llm_device_info *info)
{
    size_t n_bytes = array->struct_size;
    char *element = (char *)array + i * n_bytes;

    memcpy(element, &n_bytes, sizeof n_bytes);
    m40_api_result(element, info, sizeof *info);
}

m40llm_status m40llm_device_list(const m40llm_device_options *given, m40llm_device_info *out, size_t capacity, size_t *n_out, char *cuda_reason,
                                 m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_device_info *infos = m40_calloc(capacity, sizeof *infos);
    char reason[256] = "";
    size_t n_cuda;

    m40_api_options(&options, sizeof options, given);
    if (capacity > 0)
        M40_TRY(m40_api_check_result(out, err));
    M40_FAIL_IF(!infos, M40LLM_NO_MEMORY, "list of %zu devices", capacity);
    M40_TRY(m40_cuda_list(&options, infos, capacity, &n_cuda, reason, err));
    if (n_cuda < capacity)
        m40_cpu_describe(&infos[n_cuda]);
    for (size_t i = 0; i < capacity && i <= n_cuda; i++)
        write_element(out, i, &infos[i]);
    *n_out = n_cuda + 1;
    if (cuda_reason)
        memcpy(cuda_reason, reason, sizeof reason);
fail:
    m40_free(infos);
    return status;
}

m40llm_status m40llm_device_open(m40llm_device **out, const m40llm_device_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_device *device = m40_calloc(1, sizeof *device);

    *out = NULL;
    M40_FAIL_IF(!device, M40LLM_NO_MEMORY, "device object");
    m40_api_options(&options, sizeof options, given);
    M40_TRY(m40_backend_open(&device->backend, &options, err));
    *out = device;
    return M40LLM_OK;
fail:
    m40llm_device_close(&device);
    return status;
}

void m40llm_device_get_info(const m40llm_device *device, m40llm_device_info *out)
{
    m40llm_device_info info = M40LLM_DEVICE_INFO_INIT;

    device->backend->ops.get_info(device->backend, &info);
    m40_api_result(out, &info, sizeof info);
}

m40llm_status m40llm_device_measure_bandwidth(m40llm_device *device, double *out_bytes_per_s, m40llm_error *err)
{
    return device->backend->ops.measure_bandwidth(device->backend, out_bytes_per_s, err);
}

void m40llm_device_close(m40llm_device **device)
{
    if (!device || !*device)
        return;
    m40_backend_close(&(*device)->backend);
    m40_free(*device);
    *device = NULL;
}

/* ---- models ---- */

m40llm_status m40llm_file_model_info(const m40llm_file *file, m40llm_kv_type kv_type, m40llm_model_info *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_model_info info;

    M40_TRY(m40_api_check_result(out, err));
    M40_TRY(m40_model_describe(file->gguf, kv_type, &info, err));
    m40_api_result(out, &info, sizeof info);
fail:
    return status;
}

m40llm_status m40llm_file_memory_needed(const m40llm_file *file, uint32_t n_ctx, m40llm_kv_type kv_type, uint32_t n_chunk, uint64_t *weight_bytes,
                                        uint64_t *kv_bytes, uint64_t *other_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    struct m40_forward_limits limits;
    struct m40_model_config config;

    M40_FAIL_IF(n_ctx == 0, M40LLM_INVALID_ARGUMENT, "a context of 0 tokens");
    M40_TRY(m40_model_config_read(&config, file->gguf, err));
    options.n_ctx = n_ctx;
    options.n_chunk = n_chunk;
    options.kv_type = kv_type;
    m40_engine_limits(&config, &options, &limits);
    m40_forward_memory(&config, &limits, kv_bytes, other_bytes);
    M40_TRY(m40_model_device_bytes(file->gguf, weight_bytes, err));
fail:
    return status;
}

m40llm_status m40llm_model_open(m40llm_model **out, const m40llm_file *file, m40llm_device *device, const m40llm_model_options *given,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_model_options options = M40LLM_MODEL_OPTIONS_INIT;
    m40llm_model *model = m40_calloc(1, sizeof *model);

    *out = NULL;
    M40_FAIL_IF(!model, M40LLM_NO_MEMORY, "model object");
    m40_api_options(&options, sizeof options, given);
    M40_TRY(m40_model_describe(file->gguf, M40LLM_KV_F16, &model->info, err));
    M40_TRY(m40_model_open(&model->model, file->gguf, device->backend, options.progress, options.user, err));
    *out = model;
    return M40LLM_OK;
fail:
    m40llm_model_close(&model);
    return status;
}

void m40llm_model_get_info(const m40llm_model *model, m40llm_model_info *out)
{
    m40_api_result(out, &model->info, sizeof model->info);
}

void m40llm_model_close(m40llm_model **model)
{
    if (!model || !*model)
        return;
    m40_model_close(&(*model)->model);
    m40_free(*model);
    *model = NULL;
}

/* ---- engines ---- */

m40llm_status m40llm_engine_open(m40llm_engine **out, m40llm_model *model, const m40llm_engine_options *given, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_engine_options options = M40LLM_ENGINE_OPTIONS_INIT;
    m40llm_engine *engine = m40_calloc(1, sizeof *engine);

    *out = NULL;
    M40_FAIL_IF(!engine, M40LLM_NO_MEMORY, "engine object");
    m40_api_options(&options, sizeof options, given);
    engine->pooling = model->info.pooling != M40LLM_POOLING_NONE ? model->info.pooling : M40LLM_POOLING_MEAN;
    M40_TRY(m40_engine_open(&engine->engine, model->model, options.tokenizer ? options.tokenizer->tokenizer : NULL, &options, err));
    *out = engine;
    return M40LLM_OK;
fail:
    m40llm_engine_close(&engine);
    return status;
}

void m40llm_engine_get_info(const m40llm_engine *engine, m40llm_engine_info *out)
{
    m40llm_engine_info info;

    m40_engine_get_info(engine->engine, &info);
    m40_api_result(out, &info, sizeof info);
}

void m40llm_engine_get_stats(const m40llm_engine *engine, m40llm_stats *out)
{
    m40llm_stats stats;

    m40_engine_get_stats(engine->engine, &stats);
    m40_api_result(out, &stats, sizeof stats);
}

void m40llm_engine_close(m40llm_engine **engine)
{
    if (!engine || !*engine)
        return;
    m40_engine_close(&(*engine)->engine);
    m40_free(*engine);
    *engine = NULL;
}

void m40llm_engine_pause(m40llm_engine *engine)
{
    m40_engine_pause(engine->engine);
}

void m40llm_engine_resume(m40llm_engine *engine)
{
    m40_engine_resume(engine->engine);
}

m40llm_status m40llm_submit(m40llm_engine *engine, const int32_t *prompt, size_t n_prompt, const m40llm_request_options *given, uint64_t *out_id,
                            m40llm_error *err)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;

    m40_api_options(&options, sizeof options, given);
    return m40_engine_submit(engine->engine, prompt, n_prompt, &options, out_id, err);
}

m40llm_status m40llm_submit_text(m40llm_engine *engine, const char *text, size_t n_bytes, unsigned flags, const m40llm_request_options *given,
                                 uint64_t *out_id, m40llm_error *err)
{
    m40llm_request_options options = M40LLM_REQUEST_OPTIONS_INIT;

    m40_api_options(&options, sizeof options, given);
    return m40_engine_submit_text(engine->engine, text, n_bytes, flags, &options, out_id, err);
}

m40llm_status m40llm_submit_embeddings(m40llm_engine *engine, const int32_t *ids, const size_t *n_ids, size_t n_texts,
                                       const m40llm_embed_options *given, uint64_t *out_id, m40llm_error *err)
{
    m40llm_embed_options options = M40LLM_EMBED_OPTIONS_INIT;

    m40_api_options(&options, sizeof options, given);
    if (options.pooling == M40LLM_POOLING_NONE)
        options.pooling = engine->pooling;
    return m40_engine_submit_embeddings(engine->engine, ids, n_ids, n_texts, &options, out_id, err);
}

m40llm_status m40llm_read(m40llm_engine *engine, uint64_t id, int timeout_ms, m40llm_event *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_event event = M40LLM_EVENT_INIT;

    M40_TRY(m40_api_check_result(out, err)); /* before an event is taken */
    M40_TRY(m40_engine_read(engine->engine, id, timeout_ms, &event, err));
    m40_api_result(out, &event, sizeof event);
fail:
    return status;
}

m40llm_status m40llm_wait(m40llm_engine *engine, uint64_t id, m40llm_result *result, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    m40llm_result own = {0};

    if (result)
        M40_TRY(m40_api_check_result(result, err)); /* before the request is forgotten */
    status = m40_engine_wait(engine->engine, id, &own, err);
    if (result && own.struct_size > 0) /* there was one */
        m40_api_result(result, &own, sizeof own);
fail:
    return status;
}

void m40llm_forget(m40llm_engine *engine, uint64_t id)
{
    m40_engine_forget(engine->engine, id);
}

void m40llm_cancel(m40llm_engine *engine, uint64_t id)
{
    m40_engine_cancel(engine->engine, id);
}

uint64_t m40llm_histogram_bound(uint32_t i)
{
    return (uint64_t)1 << (i < M40LLM_HISTOGRAM_BUCKETS ? i : M40LLM_HISTOGRAM_BUCKETS - 1);
}
