/* Truth, comparison, arithmetic: Python's, with integers of 64 bits that do not wrap. */
#include "tokenizer/template/builtins.h"
#include "tokenizer/template/lexer.h"

#include <math.h>

bool m40_tv_truth(struct m40_tv v)
{
    switch (v.type) {
    case TV_MISSING:
    case TV_UNDEFINED:
    case TV_NONE:
        return false;
    case TV_BOOL:
        return v.b;
    case TV_INT:
        return v.i != 0;
    case TV_FLOAT:
        return v.f != 0;
    case TV_STR:
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_VIEW:
    case TV_RANGE:
        return m40_tv_length(v) > 0;
    default:
        return true;
    }
}

/* ---- comparison ---- */

/* -1, 0 or 1; 2 where one is not a number. long double holds every int64_t and every double. */
static int compare_numbers(struct m40_tv a, struct m40_tv b)
{
    long double x = a.type == TV_FLOAT ? (long double)a.f : (long double)m40_tv_as_int(a);
    long double y = b.type == TV_FLOAT ? (long double)b.f : (long double)m40_tv_as_int(b);

    return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

static int compare_strings(const struct m40_tstr *a, const struct m40_tstr *b)
{
    size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    int order = n ? memcmp(a->data, b->data, n) : 0; /* the order of UTF-8's bytes is that of the code points */

    return order ? (order < 0 ? -1 : 1) : a->n_bytes < b->n_bytes ? -1 : a->n_bytes > b->n_bytes;
}

static bool equal_lists(struct m40_trun *r, const struct m40_tlist *a, const struct m40_tlist *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!m40_tr_equal(r, a->items[i], b->items[i]))
            return false;
    return true;
}

static bool equal_dicts(struct m40_trun *r, const struct m40_tdict *a, const struct m40_tdict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !r->failed; i++) {
        const struct m40_tv *other = m40_tdict_get(r, b, a->entries[i].key);

        if (!other || !m40_tr_equal(r, a->entries[i].value, *other))
            return false;
    }
    return true;
}

static bool equal_ranges(const struct m40_trange *a, const struct m40_trange *b)
{
    uint64_t n = m40_trange_length(a);

    return n == m40_trange_length(b) && (n == 0 || (a->start == b->start && (n == 1 || a->step == b->step)));
}

static bool equal_of_one_type(struct m40_trun *r, struct m40_tv a, struct m40_tv b)
{
    switch (a.type) {
    case TV_STR:
        m40_tr_step(r, a.s->n_bytes / 256);
        return m40_str_equal(m40_tstr_view(a.s), m40_tstr_view(b.s));
    case TV_LIST:
    case TV_TUPLE:
        return a.list == b.list || equal_lists(r, a.list, b.list);
    case TV_DICT:
        return a.dict == b.dict || equal_dicts(r, a.dict, b.dict);
    case TV_RANGE:
        return equal_ranges(a.range, b.range);
    case TV_FUNCTION:
        return a.method->builtin == b.method->builtin && a.method->self.type == b.method->self.type && a.method->self.list == b.method->self.list;
    case TV_MISSING:
    case TV_NONE:
    case TV_UNDEFINED:
        return true;
    default:
        return a.list == b.list; /* all of them are pointers */
    }
}

bool m40_tr_equal(struct m40_trun *r, struct m40_tv a, struct m40_tv b)
{
    bool is_equal = false;

    if (m40_tv_is_number(a) && m40_tv_is_number(b))
        return m40_tr_step(r, 1) && compare_numbers(a, b) == 0;
    if (a.type != b.type)
        return false;
    if (m40_tr_enter(r))
        is_equal = equal_of_one_type(r, a, b);
    m40_tr_leave(r);
    return is_equal;
}

static void fail_order(struct m40_trun *r, const char *op, struct m40_tv a, struct m40_tv b)
{
    if (!m40_tr_refuse_undefined(r, a) && !m40_tr_refuse_undefined(r, b))
        m40_tr_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, m40_tv_type_name(a), m40_tv_type_name(b));
}

/* -1, 0, 1; 2: neither (a NaN). */
static int order(struct m40_trun *r, const char *op, struct m40_tv a, struct m40_tv b)
{
    int result = 0;

    if (!m40_tr_enter(r)) {
        m40_tr_leave(r);
        return 2;
    }
    if (m40_tv_is_number(a) && m40_tv_is_number(b)) {
        result = compare_numbers(a, b);
    } else if (a.type == TV_STR && b.type == TV_STR) {
        m40_tr_step(r, a.s->n_bytes / 256);
        result = compare_strings(a.s, b.s);
    } else if ((a.type == TV_LIST || a.type == TV_TUPLE) && a.type == b.type) {
        size_t n = a.list->n < b.list->n ? a.list->n : b.list->n, i = 0;

        while (i < n && m40_tr_equal(r, a.list->items[i], b.list->items[i]))
            i++;
        result = i < n ? order(r, op, a.list->items[i], b.list->items[i]) : a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    } else {
        fail_order(r, op, a, b);
    }
    m40_tr_leave(r);
    return result;
}

bool m40_tr_less(struct m40_trun *r, struct m40_tv a, struct m40_tv b)
{
    return order(r, "<", a, b) == -1;
}

bool m40_tr_contains(struct m40_trun *r, struct m40_tv container, struct m40_tv item)
{
    struct m40_tlist *list;

    switch (container.type) {
    case TV_STR:
        if (item.type != TV_STR) {
            if (!m40_tr_refuse_undefined(r, item))
                m40_tr_fail(r, "'in <string>' requires string as left operand, not %s", m40_tv_type_name(item));
            return false;
        }
        m40_tr_step(r, container.s->n_bytes / 64);
        return m40_find_bytes(m40_tstr_view(container.s), m40_tstr_view(item.s), 0) != SIZE_MAX;
    case TV_DICT:
        return m40_tdict_get(r, container.dict, item) != NULL;
    default:
        if (!m40_tv_is_iterable(container)) {
            m40_tr_fail(r, "argument of type '%s' is not iterable", m40_tv_type_name(container));
            return false;
        }
        list = m40_tr_iterate(r, container);
        for (size_t i = 0; i < list->n && m40_tr_step(r, 1); i++)
            if (m40_tr_equal(r, list->items[i], item))
                return true;
        return false;
    }
}

bool m40_tr_compare(struct m40_trun *r, int op, struct m40_tv a, struct m40_tv b)
{
    int result;

    switch (op) {
    case TOKEN_EQ:
        return m40_tr_equal(r, a, b);
    case TOKEN_NE:
        return !m40_tr_equal(r, a, b);
    case OP_IN:
        return m40_tr_contains(r, b, a);
    case OP_NOT_IN:
        return !m40_tr_contains(r, b, a);
    case '<':
        return order(r, "<", a, b) == -1;
    case '>':
        return order(r, ">", a, b) == 1;
    case TOKEN_LE:
        result = order(r, "<=", a, b);
        return result == -1 || result == 0;
    default:
        result = order(r, ">=", a, b);
        return result == 1 || result == 0;
    }
}

/* ---- arithmetic ---- */

static const char *op_text(int op)
{
    static const struct {
        int op;
        const char *text;
    } texts[] = {{'+', "+"}, {'-', "-"}, {'*', "*"}, {'/', "/"}, {'%', "%"}, {TOKEN_FLOORDIV, "//"}, {TOKEN_POW, "** or pow()"}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].op == op)
            return texts[i].text;
    return "?";
}

static struct m40_tv overflow(struct m40_trun *r, int op)
{
    m40_tr_fail(r, "the result of '%s' does not fit 64 bits", op_text(op));
    return TV(TV_UNDEFINED);
}

static struct m40_tv by_zero(struct m40_trun *r)
{
    m40_tr_fail(r, "division by zero");
    return TV(TV_UNDEFINED);
}

static struct m40_tv int_power(struct m40_trun *r, int64_t base, int64_t exponent)
{
    int64_t result = 1;

    if (exponent < 0)
        return base == 0 ? by_zero(r) : m40_tv_float(pow((double)base, (double)exponent));
    while (exponent > 0) {
        if (exponent % 2 && __builtin_mul_overflow(result, base, &result))
            return overflow(r, TOKEN_POW);
        exponent /= 2;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base))
            return overflow(r, TOKEN_POW);
    }
    return m40_tv_int(result);
}

static struct m40_tv int_binary(struct m40_trun *r, int op, int64_t a, int64_t b)
{
    int64_t result = 0;

    switch (op) {
    case '+':
        return __builtin_add_overflow(a, b, &result) ? overflow(r, op) : m40_tv_int(result);
    case '-':
        return __builtin_sub_overflow(a, b, &result) ? overflow(r, op) : m40_tv_int(result);
    case '*':
        return __builtin_mul_overflow(a, b, &result) ? overflow(r, op) : m40_tv_int(result);
    case TOKEN_POW:
        return int_power(r, a, b);
    default:
        break;
    }
    if (b == 0)
        return by_zero(r);
    if (op == '/')
        return m40_tv_float((double)((long double)a / (long double)b));
    if (a == INT64_MIN && b == -1)
        return op == '%' ? m40_tv_int(0) : overflow(r, op);
    result = a % b;
    if (result != 0 && (result < 0) != (b < 0))
        result += b;
    return m40_tv_int(op == '%' ? result : a / b - ((a % b != 0) && ((a < 0) != (b < 0))));
}

static struct m40_tv float_binary(struct m40_trun *r, int op, double a, double b)
{
    double rest;

    switch (op) {
    case '+':
        return m40_tv_float(a + b);
    case '-':
        return m40_tv_float(a - b);
    case '*':
        return m40_tv_float(a * b);
    case TOKEN_POW:
        if (a == 0 && b < 0)
            return by_zero(r);
        if (a < 0 && floor(b) != b) {
            m40_tr_fail(r, "a negative number to a fractional power");
            return TV(TV_UNDEFINED);
        }
        return m40_tv_float(pow(a, b));
    default:
        break;
    }
    if (b == 0)
        return by_zero(r);
    if (op == '/')
        return m40_tv_float(a / b);
    rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0))
        rest += b;
    else if (rest == 0)
        rest = copysign(0.0, b);
    if (op == '%')
        return m40_tv_float(rest);
    rest = (a - rest) / b;
    return m40_tv_float(rest != 0 ? round(rest) : copysign(0.0, a / b));
}

static struct m40_tv unsupported(struct m40_trun *r, int op, struct m40_tv a, struct m40_tv b)
{
    if (m40_tr_refuse_undefined(r, a) || m40_tr_refuse_undefined(r, b))
        return TV(TV_UNDEFINED);
    if (op == '+' && a.type == TV_STR)
        m40_tr_fail(r, "can only concatenate str (not \"%s\") to str", m40_tv_type_name(b));
    m40_tr_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op), m40_tv_type_name(a), m40_tv_type_name(b));
    return TV(TV_UNDEFINED);
}

static void put_joined(struct m40_trun *r, struct m40_buf *buf, const struct m40_tstr *s, bool is_markup)
{
    if (is_markup && !s->is_markup)
        m40_tr_put_escaped(r, buf, m40_tstr_view(s));
    else
        m40_tr_put(r, buf, s->data, s->n_bytes);
}

static struct m40_tv add_strings(struct m40_trun *r, const struct m40_tstr *a, const struct m40_tstr *b)
{
    bool is_markup = a->is_markup || b->is_markup;
    struct m40_buf buf = {0};
    struct m40_tv joined;

    put_joined(r, &buf, a, is_markup);
    put_joined(r, &buf, b, is_markup);
    joined = m40_tr_take(r, &buf);
    return is_markup ? m40_tr_markup(r, joined.s) : joined;
}

static struct m40_tv add_lists(struct m40_trun *r, struct m40_tv a, struct m40_tv b)
{
    struct m40_tv sum = m40_tr_list(r, a.type, a.list->n + b.list->n);

    for (size_t i = 0; i < a.list->n && !r->failed; i++)
        m40_tr_push(r, sum.list, a.list->items[i]);
    for (size_t i = 0; i < b.list->n && !r->failed; i++)
        m40_tr_push(r, sum.list, b.list->items[i]);
    return sum;
}

/* A string, list or tuple n times. */
static struct m40_tv repeat(struct m40_trun *r, struct m40_tv v, int64_t n)
{
    struct m40_buf buf = {0};
    struct m40_tv result;

    if (v.type == TV_STR) {
        m40_tr_put_repeat(r, &buf, m40_tstr_view(v.s), n > 0 ? (uint64_t)n : 0);
        return m40_tr_take(r, &buf);
    }
    result = m40_tr_list(r, v.type, 0);
    for (int64_t k = 0; k < n && v.list->n > 0 && !r->failed; k++)
        for (size_t i = 0; i < v.list->n && !r->failed; i++)
            m40_tr_push(r, result.list, v.list->items[i]);
    return result;
}

static bool can_repeat(struct m40_tv v)
{
    return v.type == TV_STR || v.type == TV_LIST || v.type == TV_TUPLE;
}

struct m40_tv m40_tr_binary(struct m40_trun *r, int op, struct m40_tv a, struct m40_tv b)
{
    if (r->failed)
        return TV(TV_UNDEFINED);
    if (m40_tv_is_integer(a) && m40_tv_is_integer(b))
        return int_binary(r, op, m40_tv_as_int(a), m40_tv_as_int(b));
    if (m40_tv_is_number(a) && m40_tv_is_number(b))
        return float_binary(r, op, m40_tv_as_float(a), m40_tv_as_float(b));
    if (op == '+' && a.type == b.type && a.type == TV_STR)
        return add_strings(r, a.s, b.s);
    if (op == '+' && a.type == b.type && (a.type == TV_LIST || a.type == TV_TUPLE))
        return add_lists(r, a, b);
    if (op == '*' && can_repeat(a) && m40_tv_is_integer(b))
        return repeat(r, a, m40_tv_as_int(b));
    if (op == '*' && can_repeat(b) && m40_tv_is_integer(a))
        return repeat(r, b, m40_tv_as_int(a));
    if (op == '%' && a.type == TV_STR)
        return m40_tr_percent(r, m40_tstr_view(a.s), b);
    return unsupported(r, op, a, b);
}

struct m40_tv m40_tr_unary(struct m40_trun *r, int op, struct m40_tv v)
{
    int64_t negative;

    if (m40_tv_is_integer(v)) {
        if (op == '+')
            return m40_tv_int(m40_tv_as_int(v));
        return __builtin_sub_overflow((int64_t)0, m40_tv_as_int(v), &negative) ? overflow(r, '-') : m40_tv_int(negative);
    }
    if (v.type == TV_FLOAT)
        return m40_tv_float(op == '-' ? -v.f : v.f);
    if (!m40_tr_refuse_undefined(r, v))
        m40_tr_fail(r, "bad operand type for unary %c: '%s'", op, m40_tv_type_name(v));
    return TV(TV_UNDEFINED);
}
