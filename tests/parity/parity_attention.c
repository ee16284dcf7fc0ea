/* rope_append and attention: ragged batches of sequences whose pages are shuffled over the pool. */
#include "parity/parity.h"

#include "parity/ref64.h"
#include "parity/tolerances.h"

#include "base/half.h"

#include <math.h>

enum { MAX_SEQUENCES = 12, MAX_ROWS = 160 };

/* head_dim, heads, KV heads: every head_dim of known models, groups of 1, 2, 4, 7 and 8 */
struct heads {
    uint32_t head_dim, n_heads, n_kv_heads;
};
static const struct heads head_shapes[] = {{32, 2, 2}, {64, 4, 2}, {80, 8, 2}, {96, 7, 1}, {128, 8, 1}, {256, 2, 1}, {64, 14, 2}, {128, 4, 4}};
enum { N_HEAD_SHAPES = sizeof head_shapes / sizeof *head_shapes };

/* A batch and the cache that it reads: sequence s holds n_held[s] positions. */
struct batch {
    struct heads heads;
    m40llm_kv_type type;
    float scale;
    uint32_t n_sequences, n_held[MAX_SEQUENCES];
    uint32_t n_slot_pages, n_pages, max_pos;
    uint32_t window; /* 0: none */
    float softcap;   /* 0: none */
    float *sinks;    /* [n_heads] or NULL */
    uint32_t n_rows, n_single;
    int32_t pos[MAX_ROWS], slot[MAX_ROWS];
    int32_t *pages; /* [n_sequences][n_slot_pages] */
    float *k, *v;   /* [all positions of sequence 0, 1, ..][n_kv_heads][head_dim] as the cache holds them */
    void *cache;    /* the layer's memory; NaN where nothing was stored */
    size_t cache_bytes;
};

enum { CACHE, POS, SLOT, PAGES, Q, OUT, SINKS };

static size_t element_bytes(const struct batch *b)
{
    return b->type == M40LLM_KV_F16 ? 2 : 4;
}

/* Where in the cache an element is. */
static size_t cache_index(const struct batch *b, uint32_t sequence, uint32_t pos, unsigned part, uint32_t kv_head, uint32_t d)
{
    size_t page = (size_t)b->pages[sequence * b->n_slot_pages + pos / M40_KV_PAGE];

    return (((page * 2 + part) * b->heads.n_kv_heads + kv_head) * M40_KV_PAGE + pos % M40_KV_PAGE) * b->heads.head_dim + d;
}

/* Position 0 of the sequence in k and v. */
static size_t first_position(const struct batch *b, uint32_t sequence)
{
    size_t n = 0;

    for (uint32_t s = 0; s < sequence; s++)
        n += b->n_held[s];
    return n;
}

static void store(const struct batch *b, size_t index, float *value)
{
    if (b->type == M40LLM_KV_F16) {
        uint16_t half = m40_f32_to_f16(*value);

        ((uint16_t *)b->cache)[index] = half;
        *value = m40_f16_to_f32(half);
    } else {
        ((float *)b->cache)[index] = *value;
    }
}

/* Gives every sequence pages from all over the pool; entries behind its last page name page 0, which a backend may not read for it. */
static void make_pages(struct parity *p, struct parity_case *c, struct batch *b)
{
    uint32_t next = 0, longest = 0, n_used = 0;
    int32_t *order;

    for (uint32_t s = 0; s < b->n_sequences; s++) {
        uint32_t n = (b->n_held[s] + M40_KV_PAGE - 1) / M40_KV_PAGE;

        longest = n > longest ? n : longest;
        n_used += n;
    }
    b->n_slot_pages = longest + 1;
    b->n_pages = n_used + 3;
    order = parity_alloc(c, b->n_pages * sizeof *order);
    b->pages = parity_alloc(c, (size_t)b->n_sequences * b->n_slot_pages * sizeof *b->pages);
    memset(b->pages, 0, (size_t)b->n_sequences * b->n_slot_pages * sizeof *b->pages);
    for (uint32_t i = 0; i < b->n_pages; i++) {
        uint32_t j = parity_below(p, i + 1);

        order[i] = order[j];
        order[j] = (int32_t)i;
    }
    for (uint32_t s = 0; s < b->n_sequences; s++)
        for (uint32_t i = 0; i * M40_KV_PAGE < b->n_held[s]; i++)
            b->pages[s * b->n_slot_pages + i] = order[next++];
}

static void make_cache(struct parity *p, struct parity_case *c, struct batch *b, enum parity_input input)
{
    const uint32_t n_kv_heads = b->heads.n_kv_heads, head_dim = b->heads.head_dim;
    size_t row = (size_t)n_kv_heads * head_dim, n = first_position(b, b->n_sequences) * row;

    make_pages(p, c, b);
    b->k = parity_floats(p, c, n, PARITY_RANDOM);
    b->v = parity_floats(p, c, n, input);
    for (size_t i = 0; input == PARITY_POWERS && i < n; i++)
        b->v[i] *= 0x1p-8f; /* FP16 has powers up to 2^15 */
    b->cache_bytes = (size_t)b->n_pages * 2 * row * M40_KV_PAGE * element_bytes(b);
    b->cache = parity_alloc(c, b->cache_bytes);
    memset(b->cache, 0xff, b->cache_bytes);
    for (uint32_t s = 0; s < b->n_sequences; s++) {
        for (uint32_t pos = 0; pos < b->n_held[s]; pos++) {
            size_t at = (first_position(b, s) + pos) * row;

            for (size_t i = 0; i < row; i++) {
                store(b, cache_index(b, s, pos, 0, (uint32_t)i / head_dim, (uint32_t)i % head_dim), &b->k[at + i]);
                store(b, cache_index(b, s, pos, 1, (uint32_t)i / head_dim, (uint32_t)i % head_dim), &b->v[at + i]);
            }
        }
    }
}

/* A row of the batch: the sequence's position. */
static void add_row(struct batch *b, uint32_t sequence, uint32_t pos)
{
    b->slot[b->n_rows] = (int32_t)sequence;
    b->pos[b->n_rows++] = (int32_t)pos;
    b->max_pos = pos > b->max_pos ? pos : b->max_pos;
}

static struct m40_kv_layer layer_at(const struct batch *b, m40_addr base)
{
    return (struct m40_kv_layer){
        .base = base, .type = b->type, .n_pages = b->n_pages, .n_kv_heads = b->heads.n_kv_heads, .head_dim = b->heads.head_dim};
}

static struct m40_rows rows_at(const struct batch *b, const m40_addr *at)
{
    return (struct m40_rows){.n_tokens = b->n_rows,
                             .n_single = b->n_single,
                             .max_pos = b->max_pos,
                             .pos = at[POS],
                             .slot = at[SLOT],
                             .pages = at[PAGES],
                             .n_slot_pages = b->n_slot_pages};
}

static void describe(const struct batch *b, struct parity_case *c, const char *what)
{
    snprintf(c->name, sizeof c->name, "%s %s, %u/%u heads of %u, %u rows of %u sequences, up to position %u, window %u", what,
             b->type == M40LLM_KV_F16 ? "f16" : "f32", b->heads.n_heads, b->heads.n_kv_heads, b->heads.head_dim, b->n_rows, b->n_sequences,
             b->max_pos, b->window);
    c->need = (struct m40_workload){.n_tokens = b->n_rows,
                                    .n_cols = b->heads.n_heads * b->heads.head_dim,
                                    .n_heads = b->heads.n_heads,
                                    .head_dim = b->heads.head_dim,
                                    .n_ctx = b->max_pos + 1};
    parity_in(c, b->cache, b->cache_bytes);
    parity_in(c, b->pos, b->n_rows * sizeof *b->pos);
    parity_in(c, b->slot, b->n_rows * sizeof *b->slot);
    parity_in(c, b->pages, (size_t)b->n_sequences * b->n_slot_pages * sizeof *b->pages);
}

/* ---- attention ---- */

/* Rows of q lie further apart than they are long, as where k and v follow in the same row. */
enum { Q_GAP = 8 };

static m40llm_status issue_attention(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct batch *b = data;
    struct m40_kv_layer layer = layer_at(b, at[CACHE]);
    struct m40_rows rows = rows_at(b, at);
    struct m40_attention_args args = {.kv = &layer,
                                      .rows = &rows,
                                      .q = at[Q],
                                      .y = at[OUT],
                                      .q_stride = b->heads.n_heads * b->heads.head_dim + Q_GAP,
                                      .n_heads = b->heads.n_heads,
                                      .window = b->window,
                                      .scale = b->scale,
                                      .softcap = b->softcap,
                                      .sinks = b->sinks ? at[SINKS] : 0};

    return be->ops.attention(be, &args, err);
}

static void run_attention(struct parity *p, struct parity_case *c, const struct batch *b, const float *q, const char *what)
{
    size_t n_row = (size_t)b->heads.n_heads * b->heads.head_dim, stride = n_row + Q_GAP;
    float *spread = parity_alloc(c, b->n_rows * stride * sizeof *spread);

    memset(spread, 0xff, b->n_rows * stride * sizeof *spread);
    for (uint32_t r = 0; r < b->n_rows; r++)
        memcpy(spread + r * stride, q + r * n_row, n_row * sizeof *q);
    describe(b, c, what);
    c->issue = issue_attention;
    c->args = b;
    parity_in(c, spread, b->n_rows * stride * sizeof *spread);
    parity_out(c, b->n_rows * n_row * sizeof *q);
    if (b->sinks)
        parity_in(c, b->sinks, b->heads.n_heads * sizeof *b->sinks);
    parity_run(p, c);
}

static uint32_t first_visible(const struct batch *b, uint32_t pos)
{
    return b->window && pos >= b->window ? pos + 1 - b->window : 0;
}

static void check_against_doubles(struct parity *p, struct parity_case *c, const struct batch *b, const float *q)
{
    const struct heads *h = &b->heads;
    size_t n = (size_t)b->n_rows * h->n_heads * h->head_dim, stride = (size_t)h->n_kv_heads * h->head_dim;
    double *expected = parity_alloc(c, n * sizeof *expected), *bound = parity_alloc(c, n * sizeof *bound);

    if (!p->targets[0].is_wanted)
        return;
    for (uint32_t r = 0; r < b->n_rows; r++) {
        for (uint32_t head = 0; head < h->n_heads; head++) {
            uint32_t first = first_visible(b, (uint32_t)b->pos[r]);
            size_t kv = (first_position(b, (uint32_t)b->slot[r]) + first) * stride + (size_t)(head / (h->n_heads / h->n_kv_heads)) * h->head_dim;
            size_t at = ((size_t)r * h->n_heads + head) * h->head_dim;

            ref64_attention(q + at, b->k + kv, b->v + kv, stride, (uint32_t)b->pos[r] + 1 - first, h->head_dim, b->scale, b->softcap,
                            b->sinks ? &b->sinks[head] : NULL, expected + at, bound + at);
        }
    }
    parity_check_doubles(p, c, OUT, expected, bound);
}

/* Queries: of ordinary size, or (hot) with few elements so large that scores are hundreds apart and exponentials underflow; every eighth head's are zero, so that all
 * its scores tie. */
static float *make_queries(struct parity *p, struct parity_case *c, const struct batch *b, bool is_hot)
{
    const uint32_t head_dim = b->heads.head_dim;
    size_t n = (size_t)b->n_rows * b->heads.n_heads * head_dim;
    float *q = parity_floats(p, c, n, PARITY_RANDOM);

    for (size_t i = 0; i < n; i++) {
        float factor = !is_hot ? 2.0f : i % head_dim % 32 == 5 ? 300.0f / b->scale / (float)(head_dim / 32) : 0;

        q[i] *= i / head_dim % 8 == 7 ? 0 : factor;
    }
    return q;
}

static struct batch new_batch(unsigned number, uint32_t kv_type)
{
    struct batch b = {.heads = head_shapes[number % N_HEAD_SHAPES], .type = (m40llm_kv_type)kv_type};

    b.scale = 1.0f / sqrtf((float)b.heads.head_dim);
    return b;
}

/* Every length around the ends of pages and pieces, one sequence each. */
static void make_decode_batch(struct parity *p, struct batch *b)
{
    static const uint32_t lengths[] = {1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257};

    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (p->is_thin && i % 3 == 1)
            continue;
        b->n_held[b->n_sequences] = lengths[i];
        add_row(b, b->n_sequences++, lengths[i] - 1);
    }
}

/* Whole prompts, later chunks that begin inside a page or a piece, and single tokens; interleaved or one after another. */
static void make_prefill_batch(struct parity *p, struct batch *b, bool is_interleaved)
{
    static const uint32_t first[] = {0, 62, 256, 0, 33}, n[] = {33, 5, 1, 70, 31};
    uint32_t n_added[5] = {0};

    for (b->n_sequences = 0; b->n_sequences < (p->is_thin ? 3u : 5u); b->n_sequences++)
        b->n_held[b->n_sequences] = first[b->n_sequences] + n[b->n_sequences];
    for (uint32_t s = 0, n_full = 0; n_full < b->n_sequences; s = (s + 1) % b->n_sequences) {
        uint32_t run = is_interleaved ? 1 + parity_below(p, 4) : n[s];

        if (n_added[s] == n[s])
            continue;
        while (run-- > 0 && n_added[s] < n[s])
            add_row(b, s, first[s] + n_added[s]++);
        n_full += n_added[s] == n[s];
    }
}

static void check_attention(struct parity *p, struct batch *b, unsigned number, const char *what)
{
    struct parity_case c = {0};
    const float *q;

    make_cache(p, &c, b, parity_input(number));
    q = make_queries(p, &c, b, number % 4 == 3);
    run_attention(p, &c, b, q, what);
    check_against_doubles(p, &c, b, q);
    parity_case_free(&c);
}

void parity_attention_decode(struct parity *p, uint32_t kv_type)
{
    for (unsigned number = 0; number < 2 * N_HEAD_SHAPES; number += p->is_thin ? 5 : 1) {
        struct batch b = new_batch(number / 2, kv_type);

        make_decode_batch(p, &b);
        b.n_single = number % 2 ? b.n_rows : 0;
        check_attention(p, &b, number, "decode");
    }
}

void parity_attention_prefill(struct parity *p, uint32_t kv_type)
{
    for (unsigned number = 0; number < N_HEAD_SHAPES; number += p->is_thin ? 3 : 1) {
        struct batch b = new_batch(number, kv_type);

        make_prefill_batch(p, &b, number % 2);
        b.n_single = number % 3 * 7; /* wrong: it is only a hint */
        check_attention(p, &b, number, "prefill");
    }
}

/* What no row sees through its window: K and V become NaNs, pages with nothing else numbers of no page. */
static void hide_unseen(struct batch *b)
{
    uint32_t first[MAX_SEQUENCES];

    for (uint32_t s = 0; s < b->n_sequences; s++)
        first[s] = b->n_held[s];
    for (uint32_t r = 0; r < b->n_rows; r++) {
        uint32_t seen = first_visible(b, (uint32_t)b->pos[r]), s = (uint32_t)b->slot[r];

        first[s] = seen < first[s] ? seen : first[s];
    }
    for (uint32_t s = 0; s < b->n_sequences; s++) {
        for (uint32_t pos = 0; pos < first[s]; pos++)
            for (uint32_t part = 0; part < 2 * b->heads.n_kv_heads; part++)
                memset((uint8_t *)b->cache + cache_index(b, s, pos, part % 2, part / 2, 0) * element_bytes(b), 0xff,
                       b->heads.head_dim * element_bytes(b));
        for (uint32_t page = 0; page < first[s] / M40_KV_PAGE; page++)
            b->pages[s * b->n_slot_pages + page] = INT32_MAX;
    }
}

/* Windows that begin at the ends of pages and pieces and inside them, shorter than a page, longer than some sequences and than all. */
void parity_attention_window(struct parity *p, uint32_t kv_type)
{
    static const uint32_t windows[] = {1, 31, 32, 33, 63, 64, 65, 100, 128, 250, 1000};

    for (unsigned number = 0; number < 2 * N_HEAD_SHAPES; number += p->is_thin ? 5 : 1) {
        struct batch b = new_batch(number / 2, kv_type);
        struct parity_case c = {0};
        const float *q;

        b.window = windows[(number + number / 8) % (sizeof windows / sizeof *windows)];
        if (number % 2)
            make_prefill_batch(p, &b, number % 4 == 3);
        else
            make_decode_batch(p, &b);
        make_cache(p, &c, &b, parity_input(number));
        hide_unseen(&b);
        q = make_queries(p, &c, &b, false);
        run_attention(p, &c, &b, q, "window");
        check_against_doubles(p, &c, &b, q);
        parity_case_free(&c);
    }
}

/* Soft-caps below and above the scores there are, and sinks: ordinary ones, one that counts for nothing and one that leaves nothing to the others. */
void parity_attention_scores(struct parity *p, uint32_t kv_type)
{
    static const float caps[] = {0.0f, 0.25f, 5.0f, 50.0f};

    for (unsigned number = 0; number < 2 * N_HEAD_SHAPES; number += p->is_thin ? 5 : 1) {
        struct batch b = new_batch(number / 2, kv_type);
        struct parity_case c = {0};
        const float *q;

        b.softcap = caps[number % 4];
        b.window = number % 5 == 4 ? 70 : 0;
        if (number % 2)
            make_prefill_batch(p, &b, number % 4 == 3);
        else
            make_decode_batch(p, &b);
        make_cache(p, &c, &b, parity_input(number));
        q = make_queries(p, &c, &b, number % 4 == 3);
        if (number % 3 != 2) {
            b.sinks = parity_floats(p, &c, b.heads.n_heads, PARITY_RANDOM);
            for (uint32_t h = 0; h < b.heads.n_heads; h++)
                b.sinks[h] = h == 1 ? 200.0f : h == 3 ? -200.0f : 4 * b.sinks[h];
        }
        run_attention(p, &c, &b, q, b.sinks ? "with sinks" : "capped");
        check_against_doubles(p, &c, &b, q);
        parity_case_free(&c);
    }
}

/* A row has the same bits whether it comes alone or in any batch. */
void parity_attention_alone(struct parity *p, uint32_t kv_type)
{
    for (unsigned number = 0; number < N_HEAD_SHAPES; number += p->is_thin ? 4 : 1) {
        struct batch b = new_batch(number, kv_type);
        struct parity_case batch = {0};
        const float *q;
        size_t row = (size_t)b.heads.n_heads * b.heads.head_dim;

        make_prefill_batch(p, &b, number % 2);
        make_cache(p, &batch, &b, PARITY_RANDOM);
        q = make_queries(p, &batch, &b, false);
        run_attention(p, &batch, &b, q, "batch");
        for (unsigned i = 0; i < 5; i++) {
            struct parity_case alone = {0};
            struct batch one = b;
            uint32_t r = i == 0 ? b.n_rows - 1 : parity_below(p, b.n_rows);

            one.n_rows = one.max_pos = 0;
            add_row(&one, (uint32_t)b.slot[r], (uint32_t)b.pos[r]);
            run_attention(p, &alone, &one, q + r * row, "alone");
            parity_check_same(p, &batch, OUT, r * row * sizeof *q, &alone, OUT);
            parity_case_free(&alone);
        }
        parity_case_free(&batch);
    }
}

/* ---- rope_append ---- */

enum { TABLE = OUT, Q_NORM, K_NORM, K_IN, V_IN };

struct turn_case {
    struct batch b;
    enum m40_rope_style style;
    uint32_t n_rot, q_stride, kv_stride;
    bool has_norm, is_one_row; /* q, k and v side by side, all in the buffer Q */
    float eps;
    float *q, *k, *v, *table, *q_norm, *k_norm; /* q, k, v: first rows */
};

static uint32_t q_dim(const struct turn_case *t)
{
    return t->b.heads.n_heads * t->b.heads.head_dim;
}

static uint32_t kv_dim(const struct turn_case *t)
{
    return t->b.heads.n_kv_heads * t->b.heads.head_dim;
}

static m40llm_status issue_rope_append(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct turn_case *t = data;
    struct m40_kv_layer layer = layer_at(&t->b, at[CACHE]);
    struct m40_rows rows = rows_at(&t->b, at);
    struct m40_rope_append_args args = {
        .kv = &layer,
        .rows = &rows,
        .q = at[Q],
        .k = t->is_one_row ? at[Q] + q_dim(t) * sizeof(float) : at[K_IN],
        .v = t->is_one_row ? at[Q] + (q_dim(t) + kv_dim(t)) * sizeof(float) : at[V_IN],
        .q_stride = t->q_stride,
        .kv_stride = t->kv_stride,
        .q_norm = t->has_norm ? at[Q_NORM] : 0,
        .k_norm = t->has_norm ? at[K_NORM] : 0,
        .norm_eps = t->eps,
        .table = at[TABLE],
        .n_heads = t->b.heads.n_heads,
        .n_rot = t->n_rot,
        .style = t->style,
    };

    return be->ops.rope_append(be, &args, err);
}

/* One head of q or k: norm, where there is one, and rotation of what binary32 may have made of it. bound is 0 where nothing is computed. */
static void expect_head(const struct turn_case *t, const float *x, const float *weight, int32_t pos, double *y, double *bound)
{
    const float *cos_sin = t->table + (size_t)pos * t->n_rot;
    uint32_t head_dim = t->b.heads.head_dim, half = t->n_rot / 2;
    double normed[256], error[256] = {0};
    float in[256];

    memcpy(in, x, head_dim * sizeof *in);
    if (t->has_norm) {
        ref64_rms_norm(x, weight, NULL, 1, head_dim, t->eps, normed, error);
        for (uint32_t d = 0; d < head_dim; d++) {
            in[d] = (float)normed[d];
            error[d] += U * fabs(normed[d]) + TINY;
        }
    }
    ref64_rope(in, cos_sin, 1, head_dim, t->n_rot, t->style, y, bound);
    for (uint32_t d = 0; d < head_dim; d++) {
        uint32_t i = t->style == M40_ROPE_NORM ? d / 2 : d % (half ? half : 1);
        uint32_t a = t->style == M40_ROPE_NORM ? 2 * i : i, b = t->style == M40_ROPE_NORM ? a + 1 : i + half;

        if (d >= t->n_rot)
            bound[d] += error[d];
        else if (d == a)
            bound[d] += fabs((double)cos_sin[2 * i]) * error[a] + fabs((double)cos_sin[2 * i + 1]) * error[b];
        else
            bound[d] += fabs((double)cos_sin[2 * i + 1]) * error[a] + fabs((double)cos_sin[2 * i]) * error[b];
    }
}

/* What the cache's type makes of a value: exactly, where it is known exactly; else the bound grows by half a unit of the last place. */
static void expect_stored(const struct batch *b, size_t index, double value, double error, double *expected, double *bound)
{
    bool is_f16 = b->type == M40LLM_KV_F16;

    expected[index] = is_f16 && error == 0 ? ref64_round_to_f16(value) : value;
    bound[index] = error;
    if (is_f16 && error > 0)
        bound[index] += 0x1p-11 * (fabs(value) + error) + 0x1p-25;
}

/* The cache as it was, with the batch's rows in it. */
static void expect_cache(const struct turn_case *t, double *expected, double *bound)
{
    const struct batch *b = &t->b;
    uint32_t head_dim = b->heads.head_dim;
    size_t n = b->cache_bytes / element_bytes(b);

    for (size_t i = 0; i < n; i++) {
        expected[i] = b->type == M40LLM_KV_F16 ? m40_f16_to_f32(((uint16_t *)b->cache)[i]) : ((float *)b->cache)[i];
        bound[i] = 0;
    }
    for (uint32_t r = 0; r < b->n_rows; r++) {
        for (uint32_t head = 0; head < b->heads.n_kv_heads; head++) {
            double k[256], error[256];
            const float *v = t->v + (size_t)r * t->kv_stride + head * head_dim;

            expect_head(t, t->k + (size_t)r * t->kv_stride + head * head_dim, t->k_norm, b->pos[r], k, error);
            for (uint32_t d = 0; d < head_dim; d++) {
                expect_stored(b, cache_index(b, (uint32_t)b->slot[r], (uint32_t)b->pos[r], 0, head, d), k[d], error[d], expected, bound);
                expect_stored(b, cache_index(b, (uint32_t)b->slot[r], (uint32_t)b->pos[r], 1, head, d), (double)v[d], 0, expected, bound);
            }
        }
    }
}

/* The buffer Q: its rows of q turned, and k and v, where they are in it, as they were. */
static void expect_q(const struct turn_case *t, double *expected, double *bound)
{
    uint32_t head_dim = t->b.heads.head_dim;

    for (uint32_t r = 0; r < t->b.n_rows; r++) {
        size_t row = (size_t)r * t->q_stride;

        for (uint32_t i = 0; i < t->q_stride; i++) {
            expected[row + i] = (double)t->q[row + i];
            bound[row + i] = 0;
        }
        for (uint32_t head = 0; head < t->b.heads.n_heads; head++)
            expect_head(t, t->q + row + head * head_dim, t->q_norm, t->b.pos[r], expected + row + head * head_dim, bound + row + head * head_dim);
    }
}

/* In V, and in K where it is stored as it is: values that round up and down, to ties, to subnormals, to zero and to infinity in FP16. */
static void put_special_values(const struct turn_case *t, float *x)
{
    static const float special[] = {65504.0f, 65519.0f, 65520.0f,   -1e30f,      0x1.002p0f,   0x1.006p0f,
                                    0x1p-24f, 0x1p-25f, 0x1.8p-25f, -0x1.5p-16f, 0x1.ffep-15f, -0.0f};

    for (uint32_t r = 0; r < t->b.n_rows; r++)
        for (uint32_t i = r % 5; i < kv_dim(t); i += 5)
            x[(size_t)r * t->kv_stride + i] = special[(r + i / 5) % (sizeof special / sizeof *special)];
}

static void make_inputs(struct parity *p, struct parity_case *c, struct turn_case *t, enum parity_input input)
{
    uint32_t n_table = (t->b.max_pos + 1) * t->n_rot;
    size_t n_rows = t->b.n_rows;

    t->q_stride = t->is_one_row ? q_dim(t) + 2 * kv_dim(t) : q_dim(t);
    t->kv_stride = t->is_one_row ? t->q_stride : kv_dim(t);
    t->q = parity_floats(p, c, n_rows * t->q_stride, input);
    for (size_t i = 0; input == PARITY_POWERS && i < n_rows * t->q_stride; i++)
        t->q[i] *= 0x1p-8f; /* FP16 has powers up to 2^15 */
    t->k = t->is_one_row ? t->q + q_dim(t) : parity_floats(p, c, n_rows * kv_dim(t), input == PARITY_POWERS ? PARITY_RANDOM : input);
    t->v = t->is_one_row ? t->k + kv_dim(t) : parity_floats(p, c, n_rows * kv_dim(t), input);
    put_special_values(t, t->v);
    if (t->n_rot == 0 && !t->has_norm)
        put_special_values(t, t->k);
    t->q_norm = parity_floats(p, c, t->b.heads.head_dim, PARITY_RANDOM);
    t->k_norm = parity_floats(p, c, t->b.heads.head_dim, PARITY_RANDOM);
    t->table = parity_alloc(c, (n_table + 1) * sizeof *t->table);
    for (uint32_t i = 0; i < n_table / 2; i++) {
        t->table[2 * i] = (float)cos(i * 0.7);
        t->table[2 * i + 1] = (float)sin(i * 0.7);
    }
    parity_in(c, t->q, n_rows * t->q_stride * sizeof *t->q);
    c->buffers[Q].use = PARITY_IN_OUT;
    parity_in(c, t->table, (n_table + 1) * sizeof *t->table);
    parity_in(c, t->q_norm, t->b.heads.head_dim * sizeof *t->q_norm);
    parity_in(c, t->k_norm, t->b.heads.head_dim * sizeof *t->k_norm);
    if (!t->is_one_row) {
        parity_in(c, t->k, n_rows * kv_dim(t) * sizeof *t->k);
        parity_in(c, t->v, n_rows * kv_dim(t) * sizeof *t->v);
    }
}

static void check_rope_append(struct parity *p, unsigned number, uint32_t kv_type, enum m40_rope_style style)
{
    struct turn_case t = {.b = new_batch(number % N_HEAD_SHAPES, kv_type), .style = style, .has_norm = number % 3 == 1, .is_one_row = number / 2 % 2};
    struct parity_case c = {.issue = issue_rope_append, .args = &t};
    const uint32_t head_dim = t.b.heads.head_dim, rots[] = {0, head_dim, head_dim / 2, head_dim - 2, head_dim};
    char what[64];
    double *expected, *bound;
    size_t n_cache, n_q;

    t.n_rot = rots[number % 5];
    t.eps = number % 2 ? 1e-5f : 1e-6f;
    make_prefill_batch(p, &t.b, number % 2);
    make_cache(p, &c, &t.b, PARITY_RANDOM);
    snprintf(what, sizeof what, "rope_append %s%s%s, %u rotated,", style == M40_ROPE_NORM ? "norm" : "neox", t.has_norm ? ", normed" : "",
             t.is_one_row ? ", in one row" : "", t.n_rot);
    describe(&t.b, &c, what);
    c.buffers[CACHE].use = PARITY_IN_OUT;
    c.buffers[CACHE].element = t.b.type == M40LLM_KV_F16 ? PARITY_F16 : PARITY_F32;
    make_inputs(p, &c, &t, parity_input(number));
    parity_run(p, &c);
    n_cache = t.b.cache_bytes / element_bytes(&t.b);
    n_q = (size_t)t.b.n_rows * t.q_stride;
    expected = parity_alloc(&c, (n_cache > n_q ? n_cache : n_q) * sizeof *expected);
    bound = parity_alloc(&c, (n_cache > n_q ? n_cache : n_q) * sizeof *bound);
    expect_cache(&t, expected, bound);
    parity_check_doubles(p, &c, CACHE, expected, bound);
    expect_q(&t, expected, bound);
    parity_check_doubles(p, &c, Q, expected, bound);
    parity_case_free(&c);
}

static void check_rope_appends(struct parity *p, uint32_t kv_type, enum m40_rope_style style)
{
    for (unsigned number = 0; number < 3 * N_HEAD_SHAPES; number += p->is_thin ? 5 : 1)
        check_rope_append(p, number + (style == M40_ROPE_NEOX), kv_type, style);
}

void parity_rope_append_norm(struct parity *p, uint32_t kv_type)
{
    check_rope_appends(p, kv_type, M40_ROPE_NORM);
}

void parity_rope_append_neox(struct parity *p, uint32_t kv_type)
{
    check_rope_appends(p, kv_type, M40_ROPE_NEOX);
}
