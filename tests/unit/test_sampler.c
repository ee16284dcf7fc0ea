/* The choice of a token: each stage by logits made for it, the order of the stages, and the random numbers. The page pool, too, which is as small. */
#include "harness/harness.h"

#include "engine/kv_pages.h"
#include "engine/sampler.h"
#include "harness/naive_sample.h"

#include <math.h>

enum { MAX_VOCAB = 16, N_DRAWS = 20000 };

static m40llm_sampling defaults(void)
{
    m40llm_sampling p = M40LLM_SAMPLING_INIT;

    p.temperature = 1;
    p.seed = test_seed();
    return p;
}

static void open_sampler(struct m40_sampler *s, const m40llm_sampling *params, size_t n_vocab)
{
    m40llm_error err;

    if (m40_sampler_init(s, params, n_vocab, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
}

/* How often each id is drawn at positions 0 .. N_DRAWS - 1. */
static void draw_many(const m40llm_sampling *params, const float *logits, size_t n_vocab, unsigned *counts)
{
    struct m40_sampler s;

    memset(counts, 0, n_vocab * sizeof *counts);
    open_sampler(&s, params, n_vocab);
    for (uint32_t pos = 0; pos < N_DRAWS; pos++) {
        float copy[MAX_VOCAB];

        memcpy(copy, logits, n_vocab * sizeof *copy);
        counts[m40_sampler_choose(&s, copy, &(struct m40_history){0}, 0, pos)]++;
    }
    m40_sampler_free(&s);
}

/* Exactly the ids of the bit set can be drawn. */
static void expect_set(const m40llm_sampling *params, const float *logits, size_t n_vocab, unsigned set)
{
    unsigned counts[MAX_VOCAB], got = 0;

    draw_many(params, logits, n_vocab, counts);
    for (size_t i = 0; i < n_vocab; i++)
        got |= (unsigned)(counts[i] > 0) << i;
    assert_int_equal(got, set);
}

/* The choice for one position, and what bias and penalties made of the logits. */
static int32_t choose_once(const m40llm_sampling *params, float *logits, size_t n_vocab, const int32_t *history, size_t n_history)
{
    struct m40_sampler s;
    int32_t id;

    open_sampler(&s, params, n_vocab);
    id = m40_sampler_choose(&s, logits, &(struct m40_history){.prompt = history, .n_prompt = n_history}, 0, (uint32_t)n_history);
    m40_sampler_free(&s);
    return id;
}

/* Every six bits of the random numbers are uniform. */
static void test_uniform(void **state)
{
    enum { BINS = 64, N = 65536 };

    (void)state;
    for (int shift = 0; shift <= 58; shift += 29) {
        unsigned bins[BINS] = {0};
        double chi2 = 0;

        for (uint32_t pos = 0; pos < N; pos++) {
            uint64_t random = m40_sampler_random(test_seed(), 0, pos);

            assert_true(random == m40_sampler_random(test_seed(), 0, pos));
            bins[random >> shift & (BINS - 1)]++;
        }
        for (int i = 0; i < BINS; i++)
            chi2 += ((double)bins[i] - N / BINS) * ((double)bins[i] - N / BINS) / (N / BINS);
        assert_true(chi2 < 125); /* 63 degrees of freedom: one seed in 200000 is above */
    }
    assert_true(m40_sampler_random(1, 0, 5) != m40_sampler_random(2, 0, 5));
    assert_true(m40_sampler_random(1, 0, 5) != m40_sampler_random(1, 1, 5));
    assert_true(m40_sampler_random(1, 0, 5) != m40_sampler_random(1, 0, 6));
}

static void test_greedy(void **state)
{
    m40llm_sampling p = defaults();

    (void)state;
    p.temperature = 0;
    assert_int_equal(choose_once(&p, (float[]){1, 3, 2, 3}, 4, NULL, 0), 1); /* ties: the lower id */
    assert_int_equal(choose_once(&p, (float[]){NAN, -3, NAN, -2}, 4, NULL, 0), 3);
    assert_int_equal(choose_once(&p, (float[]){1, INFINITY, 2}, 3, NULL, 0), 1);
    assert_int_equal(choose_once(&p, (float[]){-INFINITY, -INFINITY}, 2, NULL, 0), 0);
    assert_int_equal(choose_once(&p, (float[]){NAN, NAN}, 2, NULL, 0), 0);
}

/* Probabilities 1/2, 1/4, 1/8, 1/8 under shuffled ids: 2, 0, 1, 3. */
static const float halves[4] = {-1.3862944f, -2.0794415f, -0.6931472f, -2.0794415f};

static void test_cuts(void **state)
{
    m40llm_sampling p = defaults();

    (void)state;
    expect_set(&p, halves, 4, 0xf);
    p.top_k = 1;
    expect_set(&p, halves, 4, 1 << 2);
    p.top_k = 3; /* of the tie between 1 and 3 the lower id stays */
    expect_set(&p, halves, 4, 1 << 2 | 1 << 0 | 1 << 1);
    p.top_k = 9;
    expect_set(&p, halves, 4, 0xf);
    p = defaults();
    p.top_p = 1e-6f;
    expect_set(&p, halves, 4, 1 << 2);
    p.top_p = 0.49f;
    expect_set(&p, halves, 4, 1 << 2);
    p.top_p = 0.51f;
    expect_set(&p, halves, 4, 1 << 2 | 1 << 0);
    p.top_p = 0.76f;
    expect_set(&p, halves, 4, 1 << 2 | 1 << 0 | 1 << 1);
    p = defaults();
    p.min_p = 0.6f;
    expect_set(&p, halves, 4, 1 << 2);
    p.min_p = 0.4f;
    expect_set(&p, halves, 4, 1 << 2 | 1 << 0);
    p.min_p = 0.2f;
    expect_set(&p, halves, 4, 0xf);
    p.min_p = 1;
    expect_set(&p, halves, 4, 1 << 2);
}

/* Each pair of stages gives another set in the other order. */
static void test_order_of_stages(void **state)
{
    m40llm_sampling p = defaults();

    (void)state;
    p.top_k = 2; /* 1/2 and 1/4 become 2/3 and 1/3: the first alone has 0.6 */
    p.top_p = 0.6f;
    expect_set(&p, halves, 4, 1 << 2);
    p = defaults();
    p.temperature = 0.5f; /* probabilities 16, 4, 1, 1 of 22: the first alone has 0.7 */
    p.top_p = 0.7f;
    expect_set(&p, halves, 4, 1 << 2);
    p.temperature = 2; /* ratios 1 : 0.71 : 0.5 : 0.5 */
    p.top_p = 1;
    p.min_p = 0.45f;
    expect_set(&p, halves, 4, 0xf);
    p = defaults();
    p.bias = (m40llm_logit_bias[]){{2, -INFINITY}}; /* the bias comes before top_k */
    p.n_bias = 1;
    p.top_k = 1;
    expect_set(&p, halves, 4, 1 << 0);
}

static void test_bias(void **state)
{
    m40llm_sampling p = defaults();
    float logits[3] = {1, 2, 3};
    m40llm_logit_bias bias[3] = {{0, 1.5f}, {2, -INFINITY}, {0, 1}};

    (void)state;
    p.temperature = 0;
    p.bias = bias;
    p.n_bias = 3;
    assert_int_equal(choose_once(&p, logits, 3, NULL, 0), 0);
    assert_true(logits[0] == 3.5f && logits[1] == 2 && logits[2] == -INFINITY);
}

static void test_penalties(void **state)
{
    m40llm_sampling p = defaults();
    const int32_t history[] = {3, 0, 1, 1, 0, 1};
    struct m40_sampler s;

    (void)state;
    p.temperature = 0;
    p.repeat_penalty = 2;
    p.frequency_penalty = 0.25f;
    p.presence_penalty = 1;
    p.penalty_last_n = 5;
    open_sampler(&s, &p, 4);
    for (size_t n_prompt = 0; n_prompt <= 6; n_prompt++) { /* nothing is left over from the call before */
        const struct m40_history split = {history, history + n_prompt, n_prompt, 6 - n_prompt};
        float logits[4] = {8, -1, 3, 2.5f};

        assert_int_equal(m40_sampler_choose(&s, logits, &split, 0, 6), 2);
        assert_true(logits[0] == 8.0f / 2 - 2 * 0.25f - 1); /* twice in the window */
        assert_true(logits[1] == -1.0f * 2 - 3 * 0.25f - 1);
        assert_true(logits[2] == 3);
        assert_true(logits[3] == 2.5f); /* beyond the window */
    }
    m40_sampler_free(&s);
    p.penalty_last_n = 0;
    assert_int_equal(choose_once(&p, (float[]){8, -1, 3, 2.5f}, 4, history, 6), 0);
}

static void test_distribution(void **state)
{
    static const float logits[8] = {0.1f, -1.2f, 2.0f, 0.7f, -0.4f, 1.1f, 0.1f, -2.5f};
    m40llm_sampling p = defaults();
    unsigned counts[8];
    double sum = 0, chi2 = 0;

    (void)state;
    p.temperature = 1.3f;
    for (int i = 0; i < 8; i++)
        sum += exp(logits[i] / 1.3);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        p.seed = seed;
        draw_many(&p, logits, 8, counts);
        chi2 = 0;
        for (int i = 0; i < 8; i++) {
            double wanted = N_DRAWS * exp(logits[i] / 1.3) / sum;

            chi2 += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
        }
        assert_true(chi2 < 40); /* 7 degrees of freedom: one in 800000 is above */
    }
}

/* Of 300 tokens, in double precision: the cuts of top_k, then top_p, then min_p, and how often each token left is drawn. */
static void test_distribution_behind_cuts(void **state)
{
    enum { N = 300, LEFT = 60, DRAWS = 20000 };
    static const struct {
        uint32_t top_k;
        float top_p, min_p;
    } cuts[] = {{60, 1, 0}, {40, 0.9f, 0}, {0, 0.7f, 0}, {0, 1, 0.05f}, {50, 0.95f, 0.03f}};
    static float logits[N], copy[N];
    static double weights[LEFT];
    static unsigned counts[N];

    (void)state;
    for (int i = 0; i < N; i++) /* token (i * 7) % N is the i-th likeliest */
        logits[i * 7 % N] = i < LEFT ? 10 - 0.1f * (float)i : -5 - 0.001f * (float)i;
    for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
        m40llm_sampling p = defaults();
        double sum = 0, reached = 0, chi2 = 0;
        struct m40_sampler s;
        int n = LEFT, kept = 0;

        p.temperature = 0.9f;
        p.top_k = cuts[k].top_k;
        p.top_p = cuts[k].top_p;
        p.min_p = cuts[k].min_p;
        n = p.top_k && p.top_k < LEFT ? (int)p.top_k : LEFT;
        for (int i = 0; i < n; i++)
            sum += weights[i] = exp((double)logits[i * 7 % N] / (double)p.temperature);
        while (kept < n && reached < (double)p.top_p * sum * (1 - 1e-6))
            reached += weights[kept++];
        while (weights[kept - 1] < (double)p.min_p * weights[0])
            reached -= weights[--kept];
        memset(counts, 0, sizeof counts);
        open_sampler(&s, &p, N);
        for (uint32_t pos = 0; pos < DRAWS; pos++) {
            memcpy(copy, logits, sizeof copy);
            counts[m40_sampler_choose(&s, copy, &(struct m40_history){0}, 0, pos)]++;
        }
        m40_sampler_free(&s);
        for (int i = 0; i < kept; i++) {
            double wanted = DRAWS * weights[i] / reached, got = counts[i * 7 % N];

            chi2 += (got - wanted) * (got - wanted) / wanted;
            counts[i * 7 % N] = 0;
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(counts[i], 0);              /* nothing else */
        assert_true(chi2 < kept + 6 * sqrt(2.0 * kept)); /* six standard deviations */
    }
}

static void test_temperature_and_min_z(void **state)
{
    (void)state;
    assert_true(m40_sample_inv_temperature(0) == 0 && m40_sample_inv_temperature(0.25f) == 4);
    assert_true(isfinite(m40_sample_inv_temperature(1e-45f)) && m40_sample_inv_temperature(3e38f) > 0);
    assert_true(m40_sample_min_z(0) == M40_SAMPLE_LEAST_Z);
    assert_true(m40_sample_min_z(1e-12f) == M40_SAMPLE_LEAST_Z);
    assert_true(m40_expf(m40_sample_min_z(1)) == 1);
    for (float min_p = 1e-11f; min_p < 1; min_p *= 1.7f) {
        float z = m40_sample_min_z(min_p);

        assert_true(fabs((double)z - log((double)min_p)) < 2e-7 * (1 - log((double)min_p)));
        assert_true(m40_expf(z) >= min_p && m40_expf(nextafterf(z, -28)) < min_p);
    }
}

/* Items are ordered as their logits are, then as their columns are, and keep both. */
static void test_items(void **state)
{
    static const float ascending[] = {-3e38f, -1, -1e-40f, 0, 1e-40f, 1, 3e38f, INFINITY};

    (void)state;
    for (size_t i = 0; i < sizeof ascending / sizeof *ascending; i++) {
        uint64_t item = m40_sample_item(ascending[i], 5);

        assert_true(m40_sample_logit(item) == ascending[i] && m40_sample_col(item) == 5);
        assert_true(item < m40_sample_item(ascending[i], 4));
        assert_true(i == 0 || item > m40_sample_item(ascending[i - 1], 0));
    }
    assert_true(m40_sample_item(-0.0f, 3) == m40_sample_item(0.0f, 3));
    assert_true(m40_sample_item(NAN, 3) == 0 && m40_sample_item(-INFINITY, 3) == 0);
}

static void test_products(void **state)
{
    uint64_t random = test_seed();

    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint64_t a = test_random(&random) >> i % 60, b = i % 7 ? test_random(&random) : UINT64_MAX;

        assert_true(m40_sample_times(a, b) == (uint64_t)((unsigned __int128)a * b >> 64));
    }
}

/* Whole vocabularies, with and without more candidates in one bin than the list has room for. */
static void test_against_sorting(void **state)
{
    enum { N = 30000 };
    static float logits[N];
    uint64_t random = test_seed();

    (void)state;
    for (int i = 0; i < 60; i++) {
        struct m40_sample_row row = {test_random(&random), 0.7f + 0.1f * (float)(i % 9), i % 3 ? 0.9f : 1, M40_SAMPLE_LEAST_Z, i % 4 ? 0 : 5000};

        row.min_z = m40_sample_min_z(i % 5 ? 0 : 0.01f);
        for (int k = 0; k < N; k++)
            logits[k] = i % 2 ? (float)(test_random(&random) % 4) : (float)(test_random(&random) % 100000) * 2e-4f;
        assert_int_equal(m40_sample(logits, N, &row), naive_sample(logits, N, &row));
    }
}

static void test_draws_depend_on_seed_and_position_alone(void **state)
{
    m40llm_sampling p = defaults();
    unsigned n_differ = 0;

    (void)state;
    for (uint32_t pos = 1; pos < 200; pos++) {
        static const int32_t history[200] = {0};
        float a[4], b[4], c[4];
        int32_t id;

        memcpy(a, halves, sizeof a);
        memcpy(b, halves, sizeof b);
        memcpy(c, halves, sizeof c);
        p.seed = 5;
        id = choose_once(&p, a, 4, history, pos);
        assert_int_equal(choose_once(&p, b, 4, history, pos), id);
        p.seed = 6;
        n_differ += choose_once(&p, c, 4, history, pos) != id;
    }
    assert_true(n_differ > 50);
}

static void test_nan_is_never_drawn(void **state)
{
    const float logits[6] = {NAN, 1, -INFINITY, 2, NAN, 0};
    m40llm_sampling p = defaults();

    (void)state;
    expect_set(&p, logits, 6, 1 << 1 | 1 << 3 | 1 << 5);
}

static void expect_refused(m40llm_sampling p, const char *name)
{
    struct m40_sampler s;
    m40llm_error err;

    assert_int_equal(m40_sampler_init(&s, &p, 8, &err), M40LLM_INVALID_ARGUMENT);
    if (!strstr(err.text, name))
        fail_msg("'%s' does not name %s", err.text, name);
}

static void test_bad_parameters(void **state)
{
    m40llm_sampling p;

    (void)state;
#define REFUSED(field, value) (p = defaults(), p.field = (value), expect_refused(p, #field))
    REFUSED(temperature, -1);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_p, 0);
    REFUSED(top_p, 1.01f);
    REFUSED(min_p, -0.1f);
    REFUSED(min_p, NAN);
    REFUSED(repeat_penalty, 0);
#undef REFUSED
    p = defaults();
    p.frequency_penalty = NAN;
    expect_refused(p, "penalties");
    p = defaults();
    p.n_bias = 1;
    p.bias = &(m40llm_logit_bias){8, 0};
    expect_refused(p, "token 8");
    p.bias = &(m40llm_logit_bias){-1, 0};
    expect_refused(p, "token -1");
    p.bias = &(m40llm_logit_bias){1, NAN};
    expect_refused(p, "not a number");
}

static void test_page_pool(void **state)
{
    struct m40_page_pool pool;

    (void)state;
    assert_int_equal(m40_page_pool_init(&pool, 3, NULL), M40LLM_OK);
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(m40_page_take(&pool), i);
    assert_int_equal(m40_page_take(&pool), -1);
    m40_page_share(&pool, 1);
    m40_page_release(&pool, 1);
    assert_int_equal(pool.n_used, 3); /* it has a user left */
    m40_page_release(&pool, 1);
    assert_int_equal(pool.n_used, 2);
    m40_page_release(&pool, 0);
    assert_int_equal(m40_page_take(&pool), 0); /* the one freed last */
    assert_int_equal(m40_page_take(&pool), 1);
    assert_int_equal(m40_page_take(&pool), -1);
    assert_int_equal(pool.n_used_max, 3);
    m40_page_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_order_of_stages),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_distribution_behind_cuts),
        cmocka_unit_test(test_temperature_and_min_z),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_against_sorting),
        cmocka_unit_test(test_draws_depend_on_seed_and_position_alone),
        cmocka_unit_test(test_nan_is_never_drawn),
        cmocka_unit_test(test_bad_parameters),
        cmocka_unit_test(test_page_pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
