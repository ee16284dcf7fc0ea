/* Running a case on a target: its buffers between guard bands, and the verdicts. */
#include "parity/parity.h"
#include "parity/tolerances.h"

#include "base/half.h"

#include <math.h>

/* Guards hold NaNs in every type that is read (FP32, FP16, and -1 as an integer), so that reading one shows in the result. */
enum { GUARD_BYTES = 256, GUARD = 0xff, POISON = 0x99 };
enum { MAX_REPORTS = 8 }; /* lines a test and target */

void *parity_alloc(struct parity_case *c, size_t n_bytes)
{
    void *block = malloc(n_bytes ? n_bytes : 1);

    if (!block || c->n_blocks == PARITY_MAX_BLOCKS) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    c->blocks[c->n_blocks++] = block;
    return block;
}

unsigned parity_in(struct parity_case *c, const void *data, size_t n_bytes)
{
    c->buffers[c->n_buffers] = (struct parity_buffer){.data = data, .n_bytes = n_bytes, .use = PARITY_IN};
    return c->n_buffers++;
}

unsigned parity_out(struct parity_case *c, size_t n_bytes)
{
    c->buffers[c->n_buffers] = (struct parity_buffer){.n_bytes = n_bytes, .use = PARITY_OUT};
    return c->n_buffers++;
}

void parity_case_free(struct parity_case *c)
{
    for (unsigned i = 0; i < c->n_buffers; i++)
        for (unsigned t = 0; t < PARITY_MAX_TARGETS; t++)
            free(c->buffers[i].result[t]);
    for (unsigned i = 0; i < c->n_blocks; i++)
        free(c->blocks[i]);
    memset(c, 0, sizeof *c);
}

void parity_check(struct parity *p, unsigned target, bool holds, const char *what, ...)
{
    struct parity_target *t = &p->targets[target];
    va_list args;

    t->n_checks++;
    if (holds)
        return;
    if (t->n_failed++ < MAX_REPORTS || p->is_verbose) {
        printf("# %s: ", t->name);
        va_start(args, what);
        vprintf(what, args);
        va_end(args);
        printf("\n");
    }
}

/* ---- running ---- */

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static m40llm_status reserve(struct parity_target *t, const struct m40_workload *need, m40llm_error *err)
{
    struct m40_workload w = {
        .n_tokens = larger(t->reserved.n_tokens, need->n_tokens),
        .n_cols = larger(t->reserved.n_cols, need->n_cols),
        .n_rows = larger(t->reserved.n_rows, need->n_rows),
        .n_heads = larger(t->reserved.n_heads, need->n_heads),
        .head_dim = larger(t->reserved.head_dim, need->head_dim),
        .n_ctx = larger(t->reserved.n_ctx, need->n_ctx),
        .n_used = larger(t->reserved.n_used, need->n_used),
        .n_expert_cols = larger(t->reserved.n_expert_cols, need->n_expert_cols),
    };

    if (memcmp(&w, &t->reserved, sizeof w) == 0)
        return M40LLM_OK;
    t->reserved = w;
    return t->backend->ops.reserve(t->backend, &w, err);
}

/* Puts the buffer between its guards into the target's memory. */
static m40llm_status place(struct m40_backend *be, const struct parity_buffer *b, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t total = b->n_bytes + 2 * GUARD_BYTES;
    uint8_t *image = malloc(total);

    M40_FAIL_IF(!image, M40LLM_NO_MEMORY, "image of a buffer");
    memset(image, GUARD, total);
    if (b->use == PARITY_OUT)
        memset(image + GUARD_BYTES, POISON, b->n_bytes);
    else
        memcpy(image + GUARD_BYTES, b->data, b->n_bytes);
    M40_TRY(be->ops.alloc(be, total, out, err));
    M40_TRY(be->ops.write(be, *out, image, total, err));
fail:
    free(image);
    return status;
}

static bool is_all(const uint8_t *bytes, size_t n, int value)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/* Reads the buffer back: the guards must be whole, an input unchanged, an output written everywhere. */
static m40llm_status take_back(struct parity *p, struct parity_case *c, unsigned target, unsigned index, m40_addr at, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = p->targets[target].backend;
    struct parity_buffer *b = &c->buffers[index];
    size_t total = b->n_bytes + 2 * GUARD_BYTES;
    uint8_t *image = malloc(total);

    M40_FAIL_IF(!image, M40LLM_NO_MEMORY, "image of a buffer");
    M40_TRY(be->ops.read(be, image, at, total, err));
    parity_check(p, target, is_all(image, GUARD_BYTES, GUARD), "%s: written before buffer %u", c->name, index);
    parity_check(p, target, is_all(image + GUARD_BYTES + b->n_bytes, GUARD_BYTES, GUARD), "%s: written behind buffer %u", c->name, index);
    memmove(image, image + GUARD_BYTES, b->n_bytes);
    if (b->use == PARITY_IN) {
        parity_check(p, target, memcmp(image, b->data, b->n_bytes) == 0, "%s: input %u was changed", c->name, index);
    } else {
        for (size_t i = 0; b->use == PARITY_OUT && i + 4 <= b->n_bytes; i += 4)
            if (is_all(image + i, 4, POISON)) {
                parity_check(p, target, false, "%s: element %zu of buffer %u was not written", c->name, i / 4, index);
                break;
            }
        b->result[target] = image;
        image = NULL;
    }
fail:
    free(image);
    return status;
}

static void run_on(struct parity *p, struct parity_case *c, unsigned target)
{
    struct parity_target *t = &p->targets[target];
    struct m40_backend *be = t->backend;
    m40llm_status status = M40LLM_OK;
    m40llm_error err = {0};
    m40_addr block[PARITY_MAX_BUFFERS] = {0}, at[PARITY_MAX_BUFFERS];

    M40_TRY(reserve(t, &c->need, &err));
    for (unsigned i = 0; i < c->n_buffers; i++) {
        M40_TRY(place(be, &c->buffers[i], &block[i], &err));
        at[i] = block[i] + GUARD_BYTES;
    }
    M40_TRY(c->issue(be, at, c->args, &err));
    for (unsigned i = 0; i < c->n_buffers; i++)
        M40_TRY(take_back(p, c, target, i, block[i], &err));
fail:
    for (unsigned i = 0; i < c->n_buffers; i++)
        be->ops.free(be, block[i]);
    parity_check(p, target, status == M40LLM_OK, "%s: %s: %s", c->name, m40llm_status_text(status), err.text);
}

/* ---- comparing ---- */

/* Not bit-equal. */
static bool is_near(const struct parity_target *t, const struct parity_case *c)
{
    return t->has_cublas && c->is_matmul;
}

static double element_value(const struct parity_buffer *b, const void *data, size_t i)
{
    return b->element == PARITY_F16 ? m40_f16_to_f32(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}

static void compare_bits(struct parity *p, const struct parity_case *c, unsigned target, unsigned index)
{
    const struct parity_buffer *b = &c->buffers[index];
    const uint8_t *got = b->result[target], *expected = b->result[0];
    size_t size = b->element == PARITY_F16 ? 2 : 4, n = b->n_bytes / size, n_wrong = 0, first_wrong = 0;

    if (!got || !expected) /* reported where it was run */
        return;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(got + i * size, expected + i * size, size) == 0 || (isnan(element_value(b, got, i)) && isnan(element_value(b, expected, i))))
            continue;
        if (n_wrong++ == 0)
            first_wrong = i;
    }
    parity_check(p, target, n_wrong == 0, "%s: %zu of %zu elements of buffer %u differ, first %zu: %a, expected %a", c->name, n_wrong, n, index,
                 first_wrong, element_value(b, got, first_wrong), element_value(b, expected, first_wrong));
}

void parity_run(struct parity *p, struct parity_case *c)
{
    for (unsigned t = 0; t < p->n_targets; t++)
        if (p->targets[t].backend)
            run_on(p, c, t);
    for (unsigned t = 1; t < p->n_targets; t++)
        for (unsigned i = 0; i < c->n_buffers && !is_near(&p->targets[t], c); i++)
            compare_bits(p, c, t, i);
    if (p->is_verbose)
        printf("# %s\n", c->name);
}

static bool is_within(double got, double expected, double bound)
{
    if (isnan(expected) || isinf(expected))
        return isnan(expected) ? isnan(got) : got == expected;
    return fabs(got - expected) <= bound;
}

/* Bounds are multiplied by factor, and least is added. */
static void check_target(struct parity *p, const struct parity_case *c, unsigned target, unsigned index, const double *expected, const double *bound,
                         double factor, double least)
{
    const struct parity_buffer *b = &c->buffers[index];
    size_t n = b->n_bytes / (b->element == PARITY_F16 ? 2 : 4), n_wrong = 0, first_wrong = 0;

    if (!b->result[target])
        return;
    for (size_t i = 0; i < n; i++) {
        if (is_within(element_value(b, b->result[target], i), expected[i], bound[i] * factor + least))
            continue;
        if (n_wrong++ == 0)
            first_wrong = i;
    }
    parity_check(p, target, n_wrong == 0, "%s: %zu of %zu elements are off, first %zu: %.9g, expected %.12g within %.3g", c->name, n_wrong, n,
                 first_wrong, element_value(b, b->result[target], first_wrong), expected[first_wrong], bound[first_wrong] * factor + least);
}

void parity_check_doubles(struct parity *p, const struct parity_case *c, unsigned index, const double *expected, const double *bound)
{
    const double n_cols = c->need.n_cols;

    check_target(p, c, 0, index, expected, bound, 1, 0);
    for (unsigned t = 1; t < p->n_targets; t++)
        if (is_near(&p->targets[t], c))
            check_target(p, c, t, index, expected, bound, TOLERANCE_CUBLAS(n_cols) / TOLERANCE_MATMUL, TOLERANCE_CUBLAS_ABS(n_cols));
}

void parity_check_same(struct parity *p, const struct parity_case *a, unsigned a_buffer, size_t offset_bytes, const struct parity_case *b,
                       unsigned b_buffer)
{
    for (unsigned t = 0; t < p->n_targets; t++) {
        const uint8_t *batch = a->buffers[a_buffer].result[t], *alone = b->buffers[b_buffer].result[t];

        if (batch && alone && !is_near(&p->targets[t], a))
            parity_check(p, t, memcmp(batch + offset_bytes, alone, b->buffers[b_buffer].n_bytes) == 0, "%s: differs from the same row in %s", b->name,
                         a->name);
    }
}

/* ---- inputs ---- */

enum parity_input parity_input(unsigned case_number)
{
    return case_number % 2 == 0 ? PARITY_RANDOM : (enum parity_input)(1 + case_number / 2 % (PARITY_N_INPUTS - 1));
}

static float random_power(struct parity *p, int least, int greatest)
{
    float sign = test_random(&p->random) & 1 ? -1.0f : 1.0f;

    return sign * ldexpf(1.0f, least + (int)parity_below(p, (uint32_t)(greatest - least + 1)));
}

float *parity_floats(struct parity *p, struct parity_case *c, size_t n, enum parity_input input)
{
    float *x = parity_alloc(c, n * sizeof *x);

    for (size_t i = 0; i < n; i++) {
        x[i] = test_random_float(&p->random);
        if (input == PARITY_CANCELLING)
            x[i] = i % 2 ? -x[i - 1] + 0x1p-12f * x[i] : 1000.0f * x[i];
        else if (input == PARITY_SUBNORMAL)
            x[i] *= parity_below(p, 2) ? 0x1p-126f : 0x1p-120f;
        else if (input == PARITY_POWERS)
            x[i] = parity_below(p, 4) == 0 ? copysignf(0.0f, x[i]) : random_power(p, -30, 20);
    }
    return x;
}
