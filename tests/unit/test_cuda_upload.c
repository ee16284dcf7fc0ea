#define _GNU_SOURCE
/* Weights on their way to the card: the tiles that the card makes are the host packer's, whatever the shape; stacks; what loading leaves behind; errors on the way; how much host memory it takes. */
#include "unit/cuda_fixture.h"

#include "backend/cuda/cuda_internal.h"
#include "backend/cuda/cuda_upload.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/synth.h"

#include <fcntl.h>
#include <sys/mman.h>

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
    struct m40_backend *be;

    options.cuda_library = library ? library : cuda_beside("libcuda-emu.so");
    OK(m40_backend_open_cuda(&be, &options, &err));
    return be;
}

static uint8_t *random_rows(const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, uint64_t seed, uint64_t *out_bytes)
{
    uint64_t row_bytes;
    uint8_t *rows;

    assert_true(m40_dtype_row_bytes(format->type, n_cols, &row_bytes));
    *out_bytes = n_rows * row_bytes;
    assert_non_null(rows = malloc(*out_bytes));
    for (uint64_t i = 0; i < *out_bytes; i++)
        rows[i] = (uint8_t)(test_random(&seed) >> 56);
    return rows;
}

/* The matrix's tiles, byte for byte, against the host packer's. */
static void check_tiles(struct m40_backend *be, const struct m40_matrix *w, const uint8_t *rows)
{
    uint8_t *tiles = malloc(w->size_bytes), *expected = m40_calloc_aligned(w->size_bytes, 1);

    assert_true(tiles && expected);
    m40_format_pack_rows(w->format, rows, w->n_rows, w->n_cols, 0, (w->n_rows + M40_TILE_ROWS - 1) / M40_TILE_ROWS, expected);
    OK(be->ops.read(be, tiles, w->data, w->size_bytes, &err));
    if (memcmp(tiles, expected, w->size_bytes) != 0)
        fail_msg("%s, %d x %d: other tiles than the host's", w->format->type->name, (int)w->n_rows, (int)w->n_cols);
    free(tiles);
    m40_free(expected);
}

static void check_shape(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols)
{
    struct m40_matrix w;
    uint64_t n_bytes;
    uint8_t *rows = random_rows(format, n_rows, n_cols, test_seed() ^ n_rows ^ n_cols << 20, &n_bytes);

    OK(be->ops.matrix_create(be, format, n_rows, n_cols, rows, &w, &err));
    memset(rows, 0, n_bytes); /* they are the caller's again */
    free(rows);
    rows = random_rows(format, n_rows, n_cols, test_seed() ^ n_rows ^ n_cols << 20, &n_bytes);
    check_tiles(be, &w, rows);
    be->ops.matrix_destroy(be, &w);
    free(rows);
}

/* Rows that end within a tile; columns that end within a chunk, at odd addresses where blocks have an odd size. */
static void test_every_format_is_packed_as_on_the_host(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 2; seed++) {
        struct m40_backend *be;

        cuda_seed(seed);
        be = open_cuda();
        for (uint32_t number = 0; number < M40_DTYPE_LIMIT; number++) {
            const struct m40_format *format = m40_format(number);
            uint64_t block = format ? format->type->block_elems : 0;

            if (!format)
                continue;
            check_shape(be, format, 32, 256);
            check_shape(be, format, 1, block);
            check_shape(be, format, 33, 256 + (block < 256 ? block : 256));
            check_shape(be, format, 71, block < 256 ? 3 * block + 512 : 768);
            if (block == 1)
                check_shape(be, format, 37, 301);
        }
        m40_backend_close(&be);
    }
}

/* More than both slots hold, so that each is used again while the card may still be at it. */
static void test_a_matrix_larger_than_the_slots(void **state)
{
    const uint64_t n_cols = 8192, n_rows = 2 * M40_CUDA_UPLOAD_SLOTS * (uint64_t)M40_CUDA_UPLOAD_BYTES / (2 * n_cols) / 3 * 2 + 5;

    (void)state;
    for (unsigned seed = 1; seed <= 2; seed++) {
        struct m40_backend *be;

        cuda_seed(seed);
        be = open_cuda();
        check_shape(be, m40_format(M40_DTYPE_F16), n_rows, n_cols);
        m40_backend_close(&be);
    }
}

static void test_parts_on_top_of_each_other(void **state)
{
    struct m40_backend *be = open_cuda();
    const struct m40_format *format = m40_format(M40_DTYPE_Q6_K);
    struct m40_matrix w;
    uint64_t n_bytes, row_bytes;
    uint8_t *rows = random_rows(format, 64 + 32 + 17, 512, test_seed(), &n_bytes);
    struct m40_matrix_part parts[] = {{rows, 64, false}, {NULL, 32, false}, {NULL, 17, false}};

    (void)state;
    assert_true(m40_dtype_row_bytes(format->type, 512, &row_bytes));
    parts[1].rows = rows + 64 * row_bytes;
    parts[2].rows = rows + 96 * row_bytes;
    OK(be->ops.matrix_create_stacked(be, format, 512, parts, 3, &w, &err));
    assert_int_equal(w.n_rows, 113);
    check_tiles(be, &w, rows);
    be->ops.matrix_destroy(be, &w);
    free(rows);
    m40_backend_close(&be);
}

static void test_shapes_that_cannot_be(void **state)
{
    struct m40_backend *be = open_cuda();
    const struct m40_format *f32 = m40_format(M40_DTYPE_F32), *q4_0 = m40_format(M40_DTYPE_Q4_0);
    struct m40_matrix w;
    float row[64] = {0};

    (void)state;
    assert_int_equal(be->ops.matrix_create(be, f32, 0, 64, row, &w, &err), M40LLM_UNSUPPORTED);
    assert_int_equal(be->ops.matrix_create(be, f32, 1, 0, row, &w, &err), M40LLM_UNSUPPORTED);
    assert_int_equal(be->ops.matrix_create(be, q4_0, 1, 33, row, &w, &err), M40LLM_UNSUPPORTED);
    assert_int_equal(be->ops.matrix_create(be, f32, 1, M40_CUDA_UPLOAD_BYTES / 128 + 1, row, &w, &err), M40LLM_UNSUPPORTED);
    assert_non_null(strstr(err.text, "a row may have 512 KiB"));
    assert_int_equal(be->ops.matrix_create(be, f32, (uint64_t)M40_CUDA_N_COUNTERS * 32 + 1, 4096, row, &w, &err), M40LLM_UNSUPPORTED);
    assert_int_equal(w.n_rows, 0);
    assert_null(m40_cuda_of(be)->upload);
    m40_backend_close(&be);
}

/* ---- what fails on the way ---- */

static struct m40_cuda_driver real;
static int n_left; /* calls until one fails; -1: never */

static bool must_fail(void)
{
    return n_left >= 0 && n_left-- == 0;
}

static CUresult alloc(CUdeviceptr *ptr, size_t n_bytes)
{
    return must_fail() ? CUDA_ERROR_OUT_OF_MEMORY : real.MemAlloc(ptr, n_bytes);
}

static CUresult host_alloc(void **ptr, size_t n_bytes, unsigned flags)
{
    return must_fail() ? CUDA_ERROR_OUT_OF_MEMORY : real.MemHostAlloc(ptr, n_bytes, flags);
}

static CUresult create_event(CUevent *event, unsigned flags)
{
    return must_fail() ? CUDA_ERROR_OUT_OF_MEMORY : real.EventCreate(event, flags);
}

static CUresult copy_in(CUdeviceptr to, const void *from, size_t n_bytes, CUstream stream)
{
    return must_fail() ? CUDA_ERROR_INVALID_VALUE : real.MemcpyHtoDAsync(to, from, n_bytes, stream);
}

static CUresult launch(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes,
                       CUstream stream, void **params, void **extra)
{
    return must_fail() ? CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
                       : real.LaunchKernel(function, gx, gy, gz, bx, by, bz, shared_bytes, stream, params, extra);
}

/* What the emulated card has free; a real one is not ours alone, and keeps some of what is freed. */
static uint64_t free_bytes(struct m40_backend *be)
{
    m40llm_device_info info;

    be->ops.get_info(be, &info);
    return strstr(info.name, "Emulated") ? info.memory_free_bytes : 0;
}

/* Each call to the driver in turn fails: an error, nothing leaks, and the next matrix is right. */
static void test_failures_leave_nothing_behind(void **state)
{
    struct m40_backend *be = open_cuda();
    struct m40_cuda_driver *d = m40_cuda_of(be)->driver;
    const struct m40_format *format = m40_format(M40_DTYPE_Q8_0);
    uint64_t n_bytes, n_free;
    uint8_t *rows = random_rows(format, 70, 512, test_seed(), &n_bytes);
    struct m40_matrix w;
    int n_failures = 0;

    (void)state;
    OK(be->ops.matrix_create(be, format, 70, 512, rows, &w, &err)); /* the modules are there now */
    be->ops.matrix_destroy(be, &w);
    be->ops.matrix_create_end(be);
    n_free = free_bytes(be);
    real = *d;
    d->MemAlloc = alloc;
    d->MemHostAlloc = host_alloc;
    d->EventCreate = create_event;
    d->MemcpyHtoDAsync = copy_in;
    d->LaunchKernel = launch;
    for (bool has_failed = true; has_failed; n_failures += has_failed) {
        n_left = n_failures;
        has_failed = be->ops.matrix_create(be, format, 70, 512, rows, &w, &err) != M40LLM_OK;
        n_left = -1;
        if (has_failed)
            assert_int_equal(w.data, 0);
        else
            be->ops.matrix_destroy(be, &w);
        be->ops.matrix_create_end(be);
        assert_int_equal(free_bytes(be), n_free);
    }
    assert_int_equal(n_failures, 8); /* two slots of two things, the rows, the tiles, the copy, the launch */
    *d = real;
    OK(be->ops.matrix_create(be, format, 70, 512, rows, &w, &err));
    check_tiles(be, &w, rows);
    be->ops.matrix_destroy(be, &w);
    free(rows);
    m40_backend_close(&be);
}

/* ---- host memory ---- */

static uint64_t n_pinned, n_pinned_most; /* bytes */
static struct {
    void *ptr;
    size_t n_bytes;
} pinned[16];

static CUresult count_pinned(void **ptr, size_t n_bytes, unsigned flags)
{
    CUresult result = real.MemHostAlloc(ptr, n_bytes, flags);

    for (size_t i = 0; i < 16 && result == CUDA_SUCCESS; i++) {
        if (pinned[i].ptr)
            continue;
        pinned[i].ptr = *ptr;
        pinned[i].n_bytes = n_bytes;
        n_pinned += n_bytes;
        n_pinned_most = n_pinned > n_pinned_most ? n_pinned : n_pinned_most;
        return result;
    }
    fail_msg("more than 16 pinned buffers");
    return result;
}

static CUresult count_unpinned(void *ptr)
{
    for (size_t i = 0; i < 16; i++) {
        if (pinned[i].ptr == ptr) {
            n_pinned -= pinned[i].n_bytes;
            pinned[i].ptr = NULL;
        }
    }
    return real.MemFreeHost(ptr);
}

/* KiB of a line of /proc/self/status. */
static uint64_t status_kib(const char *name)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoull(line + strlen(name), NULL, 10);
    fclose(file);
    return kib;
}

static int n_mallocs;

static bool count_mallocs(void *user)
{
    (void)user;
    n_mallocs++;
    return false;
}

/* KiB of the process's own memory, plus what is free of an emulated card's, which is in it. */
static uint64_t host_kib(struct m40_backend *be)
{
    return status_kib("RssAnon:") + (free_bytes(be) >> 10);
}

/* A file of zeros, mapped, that takes no room on the disk. */
static void *map_zeros(uint64_t n_bytes)
{
    char path[512];
    void *data;
    int fd;

    snprintf(path, sizeof path, "%s/zeros", test_tmp_dir());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)n_bytes) == 0);
    data = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(data != MAP_FAILED);
    close(fd);
    return data;
}

static void test_host_memory_does_not_grow_with_the_matrices(void **state)
{
    const uint64_t n_cols = 4096, n_rows = 6000, n_bytes = n_rows * n_cols * 2; /* 47 MiB of F16 */
    struct m40_backend *be = open_cuda();
    struct m40_cuda_driver *d = m40_cuda_of(be)->driver;
    struct m40_matrix_part rows = {map_zeros(n_bytes), n_rows, true};
    struct m40_matrix w[2];
    m40llm_device_info info;
    uint64_t before, file_before;

    (void)state;
    be->ops.get_info(be, &info);
    before = host_kib(be);
    file_before = status_kib("RssFile:");
    real = *d;
    d->MemHostAlloc = count_pinned;
    d->MemFreeHost = count_unpinned;
    for (int i = 0; i < 2; i++) {
        if (i > 0)
            m40_mem_set_failure_hook(count_mallocs, NULL);
        OK(be->ops.matrix_create_stacked(be, m40_format(M40_DTYPE_F16), n_cols, &rows, 1, &w[i], &err));
        m40_mem_set_failure_hook(NULL, NULL);
        assert_int_equal(n_mallocs, 0);
        assert_int_equal(n_pinned_most, M40_CUDA_UPLOAD_SLOTS * (uint64_t)M40_CUDA_UPLOAD_BYTES);
        be->ops.sync(be, &err);
        if (host_kib(be) > before + (n_pinned_most >> 10) + (8 << 10))
            fail_msg("%d matrices took %llu KiB of host memory", i + 1, (unsigned long long)(host_kib(be) - before));
        if (strstr(info.name, "Emulated")) /* a driver's libraries would be counted, too */
            assert_true(status_kib("RssFile:") < file_before + (8 << 10));
    }
    be->ops.matrix_create_end(be);
    assert_int_equal(n_pinned, 0);
    *d = real;
    for (int i = 0; i < 2; i++)
        be->ops.matrix_destroy(be, &w[i]);
    munmap((void *)(uintptr_t)rows.rows, n_bytes);
    m40_backend_close(&be);
}

static uint64_t sum_of(const struct m40_gguf *gguf)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < gguf->n_tensors; i++)
        for (uint64_t k = 0; k < gguf->tensors[i].size_bytes; k++)
            sum = sum * 31 + gguf->tensors[i].data[k];
    return sum;
}

/* A loaded file's pages leave the process, and the file can still be read. */
static void test_a_model_on_the_card_keeps_no_host_memory(void **state)
{
    struct m40_backend *be = open_cuda();
    struct m40_gguf *gguf;
    struct m40_model *model;
    uint64_t sum, kib;
    char path[512];

    (void)state;
    snprintf(path, sizeof path, "%s/tiny.gguf", test_tmp_dir());
    OK(m40_synth_write("tiny", "f32", path, NULL, NULL, &err));
    OK(m40_gguf_open(&gguf, path, &err));
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err)); /* with what a driver needs to load kernels */
    m40_model_close(&model);
    sum = sum_of(gguf);
    kib = status_kib("RssFile:");
    OK(m40_model_open(&model, gguf, be, NULL, NULL, &err));
    assert_null(m40_cuda_of(be)->upload);
    assert_true(gguf->size_bytes > 2 << 20 && status_kib("RssFile:") + (gguf->size_bytes >> 11) < kib);
    assert_true(sum_of(gguf) == sum);
    m40_model_close(&model);
    m40_gguf_close(&gguf);
    m40_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format_is_packed_as_on_the_host),
        cmocka_unit_test(test_a_matrix_larger_than_the_slots),
        cmocka_unit_test(test_parts_on_top_of_each_other),
        cmocka_unit_test(test_shapes_that_cannot_be),
        cmocka_unit_test(test_failures_leave_nothing_behind),
        cmocka_unit_test(test_host_memory_does_not_grow_with_the_matrices),
        cmocka_unit_test(test_a_model_on_the_card_keeps_no_host_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
