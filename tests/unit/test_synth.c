/* Random models: the same bytes for any number of threads, valid models of every type, weights of a sane size, and no file left behind by a write that did not end well. */
#include "harness/harness.h"

#include "base/mem.h"
#include "model/model.h"
#include "model/synth.h"
#include "tensor/format.h"

#include <math.h>
#include <omp.h>
#include <unistd.h>

static const char *const types[] = {"f32",  "f16",  "bf16", "q4_0", "q4_1", "q5_0",   "q5_1",   "q8_0",
                                    "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"};

enum { N_TYPES = sizeof types / sizeof *types };

static const char *path_of(const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", test_tmp_dir(), name);
    return path;
}

static char *write_and_read(const char *type, int n_threads, size_t *n_bytes)
{
    const char *path = path_of("bytes.gguf");
    m40llm_error err;
    int before = omp_get_max_threads();

    omp_set_num_threads(n_threads);
    if (m40_synth_write("tiny", type, path, NULL, NULL, &err) != M40LLM_OK)
        fail_msg("%s: %s", type, err.text);
    omp_set_num_threads(before);
    return test_read_file(path, n_bytes);
}

static void test_bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        size_t n_one, n_two;
        char *one = write_and_read(types[i], 1, &n_one), *two = write_and_read(types[i], 2, &n_two);

        assert_int_equal(n_one, n_two);
        assert_memory_equal(one, two, n_one);
        free(two);
        two = write_and_read(types[i], 3, &n_two);
        assert_memory_equal(one, two, n_one);
        free(one);
        free(two);
    }
}

static void check_matrix(const struct m40_gguf_tensor *t)
{
    float *values = malloc(t->n_elements * sizeof *values);
    double sum = 0, squares = 0, std, wanted = 1.0 / sqrt((double)t->dims[0]);

    assert_non_null(values);
    m40_format(t->type->number)->dequant(t->data, t->n_elements / t->type->block_elems, values);
    for (uint64_t i = 0; i < t->n_elements; i++) {
        if (!isfinite(values[i]))
            fail_msg("%s: value %llu is %g", t->name.data, (unsigned long long)i, (double)values[i]);
        sum += values[i];
        squares += (double)values[i] * values[i];
    }
    std = sqrt(squares / (double)t->n_elements);
    if (std < wanted / 2 || std > wanted * 2)
        fail_msg("%s (%s): standard deviation %g, wanted about %g", t->name.data, t->type->name, std, wanted);
    if (fabs(sum / (double)t->n_elements) > 0.05 * wanted)
        fail_msg("%s (%s): mean %g beside a standard deviation of %g", t->name.data, t->type->name, sum / (double)t->n_elements, std);
    free(values);
}

static void check_norm(const struct m40_gguf_tensor *t)
{
    const float *values = (const float *)t->data;

    assert_int_equal(t->type->number, M40_DTYPE_F32);
    for (uint64_t i = 0; i < t->n_elements; i++)
        assert_true(values[i] >= 1.0f && values[i] <= 1.125f);
}

/* A step of a few tokens: logits are finite and of the size that a tied random embedding gives. */
static void check_forward(const struct m40_gguf *gguf)
{
    enum { N = 8, N_VOCAB = 512 };
    static const int32_t ids[N] = {256, 72, 101, 108, 108, 111, 300, 511}, pos[N] = {0, 1, 2, 3, 4, 5, 6, 7}, slot[N] = {0}, pages[1] = {0};
    const struct m40_forward_limits limits = {N, N, 1, 1, 1, M40LLM_KV_F16};
    const struct m40_batch batch = {.n_tokens = N, .ids = ids, .pos = pos, .slot = slot, .n_logits = N, .logit_rows = pos, .pages = pages};
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    static float logits[N * N_VOCAB];
    struct m40_backend *backend;
    struct m40_model *model;
    struct m40_forward *forward;
    double squares = 0;

    options.n_threads = 1;
    assert_int_equal(m40_backend_open_cpu(&backend, &options, NULL), M40LLM_OK);
    assert_int_equal(m40_model_open(&model, gguf, backend, NULL, NULL, NULL), M40LLM_OK);
    assert_int_equal(m40_forward_open(&forward, model, &limits, NULL), M40LLM_OK);
    assert_int_equal(m40_forward_step(forward, &batch, logits, NULL), M40LLM_OK);
    for (int i = 0; i < N * N_VOCAB; i++) {
        assert_true(isfinite(logits[i]));
        squares += (double)logits[i] * logits[i];
    }
    squares /= N * N_VOCAB;
    assert_true(squares > 0.05 && squares < 20);
    m40_forward_close(&forward);
    m40_model_close(&model);
    m40_backend_close(&backend);
}

static void test_every_type_is_a_model_of_sane_weights(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES; i++) {
        const char *path = path_of("model.gguf");
        struct m40_gguf *gguf;
        m40llm_model_info info;
        m40llm_error err;

        assert_int_equal(m40_synth_write("tiny", types[i], path, NULL, NULL, NULL), M40LLM_OK);
        assert_int_equal(m40_gguf_open(&gguf, path, &err), M40LLM_OK);
        if (m40_model_describe(gguf, M40LLM_KV_F16, &info, &err) != M40LLM_OK)
            fail_msg("%s: %s", types[i], err.text);
        assert_int_equal(info.n_layers, 2);
        assert_int_equal(info.n_embd, 256);
        assert_int_equal(info.head_dim, 32);
        assert_int_equal(info.n_vocab, 512);
        for (size_t k = 0; k < gguf->n_tensors; k++)
            if (gguf->tensors[k].n_dims == 2) {
                assert_string_equal(gguf->tensors[k].type->name, types[i]);
                check_matrix(&gguf->tensors[k]);
            } else {
                check_norm(&gguf->tensors[k]);
            }
        check_forward(gguf);
        m40_gguf_close(&gguf);
    }
}

/* No two matrices, and no two stretches of one, have the same bytes. */
static void test_tensors_differ(void **state)
{
    const char *path = path_of("model.gguf");
    struct m40_gguf *gguf;
    const struct m40_gguf_tensor *q, *out, *table;

    (void)state;
    assert_int_equal(m40_synth_write("tiny", "f16", path, NULL, NULL, NULL), M40LLM_OK);
    assert_int_equal(m40_gguf_open(&gguf, path, NULL), M40LLM_OK);
    q = m40_gguf_find_tensor(gguf, "blk.0.attn_q.weight");
    out = m40_gguf_find_tensor(gguf, "blk.0.attn_output.weight");
    table = m40_gguf_find_tensor(gguf, "token_embd.weight");
    assert_memory_not_equal(q->data, out->data, 4096);
    assert_memory_not_equal(q->data, m40_gguf_find_tensor(gguf, "blk.1.attn_q.weight")->data, 4096);
    for (uint64_t at = 4096; at < table->size_bytes; at += 4096)
        assert_memory_not_equal(table->data, table->data + at, 4096);
    m40_gguf_close(&gguf);
}

/* A mixture runs; NAME/LAYERS has fewer layers; a type whose blocks do not fit a shape's rows is refused by the tensor's name. */
static void test_mixtures_and_fewer_layers(void **state)
{
    static const char *const bad[] = {"tiny/3", "tiny/0", "tiny/", "tiny/1x", "tiny/-1", "tin/1"};
    const char *path = path_of("model.gguf");
    struct m40_gguf *gguf;
    m40llm_error err;
    uint64_t n_layers;

    (void)state;
    assert_int_equal(m40_synth_write("tiny-moe/1", "q4_k", path, NULL, NULL, NULL), M40LLM_OK);
    assert_int_equal(m40_gguf_open(&gguf, path, NULL), M40LLM_OK);
    assert_true(m40_gguf_kv_u64(m40_gguf_find_kv(gguf, "qwen3moe.block_count"), &n_layers) && n_layers == 1);
    assert_int_equal(m40_gguf_find_tensor(gguf, "blk.0.ffn_down_exps.weight")->dims[2], 8);
    check_forward(gguf);
    m40_gguf_close(&gguf);
    path = path_of("never.gguf");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(m40_synth_write(bad[i], "q4_k", path, NULL, NULL, NULL), M40LLM_INVALID_ARGUMENT);
    assert_int_equal(m40_synth_write("gpt-oss-20b/1", "q4_k", path, NULL, NULL, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "blk.0.ffn_gate_exps.weight has rows of 2880 weights"));
    assert_int_equal(access(path, F_OK), -1);
}

static void test_unknown_names_are_refused_with_the_list(void **state)
{
    const char *path = path_of("never.gguf");
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_synth_write("70b", "q4_k", path, NULL, NULL, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "'70b'"));
    assert_non_null(strstr(err.text, m40_synth_shapes()));
    assert_int_equal(m40_synth_write("tiny", "q4_x", path, NULL, NULL, &err), M40LLM_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "'q4_x'"));
    for (int i = 0; i < N_TYPES; i++)
        assert_non_null(strstr(err.text, types[i]));
    assert_int_equal(m40_synth_write("tiny", "iq2_s", path, NULL, NULL, &err), M40LLM_INVALID_ARGUMENT); /* a known type that cannot be read */
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(m40_synth_write("tiny", "q4_k", path_of("no/such/folder.gguf"), NULL, NULL, &err), M40LLM_IO);
}

static int cancel_after(void *user, uint64_t done, uint64_t total)
{
    int *n_left = user;

    assert_true(done <= total);
    return (*n_left)-- == 0;
}

static void test_cancelled_write_leaves_no_file(void **state)
{
    m40llm_error err;

    (void)state;
    for (int n = 0; n < 20; n += 6) {
        int n_left = n;

        assert_int_equal(m40_synth_write("tiny", "f32", path_of("cancelled.gguf"), cancel_after, &n_left, &err), M40LLM_CANCELLED);
        assert_int_equal(access(path_of("cancelled.gguf"), F_OK), -1);
    }
}

static bool fail_one(void *user)
{
    return (*(int *)user)-- == 0;
}

static void test_allocation_failure(void **state)
{
    m40llm_status status = M40LLM_NO_MEMORY;
    m40llm_error err;
    int k;

    (void)state;
    for (k = 0; status != M40LLM_OK; k++) {
        int n_left = k;

        m40_mem_set_failure_hook(fail_one, &n_left);
        status = m40_synth_write("tiny", "q2_k", path_of("alloc.gguf"), NULL, NULL, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        assert_true(status == M40LLM_OK || status == M40LLM_NO_MEMORY);
        assert_int_equal(access(path_of("alloc.gguf"), F_OK), status == M40LLM_OK ? 0 : -1);
    }
    assert_true(k > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_do_not_depend_on_threads),
        cmocka_unit_test(test_every_type_is_a_model_of_sane_weights),
        cmocka_unit_test(test_tensors_differ),
        cmocka_unit_test(test_mixtures_and_fewer_layers),
        cmocka_unit_test(test_unknown_names_are_refused_with_the_list),
        cmocka_unit_test(test_cancelled_write_leaves_no_file),
        cmocka_unit_test(test_allocation_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
