#include "bench/bench_device.h"

#include "base/mem.h"

#include <stdlib.h>

enum { SAMPLES = 21, QUICK_SAMPLES = 3, MAX_REPETITIONS = 1024, QUICK_COPIES = 2, TRIAL_REPETITIONS = 4 };
enum { PEAK_BLOCKS_A_SM = 8, PEAK_RUNS = 5, PEAK_MAX_ROUNDS = 1 << 20 };

static const double sample_s = 2e-3, peak_run_s = 2e-3;

/* ---- events ---- */

static m40llm_status begin(struct bench_device *d, m40llm_error *err)
{
    return m40_cuda_check(d->cuda, d->cuda->driver->EventRecord(d->events[0], d->cuda->stream), "recording an event", err);
}

/* Waits; the seconds since begin(). */
static m40llm_status end(struct bench_device *d, double *out_s, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *driver = d->cuda->driver;
    float ms = 0.0f;

    M40_TRY(m40_cuda_check(d->cuda, driver->EventRecord(d->events[1], d->cuda->stream), "recording an event", err));
    M40_TRY(m40_cuda_check(d->cuda, driver->EventSynchronize(d->events[1]), "waiting for an event", err));
    M40_TRY(m40_cuda_check(d->cuda, driver->EventElapsedTime(&ms, d->events[0], d->events[1]), "timing", err));
    *out_s = (double)ms * 1e-3;
fail:
    return status;
}

/* ---- the FP32 peak ---- */

static m40llm_status time_peak(struct bench_device *d, CUfunction function, const struct peak_fma_args *args, double *out_s, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(begin(d, err));
    M40_TRY(m40_cuda_launch(d->cuda, function, d->cuda->n_sms * PEAK_BLOCKS_A_SM, 1, 1, M40_CUDA_MAX_THREADS, args, err));
    M40_TRY(end(d, out_s, err));
fail:
    return status;
}

/* Rounds are doubled until a run is long enough to be timed; then the fastest of a few counts. */
static m40llm_status measure_peak(struct bench_device *d, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct peak_fma_args args = {.n_rounds = 1, .factor = 0.5f, .offset = 1.0f};
    double seconds = 0.0, best_s = 0.0, n_fmas;
    CUfunction function = NULL;
    m40_addr sink = 0;

    M40_TRY(m40_cuda_kernel(d->cuda, "peak", "peak_fma", &function, err));
    M40_TRY(m40_cuda_alloc(d->backend, sizeof(float), &sink, err));
    args.sink = m40_cuda_ptr(sink);
    M40_TRY(time_peak(d, function, &args, &seconds, err));
    do {
        args.n_rounds *= 2;
        M40_TRY(time_peak(d, function, &args, &seconds, err));
    } while (seconds < peak_run_s && args.n_rounds < PEAK_MAX_ROUNDS);
    best_s = seconds;
    for (int i = 0; i < PEAK_RUNS && !d->is_quick; i++) {
        M40_TRY(time_peak(d, function, &args, &seconds, err));
        best_s = seconds < best_s ? seconds : best_s;
    }
    n_fmas = (double)args.n_rounds * PEAK_ROUND_FMAS * M40_CUDA_MAX_THREADS * PEAK_BLOCKS_A_SM * d->cuda->n_sms;
    d->fma_flop_s = best_s > 0 ? 2 * n_fmas / best_s : 0;
fail:
    m40_cuda_free(d->backend, sink);
    return status;
}

/* ---- open and close ---- */

m40llm_status bench_open(struct bench_device *d, const m40llm_device_options *options, bool is_quick, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    int l2_bytes = 0;

    *d = (struct bench_device){.is_quick = is_quick};
    M40_TRY(m40_backend_open_cuda(&d->backend, options, err));
    d->cuda = m40_cuda_of(d->backend);
    d->backend->ops.get_info(d->backend, &d->info);
    for (int i = 0; i < 2; i++)
        M40_TRY(m40_cuda_check(d->cuda, d->cuda->driver->EventCreate(&d->events[i], 0), "creating an event", err));
    M40_TRY(m40_cuda_check(d->cuda, d->cuda->driver->DeviceGetAttribute(&l2_bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, d->cuda->device),
                           "asking for the L2 cache's size", err));
    d->l2_bytes = (uint64_t)l2_bytes;
    M40_TRY(measure_peak(d, err));
    M40_TRY(d->backend->ops.measure_bandwidth(d->backend, &d->read_bytes_s, err));
    return M40LLM_OK;
fail:
    bench_close(d);
    return status;
}

void bench_close(struct bench_device *d)
{
    for (int i = 0; i < 2; i++)
        if (d->events[i])
            d->cuda->driver->EventDestroy(d->events[i]);
    m40_backend_close(&d->backend);
    *d = (struct bench_device){0};
}

/* ---- timing ---- */

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

void bench_summarise(double *seconds, uint32_t n, struct bench_time *out)
{
    qsort(seconds, n, sizeof *seconds, by_value);
    out->n_samples = n;
    out->min_s = seconds[0];
    out->median_s = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2;
    out->spread = out->median_s > 0 ? (seconds[(n - 1) * 9 / 10] - seconds[(n - 1) / 10]) / out->median_s : 0;
}

static m40llm_status issue_all(struct bench_device *d, const struct bench_work *work, uint32_t n, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (uint32_t i = 0; i < n; i++)
        M40_TRY(work->issue(d->backend, work->args, i, err));
fail:
    return status;
}

/* Runs it for the first time, and says how often it fits into a sample. */
static m40llm_status choose_repetitions(struct bench_device *d, const struct bench_work *work, uint32_t *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    double seconds = 0.0, n;

    M40_TRY(issue_all(d, work, 1, err));
    *out = work->n_copies;
    if (d->is_quick)
        return M40LLM_OK;
    M40_TRY(begin(d, err));
    M40_TRY(issue_all(d, work, TRIAL_REPETITIONS, err));
    M40_TRY(end(d, &seconds, err));
    n = seconds > 0 ? sample_s * TRIAL_REPETITIONS / seconds : MAX_REPETITIONS;
    *out = n > MAX_REPETITIONS ? MAX_REPETITIONS : (uint32_t)n + 1;
    *out = (uint32_t)m40_round_up(*out, work->n_copies);
fail:
    return status;
}

static m40llm_status capture(struct bench_device *d, const struct bench_work *work, uint32_t n, CUgraphExec *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *driver = d->cuda->driver;
    CUgraph graph = NULL;
    CUresult ended;

    M40_TRY(m40_cuda_check(d->cuda, driver->StreamBeginCapture(d->cuda->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "beginning a capture", err));
    status = issue_all(d, work, n, err);
    ended = driver->StreamEndCapture(d->cuda->stream, &graph); /* also behind an error */
    if (status != M40LLM_OK)
        goto fail;
    M40_TRY(m40_cuda_check(d->cuda, ended, "ending a capture", err));
    M40_TRY(m40_cuda_check(d->cuda, driver->GraphInstantiate(out, graph, 0), "making a graph", err));
fail:
    if (graph)
        driver->GraphDestroy(graph);
    return status;
}

m40llm_status bench_time(struct bench_device *d, const struct bench_work *work, struct bench_time *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *driver = d->cuda->driver;
    const uint32_t n_samples = d->is_quick ? QUICK_SAMPLES : SAMPLES;
    double seconds[SAMPLES];
    CUgraphExec graph = NULL;

    M40_TRY(choose_repetitions(d, work, &out->n_repetitions, err));
    M40_TRY(capture(d, work, out->n_repetitions, &graph, err));
    M40_TRY(m40_cuda_check(d->cuda, driver->GraphLaunch(graph, d->cuda->stream), "launching a graph", err));
    for (uint32_t i = 0; i < n_samples; i++) {
        M40_TRY(begin(d, err));
        M40_TRY(m40_cuda_check(d->cuda, driver->GraphLaunch(graph, d->cuda->stream), "launching a graph", err));
        M40_TRY(end(d, &seconds[i], err));
        seconds[i] /= out->n_repetitions;
    }
    bench_summarise(seconds, n_samples, out);
fail:
    if (graph)
        driver->GraphExecDestroy(graph);
    return status;
}

/* ---- memory ---- */

uint32_t bench_n_copies(const struct bench_device *d, uint64_t n_bytes)
{
    uint64_t n = 2 * d->l2_bytes / n_bytes + 1;

    if (n_bytes > 2 * d->l2_bytes)
        return 1;
    return d->is_quick && n > QUICK_COPIES ? QUICK_COPIES : n > MAX_REPETITIONS ? MAX_REPETITIONS : (uint32_t)n;
}

m40llm_status bench_repeat(struct bench_device *d, m40_addr addr, uint64_t n_seed_bytes, uint64_t n_bytes, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (uint64_t done = n_seed_bytes; done < n_bytes; done *= 2)
        M40_TRY(m40_cuda_check(d->cuda,
                               d->cuda->driver->MemcpyDtoDAsync(addr + done, addr, done < n_bytes - done ? done : n_bytes - done, d->cuda->stream),
                               "copying on the device", err));
fail:
    return status;
}

m40llm_status bench_upload(struct bench_device *d, const void *seed, uint64_t n_seed_bytes, uint64_t n_bytes, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(m40_cuda_alloc(d->backend, n_bytes, out, err));
    M40_TRY(m40_cuda_write(d->backend, *out, seed, n_seed_bytes < n_bytes ? n_seed_bytes : n_bytes, err));
    M40_TRY(bench_repeat(d, *out, n_seed_bytes, n_bytes, err));
fail:
    return status; /* the caller frees *out */
}
