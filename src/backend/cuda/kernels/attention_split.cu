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
    MERGE_FEW = 8,      /* pieces whose o a lane of attention_split asks for at once */
    MERGE_AHEAD = 64,   /* the same of attention_merge */
    MERGE_BATCH = 16,   /* in units of which it does so */
    MERGE_PIECES = 512, /* of which attention_merge makes the factors at once */
};

/* How a piece enters the merge: what was, times a, and the piece's own, times b; l is its sum. 128 bits: one load. */
struct merge_factors {
    float a, b, l, unused;
} __attribute__((aligned(16)));

/* The factors of this lane's piece; where there is none, those that change nothing: fmaf(0, -0, x * 1) is x. before: M before the first lane's piece. Every lane of the warp takes part. */
M40_HD struct merge_factors scan_factors(float before, uint32_t is_there, float m, float l)
{
    float after = is_there ? m : m40_bits_to_f32(0xff800000u), last;
    struct merge_factors factors = {1.0f, -0.0f, 0.0f, 0.0f};

    M40_UNROLL
    for (uint32_t d = 1; d < SIMT_WARP; d *= 2) {
        float other = simt_shfl_f32(after, (simt_lane() - d) % SIMT_WARP);

        after = simt_lane() >= d ? attention_greater(other, after) : after;
    }
    last = simt_shfl_f32(after, (simt_lane() - 1) % SIMT_WARP);
    before = simt_lane() > 0 ? attention_greater(before, last) : before;
    after = attention_greater(before, m);
    if (is_there) {
        factors.a = m40_expf_down(before - after);
        factors.b = m40_expf_down(m - after);
        factors.l = l;
    }
    return factors;
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

/* (m, l) of n pieces to their factors, 32 pieces a warp at a time; max: M before them. Gives M after them. Begins and ends with a barrier. */
M40_HD float make_factors(struct attention_merge_shared *shared, const float *ml, uint32_t n, float max)
{
    float all = max;

    simt_barrier();
    for (uint32_t i = simt_thread(); i < n; i += simt_block_dim()) {
        shared->m[i] = ml[(uint64_t)i * 2];
        shared->l[i] = ml[(uint64_t)i * 2 + 1];
    }
    simt_barrier();
    for (uint32_t i0 = simt_warp() * SIMT_WARP; i0 < n; i0 += simt_block_dim()) {
        uint32_t i = i0 + simt_lane(), at = i < n ? i : 0;
        float before = max;

        for (uint32_t k = simt_lane(); k < i0; k += SIMT_WARP)
            before = attention_greater(before, shared->m[k]);
        shared->factors[i] = scan_factors(warp_max(before), i < n, shared->m[at], shared->l[at]);
    }
    for (uint32_t k = simt_lane(); k < n; k += SIMT_WARP)
        all = attention_greater(all, shared->m[k]);
    all = warp_max(all);
    simt_barrier();
    return all;
}

/* This thread's column of up to MERGE_AHEAD pieces, zeros for those that do not exist. */
M40_HD void load_column(const float *o, uint32_t head_dim, uint32_t n, float *piece)
{
    M40_UNROLL
    for (uint32_t k0 = 0; k0 < MERGE_AHEAD; k0 += MERGE_BATCH) {
        if (k0 < n) {
            M40_UNROLL
            for (uint32_t k = k0; k < k0 + MERGE_BATCH; k++) {
                float value = o[(k < n ? k : 0) * head_dim];

                piece[k] = k < n ? value : 0.0f;
            }
        }
    }
}

M40_HD void merge_column(const struct merge_factors *factors, uint32_t n, const float *piece, float *sum, float *out)
{
    M40_UNROLL
    for (uint32_t k0 = 0; k0 < MERGE_AHEAD; k0 += MERGE_BATCH) {
        if (k0 < n) {
            M40_UNROLL
            for (uint32_t k = k0; k < k0 + MERGE_BATCH; k++) {
                struct merge_factors f = factors[k];

                *sum = m40_fmaf(f.l, f.b, *sum * f.a);
                *out = m40_fmaf(piece[k], f.b, *out * f.a);
            }
        }
    }
}

M40_HD uint32_t pieces_left(uint32_t n, uint32_t from)
{
    return n > from ? n - from : 0;
}

/* Grid (head, token of the slice); a thread owns one element. While some pieces are merged, the next ones are on their way. */
SIMT_KERNEL(attention_merge, struct attention_args, 256)
{
    SIMT_SHARED(struct attention_merge_shared, shared);
    const uint32_t head = simt_block_x(), token = args.first_token + simt_block_y(), head_dim = args.kv.head_dim;
    const uint32_t d = simt_thread() < head_dim ? simt_thread() : 0, pos = (uint32_t)args.kv.pos[token];
    const uint32_t n = pos / ATTENTION_PIECE - attention_first(args.window, pos) / ATTENTION_PIECE + 1;
    const uint64_t row = piece_row(&args, simt_block_y(), head), step = (uint64_t)MERGE_AHEAD * head_dim;
    const float *o = args.o + row * head_dim + d, *ml = args.ml + row * 2;
    float max = ml[0], sum = -0.0f, out = -0.0f; /* a first piece has factors of 1: fmaf(x, 1, -0 * 1) is x */
    float now[MERGE_AHEAD] = {0.0f}, next[MERGE_AHEAD] = {0.0f};

    load_column(o, head_dim, n, now);
    for (uint32_t j = 0; j < n; j += 2 * MERGE_AHEAD, o += 2 * step) {
        const struct merge_factors *factors = shared->factors + j % MERGE_PIECES;

        load_column(o + step, head_dim, pieces_left(n, j + MERGE_AHEAD), next);
        if (j % MERGE_PIECES == 0)
            max = make_factors(shared, ml + (uint64_t)j * 2, attention_min(n - j, MERGE_PIECES), max);
        merge_column(factors, n - j, now, &sum, &out);
        load_column(o + 2 * step, head_dim, pieces_left(n, j + 2 * MERGE_AHEAD), now);
        merge_column(factors + MERGE_AHEAD, pieces_left(n, j + MERGE_AHEAD), next, &sum, &out);
    }
    if (simt_thread() < head_dim)
        args.y[((uint64_t)token * args.n_heads + head) * head_dim + d] = out / sum;
}
