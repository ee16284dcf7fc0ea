/* attention of docs/numerics.md: two ways of sharing the work, the same bits.
 *
 *  split   a block takes one piece of 64 positions, one KV head and one token, and writes the piece's (m, l, o); attention_merge then merges pieces in ascending order. For decoding: few tokens, so
 *          the positions are what can be shared out.
 *  fused   a block takes a few neighbouring tokens and one KV head, walks the pieces upwards and keeps M, L and O. For prompts: rows of one sequence share every tile of K and V.
 *
 * A block's queries are (token, head) pairs: n_tokens tokens of one sequence times the heads of the group. K and V pass through shared memory in tiles of 64 positions: for fused, 64 elements widened
 * to FP32; for split, whose few queries would not pay for that, 256 bytes of each row as stored. Scores: a thread owns a position and every SETS-th query, d ascending. Values: a thread owns a column of V
 * and the same queries, i ascending. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kv_view.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

enum {
    PIECE = 64,             /* M40_ATTN_PIECE */
    TILE_COLS = 64,         /* elements of a head that a tile of fused holds */
    TILE_STRIDE = 68,       /* a multiple of 4; keeps lanes on neighbouring rows on different banks */
    MAX_TILES = 4,          /* head_dim <= 256 */
    MERGE_AHEAD = 32,       /* pieces that merge asks for ahead of their use */
    MERGE_MAX_PIECES = 512, /* of which merge makes the factors at once: two for each thread */
};

/* The pages of a piece's first and second 32 positions. */
struct piece_pages {
    uint32_t low, high;
};

/* What a block works on, and its shared memory. */
struct attention_block {
    uint32_t kv_head;
    uint32_t first_head, n_heads; /* query heads */
    uint32_t first_token, n_tokens;
    uint32_t slot;
    uint32_t n_queries; /* n_tokens * n_heads */
    uint32_t first_row; /* split: of the first query in ml and o; scratch memory has far fewer than 2^32 floats */
    float *tile;        /* fused: 64 positions by 64 elements, TILE_STRIDE apart */
    uint32_t *words;    /* split: 64 positions by 64 words of the cache, as stored */
    float *q, *s, *m, *l, *a, *b;
    int32_t *pos;
};

/* How many positions of the piece that begins at `first` a query at position pos sees. */
M40_HD uint32_t visible(int32_t pos, uint32_t first)
{
    int32_t n = pos + 1 - (int32_t)first;

    return n < 0 ? 0 : n > PIECE ? PIECE : (uint32_t)n;
}

/* Of a query in q, whose rows are q_stride apart, or in y, where they are n_heads * head_dim apart. */
M40_HD uint64_t query_at(const struct attention_args *args, const struct attention_block *block, uint32_t query, uint64_t stride)
{
    uint64_t token = block->first_token + query / block->n_heads;

    return token * stride + (uint64_t)(block->first_head + query % block->n_heads) * args->kv.head_dim;
}

/* Where none of the n positions lies in the second page, there may be none: then it is the first one again. */
M40_HD struct piece_pages find_pages(const struct attention_args *args, uint32_t slot, uint32_t piece, uint32_t n)
{
    struct piece_pages pages;

    pages.low = kv_page(&args->kv, slot, piece * PIECE);
    pages.high = n > KV_PAGE ? kv_page(&args->kv, slot, piece * PIECE + KV_PAGE) : pages.low;
    return pages;
}

M40_HD void widen_8(struct m40_u32x4 halves, struct m40_f32x4 *out)
{
    M40_UNROLL
    for (uint32_t j = 0; j < 8; j++)
        out[j / 4].v[j % 4] = m40_f16_to_f32((uint16_t)(halves.u[j / 2] >> j % 2 * 16));
}

/* The word, or zeros. */
M40_HD struct m40_f32x4 word_if(uint32_t condition, struct m40_f32x4 word)
{
    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        word.v[j] = condition ? word.v[j] : 0.0f;
    return word;
}

/* The greatest of a warp's values; which of two equal zeros does not matter, exp(s - m) is the same. */
M40_HD float warp_max(float v)
{
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2) {
        float other = simt_shfl_xor_f32(v, d);

        v = other > v ? other : v;
    }
    return v;
}

/* Scores of one query to exponentials, by one warp; gives m to every lane. n > 0. */
M40_HD float exponentials(float *s, uint32_t n)
{
    const float lowest = m40_bits_to_f32(0xff800000u);
    uint32_t i = simt_lane();
    float s0 = i < n ? s[i] : lowest, s1 = i + 32 < n ? s[i + 32] : lowest;
    float m = warp_max(s1 > s0 ? s1 : s0);

    if (i < n)
        s[i] = m40_expf(s0 - m);
    if (i + 32 < n)
        s[i + 32] = m40_expf(s1 - m);
    return m;
}

M40_HD float sum_exponentials(const float *e, uint32_t n)
{
    float l = 0.0f;

    if (n == PIECE) {
        M40_UNROLL
        for (uint32_t i = 0; i < PIECE; i += 4) {
            struct m40_f32x4 e4 = m40_load_f32x4(e + i);

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                l = l + e4.v[j];
        }
        return l;
    }
    for (uint32_t i = 0; i < n; i++)
        l = l + e[i];
    return l;
}

/* ---- split ---- */

#define THREADS   128
#define TILE_ELEM uint32_t
#define Q_COLS    (2 * ROW_WORDS)

enum {
    ROW_WORDS = 64,                  /* of 32 bits, of a row of K or V, that the tile holds: 128 elements of FP16 or 64 of FP32 */
    ROW_QUADS = ROW_WORDS / 4,       /* the same as 128-bit words */
    QUAD_ROWS = THREADS / ROW_QUADS, /* rows that the block brings in at once */
    SPLIT_ITEMS = PIECE / QUAD_ROWS, /* words that each thread brings into the tile */
    LOW_ITEMS = KV_PAGE / QUAD_ROWS, /* of these, how many come from the piece's first page */
};

/* A thread's part of a tile, on its way from global to shared memory. */
struct split_words {
    struct m40_u32x4 quad[SPLIT_ITEMS];
};

M40_HD uint32_t elem_bytes(const struct attention_args *args)
{
    return args->kv.is_f32 ? 4 : 2;
}

/* Bytes from first_byte on of all rows of K (which = 0) or V (1) of a piece. Those of positions that nobody sees yet and of columns that do not exist are any bytes of the same pages, and nobody uses
 * them: so there is no branch between the loads, and all of them are under way at once. */
M40_HD void load_words(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t which,
                       uint32_t first_byte, struct split_words *words)
{
    uint32_t row_bytes = args->kv.head_dim * elem_bytes(args), column = first_byte + simt_thread() % ROW_QUADS * 16;
    uint32_t from = simt_thread() / ROW_QUADS * row_bytes + (column < row_bytes ? column : 0);
    const uint8_t *low = kv_row(&args->kv, pages.low, which, block->kv_head, 0) + from;
    const uint8_t *high = kv_row(&args->kv, pages.high, which, block->kv_head, 0) + from;

    M40_UNROLL
    for (uint32_t k = 0; k < LOW_ITEMS; k++) {
        words->quad[k] = m40_load_u32x4(low + k * QUAD_ROWS * row_bytes);
        words->quad[k + LOW_ITEMS] = m40_load_u32x4(high + k * QUAD_ROWS * row_bytes);
    }
}

M40_HD void store_words(const struct attention_block *block, const struct split_words *words)
{
    uint32_t *to = block->words + simt_thread() / ROW_QUADS * TILE_STRIDE + simt_thread() % ROW_QUADS * 4;

    M40_UNROLL
    for (uint32_t k = 0; k < SPLIT_ITEMS; k++)
        *(struct m40_u32x4 *)(void *)(to + k * QUAD_ROWS * TILE_STRIDE) = words->quad[k];
}

/* The elements of a word: two, or one and a zero. */
M40_HD struct m40_f32x2 widen_word(uint32_t word, uint32_t is_f32)
{
    struct m40_f32x2 elems = {{m40_bits_to_f32(word), 0.0f}};

    if (!is_f32) {
        elems.v[0] = m40_f16_to_f32((uint16_t)word);
        elems.v[1] = m40_f16_to_f32((uint16_t)(word >> 16));
    }
    return elems;
}

M40_HD void add_weighted(float e, struct m40_f32x2 v, struct m40_f32x2 *o)
{
    o->v[0] = m40_fmaf(e, v.v[0], o->v[0]);
    o->v[1] = m40_fmaf(e, v.v[1], o->v[1]);
}

M40_HD float dot_4(const float *q, struct m40_f32x4 k, float dot)
{
    struct m40_f32x4 q4 = m40_load_f32x4(q);

    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        dot = m40_fmaf(q4.v[j], k.v[j], dot);
    return dot;
}

M40_HD struct m40_f32x4 as_floats(struct m40_u32x4 quad)
{
    struct m40_f32x4 floats;

    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        floats.v[j] = m40_bits_to_f32(quad.u[j]);
    return floats;
}

#define MINE       1
#define ATTN(name) name##_1
#include "backend/cuda/kernels/attention_tmpl.h"
#include "backend/cuda/kernels/attention_split_tmpl.h"
#undef ATTN
#undef MINE

SIMT_KERNEL(attention_split_1, struct attention_args, THREADS)
{
    SIMT_SHARED(struct shared_1, shared);
    split_piece_1(&args, shared);
}

#define MINE       2
#define ATTN(name) name##_2
#include "backend/cuda/kernels/attention_tmpl.h"
#include "backend/cuda/kernels/attention_split_tmpl.h"
#undef ATTN
#undef MINE

SIMT_KERNEL(attention_split_2, struct attention_args, THREADS)
{
    SIMT_SHARED(struct shared_2, shared);
    split_piece_2(&args, shared);
}

#define MINE       4
#define ATTN(name) name##_4
#include "backend/cuda/kernels/attention_tmpl.h"
#include "backend/cuda/kernels/attention_split_tmpl.h"
#undef ATTN
#undef MINE

SIMT_KERNEL(attention_split_4, struct attention_args, THREADS)
{
    SIMT_SHARED(struct shared_4, shared);
    split_piece_4(&args, shared);
}

#define MINE       8
#define ATTN(name) name##_8
#include "backend/cuda/kernels/attention_tmpl.h"
#include "backend/cuda/kernels/attention_split_tmpl.h"
#undef ATTN
#undef MINE

SIMT_KERNEL_RESIDENT(attention_split_8, struct attention_args, THREADS, 4)
{
    SIMT_SHARED(struct shared_8, shared);
    split_piece_8(&args, shared);
}

#undef THREADS
#undef TILE_ELEM
#undef Q_COLS

/* ---- merge ---- */

/* What merging a batch of pieces needs of each: the factors of what was and of what comes, and its sum. */
struct attention_merge_shared {
    float a[MERGE_MAX_PIECES], b[MERGE_MAX_PIECES], l[MERGE_MAX_PIECES];
    float warp_max[MERGE_MAX_PIECES / 2 / SIMT_WARP];
};

M40_HD float greater(float a, float b)
{
    return b > a ? b : a;
}

/* The greatest of this lane's value and those of the lanes before it. */
M40_HD float max_so_far(float v)
{
    M40_UNROLL
    for (uint32_t d = 1; d < SIMT_WARP; d *= 2) {
        float before = simt_shfl_f32(v, (simt_lane() - d) % SIMT_WARP);

        v = simt_lane() >= d ? greater(before, v) : v;
    }
    return v;
}

/* m and l of this thread's pieces, 2 thread and 2 thread + 1 of the batch that begins at j0. */
M40_HD struct m40_f32x4 load_ml(const float *ml, uint32_t j0, uint32_t n_pieces)
{
    uint32_t piece = j0 + 2 * simt_thread();
    struct m40_f32x4 pair = {{0.0f, 0.0f, 0.0f, 0.0f}};

    if (piece < n_pieces) {
        pair.v[0] = ml[(uint64_t)piece * 2];
        pair.v[1] = ml[(uint64_t)piece * 2 + 1];
    }
    if (piece + 1 < n_pieces) {
        pair.v[2] = ml[(uint64_t)piece * 2 + 2];
        pair.v[3] = ml[(uint64_t)piece * 2 + 3];
    }
    return pair;
}

/* Factors of a batch, two pieces a thread; max: M before the batch. Gives M after it. Begins and ends with a barrier. */
M40_HD float merge_factors(struct attention_merge_shared *shared, struct m40_f32x4 pair, float max)
{
    uint32_t piece = 2 * simt_thread(), n_warps = simt_block_dim() / SIMT_WARP;
    float up_to = max_so_far(greater(pair.v[0], pair.v[2])), before, between, after;

    before = simt_shfl_f32(up_to, (simt_lane() - 1) % SIMT_WARP);
    simt_barrier();
    if (simt_lane() == SIMT_WARP - 1)
        shared->warp_max[simt_warp()] = up_to;
    simt_barrier();
    before = simt_lane() > 0 ? greater(max, before) : max;
    for (uint32_t warp = 0; warp < n_warps; warp++) {
        max = greater(max, shared->warp_max[warp]);
        before = warp < simt_warp() ? greater(shared->warp_max[warp], before) : before;
    }
    between = greater(before, pair.v[0]);
    after = greater(between, pair.v[2]);
    shared->a[piece] = m40_expf(before - between);
    shared->b[piece] = m40_expf(pair.v[0] - between);
    shared->l[piece] = pair.v[1];
    shared->a[piece + 1] = m40_expf(between - after);
    shared->b[piece + 1] = m40_expf(pair.v[2] - after);
    shared->l[piece + 1] = pair.v[3];
    simt_barrier();
    return max;
}

/* This thread's element of MERGE_AHEAD pieces, as far as there are n. */
M40_HD void load_pieces(const float *o, uint32_t n, uint32_t head_dim, float *piece)
{
    M40_UNROLL
    for (uint32_t j = 0; j < MERGE_AHEAD; j++)
        if (j < n)
            piece[j] = o[j * head_dim];
}

/* Merges the pieces whose factors begin at `first`, up to MERGE_AHEAD of the n that are left. */
M40_HD void merge_pieces(const struct attention_merge_shared *shared, uint32_t first, uint32_t n, const float *piece, float *sum, float *out)
{
    M40_UNROLL
    for (uint32_t j = 0; j < MERGE_AHEAD; j += 4) {
        struct m40_f32x4 a = m40_load_f32x4(shared->a + first + j);
        struct m40_f32x4 b = m40_load_f32x4(shared->b + first + j);
        struct m40_f32x4 l = m40_load_f32x4(shared->l + first + j);

        if (j >= n)
            break;
        M40_UNROLL
        for (uint32_t k = 0; k < 4; k++) {
            if (j + k < n) {
                *sum = m40_fmaf(l.v[k], b.v[k], *sum * a.v[k]);
                *out = m40_fmaf(piece[j + k], b.v[k], *out * a.v[k]);
            }
        }
    }
}

/* Asks for the pieces after the next MERGE_AHEAD of the n that are left, and merges those. */
M40_HD void merge_ahead(const struct attention_merge_shared *shared, uint32_t first, uint32_t n, const float *o, uint32_t head_dim, float *piece,
                        float *sum, float *out)
{
    float next[MERGE_AHEAD] = {0.0f};

    load_pieces(o + (uint64_t)MERGE_AHEAD * head_dim, n - MERGE_AHEAD, head_dim, next);
    merge_pieces(shared, first, MERGE_AHEAD, piece, sum, out);
    M40_UNROLL
    for (uint32_t j = 0; j < MERGE_AHEAD; j++)
        piece[j] = next[j];
}

/* Grid (token of the slice, head); a thread owns one element. What does not depend on the token's position is asked for first. */
SIMT_KERNEL(attention_merge, struct attention_args, 256)
{
    SIMT_SHARED(struct attention_merge_shared, shared);
    uint32_t token = args.first_token + simt_block_x(), head = simt_block_y(), d = simt_thread();
    uint32_t head_dim = args.kv.head_dim, n_batch = 2 * simt_block_dim();
    uint64_t first = ((uint64_t)simt_block_x() * args.n_heads + head) * args.n_pieces;
    const float *ml = args.ml + first * 2, *o = args.o + first * head_dim + (d < head_dim ? d : 0);
    uint32_t n_pieces = (uint32_t)args.kv.pos[token] / PIECE + 1;
    struct m40_f32x4 pair = load_ml(ml, 0, args.n_pieces);
    float max = ml[0], sum = -0.0f, out = -0.0f; /* fmaf(x, 1, -0 * 1) is x */
    float piece[MERGE_AHEAD] = {0.0f};

    load_pieces(o, args.n_pieces, head_dim, piece);
    for (uint32_t j0 = 0; j0 < n_pieces; j0 += n_batch) {
        max = merge_factors(shared, pair, max);
        pair = load_ml(ml, j0 + n_batch, n_pieces);
        for (uint32_t j = 0; j < n_batch && j0 + j < n_pieces; j += MERGE_AHEAD) {
            const float *from = o + (uint64_t)(j0 + j) * head_dim;
            uint32_t left = n_pieces - j0 - j;

            if (left <= MERGE_AHEAD)
                merge_pieces(shared, j, left, piece, &sum, &out);
            else if (left >= 2 * MERGE_AHEAD)
                merge_ahead(shared, j, 2 * MERGE_AHEAD, from, head_dim, piece, &sum, &out);
            else
                merge_ahead(shared, j, left, from, head_dim, piece, &sum, &out);
        }
    }
    if (d < head_dim)
        args.y[((uint64_t)token * args.n_heads + head) * head_dim + d] = out / sum;
}

/* ---- fused ---- */

#define THREADS    256
#define MINE       8
#define ATTN(name) name##_fused
#define TILE_ELEM  float
#define Q_COLS     TILE_COLS
#include "backend/cuda/kernels/attention_tmpl.h"

#define ITEMS (PIECE * TILE_COLS / 8 / THREADS) /* pieces of 8 elements that a thread brings into a tile */

/* Columns d0 .. of K (which = 0) or V (1) at the first n positions of a piece into the tile; everything else in it becomes zero. Loads what does not exist from the piece's first row instead, so that
 * there is no branch between the loads, and all of them are under way at once. */
M40_HD void stage_tile(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t which, uint32_t n,
                       uint32_t d0)
{
    struct m40_f32x4 values[ITEMS][2];
    uint32_t is_there[ITEMS];
    const uint8_t *from[ITEMS];

    M40_UNROLL
    for (uint32_t k = 0; k < ITEMS; k++) {
        uint32_t item = k * THREADS + simt_thread();
        uint32_t i = item / (TILE_COLS / 8), d = d0 + item % (TILE_COLS / 8) * 8;

        is_there[k] = d < args->kv.head_dim && i < n;
        i = is_there[k] ? i : 0;
        d = is_there[k] ? d : 0;
        from[k] = kv_row(&args->kv, i < KV_PAGE ? pages.low : pages.high, which, block->kv_head, i % KV_PAGE) + d * (args->kv.is_f32 ? 4 : 2);
    }
    if (args->kv.is_f32) {
        M40_UNROLL
        for (uint32_t k = 0; k < ITEMS; k++) {
            values[k][0] = m40_load_f32x4((const float *)(const void *)from[k]);
            values[k][1] = m40_load_f32x4((const float *)(const void *)from[k] + 4);
        }
    } else {
        struct m40_u32x4 halves[ITEMS];

        M40_UNROLL
        for (uint32_t k = 0; k < ITEMS; k++)
            halves[k] = m40_load_u32x4(from[k]);
        M40_UNROLL
        for (uint32_t k = 0; k < ITEMS; k++)
            widen_8(halves[k], values[k]);
    }
    M40_UNROLL
    for (uint32_t k = 0; k < ITEMS; k++) {
        uint32_t item = k * THREADS + simt_thread();
        float *to = block->tile + item / (TILE_COLS / 8) * TILE_STRIDE + item % (TILE_COLS / 8) * 8;

        m40_store_f32x4(to, word_if(is_there[k], values[k][0]));
        m40_store_f32x4(to + 4, word_if(is_there[k], values[k][1]));
    }
}

/* dot = fmaf(q[d], k[i][d], dot) over the tile's columns, for this thread's position and queries. */
M40_HD void add_dots(const struct attention_block *block, uint32_t n_cols, float *dot)
{
    uint32_t i = simt_thread() % PIECE, set = simt_thread() / PIECE;

    for (uint32_t d = 0; d < n_cols; d += 4) {
        struct m40_f32x4 k4 = m40_load_f32x4(block->tile + i * TILE_STRIDE + d);

        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            struct m40_f32x4 q4 = m40_load_f32x4(block->q + (k * SETS + set) * TILE_COLS + d);

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                dot[k] = m40_fmaf(q4.v[j], k4.v[j], dot[k]);
        }
    }
}

/* s[query][i] for the piece's first n positions. Begins and ends with a barrier. */
M40_HD void piece_scores(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t n)
{
    uint32_t i = simt_thread() % PIECE, set = simt_thread() / PIECE;
    float dot[MINE] = {0.0f};

    for (uint32_t d0 = 0; d0 < args->kv.head_dim; d0 += TILE_COLS) {
        uint32_t n_cols = args->kv.head_dim - d0 < TILE_COLS ? args->kv.head_dim - d0 : TILE_COLS;

        simt_barrier();
        stage_tile(args, block, pages, 0, n, d0);
        stage_queries_fused(args, block, d0);
        simt_barrier();
        add_dots(block, n_cols, dot);
    }
    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++)
        block->s[(k * SETS + set) * TILE_STRIDE + i] = args->scale * dot[k];
    simt_barrier();
}

/* o[k] = fmaf(e[i], v[i][d], o[k]) for this thread's column and queries: the first n_all positions, which every query sees, then those up to n_any that only some see. */
M40_HD void piece_values(const struct attention_block *block, uint32_t first, uint32_t n_all, uint32_t n_any, float *o)
{
    uint32_t d = simt_thread() % TILE_COLS, set = simt_thread() / TILE_COLS;
    const float *column = block->tile + d, *e = block->s + set * TILE_STRIDE;
    uint32_t i = 0;

    for (; i + 4 <= n_all; i += 4) {
        float v[4];

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            v[j] = column[(i + j) * TILE_STRIDE];
        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            struct m40_f32x4 e4 = m40_load_f32x4(e + k * SETS * TILE_STRIDE + i);

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                o[k] = m40_fmaf(e4.v[j], v[j], o[k]);
        }
    }
    for (; i < n_any; i++) {
        float v = column[i * TILE_STRIDE];

        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            uint32_t query = k * SETS + set;

            if (query < block->n_queries && i < visible(block->pos[query], first))
                o[k] = m40_fmaf(e[k * SETS * TILE_STRIDE + i], v, o[k]);
        }
    }
}

/* Exponentials of every query that sees the piece, and the factors of the merge: M moves on, a scales what was, b what comes. */
M40_HD void fused_softmax(const struct attention_block *block, uint32_t piece)
{
    for (uint32_t query = simt_warp(); query < block->n_queries; query += THREADS / SIMT_WARP) {
        uint32_t n = visible(block->pos[query], piece * PIECE);
        float m;

        if (n == 0)
            continue;
        m = exponentials(block->s + query * TILE_STRIDE, n);
        if (simt_lane() == 0) {
            float before = piece == 0 ? m : block->m[query];
            float after = m > before ? m : before;

            block->a[query] = m40_expf(before - after);
            block->b[query] = m40_expf(m - after);
            block->m[query] = after;
        }
    }
    simt_barrier();
    if (simt_thread() < block->n_queries) {
        uint32_t query = simt_thread();
        uint32_t n = visible(block->pos[query], piece * PIECE);
        float l = sum_exponentials(block->s + query * TILE_STRIDE, n);

        if (piece == 0)
            block->l[query] = l;
        else if (n > 0)
            block->l[query] = m40_fmaf(l, block->b[query], block->l[query] * block->a[query]);
    }
}

/* Adds one tile's piece to O of this thread's queries. */
M40_HD void fused_merge(const struct attention_block *block, uint32_t piece, const float *o, float *out)
{
    uint32_t set = simt_thread() / TILE_COLS;

    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++) {
        uint32_t query = k * SETS + set;

        if (piece == 0)
            out[k] = o[k];
        else if (query < block->n_queries && visible(block->pos[query], piece * PIECE) > 0)
            out[k] = m40_fmaf(o[k], block->b[query], out[k] * block->a[query]);
    }
}

M40_HD void fused_write(const struct attention_args *args, const struct attention_block *block, uint32_t tile, const float *out)
{
    uint32_t set = simt_thread() / TILE_COLS;
    uint32_t d = tile * TILE_COLS + simt_thread() % TILE_COLS;

    if (d >= args->kv.head_dim)
        return;
    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++) {
        uint32_t query = k * SETS + set;

        if (query < block->n_queries)
            args->y[query_at(args, block, query, args->n_heads * args->kv.head_dim) + d] = out[k] / block->l[query];
    }
}

/* Least and greatest position of the run. */
M40_HD void run_positions(const struct attention_args *args, const struct attention_block *block, int32_t *least, int32_t *greatest)
{
    *least = *greatest = args->kv.pos[block->first_token];
    for (uint32_t t = 1; t < block->n_tokens; t++) {
        int32_t pos = args->kv.pos[block->first_token + t];

        *least = pos < *least ? pos : *least;
        *greatest = pos > *greatest ? pos : *greatest;
    }
}

/* All pieces for the tokens of one run, which are of one sequence. */
M40_HD void fused_run(const struct attention_args *args, struct attention_block *block)
{
    float out[MAX_TILES][MINE];
    int32_t least, greatest;

    block->n_queries = block->n_tokens * block->n_heads;
    block->slot = (uint32_t)args->kv.slot[block->first_token];
    run_positions(args, block, &least, &greatest);
    simt_barrier(); /* the run before still reads pos and l */
    if (simt_thread() < block->n_queries)
        block->pos[simt_thread()] = args->kv.pos[block->first_token + simt_thread() / block->n_heads];
    for (uint32_t piece = 0; piece <= (uint32_t)greatest / PIECE; piece++) {
        uint32_t n = visible(greatest, piece * PIECE), n_all = visible(least, piece * PIECE);
        struct piece_pages pages = find_pages(args, block->slot, piece, n);

        piece_scores(args, block, pages, n);
        fused_softmax(block, piece);
        M40_UNROLL
        for (uint32_t tile = 0; tile < MAX_TILES; tile++) {
            float o[MINE] = {0.0f};

            if (tile * TILE_COLS >= args->kv.head_dim)
                continue;
            simt_barrier();
            stage_tile(args, block, pages, 1, n, tile * TILE_COLS);
            simt_barrier();
            piece_values(block, piece * PIECE, n_all, n, o);
            fused_merge(block, piece, o, out[tile]);
        }
    }
    M40_UNROLL
    for (uint32_t tile = 0; tile < MAX_TILES; tile++)
        fused_write(args, block, tile, out[tile]);
}

/* Grid (tokens in groups of QUERIES / n_block_heads, KV head and part of its group). */
SIMT_KERNEL_RESIDENT(attention_fused, struct attention_args, THREADS, 2)
{
    SIMT_SHARED(struct shared_fused, shared);
    struct attention_block block;
    uint32_t n_block_tokens = QUERIES / args.n_block_heads;
    uint32_t token = simt_block_x() * n_block_tokens;
    uint32_t end = args.n_tokens - token < n_block_tokens ? args.n_tokens : token + n_block_tokens;

    open_block_fused(&args, shared, &block);
    block.tile = shared->tile;
    while (token < end) {
        block.first_token = token;
        block.n_tokens = 1;
        while (token + block.n_tokens < end && args.kv.slot[token + block.n_tokens] == args.kv.slot[token])
            block.n_tokens++;
        fused_run(&args, &block);
        token += block.n_tokens;
    }
}
