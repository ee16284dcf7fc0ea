#define _GNU_SOURCE
/* Opening a CUDA card: which one is taken, why one is refused and in which words; memory, copies and errors of the backend. All on the emulated driver, which can be told to be an old one, or a card that is
 * too small. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "base/mem.h"

struct log {
    char lines[8192];
    size_t n_bytes;
    unsigned n_warnings;
};

static void write_log(void *user, m40llm_log_level level, const char *line)
{
    struct log *log = user;

    log->n_warnings += level == M40LLM_LOG_WARN;
    if (log->n_bytes + strlen(line) + 2 < sizeof log->lines)
        log->n_bytes += (size_t)sprintf(log->lines + log->n_bytes, "%s\n", line);
}

static const char *const settings[] = {"DEVICES", "DRIVER", "CC", "MEMORY", "SEED"};

/* Back to the emulator as it comes; M40LLM_EMU_<name> = value then changes it for what is opened next. */
static int reset(void **state)
{
    char name[32];

    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        snprintf(name, sizeof name, "M40LLM_EMU_%s", settings[i]);
        unsetenv(name);
    }
    m40_mem_set_failure_hook(NULL, NULL);
    return 0;
}

static void emulate(const char *setting, const char *value)
{
    char name[32];

    snprintf(name, sizeof name, "M40LLM_EMU_%s", setting);
    setenv(name, value, 1);
}

static m40llm_device_options options_for(const char *spec, struct log *log)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;

    options.spec = spec;
    options.cuda_library = cuda_beside("libcuda-emu.so");
    if (log)
        options.logger = (m40llm_logger){write_log, log, M40LLM_LOG_DEBUG};
    return options;
}

static struct m40_backend *open_or_fail(const char *spec)
{
    m40llm_device_options options = options_for(spec, NULL);
    struct m40_backend *be = NULL;
    m40llm_error err;

    if (m40_backend_open(&be, &options, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    return be;
}

#define CONTAINS(text, part)                                                                                                                         \
    do {                                                                                                                                             \
        if (!strstr(text, part))                                                                                                                     \
            fail_msg("'%s' lacks '%s'", text, part);                                                                                                 \
    } while (0)

static void expect_refusal(const m40llm_device_options *options, m40llm_status code, const char *part, const char *part2)
{
    struct m40_backend *be = (struct m40_backend *)options;
    m40llm_error err;

    assert_int_equal(m40_backend_open(&be, options, &err), code);
    assert_null(be);
    assert_int_equal(err.code, code);
    CONTAINS(err.text, part);
    CONTAINS(err.text, part2);
}

static void test_best_card_is_opened_and_named(void **state)
{
    struct log log = {0};
    m40llm_device_options options = options_for("cuda", &log);
    struct m40_backend *be;
    m40llm_device_info info;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_backend_open(&be, &options, &err), M40LLM_OK);
    assert_true(be->is_cuda);
    be->ops.get_info(be, &info);
    assert_string_equal(info.spec, "cuda:0");
    assert_int_equal(info.cc_major * 10 + info.cc_minor, 52);
    assert_string_equal(info.driver, "12.4");
    assert_int_equal(info.memory_total_bytes, 512 << 20);
    assert_in_range(info.memory_free_bytes, 1, 512 << 20);
    CONTAINS(info.why, "the only card");
    assert_string_equal(info.pci, "0000:01:00.0");
    CONTAINS(log.lines, "device cuda:0");
    CONTAINS(log.lines, info.name);
    CONTAINS(log.lines, info.code);
    assert_int_equal(log.n_warnings, 0);
    m40_backend_close(&be);
    assert_null(be);
    m40_backend_close(&be);
}

static void test_numbered_card(void **state)
{
    m40llm_device_options options = options_for("cuda:7", NULL);
    struct m40_backend *be;
    m40llm_device_info info;

    (void)state;
    emulate("DEVICES", "3");
    be = open_or_fail("cuda:2");
    be->ops.get_info(be, &info);
    assert_string_equal(info.spec, "cuda:2");
    assert_string_equal(info.why, "asked for");
    m40_backend_close(&be);
    expect_refusal(&options, M40LLM_NO_DEVICE, "no cuda:7", "3 cards");
}

static void test_list_of_cards(void **state)
{
    m40llm_device_options options = options_for(NULL, NULL);
    m40llm_device_info info[2];
    char reason[256] = "?";
    size_t n = 0;
    m40llm_error err;

    (void)state;
    emulate("DEVICES", "3");
    assert_int_equal(m40_cuda_list(&options, info, 2, &n, reason, &err), M40LLM_OK);
    assert_int_equal(n, 3);
    assert_string_equal(reason, "");
    assert_string_equal(info[0].spec, "cuda:0");
    assert_string_equal(info[1].spec, "cuda:1");
    CONTAINS(info[0].why, "the best card");
    CONTAINS(info[1].why, "not the best card");

    emulate("CC", "35");
    assert_int_equal(m40_cuda_list(&options, info, 2, &n, reason, &err), M40LLM_OK);
    assert_int_equal(n, 3);
    CONTAINS(info[0].why, "3.5 is below 5.2");
    CONTAINS(reason, "no card can be used");

    emulate("DEVICES", "0");
    assert_int_equal(m40_cuda_list(&options, info, 2, &n, reason, &err), M40LLM_OK);
    assert_int_equal(n, 0);
    assert_string_not_equal(reason, "");
    assert_int_equal(m40_cuda_list(&options, info, 2, &n, NULL, &err), M40LLM_OK);
}

static void test_refusals(void **state)
{
    m40llm_device_options options = options_for("cuda", NULL);
    struct m40_backend *be;

    (void)state;
    emulate("DEVICES", "0");
    expect_refusal(&options, M40LLM_NO_DEVICE, "", "");
    reset(NULL);
    emulate("DRIVER", "8000");
    expect_refusal(&options, M40LLM_DRIVER_TOO_OLD, "8.0", "11.4");
    reset(NULL);
    emulate("CC", "35");
    expect_refusal(&options, M40LLM_NO_DEVICE, "compute capability 3.5", "5.2");
    emulate("CC", "61");
    be = open_or_fail("cuda");
    m40_backend_close(&be);
    options.require_sm52 = 1;
    expect_refusal(&options, M40LLM_NO_DEVICE, "compute capability 6.1", "5.2 is required");
    reset(NULL);
    options.cuda_library = "/nonexistent/libcuda.so.1";
    expect_refusal(&options, M40LLM_NO_DEVICE, "/nonexistent/libcuda.so.1", "");
}

static void test_specs_that_mean_nothing(void **state)
{
    static const char *const specs[] = {"", "gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cpu:0", "CUDA"};

    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        m40llm_device_options options = options_for(specs[i], NULL);

        expect_refusal(&options, M40LLM_INVALID_ARGUMENT, specs[i], "cuda:N");
    }
}

static void test_auto_takes_the_card_or_warns(void **state)
{
    struct log log = {0};
    m40llm_device_options options = options_for("auto", &log);
    struct m40_backend *be;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_backend_open(&be, &options, &err), M40LLM_OK);
    assert_true(be->is_cuda);
    assert_int_equal(log.n_warnings, 0);
    m40_backend_close(&be);

    options.spec = NULL;
    options.cuda_library = "/nonexistent/libcuda.so.1";
    assert_int_equal(m40_backend_open(&be, &options, &err), M40LLM_OK);
    assert_false(be->is_cuda);
    assert_int_equal(log.n_warnings, 1);
    CONTAINS(log.lines, "/nonexistent/libcuda.so.1");
    CONTAINS(log.lines, "running on the CPU");
    CONTAINS(log.lines, "device cpu");
    m40_backend_close(&be);
}

static void test_out_of_device_memory(void **state)
{
    struct m40_backend *be;
    struct m40_workload huge = {.n_tokens = 512, .n_cols = 16384, .n_rows = 1 << 20, .n_heads = 32, .head_dim = 128, .n_ctx = 8192};
    m40_addr addr = 1;
    m40llm_error err;

    (void)state;
    emulate("MEMORY", "16");
    be = open_or_fail("cuda");
    assert_int_equal(be->ops.alloc(be, 64 << 20, &addr, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(addr, 0);
    CONTAINS(err.text, "64.0 MiB needed on cuda:0");
    CONTAINS(err.text, "of 16.0 MiB are free");
    assert_int_equal(be->ops.reserve(be, &huge, &err), M40LLM_OUT_OF_DEVICE_MEMORY);
    CONTAINS(err.text, "needed on cuda:0");
    assert_int_equal(be->ops.alloc(be, 4 << 20, &addr, &err), M40LLM_OK);
    be->ops.free(be, addr);
    be->ops.free(be, 0);
    m40_backend_close(&be);
}

static void test_scratch_is_what_was_announced(void **state)
{
    struct m40_workload workload = {.n_tokens = 48, .n_cols = 4096, .n_rows = 5000, .n_heads = 16, .head_dim = 128, .n_ctx = 1024};
    struct m40_backend *be = open_or_fail("cuda");
    struct m40_cuda_scratch *scratch = &m40_cuda_of(be)->scratch;
    m40llm_error err;
    uint32_t counters[M40_CUDA_N_COUNTERS];

    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(be->ops.reserve(be, &workload, &err), M40LLM_OK);
        assert_int_equal(scratch->prepared_x.n_bytes + scratch->x_sums.n_bytes + scratch->partials.n_bytes + scratch->counters.n_bytes, m40_scratch_device_bytes(&workload));
        assert_true(scratch->prepared_x.n_bytes >= 48 * 256 * 16 * 4 && scratch->x_sums.n_bytes >= 48 * 256 * 4);
        assert_true(scratch->partials.n_bytes >= (uint64_t)2 * 16 * 5000 * 4);
        assert_int_equal(be->ops.read(be, counters, scratch->counters.addr, sizeof counters, &err), M40LLM_OK);
        for (size_t i = 0; i < M40_CUDA_N_COUNTERS; i++)
            assert_int_equal(counters[i], 0);
        workload.n_tokens = 16;
        workload.n_cols *= 3;
    }
    memset(&workload, 0xff, sizeof workload); /* nothing overflows */
    assert_true(m40_scratch_device_bytes(&workload) > (uint64_t)1 << 60);
    m40_backend_close(&be);
}

/* More than the ring of stages holds, in pieces of many sizes, with an operation that reads the last one between the copies. */
static void test_copies_are_in_order(void **state)
{
    enum { N_BYTES = 9 << 20, N_WRITES = 300 };
    uint64_t random = test_seed();
    uint8_t *expected = malloc(N_BYTES), *got = malloc(N_BYTES);

    (void)state;
    assert_true(expected && got);
    for (unsigned seed = 1; seed <= 2; seed++) {
        struct m40_backend *be;
        m40_addr addr, copy, row;
        m40llm_error err;

        cuda_seed(seed);
        be = open_or_fail("cuda");
        assert_int_equal(be->ops.alloc(be, N_BYTES, &addr, &err), M40LLM_OK);
        assert_int_equal(be->ops.alloc(be, N_WRITES * sizeof(float), &copy, &err), M40LLM_OK);
        assert_int_equal(be->ops.alloc(be, sizeof(int32_t), &row, &err), M40LLM_OK);
        for (size_t i = 0; i < N_BYTES; i++)
            expected[i] = (uint8_t)test_random(&random);
        assert_int_equal(be->ops.write(be, addr, expected, N_BYTES, &err), M40LLM_OK);
        for (int32_t i = 0; i < N_WRITES; i++) { /* row i of a table of ones: the copy of i must come before the gather, and after the one before */
            struct m40_gather_rows_args gather = {.x = addr, .rows = row, .y = copy + (uint64_t)i * 4, .n_rows = 1, .n_cols = 1};
            int32_t id = i * 7;

            assert_int_equal(be->ops.write(be, row, &id, sizeof id, &err), M40LLM_OK);
            id = -1;
            assert_int_equal(be->ops.gather_rows(be, &gather, &err), M40LLM_OK);
        }
        assert_int_equal(be->ops.read(be, got, addr, N_BYTES, &err), M40LLM_OK);
        assert_memory_equal(got, expected, N_BYTES);
        assert_int_equal(be->ops.read(be, got, copy, N_WRITES * sizeof(float), &err), M40LLM_OK);
        for (int32_t i = 0; i < N_WRITES; i++)
            assert_memory_equal(got + i * 4, expected + i * 7 * 4, 4);
        assert_int_equal(be->ops.sync(be, &err), M40LLM_OK);
        be->ops.free(be, addr);
        be->ops.free(be, copy);
        be->ops.free(be, row);
        m40_backend_close(&be);
    }
    free(expected);
    free(got);
}

static CUresult fail_to_wait(CUstream stream)
{
    (void)stream;
    return CUDA_ERROR_LAUNCH_FAILED;
}

static void test_device_errors_name_the_last_kernel(void **state)
{
    struct m40_backend *be = open_or_fail("cuda");
    struct m40_cuda_driver *driver = m40_cuda_of(be)->driver;
    CUresult (*wait)(CUstream stream) = driver->StreamSynchronize;
    m40_addr x;
    m40llm_error err;

    (void)state;
    assert_int_equal(be->ops.alloc(be, 1024, &x, &err), M40LLM_OK);
    assert_int_equal(be->ops.silu_mul(be, &(struct m40_silu_mul_args){.gate = x, .up = x, .y = x, .n_rows = 1, .n_cols = 256, .stride = 256}, &err),
                     M40LLM_OK);
    driver->StreamSynchronize = fail_to_wait;
    assert_int_equal(be->ops.sync(be, &err), M40LLM_DRIVER);
    driver->StreamSynchronize = wait;
    CONTAINS(err.text, "waiting for the device");
    CONTAINS(err.text, "silu_mul");
    CONTAINS(err.text, "CUDA_ERROR_LAUNCH_FAILED");
    be->ops.free(be, x);
    m40_backend_close(&be);
}

static bool fail_nth(void *user)
{
    int *n_left = user;

    return (*n_left)-- == 0;
}

static void test_host_memory_may_run_out_while_opening(void **state)
{
    m40llm_status status = M40LLM_NO_MEMORY;

    (void)state;
    for (int n = 0; status != M40LLM_OK; n++) {
        m40llm_device_options options = options_for("auto", NULL);
        struct m40_backend *be;
        m40llm_error err;
        int n_left = n;

        m40_mem_set_failure_hook(fail_nth, &n_left);
        status = m40_backend_open(&be, &options, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        if (status != M40LLM_OK) {
            assert_int_equal(status, M40LLM_NO_MEMORY);
            assert_null(be);
        }
        m40_backend_close(&be);
        assert_true(n < 100);
    }
}

static void test_bandwidth_is_measured(void **state)
{
    struct m40_backend *be;
    double bytes_per_s = 0.0;
    m40llm_error err;

    (void)state;
    emulate("MEMORY", "40");
    be = open_or_fail("cuda");
    assert_int_equal(be->ops.measure_bandwidth(be, &bytes_per_s, &err), M40LLM_OK);
    assert_true(bytes_per_s > 0.0);
    m40_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_best_card_is_opened_and_named, reset),
        cmocka_unit_test_setup(test_numbered_card, reset),
        cmocka_unit_test_setup(test_list_of_cards, reset),
        cmocka_unit_test_setup(test_refusals, reset),
        cmocka_unit_test_setup(test_specs_that_mean_nothing, reset),
        cmocka_unit_test_setup(test_auto_takes_the_card_or_warns, reset),
        cmocka_unit_test_setup(test_out_of_device_memory, reset),
        cmocka_unit_test_setup(test_scratch_is_what_was_announced, reset),
        cmocka_unit_test_setup(test_copies_are_in_order, reset),
        cmocka_unit_test_setup(test_device_errors_name_the_last_kernel, reset),
        cmocka_unit_test_setup(test_host_memory_may_run_out_while_opening, reset),
        cmocka_unit_test_setup(test_bandwidth_is_measured, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
