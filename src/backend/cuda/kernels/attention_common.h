/* What the kernels of attention share: which positions a row sees, where they lie, softmax of a piece. The order of all sums is docs/numerics.md's. */
#ifndef M40_CUDA_KERNELS_ATTENTION_COMMON_H
#define M40_CUDA_KERNELS_ATTENTION_COMMON_H

#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kv_view.h"
#include "backend/cuda/kernels/words.h"
#include "base/fmath.h"

/* SIMT_KERNEL_RESIDENT for a name that a macro makes. */
#define ATTENTION_KERNEL(name, max_threads, min_blocks) SIMT_KERNEL_RESIDENT(name, struct attention_args, max_threads, min_blocks)

enum { ATTENTION_PIECE = 64 }; /* M40_ATTN_PIECE */

/* Positions begin .. end - 1 of a piece, counted from its first one; none where end <= begin. */
struct attention_range {
    uint32_t begin, end;
};

M40_HD uint32_t attention_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The first position that a row at position pos sees. */
M40_HD uint32_t attention_first(uint32_t window, uint32_t pos)
{
    return window > 0 && pos >= window ? pos + 1 - window : 0;
}

/* What a row at position pos sees of a piece. */
M40_HD struct attention_range attention_visible(uint32_t window, uint32_t pos, uint32_t piece)
{
    uint32_t start = piece * ATTENTION_PIECE, first = attention_first(window, pos);
    struct attention_range range;

    range.begin = first > start ? attention_min(first - start, ATTENTION_PIECE) : 0;
    range.end = pos + 1 > start ? attention_min(pos + 1 - start, ATTENTION_PIECE) : 0;
    return range;
}

/* K or V of one head in the two pages of a piece: bytes from the cache's beginning. */
struct attention_pages {
    uint64_t low, high;
};

/* Of a page in which no position of the range lies, nothing may be known: the other one stands for it. */
M40_HD struct attention_pages attention_find(const struct kv_view *kv, uint32_t slot, uint32_t piece, struct attention_range range, uint32_t which,
                                             uint32_t kv_head)
{
    uint32_t start = piece * ATTENTION_PIECE;
    uint32_t low = kv_page(kv, slot, range.begin < KV_PAGE ? start : start + KV_PAGE);
    uint32_t high = kv_page(kv, slot, range.end > KV_PAGE ? start + KV_PAGE : start);
    struct attention_pages pages;

    pages.low = kv_row_offset(kv, low, which, kv_head, 0);
    pages.high = kv_row_offset(kv, high, which, kv_head, 0);
    return pages;
}

M40_HD float attention_greater(float a, float b)
{
    return b > a ? b : a;
}

/* What is left of a score where there is a soft-cap; the caller asks, once for all its scores. */
M40_HD float attention_capped(const struct attention_args *args, float score)
{
    return args->softcap * m40_tanhf(score);
}

/* A head's sum of exponentials with its sink's, where it has one. */
M40_HD float attention_with_sink(const struct attention_args *args, uint32_t head, float max, float sum)
{
    return args->sinks ? sum + m40_expf(args->sinks[head] - max) : sum;
}

M40_HD void attention_widen_2(uint32_t halves, float *out)
{
    out[0] = m40_f16_to_f32((uint16_t)halves);
    out[1] = m40_f16_to_f32((uint16_t)(halves >> 16));
}

/* The elements of 16 bytes of the cache: eight of FP16 or four of FP32. */
M40_HD void attention_widen(struct m40_u32x4 word, uint32_t is_f32, struct m40_f32x4 *out)
{
    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        if (is_f32)
            out[0].v[j] = m40_bits_to_f32(word.u[j]);
        else
            attention_widen_2(word.u[j], &out[j / 2].v[j % 2 * 2]);
    }
}

#endif
