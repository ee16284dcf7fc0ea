/* One piece of attention for a block of THREADS threads, each of which works on MINE queries: included once for every such pair by attention.cu, which defines ATTN(name). The numbers are macros, so that
 * the compiler unrolls every loop over queries while the function is still its own, and keeps their sums in registers. */

#undef SETS
#undef QUERIES
#define SETS    (THREADS / PIECE) /* queries that are worked on side by side: query k SETS + set is the k-th of a thread */
#define QUERIES (MINE * SETS)

struct ATTN(shared) {
    TILE_ELEM tile[PIECE * TILE_STRIDE];
    float q[QUERIES * Q_COLS];
    float s[QUERIES * TILE_STRIDE]; /* scores, then exponentials */
    float m[QUERIES], l[QUERIES];   /* split: m of the piece; fused: M and L */
    float a[QUERIES], b[QUERIES];   /* fused: factors of the old sums and of the piece's */
    int32_t pos[QUERIES];
};

/* Shared memory but for the tile, KV head and query heads of this block, whose place in its KV head's group is in the grid's y. */
M40_HD void ATTN(open_block)(const struct attention_args *args, struct ATTN(shared) * shared, struct attention_block *block)
{
    uint32_t n_parts = args->n_group == args->n_block_heads ? 1 : (args->n_group + args->n_block_heads - 1) / args->n_block_heads;
    uint32_t first = n_parts == 1 ? 0 : simt_block_y() % n_parts * args->n_block_heads;

    block->q = shared->q;
    block->s = shared->s;
    block->m = shared->m;
    block->l = shared->l;
    block->a = shared->a;
    block->b = shared->b;
    block->pos = shared->pos;
    block->kv_head = n_parts == 1 ? simt_block_y() : simt_block_y() / n_parts;
    block->first_head = block->kv_head * args->n_group + first;
    block->n_heads = args->n_group - first < args->n_block_heads ? args->n_group - first : args->n_block_heads;
}

/* Columns d0 .. of the queries; queries and columns that do not exist become zero. */
M40_HD void ATTN(stage_queries)(const struct attention_args *args, const struct attention_block *block, uint32_t d0)
{
    uint32_t n_items = QUERIES * (Q_COLS / 4);

    for (uint32_t item = simt_thread(); item < n_items; item += THREADS) {
        uint32_t query = item / (Q_COLS / 4), d = item % (Q_COLS / 4) * 4;
        struct m40_f32x4 v = {{0.0f, 0.0f, 0.0f, 0.0f}};

        if (query < block->n_queries && d0 + d < args->kv.head_dim)
            v = m40_load_f32x4(args->q + query_at(args, block, query, args->q_stride) + d0 + d);
        m40_store_f32x4(block->q + query * Q_COLS + d, v);
    }
}
