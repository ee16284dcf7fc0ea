#define _GNU_SOURCE
/* The two ways in which the CUDA backend shares out attention give the bits of the scalar CPU backend, whatever has it choose: how many multiprocessors there are, how many pieces scratch memory holds, and
 * the caller's hint. With what the parity grid is too small for: groups of heads that one block cannot take, and more pieces than one batch of the merge. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "base/half.h"

#include <math.h>

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t n_tokens;
    uint32_t last_pos; /* of the last token; the others come right before it */
    uint32_t window;
    m40llm_kv_type type;
    float softcap;
    bool has_sinks;
};

/* What has the CUDA backend choose a way. */
struct choice {
    uint32_t n_sms;  /* few: rows share blocks as soon as they can; many: heads are shared out */
    uint32_t n_room; /* tokens whose pieces scratch memory holds */
    uint32_t n_single;
    uint32_t n_launches; /* of one token, where they are known; or 0 */
};
enum { ALL_ROOM = UINT32_MAX };

struct data {
    struct shape shape;
    uint32_t n_pages, n_slot_pages;
    void *cache;
    float *q;
    int32_t *pos, *slot, *pages;
    size_t cache_bytes, q_bytes;
};

static struct data make_data(struct shape s)
{
    struct data d = {.shape = s, .n_slot_pages = s.last_pos / M40_KV_PAGE + 1};
    size_t n_cache, n_q = (size_t)s.n_tokens * s.n_heads * s.head_dim;
    uint64_t random = test_seed();

    d.n_pages = d.n_slot_pages;
    n_cache = (size_t)d.n_pages * 2 * s.n_kv_heads * M40_KV_PAGE * s.head_dim;
    d.cache_bytes = n_cache * (s.type == M40LLM_KV_F16 ? 2 : 4);
    d.q_bytes = n_q * sizeof *d.q;
    d.cache = malloc(d.cache_bytes);
    d.q = malloc(d.q_bytes);
    d.pos = malloc(s.n_tokens * sizeof *d.pos);
    d.slot = malloc(s.n_tokens * sizeof *d.slot);
    d.pages = malloc(d.n_slot_pages * sizeof *d.pages);
    assert_true(d.cache && d.q && d.pos && d.slot && d.pages);
    for (size_t i = 0; i < n_cache; i++) {
        float value = test_random_float(&random);

        if (s.type == M40LLM_KV_F16)
            ((uint16_t *)d.cache)[i] = m40_f32_to_f16(value);
        else
            ((float *)d.cache)[i] = value;
    }
    for (size_t i = 0; i < n_q; i++)
        d.q[i] = 3.0f * test_random_float(&random);
    for (uint32_t t = 0; t < s.n_tokens; t++) {
        d.pos[t] = (int32_t)(s.last_pos - (s.n_tokens - 1 - t));
        d.slot[t] = 0;
    }
    for (uint32_t i = 0; i < d.n_slot_pages; i++)
        d.pages[i] = (int32_t)(d.n_pages - 1 - i);
    return d;
}

static void free_data(struct data *d)
{
    free(d->cache);
    free(d->q);
    free(d->pos);
    free(d->slot);
    free(d->pages);
}

static m40_addr put(struct m40_backend *be, const void *data, size_t n_bytes)
{
    m40_addr addr;
    m40llm_error err;

    if (be->ops.alloc(be, n_bytes, &addr, &err) != M40LLM_OK || be->ops.write(be, addr, data, n_bytes, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return addr;
}

static uint64_t token_bytes(const struct shape *s)
{
    uint64_t n_pieces = s->last_pos / M40_ATTN_PIECE + 1, n_seen = ((uint64_t)s->window + M40_ATTN_PIECE - 2) / M40_ATTN_PIECE + 1;

    return s->n_heads * (s->window && n_seen < n_pieces ? n_seen : n_pieces) * (s->head_dim + 2) * sizeof(float);
}

/* Attention on one backend; choice is for the CUDA one. */
static void attend(struct m40_backend *be, const struct data *d, const struct choice *choice, float *y)
{
    const struct shape *s = &d->shape;
    struct m40_workload workload = {.n_tokens = s->n_tokens,
                                    .n_cols = s->n_heads * s->head_dim,
                                    .n_rows = 32,
                                    .n_heads = s->n_heads,
                                    .head_dim = s->head_dim,
                                    .n_ctx = s->last_pos + 1};
    m40_addr at[] = {put(be, d->cache, d->cache_bytes),
                     put(be, d->pos, s->n_tokens * sizeof *d->pos),
                     put(be, d->slot, s->n_tokens * sizeof *d->slot),
                     put(be, d->pages, d->n_slot_pages * sizeof *d->pages),
                     put(be, d->q, d->q_bytes),
                     put(be, d->q, d->q_bytes)};
    struct m40_kv_layer kv = {at[0], s->type, d->n_pages, s->n_kv_heads, s->head_dim};
    struct m40_rows rows = {s->n_tokens, s->last_pos, at[1], at[2], at[3], d->n_slot_pages, choice->n_single};
    struct m40_attention_args args = {.kv = &kv,
                                      .rows = &rows,
                                      .q = at[4],
                                      .y = at[5],
                                      .q_stride = s->n_heads * s->head_dim,
                                      .n_heads = s->n_heads,
                                      .window = s->window,
                                      .scale = 1.0f / sqrtf((float)s->head_dim),
                                      .softcap = s->softcap,
                                      .sinks = s->has_sinks ? at[4] : 0}; /* any values will do */
    uint64_t n_launches = 0;
    m40llm_error err;

    assert_int_equal(be->ops.reserve(be, &workload, &err), M40LLM_OK);
    if (be->is_cuda) {
        m40_cuda_of(be)->n_sms = choice->n_sms;
        if (choice->n_room != ALL_ROOM)
            m40_cuda_of(be)->scratch.partials.n_bytes = choice->n_room * token_bytes(s);
        n_launches = m40_cuda_of(be)->counters.n_launches;
    }
    if (be->ops.attention(be, &args, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    if (be->is_cuda && choice->n_launches)
        assert_int_equal(m40_cuda_of(be)->counters.n_launches - n_launches, choice->n_launches);
    if (be->ops.read(be, y, at[5], d->q_bytes, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        be->ops.free(be, at[i]);
}

static void check_shape(struct m40_backend *cpu, struct m40_backend *cuda, struct shape s)
{
    const bool has_few_pieces = s.last_pos < 32 * M40_ATTN_PIECE;
    const struct choice choices[] = {
        {24, ALL_ROOM, 0, 0},
        {24, 2, 0, 0},       /* slices of two */
        {24, 0, 0, 1},       /* nothing can be split */
        {1, ALL_ROOM, 0, 1}, /* rows share blocks */
        {1, ALL_ROOM, s.n_tokens / 2, 0},
        {1 << 20, ALL_ROOM, 0, has_few_pieces ? 1 : 2}, /* every warp takes one head; few pieces are merged at once */
        {1, ALL_ROOM, s.n_tokens, has_few_pieces ? 1 : 2},
    };
    struct data d = make_data(s);
    float *expected = malloc(d.q_bytes), *got = malloc(d.q_bytes);

    assert_true(expected && got);
    attend(cpu, &d, &choices[0], expected);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        attend(cuda, &d, &choices[i], got);
        assert_memory_equal(got, expected, d.q_bytes);
    }
    free(expected);
    free(got);
    free_data(&d);
}

static void test_every_way_gives_the_same_bits(void **state)
{
    static const struct shape shapes[] = {
        {4, 2, 32, 3, 70, 0, M40LLM_KV_F16, 0, false},     /* slices of two and one */
        {20, 1, 64, 2, 65, 0, M40LLM_KV_F16, 0, false},    /* a group of more heads than a warp takes */
        {40, 1, 40, 3, 64, 0, M40LLM_KV_F32, 0, false},    /* of five warps, and in rows that share a block */
        {66, 2, 24, 1, 10, 0, M40LLM_KV_F16, 0, false},    /* an odd last one */
        {70, 1, 8, 2, 30, 0, M40LLM_KV_F16, 0, false},     /* two blocks */
        {2, 2, 32, 1, 4200, 0, M40LLM_KV_F16, 0, false},   /* 66 pieces */
        {1, 1, 8, 1, 33000, 0, M40LLM_KV_F16, 0, false},   /* 516 */
        {2, 1, 40, 3, 16385, 0, M40LLM_KV_F16, 0, false},  /* 256, 257 and 257 */
        {4, 1, 128, 40, 200, 0, M40LLM_KV_F16, 0, false},  /* blocks of several pieces, whole and not */
        {4, 2, 128, 40, 200, 70, M40LLM_KV_F32, 0, false}, /* with a window */
        {3, 1, 256, 25, 150, 100, M40LLM_KV_F16, 0, false}, {2, 1, 256, 33, 150, 0, M40LLM_KV_F32, 0, false},
        {2, 1, 96, 70, 190, 64, M40LLM_KV_F16, 0, false},   {2, 1, 64, 3, 4500, 2100, M40LLM_KV_F16, 0, false}, /* 34 pieces of 71 */
    };
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    const char *library = getenv("M40LLM_CUDA_LIB");

    (void)state;
    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    options.cpu_level = M40LLM_CPU_SCALAR;
    for (unsigned seed = 1; seed <= 3; seed++) {
        struct m40_backend *cpu, *cuda;
        m40llm_error err;

        cuda_seed(seed);
        assert_int_equal(m40_backend_open_cpu(&cpu, &options, &err), M40LLM_OK);
        if (m40_backend_open_cuda(&cuda, &options, &err) != M40LLM_OK)
            fail_msg("%s", err.text);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct shape shape = shapes[i];

            shape.softcap = seed == 2 ? 1.5f : 0.0f;
            shape.has_sinks = seed == 3;
            check_shape(cpu, cuda, shape);
        }
        m40_backend_close(&cuda);
        m40_backend_close(&cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_way_gives_the_same_bits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
