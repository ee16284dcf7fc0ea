/* rms_norm, rope, silu_mul, gather_rows, and what happens beyond the reserved workload. */
#include "parity/parity.h"

#include "parity/random_weights.h"
#include "parity/ref64.h"

#include "base/mem.h"

#include <math.h>

/* ---- rms_norm ---- */

struct rms_norm_case {
    uint32_t n_rows, n_cols;
    bool in_place;
    float eps;
};

static m40llm_status issue_rms_norm(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct rms_norm_case *n = data;
    struct m40_rms_norm_args args = {
        .x = n->in_place ? at[1] : at[0], .y = at[1], .weight = at[2], .n_rows = n->n_rows, .n_cols = n->n_cols, .eps = n->eps};

    return be->ops.rms_norm(be, &args, err);
}

static void check_rms_norm(struct parity *p, struct rms_norm_case n, enum parity_input input)
{
    struct parity_case c = {.need = {.n_tokens = n.n_rows, .n_cols = n.n_cols}, .issue = issue_rms_norm, .args = &n};
    size_t n_elems = (size_t)n.n_rows * n.n_cols, n_bytes = n_elems * sizeof(float);
    const float *x = parity_floats(p, &c, n_elems, input), *weight = parity_floats(p, &c, n.n_cols, PARITY_RANDOM);
    double *expected = parity_alloc(&c, n_elems * sizeof *expected), *bound = parity_alloc(&c, n_elems * sizeof *bound);

    snprintf(c.name, sizeof c.name, "rms_norm %u rows of %u%s, input %d", n.n_rows, n.n_cols, n.in_place ? ", in place" : "", (int)input);
    parity_in(&c, x, n_bytes);
    parity_out(&c, n_bytes);
    parity_in(&c, weight, n.n_cols * sizeof *weight);
    if (n.in_place) {
        c.buffers[1].data = x;
        c.buffers[1].use = PARITY_IN_OUT;
    }
    parity_run(p, &c);
    ref64_rms_norm(x, weight, n.n_rows, n.n_cols, n.eps, expected, bound);
    parity_check_doubles(p, &c, 1, expected, bound);
    parity_case_free(&c);
}

void parity_rms_norm(struct parity *p, uint32_t unused)
{
    static const uint32_t cols[] = {1, 7, 64, 255, 256, 257, 4096, 5000}, rows[] = {1, 3, 33};
    unsigned number = 0;

    (void)unused;
    for (unsigned k = 0; k < sizeof cols / sizeof *cols; k++)
        for (unsigned r = 0; r < 3; r++, number++)
            if (!p->is_thin || number % 4 == 0)
                check_rms_norm(
                    p, (struct rms_norm_case){.n_rows = rows[r], .n_cols = cols[k], .in_place = number % 2, .eps = number % 3 ? 1e-5f : 1e-6f},
                    parity_input(number));
}

/* ---- rope ---- */

enum { ROPE_POSITIONS = 50 };

struct rope_case {
    uint32_t n_tokens, n_heads, head_dim, n_rot;
    enum m40_rope_style style;
};

static m40llm_status issue_rope(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct rope_case *r = data;
    struct m40_rope_args args = {.x = at[0],
                                 .pos = at[1],
                                 .table = at[2],
                                 .n_tokens = r->n_tokens,
                                 .n_heads = r->n_heads,
                                 .head_dim = r->head_dim,
                                 .n_rot = r->n_rot,
                                 .style = r->style};

    return be->ops.rope(be, &args, err);
}

static void check_rope(struct parity *p, struct rope_case r, enum parity_input input)
{
    struct parity_case c = {
        .need = {.n_tokens = r.n_tokens, .n_heads = r.n_heads, .head_dim = r.head_dim, .n_ctx = ROPE_POSITIONS}, .issue = issue_rope, .args = &r};
    size_t row_elems = (size_t)r.n_heads * r.head_dim, n_elems = r.n_tokens * row_elems;
    const float *x = parity_floats(p, &c, n_elems, input);
    float *table = parity_alloc(&c, ROPE_POSITIONS * r.n_rot * sizeof *table);
    int32_t *pos = parity_alloc(&c, r.n_tokens * sizeof *pos);
    double *expected = parity_alloc(&c, n_elems * sizeof *expected), *bound = parity_alloc(&c, n_elems * sizeof *bound);

    snprintf(c.name, sizeof c.name, "rope %s %u tokens, %u heads of %u, %u rotated, input %d", r.style == M40_ROPE_NORM ? "norm" : "neox", r.n_tokens,
             r.n_heads, r.head_dim, r.n_rot, (int)input);
    for (uint32_t i = 0; i < ROPE_POSITIONS * r.n_rot / 2; i++) {
        table[2 * i] = (float)cos(i * 0.7);
        table[2 * i + 1] = (float)sin(i * 0.7);
    }
    for (uint32_t t = 0; t < r.n_tokens; t++)
        pos[t] = (int32_t)parity_below(p, ROPE_POSITIONS);
    parity_in(&c, x, n_elems * sizeof *x);
    c.buffers[0].use = PARITY_IN_OUT;
    parity_in(&c, pos, r.n_tokens * sizeof *pos);
    parity_in(&c, table, ROPE_POSITIONS * r.n_rot * sizeof *table);
    parity_run(p, &c);
    for (uint32_t t = 0; t < r.n_tokens; t++)
        ref64_rope(x + t * row_elems, table + (size_t)pos[t] * r.n_rot, r.n_heads, r.head_dim, r.n_rot, r.style, expected + t * row_elems,
                   bound + t * row_elems);
    parity_check_doubles(p, &c, 0, expected, bound);
    parity_case_free(&c);
}

void parity_rope(struct parity *p, uint32_t style)
{
    static const uint32_t head_dims[] = {32, 64, 80, 96, 128, 256}, rots[] = {32, 64, 20, 94, 64, 256}, heads[] = {1, 3, 7, 8, 32, 2},
                          tokens[] = {1, 2, 9, 33};

    for (unsigned i = 0; i < 24; i += p->is_thin ? 5 : 1)
        check_rope(p,
                   (struct rope_case){.n_tokens = tokens[i % 4],
                                      .n_heads = heads[i % 6],
                                      .head_dim = head_dims[i % 6],
                                      .n_rot = i % 12 < 6 ? head_dims[i % 6] : rots[i % 6],
                                      .style = (enum m40_rope_style)style},
                   parity_input(i));
}

/* ---- silu_mul ---- */

struct silu_case {
    uint64_t n;
    unsigned in_place; /* 0: no; 1: y is the gate; 2: y is up */
};

static m40llm_status issue_silu(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct silu_case *s = data;
    struct m40_silu_mul_args args = {.gate = s->in_place == 1 ? at[2] : at[0], .up = s->in_place == 2 ? at[2] : at[1], .y = at[2], .n = s->n};

    return be->ops.silu_mul(be, &args, err);
}

static void check_silu(struct parity *p, struct silu_case s, enum parity_input input)
{
    static const float extremes[] = {0.0f,  -0.0f,  88.0f, -88.0f, 88.72f, -88.72f, -88.73f,  -104.0f,  -104.1f,
                                     1e30f, -1e30f, 1.0f,  -1.0f,  1e-40f, -1e-40f, INFINITY, -INFINITY};
    struct parity_case c = {.issue = issue_silu, .args = &s};
    float *gate = parity_floats(p, &c, s.n, input), *up = parity_floats(p, &c, s.n, input);
    double *expected = parity_alloc(&c, s.n * sizeof *expected), *bound = parity_alloc(&c, s.n * sizeof *bound);

    snprintf(c.name, sizeof c.name, "silu_mul of %llu, input %d, y is %s", (unsigned long long)s.n, (int)input,
             s.in_place == 0   ? "apart"
             : s.in_place == 1 ? "the gate"
                               : "up");
    for (uint64_t i = 0; i < s.n; i++)
        if (i % 3 == 1)
            gate[i] = extremes[i / 3 % (sizeof extremes / sizeof *extremes)];
        else if (input == PARITY_RANDOM)
            gate[i] *= 100;
    parity_in(&c, gate, s.n * sizeof *gate);
    parity_in(&c, up, s.n * sizeof *up);
    parity_out(&c, s.n * sizeof *up);
    if (s.in_place) {
        c.buffers[2].data = s.in_place == 1 ? gate : up;
        c.buffers[2].use = PARITY_IN_OUT;
    }
    parity_run(p, &c);
    ref64_silu_mul(gate, up, s.n, expected, bound);
    parity_check_doubles(p, &c, 2, expected, bound);
    parity_case_free(&c);
}

void parity_silu_mul(struct parity *p, uint32_t unused)
{
    static const uint64_t counts[] = {1, 31, 255, 256, 257, 4096, 14336, 70001};

    (void)unused;
    for (unsigned i = 0; i < 16; i += p->is_thin ? 3 : 1)
        check_silu(p, (struct silu_case){.n = counts[i / 2], .in_place = i % 3}, parity_input(i));
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
    struct m40_attention_args args = {.kv = &layer, .rows = &rows, .q = memory, .y = memory + 32768, .n_heads = n_heads, .scale = 1};
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
