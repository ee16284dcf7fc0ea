/* Mixtures of experts: route, expert_matmul over every weight type, combine. */
#include "parity/parity.h"

#include "parity/random_weights.h"
#include "parity/ref64.h"
#include "parity/tolerances.h"

#include <math.h>

/* ---- route ---- */

struct route_case {
    uint32_t n_tokens, n_experts, n_used;
    enum m40_gating gating;
    bool is_normalised, has_bias;
};

enum { ROUTE_LOGITS, ROUTE_BIAS, ROUTE_IDS, ROUTE_WEIGHTS };

static const float route_scale = 2.5f;

/* route with a plan of its own, which *out_plan gets for what follows, or which is freed where that is NULL. */
static m40llm_status route_with_plan(struct m40_backend *be, struct m40_route_args args, m40_addr *out_plan, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(be->ops.alloc(be, m40_expert_plan_bytes(args.n_tokens * args.n_used, args.n_experts), &args.plan, err));
    M40_TRY(be->ops.route(be, &args, err));
fail:
    if (out_plan)
        *out_plan = args.plan;
    else
        be->ops.free(be, args.plan);
    return status;
}

static m40llm_status issue_route(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct route_case *r = data;
    const struct m40_route_args args = {
        .logits = at[ROUTE_LOGITS],
        .selection_bias = r->has_bias ? at[ROUTE_BIAS] : 0,
        .ids = at[ROUTE_IDS],
        .weights = at[ROUTE_WEIGHTS],
        .n_tokens = r->n_tokens,
        .n_experts = r->n_experts,
        .n_used = r->n_used,
        .gating = r->gating,
        .is_normalised = r->is_normalised,
        .scale = route_scale,
    };

    return route_with_plan(be, args, NULL, err);
}

/* Rows with ties, among zeros of both signs too, NaNs, infinities, and large ones, in turn. */
static void make_logits(struct parity *p, float *x, uint32_t n, unsigned kind)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kind == 1)
            x[i] = (float)parity_below(p, 3);
        else if (kind == 2 && parity_below(p, 3) == 0)
            x[i] = NAN;
        else if (kind == 3)
            x[i] = i % 2 ? 0.0f : -0.0f;
        else if (kind == 4)
            x[i] = parity_below(p, 2) ? NAN : -INFINITY;
        else if (kind == 5)
            x[i] *= 200;
    }
}

/* Whether expert a goes before b: by score, NaNs last, then by number. */
static bool goes_before(const float *x, const float *bias, uint32_t a, uint32_t b)
{
    const float sa = bias ? x[a] + bias[a] : x[a], sb = bias ? x[b] + bias[b] : x[b];

    if (isnan(sa) || isnan(sb))
        return isnan(sb) && (!isnan(sa) || a < b);
    return sa > sb || (sa == sb && a < b);
}

/* The weight of expert `own` with doubles; false where it is not finite. */
static bool expect_weight(const struct route_case *r, const float *x, const int32_t *ids, uint32_t own, double *out)
{
    double value, total = 1;

    if (r->gating == M40_GATING_SIGMOID) {
        value = 1 / (1 + exp(-(double)x[own]));
        for (uint32_t i = 0; i < r->n_used && r->is_normalised; i++)
            total = (i ? total : 0) + 1 / (1 + exp(-(double)x[ids[i]]));
    } else {
        value = 1;
        total = 0;
        for (uint32_t i = 0; i < (r->is_normalised ? r->n_used : r->n_experts); i++)
            total += exp((double)x[r->is_normalised ? (uint32_t)ids[i] : i] - (double)x[own]);
    }
    *out = value / total * (double)route_scale;
    return isfinite(*out) && total > 1e-30;
}

static void check_choice(struct parity *p, const struct parity_case *c, const struct route_case *r, const float *logits, const float *bias)
{
    const int32_t *ids = c->buffers[ROUTE_IDS].result[0];
    const float *weights = c->buffers[ROUTE_WEIGHTS].result[0];

    for (uint32_t t = 0; ids && weights && t < r->n_tokens; t++) {
        const float *x = logits + (size_t)t * r->n_experts;
        const int32_t *own = ids + (size_t)t * r->n_used;
        bool is_right = true, is_near = true;

        for (uint32_t rank = 0; rank < r->n_used; rank++) {
            double expected;
            uint32_t n_before = 0;

            for (uint32_t e = 0; e < r->n_experts; e++)
                n_before += goes_before(x, bias, e, (uint32_t)own[rank]);
            is_right &= n_before == rank;
            if (expect_weight(r, x, own, (uint32_t)own[rank], &expected))
                is_near &= fabs((double)weights[t * r->n_used + rank] - expected) <= TOLERANCE_ROUTE * expected + TOLERANCE_ROUTE_ABS;
        }
        parity_check(p, 0, is_right, "%s: token %u has not the first in order", c->name, t);
        parity_check(p, 0, is_near, "%s: a weight of token %u is off", c->name, t);
    }
}

static void check_route(struct parity *p, struct route_case r, unsigned number)
{
    struct parity_case c = {.need = {.n_tokens = r.n_tokens, .n_used = r.n_used}, .issue = issue_route, .args = &r};
    const size_t n_logits = (size_t)r.n_tokens * r.n_experts, n_pairs = (size_t)r.n_tokens * r.n_used;
    float *logits = parity_floats(p, &c, n_logits, PARITY_RANDOM), *bias = parity_floats(p, &c, r.n_experts, PARITY_RANDOM);

    snprintf(c.name, sizeof c.name, "route %u of %u experts, %u tokens, %s%s%s", r.n_used, r.n_experts, r.n_tokens,
             r.gating == M40_GATING_SIGMOID ? "sigmoid" : "softmax", r.is_normalised ? ", normalised" : "", r.has_bias ? ", bias" : "");
    for (uint32_t t = 0; t < r.n_tokens; t++)
        make_logits(p, logits + (size_t)t * r.n_experts, r.n_experts, (number + t) % 6);
    parity_in(&c, logits, n_logits * sizeof *logits);
    parity_in(&c, bias, r.n_experts * sizeof *bias);
    parity_out(&c, n_pairs * sizeof(int32_t));
    parity_out(&c, n_pairs * sizeof(float));
    parity_run(p, &c);
    check_choice(p, &c, &r, logits, r.has_bias ? bias : NULL);
    parity_case_free(&c);
}

void parity_route(struct parity *p, uint32_t unused)
{
    static const struct {
        uint32_t n_experts, n_used;
    } shapes[] = {{1, 1}, {3, 2}, {8, 8}, {32, 4}, {33, 5}, {60, 4}, {128, 8}, {512, 32}};
    static const uint32_t tokens[] = {1, 6, 17};

    (void)unused;
    for (unsigned i = 0; i < 48; i += p->is_thin ? 5 : 1)
        check_route(p,
                    (struct route_case){.n_tokens = tokens[i % 3],
                                        .n_experts = shapes[i % 8].n_experts,
                                        .n_used = shapes[i % 8].n_used,
                                        .gating = i / 4 % 2 ? M40_GATING_SIGMOID : M40_GATING_SOFTMAX,
                                        .is_normalised = i / 8 % 2,
                                        .has_bias = i / 16 % 2},
                    i);
}

/* ---- expert_matmul ---- */

struct expert_shape {
    uint32_t n_experts, n_used, n_tokens, n_rows, n_cols; /* n_rows: of y */
    bool has_pair_rows, has_bias, is_gated;
    struct m40_act_params act;
    bool is_one_sided; /* every token's first choice is the last expert */
};

struct expert_case {
    struct expert_shape shape;
    const struct m40_format *format;
    const void *rows, *up_rows; /* [n_experts][n_rows][n_cols] */
};

enum { EXPERT_LOGITS, EXPERT_X, EXPERT_BIAS, EXPERT_UP_BIAS, EXPERT_Y, EXPERT_IDS };

/* gate and up by a matmul each, then their product, as on a backend that leaves matrices where they are. */
static m40llm_status issue_apart(struct m40_backend *be, const struct expert_case *e, struct m40_expert_matmul_args *args, m40llm_error *err)
{
    const struct expert_shape *s = &e->shape;
    const uint64_t n_bytes = (uint64_t)s->n_tokens * s->n_used * s->n_rows * sizeof(float);
    m40llm_status status = M40LLM_OK;
    struct m40_matrix w[2] = {{0}};
    struct m40_glu_args glu = {.y = args->y, .n_rows = s->n_tokens * s->n_used, .n_cols = s->n_rows, .stride = s->n_rows, .act = args->act};
    m40_addr *parts[] = {&glu.gate, &glu.up};

    args->is_gated = false;
    for (unsigned i = 0; i < 2; i++) {
        M40_TRY(be->ops.matrix_create(be, e->format, (uint64_t)s->n_experts * s->n_rows, s->n_cols, i ? e->up_rows : e->rows, &w[i], err));
        M40_TRY(be->ops.alloc(be, n_bytes, parts[i], err));
        args->w = &w[i];
        args->bias = i ? args->up_bias : args->bias;
        args->y = *parts[i];
        M40_TRY(be->ops.expert_matmul(be, args, err));
    }
    M40_TRY(be->ops.glu(be, &glu, err));
    M40_TRY(be->ops.sync(be, err));
fail:
    for (unsigned i = 0; i < 2; i++) {
        be->ops.free(be, *parts[i]);
        be->ops.matrix_destroy(be, &w[i]);
    }
    return status;
}

static m40llm_status issue_together(struct m40_backend *be, const struct expert_case *e, struct m40_expert_matmul_args *args, m40llm_error *err)
{
    const struct expert_shape *s = &e->shape;
    const uint64_t n_rows = (uint64_t)s->n_experts * s->n_rows;
    const struct m40_matrix_part parts[] = {{e->rows, n_rows, false}, {e->up_rows, n_rows, false}};
    m40llm_status status = M40LLM_OK;
    struct m40_matrix w = {0};

    M40_TRY(s->is_gated ? be->ops.matrix_create_interleaved(be, e->format, s->n_cols, parts, &w, err)
                        : be->ops.matrix_create(be, e->format, n_rows, s->n_cols, e->rows, &w, err));
    args->w = &w;
    M40_TRY(be->ops.expert_matmul(be, args, err));
    M40_TRY(be->ops.sync(be, err));
fail:
    be->ops.matrix_destroy(be, &w);
    return status;
}

static m40llm_status issue_experts(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct expert_case *e = data;
    const struct expert_shape *s = &e->shape;
    m40llm_status status = M40LLM_OK;
    struct m40_route_args route = {.logits = at[EXPERT_LOGITS],
                                   .ids = at[EXPERT_IDS],
                                   .n_tokens = s->n_tokens,
                                   .n_experts = s->n_experts,
                                   .n_used = s->n_used,
                                   .is_normalised = true,
                                   .scale = 1};
    struct m40_expert_matmul_args args = {
        .ids = at[EXPERT_IDS],
        .x = at[EXPERT_X],
        .bias = s->has_bias ? at[EXPERT_BIAS] : 0,
        .up_bias = s->has_bias ? at[EXPERT_UP_BIAS] : 0,
        .y = at[EXPERT_Y],
        .n_experts = s->n_experts,
        .n_tokens = s->n_tokens,
        .n_used = s->n_used,
        .has_pair_rows = s->has_pair_rows,
        .is_gated = s->is_gated,
        .act = s->act,
    };

    M40_TRY(be->ops.alloc(be, (uint64_t)s->n_tokens * s->n_used * sizeof(float), &route.weights, err));
    M40_TRY(route_with_plan(be, route, &args.plan, err));
    M40_TRY(s->is_gated && !be->ops.matrix_create_interleaved ? issue_apart(be, e, &args, err) : issue_together(be, e, &args, err));
fail:
    be->ops.free(be, route.weights);
    be->ops.free(be, args.plan);
    return status;
}

/* Makes the case around logits [n_tokens][n_experts] and x, and runs it. */
static void run_experts(struct parity *p, struct parity_case *c, const struct expert_case *e, const float *logits, const float *x, const float *bias)
{
    const struct expert_shape *s = &e->shape;
    const size_t n_pairs = (size_t)s->n_tokens * s->n_used, n_bias = (size_t)s->n_experts * s->n_rows;

    snprintf(c->name, sizeof c->name, "expert_matmul %s %u x %ux%u, %u tokens, %u used%s%s%s%s", e->format->type->name, s->n_experts, s->n_rows,
             s->n_cols, s->n_tokens, s->n_used, s->has_pair_rows ? ", pair rows" : "", s->has_bias ? ", bias" : "", s->is_gated ? ", gated" : "",
             s->is_one_sided ? ", one-sided" : "");
    c->need =
        (struct m40_workload){.n_tokens = s->n_tokens, .n_cols = s->n_cols, .n_rows = 2 * s->n_rows, .n_used = s->n_used, .n_expert_cols = s->n_cols};
    c->issue = issue_experts;
    c->args = e;
    parity_in(c, logits, (size_t)s->n_tokens * s->n_experts * sizeof *logits);
    parity_in(c, x, (s->has_pair_rows ? n_pairs : s->n_tokens) * s->n_cols * sizeof *x);
    parity_in(c, bias, n_bias * sizeof *bias);
    parity_in(c, bias + n_bias, n_bias * sizeof *bias);
    parity_out(c, n_pairs * s->n_rows * sizeof(float));
    parity_out(c, n_pairs * sizeof(int32_t));
    parity_run(p, c);
}

static float *make_expert_logits(struct parity *p, struct parity_case *c, const struct expert_shape *s)
{
    float *logits = parity_floats(p, c, (size_t)s->n_tokens * s->n_experts, PARITY_RANDOM);

    for (uint32_t t = 0; s->is_one_sided && t < s->n_tokens; t++)
        logits[(size_t)(t + 1) * s->n_experts - 1] = 2;
    return logits;
}

/* What each pair is in doubles. */
static void check_pairs(struct parity *p, const struct parity_case *c, const struct expert_case *e, const float *x, const float *bias)
{
    const struct expert_shape *s = &e->shape;
    const size_t row_bytes = s->n_cols / e->format->type->block_elems * e->format->type->block_bytes, n_pairs = (size_t)s->n_tokens * s->n_used;
    const int32_t *ids = c->buffers[EXPERT_IDS].result[0];
    double *expected = calloc(2 * n_pairs * s->n_rows, sizeof *expected), *bound = expected + n_pairs * s->n_rows;

    for (size_t pair = 0; ids && expected && pair < n_pairs; pair++) {
        const size_t first = (size_t)ids[pair] * s->n_rows, at = pair * s->n_rows;

        ref64_matmul(e->format, (const uint8_t *)e->rows + first * row_bytes, s->n_rows, s->n_cols,
                     x + (s->has_pair_rows ? pair : pair / s->n_used) * s->n_cols, s->has_bias ? bias + first : NULL, NULL, 1, expected + at,
                     bound + at);
    }
    if (ids && expected)
        parity_check_doubles(p, c, EXPERT_Y, expected, bound);
    free(expected);
}

static void check_experts(struct parity *p, const struct m40_format *format, struct expert_shape s, enum parity_input input)
{
    struct parity_case c = {0};
    const uint64_t n_weights = (uint64_t)s.n_experts * s.n_rows * s.n_cols;
    void *rows = random_weights(&p->random, format, n_weights), *up_rows = random_weights(&p->random, format, n_weights);
    struct expert_case e = {.shape = s, .format = format, .rows = rows, .up_rows = up_rows};
    const float *x = parity_floats(p, &c, (size_t)s.n_tokens * (s.has_pair_rows ? s.n_used : 1) * s.n_cols, input);
    const float *bias = parity_floats(p, &c, 2 * (size_t)s.n_experts * s.n_rows, PARITY_RANDOM);

    run_experts(p, &c, &e, make_expert_logits(p, &c, &s), x, bias);
    if (p->targets[0].is_wanted && !s.is_gated)
        check_pairs(p, &c, &e, x, bias);
    free(rows);
    free(up_rows);
    parity_case_free(&c);
}

/* Few tokens and many, which a card does in different ways; K of one group and of several; all tokens with one expert. */
void parity_expert_matmul(struct parity *p, uint32_t dtype)
{
    const struct m40_format *format = m40_format(dtype);
    const uint32_t few_cols = format->type->block_elems == 256 ? 256 : 288, cols = format->type->block_elems == 256 ? 768 : 608;
    const struct m40_act_params oai = {.act = M40_ACT_SWIGLU_OAI, .alpha = 1.702f, .limit = 7.0f};
    const struct expert_shape shapes[] = {
        {.n_experts = 5, .n_used = 2, .n_tokens = 1, .n_rows = 96, .n_cols = cols, .has_bias = true},
        {.n_experts = 3, .n_used = 2, .n_tokens = 40, .n_rows = 64, .n_cols = few_cols, .is_gated = true, .is_one_sided = true},
        {.n_experts = 2, .n_used = 2, .n_tokens = 3, .n_rows = 32, .n_cols = 4352, .is_gated = true, .has_bias = true, .act = oai},
        {.n_experts = 3,
         .n_used = 2,
         .n_tokens = 53,
         .n_rows = 160,
         .n_cols = few_cols,
         .has_pair_rows = true,
         .has_bias = true,
         .is_one_sided = true},
        {.n_experts = 2, .n_used = 1, .n_tokens = 90, .n_rows = 32, .n_cols = cols, .is_gated = true, .has_bias = true, .act = oai},
        {.n_experts = 9, .n_used = 3, .n_tokens = 4, .n_rows = 64, .n_cols = 2304, .has_pair_rows = true},
        {.n_experts = 64, .n_used = 6, .n_tokens = 2, .n_rows = 32, .n_cols = few_cols, .is_gated = true},
        {.n_experts = 4, .n_used = 4, .n_tokens = 20, .n_rows = 32, .n_cols = few_cols},
    };

    for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i += p->is_thin ? 3 : 1)
        check_experts(p, format, shapes[i], parity_input(i));
}

/* A token has the same bits alone and with others, by whatever kernels. */
void parity_expert_alone(struct parity *p, uint32_t dtype)
{
    const struct m40_format *format = m40_format(dtype);
    const struct expert_shape s = {
        .n_experts = 3, .n_used = 2, .n_tokens = p->is_thin ? 33 : 70, .n_rows = 64, .n_cols = 512, .is_gated = true, .has_bias = true};
    const uint32_t chosen[] = {0, parity_below(p, s.n_tokens), s.n_tokens - 1};
    const uint64_t n_weights = (uint64_t)s.n_experts * s.n_rows * s.n_cols;
    struct parity_case batch = {0};
    void *rows = random_weights(&p->random, format, n_weights), *up_rows = random_weights(&p->random, format, n_weights);
    struct expert_case e = {.shape = s, .format = format, .rows = rows, .up_rows = up_rows};
    const float *x = parity_floats(p, &batch, (size_t)s.n_tokens * s.n_cols, PARITY_RANDOM), *logits = make_expert_logits(p, &batch, &s);
    const float *bias = parity_floats(p, &batch, 2 * (size_t)s.n_experts * s.n_rows, PARITY_RANDOM);

    run_experts(p, &batch, &e, logits, x, bias);
    for (unsigned i = 0; i < sizeof chosen / sizeof *chosen; i++) {
        struct parity_case alone = {0};
        struct expert_case one = e;

        one.shape.n_tokens = 1;
        run_experts(p, &alone, &one, logits + (size_t)chosen[i] * s.n_experts, x + (size_t)chosen[i] * s.n_cols, bias);
        parity_check_same(p, &batch, EXPERT_Y, (size_t)chosen[i] * s.n_used * s.n_rows * sizeof(float), &alone, EXPERT_Y);
        parity_case_free(&alone);
    }
    free(rows);
    free(up_rows);
    parity_case_free(&batch);
}

/* ---- combine ---- */

struct combine_case {
    uint32_t n_tokens, n_used, n_cols;
    bool has_shared, has_gate, in_place;
};

enum { COMBINE_X, COMBINE_WEIGHTS, COMBINE_SHARED, COMBINE_GATE, COMBINE_RESIDUAL, COMBINE_Y };

static m40llm_status issue_combine(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct combine_case *m = data;
    const struct m40_combine_args args = {
        .x = at[COMBINE_X],
        .weights = at[COMBINE_WEIGHTS],
        .shared = m->has_shared ? at[COMBINE_SHARED] : 0,
        .shared_gate = m->has_gate ? at[COMBINE_GATE] : 0,
        .residual = m->in_place ? at[COMBINE_Y] : at[COMBINE_RESIDUAL],
        .y = at[COMBINE_Y],
        .n_tokens = m->n_tokens,
        .n_used = m->n_used,
        .n_cols = m->n_cols,
    };

    return be->ops.combine(be, &args, err);
}

static void check_combine(struct parity *p, struct combine_case m, enum parity_input input)
{
    struct parity_case c = {.issue = issue_combine, .args = &m};
    const size_t n_y = (size_t)m.n_tokens * m.n_cols, n_x = n_y * m.n_used, n_pairs = (size_t)m.n_tokens * m.n_used;
    const float *x = parity_floats(p, &c, n_x, input), *weights = parity_floats(p, &c, n_pairs, PARITY_RANDOM);
    const float *shared = parity_floats(p, &c, n_y, input), *gate = parity_floats(p, &c, m.n_tokens, PARITY_RANDOM);
    const float *residual = parity_floats(p, &c, n_y, PARITY_RANDOM);
    double *expected = parity_alloc(&c, n_y * sizeof *expected), *bound = parity_alloc(&c, n_y * sizeof *bound);

    snprintf(c.name, sizeof c.name, "combine %u tokens, %u experts, %u columns%s%s%s", m.n_tokens, m.n_used, m.n_cols, m.has_shared ? ", shared" : "",
             m.has_gate ? ", gate" : "", m.in_place ? ", in place" : "");
    parity_in(&c, x, n_x * sizeof *x);
    parity_in(&c, weights, n_pairs * sizeof *weights);
    parity_in(&c, shared, n_y * sizeof *shared);
    parity_in(&c, gate, m.n_tokens * sizeof *gate);
    parity_in(&c, residual, n_y * sizeof *residual);
    parity_out(&c, n_y * sizeof *residual);
    if (m.in_place) {
        c.buffers[COMBINE_Y].data = residual;
        c.buffers[COMBINE_Y].use = PARITY_IN_OUT;
    }
    parity_run(p, &c);
    for (size_t i = 0; i < n_y; i++) {
        const size_t t = i / m.n_cols;
        const double share = m.has_gate ? 1 / (1 + exp(-(double)gate[t])) : 1;
        double sum = residual[i], magnitude = fabs(sum);

        for (uint32_t r = 0; r < m.n_used; r++) {
            const double term = (double)weights[t * m.n_used + r] * (double)x[(t * m.n_used + r) * m.n_cols + i % m.n_cols];

            sum += term;
            magnitude += fabs(term);
        }
        expected[i] = sum + (m.has_shared ? share * (double)shared[i] : 0);
        bound[i] = TOLERANCE_COMBINE(m.n_used) * (magnitude + (m.has_shared ? fabs(share * (double)shared[i]) : 0)) + (m.n_used + 2) * TINY;
    }
    parity_check_doubles(p, &c, COMBINE_Y, expected, bound);
    parity_case_free(&c);
}

void parity_combine(struct parity *p, uint32_t unused)
{
    static const uint32_t tokens[] = {1, 3, 20}, used[] = {1, 2, 8, 9, 32}, cols[] = {32, 37, 300, 2048};

    (void)unused;
    for (unsigned i = 0; i < 24; i += p->is_thin ? 5 : 1)
        check_combine(p,
                      (struct combine_case){.n_tokens = tokens[i % 3],
                                            .n_used = used[i % 5],
                                            .n_cols = cols[i / 3 % 4],
                                            .has_shared = i % 4 >= 2,
                                            .has_gate = i % 4 == 3,
                                            .in_place = i / 4 % 2},
                      parity_input(i));
}
