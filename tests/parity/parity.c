/* m40-parity: see parity.h. Prints TAP, a line for each test and target. */
#include "parity/parity.h"

#include "backend/cuda/cuda_launch_cublas.h"
#include "base/str.h"

#include <stdio.h>

enum scope { ONCE, FOR_EACH_TYPE, FOR_CPU_ONLY };

struct test {
    const char *name;
    void (*run)(struct parity *p, uint32_t param);
    uint32_t param; /* FOR_EACH_TYPE: every readable type in turn */
    enum scope scope;
};

static const struct test tests[] = {
    {"embed", parity_embed, 0, FOR_EACH_TYPE},
    {"matmul", parity_matmul, 0, FOR_EACH_TYPE},
    {"norm_matmul", parity_norm_matmul, 0, FOR_EACH_TYPE},
    {"matmul_alone", parity_matmul_alone, 0, FOR_EACH_TYPE},
    {"matmul_edges", parity_matmul_edges, 0, FOR_EACH_TYPE},
    {"rms_norm", parity_rms_norm, 0, ONCE},
    {"rope_append norm f16", parity_rope_append_norm, M40LLM_KV_F16, ONCE},
    {"rope_append norm f32", parity_rope_append_norm, M40LLM_KV_F32, ONCE},
    {"rope_append neox f16", parity_rope_append_neox, M40LLM_KV_F16, ONCE},
    {"rope_append neox f32", parity_rope_append_neox, M40LLM_KV_F32, ONCE},
    {"attention decode f16", parity_attention_decode, M40LLM_KV_F16, ONCE},
    {"attention decode f32", parity_attention_decode, M40LLM_KV_F32, ONCE},
    {"attention prefill f16", parity_attention_prefill, M40LLM_KV_F16, ONCE},
    {"attention prefill f32", parity_attention_prefill, M40LLM_KV_F32, ONCE},
    {"attention_alone f16", parity_attention_alone, M40LLM_KV_F16, ONCE},
    {"attention_alone f32", parity_attention_alone, M40LLM_KV_F32, ONCE},
    {"attention window f16", parity_attention_window, M40LLM_KV_F16, ONCE},
    {"attention window f32", parity_attention_window, M40LLM_KV_F32, ONCE},
    {"attention scores f16", parity_attention_scores, M40LLM_KV_F16, ONCE},
    {"attention scores f32", parity_attention_scores, M40LLM_KV_F32, ONCE},
    {"glu", parity_glu, 0, ONCE},
    {"softcap", parity_softcap, 0, ONCE},
    {"gather_rows", parity_gather_rows, 0, ONCE},
    {"route", parity_route, 0, ONCE},
    {"expert_matmul", parity_expert_matmul, 0, FOR_EACH_TYPE},
    {"expert_alone", parity_expert_alone, 0, FOR_EACH_TYPE},
    {"combine", parity_combine, 0, ONCE},
    {"argmax", parity_argmax, 0, ONCE},
    {"sample", parity_sample, 0, ONCE},
    {"limits", parity_limits, 0, ONCE},
    {"no_memory", parity_no_memory, 0, FOR_CPU_ONLY},
};

struct options {
    const char *backend, *test; /* NULL: all */
    uint64_t seed;
    bool is_thin, is_verbose, only_list, use_cublas;
};

struct totals {
    unsigned n_lines, n_checks, n_failed, n_skipped;
};

static void usage(FILE *out)
{
    fprintf(out, "m40-parity [--backend cpu|cpu-avx2|cpu-avx512|cuda] [--seed N] [--test SUBSTRING] [--thin] [--list] [--verbose]\n"
                 "cpu: the scalar backend against doubles; the others against the scalar backend, bit by bit.\n"
                 "$M40LLM_ENABLE_CUBLAS=1 has cuda's matmuls done by cuBLAS ($M40LLM_CUBLAS_LIB names it), near the doubles.\n"
                 "$M40LLM_CUDA_LIB names the driver to open; $M40LLM_REQUIRE_GPU=1 makes a missing device a failure.\n");
}

static bool parse(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;

        if (strcmp(argv[i], "--backend") == 0 && has_value)
            o->backend = argv[++i];
        else if (strcmp(argv[i], "--test") == 0 && has_value)
            o->test = argv[++i];
        else if (strcmp(argv[i], "--seed") == 0 && has_value)
            o->seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--thin") == 0)
            o->is_thin = true;
        else if (strcmp(argv[i], "--list") == 0)
            o->only_list = true;
        else if (strcmp(argv[i], "--verbose") == 0)
            o->is_verbose = true;
        else
            return false;
    }
    return true;
}

/* Adds a target; the scalar backend is opened even where its verdict is not wanted. */
static void add_target(struct parity *p, const struct options *o, const char *name,
                       m40llm_status (*open)(struct m40_backend **, const m40llm_device_options *, m40llm_error *),
                       const m40llm_device_options *device)
{
    struct parity_target *t = &p->targets[p->n_targets];
    m40llm_device_info info;
    m40llm_error err;

    t->is_wanted = !o->backend || strcmp(o->backend, name) == 0;
    if (p->n_targets > 0 && !t->is_wanted)
        return;
    p->n_targets++;
    t->name = name;
    if (open(&t->backend, device, &err) == M40LLM_OK) {
        t->backend->ops.get_info(t->backend, &info);
        printf("# %s: %s, %s %s\n", name, info.name, info.code, info.driver);
        t->has_cublas = t->backend->is_cuda && m40_cuda_of(t->backend)->cublas;
        if (t->has_cublas)
            m40_cuda_of(t->backend)->cublas->min_tokens = 1;
    } else {
        snprintf(t->why_not, sizeof t->why_not, "%s", err.text);
        printf("# %s: %s\n", name, err.text);
    }
}

static void add_targets(struct parity *p, const struct options *o)
{
    m40llm_device_options scalar = M40LLM_DEVICE_OPTIONS_INIT, avx2 = M40LLM_DEVICE_OPTIONS_INIT, avx512 = M40LLM_DEVICE_OPTIONS_INIT;
    m40llm_device_options cuda = M40LLM_DEVICE_OPTIONS_INIT;

    scalar.cpu_level = M40LLM_CPU_SCALAR;
    avx2.cpu_level = M40LLM_CPU_AVX2;
    avx2.n_threads = 3; /* not what the scalar one has */
    avx512.cpu_level = M40LLM_CPU_AVX512;
    avx512.n_threads = 3;
    cuda.spec = "cuda";
    cuda.cuda_library = getenv("M40LLM_CUDA_LIB");
    cuda.use_cublas = o->use_cublas;
    cuda.cublas_library = getenv("M40LLM_CUBLAS_LIB");
    add_target(p, o, "cpu", m40_backend_open_cpu, &scalar);
    add_target(p, o, "cpu-avx2", m40_backend_open_cpu, &avx2);
    add_target(p, o, "cpu-avx512", m40_backend_open_cpu, &avx512);
    add_target(p, o, "cuda", m40_backend_open_cuda, &cuda);
}

/* A card that is missing is a failure where one was asked for. */
static bool may_skip(const struct parity_target *t)
{
    const char *required = getenv("M40LLM_REQUIRE_GPU");

    return strcmp(t->name, "cuda") != 0 || ((!required || strcmp(required, "1") != 0) && !getenv("M40LLM_CUDA_LIB"));
}

static void report(struct totals *totals, const struct parity_target *t, const char *name)
{
    bool is_ok = t->backend ? t->n_failed == 0 && t->n_checks > 0 : may_skip(t);

    printf("%s %u - %s: %s", is_ok ? "ok" : "not ok", ++totals->n_lines, name, t->name);
    if (t->backend)
        printf(" (%u checks)\n", t->n_checks);
    else
        printf("%s%s\n", is_ok ? " # SKIP " : ": ", t->why_not);
    totals->n_checks += t->n_checks;
    totals->n_failed += t->n_failed > 0 ? t->n_failed : !is_ok;
    totals->n_skipped += !t->backend && is_ok;
    fflush(stdout);
}

static void run_one(struct parity *p, const struct options *o, struct totals *totals, const struct test *test, const char *name, uint32_t param)
{
    if (o->test && !strstr(name, o->test))
        return;
    if (o->only_list) {
        printf("%s\n", name);
        return;
    }
    p->random = o->seed;
    for (unsigned t = 0; t < p->n_targets; t++)
        p->targets[t].n_checks = p->targets[t].n_failed = 0;
    test->run(p, param);
    for (unsigned t = 0; t < p->n_targets; t++)
        if (p->targets[t].is_wanted && !(test->scope == FOR_CPU_ONLY && strcmp(p->targets[t].name, "cuda") == 0))
            report(totals, &p->targets[t], name);
}

static void run_selected(struct parity *p, const struct options *o, struct totals *totals)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (tests[i].scope != FOR_EACH_TYPE) {
            run_one(p, o, totals, &tests[i], tests[i].name, tests[i].param);
            continue;
        }
        for (uint32_t dtype = 0; dtype < 64; dtype++) {
            char name[64];

            if (!m40_format(dtype))
                continue;
            snprintf(name, sizeof name, "%s %s", tests[i].name, m40_format(dtype)->type->name);
            run_one(p, o, totals, &tests[i], name, dtype);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.seed = test_seed()};
    struct parity p = {0};
    struct totals totals = {0};

    if (!parse(argc, argv, &o)) {
        usage(stderr);
        return 2;
    }
    if (!m40_parse_switch(getenv("M40LLM_ENABLE_CUBLAS"), &o.use_cublas)) {
        fprintf(stderr, "$M40LLM_ENABLE_CUBLAS must be 0 or 1\n");
        return 2;
    }
    p.is_thin = o.is_thin;
    p.is_verbose = o.is_verbose;
    if (!o.only_list) {
        printf("# seed %llu\n", (unsigned long long)o.seed);
        add_targets(&p, &o);
        if (!p.targets[0].backend || (o.backend && p.n_targets == 1 && !p.targets[0].is_wanted)) {
            fprintf(stderr, "no such backend: %s\n", o.backend ? o.backend : "cpu");
            return 2;
        }
    }
    run_selected(&p, &o, &totals);
    if (o.only_list)
        return 0;
    printf("1..%u\nparity: %u checks, %u failed, %u skipped\n", totals.n_lines, totals.n_checks, totals.n_failed, totals.n_skipped);
    for (unsigned t = 0; t < p.n_targets; t++)
        if (p.targets[t].backend)
            p.targets[t].backend->ops.close(p.targets[t].backend);
    return totals.n_failed != 0;
}
