/* rope_append: norm, rotation and the way into the cache for every head of q, k and v; a warp a head. */
#include "backend/cuda/kernels/head_norm.h"
#include "backend/cuda/kernels/kv_view.h"

enum { HEADS_A_BLOCK = 8, MAX_HEAD_DIM = 256 };

struct rope_append_shared {
    float rows[HEADS_A_BLOCK][MAX_HEAD_DIM];
};

/* Element c of the head after rotation. */
M40_HD float rotated(const struct rope_append_args *args, const float *row, const float *cos_sin, uint32_t c)
{
    uint32_t half = args->n_rot / 2;
    uint32_t i = args->is_neox ? c % half : c / 2, is_b = args->is_neox ? c >= half : c % 2;
    float a = row[args->is_neox ? i : 2 * i], b = row[args->is_neox ? i + half : 2 * i + 1];
    float cosine = cos_sin[2 * i], sine = cos_sin[2 * i + 1];

    return is_b ? m40_fmaf(a, sine, b * cosine) : m40_fmaf(a, cosine, -(b * sine));
}

/* Where the head's row goes: back to q, or to its place in the cache. */
M40_HD void store_row(const struct rope_append_args *args, const float *x, uint32_t which, uint32_t head, uint32_t token)
{
    const struct kv_view *kv = &args->kv;
    uint32_t pos = (uint32_t)kv->pos[token];
    float *wide = args->q + (uint64_t)token * args->q_stride + (uint64_t)head * kv->head_dim;
    uint8_t *row = 0;

    if (which > 0) {
        row = kv_row(kv, kv_page(kv, (uint32_t)kv->slot[token], pos), which - 1, head, pos % KV_PAGE);
        wide = (float *)(void *)row;
    }
    M40_UNROLL
    for (uint32_t g = 0; g < MAX_HEAD_DIM / SIMT_WARP; g++) {
        uint32_t c = SIMT_WARP * g + simt_lane();

        if (c >= kv->head_dim)
            continue;
        if (which == 0 || kv->is_f32)
            wide[c] = x[g];
        else
            ((uint16_t *)(void *)row)[c] = m40_f32_to_f16(x[g]);
    }
}

SIMT_KERNEL(rope_append, struct rope_append_args, 256)
{
    SIMT_SHARED(struct rope_append_shared, shared);
    uint32_t token = simt_block_x(), head = simt_block_y() * HEADS_A_BLOCK + simt_warp();
    uint32_t head_dim = args.kv.head_dim, n_kv_heads = args.kv.n_kv_heads, which = 0;
    const float *from = args.q + (uint64_t)token * args.q_stride, *norm = args.q_norm;
    const float *cos_sin = head < args.n_heads ? args.q_table : args.table;
    float *row = shared->rows[simt_warp()], x[MAX_HEAD_DIM / SIMT_WARP];

    if (head >= args.n_heads + 2 * n_kv_heads)
        return;
    if (head >= args.n_heads) {
        head -= args.n_heads;
        which = head >= n_kv_heads ? 2 : 1;
        head -= which == 2 ? n_kv_heads : 0;
        from = (which == 2 ? args.v : args.k) + (uint64_t)token * args.kv_stride;
        norm = which == 2 ? 0 : args.k_norm;
    }
    cos_sin += (uint64_t)(uint32_t)args.kv.pos[token] * args.n_rot;
    load_short_row(from + (uint64_t)head * head_dim, head_dim, x);
    if (norm)
        norm_short_row(x, norm, head_dim, args.eps);
    M40_UNROLL
    for (uint32_t g = 0; g < MAX_HEAD_DIM / SIMT_WARP; g++)
        row[SIMT_WARP * g + simt_lane()] = x[g];
    simt_barrier(); /* pairs lie across lanes */
    M40_UNROLL
    for (uint32_t g = 0; g < MAX_HEAD_DIM / SIMT_WARP; g++) {
        uint32_t c = SIMT_WARP * g + simt_lane();

        if (which < 2 && c < args.n_rot)
            x[g] = rotated(&args, row, cos_sin, c);
    }
    store_row(&args, x, which, head, token);
}
