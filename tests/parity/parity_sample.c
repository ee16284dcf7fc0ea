/* sample: every backend's tokens against those of a sampler that sorts, over rows and parameters at the edges of what there is. */
#include "parity/parity.h"

#include "backend/sample.h"
#include "harness/naive_sample.h"

#include <math.h>

struct sample_case {
    uint32_t n_rows, n_cols;
};

static m40llm_status issue_sample(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct sample_case *a = data;

    return be->ops.sample(be, &(struct m40_sample_args){.x = at[0], .rows = at[1], .ids = at[2], .n_rows = a->n_rows, .n_cols = a->n_cols}, err);
}

enum { N_KINDS = 12 };

/* The sum of four uniform numbers: about as logits are spread, up to 4 * scale. */
static float bell(struct parity *p, float scale)
{
    float sum = 0;

    for (int i = 0; i < 4; i++)
        sum += ((float)parity_below(p, 1 << 20) * 0x1p-19f - 1) * scale;
    return sum;
}

static float make_logit(struct parity *p, unsigned kind, uint32_t i)
{
    switch (kind) {
    case 0: /* many of one value */
        return (float)parity_below(p, 5);
    case 1:
        return parity_below(p, 3) == 0 ? NAN : bell(p, 4);
    case 2:
        return i % 2 ? 0.0f : -0.0f;
    case 3:
        return parity_below(p, 2) ? NAN : -INFINITY;
    case 4:
        return parity_below(p, 10) ? bell(p, 2) : parity_below(p, 9) ? -INFINITY : INFINITY;
    case 5: /* all within one bin of the histogram but for one */
        return i == 7 ? -20.0f : 1.0f + (float)parity_below(p, 4096) * 0x1p-20f;
    case 6: /* subnormals */
        return m40_bits_to_f32(parity_below(p, 1 << 20) | parity_below(p, 2) << 31);
    case 7: /* differences that overflow */
        return bell(p, 0.9e38f);
    case 8: /* all of one value, and all but one */
        return -3.25f;
    case 9: /* neighbours */
        return 12.0f + (float)parity_below(p, 3) * 0x1p-20f;
    default:
        return bell(p, kind == 10 ? 4 : 1);
    }
}

#define PICK(p, ...) ((const float[]){__VA_ARGS__}[parity_below(p, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))])

static struct m40_sample_row make_params(struct parity *p, uint32_t n_cols)
{
    const uint32_t top_k[] = {0, 0, 1, 2, 7, 40, 1000, n_cols - 1, n_cols, n_cols + 1, 1 + parity_below(p, n_cols), UINT32_MAX};
    struct m40_sample_row row = {.random = test_random(&p->random)};

    row.random = PICK(p, 1, 1, 1, 1, 0, 2) == 1 ? row.random : PICK(p, 0, 1) == 0 ? 0 : UINT64_MAX;
    row.inv_temperature = m40_sample_inv_temperature(PICK(p, 0, 1e-40f, 1e-6f, 0.2f, 0.8f, 0.8f, 1, 1, 1.5f, 40, 1e6f, 3e38f));
    row.top_p = PICK(p, 1, 1, 1, 1e-12f, 1e-3f, 0.5f, 0.9f, 0.95f, 0.999f, 0x1.fffffep-1f);
    row.min_z = m40_sample_min_z(PICK(p, 0, 0, 0, 1e-13f, 1e-4f, 0.05f, 0.3f, 0.9f, 1));
    row.top_k = top_k[parity_below(p, sizeof top_k / sizeof *top_k)];
    return row;
}

static void check_sample(struct parity *p, struct sample_case a, unsigned number)
{
    struct parity_case c = {.need = {.n_tokens = a.n_rows, .n_rows = a.n_cols}, .issue = issue_sample, .args = &a};
    float *x = parity_alloc(&c, (size_t)a.n_rows * a.n_cols * sizeof *x);
    struct m40_sample_row *rows = parity_alloc(&c, a.n_rows * sizeof *rows);

    snprintf(c.name, sizeof c.name, "sample of %u rows of %u, number %u", a.n_rows, a.n_cols, number);
    for (uint32_t r = 0; r < a.n_rows; r++) {
        unsigned kind = (number + r) % N_KINDS;

        rows[r] = make_params(p, a.n_cols);
        for (uint32_t i = 0; i < a.n_cols; i++)
            x[(size_t)r * a.n_cols + i] = make_logit(p, kind, i);
        if (kind == 8 && parity_below(p, 2))
            x[(size_t)r * a.n_cols + parity_below(p, a.n_cols)] = -3.0f;
    }
    parity_in(&c, x, (size_t)a.n_rows * a.n_cols * sizeof *x);
    parity_in(&c, rows, a.n_rows * sizeof *rows);
    parity_out(&c, a.n_rows * sizeof(int32_t));
    parity_run(p, &c);
    for (uint32_t r = 0; c.buffers[2].result[0] && r < a.n_rows; r++) {
        int32_t id, expected = naive_sample(x + (size_t)r * a.n_cols, a.n_cols, &rows[r]);

        memcpy(&id, (const uint8_t *)c.buffers[2].result[0] + r * sizeof id, sizeof id);
        parity_check(p, 0, id == expected, "%s: row %u gives %d, expected %d", c.name, r, id, expected);
    }
    parity_case_free(&c);
}

void parity_sample(struct parity *p, uint32_t unused)
{
    static const uint32_t rows[] = {1, 12, 41}, cols[] = {1, 2, 31, 256, 1025, 2048, 2049, 5000, 40001};

    (void)unused;
    for (unsigned i = 0; i < 27; i += p->is_thin ? 4 : 1)
        for (unsigned again = 0; again < (cols[i / 3] > 6000 || p->is_thin ? 1 : 6); again++)
            check_sample(p, (struct sample_case){rows[i % 3], cols[i / 3]}, i + again * 5);
}
