/* sample of docs/numerics.md, in the way that sample.h describes, as three kernels: the ends of each row; its histogram; and the gathering, for which every block makes the plan, and whose last block finds the
 * token. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/sample_args.h"

enum { N_WARPS = 8, BINS_A_THREAD = M40_SAMPLE_BINS / 256 };

/* ---- whole blocks ---- */

struct warp_results {
    uint64_t a[N_WARPS], b[N_WARPS];
    uint32_t n[N_WARPS];
};

M40_HD uint64_t shfl_u64(uint64_t v, uint32_t lane)
{
    return (uint64_t)simt_shfl_u32((uint32_t)(v >> 32), lane) << 32 | simt_shfl_u32((uint32_t)v, lane);
}

M40_HD uint64_t shfl_xor_u64(uint64_t v, uint32_t mask)
{
    return (uint64_t)simt_shfl_xor_u32((uint32_t)(v >> 32), mask) << 32 | simt_shfl_xor_u32((uint32_t)v, mask);
}

/* The first and the last item of those that the threads have, in every thread. */
M40_HD void block_ends(struct warp_results *warps, struct sample_ends *ends)
{
    M40_UNROLL
    for (uint32_t d = 16; d > 0; d /= 2) {
        uint64_t best = shfl_xor_u64(ends->best, d), least = shfl_xor_u64(ends->least, d);

        ends->best = best > ends->best ? best : ends->best;
        ends->least = least < ends->least ? least : ends->least;
    }
    simt_barrier(); /* the results before these are read */
    if (simt_lane() == 0) {
        warps->a[simt_warp()] = ends->best;
        warps->b[simt_warp()] = ends->least;
    }
    simt_barrier();
    M40_UNROLL
    for (uint32_t i = 0; i < N_WARPS; i++) {
        ends->best = warps->a[i] > ends->best ? warps->a[i] : ends->best;
        ends->least = warps->b[i] < ends->least ? warps->b[i] : ends->least;
    }
}

/* The sums of what the threads before this one have. */
M40_HD void block_sums_before(struct warp_results *warps, uint32_t count, uint64_t mass, uint32_t *count_before, uint64_t *mass_before)
{
    uint32_t n = count;
    uint64_t m = mass;

    M40_UNROLL
    for (uint32_t d = 1; d < SIMT_WARP; d *= 2) {
        uint32_t n_other = simt_shfl_u32(n, simt_lane() - d);
        uint64_t m_other = shfl_u64(m, simt_lane() - d);

        if (simt_lane() >= d) {
            n += n_other;
            m += m_other;
        }
    }
    simt_barrier(); /* the results before these are read */
    if (simt_lane() == SIMT_WARP - 1) {
        warps->n[simt_warp()] = n;
        warps->a[simt_warp()] = m;
    }
    simt_barrier();
    n -= count;
    m -= mass;
    M40_UNROLL
    for (uint32_t i = 0; i < N_WARPS - 1; i++) {
        n += i < simt_warp() ? warps->n[i] : 0;
        m += i < simt_warp() ? warps->a[i] : 0;
    }
    *count_before = n;
    *mass_before = m;
}

/* Sums of masses in shared memory, where atomics of 64 bits are slow: two parts, of 20 and 21 bits, so that 32 bits hold the sum of all columns of a block. */
M40_HD void add_mass(uint32_t *low, uint32_t *high, uint64_t mass)
{
    simt_atomic_add_u32(low, (uint32_t)mass & 0xfffff);
    simt_atomic_add_u32(high, (uint32_t)(mass >> 20));
}

M40_HD uint64_t sum_of_parts(uint32_t low, uint32_t high)
{
    return ((uint64_t)high << 20) + low;
}

/* Whether this is the last of the row's blocks to come here; it then sees what the others wrote before. */
M40_HD uint32_t is_last_block(uint32_t *shared_flag, uint32_t *counter)
{
    simt_fence();
    simt_barrier();
    if (simt_thread() == 0)
        *shared_flag = simt_atomic_add_u32(counter, 1) == simt_grid_x() - 1;
    simt_barrier();
    simt_fence();
    return *shared_flag;
}

/* This thread's columns; -inf stands for those that do not exist. All loads are under way together. */
M40_HD void load_columns(const struct sample_args *args, float *x)
{
    const float *row = args->x + (uint64_t)simt_block_y() * args->n_cols;

    M40_UNROLL
    for (uint32_t i = 0; i < SAMPLE_COLS_A_THREAD; i++) {
        uint32_t col = simt_block_x() * SAMPLE_COLS_A_BLOCK + i * 256 + simt_thread();

        x[i] = col < args->n_cols ? row[col] : m40_bits_to_f32(0xff800000u);
    }
}

M40_HD void add_item(struct sample_ends *ends, uint64_t item)
{
    ends->best = item > ends->best ? item : ends->best;
    ends->least = item != 0 && item < ends->least ? item : ends->least;
}

/* ---- the ends of a row ---- */

SIMT_KERNEL(sample_measure, struct sample_args, 256)
{
    SIMT_SHARED(struct warp_results, shared);
    struct sample_state *state = args.states + simt_block_y();
    struct sample_ends ends = {0, ~(uint64_t)0};
    float x[SAMPLE_COLS_A_THREAD];

    load_columns(&args, x);
    for (uint32_t bin = simt_block_x() * 256 + simt_thread(); bin < M40_SAMPLE_BINS; bin += simt_grid_x() * 256) {
        state->masses[bin] = 0;
        state->counts[bin] = 0;
    }
    if (simt_block_x() == 0 && simt_thread() == 0) {
        state->is_done = 0;
        state->min_mass = 0;
        state->n_list = state->n_gathered = 0;
    }
    M40_UNROLL
    for (uint32_t i = 0; i < SAMPLE_COLS_A_THREAD; i++)
        add_item(&ends, m40_sample_item(x[i], simt_block_x() * SAMPLE_COLS_A_BLOCK + i * 256 + simt_thread()));
    block_ends(shared, &ends);
    if (simt_thread() == 0)
        args.ends[simt_block_y() * simt_grid_x() + simt_block_x()] = ends;
}

/* ---- the histogram ---- */

struct bins_shared {
    uint32_t counts[M40_SAMPLE_BINS], low[M40_SAMPLE_BINS], high[M40_SAMPLE_BINS]; /* and masses, in parts */
    uint32_t min_low, min_high;                                                    /* mass of what min_p leaves */
    struct warp_results warps;
};

M40_HD struct sample_ends row_ends(struct warp_results *warps, const struct sample_args *args)
{
    const struct sample_ends *blocks = args->ends + simt_block_y() * simt_grid_x();
    struct sample_ends ends = {0, ~(uint64_t)0};

    for (uint32_t i = simt_thread(); i < simt_grid_x(); i += 256) {
        struct sample_ends other = blocks[i];

        ends.best = other.best > ends.best ? other.best : ends.best;
        ends.least = other.least < ends.least ? other.least : ends.least;
    }
    block_ends(warps, &ends);
    return ends;
}

M40_HD void clear_bins(struct bins_shared *shared)
{
    for (uint32_t bin = simt_thread(); bin < M40_SAMPLE_BINS; bin += 256)
        shared->counts[bin] = shared->low[bin] = shared->high[bin] = 0;
    if (simt_thread() == 0)
        shared->min_low = shared->min_high = 0;
}

/* The block's columns into its own histogram. */
M40_HD void fill_bins(struct bins_shared *shared, const struct m40_sample_scale *scale, float min_z, const float *x)
{
    uint64_t min_mass = 0;

    M40_UNROLL
    for (uint32_t i = 0; i < SAMPLE_COLS_A_THREAD; i++) {
        float z = m40_sample_z(scale, x[i]);

        if (z >= M40_SAMPLE_LEAST_Z) {
            uint64_t mass = m40_sample_mass(z);
            uint32_t bin = m40_sample_bin(scale, x[i]);

            simt_atomic_add_u32(&shared->counts[bin], 1);
            add_mass(&shared->low[bin], &shared->high[bin], mass);
            min_mass += z >= min_z ? mass : 0;
        }
    }
    M40_UNROLL
    for (uint32_t d = 16; d > 0 && min_z > M40_SAMPLE_LEAST_Z; d /= 2)
        min_mass += shfl_xor_u64(min_mass, d);
    if (simt_lane() == 0 && min_z > M40_SAMPLE_LEAST_Z)
        add_mass(&shared->min_low, &shared->min_high, min_mass);
    simt_barrier();
}

/* Adds the block's histogram to the row's. */
M40_HD void add_bins(const struct bins_shared *shared, struct sample_state *state)
{
    M40_UNROLL
    for (uint32_t i = 0; i < BINS_A_THREAD; i++) {
        uint32_t bin = i * 256 + simt_thread(), count = shared->counts[bin];

        if (count > 0) {
            simt_atomic_add_u64(&state->masses[bin], sum_of_parts(shared->low[bin], shared->high[bin]));
            simt_atomic_add_u32(&state->counts[bin], count);
        }
    }
    if (simt_thread() == 0 && (shared->min_low | shared->min_high))
        simt_atomic_add_u64(&state->min_mass, sum_of_parts(shared->min_low, shared->min_high));
}

SIMT_KERNEL(sample_bin, struct sample_args, 256)
{
    SIMT_SHARED(struct bins_shared, shared);
    struct sample_state *state = args.states + simt_block_y();
    struct m40_sample_row row = args.rows[simt_block_y()];
    struct m40_sample_scale scale;
    struct sample_ends ends;
    float x[SAMPLE_COLS_A_THREAD];

    load_columns(&args, x);
    clear_bins(shared);
    ends = row_ends(&shared->warps, &args); /* has barriers, so that all bins are clear */
    if (m40_sample_is_best(&row, ends.best)) {
        if (simt_block_x() == 0 && simt_thread() == 0) {
            args.ids[simt_block_y()] = ends.best ? (int32_t)m40_sample_col(ends.best) : 0;
            state->is_done = 1;
        }
        return;
    }
    scale = m40_sample_scale(&row, ends.best, ends.least);
    if (simt_block_x() == 0 && simt_thread() == 0)
        state->scale = scale;
    fill_bins(shared, &scale, row.min_z, x);
    add_bins(shared, state);
}

/* ---- the plan ---- */

struct digit_found {
    uint64_t item, mass, mass_before, sought_before; /* sought_before: of what is sought, what lies before the digit */
    uint32_t digit, n_items;
};

struct gather_shared {
    union {
        struct {
            uint64_t counts[M40_SAMPLE_BINS + 1], masses[M40_SAMPLE_BINS + 1];
        } before;                       /* each bin; for the plan */
        uint64_t list[M40_SAMPLE_LIST]; /* then: of the block; in the last one, of the row */
    } u;
    struct m40_sample_plan plan;
    uint32_t n_list;                                                                                       /* of the block */
    uint32_t list_at;                                                                                      /* where it goes in the row's */
    uint32_t digit_counts[M40_SAMPLE_DIGITS], digit_low[M40_SAMPLE_DIGITS], digit_high[M40_SAMPLE_DIGITS]; /* and masses, in parts */
    uint64_t some[M40_SAMPLE_DIGITS];                                                                      /* an item of each digit */
    struct warp_results warps;
    struct digit_found found;
    uint32_t is_last;
};

/* A thread's bins, neighbours. */
struct some_bins {
    uint32_t counts[BINS_A_THREAD];
    uint64_t masses[BINS_A_THREAD];
};

M40_HD void load_bins(const struct sample_state *state, struct some_bins *bins)
{
    M40_UNROLL
    for (uint32_t i = 0; i < BINS_A_THREAD; i++) {
        bins->counts[i] = state->counts[simt_thread() * BINS_A_THREAD + i];
        bins->masses[i] = state->masses[simt_thread() * BINS_A_THREAD + i];
    }
}

/* The sums of what is before each bin, into shared memory. */
M40_HD void sum_bins(struct gather_shared *shared, const struct some_bins *bins)
{
    uint32_t first = simt_thread() * BINS_A_THREAD, count = 0;
    uint64_t mass = 0;

    M40_UNROLL
    for (uint32_t i = 0; i < BINS_A_THREAD; i++) {
        count += bins->counts[i];
        mass += bins->masses[i];
    }
    block_sums_before(&shared->warps, count, mass, &count, &mass);
    M40_UNROLL
    for (uint32_t i = 0; i < BINS_A_THREAD; i++) {
        shared->u.before.counts[first + i] = count;
        shared->u.before.masses[first + i] = mass;
        count += bins->counts[i];
        mass += bins->masses[i];
    }
    if (first + BINS_A_THREAD == M40_SAMPLE_BINS) {
        shared->u.before.counts[M40_SAMPLE_BINS] = count;
        shared->u.before.masses[M40_SAMPLE_BINS] = mass;
    }
    simt_barrier();
}

/* An m40_sample_find_fn for a whole warp: 32 bins at a time, then one. */
M40_HD uint32_t warp_find(const uint64_t *sums, uint64_t sum)
{
    const uint32_t n_groups = M40_SAMPLE_BINS / SIMT_WARP;
    uint32_t group = simt_count_ones(simt_ballot(simt_lane() < n_groups && sums[(simt_lane() % n_groups + 1) * SIMT_WARP] <= sum));

    return group * SIMT_WARP + simt_count_ones(simt_ballot(sums[group * SIMT_WARP + simt_lane() + 1] <= sum));
}

/* In every block the same; in shared memory behind the next barrier. */
M40_HD void make_plan(struct gather_shared *shared, const struct m40_sample_row *row, uint64_t min_mass)
{
    if (simt_warp() == 0) {
        struct m40_sample_plan plan = m40_sample_make_plan(row, warp_find, shared->u.before.counts, shared->u.before.masses, min_mass);

        if (simt_lane() == 0) {
            shared->plan = plan;
            shared->n_list = 0;
        }
    }
}

/* ---- the items of the plan's bins, and the token ---- */

struct found {
    uint64_t item, mass, before; /* before: mass of the range's items before it */
};

/* Where items come from: the list in shared memory, or, with more of them than it has room for, the row. */
struct source {
    const float *x; /* NULL: the list */
    uint32_t n;
    struct m40_sample_scale scale;
};

/* 0 for what is no candidate. */
M40_HD uint64_t item_at(const struct gather_shared *shared, const struct source *from, uint32_t i)
{
    if (!from->x)
        return shared->u.list[i];
    return m40_sample_z(&from->scale, from->x[i]) >= M40_SAMPLE_LEAST_Z ? m40_sample_item(from->x[i], i) : 0;
}

M40_HD struct sample_ends range_ends(struct gather_shared *shared, const struct source *from, const struct m40_sample_range *range)
{
    struct sample_ends ends = {0, ~(uint64_t)0};

    for (uint32_t i = simt_thread(); i < from->n; i += 256) {
        uint64_t item = item_at(shared, from, i);

        if (item && m40_sample_is_in(range, m40_sample_bin(&from->scale, m40_sample_logit(item))))
            add_item(&ends, item);
    }
    block_ends(&shared->warps, &ends);
    return ends;
}

/* Count and mass of the items between the ends that have this thread as the digit: eight bits of their distance to the first. */
M40_HD void sum_digits(struct gather_shared *shared, const struct source *from, const struct sample_ends *ends, uint32_t shift, uint32_t *count,
                       uint64_t *mass)
{
    uint32_t me = simt_thread();

    *count = 0;
    *mass = 0;
    for (uint32_t first = 0; first < from->n; first += SAMPLE_COLS_A_BLOCK) {
        shared->digit_counts[me] = shared->digit_low[me] = shared->digit_high[me] = 0;
        simt_barrier();
        for (uint32_t i = first + me; i < from->n && i < first + SAMPLE_COLS_A_BLOCK; i += 256) {
            uint64_t item = item_at(shared, from, i);

            if (item >= ends->least && item <= ends->best) {
                uint32_t digit = (uint32_t)((ends->best - item) >> shift);

                simt_atomic_add_u32(&shared->digit_counts[digit], 1);
                add_mass(&shared->digit_low[digit], &shared->digit_high[digit], m40_sample_mass(m40_sample_z(&from->scale, m40_sample_logit(item))));
                shared->some[digit] = item;
            }
        }
        simt_barrier();
        *count += shared->digit_counts[me];
        *mass += sum_of_parts(shared->digit_low[me], shared->digit_high[me]);
    }
}

/* The range's item of index `sought`, or (by_mass) the one with which the sum of masses first exceeds it; the same in every thread. Threads stand for digits; each pass leaves a 256th of the
 * distance, until the item is alone. */
M40_HD struct found find_item(struct gather_shared *shared, const struct source *from, const struct m40_sample_range *range, uint32_t by_mass,
                              uint64_t sought)
{
    struct sample_ends ends = range_ends(shared, from, range);
    struct found found = {ends.best, 0, 0};

    if (ends.best == ends.least) {
        found.mass = m40_sample_mass(m40_sample_z(&from->scale, m40_sample_logit(found.item)));
        return found;
    }
    for (uint32_t pass = 0; pass < 8; pass++) { /* for the compiler: 64 bits are eight digits */
        uint32_t shift = 0, count, count_before;
        uint64_t mass, mass_before, mine, before;

        while ((ends.best - ends.least) >> shift >= M40_SAMPLE_DIGITS)
            shift += 8;
        sum_digits(shared, from, &ends, shift, &count, &mass);
        block_sums_before(&shared->warps, count, mass, &count_before, &mass_before);
        mine = by_mass ? mass : count;
        before = by_mass ? mass_before : count_before;
        if (before <= sought && sought - before < mine) {
            struct digit_found digit = {shared->some[simt_thread()], mass, mass_before, before, simt_thread(), count};

            shared->found = digit;
        }
        simt_barrier();
        found.item = shared->found.item;
        found.mass = shared->found.mass;
        found.before += shared->found.mass_before;
        if (shared->found.n_items == 1)
            break;
        sought -= shared->found.sought_before;
        ends.best -= (uint64_t)shared->found.digit << shift;
        if ((ends.best - ends.least) >> shift)
            ends.least = ends.best - (((uint64_t)1 << shift) - 1);
    }
    return found;
}

/* Only the last block has the list; it finds the token. */
M40_HD uint32_t find_token(struct gather_shared *shared, const struct source *from, const struct m40_sample_row *row,
                           const struct m40_sample_plan *plan, uint64_t min_mass)
{
    uint64_t mass = plan->k_mass;
    struct found found;

    if (plan->k.first <= plan->k.last) {
        found = find_item(shared, from, &plan->k, 0, plan->k_index);
        mass = plan->k.before + found.before + found.mass;
    }
    if (row->top_p < 1.0f) {
        found = find_item(shared, from, &plan->p, 1, m40_sample_need(row->top_p, mass) - 1 - plan->p.before);
        mass = plan->p.before + found.before + found.mass;
    }
    mass = mass < min_mass ? mass : min_mass;
    found = find_item(shared, from, &plan->token, 1, m40_sample_times(row->random, mass) - plan->token.before);
    return m40_sample_col(found.item);
}

/* The block's items of the plan's bins, onto the row's list. */
M40_HD void gather(struct gather_shared *shared, struct sample_state *state, const struct m40_sample_scale *scale, const float *x)
{
    M40_UNROLL
    for (uint32_t i = 0; i < SAMPLE_COLS_A_THREAD; i++)
        if (m40_sample_is_wanted(&shared->plan, m40_sample_bin(scale, x[i])) && m40_sample_z(scale, x[i]) >= M40_SAMPLE_LEAST_Z)
            shared->u.list[simt_atomic_add_u32(&shared->n_list, 1)] =
                m40_sample_item(x[i], simt_block_x() * SAMPLE_COLS_A_BLOCK + i * 256 + simt_thread());
    simt_barrier();
    if (shared->n_list == 0)
        return;
    if (simt_thread() == 0)
        shared->list_at = simt_atomic_add_u32(&state->n_list, shared->n_list);
    simt_barrier();
    for (uint32_t i = simt_thread(); i < shared->n_list && shared->list_at + i < M40_SAMPLE_LIST; i += 256)
        state->list[shared->list_at + i] = shared->u.list[i];
}

SIMT_KERNEL(sample_choose, struct sample_args, 256)
{
    SIMT_SHARED(struct gather_shared, shared);
    struct sample_state *state = args.states + simt_block_y();
    struct m40_sample_row row = args.rows[simt_block_y()];
    uint64_t min_mass = row.min_z > M40_SAMPLE_LEAST_Z ? state->min_mass : ~(uint64_t)0;
    struct some_bins bins;
    struct source from;
    float x[SAMPLE_COLS_A_THREAD];
    uint32_t id;

    load_columns(&args, x);
    load_bins(state, &bins);
    if (state->is_done)
        return;
    from.scale = state->scale;
    sum_bins(shared, &bins);
    make_plan(shared, &row, min_mass);
    simt_barrier(); /* the plan is made, and what it was made of gives way to the list */
    gather(shared, state, &from.scale, x);
    if (!is_last_block(&shared->is_last, &state->n_gathered))
        return;
    from.x = 0;
    from.n = simt_load_volatile_u32(&state->n_list); /* this block may have it in a cache, from before */
    if (from.n > M40_SAMPLE_LIST) {
        from.x = args.x + (uint64_t)simt_block_y() * args.n_cols;
        from.n = args.n_cols;
    }
    for (uint32_t i = simt_thread(); !from.x && i < from.n; i += 256)
        shared->u.list[i] = state->list[i];
    simt_barrier();
    id = find_token(shared, &from, &row, &shared->plan, min_mass);
    if (simt_thread() == 0)
        args.ids[simt_block_y()] = (int32_t)id;
}
