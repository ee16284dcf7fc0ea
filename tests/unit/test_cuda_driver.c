#define _GNU_SOURCE
/* The driver table and the device self-test: on $M40LLM_CUDA_LIB (a real libcuda.so.1 works, too) or the emulated driver, there with eight orders of threads. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/kernels/kernel_args.h"
#include "base/half.h"

#include <math.h>

#define SEEDS 8

static const char *library(void)
{
    const char *path = getenv("M40LLM_CUDA_LIB");

    return path ? path : cuda_beside("libcuda-emu.so");
}

static void on_every_seed(void (*check)(const struct cuda *c, uint64_t *random))
{
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        uint64_t random = test_seed() + seed;
        struct cuda c;

        cuda_seed(seed);
        c = cuda_open(library(), cuda_ptx("selftest"));
        check(&c, &random);
        cuda_close(&c);
    }
}

static void check_scale(const struct cuda *c, uint64_t *random)
{
    enum { N = 1000 };
    float x[N], scaled[N], roots[N];
    uint16_t halves[N];
    struct selftest_scale_args args = {.n = N, .factor = 1.7f, .offset = 0.3f};
    CUdeviceptr dx, dh, dr;

    for (int i = 0; i < N; i++)
        x[i] = test_random_float(random) * (i % 3 ? 1.0f : 1e-6f);
    dx = cuda_new(c, x, sizeof x);
    dh = cuda_new(c, NULL, sizeof halves);
    dr = cuda_new(c, NULL, sizeof roots);
    args.x = cuda_pointer(dx);
    args.h = cuda_pointer(dh);
    args.r = cuda_pointer(dr);
    CUDA_OK(cuda_launch(c, "selftest_scale", (N + 255) / 256, 256, &args));
    cuda_get(c, scaled, dx, sizeof x);
    cuda_get(c, halves, dh, sizeof halves);
    cuda_get(c, roots, dr, sizeof roots);
    for (int i = 0; i < N; i++) {
        float want = fmaf(x[i], 1.7f, 0.3f);

        assert_memory_equal(&scaled[i], &want, 4);
        assert_int_equal(halves[i], m40_f32_to_f16(want));
        if (want >= 0)
            assert_true(roots[i] == sqrtf(want));
        else
            assert_true(isnan(roots[i]));
    }
    CUDA_OK(c->d->MemFree(dx));
    CUDA_OK(c->d->MemFree(dh));
    CUDA_OK(c->d->MemFree(dr));
}

static void test_scale(void **state)
{
    (void)state;
    on_every_seed(check_scale);
}

static void check_reduce(const struct cuda *c, uint64_t *random)
{
    enum { BLOCKS = 37 };
    static float x[BLOCKS * 256];
    float sums[BLOCKS];
    struct selftest_reduce_args args;
    CUdeviceptr dx, ds;

    for (int i = 0; i < BLOCKS * 256; i++)
        x[i] = test_random_float(random);
    dx = cuda_new(c, x, sizeof x);
    ds = cuda_new(c, NULL, sizeof sums);
    args.x = cuda_pointer(dx);
    args.sums = cuda_pointer(ds);
    CUDA_OK(cuda_launch(c, "selftest_reduce", BLOCKS, 256, &args));
    cuda_get(c, sums, ds, sizeof sums);
    for (int b = 0; b < BLOCKS; b++) {
        float *v = x + b * 256;

        for (int distance = 128; distance > 0; distance /= 2)
            for (int i = 0; i < distance; i++)
                v[i] += v[i + distance];
        assert_memory_equal(&sums[b], v, 4);
    }
    CUDA_OK(c->d->MemFree(dx));
    CUDA_OK(c->d->MemFree(ds));
}

static void test_reduce(void **state)
{
    (void)state;
    on_every_seed(check_reduce);
}

static void check_shuffle(const struct cuda *c, uint64_t *random)
{
    enum { N = 5 * 96 };
    uint32_t x[N], rotated[N], summed[N], votes[N];
    struct selftest_shuffle_args args;
    CUdeviceptr dx, d[3];

    for (int i = 0; i < N; i++)
        x[i] = (uint32_t)test_random(random);
    dx = cuda_new(c, x, sizeof x);
    for (int i = 0; i < 3; i++)
        d[i] = cuda_new(c, NULL, sizeof x);
    args = (struct selftest_shuffle_args){cuda_pointer(dx), cuda_pointer(d[0]), cuda_pointer(d[1]), cuda_pointer(d[2])};
    CUDA_OK(cuda_launch(c, "selftest_shuffle", 5, 96, &args));
    cuda_get(c, rotated, d[0], sizeof x);
    cuda_get(c, summed, d[1], sizeof x);
    cuda_get(c, votes, d[2], sizeof x);
    for (int w = 0; w < N; w += 32) {
        uint32_t sum = 0, odd = 0;

        for (int i = 0; i < 32; i++) {
            sum += x[w + i];
            odd |= (x[w + i] & 1) << i;
        }
        for (int i = 0; i < 32; i++) {
            assert_int_equal(rotated[w + i], x[w + (i + 1) % 32]);
            assert_int_equal(summed[w + i], sum);
            assert_int_equal(votes[w + i], odd);
        }
    }
    CUDA_OK(c->d->MemFree(dx));
    for (int i = 0; i < 3; i++)
        CUDA_OK(c->d->MemFree(d[i]));
}

static void test_shuffle(void **state)
{
    (void)state;
    on_every_seed(check_shuffle);
}

static void check_grid(const struct cuda *c, uint64_t *random)
{
    enum { ROUNDS = 9 };
    int n_sms, per_sm;
    uint32_t n, *cells;
    struct selftest_grid_args args = {.n_rounds = ROUNDS};
    CUdeviceptr dc, da;

    (void)random;
    CUDA_OK(c->d->DeviceGetAttribute(&n_sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
    CUDA_OK(c->d->OccupancyMaxActiveBlocks(&per_sm, cuda_function(c, "selftest_grid"), 64, 0));
    assert_true(n_sms >= 1 && per_sm >= 1);
    n = (uint32_t)(n_sms * per_sm);
    cells = malloc(2 * n * sizeof *cells);
    assert_non_null(cells);
    dc = cuda_new(c, NULL, 2 * n * sizeof *cells);
    da = cuda_new(c, NULL, 4);
    CUDA_OK(c->d->MemsetD32Async(dc, 0, 2 * n, c->stream));
    CUDA_OK(c->d->MemsetD8Async(da, 0, 4, c->stream));
    args.cells = cuda_pointer(dc);
    args.arrivals = cuda_pointer(da);
    CUDA_OK(cuda_launch(c, "selftest_grid", n, 64, &args));
    cuda_get(c, cells, dc, 2 * n * sizeof *cells);
    for (uint32_t b = 0; b < n; b++) {
        assert_int_equal(cells[ROUNDS % 2 * n + b], ROUNDS);
        assert_int_equal(cells[(ROUNDS + 1) % 2 * n + b], ROUNDS - 1);
    }
    free(cells);
    CUDA_OK(c->d->MemFree(dc));
    CUDA_OK(c->d->MemFree(da));
}

static void test_grid_barrier(void **state)
{
    (void)state;
    on_every_seed(check_grid);
}

static void test_images_are_terminated(void **state)
{
    (void)state;
    assert_true(m40_n_kernel_images >= 1);
    for (size_t i = 0; i < m40_n_kernel_images; i++) {
        const struct m40_kernel_image *image = &m40_kernel_images[i];

        assert_int_equal(strlen(image->ptx) + 1, image->ptx_bytes);
        assert_non_null(strstr(image->ptx, ".target sm_52"));
        assert_true(!image->cubin == !image->cubin_bytes);
        if (image->cubin)
            assert_memory_equal(image->cubin, "\177ELF", 4);
    }
}

static void test_no_library(void **state)
{
    struct m40_cuda_driver *d;
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_cuda_driver_open(&d, "/nowhere/libcuda.so.1", &err), M40LLM_NO_DEVICE);
    assert_null(d);
    assert_non_null(strstr(err.text, "/nowhere/libcuda.so.1"));
    assert_int_equal(m40_cuda_driver_open(&d, "libm.so.6", &err), M40LLM_DRIVER);
    assert_non_null(strstr(err.text, "libm.so.6 is not a CUDA driver"));
    m40_cuda_driver_close(&d);
}

static void test_status_texts(void **state)
{
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_cuda_status(NULL, CUDA_SUCCESS, &err, "x"), M40LLM_OK);
    assert_int_equal(m40_cuda_status(NULL, CUDA_ERROR_OUT_OF_MEMORY, &err, "allocating %d bytes", 7), M40LLM_OUT_OF_DEVICE_MEMORY);
    assert_string_equal(err.text, "allocating 7 bytes: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory");
    assert_int_equal(m40_cuda_status(NULL, CUDA_ERROR_ILLEGAL_ADDRESS, &err, "x"), M40LLM_DRIVER);
    assert_int_equal(m40_cuda_status(NULL, 12345, &err, "x"), M40LLM_DRIVER);
    assert_string_equal(err.text, "x: CUDA error (12345): no description");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images_are_terminated),
        cmocka_unit_test(test_no_library),
        cmocka_unit_test(test_status_texts),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_reduce),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_grid_barrier),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
