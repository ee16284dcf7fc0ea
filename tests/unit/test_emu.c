/* The emulated driver itself: mistakes of kernels and of host code must show, and what CUDA promises must hold for every seed. */
#define _GNU_SOURCE
#include "unit/cuda_fixture.h"

#include "backend/cuda/kernels/kernel_args.h"
#include "emu_kernels/wrong.h"

#include <signal.h>
#include <sys/wait.h>

#define SEEDS 16

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#define WITH_ASAN __has_feature(address_sanitizer)
#else
#define WITH_ASAN 0
#endif

/* The emulator looks kernels up by their names in the PTX, so this much will do for those of tests/emu_kernels. */
static const char ptx[] = ".version 6.0\n.target sm_52\n.address_size 64\n"
                          ".visible .entry wrong_no_barrier(\n)\n.visible .entry wrong_deadlock(\n)\n.visible .entry right_early_exit(\n)\n"
                          ".visible .entry wrong_spin(\n)\n.visible .entry wrong_misaligned(\n)\n.visible .entry wrong_overrun(\n)\n"
                          ".visible .entry wrong_uninitialised(\n)\n.visible .entry count_up(\n)\n.visible .entry not_compiled(\n)\n";

static struct cuda open_seeded(unsigned seed)
{
    cuda_seed(seed);
    return cuda_open(cuda_beside("libcuda-emu-test.so"), ptx);
}

/* Runs one of the kernels over out[n]. */
static CUresult run_words(const struct cuda *c, const char *kernel, unsigned grid, unsigned block, uint32_t *out, uint32_t n)
{
    CUdeviceptr d = cuda_new(c, out, n * sizeof *out);
    struct wrong_args args = {cuda_pointer(d), n};
    CUresult result;

    CUDA_OK(cuda_launch(c, kernel, grid, block, &args));
    result = c->d->StreamSynchronize(c->stream);
    if (result == CUDA_SUCCESS) {
        cuda_get(c, out, d, n * sizeof *out);
        CUDA_OK(c->d->MemFree(d));
    }
    return result;
}

/* ---- kernels ---- */

static void test_missing_barrier_shows(void **state)
{
    uint32_t first[256] = {0}, out[256];
    int n_wrong = 0, n_different = 0;

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct cuda c = open_seeded(seed);
        bool wrong = false;

        memset(out, 0, sizeof out);
        CUDA_OK(run_words(&c, "wrong_no_barrier", 2, 128, out, 256));
        for (uint32_t i = 0; i < 256; i++)
            wrong |= out[i] != 127 - i % 128;
        n_wrong += wrong;
        if (seed == 1)
            memcpy(first, out, sizeof out);
        n_different += memcmp(first, out, sizeof out) != 0;
        cuda_close(&c);
    }
    assert_int_equal(n_wrong, SEEDS);
    assert_true(n_different >= SEEDS - 2);
}

static void test_a_seed_repeats(void **state)
{
    uint32_t a[256] = {0}, b[256] = {0};

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        struct cuda c = open_seeded(5);

        CUDA_OK(run_words(&c, "wrong_no_barrier", 2, 128, turn ? b : a, 256));
        cuda_close(&c);
    }
    assert_memory_equal(a, b, sizeof a);
}

static void test_returned_threads_do_not_count(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct cuda c = open_seeded(seed);
        uint32_t out[77] = {0};

        CUDA_OK(run_words(&c, "right_early_exit", 1, 128, out, 77));
        for (uint32_t i = 0; i < 77; i++)
            assert_int_equal(out[i], 76 - i);
        cuda_close(&c);
    }
}

/* The launch fails, everything after it fails alike, and a new context works again. */
static void check_failing(const char *kernel, CUresult want)
{
    struct cuda c = open_seeded(3);
    uint32_t out[128] = {0};
    size_t n_free, n_total;

    assert_int_equal(run_words(&c, kernel, 2, 128, out, 128), want);
    assert_int_equal(c.d->MemGetInfo(&n_free, &n_total), want);
    assert_int_equal(c.d->CtxSynchronize(), want);
    cuda_close(&c);
    c = open_seeded(3);
    CUDA_OK(run_words(&c, "count_up", 1, 128, out, 128));
    assert_int_equal(out[127], 1);
    cuda_close(&c);
}

static void test_deadlock_is_found(void **state)
{
    (void)state;
    check_failing("wrong_deadlock", CUDA_ERROR_LAUNCH_FAILED);
}

static void test_endless_spin_is_found(void **state)
{
    (void)state;
    check_failing("wrong_spin", CUDA_ERROR_LAUNCH_TIMEOUT);
}

static void test_misaligned_atomic_is_found(void **state)
{
    (void)state;
    check_failing("wrong_misaligned", CUDA_ERROR_MISALIGNED_ADDRESS);
}

static void test_memory_starts_poisoned(void **state)
{
    struct cuda c = open_seeded(1);
    uint32_t out[128] = {0};
    CUdeviceptr d = cuda_new(&c, NULL, sizeof out);

    (void)state;
    cuda_get(&c, out, d, sizeof out);
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], 0xCDCDCDCDu);
    CUDA_OK(run_words(&c, "wrong_uninitialised", 1, 128, out, 128));
    for (int i = 0; i < 128; i++)
        assert_int_equal(out[i], 0x7FE5A5A5u);
    cuda_close(&c);
}

static void test_launch_is_checked(void **state)
{
    struct cuda c = open_seeded(1);
    struct wrong_args args = {0};
    void *params[1] = {&args};
    CUfunction f = cuda_function(&c, "count_up");

    (void)state;
    assert_int_equal(cuda_launch(&c, "count_up", 1, 129, &args), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    assert_int_equal(cuda_launch(&c, "count_up", 0, 32, &args), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->LaunchKernel(f, 1, 65536, 1, 32, 1, 1, 0, c.stream, params, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->LaunchKernel(f, 1, 1, 1, 32, 2, 1, 0, c.stream, params, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->LaunchKernel(f, 1, 1, 1, 32, 1, 1, 64, c.stream, params, NULL), CUDA_ERROR_INVALID_VALUE);
    cuda_close(&c);
}

/* ---- memory ---- */

/* Whether the child that runs f(arg) dies of it. */
static bool child_dies(void (*f)(const struct cuda *c, CUdeviceptr d), const struct cuda *c, CUdeviceptr d)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        fclose(stderr);
        for (int signal_number = 1; signal_number < 32; signal_number++)
            signal(signal_number, SIG_DFL);
        f(c, d);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void read_from_host(const struct cuda *c, CUdeviceptr d)
{
    (void)c;
    (void)*(volatile uint32_t *)cuda_pointer(d);
}

static void read_by_copy(const struct cuda *c, CUdeviceptr d)
{
    uint32_t v;

    if (c->d->MemcpyDtoH(&v, d, 4) != CUDA_SUCCESS || v != 0xCDCDCDCDu)
        _exit(1);
}

static void test_host_cannot_read_device_memory(void **state)
{
    struct cuda c = open_seeded(1);
    CUdeviceptr d = cuda_new(&c, NULL, 4096);

    (void)state;
    assert_true(child_dies(read_from_host, &c, d));
    assert_false(child_dies(read_by_copy, &c, d));
    cuda_close(&c);
}

#if WITH_ASAN
static void overrun(const struct cuda *c, CUdeviceptr d)
{
    struct wrong_args args = {cuda_pointer(d), 1024};

    if (cuda_launch(c, "wrong_overrun", 1, 32, &args) == CUDA_SUCCESS)
        c->d->StreamSynchronize(c->stream);
}

static void test_kernel_overrun_is_found(void **state)
{
    struct cuda c = open_seeded(1);
    CUdeviceptr d = cuda_new(&c, NULL, 4096);

    (void)state;
    assert_true(child_dies(overrun, &c, d));
    cuda_close(&c);
}
#endif

static void test_copies_are_bounded(void **state)
{
    struct cuda c = open_seeded(1);
    CUdeviceptr d = cuda_new(&c, NULL, 1000);
    char host[1001];

    (void)state;
    assert_int_equal(d % 256, 0);
    CUDA_OK(c.d->MemcpyDtoH(host, d, 1000));
    CUDA_OK(c.d->MemcpyDtoH(host, d + 999, 1));
    assert_int_equal(c.d->MemcpyDtoH(host, d, 1001), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->MemcpyHtoD(d - 1, host, 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->MemsetD32Async(d + 2, 0, 1, c.stream), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->MemFree(d + 256), CUDA_ERROR_INVALID_VALUE);
    CUDA_OK(c.d->MemFree(d));
    assert_int_equal(c.d->MemFree(d), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(c.d->MemcpyDtoH(host, d, 1), CUDA_ERROR_INVALID_VALUE);
    cuda_close(&c);
}

static void test_memory_runs_out(void **state)
{
    struct cuda c;
    size_t n_free, n_total;
    CUdeviceptr a, b, huge;

    (void)state;
    setenv("M40LLM_EMU_MEMORY", "8", 1);
    c = open_seeded(1);
    CUDA_OK(c.d->MemGetInfo(&n_free, &n_total));
    assert_int_equal(n_total, 8 << 20);
    assert_int_equal(n_free, 8 << 20);
    assert_int_equal(c.d->MemAlloc(&huge, 9 << 20), CUDA_ERROR_OUT_OF_MEMORY);
    CUDA_OK(c.d->MemAlloc(&a, 5 << 20));
    assert_int_equal(c.d->MemAlloc(&b, 5 << 20), CUDA_ERROR_OUT_OF_MEMORY);
    CUDA_OK(c.d->MemGetInfo(&n_free, &n_total));
    assert_int_equal(n_free, 3 << 20);
    CUDA_OK(c.d->MemFree(a));
    CUDA_OK(c.d->MemAlloc(&b, 8 << 20));
    cuda_close(&c);
    unsetenv("M40LLM_EMU_MEMORY");
}

/* ---- devices and modules ---- */

static m40llm_status open_with(const char *name, const char *value, m40llm_error *err)
{
    struct m40_cuda_driver *d;
    m40llm_status status;

    setenv(name, value, 1);
    status = m40_cuda_driver_open(&d, cuda_beside("libcuda-emu-test.so"), err);
    unsetenv(name);
    if (status != M40LLM_OK)
        assert_null(d);
    m40_cuda_driver_close(&d);
    return status;
}

static void test_no_device_and_old_driver(void **state)
{
    m40llm_error err;

    (void)state;
    assert_int_equal(open_with("M40LLM_EMU_DEVICES", "0", &err), M40LLM_NO_DEVICE);
    assert_non_null(strstr(err.text, "CUDA_ERROR_NO_DEVICE"));
    assert_int_equal(open_with("M40LLM_EMU_DRIVER", "11020", &err), M40LLM_DRIVER_TOO_OLD);
    assert_non_null(strstr(err.text, "11.2"));
    assert_int_equal(open_with("M40LLM_EMU_DRIVER", "11040", &err), M40LLM_OK);
}

static void test_modules_are_checked(void **state)
{
    struct cuda c = open_seeded(1);
    CUmodule module;
    CUfunction f;

    (void)state;
    assert_int_equal(c.d->ModuleLoadData(&module, "\177ELF"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(c.d->ModuleLoadData(&module, "nonsense"), CUDA_ERROR_INVALID_IMAGE);
    assert_int_equal(c.d->ModuleLoadData(&module, ".version 6.0\n.target sm_70\n"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(c.d->ModuleGetFunction(&f, c.module, "count_u"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(c.d->ModuleGetFunction(&f, c.module, "selftest_scale"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(c.d->ModuleGetFunction(&f, c.module, "not_compiled"), CUDA_ERROR_NOT_FOUND);
    cuda_close(&c);
}

static void test_shared_memory_limits_residency(void **state)
{
    struct cuda c;
    CUfunction f;
    int n;

    (void)state;
    cuda_seed(1);
    c = cuda_open(cuda_beside("libcuda-emu.so"), cuda_ptx("selftest"));
    f = cuda_function(&c, "selftest_reduce");
    CUDA_OK(c.d->FuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f));
    assert_int_equal(n, 1024);
    CUDA_OK(c.d->OccupancyMaxActiveBlocks(&n, f, 256, 0));
    assert_int_equal(n, 8);
    CUDA_OK(c.d->OccupancyMaxActiveBlocks(&n, f, 32, 0));
    assert_int_equal(n, 32);
    cuda_close(&c);
}

/* ---- asynchronous work ---- */

/* out = 100 by a copy on one stream, then count_up on another, with or without an event between: how many seeds give 101. */
static int seeds_with_right_order(bool with_event)
{
    int n_right = 0;

    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct cuda c = open_seeded(seed);
        const uint32_t hundred = 100;
        uint32_t out = 0;
        CUdeviceptr d = cuda_new(&c, &out, 4);
        struct wrong_args args = {cuda_pointer(d), 1};
        CUstream copies;
        CUevent event;

        CUDA_OK(c.d->StreamCreateWithPriority(&copies, CU_STREAM_NON_BLOCKING, -1));
        CUDA_OK(c.d->EventCreate(&event, CU_EVENT_DISABLE_TIMING));
        CUDA_OK(c.d->MemcpyHtoDAsync(d, &hundred, 4, copies));
        CUDA_OK(c.d->EventRecord(event, copies));
        if (with_event)
            CUDA_OK(c.d->StreamWaitEvent(c.stream, event, 0));
        CUDA_OK(cuda_launch(&c, "count_up", 1, 32, &args));
        CUDA_OK(c.d->CtxSynchronize());
        CUDA_OK(c.d->MemcpyDtoH(&out, d, 4));
        n_right += out == 101;
        CUDA_OK(c.d->EventDestroy(event));
        CUDA_OK(c.d->StreamDestroy(copies));
        cuda_close(&c);
    }
    return n_right;
}

static void test_missing_stream_wait_shows(void **state)
{
    int n_right;

    (void)state;
    assert_int_equal(seeds_with_right_order(true), SEEDS);
    n_right = seeds_with_right_order(false);
    assert_in_range(n_right, 1, SEEDS - 1);
}

static void test_early_reuse_of_a_copys_source_shows(void **state)
{
    int n_old = 0;

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct cuda c = open_seeded(seed);
        uint32_t value = 1, out;
        CUdeviceptr d = cuda_new(&c, NULL, 4);

        CUDA_OK(c.d->MemcpyHtoDAsync(d, &value, 4, c.stream));
        value = 2;
        cuda_get(&c, &out, d, 4);
        n_old += out == 1;
        cuda_close(&c);
    }
    assert_in_range(n_old, 1, SEEDS - 1);
}

static void test_default_stream_does_not_order_others(void **state)
{
    int n_ordered = 0;

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct cuda c = open_seeded(seed);
        uint32_t out = 0;
        CUdeviceptr d = cuda_new(&c, &out, 4);
        struct wrong_args args = {cuda_pointer(d), 1};

        CUDA_OK(cuda_launch(&c, "count_up", 1, 32, &args));
        CUDA_OK(c.d->MemcpyDtoH(&out, d, 4));
        n_ordered += out == 1;
        cuda_get(&c, &out, d, 4);
        assert_int_equal(out, 1);
        cuda_close(&c);
    }
    assert_in_range(n_ordered, 1, SEEDS - 1);
}

static void test_events(void **state)
{
    struct cuda c = open_seeded(2);
    CUevent start, end, untimed;
    float ms;

    (void)state;
    CUDA_OK(c.d->EventCreate(&start, 0));
    CUDA_OK(c.d->EventCreate(&end, 0));
    CUDA_OK(c.d->EventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
    CUDA_OK(c.d->EventQuery(start)); /* never recorded: done */
    CUDA_OK(c.d->StreamWaitEvent(c.stream, start, 0));
    assert_int_equal(c.d->EventElapsedTime(&ms, start, end), CUDA_ERROR_INVALID_HANDLE);
    CUDA_OK(c.d->EventRecord(start, c.stream));
    CUDA_OK(c.d->EventRecord(untimed, c.stream));
    CUDA_OK(c.d->EventRecord(end, c.stream));
    CUDA_OK(c.d->EventSynchronize(end));
    CUDA_OK(c.d->EventQuery(start));
    CUDA_OK(c.d->EventElapsedTime(&ms, start, end));
    assert_true(ms >= 0.0f && ms < 1000.0f);
    assert_int_equal(c.d->EventElapsedTime(&ms, start, untimed), CUDA_ERROR_INVALID_HANDLE);
    CUDA_OK(c.d->EventRecord(start, c.stream));
    CUDA_OK(c.d->EventDestroy(start)); /* may still be pending */
    while (c.d->StreamQuery(c.stream) == CUDA_ERROR_NOT_READY)
        ;
    CUDA_OK(c.d->EventDestroy(end));
    CUDA_OK(c.d->EventDestroy(untimed));
    cuda_close(&c);
}

/* memset, then count_up on a second stream that forks off and joins again, then count_up. */
static CUgraph capture(const struct cuda *c, CUdeviceptr d, CUstream side)
{
    struct wrong_args args = {cuda_pointer(d), 100};
    void *params[1] = {&args};
    CUdeviceptr refused;
    CUevent event;
    CUgraph graph;

    CUDA_OK(c->d->EventCreate(&event, CU_EVENT_DISABLE_TIMING));
    CUDA_OK(c->d->StreamBeginCapture(c->stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    assert_int_equal(c->d->MemAlloc(&refused, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CUDA_OK(c->d->MemsetD32Async(d, 5, 100, c->stream));
    CUDA_OK(c->d->EventRecord(event, c->stream));
    CUDA_OK(c->d->StreamWaitEvent(side, event, 0));
    CUDA_OK(c->d->LaunchKernel(cuda_function(c, "count_up"), 1, 1, 1, 128, 1, 1, 0, side, params, NULL));
    CUDA_OK(c->d->EventRecord(event, side));
    CUDA_OK(c->d->StreamWaitEvent(c->stream, event, 0));
    CUDA_OK(cuda_launch(c, "count_up", 1, 128, &args));
    CUDA_OK(c->d->StreamEndCapture(c->stream, &graph));
    CUDA_OK(c->d->EventDestroy(event));
    return graph;
}

static void test_graph_replays(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 8; seed++) {
        struct cuda c = open_seeded(seed);
        uint32_t out[100] = {0};
        CUdeviceptr d = cuda_new(&c, out, sizeof out);
        CUstream side;
        CUgraph graph;
        CUgraphExec exec;

        CUDA_OK(c.d->StreamCreate(&side, CU_STREAM_NON_BLOCKING));
        graph = capture(&c, d, side);
        cuda_get(&c, out, d, sizeof out);
        assert_int_equal(out[0], 0); /* captured, not executed */
        CUDA_OK(c.d->GraphInstantiate(&exec, graph, 0));
        CUDA_OK(c.d->GraphDestroy(graph));
        for (int turn = 0; turn < 3; turn++) {
            CUDA_OK(c.d->GraphLaunch(exec, c.stream));
            cuda_get(&c, out, d, sizeof out);
            for (int i = 0; i < 100; i++)
                assert_int_equal(out[i], 7);
        }
        CUDA_OK(c.d->GraphExecDestroy(exec));
        CUDA_OK(c.d->StreamDestroy(side));
        cuda_close(&c);
    }
}

static void test_capture_is_broken_by_waiting(void **state)
{
    struct cuda c = open_seeded(1);
    CUgraph graph;

    (void)state;
    CUDA_OK(c.d->StreamBeginCapture(c.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    assert_int_equal(c.d->StreamSynchronize(c.stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(c.d->StreamEndCapture(c.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_null(graph);
    CUDA_OK(c.d->StreamSynchronize(c.stream));
    cuda_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_barrier_shows),
        cmocka_unit_test(test_a_seed_repeats),
        cmocka_unit_test(test_returned_threads_do_not_count),
        cmocka_unit_test(test_deadlock_is_found),
        cmocka_unit_test(test_endless_spin_is_found),
        cmocka_unit_test(test_misaligned_atomic_is_found),
        cmocka_unit_test(test_memory_starts_poisoned),
        cmocka_unit_test(test_launch_is_checked),
        cmocka_unit_test(test_host_cannot_read_device_memory),
#if WITH_ASAN
        cmocka_unit_test(test_kernel_overrun_is_found),
#endif
        cmocka_unit_test(test_copies_are_bounded),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_no_device_and_old_driver),
        cmocka_unit_test(test_modules_are_checked),
        cmocka_unit_test(test_shared_memory_limits_residency),
        cmocka_unit_test(test_missing_stream_wait_shows),
        cmocka_unit_test(test_early_reuse_of_a_copys_source_shows),
        cmocka_unit_test(test_default_stream_does_not_order_others),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_graph_replays),
        cmocka_unit_test(test_capture_is_broken_by_waiting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
