/* Choosing a token from a row of logits, as docs/numerics.md has it under "sample": what host and device share.
 *
 * Every candidate has an integer as its mass, so that sums are the same in any order, and a place in one total order of the row. All that is asked of the order is where a count or a sum of masses
 * is reached. Nothing is sorted for that: a histogram (bins of equal width in logits, best first) tells which bin holds the place; the bins that may hold one are few, and their items are gathered;
 * among these the place is found digit by digit of their keys in the order. The answer does not depend on where bins lie. */
#ifndef M40_BACKEND_SAMPLE_H
#define M40_BACKEND_SAMPLE_H

#include "base/fmath.h"

#include <stdint.h>

enum {
    M40_SAMPLE_MAX_COLS = 1 << 23, /* of a row: so many masses of 2^40 have a sum below 2^64 */
    M40_SAMPLE_BINS = 1024,
    M40_SAMPLE_LIST = 2048, /* items that are gathered; where there are more, the row itself is read again and again */
    M40_SAMPLE_DIGITS = 256,
};

/* Candidates are at most so far below the best, in units of the temperature: the others' probability is below e^-27 of its. */
#define M40_SAMPLE_LEAST_Z (-27.0f)

/* How one row's token is chosen. */
struct m40_sample_row {
    uint64_t random;       /* uniform in 0 .. 2^64 - 1 */
    float inv_temperature; /* finite; 0: the likeliest token. See m40_sample_inv_temperature */
    float top_p;           /* in (0, 1]; 1: off */
    float min_z;           /* what min_p leaves has (logit - best) * inv_temperature >= this; M40_SAMPLE_LEAST_Z: off. See m40_sample_min_z */
    uint32_t top_k;        /* 0: off */
};

/* What the logits of a row are measured with. */
struct m40_sample_scale {
    float best, inv_temperature, bins_per_logit;
};

/* A place in the order is sought among the items of bins first .. last (none: first > last); `before` is the mass of all bins before them. */
struct m40_sample_range {
    uint64_t before;
    uint32_t first, last;
};

/* What the histogram tells. */
struct m40_sample_plan {
    uint64_t k_mass;               /* of what top_k leaves, where `k` is empty */
    struct m40_sample_range k;     /* where top_k ends; empty: at the end of a bin */
    uint32_t k_index;              /* of the last that top_k leaves, among the items of k */
    struct m40_sample_range p;     /* where top_p ends, whatever k_mass turns out to be; empty: off */
    struct m40_sample_range token; /* the token, whatever the others turn out to be */
};

/* ---- items: a logit above -inf and its column in one integer, greater for what comes first in the order; 0: no item ---- */

M40_HD uint64_t m40_sample_item(float logit, uint32_t col)
{
    uint32_t bits = m40_f32_to_bits(logit + 0.0f); /* both zeros are one */

    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
    return logit > m40_bits_to_f32(0xff800000u) ? (uint64_t)bits << 32 | (0xffffffffu - col) : 0;
}

M40_HD float m40_sample_logit(uint64_t item)
{
    uint32_t bits = (uint32_t)(item >> 32);

    return m40_bits_to_f32(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

M40_HD uint32_t m40_sample_col(uint64_t item)
{
    return 0xffffffffu - (uint32_t)item;
}

/* Whether the row's token is its best item's, or with no item 0, without further ado. */
M40_HD int m40_sample_is_best(const struct m40_sample_row *row, uint64_t best)
{
    return row->inv_temperature == 0.0f || row->top_k == 1 || best == 0 || m40_sample_logit(best) == m40_bits_to_f32(0x7f800000u);
}

/* ---- masses ---- */

/* A NaN for a NaN. Candidates are those of at least M40_SAMPLE_LEAST_Z. */
M40_HD float m40_sample_z(const struct m40_sample_scale *scale, float logit)
{
    return (logit - scale->best) * scale->inv_temperature;
}

/* Of a candidate; 2^40 for the best one. */
M40_HD uint64_t m40_sample_mass(float z)
{
    return (uint64_t)(int64_t)(m40_expf(z) * 1099511627776.0f);
}

/* floor(a * b / 2^64) */
M40_HD uint64_t m40_sample_times(uint64_t a, uint64_t b)
{
    uint64_t low = (a & 0xffffffffu) * (b & 0xffffffffu), mid = (a >> 32) * (b & 0xffffffffu) + (low >> 32);

    return (a >> 32) * (b >> 32) + (mid >> 32) + (((a & 0xffffffffu) * (b >> 32) + (mid & 0xffffffffu)) >> 32);
}

/* The mass that top_p (below 1) asks for, of all that is left before it. */
M40_HD uint64_t m40_sample_need(float top_p, uint64_t mass)
{
    uint64_t need = m40_sample_times(mass, (uint64_t)(int64_t)(top_p * 4294967296.0f) << 32);

    return need ? need : 1;
}

/* ---- bins ---- */

/* best and least: items of the row, least the last of all. */
M40_HD struct m40_sample_scale m40_sample_scale(const struct m40_sample_row *row, uint64_t best, uint64_t least)
{
    struct m40_sample_scale scale;
    float span, most = -M40_SAMPLE_LEAST_Z / row->inv_temperature;

    scale.best = m40_sample_logit(best);
    scale.inv_temperature = row->inv_temperature;
    span = scale.best - m40_sample_logit(least);
    scale.bins_per_logit = (float)M40_SAMPLE_BINS / (span < most ? span : most);
    if (!(scale.bins_per_logit < 3e38f)) /* all in one bin */
        scale.bins_per_logit = 0.0f;
    return scale;
}

/* Of a candidate. Later in the order is never in an earlier bin. */
M40_HD uint32_t m40_sample_bin(const struct m40_sample_scale *scale, float logit)
{
    float bin = (scale->best - logit) * scale->bins_per_logit;

    return bin < (float)(M40_SAMPLE_BINS - 1) ? (uint32_t)bin : M40_SAMPLE_BINS - 1;
}

M40_HD int m40_sample_is_in(const struct m40_sample_range *range, uint32_t bin)
{
    return bin >= range->first && bin <= range->last;
}

M40_HD int m40_sample_is_wanted(const struct m40_sample_plan *plan, uint32_t bin)
{
    return m40_sample_is_in(&plan->k, bin) || m40_sample_is_in(&plan->p, bin) || m40_sample_is_in(&plan->token, bin);
}

/* Finds the bin where a running sum first exceeds `sum`, which is below the last of sums. sums: [M40_SAMPLE_BINS + 1], of all bins before each. */
typedef uint32_t m40_sample_find_fn(const uint64_t *sums, uint64_t sum);

/* The range where the sum exceeds something from low to high. */
M40_HD struct m40_sample_range m40_sample_find_range(m40_sample_find_fn *find, const uint64_t *masses, uint64_t low, uint64_t high)
{
    struct m40_sample_range range;

    range.first = find(masses, low);
    range.last = high == low ? range.first : find(masses, high);
    range.before = masses[range.first];
    return range;
}

/* counts, masses: [M40_SAMPLE_BINS + 1], of all bins before each; behind the bin in which top_k ends masses need not be right. min_mass: of all that min_p leaves, or more where that is more than what
 * top_k leaves. */
M40_HD struct m40_sample_plan m40_sample_make_plan(const struct m40_sample_row *row, m40_sample_find_fn *find, const uint64_t *counts,
                                                   const uint64_t *masses, uint64_t min_mass)
{
    struct m40_sample_plan plan = {0, {0, 1, 0}, 0, {0, 1, 0}, {0, 1, 0}};
    uint64_t low = masses[M40_SAMPLE_BINS], high = low; /* of what is left */

    if (row->top_k > 0 && row->top_k < counts[M40_SAMPLE_BINS]) {
        uint32_t bin = find(counts, row->top_k - 1);

        low = high = masses[bin + 1];
        if (counts[bin + 1] != row->top_k) {
            plan.k.first = plan.k.last = bin;
            plan.k.before = masses[bin];
            plan.k_index = row->top_k - 1 - (uint32_t)counts[bin];
            low = masses[bin] + 1;
        }
    }
    plan.k_mass = high;
    if (row->top_p < 1.0f) {
        uint64_t need_low = m40_sample_need(row->top_p, low), need_high = m40_sample_need(row->top_p, high);

        plan.p = m40_sample_find_range(find, masses, need_low - 1, need_high - 1);
        low = need_low;
        high = masses[plan.p.last + 1] < high ? masses[plan.p.last + 1] : high;
    }
    low = low < min_mass ? low : min_mass;
    high = high < min_mass ? high : min_mass;
    plan.token = m40_sample_find_range(find, masses, m40_sample_times(row->random, low), m40_sample_times(row->random, high));
    return plan;
}

#ifndef M40_DEVICE_CODE
/* The token of a row of n (1 .. M40_SAMPLE_MAX_COLS) logits. */
int32_t m40_sample(const float *logits, uint32_t n, const struct m40_sample_row *row);

/* Of a temperature of 0 or more. */
float m40_sample_inv_temperature(float temperature);

/* What min_p (0 .. 1) means for m40_sample_row: a z above M40_SAMPLE_LEAST_Z and below which e^z is less than min_p. */
float m40_sample_min_z(float min_p);
#endif

#endif
