/* matvec<T>_<format> for 8 and 16 tokens or fewer, whose x is too much to stay in shared memory as in matvec_tmpl.h. In the order of docs/numerics.md; included by matmul_tmpl.h once for each T.
 *
 * A block owns MATVEC_R row tiles and MATVEC_C chunks of K, a group or half of one; warp w owns the w-th of them, and its lane i row i of each tile: it walks the chunk's columns upwards with a
 * sub-block's and the chunk's sum for each row and token, weights straight from memory (coalesced pieces of 16 bytes), x from shared memory (the same address in all lanes: a broadcast). Then the
 * block adds the chunk sums in order. Where K is longer, the last block of the same rows to arrive adds their sums in order.
 *
 * x lies in shared memory as [column][token], so that one 128-bit load serves four tokens; a warp takes its chunk in stages, and waits for nobody until its end. */
#define MATVEC_NAME(name)             MATMUL_NAME(MATVEC_JOIN(name, MATVEC_T))
#define MATVEC_JOIN(name, t)          MATVEC_JOIN_EXPANDED(name, t)
#define MATVEC_JOIN_EXPANDED(name, t) name##t

#define MATVEC_STAGE_SUBS (32 / MATVEC_T) /* sub-blocks of 32 columns in a stage */
#define MATVEC_STAGES     (MATMUL_CHUNK_SUBS / MATVEC_STAGE_SUBS)
#define MATVEC_R          MATVEC_ROW_TILES(MATVEC_T, MATMUL_IS_PLAIN)
#define MATVEC_C          MATVEC_CHUNKS(MATVEC_T, MATMUL_IS_PLAIN)
#define MATVEC_IS_AHEAD   (MATMUL_PIECES * MATVEC_R <= 4) /* there are registers to load a sub-block ahead */
/* Floats of a sub-block's x, with a gap that puts the sub-blocks of a warp into different banks. */
#define MATVEC_STRIDE (MATMUL_TILE * MATVEC_T + MATVEC_T)

struct MATVEC_NAME(matvec_x) {
    float x[MATVEC_STAGE_SUBS][MATVEC_STRIDE];
    float sums[MATVEC_STAGE_SUBS][MATMUL_SUBS][MATVEC_T];
} __attribute__((aligned(16)));

struct MATVEC_NAME(matvec_shared) {
    union {
        struct MATVEC_NAME(matvec_x) chunks[MATVEC_C];          /* while the warps walk */
        float sums[MATVEC_C][MATVEC_R * MATVEC_T][MATMUL_TILE]; /* then; token * MATVEC_R + row tile */
    } u;
    uint32_t is_last;
};

/* Brings the stage's columns of x, the first of which is first_col; what does not exist becomes zeros, which enter no sum that is used. */
M40_HD void MATVEC_NAME(matvec_bring_part)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    for (uint32_t s = 0; s < MATVEC_STAGE_SUBS; s++) {
        for (uint32_t t = 0; t < MATVEC_T; t++)
            to->x[s][simt_lane() * MATVEC_T + t] = matmul_x(args, t, first_col + s * MATMUL_TILE + simt_lane());
    }
}

/* The same where all columns exist; the sums of a token that does not are not used. */
M40_HD void MATVEC_NAME(matvec_bring_whole)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    const uint32_t col = first_col + simt_lane();

    M40_UNROLL
    for (uint32_t t = 0; t < MATVEC_T; t += 4) {
        const float *x = matmul_x_row(args, t) + col, *x1 = matmul_x_row(args, t + 1) + col, *x2 = matmul_x_row(args, t + 2) + col,
                    *x3 = matmul_x_row(args, t + 3) + col;

        M40_UNROLL
        for (uint32_t at = 0; at < MATVEC_STAGE_SUBS * MATMUL_TILE; at += MATMUL_TILE)
            matmul_store4(&to->x[at / MATMUL_TILE][simt_lane() * MATVEC_T + t], x[at], x1[at], x2[at], x3[at]);
    }
}

/* The same of x that is prepared, with its sums: what exists of it lies in memory as it does here. */
M40_HD void MATVEC_NAME(matvec_bring_prepared)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    const float *x = args->x + (uint64_t)first_col * MATVEC_T + simt_lane() * 4, *sums = args->x_sums + (uint64_t)first_col / MATMUL_SUB * MATVEC_T;

    M40_UNROLL
    for (uint32_t s = 0; s < MATVEC_STAGE_SUBS; s++) {
        if (first_col + s * MATMUL_TILE >= args->n_cols)
            continue;
        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TILE * MATVEC_T; i += SIMT_WARP * 4)
            *(struct matmul_vec4 *)(void *)&to->x[s][i + simt_lane() * 4] = matmul_load4(x + s * MATMUL_TILE * MATVEC_T + i);
        if (simt_lane() < MATMUL_SUBS * MATVEC_T)
            (&to->sums[s][0][0])[simt_lane()] = sums[s * MATMUL_SUBS * MATVEC_T + simt_lane()];
    }
}

M40_HD void MATVEC_NAME(matvec_bring)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    if (!MATMUL_IS_PLAIN)
        MATVEC_NAME(matvec_bring_prepared)(to, args, first_col);
    else if (first_col + MATVEC_STAGE_SUBS * MATMUL_TILE <= args->n_cols)
        MATVEC_NAME(matvec_bring_whole)(to, args, first_col);
    else
        MATVEC_NAME(matvec_bring_part)(to, args, first_col);
}

/* What a warp has of its row tiles. */
struct MATVEC_NAME(matvec_rows) {
    const uint8_t *tile[MATVEC_R];
    struct FORMAT_NAME(lane) state[MATVEC_R];
    struct FORMAT_NAME(quants) quants[MATVEC_R]; /* of the next sub-block, where MATVEC_IS_AHEAD */
    float acc[MATVEC_R][MATVEC_T];
};

/* What a lane makes of a sub-block of its row tiles. */
struct MATVEC_NAME(matvec_weights) {
    float q[MATVEC_R][MATMUL_TILE], d[MATVEC_R][MATMUL_SUBS], m[MATVEC_R][MATMUL_SUBS];
};

/* Widens sub-block b and asks for the one behind it. */
M40_HD void MATVEC_NAME(matvec_widen)(struct MATVEC_NAME(matvec_rows) * rows, uint32_t b, struct MATVEC_NAME(matvec_weights) * weights)
{
    struct FORMAT_NAME(quants) quants[MATVEC_R];

    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        const uint8_t *tile = rows->tile[r];

        quants[r] = rows->quants[r];
        if (MATVEC_IS_AHEAD)
            FORMAT_NAME(load)(&rows->quants[r], tile, simt_lane(), b + 1 < MATMUL_CHUNK_SUBS ? b + 1 : b);
        else
            FORMAT_NAME(load)(&quants[r], tile, simt_lane(), b);
    }
    if (MATVEC_IS_AHEAD)
        simt_hold_loads();
    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++)
        matmul_weights(&rows->state[r], &quants[r], b, weights->q[r], weights->d[r], weights->m[r]);
}

/* MATVEC_T floats of shared memory. */
M40_HD void MATVEC_NAME(matvec_load)(const float *from, float to[MATVEC_T])
{
    M40_UNROLL
    for (uint32_t i = 0; i < MATVEC_T; i += 4) {
        const struct matmul_vec4 four = matmul_load4(from + i);

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            to[i + j] = four.v[j];
    }
}

/* Column c of sub-block s of the stage. */
M40_HD void MATVEC_NAME(matvec_column)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, uint32_t c,
                                       const struct MATVEC_NAME(matvec_weights) * weights, float sums[MATVEC_R][MATVEC_T])
{
    float x[MATVEC_T];

    MATVEC_NAME(matvec_load)(&chunk->x[s][c * MATVEC_T], x);
    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t++)
            sums[r][t] = m40_fmaf(weights->q[r][c], x[t], sums[r][t]);
    }
}

/* Sub-block s of the stage, which is sub-block b of the tiles. */
M40_HD void MATVEC_NAME(matvec_dot)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, uint32_t b, struct MATVEC_NAME(matvec_rows) * rows)
{
    struct MATVEC_NAME(matvec_weights) weights;

    MATVEC_NAME(matvec_widen)(rows, b, &weights);
    M40_UNROLL
    for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++) {
        float x_sums[MATVEC_T] = {0.0f}, sums[MATVEC_R][MATVEC_T];

        if (MATMUL_BIAS)
            MATVEC_NAME(matvec_load)(chunk->sums[s][sub], x_sums);
        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_R * MATVEC_T; i++) {
            const uint32_t r = i / MATVEC_T, t = i % MATVEC_T;

            sums[r][t] = matmul_first(x_sums[t], rows->acc[r][t]);
        }
        M40_UNROLL
        for (uint32_t c = sub * MATMUL_SUB; c < (sub + 1) * MATMUL_SUB; c++)
            MATVEC_NAME(matvec_column)(chunk, s, c, &weights, sums);
        if (MATMUL_HAS_OFFSETS)
            MATVEC_NAME(matvec_load)(chunk->sums[s][sub], x_sums);
        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_R * MATVEC_T; i++) {
            const uint32_t r = i / MATVEC_T, t = i % MATVEC_T;

            rows->acc[r][t] = matmul_scaled(weights.d[r][sub], sums[r][t], rows->acc[r][t]);
            rows->acc[r][t] = matmul_offset(weights.m[r][sub], x_sums[t], rows->acc[r][t]);
        }
    }
}

/* The same for the first n_cols < 32 columns of a sub-block: predicates rather than a shorter loop, because q lives in registers. */
M40_HD void MATVEC_NAME(matvec_dot_part)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, uint32_t b, uint32_t n_cols,
                                         struct MATVEC_NAME(matvec_rows) * rows)
{
    struct MATVEC_NAME(matvec_weights) weights;

    MATVEC_NAME(matvec_widen)(rows, b, &weights);
    M40_UNROLL
    for (uint32_t c = 0; c < MATMUL_TILE; c++) {
        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_R * MATVEC_T; i++) {
            const uint32_t r = i / MATVEC_T, t = i % MATVEC_T;
            float acc = rows->acc[r][t];

            rows->acc[r][t] = c < n_cols ? m40_fmaf(weights.q[r][c], chunk->x[s][c * MATVEC_T + t], acc) : acc;
        }
    }
}

/* The stage whose first sub-block is `first` of the tiles; n_cols of its columns exist. */
M40_HD void MATVEC_NAME(matvec_walk)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t first, uint32_t n_cols,
                                     struct MATVEC_NAME(matvec_rows) * rows)
{
    M40_ROLLED
    for (uint32_t s = 0; s < n_cols / MATMUL_TILE && s < MATVEC_STAGE_SUBS; s++)
        MATVEC_NAME(matvec_dot)(chunk, s, first + s, rows);
    if (MATMUL_ANY_COLS && n_cols % MATMUL_TILE && n_cols < MATVEC_STAGE_SUBS * MATMUL_TILE) {
        uint32_t s = n_cols / MATMUL_TILE;

        MATVEC_NAME(matvec_dot_part)(chunk, s, first + s, n_cols % MATMUL_TILE, rows);
    }
}

/* Begins a warp's tiles. */
M40_HD void MATVEC_NAME(matvec_open)(struct MATVEC_NAME(matvec_rows) * rows, const struct matmul_kernel_args *args, uint32_t chunk_index)
{
    const uint32_t n_chunks = matmul_chunks(args->n_cols), last_row_tile = (args->n_rows - 1) / MATMUL_TILE;

    M40_UNROLL
    for (uint32_t i = 0; i < MATVEC_R; i++) {
        uint32_t row_tile = simt_block_x() * MATVEC_R + i;

        /* where there is no chunk or tile, the last one is looked at and left */
        rows->tile[i] = matmul_tile(args->tiles, args->n_cols, row_tile < last_row_tile ? row_tile : last_row_tile,
                                    chunk_index < n_chunks ? chunk_index : n_chunks - 1);
    }
    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        const uint8_t *tile = rows->tile[r];

        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t++)
            rows->acc[r][t] = 0.0f;
        FORMAT_NAME(open)(&rows->state[r], tile, simt_lane());
        if (MATVEC_IS_AHEAD)
            FORMAT_NAME(load)(&rows->quants[r], tile, simt_lane(), 0);
    }
}

/* The warp's chunk sums, in rows->acc. A warp's x is its own: the other warps need not wait. */
M40_HD void MATVEC_NAME(matvec_chunk)(struct MATVEC_NAME(matvec_x) * chunk, const struct matmul_kernel_args *args, uint32_t chunk_index,
                                      struct MATVEC_NAME(matvec_rows) * rows)
{
    uint32_t n_cols = matmul_chunk_cols(args->n_cols, chunk_index);

    MATVEC_NAME(matvec_open)(rows, args, chunk_index);
    for (uint32_t stage = 0; stage < MATVEC_STAGES; stage++) {
        uint32_t first_col = stage * MATVEC_STAGE_SUBS * MATMUL_TILE;
        uint32_t n_stage_cols = n_cols > first_col ? n_cols - first_col : 0;

        if (stage)
            simt_warp_barrier();
        MATVEC_NAME(matvec_bring)(chunk, args, chunk_index * MATMUL_CHUNK + first_col);
        simt_warp_barrier();
        MATVEC_NAME(matvec_walk)(chunk, stage * MATVEC_STAGE_SUBS, n_stage_cols, rows);
    }
}

/* Whether this block is the last of its row tile to come here; its partial sums, and then all of them, are visible. Called by every thread. */
M40_HD int MATVEC_NAME(matvec_arrive)(struct MATVEC_NAME(matvec_shared) * shared, uint32_t *counter)
{
    simt_fence();
    simt_barrier();
    if (simt_thread() == 0) {
        shared->is_last = simt_atomic_add_u32(counter, 1) == simt_grid_y() - 1;
        if (shared->is_last)
            *counter = 0;
    }
    simt_barrier();
    simt_fence();
    return (int)shared->is_last;
}

/* A block's sums are runs of four rows of a row tile: run i % 8 of row tile i / 8 % MATVEC_R, for token i / (8 * MATVEC_R). */

/* The sum of run i over the n_chunks of the block's chunks that exist. */
M40_HD struct matmul_vec4 MATVEC_NAME(matvec_sum_chunks)(const struct MATVEC_NAME(matvec_shared) * shared, uint32_t i, uint32_t n_chunks)
{
    struct matmul_vec4 chunks[MATVEC_C], sum;

    M40_UNROLL
    for (uint32_t c = 0; c < MATVEC_C; c++)
        chunks[c] = matmul_load4(&shared->u.sums[c][i / 8][i % 8 * 4]);
    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        float own[MATMUL_GROUP];

        M40_UNROLL
        for (uint32_t c = 0; c < MATMUL_GROUP; c++)
            own[c] = chunks[c % MATVEC_C].v[j];
        sum.v[j] = matmul_group(own, n_chunks);
    }
    return sum;
}

/* A run's sum over all n_sums blocks that share K, whose partials lie stride apart; MATMUL_TOTAL_AHEAD are asked for before the first of them is added. */
M40_HD struct matmul_vec4 MATVEC_NAME(matvec_all_blocks)(const struct matmul_vec4 *partials, uint64_t stride, uint32_t n_sums)
{
    struct matmul_vec4 total = {{0.0f, 0.0f, 0.0f, 0.0f}};

    M40_ROLLED
    for (uint32_t first = 0; first < n_sums; first += MATMUL_TOTAL_AHEAD) {
        struct matmul_vec4 sums[MATMUL_TOTAL_AHEAD];

        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TOTAL_AHEAD; i++)
            sums[i] = partials[(first + i < n_sums ? first + i : n_sums - 1) * stride];
        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TOTAL_AHEAD; i += MATMUL_GROUP / MATVEC_C) {
            M40_UNROLL
            for (uint32_t j = 0; j < 4; j++) {
                const float group = MATVEC_C < MATMUL_GROUP && first + i + 1 < n_sums ? sums[i].v[j] + sums[i + 1].v[j] : sums[i].v[j];

                total.v[j] = first + i == 0 ? group : first + i < n_sums ? total.v[j] + group : total.v[j];
            }
        }
    }
    return total;
}

/* y of run i. */
M40_HD void MATVEC_NAME(matvec_store)(const struct matmul_kernel_args *args, uint32_t i, const struct matmul_vec4 *sum)
{
    const uint32_t row = (simt_block_x() * MATVEC_R + i / 8 % MATVEC_R) * MATMUL_TILE + i % 8 * 4;

    M40_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        if (row + j < args->n_rows)
            matmul_store(args, 0, i / (8 * MATVEC_R), row + j, sum->v[j]);
    }
}

/* From the block's chunk sums to y. */
M40_HD void MATVEC_NAME(matvec_finish)(struct MATVEC_NAME(matvec_shared) * shared, const struct matmul_kernel_args *args)
{
    const uint32_t n_left = matmul_chunks(args->n_cols) - simt_block_y() * MATVEC_C, n_chunks = n_left < MATVEC_C ? n_left : MATVEC_C;
    const uint32_t n_runs = MATVEC_R * args->n_tokens * 8, n_block_runs = MATVEC_R * MATVEC_T * 8;
    struct matmul_vec4 *partials = (struct matmul_vec4 *)(void *)args->partials + (uint64_t)simt_block_x() * simt_grid_y() * n_block_runs;

    for (uint32_t i = simt_thread(); i < n_runs; i += MATVEC_C * MATVEC_CHUNK_THREADS) {
        const struct matmul_vec4 sum = MATVEC_NAME(matvec_sum_chunks)(shared, i, n_chunks);

        if (simt_grid_y() > 1)
            partials[(uint64_t)simt_block_y() * n_block_runs + i] = sum;
        else
            MATVEC_NAME(matvec_store)(args, i, &sum);
    }
    if (simt_grid_y() == 1 || !MATVEC_NAME(matvec_arrive)(shared, &args->counters[simt_block_x()]))
        return;
    for (uint32_t i = simt_thread(); i < n_runs; i += MATVEC_C * MATVEC_CHUNK_THREADS) {
        const struct matmul_vec4 sum = MATVEC_NAME(matvec_all_blocks)(partials + i, n_block_runs, simt_grid_y());

        MATVEC_NAME(matvec_store)(args, i, &sum);
    }
}

MATMUL_KERNEL_RESIDENT(MATVEC_NAME(matvec), struct matmul_kernel_args, MATVEC_C *MATVEC_CHUNK_THREADS, MATVEC_RESIDENT_WARPS / MATVEC_C)
{
    SIMT_SHARED(struct MATVEC_NAME(matvec_shared), shared);
    struct MATVEC_NAME(matvec_rows) rows;

    MATVEC_NAME(matvec_chunk)(&shared->u.chunks[simt_warp()], &args, simt_block_y() * MATVEC_C + simt_warp(), &rows);
    simt_barrier();
    M40_UNROLL
    for (uint32_t i = 0; i < MATVEC_R * MATVEC_T; i++)
        shared->u.sums[simt_warp()][i][simt_lane()] = rows.acc[i % MATVEC_R][i / MATVEC_R];
    simt_barrier();
    MATVEC_NAME(matvec_finish)(shared, &args);
}

#undef MATVEC_NAME
#undef MATVEC_JOIN
#undef MATVEC_JOIN_EXPANDED
#undef MATVEC_STAGE_SUBS
#undef MATVEC_STAGES
#undef MATVEC_R
#undef MATVEC_STRIDE
#undef MATVEC_IS_AHEAD
#undef MATVEC_C
#undef MATVEC_T
