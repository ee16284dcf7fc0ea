#include "golden/runner.h"

#include <math.h>

struct options options = {.device = "cpu"};

static bool set_device(const char *text)
{
    options.device = text;
    return !strcmp(text, "cpu") || !strcmp(text, "cuda");
}

static bool set_level(const char *text)
{
    options.level = !strcmp(text, "scalar") ? M40LLM_CPU_SCALAR : M40LLM_CPU_AVX2;
    return !strcmp(text, "scalar") || !strcmp(text, "avx2");
}

static bool read_environment(void)
{
    const char *device = getenv("M40LLM_TEST_DEVICE"), *level = getenv("M40LLM_TEST_LEVEL"), *thin = getenv("M40LLM_TEST_THIN");
    const char *required = getenv("M40LLM_REQUIRE_GPU");

    options.cuda_library = getenv("M40LLM_CUDA_LIB");
    options.is_thin = thin && !strcmp(thin, "1");
    /* A library that is named must be there. */
    options.must_have_device = options.cuda_library || (required && !strcmp(required, "1"));
    return (!device || set_device(device)) && (!level || set_level(level));
}

bool read_options(int argc, char **argv)
{
    bool is_ok = read_environment();

    for (int i = 1; i < argc && is_ok; i++) {
        const char *name = argv[i], *value;

        if (!strcmp(name, "--thin")) {
            options.is_thin = true;
            continue;
        }
        value = ++i < argc ? argv[i] : "";
        if (!strcmp(name, "--device"))
            is_ok = set_device(value);
        else if (!strcmp(name, "--level"))
            is_ok = set_level(value);
        else if (!strcmp(name, "--models"))
            options.models = value;
        else
            is_ok = false;
    }
    if (!is_ok)
        fprintf(stderr, "usage: %s [--device cpu|cuda] [--level scalar|avx2] [--models NAME,NAME] [--thin]\n", argv[0]);
    return is_ok;
}

bool wants_model(const char *name)
{
    const char *p = options.models;
    size_t n = strlen(name);

    if (!p)
        return true;
    for (; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, name, n) && (p[n] == 0 || p[n] == ','))
            return true;
    }
    return false;
}

struct m40_backend *open_device(const char **reason)
{
    static m40llm_error err;
    m40llm_device_options wanted = M40LLM_DEVICE_OPTIONS_INIT;
    struct m40_backend *be = NULL;
    m40llm_status status;

    wanted.spec = options.device;
    wanted.cuda_library = options.cuda_library;
    wanted.cpu_level = options.level;
    status = m40_backend_open(&be, &wanted, &err);
    *reason = err.text;
    if (status != M40LLM_OK && (status != M40LLM_NO_DEVICE || options.must_have_device))
        fail_msg("cannot open %s: %s", options.device, err.text);
    return be;
}

struct m40_backend *open_cpu(m40llm_cpu_level level)
{
    m40llm_device_options wanted = M40LLM_DEVICE_OPTIONS_INIT;
    struct m40_backend *be;

    wanted.cpu_level = level;
    OK(m40_backend_open_cpu(&be, &wanted, &err));
    return be;
}

void runner_shuffle_pages(struct runner *r, uint64_t page_seed)
{
    uint32_t n = r->n_slots * r->n_slot_pages;

    for (uint32_t i = 0; i < n; i++)
        r->pages[i] = (int32_t)i;
    for (uint32_t i = n - 1; page_seed && i > 0; i--) {
        uint32_t j = (uint32_t)(test_random(&page_seed) % (i + 1));
        int32_t page = r->pages[i];

        r->pages[i] = r->pages[j];
        r->pages[j] = page;
    }
}

void runner_open(struct runner *r, struct m40_backend *be, const char *path, m40llm_kv_type kv_type, uint32_t n_slots, uint32_t n_ctx,
                 uint64_t page_seed)
{
    struct m40_forward_limits limits = {.kv_type = kv_type, .n_slots = n_slots};

    memset(r, 0, sizeof *r);
    r->n_slots = n_slots;
    r->n_slot_pages = (n_ctx + M40_KV_PAGE - 1) / M40_KV_PAGE;
    limits.n_slot_pages = r->n_slot_pages;
    limits.n_pages = n_slots * r->n_slot_pages;
    limits.n_tokens = n_slots * n_ctx < RUNNER_STEP_TOKENS ? n_slots * n_ctx : RUNNER_STEP_TOKENS;
    limits.n_logits = limits.n_tokens;
    OK(m40_gguf_open(&r->gguf, path, &err));
    OK(m40_model_open(&r->model, r->gguf, be, NULL, NULL, &err));
    OK(m40_forward_open(&r->forward, r->model, &limits, &err));
    r->n_vocab = r->model->config.n_vocab;
    r->pages = calloc(limits.n_pages, sizeof *r->pages);
    assert_non_null(r->pages);
    runner_shuffle_pages(r, page_seed);
}

void runner_close(struct runner *r)
{
    m40_forward_close(&r->forward);
    m40_model_close(&r->model);
    m40_gguf_close(&r->gguf);
    free(r->pages);
}

/* The rows of one step. */
struct rows {
    uint32_t n, n_logits;
    int32_t ids[RUNNER_STEP_TOKENS], pos[RUNNER_STEP_TOKENS], slot[RUNNER_STEP_TOKENS], logit_rows[RUNNER_STEP_TOKENS];
};

static void add_row(struct rows *rows, const struct sequence *s, uint32_t slot, uint32_t pos)
{
    assert_true(rows->n < RUNNER_STEP_TOKENS);
    rows->ids[rows->n] = s->ids[pos];
    rows->pos[rows->n] = (int32_t)pos;
    rows->slot[rows->n] = (int32_t)slot;
    if (s->logits && pos >= s->first_logits)
        rows->logit_rows[rows->n_logits++] = (int32_t)rows->n;
    rows->n++;
}

/* How many tokens the sequence has in the next step. */
static uint32_t n_next(const struct sequence *s, uint32_t done, uint32_t chunk)
{
    if (done >= s->n_prompt)
        return done < s->n_total;
    return s->n_prompt - done < chunk ? s->n_prompt - done : chunk;
}

static void fill_step(struct rows *rows, const struct sequence *sequences, uint32_t n_sequences, uint32_t chunk, const uint32_t *done)
{
    bool is_more = true;

    rows->n = 0;
    rows->n_logits = 0;
    for (uint32_t i = 0; is_more; i++) { /* the i-th row of every sequence, then the next: interleaved */
        is_more = false;
        for (uint32_t slot = 0; slot < n_sequences; slot++)
            if (i < n_next(&sequences[slot], done[slot], chunk)) {
                add_row(rows, &sequences[slot], slot, done[slot] + i);
                is_more = true;
            }
    }
}

void runner_feed(struct runner *r, const struct sequence *sequences, uint32_t n_sequences, uint32_t chunk)
{
    static struct rows rows;
    uint32_t done[16] = {0};
    float *logits = malloc((size_t)RUNNER_STEP_TOKENS * r->n_vocab * sizeof *logits);

    assert_non_null(logits);
    assert_true(n_sequences <= r->n_slots && n_sequences <= sizeof done / sizeof *done);
    for (fill_step(&rows, sequences, n_sequences, chunk, done); rows.n; fill_step(&rows, sequences, n_sequences, chunk, done)) {
        struct m40_batch batch = {.n_tokens = rows.n,
                                  .ids = rows.ids,
                                  .pos = rows.pos,
                                  .slot = rows.slot,
                                  .n_logits = rows.n_logits,
                                  .logit_rows = rows.logit_rows,
                                  .pages = r->pages};

        OK(m40_forward_step(r->forward, &batch, logits, &err));
        for (uint32_t i = 0; i < rows.n_logits; i++) {
            int32_t row = rows.logit_rows[i];

            memcpy(sequences[rows.slot[row]].logits + (size_t)rows.pos[row] * r->n_vocab, logits + (size_t)i * r->n_vocab,
                   r->n_vocab * sizeof *logits);
        }
        for (uint32_t i = 0; i < rows.n; i++)
            done[rows.slot[i]]++;
    }
    free(logits);
}

int32_t argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}
