#include "backend/cuda/cuda_launch_cublas.h"

#include "backend/cuda/kernels/matmul_args.h"
#include "base/log.h"
#include "base/mem.h"

enum { MEMORY_SHARE = 16 }; /* of the card's memory, one part for widened weights */
enum { STRIDE_UNIT = 32 };  /* floats: rows of widened weights begin at cache lines */
enum { START_THREADS = 256 };

/* What NVIDIA recommends for cublasSetWorkspace. */
static const uint64_t workspace_bytes = 4 << 20, workspace_bytes_cc90 = 32 << 20;

m40llm_status m40_cuda_cublas_open(struct m40_cuda *c, const m40llm_device_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_cublas *b = m40_calloc(1, sizeof *b);
    const int cc = c->info.cc_major * 10 + c->info.cc_minor;
    uint64_t share = c->info.memory_total_bytes / MEMORY_SHARE;

    M40_FAIL_IF(!b, M40LLM_NO_MEMORY, "cuBLAS state");
    c->cublas = b;
    b->min_tokens = M40_CUBLAS_MIN_TOKENS;
    M40_TRY(m40_cublas_open(&b->library, options->cublas_library, cc, err));
    b->workspace.n_bytes = cc < 90 ? workspace_bytes : workspace_bytes_cc90;
    M40_TRY(m40_cuda_alloc(&c->base, b->workspace.n_bytes, &b->workspace.addr, err));
    b->weights.n_bytes = share < M40_CUBLAS_SCRATCH_BYTES ? share : M40_CUBLAS_SCRATCH_BYTES;
    M40_TRY(m40_cuda_alloc(&c->base, b->weights.n_bytes, &b->weights.addr, err));
    M40_TRY(m40_cublas_start(b->library, c->stream, b->workspace.addr, b->workspace.n_bytes, err));
    M40_TRY(m40_cuda_kernel(c, "rows", "matmul_start", &b->start, err));
    m40_log(&c->base.logger, M40LLM_LOG_WARN, "%s: matmuls of %u tokens and more by cuBLAS %s (%s): not bit-equal", c->info.spec, b->min_tokens,
            b->library->version, b->library->path);
fail:
    return status; /* m40_cuda_cublas_close() releases what there is */
}

void m40_cuda_cublas_close(struct m40_cuda *c)
{
    struct m40_cuda_cublas *b = c->cublas;

    if (!b)
        return;
    m40_cublas_close(&b->library);
    m40_cuda_free(&c->base, b->workspace.addr);
    m40_cuda_free(&c->base, b->weights.addr);
    m40_free(b);
    c->cublas = NULL;
}

/* y = bias + residual, of which one or both are there. */
static m40llm_status start_y(struct m40_cuda *c, const struct m40_matmul_args *args, m40llm_error *err)
{
    struct matmul_start_args k = {.n_rows = (uint32_t)args->w->n_rows};

    k.bias = m40_cuda_ptr(args->bias);
    k.residual = m40_cuda_ptr(args->residual);
    k.y = m40_cuda_ptr(args->y);
    return m40_cuda_launch(c, c->cublas->start, m40_cuda_div_up(k.n_rows, START_THREADS), args->n_tokens, 1, START_THREADS, &k, err);
}

/* The weights of n row tiles from first on -> scratch, stride floats a row. */
static m40llm_status widen(struct m40_cuda *c, CUfunction dequant, const struct m40_matrix *w, uint32_t first, uint32_t n, uint32_t stride,
                           m40llm_error *err)
{
    struct dequant_kernel_args k = {.n_cols = (uint32_t)w->n_cols, .first_row_tile = first, .stride = stride};

    k.tiles = m40_cuda_ptr(w->data);
    k.w = m40_cuda_ptr(c->cublas->weights.addr);
    return m40_cuda_launch(c, dequant, n, m40_cuda_div_up(w->n_cols, MATMUL_CHUNK), 1, DEQUANT_THREADS, &k, err);
}

m40llm_status m40_cuda_cublas_matmul(struct m40_cuda *c, CUfunction dequant, const struct m40_matmul_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_cuda_cublas *b = c->cublas;
    const struct m40_matrix *w = args->w;
    const uint64_t n_tokens = args->n_tokens, stride = m40_round_up(w->n_cols, STRIDE_UNIT);
    const uint64_t piece = b->weights.n_bytes / (stride * sizeof(float)) / MATMUL_TILE * MATMUL_TILE; /* rows */
    const bool is_in_place = args->residual == args->y;
    struct m40_cublas_matrix x = {args->x, n_tokens * w->n_cols * sizeof(float), n_tokens, w->n_cols, w->n_cols};

    if (n_tokens == 0)
        return M40LLM_OK;
    M40_FAIL_IF(piece == 0, M40LLM_UNSUPPORTED, "a matrix of %llu columns by cuBLAS: 32 rows do not fit into %llu bytes",
                (unsigned long long)w->n_cols, (unsigned long long)b->weights.n_bytes);
    if (args->bias || (args->residual && !is_in_place))
        M40_TRY(start_y(c, args, err));
    for (uint64_t first = 0; first < w->n_rows; first += piece) {
        const uint64_t n = w->n_rows - first < piece ? w->n_rows - first : piece;
        struct m40_cublas_matrix weights = {b->weights.addr, b->weights.n_bytes, n, w->n_cols, stride};
        struct m40_cublas_matrix y = {args->y + first * sizeof(float), (n_tokens * w->n_rows - first) * sizeof(float), n_tokens, n, w->n_rows};

        M40_TRY(widen(c, dequant, w, (uint32_t)(first / MATMUL_TILE), m40_cuda_div_up(n, MATMUL_TILE), (uint32_t)stride, err));
        M40_TRY(m40_cublas_multiply(b->library, &x, &weights, &y, args->bias || args->residual, err));
    }
fail:
    return status;
}
