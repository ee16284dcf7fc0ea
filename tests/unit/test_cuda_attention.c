#define _GNU_SOURCE
/* The two ways in which the CUDA backend shares out attention give the bits of the scalar CPU backend, however few pieces scratch memory holds: where all tokens are split at once, in slices, or not at
 * all. With what the parity grid is too small for: groups of heads that one block cannot take, and more pieces than one batch of the merge. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "base/half.h"

#include <math.h>

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t n_tokens;
    uint32_t last_pos; /* of the last token; the others come right before it */
};

struct data {
    struct shape shape;
    uint32_t n_pages, n_slot_pages;
    uint16_t *cache;
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
    d.cache_bytes = n_cache * sizeof *d.cache;
    d.q_bytes = n_q * sizeof *d.q;
    d.cache = malloc(d.cache_bytes);
    d.q = malloc(d.q_bytes);
    d.pos = malloc(s.n_tokens * sizeof *d.pos);
    d.slot = malloc(s.n_tokens * sizeof *d.slot);
    d.pages = malloc(d.n_slot_pages * sizeof *d.pages);
    assert_true(d.cache && d.q && d.pos && d.slot && d.pages);
    for (size_t i = 0; i < n_cache; i++)
        d.cache[i] = m40_f32_to_f16(test_random_float(&random));
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

/* Attention on one backend; partials_bytes caps the scratch memory of the CUDA one. */
static void attend(struct m40_backend *be, const struct data *d, uint64_t partials_bytes, float *y)
{
    const struct shape *s = &d->shape;
    struct m40_workload workload = {s->n_tokens, s->n_heads * s->head_dim, 32, s->n_heads, s->head_dim, s->last_pos + 1, 0};
    m40_addr at[] = {put(be, d->cache, d->cache_bytes),
                     put(be, d->pos, s->n_tokens * sizeof *d->pos),
                     put(be, d->slot, s->n_tokens * sizeof *d->slot),
                     put(be, d->pages, d->n_slot_pages * sizeof *d->pages),
                     put(be, d->q, d->q_bytes),
                     put(be, d->q, d->q_bytes)};
    struct m40_kv_layer kv = {at[0], M40LLM_KV_F16, d->n_pages, s->n_kv_heads, s->head_dim};
    struct m40_rows rows = {s->n_tokens, s->last_pos, at[1], at[2], at[3], d->n_slot_pages};
    struct m40_attention_args args = {&kv, &rows, at[4], at[5], s->n_heads * s->head_dim, s->n_heads, 1.0f / sqrtf((float)s->head_dim)};
    m40llm_error err;

    assert_int_equal(be->ops.reserve(be, &workload, &err), M40LLM_OK);
    if (be->is_cuda && partials_bytes < m40_cuda_of(be)->scratch.partials.n_bytes)
        m40_cuda_of(be)->scratch.partials.n_bytes = partials_bytes;
    if (be->ops.attention(be, &args, &err) != M40LLM_OK || be->ops.read(be, y, at[5], d->q_bytes, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        be->ops.free(be, at[i]);
}

static void check_shape(struct m40_backend *cpu, struct m40_backend *cuda, struct shape s)
{
    const uint64_t token_bytes = (uint64_t)s.n_heads * (s.last_pos / M40_ATTN_PIECE + 1) * (s.head_dim + 2) * sizeof(float);
    const uint64_t room[] = {UINT64_MAX, 2 * token_bytes, token_bytes - 1};
    struct data d = make_data(s);
    float *expected = malloc(d.q_bytes), *got = malloc(d.q_bytes);

    assert_true(expected && got);
    attend(cpu, &d, 0, expected);
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        attend(cuda, &d, room[i], got);
        assert_memory_equal(got, expected, d.q_bytes);
    }
    free(expected);
    free(got);
    free_data(&d);
}

static void test_every_way_gives_the_same_bits(void **state)
{
    static const struct shape shapes[] = {
        {4, 2, 32, 3, 70},   /* slices of two and one */
        {20, 1, 64, 2, 65},  /* a group of two blocks when split */
        {40, 1, 40, 3, 64},  /* of three, and of two when fused */
        {66, 2, 24, 1, 10},  /* an odd last one */
        {2, 2, 32, 1, 4200}, /* 66 pieces */
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
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_shape(cpu, cuda, shapes[i]);
        m40_backend_close(&cuda);
        m40_backend_close(&cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_way_gives_the_same_bits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
