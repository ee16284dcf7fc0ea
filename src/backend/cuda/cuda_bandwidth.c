/* How fast a card reads its own memory. */
#include "backend/cuda/cuda_internal.h"

enum { RUNS = 5, BLOCKS_A_SM = 8, READS_IN_FLIGHT = 8 /* of bandwidth.cu */, WORD_BYTES = 16 };

static const uint64_t buffer_max_bytes = (uint64_t)2 << 30; /* far beyond any cache */

/* Seconds of the fastest run; the first one warms up. */
static m40llm_status time_reads(struct m40_cuda *c, CUfunction function, const struct bandwidth_read_args *args, const CUevent *events, double *out_s,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *d = c->driver;
    float best_ms = 0.0f;

    for (int run = 0; run <= RUNS; run++) {
        float ms = 0.0f;

        M40_TRY(m40_cuda_check(c, d->EventRecord(events[0], c->stream), "recording an event", err));
        M40_TRY(m40_cuda_launch(c, function, c->n_sms * BLOCKS_A_SM, 1, 1, M40_CUDA_MAX_THREADS, args, err));
        M40_TRY(m40_cuda_check(c, d->EventRecord(events[1], c->stream), "recording an event", err));
        M40_TRY(m40_cuda_wait_event(c, events[1], err));
        M40_TRY(m40_cuda_check(c, d->EventElapsedTime(&ms, events[0], events[1]), "timing", err));
        if (run == 1 || (run > 1 && ms < best_ms))
            best_ms = ms;
    }
    *out_s = (double)best_ms * 1e-3;
fail:
    return status;
}

m40llm_status m40_cuda_measure_bandwidth(struct m40_backend *be, double *out_bytes_per_s, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    const uint64_t round_bytes = (uint64_t)c->n_sms * BLOCKS_A_SM * M40_CUDA_MAX_THREADS * READS_IN_FLIGHT * WORD_BYTES;
    CUevent events[2] = {NULL, NULL};
    CUfunction function = NULL;
    size_t n_free = 0, n_total = 0;
    m40_addr data = 0, sink = 0;
    uint64_t n_bytes;
    struct bandwidth_read_args args;
    double seconds = 0.0;

    *out_bytes_per_s = 0.0;
    M40_TRY(m40_cuda_kernel(c, "bandwidth", "bandwidth_read", &function, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemGetInfo(&n_free, &n_total), "asking for free memory", err));
    n_bytes = n_free / 2 < buffer_max_bytes ? n_free / 2 : buffer_max_bytes;
    n_bytes -= n_bytes % round_bytes;
    M40_FAIL_IF(n_bytes == 0, M40LLM_OUT_OF_DEVICE_MEMORY, "%.1f MiB needed on %s to measure with, %.1f MiB are free",
                (double)round_bytes * 2 / 0x1p20, c->info.spec, (double)n_free / 0x1p20);
    M40_TRY(m40_cuda_alloc(be, n_bytes, &data, err));
    M40_TRY(m40_cuda_alloc(be, sizeof(uint32_t), &sink, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(data, 0, n_bytes, c->stream), "clearing memory", err));
    for (int i = 0; i < 2; i++)
        M40_TRY(m40_cuda_check(c, c->driver->EventCreate(&events[i], 0), "creating an event", err));
    args = (struct bandwidth_read_args){.data = m40_cuda_ptr(data), .sink = m40_cuda_ptr(sink), .n_words = n_bytes / WORD_BYTES};
    M40_TRY(time_reads(c, function, &args, events, &seconds, err));
    M40_FAIL_IF(!(seconds > 0.0), M40LLM_DRIVER, "%s: reading %llu bytes took no time", c->info.spec, (unsigned long long)n_bytes);
    *out_bytes_per_s = (double)n_bytes / seconds;
fail:
    for (int i = 0; i < 2; i++)
        if (events[i])
            c->driver->EventDestroy(events[i]);
    m40_cuda_free(be, data);
    m40_cuda_free(be, sink);
    return status;
}
