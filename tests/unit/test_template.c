/* The chat-template language: real templates and one snippet for each corner of the language against Jinja2's renderings; errors with their lines; every bound; threads; memory that runs out. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
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

/* ---- errors ---- */

static void test_errors_name_the_line(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"a\n{{ nope.x }}", "line 2: 'nope' is undefined"},
        {"a\n\n{% if x %}\n{{ 1 +\n'a' }}{% endif %}", "line 4: unsupported operand type(s) for +: 'int' and 'str'"},
        {"{% macro m(x) %}\n{{ x.y.z }}\n{% endmacro %}\n{{ m({}) }}", "line 2: 'dict object' has no attribute 'y'"},
        {"{# a\n b #}{{ raise_exception('no\nway') }}", "line 2: no?way"},
        {"{%- if true -%}\n\n{%- foo -%}", "line 3: unknown statement 'foo'"},
        {"x\r\ny\rz\n{{ 'a' }", "line 4: unexpected '}'"},
        {"a\n{{ 'a' ", "line 2: the {{ has no end"},
        {"a\n{% if true %}\n\nb", "'endif' is missing"},
        {"a\n{# b\n", "line 2: a comment has no end"},
        {"\n{% raw %}\n", "line 2: a raw block has no end"},
        {"\n{{ 'a\n", "line 2: a string has no end"},
        {"{% for x in 5 %}{% endfor %}", "line 1: 'int' object is not iterable"},
        {"\n{{ x|nosuch }}", "line 2: there is no filter 'nosuch'"},
        {"\n{{ x is nosuch }}", "line 2: there is no test 'nosuch'"},
        {"{{ l.append(1) }}", "line 1: access to attribute 'append' of 'list' object is unsafe."},
        {"{{ ''.__class__.__mro__ }}", "line 1: access to attribute '__class__' of 'str' object is unsafe."},
        {"{{ l|length(1) }}", "line 1: length() takes at most 0 argument(s), 1 given"},
        {"{{ 'x'|indent(size=1) }}", "line 1: indent() got an unexpected keyword argument 'size'"},
        {"{% include 'x' %}", "line 1: 'include' is not supported in a chat template"},
        {"{% import 'x' as y %}", "line 1: 'import' is not supported in a chat template"},
        {"{% extends 'x' %}", "line 1: 'extends' is not supported in a chat template"},
        {"{% autoescape true %}{% endautoescape %}", "line 1: 'autoescape' is not supported in a chat template"},
        {"\n{{ 9223372036854775808 }}", "line 2: the number 9223372036854775808 does not fit 64 bits"},
        {"{{ 9223372036854775807 + 1 }}", "line 1: the result of '+' does not fit 64 bits"},
        {"{{ 3037000500 * 3037000500 }}", "line 1: the result of '*' does not fit 64 bits"},
        {"{{ -9223372036854775807 - 2 }}", "line 1: the result of '-' does not fit 64 bits"},
        {"{{ (-9223372036854775807 - 1) // -1 }}", "line 1: the result of '//' does not fit 64 bits"},
        {"{{ -(-9223372036854775807 - 1) }}", "line 1: the result of '-' does not fit 64 bits"},
        {"{{ (-9223372036854775807 - 1)|abs }}", "line 1: the result of '-' does not fit 64 bits"},
        {"{{ 2 ** 63 }}", "line 1: the result of '** or pow()' does not fit 64 bits"},
        {"{{ 1e300|int }}", "line 1: the number does not fit 64 bits"},
        {"{{ '\\ud83d' }}", "line 1: a bad \\u escape in a string"},
        {"{{ '\\N{DASH}' }}", "line 1: \\N escapes are not supported"},
        {"{{ 'x'|random }}", "line 1: there is no filter 'random'"},
        {"{{ range(100001) }}", "line 1: range too big"},
        {"{{ strftime_now('%Q') }}", "line 1: strftime_now() does not know %Q"},
        {"\n\xff", "line 2: not UTF-8"},
        {"\xed\xa0\x80", "line 1: not UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_error(cases[i].text, "{\"l\": [1], \"x\": 1}", NULL, cases[i].error);
}

static void test_bad_contexts(void **state)
{
    static const char *const contexts[] = {
        "", "[]", "5", "{", "{\"a\": 1e999}", "{\"a\": \"\xff\"}", "{\"a\": 1} x", "{\"a\": 99999999999999999999}"};
    struct m40_buf out;
    m40llm_error err;

    (void)state;
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        assert_int_equal(render("x", 1, contexts[i], NULL, &out, &err), M40LLM_INVALID_ARGUMENT);
        assert_memory_equal(err.text, "context: ", 9);
    }
}

static void test_defaults(void **state)
{
    struct m40_template *t;
    struct m40_buf out;

    (void)state;
    assert_int_equal(m40_template_compile(&t, "{{ bos_token }}|{{ eos_token }}", 31, NULL), M40LLM_OK);
    assert_int_equal(m40_template_set_default(t, "bos_token", m40_str_from("<s>"), NULL), M40LLM_OK);
    assert_int_equal(m40_template_set_default(t, "eos_token", m40_str_from("</s>"), NULL), M40LLM_OK);
    assert_int_equal(m40_template_render(t, "{\"eos_token\": \"END\"}", 20, &now, NULL, &out, NULL), M40LLM_OK);
    assert_string_equal(out.data, "<s>|END");
    m40_buf_free(&out);
    m40_template_free(&t);
    assert_null(t);
    m40_template_free(&t);
}

static void test_times(void **state)
{
    static const char *const bad[] = {"",
                                      "2026",
                                      "2026-1-15",
                                      "2026-13-01",
                                      "2026-02-29",
                                      "2026-01-15T",
                                      "2026-01-15T25:00:00",
                                      "2026-01-15T12:00",
                                      "2026-01-15T12:00:00Z",
                                      "0000-01-01",
                                      "2026-01-15x12:00:00",
                                      "26-01-15",
                                      "2026-00-10",
                                      "2026-01-00",
                                      "+026-01-15",
                                      "2026-01-15T1:00:00"};
    struct m40_template_time t;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (m40_template_parse_time(bad[i], &t))
            fail_msg("'%s' is taken for a time", bad[i]);
    assert_true(m40_template_parse_time("2024-02-29 23:59:58", &t));
    assert_int_equal(t.year * 10000 + t.month * 100 + t.day, 20240229);
    assert_int_equal(t.hour * 10000 + t.minute * 100 + t.second, 235958);
    assert_true(m40_template_parse_time("2026-01-15", &t));
    assert_int_equal(t.hour + t.minute + t.second, 0);
}

/* Without a time given, the clock's. */
static void test_local_time(void **state)
{
    struct m40_template *t;
    struct m40_buf out;
    time_t seconds = time(NULL);
    char year[8];

    (void)state;
    strftime(year, sizeof year, "%Y", localtime(&seconds));
    assert_int_equal(m40_template_compile(&t, "{{ strftime_now('%Y') }}", 24, NULL), M40LLM_OK);
    assert_int_equal(m40_template_render(t, "{}", 2, NULL, NULL, &out, NULL), M40LLM_OK);
    assert_string_equal(out.data, year);
    m40_buf_free(&out);
    m40_template_free(&t);
}

/* ---- bounds ---- */

static char *repeat(const char *before, const char *text, size_t n, const char *behind)
{
    struct m40_buf buf = {0};

    m40_buf_append(&buf, before, strlen(before));
    for (size_t i = 0; i < n; i++)
        m40_buf_append(&buf, text, strlen(text));
    assert_true(m40_buf_append(&buf, behind, strlen(behind)));
    return buf.data;
}

static void test_bounds(void **state)
{
    static const char loops[] = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    struct m40_template_limits limits = M40_TEMPLATE_LIMITS_DEFAULT;
    struct timespec start, end;

    (void)state;
    limits.n_iterations = 200000;
    expect_error(loops, "{}", &limits, "line 1: the template's loops take more than 200000 iterations");
    limits.n_iterations = UINT64_MAX;
    limits.n_steps = 100000;
    expect_error(loops, "{}", &limits, "line 1: the template takes more than 100000 steps");
    limits.n_steps = UINT64_MAX;
    limits.time_ns = 50000000;
    clock_gettime(CLOCK_MONOTONIC, &start);
    expect_error(loops, "{}", &limits, "line 1: the template takes longer than 50 ms");
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec - start.tv_sec < 5);
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", NULL, "line 1: the template recurses more than 800 deep");
    expect_error("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "{}", NULL, "line 1: the template recurses more than 800 deep");
    expect_error("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "{}", NULL, "line 1: the template recurses more than 800 deep");
    expect_error("{{ 'x' * 1000000000 }}", "{}", NULL, "line 1: the template writes more than 67108864 bytes");
    expect_error("{{ [1] * 1000000000 }}", "{}", NULL, "line 1: the template needs more than 268435456 bytes of memory");
}

/* Whatever can make much of little comes to a bound. */
static void test_growth(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"{{ 'x' * 1000000000 }}", "writes more than 1000000 bytes"},
        {"{{ 'xy' * 9223372036854775807 }}", "writes more than 1000000 bytes"},
        {"{{ 'x'|center(1000000000) }}", "writes more than 1000000 bytes"},
        {"{{ 'x'.zfill(1000000000) }}", "writes more than 1000000 bytes"},
        {"{{ '\t'.expandtabs(1000000000) }}", "writes more than 1000000 bytes"},
        {"{{ 'x'|indent(1000000000, true) }}", "writes more than 1000000 bytes"},
        {"{{ [1]|tojson(indent=1000000000) }}", "writes more than 1000000 bytes"},
        {"{{ '%1000000000d' % 1 }}", "writes more than 1000000 bytes"},
        {"{{ '%*d' % (1000000000, 1) }}", "writes more than 1000000 bytes"},
        {"{{ '{:1000000000}'.format(1) }}", "writes more than 1000000 bytes"},
        {"{{ ('x' * 10000).replace('', 'y' * 10000) }}", "writes more than 1000000 bytes"},
        {"{{ ('y' * 1000)|join('x' * 10000) }}", "writes more than 1000000 bytes"},
        {"{% for a in range(1000) %}{{ 'x' * 10000 }}{% endfor %}", "the template "},
        {"{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for a in range(30) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
         "writes more than 1000000 bytes"},
        {"{% set ns = namespace(x=[1]) %}{% for a in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
         "writes more than 1000000 bytes"},
        {"{{ [1] * 1000000000 }}", "needs more than 4000000 bytes of memory"},
        {"{% set ns = namespace(x=[1, 2]) %}{% for a in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
         "needs more than 4000000 bytes of memory"},
        {"{{ [1]|batch(1000000000, 1)|list }}", "needs more than 4000000 bytes of memory"},
        {"{{ [1]|slice(1000000000)|list }}", "needs more than 4000000 bytes of memory"},
        {"{% set s = 'x' * 100000 %}{{ s|map('string')|list }}", "needs more than 4000000 bytes of memory"},
    };
    struct m40_template_limits limits = M40_TEMPLATE_LIMITS_DEFAULT;

    (void)state;
    limits.output_bytes = 1000000;
    limits.memory_bytes = 4000000;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_error(cases[i].text, "{}", &limits, cases[i].error);
}

/* What a template could use to escape its bounds: a filter that calls itself, texts that wait for inner ones, keywords by the thousand, a negative precision. */
static void test_ways_around_bounds(void **state)
{
    enum { N_PARAMS = 2000 };
    struct m40_template_limits limits = M40_TEMPLATE_LIMITS_DEFAULT;
    struct m40_buf text = {0}, context = {0};
    char number[24];

    (void)state;
    expect_error("{{ 'a'|map(*(['map'] * 200000))|list }}", "{}", NULL, "recurses more than");
    expect_text("{{ '%.*f' % (-4294967296 + 2147483647, 1.5) }}", "{}", "2"); /* a precision below 0 is 0 */
    expect_error("{{ '%*d' % (-9223372036854775807 - 1, 1) }}", "{}", NULL, "writes more than");
    limits.output_bytes = 1 << 20;
    expect_error("{% set s = 'x' * 400000 %}{% macro f(n) %}{{ s }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3)|length }}", "{}", &limits,
                 "writes more than");
    expect_error("{% set s = 'x' * 400000 %}{% macro f(n) %}{{ (s ~ (f(n - 1) if n else ''))|length }}{% endmacro %}{{ s ~ s ~ (s|length) ~ f(0) }}",
                 "{}", &limits, "writes more than");
    assert_true(m40_buf_append(&text, "{% macro f(a", 12) && m40_buf_append(&context, "{\"d\": {\"a\": 0", 13));
    for (int i = 0; i < N_PARAMS; i++) {
        int n = snprintf(number, sizeof number, ", a%d=0", i);

        assert_true(m40_buf_append(&text, number, (size_t)n));
        n = snprintf(number, sizeof number, ", \"a%d\": 0", i);
        assert_true(m40_buf_append(&context, number, (size_t)n));
    }
    assert_true(m40_buf_append(&text, ") %}{% endmacro %}{{ f(**d) }}", 30) && m40_buf_append(&context, "}}", 2));
    limits.n_steps = 500000;
    expect_error(text.data, context.data, &limits, "takes more than");
    m40_buf_free(&text);
    m40_buf_free(&context);
}

/* Parts of strings have no end mark: 16 digits fill an allocation. */
static void test_digits_in_paths(void **state)
{
    (void)state;
    expect_text("{{ [{}, {1234567890123456: 'b'}]|map(attribute='1234567890123456', default='a')|join }}", "{}", "ab");
}

static void test_deep_source(void **state)
{
    static const struct {
        const char *before, *text, *behind;
    } cases[] = {
        {"{{ ", "(", ""},
        {"{{ ", "[", ""},
        {"{{ ", "{1:", ""},
        {"{{ ", "not ", "1 }}"},
        {"{{ ", "-", "1 }}"},
        {"{{ ", "f(", ""},
        {"{{ ", "a[", ""},
        {"", "{% if 1 %}", ""},
        {"", "{% for x in y %}", ""},
        {"{{ a", " if a else a", " }}"},
        {"", "{% macro m() %}", ""},
        {"{% set ", "(", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = repeat(cases[i].before, cases[i].text, 20000, cases[i].behind);

        expect_error(text, "{}", NULL, "nested");
        m40_free(text);
    }
}

/* Long is not deep: chains are evaluated, or refused without harm. */
static void test_long_source(void **state)
{
    static const struct {
        const char *before, *text, *behind;
    } cases[] = {
        {"{{ 1", " + 1", " }}"}, {"{{ l", "|list", " }}"}, {"{{ l", "[0]", " }}"},
        {"{{ l", ".x", " }}"},   {"{{ l", "()", " }}"},    {"{{ 1", " and 1", " }}"},
    };
    char *text = repeat("{{ 'a'", " ~ 'a'", 5000, " }}");
    struct m40_buf out;

    (void)state;
    assert_int_equal(render(text, strlen(text), "{}", NULL, &out, NULL), M40LLM_OK);
    assert_int_equal(out.n_bytes, 5001);
    m40_buf_free(&out);
    m40_free(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text = repeat(cases[i].before, cases[i].text, 20000, cases[i].behind);
        expect_error(text, "{\"l\": [1]}", NULL, "line 1: ");
        m40_free(text);
    }
    text = repeat("", "{% if 1 %}a{% elif 2 %}b{% endif %}", 5000, "");
    assert_int_equal(render(text, strlen(text), "{}", NULL, &out, NULL), M40LLM_OK);
    assert_int_equal(out.n_bytes, 5000);
    m40_buf_free(&out);
    m40_free(text);
}

/* An array in an array, `depth` deep with the object around them. */
static char *nested_context(size_t depth)
{
    char *open = repeat("{\"a\": ", "[", depth - 1, ""), *close = repeat("", "]", depth - 1, "}");
    struct m40_buf context = {0};

    m40_buf_append(&context, open, strlen(open));
    m40_buf_append(&context, close, strlen(close));
    m40_free(open);
    m40_free(close);
    return context.data;
}

static void test_deep_context(void **state)
{
    static const size_t depths[] = {M40_TEMPLATE_MAX_CONTEXT_DEPTH, M40_TEMPLATE_MAX_CONTEXT_DEPTH + 1, 1500, 100000};

    (void)state;
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        char *context = nested_context(depths[i]);
        m40llm_error err = {0};
        struct m40_buf out;

        assert_int_equal(render("{{ a }}", 7, context, NULL, &out, &err), i ? M40LLM_INVALID_ARGUMENT : M40LLM_OK);
        assert_string_equal(err.text, i ? "context: values are nested more than 200 deep" : "");
        m40_buf_free(&out);
        m40_free(context);
    }
}

static void test_large_context(void **state)
{
    char *context = repeat("{\"a\": \"", "x", M40_TEMPLATE_MAX_CONTEXT_BYTES - 9, "\"}");
    m40llm_error err = {0};
    struct m40_buf out;

    (void)state;
    assert_int_equal(strlen(context), M40_TEMPLATE_MAX_CONTEXT_BYTES);
    assert_int_equal(render("{{ a|length }}", 14, context, NULL, &out, &err), M40LLM_OK);
    m40_buf_free(&out);
    m40_free(context);
    context = repeat("{\"a\": \"", "x", M40_TEMPLATE_MAX_CONTEXT_BYTES - 8, "\"}");
    assert_int_equal(render("x", 1, context, NULL, &out, &err), M40LLM_INVALID_ARGUMENT);
    assert_string_equal(err.text, "context: it has 16777217 bytes, more than 16777216");
    m40_free(context);
}

static void test_many_values(void **state)
{
    m40llm_error err = {0};
    struct m40_buf out;
    char *context = repeat("{\"a\": [", "{},", M40_TEMPLATE_MAX_CONTEXT_VALUES / 2, "0]}");

    (void)state;
    assert_int_equal(render("x", 1, context, NULL, &out, &err), M40LLM_INVALID_ARGUMENT);
    assert_string_equal(err.text, "context: it has more than 1048576 values");
    m40_free(context);
    context = repeat("{\"a\": \"\\\"", "[{,", M40_TEMPLATE_MAX_CONTEXT_VALUES, "\\\\\"}"); /* in a string they are text */
    assert_int_equal(render("{{ a|length }}", 14, context, NULL, &out, &err), M40LLM_OK);
    assert_string_equal(out.data, "3145730");
    m40_buf_free(&out);
    m40_free(context);
}

/* ---- the stack ---- */

/* The deepest that is known of each kind; none may need more than M40_TEMPLATE_STACK_BYTES. */
static void *go_deep(void *user)
{
    static const char *const texts[] = {
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{% for x in [1] %}{% filter upper %}{% set z %}{{ [m()]|map('string')|join|default(m()) }}{% endset %}{% endfilter %}{% "
        "endfor %}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{% call m(1) %}{{ caller() }}{{ m(x) ~ m(x) }}{% endcall %}{% endmacro %}{{ m(1) }}",
        "{% macro m(x) %}{{ x.a[m(x)]|tojson }}{{ [1]|map('default', m(x))|list }}{% endmacro %}{{ m({'a': 1}) }}",
        "{{ 'a'|map(*(['map'] * 200000))|list }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace(a=[]) %}{% for i in range(900) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a == ns.a }}{{ ns.a|tojson|length }}",
        "{{ a|tojson(indent=1)|length }}{{ a|string|length }}{{ a == a }}",
    };
    char *context = nested_context(M40_TEMPLATE_MAX_CONTEXT_DEPTH), *brackets = repeat("{% macro m() %}{{ ", "[", 95, "m()");
    char *rest = repeat("", "]", 95, " }}{% endmacro %}{{ m() }}");
    struct m40_buf text = {0}, out;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        render(texts[i], strlen(texts[i]), context, NULL, &out, NULL);
        m40_buf_free(&out);
    }
    m40_buf_append(&text, brackets, strlen(brackets));
    m40_buf_append(&text, rest, strlen(rest));
    assert_int_equal(render(text.data, text.n_bytes, context, NULL, &out, NULL), M40LLM_TEMPLATE);
    m40_buf_free(&text);
    m40_free(context);
    context = nested_context(100000);
    assert_int_equal(render("x", 1, context, NULL, &out, NULL), M40LLM_INVALID_ARGUMENT);
    m40_free(context);
    m40_free(brackets);
    m40_free(rest);
    return user;
}

static void test_stack(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const size_t n_bytes = 16 * (size_t)M40_TEMPLATE_STACK_BYTES; /* their frames are larger */
#else
    const size_t n_bytes = M40_TEMPLATE_STACK_BYTES;
#endif
    pthread_attr_t attributes;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, n_bytes), 0);
    assert_int_equal(pthread_create(&thread, &attributes, go_deep, NULL), 0); /* beyond its end there is no memory: the test would crash */
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
}

/* ---- threads, memory ---- */

struct job {
    const struct m40_template *t;
    const char *context;
    char *wanted;
    bool is_good;
};

static void *render_often(void *user)
{
    struct job *job = user;

    job->is_good = true;
    for (int i = 0; i < 50; i++) {
        struct m40_buf out;

        if (m40_template_render(job->t, job->context, strlen(job->context), &now, NULL, &out, NULL) != M40LLM_OK)
            job->is_good = false;
        else
            job->is_good = job->is_good && strcmp(out.data, job->wanted) == 0;
        m40_buf_free(&out);
    }
    return NULL;
}

static void test_threads(void **state)
{
    size_t n_bytes;
    char *text = test_read_file(test_data("templates/openai-gpt-oss-120b.jinja"), &n_bytes);
    const char *contexts[] = {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true}",
                              "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief\"}, {\"role\": \"user\", \"content\": \"\xc3\xa9\"}]}"};
    struct m40_template *t;
    struct job jobs[4];
    pthread_t threads[4];

    (void)state;
    assert_int_equal(m40_template_compile(&t, text, n_bytes, NULL), M40LLM_OK);
    free(text);
    for (int i = 0; i < 4; i++) {
        struct m40_buf out;

        assert_int_equal(m40_template_render(t, contexts[i % 2], strlen(contexts[i % 2]), &now, NULL, &out, NULL), M40LLM_OK);
        jobs[i] = (struct job){.t = t, .context = contexts[i % 2], .wanted = out.data};
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &jobs[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].is_good);
        m40_free(jobs[i].wanted);
    }
    m40_template_free(&t);
}

static bool fail_after(void *user)
{
    size_t *n_left = user;

    if (*n_left == 0)
        return true;
    --*n_left;
    return false;
}

/* Every allocation fails once, and all those after it: an error, no crash, no leak. */
static void test_no_memory(void **state)
{
    static const char text[] =
        "{% macro m(a, b=[1]) %}{{ a|map('upper')|join(b) }}{{ caller() }}{% endmacro %}{% for x in l|sort if x %}{% call m('abc', {'k': x}) %}"
        "{{ '%05d' % 3 }}{{ x ~ loop.index }}{% endcall %}{% endfor %}{{ l|tojson(indent=2) }}{{ 'a,b'.split(',')|groupby(0) }}";
    bool is_done = false;

    (void)state;
    for (size_t n = 0; !is_done; n++) {
        size_t n_left = n;
        struct m40_buf out;
        m40llm_error err = {0};
        m40llm_status status;

        m40_mem_set_failure_hook(fail_after, &n_left);
        status = render(text, sizeof text - 1, "{\"l\": [\"b\", \"a\", \"\"]}", NULL, &out, &err);
        m40_mem_set_failure_hook(NULL, NULL);
        is_done = status == M40LLM_OK;
        if (!is_done && status != M40LLM_NO_MEMORY)
            fail_msg("after %zu allocations: %s", n, err.text);
        m40_buf_free(&out);
    }
}

/* The same with the rendering's bound of memory: every piece of it may be the last. */
static void test_bound_of_memory_anywhere(void **state)
{
    json_t *all = load("templates/language.json"), *cases = json_object_get(all, "cases"), *c;
    char *context = json_dumps(json_object_get(all, "context"), 0);
    size_t i;

    (void)state;
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "template");
        struct m40_template_limits limits = M40_TEMPLATE_LIMITS_DEFAULT;
        struct m40_buf out;

        for (limits.memory_bytes = 5000; limits.memory_bytes < 40000; limits.memory_bytes += 5000 + 97 * (i % 11)) {
            render(json_string_value(text), json_string_length(text), context, &limits, &out, NULL);
            m40_buf_free(&out);
        }
    }
    free(context);
    json_decref(all);
}

static void test_plain(void **state)
{
    (void)state;
    expect_text("", "{}", "");
    expect_text("\n", "{}", "");
    expect_text("{{ a }}", "{\"a\": \"\\u0000b\"}", ""); /* a NUL is a character as any other */
    expect_text("{{ a|length }}", "{\"a\": \"\\u0000b\"}", "2");
    expect_text("{{ now }}{{ range }}", "{\"range\": 5}", "5"); /* the context comes before the functions */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_templates),
        cmocka_unit_test(test_language),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_errors_name_the_line),
        cmocka_unit_test(test_bad_contexts),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_local_time),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_ways_around_bounds),
        cmocka_unit_test(test_digits_in_paths),
        cmocka_unit_test(test_deep_source),
        cmocka_unit_test(test_long_source),
        cmocka_unit_test(test_deep_context),
        cmocka_unit_test(test_large_context),
        cmocka_unit_test(test_many_values),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_bound_of_memory_anywhere),
    };

    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
