/* bench-kernels: how fast each operation of the CUDA backend runs on a card, beside what the card can do. Usage text below. */
#include "bench/bench_cases.h"
#include "bench/bench_report.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 32, MAX_CURVE = 256, CURVE_MAX_TOKENS = 2048 };

static const char usage[] =
    "usage: bench-kernels [options]\n"
    "  --device cuda:N     the card; default: the best one. $M40LLM_CUDA_LIB names the driver to open\n"
    "  --ops LIST          of matmul,experts,cublas,sgemm,attention,prefill,norm,rope,silu,sampling,copy,load; default: all. cublas: the matmul by "
    "widening "
    "and "
    "cublasSgemm;\n"
    "                      sgemm: cublasSgemm alone, on FP32 weights; both need $M40LLM_ENABLE_CUBLAS=1 ($M40LLM_CUBLAS_LIB names the library)\n"
    "  --types LIST        weight types, e.g. q4_k,f16; default: all\n"
    "  --shapes LIST       ROWSxCOLS of the weights; default: those of an 8B model\n"
    "  --tokens LIST       at once; default 1,2,4,8,16,64,512,2048\n"
    "  --contexts LIST     of attention; default 512 to 32768\n"
    "  --prompts LIST      of attention over a whole prompt (prefill); default 512 to 8192\n"
    "  --curve             CSV of the time for 1 to 2048 tokens, one type and shape (default q4_k 4096x14336), with the model's time beside it,\n"
    "                      steps by one token, and what lies too high\n"
    "  --json              one JSON object instead of the table\n"
    "  --quick             tiny sizes, few samples: shows that everything runs\n";

/* A list of numbers; of shapes, rows and columns take turns. */
struct list {
    uint32_t values[MAX_VALUES];
    size_t n;
};

struct options {
    m40llm_device_options device;
    const char *ops;
    const struct m40_format *types[M40_DTYPE_LIMIT];
    size_t n_types;
    struct list shapes, tokens, contexts, prompts;
    enum bench_form form;
    bool is_quick, wants_help;
};

static const struct list full_shapes = {{4096, 4096, 1024, 4096, 14336, 4096, 4096, 14336, 128256, 4096}, 10};
static const struct list full_tokens = {{1, 2, 4, 8, 16, 64, 512, 2048}, 8};
static const struct list full_contexts = {{512, 1024, 2048, 4096, 8192, 16384, 32768}, 7};
static const struct list full_prompts = {{512, 1024, 2048, 4096, 8192}, 5};
static const struct list quick_shapes = {{64, 512}, 2}, quick_tokens = {{1, 3, 33}, 3}, quick_contexts = {{96}, 1}, quick_prompts = {{40}, 1};
static const struct list curve_shapes = {{4096, 14336}, 2};

/* ---- arguments ---- */

/* Numbers from 1 to 2^24 between commas, and between `x` where that is wanted. */
static bool parse_list(const char *text, bool is_shapes, struct list *out)
{
    out->n = 0;
    for (;;) {
        char *end;
        unsigned long value = strtoul(text, &end, 10);
        char wanted = is_shapes && out->n % 2 == 0 ? 'x' : ',';

        if (text[0] < '0' || text[0] > '9' || value == 0 || value > 1 << 24 || out->n == MAX_VALUES)
            return false;
        out->values[out->n++] = (uint32_t)value;
        if (*end == '\0')
            return !is_shapes || out->n % 2 == 0;
        if (*end != wanted)
            return false;
        text = end + 1;
    }
}

static bool parse_types(const char *text, struct options *o)
{
    o->n_types = 0;
    while (*text) {
        char name[16];
        size_t n = strcspn(text, ",");
        const struct m40_dtype_info *type;

        if (n >= sizeof name || o->n_types == M40_DTYPE_LIMIT)
            return false;
        memcpy(name, text, n);
        name[n] = '\0';
        type = m40_dtype_by_name(name);
        if (!type || !m40_format(type->number))
            return false;
        o->types[o->n_types++] = m40_format(type->number);
        text += n + (text[n] == ',');
    }
    return o->n_types > 0;
}

/* An option with a value; false: no such option, or a bad value. */
static bool parse_value(struct options *o, const char *name, const char *value)
{
    if (strcmp(name, "--device") == 0)
        return (o->device.spec = value) != NULL;
    if (strcmp(name, "--ops") == 0)
        return (o->ops = value) != NULL;
    if (strcmp(name, "--types") == 0)
        return parse_types(value, o);
    if (strcmp(name, "--shapes") == 0)
        return parse_list(value, true, &o->shapes);
    if (strcmp(name, "--tokens") == 0)
        return parse_list(value, false, &o->tokens);
    if (strcmp(name, "--contexts") == 0)
        return parse_list(value, false, &o->contexts);
    return strcmp(name, "--prompts") == 0 && parse_list(value, false, &o->prompts);
}

static void set_default(struct list *list, const struct list *value)
{
    if (list->n == 0)
        *list = *value;
}

static void set_defaults(struct options *o)
{
    const bool is_curve = o->form == BENCH_CURVE, has_types = o->n_types > 0;

    set_default(&o->shapes, o->is_quick ? &quick_shapes : is_curve ? &curve_shapes : &full_shapes);
    set_default(&o->tokens, o->is_quick ? &quick_tokens : &full_tokens);
    set_default(&o->contexts, o->is_quick ? &quick_contexts : &full_contexts);
    set_default(&o->prompts, o->is_quick ? &quick_prompts : &full_prompts);
    for (uint32_t number = 0; number < M40_DTYPE_LIMIT && !has_types; number++)
        if (is_curve ? number == M40_DTYPE_Q4_K : m40_format(number) != NULL)
            o->types[o->n_types++] = m40_format(number);
}

static bool parse_options(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            o->form = BENCH_JSON;
        else if (strcmp(argv[i], "--curve") == 0)
            o->form = BENCH_CURVE;
        else if (strcmp(argv[i], "--quick") == 0)
            o->is_quick = true;
        else if (strcmp(argv[i], "--help") == 0)
            o->wants_help = true;
        else if (i + 1 == argc || !parse_value(o, argv[i], argv[i + 1]))
            return false;
        else
            i++;
    }
    set_defaults(o);
    return o->form != BENCH_CURVE || (o->n_types == 1 && o->shapes.n == 2);
}

/* Whether a comma-separated list holds a name; NULL holds all. */
static bool has_op(const struct options *o, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = o->ops; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strcspn(at, ",") == n && memcmp(at, name, n) == 0)
            return true;
    return !o->ops;
}

/* ---- runs ---- */

static struct bench_sizes sizes_of(const struct list *list)
{
    return (struct bench_sizes){list->values, list->n};
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t sampling_vocab(const struct options *o)
{
    return o->is_quick ? 1000 : BENCH_VOCAB;
}

/* Scratch memory for everything that will run. */
static m40llm_status reserve(struct bench_device *d, const struct options *o, m40llm_error *err)
{
    struct m40_workload workload = {.n_heads = BENCH_HEADS, .head_dim = BENCH_HEAD_DIM};
    const uint32_t n_prompt = bench_max(sizes_of(&o->prompts));

    workload.n_tokens = max_u32(n_prompt, o->form == BENCH_CURVE ? CURVE_MAX_TOKENS : bench_max(sizes_of(&o->tokens)));
    workload.n_ctx = max_u32(n_prompt, bench_max(sizes_of(&o->contexts)));
    if (has_op(o, "sampling")) {
        workload.n_tokens = max_u32(workload.n_tokens, BENCH_SAMPLING_ROWS);
        workload.n_rows = sampling_vocab(o);
    }
    if (has_op(o, "experts") && o->form != BENCH_CURVE)
        bench_experts_reserve(d, &workload);
    for (size_t i = 0; i < o->shapes.n; i += 2) {
        workload.n_rows = max_u32(workload.n_rows, o->shapes.values[i]);
        workload.n_cols = max_u32(workload.n_cols, o->shapes.values[i + 1]);
    }
    return d->backend->ops.reserve(d->backend, &workload, err);
}

static m40llm_status run_matmuls(struct bench_device *d, const struct options *o, bool by_cublas, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    for (size_t shape = 0; shape < o->shapes.n; shape += 2)
        for (size_t i = 0; i < o->n_types; i++)
            M40_TRY(bench_matmul(d, o->types[i], o->shapes.values[shape], o->shapes.values[shape + 1], sizes_of(&o->tokens), by_cublas, sink, err));
fail:
    return status;
}

/* What cuBLAS does, where it is switched on; asking for it where it is not is an error. */
static m40llm_status run_cublas(struct bench_device *d, const struct options *o, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const bool has_matmul = has_op(o, "cublas"), has_sgemm = has_op(o, "sgemm");

    M40_FAIL_IF(o->ops && (has_matmul || has_sgemm) && !o->device.use_cublas, M40LLM_INVALID_ARGUMENT, "cuBLAS is off: set M40LLM_ENABLE_CUBLAS=1");
    if (!o->device.use_cublas)
        return M40LLM_OK;
    if (has_matmul)
        M40_TRY(run_matmuls(d, o, true, sink, err));
    for (size_t shape = 0; shape < o->shapes.n && has_sgemm; shape += 2)
        M40_TRY(bench_sgemm(d, o->shapes.values[shape], o->shapes.values[shape + 1], sizes_of(&o->tokens), sink, err));
fail:
    return status;
}

/* Every number of tokens to 64, then an eighth more to a sixteenth more each time, and one token more than each: where a tile of tokens is full, the step shows. */
static m40llm_status run_curve(struct bench_device *d, const struct options *o, const struct bench_sink *sink, m40llm_error *err)
{
    uint32_t values[MAX_CURVE];
    size_t n = 0;

    for (uint32_t tokens = 1, step = 1; tokens <= CURVE_MAX_TOKENS && n + 1 < MAX_CURVE; tokens += step) {
        values[n++] = tokens;
        if (tokens >= 64 && tokens < CURVE_MAX_TOKENS)
            values[n++] = tokens + 1;
        if (tokens >= 64 && (tokens & (tokens - 1)) == 0)
            step = tokens / 8;
        if (o->is_quick && tokens == 64)
            break;
    }
    return bench_matmul(d, o->types[0], o->shapes.values[0], o->shapes.values[1], (struct bench_sizes){values, n}, false, sink, err);
}

static m40llm_status run(struct bench_device *d, const struct options *o, const struct bench_sink *sink, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(reserve(d, o, err));
    if (o->form == BENCH_CURVE)
        return run_curve(d, o, sink, err);
    if (has_op(o, "matmul"))
        M40_TRY(run_matmuls(d, o, false, sink, err));
    if (has_op(o, "experts"))
        M40_TRY(bench_experts(d, sizes_of(&o->tokens), sink, err));
    M40_TRY(run_cublas(d, o, sink, err));
    if (has_op(o, "attention"))
        M40_TRY(bench_attention(d, false, sizes_of(&o->contexts), sink, err));
    if (has_op(o, "prefill"))
        M40_TRY(bench_attention(d, true, sizes_of(&o->prompts), sink, err));
    if (has_op(o, "norm"))
        M40_TRY(bench_norm(d, sizes_of(&o->tokens), sink, err));
    if (has_op(o, "rope"))
        M40_TRY(bench_rope(d, sizes_of(&o->tokens), sink, err));
    if (has_op(o, "silu"))
        M40_TRY(bench_silu(d, sizes_of(&o->tokens), sink, err));
    if (has_op(o, "sampling"))
        M40_TRY(bench_sampling(d, sampling_vocab(o), sink, err));
    if (has_op(o, "copy"))
        M40_TRY(bench_copy(d, sink, err));
    for (size_t i = 0; i < o->n_types && has_op(o, "load"); i++)
        M40_TRY(bench_load(d, o->types[i], sink, err));
fail:
    return status;
}

int main(int argc, char **argv)
{
    struct options o = {.device = M40LLM_DEVICE_OPTIONS_INIT};
    struct bench_device device = {0};
    struct bench_report report = {.device = &device};
    struct bench_sink sink = {bench_report_row, &report};
    m40llm_error err;
    m40llm_status status;
    bool use_cublas = false;

    o.device.spec = "cuda";
    o.device.cuda_library = getenv("M40LLM_CUDA_LIB");
    o.device.cublas_library = getenv("M40LLM_CUBLAS_LIB");
    if (!m40_parse_switch(getenv("M40LLM_ENABLE_CUBLAS"), &use_cublas)) {
        fputs("bench-kernels: M40LLM_ENABLE_CUBLAS must be 0 or 1\n", stderr);
        return 2;
    }
    o.device.use_cublas = use_cublas;
    if (!parse_options(&o, argc, argv) || o.wants_help) {
        fputs(usage, o.wants_help ? stdout : stderr);
        return o.wants_help ? 0 : 2;
    }
    report.form = o.form;
    status = bench_open(&device, &o.device, o.is_quick, &err);
    if (status == M40LLM_OK) {
        bench_report_begin(&report);
        status = run(&device, &o, &sink, &err);
        bench_report_end(&report);
    }
    if (status != M40LLM_OK)
        fprintf(stderr, "bench-kernels: %s\n", err.text);
    bench_close(&device);
    return status != M40LLM_OK;
}
