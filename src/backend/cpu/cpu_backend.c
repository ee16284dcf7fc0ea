/* Opening the CPU backend, its memory and its matrices. */
#include "backend/cpu/cpu_backend.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { CPU_ALIGN = 256 };

/* ---- what this processor is ---- */

/* The best that the processor has and the system keeps the registers of. */
static m40llm_cpu_level processor_level(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C) || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return M40LLM_CPU_SCALAR;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return M40LLM_CPU_AVX512;
    return M40LLM_CPU_AVX2;
#else
    return M40LLM_CPU_SCALAR;
#endif
}

static const char *level_name(m40llm_cpu_level level)
{
    return level == M40LLM_CPU_AVX512 ? "AVX-512" : level == M40LLM_CPU_AVX2 ? "AVX2" : "scalar";
}

static void processor_name(char *out, size_t capacity)
{
    char name[49] = "CPU";
    const char *start = name;

#if defined(__x86_64__)
    unsigned words[12], highest, b, c, d;

    if (__get_cpuid(0x80000000, &highest, &b, &c, &d) && highest >= 0x80000004) {
        for (unsigned i = 0; i < 3; i++)
            __get_cpuid(0x80000002 + i, words + 4 * i, words + 4 * i + 1, words + 4 * i + 2, words + 4 * i + 3);
        memcpy(name, words, sizeof words);
        name[sizeof words] = 0;
    }
#endif
    while (*start == ' ')
        start++;
    snprintf(out, capacity, "%s", start);
}

/* MemTotal and MemAvailable; zeros where the system does not say. */
static void read_memory(uint64_t *total_bytes, uint64_t *free_bytes)
{
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kib;
    char line[128];

    *total_bytes = 0;
    *free_bytes = 0;
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
            *total_bytes = kib * 1024;
        else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            *free_bytes = kib * 1024;
    }
    fclose(f);
}

static int default_threads(void)
{
#ifdef _OPENMP
    return omp_get_num_procs();
#else
    return 1;
#endif
}

void m40_cpu_describe(m40llm_device_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->spec, sizeof out->spec, "cpu");
    processor_name(out->name, sizeof out->name);
    read_memory(&out->memory_total_bytes, &out->memory_free_bytes);
    snprintf(out->why, sizeof out->why, "always there; %d %s", default_threads(), default_threads() == 1 ? "core" : "cores");
}

static void get_info(const struct m40_backend *be, m40llm_device_info *out)
{
    const struct m40_cpu_backend *cpu = (const struct m40_cpu_backend *)be;

    m40_cpu_describe(out);
    snprintf(out->code, sizeof out->code, "%s", level_name(cpu->level));
}

/* ---- memory ---- */

/* An allocation is a block of the heap with the address of its start right before the aligned address that is given out. */
static m40llm_status cpu_alloc(struct m40_backend *be, uint64_t n_bytes, m40_addr *out, m40llm_error *err)
{
    uint64_t total_bytes, memory_bytes, free_bytes;
    char *block = NULL, *aligned;

    (void)be;
    *out = 0;
    if (m40_add_u64(n_bytes, CPU_ALIGN + sizeof block, &total_bytes) && total_bytes <= SIZE_MAX)
        block = m40_realloc_array(NULL, total_bytes, 1);
    if (!block) {
        read_memory(&memory_bytes, &free_bytes);
        return m40_fail(err, M40LLM_NO_MEMORY, "%.1f MiB on the CPU; %.1f MiB are free", (double)n_bytes / 0x1p20, (double)free_bytes / 0x1p20);
    }
    aligned = (char *)(uintptr_t)m40_round_up((uintptr_t)(block + sizeof block), CPU_ALIGN);
    memcpy(aligned - sizeof block, &block, sizeof block);
    *out = (m40_addr)(uintptr_t)aligned;
    return M40LLM_OK;
}

static void cpu_free(struct m40_backend *be, m40_addr addr)
{
    char *block;

    (void)be;
    if (!addr)
        return;
    memcpy(&block, (char *)m40_cpu_ptr(addr) - sizeof block, sizeof block);
    m40_free(block);
}

static m40llm_status cpu_write(struct m40_backend *be, m40_addr dst, const void *src, uint64_t n_bytes, m40llm_error *err)
{
    (void)be;
    (void)err;
    memcpy(m40_cpu_ptr(dst), src, n_bytes);
    return M40LLM_OK;
}

static m40llm_status cpu_read(struct m40_backend *be, void *dst, m40_addr src, uint64_t n_bytes, m40llm_error *err)
{
    (void)be;
    (void)err;
    memcpy(dst, m40_cpu_ptr(src), n_bytes);
    return M40LLM_OK;
}

static m40llm_status cpu_copy(struct m40_backend *be, m40_addr dst, m40_addr src, uint64_t n_bytes, m40llm_error *err)
{
    (void)be;
    (void)err;
    memcpy(m40_cpu_ptr(dst), m40_cpu_ptr(src), n_bytes);
    return M40LLM_OK;
}

static m40llm_status cpu_sync(struct m40_backend *be, m40llm_error *err)
{
    (void)be;
    (void)err;
    return M40LLM_OK;
}

static void free_scratch(struct m40_cpu_backend *cpu)
{
    m40_free(cpu->prepared_x);
    m40_free(cpu->sub_sums);
    m40_free(cpu->thread_scratch);
    m40_free(cpu->pair_rows);
    cpu->prepared_x = NULL;
    cpu->sub_sums = NULL;
    cpu->thread_scratch = NULL;
    cpu->pair_rows = NULL;
    memset(&cpu->workload, 0, sizeof cpu->workload);
}

/* K and V of a piece, a row of V, the piece's scores, and the running max and sum of every row and head (see struct attention_scratch). */
static size_t attention_floats(const struct m40_workload *w)
{
    return (size_t)w->head_dim * (2 * M40_ATTN_PIECE + 1) + M40_ATTN_PIECE + (size_t)CPU_ATTENTION_ROWS * 2 * w->n_heads;
}

static size_t matmul_floats(m40llm_cpu_level level, const struct m40_workload *workload)
{
#if defined(__x86_64__)
    if (level == M40LLM_CPU_AVX512)
        return m40_cpu_matmul_floats_avx512(workload);
    if (level == M40LLM_CPU_AVX2)
        return m40_cpu_matmul_floats_avx2(workload);
#endif
    (void)level;
    return m40_cpu_matmul_floats_scalar(workload);
}

static m40llm_status cpu_reserve(struct m40_backend *be, const struct m40_workload *workload, m40llm_error *err)
{
    struct m40_cpu_backend *cpu = m40_cpu(be);
    size_t n_x = (size_t)workload->n_tokens * workload->n_cols, n_sums = (size_t)workload->n_tokens * (workload->n_cols / CPU_MIN_SUB + 1);
    size_t n_floats = matmul_floats(cpu->level, workload);

    free_scratch(cpu);
    if (n_floats < attention_floats(workload))
        n_floats = attention_floats(workload);
    cpu->thread_floats = m40_round_up(n_floats, 64); /* whole cache lines, so that threads do not share one */
    cpu->prepared_x = m40_calloc_aligned(n_x, sizeof *cpu->prepared_x);
    cpu->sub_sums = m40_calloc_aligned(n_sums, sizeof *cpu->sub_sums);
    cpu->thread_scratch = m40_calloc_aligned((size_t)cpu->n_threads * cpu->thread_floats, sizeof *cpu->thread_scratch);
    cpu->pair_rows = m40_calloc(2 * (size_t)workload->n_tokens * workload->n_used, sizeof *cpu->pair_rows);
    if (!cpu->pair_rows || !cpu->prepared_x || !cpu->sub_sums || !cpu->thread_scratch) {
        free_scratch(cpu);
        return m40_fail(err, M40LLM_NO_MEMORY, "%.1f MiB of scratch memory for the CPU",
                        (double)(n_x + n_sums + (size_t)cpu->n_threads * cpu->thread_floats) * sizeof(float) / 0x1p20);
    }
    cpu->workload = *workload;
    return M40LLM_OK;
}

/* ---- matrices ---- */

static m40llm_status matrix_create(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, const void *rows,
                                   struct m40_matrix *out, m40llm_error *err)
{
    uint64_t row_bytes, n_bytes;

    (void)be;
    memset(out, 0, sizeof *out);
    if (n_rows == 0 || n_cols == 0 || !m40_dtype_row_bytes(format->type, n_cols, &row_bytes) || !m40_mul_u64(row_bytes, n_rows, &n_bytes))
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "a matrix of %llu x %llu cannot be of type %s", (unsigned long long)n_rows,
                        (unsigned long long)n_cols, format->type->name);
    *out = (struct m40_matrix){.format = format, .n_rows = n_rows, .n_cols = n_cols, .data = (m40_addr)(uintptr_t)rows};
    return M40LLM_OK;
}

static void matrix_destroy(struct m40_backend *be, struct m40_matrix *matrix)
{
    (void)be;
    memset(matrix, 0, sizeof *matrix);
}

/* ---- the rest of the table ---- */

/* The bitwise OR of n words, n a multiple of 8; eight chains, so that reading is the limit. */
static uint64_t read_words(const uint64_t *data, size_t n)
{
    uint64_t bits[8] = {0}, all = 0;

    for (size_t i = 0; i < n; i += 8)
        for (unsigned j = 0; j < 8; j++)
            bits[j] |= data[i + j];
    for (unsigned j = 0; j < 8; j++)
        all |= bits[j];
    return all;
}

static m40llm_status measure_bandwidth(struct m40_backend *be, double *out_bytes_per_s, m40llm_error *err)
{
    enum { N_BYTES = 256 << 20, PART_BYTES = 1 << 20, N_RUNS = 5 }; /* larger than any last-level cache of the processors in question */
    const int n_threads = m40_cpu(be)->n_threads;
    uint64_t *data = m40_calloc_aligned(N_BYTES, 1); /* zeroed, so that every page is really there */
    uint64_t best_ns = UINT64_MAX, bits = 0;

    *out_bytes_per_s = 0;
    if (!data)
        return m40_fail(err, M40LLM_NO_MEMORY, "a buffer of %d MiB for measuring", N_BYTES >> 20);
    for (int run = 0; run < N_RUNS; run++) {
        uint64_t start = m40_now_ns(), ns;

#pragma omp parallel for reduction(| : bits) num_threads(n_threads)
        for (size_t i = 0; i < N_BYTES / PART_BYTES; i++)
            bits |= read_words(data + i * (PART_BYTES / sizeof *data), PART_BYTES / sizeof *data);
        ns = m40_now_ns() - start + (bits != 0); /* + 0: the bits are needed */
        best_ns = ns < best_ns ? ns : best_ns;
    }
    m40_free(data);
    *out_bytes_per_s = N_BYTES / ((double)best_ns * 1e-9);
    return M40LLM_OK;
}

static void cpu_close(struct m40_backend *be)
{
    free_scratch(m40_cpu(be));
    m40_free(be);
}

static const struct m40_backend_ops memory_ops = {
    .close = cpu_close,
    .get_info = get_info,
    .measure_bandwidth = measure_bandwidth,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .write = cpu_write,
    .read = cpu_read,
    .sync = cpu_sync,
    .reserve = cpu_reserve,
    .matrix_create = matrix_create,
    .matrix_destroy = matrix_destroy,
    .copy = cpu_copy,
    .matmul = m40_cpu_matmul_op,
    .expert_matmul = m40_cpu_expert_matmul,
};

m40llm_status m40_backend_open_cpu(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const m40llm_cpu_level best = processor_level();
    struct m40_cpu_backend *cpu = NULL;

    *out = NULL;
    M40_FAIL_IF(options->n_threads < 0 || options->n_threads > 4096, M40LLM_INVALID_ARGUMENT, "%d threads", options->n_threads);
    M40_FAIL_IF(options->cpu_level == M40LLM_CPU_AVX2 && best < M40LLM_CPU_AVX2, M40LLM_UNSUPPORTED, "this processor has no AVX2, FMA and F16C");
    M40_FAIL_IF(options->cpu_level == M40LLM_CPU_AVX512 && best < M40LLM_CPU_AVX512, M40LLM_UNSUPPORTED,
                "this processor has no AVX-512 (F, BW, DQ and VL)");
    cpu = m40_calloc(1, sizeof *cpu);
    M40_FAIL_IF(!cpu, M40LLM_NO_MEMORY, "CPU backend");
    cpu->base.ops = memory_ops;
    cpu->base.logger = options->logger;
    cpu->n_threads = options->n_threads ? options->n_threads : default_threads();
    cpu->level = options->cpu_level == M40LLM_CPU_AUTO ? best : options->cpu_level;
    m40_cpu_set_ops_scalar(&cpu->base.ops);
    cpu->matmul = m40_cpu_matmul_scalar;
#if defined(__x86_64__)
    if (cpu->level >= M40LLM_CPU_AVX2)
        m40_cpu_set_ops_avx2(&cpu->base.ops);
    if (cpu->level >= M40LLM_CPU_AVX2)
        cpu->matmul = cpu->level == M40LLM_CPU_AVX512 ? m40_cpu_matmul_avx512 : m40_cpu_matmul_avx2;
#endif
    m40_log(&cpu->base.logger, M40LLM_LOG_DEBUG, "CPU backend: %s, %d threads", level_name(cpu->level), cpu->n_threads);
    *out = &cpu->base;
    return M40LLM_OK;
fail:
    return status;
}
