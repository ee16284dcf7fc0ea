/* Where a row of the KV cache lies, for kernels. */
#ifndef M40_CUDA_KERNELS_KV_VIEW_H
#define M40_CUDA_KERNELS_KV_VIEW_H

#include "backend/cuda/kernels/kernel_args.h"
#include "base/portable.h"

enum { KV_PAGE = 32 }; /* positions a page: M40_KV_PAGE */

/* Page of position pos of the sequence in `slot`. */
M40_HD uint32_t kv_page(const struct kv_view *kv, uint32_t slot, uint32_t pos)
{
    return (uint32_t)kv->pages[(uint64_t)slot * kv->n_slot_pages + pos / KV_PAGE];
}

/* K (which = 0) or V (1) of one head at a position of the page, in bytes from the cache's beginning. */
M40_HD uint64_t kv_row_offset(const struct kv_view *kv, uint32_t page, uint32_t which, uint32_t head, uint32_t pos_in_page)
{
    uint64_t row = (((uint64_t)page * 2 + which) * kv->n_kv_heads + head) * KV_PAGE + pos_in_page;

    return row * kv->head_dim * (kv->is_f32 ? 4 : 2);
}

M40_HD uint8_t *kv_row(const struct kv_view *kv, uint32_t page, uint32_t which, uint32_t head, uint32_t pos_in_page)
{
    return kv->base + kv_row_offset(kv, page, which, head, pos_in_page);
}

#endif
