/* kv_append and attention: ragged batches of sequences whose pages are shuffled over the pool. */
#include "parity/parity.h"

#include "parity/ref64.h"

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
    uint32_t n_rows;
    int32_t pos[MAX_ROWS], slot[MAX_ROWS];
    int32_t *pages; /* [n_sequences][n_slot_pages] */
    float *k, *v;   /* [all positions of sequence 0, 1, ..][n_kv_heads][head_dim] as the cache holds them */
    void *cache;    /* the layer's memory; NaN where nothing was stored */
    size_t cache_bytes;
};

enum { CACHE, POS, SLOT, PAGES, Q, OUT };

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
    return (struct m40_rows){
        .n_tokens = b->n_rows, .max_pos = b->max_pos, .pos = at[POS], .slot = at[SLOT], .pages = at[PAGES], .n_slot_pages = b->n_slot_pages};
}

static void describe(const struct batch *b, struct parity_case *c, const char *what)
{
    snprintf(c->name, sizeof c->name, "%s %s, %u/%u heads of %u, %u rows of %u sequences, up to position %u", what,
             b->type == M40LLM_KV_F16 ? "f16" : "f32", b->heads.n_heads, b->heads.n_kv_heads, b->heads.head_dim, b->n_rows, b->n_sequences,
             b->max_pos);
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

static m40llm_status issue_attention(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct batch *b = data;
    struct m40_kv_layer layer = layer_at(b, at[CACHE]);
    struct m40_rows rows = rows_at(b, at);
    struct m40_attention_args args = {.kv = &layer, .rows = &rows, .q = at[Q], .y = at[OUT], .n_heads = b->heads.n_heads, .scale = b->scale};

    return be->ops.attention(be, &args, err);
}

static void run_attention(struct parity *p, struct parity_case *c, const struct batch *b, const float *q, const char *what)
{
    size_t n_bytes = (size_t)b->n_rows * b->heads.n_heads * b->heads.head_dim * sizeof *q;

    describe(b, c, what);
    c->issue = issue_attention;
    c->args = b;
    parity_in(c, q, n_bytes);
    parity_out(c, n_bytes);
    parity_run(p, c);
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
            size_t kv = first_position(b, (uint32_t)b->slot[r]) * stride + (size_t)(head / (h->n_heads / h->n_kv_heads)) * h->head_dim;
            size_t at = ((size_t)r * h->n_heads + head) * h->head_dim;

            ref64_attention(q + at, b->k + kv, b->v + kv, stride, (uint32_t)b->pos[r] + 1, h->head_dim, b->scale, expected + at, bound + at);
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
        check_attention(p, &b, number, "decode");
    }
}

void parity_attention_prefill(struct parity *p, uint32_t kv_type)
{
    for (unsigned number = 0; number < N_HEAD_SHAPES; number += p->is_thin ? 3 : 1) {
        struct batch b = new_batch(number, kv_type);

        make_prefill_batch(p, &b, number % 2);
        check_attention(p, &b, number, "prefill");
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

/* ---- kv_append ---- */

enum { K_IN = Q, V_IN = OUT };

static m40llm_status issue_kv_append(struct m40_backend *be, const m40_addr *at, const void *data, m40llm_error *err)
{
    const struct batch *b = data;
    struct m40_kv_layer layer = layer_at(b, at[CACHE]);
    struct m40_rows rows = rows_at(b, at);
    struct m40_kv_append_args args = {.kv = &layer, .rows = &rows, .k = at[K_IN], .v = at[V_IN]};

    return be->ops.kv_append(be, &args, err);
}

/* The cache as it was, with the batch's rows in it. */
static void expect_cache(const struct batch *b, const float *k, const float *v, double *expected, double *bound)
{
    size_t n = b->cache_bytes / element_bytes(b), row = (size_t)b->heads.n_kv_heads * b->heads.head_dim;

    for (size_t i = 0; i < n; i++) {
        expected[i] = b->type == M40LLM_KV_F16 ? m40_f16_to_f32(((uint16_t *)b->cache)[i]) : ((float *)b->cache)[i];
        bound[i] = 0;
    }
    for (uint32_t r = 0; r < b->n_rows; r++) {
        for (size_t i = 0; i < row; i++) {
            uint32_t head = (uint32_t)(i / b->heads.head_dim), d = (uint32_t)(i % b->heads.head_dim);

            for (unsigned part = 0; part < 2; part++) {
                double value = (part ? v : k)[r * row + i];

                expected[cache_index(b, (uint32_t)b->slot[r], (uint32_t)b->pos[r], part, head, d)] =
                    b->type == M40LLM_KV_F16 ? ref64_round_to_f16(value) : value;
            }
        }
    }
}

/* Values that round up and down, to ties, to subnormals, to zero and to infinity in FP16. */
static float *make_kv(struct parity *p, struct parity_case *c, size_t n, enum parity_input input)
{
    static const float special[] = {65504.0f, 65519.0f, 65520.0f,   -1e30f,      0x1.002p0f,   0x1.006p0f,
                                    0x1p-24f, 0x1p-25f, 0x1.8p-25f, -0x1.5p-16f, 0x1.ffep-15f, -0.0f};
    float *x = parity_floats(p, c, n, input);

    for (size_t i = 0; i < n; i += 5)
        x[i] = special[i / 5 % (sizeof special / sizeof *special)];
    return x;
}

void parity_kv_append(struct parity *p, uint32_t kv_type)
{
    for (unsigned number = 0; number < N_HEAD_SHAPES; number += p->is_thin ? 3 : 1) {
        struct batch b = new_batch(number, kv_type);
        struct parity_case c = {.issue = issue_kv_append, .args = &b};
        size_t n_row = (size_t)b.heads.n_kv_heads * b.heads.head_dim, n_cache;
        float *k, *v;
        double *expected, *bound;

        make_prefill_batch(p, &b, number % 2);
        make_cache(p, &c, &b, PARITY_RANDOM);
        k = make_kv(p, &c, b.n_rows * n_row, parity_input(number));
        v = make_kv(p, &c, b.n_rows * n_row, parity_input(number + 1));
        describe(&b, &c, "kv_append");
        c.buffers[CACHE].use = PARITY_IN_OUT;
        c.buffers[CACHE].element = b.type == M40LLM_KV_F16 ? PARITY_F16 : PARITY_F32;
        parity_in(&c, k, b.n_rows * n_row * sizeof *k);
        parity_in(&c, v, b.n_rows * n_row * sizeof *v);
        parity_run(p, &c);
        n_cache = b.cache_bytes / element_bytes(&b);
        expected = parity_alloc(&c, n_cache * sizeof *expected);
        bound = parity_alloc(&c, n_cache * sizeof *bound);
        expect_cache(&b, k, v, expected, bound);
        parity_check_doubles(p, &c, CACHE, expected, bound);
        parity_case_free(&c);
    }
}
