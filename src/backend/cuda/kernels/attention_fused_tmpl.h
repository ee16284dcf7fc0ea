/* attention_fused_N, of which a block makes N = TILES * 64 elements of a head's output, for which O takes registers: included once for every N by attention_fused.cu, which defines TILES and ATTN(name). */

/* Scores of a piece: words holds the first chunk of K and Q and leaves with the first tile of V. */
M40_HD void ATTN(fused_scores)(const struct attention_args *args, struct fused_shared *shared, const struct fused_run *run, struct attention_pages k,
                               struct attention_pages v, struct fused_words *words, float (*dot)[4])
{
    const uint32_t head_dim = args->kv.head_dim;

    M40_ROLLED
    for (uint32_t d = 0; d < head_dim; d += CHUNK) {
        simt_barrier();
        fused_store_chunk(args, shared, k, d, words);
        simt_barrier();
        if (d + CHUNK < head_dim)
            fused_load_chunk(args, shared, run, k, d + CHUNK, words);
        else
            fused_load(&args->kv, v, simt_block_z() * (TILES * COLS), V_WORDS, COLS / 8, words->kv);
        fused_dots(shared->tile, attention_min(head_dim - d, CHUNK), dot);
    }
}

M40_HD void ATTN(fused_write)(const struct attention_args *args, const struct fused_shared *shared, const struct fused_run *run,
                              float (*out)[MINE][4])
{
    const uint32_t head_dim = args->kv.head_dim;

    M40_UNROLL
    for (uint32_t r = 0; r < MINE; r++) {
        uint32_t query = r * SETS + simt_thread() / LINES, token = run->first_token + query / run->n_heads;
        float *y = args->y + ((uint64_t)token * args->n_heads + run->first_head + query % run->n_heads) * head_dim;

        if (query >= run->n_tokens * run->n_heads)
            continue;
        M40_UNROLL
        for (uint32_t tile = 0; tile < TILES; tile++) {
            uint32_t d = (simt_block_z() * TILES + tile) * COLS + simt_thread() % LINES * 4;
            struct m40_f32x4 word;

            M40_UNROLL
            for (uint32_t c = 0; c < 4; c++)
                word.v[c] = out[tile][r][c] / shared->l[query];
            if (d < head_dim)
                m40_store_f32x4(y + d, word);
        }
    }
}

/* All pieces for one run. */
M40_HD void ATTN(fused_run)(const struct attention_args *args, struct fused_shared *shared, struct fused_run *run)
{
    const uint32_t first_col = simt_block_z() * (TILES * COLS), end_col = attention_min(args->kv.head_dim, first_col + TILES * COLS);
    uint32_t piece, last;
    float out[TILES][MINE][4], max = 0.0f, sum = -0.0f; /* a first piece has factors of 1: fmaf(x, 1, -0 * 1) is x */
    struct attention_pages k;
    struct fused_words words;

    fused_open(args, shared, run);
    piece = attention_first(args->window, run->least) / ATTENTION_PIECE;
    last = run->greatest / ATTENTION_PIECE;
    M40_UNROLL
    for (uint32_t tile = 0; tile < TILES; tile++) {
        M40_UNROLL
        for (uint32_t r = 0; r < MINE; r++) {
            M40_UNROLL
            for (uint32_t c = 0; c < 4; c++)
                out[tile][r][c] = -0.0f;
        }
    }
    for (uint32_t is_first = 1; piece <= last; piece++, is_first = 0) {
        struct attention_range of_least = attention_visible(args->window, run->least, piece);
        struct attention_range of_greatest = attention_visible(args->window, run->greatest, piece);
        struct attention_range any = {of_least.begin, of_greatest.end};
        struct attention_range all = {(of_greatest.begin + 3) / 4 * 4, of_least.end / 4 * 4};
        struct attention_pages v = attention_find(&args->kv, run->slot, piece, any, 1, run->kv_head);
        float dot[MINE][4] = {{0.0f}};

        k = attention_find(&args->kv, run->slot, piece, any, 0, run->kv_head);
        if (is_first)
            fused_load_chunk(args, shared, run, k, 0, &words);
        if (all.begin >= all.end)
            all.begin = all.end = any.begin;
        ATTN(fused_scores)(args, shared, run, k, v, &words, dot);
        fused_exponentials(args, shared, piece, all.begin == 0 && all.end == ATTENTION_PIECE, dot);
        simt_barrier();
        fused_store(&args->kv, v, first_col, V_WORDS, COLS / 8, COLS, words.kv, shared->tile);
        if (simt_thread() < QUERIES)
            fused_move_on(args, shared, piece, &max, &sum);
        simt_barrier();
        M40_UNROLL
        for (uint32_t tile = 0; tile < TILES; tile++) {
            float o[MINE][4] = {{0.0f}};

            if (first_col + tile * COLS >= end_col)
                continue;
            if (tile > 0) {
                simt_barrier();
                fused_store(&args->kv, v, first_col + tile * COLS, V_WORDS, COLS / 8, COLS, words.kv, shared->tile);
                simt_barrier();
            }
            if (first_col + (tile + 1) * COLS < end_col) {
                fused_load(&args->kv, v, first_col + (tile + 1) * COLS, V_WORDS, COLS / 8, words.kv);
            } else if (piece < last) {
                struct attention_range next = {attention_visible(args->window, run->least, piece + 1).begin,
                                               attention_visible(args->window, run->greatest, piece + 1).end};

                k = attention_find(&args->kv, run->slot, piece + 1, next, 0, run->kv_head);
                fused_load_chunk(args, shared, run, k, 0, &words);
            }
            fused_values_seen(args, shared, piece, any.begin, all.begin, o);
            fused_values(shared, all.begin, all.end, o);
            fused_values_seen(args, shared, piece, all.end, any.end, o);
            fused_merge(shared, o, out[tile]);
        }
    }
    if (simt_thread() < QUERIES)
        shared->l[simt_thread()] = attention_with_sink(args, run->first_head + simt_thread() % run->n_heads, max, sum);
    simt_barrier();
    ATTN(fused_write)(args, shared, run, out);
}

/* Grid (KV head and part of its group; tokens in groups of QUERIES / n_block_heads, the last ones, which see most, first; N elements of a head). */
ATTENTION_KERNEL(ATTN(attention_fused), THREADS, 2)
{
    SIMT_SHARED(struct fused_shared, shared);
    uint32_t n_block_tokens = QUERIES / args.n_block_heads, part = simt_block_x() % args.n_parts * args.n_block_heads;
    uint32_t token = args.first_token + (simt_grid_y() - 1 - simt_block_y()) * n_block_tokens;
    uint32_t end = attention_min(args.n_tokens, token + n_block_tokens);
    struct fused_run run;

    run.kv_head = simt_block_x() / args.n_parts;
    run.first_head = run.kv_head * args.n_group + part;
    run.n_heads = attention_min(args.n_group - part, args.n_block_heads);
    while (token < end) {
        run.first_token = token;
        run.n_tokens = 1;
        while (token + run.n_tokens < end && args.kv.slot[token + run.n_tokens] == args.kv.slot[token] &&
               args.kv.pos[token + run.n_tokens] == args.kv.pos[token] + (int32_t)run.n_tokens)
            run.n_tokens++;
        ATTN(fused_run)(&args, shared, &run);
        token += run.n_tokens;
    }
}

#undef ATTN
#undef TILES
