/* kv_append of docs/numerics.md: one thread 8 elements of K or V, 16 bytes of an FP16 cache. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kv_view.h"
#include "backend/cuda/kernels/words.h"

M40_HD uint32_t f16_pair(float low, float high)
{
    return (uint32_t)m40_f32_to_f16(low) | (uint32_t)m40_f32_to_f16(high) << 16;
}

SIMT_KERNEL(kv_append, struct kv_append_args, 256)
{
    uint32_t token = simt_block_x(), which = simt_block_z();
    uint32_t first = (simt_block_y() * 256 + simt_thread()) * 8; /* of the token's n_kv_heads * head_dim elements */
    uint32_t n_elems = args.kv.n_kv_heads * args.kv.head_dim;
    uint32_t head = first / args.kv.head_dim, d = first % args.kv.head_dim;
    const float *src = (which ? args.v : args.k) + (uint64_t)token * n_elems + first;
    struct m40_f32x4 a, b;
    uint32_t pos;
    uint8_t *row;

    if (first >= n_elems)
        return;
    a = m40_load_f32x4(src);
    b = m40_load_f32x4(src + 4);
    pos = (uint32_t)args.kv.pos[token];
    row = kv_row(&args.kv, kv_page(&args.kv, (uint32_t)args.kv.slot[token], pos), which, head, pos % KV_PAGE);
    if (args.kv.is_f32) {
        float *dst = (float *)(void *)row + d;

        m40_store_f32x4(dst, a);
        m40_store_f32x4(dst + 4, b);
    } else {
        struct m40_u32x4 halves = {{f16_pair(a.v[0], a.v[1]), f16_pair(a.v[2], a.v[3]), f16_pair(b.v[0], b.v[1]), f16_pair(b.v[2], b.v[3])}};

        *(struct m40_u32x4 *)(void *)(row + d * 2) = halves;
    }
}
