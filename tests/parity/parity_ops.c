/* rms_norm, gather_rows, argmax, and what happens beyond the reserved workload. */
#include "parity/parity.h"

#include "parity/random_weights.h"
#include "parity/ref64.h"

#include "base/mem.h"

#include <math.h>

/* ---- rms_norm ---- */

enum rms_norm_residual { NO_RESIDUAL, RESIDUAL_APART, RESIDUAL_IS_Y };

struct rms_norm_case {
    uint32_t n_rows, n_cols, gap; /* gap: floats between rows */
    bool in_place;                /* y is x */
    enum rms_norm_residual residual;
    float eps;
};

enum { NORM_X, NORM_Y, NORM_WEIGHT, NORM_RESIDUAL };

static m40llm_status issue_rms_norm(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct rms_norm_case *n = data;
    struct m40_rms_norm_args args = {.x = n->in_place ? at[NORM_Y] : at[NORM_X],
                                     .y = at[NORM_Y],
                                     .weight = at[NORM_WEIGHT],
                                     .n_rows = n->n_rows,
                                     .n_cols = n->n_cols,
                                     .stride = n->gap ? n->n_cols + n->gap : 0,
                                     .eps = n->eps};

    args.residual = n->residual == RESIDUAL_APART ? at[NORM_RESIDUAL] : n->residual == RESIDUAL_IS_Y ? at[NORM_Y] : 0;
    return be->ops.rms_norm(be, &args, err);
}

/* Rows `gap` floats further apart, with zeros between them. */
static float *spread(struct parity_case *c, const float *x, const struct rms_norm_case *n)
{
    size_t stride = (size_t)n->n_cols + n->gap;
    float *y = parity_alloc(c, n->n_rows * stride * sizeof *y);

    memset(y, 0, n->n_rows * stride * sizeof *y);
    for (uint32_t r = 0; r < n->n_rows; r++)
        memcpy(y + r * stride, x + (size_t)r * n->n_cols, n->n_cols * sizeof *y);
    return y;
}

static void check_rms_norm(struct parity *p, struct rms_norm_case n, enum parity_input input)
{
    struct parity_case c = {.need = {.n_tokens = n.n_rows, .n_cols = n.n_cols}, .issue = issue_rms_norm, .args = &n};
    size_t n_elems = (size_t)n.n_rows * n.n_cols, stride = (size_t)n.n_cols + n.gap, n_bytes = n.n_rows * stride * sizeof(float);
    const float *x = parity_floats(p, &c, n_elems, input), *weight = parity_floats(p, &c, n.n_cols, PARITY_RANDOM);
    const float *residual = parity_floats(p, &c, n_elems, PARITY_RANDOM), *started = n.in_place ? x : residual;
    double *dense = parity_alloc(&c, 2 * n_elems * sizeof *dense), *expected, *bound;

    snprintf(c.name, sizeof c.name, "rms_norm %u rows of %u, %u apart%s, residual %d, input %d", n.n_rows, n.n_cols, n.gap,
             n.in_place ? ", in place" : "", (int)n.residual, (int)input);
    parity_in(&c, spread(&c, x, &n), n_bytes);
    parity_out(&c, n_bytes);
    parity_in(&c, weight, n.n_cols * sizeof *weight);
    parity_in(&c, spread(&c, residual, &n), n_bytes);
    c.buffers[NORM_Y].data = spread(&c, started, &n); /* between its rows nothing may change */
    c.buffers[NORM_Y].use = PARITY_IN_OUT;
    parity_run(p, &c);
    ref64_rms_norm(x, weight, n.residual ? residual : NULL, n.n_rows, n.n_cols, n.eps, dense, dense + n_elems);
    expected = parity_alloc(&c, n.n_rows * stride * sizeof *expected);
    bound = parity_alloc(&c, n.n_rows * stride * sizeof *bound);
    for (size_t i = 0; i < n.n_rows * stride; i++) {
        bool is_element = i % stride < n.n_cols;

        expected[i] = is_element ? dense[i / stride * n.n_cols + i % stride] : 0;
        bound[i] = is_element ? dense[n_elems + i / stride * n.n_cols + i % stride] : 0;
    }
    parity_check_doubles(p, &c, NORM_Y, expected, bound);
    parity_case_free(&c);
}

void parity_rms_norm(struct parity *p, uint32_t unused)
{
    static const uint32_t cols[] = {1, 7, 64, 255, 256, 257, 4096, 5000}, rows[] = {1, 3, 33};
    static const enum rms_norm_residual residuals[] = {NO_RESIDUAL, RESIDUAL_IS_Y, NO_RESIDUAL, RESIDUAL_APART, RESIDUAL_APART};
    unsigned number = 0;

    (void)unused;
    for (unsigned k = 0; k < sizeof cols / sizeof *cols; k++)
        for (unsigned r = 0; r < 3; r++, number++) {
            struct rms_norm_case n = {.n_rows = rows[r],
                                      .n_cols = cols[k],
                                      .gap = number % 4 == 2 ? 9 : 0,
                                      .residual = residuals[number % 5],
                                      .eps = number % 3 ? 1e-5f : 1e-6f};

            n.in_place = number % 2 && n.residual != RESIDUAL_IS_Y;
            if (!p->is_thin || number % 4 == 0 || number % 7 == 1)
                check_rms_norm(p, n, parity_input(number));
        }
}

/* ---- gather_rows ---- */

struct gather_case {
    uint32_t n_rows, n_cols;
};

static m40llm_status issue_gather(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct gather_case *g = data;
    struct m40_gather_rows_args args = {.x = at[0], .rows = at[1], .y = at[2], .n_rows = g->n_rows, .n_cols = g->n_cols};

    return be->ops.gather_rows(be, &args, err);
}

static void check_gather(struct parity *p, struct gather_case g)
{
    enum { N_SOURCE = 19 };
    struct parity_case c = {.need = {.n_tokens = N_SOURCE, .n_cols = g.n_cols}, .issue = issue_gather, .args = &g};
    const size_t row_bytes = g.n_cols * sizeof(float);
    const float *x = parity_floats(p, &c, (size_t)N_SOURCE * g.n_cols, PARITY_POWERS);
    int32_t *rows = parity_alloc(&c, g.n_rows * sizeof *rows);

    snprintf(c.name, sizeof c.name, "gather_rows %u of %u columns", g.n_rows, g.n_cols);
    for (uint32_t i = 0; i < g.n_rows; i++)
        rows[i] = i == 0 ? N_SOURCE - 1 : (int32_t)parity_below(p, N_SOURCE);
    parity_in(&c, x, N_SOURCE * row_bytes);
    parity_in(&c, rows, g.n_rows * sizeof *rows);
    parity_out(&c, g.n_rows * row_bytes);
    parity_run(p, &c);
    for (uint32_t i = 0; c.buffers[2].result[0] && i < g.n_rows; i++)
        parity_check(p, 0, memcmp((const uint8_t *)c.buffers[2].result[0] + i * row_bytes, x + (size_t)rows[i] * g.n_cols, row_bytes) == 0,
                     "%s: row %u is not %d", c.name, i, rows[i]);
    parity_case_free(&c);
}

void parity_gather_rows(struct parity *p, uint32_t unused)
{
    static const uint32_t rows[] = {1, 3, 16, 19}, cols[] = {1, 37, 256, 4097};

    (void)unused;
    for (unsigned i = 0; i < 16; i += p->is_thin ? 5 : 1)
        check_gather(p, (struct gather_case){.n_rows = rows[i % 4], .n_cols = cols[i / 4]});
}

/* ---- argmax ---- */

struct argmax_case {
    uint32_t n_rows, n_cols;
};

static m40llm_status issue_argmax(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct argmax_case *a = data;

    return be->ops.argmax(be, &(struct m40_argmax_args){.x = at[0], .ids = at[1], .n_rows = a->n_rows, .n_cols = a->n_cols}, err);
}

/* Rows with ties, among zeros of both signs too, NaNs, infinities, and nothing that could win. */
static void make_argmax_row(struct parity *p, float *x, uint32_t n, unsigned kind)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kind == 1)
            x[i] = (float)parity_below(p, 5);
        else if (kind == 2 && parity_below(p, 3) == 0)
            x[i] = NAN;
        else if (kind == 3)
            x[i] = i % 2 ? 0.0f : -0.0f;
        else if (kind == 4)
            x[i] = parity_below(p, 2) ? NAN : -INFINITY;
    }
    if (kind == 5)
        x[parity_below(p, n)] = x[n - 1] = INFINITY;
}

static int32_t expect_argmax(const float *x, uint32_t n)
{
    int32_t best = -1;

    for (uint32_t i = n; i-- > 0;)
        if (x[i] > -INFINITY && (best < 0 || x[i] >= x[best]))
            best = (int32_t)i;
    return best < 0 ? 0 : best;
}

static void check_argmax(struct parity *p, struct argmax_case a, unsigned number)
{
    struct parity_case c = {.need = {.n_tokens = a.n_rows, .n_rows = a.n_cols}, .issue = issue_argmax, .args = &a};
    float *x = parity_floats(p, &c, (size_t)a.n_rows * a.n_cols, PARITY_RANDOM);

    snprintf(c.name, sizeof c.name, "argmax of %u rows of %u", a.n_rows, a.n_cols);
    for (uint32_t r = 0; r < a.n_rows; r++)
        make_argmax_row(p, x + (size_t)r * a.n_cols, a.n_cols, (number + r) % 6);
    parity_in(&c, x, (size_t)a.n_rows * a.n_cols * sizeof *x);
    parity_out(&c, a.n_rows * sizeof(int32_t));
    parity_run(p, &c);
    for (uint32_t r = 0; c.buffers[1].result[0] && r < a.n_rows; r++) {
        int32_t id, expected = expect_argmax(x + (size_t)r * a.n_cols, a.n_cols);

        memcpy(&id, (const uint8_t *)c.buffers[1].result[0] + r * sizeof id, sizeof id);
        parity_check(p, 0, id == expected, "%s: row %u gives %d, expected %d", c.name, r, id, expected);
    }
    parity_case_free(&c);
}

void parity_argmax(struct parity *p, uint32_t unused)
{
    static const uint32_t rows[] = {1, 3, 17}, cols[] = {1, 31, 256, 1025, 5000, 70001};

    (void)unused;
    for (unsigned i = 0; i < 18; i += p->is_thin ? 5 : 1)
        check_argmax(p, (struct argmax_case){rows[i % 3], cols[i / 3]}, i);
}

/* ---- limits ---- */

static const struct m40_workload small_workload = {.n_tokens = 4, .n_cols = 256, .n_rows = 32, .n_heads = 2, .head_dim = 32, .n_ctx = 64};

static void refuse_matmul(struct parity *p, unsigned t, m40_addr memory, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens)
{
    struct m40_backend *be = p->targets[t].backend;
    const struct m40_format *format = m40_format(M40_DTYPE_F16);
    void *rows = random_weights(&p->random, format, (uint64_t)n_rows * n_cols);
    struct m40_matrix w = {0};
    struct m40_matmul_args args = {.w = &w, .x = memory, .y = memory + 32768, .n_tokens = n_tokens};
    m40llm_error err;

    parity_check(p, t, be->ops.matrix_create(be, format, n_rows, n_cols, rows, &w, &err) == M40LLM_OK, "matrix_create: %s", err.text);
    parity_check(p, t, be->ops.matmul(be, &args, &err) == M40LLM_INVALID_ARGUMENT && err.text[0], "a matmul of %ux%u, %u tokens, was not refused",
                 n_rows, n_cols, n_tokens);
    be->ops.matrix_destroy(be, &w);
    be->ops.matrix_destroy(be, &w); /* zeroed: accepted */
    free(rows);
}

static void refuse_attention(struct parity *p, unsigned t, m40_addr memory, uint32_t n_tokens, uint32_t n_heads, uint32_t head_dim, uint32_t max_pos)
{
    struct m40_backend *be = p->targets[t].backend;
    struct m40_kv_layer layer = {.base = memory, .n_pages = 1, .n_kv_heads = 1, .head_dim = head_dim};
    struct m40_rows rows = {.n_tokens = n_tokens, .max_pos = max_pos, .pos = memory, .slot = memory, .pages = memory, .n_slot_pages = 1};
    struct m40_attention_args args = {
        .kv = &layer, .rows = &rows, .q = memory, .y = memory + 32768, .q_stride = n_heads * head_dim, .n_heads = n_heads, .scale = 1};
    m40llm_error err;

    parity_check(p, t, be->ops.attention(be, &args, &err) == M40LLM_INVALID_ARGUMENT && err.text[0],
                 "attention of %u tokens, %u heads of %u, position %u, was not refused", n_tokens, n_heads, head_dim, max_pos);
}

/* One more than what is reserved is refused, in words, for every dimension that sizes scratch memory. */
void parity_limits(struct parity *p, uint32_t unused)
{
    (void)unused;
    for (unsigned t = 0; t < p->n_targets; t++) {
        struct m40_backend *be = p->targets[t].backend;
        m40_addr memory = 0;
        m40llm_error err;

        if (!be)
            continue;
        parity_check(p, t, be->ops.reserve(be, &small_workload, &err) == M40LLM_OK, "reserve: %s", err.text);
        p->targets[t].reserved = small_workload;
        parity_check(p, t, be->ops.alloc(be, 65536, &memory, &err) == M40LLM_OK, "alloc: %s", err.text);
        parity_check(p, t, memory % 256 == 0, "memory is not aligned to 256 bytes");
        refuse_matmul(p, t, memory, 33, 256, 4);
        refuse_matmul(p, t, memory, 32, 257, 4);
        refuse_matmul(p, t, memory, 32, 256, 5);
        refuse_attention(p, t, memory, 5, 2, 32, 63);
        refuse_attention(p, t, memory, 4, 3, 32, 63);
        refuse_attention(p, t, memory, 4, 2, 40, 63);
        refuse_attention(p, t, memory, 4, 2, 32, 64);
        be->ops.free(be, memory);
        be->ops.free(be, 0);
    }
}

static bool always_fail(void *user)
{
    (void)user;
    return true;
}

/* Without memory, alloc and reserve fail in words; then operations are refused until a reserve succeeds. */
void parity_no_memory(struct parity *p, uint32_t unused)
{
    struct m40_matrix w = {.format = m40_format(M40_DTYPE_F32), .n_rows = 1, .n_cols = 1};
    struct m40_matmul_args args = {.w = &w, .n_tokens = 1};

    (void)unused;
    for (unsigned t = 0; t < p->n_targets; t++) {
        struct m40_backend *be = p->targets[t].backend;
        m40_addr memory = 1;
        m40llm_error err;
        bool has_failed;

        if (!be || be->is_cuda)
            continue;
        m40_mem_set_failure_hook(always_fail, NULL);
        has_failed = be->ops.alloc(be, 64, &memory, &err) == M40LLM_NO_MEMORY && memory == 0 && err.text[0];
        has_failed = be->ops.reserve(be, &small_workload, &err) == M40LLM_NO_MEMORY && err.text[0] && has_failed;
        m40_mem_set_failure_hook(NULL, NULL);
        parity_check(p, t, has_failed, "no memory, and no failure");
        parity_check(p, t, be->ops.matmul(be, &args, &err) == M40LLM_INVALID_ARGUMENT, "a matmul without scratch memory was not refused");
        p->targets[t].reserved = (struct m40_workload){0};
    }
}
