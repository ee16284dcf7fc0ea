/* attention of docs/numerics.md for rows that share nothing with their neighbours, as in decoding: the positions are what can be shared out.
 *
 * A warp takes one piece of 64 positions and up to 1, 2, 4 or 8 query heads of one KV head, and writes the piece's (m, l, o). It works alone, so that the warps of a multiprocessor drift apart and some
 * load while others compute. K comes in chunks of 64 or 128 bytes a row, the next one on its way to registers while one is worked on, and is turned in shared memory: a lane owns two positions and all heads,
 * d ascending. V goes from the cache to registers as it lies: a lane owns four columns and all heads, i ascending.
 *
 * Few pieces are merged by the last block of their heads to arrive, a warp a head; many by attention_merge, whose grid is wider. */
#include "backend/cuda/kernels/attention_common.h"

enum {
    WARPS = 4, /* of a block: pieces that it takes */
    THREADS = WARPS * SIMT_WARP,
    MAX_HEAD_DIM = 256,
    LANE_COLS = 4, /* of V */
    WARP_COLS = LANE_COLS * SIMT_WARP,
    LINE = 128,         /* bytes of a cache line */
    MERGE_BATCH = 16,   /* pieces whose o a lane asks for at once */
    MERGE_PIECES = 512, /* of which attention_merge makes the factors at once */
};

/* Factors by which a piece enters the merge: what was, times a; the piece's own, times b. */
struct merge_factors {
    float a, b;
};

/* M after this lane's piece, and its factors: before: M before the first lane's piece. Every lane of the warp takes part. */
M40_HD float scan_factors(float before, float m, struct merge_factors *factors)
{
    float after = m, last;

    M40_UNROLL
    for (uint32_t d = 1; d < SIMT_WARP; d *= 2) {
        float other = simt_shfl_f32(after, (simt_lane() - d) % SIMT_WARP);

        after = simt_lane() >= d ? attention_greater(other, after) : after;
    }
    last = simt_shfl_f32(after, (simt_lane() - 1) % SIMT_WARP);
    before = simt_lane() > 0 ? attention_greater(before, last) : before;
    after = attention_greater(before, m);
    factors->a = m40_expf_down(before - after);
    factors->b = m40_expf_down(m - after);
    return after;
}

/* Of a warp's values; which of two equal zeros does not matter, exp(s - m) is the same. */
M40_HD float warp_max(float v)
{
    M40_UNROLL
    for (uint32_t d = SIMT_WARP / 2; d > 0; d /= 2)
        v = attention_greater(v, simt_shfl_xor_f32(v, d));
    return v;
}

/* Where (m, l) of a row's first piece lie, in pairs; times head_dim / 2: where o does. */
M40_HD uint64_t piece_row(const struct attention_args *args, uint32_t slice_token, uint32_t head)
{
    return ((uint64_t)slice_token * args->n_heads + head) * args->n_pieces;
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

/* ---- merge ---- */

struct attention_merge_shared {
    float m[MERGE_PIECES], l[MERGE_PIECES];
    struct merge_factors factors[MERGE_PIECES];
};

/* Factors of n pieces, whose m are in shared memory, 32 pieces a warp at a time; max: M before them. Gives M after them. Begins and ends with a barrier. */
M40_HD float make_factors(struct attention_merge_shared *shared, uint32_t n, float max)
{
    float all = max;

    simt_barrier();
    for (uint32_t i0 = simt_warp() * SIMT_WARP; i0 < n; i0 += simt_block_dim()) {
        uint32_t i = i0 + simt_lane();
        float before = max;

        for (uint32_t k = simt_lane(); k < i0; k += SIMT_WARP)
            before = attention_greater(before, shared->m[k]);
        scan_factors(warp_max(before), i < n ? shared->m[i] : m40_bits_to_f32(0xff800000u), &shared->factors[i]);
    }
    for (uint32_t k = simt_lane(); k < n; k += SIMT_WARP)
        all = attention_greater(all, shared->m[k]);
    all = warp_max(all);
    simt_barrier();
    return all;
}

M40_HD void load_column(const float *o, uint32_t head_dim, uint32_t n, float *piece)
{
    M40_UNROLL
    for (uint32_t k = 0; k < 2 * MERGE_BATCH; k++)
        piece[k] = k < n ? o[k * head_dim] : 0.0f;
}

M40_HD void merge_column(const struct attention_merge_shared *shared, uint32_t first, uint32_t n, const float *piece, float *sum, float *out)
{
    M40_UNROLL
    for (uint32_t k = 0; k < 2 * MERGE_BATCH; k++) {
        if (k < n) {
            struct merge_factors f = shared->factors[first + k];

            *sum = m40_fmaf(shared->l[first + k], f.b, *sum * f.a);
            *out = m40_fmaf(piece[k], f.b, *out * f.a);
        }
    }
}

/* Grid (head, token of the slice); a thread owns one element. While a batch of pieces is merged, the next one is on its way. */
SIMT_KERNEL(attention_merge, struct attention_args, 256)
{
    SIMT_SHARED(struct attention_merge_shared, shared);
    const uint32_t head = simt_block_x(), token = args.first_token + simt_block_y(), head_dim = args.kv.head_dim, step = 2 * MERGE_BATCH;
    const uint32_t d = simt_thread() < head_dim ? simt_thread() : 0, pos = (uint32_t)args.kv.pos[token];
    const uint32_t n = pos / ATTENTION_PIECE - attention_first(args.window, pos) / ATTENTION_PIECE + 1;
    const uint64_t row = piece_row(&args, simt_block_y(), head);
    const float *o = args.o + row * head_dim + d, *ml = args.ml + row * 2;
    float max = ml[0], sum = -0.0f, out = -0.0f; /* a first piece has factors of 1: fmaf(x, 1, -0 * 1) is x */
    float now[2 * MERGE_BATCH], next[2 * MERGE_BATCH];

    load_column(o, head_dim, n, now);
    for (uint32_t j0 = 0; j0 < n; j0 += MERGE_PIECES) {
        uint32_t n_here = attention_min(n - j0, MERGE_PIECES);

        simt_barrier();
        for (uint32_t i = simt_thread(); i < n_here; i += simt_block_dim()) {
            shared->m[i] = ml[(uint64_t)(j0 + i) * 2];
            shared->l[i] = ml[(uint64_t)(j0 + i) * 2 + 1];
        }
        max = make_factors(shared, n_here, max);
        for (uint32_t i = 0; i < n_here; i += 2 * step) {
            const float *from = o + (uint64_t)(j0 + i) * head_dim;
            uint32_t left = n - j0 - i;

            load_column(from + (uint64_t)step * head_dim, head_dim, left > step ? left - step : 0, next);
            merge_column(shared, i, left, now, &sum, &out);
            load_column(from + (uint64_t)2 * step * head_dim, head_dim, left > 2 * step ? left - 2 * step : 0, now);
            if (left > step)
                merge_column(shared, i + step, left - step, next, &sum, &out);
        }
    }
    if (simt_thread() < head_dim)
        args.y[((uint64_t)token * args.n_heads + head) * head_dim + d] = out / sum;
}
