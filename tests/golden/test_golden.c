/* The forward pass against references made by an independent implementation: small random models of every family (tests/data/golden), and the trained demo model.
 * And against itself: however a prompt is cut, whatever runs beside it, wherever its pages lie, the logits have the same bits; on a card the CPU's. */
#include "golden/runner.h"
#include "harness/golden_gguf.h"

#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <math.h>

enum { N_SEQUENCES = 3, N_GREEDY = 24, MAX_TOKENS = 128 };

#define TOLERANCE_KV_F32 2e-4f
#define TOLERANCE_KV_F16 2e-2f

static struct m40_backend *device;

/* ---- a golden model's sequences and their reference ---- */

struct reference {
    uint32_t n_vocab;
    int32_t ids[N_SEQUENCES][MAX_TOKENS]; /* the prompt, then the greedy tokens */
    uint32_t n_prompt[N_SEQUENCES];
    double greedy_margin[N_SEQUENCES][N_GREEDY];
    uint32_t first_stored[N_SEQUENCES]; /* logits are stored from here to the prompt's end */
    const float *logits[N_SEQUENCES];   /* of position first_stored */
    char *logits_file;
};

static json_t *load_json(const char *name)
{
    json_error_t error;
    json_t *root = json_load_file(test_data(name), 0, &error);

    if (!root)
        fail_msg("%s:%d: %s", name, error.line, error.text);
    return root;
}

static uint32_t read_ids(const json_t *array, int32_t *out, size_t capacity)
{
    size_t n = json_array_size(array);

    assert_in_range(n, 1, capacity);
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return (uint32_t)n;
}

static void read_reference(struct reference *r, const char *name)
{
    char path[64];
    json_t *root, *sequence;
    size_t i, n_bytes;

    snprintf(path, sizeof path, "golden/%s.json", name);
    root = load_json(path);
    snprintf(path, sizeof path, "golden/%s.logits.f32", name);
    r->logits_file = test_read_file(test_data(path), &n_bytes);
    r->n_vocab = (uint32_t)json_integer_value(json_object_get(root, "n_vocab"));
    assert_int_equal(json_array_size(json_object_get(root, "sequences")), N_SEQUENCES);
    json_array_foreach(json_object_get(root, "sequences"), i, sequence)
    {
        json_t *positions = json_object_get(sequence, "logits_positions");
        size_t offset_bytes = (size_t)json_integer_value(json_object_get(sequence, "logits_offset"));
        uint32_t n = read_ids(json_object_get(sequence, "ids"), r->ids[i], MAX_TOKENS - N_GREEDY);

        r->n_prompt[i] = n;
        assert_int_equal(read_ids(json_object_get(sequence, "greedy"), r->ids[i] + n, N_GREEDY), N_GREEDY);
        for (size_t j = 0; j < N_GREEDY; j++)
            r->greedy_margin[i][j] = json_real_value(json_array_get(json_object_get(sequence, "greedy_margin"), j));
        r->first_stored[i] = n - (uint32_t)json_array_size(positions); /* the last ones, without gaps */
        assert_int_equal(json_integer_value(json_array_get(positions, 0)), r->first_stored[i]);
        assert_true(offset_bytes + json_array_size(positions) * r->n_vocab * sizeof(float) <= n_bytes);
        r->logits[i] = (const float *)(const void *)(r->logits_file + offset_bytes);
    }
    json_decref(root);
}

/* Logits of all sequences at all positions but the last greedy token's. */
struct logits {
    float *rows[N_SEQUENCES]; /* [n_prompt + N_GREEDY - 1][n_vocab] */
    size_t n_bytes[N_SEQUENCES];
};

static void make_logits(struct logits *l, const struct reference *r)
{
    for (uint32_t i = 0; i < N_SEQUENCES; i++) {
        l->n_bytes[i] = (size_t)(r->n_prompt[i] + N_GREEDY - 1) * r->n_vocab * sizeof(float);
        l->rows[i] = malloc(l->n_bytes[i]);
        assert_non_null(l->rows[i]);
        memset(l->rows[i], 0xff, l->n_bytes[i]); /* NaN */
    }
}

static void free_logits(struct logits *l)
{
    for (uint32_t i = 0; i < N_SEQUENCES; i++)
        free(l->rows[i]);
}

/* ---- against the reference ---- */

static float max_difference(const float *a, const float *b, size_t n)
{
    float worst = 0;

    for (size_t i = 0; i < n; i++) {
        float difference = fabsf(a[i] - b[i]);

        worst = difference > worst || isnan(difference) ? difference : worst;
        if (isnan(worst))
            break;
    }
    return worst;
}

static float check_reference(const char *name, const struct reference *r, const struct logits *l, float tolerance)
{
    float worst = 0;

    for (uint32_t i = 0; i < N_SEQUENCES; i++) {
        const float *last = l->rows[i] + (size_t)(r->n_prompt[i] - 1) * r->n_vocab;
        size_t n_stored = (size_t)(r->n_prompt[i] - r->first_stored[i]) * r->n_vocab;
        float difference = max_difference(l->rows[i] + (size_t)r->first_stored[i] * r->n_vocab, r->logits[i], n_stored);

        if (!(difference <= tolerance))
            fail_msg("%s, sequence %u: logits differ by %g, at most %g is allowed", name, i, (double)difference, (double)tolerance);
        worst = difference > worst ? difference : worst;
        for (uint32_t j = 0; j < N_GREEDY; j++) {
            int32_t found = argmax(last + (size_t)j * r->n_vocab, r->n_vocab), expected = r->ids[i][r->n_prompt[i] + j];

            if (found != expected && (tolerance == TOLERANCE_KV_F32 || r->greedy_margin[i][j] > (double)tolerance))
                fail_msg("%s, sequence %u: greedy token %u is %d, expected %d", name, i, j, found, expected);
        }
    }
    return worst;
}

/* ---- against itself ---- */

/* A way to feed the three sequences. */
struct plan {
    const char *name;
    uint32_t chunk;
    bool is_alone;   /* one sequence after another, instead of all in the same steps */
    bool is_prefill; /* greedy tokens too come in chunks */
    bool is_scrambled;
    bool is_thin; /* belongs to the thin selection too */
};

static const struct plan plans[] = {
    {"one batch", 512, false, false, false, true},       {"one batch, decode as prefill, pages scrambled", 512, false, true, true, true},
    {"alone, one batch", 512, true, false, true, false}, {"alone, chunks of 32", 32, true, true, true, false},
    {"chunks of 32", 32, false, false, true, false},     {"chunks of 7", 7, false, false, true, true},
    {"token by token", 1, false, false, true, false},
};

static void run_plan(struct runner *run, const struct reference *r, const struct plan *plan, struct logits *out)
{
    struct sequence sequences[N_SEQUENCES];

    runner_shuffle_pages(run, plan->is_scrambled ? test_seed() ^ plan->chunk << 8 : 0);
    for (uint32_t i = 0; i < N_SEQUENCES; i++) {
        uint32_t n_total = r->n_prompt[i] + N_GREEDY - 1;

        sequences[i] = (struct sequence){r->ids[i], plan->is_prefill ? n_total : r->n_prompt[i], n_total, out->rows[i], 0};
    }
    if (!plan->is_alone)
        runner_feed(run, sequences, N_SEQUENCES, plan->chunk);
    for (uint32_t i = 0; plan->is_alone && i < N_SEQUENCES; i++)
        runner_feed(run, &sequences[i], 1, plan->chunk);
}

static void check_same(const char *name, const char *plan, const struct reference *r, const struct logits *a, const struct logits *b)
{
    for (uint32_t i = 0; i < N_SEQUENCES; i++)
        for (uint32_t pos = 0; pos < r->n_prompt[i] + N_GREEDY - 1; pos++) {
            size_t at = (size_t)pos * r->n_vocab;

            if (memcmp(a->rows[i] + at, b->rows[i] + at, r->n_vocab * sizeof(float)))
                fail_msg("%s, %s: sequence %u differs at position %u by %g", name, plan, i, pos,
                         (double)max_difference(a->rows[i] + at, b->rows[i] + at, r->n_vocab));
        }
}

/* The first plan on the plain CPU code: what a card, or the vector code, must reproduce. */
static void check_same_as_scalar(const char *name, const char *path, m40llm_kv_type kv_type, const struct reference *r, const struct logits *expected)
{
    struct m40_backend *cpu = open_cpu(M40LLM_CPU_SCALAR);
    struct logits found;
    struct runner run;

    make_logits(&found, r);
    runner_open(&run, cpu, path, kv_type, N_SEQUENCES, MAX_TOKENS, 0);
    run_plan(&run, r, &plans[0], &found);
    check_same(name, "plain CPU code", r, expected, &found);
    runner_close(&run);
    free_logits(&found);
    m40_backend_close(&cpu);
}

enum selection {
    ALL_PLANS, /* with an FP32 cache the thin ones */
    THIN,      /* with an FP32 cache the first one */
    BRIEF,     /* the first one with an FP32 cache, the one of small chunks with an FP16 cache */
};

/* Which models there are files of. Chunks meet the same operations in all of them, whose operands the parity grid tries: so few need all plans. */
static const struct golden_model {
    const char *name;
    enum selection selection;
} models[] = {
    {"llama", ALL_PLANS},     {"llama_f16", ALL_PLANS}, {"llama31", ALL_PLANS}, {"mistral", ALL_PLANS}, {"qwen2", ALL_PLANS},
    {"qwen3", ALL_PLANS},     {"qwen3_f16", ALL_PLANS}, {"gemma2", THIN},       {"gemma3", BRIEF},      {"phi3", BRIEF},
    {"phi3_longrope", BRIEF}, {"granite", BRIEF},       {"smollm3", BRIEF},     {"olmo2", BRIEF},       {"olmo3", BRIEF},
    {"ministral3", BRIEF},    {"qwen3moe", THIN},       {"mixtral", BRIEF},     {"gptoss", BRIEF},
};

enum { SMALL_CHUNKS = 5 }; /* a place in plans */

static bool wants_plan(enum selection selection, bool is_f32, size_t i)
{
    /* Chunks touch the cache's type only in rope_append and attention: the default type gets all plans, the other fewer. */
    if (selection == BRIEF || (selection == THIN && is_f32))
        return false;
    return plans[i].is_thin || (selection == ALL_PLANS && !is_f32);
}

static void check_model(const char *name, const char *path, m40llm_kv_type kv_type, enum selection selection, const struct reference *r)
{
    bool is_f32 = kv_type == M40LLM_KV_F32;
    struct logits first, other;
    struct runner run;
    float worst;

    make_logits(&first, r);
    make_logits(&other, r);
    runner_open(&run, device, path, kv_type, N_SEQUENCES, MAX_TOKENS, 0);
    run_plan(&run, r, &plans[selection == BRIEF && !is_f32 ? SMALL_CHUNKS : 0], &first);
    worst = check_reference(name, r, &first, is_f32 ? TOLERANCE_KV_F32 : TOLERANCE_KV_F16);
    print_message("%s, %s KV cache: logits differ by at most %.2g\n", name, is_f32 ? "F32" : "F16", (double)worst);
    for (size_t i = 1; i < sizeof plans / sizeof *plans; i++) {
        if (!wants_plan(selection, is_f32, i))
            continue;
        run_plan(&run, r, &plans[i], &other);
        check_same(name, plans[i].name, r, &first, &other);
    }
    if (!is_f32 && options.level != M40LLM_CPU_SCALAR)
        check_same_as_scalar(name, path, kv_type, r, &first);
    runner_close(&run);
    free_logits(&first);
    free_logits(&other);
}

static void test_golden_model(void **state)
{
    const struct golden_model *model = *state;
    enum selection selection = options.is_thin && model->selection == ALL_PLANS ? THIN : model->selection;
    struct reference r = {0};
    char *path;

    if (!device)
        skip();
    path = golden_gguf_path(model->name);
    read_reference(&r, model->name);
    check_model(model->name, path, M40LLM_KV_F32, selection, &r);
    check_model(model->name, path, M40LLM_KV_F16, selection, &r);
    free(r.logits_file);
    free(path);
}

/* ---- the demo model ---- */

enum { DEMO_PROMPTS = 8, DEMO_GREEDY = 64, DEMO_MAX_PROMPT = 640, DEMO_CHUNK = 64 };

struct demo {
    uint32_t n_prompt[DEMO_PROMPTS];
    int32_t ids[DEMO_PROMPTS][DEMO_MAX_PROMPT + DEMO_GREEDY];
    uint32_t n_certain[DEMO_PROMPTS]; /* greedy tokens before the first near-tie */
};

static void read_demo(struct demo *d)
{
    json_t *root = load_json("demo/demo_ref.json"), *prompt;
    size_t i;

    assert_int_equal(json_array_size(json_object_get(root, "prompts")), DEMO_PROMPTS);
    json_array_foreach(json_object_get(root, "prompts"), i, prompt)
    {
        json_t *margins = json_object_get(prompt, "greedy_margins");
        uint32_t n = read_ids(json_object_get(prompt, "ids"), d->ids[i], DEMO_MAX_PROMPT);

        d->n_prompt[i] = n;
        assert_int_equal(read_ids(json_object_get(prompt, "greedy_ids"), d->ids[i] + n, DEMO_GREEDY), DEMO_GREEDY);
        for (d->n_certain[i] = 0; d->n_certain[i] < DEMO_GREEDY; d->n_certain[i]++)
            if (json_number_value(json_array_get(margins, d->n_certain[i])) < 0.01)
                break;
    }
    json_decref(root);
}

/* All prompts side by side, then their continuations: logits after the prompts and the greedy tokens up to the first near-tie. */
static void test_demo_reference(void **state)
{
    uint32_t n_prompts = options.is_thin ? 2 : DEMO_PROMPTS, most = options.is_thin ? 4 : DEMO_GREEDY;
    struct sequence sequences[DEMO_PROMPTS];
    struct demo demo;
    struct runner run;
    size_t n_bytes;
    char *expected;
    float worst = 0;

    (void)state;
    if (!device)
        skip();
    read_demo(&demo);
    expected = test_read_file(test_data("demo/demo_logits.f32"), &n_bytes);
    runner_open(&run, device, test_data("../../models/demo.gguf"), M40LLM_KV_F32, n_prompts, DEMO_MAX_PROMPT + DEMO_GREEDY, test_seed());
    assert_int_equal(n_bytes, DEMO_PROMPTS * run.n_vocab * sizeof(float));
    for (uint32_t i = 0; i < n_prompts; i++) {
        uint32_t n = demo.n_prompt[i], n_certain = demo.n_certain[i] < most ? demo.n_certain[i] : most;

        sequences[i] = (struct sequence){demo.ids[i], n, n + (n_certain ? n_certain - 1 : 0), NULL, n - 1};
        sequences[i].logits = malloc((size_t)sequences[i].n_total * run.n_vocab * sizeof(float));
        assert_non_null(sequences[i].logits);
    }
    runner_feed(&run, sequences, n_prompts, DEMO_CHUNK);
    for (uint32_t i = 0; i < n_prompts; i++) {
        const float *last = sequences[i].logits + (size_t)(demo.n_prompt[i] - 1) * run.n_vocab;
        float difference = max_difference(last, (const float *)(const void *)expected + (size_t)i * run.n_vocab, run.n_vocab);

        if (!(difference <= TOLERANCE_KV_F32))
            fail_msg("demo, prompt %u: logits differ by %g", i, (double)difference);
        worst = difference > worst ? difference : worst;
        for (uint32_t j = 0; j < demo.n_certain[i] && j < most; j++)
            assert_int_equal(argmax(last + (size_t)j * run.n_vocab, run.n_vocab), demo.ids[i][demo.n_prompt[i] + j]);
        free(sequences[i].logits);
    }
    print_message("demo, F32 KV cache: logits differ by at most %.2g\n", (double)worst);
    runner_close(&run);
    free(expected);
}

/* ---- perplexity of the demo model ---- */

enum { WINDOW = 512 };

/* [BOS] and the 511 tokens of window i of the held-out text. */
static void read_window(const struct m40_gguf *gguf, uint32_t i, int32_t *ids)
{
    struct m40_tokenizer *tokenizer;
    size_t n_bytes, n_ids, n_used = (size_t)(i + 1) * 6 * WINDOW; /* more text than the windows need */
    char *text = test_read_file(test_data("demo/valid.txt"), &n_bytes);
    int32_t *all;

    n_used = n_used < n_bytes ? n_used : n_bytes;
    all = malloc((n_used + 8) * sizeof *all);
    assert_non_null(all);
    OK(m40_tokenizer_open(&tokenizer, gguf, &err));
    OK(m40_tokenize(tokenizer, text, n_used, 0, all, n_used + 8, &n_ids, &err));
    assert_true(n_ids > (size_t)(i + 1) * (WINDOW - 1) + 8); /* the cut at the end is far away */
    ids[0] = m40_tokenizer_bos(tokenizer);
    memcpy(ids + 1, all + (size_t)i * (WINDOW - 1), (WINDOW - 1) * sizeof *ids);
    m40_tokenizer_close(&tokenizer);
    free(all);
    free(text);
}

static double nll(const float *logits, uint32_t n, int32_t id)
{
    double sum = 0, top = (double)logits[argmax(logits, n)];

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - top);
    return log(sum) + top - (double)logits[id];
}

/* Mean negative log-likelihood of the window's tokens behind BOS. */
static double window_nll(const char *path, m40llm_kv_type kv_type, uint32_t window)
{
    int32_t ids[WINDOW];
    struct sequence sequence = {ids, WINDOW, WINDOW, NULL, 0};
    struct runner run;
    double sum = 0;

    runner_open(&run, device, path, kv_type, 1, WINDOW, test_seed());
    read_window(run.gguf, window, ids);
    sequence.logits = malloc((size_t)WINDOW * run.n_vocab * sizeof(float));
    assert_non_null(sequence.logits);
    runner_feed(&run, &sequence, 1, WINDOW);
    for (uint32_t i = 0; i + 1 < WINDOW; i++)
        sum += nll(sequence.logits + (size_t)i * run.n_vocab, run.n_vocab, ids[i + 1]);
    free(sequence.logits);
    runner_close(&run);
    return sum / (WINDOW - 1);
}

/* The F16 file gives the reference's figure for the window. The file quantised to Q4_K_M is a little worse: over all windows by ln(25.7675 / 24.9593) = 0.032; single windows vary. */
static void test_demo_perplexity(void **state)
{
    json_t *root = load_json("demo/demo_ref.json");
    json_t *windows = json_object_get(json_object_get(root, "perplexity"), "window_mean_nll");

    (void)state;
    if (!device || options.is_thin) {
        json_decref(root);
        skip();
    }
    for (uint32_t i = 0; i < 2; i++) {
        double expected = json_real_value(json_array_get(windows, i));
        double f16 = window_nll(test_data("../../models/demo.gguf"), M40LLM_KV_F32, i),
               q4 = window_nll(test_data("demo/demo-q4_k_m.gguf"), M40LLM_KV_F16, i);

        print_message("window %u: F16 file %.6f (reference %.6f), Q4_K_M file %.6f\n", i, f16, expected, q4);
        assert_true(fabs(f16 - expected) < 5e-5);
        assert_true(q4 > expected && q4 < expected + 0.1);
    }
    json_decref(root);
}

static int open_all(void **state)
{
    m40llm_device_info info = {0};
    const char *reason;

    (void)state;
    device = open_device(&reason);
    if (!device) {
        print_message("skipped: %s\n", reason);
        return 0;
    }
    device->ops.get_info(device, &info);
    print_message("device: %s, %s, %s\n", info.spec, info.name, info.code);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    m40_backend_close(&device);
    return 0;
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[sizeof models / sizeof *models + 2];
    size_t n = 0;

    if (!read_options(argc, argv))
        return 2;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (wants_model(models[i].name))
            tests[n++] = (struct CMUnitTest){models[i].name, test_golden_model, NULL, NULL, (void *)(uintptr_t)&models[i]};
    if (wants_model("demo")) {
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_demo_reference);
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_demo_perplexity);
    }
    return _cmocka_run_group_tests("golden", tests, n, open_all, close_all);
}
