/* One piece of attention for a block of THREADS threads, each of which works on MINE queries: included once for every such pair by attention.cu, which defines ATTN(name). The numbers are macros, so that
 * the compiler unrolls every loop over queries while the function is still its own, and keeps their sums in registers. */

#undef SETS
#undef QUERIES
#undef ITEMS
#define SETS    (THREADS / PIECE) /* queries that are worked on side by side: query k SETS + set is the k-th of a thread */
#define QUERIES (MINE * SETS)
#define ITEMS   (PIECE * TILE_COLS / 8 / THREADS) /* pieces of 8 elements that a thread brings into a tile */

struct ATTN(shared) {
    float tile[PIECE * TILE_STRIDE];
    float q[QUERIES * TILE_COLS];
    float s[QUERIES * TILE_STRIDE]; /* scores, then exponentials */
    float m[QUERIES], l[QUERIES];   /* split: m of the piece; fused: M and L */
    float a[QUERIES], b[QUERIES];   /* fused: factors of the old sums and of the piece's */
    int32_t pos[QUERIES];
};

/* Shared memory, KV head and query heads of this block, whose place in its KV head's group is in the grid's y. */
M40_HD void ATTN(open_block)(const struct attention_args *args, struct ATTN(shared) * shared, struct attention_block *block)
{
    uint32_t n_parts = (args->n_group + args->n_block_heads - 1) / args->n_block_heads;
    uint32_t first = simt_block_y() % n_parts * args->n_block_heads;

    block->tile = shared->tile;
    block->q = shared->q;
    block->s = shared->s;
    block->m = shared->m;
    block->l = shared->l;
    block->a = shared->a;
    block->b = shared->b;
    block->pos = shared->pos;
    block->kv_head = simt_block_y() / n_parts;
    block->first_head = block->kv_head * args->n_group + first;
    block->n_heads = args->n_group - first < args->n_block_heads ? args->n_group - first : args->n_block_heads;
}

/* Columns d0 .. of K (which = 0) or V (1) at the first n positions of a piece into the tile; everything else in it becomes zero. Loads what does not exist from the piece's first row instead, so that
 * there is no branch between the loads, and all of them are under way at once. */
M40_HD void ATTN(stage_tile)(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t which,
                             uint32_t n, uint32_t d0)
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

/* Columns d0 .. of the queries; queries and columns that do not exist become zero. */
M40_HD void ATTN(stage_queries)(const struct attention_args *args, const struct attention_block *block, uint32_t d0)
{
    uint32_t n_items = QUERIES * (TILE_COLS / 4);

    for (uint32_t item = simt_thread(); item < n_items; item += THREADS) {
        uint32_t query = item / (TILE_COLS / 4), d = item % (TILE_COLS / 4) * 4;
        struct m40_f32x4 v = {{0.0f, 0.0f, 0.0f, 0.0f}};

        if (query < block->n_queries && d0 + d < args->kv.head_dim)
            v = m40_load_f32x4(args->q + query_at(args, block, query, args->q_stride) + d0 + d);
        m40_store_f32x4(block->q + query * TILE_COLS + d, v);
    }
}

/* dot = fmaf(q[d], k[i][d], dot) over the tile's columns, for this thread's position and queries. */
M40_HD void ATTN(add_dots)(const struct attention_block *block, uint32_t n_cols, float *dot)
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
M40_HD void ATTN(piece_scores)(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t n)
{
    uint32_t i = simt_thread() % PIECE, set = simt_thread() / PIECE;
    float dot[MINE] = {0.0f};

    for (uint32_t d0 = 0; d0 < args->kv.head_dim; d0 += TILE_COLS) {
        uint32_t n_cols = args->kv.head_dim - d0 < TILE_COLS ? args->kv.head_dim - d0 : TILE_COLS;

        simt_barrier();
        ATTN(stage_tile)(args, block, pages, 0, n, d0);
        ATTN(stage_queries)(args, block, d0);
        simt_barrier();
        ATTN(add_dots)(block, n_cols, dot);
    }
    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++)
        block->s[(k * SETS + set) * TILE_STRIDE + i] = args->scale * dot[k];
    simt_barrier();
}

/* o[k] = fmaf(e[i], v[i][d], o[k]) for this thread's column and queries: the first n_all positions, which every query sees, then those up to n_any that only some see. */
M40_HD void ATTN(piece_values)(const struct attention_block *block, uint32_t first, uint32_t n_all, uint32_t n_any, float *o)
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
