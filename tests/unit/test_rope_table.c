/* The rope table against libm in long double, and its frequencies against those that the golden models' reference used. */
#include "harness/harness.h"

#include "harness/golden_gguf.h"
#include "model/model.h"

#include <jansson.h>
#include <math.h>

static float *make_table(const struct m40_rope *rope, uint32_t n_ctx)
{
    float *table = malloc((size_t)n_ctx * rope->n_rot * sizeof *table);

    assert_non_null(table);
    m40_rope_table(rope, n_ctx, false, table);
    return table;
}

/* What a value may be off: half a unit of the float it is rounded to, and the double arithmetic before it (a few units of the angle). */
static bool is_close(float found, long double exact, long double angle)
{
    long double half_unit = ldexpl(1.0L, (int)fmaxl(ilogbl(exact), -126) - 24);

    return fabsl(found - exact) <= half_unit * 1.0001L + 6e-16L * angle + 2e-16L;
}

static void check_against_libm(const struct m40_rope *rope, uint32_t n_ctx, uint32_t step)
{
    float *table = make_table(rope, n_ctx);
    uint32_t n_pairs = rope->n_rot / 2;
    size_t n_values = 0, n_same = 0;

    for (uint32_t pos = 0; pos < n_ctx; pos += step)
        for (uint32_t i = 0; i < n_pairs; i++) {
            long double f = powl((long double)rope->base, -2.0L * i / rope->n_rot) / (long double)rope->factor, angle;
            const float *pair = table + 2 * ((size_t)pos * n_pairs + i);

            if (rope->divisors)
                f /= (long double)rope->divisors[i];
            angle = f * pos;
            assert_true(is_close(pair[0], cosl(angle), angle));
            assert_true(is_close(pair[1], sinl(angle), angle));
            n_values += 2;
            n_same += (pair[0] == (float)cosl(angle)) + (pair[1] == (float)sinl(angle));
        }
    assert_true(n_same + n_values / 10000 >= n_values); /* nearly all are the one right float */
    free(table);
}

static void test_matches_libm(void **state)
{
    static const float divisors[16] = {1, 1, 2.44226f, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 1e30f, 0.5f};
    static const double bases[] = {1.0, 1.5, 10000.0, 500000.0, 1e6, 8388608.0, 1e11, 1e15};

    (void)state;
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++)
        for (uint32_t n_rot = 32; n_rot <= 256; n_rot *= 2)
            check_against_libm(&(struct m40_rope){.n_rot = n_rot, .base = bases[i], .factor = 1.0, .magnitude = 1.0}, 1024, 7);
    check_against_libm(&(struct m40_rope){.n_rot = 80, .base = 10000.0, .factor = 8.0, .magnitude = 1.0}, 4096, 13);
    check_against_libm(&(struct m40_rope){.n_rot = 32, .base = 500000.0, .factor = 0.5, .magnitude = 1.0, .divisors = divisors}, 4096, 13);
    check_against_libm(&(struct m40_rope){.n_rot = 2, .base = 10000.0, .factor = 1.0, .magnitude = 1.0}, 1 << 21, 1009);
}

/* Angles of 0 give exactly 1 and 0; a few values beside exact multiples of pi/2. */
static void test_known_values(void **state)
{
    struct m40_rope rope = {.n_rot = 2, .base = 10000.0, .factor = 1.0, .magnitude = 1.0};
    float *table = make_table(&rope, 356);

    (void)state;
    assert_true(table[0] == 1.0f && table[1] == 0.0f);
    assert_true(table[2] == 0.54030230586813977f && table[3] == 0.84147098480789650f);
    /* 355 is close to 113 pi: sin(355) = -3.0144353359488449e-5 */
    assert_true(table[2 * 355] == -0.99999999954565895f && table[2 * 355 + 1] == -3.0144353359488449e-5f);
    free(table);
}

/* The table of `kind` in hf_rope: its frequencies, and cos and sin's factor. */
static void check_rope(const struct m40_rope *rope, const json_t *hf_rope, const char *kind)
{
    char key[96];
    const json_t *inv_freq;
    double f[M40_ROPE_MAX_PAIRS], factor;

    snprintf(key, sizeof key, "model.rotary_emb.%sinv_freq", kind);
    inv_freq = json_object_get(hf_rope, key);
    assert_int_equal(rope->n_rot, 2 * json_array_size(inv_freq));
    m40_rope_frequencies(rope, 256, f);
    for (uint32_t i = 0; i < rope->n_rot / 2; i++) {
        double expected = json_number_value(json_array_get(inv_freq, i));

        if (!(fabs(f[i] - expected) <= 4e-7 * expected)) /* it went through float32 */
            fail_msg("pair %u turns by %.9g a position, expected %.9g", i, f[i], expected);
    }
    snprintf(key, sizeof key, "model.rotary_emb.%sattention_scaling", kind);
    factor = json_number_value(json_object_get(hf_rope, key));
    assert_true(fabs(rope->magnitude - factor) <= 1e-7 * factor);
}

static void check_golden(const char *name)
{
    char data[64], *path = golden_gguf_path(name);
    struct m40_gguf *gguf = NULL;
    struct m40_model_config config;
    json_t *root, *hf_rope;
    m40llm_error err;

    snprintf(data, sizeof data, "golden/%s.json", name);
    root = json_load_file(test_data(data), 0, NULL);
    assert_non_null(root);
    hf_rope = json_object_get(root, "hf_rope");
    if (m40_gguf_open(&gguf, path, &err) != M40LLM_OK || m40_model_config_read(&config, gguf, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    check_rope(&config.rope, hf_rope, config.has_local_rope ? "full_attention_" : "");
    if (config.has_local_rope)
        check_rope(&config.local_rope, hf_rope, "sliding_attention_");
    m40_gguf_close(&gguf);
    free(path);
    json_decref(root);
}

static void test_golden_frequencies(void **state)
{
    static const char *const names[] = {"llama", "llama31", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "phi3_longrope", "granite"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_golden(names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_libm),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_golden_frequencies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
