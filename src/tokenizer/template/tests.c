/* What stands behind `is`. */
#include "tokenizer/template/builtins.h"
#include "tokenizer/template/lexer.h"

#define TEST(name) static struct m40_tv test_##name(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)

/* A test that looks at the value alone. */
#define PLAIN_TEST(name, condition)                                                                                                                  \
    TEST(name)                                                                                                                                       \
    {                                                                                                                                                \
        (void)r;                                                                                                                                     \
        (void)args;                                                                                                                                  \
        return m40_tv_bool(condition);                                                                                                               \
    }

PLAIN_TEST(defined, self.type != TV_UNDEFINED)
PLAIN_TEST(undefined, self.type == TV_UNDEFINED)
PLAIN_TEST(none, self.type == TV_NONE)
PLAIN_TEST(boolean, self.type == TV_BOOL)
PLAIN_TEST(is_true, self.type == TV_BOOL && self.b)
PLAIN_TEST(is_false, self.type == TV_BOOL && !self.b)
PLAIN_TEST(integer, self.type == TV_INT)
PLAIN_TEST(float, self.type == TV_FLOAT)
PLAIN_TEST(number, m40_tv_is_number(self))
PLAIN_TEST(string, self.type == TV_STR)
PLAIN_TEST(mapping, self.type == TV_DICT)
PLAIN_TEST(iterable, m40_tv_is_iterable(self) || self.type == TV_LOOP)
PLAIN_TEST(escaped, self.type == TV_STR && self.s->is_markup)
/* an undefined value has a length, and anything may be asked of it */
PLAIN_TEST(sequence, self.type == TV_UNDEFINED || (m40_tv_length(self) >= 0 && self.type != TV_VIEW && self.type != TV_LOOP))
PLAIN_TEST(callable, self.type == TV_FUNCTION || self.type == TV_MACRO || self.type == TV_LOOP || self.type == TV_JOINER || self.type == TV_UNDEFINED)
PLAIN_TEST(filter, self.type == TV_STR && m40_find_filter(m40_tstr_view(self.s)) != NULL)
PLAIN_TEST(test, self.type == TV_STR && m40_find_test(m40_tstr_view(self.s)) != NULL)

static bool is_multiple(struct m40_trun *r, struct m40_tv v, struct m40_tv divisor, int rest)
{
    return m40_tr_equal(r, m40_tr_binary(r, '%', v, divisor), m40_tv_int(rest));
}

TEST(odd)
{
    (void)args;
    return m40_tv_bool(is_multiple(r, self, m40_tv_int(2), 1));
}

TEST(even)
{
    (void)args;
    return m40_tv_bool(is_multiple(r, self, m40_tv_int(2), 0));
}

TEST(divisibleby)
{
    return m40_tv_bool(is_multiple(r, self, args->pos[0], 0));
}

/* All letters of one case, and at least one letter of it. */
static bool is_of_case(struct m40_trun *r, struct m40_tv v, bool (*is_it)(uint32_t), bool (*is_other)(uint32_t))
{
    const struct m40_tstr *s = m40_tr_text(r, v);
    bool has_one = false;
    unsigned n;

    for (size_t at = 0; at < s->n_bytes && m40_tr_step(r, 1); at += n) {
        uint32_t c = m40_char_at(s->data + at, &n);

        if (is_other(c) || m40_char_is_title(c))
            return false;
        has_one = has_one || is_it(c);
    }
    return has_one;
}

TEST(lower)
{
    (void)args;
    return m40_tv_bool(is_of_case(r, self, m40_char_is_lower, m40_char_is_upper));
}

TEST(upper)
{
    (void)args;
    return m40_tv_bool(is_of_case(r, self, m40_char_is_upper, m40_char_is_lower));
}

TEST(sameas)
{
    struct m40_tv other = args->pos[0];

    if (self.type != other.type)
        return m40_tv_bool(false);
    if (self.type == TV_LIST || self.type == TV_TUPLE || self.type == TV_DICT || self.type == TV_NAMESPACE)
        return m40_tv_bool(self.list == other.list);
    return m40_tv_bool(m40_tr_equal(r, self, other));
}

#define COMPARISON(name, op)                                                                                                                         \
    TEST(name)                                                                                                                                       \
    {                                                                                                                                                \
        return m40_tv_bool(m40_tr_compare(r, op, self, args->pos[0]));                                                                               \
    }

COMPARISON(eq, TOKEN_EQ)
COMPARISON(ne, TOKEN_NE)
COMPARISON(lt, '<')
COMPARISON(le, TOKEN_LE)
COMPARISON(gt, '>')
COMPARISON(ge, TOKEN_GE)
COMPARISON(in, OP_IN)

static const struct m40_tbuiltin tests[] = {
    {"boolean", test_boolean, "", 0},     {"callable", test_callable, "", 0},
    {"defined", test_defined, "", 0},     {"divisibleby", test_divisibleby, "num", 1},
    {"eq", test_eq, "other", 1},          {"equalto", test_eq, "other", 1},
    {"==", test_eq, "other", 1},          {"escaped", test_escaped, "", 0},
    {"even", test_even, "", 0},           {"false", test_is_false, "", 0},
    {"filter", test_filter, "", 0},       {"float", test_float, "", 0},
    {"ge", test_ge, "other", 1},          {">=", test_ge, "other", 1},
    {"greaterthan", test_gt, "other", 1}, {"gt", test_gt, "other", 1},
    {">", test_gt, "other", 1},           {"in", test_in, "seq", 1},
    {"integer", test_integer, "", 0},     {"iterable", test_iterable, "", 0},
    {"le", test_le, "other", 1},          {"<=", test_le, "other", 1},
    {"lessthan", test_lt, "other", 1},    {"lower", test_lower, "", 0},
    {"lt", test_lt, "other", 1},          {"<", test_lt, "other", 1},
    {"mapping", test_mapping, "", 0},     {"ne", test_ne, "other", 1},
    {"!=", test_ne, "other", 1},          {"none", test_none, "", 0},
    {"number", test_number, "", 0},       {"odd", test_odd, "", 0},
    {"sameas", test_sameas, "other", 1},  {"sequence", test_sequence, "", 0},
    {"string", test_string, "", 0},       {"test", test_test, "", 0},
    {"true", test_is_true, "", 0},        {"undefined", test_undefined, "", 0},
    {"upper", test_upper, "", 0},
};

const struct m40_tbuiltin *m40_find_test(struct m40_str name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (m40_str_equal(name, m40_str_from(tests[i].name)))
            return &tests[i];
    return NULL;
}

bool m40_tr_test(struct m40_trun *r, struct m40_tv name, struct m40_tv v, const struct m40_targs *args)
{
    const struct m40_tbuiltin *test = name.type == TV_STR ? m40_find_test(m40_tstr_view(name.s)) : NULL;

    if (!test) {
        const struct m40_tstr *text = m40_tr_text(r, name);

        m40_tr_fail(r, "there is no test '%.*s'", m40_shown(text->n_bytes), text->data);
        return false;
    }
    return m40_tv_truth(m40_tr_call_builtin(r, test, v, args));
}
