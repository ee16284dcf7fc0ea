/* gemm<T>_<format>: y for many tokens, in the order of docs/numerics.md. Included by matmul_tmpl.h once for each T, with GEMM_T = T defined.
 *
 * A block owns GEMM_R rows x GEMM_T tokens and one group of K, or all of K, and walks it in steps of one sub-block of 32: warps widen the weights of the row tiles into
 * shared memory and bring x, both loaded a step ahead; then every thread multiplies along k for its 8 rows x 8 tokens. Only the sums of the sub-block and of the chunk are registers: the
 * sums of half a group, of the group and of all groups wait in local memory, where a chunk's end finds them, once in 256 columns. A thread's rows and tokens are runs of four, so that each is one
 * 128-bit load; the runs of neighbouring threads lie side by side: 8 along the rows x 4 along the tokens are a warp. (With 8 x 4 a thread, shared memory is what limits.)
 *
 * Where a block's rows and tokens are too few to keep a multiprocessor busy, it has two teams of threads: each walks every second chunk, with weights and x of its own, and they meet at a
 * chunk's end, where the first adds the chunk sums in order.
 *
 * Where blocks share K, each leaves its group's sums in args.partials, and the last to arrive of those with the same rows and tokens adds them in order. */
#define GEMM_NAME(name)             MATMUL_NAME(GEMM_JOIN(name, GEMM_T))
#define GEMM_JOIN(name, t)          GEMM_JOIN_EXPANDED(name, t)
#define GEMM_JOIN_EXPANDED(name, t) name##t

#define GEMM_R           GEMM_ROWS
#define GEMM_TEAMS       GEMM_TEAMS_OF(GEMM_T)
#define GEMM_TEAM        GEMM_THREADS_OF(GEMM_T) /* threads */
#define GEMM_BLOCK       (GEMM_TEAM * GEMM_TEAMS)
#define GEMM_WARPS       (GEMM_TEAM / SIMT_WARP)
#define GEMM_MICRO_T     8
#define GEMM_WARP_TOKENS (4 * GEMM_MICRO_T)
#define GEMM_ROW_WARPS   (GEMM_R / 64)
/* What a warp brings of a step: GEMM_W_TILES row tiles of weights, or one of GEMM_W_PARTS parts of the columns of one; and the x of GEMM_X_TOKENS tokens. */
#define GEMM_ROW_TILES      (GEMM_R / MATMUL_TILE)
#define GEMM_W_TILES        (GEMM_ROW_TILES > GEMM_WARPS ? GEMM_ROW_TILES / GEMM_WARPS : 1)
#define GEMM_W_PARTS        (GEMM_WARPS > GEMM_ROW_TILES ? GEMM_WARPS / GEMM_ROW_TILES : 1)
#define GEMM_X_TOKENS       (GEMM_T / GEMM_WARPS)
#define GEMM_UNROLL_COLUMNS 16

/* What a team has of a step. */
struct GEMM_NAME(gemm_tile) {
    float w[MATMUL_TILE][GEMM_R + GEMM_PAD]; /* at a chunk's end, the team's sums */
    float x[MATMUL_TILE][GEMM_T + GEMM_PAD];
    float d[MATMUL_SUBS][GEMM_R], m[MATMUL_SUBS][GEMM_R];
    float x_sums[MATMUL_SUBS][GEMM_T];
} __attribute__((aligned(16)));

struct GEMM_NAME(gemm_shared) {
    struct GEMM_NAME(gemm_tile) tiles[GEMM_TEAMS];
    uint32_t x_first[GEMM_T]; /* where a token's x begins, in floats from place.first_x; the last token's for those beyond it */
    uint32_t y_row[GEMM_T];   /* a token's row of y */
    uint32_t is_last;
};

/* A thread's sums: [token][row run]. */
struct GEMM_NAME(gemm_sums) {
    struct matmul_vec4 v[GEMM_MICRO_T][2];
};

/* What a thread brings of a step: row `lane` of its warp's tiles, column `lane` of its warp's tokens. */
struct GEMM_NAME(gemm_next) {
    struct FORMAT_NAME(lane) state[GEMM_W_TILES];
    struct FORMAT_NAME(quants) quants[GEMM_W_TILES];
    float x[GEMM_X_TOKENS];
    float sums[MATMUL_SUBS];
};

/* What a thread knows of its place. */
struct GEMM_NAME(gemm_place) {
    uint32_t row, token; /* its first ones in the block */
    uint64_t first_x;    /* of the block's, in floats */
    uint32_t expert;     /* whose rows they are; 0 where there are none */
    uint32_t is_idle;    /* the warp's tokens do not exist */
};

/* This thread's team. */
M40_HD uint32_t GEMM_NAME(gemm_team)(void)
{
    return GEMM_TEAMS == 1 ? 0 : simt_thread() / GEMM_TEAM;
}

/* Within the team. */
M40_HD uint32_t GEMM_NAME(gemm_warp)(void)
{
    return GEMM_TEAMS == 1 ? simt_warp() : simt_warp() % GEMM_WARPS;
}

M40_HD uint32_t GEMM_NAME(gemm_thread)(void)
{
    return GEMM_TEAMS == 1 ? simt_thread() : simt_thread() % GEMM_TEAM;
}

/* The first of the tokens whose x this warp brings. */
M40_HD uint32_t GEMM_NAME(gemm_x_token)(void)
{
    return GEMM_NAME(gemm_warp)() * GEMM_X_TOKENS;
}

/* Loads sub-block b of the warp's row tiles. Where there is no such tile or chunk, the last one is taken: what it makes is not stored. */
M40_HD void GEMM_NAME(gemm_load_w)(struct GEMM_NAME(gemm_next) * next, const struct matmul_kernel_args *args,
                                   const struct GEMM_NAME(gemm_place) * place, uint32_t chunk, uint32_t b)
{
    const uint32_t last = (args->n_rows - 1) / MATMUL_TILE, n_chunks = matmul_chunks(args->n_cols);

    M40_UNROLL
    for (uint32_t i = 0; i < GEMM_W_TILES; i++) {
        const uint32_t row_tile = simt_block_x() * GEMM_ROW_TILES + (GEMM_NAME(gemm_warp)() + i * GEMM_WARPS) % GEMM_ROW_TILES;
        const uint8_t *tile = matmul_tile(args->tiles, args->n_cols, place->expert * (last + 1) + (row_tile < last ? row_tile : last),
                                          chunk < n_chunks ? chunk : n_chunks - 1);

        FORMAT_NAME(open)(&next->state[i], tile, simt_lane());
        FORMAT_NAME(load)(&next->quants[i], tile, simt_lane(), b);
    }
}

/* Loads columns first_col .. + 31 of x for the warp's tokens, and the sums over them. What does not exist is taken from the last token or column, and enters no sum that is
 * stored. */
M40_HD void GEMM_NAME(gemm_load_x)(struct GEMM_NAME(gemm_next) * next, const struct GEMM_NAME(gemm_shared) * shared,
                                   const struct matmul_kernel_args *args, const struct GEMM_NAME(gemm_place) * place, uint32_t first_col)
{
    const uint32_t col = first_col + simt_lane(), first = GEMM_NAME(gemm_x_token)();
    const float *x = args->x + place->first_x + (col < args->n_cols ? col : args->n_cols - 1);

    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_X_TOKENS; t++)
        next->x[t] = x[shared->x_first[first + t]];
    if (MATMUL_HAS_SUMS) {
        const float *sums = args->x_sums + (place->first_x + shared->x_first[first + simt_lane() % GEMM_X_TOKENS] + first_col) / MATMUL_SUB;

        M40_UNROLL
        for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++)
            next->sums[sub] = first_col < args->n_cols ? sums[sub] : 0.0f;
    }
}

/* Sub-block b of the chunk. */
M40_HD void GEMM_NAME(gemm_load)(struct GEMM_NAME(gemm_next) * next, const struct GEMM_NAME(gemm_shared) * shared,
                                 const struct matmul_kernel_args *args, const struct GEMM_NAME(gemm_place) * place, uint32_t chunk, uint32_t b)
{
    GEMM_NAME(gemm_load_w)(next, args, place, chunk, b);
    GEMM_NAME(gemm_load_x)(next, shared, args, place, chunk * MATMUL_CHUNK + b * MATMUL_TILE);
}

/* Widens what gemm_load_w loaded of sub-block b into shared memory: row `lane` by this lane. */
M40_HD void GEMM_NAME(gemm_bring_w)(struct GEMM_NAME(gemm_tile) * to, const struct GEMM_NAME(gemm_next) * next, uint32_t b)
{
    M40_UNROLL
    for (uint32_t i = 0; i < GEMM_W_TILES; i++) {
        const uint32_t index = GEMM_NAME(gemm_warp)() + i * GEMM_WARPS, row = index % GEMM_ROW_TILES * MATMUL_TILE + simt_lane();
        float q[MATMUL_TILE], d[MATMUL_SUBS], m[MATMUL_SUBS];

        matmul_weights(&next->state[i], &next->quants[i], b, q, d, m);
        M40_UNROLL
        for (uint32_t part = 0; part < GEMM_W_PARTS; part++) {
            if (GEMM_W_PARTS > 1 && index / GEMM_ROW_TILES != part)
                continue;
            M40_UNROLL
            for (uint32_t k = 0; k < MATMUL_TILE / GEMM_W_PARTS; k++)
                to->w[part * (MATMUL_TILE / GEMM_W_PARTS) + k][row] = q[part * (MATMUL_TILE / GEMM_W_PARTS) + k];
        }
        M40_UNROLL
        for (uint32_t sub = 0; sub < MATMUL_SUBS && !MATMUL_IS_PLAIN; sub++) {
            to->d[sub][row] = d[sub];
            if (MATMUL_HAS_OFFSETS)
                to->m[sub][row] = m[sub];
        }
    }
}

/* Puts what gemm_load_x loaded into shared memory, four tokens a store. */
M40_HD void GEMM_NAME(gemm_bring_x)(struct GEMM_NAME(gemm_tile) * to, const struct GEMM_NAME(gemm_next) * next)
{
    const uint32_t first = GEMM_NAME(gemm_x_token)();

    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_X_TOKENS; t += 4)
        matmul_store4(&to->x[simt_lane()][first + t], next->x[t], next->x[t + 1], next->x[t + 2], next->x[t + 3]);
    if (MATMUL_HAS_SUMS && simt_lane() < GEMM_X_TOKENS) {
        M40_UNROLL
        for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++)
            to->x_sums[sub][first + simt_lane()] = next->sums[sub];
    }
}

/* One column: sums += w * x. */
M40_HD void GEMM_NAME(gemm_column)(const float *w_column, const float *x_column, struct GEMM_NAME(gemm_sums) * sums)
{
    struct matmul_vec4 w[2], x[GEMM_MICRO_T / 4];

    w[0] = matmul_load4(w_column);
    w[1] = matmul_load4(w_column + 32);
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T / 4; t++)
        x[t] = matmul_load4(x_column + t * 16);
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < 8; r++)
            sums->v[t][r / 4].v[r % 4] = m40_fmaf(w[r / 4].v[r % 4], x[t / 4].v[t % 4], sums->v[t][r / 4].v[r % 4]);
    }
}

/* The x sum of a thread's token t, of a sub-block's that begin at `own`. */
M40_HD float GEMM_NAME(gemm_x_sum)(const float *own, uint32_t t)
{
    return MATMUL_HAS_SUMS ? own[t % 4 + t / 4 * 16] : 0.0f;
}

/* What a sub-block's sums begin with. */
M40_HD void GEMM_NAME(gemm_first)(const float *x_sums, const struct GEMM_NAME(gemm_sums) * acc, struct GEMM_NAME(gemm_sums) * sums)
{
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T; t++) {
        const float x_sum = MATMUL_BIAS ? GEMM_NAME(gemm_x_sum)(x_sums, t) : 0.0f;

        M40_UNROLL
        for (uint32_t r = 0; r < 8; r++)
            sums->v[t][r / 4].v[r % 4] = matmul_first(x_sum, acc->v[t][r / 4].v[r % 4]);
    }
}

/* A sub-block's sums, scaled, become part of the chunk's. d, m: of the thread's first row. */
M40_HD void GEMM_NAME(gemm_scale)(const float *d, const float *m, const float *x_sums, const struct GEMM_NAME(gemm_sums) * sums,
                                  struct GEMM_NAME(gemm_sums) * acc)
{
    struct matmul_vec4 scales[2], offsets[2];

    scales[0] = matmul_load4(d);
    scales[1] = matmul_load4(d + 32);
    offsets[0] = matmul_load4(m);
    offsets[1] = matmul_load4(m + 32);
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T; t++) {
        const float x_sum = MATMUL_HAS_OFFSETS ? GEMM_NAME(gemm_x_sum)(x_sums, t) : 0.0f;

        M40_UNROLL
        for (uint32_t r = 0; r < 8; r++) {
            float *own = &acc->v[t][r / 4].v[r % 4];

            *own = matmul_offset(offsets[r / 4].v[r % 4], x_sum, matmul_scaled(scales[r / 4].v[r % 4], sums->v[t][r / 4].v[r % 4], *own));
        }
    }
}

/* The n_cols <= 32 columns of a step. */
M40_HD void GEMM_NAME(gemm_step)(const struct GEMM_NAME(gemm_tile) * from, uint32_t n_cols, const struct GEMM_NAME(gemm_place) * place,
                                 struct GEMM_NAME(gemm_sums) * acc)
{
    const float *w = &from->w[0][place->row], *x = &from->x[0][place->token];

    if (MATMUL_ANY_COLS && n_cols < MATMUL_TILE) {
        M40_ROLLED
        for (uint32_t k = 0; k < n_cols; k++)
            GEMM_NAME(gemm_column)(w + k * (GEMM_R + GEMM_PAD), x + k * (GEMM_T + GEMM_PAD), acc);
        return;
    }
    M40_ROLLED
    for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++) {
        struct GEMM_NAME(gemm_sums) sums;

        GEMM_NAME(gemm_first)(&from->x_sums[sub][place->token], acc, &sums);
        M40_ROLLED
        for (uint32_t first = 0; first < MATMUL_SUB; first += GEMM_UNROLL_COLUMNS) {
            M40_UNROLL
            for (uint32_t k = 0; k < GEMM_UNROLL_COLUMNS; k++)
                GEMM_NAME(gemm_column)(w + k * (GEMM_R + GEMM_PAD), x + k * (GEMM_T + GEMM_PAD), &sums);
            w += GEMM_UNROLL_COLUMNS * (GEMM_R + GEMM_PAD);
            x += GEMM_UNROLL_COLUMNS * (GEMM_T + GEMM_PAD);
        }
        GEMM_NAME(gemm_scale)(&from->d[sub][place->row], &from->m[sub][place->row], &from->x_sums[sub][place->token], &sums, acc);
    }
}

/* acc = the sums of the chunk's n_cols columns (0: the team has none), in steps for the n_block_cols of the block's longest chunk. `next` has its first step, and then the first
 * one of the team's next chunk. */
M40_HD void GEMM_NAME(gemm_chunk)(struct GEMM_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args, uint32_t chunk, uint32_t n_cols,
                                  uint32_t n_block_cols, const struct GEMM_NAME(gemm_place) * place, struct GEMM_NAME(gemm_next) * next,
                                  struct GEMM_NAME(gemm_sums) * acc)
{
    struct GEMM_NAME(gemm_tile) *own = &shared->tiles[GEMM_NAME(gemm_team)()];

    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T; t++)
        acc->v[t][0] = acc->v[t][1] = (struct matmul_vec4){{0.0f, 0.0f, 0.0f, 0.0f}};
    for (uint32_t b = 0; b * MATMUL_TILE < n_block_cols; b++) {
        const uint32_t n_left = GEMM_TEAMS == 1 || n_cols > b * MATMUL_TILE ? n_cols - b * MATMUL_TILE : 0;
        const int is_last = (b + 1) * MATMUL_TILE >= n_block_cols;

        simt_barrier();
        GEMM_NAME(gemm_bring_w)(own, next, b);
        GEMM_NAME(gemm_bring_x)(own, next);
        simt_barrier();
        GEMM_NAME(gemm_load)(next, shared, args, place, is_last ? chunk + GEMM_TEAMS : chunk, is_last ? 0 : b + 1);
        if (!place->is_idle && (GEMM_TEAMS == 1 || n_left))
            GEMM_NAME(gemm_step)(own, n_left < MATMUL_TILE ? n_left : MATMUL_TILE, place, acc);
    }
}

/* One link of a chain of sums: acc = before + acc, but for the first; all but the last are kept for the next. `zero` is 0, which the compiler cannot know: what it
 * indexes stays in local memory. */
M40_HD void GEMM_NAME(gemm_link)(struct GEMM_NAME(gemm_sums) * before, uint32_t zero, struct GEMM_NAME(gemm_sums) * acc, int is_first, int is_last)
{
    if (!is_first) {
        M40_UNROLL
        for (uint32_t i = 0; i < GEMM_MICRO_T * 2; i++) {
            struct matmul_vec4 sum = before->v[zero + i / 2][i % 2];

            M40_UNROLL
            for (uint32_t r = 0; r < 4; r++)
                acc->v[i / 2][i % 2].v[r] = sum.v[r] + acc->v[i / 2][i % 2].v[r];
        }
    }
    if (!is_last) {
        M40_UNROLL
        for (uint32_t i = 0; i < GEMM_MICRO_T * 2; i++)
            before->v[zero + i / 2][i % 2] = acc->v[i / 2][i % 2];
    }
}

/* The sums so far of half a group, a group and all groups; the first team has them. */
struct GEMM_NAME(gemm_chains) {
    struct GEMM_NAME(gemm_sums) half, group, total;
};

/* acc = the sum of the block's chunks from `first` to this one: of half a group, or, at its end, of the group, or, at the group's end, of all. end: behind the block's last chunk. */
M40_HD void GEMM_NAME(gemm_add)(struct GEMM_NAME(gemm_chains) * chains, uint32_t zero, uint32_t first, uint32_t chunk, uint32_t end,
                                struct GEMM_NAME(gemm_sums) * acc)
{
    const int is_half_end = chunk % MATMUL_HALF == MATMUL_HALF - 1 || chunk == end - 1;
    const int is_group_end = chunk % MATMUL_GROUP == MATMUL_GROUP - 1 || chunk == end - 1;

    GEMM_NAME(gemm_link)(&chains->half, zero, acc, chunk % MATMUL_HALF == 0, is_half_end);
    if (is_half_end)
        GEMM_NAME(gemm_link)(&chains->group, zero, acc, chunk % MATMUL_GROUP < MATMUL_HALF, is_group_end);
    if (is_group_end)
        GEMM_NAME(gemm_link)(&chains->total, zero, acc, chunk < first + MATMUL_GROUP, chunk == end - 1);
}

/* A run of a thread's sums where its team leaves them for the first. */
M40_HD float *GEMM_NAME(gemm_left)(struct GEMM_NAME(gemm_shared) * shared, uint32_t team, uint32_t run)
{
    return &shared->tiles[team].w[0][0] + (run * GEMM_TEAM + GEMM_NAME(gemm_thread)()) * 4;
}

/* acc = the sum of this block's chunks: those of one group, or all. With several teams, that of the first. */
M40_HD void GEMM_NAME(gemm_walk)(struct GEMM_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args,
                                 const struct GEMM_NAME(gemm_place) * place, struct GEMM_NAME(gemm_sums) * acc)
{
    const uint32_t n_chunks = matmul_chunks(args->n_cols), zero = args->n_cols >> 31;
    const uint32_t first = simt_block_z() * MATMUL_GROUP,
                   end = simt_grid_z() > 1 && first + MATMUL_GROUP < n_chunks ? first + MATMUL_GROUP : n_chunks;
    struct GEMM_NAME(gemm_chains) chains;
    struct GEMM_NAME(gemm_next) next;

    GEMM_NAME(gemm_load)(&next, shared, args, place, first + GEMM_NAME(gemm_team)(), 0);
    for (uint32_t chunk = first; chunk < end; chunk += GEMM_TEAMS) {
        const uint32_t own = chunk + GEMM_NAME(gemm_team)(), n_longest = matmul_chunk_cols(args->n_cols, chunk); /* no later chunk is longer */
        const uint32_t n_cols = GEMM_TEAMS == 1 ? n_longest : own < end ? matmul_chunk_cols(args->n_cols, own) : 0;

        GEMM_NAME(gemm_chunk)(shared, args, own, n_cols, n_longest, place, &next, acc);
        if (GEMM_TEAMS > 1) {
            simt_barrier();
            M40_UNROLL
            for (uint32_t i = 0; i < GEMM_MICRO_T * 2 && GEMM_NAME(gemm_team)(); i++)
                *(struct matmul_vec4 *)(void *)GEMM_NAME(gemm_left)(shared, GEMM_NAME(gemm_team)(), i) = acc->v[i / 2][i % 2];
            simt_barrier();
            if (GEMM_NAME(gemm_team)())
                continue;
        }
        GEMM_NAME(gemm_add)(&chains, zero, first, chunk, end, acc);
        M40_ROLLED
        for (uint32_t team = 1; team < GEMM_TEAMS && chunk + team < end; team++) {
            M40_UNROLL
            for (uint32_t i = 0; i < GEMM_MICRO_T * 2; i++)
                acc->v[i / 2][i % 2] = matmul_load4(GEMM_NAME(gemm_left)(shared, team, i));
            GEMM_NAME(gemm_add)(&chains, zero, first, chunk + team, end, acc);
        }
    }
}

/* Leaves the group's sums; the last block to come takes acc = the sum of all groups and returns true. */
M40_HD int GEMM_NAME(gemm_meet)(struct GEMM_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args, struct GEMM_NAME(gemm_sums) * acc)
{
    const uint32_t n_tiles = simt_grid_x() * simt_grid_y(), tile = simt_block_y() * simt_grid_x() + simt_block_x();
    /* [group][tile][run of four][thread of the first team] */
    struct matmul_vec4 *partials = (struct matmul_vec4 *)(void *)args->partials + GEMM_NAME(gemm_thread)();
    struct matmul_vec4 *own = partials + ((uint64_t)simt_block_z() * n_tiles + tile) * (GEMM_MICRO_T * 2 * GEMM_TEAM);

    M40_UNROLL
    for (uint32_t i = 0; i < GEMM_MICRO_T * 2 && !GEMM_NAME(gemm_team)(); i++)
        own[i * GEMM_TEAM] = acc->v[i / 2][i % 2];
    simt_fence();
    simt_barrier();
    if (simt_thread() == 0) {
        shared->is_last = simt_atomic_add_u32(&args->counters[tile], 1) == simt_grid_z() - 1;
        if (shared->is_last)
            args->counters[tile] = 0;
    }
    simt_barrier();
    simt_fence();
    if (!shared->is_last || GEMM_NAME(gemm_team)())
        return 0;
    for (uint32_t g = 0; g < simt_grid_z(); g++) {
        const struct matmul_vec4 *group = partials + ((uint64_t)g * n_tiles + tile) * (GEMM_MICRO_T * 2 * GEMM_TEAM);

        M40_UNROLL
        for (uint32_t i = 0; i < GEMM_MICRO_T * 2; i++) {
            struct matmul_vec4 sum = group[i * GEMM_TEAM];

            M40_UNROLL
            for (uint32_t r = 0; r < 4; r++)
                acc->v[i / 2][i % 2].v[r] = g ? acc->v[i / 2][i % 2].v[r] + sum.v[r] : sum.v[r];
        }
    }
    return 1;
}

/* y of gate and up: a thread's first run of rows is gate's, the second, in the next row tile, up's. Rolled, through local memory: it is long, and runs once. */
M40_HD void GEMM_NAME(gemm_store_gated)(const struct GEMM_NAME(gemm_shared) * shared, const struct matmul_kernel_args *args,
                                        const struct GEMM_NAME(gemm_place) * place, uint32_t n_tokens, const struct GEMM_NAME(gemm_sums) * acc)
{
    const uint32_t row = simt_block_x() * GEMM_R + place->row;
    struct GEMM_NAME(gemm_sums) sums;

    M40_UNROLL
    for (uint32_t i = 0; i < GEMM_MICRO_T * 2; i++)
        sums.v[i / 2][i % 2] = acc->v[i / 2][i % 2];
    M40_ROLLED
    for (uint32_t i = 0; i < GEMM_MICRO_T * 4; i++) {
        const uint32_t t = i / 4, token = place->token + t % 4 + t / 4 * 16;

        if (token < n_tokens && row < args->n_rows)
            matmul_store_gated(args, place->expert, shared->y_row[token], row / (2 * MATMUL_TILE) * MATMUL_TILE + row % MATMUL_TILE + i % 4,
                               sums.v[t][0].v[i % 4], sums.v[t][1].v[i % 4]);
    }
}

MATMUL_KERNEL_RESIDENT(GEMM_NAME(gemm), struct matmul_kernel_args, GEMM_BLOCK, GEMM_RESIDENT_THREADS / GEMM_BLOCK)
{
    SIMT_SHARED(struct GEMM_NAME(gemm_shared), shared);
    const uint32_t first_token = simt_block_y() * GEMM_T, warp = GEMM_NAME(gemm_warp)(), warp_token = warp / GEMM_ROW_WARPS * GEMM_WARP_TOKENS;
    struct GEMM_NAME(gemm_place) place = {
        .row = warp % GEMM_ROW_WARPS * 64 + simt_lane() % 8 * 4,
        .token = warp_token + simt_lane() / 8 * 4,
        .first_x = (uint64_t)first_token * args.n_cols,
    };
    uint32_t n_tokens = args.n_tokens - first_token; /* from the block's first on; of the block, where there are experts */
    struct GEMM_NAME(gemm_sums) acc;

    if (args.plan_tiles) {
        const struct expert_tile *tile = &args.plan_tiles[simt_block_y()];

        if (simt_block_y() >= *args.plan_n_tiles)
            return;
        place.expert = tile->expert;
        place.first_x = 0;
        n_tokens = tile->n;
        for (uint32_t t = simt_thread(); t < GEMM_T; t += GEMM_BLOCK) {
            const uint32_t pair = args.plan_pairs[tile->first + (t < n_tokens ? t : n_tokens - 1)];

            shared->x_first[t] = pair / args.x_share * args.n_cols;
            shared->y_row[t] = pair;
        }
    } else {
        for (uint32_t t = simt_thread(); t < GEMM_T; t += GEMM_BLOCK) {
            shared->x_first[t] = (t < n_tokens ? t : n_tokens - 1) * args.n_cols;
            shared->y_row[t] = first_token + t;
        }
    }
    place.is_idle = warp_token >= n_tokens;
    simt_barrier();
    GEMM_NAME(gemm_walk)(shared, &args, &place, &acc);
    if (simt_grid_z() > 1 ? !GEMM_NAME(gemm_meet)(shared, &args, &acc) : GEMM_NAME(gemm_team)())
        return;
    if (args.is_gated) {
        GEMM_NAME(gemm_store_gated)(shared, &args, &place, n_tokens, &acc);
        return;
    }
    M40_UNROLL
    for (uint32_t t = 0; t < GEMM_MICRO_T; t++) {
        M40_UNROLL
        for (uint32_t r = 0; r < 8; r++) {
            uint32_t token = place.token + t % 4 + t / 4 * 16, row = simt_block_x() * GEMM_R + place.row + r % 4 + r / 4 * 32;

            if (token < n_tokens && row < args.n_rows)
                matmul_store(&args, place.expert, shared->y_row[token], row, acc.v[t][r / 4].v[r % 4]);
        }
    }
}

#undef GEMM_NAME
#undef GEMM_JOIN
#undef GEMM_JOIN_EXPANDED
#undef GEMM_R
#undef GEMM_TEAMS
#undef GEMM_TEAM
#undef GEMM_BLOCK
#undef GEMM_WARPS
#undef GEMM_WARP_TOKENS
#undef GEMM_ROW_WARPS
#undef GEMM_ROW_TILES
#undef GEMM_W_TILES
#undef GEMM_W_PARTS
#undef GEMM_X_TOKENS
#undef GEMM_UNROLL_COLUMNS
#undef GEMM_T
#undef GEMM_MICRO_T
