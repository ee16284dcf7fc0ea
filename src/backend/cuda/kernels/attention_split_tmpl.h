/* The work of one block of attention_split_N, included once for each N after attention_tmpl.h. K and V lie in the tile as the cache stores them, and are widened where they are used. The words of the next
 * tile are on their way to registers while this one is worked on. */

/* Columns d0 .. of the queries, which lie one behind the other, a warp a query. What does not exist stays undefined, and so do the scores that nobody reads. */
M40_HD void ATTN(stage_split_queries)(const struct attention_args *args, const struct attention_block *block, uint32_t d0)
{
    const float *q = args->q + query_at(args, block, 0, args->q_stride);
    uint32_t d = simt_lane() * (Q_COLS / SIMT_WARP), head_dim = args->kv.head_dim;

    M40_ROLLED
    for (uint32_t query = simt_warp(); query < block->n_queries; query += THREADS / SIMT_WARP) {
        if (d0 + d < head_dim)
            m40_store_f32x4(block->q + query * Q_COLS + d, m40_load_f32x4(q + query * head_dim + d0 + d));
    }
}

/* dot = fmaf(q[d], k[i][d], dot) over the tile's columns, for this thread's position and queries. */
M40_HD void ATTN(add_word_dots)(const struct attention_args *args, const struct attention_block *block, uint32_t n_cols, float *dot)
{
    const uint32_t *row = block->words + simt_thread() % PIECE * TILE_STRIDE;
    const float *q = block->q + simt_thread() / PIECE * Q_COLS;

    if (args->kv.is_f32) {
        M40_ROLLED
        for (uint32_t d = 0; d < n_cols; d += 4) {
            struct m40_f32x4 k4 = as_floats(m40_load_u32x4(row + d));

            M40_UNROLL
            for (uint32_t k = 0; k < MINE; k++)
                dot[k] = dot_4(q + k * SETS * Q_COLS + d, k4, dot[k]);
        }
        return;
    }
    M40_ROLLED
    for (uint32_t d = 0; d < n_cols; d += 8) {
        struct m40_f32x4 k8[2];

        widen_8(m40_load_u32x4(row + d / 2), k8);
        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            dot[k] = dot_4(q + k * SETS * Q_COLS + d, k8[0], dot[k]);
            dot[k] = dot_4(q + k * SETS * Q_COLS + d + 4, k8[1], dot[k]);
        }
    }
}

/* Exponentials of the scores, a warp a query. */
M40_HD void ATTN(split_exponentials)(const struct attention_block *block, uint32_t n)
{
    M40_ROLLED
    for (uint32_t query = simt_warp(); query < block->n_queries; query += THREADS / SIMT_WARP) {
        float m = exponentials(block->s + query * TILE_STRIDE, n);

        if (simt_lane() == 0)
            block->m[query] = m;
    }
}

/* o = fmaf(e[i], v[i][d], o) over the piece's positions, for this thread's queries and the one or two elements of its word's column. */
M40_HD void ATTN(word_values)(const struct attention_args *args, const struct attention_block *block, uint32_t n, struct m40_f32x2 *o)
{
    const uint32_t *column = block->words + simt_thread() % ROW_WORDS;
    const float *e = block->s + simt_thread() / ROW_WORDS * TILE_STRIDE;
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        struct m40_f32x2 v[4];

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            v[j] = widen_word(column[(i + j) * TILE_STRIDE], args->kv.is_f32);
        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            struct m40_f32x4 e4 = m40_load_f32x4(e + k * SETS * TILE_STRIDE + i);

            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                add_weighted(e4.v[j], v[j], &o[k]);
        }
    }
    for (; i < n; i++) {
        struct m40_f32x2 v = widen_word(column[i * TILE_STRIDE], args->kv.is_f32);

        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++)
            add_weighted(e[k * SETS * TILE_STRIDE + i], v, &o[k]);
    }
}

/* Into the query's piece: o of this thread's one or two elements, which begin at d. */
M40_HD void ATTN(write_values)(const struct attention_args *args, const struct attention_block *block, uint32_t piece, uint32_t d,
                               const struct m40_f32x2 *o)
{
    uint32_t head_dim = args->kv.head_dim, set = simt_thread() / ROW_WORDS;

    if (d >= head_dim)
        return;
    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++) {
        uint32_t query = k * SETS + set;
        float *to = args->o + ((block->first_row + query) * args->n_pieces + piece) * head_dim + d;

        if (query >= block->n_queries)
            continue;
        if (args->kv.is_f32)
            to[0] = o[k].v[0];
        else
            *(struct m40_f32x2 *)(void *)to = o[k];
    }
}

/* s[query][i] of the piece; `words` comes with K's first tile and leaves with V's. Ends with a barrier. */
M40_HD void ATTN(split_scores)(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages,
                               struct split_words *words)
{
    uint32_t tile_cols = ROW_WORDS * 4 / elem_bytes(args), head_dim = args->kv.head_dim;
    float dot[MINE] = {0.0f};

    for (uint32_t d0 = 0; d0 < head_dim; d0 += tile_cols) {
        uint32_t end = d0 + tile_cols, n_cols = head_dim < end ? head_dim - d0 : tile_cols;

        if (d0 > 0)
            simt_barrier();
        ATTN(stage_split_queries)(args, block, d0);
        store_words(block, words);
        simt_barrier();
        load_words(args, block, pages, end >= head_dim, end >= head_dim ? 0 : end * elem_bytes(args), words);
        ATTN(add_word_dots)(args, block, n_cols, dot);
    }
    M40_UNROLL
    for (uint32_t k = 0; k < MINE; k++)
        block->s[(k * SETS + simt_thread() / PIECE) * TILE_STRIDE + simt_thread() % PIECE] = args->scale * dot[k];
    simt_barrier();
}

/* From scores to m, l and o of the piece. */
M40_HD void ATTN(split_values)(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t piece,
                               uint32_t n, struct split_words *words)
{
    uint32_t tile_cols = ROW_WORDS * 4 / elem_bytes(args), head_dim = args->kv.head_dim;

    for (uint32_t d0 = 0; d0 < head_dim; d0 += tile_cols) {
        struct m40_f32x2 o[MINE] = {{{0.0f, 0.0f}}};

        if (d0 > 0)
            simt_barrier();
        store_words(block, words);
        if (d0 == 0)
            ATTN(split_exponentials)(block, n);
        simt_barrier();
        if (d0 + tile_cols < head_dim)
            load_words(args, block, pages, 1, (d0 + tile_cols) * elem_bytes(args), words);
        ATTN(word_values)(args, block, n, o);
        ATTN(write_values)(args, block, piece, d0 + simt_thread() % ROW_WORDS * (4 / elem_bytes(args)), o);
    }
    if (simt_thread() < block->n_queries) {
        uint32_t query = simt_thread();
        float *ml = args->ml + ((block->first_row + query) * args->n_pieces + piece) * 2;

        ml[0] = block->m[query];
        ml[1] = sum_exponentials(block->s + query * TILE_STRIDE, n);
    }
}

/* Grid (piece, KV head and part of its group, token of the slice). */
M40_HD void ATTN(split_piece)(const struct attention_args *args, struct ATTN(shared) * shared)
{
    struct attention_block opened, *block = &opened;
    uint32_t piece = simt_block_x(), token = args->first_token + simt_block_z();
    uint32_t n = visible(args->kv.pos[token], piece * PIECE);
    struct piece_pages pages;
    struct split_words words;

    block->slot = (uint32_t)args->kv.slot[token];
    if (n == 0)
        return;
    pages = find_pages(args, block->slot, piece, n);
    ATTN(open_block)(args, shared, block);
    block->words = shared->tile;
    block->first_token = token;
    block->n_tokens = 1;
    block->n_queries = block->n_heads;
    block->first_row = simt_block_z() * args->n_heads + block->first_head;
    load_words(args, block, pages, 0, 0, &words);
    ATTN(split_scores)(args, block, pages, &words);
    ATTN(split_values)(args, block, pages, piece, n, &words);
}
