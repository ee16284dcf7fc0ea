/* gemm_<format>: y for many tokens, in the order of docs/numerics.md. Included by matmul_tmpl.h.
 *
 * A block owns GEMM_ROWS rows x GEMM_TOKENS tokens and walks K in steps of one sub-block of 32: two warps widen the weights of the two row tiles into shared memory
 * while the other two bring x; then every thread multiplies along k for its 8 rows x 4 tokens. Chunk, group and total sums are registers. */

enum {
    GEMM_MICRO_ROWS = 8, /* in two runs of four, GEMM_ROWS / 2 apart: each run is one 128-bit load, side by side in neighbouring threads */
    GEMM_MICRO_TOKENS = 4,
    GEMM_THREAD_ROWS = GEMM_ROWS / GEMM_MICRO_ROWS, /* threads along the rows */
    GEMM_PAD = 4,                                   /* keeps 16-byte alignment and spreads the columns over the banks */
};

struct MATMUL_NAME(gemm_shared) {
    float w[MATMUL_TILE][GEMM_ROWS + GEMM_PAD];
    float x[MATMUL_TILE][GEMM_TOKENS + GEMM_PAD];
    float m[MATMUL_SUBS][GEMM_ROWS];
    float sums[MATMUL_SUBS][GEMM_TOKENS];
} __attribute__((aligned(16)));

/* A thread's sums, [token][row]. */
struct MATMUL_NAME(gemm_sums) {
    float v[GEMM_MICRO_TOKENS][GEMM_MICRO_ROWS];
};

/* Widens sub-block b of the tile: row `lane` by this lane. row_tile: 0 or 1, within the block. */
M40_HD void MATMUL_NAME(gemm_bring_w)(struct MATMUL_NAME(gemm_shared) * shared, const uint8_t *tile, uint32_t row_tile, uint32_t b)
{
    const uint32_t row = row_tile * MATMUL_TILE + simt_lane();
    struct FORMAT_NAME(lane) state;
    float w[MATMUL_TILE], m[MATMUL_SUBS];

    FORMAT_NAME(open)(&state, tile, simt_lane());
    FORMAT_NAME(weights)(&state, tile, simt_lane(), b, w, m);
    M40_UNROLL
    for (uint32_t k = 0; k < MATMUL_TILE; k++)
        shared->w[k][row] = w[k];
    if (MATMUL_HAS_OFFSETS) {
        M40_UNROLL
        for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++)
            shared->m[sub][row] = m[sub];
    }
}

/* Brings columns first_col .. + 31 of x for half (0 or 1) of the block's tokens: lane = column, four tokens a store. */
M40_HD void MATMUL_NAME(gemm_bring_x)(struct MATMUL_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args, uint32_t half,
                                      uint32_t first_col)
{
    const uint32_t first = half * (GEMM_TOKENS / 2), first_token = simt_block_y() * GEMM_TOKENS + first, col = first_col + simt_lane();
    float *out = &shared->x[simt_lane()][first];

    /* unrolled, its loads in flight would cost the registers of a third block on the multiprocessor */
    M40_ROLLED
    for (uint32_t t = 0; t < GEMM_TOKENS / 2; t += 4) {
        uint32_t token = first_token + t;

        matmul_store4(out + t, matmul_x(args, token, col), matmul_x(args, token + 1, col), matmul_x(args, token + 2, col),
                      matmul_x(args, token + 3, col));
    }
    if (MATMUL_HAS_OFFSETS) {
        uint32_t token = first_token + simt_lane(), n_sums = args->n_cols / MATMUL_SUB;
        const float *sums = args->block_sums + (uint64_t)token * n_sums + first_col / MATMUL_SUB;

        M40_UNROLL
        for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++)
            shared->sums[sub][first + simt_lane()] = token < args->n_tokens ? sums[sub] : 0.0f;
    }
}

/* One column: acc += w * x. */
M40_HD void MATMUL_NAME(gemm_column)(const struct MATMUL_NAME(gemm_shared) * shared, uint32_t k, uint32_t row, uint32_t token,
                                     struct MATMUL_NAME(gemm_sums) * acc)
{
    struct matmul_vec4 w[GEMM_MICRO_ROWS / 4], x;

    w[0] = matmul_load4(&shared->w[k][row]);
    w[1] = matmul_load4(&shared->w[k][row + GEMM_ROWS / 2]);
    x = matmul_load4(&shared->x[k][token]);
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_TOKENS; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < GEMM_MICRO_ROWS; r++)
            acc->v[t][r] = m40_fmaf(w[r / 4].v[r % 4], x.v[t], acc->v[t][r]);
    }
}

/* acc = fmaf(-m, sx, acc) */
M40_HD void MATMUL_NAME(gemm_offset)(const struct MATMUL_NAME(gemm_shared) * shared, uint32_t sub, uint32_t row, uint32_t token,
                                     struct MATMUL_NAME(gemm_sums) * acc)
{
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_TOKENS; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < GEMM_MICRO_ROWS; r++)
            acc->v[t][r] = m40_fmaf(-shared->m[sub][row + r % 4 + r / 4 * (GEMM_ROWS / 2)], shared->sums[sub][token + t], acc->v[t][r]);
    }
}

/* The n_cols <= 32 columns of a step. */
M40_HD void MATMUL_NAME(gemm_step)(const struct MATMUL_NAME(gemm_shared) * shared, uint32_t n_cols, uint32_t row, uint32_t token,
                                   struct MATMUL_NAME(gemm_sums) * acc)
{
    if (MATMUL_ANY_COLS && n_cols < MATMUL_TILE) {
        for (uint32_t k = 0; k < n_cols; k++)
            MATMUL_NAME(gemm_column)(shared, k, row, token, acc);
        return;
    }
    M40_UNROLL
    for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++) {
        M40_UNROLL
        for (uint32_t k = sub * MATMUL_SUB; k < (sub + 1) * MATMUL_SUB; k++)
            MATMUL_NAME(gemm_column)(shared, k, row, token, acc);
        if (MATMUL_HAS_OFFSETS)
            MATMUL_NAME(gemm_offset)(shared, sub, row, token, acc);
    }
}

/* sum = is_first ? v : sum + v */
M40_HD void MATMUL_NAME(gemm_add)(struct MATMUL_NAME(gemm_sums) * sum, const struct MATMUL_NAME(gemm_sums) * v, int is_first)
{
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_TOKENS; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < GEMM_MICRO_ROWS; r++)
            sum->v[t][r] = is_first ? v->v[t][r] : sum->v[t][r] + v->v[t][r];
    }
}

/* acc = the chunk's sums. */
M40_HD void MATMUL_NAME(gemm_chunk)(struct MATMUL_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args, uint32_t chunk, uint32_t row,
                                    uint32_t token, struct MATMUL_NAME(gemm_sums) * acc)
{
    const uint32_t n_cols = matmul_chunk_cols(args->n_cols, chunk), last_row_tile = (args->n_rows - 1) / MATMUL_TILE;
    uint32_t row_tile = simt_block_x() * (GEMM_ROWS / MATMUL_TILE) + simt_warp() % 2;
    const uint8_t *tile;

    if (row_tile > last_row_tile)
        row_tile = last_row_tile; /* what it makes is not stored */
    tile = matmul_tile(args->tiles, args->n_cols, row_tile, chunk);
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_TOKENS; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < GEMM_MICRO_ROWS; r++)
            acc->v[t][r] = 0.0f;
    }
    for (uint32_t b = 0; b * MATMUL_TILE < n_cols; b++) {
        uint32_t n_left = n_cols - b * MATMUL_TILE;

        simt_barrier();
        if (simt_warp() < 2)
            MATMUL_NAME(gemm_bring_w)(shared, tile, simt_warp(), b);
        else
            MATMUL_NAME(gemm_bring_x)(shared, args, simt_warp() - 2, chunk * MATMUL_CHUNK + b * MATMUL_TILE);
        simt_barrier();
        MATMUL_NAME(gemm_step)(shared, n_left < MATMUL_TILE ? n_left : MATMUL_TILE, row, token, acc);
    }
}

MATMUL_KERNEL(MATMUL_NAME(gemm), struct matmul_kernel_args, GEMM_THREADS)
{
    SIMT_SHARED(struct MATMUL_NAME(gemm_shared), shared);
    const uint32_t n_chunks = matmul_chunks(args.n_cols);
    /* the thread's first row and token in the block: a warp's 32 threads are 8 along the rows x 4 along the tokens */
    const uint32_t row = simt_thread() % GEMM_THREAD_ROWS * 4, token = simt_thread() / GEMM_THREAD_ROWS * GEMM_MICRO_TOKENS;
    struct MATMUL_NAME(gemm_sums) acc, group, total;

    for (uint32_t chunk = 0; chunk < n_chunks; chunk++) {
        MATMUL_NAME(gemm_chunk)(shared, &args, chunk, row, token, &acc);
        MATMUL_NAME(gemm_add)(&group, &acc, chunk % MATMUL_GROUP == 0);
        if (chunk % MATMUL_GROUP == MATMUL_GROUP - 1 || chunk == n_chunks - 1)
            MATMUL_NAME(gemm_add)(&total, &group, chunk < MATMUL_GROUP);
    }
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_TOKENS; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < GEMM_MICRO_ROWS; r++) {
            uint32_t y_token = simt_block_y() * GEMM_TOKENS + token + t;
            uint32_t y_row = simt_block_x() * GEMM_ROWS + row + r % 4 + r / 4 * (GEMM_ROWS / 2);

            if (y_token < args.n_tokens && y_row < args.n_rows)
                matmul_store(&args, y_token, y_row, total.v[t][r]);
        }
    }
}
