/* The rope table against libm in long double, and its frequencies against those that the golden models' reference used. */
#include "harness/harness.h"

#include "model/model.h"

#include <jansson.h>
#include <math.h>

static float *make_table(const struct m40_model_config *config, uint32_t n_ctx)
{
    float *table = malloc((size_t)n_ctx * config->n_rot * sizeof *table);

    assert_non_null(table);
    m40_rope_table(config, n_ctx, table);
    return table;
}

/* What a value may be off: half a unit of the float it is rounded to, and the double arithmetic before it (a few units of the angle). */
static bool is_close(float found, long double exact, long double angle)
{
    long double half_unit = ldexpl(1.0L, (int)fmaxl(ilogbl(exact), -126) - 24);

    return fabsl(found - exact) <= half_unit * 1.0001L + 6e-16L * angle + 2e-16L;
}

static void check_against_libm(const struct m40_model_config *config, uint32_t n_ctx, uint32_t step)
{
    float *table = make_table(config, n_ctx);
    uint32_t n_pairs = config->n_rot / 2;
    size_t n_values = 0, n_same = 0;

    for (uint32_t pos = 0; pos < n_ctx; pos += step)
        for (uint32_t i = 0; i < n_pairs; i++) {
            long double f = powl((long double)config->rope_base, -2.0L * i / config->n_rot) / (long double)config->rope_scale, angle;
            const float *pair = table + 2 * ((size_t)pos * n_pairs + i);

            if (config->rope_freq_divisors)
                f /= (long double)config->rope_freq_divisors[i];
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
            check_against_libm(&(struct m40_model_config){.n_rot = n_rot, .rope_base = bases[i], .rope_scale = 1.0}, 1024, 7);
    check_against_libm(&(struct m40_model_config){.n_rot = 80, .rope_base = 10000.0, .rope_scale = 8.0}, 4096, 13);
    check_against_libm(&(struct m40_model_config){.n_rot = 32, .rope_base = 500000.0, .rope_scale = 0.5, .rope_freq_divisors = divisors}, 4096, 13);
    check_against_libm(&(struct m40_model_config){.n_rot = 2, .rope_base = 10000.0, .rope_scale = 1.0}, 1 << 21, 1009);
}

/* Angles of 0 give exactly 1 and 0; a few values beside exact multiples of pi/2. */
static void test_known_values(void **state)
{
    struct m40_model_config config = {.n_rot = 2, .rope_base = 10000.0, .rope_scale = 1.0};
    float *table = make_table(&config, 356);

    (void)state;
    assert_true(table[0] == 1.0f && table[1] == 0.0f);
    assert_true(table[2] == 0.54030230586813977f && table[3] == 0.84147098480789650f);
    /* 355 is close to 113 pi: sin(355) = -3.0144353359488449e-5 */
    assert_true(table[2 * 355] == -0.99999999954565895f && table[2 * 355 + 1] == -3.0144353359488449e-5f);
    free(table);
}

static double metadata_number(const json_t *recipe, const char *suffix, double otherwise)
{
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(recipe, "metadata"), i, entry)
    {
        const char *key = json_string_value(json_array_get(entry, 0));

        if (strlen(key) >= strlen(suffix) && !strcmp(key + strlen(key) - strlen(suffix), suffix))
            return json_number_value(json_array_get(entry, 2));
    }
    return otherwise;
}

static void check_golden(const char *name)
{
    char path[64];
    json_t *root, *inv_freq, *divisors_json;
    float divisors[128], *table;
    struct m40_model_config config = {.rope_scale = 1.0};

    snprintf(path, sizeof path, "golden/%s.json", name);
    root = json_load_file(test_data(path), 0, NULL);
    assert_non_null(root);
    inv_freq = json_object_get(json_object_get(root, "hf_rope"), "model.rotary_emb.inv_freq");
    config.n_rot = (uint32_t)json_array_size(inv_freq) * 2;
    assert_in_range(config.n_rot, 2, 256);
    config.rope_base = metadata_number(json_object_get(root, "recipe"), ".rope.freq_base", 10000.0);
    divisors_json = json_object_get(json_array_get(json_object_get(json_object_get(root, "recipe"), "constants"), 0), "values");
    for (size_t i = 0; i < json_array_size(divisors_json); i++)
        divisors[i] = (float)json_number_value(json_array_get(divisors_json, i));
    if (divisors_json)
        config.rope_freq_divisors = divisors;
    table = make_table(&config, 2);
    for (uint32_t i = 0; i < config.n_rot / 2; i++) {
        const float *pair = table + config.n_rot + 2 * i; /* position 1 */
        double f = atan2((double)pair[1], (double)pair[0]), expected = json_number_value(json_array_get(inv_freq, i));

        assert_true(fabs(f - expected) <= 4e-7 * expected); /* both went through float32 */
    }
    free(table);
    json_decref(root);
}

static void test_golden_frequencies(void **state)
{
    static const char *const names[] = {"llama", "llama31", "mistral", "qwen2", "qwen3"};

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
