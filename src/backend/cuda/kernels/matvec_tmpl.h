/* matvec<T>_<format>: y for MATVEC_T tokens or fewer, in the order of docs/numerics.md. Included by matmul_tmpl.h once for each T.
 *
 * All blocks are resident at once, and each streams through many row tiles. A block owns a span of K, one group of chunks or two; its warp w owns chunk w of the span and has that chunk's x in
 * shared memory for good. It takes MATVEC_R row tiles at a time: lane i owns row i of each and walks the chunk's columns upwards with a sub-block's and the chunk's sum for each row and token, weights straight from memory
 * (coalesced pieces of 16 bytes, asked for MATVEC_AHEAD sub-blocks before their use, across the end of a tile), x from shared memory (the same address in all lanes: a broadcast). Then the block
 * adds the chunk sums in order, by warps that take turns. Where K has several spans, the last block of the same rows to end adds the sums of the groups in order.
 *
 * x lies in shared memory as [column][token], so that one 128-bit load serves four multiply-adds whatever T is.
 *
 * With MATVEC_EXPERTS, for one token, it is matvec_experts_<format>: the grid's z is pairs of a token and one of its experts, whose tiles the blocks take. (A kernel of its own: where every mat-vec could
 * have experts, one token of a dense model took up to 4 % longer.) */
#if MATVEC_EXPERTS
#define MATVEC_SUFFIX _experts
#else
#define MATVEC_SUFFIX MATVEC_T
#endif
#define MATVEC_NAME(name)             MATMUL_NAME(MATVEC_JOIN(name, MATVEC_SUFFIX))
#define MATVEC_JOIN(name, t)          MATVEC_JOIN_EXPANDED(name, t)
#define MATVEC_JOIN_EXPANDED(name, t) name##t

#define MATVEC_STEP  (MATVEC_T < 4 ? 4 / MATVEC_T : 1) /* columns whose x is one 128-bit load */
#define MATVEC_R     MATVEC_ROW_TILES(MATVEC_T, MATMUL_IS_PLAIN)
#define MATVEC_WARPS (MATVEC_SPAN_GROUPS(MATVEC_T) * MATMUL_GROUP) /* of a block, at most */
/* Floats of a sub-block's x, with a gap that puts the sub-blocks of a chunk into different banks. */
#define MATVEC_STRIDE (MATMUL_TILE * MATVEC_T + 4)
/* About eight pieces of 16 bytes, or four where there are many sums, are on their way to a lane at any time. */
#define MATVEC_AHEAD_SHARE MATVEC_R
#define MATVEC_AHEAD       (MATMUL_PIECES * MATVEC_R * MATVEC_AHEAD_SHARE >= 8 ? 1 : 8 / (MATMUL_PIECES * MATVEC_R * MATVEC_AHEAD_SHARE))
#define MATVEC_ITEMS       (MATVEC_R * MATVEC_T)

struct MATVEC_NAME(matvec_x) {
    float x[MATMUL_CHUNK_SUBS][MATVEC_STRIDE];
    float sums[MATMUL_CHUNK_SUBS][MATMUL_SUBS][MATVEC_T];
} __attribute__((aligned(16)));

struct MATVEC_NAME(matvec_shared) {
    struct MATVEC_NAME(matvec_x) chunks[MATVEC_WARPS];
    float sums[MATVEC_BUFFERS(MATVEC_T)][MATVEC_WARPS][MATVEC_ITEMS][MATMUL_TILE]; /* of chunks; item: token * MATVEC_R + row tile */
    uint32_t is_last[MATVEC_WARPS * SIMT_WARP];
    float norm[NORM_WARPS]; /* sums of squares */
    float gate[MATMUL_TILE];
};

/* x of column c of a sub-block as it is brought: prepared, unless it has to be normalised first. */
M40_HD float MATVEC_NAME(matvec_x_of)(const struct matmul_kernel_args *args, float x, uint32_t c)
{
    return MATVEC_T == 1 && args->norm_weight ? x : matmul_prepare(x, c);
}

/* Brings the chunk's columns of x, the first of which is first_col; what does not exist becomes zeros, which enter no sum that is used. */
M40_HD void MATVEC_NAME(matvec_bring_part)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    for (uint32_t s = 0; s < MATMUL_CHUNK_SUBS; s++) {
        for (uint32_t t = 0; t < MATVEC_T; t++)
            to->x[s][simt_lane() * MATVEC_T + t] =
                MATVEC_NAME(matvec_x_of)(args, matmul_x(args, t, first_col + s * MATMUL_TILE + simt_lane()), simt_lane());
    }
}

/* The same where all columns exist (the sums of a token that does not are not used); for T < 4, x and its rows are aligned to 16 bytes too. */
M40_HD void MATVEC_NAME(matvec_bring_whole)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
#if MATVEC_T < 4
    const float *x = args->x + first_col + simt_lane() * 4;

    M40_UNROLL
    for (uint32_t i = 0; i < MATMUL_CHUNK_SUBS / 4; i++) { /* four sub-blocks at once: four columns a lane */
        float *out = &to->x[i * 4 + simt_lane() / 8][simt_lane() % 8 * 4 * MATVEC_T];
        struct matmul_vec4 first = matmul_load4(x + i * 4 * MATMUL_TILE);

        M40_UNROLL
        for (uint32_t c = 0; c < 4; c++)
            first.v[c] = MATVEC_NAME(matvec_x_of)(args, first.v[c], simt_lane() % 8 * 4 + c);
#if MATVEC_T == 1
        matmul_store4(out, first.v[0], first.v[1], first.v[2], first.v[3]);
#else
        struct matmul_vec4 second = matmul_load4(matmul_x_row(args, 1) + first_col + simt_lane() * 4 + i * 4 * MATMUL_TILE);

        M40_UNROLL
        for (uint32_t c = 0; c < 4; c++)
            second.v[c] = matmul_prepare(second.v[c], simt_lane() % 8 * 4 + c);
        matmul_store4(out, first.v[0], second.v[0], first.v[1], second.v[1]);
        matmul_store4(out + 4, first.v[2], second.v[2], first.v[3], second.v[3]);
#endif
    }
#else
    const uint32_t col = first_col + simt_lane();
    const float *x = matmul_x_row(args, 0) + col, *x1 = matmul_x_row(args, 1) + col, *x2 = matmul_x_row(args, 2) + col,
                *x3 = matmul_x_row(args, 3) + col;

    M40_UNROLL
    for (uint32_t s = 0; s < MATMUL_CHUNK_SUBS; s++)
        matmul_store4(&to->x[s][simt_lane() * MATVEC_T], matmul_prepare(x[s * MATMUL_TILE], simt_lane()),
                      matmul_prepare(x1[s * MATMUL_TILE], simt_lane()), matmul_prepare(x2[s * MATMUL_TILE], simt_lane()),
                      matmul_prepare(x3[s * MATMUL_TILE], simt_lane()));
#endif
}

M40_HD void MATVEC_NAME(matvec_bring)(struct MATVEC_NAME(matvec_x) * to, const struct matmul_kernel_args *args, uint32_t first_col)
{
    const int is_aligned = MATVEC_T >= 4 || (args->n_cols % 4 == 0 && (uintptr_t)args->x % 16 == 0);

    if (is_aligned && first_col + MATMUL_CHUNK <= args->n_cols)
        MATVEC_NAME(matvec_bring_whole)(to, args, first_col);
    else
        MATVEC_NAME(matvec_bring_part)(to, args, first_col);
}

#if MATVEC_T == 1
/* The sum of the squares of every 256th column from the thread's on; many are asked for before the first is added. */
M40_HD float MATVEC_NAME(matvec_squares)(const float *x, uint32_t n_cols)
{
    enum { STRIDE = NORM_WARPS * SIMT_WARP, AHEAD = 16 };
    uint32_t c = simt_thread();
    float p = 0.0f;

    for (; c + (AHEAD - 1) * STRIDE < n_cols; c += AHEAD * STRIDE) {
        float values[AHEAD];

        M40_UNROLL
        for (uint32_t i = 0; i < AHEAD; i++)
            values[i] = x[c + i * STRIDE];
        M40_UNROLL
        for (uint32_t i = 0; i < AHEAD; i++)
            p = m40_fmaf(values[i], values[i], p);
    }
    for (; c < n_cols; c += STRIDE)
        p = m40_fmaf(x[c], x[c], p);
    return p;
}

/* The chunk's columns of x, in place, as rms_norm would give them, prepared. Called by every thread. */
M40_HD void MATVEC_NAME(matvec_norm)(struct MATVEC_NAME(matvec_x) * chunk, float *shared_sums, const struct matmul_kernel_args *args,
                                     uint32_t first_col)
{
    float p, r;

    if (simt_warp() < NORM_WARPS) {
        p = warp_tree(MATVEC_NAME(matvec_squares)(args->x, args->n_cols));
        if (simt_lane() == 0)
            shared_sums[simt_warp()] = p;
    }
    simt_barrier();
    r = norm_scale(block_tree(shared_sums), args->n_cols, args->norm_eps);
    for (uint32_t s = 0; s < MATMUL_CHUNK_SUBS; s++) {
        const uint32_t col = first_col + s * MATMUL_TILE + simt_lane();

        if (col < args->n_cols)
            chunk->x[s][simt_lane()] = matmul_prepare((chunk->x[s][simt_lane()] * r) * args->norm_weight[col], simt_lane());
    }
}
#endif

/* Sums of x over the sub-blocks, each by one lane. */
M40_HD void MATVEC_NAME(matvec_sum)(struct MATVEC_NAME(matvec_x) * chunk)
{
    for (uint32_t i = simt_lane(); i < MATMUL_CHUNK_SUBS * MATMUL_SUBS * MATVEC_T; i += SIMT_WARP) {
        uint32_t t = i % MATVEC_T, sub = i / MATVEC_T % MATMUL_SUBS, s = i / MATVEC_T / MATMUL_SUBS;
        const float *x = &chunk->x[s][sub * MATMUL_SUB * MATVEC_T + t];
        float sum = 0.0f;

        M40_UNROLL
        for (uint32_t c = 0; c < MATMUL_SUB; c++)
            sum = matmul_sum_link(sum, x[c * MATVEC_T], c);
        chunk->sums[s][sub][t] = matmul_sum_end(sum);
    }
}

/* What a lane has of the row tiles that it works on. */
struct MATVEC_NAME(matvec_rows) {
    const uint8_t *tile[MATVEC_R];
    struct FORMAT_NAME(lane) state[MATVEC_R];
    struct FORMAT_NAME(quants) ahead[MATVEC_R][MATVEC_AHEAD];
};

/* What a lane makes of a sub-block of its row tiles. */
struct MATVEC_NAME(matvec_weights) {
    float q[MATVEC_R][MATMUL_TILE], d[MATVEC_R][MATMUL_SUBS], m[MATVEC_R][MATMUL_SUBS];
};

/* One sub-block, b of the chunk. */
M40_HD void MATVEC_NAME(matvec_dot)(const struct MATVEC_NAME(matvec_x) * chunk, uint32_t b, const struct MATVEC_NAME(matvec_weights) * weights,
                                    float acc[MATVEC_R][MATVEC_T])
{
    M40_UNROLL
    for (uint32_t sub = 0; sub < MATMUL_SUBS; sub++) {
        const float *x_sums = chunk->sums[b][sub];
        float sums[MATVEC_R][MATVEC_T];

        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_ITEMS; i++)
            sums[i % MATVEC_R][i / MATVEC_R] = matmul_first(MATMUL_BIAS ? x_sums[i / MATVEC_R] : 0.0f, acc[i % MATVEC_R][i / MATVEC_R]);
        M40_UNROLL
        for (uint32_t c = sub * MATMUL_SUB; c < (sub + 1) * MATMUL_SUB; c += MATVEC_STEP) {
            struct matmul_vec4 x = matmul_load4(&chunk->x[b][c * MATVEC_T]);

            M40_UNROLL
            for (uint32_t i = 0; i < MATVEC_STEP; i++) {
                M40_UNROLL
                for (uint32_t r = 0; r < MATVEC_R; r++) {
                    M40_UNROLL
                    for (uint32_t t = 0; t < MATVEC_T; t++)
                        sums[r][t] = m40_fmaf(weights->q[r][c + i], x.v[i * MATVEC_T + t], sums[r][t]);
                }
            }
        }
        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_ITEMS; i++) {
            const uint32_t r = i % MATVEC_R, t = i / MATVEC_R;

            acc[r][t] = matmul_scaled(weights->d[r][sub], sums[r][t], acc[r][t]);
            acc[r][t] = matmul_offset(weights->m[r][sub], MATMUL_HAS_OFFSETS ? x_sums[t] : 0.0f, acc[r][t]);
        }
    }
}

/* The beginning of the row tiles at `tiles`, which become `rows`. */
M40_HD void MATVEC_NAME(matvec_begin)(struct MATVEC_NAME(matvec_rows) * rows, const uint8_t *const tiles[MATVEC_R])
{
    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        rows->tile[r] = tiles[r];
        FORMAT_NAME(open)(&rows->state[r], tiles[r], simt_lane());
        M40_UNROLL
        for (uint32_t b = 0; b < MATVEC_AHEAD; b++)
            FORMAT_NAME(load)(&rows->ahead[r][b], tiles[r], simt_lane(), b);
    }
}

/* A whole chunk of `rows`, and the beginning of the one at `next`, which becomes `rows`. */
M40_HD void MATVEC_NAME(matvec_stream)(const struct MATVEC_NAME(matvec_x) * chunk, struct MATVEC_NAME(matvec_rows) * rows,
                                       const uint8_t *const next[MATVEC_R], float acc[MATVEC_R][MATVEC_T])
{
    struct FORMAT_NAME(lane) state[MATVEC_R];

    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++)
        FORMAT_NAME(open)(&state[r], next[r], simt_lane());
    M40_UNROLL
    for (uint32_t b = 0; b < MATMUL_CHUNK_SUBS; b++) {
        struct MATVEC_NAME(matvec_weights) weights;

        simt_hold_loads(); /* ptxas puts what the loop uses only the next time at its end */
        M40_UNROLL
        for (uint32_t r = 0; r < MATVEC_R; r++) {
            const uint8_t *tile = b + MATVEC_AHEAD < MATMUL_CHUNK_SUBS ? rows->tile[r] : next[r];

            matmul_weights(&rows->state[r], &rows->ahead[r][b % MATVEC_AHEAD], b, weights.q[r], weights.d[r], weights.m[r]);
            FORMAT_NAME(load)(&rows->ahead[r][b % MATVEC_AHEAD], tile, simt_lane(), (b + MATVEC_AHEAD) % MATMUL_CHUNK_SUBS);
        }
        MATVEC_NAME(matvec_dot)(chunk, b, &weights, acc);
    }
    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        rows->tile[r] = next[r];
        rows->state[r] = state[r];
    }
}

/* The first n_cols < 256 columns of a chunk, without looking ahead. Within a last sub-block that is not whole: predicates rather than a shorter loop, because q lives in registers. */
M40_HD void MATVEC_NAME(matvec_part)(const struct MATVEC_NAME(matvec_x) * chunk, const uint8_t *const tile[MATVEC_R], uint32_t n_cols,
                                     float acc[MATVEC_R][MATVEC_T])
{
    M40_ROLLED
    for (uint32_t b = 0; b * MATMUL_TILE < n_cols; b++) {
        const uint32_t n_left = n_cols - b * MATMUL_TILE;
        struct MATVEC_NAME(matvec_weights) weights;

        M40_UNROLL
        for (uint32_t r = 0; r < MATVEC_R; r++) {
            struct FORMAT_NAME(lane) state;
            struct FORMAT_NAME(quants) quants;

            FORMAT_NAME(open)(&state, tile[r], simt_lane());
            FORMAT_NAME(load)(&quants, tile[r], simt_lane(), b);
            matmul_weights(&state, &quants, b, weights.q[r], weights.d[r], weights.m[r]);
        }
        if (!MATMUL_ANY_COLS || n_left >= MATMUL_TILE) {
            MATVEC_NAME(matvec_dot)(chunk, b, &weights, acc);
            continue;
        }
        M40_UNROLL
        for (uint32_t c = 0; c < MATMUL_TILE; c++) {
            M40_UNROLL
            for (uint32_t i = 0; i < MATVEC_ITEMS; i++) {
                const uint32_t r = i % MATVEC_R, t = i / MATVEC_R;

                acc[r][t] = c < n_left ? m40_fmaf(weights.q[r][c], chunk->x[b][c * MATVEC_T + t], acc[r][t]) : acc[r][t];
            }
        }
    }
}

/* What a block is made for. A unit is MATVEC_R row tiles; the block takes units first, first + step ... Where rows are gate and up, a unit is a tile of each, in two turns. */
struct MATVEC_NAME(matvec_place) {
    uint32_t first, step, n_units;
    uint32_t first_group, n_groups; /* of the span */
    uint32_t n_chunks;              /* of a row */
    uint32_t gate_step,
        up_tiles; /* gated: row tiles from one of gate to the next, and from one of gate to its one of up; else 0. Experts have them in turns */
    uint32_t n_unit_turns; /* of a unit */
    uint32_t expert;       /* whose rows they are; 0 where there are none */
    int is_shared;         /* other blocks have the other spans */
};

/* Row of the partials of the block's t-th token. */
M40_HD uint32_t MATVEC_NAME(matvec_token)(uint32_t t)
{
    return MATVEC_EXPERTS ? simt_block_z() : t;
}

/* The same in y. */
M40_HD uint32_t MATVEC_NAME(matvec_y_row)(const struct matmul_kernel_args *args, uint32_t t)
{
    return MATVEC_EXPERTS ? args->first_pair + simt_block_z() : t;
}

/* The block's tokens. */
M40_HD uint32_t MATVEC_NAME(matvec_n_tokens)(const struct matmul_kernel_args *args)
{
    return MATVEC_T == 1 ? 1 : args->n_tokens;
}

M40_HD uint32_t MATVEC_NAME(matvec_unit)(const struct MATVEC_NAME(matvec_place) * place, uint32_t turn)
{
    return place->first + turn / place->n_unit_turns * place->step;
}

M40_HD uint32_t MATVEC_NAME(matvec_row_tile)(const struct MATVEC_NAME(matvec_place) * place, uint32_t turn, uint32_t r)
{
    const uint32_t unit = MATVEC_NAME(matvec_unit)(place, turn);

    return place->gate_step ? unit * place->gate_step + turn % 2 * place->up_tiles : unit * MATVEC_R + r;
}

/* The tiles of a turn in the warp's chunk; where there is no such chunk or tile, the last one: it is read and left. */
M40_HD void MATVEC_NAME(matvec_tiles)(const struct matmul_kernel_args *args, const struct MATVEC_NAME(matvec_place) * place, uint32_t turn,
                                      uint32_t chunk, const uint8_t *tiles[MATVEC_R])
{
    const uint32_t last = (args->n_rows - 1) / MATMUL_TILE;

    M40_UNROLL
    for (uint32_t r = 0; r < MATVEC_R; r++) {
        const uint32_t row_tile = MATVEC_NAME(matvec_row_tile)(place, turn, r);

        tiles[r] = matmul_tile(args->tiles, args->n_cols, place->expert * (last + 1) + (row_tile < last ? row_tile : last),
                               chunk < place->n_chunks ? chunk : place->n_chunks - 1);
    }
}

/* y of gate and up. Without experts it is silu(gate) * up. */
M40_HD void MATVEC_NAME(matvec_store_gated)(const struct matmul_kernel_args *args, const struct MATVEC_NAME(matvec_place) * place, uint32_t t,
                                            uint32_t row, float gate, float up)
{
    if (MATVEC_EXPERTS)
        matmul_store_gated(args, place->expert, MATVEC_NAME(matvec_y_row)(args, t), row, gate, up);
    else
        args->y[row] = m40_swiglu(gate, up);
}

/* Adds the chunk sums of one turn: a group's go to the partials where K is shared, else all become y; those of gate wait in shared memory for those of up. The warps take turns. */
M40_HD void MATVEC_NAME(matvec_add)(const struct matmul_kernel_args *args, const struct MATVEC_NAME(matvec_place) * place,
                                    struct MATVEC_NAME(matvec_shared) * shared, uint32_t turn)
{
    const uint32_t n_warps = simt_block_dim() / SIMT_WARP, n_items = MATVEC_R * MATVEC_NAME(matvec_n_tokens)(args);
    float(*sums)[MATVEC_ITEMS][MATMUL_TILE] = shared->sums[turn % MATVEC_BUFFERS(MATVEC_T)];

    for (uint32_t item = (simt_warp() + n_warps - turn % n_warps) % n_warps; item < n_items; item += n_warps) {
        const uint32_t t = item / MATVEC_R, row = MATVEC_NAME(matvec_row_tile)(place, turn, item % MATVEC_R) * MATMUL_TILE + simt_lane();
        float total = 0.0f;

        if (row >= args->n_rows)
            continue;
        for (uint32_t g = 0; g < place->n_groups; g++) {
            const uint32_t first = g * MATMUL_GROUP, n_left = place->n_chunks - (place->first_group + g) * MATMUL_GROUP;
            float chunks[MATMUL_GROUP], sum;

            M40_UNROLL
            for (uint32_t c = 0; c < MATMUL_GROUP; c++)
                chunks[c] = sums[first + c][item][simt_lane()];
            sum = matmul_group(chunks, n_left);
            if (place->is_shared)
                args->partials[((uint64_t)(place->first_group + g) * args->n_tokens + MATVEC_NAME(matvec_token)(t)) * args->n_rows + row] = sum;
            else
                total = g ? total + sum : sum;
        }
        if (place->is_shared)
            continue;
        if (!place->gate_step)
            matmul_store(args, place->expert, MATVEC_NAME(matvec_y_row)(args, t), row, total);
        else if (turn % 2 == 0)
            shared->gate[simt_lane()] = total;
        else
            MATVEC_NAME(matvec_store_gated)
            (args, place, t, MATVEC_NAME(matvec_unit)(place, turn) * MATMUL_TILE + simt_lane(), shared->gate[simt_lane()], total);
    }
}

/* Adds the sums of all groups for the units whose other blocks have ended. Called by every thread. */
M40_HD void MATVEC_NAME(matvec_meet)(struct MATVEC_NAME(matvec_shared) * shared, const struct matmul_kernel_args *args,
                                     const struct MATVEC_NAME(matvec_place) * place)
{
    const uint32_t n_warps = simt_block_dim() / SIMT_WARP, n_items = place->gate_step ? 1 : MATVEC_R * MATVEC_NAME(matvec_n_tokens)(args);
    const uint32_t n_groups = (place->n_chunks + MATMUL_GROUP - 1) / MATMUL_GROUP;

    simt_fence();
    for (uint32_t first = place->first; first < place->n_units; first += place->step * simt_block_dim()) {
        const uint32_t own = first + place->step * simt_thread();

        simt_barrier();
        if (own < place->n_units) {
            uint32_t *counter = &args->counters[MATVEC_NAME(matvec_token)(0) * place->n_units + own];

            shared->is_last[simt_thread()] = simt_atomic_add_u32(counter, 1) == simt_grid_x() - 1;
            if (shared->is_last[simt_thread()])
                *counter = 0;
        }
        simt_barrier();
        simt_fence();
        for (uint32_t i = simt_warp(); i < simt_block_dim() * n_items && first + i / n_items * place->step < place->n_units; i += n_warps) {
            const uint32_t unit = first + i / n_items * place->step, t = i % n_items / MATVEC_R;
            const uint32_t tile = place->gate_step ? unit * place->gate_step : unit * MATVEC_R + i % MATVEC_R, row = tile * MATMUL_TILE + simt_lane();
            const uint32_t token = MATVEC_NAME(matvec_token)(t);
            float total;

            if (!shared->is_last[i / n_items] || row >= args->n_rows)
                continue;
            total = matmul_total(args, n_groups, token, row);
            if (place->gate_step)
                MATVEC_NAME(matvec_store_gated)
                (args, place, t, unit * MATMUL_TILE + simt_lane(), total, matmul_total(args, n_groups, token, row + place->up_tiles * MATMUL_TILE));
            else
                matmul_store(args, place->expert, MATVEC_NAME(matvec_y_row)(args, t), row, total);
        }
    }
}

MATMUL_KERNEL_RESIDENT(MATVEC_NAME(matvec), struct matmul_kernel_args, MATVEC_WARPS *SIMT_WARP, MATVEC_RESIDENT_WARPS / MATVEC_WARPS)
{
    SIMT_SHARED(struct MATVEC_NAME(matvec_shared), shared);
    const uint32_t n_chunks = matmul_chunks(args.n_cols), n_groups = (n_chunks + MATMUL_GROUP - 1) / MATMUL_GROUP;
    const uint32_t n_span_groups = simt_block_dim() / SIMT_WARP / MATMUL_GROUP, span = n_span_groups ? n_span_groups : 1,
                   chunk_index = simt_block_x() * span * MATMUL_GROUP + simt_warp();
    const uint32_t n_unit_turns = MATVEC_T == 1 && args.is_gated ? 2 : 1, gate_step = n_unit_turns == 1 ? 0u : MATVEC_EXPERTS ? 2u : 1u;
    const struct MATVEC_NAME(matvec_place) place = {
        .first = simt_block_y(),
        .step = simt_grid_y(),
        .n_units = (args.n_rows / n_unit_turns + MATVEC_R * MATMUL_TILE - 1) / (MATVEC_R * MATMUL_TILE),
        .first_group = simt_block_x() * span,
        .n_groups = n_groups - simt_block_x() * span < span ? n_groups - simt_block_x() * span : span,
        .n_chunks = n_chunks,
        .gate_step = gate_step,
        .up_tiles = gate_step == 1 ? args.n_rows / 2 / MATMUL_TILE : gate_step / 2,
        .n_unit_turns = n_unit_turns,
        .expert = MATVEC_EXPERTS ? (uint32_t)args.expert_ids[args.first_pair + simt_block_z()] : 0,
        .is_shared = simt_grid_x() > 1,
    };
    const uint32_t n_cols = matmul_chunk_cols(args.n_cols, chunk_index);
    const uint32_t n_turns = place.first < place.n_units ? ((place.n_units - 1 - place.first) / place.step + 1) * n_unit_turns : 0;
    struct MATVEC_NAME(matvec_x) *chunk = &shared->chunks[simt_warp()];
    struct MATVEC_NAME(matvec_rows) rows;
    struct matmul_kernel_args own = args; /* with the block's x */
    const uint8_t *tiles[MATVEC_R];

    if (MATVEC_EXPERTS)
        own.x = args.x + (uint64_t)(MATVEC_NAME(matvec_y_row)(&args, 0) / args.x_share) * args.n_cols;
    MATVEC_NAME(matvec_tiles)(&args, &place, 0, chunk_index, tiles);
    MATVEC_NAME(matvec_begin)(&rows, tiles);
    MATVEC_NAME(matvec_bring)(chunk, &own, chunk_index * MATMUL_CHUNK);
    simt_warp_barrier();
#if MATVEC_T == 1
    if (args.norm_weight) {
        MATVEC_NAME(matvec_norm)(chunk, shared->norm, &own, chunk_index * MATMUL_CHUNK);
        simt_warp_barrier();
    }
#endif
    if (MATMUL_HAS_SUMS) {
        MATVEC_NAME(matvec_sum)(chunk);
        simt_warp_barrier();
    }
    for (uint32_t turn = 0; turn < n_turns; turn++) {
        float acc[MATVEC_R][MATVEC_T];

        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_ITEMS; i++)
            acc[i % MATVEC_R][i / MATVEC_R] = 0.0f;
        if (n_cols == MATMUL_CHUNK) { /* ahead of the last turn there is only what is in the cache already */
            MATVEC_NAME(matvec_tiles)(&args, &place, turn + 1 < n_turns ? turn + 1 : turn, chunk_index, tiles);
            MATVEC_NAME(matvec_stream)(chunk, &rows, tiles, acc);
        } else {
            MATVEC_NAME(matvec_tiles)(&args, &place, turn, chunk_index, tiles);
            MATVEC_NAME(matvec_part)(chunk, tiles, n_cols, acc);
        }
        M40_UNROLL
        for (uint32_t i = 0; i < MATVEC_ITEMS; i++)
            shared->sums[turn % MATVEC_BUFFERS(MATVEC_T)][simt_warp()][i][simt_lane()] = acc[i % MATVEC_R][i / MATVEC_R];
        simt_barrier();
        MATVEC_NAME(matvec_add)(&args, &place, shared, turn);
        if (MATVEC_BUFFERS(MATVEC_T) == 1)
            simt_barrier();
    }
    if (place.is_shared)
        MATVEC_NAME(matvec_meet)(shared, &args, &place);
}

#undef MATVEC_NAME
#undef MATVEC_SUFFIX
#undef MATVEC_EXPERTS
#undef MATVEC_JOIN
#undef MATVEC_JOIN_EXPANDED
#undef MATVEC_STEP
#undef MATVEC_R
#undef MATVEC_WARPS
#undef MATVEC_STRIDE
#undef MATVEC_AHEAD
#undef MATVEC_AHEAD_SHARE
#undef MATVEC_ITEMS
#undef MATVEC_T
