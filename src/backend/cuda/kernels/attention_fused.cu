/* attention of docs/numerics.md for rows that share a sequence with their neighbours, as in a prompt: K and V are read once for all of them.
 *
 * A block takes 64 queries, (token, head) pairs of one KV head and neighbouring tokens, walks the pieces of 64 positions upwards and keeps M, L and O; no score leaves the block. Everything passes through
 * shared memory as FP32: chunks of 32 elements of K and Q for the scores, then tiles of 64 columns of V. A thread owns 8 queries, and 4 positions of the scores, d ascending, or 4 columns of V, i
 * ascending. What comes next is on its way to registers meanwhile. */
#include "backend/cuda/kernels/attention_common.h"

enum {
    THREADS = 128,
    QUERIES = 64,
    LINES = 16,                       /* threads that share the same queries */
    MINE = QUERIES * LINES / THREADS, /* queries of a thread: query k SETS + set is its k-th */
    SETS = THREADS / LINES,
    CHUNK = 32,        /* elements of K and Q for the scores */
    CHUNK_STRIDE = 36, /* keeps lanes on neighbouring rows on different banks */
    COLS = 64,         /* of a tile of V */
    SCORE_STRIDE = 80,
    K_WORDS = ATTENTION_PIECE * CHUNK * 2 / 16 / THREADS, /* 128-bit words that a thread brings: of FP16, of K's chunk */
    V_WORDS = ATTENTION_PIECE * COLS * 2 / 16 / THREADS,  /* of V's tile */
    Q_WORDS = QUERIES * CHUNK * 4 / 16 / THREADS,
};

struct fused_shared {
    float tile[ATTENTION_PIECE * CHUNK_STRIDE + QUERIES * CHUNK_STRIDE]; /* chunks of K and Q, or a tile of V, COLS a row */
    float s[QUERIES * SCORE_STRIDE];                                     /* scores as exponentials */
    float m[QUERIES];                                                    /* of the piece */
    float a[QUERIES], b[QUERIES];                                        /* factors of what was and of the piece */
    float l[QUERIES];                                                    /* L, at the end */
    uint32_t pos[QUERIES];
    uint32_t at[QUERIES]; /* where a query's elements begin, counted from the run's first token */
};

/* What a block works on: a run of tokens of one sequence, one position after another. */
struct fused_run {
    uint32_t kv_head, first_head, n_heads;
    uint32_t first_token, n_tokens, slot;
    uint32_t least, greatest; /* positions */
};

/* What a thread has asked for: a chunk of K and Q, or a tile of V. */
struct fused_words {
    struct m40_u32x4 kv[V_WORDS];
    struct m40_f32x4 q[Q_WORDS];
};

/* Asks for n_words words a thread of FP16, row_words a row, from column first on. Columns that do not exist are the row's first ones, and nobody uses them. */
M40_HD void fused_load(const struct kv_view *kv, struct attention_pages pages, uint32_t first, uint32_t n_words, uint32_t row_words,
                       struct m40_u32x4 *words)
{
    uint32_t d = first + simt_thread() % row_words * 8, step = THREADS / row_words * kv->head_dim * 2;
    uint32_t from = simt_thread() / row_words * kv->head_dim * 2 + (d < kv->head_dim ? d : 0) * 2;
    const uint8_t *low = kv->base + pages.low + from, *high = kv->base + pages.high + from;

    if (kv->is_f32)
        return;
    M40_UNROLL
    for (uint32_t k = 0; k < n_words / 2; k++, low += step, high += step) {
        words[k] = m40_load_u32x4(low);
        words[n_words / 2 + k] = m40_load_u32x4(high);
    }
}

/* Puts what fused_load has brought, or, of FP32, loads now, into rows of shared memory stride apart. */
M40_HD void fused_store(const struct kv_view *kv, struct attention_pages pages, uint32_t first, uint32_t n_words, uint32_t row_words, uint32_t stride,
                        const struct m40_u32x4 *words, float *tile)
{
    float *to = tile + simt_thread() / row_words * stride + simt_thread() % row_words * 8;

    if (kv->is_f32) {
        M40_ROLLED
        for (uint32_t item = simt_thread(); item < 2 * n_words * THREADS; item += THREADS) {
            uint32_t i = item / (2 * row_words), column = item % (2 * row_words) * 4, d = first + column < kv->head_dim ? first + column : 0;
            const uint8_t *row = kv->base + (i < KV_PAGE ? pages.low : pages.high) + i % KV_PAGE * kv->head_dim * 4;

            m40_store_f32x4(tile + i * stride + column, m40_load_f32x4((const float *)(const void *)row + d));
        }
        return;
    }
    M40_UNROLL
    for (uint32_t k = 0; k < n_words; k++) {
        struct m40_f32x4 wide[2];

        attention_widen(words[k], 0, wide);
        m40_store_f32x4(to + k * (THREADS / row_words * stride), wide[0]);
        m40_store_f32x4(to + (k * (THREADS / row_words * stride) + 4), wide[1]);
    }
}

M40_HD void fused_load_queries(const struct attention_args *args, const struct fused_shared *shared, const struct fused_run *run, uint32_t first,
                               struct m40_f32x4 *words)
{
    const uint32_t *at = shared->at + simt_thread() / (CHUNK / 4);
    uint32_t d = first + simt_thread() % (CHUNK / 4) * 4;
    const float *q = args->q + (uint64_t)run->first_token * args->q_stride + (d < args->kv.head_dim ? d : 0);

    M40_UNROLL
    for (uint32_t k = 0; k < Q_WORDS; k++)
        words[k] = m40_load_f32x4(q + at[k * (THREADS / (CHUNK / 4))]);
}

M40_HD void fused_load_chunk(const struct attention_args *args, const struct fused_shared *shared, const struct fused_run *run,
                             struct attention_pages k, uint32_t first, struct fused_words *words)
{
    fused_load(&args->kv, k, first, K_WORDS, CHUNK / 8, words->kv);
    fused_load_queries(args, shared, run, first, words->q);
}

M40_HD void fused_store_chunk(const struct attention_args *args, struct fused_shared *shared, struct attention_pages k, uint32_t first,
                              const struct fused_words *words)
{
    float *q = shared->tile + (ATTENTION_PIECE + simt_thread() / (CHUNK / 4)) * CHUNK_STRIDE + simt_thread() % (CHUNK / 4) * 4;

    fused_store(&args->kv, k, first, K_WORDS, CHUNK / 8, CHUNK_STRIDE, words->kv, shared->tile);
    M40_UNROLL
    for (uint32_t w = 0; w < Q_WORDS; w++)
        m40_store_f32x4(q + w * (THREADS / (CHUNK / 4) * CHUNK_STRIDE), words->q[w]);
}

/* dot = fmaf(q[d], k[i][d], dot) over the chunk's n elements, a multiple of 8: position j LINES + line is this thread's j-th. */
M40_HD void fused_dots(const float *tile, uint32_t n, float (*dot)[4])
{
    const float *k_row = tile + simt_thread() % LINES * CHUNK_STRIDE;
    const float *q_row = tile + (ATTENTION_PIECE + simt_thread() / LINES) * CHUNK_STRIDE;

    M40_ROLLED
    for (uint32_t d0 = 0; d0 < n; d0 += 8, k_row += 8, q_row += 8) {
        M40_UNROLL
        for (uint32_t d = 0; d < 8; d += 4) {
            struct m40_f32x4 k4[4];

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                k4[j] = m40_load_f32x4(k_row + (j * LINES * CHUNK_STRIDE + d));
            M40_UNROLL
            for (uint32_t r = 0; r < MINE; r++) {
                struct m40_f32x4 q4 = m40_load_f32x4(q_row + (r * SETS * CHUNK_STRIDE + d));

                M40_UNROLL
                for (uint32_t c = 0; c < 4; c++) {
                    M40_UNROLL
                    for (uint32_t j = 0; j < 4; j++)
                        dot[r][j] = m40_fmaf(q4.v[c], k4[j].v[c], dot[r][j]);
                }
            }
        }
    }
}

M40_HD void fused_scale(const struct attention_args *args, float (*dot)[4])
{
    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            dot[r][j] = args->scale * dot[r][j];
    }
    if (args->softcap == 0.0f)
        return;
    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            dot[r][j] = attention_capped(args, dot[r][j]);
    }
}

/* Exponentials of this thread's scores, and m of its queries, to shared memory. Whoever sees nothing of the piece leaves anything there. */
M40_HD void fused_exponentials(const struct attention_args *args, struct fused_shared *shared, uint32_t piece, uint32_t is_whole, float (*dot)[4])
{
    const float lowest = m40_bits_to_f32(0xff800000u);
    uint32_t line = simt_thread() % LINES, set = simt_thread() / LINES;
    const uint32_t *pos = shared->pos + set;
    float m[MINE], *to = shared->s + set * SCORE_STRIDE + line, *to_m = shared->m + set;

    fused_scale(args, dot);
    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        struct attention_range range = {0, ATTENTION_PIECE};

        if (!is_whole)
            range = attention_visible(args->window, pos[r * SETS], piece);
        m[r] = lowest;
        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t i = j * LINES + line;

            m[r] = range.begin <= i && i < range.end ? attention_greater(m[r], dot[r][j]) : m[r];
        }
    }
    M40_UNROLL
    for (uint32_t d = LINES / 2; d > 0; d /= 2) {
        M40_UNROLL
        for (uint32_t r = 0; r < MINE; r++)
            m[r] = attention_greater(m[r], simt_shfl_xor_f32(m[r], d));
    }
    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            to[r * SETS * SCORE_STRIDE + j * LINES] = m40_expf_down(dot[r][j] - m[r]);
        if (line == 0)
            to_m[r * SETS] = m[r];
    }
}

M40_HD float fused_sum(const float *e, struct attention_range range)
{
    uint32_t i = range.begin;
    float l = 0.0f;

    for (; i < range.end && i % 8; i++)
        l = l + e[i];
    for (; i + 8 <= range.end; i += 8) {
        struct m40_f32x4 low = m40_load_f32x4(e + i), high = m40_load_f32x4(e + i + 4);

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            l = l + low.v[j];
        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            l = l + high.v[j];
    }
    for (; i < range.end; i++)
        l = l + e[i];
    return l;
}

/* M and L of the query that this thread keeps them for move on; the factors go to shared memory. Of a piece that it does not see, they leave everything as it is: fmaf(0, -0, x * 1) is x. */
M40_HD void fused_move_on(const struct attention_args *args, struct fused_shared *shared, uint32_t piece, float *max, float *sum)
{
    uint32_t query = simt_thread(), pos = shared->pos[query];
    struct attention_range range = attention_visible(args->window, pos, piece);
    float m = shared->m[query], l, before, after;

    if (range.begin >= range.end) {
        shared->a[query] = 1.0f;
        shared->b[query] = -0.0f;
        return;
    }
    l = fused_sum(shared->s + query * SCORE_STRIDE, range);
    before = piece == attention_first(args->window, pos) / ATTENTION_PIECE ? m : *max;
    after = attention_greater(before, m);
    shared->a[query] = m40_expf_down(before - after);
    shared->b[query] = m40_expf_down(m - after);
    *sum = m40_fmaf(l, shared->b[query], *sum * shared->a[query]);
    *max = after;
}

/* o = fmaf(e[i], v[i][d], o) for this thread's queries and columns over positions begin .. end - 1, multiples of 4, which all of them see. */
M40_HD void fused_values(const struct fused_shared *shared, uint32_t begin, uint32_t end, float (*o)[4])
{
    const float *v_row = shared->tile + simt_thread() % LINES * 4, *e = shared->s + simt_thread() / LINES * SCORE_STRIDE;

    v_row += begin * COLS;
    e += begin;
    M40_ROLLED
    for (uint32_t i = begin; i < end; i += 4, v_row += 4 * COLS, e += 4) {
        struct m40_f32x4 v4[4];

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            v4[j] = m40_load_f32x4(v_row + j * COLS);
        M40_UNROLL
        for (uint32_t r = 0; r < MINE; r++) {
            struct m40_f32x4 e4 = m40_load_f32x4(e + r * SETS * SCORE_STRIDE);

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++) {
                M40_UNROLL
                for (uint32_t c = 0; c < 4; c++)
                    o[r][c] = m40_fmaf(e4.v[j], v4[j].v[c], o[r][c]);
            }
        }
    }
}

/* The same where only some see a position. */
M40_HD void fused_values_seen(const struct attention_args *args, const struct fused_shared *shared, uint32_t piece, uint32_t begin, uint32_t end,
                              float (*o)[4])
{
    const float *v_row = shared->tile + simt_thread() % LINES * 4, *e = shared->s + simt_thread() / LINES * SCORE_STRIDE;
    const uint32_t *pos = shared->pos + simt_thread() / LINES;
    struct attention_range range[MINE];

    if (begin >= end)
        return;
    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++)
        range[r] = attention_visible(args->window, pos[r * SETS], piece);
    v_row += begin * COLS;
    e += begin;
    M40_ROLLED
    for (uint32_t i = begin; i < end; i++, v_row += COLS, e++) {
        struct m40_f32x4 v4 = m40_load_f32x4(v_row);

        M40_UNROLL
        for (uint32_t r = 0; r < MINE; r++) {
            float weight = e[r * SETS * SCORE_STRIDE];

            M40_UNROLL
            for (uint32_t c = 0; c < 4; c++) {
                float added = m40_fmaf(weight, v4.v[c], o[r][c]);

                o[r][c] = range[r].begin <= i && i < range[r].end ? added : o[r][c];
            }
        }
    }
}

/* Adds a piece's o to O. */
M40_HD void fused_merge(const struct fused_shared *shared, float (*o)[4], float (*out)[4])
{
    const float *a_set = shared->a + simt_thread() / LINES, *b_set = shared->b + simt_thread() / LINES;

    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        float a = a_set[r * SETS], b = b_set[r * SETS];

        M40_UNROLL
        for (uint32_t c = 0; c < 4; c++)
            out[r][c] = m40_fmaf(o[r][c], b, out[r][c] * a);
    }
}

/* Where the queries of a run are. Ends with a barrier. */
M40_HD void fused_open(const struct attention_args *args, struct fused_shared *shared, struct fused_run *run)
{
    run->slot = (uint32_t)args->kv.slot[run->first_token];
    run->least = (uint32_t)args->kv.pos[run->first_token];
    run->greatest = run->least + run->n_tokens - 1;
    simt_barrier(); /* of the run before, everybody has read what changes now */
    if (simt_thread() < QUERIES) {
        uint32_t query = simt_thread() < run->n_tokens * run->n_heads ? simt_thread() : 0; /* one that does not exist does what the first one does */
        uint32_t token = query / run->n_heads;

        shared->pos[simt_thread()] = run->least + token;
        shared->at[simt_thread()] = token * args->q_stride + (run->first_head + query % run->n_heads) * args->kv.head_dim;
    }
    simt_barrier();
}

#define TILES      1
#define ATTN(name) name##_64
#include "backend/cuda/kernels/attention_fused_tmpl.h"

#define TILES      2
#define ATTN(name) name##_128
#include "backend/cuda/kernels/attention_fused_tmpl.h"
