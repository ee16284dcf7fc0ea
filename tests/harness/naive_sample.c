#include "harness/naive_sample.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    float x, z;
    uint64_t m;
    int32_t id;
};

static int compare(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;

    if (a->x != b->x)
        return a->x > b->x ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static uint64_t times(uint64_t a, uint64_t b, unsigned shift)
{
    return (uint64_t)((unsigned __int128)a * b >> shift);
}

static size_t candidates(const float *x, uint32_t n, float best, float inv_temperature, struct candidate *out)
{
    size_t n_out = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct candidate c = {.x = x[i], .z = (x[i] - best) * inv_temperature, .id = (int32_t)i};

        if (c.z >= -27) {
            c.m = (uint64_t)floor((double)m40_expf(c.z) * 0x1p40);
            out[n_out++] = c;
        }
    }
    qsort(out, n_out, sizeof *out, compare);
    return n_out;
}

/* Of the first candidates that reach top_p of `sum`. */
static uint64_t top_p_mass(const struct candidate *c, float top_p, uint64_t sum)
{
    uint64_t need = times(sum, (uint64_t)floor((double)top_p * 0x1p32), 32), reached = 0;

    for (size_t i = 0; reached < (need ? need : 1); i++)
        reached += c[i].m;
    return reached;
}

static int32_t draw(const struct candidate *c, size_t n, const struct m40_sample_row *row)
{
    uint64_t sum = 0, min_sum = 0, target;
    size_t i;

    for (i = 0; i < n && (row->top_k == 0 || i < row->top_k); i++)
        sum += c[i].m;
    if (row->top_p < 1)
        sum = top_p_mass(c, row->top_p, sum);
    for (i = 0; i < n; i++)
        min_sum += c[i].z >= row->min_z ? c[i].m : 0;
    sum = sum < min_sum ? sum : min_sum;
    target = times(row->random, sum, 64);
    sum = c[0].m;
    for (i = 0; sum <= target; i++)
        sum += c[i + 1].m;
    return c[i].id;
}

int32_t naive_sample(const float *x, uint32_t n, const struct m40_sample_row *row)
{
    float best = -INFINITY;
    int32_t id = 0;
    struct candidate *c;

    for (uint32_t i = 0; i < n; i++)
        if (x[i] > best) {
            best = x[i];
            id = (int32_t)i;
        }
    if (row->inv_temperature == 0 || row->top_k == 1 || isinf(best))
        return id;
    c = calloc(n, sizeof *c);
    if (!c)
        abort();
    id = draw(c, candidates(x, n, best, row->inv_temperature, c), row);
    free(c);
    return id;
}
