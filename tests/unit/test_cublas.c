#define _GNU_SOURCE
/* Matmuls by cuBLAS, on a fake library and the emulated driver: when it is used and when it is refused, the row-major contract of its product, and matmuls in one piece and in several.
 * What the real library computes is checked by the parity grid on a card. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_launch_cublas.h"
#include "base/half.h"
#include "base/log.h"
#include "base/mem.h"
#include "fake_cublas/fake_cublas.h"

#include <dlfcn.h>
#include <math.h>
#include <sys/wait.h>

static m40llm_error err;

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

#define CONTAINS(text, part)                                                                                                                         \
    do {                                                                                                                                             \
        if (!strstr(text, part))                                                                                                                     \
            fail_msg("'%s' lacks '%s'", text, part);                                                                                                 \
    } while (0)

/* ---- opening ---- */

static const char *driver_library(void)
{
    static char path[PATH_MAX];

    return strcpy(path, cuda_beside("libcuda-emu-test.so"));
}

static const char *fake_library(void)
{
    static char path[PATH_MAX];

    return strcpy(path, cuda_beside("libcublas-fake.so"));
}

static const struct fake_cublas_calls *calls(void)
{
    void *library = dlopen(fake_library(), RTLD_NOW | RTLD_NOLOAD);
    const struct fake_cublas_calls *found = library ? dlsym(library, "fake_cublas_calls") : NULL;

    if (library)
        dlclose(library); /* the backend holds it */
    return found;
}

static int reset(void **state)
{
    static const char *const names[] = {"M40LLM_FAKE_CUBLAS_MAJOR", "M40LLM_FAKE_CUBLAS_FAIL", "M40LLM_EMU_CC", "M40LLM_EMU_MEMORY",
                                        "M40LLM_EMU_SEED"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    m40_mem_set_failure_hook(NULL, NULL);
    return 0;
}

static m40llm_device_options cublas_options(void)
{
    m40llm_device_options options = M40LLM_DEVICE_OPTIONS_INIT;

    options.spec = "cuda";
    options.cuda_library = driver_library();
    options.use_cublas = 1;
    options.cublas_library = fake_library();
    return options;
}

static struct m40_backend *open_with_cublas(void)
{
    m40llm_device_options options = cublas_options();
    struct m40_backend *be;

    OK(m40_backend_open(&be, &options, &err));
    return be;
}

static void expect_refusal(const m40llm_device_options *options, m40llm_status code, const char *part, const char *part2)
{
    struct m40_backend *be = (struct m40_backend *)options;

    assert_int_equal(m40_backend_open(&be, options, &err), code);
    assert_null(be);
    CONTAINS(err.text, part);
    CONTAINS(err.text, part2);
    assert_null(calls()); /* closed again */
}

struct log {
    char lines[4096];
    unsigned n_warnings;
};

static void write_log(void *user, m40llm_log_level level, const char *line)
{
    struct log *log = user;
    const size_t n = strlen(log->lines);

    log->n_warnings += level == M40LLM_LOG_WARN;
    snprintf(log->lines + n, sizeof log->lines - n, "%s\n", line);
}

static void test_it_is_off_unless_asked_for_and_announced(void **state)
{
    (void)state;
    for (int is_on = 0; is_on < 2; is_on++) {
        m40llm_device_options options = cublas_options();
        struct log log = {.n_warnings = 0};
        struct m40_backend *be;
        m40llm_device_info info;

        options.use_cublas = is_on;
        options.logger = (m40llm_logger){write_log, &log, M40LLM_LOG_INFO};
        OK(m40_backend_open(&be, &options, &err));
        be->ops.get_info(be, &info);
        assert_int_equal(m40_cuda_of(be)->cublas != NULL, is_on);
        assert_int_equal(calls() ? calls()->n_handles : 0, is_on);
        assert_int_equal(strstr(info.code, "52, cuBLAS 12.4.5") != NULL, is_on);
        assert_int_equal(strstr(log.lines, "cuda:0: matmuls of 128 tokens and more by cuBLAS 12.4.5") != NULL, is_on);
        assert_int_equal(strstr(log.lines, "not bit-equal") != NULL, is_on);
        assert_int_equal(log.n_warnings, is_on);
        m40_backend_close(&be);
        assert_null(calls());
    }
}

static void test_missing_library(void **state)
{
    m40llm_device_options options = cublas_options();

    (void)state;
    options.cublas_library = "/nowhere/libcublas.so.12";
    expect_refusal(&options, M40LLM_NO_CUBLAS, "no cuBLAS", "/nowhere/libcublas.so.12");
    options.spec = "auto"; /* does not fall to the CPU */
    expect_refusal(&options, M40LLM_NO_CUBLAS, "no cuBLAS", "/nowhere/libcublas.so.12");
    options.cublas_library = "libm.so.6";
    expect_refusal(&options, M40LLM_NO_CUBLAS, "libm.so.6", "lacks cublasGetProperty");
}

/* What the system has of the names that are tried: an error for a Maxwell card has to name it, or all of them. In a process of its own, since NVIDIA's library leaves memory behind. */
static void test_library_by_name(void **state)
{
    int result = 0;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        struct m40_cublas *b = NULL;
        m40llm_status status = m40_cublas_open(&b, NULL, 52, &err);

        _exit(status == M40LLM_OK ? !b : status != M40LLM_NO_CUBLAS || !strstr(err.text, "libcublas.so.1"));
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
}

static void test_version_13_has_no_maxwell(void **state)
{
    m40llm_device_options options = cublas_options();
    struct m40_backend *be;

    (void)state;
    setenv("M40LLM_FAKE_CUBLAS_MAJOR", "13", 1);
    expect_refusal(&options, M40LLM_NO_CUBLAS, "cuBLAS 13.4.5", "no code for compute capability 5.2");
    setenv("M40LLM_EMU_CC", "75", 1);
    OK(m40_backend_open(&be, &options, &err));
    m40_backend_close(&be);
}

static void test_every_failing_call_is_named(void **state)
{
    static const struct {
        const char *function, *part, *status;
    } cases[] = {
        {"cublasGetProperty", "asking for the version", "CUBLAS_STATUS_INVALID_VALUE (7)"},
        {"cublasCreate_v2", "starting", "CUBLAS_STATUS_ALLOC_FAILED (3)"},
        {"cublasSetStream_v2", "stream", "CUBLAS_STATUS_NOT_INITIALIZED (1)"},
        {"cublasSetWorkspace_v2", "workspace", "CUBLAS_STATUS_INVALID_VALUE (7)"},
        {"cublasSetMathMode", "arithmetic", "CUBLAS_STATUS_NOT_SUPPORTED (15)"},
    };
    m40llm_device_options options = cublas_options();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("M40LLM_FAKE_CUBLAS_FAIL", cases[i].function, 1);
        expect_refusal(&options, M40LLM_NO_CUBLAS, cases[i].part, cases[i].status);
    }
}

static void test_no_memory(void **state)
{
    m40llm_device_options options = cublas_options();

    (void)state;
    setenv("M40LLM_EMU_MEMORY", "2", 1); /* less than the workspace */
    expect_refusal(&options, M40LLM_OUT_OF_DEVICE_MEMORY, "4.0 MiB needed", "cuda:0");
}

static bool fail_nth(void *user)
{
    int *left = user;

    return (*left)-- == 0;
}

static void test_no_host_memory(void **state)
{
    m40llm_device_options options = cublas_options();
    int n = 0;

    (void)state;
    for (;; n++) {
        int left = n;
        struct m40_backend *be = NULL;
        m40llm_status status;

        m40_mem_set_failure_hook(fail_nth, &left);
        status = m40_backend_open(&be, &options, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        m40_backend_close(&be);
        if (status == M40LLM_OK)
            break;
        assert_int_equal(status, M40LLM_NO_MEMORY);
        assert_null(calls());
    }
    assert_true(n > 3);
}

/* ---- the product ---- */

/* Three sizes that differ, and strides that are none of them. */
enum { N_TOKENS = 5, N_ROWS = 7, N_COLS = 11, X_STRIDE = 13, W_STRIDE = 17, Y_STRIDE = 9 };

static m40_addr upload(struct m40_backend *be, const void *data, uint64_t n_bytes)
{
    m40_addr addr;

    OK(be->ops.alloc(be, n_bytes, &addr, &err));
    OK(be->ops.write(be, addr, data, n_bytes, &err));
    return addr;
}

static void fill(float *out, size_t n, uint64_t seed)
{
    uint64_t random = test_seed() ^ seed;

    for (size_t i = 0; i < n; i++)
        out[i] = test_random_float(&random);
}

static void test_row_major_product(void **state)
{
    float x[N_TOKENS * X_STRIDE], w[N_ROWS * W_STRIDE], before[N_TOKENS * Y_STRIDE], y[N_TOKENS * Y_STRIDE];
    struct m40_backend *be = open_with_cublas();
    const struct m40_cublas *b = m40_cuda_of(be)->cublas->library;
    struct m40_cublas_matrix mx = {.n_bytes = sizeof x, .n_rows = N_TOKENS, .n_cols = N_COLS, .stride = X_STRIDE};
    struct m40_cublas_matrix mw = {.n_bytes = sizeof w, .n_rows = N_ROWS, .n_cols = N_COLS, .stride = W_STRIDE};
    struct m40_cublas_matrix my = {.n_bytes = sizeof y, .n_rows = N_TOKENS, .n_cols = N_ROWS, .stride = Y_STRIDE};

    (void)state;
    fill(x, N_TOKENS * X_STRIDE, 1);
    fill(w, N_ROWS * W_STRIDE, 2);
    mx.addr = upload(be, x, sizeof x);
    mw.addr = upload(be, w, sizeof w);
    for (int is_added = 0; is_added < 2; is_added++) {
        fill(before, N_TOKENS * Y_STRIDE, 3);
        for (size_t i = 0; i < N_TOKENS * Y_STRIDE && !is_added; i++)
            before[i] = NAN; /* must not be read */
        my.addr = upload(be, before, sizeof before);
        OK(m40_cublas_multiply(b, &mx, &mw, &my, is_added, &err));
        OK(be->ops.read(be, y, my.addr, sizeof y, &err));
        be->ops.free(be, my.addr);
        for (int t = 0; t < N_TOKENS; t++) {
            for (int r = 0; r < Y_STRIDE; r++) {
                double sum = is_added ? before[t * Y_STRIDE + r] : 0;

                for (int c = 0; c < N_COLS && r < N_ROWS; c++)
                    sum += (double)x[t * X_STRIDE + c] * w[r * W_STRIDE + c];
                if (r < N_ROWS)
                    assert_true(fabs(y[t * Y_STRIDE + r] - sum) < 1e-5);
                else
                    assert_memory_equal(&y[t * Y_STRIDE + r], &before[t * Y_STRIDE + r], sizeof *y);
            }
        }
    }
    assert_int_equal(calls()->n_products, 2);
    assert_int_equal(calls()->op_a, CUBLAS_OP_T);
    assert_int_equal(calls()->op_b, CUBLAS_OP_N);
    assert_int_equal(calls()->m, N_ROWS);
    assert_int_equal(calls()->n, N_TOKENS);
    assert_int_equal(calls()->k, N_COLS);
    assert_int_equal(calls()->lda, W_STRIDE);
    assert_int_equal(calls()->ldb, X_STRIDE);
    assert_int_equal(calls()->ldc, Y_STRIDE);
    be->ops.free(be, mx.addr);
    be->ops.free(be, mw.addr);
    m40_backend_close(&be);
}

/* Every way for the three not to fit: an error each, and the library is not called. */
static void test_mismatches_are_refused(void **state)
{
    static const struct m40_cublas_matrix x = {4096, N_TOKENS * X_STRIDE * 4, N_TOKENS, N_COLS, X_STRIDE};
    static const struct m40_cublas_matrix w = {8192, N_ROWS * W_STRIDE * 4, N_ROWS, N_COLS, W_STRIDE};
    static const struct m40_cublas_matrix y = {12288, N_TOKENS * Y_STRIDE * 4, N_TOKENS, N_ROWS, Y_STRIDE};
    const uint64_t least_x = ((N_TOKENS - 1) * X_STRIDE + N_COLS) * 4, huge = 1ull << 31, all = UINT64_MAX;
    const struct {
        struct m40_cublas_matrix x, w, y;
        const char *part;
    } cases[] = {
        {{4096, x.n_bytes, N_TOKENS, N_COLS, N_COLS - 1}, w, y, "x of 5 x 11, rows 10 floats apart"},
        {x, {8192, w.n_bytes, N_ROWS, N_COLS, N_COLS - 1}, y, "w of 7 x 11, rows 10 floats apart"},
        {x, w, {12288, y.n_bytes, N_TOKENS, N_ROWS, N_ROWS - 1}, "y of 5 x 7, rows 6 floats apart"},
        {{4096, least_x - 4, N_TOKENS, N_COLS, X_STRIDE}, w, y, "does not lie in 248 bytes"},
        {x, {8192, 4, N_ROWS, N_COLS, W_STRIDE}, y, "w of 7 x 11"},
        {x, w, {12288, 4, N_TOKENS, N_ROWS, Y_STRIDE}, "y of 5 x 7"},
        {{0, x.n_bytes, N_TOKENS, N_COLS, X_STRIDE}, w, y, "x of"},
        {{4098, x.n_bytes, N_TOKENS, N_COLS, X_STRIDE}, w, y, "at 0x1002"},
        {x, {8193, w.n_bytes, N_ROWS, N_COLS, W_STRIDE}, y, "w of"},
        {x, w, {12290, y.n_bytes, N_TOKENS, N_ROWS, Y_STRIDE}, "y of"},
        {{4096, x.n_bytes, 0, N_COLS, X_STRIDE}, w, y, "x of 0 x 11"},
        {x, {8192, w.n_bytes, N_ROWS, 0, W_STRIDE}, y, "w of 7 x 0"},
        {{4096, all, huge, N_COLS, X_STRIDE}, w, y, "x of 2147483648 x 11"},
        {x, {8192, all, N_ROWS, huge, huge}, y, "w of 7 x 2147483648"},
        {x, w, {12288, all, N_TOKENS, N_ROWS, huge}, "rows 2147483648 floats apart"},
        {{4096, x.n_bytes, N_TOKENS, N_COLS - 1, X_STRIDE}, w, y, "x of 5 x 10 and w of 7 x 11 do not make y of 5 x 7"},
        {x, w, {12288, y.n_bytes, N_TOKENS - 1, N_ROWS, Y_STRIDE}, "do not make y of 4 x 7"},
        {x, w, {12288, y.n_bytes, N_TOKENS, N_ROWS - 1, Y_STRIDE}, "do not make y of 5 x 6"},
        {x, w, {12288, all, N_ROWS, N_TOKENS, Y_STRIDE}, "do not make y of 7 x 5"}, /* transposed */
        {x, w, {4096 + least_x - 4, y.n_bytes, N_TOKENS, N_ROWS, Y_STRIDE}, "y shares memory"},
        {x, w, {8192 - 4, y.n_bytes, N_TOKENS, N_ROWS, Y_STRIDE}, "y shares memory"},
    };
    struct m40_backend *be = open_with_cublas();
    const struct m40_cublas *b = m40_cuda_of(be)->cublas->library;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(m40_cublas_multiply(b, &cases[i].x, &cases[i].w, &cases[i].y, false, &err), M40LLM_INVALID_ARGUMENT);
        CONTAINS(err.text, cases[i].part);
    }
    assert_int_equal(calls()->n_products, 0);
    m40_backend_close(&be);
}

static void test_failing_product(void **state)
{
    struct m40_backend *be = open_with_cublas();
    const struct m40_cublas_matrix x = {4096, 4, 1, 1, 1}, w = {8192, 4, 1, 1, 1}, y = {12288, 4, 1, 1, 1};

    (void)state;
    setenv("M40LLM_FAKE_CUBLAS_FAIL", "cublasSgemm_v2", 1);
    assert_int_equal(m40_cublas_multiply(m40_cuda_of(be)->cublas->library, &x, &w, &y, false, &err), M40LLM_DRIVER);
    CONTAINS(err.text, "cublasSgemm: CUBLAS_STATUS_EXECUTION_FAILED (13)");
    m40_backend_close(&be);
}

/* ---- matmuls ---- */

enum { MAX_TOKENS = 130, MAX_ROWS = 2000, K = 288, MIN_TOKENS = M40_CUBLAS_MIN_TOKENS };

/* A matmul whose results are compared with those of our kernels. */
struct job {
    struct m40_matrix w;
    m40_addr x, bias, residual, y;
    uint32_t n_rows;
};

static struct job make_job(struct m40_backend *be, uint32_t dtype, uint32_t n_rows)
{
    static float numbers[MAX_TOKENS * MAX_ROWS];
    const struct m40_format *format = m40_format(dtype);
    const size_t n_bytes = (size_t)n_rows * K / format->type->block_elems * format->type->block_bytes;
    uint8_t *rows = calloc(n_bytes, 1);
    uint64_t random = test_seed();
    struct job job = {.n_rows = n_rows};

    assert_non_null(rows);
    for (size_t i = 0; i < n_bytes; i++)
        rows[i] = (uint8_t)test_random(&random);
    for (size_t i = 0; i < n_bytes; i += format->type->block_bytes) { /* a scale between 1 and 2, and, in Q4_1, an offset */
        rows[i + 1] = (uint8_t)(0x3c | (rows[i + 1] & 3));
        rows[i + 3] = (uint8_t)(0x3c | (rows[i + 3] & 3));
    }
    OK(be->ops.reserve(be, &(struct m40_workload){.n_tokens = MAX_TOKENS, .n_cols = K, .n_rows = MAX_ROWS, .n_heads = 1, .head_dim = 32, .n_ctx = 64},
                       &err));
    OK(be->ops.matrix_create(be, format, n_rows, K, rows, &job.w, &err));
    free(rows);
    fill(numbers, sizeof numbers / sizeof *numbers, 5);
    job.x = upload(be, numbers, MAX_TOKENS * K * sizeof(float));
    job.bias = upload(be, numbers, n_rows * sizeof(float));
    job.residual = upload(be, numbers, (uint64_t)MAX_TOKENS * n_rows * sizeof(float));
    job.y = upload(be, numbers, (uint64_t)MAX_TOKENS * n_rows * sizeof(float));
    return job;
}

static void free_job(struct m40_backend *be, struct job *job)
{
    be->ops.matrix_destroy(be, &job->w);
    be->ops.free(be, job->x);
    be->ops.free(be, job->bias);
    be->ops.free(be, job->residual);
    be->ops.free(be, job->y);
}

enum { WITH_BIAS = 1, WITH_RESIDUAL = 2, IN_PLACE = 4 };

static struct m40_matmul_args args_of(const struct job *job, uint32_t n_tokens, int with)
{
    return (struct m40_matmul_args){.w = &job->w,
                                    .x = job->x,
                                    .bias = with & WITH_BIAS ? job->bias : 0,
                                    .residual = with & IN_PLACE        ? job->y
                                                : with & WITH_RESIDUAL ? job->residual
                                                                       : 0,
                                    .y = job->y,
                                    .n_tokens = n_tokens};
}

static void run_job(struct m40_backend *be, const struct job *job, uint32_t n_tokens, int with, float *y)
{
    struct m40_matmul_args args = args_of(job, n_tokens, with);
    const uint64_t n_bytes = (uint64_t)n_tokens * job->n_rows * sizeof(float);

    OK(be->ops.copy(be, job->y, with & IN_PLACE ? job->residual : job->x + 1024, n_bytes, &err)); /* or something that must not show */
    OK(be->ops.matmul(be, &args, &err));
    OK(be->ops.read(be, y, job->y, n_bytes, &err));
}

static void expect_near(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= 1e-3f * 1000)) /* terms of up to 30, 288 of them */
            fail_msg("element %zu: %g, expected %g", i, (double)a[i], (double)b[i]);
}

/* In one piece, and in as many as a small card's memory makes it. */
static void test_matmuls_agree_with_our_kernels(void **state)
{
    static const struct {
        const char *memory;
        uint32_t dtype, n_rows;
        unsigned n_pieces; /* of 32 rows x 288 columns in a sixteenth of the memory */
    } cases[] = {
        {"512", M40_DTYPE_Q8_0, 97, 1}, {"512", M40_DTYPE_Q4_1, MAX_ROWS, 1}, {"32", M40_DTYPE_Q4_1, MAX_ROWS, 2}, {"32", M40_DTYPE_Q8_0, 1792, 1}};
    static const int withs[] = {0, WITH_BIAS, WITH_RESIDUAL, WITH_BIAS | WITH_RESIDUAL, IN_PLACE, WITH_BIAS | IN_PLACE};
    static float ours[MAX_TOKENS * MAX_ROWS], theirs[MAX_TOKENS * MAX_ROWS];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct m40_backend *be;
        struct job job;

        setenv("M40LLM_EMU_MEMORY", cases[i].memory, 1);
        be = open_with_cublas();
        job = make_job(be, cases[i].dtype, cases[i].n_rows);
        for (size_t j = 0; j < sizeof withs / sizeof *withs; j++) {
            struct m40_cuda_cublas *cublas = m40_cuda_of(be)->cublas;
            const unsigned n_products = calls()->n_products;

            cublas->min_tokens = UINT32_MAX;
            run_job(be, &job, 3, withs[j], ours);
            assert_int_equal(calls()->n_products, n_products);
            cublas->min_tokens = 1;
            run_job(be, &job, 3, withs[j], theirs);
            assert_int_equal(calls()->n_products, n_products + cases[i].n_pieces);
            expect_near(theirs, ours, (size_t)3 * job.n_rows);
        }
        free_job(be, &job);
        m40_backend_close(&be);
    }
}

static void test_few_tokens_are_ours(void **state)
{
    static float y[MAX_TOKENS * 64];
    struct m40_backend *be = open_with_cublas();
    struct job job = make_job(be, M40_DTYPE_Q8_0, 64);

    (void)state;
    run_job(be, &job, MIN_TOKENS - 1, 0, y);
    assert_int_equal(calls()->n_products, 0);
    run_job(be, &job, MIN_TOKENS, 0, y);
    assert_int_equal(calls()->n_products, 1);
    assert_int_equal(calls()->n, MIN_TOKENS);
    free_job(be, &job);
    m40_backend_close(&be);
}

/* A step is issued directly, recorded, and launched whole: the same bits, and nothing is allocated. */
static void test_steps_are_recorded(void **state)
{
    static float first[4 * 97], y[4 * 97];
    struct m40_backend *be = open_with_cublas();
    struct job job = make_job(be, M40_DTYPE_Q4_1, 97);
    struct m40_matmul_args args = args_of(&job, 4, WITH_BIAS | WITH_RESIDUAL);
    const struct m40_step_key key = {job.y, 4, 0, 0, false};
    uint64_t n_allocs;

    (void)state;
    m40_cuda_of(be)->cublas->min_tokens = 1;
    n_allocs = m40_cuda_of(be)->counters.n_allocs;
    for (int turn = 0; turn < 4; turn++) {
        bool is_issued;

        OK(be->ops.step_begin(be, &key, &is_issued, &err));
        assert_int_equal(is_issued, turn >= 2);
        if (!is_issued) {
            OK(be->ops.matmul(be, &args, &err));
            OK(be->ops.step_end(be, true, &err));
        }
        OK(be->ops.read(be, turn ? y : first, job.y, sizeof y, &err));
        if (turn)
            assert_memory_equal(y, first, sizeof y);
        OK(be->ops.copy(be, job.y, job.residual, sizeof y, &err)); /* something else */
    }
    assert_int_equal(m40_cuda_of(be)->counters.n_allocs, n_allocs);
    assert_int_equal(calls()->n_products, 2);
    free_job(be, &job);
    m40_backend_close(&be);
}

static void test_matrix_too_wide_for_the_scratch_memory(void **state)
{
    struct m40_backend *be;
    struct m40_matrix w = {.format = m40_format(M40_DTYPE_F32), .n_rows = 1, .n_cols = 8225}; /* 32 rows are more than 1 MiB */
    struct m40_matmul_args args = {.w = &w, .x = 4096, .y = 8192, .n_tokens = 200};

    (void)state;
    setenv("M40LLM_EMU_MEMORY", "16", 1);
    be = open_with_cublas();
    assert_int_equal(m40_cuda_cublas_matmul(m40_cuda_of(be), NULL, &args, &err), M40LLM_UNSUPPORTED);
    CONTAINS(err.text, "8225 columns");
    args.n_tokens = 0;
    OK(m40_cuda_cublas_matmul(m40_cuda_of(be), NULL, &args, &err));
    m40_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_it_is_off_unless_asked_for_and_announced, reset),
        cmocka_unit_test_setup(test_missing_library, reset),
        cmocka_unit_test_setup(test_library_by_name, reset),
        cmocka_unit_test_setup(test_version_13_has_no_maxwell, reset),
        cmocka_unit_test_setup(test_every_failing_call_is_named, reset),
        cmocka_unit_test_setup(test_no_memory, reset),
        cmocka_unit_test_setup(test_no_host_memory, reset),
        cmocka_unit_test_setup(test_row_major_product, reset),
        cmocka_unit_test_setup(test_mismatches_are_refused, reset),
        cmocka_unit_test_setup(test_failing_product, reset),
        cmocka_unit_test_setup(test_matmuls_agree_with_our_kernels, reset),
        cmocka_unit_test_setup(test_few_tokens_are_ours, reset),
        cmocka_unit_test_setup(test_steps_are_recorded, reset),
        cmocka_unit_test_setup(test_matrix_too_wide_for_the_scratch_memory, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
