/* The work of one block of attention_split_N, included once for each N after attention_tmpl.h. */

M40_HD void ATTN(split_softmax)(const struct attention_args *args, const struct attention_block *block, uint32_t piece, uint32_t n,
                                uint64_t slice_token)
{
    for (uint32_t query = simt_warp(); query < block->n_queries; query += THREADS / SIMT_WARP) {
        float m = exponentials(block->s + query * TILE_STRIDE, n);

        if (simt_lane() == 0)
            block->m[query] = m;
    }
    simt_barrier();
    if (simt_thread() < block->n_queries) {
        uint32_t query = simt_thread();
        float *ml = args->ml + ((slice_token * args->n_heads + block->first_head + query) * args->n_pieces + piece) * 2;

        ml[0] = block->m[query];
        ml[1] = sum_exponentials(block->s + query * TILE_STRIDE, n);
    }
}

M40_HD void ATTN(split_values)(const struct attention_args *args, const struct attention_block *block, struct piece_pages pages, uint32_t piece,
                               uint32_t n, uint64_t slice_token)
{
    uint32_t set = simt_thread() / TILE_COLS;
    uint32_t head_dim = args->kv.head_dim;

    for (uint32_t d0 = 0; d0 < head_dim; d0 += TILE_COLS) {
        uint32_t d = d0 + simt_thread() % TILE_COLS;
        float o[MINE] = {0.0f};

        simt_barrier();
        ATTN(stage_tile)(args, block, pages, 1, n, d0);
        simt_barrier();
        ATTN(piece_values)(block, piece * PIECE, n, n, o);
        M40_UNROLL
        for (uint32_t k = 0; k < MINE; k++) {
            uint32_t query = k * SETS + set;

            if (query < block->n_queries && d < head_dim)
                args->o[((slice_token * args->n_heads + block->first_head + query) * args->n_pieces + piece) * head_dim + d] = o[k];
        }
    }
}

/* Grid (piece, KV head and part of its group, token of the slice). */
M40_HD void ATTN(split_piece)(const struct attention_args *args, struct ATTN(shared) * shared)
{
    struct attention_block opened, *block = &opened;
    uint32_t piece = simt_block_x(), token = args->first_token + simt_block_z();
    int32_t pos = args->kv.pos[token];
    uint32_t n = visible(pos, piece * PIECE);
    struct piece_pages pages;

    if (n == 0)
        return;
    ATTN(open_block)(args, shared, block);
    block->first_token = token;
    block->n_tokens = 1;
    block->slot = (uint32_t)args->kv.slot[token];
    block->n_queries = block->n_heads;
    pages = find_pages(args, block->slot, piece, n);
    if (simt_thread() < block->n_queries)
        block->pos[simt_thread()] = pos;
    ATTN(piece_scores)(args, block, pages, n);
    ATTN(split_softmax)(args, block, piece, n, simt_block_z());
    ATTN(split_values)(args, block, pages, piece, n, simt_block_z());
}
