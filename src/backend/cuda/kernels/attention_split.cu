/* attention of docs/numerics.md for rows that share nothing with their neighbours, as in decoding: the positions are what can be shared out. Every piece of 64 leaves (m, l, o) in memory. Few pieces are
 * merged by the last block of their heads to arrive, a warp a head; many by attention_merge, whose grid is wider.
 *
 *  attention_split_N  for many pieces: a warp takes one piece and up to N query heads of one KV head. It works alone, so that the warps of a multiprocessor drift apart and some load while others compute. K
 *                     comes in chunks of 64 or 128 bytes a row, the next one on its way to registers while one is worked on, and is turned in shared memory: a lane owns two positions and all heads, d
 *                     ascending. V goes from the cache to registers as it lies: a lane owns four columns and all heads, i ascending.
 *  attention_near     for few: a block takes one piece and a warp each of its heads, so that all of K and V is under way at once. */
#include "backend/cuda/kernels/attention_common.h"

enum {
    WARPS = 4, /* of a block: pieces that it takes */
    THREADS = WARPS * SIMT_WARP,
    MAX_HEAD_DIM = 256,
    LANE_COLS = 4, /* of V */
    WARP_COLS = LANE_COLS * SIMT_WARP,
    LINE = 128,      /* bytes of a cache line */
    NEAR_WORDS = 16, /* 128-bit words of a row that attention_near has room for */
    NEAR_STRIDE = 4 * NEAR_WORDS + 4,
    NEAR_LOADS = ATTENTION_PIECE * NEAR_WORDS / THREADS,
    NEAR_ROWS = 8,
    MERGE_FEW = 8, /* pieces whose o a lane of merge_few asks for at once */
    MERGE_WARPS = 8,
    MERGE_THREADS = MERGE_WARPS * SIMT_WARP,
    MERGE_PIECES = MERGE_THREADS,                         /* that attention_merge has under way at once: a thread makes the factors of one */
    MERGE_ROWS = MERGE_THREADS / (SIMT_WARP / LANE_COLS), /* pieces that a block asks for with one load a thread */
    MERGE_LOADS = MERGE_PIECES / MERGE_ROWS,
    MERGE_BATCH = 8, /* that a lane takes from shared memory ahead */
};

/* How a piece enters the merge: what was, times a, and the piece's own, times b; l is its sum. 128 bits: one load. */
struct merge_factors {
    float a, b, l, unused;
} __attribute__((aligned(16)));

/* The greatest m of the pieces of lanes 0 to this one. Every lane of the warp takes part. */
M40_HD float scan_max(uint32_t is_there, float m)
{
    float max = is_there ? m : m40_bits_to_f32(0xff800000u);

    M40_UNROLL
    for (uint32_t d = 1; d < SIMT_WARP; d *= 2) {
        float other = simt_shfl_f32(max, (simt_lane() - d) % SIMT_WARP);

        max = simt_lane() >= d ? attention_greater(other, max) : max;
    }
    return max;
}

/* The factors of this lane's piece; where there is none, those that change nothing: fmaf(0, -0, x * 1) is x. before: M before the first lane's piece; max: scan_max's. Every lane of the warp
 * takes part. */
M40_HD struct merge_factors make_factors(float before, float max, uint32_t is_there, float m, float l)
{
    float last = simt_shfl_f32(max, (simt_lane() - 1) % SIMT_WARP), after;
    struct merge_factors factors = {1.0f, -0.0f, 0.0f, 0.0f};

    before = simt_lane() > 0 ? attention_greater(before, last) : before;
    after = attention_greater(before, m);
    if (is_there) {
        factors.a = m40_expf_down(before - after);
        factors.b = m40_expf_down(m - after);
        factors.l = l;
    }
    return factors;
}

/* Where (m, l) of a row's first piece lie, in pairs; times head_dim / 2: where o does. */
M40_HD uint64_t piece_row(const struct attention_args *args, uint32_t slice_token, uint32_t head)
{
    return ((uint64_t)slice_token * args->n_heads + head) * args->n_pieces;
}

/* What a warp works on. */
struct split_work {
    const uint8_t *base; /* the cache's */
    uint32_t kv_head, first_head, n_heads, slice_token;
    uint32_t pos, slot, first_piece; /* of the row */
    uint32_t piece;                  /* counted from the row's first one */
    struct attention_range range;
    struct attention_pages k, v;
    uint32_t row_bytes, head_dim;
};

/* Row and heads of this block: its grid is (.., KV head and part of its group, token of the slice). Gives how many pieces the row sees. */
M40_HD uint32_t open_work(const struct attention_args *args, struct split_work *work)
{
    uint32_t token = args->first_token + simt_block_z(), part = simt_block_y() % args->n_parts * args->n_block_heads;

    work->base = args->kv.base;
    work->pos = (uint32_t)args->kv.pos[token];
    work->slot = (uint32_t)args->kv.slot[token];
    work->first_piece = attention_first(args->window, work->pos) / ATTENTION_PIECE;
    work->kv_head = simt_block_y() / args->n_parts;
    work->first_head = work->kv_head * args->n_group + part;
    work->n_heads = attention_min(args->n_group - part, args->n_block_heads);
    work->slice_token = simt_block_z();
    work->head_dim = args->kv.head_dim;
    work->row_bytes = args->kv.head_dim * (args->kv.is_f32 ? 4 : 2);
    return work->pos / ATTENTION_PIECE - work->first_piece + 1;
}

M40_HD void find_piece(const struct attention_args *args, struct split_work *work)
{
    uint32_t piece = work->first_piece + work->piece;

    work->range = attention_visible(args->window, work->pos, piece);
    work->k = attention_find(&args->kv, work->slot, piece, work->range, 0, work->kv_head);
    work->v = attention_find(&args->kv, work->slot, piece, work->range, 1, work->kv_head);
}

/* Whether this block is the last of its row and heads to come here; then what all of them wrote is visible. Called by every thread. */
M40_HD uint32_t arrive(const struct attention_args *args, uint32_t *is_last, uint32_t n_blocks)
{
    uint32_t *counter = args->counters + simt_block_z() * simt_grid_y() + simt_block_y();

    if (n_blocks == 1) {
        simt_barrier();
        return 1;
    }
    simt_fence();
    simt_barrier();
    if (simt_thread() == 0) {
        *is_last = simt_atomic_add_u32(counter, 1) == n_blocks - 1;
        if (*is_last)
            *counter = 0;
    }
    simt_barrier();
    simt_fence();
    return *is_last;
}

/* o of up to MERGE_FEW pieces; of those that do not exist, the last one's. Only addresses depend on n: a test of what was loaded would wait for it. */
M40_HD void load_pieces(const float *o, uint32_t head_dim, uint32_t n, struct m40_f32x4 *piece)
{
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_FEW; k++)
        piece[k] = m40_load_f32x4(o + attention_min(k, n - 1) * head_dim);
}

/* y of one head from n <= 32 pieces, by one warp: a lane owns LANE_COLS columns. */
M40_HD void merge_few(const struct attention_args *args, struct merge_factors *factors, const struct split_work *work, uint32_t head, uint32_t n)
{
    uint64_t row = piece_row(args, work->slice_token, head);
    uint32_t lane = simt_lane(), token = args->first_token + work->slice_token;
    const float *ml = args->ml + row * 2, *mine = ml + attention_min(lane, n - 1) * 2;

    for (uint32_t d0 = 0; d0 < work->head_dim; d0 += WARP_COLS) {
        uint32_t d = d0 + lane * LANE_COLS;
        const float *o = args->o + row * work->head_dim + (d < work->head_dim ? d : 0);
        struct m40_f32x4 out = {{-0.0f, -0.0f, -0.0f, -0.0f}}, piece[MERGE_FEW];
        float sum = -0.0f, max; /* as in attention_merge */

        load_pieces(o, work->head_dim, n, piece);
        max = scan_max(lane < n, mine[0]);
        simt_warp_barrier();
        factors[lane] = make_factors(ml[0], max, lane < n, mine[0], mine[1]);
        simt_warp_barrier();
        for (uint32_t j0 = 0; j0 < n; j0 += MERGE_FEW) {
            if (j0 > 0)
                load_pieces(o + j0 * work->head_dim, work->head_dim, n - j0, piece);
            M40_UNROLL
            for (uint32_t k = 0; k < MERGE_FEW; k++) {
                struct merge_factors f = factors[j0 + k];

                sum = m40_fmaf(f.l, f.b, sum * f.a);
                M40_UNROLL
                for (uint32_t c = 0; c < LANE_COLS; c++)
                    out.v[c] = m40_fmaf(j0 + k < n ? piece[k].v[c] : 0.0f, f.b, out.v[c] * f.a);
            }
        }
        if (args->sinks)
            sum = attention_with_sink(args, head, simt_shfl_f32(max, SIMT_WARP - 1), sum);
        M40_UNROLL
        for (uint32_t c = 0; c < LANE_COLS; c++)
            out.v[c] = out.v[c] / sum;
        if (d < work->head_dim)
            m40_store_f32x4(args->y + ((uint64_t)token * args->n_heads + head) * work->head_dim + d, out);
    }
}

#define MINE       1
#define IS_F32     0
#define ATTN(name) name##_1
#include "backend/cuda/kernels/attention_split_tmpl.h"

#define MINE       2
#define IS_F32     0
#define ATTN(name) name##_2
#include "backend/cuda/kernels/attention_split_tmpl.h"

#define MINE       4
#define IS_F32     0
#define ATTN(name) name##_4
#include "backend/cuda/kernels/attention_split_tmpl.h"

#define MINE       8
#define IS_F32     0
#define ATTN(name) name##_8
#include "backend/cuda/kernels/attention_split_tmpl.h"

#define MINE       4
#define IS_F32     1
#define ATTN(name) name##_f32
#include "backend/cuda/kernels/attention_split_tmpl.h"

/* ---- near ---- */

struct near_shared {
    uint32_t tile[ATTENTION_PIECE * NEAR_STRIDE]; /* K, then V, as the cache stores them */
    float e[WARPS][ATTENTION_PIECE];
    struct merge_factors factors[WARPS][SIMT_WARP];
    float q[WARPS * MAX_HEAD_DIM];
    uint32_t is_last;
};

/* All 64 rows of K or V, the block's threads together. What nobody sees and what does not exist is as in load_chunk. */
M40_HD void near_load(const struct split_work *work, struct attention_pages pages, struct m40_u32x4 *words)
{
    uint32_t column = simt_thread() % NEAR_WORDS * 16;
    uint32_t from = simt_thread() / NEAR_WORDS * work->row_bytes + (column < work->row_bytes ? column : 0);
    const uint8_t *low = work->base + pages.low + from, *high = work->base + pages.high + from;

    M40_UNROLL
    for (uint32_t k = 0; k < NEAR_LOADS / 2; k++) {
        words[k] = m40_load_u32x4(low);
        words[NEAR_LOADS / 2 + k] = m40_load_u32x4(high);
        low += THREADS / NEAR_WORDS * work->row_bytes;
        high += THREADS / NEAR_WORDS * work->row_bytes;
    }
}

M40_HD void near_store(uint32_t *tile, const struct m40_u32x4 *words)
{
    uint32_t *to = tile + simt_thread() / NEAR_WORDS * NEAR_STRIDE + simt_thread() % NEAR_WORDS * 4;

    M40_UNROLL
    for (uint32_t k = 0; k < NEAR_LOADS; k++)
        m40_store_u32x4(to + k * (THREADS / NEAR_WORDS * NEAR_STRIDE), words[k]);
}

/* dot of both positions of this lane with its warp's head. */
M40_HD void near_scores(const struct split_work *work, const uint32_t *tile, const float *q, float (*dot)[1])
{
    const uint32_t *row = tile + simt_lane() * NEAR_STRIDE;
    uint32_t n_words = work->row_bytes / 16, w = 0;

    M40_ROLLED
    for (; w + 4 <= n_words; w += 4)
        add_dots_1(row + w * 4, NEAR_STRIDE, q + w * 8, 4, dot);
    M40_ROLLED
    for (; w < n_words; w++)
        add_dots_1(row + w * 4, NEAR_STRIDE, q + w * 8, 1, dot);
}

/* Adds a position to o of this lane's columns and to l. */
M40_HD void near_value(const float *e, const uint32_t *column, struct m40_f32x4 *o, float *l)
{
    add_value_1(e, *(const struct value_1 *)(const void *)column, o);
    *l = *l + *e;
}

/* o of this lane's columns, and l, for its warp's head. */
M40_HD void near_values(struct attention_range range, const uint32_t *tile, const float *e, struct m40_f32x4 *o, float *l)
{
    const uint32_t *column = tile + range.begin * NEAR_STRIDE + simt_lane() * (LANE_COLS / 2);
    uint32_t i = range.begin;

    M40_ROLLED
    for (; i + NEAR_ROWS <= range.end; i += NEAR_ROWS, column += NEAR_ROWS * NEAR_STRIDE) {
        M40_UNROLL
        for (uint32_t j = 0; j < NEAR_ROWS; j++)
            near_value(e + i + j, column + j * NEAR_STRIDE, o, l);
    }
    M40_ROLLED
    for (; i < range.end; i++, column += NEAR_STRIDE)
        near_value(e + i, column, o, l);
}

/* For few pieces, where time is all latency: a block takes one, with all of K and V under way at once, and a warp each of its up to WARPS heads. FP16 rows of up to 256 bytes.
 * Grid (piece, KV head and part of its group, token of the slice). */
SIMT_KERNEL_RESIDENT(attention_near, struct attention_args, THREADS, 4)
{
    SIMT_SHARED(struct near_shared, shared);
    const uint32_t warp = simt_warp(), d = simt_lane() * LANE_COLS;
    struct m40_u32x4 k[NEAR_LOADS], v[NEAR_LOADS];
    struct m40_f32x4 o = {{0.0f, 0.0f, 0.0f, 0.0f}};
    float dot[2][1] = {{0.0f}}, m, l = 0.0f;
    struct split_work work;
    uint32_t n_pieces = open_work(&args, &work);

    work.piece = simt_block_x();
    if (work.piece >= n_pieces)
        return;
    find_piece(&args, &work);
    near_load(&work, work.k, k);
    near_load(&work, work.v, v);
    stage_queries_4(&args, &work, args.first_token + simt_block_z(), shared->q);
    near_store(shared->tile, k);
    simt_barrier();
    near_scores(&work, shared->tile, shared->q + warp * MAX_HEAD_DIM, dot);
    simt_barrier();
    near_store(shared->tile, v);
    exponentials_1(&args, work.range, dot, shared->e[warp], &m);
    simt_barrier();
    near_values(work.range, shared->tile, shared->e[warp], &o, &l);
    if (warp < work.n_heads) {
        uint64_t piece = piece_row(&args, work.slice_token, work.first_head + warp) + work.piece;

        if (d < work.head_dim)
            m40_store_f32x4(args.o + piece * work.head_dim + d, o);
        if (simt_lane() == 0) {
            args.ml[piece * 2] = m;
            args.ml[piece * 2 + 1] = l;
        }
    }
    if (args.counters && arrive(&args, &shared->is_last, n_pieces) && warp < work.n_heads)
        merge_few(&args, shared->factors[warp], &work, work.first_head + warp, n_pieces);
}

/* ---- merge ---- */

enum { MERGE_STRIDE = SIMT_WARP + LANE_COLS }; /* one value more, and rows aligned to 16 bytes */

struct attention_merge_shared {
    float values[MERGE_PIECES][MERGE_STRIDE]; /* o of this block's columns, and l behind them */
    float a[MERGE_PIECES], b[MERGE_PIECES];
    float max[MERGE_WARPS];
    float sum;
} __attribute__((aligned(16)));

/* What a thread brings of MERGE_PIECES pieces. */
struct merge_words {
    struct m40_f32x4 o[MERGE_LOADS];
    float m, l;
};

/* Pieces from `first` on; of those that do not exist, the last one's. o: the row's first piece at this thread's four columns. */
M40_HD struct merge_words merge_load(const float *o, const float *ml, uint32_t head_dim, uint32_t first, uint32_t n)
{
    const float *mine = ml + (uint64_t)attention_min(first + simt_thread(), n - 1) * 2;
    struct merge_words words;

    words.m = mine[0];
    words.l = mine[1];
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_LOADS; k++)
        words.o[k] = m40_load_f32x4(o + (uint64_t)attention_min(first + k * MERGE_ROWS + simt_thread() / (SIMT_WARP / LANE_COLS), n - 1) * head_dim);
    return words;
}

/* Factors and o of up to MERGE_PIECES pieces, zeros for those that do not exist. before: M before them; gives M after them. Begins, and goes on, with a barrier. */
M40_HD float merge_stage(struct attention_merge_shared *shared, const struct merge_words *words, uint32_t n, float before)
{
    const uint32_t warp = simt_warp(), row = simt_thread() / (SIMT_WARP / LANE_COLS), col = simt_thread() % (SIMT_WARP / LANE_COLS) * LANE_COLS;
    float max = scan_max(simt_thread() < n, words->m), after = before;
    struct merge_factors factors;

    simt_barrier();
    if (simt_lane() == SIMT_WARP - 1)
        shared->max[warp] = max;
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_LOADS; k++) {
        struct m40_f32x4 o = words->o[k];

        M40_UNROLL
        for (uint32_t c = 0; c < LANE_COLS; c++)
            o.v[c] = k * MERGE_ROWS + row < n ? o.v[c] : 0.0f;
        m40_store_f32x4(&shared->values[k * MERGE_ROWS + row][col], o);
    }
    simt_barrier();
    M40_UNROLL
    for (uint32_t w = 0; w < MERGE_WARPS; w++) {
        before = w == warp ? after : before;
        after = attention_greater(after, shared->max[w]);
    }
    factors = make_factors(before, max, simt_thread() < n, words->m, words->l);
    shared->a[simt_thread()] = factors.a;
    shared->b[simt_thread()] = factors.b;
    shared->values[simt_thread()][SIMT_WARP] = factors.l;
    return after;
}

/* MERGE_BATCH pieces as merge_column works on them. */
struct merge_batch {
    struct m40_f32x4 a[MERGE_BATCH / 4], b[MERGE_BATCH / 4];
    float values[MERGE_BATCH];
};

/* Pieces from j on, or, beyond the last ones, these. */
M40_HD void take_batch(const struct attention_merge_shared *shared, uint32_t column, uint32_t j, struct merge_batch *batch)
{
    j = attention_min(j, MERGE_PIECES - MERGE_BATCH);
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_BATCH / 4; k++) {
        batch->a[k] = m40_load_f32x4(&shared->a[j + k * 4]);
        batch->b[k] = m40_load_f32x4(&shared->b[j + k * 4]);
    }
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_BATCH; k++)
        batch->values[k] = shared->values[j + k][column];
    simt_hold_loads();
}

M40_HD float merge_values(const struct merge_batch *batch, float value)
{
    M40_UNROLL
    for (uint32_t k = 0; k < MERGE_BATCH; k++)
        value = m40_fmaf(batch->values[k], batch->b[k / 4].v[k % 4], value * batch->a[k / 4].v[k % 4]);
    return value;
}

/* Merges one column of up to MERGE_PIECES pieces into value: two operations a piece that wait for each other, and everything else is ahead of them. Called by whole warps. */
M40_HD float merge_column(const struct attention_merge_shared *shared, uint32_t column, uint32_t n, float value)
{
    struct merge_batch now, next;

    take_batch(shared, column, 0, &now);
    M40_ROLLED
    for (uint32_t j = 0; j < n; j += 2 * MERGE_BATCH) {
        take_batch(shared, column, j + MERGE_BATCH, &next);
        value = merge_values(&now, value);
        take_batch(shared, column, j + 2 * MERGE_BATCH, &now);
        value = merge_values(&next, value);
    }
    return value;
}

/* Pieces that a row sees. */
M40_HD uint32_t count_pieces(const struct attention_args *args, uint32_t token)
{
    uint32_t pos = (uint32_t)args->kv.pos[token];

    return pos / ATTENTION_PIECE - attention_first(args->window, pos) / ATTENTION_PIECE + 1;
}

/* Grid (head and its warps of elements, token of the slice). All threads bring pieces and make their factors; the chain of each element is one lane's of the first warp, that of l the second warp's,
 * and while they merge, the next pieces are on their way. A row that is alone has no fewer pieces than there is room for, or one: then the first loads need not wait for its position. */
SIMT_KERNEL(attention_merge, struct attention_args, MERGE_THREADS)
{
    SIMT_SHARED(struct attention_merge_shared, shared);
    const uint32_t head_dim = args.kv.head_dim, n_parts = (head_dim + SIMT_WARP - 1) / SIMT_WARP;
    const uint32_t head = simt_block_x() / n_parts, token = args.first_token + simt_block_y();
    const uint32_t first_col = simt_block_x() % n_parts * SIMT_WARP, col = first_col + simt_thread() % (SIMT_WARP / LANE_COLS) * LANE_COLS;
    const uint64_t row = piece_row(&args, simt_block_y(), head);
    const float *o = args.o + row * head_dim + (col < head_dim ? col : 0), *ml = args.ml + row * 2;
    struct merge_words words = merge_load(o, ml, head_dim, 0, simt_grid_y() > 1 ? count_pieces(&args, token) : args.n_pieces);
    float max = ml[0], value = -0.0f; /* a first piece has factors of 1: fmaf(x, 1, -0 * 1) is x */
    uint32_t n;

    simt_hold_loads();
    n = count_pieces(&args, token);
    for (uint32_t first = 0; first < n; first += MERGE_PIECES) {
        uint32_t n_here = attention_min(n - first, MERGE_PIECES);

        max = merge_stage(shared, &words, n_here, max);
        if (n - first > MERGE_PIECES)
            words = merge_load(o, ml, head_dim, first + MERGE_PIECES, n);
        simt_barrier();
        if (simt_warp() < 2)
            value = merge_column(shared, simt_warp() == 0 ? simt_lane() : SIMT_WARP, n_here, value);
    }
    if (simt_thread() == SIMT_WARP)
        shared->sum = attention_with_sink(&args, head, max, value);
    simt_barrier();
    if (simt_warp() == 0 && first_col + simt_lane() < head_dim)
        args.y[((uint64_t)token * args.n_heads + head) * head_dim + first_col + simt_lane()] = value / shared->sum;
}
