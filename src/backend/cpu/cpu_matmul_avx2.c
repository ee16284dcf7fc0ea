/* matmul with AVX2: a SIMD lane owns a row. A thread takes a panel of 32 rows, widens one chunk of it (256 columns) to a tile of floats with the 32 rows side by
 * side, and runs every token over that tile, three tokens at a time: 12 accumulators, 3 broadcast values of x and one vector of weights fill the 16 registers. */
#include "backend/cpu/cpu_backend.h"

#include "base/mem.h"

#include <immintrin.h>

enum { LANES = 8, PANEL_VECTORS = CPU_PANEL_ROWS / LANES, TOKENS_AT_ONCE = 3 };
enum { MAX_SUBS = M40_MATMUL_CHUNK / CPU_MIN_SUB };

/* One thread's memory. */
struct panel {
    float *tile;          /* [256][32]: w of a chunk */
    float *offsets;       /* [MAX_SUBS][32]: m of its sub-blocks */
    float *rows;          /* [8][256]: w of eight rows, before they are transposed */
    float *row_offsets;   /* [8][MAX_SUBS] */
    float *group, *total; /* [n_tokens][32]: sums so far */
};

size_t m40_cpu_matmul_avx2_floats(const struct m40_workload *workload)
{
    return (size_t)(CPU_PANEL_ROWS + LANES) * (M40_MATMUL_CHUNK + MAX_SUBS) + (size_t)workload->n_tokens * CPU_PANEL_ROWS * 2;
}

static struct panel panel_scratch(const struct m40_cpu_backend *cpu)
{
    struct panel p = {.tile = m40_cpu_scratch(cpu)};

    p.offsets = p.tile + M40_MATMUL_CHUNK * CPU_PANEL_ROWS;
    p.rows = p.offsets + MAX_SUBS * CPU_PANEL_ROWS;
    p.row_offsets = p.rows + LANES * M40_MATMUL_CHUNK;
    p.group = p.row_offsets + LANES * MAX_SUBS;
    p.total = p.group + (size_t)cpu->workload.n_tokens * CPU_PANEL_ROWS;
    return p;
}

/* ---- widening a chunk ---- */

/* in: 8 rows of 8 floats, in_stride apart; out: the 8 columns, CPU_PANEL_ROWS apart. */
static void transpose_8x8(const float *in, size_t in_stride, float *out)
{
    __m256 pairs[8], quads[8];

#pragma GCC unroll 4
    for (unsigned i = 0; i < 8; i += 2) {
        __m256 a = _mm256_load_ps(in + i * in_stride), b = _mm256_load_ps(in + (i + 1) * in_stride);

        pairs[i] = _mm256_unpacklo_ps(a, b);     /* columns 0, 1 | 4, 5 of rows i, i + 1 */
        pairs[i + 1] = _mm256_unpackhi_ps(a, b); /* columns 2, 3 | 6, 7 */
    }
#pragma GCC unroll 2
    for (unsigned i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
        for (unsigned j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44); /* column 2j | 2j + 4 of rows i .. i + 3 */
            quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    }
#pragma GCC unroll 4
    for (unsigned c = 0; c < 4; c++) {
        _mm256_store_ps(out + c * CPU_PANEL_ROWS, _mm256_permute2f128_ps(quads[c], quads[c + 4], 0x20));
        _mm256_store_ps(out + (c + 4) * CPU_PANEL_ROWS, _mm256_permute2f128_ps(quads[c], quads[c + 4], 0x31));
    }
}

/* Sixteen columns of eight F16 rows, transposed as halves and then widened. out: the columns, CPU_PANEL_ROWS apart. */
static void widen_f16_8x16(const uint8_t *const *rows, size_t offset_bytes, float *out)
{
    __m256i r[8], pairs[8], quads[8];

#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(const void *)(rows[i] + offset_bytes));
#pragma GCC unroll 4
    for (unsigned i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi16(r[i], r[i + 1]); /* columns 0 .. 3 | 8 .. 11 of rows i, i + 1 */
        pairs[i + 1] = _mm256_unpackhi_epi16(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (unsigned i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
        for (unsigned j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm256_unpacklo_epi32(pairs[i + j], pairs[i + j + 2]); /* columns 4j, 4j + 1 | + 8 of rows i .. i + 3 */
            quads[i + 2 * j + 1] = _mm256_unpackhi_epi32(pairs[i + j], pairs[i + j + 2]);
        }
    }
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; j++) {
        __m256i even = _mm256_unpacklo_epi64(quads[j], quads[j + 4]), odd = _mm256_unpackhi_epi64(quads[j], quads[j + 4]);
        float *column = out + 2 * j * CPU_PANEL_ROWS;

        _mm256_store_ps(column, _mm256_cvtph_ps(_mm256_castsi256_si128(even)));
        _mm256_store_ps(column + CPU_PANEL_ROWS, _mm256_cvtph_ps(_mm256_castsi256_si128(odd)));
        _mm256_store_ps(column + 8 * CPU_PANEL_ROWS, _mm256_cvtph_ps(_mm256_extracti128_si256(even, 1)));
        _mm256_store_ps(column + 9 * CPU_PANEL_ROWS, _mm256_cvtph_ps(_mm256_extracti128_si256(odd, 1)));
    }
}

/* n columns of eight rows, any format -> tile and offsets, both at the first of the eight lanes. */
static void widen_rows(const struct panel *p, const struct m40_format *format, const uint8_t *const *rows, uint32_t n, float *tile, float *offsets)
{
    const m40_cpu_weights_fn weights = m40_cpu_weights_avx2(format);
    uint32_t n_subs = format->sub ? n / format->sub : 0;

    for (unsigned i = 0; i < LANES; i++)
        weights(rows[i], n / format->type->block_elems, p->rows + i * M40_MATMUL_CHUNK, p->row_offsets + i * MAX_SUBS);
    for (uint32_t c = 0; c < n; c += 8) /* what lies behind column n is never used */
        transpose_8x8(p->rows + c, M40_MATMUL_CHUNK, tile + c * CPU_PANEL_ROWS);
    for (uint32_t s = 0; s < n_subs; s++)
        for (unsigned i = 0; i < LANES; i++)
            offsets[s * CPU_PANEL_ROWS + i] = p->row_offsets[i * MAX_SUBS + s];
}

static void widen_rows_f16(const struct panel *p, const struct m40_format *format, const uint8_t *const *rows, uint32_t n, float *tile)
{
    const uint8_t *rest[LANES];
    uint32_t c = 0;

    for (; c + 16 <= n; c += 16)
        widen_f16_8x16(rows, c * sizeof(uint16_t), tile + c * CPU_PANEL_ROWS);
    if (c < n) {
        for (unsigned i = 0; i < LANES; i++)
            rest[i] = rows[i] + c * sizeof(uint16_t);
        widen_rows(p, format, rest, n - c, tile + c * CPU_PANEL_ROWS, NULL);
    }
}

/* A chunk of the panel's rows; rows behind the matrix's last are that one again, and their sums are thrown away. */
static void widen_panel(const struct panel *p, const struct m40_matrix *matrix, uint64_t first_row, uint64_t first_col, uint32_t n)
{
    const struct m40_format *format = matrix->format;
    const size_t row_bytes = m40_cpu_row_bytes(matrix);
    const size_t first_byte = first_col / format->type->block_elems * format->type->block_bytes;
    const size_t chunk_bytes = M40_MATMUL_CHUNK / format->type->block_elems * format->type->block_bytes;

    for (unsigned v = 0; v < PANEL_VECTORS; v++) {
        const uint8_t *rows[LANES];

        for (unsigned i = 0; i < LANES; i++) {
            uint64_t r = first_row + v * LANES + i;

            rows[i] = (const uint8_t *)m40_cpu_ptr(matrix->data) + (r < matrix->n_rows ? r : matrix->n_rows - 1) * row_bytes + first_byte;
            for (size_t ahead = 0; ahead < chunk_bytes; ahead += 64)
                _mm_prefetch((const char *)((uintptr_t)rows[i] + chunk_bytes + ahead), _MM_HINT_T0);
        }
        if (format->type->number == M40_DTYPE_F16)
            widen_rows_f16(p, format, rows, n, p->tile + v * LANES);
        else
            widen_rows(p, format, rows, n, p->tile + v * LANES, p->offsets + v * LANES);
    }
}

/* ---- multiplying ---- */

/* What the tokens of one step over a tile see. */
struct chunk {
    const float *x, *sx; /* of the first token, at this chunk's first column and sub-block */
    size_t x_stride, sx_stride;
    uint32_t n, sub;
    bool starts_group, ends_group, is_first_group;
};

/* Adds a chunk's sum of 8 rows to what the earlier chunks left. */
static inline void add_chunk(const struct chunk *chunk, __m256 sum, float *group, float *total)
{
    if (!chunk->starts_group)
        sum = _mm256_add_ps(_mm256_load_ps(group), sum);
    _mm256_store_ps(group, sum);
    if (chunk->ends_group)
        _mm256_store_ps(total, chunk->is_first_group ? sum : _mm256_add_ps(_mm256_load_ps(total), sum));
}

/* N tokens, a constant, from the t-th on. */
static inline __attribute__((always_inline)) void multiply(const struct panel *p, const struct chunk *chunk, uint32_t t, const unsigned N)
{
    const float *x = chunk->x + t * chunk->x_stride, *sx = chunk->sx + t * chunk->sx_stride, *w = p->tile, *m = p->offsets;
    const uint32_t step = chunk->sub ? chunk->sub : chunk->n;
    __m256 acc[TOKENS_AT_ONCE][PANEL_VECTORS] = {0};

    for (uint32_t first = 0; first < chunk->n; first += step) {
        for (uint32_t c = first; c < first + step; c++, w += CPU_PANEL_ROWS) {
            __m256 value[TOKENS_AT_ONCE];

#pragma GCC unroll 3
            for (unsigned i = 0; i < N; i++)
                value[i] = _mm256_broadcast_ss(x + i * chunk->x_stride + c);
#pragma GCC unroll 4
            for (unsigned v = 0; v < PANEL_VECTORS; v++) {
                __m256 weights = _mm256_load_ps(w + v * LANES);

#pragma GCC unroll 3
                for (unsigned i = 0; i < N; i++)
                    acc[i][v] = _mm256_fmadd_ps(weights, value[i], acc[i][v]);
            }
        }
        if (!chunk->sub)
            break;
#pragma GCC unroll 3
        for (unsigned i = 0; i < N; i++) {
            __m256 sum_of_x = _mm256_broadcast_ss(sx + i * chunk->sx_stride);

#pragma GCC unroll 4
            for (unsigned v = 0; v < PANEL_VECTORS; v++)
                acc[i][v] = _mm256_fnmadd_ps(_mm256_load_ps(m + v * LANES), sum_of_x, acc[i][v]);
        }
        m += CPU_PANEL_ROWS;
        sx++;
    }
#pragma GCC unroll 3
    for (unsigned i = 0; i < N; i++)
#pragma GCC unroll 4
        for (unsigned v = 0; v < PANEL_VECTORS; v++)
            add_chunk(chunk, acc[i][v], p->group + (t + i) * CPU_PANEL_ROWS + v * LANES, p->total + (t + i) * CPU_PANEL_ROWS + v * LANES);
}

static void multiply_tokens(const struct panel *p, const struct chunk *chunk, uint32_t n_tokens)
{
    uint32_t t = 0;

    for (; t + 3 <= n_tokens; t += 3)
        multiply(p, chunk, t, 3);
    if (n_tokens - t == 2)
        multiply(p, chunk, t, 2);
    else if (n_tokens - t == 1)
        multiply(p, chunk, t, 1);
}

static void finish_panel(const struct panel *p, const struct m40_matmul_args *args, uint64_t first_row)
{
    const float *bias = m40_cpu_ptr(args->bias), *residual = m40_cpu_ptr(args->residual);
    const uint64_t n_rows = args->w->n_rows;
    uint64_t n = n_rows - first_row < CPU_PANEL_ROWS ? n_rows - first_row : CPU_PANEL_ROWS;

    for (uint32_t t = 0; t < args->n_tokens; t++) {
        size_t at = t * n_rows + first_row;
        float *y = (float *)m40_cpu_ptr(args->y) + at;

        for (uint64_t i = 0; i < n; i++) {
            float value = p->total[t * CPU_PANEL_ROWS + i];

            if (bias)
                value = value + bias[first_row + i];
            if (residual)
                value = value + residual[at + i];
            y[i] = value;
        }
    }
}

static void matmul_panel(const struct m40_cpu_backend *cpu, const struct m40_matmul_args *args, uint64_t first_row)
{
    const struct m40_matrix *matrix = args->w;
    const uint64_t n_cols = matrix->n_cols, n_chunks = (n_cols + M40_MATMUL_CHUNK - 1) / M40_MATMUL_CHUNK;
    const uint32_t sub = matrix->format->sub;
    const struct panel p = panel_scratch(cpu);

    for (uint64_t i = 0; i < n_chunks; i++) {
        uint64_t first = i * M40_MATMUL_CHUNK, left = n_cols - first;
        struct chunk chunk = {
            .x = (const float *)m40_cpu_ptr(args->x) + first,
            .sx = cpu->sub_sums + (sub ? first / sub : 0),
            .x_stride = n_cols,
            .sx_stride = sub ? n_cols / sub : 0,
            .n = left < M40_MATMUL_CHUNK ? (uint32_t)left : M40_MATMUL_CHUNK,
            .sub = sub,
            .starts_group = i % M40_MATMUL_GROUP == 0,
            .ends_group = i % M40_MATMUL_GROUP == M40_MATMUL_GROUP - 1 || i == n_chunks - 1,
            .is_first_group = i < M40_MATMUL_GROUP,
        };

        widen_panel(&p, matrix, first_row, first, chunk.n);
        multiply_tokens(&p, &chunk, args->n_tokens);
    }
    finish_panel(&p, args, first_row);
}

m40llm_status m40_cpu_matmul_avx2(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err)
{
    struct m40_cpu_backend *cpu = m40_cpu(be);
    m40llm_status status = m40_cpu_matmul_begin(cpu, args, err);

    if (status != M40LLM_OK)
        return status;
#pragma omp parallel for num_threads(m40_cpu_threads(cpu, args->n_tokens * args->w->n_rows * args->w->n_cols)) schedule(dynamic)
    for (uint64_t first_row = 0; first_row < args->w->n_rows; first_row += CPU_PANEL_ROWS)
        matmul_panel(cpu, args, first_row);
    return M40LLM_OK;
}
