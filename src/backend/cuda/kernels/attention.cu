/* attention of docs/numerics.md: two ways of sharing the work, the same bits.
 *
 *  split   a block takes one piece of 64 positions, one KV head and one token, and writes the piece's (m, l, o); attention_merge then merges pieces in ascending order. For decoding: few tokens, so
 *          the positions are what can be shared out.
 *  fused   a block takes a few neighbouring tokens and one KV head, walks the pieces upwards and keeps M, L and O. For prompts: rows of one sequence share every tile of K and V.
 *
 * A block's queries are (token, head) pairs: n_tokens tokens of one sequence times the heads of the group. K and V pass through shared memory as FP32 tiles of 64 positions by 64 elements. Scores: a
 * thread owns a position and every SETS-th query, d ascending. Values: a thread owns a column of V and the same queries, i ascending. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kv_view.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

enum {
    PIECE = 64,       /* M40_ATTN_PIECE */
    TILE_COLS = 64,   /* elements of a head that a tile holds */
    TILE_STRIDE = 68, /* a multiple of 4; keeps lanes on neighbouring rows on different banks */
    MAX_TILES = 4,    /* head_dim <= 256 */
    MERGE_PIECES = 64,
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
    float *tile, *q, *s, *m, *l, *a, *b;
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

/* The second page only where one of the n positions lies in it. */
M40_HD struct piece_pages find_pages(const struct attention_args *args, uint32_t slot, uint32_t piece, uint32_t n)
{
    struct piece_pages pages;

    pages.low = kv_page(&args->kv, slot, piece * PIECE);
    pages.high = n > KV_PAGE ? kv_page(&args->kv, slot, piece * PIECE + KV_PAGE) : 0;
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

    for (uint32_t i = 0; i < n; i++)
        l = l + e[i];
    return l;
}

/* ---- split ---- */

#define THREADS 128

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

SIMT_KERNEL(attention_split_8, struct attention_args, THREADS)
{
    SIMT_SHARED(struct shared_8, shared);
    split_piece_8(&args, shared);
}

#undef THREADS

struct attention_merge_shared {
    float m[MERGE_PIECES], l[MERGE_PIECES];
    float a[MERGE_PIECES], b[MERGE_PIECES];
};

/* M after pieces 0 .. t of this batch, beginning at `max`. */
M40_HD float running_max(const float *m, uint32_t n, float max)
{
    for (uint32_t i = 0; i < n; i++)
        max = m[i] > max ? m[i] : max;
    return max;
}

/* Grid (token of the slice, head); a thread owns one element. The factors of 64 pieces are made by 64 threads, then every thread walks the pieces. */
SIMT_KERNEL(attention_merge, struct attention_args, 256)
{
    SIMT_SHARED(struct attention_merge_shared, shared);
    uint32_t token = args.first_token + simt_block_x(), head = simt_block_y(), d = simt_thread();
    uint32_t head_dim = args.kv.head_dim;
    uint32_t n_pieces = (uint32_t)args.kv.pos[token] / PIECE + 1;
    uint64_t first = ((uint64_t)simt_block_x() * args.n_heads + head) * args.n_pieces;
    const float *ml = args.ml + first * 2, *o = args.o + first * head_dim;
    float max = ml[0], sum = 0.0f, out = 0.0f;

    for (uint32_t j0 = 0; j0 < n_pieces; j0 += MERGE_PIECES) {
        uint32_t n = n_pieces - j0 < MERGE_PIECES ? n_pieces - j0 : MERGE_PIECES;

        simt_barrier();
        for (uint32_t j = simt_thread(); j < n; j += simt_block_dim()) {
            shared->m[j] = ml[(j0 + j) * 2];
            shared->l[j] = ml[(j0 + j) * 2 + 1];
        }
        simt_barrier();
        for (uint32_t j = simt_thread(); j < n; j += simt_block_dim()) {
            float before = running_max(shared->m, j, max);
            float after = shared->m[j] > before ? shared->m[j] : before;

            shared->a[j] = m40_expf(before - after);
            shared->b[j] = m40_expf(shared->m[j] - after);
        }
        simt_barrier();
        max = running_max(shared->m, n, max);
        if (d >= head_dim)
            continue;
        for (uint32_t j = 0; j < n; j++) {
            float piece = o[(uint64_t)(j0 + j) * head_dim + d];

            if (j0 + j == 0) {
                sum = shared->l[0];
                out = piece;
            } else {
                sum = m40_fmaf(shared->l[j], shared->b[j], sum * shared->a[j]);
                out = m40_fmaf(piece, shared->b[j], out * shared->a[j]);
            }
        }
    }
    if (d < head_dim)
        args.y[((uint64_t)token * args.n_heads + head) * head_dim + d] = out / sum;
}

/* ---- fused ---- */

#define THREADS    256
#define MINE       8
#define ATTN(name) name##_fused
#include "backend/cuda/kernels/attention_tmpl.h"

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

        piece_scores_fused(args, block, pages, n);
        fused_softmax(block, piece);
        M40_UNROLL
        for (uint32_t tile = 0; tile < MAX_TILES; tile++) {
            float o[MINE] = {0.0f};

            if (tile * TILE_COLS >= args->kv.head_dim)
                continue;
            simt_barrier();
            stage_tile_fused(args, block, pages, 1, n, tile * TILE_COLS);
            simt_barrier();
            piece_values_fused(block, piece * PIECE, n_all, n, o);
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
    while (token < end) {
        block.first_token = token;
        block.n_tokens = 1;
        while (token + block.n_tokens < end && args.kv.slot[token + block.n_tokens] == args.kv.slot[token])
            block.n_tokens++;
        fused_run(&args, &block);
        token += block.n_tokens;
    }
}
