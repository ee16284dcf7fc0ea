#define _GNU_SOURCE
/* Matrices on top of each other: one matmul gives the bits of several; parts that do not fit, or for which there is no memory, stay as they are; and a model's layers are stacked. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "base/half.h"
#include "model/model.h"
#include "model/synth.h"

enum { N_PARTS = 3, N_COLS = 512, N_TOKENS = 3, N_ROWS = 64 + 32 + 17 };

static const uint32_t part_rows[N_PARTS] = {64, 32, 17};
static m40llm_error err;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

static struct m40_backend *open_cuda(void)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;
    const char *library = getenv("M40LLM_CUDA_LIB");
    struct m40_workload workload = {.n_tokens = N_TOKENS, .n_cols = N_COLS, .n_rows = N_ROWS, .n_heads = 1, .head_dim = 32, .n_ctx = 64};
    struct m40_backend *be;

    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    OK(m40_backend_open_cuda(&be, &options, &err));
    OK(be->ops.reserve(be, &workload, &err));
    return be;
}

/* The parts' rows, and each part as a matrix of its own. */
static void make_parts(struct m40_backend *be, struct m40_matrix_part *rows_of, struct m40_matrix *parts)
{
    static uint16_t rows[N_PARTS][64 * N_COLS];
    uint64_t random = test_seed();

    for (uint32_t i = 0; i < N_PARTS; i++) {
        for (uint32_t j = 0; j < part_rows[i] * N_COLS; j++)
            rows[i][j] = m40_f32_to_f16(test_random_float(&random));
        rows_of[i] = (struct m40_matrix_part){rows[i], part_rows[i], false};
        OK(be->ops.matrix_create(be, m40_format(M40_DTYPE_F16), part_rows[i], N_COLS, rows[i], &parts[i], &err));
    }
}

static void multiply(struct m40_backend *be, const struct m40_matrix *w, float *y)
{
    static float x[N_TOKENS * N_COLS];
    uint64_t random = test_seed() ^ 7;
    m40_addr memory, at_y;

    for (size_t i = 0; i < N_TOKENS * N_COLS; i++)
        x[i] = test_random_float(&random);
    OK(be->ops.alloc(be, sizeof x + N_TOKENS * N_ROWS * sizeof *y, &memory, &err));
    at_y = memory + sizeof x;
    OK(be->ops.write(be, memory, x, sizeof x, &err));
    OK(be->ops.matmul(be, &(struct m40_matmul_args){.w = w, .x = memory, .y = at_y, .n_tokens = N_TOKENS}, &err));
    OK(be->ops.read(be, y, at_y, N_TOKENS * w->n_rows * sizeof *y, &err));
    be->ops.free(be, memory);
}

static void test_a_stack_gives_the_bits_of_its_parts(void **state)
{
    struct m40_backend *be = open_cuda();
    struct m40_matrix parts[N_PARTS], stacked;
    struct m40_matrix_part rows_of[N_PARTS];
    static float y[N_PARTS][N_TOKENS * 64], all[N_TOKENS * N_ROWS];
    uint32_t first = 0;

    (void)state;
    make_parts(be, rows_of, parts);
    for (uint32_t i = 0; i < N_PARTS; i++)
        multiply(be, &parts[i], y[i]);
    OK(be->ops.matrix_create_stacked(be, m40_format(M40_DTYPE_F16), N_COLS, rows_of, N_PARTS, &stacked, &err));
    assert_int_equal(stacked.n_rows, N_ROWS);
    multiply(be, &stacked, all);
    for (uint32_t i = 0; i < N_PARTS; i++) {
        for (uint32_t t = 0; t < N_TOKENS; t++)
            assert_memory_equal(all + t * N_ROWS + first, y[i] + t * part_rows[i], part_rows[i] * sizeof *all);
        first += part_rows[i];
        be->ops.matrix_destroy(be, &parts[i]);
    }
    be->ops.matrix_destroy(be, &stacked);
    m40_backend_close(&be);
}

static CUresult no_memory(CUdeviceptr *ptr, size_t n_bytes)
{
    (void)ptr;
    (void)n_bytes;
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void test_parts_stay_where_they_cannot_be_stacked(void **state)
{
    struct m40_backend *be = open_cuda();
    struct m40_cuda_driver *driver = m40_cuda_of(be)->driver;
    CUresult (*alloc)(CUdeviceptr *, size_t) = driver->MemAlloc;
    const struct m40_format *f16 = m40_format(M40_DTYPE_F16);
    struct m40_matrix parts[N_PARTS], stacked;
    struct m40_matrix_part rows_of[N_PARTS];
    static float y[N_TOKENS * 64], again[N_TOKENS * 64];

    (void)state;
    make_parts(be, rows_of, parts);
    multiply(be, &parts[0], y);
    rows_of[0] = rows_of[2]; /* 17 rows end within a tile */
    assert_int_equal(be->ops.matrix_create_stacked(be, f16, N_COLS, rows_of, N_PARTS, &stacked, &err), M40LLM_INVALID_ARGUMENT);
    driver->MemAlloc = no_memory;
    assert_int_equal(be->ops.matrix_create_stacked(be, f16, N_COLS, rows_of + 1, 2, &stacked, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    driver->MemAlloc = alloc;
    assert_int_equal(stacked.n_rows, 0);
    multiply(be, &parts[0], again);
    assert_memory_equal(y, again, sizeof y);
    for (uint32_t i = 0; i < N_PARTS; i++)
        be->ops.matrix_destroy(be, &parts[i]);
    m40_backend_close(&be);
}

static void test_layers_are_stacked(void **state)
{
    struct m40_backend *be = open_cuda();
    struct m40_gguf *gguf;
    struct m40_model *model;
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "q8_0", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        const struct m40_layer_weights *l = &model->layers[i];

        assert_int_equal(l->qkv.n_rows, (model->config.n_heads + 2 * model->config.n_kv_heads) * model->config.head_dim);
        assert_int_equal(l->gate_up.n_rows, 2 * model->config.n_ff);
        assert_int_equal(l->q.n_rows + l->k.n_rows + l->v.n_rows + l->gate.n_rows + l->up.n_rows, 0);
    }
    m40_model_close(&model);
    m40_gguf_close(&gguf);
    m40_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stack_gives_the_bits_of_its_parts),
        cmocka_unit_test(test_parts_stay_where_they_cannot_be_stacked),
        cmocka_unit_test(test_layers_are_stacked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
