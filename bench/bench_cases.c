#include "bench/bench_cases.h"

#include "base/clock.h"
#include "base/half.h"
#include "base/mem.h"
#include "backend/cuda/cuda_launch_cublas.h"
#include "engine/sampler.h"
#include "model/synth_fill.h"

#include <math.h>

enum { SEED_ROWS = 256, SEED_FLOATS = 1 << 16, SAMPLING_SAMPLES = 21, SAMPLING_QUICK_SAMPLES = 3 };

uint32_t bench_max(struct bench_sizes sizes)
{
    uint32_t max = 0;

    for (size_t i = 0; i < sizes.n; i++)
        max = sizes.values[i] > max ? sizes.values[i] : max;
    return max;
}

/* Uniform in [-1, 1). */
static float random_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) * 0x1p-23f - 1.0f;
}

/* Device memory of n floats, or (is_half) n FP16 numbers, all in [-1, 1). */
static m40llm_status make_numbers(struct bench_device *d, uint64_t n, bool is_half, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    float *seed = m40_calloc(SEED_FLOATS, sizeof *seed);
    uint16_t *halves = (uint16_t *)seed; /* as many bytes: twice the numbers */
    uint64_t random = 1;

    M40_FAIL_IF(!seed, M40LLM_NO_MEMORY, "random numbers");
    for (uint32_t i = 0; i < SEED_FLOATS * (is_half ? 2u : 1u); i++) {
        if (is_half)
            halves[i] = m40_f32_to_f16(random_float(&random));
        else
            seed[i] = random_float(&random);
    }
    M40_TRY(bench_upload(d, seed, SEED_FLOATS * sizeof *seed, n * (is_half ? sizeof *halves : sizeof *seed), out, err));
fail:
    m40_free(seed);
    return status;
}

static m40llm_status time_row(struct bench_device *d, const struct bench_work *work, struct bench_row *row, const struct bench_sink *sink,
                              m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(bench_time(d, work, &row->time, err));
    M40_TRY(sink->row(sink->user, row, err));
fail:
    return status;
}

/* ---- matmul ---- */

/* Copies of one matrix lie copy_bytes apart; each repeats the row tiles of a lower matrix. */
struct matmul_work {
    struct m40_matrix first;
    uint64_t copy_bytes;
    uint32_t n_copies;
    m40_addr x, y;
    uint32_t n_tokens;
};

static m40llm_status issue_matmul(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct matmul_work *work = data;
    struct m40_matrix w = work->first;
    struct m40_matmul_args args = {.w = &w, .x = work->x, .y = work->y, .n_tokens = work->n_tokens};

    w.data += i % work->n_copies * work->copy_bytes;
    return be->ops.matmul(be, &args, err);
}

/* A matrix of at most SEED_ROWS rows, made on the host. */
static m40llm_status make_seed(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct m40_matrix *out,
                               m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_synth_filling filling;
    uint64_t row_bytes = 0, n_bytes;
    uint8_t *rows = NULL;

    M40_FAIL_IF(!m40_dtype_row_bytes(format->type, n_cols, &row_bytes), M40LLM_INVALID_ARGUMENT, "%u columns are no multiple of a %s block", n_cols,
                format->type->name);
    n_bytes = row_bytes * n_rows;
    rows = m40_calloc(n_bytes, 1);
    M40_FAIL_IF(!rows, M40LLM_NO_MEMORY, "weights");
    m40_synth_filling_init(&filling, format->type->number, 0, 1.0f / sqrtf((float)n_cols));
    for (uint64_t i = 0; i * filling.slice_bytes < n_bytes; i++) {
        uint64_t left = n_bytes - i * filling.slice_bytes;

        m40_synth_make_slice(&filling, i, rows + i * filling.slice_bytes, left < filling.slice_bytes ? left : filling.slice_bytes);
    }
    M40_TRY(d->backend->ops.matrix_create(d->backend, format, n_rows, n_cols, rows, out, err));
fail:
    m40_free(rows);
    return status;
}

/* As many copies of a matrix as work->n_copies says; 0: as exceed the L2 cache. */
static m40llm_status make_weights(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct matmul_work *work,
                                  m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_matrix seed = {0};
    struct m40_matrix *w = &work->first;
    uint64_t n_seed_bytes;

    M40_TRY(make_seed(d, format, n_rows < SEED_ROWS ? n_rows : SEED_ROWS, n_cols, &seed, err));
    *w = seed;
    w->n_rows = n_rows;
    M40_FAIL_IF(!m40_format_tiled_bytes(format, n_rows, n_cols, &w->size_bytes), M40LLM_INVALID_ARGUMENT, "a matrix of %u x %u", n_rows, n_cols);
    if (!work->n_copies)
        work->n_copies = bench_n_copies(d, w->size_bytes);
    work->copy_bytes = m40_round_up(w->size_bytes, 256);
    w->data = 0;
    M40_TRY(m40_cuda_alloc(d->backend, work->copy_bytes * work->n_copies, &w->data, err));
    n_seed_bytes = seed.size_bytes < w->size_bytes ? seed.size_bytes : w->size_bytes;
    for (uint32_t i = 0; i < work->n_copies; i++) {
        m40_addr copy = w->data + i * work->copy_bytes;

        M40_TRY(m40_cuda_check(d->cuda, d->cuda->driver->MemcpyDtoDAsync(copy, seed.data, n_seed_bytes, d->cuda->stream), "copying weights", err));
        M40_TRY(bench_repeat(d, copy, n_seed_bytes, w->size_bytes, err));
    }
fail:
    if (seed.data)
        d->backend->ops.matrix_destroy(d->backend, &seed);
    return status; /* the caller frees w->data */
}

m40llm_status bench_matmul(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct bench_sizes tokens,
                           bool by_cublas, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint64_t max_tokens = bench_max(tokens);
    struct matmul_work args = {.n_tokens = 0};
    struct bench_work work = {.issue = issue_matmul, .args = &args};

    if (d->cuda->cublas)
        d->cuda->cublas->min_tokens = by_cublas ? 1 : UINT32_MAX;
    M40_TRY(make_weights(d, format, n_rows, n_cols, &args, err));
    M40_TRY(make_numbers(d, max_tokens * n_cols, false, &args.x, err));
    M40_TRY(m40_cuda_alloc(d->backend, max_tokens * n_rows * sizeof(float), &args.y, err));
    work.n_copies = args.n_copies;
    for (size_t i = 0; i < tokens.n; i++) {
        struct bench_row row = {.op = by_cublas ? "matmul by cuBLAS" : "matmul", .type = format->type->name, .n_rows = n_rows, .n_cols = n_cols};

        row.n_tokens = args.n_tokens = tokens.values[i];
        row.n_bytes = (double)args.first.size_bytes + (double)row.n_tokens * ((double)n_rows + n_cols) * sizeof(float);
        row.n_flops = 2.0 * n_rows * n_cols * row.n_tokens;
        M40_TRY(time_row(d, &work, &row, sink, err));
    }
fail:
    m40_cuda_free(d->backend, args.first.data);
    m40_cuda_free(d->backend, args.x);
    m40_cuda_free(d->backend, args.y);
    return status;
}

m40llm_status bench_numbers(struct bench_device *d, uint64_t n, m40_addr *out, m40llm_error *err)
{
    return make_numbers(d, n, false, out, err);
}

m40llm_status bench_weights(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct m40_matrix *out,
                            m40llm_error *err)
{
    struct matmul_work work = {.n_copies = 1};
    m40llm_status status = make_weights(d, format, n_rows, n_cols, &work, err);

    *out = work.first;
    return status;
}

/* ---- cublasSgemm ---- */

struct sgemm_work {
    const struct m40_cublas *cublas;
    struct m40_cublas_matrix x, w, y; /* w: the first of n_copies */
    uint64_t copy_bytes;
    uint32_t n_copies;
};

static m40llm_status issue_sgemm(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct sgemm_work *work = data;
    struct m40_cublas_matrix w = work->w;

    (void)be;
    w.addr += i % work->n_copies * work->copy_bytes;
    return m40_cublas_multiply(work->cublas, &work->x, &w, &work->y, false, err);
}

static struct m40_cublas_matrix dense(m40_addr addr, uint64_t n_rows, uint64_t n_cols)
{
    return (struct m40_cublas_matrix){addr, n_rows * n_cols * sizeof(float), n_rows, n_cols, n_cols};
}

m40llm_status bench_sgemm(struct bench_device *d, uint32_t n_rows, uint32_t n_cols, struct bench_sizes tokens, const struct bench_sink *sink,
                          m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint64_t max_tokens = bench_max(tokens), n_weights = (uint64_t)n_rows * n_cols;
    struct sgemm_work args = {.cublas = d->cuda->cublas->library, .copy_bytes = m40_round_up(n_weights * sizeof(float), 256)};
    struct bench_work work = {.issue = issue_sgemm, .args = &args};
    m40_addr x = 0, w = 0, y = 0;

    args.n_copies = work.n_copies = bench_n_copies(d, args.copy_bytes);
    M40_TRY(make_numbers(d, args.copy_bytes / sizeof(float) * args.n_copies, false, &w, err));
    M40_TRY(make_numbers(d, max_tokens * n_cols, false, &x, err));
    M40_TRY(m40_cuda_alloc(d->backend, max_tokens * n_rows * sizeof(float), &y, err));
    for (size_t i = 0; i < tokens.n; i++) {
        struct bench_row row = {.op = "cublasSgemm", .type = "f32", .n_rows = n_rows, .n_cols = n_cols, .n_tokens = tokens.values[i]};

        args.w = dense(w, n_rows, n_cols);
        args.x = dense(x, row.n_tokens, n_cols);
        args.y = dense(y, row.n_tokens, n_rows);
        row.n_bytes = (double)(args.w.n_bytes + args.x.n_bytes + args.y.n_bytes);
        row.n_flops = 2.0 * (double)n_weights * row.n_tokens;
        M40_TRY(time_row(d, &work, &row, sink, err));
    }
fail:
    m40_cuda_free(d->backend, w);
    m40_cuda_free(d->backend, x);
    m40_cuda_free(d->backend, y);
    return status;
}

/* ---- attention ---- */

/* Caches of one layer, layer_bytes apart; all use the same pages, which lie scattered. */
struct attention_work {
    struct m40_kv_layer kv;
    uint64_t layer_bytes;
    uint32_t n_copies;
    struct m40_rows rows;
    m40_addr q, y;
};

static m40llm_status issue_attention(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct attention_work *work = data;
    struct m40_kv_layer kv = work->kv;
    struct m40_attention_args args = {.kv = &kv, .rows = &work->rows, .q = work->q, .y = work->y, .n_heads = BENCH_HEADS};

    args.q_stride = BENCH_HEADS * BENCH_HEAD_DIM;
    args.scale = 1.0f / sqrtf((float)BENCH_HEAD_DIM);
    kv.base += i % work->n_copies * work->layer_bytes;
    return be->ops.attention(be, &args, err);
}

/* pos: n_tokens positions that end at n_ctx - 1; slots: zero; pages: all of the cache's, in an order with a stride. */
static m40llm_status make_rows(struct bench_device *d, uint32_t n_tokens, uint32_t n_ctx, struct m40_rows *rows, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_pages = m40_cuda_div_up(n_ctx, M40_KV_PAGE), n = n_pages > n_tokens ? n_pages : n_tokens;
    int32_t *values = m40_calloc(n, sizeof *values);

    *rows = (struct m40_rows){.n_tokens = n_tokens, .max_pos = n_ctx - 1, .n_slot_pages = n_pages};
    M40_FAIL_IF(!values, M40LLM_NO_MEMORY, "a page table");
    M40_TRY(bench_upload(d, values, n * sizeof *values, n * sizeof *values, &rows->slot, err));
    for (uint32_t i = 0; i < n_tokens; i++)
        values[i] = (int32_t)(n_ctx - n_tokens + i);
    M40_TRY(bench_upload(d, values, n_tokens * sizeof *values, n_tokens * sizeof *values, &rows->pos, err));
    for (uint32_t i = 0, page = 0; i < n_pages; i++, page = (page + 2) % n_pages ? (page + 2) % n_pages : 1)
        values[i] = (int32_t)page;
    M40_TRY(bench_upload(d, values, n_pages * sizeof *values, n_pages * sizeof *values, &rows->pages, err));
fail:
    m40_free(values);
    return status;
}

static m40llm_status attention_at(struct bench_device *d, uint32_t n_tokens, uint32_t n_ctx, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint64_t n_row = (uint64_t)BENCH_HEADS * BENCH_HEAD_DIM;
    struct attention_work args = {.kv = {.type = M40LLM_KV_F16, .n_kv_heads = BENCH_KV_HEADS, .head_dim = BENCH_HEAD_DIM}};
    struct bench_work work = {.issue = issue_attention, .args = &args};
    struct bench_row row = {.op = n_tokens > 1 ? "attention prefill" : "attention decode", .type = "f16", .n_tokens = n_tokens, .n_ctx = n_ctx};

    args.kv.n_pages = m40_cuda_div_up(n_ctx, M40_KV_PAGE);
    args.layer_bytes = (uint64_t)args.kv.n_pages * 2 * BENCH_KV_HEADS * M40_KV_PAGE * BENCH_HEAD_DIM * sizeof(uint16_t);
    args.n_copies = work.n_copies = bench_n_copies(d, args.layer_bytes);
    M40_TRY(make_numbers(d, args.layer_bytes / sizeof(uint16_t) * args.n_copies, true, &args.kv.base, err));
    M40_TRY(make_numbers(d, n_tokens * n_row, false, &args.q, err));
    M40_TRY(m40_cuda_alloc(d->backend, n_tokens * n_row * sizeof(float), &args.y, err));
    M40_TRY(make_rows(d, n_tokens, n_ctx, &args.rows, err));
    row.n_bytes = (double)args.layer_bytes + 2.0 * n_tokens * (double)n_row * sizeof(float);
    row.n_flops = 4.0 * (double)n_row * n_tokens * (n_ctx - (n_tokens - 1) / 2.0);
    M40_TRY(time_row(d, &work, &row, sink, err));
fail:
    m40_cuda_free(d->backend, args.kv.base);
    m40_cuda_free(d->backend, args.q);
    m40_cuda_free(d->backend, args.y);
    m40_cuda_free(d->backend, args.rows.pos);
    m40_cuda_free(d->backend, args.rows.slot);
    m40_cuda_free(d->backend, args.rows.pages);
    return status;
}

m40llm_status bench_attention(struct bench_device *d, bool is_prefill, struct bench_sizes contexts, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (size_t i = 0; i < contexts.n; i++)
        M40_TRY(attention_at(d, is_prefill ? contexts.values[i] : 1, contexts.values[i], sink, err));
fail:
    return status;
}

/* ---- element-wise operations: their data comes from the operation before, so nothing is rotated ---- */

struct plain_work {
    m40_addr x, y, weight;
    struct m40_rows rows;
    uint32_t n_tokens;
};

static m40llm_status issue_norm(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct plain_work *work = data;
    struct m40_rms_norm_args args = {
        .x = work->x, .y = work->y, .weight = work->weight, .n_rows = work->n_tokens, .n_cols = BENCH_HIDDEN, .eps = 1e-5f};

    (void)i;
    return be->ops.rms_norm(be, &args, err);
}

/* x: q, k and v of a token side by side; y serves as the cache. */
static m40llm_status issue_rope_append(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct plain_work *work = data;
    struct m40_rows rows = work->rows;
    struct m40_kv_layer kv = {.base = work->y, .n_pages = rows.n_slot_pages, .n_kv_heads = BENCH_KV_HEADS, .head_dim = BENCH_HEAD_DIM};
    struct m40_rope_append_args args = {.kv = &kv,
                                        .rows = &rows,
                                        .q = work->x,
                                        .k = work->x + BENCH_HIDDEN * sizeof(float),
                                        .v = work->x + (BENCH_HIDDEN + BENCH_KV_WIDTH) * sizeof(float),
                                        .q_stride = BENCH_QKV,
                                        .kv_stride = BENCH_QKV,
                                        .table = work->weight,
                                        .n_heads = BENCH_HEADS,
                                        .n_rot = BENCH_HEAD_DIM,
                                        .style = M40_ROPE_NORM};

    (void)i;
    rows.n_tokens = work->n_tokens;
    return be->ops.rope_append(be, &args, err);
}

static m40llm_status issue_silu(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    const struct plain_work *work = data;
    struct m40_glu_args args = {
        .gate = work->x, .up = work->weight, .y = work->y, .n_rows = work->n_tokens, .n_cols = BENCH_FFN, .stride = BENCH_FFN};

    (void)i;
    return be->ops.glu(be, &args, err);
}

/* One operation: floats of x and y a token, of the weight a token and once, and the bytes a token moves. */
struct plain_op {
    const char *name;
    m40llm_status (*issue)(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err);
    uint32_t n_cols, n_weight_token, n_weight;
    double n_bytes_token;
};

static m40llm_status time_plain(struct bench_device *d, const struct plain_op *op, struct bench_sizes tokens, const struct bench_sink *sink,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint64_t max_tokens = bench_max(tokens);
    struct plain_work args = {.n_tokens = 0};
    struct bench_work work = {.issue = op->issue, .args = &args, .n_copies = 1};
    struct m40_rows rows = {0};

    M40_TRY(make_numbers(d, max_tokens * op->n_cols, false, &args.x, err));
    M40_TRY(make_numbers(d, max_tokens * op->n_weight_token + op->n_weight, false, &args.weight, err));
    M40_TRY(m40_cuda_alloc(d->backend, m40_round_up(max_tokens, M40_KV_PAGE) * op->n_cols * sizeof(float), &args.y,
                           err)); /* whole pages of a cache, too */
    M40_TRY(make_rows(d, (uint32_t)max_tokens, (uint32_t)max_tokens, &rows, err));
    args.rows = rows;
    for (size_t i = 0; i < tokens.n; i++) {
        struct bench_row row = {.op = op->name, .n_cols = op->n_cols, .n_tokens = tokens.values[i]};

        args.n_tokens = row.n_tokens;
        row.n_bytes = op->n_bytes_token * row.n_tokens + op->n_weight * sizeof(float);
        M40_TRY(time_row(d, &work, &row, sink, err));
    }
fail:
    m40_cuda_free(d->backend, args.x);
    m40_cuda_free(d->backend, args.weight);
    m40_cuda_free(d->backend, args.y);
    m40_cuda_free(d->backend, rows.pos);
    m40_cuda_free(d->backend, rows.slot);
    m40_cuda_free(d->backend, rows.pages);
    return status;
}

m40llm_status bench_norm(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err)
{
    const struct plain_op op = {"rms_norm", issue_norm, BENCH_HIDDEN, 0, BENCH_HIDDEN, 2.0 * BENCH_HIDDEN * sizeof(float)};

    return time_plain(d, &op, tokens, sink, err);
}

m40llm_status bench_rope(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err)
{
    const struct plain_op op = {"rope_append",
                                issue_rope_append,
                                BENCH_QKV,
                                BENCH_HEAD_DIM,
                                0,
                                (2.0 * BENCH_HIDDEN + 2.0 * BENCH_KV_WIDTH + BENCH_HEAD_DIM) * sizeof(float) +
                                    2.0 * BENCH_KV_WIDTH * sizeof(uint16_t)};

    return time_plain(d, &op, tokens, sink, err);
}

m40llm_status bench_silu(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err)
{
    const struct plain_op op = {"silu_mul", issue_silu, BENCH_FFN, BENCH_FFN, 0, 3.0 * BENCH_FFN * sizeof(float)};

    return time_plain(d, &op, tokens, sink, err);
}

/* ---- sampling ---- */

/* Logits are sums of four uniform numbers: few are near the greatest, as in a model's. A way to choose: a name for the table, and parameters. */
struct sampling_case {
    const char *host_name, *device_name;
    float temperature, top_p, min_p;
    uint32_t top_k;
};

static const struct sampling_case sampling_cases[] = {
    {"greedy (host)", "greedy", 0, 1, 0, 0},
    {"temperature (host)", "temperature", 0.8f, 1, 0, 0},
    {"top-k, top-p (host)", "top-k, top-p", 0.8f, 0.95f, 0, 40},
    {"top-p, min-p (host)", "top-p, min-p", 0.8f, 0.95f, 0.05f, 0},
};

static m40llm_sampling sampling_params(const struct sampling_case *c)
{
    m40llm_sampling params = M40LLM_SAMPLING_INIT;

    params.temperature = c->temperature;
    params.top_p = c->top_p;
    params.min_p = c->min_p;
    params.top_k = c->top_k;
    return params;
}

static m40llm_status time_sampling_on_host(struct bench_device *d, const struct sampling_case *c, float *logits, uint32_t n_vocab,
                                           const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct bench_row row = {.op = c->host_name, .n_cols = n_vocab, .n_tokens = 1, .n_bytes = (double)n_vocab * sizeof(float)};
    const uint32_t n_samples = d->is_quick ? SAMPLING_QUICK_SAMPLES : SAMPLING_SAMPLES;
    const m40llm_sampling params = sampling_params(c);
    struct m40_sampler sampler = {0};
    double seconds[SAMPLING_SAMPLES];

    M40_TRY(m40_sampler_init(&sampler, &params, n_vocab, err));
    m40_sampler_choose(&sampler, logits, &(struct m40_history){0}, 0, 0);
    for (uint32_t i = 0; i < n_samples; i++) {
        uint64_t begin_ns = m40_now_ns();

        m40_sampler_choose(&sampler, logits, &(struct m40_history){0}, 0, i);
        seconds[i] = (double)(m40_now_ns() - begin_ns) * 1e-9;
    }
    row.time.n_repetitions = 1;
    bench_summarise(seconds, n_samples, &row.time);
    M40_TRY(sink->row(sink->user, &row, err));
fail:
    m40_sampler_free(&sampler);
    return status;
}

static m40llm_status issue_sample(struct m40_backend *be, const void *data, uint32_t i, m40llm_error *err)
{
    (void)i;
    return be->ops.sample(be, data, err);
}

/* x: [BENCH_SAMPLING_ROWS][n_vocab] */
static m40llm_status time_sampling_on_device(struct bench_device *d, const struct sampling_case *c, m40_addr x, uint32_t n_vocab,
                                             const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const m40llm_sampling params = sampling_params(c);
    struct m40_sample_args args = {.x = x, .n_cols = n_vocab};
    struct bench_work work = {.issue = issue_sample, .args = &args, .n_copies = 1};
    struct m40_sample_row rows[BENCH_SAMPLING_ROWS];
    struct m40_sampler sampler = {0};

    M40_TRY(m40_sampler_init(&sampler, &params, n_vocab, err));
    for (uint32_t i = 0; i < BENCH_SAMPLING_ROWS; i++)
        rows[i] = m40_sampler_row(&sampler, 0, i);
    M40_TRY(bench_upload(d, rows, sizeof rows, sizeof rows, &args.rows, err));
    M40_TRY(m40_cuda_alloc(d->backend, BENCH_SAMPLING_ROWS * sizeof(int32_t), &args.ids, err));
    for (args.n_rows = 1; args.n_rows <= BENCH_SAMPLING_ROWS; args.n_rows += BENCH_SAMPLING_ROWS - 1) {
        struct bench_row row = {.op = c->device_name, .n_cols = n_vocab, .n_tokens = args.n_rows};

        row.n_bytes = (double)args.n_rows * n_vocab * sizeof(float);
        M40_TRY(time_row(d, &work, &row, sink, err));
    }
fail:
    m40_sampler_free(&sampler);
    m40_cuda_free(d->backend, args.rows);
    m40_cuda_free(d->backend, args.ids);
    return status;
}

m40llm_status bench_sampling(struct bench_device *d, uint32_t n_vocab, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const size_t n_floats = (size_t)BENCH_SAMPLING_ROWS * n_vocab;
    float *logits = m40_calloc(n_floats, sizeof *logits);
    uint64_t random = 1;
    m40_addr x = 0;

    M40_FAIL_IF(!logits, M40LLM_NO_MEMORY, "logits");
    for (size_t i = 0; i < n_floats; i++)
        for (int k = 0; k < 4; k++)
            logits[i] += 4.0f * random_float(&random);
    M40_TRY(bench_upload(d, logits, n_floats * sizeof *logits, n_floats * sizeof *logits, &x, err));
    for (size_t i = 0; i < sizeof sampling_cases / sizeof *sampling_cases; i++) {
        M40_TRY(time_sampling_on_host(d, &sampling_cases[i], logits, n_vocab, sink, err));
        M40_TRY(time_sampling_on_device(d, &sampling_cases[i], x, n_vocab, sink, err));
    }
fail:
    m40_cuda_free(d->backend, x);
    m40_free(logits);
    return status;
}
