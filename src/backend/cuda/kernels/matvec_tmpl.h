/* matvec<T>_<format>: y for MATVEC_T tokens or fewer, in the order of docs/numerics.md. Included by matmul_tmpl.h once for each T.
 *
 * A block owns one row tile and one group of K; warp w owns chunk w of the group, and its lane i row i of the tile: it walks the chunk's columns upwards with one
 * accumulator a token, weights straight from memory (coalesced pieces of 16 bytes), x from shared memory (the same address in all lanes: a broadcast). Then the block
 * adds the chunk sums in order. Where there are several groups, the last block of a row tile to arrive adds their sums in order.
 *
 * x lies in shared memory as [column][token], so that one 128-bit load serves four multiply-adds whatever T is; T > 4 takes the chunk in stages to stay below 48 KB. */
#define MATVEC_NAME(name)             MATMUL_NAME(MATVEC_JOIN(name, MATVEC_T))
#define MATVEC_JOIN(name, t)          MATVEC_JOIN_EXPANDED(name, t)
#define MATVEC_JOIN_EXPANDED(name, t) name##t

#define MATVEC_STAGE_SUBS (MATVEC_T <= 4 ? 8 : 32 / MATVEC_T) /* sub-blocks of 32 columns in a stage */
#define MATVEC_STEP       (MATVEC_T < 4 ? 4 / MATVEC_T : 1)   /* columns whose x is one or more whole 128-bit loads */
#define MATVEC_STAGES     (8 / MATVEC_STAGE_SUBS)
/* Floats of a sub-block's x, with a gap that puts the sub-blocks of a warp into different banks. */
#define MATVEC_STRIDE (MATMUL_TILE * MATVEC_T + (MATVEC_T < 4 ? 4 : MATVEC_T))

struct MATVEC_NAME(matvec_x) {
    float x[MATVEC_STAGE_SUBS][MATVEC_STRIDE];
    float sums[MATVEC_STAGE_SUBS][MATMUL_SUBS][MATVEC_T];
} __attribute__((aligned(16)));

struct MATVEC_NAME(matvec_shared) {
    union {
        struct MATVEC_NAME(matvec_x) chunks[MATMUL_GROUP]; /* while the warps walk */
        float sums[MATMUL_GROUP][MATVEC_T][MATMUL_TILE];   /* then */
    } u;
    uint32_t is_last;
};

/* Brings the stage's columns of x, the first of which is first_col; what does not exist becomes zeros, which enter no sum that is used. */
M40_HD void MATVEC_NAME(matvec_bring)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    M40_UNROLL
    for (uint32_t s = 0; s < MATVEC_STAGE_SUBS; s++) {
        uint32_t col = first_col + s * MATMUL_TILE + simt_lane();
        float *out = &to->x[s][simt_lane() * MATVEC_T];

#if MATVEC_T < 4
        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t++)
            out[t] = matmul_x(args, t, col);
#else
        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t += 4)
            matmul_store4(out + t, matmul_x(args, t, col), matmul_x(args, t + 1, col), matmul_x(args, t + 2, col), matmul_x(args, t + 3, col));
#endif
    }
}

/* Sums of x over the offsets' sub-blocks, each by one lane. */
M40_HD void MATVEC_NAME(matvec_sum)(struct MATVEC_NAME(matvec_x) * chunk)
{
    for (uint32_t i = simt_lane(); i < MATVEC_STAGE_SUBS * MATMUL_SUBS * MATVEC_T; i += SIMT_WARP) {
        uint32_t t = i % MATVEC_T, sub = i / MATVEC_T % MATMUL_SUBS, s = i / MATVEC_T / MATMUL_SUBS;
        const float *x = &chunk->x[s][sub * MATMUL_SUB * MATVEC_T + t];
        float sum = 0.0f;

        M40_UNROLL
        for (uint32_t c = 0; c < MATMUL_SUB; c++)
            sum = sum + x[c * MATVEC_T];
        chunk->sums[s][sub][t] = sum;
    }
}

/* acc[t] over columns c .. c + MATVEC_STEP - 1 of sub-block s of the stage. */
M40_HD void MATVEC_NAME(matvec_step)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, uint32_t c, const float *w, float *acc)
{
    float x[MATVEC_STEP * MATVEC_T];

    M40_UNROLL
    for (uint32_t i = 0; i < MATVEC_STEP * MATVEC_T; i += 4) {
        struct matmul_vec4 four = matmul_load4(&chunk->x[s][c * MATVEC_T + i]);

        M40_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            x[i + j] = four.v[j];
    }
    M40_UNROLL
    for (uint32_t i = 0; i < MATVEC_STEP; i++) {
        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t++)
            acc[t] = m40_fmaf(w[c + i], x[i * MATVEC_T + t], acc[t]);
    }
}

/* acc[t] over sub-block s of the stage; w and m are its weights and offsets. */
M40_HD void MATVEC_NAME(matvec_dot)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, const float *w, const float *m, float *acc)
{
    M40_UNROLL
    for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++) {
        M40_UNROLL
        for (uint32_t c = sub * MATMUL_SUB; c < (sub + 1) * MATMUL_SUB; c += MATVEC_STEP)
            MATVEC_NAME(matvec_step)(chunk, s, c, w, acc);
        if (MATMUL_HAS_OFFSETS) {
            M40_UNROLL
            for (uint32_t t = 0; t < MATVEC_T; t++)
                acc[t] = m40_fmaf(-m[sub], chunk->sums[s][sub][t], acc[t]);
        }
    }
}

/* The same for the first n_cols < 32 columns of a sub-block: predicates rather than a shorter loop, because w lives in registers. */
M40_HD void MATVEC_NAME(matvec_dot_part)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t s, uint32_t n_cols, const float *w, float *acc)
{
    M40_UNROLL
    for (uint32_t c = 0; c < MATMUL_TILE; c++) {
        M40_UNROLL
        for (uint32_t t = 0; t < MATVEC_T; t++)
            acc[t] = c < n_cols ? m40_fmaf(w[c], chunk->x[s][c * MATVEC_T + t], acc[t]) : acc[t];
    }
}

/* acc[t] over the stage whose first sub-block is `first` of the tile; n_cols of its columns exist. */
M40_HD void MATVEC_NAME(matvec_walk)(const struct MATVEC_NAME(matvec_x) * chunk, const struct FORMAT_NAME(lane) * state, const uint8_t *tile,
                                     uint32_t first, uint32_t n_cols, float *acc)
{
    float w[MATMUL_TILE], m[MATMUL_SUBS];

#if MATVEC_T <= 2 /* the loads of a whole chunk are then in flight together */
    if (n_cols >= MATVEC_STAGE_SUBS * MATMUL_TILE) {
        M40_UNROLL
        for (uint32_t s = 0; s < MATVEC_STAGE_SUBS; s++) {
            FORMAT_NAME(weights)(state, tile, simt_lane(), first + s, w, m);
            MATVEC_NAME(matvec_dot)(chunk, s, w, m, acc);
        }
        return;
    }
#endif
    for (uint32_t s = 0; s < n_cols / MATMUL_TILE && s < MATVEC_STAGE_SUBS; s++) {
        FORMAT_NAME(weights)(state, tile, simt_lane(), first + s, w, m);
        MATVEC_NAME(matvec_dot)(chunk, s, w, m, acc);
    }
    if (MATMUL_ANY_COLS && n_cols % MATMUL_TILE && n_cols < MATVEC_STAGE_SUBS * MATMUL_TILE) {
        uint32_t s = n_cols / MATMUL_TILE;

        FORMAT_NAME(weights)(state, tile, simt_lane(), first + s, w, m);
        MATVEC_NAME(matvec_dot_part)(chunk, s, n_cols % MATMUL_TILE, w, acc);
    }
}

/* The warp's chunk sums, acc[t] for row `lane`. Every thread of the block calls it, also where the chunk does not exist. */
M40_HD void MATVEC_NAME(matvec_chunk)(struct MATVEC_NAME(matvec_x) * chunk, const struct matmul_kernel_args *args, uint32_t chunk_index, float *acc)
{
    uint32_t n_chunks = matmul_chunks(args->n_cols), n_cols = matmul_chunk_cols(args->n_cols, chunk_index);
    /* a warp without a chunk looks at the last one and leaves it */
    const uint8_t *tile = matmul_tile(args->tiles, args->n_cols, simt_block_x(), chunk_index < n_chunks ? chunk_index : n_chunks - 1);
    struct FORMAT_NAME(lane) state;

    FORMAT_NAME(open)(&state, tile, simt_lane());
    M40_UNROLL
    for (uint32_t t = 0; t < MATVEC_T; t++)
        acc[t] = 0.0f;
    for (uint32_t stage = 0; stage < MATVEC_STAGES; stage++) {
        uint32_t first_col = stage * MATVEC_STAGE_SUBS * MATMUL_TILE;
        uint32_t n_stage_cols = n_cols > first_col ? n_cols - first_col : 0;

        if (stage)
            simt_barrier();
        MATVEC_NAME(matvec_bring)(chunk, args, chunk_index * MATMUL_CHUNK + first_col);
        simt_barrier();
        if (MATMUL_HAS_OFFSETS) {
            MATVEC_NAME(matvec_sum)(chunk);
            simt_barrier();
        }
        MATVEC_NAME(matvec_walk)(chunk, &state, tile, stage * MATVEC_STAGE_SUBS, n_stage_cols, acc);
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

MATMUL_KERNEL(MATVEC_NAME(matvec), struct matmul_kernel_args, MATVEC_THREADS)
{
    SIMT_SHARED(struct MATVEC_NAME(matvec_shared), shared);
    const uint32_t row = simt_block_x() * MATMUL_TILE + simt_lane(), group = simt_block_y();
    const uint32_t n_left = matmul_chunks(args.n_cols) - group * MATMUL_GROUP;
    const uint32_t n_chunks = n_left < MATMUL_GROUP ? n_left : MATMUL_GROUP; /* of this group */
    const uint64_t n_group_sums = (uint64_t)args.n_tokens * args.n_rows;
    float acc[MATVEC_T];

    MATVEC_NAME(matvec_chunk)(&shared->u.chunks[simt_warp()], &args, group * MATMUL_GROUP + simt_warp(), acc);
    simt_barrier();
    M40_UNROLL
    for (uint32_t t = 0; t < MATVEC_T; t++)
        shared->u.sums[simt_warp()][t][simt_lane()] = acc[t];
    simt_barrier();
    for (uint32_t t = simt_warp(); t < args.n_tokens; t += MATVEC_THREADS / SIMT_WARP) {
        float sum = shared->u.sums[0][t][simt_lane()];

        for (uint32_t c = 1; c < n_chunks; c++)
            sum = sum + shared->u.sums[c][t][simt_lane()];
        if (row >= args.n_rows)
            break;
        if (simt_grid_y() > 1)
            args.partials[group * n_group_sums + (uint64_t)t * args.n_rows + row] = sum;
        else
            matmul_store(&args, t, row, sum);
    }
    if (simt_grid_y() == 1 || !MATVEC_NAME(matvec_arrive)(shared, &args.counters[simt_block_x()]) || row >= args.n_rows)
        return;
    for (uint32_t t = simt_warp(); t < args.n_tokens; t += MATVEC_THREADS / SIMT_WARP) {
        const float *partial = &args.partials[(uint64_t)t * args.n_rows + row];
        float total = *partial;

        for (uint32_t g = 1; g < simt_grid_y(); g++)
            total = total + partial[g * n_group_sums];
        matmul_store(&args, t, row, total);
    }
}

#undef MATVEC_NAME
#undef MATVEC_JOIN
#undef MATVEC_JOIN_EXPANDED
#undef MATVEC_STAGE_SUBS
#undef MATVEC_STAGES
#undef MATVEC_STEP
#undef MATVEC_STRIDE
#undef MATVEC_T
