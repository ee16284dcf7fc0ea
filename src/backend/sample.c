/* The sampler on the host; sample.h says how it works. */
#include "backend/sample.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Counts and masses of bins, or of digits; then their sums before each. */
struct histogram {
    uint64_t counts[M40_SAMPLE_BINS + 1];
    uint64_t masses[M40_SAMPLE_BINS + 1];
    uint64_t min_mass;
};

/* Where items come from: the list of those in the plan's bins, or, with more of them than it has room for, the row. */
struct source {
    const float *logits;
    uint32_t n;
    const struct m40_sample_scale *scale;
    float least; /* of the logits of candidates */
    uint64_t list[M40_SAMPLE_LIST];
    uint32_t n_list; /* may exceed M40_SAMPLE_LIST */
};

struct found {
    uint64_t item, mass, before; /* before: mass of the range's items before it */
};

float m40_sample_inv_temperature(float temperature)
{
    if (temperature == 0.0f)
        return 0.0f;
    return 1.0f / temperature < FLT_MAX ? 1.0f / temperature : FLT_MAX;
}

float m40_sample_min_z(float min_p)
{
    uint32_t below = m40_f32_to_bits(-M40_SAMPLE_LEAST_Z), enough = 0; /* bits of -z */

    if (m40_expf(M40_SAMPLE_LEAST_Z) >= min_p)
        return M40_SAMPLE_LEAST_Z;
    while (below - enough > 1) {
        uint32_t middle = enough + (below - enough) / 2;

        if (m40_expf(-m40_bits_to_f32(middle)) >= min_p)
            enough = middle;
        else
            below = middle;
    }
    return -m40_bits_to_f32(enough);
}

static void find_ends(const float *logits, uint32_t n, uint64_t *best, uint64_t *least)
{
    float high = -INFINITY, low = INFINITY;
    uint32_t col = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (logits[i] > high) {
            high = logits[i];
            col = i;
        }
        if (logits[i] < low && logits[i] > -INFINITY)
            low = logits[i];
    }
    *best = m40_sample_item(high, col);
    *least = m40_sample_item(low, 0);
}

/* The least logit of candidates in bins 0 .. last, so that one comparison tells them from the others. Both conditions are monotonous in the logit, whose items are integers. */
static float least_logit(const struct m40_sample_scale *scale, uint32_t last)
{
    uint64_t inside = m40_sample_item(scale->best, 0), outside = m40_sample_item(-FLT_MAX, 0) - ((uint64_t)1 << 32); /* outside is -inf's place */

    while ((inside - outside) >> 32 > 1) {
        uint64_t middle = outside + (inside - outside) / 2 / ((uint64_t)1 << 32) * ((uint64_t)1 << 32);
        float logit = m40_sample_logit(middle);

        if (m40_sample_z(scale, logit) >= M40_SAMPLE_LEAST_Z && m40_sample_bin(scale, logit) <= last)
            inside = middle;
        else
            outside = middle;
    }
    return m40_sample_logit(inside);
}

/* How many candidates each bin has. */
static void count_bins(const struct source *from, struct histogram *h)
{
    memset(h->counts, 0, sizeof h->counts);
    for (uint32_t i = 0; i < from->n; i++)
        if (from->logits[i] >= from->least)
            h->counts[m40_sample_bin(from->scale, from->logits[i])]++;
}

/* The masses of bins 0 .. last: beyond what top_k leaves none is needed. */
static void weigh_bins(const struct source *from, struct histogram *h, uint32_t last, float min_z)
{
    const float least = least_logit(from->scale, last);

    memset(h->masses, 0, sizeof h->masses);
    h->min_mass = 0;
    for (uint32_t i = 0; i < from->n; i++)
        if (from->logits[i] >= least) {
            float z = m40_sample_z(from->scale, from->logits[i]);
            uint64_t mass = m40_sample_mass(z);

            h->masses[m40_sample_bin(from->scale, from->logits[i])] += mass;
            h->min_mass += z >= min_z ? mass : 0;
        }
}

static void sum_up(uint64_t *values)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= M40_SAMPLE_BINS; i++) {
        uint64_t value = values[i];

        values[i] = sum;
        sum += value;
    }
}

static uint32_t find_sum(const uint64_t *sums, uint64_t sum)
{
    uint32_t bin = 0;

    for (uint32_t step = M40_SAMPLE_BINS / 2; step > 0; step /= 2)
        bin += sums[bin + step] <= sum ? step : 0;
    return bin;
}

static uint32_t last_bin_of_top_k(const struct histogram *h, uint32_t top_k)
{
    uint32_t bin = 0;
    uint64_t count = 0;

    while (bin < M40_SAMPLE_BINS && (top_k == 0 || count < top_k))
        count += h->counts[bin++];
    return bin - 1;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void gather(struct source *from, const struct m40_sample_plan *plan)
{
    const float least = least_logit(from->scale, max_u32(plan->token.last, max_u32(plan->k.last, plan->p.last)));

    from->n_list = 0;
    for (uint32_t i = 0; i < from->n; i++)
        if (from->logits[i] >= least && m40_sample_is_wanted(plan, m40_sample_bin(from->scale, from->logits[i]))) {
            if (from->n_list < M40_SAMPLE_LIST)
                from->list[from->n_list] = m40_sample_item(from->logits[i], i);
            from->n_list++;
        }
}

static uint32_t n_items(const struct source *from)
{
    return from->n_list <= M40_SAMPLE_LIST ? from->n_list : from->n;
}

/* 0 for what is no candidate. */
static uint64_t item_at(const struct source *from, uint32_t i)
{
    if (from->n_list <= M40_SAMPLE_LIST)
        return from->list[i];
    return from->logits[i] >= from->least ? m40_sample_item(from->logits[i], i) : 0;
}

/* The items at both ends of a range. */
static void find_range(const struct source *from, const struct m40_sample_range *range, uint64_t *high, uint64_t *low)
{
    *high = 0;
    *low = UINT64_MAX;
    for (uint32_t i = 0, n = n_items(from); i < n; i++) {
        uint64_t item = item_at(from, i);

        if (item && m40_sample_is_in(range, m40_sample_bin(from->scale, m40_sample_logit(item)))) {
            *high = item > *high ? item : *high;
            *low = item < *low ? item : *low;
        }
    }
}

/* The range's item of index `sought`, or (by_mass) the one with which the sum of masses first exceeds it: eight bits of the distance to the first item at a time. */
static struct found find_item(const struct source *from, const struct m40_sample_range *range, bool by_mass, uint64_t sought)
{
    struct found found = {0, 0, 0};
    uint64_t high, low;

    find_range(from, range, &high, &low);
    for (;;) {
        uint32_t counts[M40_SAMPLE_DIGITS] = {0}, shift = 0, digit = 0;
        uint64_t masses[M40_SAMPLE_DIGITS] = {0}, some[M40_SAMPLE_DIGITS]; /* some: an item of each digit */

        while ((high - low) >> shift >= M40_SAMPLE_DIGITS)
            shift += 8;
        for (uint32_t i = 0, n = n_items(from); i < n; i++) {
            uint64_t item = item_at(from, i);

            if (item < low || item > high)
                continue;
            digit = (uint32_t)((high - item) >> shift);
            counts[digit]++;
            some[digit] = item;
            masses[digit] += m40_sample_mass(m40_sample_z(from->scale, m40_sample_logit(item)));
        }
        for (digit = 0; (by_mass ? masses[digit] : counts[digit]) <= sought; digit++) {
            sought -= by_mass ? masses[digit] : counts[digit];
            assert(digit + 1 < M40_SAMPLE_DIGITS);
            found.before += masses[digit];
        }
        if (counts[digit] == 1) {
            found.item = some[digit];
            found.mass = masses[digit];
            return found;
        }
        high -= (uint64_t)digit << shift;
        if ((high - low) >> shift)
            low = high - (((uint64_t)1 << shift) - 1);
    }
}

int32_t m40_sample(const float *logits, uint32_t n, const struct m40_sample_row *row)
{
    struct histogram h;
    struct source from;
    struct m40_sample_scale scale;
    struct m40_sample_plan plan;
    struct found found;
    uint64_t best, least, mass;

    find_ends(logits, n, &best, &least);
    if (m40_sample_is_best(row, best))
        return best ? (int32_t)m40_sample_col(best) : 0;
    scale = m40_sample_scale(row, best, least);
    from.logits = logits;
    from.n = n;
    from.scale = &scale;
    from.least = least_logit(&scale, M40_SAMPLE_BINS - 1);
    count_bins(&from, &h);
    weigh_bins(&from, &h, last_bin_of_top_k(&h, row->top_k), row->min_z);
    sum_up(h.counts);
    sum_up(h.masses);
    plan = m40_sample_make_plan(row, find_sum, h.counts, h.masses, h.min_mass);
    gather(&from, &plan);
    mass = plan.k_mass;
    if (plan.k.first <= plan.k.last) {
        found = find_item(&from, &plan.k, false, plan.k_index);
        mass = plan.k.before + found.before + found.mass;
    }
    if (row->top_p < 1.0f) {
        found = find_item(&from, &plan.p, true, m40_sample_need(row->top_p, mass) - 1 - plan.p.before);
        mass = plan.p.before + found.before + found.mass;
    }
    mass = mass < h.min_mass ? mass : h.min_mass;
    found = find_item(&from, &plan.token, true, m40_sample_times(row->random, mass) - plan.token.before);
    return (int32_t)m40_sample_col(found.item);
}
