/* glu and softcap. */
#include "parity/parity.h"

#include "parity/ref64.h"

#include <math.h>

/* ---- glu ---- */

enum glu_layout {
    GLU_APART,
    GLU_Y_IS_GATE,
    GLU_Y_IS_UP,
    GLU_ONE_ROW, /* gate and up side by side */
    GLU_N_LAYOUTS,
};

struct glu_case {
    uint32_t n_rows, n_cols;
    enum glu_layout layout;
    struct m40_act_params act;
};

static const struct m40_act_params acts[] = {{M40_ACT_SILU, 0, 0}, {M40_ACT_GELU_TANH, 0, 0}, {M40_ACT_SWIGLU_OAI, 1.702f, 7.0f}};
enum { N_ACTS = sizeof acts / sizeof *acts };

static m40llm_status issue_glu(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct glu_case *s = data;
    struct m40_glu_args args = {.gate = at[0], .up = at[1], .y = at[2], .n_rows = s->n_rows, .n_cols = s->n_cols, .stride = s->n_cols, .act = s->act};

    if (s->layout == GLU_ONE_ROW) {
        args.up = at[0] + s->n_cols * sizeof(float);
        args.stride = 2 * s->n_cols;
    }
    if (s->layout == GLU_Y_IS_GATE)
        args.gate = at[2];
    if (s->layout == GLU_Y_IS_UP)
        args.up = at[2];
    return be->ops.glu(be, &args, err);
}

/* Buffers 0 and 1: gate and up, or both in the rows of buffer 0. */
static void add_glu_inputs(struct parity_case *c, const struct glu_case *s, const float *gate, const float *up)
{
    size_t n = (size_t)s->n_rows * s->n_cols, row_bytes = s->n_cols * sizeof *gate;
    float *both;

    if (s->layout != GLU_ONE_ROW) {
        parity_in(c, gate, n * sizeof *gate);
        parity_in(c, up, n * sizeof *up);
        return;
    }
    both = parity_alloc(c, 2 * n * sizeof *both);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        memcpy(both + (size_t)2 * r * s->n_cols, gate + (size_t)r * s->n_cols, row_bytes);
        memcpy(both + (size_t)(2 * r + 1) * s->n_cols, up + (size_t)r * s->n_cols, row_bytes);
    }
    parity_in(c, both, 2 * n * sizeof *both);
    parity_in(c, up, row_bytes);
}

static void check_glu(struct parity *p, struct glu_case s, enum parity_input input)
{
    static const float extremes[] = {0.0f,  -0.0f,  88.0f, -88.0f, 88.72f, -88.72f, -88.73f,  -104.0f,  -104.1f,
                                     1e30f, -1e30f, 1.0f,  -1.0f,  1e-40f, -1e-40f, INFINITY, -INFINITY};
    static const char *const names[] = {"apart", "the gate", "up", "apart, gate and up in one row"};
    struct parity_case c = {.issue = issue_glu, .args = &s};
    size_t n = (size_t)s.n_rows * s.n_cols;
    float *gate = parity_floats(p, &c, n, input), *up = parity_floats(p, &c, n, input);
    double *expected = parity_alloc(&c, n * sizeof *expected), *bound = parity_alloc(&c, n * sizeof *bound);

    snprintf(c.name, sizeof c.name, "glu %d of %u x %u, input %d, y is %s", (int)s.act.act, s.n_rows, s.n_cols, (int)input, names[s.layout]);
    for (size_t i = 0; i < n; i++)
        if (i % 3 == 1)
            gate[i] = extremes[i / 3 % (sizeof extremes / sizeof *extremes)];
        else if (input == PARITY_RANDOM)
            gate[i] *= i % 2 ? 100 : 4;
    add_glu_inputs(&c, &s, gate, up);
    parity_out(&c, n * sizeof *up);
    if (s.layout == GLU_Y_IS_GATE || s.layout == GLU_Y_IS_UP) {
        c.buffers[2].data = s.layout == GLU_Y_IS_GATE ? gate : up;
        c.buffers[2].use = PARITY_IN_OUT;
    }
    parity_run(p, &c);
    ref64_glu(&s.act, gate, up, n, expected, bound);
    parity_check_doubles(p, &c, 2, expected, bound);
    parity_case_free(&c);
}

void parity_glu(struct parity *p, uint32_t unused)
{
    static const uint32_t rows[] = {1, 1, 3, 1, 2, 33, 1, 5}, cols[] = {1, 31, 255, 256, 257, 4096, 14336, 14001};

    (void)unused;
    for (unsigned i = 0; i < 8 * GLU_N_LAYOUTS; i += p->is_thin ? 3 : 1)
        check_glu(p, (struct glu_case){rows[i / 4], cols[i / 4], (enum glu_layout)(i % GLU_N_LAYOUTS), acts[(i + i / 4) % N_ACTS]},
                  parity_input(i / 2));
}

/* ---- softcap ---- */

struct softcap_case {
    uint32_t n;
    float scale, softcap;
};

static m40llm_status issue_softcap(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct softcap_case *s = data;

    return be->ops.softcap(be, &(struct m40_softcap_args){.x = at[0], .n = s->n, .scale = s->scale, .softcap = s->softcap}, err);
}

static void check_softcap(struct parity *p, struct softcap_case s, enum parity_input input)
{
    static const float extremes[] = {0.0f, -0.0f, 1e30f, -1e30f, 1e-40f, -1e-40f, INFINITY, -INFINITY, NAN};
    struct parity_case c = {.issue = issue_softcap, .args = &s};
    float *x = parity_floats(p, &c, s.n, input);
    double *expected = parity_alloc(&c, s.n * sizeof *expected), *bound = parity_alloc(&c, s.n * sizeof *bound);

    snprintf(c.name, sizeof c.name, "softcap of %u, scale %g, cap %g, input %d", s.n, (double)s.scale, (double)s.softcap, (int)input);
    for (uint32_t i = 0; i < s.n; i++)
        x[i] = i % 5 == 4 ? extremes[i / 5 % (sizeof extremes / sizeof *extremes)] : input == PARITY_RANDOM ? 60 * x[i] : x[i];
    parity_in(&c, x, s.n * sizeof *x);
    c.buffers[0].use = PARITY_IN_OUT;
    parity_run(p, &c);
    ref64_softcap(x, s.n, s.scale, s.softcap, expected, bound);
    parity_check_doubles(p, &c, 0, expected, bound);
    parity_case_free(&c);
}

void parity_softcap(struct parity *p, uint32_t unused)
{
    static const uint32_t sizes[] = {1, 7, 8, 255, 256, 257, 4096, 5001};
    static const float caps[] = {30.0f, 0.0f, 2.5f, 50.0f}, scales[] = {1.0f, 0.125f, 1.3f};

    (void)unused;
    for (unsigned i = 0; i < 16; i += p->is_thin ? 3 : 1)
        check_softcap(p, (struct softcap_case){sizes[i % 8], scales[i % 3], caps[i % 4]}, parity_input(i));
}
