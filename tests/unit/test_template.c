/* The chat-template language: real templates and one snippet for each corner of the language against Jinja2's renderings; errors with their lines; every bound; threads; memory that runs out. */
#include "harness/harness.h"

#include "base/mem.h"
#include "tokenizer/template/template.h"

#include <jansson.h>
#include <pthread.h>
#include <time.h>

static const struct m40_template_time now = {2026, 1, 15, 12, 0, 0};

/* The rendering into *out, or an error's text into err. */
static m40llm_status render(const char *text, size_t n_bytes, const char *context, const struct m40_template_limits *limits, struct m40_buf *out,
                            m40llm_error *err)
{
    struct m40_template *t;
    m40llm_status status = m40_template_compile(&t, text, n_bytes, err);

    *out = (struct m40_buf){0};
    if (status == M40LLM_OK)
        status = m40_template_render(t, context, strlen(context), &now, limits, out, err);
    m40_template_free(&t);
    return status;
}

static void expect_text(const char *text, const char *context, const char *wanted)
{
    struct m40_buf out;
    m40llm_error err;

    if (render(text, strlen(text), context, NULL, &out, &err) != M40LLM_OK)
        fail_msg("%s: %s", text, err.text);
    assert_string_equal(out.data, wanted);
    m40_buf_free(&out);
}

static void expect_error(const char *text, const char *context, const struct m40_template_limits *limits, const char *wanted)
{
    struct m40_buf out;
    m40llm_error err = {0};

    if (render(text, strlen(text), context, limits, &out, &err) == M40LLM_OK)
        fail_msg("%s: gave '%s' instead of an error", text, out.data);
    assert_null(out.data);
    if (!strstr(err.text, wanted))
        fail_msg("%s: wanted '%s' in '%s'", text, wanted, err.text);
}

/* One case against Jinja2's text (NULL: it fails there). Returns whether it is as it should be. */
static bool check_case(const char *name, struct m40_str text, const char *context, const char *wanted, size_t n_wanted)
{
    struct m40_buf out;
    m40llm_error err = {0};
    m40llm_status status = render(text.data, text.n_bytes, context, NULL, &out, &err);
    bool is_good;

    if (!wanted)
        is_good = status == M40LLM_TEMPLATE && strncmp(err.text, "line ", 5) == 0;
    else
        is_good = status == M40LLM_OK && out.n_bytes == n_wanted && memcmp(out.data, wanted, n_wanted) == 0;
    if (!is_good)
        print_error("%s\n  wanted: %s\n  got:    %s\n", name, wanted ? wanted : "an error", status == M40LLM_OK ? out.data : err.text);
    m40_buf_free(&out);
    return is_good;
}

static json_t *load(const char *name)
{
    json_error_t error;
    json_t *json = json_load_file(test_data(name), JSON_ALLOW_NUL, &error);

    if (!json)
        fail_msg("%s: line %d: %s", test_data(name), error.line, error.text);
    return json;
}

static void test_real_templates(void **state)
{
    json_t *cases = load("templates/cases.json"), *c;
    size_t i, n_bad = 0;

    (void)state;
    json_array_foreach(cases, i, c)
    {
        const char *name = json_string_value(json_object_get(c, "template"));
        const json_t *expected = json_object_get(c, "expected");
        char path[256], *text, *context = json_dumps(json_object_get(c, "context"), 0);
        size_t n_bytes;

        snprintf(path, sizeof path, "templates/%s", name);
        text = test_read_file(test_data(path), &n_bytes);
        snprintf(path, sizeof path, "%s: %s", name, json_string_value(json_object_get(c, "case")));
        n_bad += !check_case(path, (struct m40_str){text, n_bytes}, context, json_string_value(expected), json_string_length(expected));
        free(text);
        free(context);
    }
    assert_true(json_array_size(cases) >= 84);
    json_decref(cases);
    assert_int_equal(n_bad, 0);
}

static void test_language(void **state)
{
    json_t *all = load("templates/language.json"), *cases = json_object_get(all, "cases"), *c;
    char *context = json_dumps(json_object_get(all, "context"), JSON_ENCODE_ANY);
    size_t i, n_bad = 0;

    (void)state;
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "template"), *expected = json_object_get(c, "expected");

        n_bad += !check_case(json_string_value(text), (struct m40_str){json_string_value(text), json_string_length(text)}, context,
                             json_string_value(expected), json_string_length(expected));
    }
    assert_true(json_array_size(cases) > 1000);
    free(context);
    json_decref(all);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_templates),
        cmocka_unit_test(test_language),
    };

    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
