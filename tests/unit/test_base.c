/* base/: status texts stay one line, half conversions are exact, exp is within 1 ulp, allocation failure is reported. */
#include "harness/harness.h"

#include "base/bytes.h"
#include "base/fmath.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include <math.h>

static void test_error_text_is_one_line(void **state)
{
    m40llm_error err;

    (void)state;
    assert_int_equal(m40_fail(&err, M40LLM_IO, "a\nb %s", "c\td"), M40LLM_IO);
    assert_string_equal(err.text, "a?b c?d");
    assert_int_equal(m40_fail(NULL, M40LLM_IO, "x"), M40LLM_IO);
    assert_string_equal(m40llm_status_text(M40LLM_BAD_FILE), "malformed file");
    assert_string_equal(m40llm_status_text((m40llm_status)9999), "unknown status");
}

static void test_f16_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = m40_f16_to_f32((uint16_t)h);

        if (f == f)
            assert_int_equal(m40_f32_to_f16(f), h);
        else
            assert_true((m40_f32_to_f16(f) & 0x7fff) > 0x7c00);
    }
    /* ties go to even; 65520 is the first to overflow; half of the least subnormal is a tie with zero */
    assert_int_equal(m40_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(m40_f32_to_f16(1.0f + 0x1.8p-10f), 0x3c02);
    assert_int_equal(m40_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(m40_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(m40_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(m40_f32_to_f16(-0x1.8p-25f), 0x8001);
}

static void test_exp_within_one_ulp(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0xff000000u; bits += 40009) {
        float x = m40_bits_to_f32(bits);
        double exact;

        if (!(fabsf(x) < 87.0f))
            continue;
        exact = exp((double)x);
        assert_true(fabs((double)m40_expf(x) - exact) <= ldexp(1.0, ilogb(exact) - 23));
    }
    assert_true(m40_expf(0.0f) == 1.0f && m40_expf(-0.0f) == 1.0f);
    assert_true(isinf(m40_expf(89.0f)) && m40_expf(-INFINITY) == 0.0f && isnan(m40_expf(NAN)));
    assert_true(m40_expf(-100.0f) > 0.0f); /* subnormal, not flushed */
}

static void test_tanh_within_two_and_a_half_ulp(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0xff800000u; bits += 40009) {
        float x = m40_bits_to_f32(bits);
        double exact = tanh((double)x);

        if (fabs(exact) >= 0x1p-126)
            assert_true(fabs((double)m40_tanhf(x) - exact) <= 2.5 * ldexp(1.0, ilogb(exact) - 23));
    }
    assert_true(m40_tanhf(0.0f) == 0.0f && signbit(m40_tanhf(-0.0f)));
    assert_true(m40_tanhf(INFINITY) == 1.0f && m40_tanhf(-INFINITY) == -1.0f && isnan(m40_tanhf(NAN)));
    assert_true(m40_tanhf(1e-40f) == 1e-40f);
}

static bool always(void *user)
{
    (void)user;
    return true;
}

static void test_allocation(void **state)
{
    void *block = m40_calloc_aligned(3, 5);

    (void)state;
    assert_int_equal((uintptr_t)block % 64, 0);
    m40_free(block);
    assert_null(m40_calloc(SIZE_MAX / 2, 4));
    assert_null(m40_realloc_array(NULL, SIZE_MAX / 2, 4));
    m40_mem_set_failure_hook(always, NULL);
    assert_null(m40_calloc(1, 1));
    assert_null(m40_calloc_aligned(1, 1));
    assert_null(m40_strndup("x", 1));
    m40_mem_set_failure_hook(NULL, NULL);
}

static void test_buf(void **state)
{
    struct m40_buf buf = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(m40_buf_printf(&buf, "%d,", i));
    assert_int_equal(buf.n_bytes, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(buf.data), buf.n_bytes);
    m40_buf_free(&buf);
}

static void test_bytes_fail_sticks(void **state)
{
    uint8_t data[6] = {1, 0, 0, 0, 2, 3};
    struct m40_bytes b = {.data = data, .n_bytes = sizeof data};

    (void)state;
    assert_int_equal(m40_bytes_u32(&b), 1);
    assert_int_equal(m40_bytes_left(&b), 2);
    assert_int_equal(m40_bytes_u32(&b), 0);
    assert_true(b.failed);
    assert_int_equal(m40_bytes_u8(&b), 0);
    assert_int_equal(m40_bytes_left(&b), 0);
    assert_null(m40_bytes_take(&b, UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_text_is_one_line),
        cmocka_unit_test(test_f16_round_trip),
        cmocka_unit_test(test_exp_within_one_ulp),
        cmocka_unit_test(test_tanh_within_two_and_a_half_ulp),
        cmocka_unit_test(test_allocation),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_bytes_fail_sticks),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
