/* Python's two ways to format: "text" % values, and text.format(...). And numbers from texts. */
#include "tokenizer/template/builtins.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { MAX_PRECISION = 1000 };

/* How one value is to be written. */
struct spec {
    char fill[4];
    unsigned n_fill;
    char align; /* '<', '>', '^', '=' (behind the sign), 0: as the type has it */
    char sign;  /* '+', ' ', 0 */
    bool alternate, has_zero;
    int64_t width;
    char grouping; /* ',', '_', 0 */
    int precision; /* -1: none */
    char type;     /* 0: none */
};

static const struct spec no_spec = {.fill = " ", .n_fill = 1, .precision = -1};

/* sign and body filled up to the width. */
static void put_padded(struct m40_trun *r, struct m40_buf *buf, const struct spec *s, const char *sign, struct m40_str body, char default_align)
{
    const struct m40_tstr *text = m40_tstr_borrow(&r->arena, body.data ? body.data : "", body.n_bytes);
    uint64_t n_chars = strlen(sign) + text->n_chars, n = s->width > 0 && (uint64_t)s->width > n_chars ? (uint64_t)s->width - n_chars : 0;
    char align = s->align ? s->align : default_align;
    uint64_t left = align == '<' ? 0 : align == '^' ? n / 2 : n;
    struct m40_str fill = {s->fill, s->n_fill};

    if (align != '=')
        m40_tr_put_repeat(r, buf, fill, left);
    m40_tr_put_text(r, buf, sign);
    if (align == '=')
        m40_tr_put_repeat(r, buf, fill, left);
    m40_tr_put(r, buf, text->data, text->n_bytes);
    m40_tr_put_repeat(r, buf, fill, n - left);
}

/* Puts a separator between every `every` digits of the whole part of digits. */
static void put_grouped(struct m40_trun *r, struct m40_buf *buf, struct m40_str digits, char separator, size_t every)
{
    size_t n_whole = 0;

    while (n_whole < digits.n_bytes && ((digits.data[n_whole] >= '0' && digits.data[n_whole] <= '9') ||
                                        (every == 4 && (digits.data[n_whole] | 0x20) <= 'f' && (digits.data[n_whole] | 0x20) >= 'a')))
        n_whole++;
    for (size_t i = 0; i < n_whole && !r->failed; i++) {
        if (i && separator && (n_whole - i) % every == 0)
            m40_tr_put(r, buf, &separator, 1);
        m40_tr_put(r, buf, digits.data + i, 1);
    }
    m40_tr_put(r, buf, digits.data + n_whole, digits.n_bytes - n_whole);
}

static void put_int_as(struct m40_trun *r, struct m40_buf *buf, const struct spec *s, int64_t i)
{
    const char type = s->type ? s->type : 'd';
    const unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    uint64_t rest = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char digits[72], sign[4], *p = digits + sizeof digits;
    struct m40_buf body = {0};
    struct spec padded = *s;
    size_t n = 0;

    do
        *--p = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[rest % base];
    while ((rest /= base) > 0);
    if (i < 0)
        sign[n++] = '-';
    else if (s->sign)
        sign[n++] = s->sign;
    if (s->alternate && base != 10) {
        sign[n++] = '0';
        sign[n++] = type;
    }
    sign[n] = 0;
    if (s->precision > digits + sizeof digits - p)
        m40_tr_put_repeat(r, &body, m40_str_from("0"), (uint64_t)(s->precision - (digits + sizeof digits - p)));
    put_grouped(r, &body, (struct m40_str){p, (size_t)(digits + sizeof digits - p)}, s->grouping, base == 10 ? 3 : 4);
    put_padded(r, buf, &padded, sign, (struct m40_str){body.data, body.n_bytes}, '>');
    m40_buf_free(&body);
}

/* The digits of a float without its sign. */
static void put_digits(struct m40_trun *r, struct m40_buf *body, const struct spec *s, double f)
{
    const char lower = s->type ? (char)(s->type | 0x20) : 0;
    int precision = s->precision < 0 ? 6 : s->precision;
    char text[32];

    if (!isfinite(f)) {
        bool is_large = s->type == 'F' || s->type == 'E' || s->type == 'G';

        m40_tr_put_text(r, body, isnan(f) ? (is_large ? "NAN" : "nan") : is_large ? "INF" : "inf");
        return;
    }
    if (s->type == 0 && s->precision < 0) {
        m40_double_text(f, text);
        m40_tr_put_text(r, body, text);
        return;
    }
    if (s->type == 0 || lower == 'g' || lower == 'n') {
        char conversion = s->type == 'G' ? 'G' : 'g';

        if (!m40_double_format(body, conversion, s->alternate, precision, f))
            m40_tr_no_memory(r);
        else if (s->type == 0 && !strpbrk(body->data, ".e")) /* a float stays one */
            m40_tr_put_text(r, body, ".0");
    } else {
        if (!m40_double_format(body, s->type == '%' || lower == 'f' ? 'f' : s->type, s->alternate, precision, s->type == '%' ? f * 100 : f))
            m40_tr_no_memory(r);
        if (s->type == '%')
            m40_tr_put_text(r, body, "%");
    }
}

static void put_float_as(struct m40_trun *r, struct m40_buf *buf, const struct spec *s, double f)
{
    const char sign[2] = {signbit(f) && !isnan(f) ? '-' : s->sign, 0};
    struct m40_buf digits = {0}, body = {0};

    put_digits(r, &digits, s, fabs(f));
    put_grouped(r, &body, (struct m40_str){digits.data ? digits.data : "", digits.n_bytes}, s->grouping, 3);
    put_padded(r, buf, s, sign, (struct m40_str){body.data, body.n_bytes}, '>');
    m40_buf_free(&digits);
    m40_buf_free(&body);
}

/* A text, cut to the precision in characters. */
static void put_text_as(struct m40_trun *r, struct m40_buf *buf, const struct spec *s, struct m40_str text)
{
    struct m40_tv v = m40_tr_part(r, text.data, text.n_bytes);

    if (s->precision >= 0)
        v = m40_tr_slice(r, v, TV(TV_NONE), m40_tv_int(s->precision), TV(TV_NONE));
    if (v.type == TV_STR)
        put_padded(r, buf, s, "", m40_tstr_view(v.s), '<');
}

/* ---- % ---- */

struct percent {
    struct m40_trun *r;
    struct m40_str format;
    size_t at;
    struct m40_tv values;
    size_t n_used;
};

static struct m40_tv next_value(struct percent *p)
{
    const struct m40_tlist *list = p->values.type == TV_TUPLE ? p->values.list : NULL;

    if (list ? p->n_used < list->n : p->n_used == 0)
        return list ? list->items[p->n_used++] : (p->n_used++, p->values);
    m40_tr_fail(p->r, "not enough arguments for format string");
    return TV(TV_NONE);
}

static char peek(const struct percent *p)
{
    return p->at < p->format.n_bytes ? p->format.data[p->at] : 0;
}

/* Digits, or '*' for the next value; -limit .. limit. */
static int64_t read_size(struct percent *p, int64_t limit)
{
    int64_t n = 0;

    if (peek(p) == '*') {
        struct m40_tv v = next_value(p);

        p->at++;
        if (!m40_tv_is_integer(v))
            m40_tr_fail(p->r, "* wants int");
        n = m40_tv_is_integer(v) ? m40_tv_as_int(v) : 0;
        return n > limit ? limit : n < -limit ? -limit : n;
    }
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++)
        n = n > limit ? limit : n * 10 + peek(p) - '0';
    return n > limit ? limit : n;
}

static void read_flags(struct percent *p, struct spec *s)
{
    for (; peek(p) && strchr("#0- +", peek(p)); p->at++)
        switch (peek(p)) {
        case '#':
            s->alternate = true;
            break;
        case '0':
            s->has_zero = true;
            break;
        case '-':
            s->align = '<';
            break;
        case '+':
            s->sign = '+';
            break;
        default:
            s->sign = s->sign ? s->sign : ' ';
            break;
        }
}

static void put_percent_number(struct percent *p, struct m40_buf *buf, struct spec *s, struct m40_tv v)
{
    bool is_int = strchr("diuoxX", s->type) != NULL;
    int64_t i = 0;

    if (s->has_zero && !s->align) {
        s->align = '=';
        s->fill[0] = '0';
    }
    if (!m40_tv_is_number(v) || (is_int && strchr("oxX", s->type) && v.type == TV_FLOAT)) {
        m40_tr_fail(p->r, "%%%c format: a number is required, not %s", s->type, m40_tv_type_name(v));
    } else if (is_int) {
        if (!m40_tr_to_int(v, 10, &i))
            m40_tr_fail(p->r, "%%%c format: the number does not fit 64 bits", s->type);
        if (strchr("iu", s->type))
            s->type = 'd';
        put_int_as(p->r, buf, s, i);
    } else {
        put_float_as(p->r, buf, s, m40_tv_as_float(v));
    }
}

static void put_percent_char(struct percent *p, struct m40_buf *buf, const struct spec *s, struct m40_tv v)
{
    char bytes[4];

    if (m40_tv_is_integer(v) && m40_tv_as_int(v) >= 0 && m40_tv_as_int(v) <= 0x10ffff && (m40_tv_as_int(v) & ~0x7ff) != 0xd800)
        put_text_as(p->r, buf, s, m40_tstr_view(m40_tstr_copy(&p->r->arena, bytes, m40_char_encode((uint32_t)m40_tv_as_int(v), bytes))));
    else if (v.type == TV_STR && v.s->n_chars == 1)
        put_text_as(p->r, buf, s, m40_tstr_view(v.s));
    else
        m40_tr_fail(p->r, "%%c requires int or char");
}

/* One conversion, behind its '%'. */
static void put_conversion(struct percent *p, struct m40_buf *buf)
{
    struct m40_trun *r = p->r;
    struct spec s = no_spec;
    struct m40_tv v = TV(TV_MISSING);
    struct m40_buf text = {0};

    if (peek(p) == '(') {
        size_t close = m40_find_bytes(p->format, m40_str_from(")"), p->at);
        const struct m40_tv *found;

        if (p->values.type != TV_DICT || close == SIZE_MAX) {
            m40_tr_fail(r, close == SIZE_MAX ? "incomplete format key" : "format requires a mapping");
            return;
        }
        found = m40_tdict_get_text(r, p->values.dict, (struct m40_str){p->format.data + p->at + 1, close - p->at - 1});
        if (!found)
            m40_tr_fail(r, "the format's key is not in the mapping");
        v = found ? *found : TV(TV_NONE);
        p->n_used = 1;
        p->at = close + 1;
    }
    read_flags(p, &s);
    s.width = read_size(p, INT32_MAX);
    if (s.width < 0) {
        s.align = '<';
        s.width = -s.width;
    }
    if (peek(p) == '.') {
        p->at++;
        s.precision = (int)read_size(p, MAX_PRECISION);
        s.precision = s.precision > 0 ? s.precision : 0;
    }
    while (peek(p) && strchr("hlL", peek(p)))
        p->at++;
    s.type = peek(p);
    p->at++;
    if (s.type == '%') {
        m40_tr_put_text(r, buf, "%");
        return;
    }
    if (!s.type || !strchr("diuoxXeEfFgGcrsa", s.type)) {
        m40_tr_fail(r, s.type ? "unsupported format character '%c'" : "incomplete format", s.type);
        return;
    }
    if (v.type == TV_MISSING)
        v = next_value(p);
    if (s.type == 'c') {
        put_percent_char(p, buf, &s, v);
    } else if (strchr("rsa", s.type)) {
        s.align = s.align ? s.align : '>';
        (s.type == 's' ? m40_tr_print : m40_tr_repr)(r, &text, v);
        put_text_as(r, buf, &s, (struct m40_str){text.data ? text.data : "", text.n_bytes});
        m40_buf_free(&text);
    } else {
        put_percent_number(p, buf, &s, v);
    }
}

/* What may hold the values of "%(name)s" need not be used. */
static bool can_be_unused(struct m40_tv values)
{
    return values.type == TV_DICT || values.type == TV_LIST || values.type == TV_RANGE || values.type == TV_UNDEFINED;
}

struct m40_tv m40_tr_percent(struct m40_trun *r, struct m40_str format, struct m40_tv values)
{
    struct percent p = {.r = r, .format = format, .values = values};
    struct m40_buf buf = {0};

    while (p.at < format.n_bytes && !r->failed) {
        size_t mark = m40_find_bytes(format, m40_str_from("%"), p.at);

        m40_tr_put(r, &buf, format.data + p.at, (mark == SIZE_MAX ? format.n_bytes : mark) - p.at);
        if (mark == SIZE_MAX)
            break;
        p.at = mark + 1;
        put_conversion(&p, &buf);
    }
    if (values.type == TV_TUPLE ? p.n_used < values.list->n : p.n_used == 0 && !can_be_unused(values))
        m40_tr_fail(r, "not all arguments converted during string formatting");
    return m40_tr_take(r, &buf);
}

/* ---- format() ---- */

static bool is_align(char c)
{
    return c && strchr("<>=^", c);
}

/* "[[fill]align][sign][#][0][width][,][.precision][type]" */
static bool read_spec(struct m40_str text, struct spec *s)
{
    const char *p = text.data, *end = p + text.n_bytes;
    unsigned n = 1;

    *s = no_spec;
    if (p < end)
        m40_char_at(p, &n);
    if (p + n < end && is_align(p[n])) {
        memcpy(s->fill, p, n);
        s->n_fill = n;
        s->align = p[n];
        p += n + 1;
    } else if (p < end && is_align(*p)) {
        s->align = *p++;
    }
    if (p < end && strchr("+- ", *p) && *p)
        s->sign = *p == '-' ? 0 : *p, p++;
    if (p < end && *p == '#')
        s->alternate = true, p++;
    if (p < end && *p == '0') {
        s->has_zero = true;
        p++;
    }
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        s->width = s->width > INT32_MAX ? s->width : s->width * 10 + *p - '0';
    if (p < end && (*p == ',' || *p == '_'))
        s->grouping = *p++;
    if (p < end && *p == '.') {
        if (++p == end || *p < '0' || *p > '9')
            return false;
        for (s->precision = 0; p < end && *p >= '0' && *p <= '9'; p++)
            s->precision = s->precision > MAX_PRECISION ? MAX_PRECISION : s->precision * 10 + *p - '0';
        s->precision = s->precision > MAX_PRECISION ? MAX_PRECISION : s->precision;
    }
    if (p < end)
        s->type = *p++;
    return p == end;
}

static void put_formatted(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v, struct m40_str spec_text)
{
    struct spec s;
    bool is_good = read_spec(spec_text, &s), is_number = m40_tv_is_number(v) && !(v.type == TV_BOOL && spec_text.n_bytes == 0);

    if (spec_text.n_bytes == 0) {
        m40_tr_print(r, buf, v);
        return;
    }
    if (s.has_zero && !s.align && is_number) {
        s.align = '=';
        s.fill[0] = '0';
        s.n_fill = 1;
    }
    if (is_good && v.type == TV_STR && (s.type == 0 || s.type == 's') && s.align != '=' && !s.sign && !s.grouping)
        put_text_as(r, buf, &s, m40_tstr_view(v.s));
    else if (is_good && m40_tv_is_integer(v) && (s.type == 0 || strchr("bdoxXn", s.type)) && s.precision < 0)
        put_int_as(r, buf, &s, m40_tv_as_int(v));
    else if (is_good && is_number && ((s.type == 0 && v.type == TV_FLOAT) || (s.type && strchr("eEfFgGn%", s.type))))
        put_float_as(r, buf, &s, m40_tv_as_float(v));
    else
        m40_tr_fail(r, "invalid format specifier '%.*s' for an object of type '%s'", m40_shown(spec_text.n_bytes), spec_text.data,
                    m40_tv_type_name(v));
}

struct formatter {
    struct m40_trun *r;
    const struct m40_targs *args;
    int64_t next; /* of the fields without a number; -1: they are numbered */
};

static struct m40_tv argument(struct formatter *f, struct m40_str name)
{
    struct m40_trun *r = f->r;
    const struct m40_tv *found;
    int64_t i = f->next;

    if (name.n_bytes == 0) {
        if (f->next < 0)
            m40_tr_fail(r, "cannot switch from manual field specification to automatic field numbering");
        f->next++;
    } else if (name.data[0] >= '0' && name.data[0] <= '9') {
        if (f->next > 0 || !m40_tr_to_int(m40_tr_part(r, name.data, name.n_bytes), 10, &i))
            m40_tr_fail(r, "cannot switch from automatic field numbering to manual field specification");
        f->next = -1;
    } else {
        found = f->args->keywords ? m40_tdict_get_text(r, f->args->keywords, name) : NULL;
        if (!found)
            m40_tr_fail(r, "format(): there is no argument '%.*s'", m40_shown(name.n_bytes), name.data);
        return found ? *found : TV(TV_NONE);
    }
    if (i < 0 || (uint64_t)i >= f->args->n_pos) {
        m40_tr_fail(r, "replacement index %lld out of range for positional args", (long long)i);
        return TV(TV_NONE);
    }
    return f->args->pos[i];
}

/* "name.attribute[index]..." */
static struct m40_tv field_value(struct formatter *f, struct m40_str field)
{
    size_t at = 0;
    struct m40_tv v;

    while (at < field.n_bytes && field.data[at] != '.' && field.data[at] != '[')
        at++;
    v = argument(f, (struct m40_str){field.data, at});
    while (at < field.n_bytes && !f->r->failed) {
        bool is_index = field.data[at++] == '[';
        size_t begin = at;
        struct m40_tv key;
        int64_t i;

        while (at < field.n_bytes && (is_index ? field.data[at] != ']' : field.data[at] != '.' && field.data[at] != '['))
            at++;
        key = m40_tr_part(f->r, field.data + begin, at - begin);
        if (!is_index)
            v = m40_tr_attribute(f->r, v, key.s);
        else
            v = m40_tr_item(f->r, v, m40_tr_to_int(key, 10, &i) ? m40_tv_int(i) : key);
        at += is_index;
    }
    return v;
}

static void put_fields(struct formatter *f, struct m40_buf *buf, struct m40_str format, unsigned level);

/* What stands between braces. */
static void put_field(struct formatter *f, struct m40_buf *buf, struct m40_str field, unsigned level)
{
    struct m40_trun *r = f->r;
    size_t n_name = 0, colon;
    char conversion = 0;
    struct m40_buf spec = {0}, text = {0};
    struct m40_tv v;
    bool in_index = false;

    for (; n_name < field.n_bytes && (in_index || (field.data[n_name] != '!' && field.data[n_name] != ':')); n_name++)
        in_index = field.data[n_name] == '[' || (in_index && field.data[n_name] != ']');
    v = field_value(f, (struct m40_str){field.data, n_name});
    colon = n_name;
    if (n_name < field.n_bytes && field.data[n_name] == '!') {
        conversion = n_name + 1 < field.n_bytes ? field.data[n_name + 1] : 0;
        colon = n_name + 2;
        if ((conversion != 'r' && conversion != 's' && conversion != 'a') || (colon < field.n_bytes && field.data[colon] != ':'))
            m40_tr_fail(r, "format(): a bad conversion behind '!'");
    }
    if (colon < field.n_bytes && !r->failed)
        put_fields(f, &spec, (struct m40_str){field.data + colon + 1, field.n_bytes - colon - 1}, level + 1);
    if (conversion) {
        (conversion == 's' ? m40_tr_print : m40_tr_repr)(r, &text, v);
        v = m40_tr_take(r, &text);
    }
    if (!r->failed)
        put_formatted(r, buf, v, (struct m40_str){spec.data ? spec.data : "", spec.n_bytes});
    m40_buf_free(&spec);
}

static void put_fields(struct formatter *f, struct m40_buf *buf, struct m40_str format, unsigned level)
{
    struct m40_trun *r = f->r;

    if (level > 2)
        m40_tr_fail(r, "Max string recursion exceeded");
    for (size_t at = 0; at < format.n_bytes && !r->failed; at++) {
        char c = format.data[at];
        size_t end = at + 1, depth = 1;

        if ((c == '{' || c == '}') && at + 1 < format.n_bytes && format.data[at + 1] == c && level == 0) {
            m40_tr_put(r, buf, &c, 1);
            at++;
            continue;
        }
        if (c != '{' && c != '}') {
            m40_tr_put(r, buf, &c, 1);
            continue;
        }
        if (c == '}') {
            m40_tr_fail(r, "Single '}' encountered in format string");
            return;
        }
        for (; end < format.n_bytes && depth > 0; end++)
            depth += format.data[end] == '{' ? 1 : format.data[end] == '}' ? (size_t)-1 : 0;
        if (depth > 0) {
            m40_tr_fail(r, "expected '}' before end of string");
            return;
        }
        put_field(f, buf, (struct m40_str){format.data + at + 1, end - at - 2}, level);
        at = end - 1;
    }
}

struct m40_tv m40_tr_format(struct m40_trun *r, struct m40_str format, const struct m40_targs *args)
{
    struct formatter f = {.r = r, .args = args};
    struct m40_buf buf = {0};

    put_fields(&f, &buf, format, 0);
    return m40_tr_take(r, &buf);
}

/* ---- numbers from texts ---- */

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10 : 99;
}

static bool int_of_text(struct m40_str text, int base, int64_t *out)
{
    size_t at = m40_space_before(text), end = text.n_bytes - (at < text.n_bytes ? m40_space_behind(text) : 0);
    bool is_negative = at < end && text.data[at] == '-', after_digit = false;
    int64_t value = 0;

    at += at < end && (text.data[at] == '-' || text.data[at] == '+');
    if (at + 1 < end && text.data[at] == '0') {
        char letter = text.data[at + 1] | 0x20;
        int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;

        if (prefix && (base == prefix || base == 0)) {
            at += 2;
            base = prefix;
            after_digit = at < end && text.data[at] == '_'; /* "0x_1" is allowed */
        }
    }
    if (base == 0)
        base = 10;
    if (base < 2 || base > 36 || at >= end)
        return false;
    for (; at < end; at++) {
        if (text.data[at] == '_' && after_digit && at + 1 < end) {
            after_digit = false;
            continue;
        }
        if (digit_of(text.data[at]) >= base || __builtin_mul_overflow(value, base, &value) ||
            (is_negative ? __builtin_sub_overflow(value, digit_of(text.data[at]), &value)
                         : __builtin_add_overflow(value, digit_of(text.data[at]), &value)))
            return false;
        after_digit = true;
    }
    *out = value;
    return after_digit;
}

bool m40_tr_to_int(struct m40_tv v, int base, int64_t *out)
{
    if (v.type == TV_STR)
        return int_of_text(m40_tstr_view(v.s), base, out);
    if (m40_tv_is_integer(v)) {
        *out = m40_tv_as_int(v);
        return true;
    }
    if (v.type != TV_FLOAT || !(v.f > -0x1p63 && v.f < 0x1p63))
        return false;
    *out = (int64_t)v.f;
    return true;
}

bool m40_tr_to_float(struct m40_tv v, double *out)
{
    if (v.type == TV_STR)
        return m40_double_parse(m40_tstr_view(v.s), out);
    if (m40_tv_is_number(v))
        *out = m40_tv_as_float(v);
    return m40_tv_is_number(v);
}
