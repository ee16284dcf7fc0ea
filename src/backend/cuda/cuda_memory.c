/* Device memory, and the copies to and from it. */
#include "backend/cuda/cuda_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <string.h>

enum { STAGE_ALIGN = 256 };

m40llm_status m40_cuda_alloc_pinned(struct m40_cuda *c, uint64_t n_bytes, void **out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *out = NULL;
    M40_TRY(m40_cuda_enter(c, err));
    M40_CUDA_TRY(c->driver, c->driver->MemHostAlloc(out, n_bytes, 0), "%s: %.1f MiB of pinned memory", c->info.spec, (double)n_bytes / 0x1p20);
    c->counters.n_allocs++;
fail:
    return status;
}

void m40_cuda_free_pinned(struct m40_cuda *c, void *ptr)
{
    if (!ptr || m40_cuda_enter(c, NULL) != M40LLM_OK)
        return;
    c->counters.n_allocs++;
    c->driver->MemFreeHost(ptr);
}

static m40llm_status open_read_buffer(struct m40_cuda *c, uint64_t n_bytes, m40llm_error *err)
{
    void *host;
    m40llm_status status = m40_cuda_alloc_pinned(c, n_bytes, &host, err);

    if (status != M40LLM_OK)
        return status;
    m40_cuda_free_pinned(c, c->read_buffer);
    c->read_buffer = host;
    c->read_bytes = n_bytes;
    return M40LLM_OK;
}

m40llm_status m40_cuda_memory_open(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    void *host = NULL;

    M40_TRY(m40_cuda_alloc_pinned(c, (uint64_t)M40_CUDA_N_STAGES * M40_CUDA_STAGE_BYTES, &host, err));
    c->staging.host = host;
    M40_TRY(open_read_buffer(c, M40_CUDA_READ_BYTES, err));
    for (unsigned i = 0; i < M40_CUDA_N_STAGES; i++)
        M40_TRY(m40_cuda_check(c, c->driver->EventCreate(&c->staging.sent[i], CU_EVENT_DISABLE_TIMING), "creating an event", err));
fail:
    return status; /* m40_cuda_memory_close() releases what there is */
}

static void free_scratch(struct m40_cuda *c)
{
    m40_cuda_free(&c->base, c->scratch.prepared_x.addr);
    m40_cuda_free(&c->base, c->scratch.x_sums.addr);
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
    m40_cuda_free_pinned(c, c->staging.host);
    m40_cuda_free_pinned(c, c->read_buffer);
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
    m40_cuda_wait(c, NULL);
    m40_cuda_forget_steps(c);
    c->counters.n_allocs++;
    c->driver->MemFree(addr);
}

/* Nothing is under way any more: the ring of stages starts over, so that a step's writes, which end with a wait, never wait for room in it. */
m40llm_status m40_cuda_wait(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    c->counters.n_syncs++;
    M40_TRY(m40_cuda_check(c, c->driver->StreamSynchronize(c->stream), "waiting for the device", err));
    c->steps.waited = c->steps.clock;
    memset(c->staging.is_sending, 0, sizeof c->staging.is_sending);
    c->staging.current = 0;
    c->staging.n_used = 0;
fail:
    return status;
}

m40llm_status m40_cuda_wait_event(struct m40_cuda *c, CUevent event, m40llm_error *err)
{
    c->counters.n_syncs++;
    return m40_cuda_check(c, c->driver->EventSynchronize(event), "waiting for the device", err);
}

/* The stage is full: the next one, once what it held has been sent. */
static m40llm_status next_stage(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_staging *s = &c->staging;

    M40_TRY(m40_cuda_check(c, c->driver->EventRecord(s->sent[s->current], c->stream), "recording an event", err));
    s->is_sending[s->current] = true;
    s->current = (s->current + 1) % M40_CUDA_N_STAGES;
    s->n_used = 0;
    if (s->is_sending[s->current])
        M40_TRY(m40_cuda_wait_event(c, s->sent[s->current], err));
    s->is_sending[s->current] = false;
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

m40llm_status m40_cuda_sync(struct m40_backend *be, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    M40_TRY(m40_cuda_enter(c, err));
    M40_TRY(m40_cuda_wait(c, err));
fail:
    return status;
}

m40llm_status m40_cuda_read(struct m40_backend *be, void *dst, m40_addr src, uint64_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);

    M40_TRY(m40_cuda_enter(c, err));
    for (uint64_t done = 0; done < n_bytes;) {
        uint64_t n = n_bytes - done < c->read_bytes ? n_bytes - done : c->read_bytes;

        M40_TRY(m40_cuda_check(c, c->driver->MemcpyDtoHAsync(c->read_buffer, src + done, n, c->stream), "copying from the device", err));
        M40_TRY(m40_cuda_wait(c, err));
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
    uint64_t read_bytes = workload->read_bytes < M40_CUDA_READ_MAX_BYTES ? workload->read_bytes : M40_CUDA_READ_MAX_BYTES;

    M40_TRY(m40_cuda_sync(be, err));
    m40_cuda_forget_steps(c);
    free_scratch(c);
    M40_TRY(alloc_area(c, sizes.prepared_x_bytes, &c->scratch.prepared_x, err));
    M40_TRY(alloc_area(c, sizes.x_sums_bytes, &c->scratch.x_sums, err));
    M40_TRY(alloc_area(c, sizes.partials_bytes, &c->scratch.partials, err));
    M40_TRY(alloc_area(c, sizes.counters_bytes, &c->scratch.counters, err));
    if (read_bytes > c->read_bytes)
        M40_TRY(open_read_buffer(c, read_bytes, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(c->scratch.counters.addr, 0, sizes.counters_bytes, c->stream), "clearing counters", err));
    c->workload = *workload;
    m40_cuda_report_loading(c);
    return M40LLM_OK;
fail:
    free_scratch(c);
    return status;
}
