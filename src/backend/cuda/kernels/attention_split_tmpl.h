/* attention_split_N, for MINE query heads a warp and a cache of one type: included once for every such pair by attention_split.cu, which defines MINE, IS_F32 and ATTN(name). */

#define ELEMS       (IS_F32 ? 4 : 8)               /* of 16 bytes of the cache */
#define CHUNK_WORDS (MINE <= 4 && !IS_F32 ? 8 : 4) /* 128-bit words of a row of K: what registers are there for */
#define TILE_STRIDE (4 * CHUNK_WORDS + 4) /* 32-bit words from one row of a tile to the next one: lanes on neighbouring rows meet different banks */
#define LOADS       (2 * CHUNK_WORDS)     /* 128-bit words of a chunk that a lane brings */
#define LOAD_ROWS   (ATTENTION_PIECE / LOADS)       /* rows that a warp brings at once */
#define BATCH       (MINE <= 4 && !IS_F32 ? 16 : 8) /* rows of V that a lane asks for at once */

/* LANE_COLS elements of V. */
struct ATTN(value) {
    uint32_t u[IS_F32 ? 4 : 2];
} __attribute__((aligned(IS_F32 ? 16 : 8)));

struct ATTN(warp_shared) {
    uint32_t tile[ATTENTION_PIECE * TILE_STRIDE]; /* a chunk of K as the cache stores it */
    float e[ATTENTION_PIECE * MINE];              /* exponentials: [position][head] */
    struct merge_factors factors[SIMT_WARP];
};

struct ATTN(shared) {
    struct ATTN(warp_shared) warps[WARPS];
    float q[MINE * MAX_HEAD_DIM];
    uint32_t is_last;
};

/* Bytes first_byte .. of K's 64 rows. Rows that nobody sees are any rows of the same pages, columns that do not exist are the row's first ones, and nobody uses either: so there is no branch between the
 * loads, and all of them are under way at once. */
M40_HD void ATTN(load_chunk)(const struct split_work *work, uint32_t first_byte, struct m40_u32x4 *words)
{
    uint32_t column = first_byte + simt_lane() % CHUNK_WORDS * 16;
    uint32_t from = simt_lane() / CHUNK_WORDS * work->row_bytes + (column < work->row_bytes ? column : 0);
    const uint8_t *low = work->base + work->k.low + from, *high = work->base + work->k.high + from;

    M40_UNROLL
    for (uint32_t k = 0; k < LOADS / 2; k++) {
        simt_load_once_u32x4(low, words[k].u);
        simt_load_once_u32x4(high, words[LOADS / 2 + k].u);
        low += LOAD_ROWS * work->row_bytes;
        high += LOAD_ROWS * work->row_bytes;
    }
}

M40_HD void ATTN(store_chunk)(uint32_t *tile, const struct m40_u32x4 *words)
{
    uint32_t *to = tile + simt_lane() / CHUNK_WORDS * TILE_STRIDE + simt_lane() % CHUNK_WORDS * 4;

    M40_UNROLL
    for (uint32_t k = 0; k < LOADS; k++)
        m40_store_u32x4(to + k * LOAD_ROWS * TILE_STRIDE, words[k]);
}

/* dot = fmaf(q[d], k[i][d], dot) over n_words 128-bit words of a row, for both positions of this lane and all heads. */
M40_HD void ATTN(add_dots)(const uint32_t *tile, uint32_t stride, const float *q, uint32_t n_words, float (*dot)[MINE])
{
    M40_UNROLL
    for (uint32_t w = 0; w < n_words; w++) {
        struct m40_f32x4 k[2][2];

        M40_UNROLL
        for (uint32_t p = 0; p < 2; p++)
            attention_widen(m40_load_u32x4(tile + (p * SIMT_WARP * stride + w * 4)), IS_F32, k[p]);
        M40_UNROLL
        for (uint32_t h = 0; h < MINE; h++) {
            M40_UNROLL
            for (uint32_t part = 0; part < ELEMS / 4; part++) {
                struct m40_f32x4 q4 = m40_load_f32x4(q + h * MAX_HEAD_DIM + w * ELEMS + part * 4);

                M40_UNROLL
                for (uint32_t p = 0; p < 2; p++) {
                    M40_UNROLL
                    for (uint32_t j = 0; j < 4; j++)
                        dot[p][h] = m40_fmaf(q4.v[j], k[p][part].v[j], dot[p][h]);
                }
            }
        }
    }
}

/* BATCH rows of V from row i on (a multiple of BATCH), this lane's columns from `column` bytes on. */
M40_HD void ATTN(load_values)(const struct split_work *work, uint32_t column, uint32_t i, struct ATTN(value) * v)
{
    const uint8_t *from = work->base + (i < KV_PAGE ? work->v.low : work->v.high) + i % KV_PAGE * work->row_bytes + column;

    M40_UNROLL
    for (uint32_t j = 0; j < BATCH; j++) {
        if (IS_F32)
            simt_load_once_u32x4(from, v[j].u);
        else
            simt_load_once_u32x2(from, v[j].u);
        from += work->row_bytes;
    }
}

M40_HD void ATTN(add_value)(const float *e, struct ATTN(value) value, struct m40_f32x4 *o)
{
    float v[LANE_COLS];

    M40_UNROLL
    for (uint32_t c = 0; c < LANE_COLS; c++) {
        if (IS_F32)
            v[c] = m40_bits_to_f32(value.u[c]);
        else if (c % 2 == 0)
            attention_widen_2(value.u[c / 2], v + c);
    }
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        M40_UNROLL
        for (uint32_t c = 0; c < LANE_COLS; c++)
            o[h].v[c] = m40_fmaf(e[h], v[c], o[h].v[c]);
    }
}

/* o = fmaf(e[i], v[i][d], o) over the visible ones of BATCH positions from i on. */
M40_HD void ATTN(add_values)(const float *e, uint32_t i, struct attention_range range, const struct ATTN(value) * v, struct m40_f32x4 *o)
{
    e += i * MINE;
    if (range.begin <= i && i + BATCH <= range.end) {
        M40_UNROLL
        for (uint32_t j0 = 0; j0 < BATCH; j0 += 4) {
            struct m40_f32x4 e4[MINE];

            M40_UNROLL
            for (uint32_t k = 0; k < MINE; k++)
                e4[k] = m40_load_f32x4(e + (j0 * MINE + k * 4));
            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++) {
                float mine[MINE];

                M40_UNROLL
                for (uint32_t h = 0; h < MINE; h++)
                    mine[h] = e4[(j * MINE + h) / 4].v[(j * MINE + h) % 4];
                ATTN(add_value)(mine, v[j0 + j], o);
            }
        }
        return;
    }
    M40_UNROLL
    for (uint32_t j = 0; j < BATCH; j++) {
        if (range.begin <= i + j && i + j < range.end)
            ATTN(add_value)(e + j * MINE, v[j], o);
    }
}

/* The first values of a piece: on their way while the last dots are made. */
struct ATTN(first_values) {
    struct ATTN(value) a[BATCH], b[BATCH];
};

M40_HD void ATTN(load_first_values)(const struct split_work *work, uint32_t column, struct ATTN(first_values) * first)
{
    uint32_t row = work->range.begin / (2 * BATCH) * (2 * BATCH);

    ATTN(load_values)(work, column, row, first->a);
    ATTN(load_values)(work, column, row + BATCH, first->b);
}

/* dot of both positions of this lane; words: the first chunk of K, on its way; first: then the first values from `column` on are. Ends where the tile is free for the lane's own use only. */
M40_HD void ATTN(scores)(const struct split_work *work, uint32_t *tile, const float *q, struct m40_u32x4 *words, float (*dot)[MINE], uint32_t column,
                         struct ATTN(first_values) * first)
{
    const uint32_t *mine = tile + simt_lane() * TILE_STRIDE;
    uint32_t n_words = work->row_bytes / 16, w0 = 0;

    M40_ROLLED
    for (; w0 + CHUNK_WORDS < n_words; w0 += CHUNK_WORDS) {
        simt_warp_barrier();
        ATTN(store_chunk)(tile, words);
        simt_warp_barrier();
        ATTN(load_chunk)(work, (w0 + CHUNK_WORDS) * 16, words);
        ATTN(add_dots)(mine, TILE_STRIDE, q + w0 * ELEMS, CHUNK_WORDS, dot);
    }
    simt_warp_barrier();
    ATTN(store_chunk)(tile, words);
    simt_warp_barrier();
    ATTN(load_first_values)(work, column, first);
    simt_hold_loads();
    if (w0 + CHUNK_WORDS == n_words) {
        ATTN(add_dots)(mine, TILE_STRIDE, q + w0 * ELEMS, CHUNK_WORDS, dot);
        return;
    }
    M40_ROLLED
    for (uint32_t w = 0; w0 + w < n_words; w++)
        ATTN(add_dots)(mine + w * 4, TILE_STRIDE, q + (w0 + w) * ELEMS, 1, dot);
}

M40_HD void ATTN(scale_scores)(const struct attention_args *args, float (*dot)[MINE])
{
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        M40_UNROLL
        for (uint32_t p = 0; p < 2; p++)
            dot[p][h] = args->scale * dot[p][h];
    }
    if (args->softcap == 0.0f)
        return;
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        M40_UNROLL
        for (uint32_t p = 0; p < 2; p++)
            dot[p][h] = attention_capped(args, dot[p][h]);
    }
}

/* From dots to exponentials, into e; m of every head to all lanes. */
M40_HD void ATTN(exponentials)(const struct attention_args *args, struct attention_range range, float (*dot)[MINE], float *e, float *m)
{
    ATTN(scale_scores)(args, dot);
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        m[h] = m40_bits_to_f32(0xff800000u);
        M40_UNROLL
        for (uint32_t p = 0; p < 2; p++) {
            uint32_t i = p * SIMT_WARP + simt_lane();

            m[h] = range.begin <= i && i < range.end ? attention_greater(m[h], dot[p][h]) : m[h];
        }
    }
    M40_UNROLL
    for (uint32_t d = SIMT_WARP / 2; d > 0; d /= 2) {
        M40_UNROLL
        for (uint32_t h = 0; h < MINE; h++)
            m[h] = attention_greater(m[h], simt_shfl_xor_f32(m[h], d));
    }
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        M40_UNROLL
        for (uint32_t p = 0; p < 2; p++)
            e[simt_lane() * MINE + (p * SIMT_WARP * MINE + h)] = m40_expf_down(dot[p][h] - m[h]);
    }
}

/* l of head lane % MINE. */
M40_HD float ATTN(sum)(const float *e, struct attention_range range)
{
    const float *mine = e + range.begin * MINE + simt_lane() % MINE;
    uint32_t i = range.begin;
    float l = 0.0f;

    for (; i + BATCH <= range.end; i += BATCH, mine += BATCH * MINE) {
        float batch[BATCH];

        M40_UNROLL
        for (uint32_t j = 0; j < BATCH; j++)
            batch[j] = mine[j * MINE];
        M40_UNROLL
        for (uint32_t j = 0; j < BATCH; j++)
            l = l + batch[j];
    }
    for (; i < range.end; i++, mine += MINE)
        l = l + *mine;
    return l;
}

/* o of this lane's columns from d on; first: the first values, on their way. */
M40_HD void ATTN(values)(const struct attention_args *args, const struct split_work *work, const float *e, uint32_t d, uint32_t column,
                         struct ATTN(first_values) * first)
{
    struct ATTN(value) *a = first->a, *b = first->b;
    struct attention_range range = work->range;
    struct m40_f32x4 o[MINE] = {{{0.0f, 0.0f, 0.0f, 0.0f}}};

    M40_ROLLED
    for (uint32_t i = range.begin / (2 * BATCH) * (2 * BATCH); i < range.end; i += 2 * BATCH) {
        ATTN(add_values)(e, i, range, a, o);
        if (i + 2 * BATCH < range.end)
            ATTN(load_values)(work, column, i + 2 * BATCH, a);
        ATTN(add_values)(e, i + BATCH, range, b, o);
        if (i + 3 * BATCH < range.end)
            ATTN(load_values)(work, column, i + 3 * BATCH, b);
    }
    if (d >= work->head_dim)
        return;
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++) {
        if (h < work->n_heads)
            m40_store_f32x4(args->o + (piece_row(args, work->slice_token, work->first_head + h) + work->piece) * work->head_dim + d, o[h]);
    }
}

/* From the first chunk of K to m, l and o of the piece. */
M40_HD void ATTN(piece)(const struct attention_args *args, const struct split_work *work, struct ATTN(warp_shared) * shared, const float *q,
                        struct m40_u32x4 *words)
{
    uint32_t lane_d = simt_lane() * LANE_COLS;
    uint32_t elem_bytes = IS_F32 ? 4 : 2, column = lane_d < work->head_dim ? lane_d * elem_bytes : 0;
    float dot[2][MINE] = {{0.0f}}, m[MINE], l, m_mine = 0.0f;
    struct ATTN(first_values) first;

    ATTN(scores)(work, shared->tile, q, words, dot, column, &first);
    ATTN(exponentials)(args, work->range, dot, shared->e, m);
    simt_warp_barrier();
    l = ATTN(sum)(shared->e, work->range);
    M40_UNROLL
    for (uint32_t h = 0; h < MINE; h++)
        m_mine = simt_lane() == h ? m[h] : m_mine;
    if (simt_lane() < work->n_heads) {
        float *ml = args->ml + (piece_row(args, work->slice_token, work->first_head + simt_lane()) + work->piece) * 2;

        ml[0] = m_mine;
        ml[1] = l;
    }
    ATTN(values)(args, work, shared->e, lane_d, column, &first);
    for (uint32_t d0 = WARP_COLS; d0 < work->head_dim; d0 += WARP_COLS) {
        uint32_t d = d0 + lane_d;

        column = d < work->head_dim ? d * elem_bytes : 0;
        ATTN(load_first_values)(work, column, &first);
        ATTN(values)(args, work, shared->e, d, column, &first);
    }
}

/* The queries' heads of this block's part of a KV head; those that do not exist become zeros. Ends with a barrier. */
M40_HD void ATTN(stage_queries)(const struct attention_args *args, const struct split_work *work, uint32_t token, float *q)
{
    const float *from = args->q + (uint64_t)token * args->q_stride + (uint64_t)work->first_head * work->head_dim;

    for (uint32_t item = simt_thread(); item < MINE * MAX_HEAD_DIM / 4; item += THREADS) {
        uint32_t head = item / (MAX_HEAD_DIM / 4), d = item % (MAX_HEAD_DIM / 4) * 4;
        struct m40_f32x4 v = {{0.0f, 0.0f, 0.0f, 0.0f}};

        if (d >= work->head_dim)
            continue;
        if (head < work->n_heads)
            v = m40_load_f32x4(from + head * work->head_dim + d);
        m40_store_f32x4(q + head * MAX_HEAD_DIM + d, v);
    }
    simt_barrier();
}

/* Grid (WARPS pieces, KV head and part of its group, token of the slice). */
ATTENTION_KERNEL(ATTN(attention_split), THREADS, MINE *(IS_F32 ? 4 : 2) <= 8 ? 4 : 3)
{
    SIMT_SHARED(struct ATTN(shared), shared);
    uint32_t token = args.first_token + simt_block_z(), n_pieces;
    struct split_work work;
    struct m40_u32x4 words[LOADS];

    n_pieces = open_work(&args, &work);
    work.piece = simt_block_x() * WARPS + simt_warp();
    if (simt_block_x() * WARPS >= n_pieces)
        return;
    if (work.piece < n_pieces) {
        find_piece(&args, &work);
        ATTN(load_chunk)(&work, 0, words);
    }
    ATTN(stage_queries)(&args, &work, token, shared->q);
    if (work.piece < n_pieces)
        ATTN(piece)(&args, &work, &shared->warps[simt_warp()], shared->q, words);
    if (!args.counters || !arrive(&args, &shared->is_last, (n_pieces + WARPS - 1) / WARPS))
        return;
    for (uint32_t head = simt_warp(); head < work.n_heads; head += WARPS)
        merge_few(&args, shared->warps[simt_warp()].factors, &work, work.first_head + head, n_pieces);
}

#undef BATCH
#undef LOAD_ROWS
#undef LOADS
#undef TILE_STRIDE
#undef CHUNK_WORDS
#undef ELEMS
#undef ATTN
#undef IS_F32
#undef MINE
