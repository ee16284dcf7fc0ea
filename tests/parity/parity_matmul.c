/* embed and matmul over every weight type. */
#include "parity/parity.h"

#include "parity/random_weights.h"
#include "parity/ref64.h"

#include <math.h>

/* ---- matmul ---- */

struct matmul_shape {
    uint32_t n_rows, n_cols, n_tokens;
    bool has_bias, has_residual, in_place; /* in_place: y is the residual */
    bool has_norm;                         /* of x, whose weight is another input */
    bool is_gated;                         /* has_norm too; y is silu(gate) * up of n_rows / 2 rows each */
};

struct matmul_case {
    struct matmul_shape shape;
    const struct m40_format *format;
    const void *rows;
};

enum { X, Y, BIAS, RESIDUAL, NORM_WEIGHT };
enum { LARGER_ROWS = 16384 };

/* As a forward pass does it: by one operation where the backend has it. matmul->y gets the result. */
static m40llm_status issue_normed(struct m40_backend *be, m40_addr weight, bool is_gated, const struct m40_matmul_args *matmul, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t n_cols = (uint32_t)matmul->w->n_cols, n_rows = (uint32_t)matmul->w->n_rows, n = matmul->n_tokens;
    struct m40_matmul_args args = *matmul;
    struct m40_rms_norm_args norm = {.x = matmul->x, .weight = weight, .n_rows = n, .n_cols = n_cols, .eps = 1e-5f};
    struct m40_glu_args glu = {.y = matmul->y, .n_rows = n, .n_cols = n_rows / 2, .stride = n_rows};
    m40_addr both = 0;

    M40_TRY(be->ops.alloc(be, (uint64_t)n * n_cols * sizeof(float), &norm.y, err));
    M40_TRY(be->ops.alloc(be, (uint64_t)n * n_rows * sizeof(float), &both, err));
    args.x = norm.y;
    if (is_gated)
        args.y = both;
    if (is_gated && be->ops.norm_glu) {
        M40_TRY(be->ops.norm_glu(be, &norm, &args, &glu.act, matmul->y, err));
    } else if (!is_gated && be->ops.norm_matmul) {
        M40_TRY(be->ops.norm_matmul(be, &norm, &args, err));
    } else {
        M40_TRY(be->ops.rms_norm(be, &norm, err));
        M40_TRY(be->ops.matmul(be, &args, err));
        glu.gate = both;
        glu.up = both + n_rows / 2 * sizeof(float);
        if (is_gated)
            M40_TRY(be->ops.glu(be, &glu, err));
    }
fail:
    be->ops.free(be, norm.y);
    be->ops.free(be, both);
    return status;
}

static m40llm_status issue_matmul(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct matmul_case *m = data;
    const struct matmul_shape *s = &m->shape;
    m40llm_status status = M40LLM_OK;
    struct m40_matrix w = {0};
    struct m40_matmul_args args = {
        .w = &w,
        .x = at[X],
        .bias = s->has_bias ? at[BIAS] : 0,
        .residual = s->in_place       ? at[Y]
                    : s->has_residual ? at[RESIDUAL]
                                      : 0,
        .y = at[Y],
        .n_tokens = s->n_tokens,
    };

    M40_TRY(be->ops.matrix_create(be, m->format, s->n_rows, s->n_cols, m->rows, &w, err));
    M40_TRY(s->has_norm ? issue_normed(be, at[NORM_WEIGHT], s->is_gated, &args, err) : be->ops.matmul(be, &args, err));
    M40_TRY(be->ops.sync(be, err));
fail:
    be->ops.matrix_destroy(be, &w);
    return status;
}

/* Makes the case around x [n_tokens][n_cols] and runs it. */
static void run_matmul(struct parity *p, struct parity_case *c, const struct matmul_case *m, const float *x, const float *bias, const float *residual,
                       const float *norm_weight)
{
    const struct matmul_shape *s = &m->shape;
    size_t y_bytes = (size_t)s->n_tokens * (s->is_gated ? s->n_rows / 2 : s->n_rows) * sizeof(float);

    snprintf(c->name, sizeof c->name, "matmul %s %ux%u, %u tokens%s%s%s", m->format->type->name, s->n_rows, s->n_cols, s->n_tokens,
             s->is_gated   ? ", norm, gated"
             : s->has_norm ? ", norm"
                           : "",
             s->has_bias ? ", bias" : "",
             s->in_place       ? ", residual in place"
             : s->has_residual ? ", residual"
                               : "");
    /* half of the cases as beside a larger matrix: its scratch memory lets blocks share K */
    c->need = (struct m40_workload){.n_tokens = s->n_tokens, .n_cols = s->n_cols, .n_rows = s->n_rows + (s->has_residual ? 0 : LARGER_ROWS)};
    c->issue = issue_matmul;
    c->is_matmul = true;
    c->args = m;
    parity_in(c, x, (size_t)s->n_tokens * s->n_cols * sizeof *x);
    parity_out(c, y_bytes);
    parity_in(c, bias, s->n_rows * sizeof *bias);
    parity_in(c, residual, y_bytes);
    if (s->has_norm)
        parity_in(c, norm_weight, s->n_cols * sizeof *norm_weight);
    if (s->in_place) {
        c->buffers[Y].data = residual;
        c->buffers[Y].use = PARITY_IN_OUT;
    }
    parity_run(p, c);
}

static void check_matmul(struct parity *p, const struct m40_format *format, struct matmul_shape s, enum parity_input input)
{
    struct parity_case c = {0};
    size_t n_y = (size_t)s.n_tokens * s.n_rows;
    void *rows = random_weights(&p->random, format, (uint64_t)s.n_rows * s.n_cols);
    struct matmul_case m = {.shape = s, .format = format, .rows = rows};
    const float *x = parity_floats(p, &c, (size_t)s.n_tokens * s.n_cols, input);
    const float *bias = parity_floats(p, &c, s.n_rows, PARITY_RANDOM), *residual = parity_floats(p, &c, n_y, PARITY_RANDOM);
    double *expected = parity_alloc(&c, n_y * sizeof *expected), *bound = parity_alloc(&c, n_y * sizeof *bound);

    run_matmul(p, &c, &m, x, bias, residual, NULL);
    if (p->targets[0].is_wanted || p->targets[p->n_targets - 1].has_cublas) {
        ref64_matmul(format, rows, s.n_rows, s.n_cols, x, s.has_bias ? bias : NULL, s.has_residual || s.in_place ? residual : NULL, s.n_tokens,
                     expected, bound);
        parity_check_doubles(p, &c, Y, expected, bound);
    }
    free(rows);
    parity_case_free(&c);
}

static const uint32_t row_counts[] = {1, 31, 33, 64, 97, 257};
static const uint32_t token_counts[] = {1, 2, 3, 5, 8, 9, 16, 33, 64, 100};

/* Column counts around the ends of chunks and groups that the format's block divides; 0 ends the list. */
static const uint32_t *column_counts(const struct m40_format *format)
{
    static const uint32_t any[] = {1, 37, 255, 256, 257, 2048, 2049, 4352, 0};
    static const uint32_t of_32[] = {32, 96, 256, 288, 2048, 2080, 4352, 0};
    static const uint32_t of_256[] = {256, 512, 2048, 2304, 4352, 0};

    return format->type->block_elems == 1 ? any : format->type->block_elems == 32 ? of_32 : of_256;
}

/* A large case; every pair of rows and columns, with token counts and options in turn; two more large cases. */
void parity_matmul(struct parity *p, uint32_t dtype)
{
    enum { MOST_MADS = 700000, N_TOKEN_COUNTS = sizeof token_counts / sizeof *token_counts };
    const struct m40_format *format = m40_format(dtype);
    const uint32_t *cols = column_counts(format);
    unsigned number = 0;

    /* eleven chunks by one block: a later case's scratch memory would let blocks share them */
    check_matmul(p, format, (struct matmul_shape){.n_rows = 97, .n_cols = 2816, .n_tokens = p->is_thin ? 40 : 100, .has_residual = true},
                 PARITY_RANDOM);
    for (unsigned r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
        for (unsigned k = 0; cols[k]; k++, number++) {
            unsigned n = (r * 7 + k * 3 + 1) % N_TOKEN_COUNTS;
            struct matmul_shape s = {
                .n_rows = row_counts[r],
                .n_cols = cols[k],
                .has_bias = number % 3 == 1,
                .has_residual = number % 4 >= 2,
                .in_place = number % 4 == 3,
            };

            while (n > 0 && (uint64_t)s.n_rows * s.n_cols * token_counts[n] > MOST_MADS)
                n = n > 3 ? n - 3 : 0;
            s.n_tokens = token_counts[n];
            if (!p->is_thin || number % 5 == 0)
                check_matmul(p, format, s, parity_input(number));
        }
    }
    /* more row tiles than blocks that are resident at once on a card of 24 multiprocessors, by one group of K and by two kinds of several */
    if (!p->is_thin) {
        check_matmul(p, format, (struct matmul_shape){.n_rows = 3200, .n_cols = 256, .n_tokens = 1}, PARITY_RANDOM);
        check_matmul(p, format, (struct matmul_shape){.n_rows = 1632, .n_cols = 2304, .n_tokens = 1}, PARITY_RANDOM);
        check_matmul(p, format, (struct matmul_shape){.n_rows = 1633, .n_cols = 2304, .n_tokens = 3}, PARITY_RANDOM);
    }
    check_matmul(p, format, (struct matmul_shape){.n_rows = 97, .n_cols = 2304, .n_tokens = p->is_thin ? 9 : 100}, PARITY_RANDOM);
    check_matmul(p, format, (struct matmul_shape){.n_rows = p->is_thin ? 64 : 257, .n_cols = 4352, .n_tokens = 7, .in_place = true}, PARITY_RANDOM);
}

/* The norm of x within the matmul, and the product of gate and up, against one after the other. */
void parity_norm_matmul(struct parity *p, uint32_t dtype)
{
    const struct m40_format *format = m40_format(dtype);
    const uint32_t *cols = column_counts(format), tokens[] = {1, 1, 3};
    unsigned n_cols = 0;

    while (cols[n_cols])
        n_cols++;
    for (unsigned k = 0; k < 3 * n_cols; k++) {
        const bool is_gated = k >= n_cols;
        const struct matmul_shape s = {
            .n_rows = is_gated ? (k % 4 ? 64 * (k % 4) : 6)
                      : k % 2  ? 97
                               : 33,
            .n_cols = cols[k % n_cols],
            .n_tokens = tokens[k % 3],
            .has_bias = !is_gated && k % 2,
            .has_norm = true,
            .is_gated = is_gated,
        };
        struct parity_case c = {0};
        void *rows = random_weights(&p->random, format, (uint64_t)s.n_rows * s.n_cols);
        struct matmul_case m = {.shape = s, .format = format, .rows = rows};
        const float *x = parity_floats(p, &c, (size_t)s.n_tokens * s.n_cols, parity_input(k));
        const float *bias = parity_floats(p, &c, s.n_rows, PARITY_RANDOM), *weight = parity_floats(p, &c, s.n_cols, PARITY_RANDOM);
        const float *residual = parity_floats(p, &c, (size_t)s.n_tokens * s.n_rows, PARITY_RANDOM);

        run_matmul(p, &c, &m, x, bias, residual, weight);
        free(rows);
        parity_case_free(&c);
    }
}

/* A token's row has the same bits whether it comes alone or with others. */
void parity_matmul_alone(struct parity *p, uint32_t dtype)
{
    const struct m40_format *format = m40_format(dtype);

    for (unsigned n = 1; n < sizeof token_counts / sizeof *token_counts; n += p->is_thin ? 4 : 1) {
        struct matmul_shape s = {.n_rows = 33, .n_cols = 768, .n_tokens = token_counts[n]};
        struct parity_case batch = {0};
        void *rows = random_weights(&p->random, format, (uint64_t)s.n_rows * s.n_cols);
        struct matmul_case m = {.shape = s, .format = format, .rows = rows};
        const float *x = parity_floats(p, &batch, (size_t)s.n_tokens * s.n_cols, parity_input(n));
        const float *none = parity_floats(p, &batch, (size_t)s.n_tokens * s.n_rows, PARITY_RANDOM);
        uint32_t chosen[3] = {0, parity_below(p, s.n_tokens), s.n_tokens - 1};

        run_matmul(p, &batch, &m, x, none, none, NULL);
        for (unsigned i = 0; i < 3; i++) {
            struct parity_case alone = {0};
            struct matmul_case one = m;

            one.shape.n_tokens = 1;
            run_matmul(p, &alone, &one, x + (size_t)chosen[i] * s.n_cols, none, none, NULL);
            parity_check_same(p, &batch, Y, (size_t)chosen[i] * s.n_rows * sizeof(float), &alone, Y);
            parity_case_free(&alone);
        }
        free(rows);
        parity_case_free(&batch);
    }
}

/* x about the bounds that formats with scales set it (docs/numerics.md): 2^-57 and below, 2^42 and beyond; in every third token what is not finite. */
static void put_edges(struct parity *p, const struct matmul_shape *s, float *x)
{
    for (uint32_t t = 0; t < s->n_tokens; t++) {
        for (uint32_t c = 0; c < s->n_cols; c++) {
            const float mantissa = 1.0f + (float)parity_below(p, 1 << 23) * 0x1p-23f;
            const int low = -60 + (int)parity_below(p, 8), high = 36 + (int)parity_below(p, t % 3 == 2 ? 9 : 6);
            const float value = ldexpf(mantissa, t % 3 == 0 || parity_below(p, 2) ? low : high);

            x[(size_t)t * s->n_cols + c] = parity_below(p, 2) ? value : -value;
        }
        if (t % 3 == 2)
            x[(size_t)t * s->n_cols + parity_below(p, s->n_cols)] = t % 2 ? NAN : INFINITY;
        x[(size_t)t * s->n_cols + parity_below(p, s->n_cols)] = 0x1p-57f;
        x[(size_t)t * s->n_cols + parity_below(p, s->n_cols)] = 0x1.fffffep-58f;
        x[(size_t)t * s->n_cols + parity_below(p, s->n_cols)] = 1e-40f;
    }
}

/* Every kernel takes such an x for the same numbers. */
void parity_matmul_edges(struct parity *p, uint32_t dtype)
{
    static const uint32_t n_tokens[] = {1, 2, 4, 7, 16, 40, 70};
    const struct m40_format *format = m40_format(dtype);

    for (unsigned n = 0; n < sizeof n_tokens / sizeof *n_tokens; n += p->is_thin ? 3 : 1) {
        struct matmul_shape s = {.n_rows = 65, .n_cols = 512, .n_tokens = n_tokens[n]};
        struct parity_case c = {0};
        void *rows = random_weights(&p->random, format, (uint64_t)s.n_rows * s.n_cols);
        struct matmul_case m = {.shape = s, .format = format, .rows = rows};
        float *x = parity_alloc(&c, (size_t)s.n_tokens * s.n_cols * sizeof *x);
        const float *none = parity_floats(p, &c, (size_t)s.n_tokens * s.n_rows, PARITY_RANDOM);

        put_edges(p, &s, x);
        run_matmul(p, &c, &m, x, none, none, NULL);
        free(rows);
        parity_case_free(&c);
    }
}

/* ---- embed ---- */

struct embed_case {
    const struct m40_format *format;
    const void *rows;
    uint32_t n_vocab, n_cols, n_tokens;
    float scale;
};

static m40llm_status issue_embed(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct embed_case *e = data;
    m40llm_status status = M40LLM_OK;
    struct m40_matrix table = {0};
    struct m40_embed_args args = {.table = &table, .ids = at[0], .y = at[1], .n_tokens = e->n_tokens, .scale = e->scale};

    M40_TRY(be->ops.matrix_create(be, e->format, e->n_vocab, e->n_cols, e->rows, &table, err));
    M40_TRY(be->ops.embed(be, &args, err));
    M40_TRY(be->ops.sync(be, err));
fail:
    be->ops.matrix_destroy(be, &table);
    return status;
}

/* Rows in any order, some twice, the first and the last among them; exactly the format's values. */
static void check_embed(struct parity *p, struct embed_case *e)
{
    struct parity_case c = {.need = {.n_tokens = e->n_tokens, .n_cols = e->n_cols, .n_rows = e->n_vocab}, .issue = issue_embed, .args = e};
    const size_t n_blocks = e->n_cols / e->format->type->block_elems, row_bytes = n_blocks * e->format->type->block_bytes;
    void *rows = random_weights(&p->random, e->format, (uint64_t)e->n_vocab * e->n_cols);
    int32_t *ids = parity_alloc(&c, e->n_tokens * sizeof *ids);
    float *expected = parity_alloc(&c, e->n_cols * sizeof *expected);

    snprintf(c.name, sizeof c.name, "embed %s %ux%u, %u tokens", e->format->type->name, e->n_vocab, e->n_cols, e->n_tokens);
    for (uint32_t t = 0; t < e->n_tokens; t++)
        ids[t] = t == 0 ? (int32_t)e->n_vocab - 1 : t == 1 ? 0 : (int32_t)parity_below(p, e->n_vocab);
    e->rows = rows;
    parity_in(&c, ids, e->n_tokens * sizeof *ids);
    parity_out(&c, (size_t)e->n_tokens * e->n_cols * sizeof(float));
    parity_run(p, &c);
    for (uint32_t t = 0; c.buffers[1].result[0] && t < e->n_tokens; t++) {
        e->format->dequant((const uint8_t *)rows + (size_t)ids[t] * row_bytes, n_blocks, expected);
        for (uint32_t c0 = 0; c0 < e->n_cols; c0++)
            expected[c0] = expected[c0] * e->scale;
        parity_check(p, 0, memcmp((const float *)c.buffers[1].result[0] + (size_t)t * e->n_cols, expected, e->n_cols * sizeof *expected) == 0,
                     "%s: token %u is not row %d", c.name, t, ids[t]);
    }
    free(rows);
    parity_case_free(&c);
}

void parity_embed(struct parity *p, uint32_t dtype)
{
    static const uint32_t vocabularies[] = {1, 31, 33, 97}, tokens[] = {1, 3, 33, 70};
    const struct m40_format *format = m40_format(dtype);
    const uint32_t *cols = column_counts(format);

    for (unsigned k = 0; cols[k]; k++) {
        struct embed_case e = {
            .format = format, .n_vocab = vocabularies[k % 4], .n_cols = cols[k], .n_tokens = tokens[(k + k / 4) % 4], .scale = k % 2 ? 1.7f : 1.0f};

        if (!p->is_thin || k % 3 == 0)
            check_embed(p, &e);
    }
}
