/* Device memory, and the copies to and from it. */
#include "backend/cuda/cuda_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

enum { STAGE_ALIGN = 256 };

m40llm_status m40_cuda_memory_open(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const size_t stages_bytes = (size_t)M40_CUDA_N_STAGES * M40_CUDA_STAGE_BYTES;
    void *host = NULL;

    M40_CUDA_TRY(c->driver, c->driver->MemHostAlloc(&host, stages_bytes, 0), "%s: %zu MiB of pinned memory", c->info.spec, stages_bytes >> 20);
    c->staging.host = host;
    M40_CUDA_TRY(c->driver, c->driver->MemHostAlloc(&host, M40_CUDA_READ_BYTES, 0), "%s: %d MiB of pinned memory", c->info.spec,
                 M40_CUDA_READ_BYTES >> 20);
    c->read_buffer = host;
    for (unsigned i = 0; i < M40_CUDA_N_STAGES; i++)
        M40_TRY(m40_cuda_check(c, c->driver->EventCreate(&c->staging.sent[i], CU_EVENT_DISABLE_TIMING), "creating an event", err));
fail:
    return status; /* m40_cuda_memory_close() releases what there is */
}

static void free_scratch(struct m40_cuda *c)
{
    m40_cuda_free(&c->base, c->scratch.block_sums.addr);
    m40_cuda_free(&c->base, c->scratch.partials.addr);
    m40_cuda_free(&c->base, c->scratch.counters.addr);
    memset(&c->scratch, 0, sizeof c->scratch);
    memset(&c->workload, 0, sizeof c->workload);
}

void m40_cuda_memory_close(struct m40_cuda *c)
{
    free_scratch(c);
    for (unsigned i = 0; i < M40_CUDA_N_STAGES; i++)
        if (c->staging.sent[i])
            c->driver->EventDestroy(c->staging.sent[i]);
    if (c->staging.host)
        c->driver->MemFreeHost(c->staging.host);
    if (c->read_buffer)
        c->driver->MemFreeHost(c->read_buffer);
    memset(&c->staging, 0, sizeof c->staging);
    c->read_buffer = NULL;
}

m40llm_status m40_cuda_alloc(struct m40_backend *be, uint64_t n_bytes, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    CUdeviceptr ptr = 0;
    CUresult result;

    *out = 0;
    M40_TRY(m40_cuda_enter(c, err));
    result = c->driver->MemAlloc(&ptr, n_bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        size_t n_free = 0, n_total = 0;

        c->driver->MemGetInfo(&n_free, &n_total);
        M40_FAIL_IF(true, M40LLM_OUT_OF_DEVICE_MEMORY, "%.1f MiB needed on %s (%s), %.1f of %.1f MiB are free", (double)n_bytes / 0x1p20,
                    c->info.spec, c->info.name, (double)n_free / 0x1p20, (double)n_total / 0x1p20);
    }
    M40_TRY(m40_cuda_check(c, result, "allocating memory", err));
    *out = ptr;
    c->counters.n_allocs++;
fail:
    return status;
}

void m40_cuda_free(struct m40_backend *be, m40_addr addr)
{
    struct m40_cuda *c = m40_cuda_of(be);

    if (!addr || m40_cuda_enter(c, NULL) != M40LLM_OK)
        return;
    c->driver->StreamSynchronize(c->stream);
    m40_cuda_forget_steps(c);
    c->driver->MemFree(addr);
}

/* The stage is full: the next one, once what it held has been sent. */
static m40llm_status next_stage(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_staging *s = &c->staging;

    M40_TRY(m40_cuda_check(c, c->driver->EventRecord(s->sent[s->current], c->stream), "recording an event", err));
    s->current = (s->current + 1) % M40_CUDA_N_STAGES;
    s->n_used = 0;
    M40_TRY(m40_cuda_check(c, c->driver->EventSynchronize(s->sent[s->current]), "waiting for a copy to the device", err));
fail:
    return status;
}

m40llm_status m40_cuda_stage(struct m40_cuda *c, uint64_t n_bytes, void **out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_staging *s = &c->staging;

    assert(!c->steps.recording); /* what is staged changes from step to step */
    *out = NULL;
    M40_FAIL_IF(n_bytes > M40_CUDA_STAGE_BYTES, M40LLM_INVALID_ARGUMENT, "%llu bytes in one piece", (unsigned long long)n_bytes);
    M40_TRY(m40_cuda_enter(c, err));
    if (s->n_used + n_bytes > M40_CUDA_STAGE_BYTES)
        M40_TRY(next_stage(c, err));
    *out = s->host + (size_t)s->current * M40_CUDA_STAGE_BYTES + s->n_used;
fail:
    return status;
}

m40llm_status m40_cuda_stage_send(struct m40_cuda *c, m40_addr dst, uint64_t n_bytes, m40llm_error *err)
{
    struct m40_cuda_staging *s = &c->staging;
    const uint8_t *src = s->host + (size_t)s->current * M40_CUDA_STAGE_BYTES + s->n_used;

    if (n_bytes == 0)
        return M40LLM_OK;
    s->n_used += m40_round_up(n_bytes, STAGE_ALIGN);
    return m40_cuda_check(c, c->driver->MemcpyHtoDAsync(dst, src, n_bytes, c->stream), "copying to the device", err);
}

m40llm_status m40_cuda_write(struct m40_backend *be, m40_addr dst, const void *src, uint64_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    for (uint64_t done = 0; done < n_bytes;) {
        uint64_t n = n_bytes - done < M40_CUDA_STAGE_BYTES ? n_bytes - done : M40_CUDA_STAGE_BYTES;
        void *stage = NULL;

        M40_TRY(m40_cuda_stage(c, n, &stage, err));
        memcpy(stage, (const uint8_t *)src + done, n);
        M40_TRY(m40_cuda_stage_send(c, dst + done, n, err));
        done += n;
    }
fail:
    return status;
}

m40llm_status m40_cuda_copy(struct m40_backend *be, m40_addr dst, m40_addr src, uint64_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    M40_TRY(m40_cuda_enter(c, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemcpyDtoDAsync(dst, src, n_bytes, c->stream), "copying on the device", err));
fail:
    return status;
}

/* Tiles lie row tile by row tile, so that those of a part that fills its last one can be followed by the next part's. */
m40llm_status m40_cuda_matrix_stack(struct m40_backend *be, struct m40_matrix *const *parts, uint32_t n, struct m40_matrix *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix stacked = {.format = parts[0]->format, .n_cols = parts[0]->n_cols};
    uint64_t done_bytes = 0;

    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < n; i++) {
        M40_FAIL_IF(parts[i]->format != stacked.format || parts[i]->n_cols != stacked.n_cols || (i + 1 < n && parts[i]->n_rows % M40_STACK_ROWS),
                    M40LLM_INVALID_ARGUMENT, "a stack of matrices that do not fit on each other");
        stacked.n_rows += parts[i]->n_rows;
        stacked.size_bytes += parts[i]->size_bytes;
    }
    M40_FAIL_IF(stacked.n_rows > (uint64_t)M40_CUDA_N_COUNTERS * M40_TILE_ROWS, M40LLM_UNSUPPORTED, "a matrix of %llu rows: at most %u",
                (unsigned long long)stacked.n_rows, (unsigned)M40_CUDA_N_COUNTERS * M40_TILE_ROWS);
    M40_TRY(m40_cuda_alloc(be, stacked.size_bytes, &stacked.data, err));
    for (uint32_t i = 0; i < n; i++) {
        M40_TRY(m40_cuda_copy(be, stacked.data + done_bytes, parts[i]->data, parts[i]->size_bytes, err));
        done_bytes += parts[i]->size_bytes;
    }
    for (uint32_t i = 0; i < n; i++)
        be->ops.matrix_destroy(be, parts[i]);
    *out = stacked;
    return M40LLM_OK;
fail:
    m40_cuda_free(be, stacked.data);
    return status;
}

m40llm_status m40_cuda_sync(struct m40_backend *be, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    M40_TRY(m40_cuda_enter(c, err));
    c->counters.n_syncs++;
    M40_TRY(m40_cuda_check(c, c->driver->StreamSynchronize(c->stream), "waiting for the device", err));
fail:
    return status;
}

m40llm_status m40_cuda_read(struct m40_backend *be, void *dst, m40_addr src, uint64_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    M40_TRY(m40_cuda_enter(c, err));
    for (uint64_t done = 0; done < n_bytes;) {
        uint64_t n = n_bytes - done < M40_CUDA_READ_BYTES ? n_bytes - done : M40_CUDA_READ_BYTES;

        M40_TRY(m40_cuda_check(c, c->driver->MemcpyDtoHAsync(c->read_buffer, src + done, n, c->stream), "copying from the device", err));
        c->counters.n_syncs++;
        M40_TRY(m40_cuda_check(c, c->driver->StreamSynchronize(c->stream), "waiting for a copy from the device", err));
        memcpy((uint8_t *)dst + done, c->read_buffer, n);
        done += n;
    }
    if (n_bytes == 0)
        M40_TRY(m40_cuda_sync(be, err));
fail:
    return status;
}

static m40llm_status alloc_area(struct m40_cuda *c, uint64_t n_bytes, struct m40_cuda_area *out, m40llm_error *err)
{
    m40llm_status status = m40_cuda_alloc(&c->base, n_bytes, &out->addr, err);

    out->n_bytes = status == M40LLM_OK ? n_bytes : 0;
    return status;
}

m40llm_status m40_cuda_reserve(struct m40_backend *be, const struct m40_workload *workload, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_scratch_sizes sizes = m40_cuda_scratch_sizes(workload);

    M40_TRY(m40_cuda_sync(be, err));
    m40_cuda_forget_steps(c);
    free_scratch(c);
    M40_TRY(alloc_area(c, sizes.block_sums_bytes, &c->scratch.block_sums, err));
    M40_TRY(alloc_area(c, sizes.partials_bytes, &c->scratch.partials, err));
    M40_TRY(alloc_area(c, sizes.counters_bytes, &c->scratch.counters, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(c->scratch.counters.addr, 0, sizes.counters_bytes, c->stream), "clearing counters", err));
    c->workload = *workload;
    m40_cuda_report_loading(c);
    return M40LLM_OK;
fail:
    free_scratch(c);
    return status;
}
