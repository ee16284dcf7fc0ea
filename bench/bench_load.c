/* What loading a model is made of: copies over the bus from and to pinned memory, and whole matrices from the file's format to tiles on the card. */
#include "bench/bench_cases.h"

#include "base/clock.h"
#include "base/mem.h"

enum { COPY_BYTES = 64 << 20, QUICK_COPY_BYTES = 1 << 20 };
enum { LOAD_ROWS = 65536, QUICK_LOAD_ROWS = 96, LOAD_COLS = 4096, LOAD_SAMPLES = 7, QUICK_LOAD_SAMPLES = 2 };

struct copy_work {
    void *host;
    m40_addr device;
    uint64_t n_bytes;
};

static m40llm_status issue_copy_in(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const struct copy_work *work = data;

    (void)i;
    return m40_cuda_check(c, c->driver->MemcpyHtoDAsync(work->device, work->host, work->n_bytes, c->stream), "copying to the device", err);
}

static m40llm_status issue_copy_out(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    struct m40_cuda *c = m40_cuda_of(be);
    const struct copy_work *work = data;

    (void)i;
    return m40_cuda_check(c, c->driver->MemcpyDtoHAsync(work->host, work->device, work->n_bytes, c->stream), "copying from the device", err);
}

m40llm_status bench_copy(struct bench_device *d, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct copy_work args = {.n_bytes = d->is_quick ? QUICK_COPY_BYTES : COPY_BYTES};
    struct bench_work in = {issue_copy_in, &args, 1}, out = {issue_copy_out, &args, 1};
    struct bench_row row = {.n_bytes = (double)args.n_bytes};

    M40_TRY(m40_cuda_alloc_pinned(d->cuda, args.n_bytes, &args.host, err));
    M40_TRY(m40_cuda_alloc(d->backend, args.n_bytes, &args.device, err));
    row.op = "copy to the card";
    M40_TRY(bench_time(d, &in, &row.time, err));
    M40_TRY(sink->row(sink->user, &row, err));
    row.op = "copy from the card";
    M40_TRY(bench_time(d, &out, &row.time, err));
    M40_TRY(sink->row(sink->user, &row, err));
fail:
    m40_cuda_free(d->backend, args.device);
    m40_cuda_free_pinned(d->cuda, args.host);
    return status;
}

/* From the first byte read to the last tile written. */
static m40llm_status load_once(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, const void *rows, double *out_s,
                               m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix w = {0};
    uint64_t begin_ns = m40_now_ns();

    M40_TRY(d->backend->ops.matrix_create(d->backend, format, n_rows, LOAD_COLS, rows, &w, err));
    M40_TRY(d->backend->ops.sync(d->backend, err));
    *out_s = (double)(m40_now_ns() - begin_ns) * 1e-9;
fail:
    d->backend->ops.matrix_destroy(d->backend, &w);
    return status;
}

m40llm_status bench_load(struct bench_device *d, const struct m40_format *format, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_samples = d->is_quick ? QUICK_LOAD_SAMPLES : LOAD_SAMPLES;
    struct bench_row row = {.op = "load", .type = format->type->name, .n_rows = d->is_quick ? QUICK_LOAD_ROWS : LOAD_ROWS, .n_cols = LOAD_COLS};
    double seconds[LOAD_SAMPLES];
    uint64_t row_bytes = 0;
    uint8_t *rows = NULL;

    M40_FAIL_IF(!m40_dtype_row_bytes(format->type, LOAD_COLS, &row_bytes), M40LLM_UNSUPPORTED, "rows of %d columns", LOAD_COLS);
    row.n_bytes = (double)row_bytes * row.n_rows;
    rows = m40_calloc_aligned(row_bytes, row.n_rows); /* written, so that every page is there */
    M40_FAIL_IF(!rows, M40LLM_NO_MEMORY, "weights");
    M40_TRY(load_once(d, format, row.n_rows, rows, &seconds[0], err)); /* modules and pinned memory */
    for (uint32_t i = 0; i < n_samples; i++)
        M40_TRY(load_once(d, format, row.n_rows, rows, &seconds[i], err));
    row.time.n_repetitions = 1;
    bench_summarise(seconds, n_samples, &row.time);
    M40_TRY(sink->row(sink->user, &row, err));
fail:
    d->backend->ops.matrix_create_end(d->backend);
    m40_free(rows);
    return status;
}
