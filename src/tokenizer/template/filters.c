/* Filters of texts and numbers. */
#include "tokenizer/template/builtins.h"

#include <math.h>
#include <stdio.h>

#define FILTER(name) static struct m40_tv filter_##name(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
/* Of filters that take no arguments. */
#define NO_ARGS (void)args

static struct m40_str text_of(struct m40_trun *r, struct m40_tv v)
{
    return m40_tstr_view(m40_tr_text(r, v));
}

FILTER(upper)
{
    NO_ARGS;
    return m40_tr_case(r, text_of(r, self), CASE_UPPER);
}

FILTER(lower)
{
    NO_ARGS;
    return m40_tr_case(r, text_of(r, self), CASE_LOWER);
}

FILTER(capitalize)
{
    NO_ARGS;
    return m40_tr_capitalize(r, text_of(r, self));
}

/* Words begin behind white space and -([{<. */
FILTER(title)
{
    struct m40_str text = text_of(r, self);
    struct m40_buf buf = {0};
    bool at_begin = true;
    unsigned n;

    NO_ARGS;
    for (size_t at = 0; at < text.n_bytes && m40_tr_step(r, 1); at += n) {
        uint32_t c = m40_char_at(text.data + at, &n);
        const struct m40_tstr *cased;

        if (m40_char_is_space(c) || (c && c < 0x80 && strchr("-({[<", (int)c))) {
            m40_tr_put(r, &buf, text.data + at, n);
            at_begin = true;
            continue;
        }
        cased = m40_tr_case(r, (struct m40_str){text.data + at, n}, at_begin ? CASE_UPPER : CASE_LOWER).s;
        m40_tr_put(r, &buf, cased->data, cased->n_bytes);
        at_begin = false;
    }
    return m40_tr_take(r, &buf);
}

FILTER(trim)
{
    struct m40_str text = text_of(r, self), chars;
    bool has_chars = m40_has_arg(args, 0) && args->pos[0].type != TV_NONE;

    if (has_chars)
        chars = m40_arg_str(r, args, 0, "");
    text = m40_tr_strip(r, text, has_chars ? &chars : NULL, 3);
    return m40_tr_part(r, text.data, text.n_bytes);
}

FILTER(string)
{
    NO_ARGS;
    return m40_tv_of_str(m40_tr_text(r, self));
}

FILTER(safe)
{
    NO_ARGS;
    return m40_tr_markup(r, m40_tr_text(r, self));
}

static struct m40_tv escaped(struct m40_trun *r, const struct m40_tstr *s)
{
    struct m40_buf buf = {0};

    m40_tr_put_escaped(r, &buf, m40_tstr_view(s));
    return m40_tr_markup(r, m40_tr_take(r, &buf).s);
}

FILTER(escape)
{
    NO_ARGS;
    return self.type == TV_STR && self.s->is_markup ? self : escaped(r, m40_tr_text(r, self));
}

FILTER(forceescape)
{
    NO_ARGS;
    return escaped(r, m40_tr_text(r, self));
}

/* Tags and comments go, white space becomes single spaces, the entities that escape makes become characters. */
FILTER(striptags)
{
    static const char *const from[] = {"&lt;", "&gt;", "&#39;", "&#34;", "&quot;", "&amp;"}, *const to[] = {"<", ">", "'", "\"", "\"", "&"};
    struct m40_str text = text_of(r, self), word;
    struct m40_buf plain = {0}, buf = {0};
    struct m40_tv v;
    size_t at = 0, open, close;

    NO_ARGS;
    while ((open = m40_find_bytes(text, m40_str_from("<"), at)) != SIZE_MAX && !r->failed) {
        bool is_comment = m40_find_bytes((struct m40_str){text.data + open, text.n_bytes - open < 4 ? 0 : 4}, m40_str_from("<!--"), 0) == 0;

        close = m40_find_bytes(text, m40_str_from(is_comment ? "-->" : ">"), open);
        if (close == SIZE_MAX)
            break;
        m40_tr_put(r, &plain, text.data + at, open - at);
        at = close + (is_comment ? 3 : 1);
    }
    m40_tr_put(r, &plain, text.data + at, text.n_bytes - at);
    text = m40_tstr_view(m40_tr_take(r, &plain).s);
    while (!r->failed) {
        size_t n = 0;
        unsigned n_char;

        text = m40_tr_strip(r, text, NULL, 1);
        if (text.n_bytes == 0)
            break;
        while (n < text.n_bytes && !m40_char_is_space(m40_char_at(text.data + n, &n_char)))
            n += n_char;
        word = (struct m40_str){text.data, n};
        if (buf.n_bytes)
            m40_tr_put_text(r, &buf, " ");
        m40_tr_put(r, &buf, word.data, word.n_bytes);
        text.data += n;
        text.n_bytes -= n;
    }
    v = m40_tr_take(r, &buf);
    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        v = m40_tr_replace(r, m40_tstr_view(v.s), m40_str_from(from[i]), m40_str_from(to[i]), -1);
    return v;
}

FILTER(replace)
{
    const struct m40_tstr *s = m40_tr_text(r, self), *old = m40_tr_text(r, args->pos[0]), *new_text = m40_tr_text(r, args->pos[1]);
    bool is_bounded = m40_has_arg(args, 2) && args->pos[2].type != TV_NONE;

    return m40_tr_replace(r, m40_tstr_view(s), m40_tstr_view(old), m40_tstr_view(new_text), is_bounded ? m40_arg_int(r, args, 2, -1) : -1);
}

FILTER(center)
{
    return m40_tr_pad(r, m40_tr_text(r, self), m40_arg_int(r, args, 0, 80), m40_str_from(" "), '^');
}

FILTER(indent)
{
    struct m40_tv indent = m40_has_arg(args, 0) ? args->pos[0] : m40_tv_int(4);
    bool first = m40_arg_bool(args, 1, false), blank = m40_arg_bool(args, 2, false);
    struct m40_buf buf = {0};
    const struct m40_tlist *lines;

    if (self.type != TV_STR) {
        m40_tr_fail(r, "indent() needs a string, not %s", m40_tv_type_name(self));
        return self;
    }
    if (indent.type != TV_STR) {
        m40_tr_put_repeat(r, &buf, m40_str_from(" "), (uint64_t)fmax(0, (double)m40_arg_int(r, args, 0, 4)));
        indent = m40_tr_take(r, &buf);
    }
    if (first)
        m40_tr_put(r, &buf, indent.s->data, indent.s->n_bytes);
    lines = m40_tr_lines(
        r, text_of(r, m40_tr_binary(r, '+', m40_tv_of_str(m40_tstr_copy(&r->arena, self.s->data, self.s->n_bytes)), m40_tr_part(r, "\n", 1))), false);
    for (size_t i = 0; i < lines->n && !r->failed; i++) {
        const struct m40_tstr *line = lines->items[i].s;

        if (i)
            m40_tr_put_text(r, &buf, "\n");
        if (i && (blank || line->n_bytes))
            m40_tr_put(r, &buf, indent.s->data, indent.s->n_bytes);
        m40_tr_put(r, &buf, line->data, line->n_bytes);
    }
    return m40_tr_take(r, &buf);
}

FILTER(truncate)
{
    int64_t length = m40_arg_int(r, args, 0, 255), leeway = m40_has_arg(args, 3) && args->pos[3].type != TV_NONE ? m40_arg_int(r, args, 3, 5) : 5;
    struct m40_str end = m40_arg_str(r, args, 2, "...");
    const struct m40_tstr *s = m40_tr_text(r, self);
    int64_t n_end = (int64_t)m40_tstr_borrow(&r->arena, end.data, end.n_bytes)->n_chars;
    struct m40_str kept;
    struct m40_buf buf = {0};

    if (self.type != TV_STR && m40_tv_length(self) >= 0 && m40_tv_length(self) <= length)
        return self; /* as anything else that is not too long */
    if (self.type != TV_STR)
        m40_tr_fail(r, "truncate() needs a string, not %s", m40_tv_type_name(self));
    if (length < n_end || leeway < 0)
        m40_tr_fail(r, "truncate(): the length must be at least that of the end, and the leeway not negative");
    if (r->failed || (int64_t)s->n_chars <= length || (int64_t)s->n_chars - length <= leeway)
        return m40_tv_of_str(s);
    kept = m40_tstr_view(m40_tr_slice(r, m40_tv_of_str(s), TV(TV_NONE), m40_tv_int(length - n_end), TV(TV_NONE)).s);
    if (!m40_arg_bool(args, 1, false))
        for (size_t n = kept.n_bytes; n > 0; n--)
            if (kept.data[n - 1] == ' ') {
                kept.n_bytes = n - 1;
                break;
            }
    m40_tr_put(r, &buf, kept.data, kept.n_bytes);
    m40_tr_put(r, &buf, end.data, end.n_bytes);
    return m40_tr_take(r, &buf);
}

FILTER(wordcount)
{
    struct m40_str text = text_of(r, self);
    int64_t n_words = 0;
    bool in_word = false;
    unsigned n;

    NO_ARGS;
    for (size_t at = 0; at < text.n_bytes && m40_tr_step(r, 1); at += n) {
        bool is_word = m40_char_is_word(m40_char_at(text.data + at, &n));

        n_words += is_word && !in_word;
        in_word = is_word;
    }
    return m40_tv_int(n_words);
}

/* The pieces that a line may be broken between: white space, and words, which end behind a hyphen between letters where hyphens may be broken at. */
static struct m40_tlist *wrap_pieces(struct m40_trun *r, struct m40_str line, bool at_hyphens)
{
    struct m40_tlist *pieces = m40_tlist_new(&r->arena, 0);
    size_t begin = 0, at = 0;
    unsigned n, n_next;

    while (at < line.n_bytes && m40_tr_step(r, 1)) {
        uint32_t c = m40_char_at(line.data + at, &n), next = at + n < line.n_bytes ? m40_char_at(line.data + at + n, &n_next) : 0;
        bool ends = at + n == line.n_bytes || m40_char_is_space(c) != m40_char_is_space(next);

        if (at_hyphens && c == '-' && at > begin + 1 && m40_char_is_alpha(next) && m40_char_is_alpha(m40_char_before(line.data + at, &n_next)))
            ends = true;
        at += n;
        if (ends) {
            m40_tr_push(r, pieces, m40_tr_part(r, line.data + begin, at - begin));
            begin = at;
        }
    }
    return pieces;
}

static bool is_space_piece(const struct m40_tstr *piece)
{
    unsigned n;

    return piece->n_bytes && m40_char_is_space(m40_char_at(piece->data, &n));
}

struct wrapped {
    struct m40_buf buf;
    struct m40_str separator;
    bool has_line;
};

/* Ends a line that consists of pieces [begin, end), without the white space at its end unless that is kept. */
static void put_line(struct m40_trun *r, struct wrapped *w, const struct m40_tlist *pieces, size_t begin, size_t end, bool keep_space)
{
    if (end > begin && !keep_space && is_space_piece(pieces->items[end - 1].s))
        end--;
    if (begin == end)
        return;
    if (w->has_line)
        m40_tr_put(r, &w->buf, w->separator.data, w->separator.n_bytes);
    w->has_line = true;
    for (; begin < end; begin++)
        m40_tr_put(r, &w->buf, pieces->items[begin].s->data, pieces->items[begin].s->n_bytes);
}

/* One paragraph, as Python's textwrap does it. */
static void wrap_line(struct m40_trun *r, struct wrapped *w, struct m40_tlist *pieces, size_t width, bool break_long)
{
    size_t begin = 0, i = 0;
    bool is_first = true;

    while (i < pieces->n && !r->failed) {
        size_t n = 0;
        bool keep_space = false;

        if (!is_first && is_space_piece(pieces->items[i].s)) { /* lines but the first do not begin with space */
            i++;
            continue;
        }
        for (begin = i; i < pieces->n && n + pieces->items[i].s->n_chars <= width; i++)
            n += pieces->items[i].s->n_chars;
        if (i < pieces->n && pieces->items[i].s->n_chars > width) { /* too long for any line */
            const struct m40_tstr *piece = pieces->items[i].s;
            size_t n_left = break_long ? (width > n ? width - n : 0) : piece->n_chars;

            if (break_long && n_left > 0) {
                struct m40_tv v = pieces->items[i], head = m40_tr_slice(r, v, TV(TV_NONE), m40_tv_int((int64_t)n_left), TV(TV_NONE));
                struct m40_tv tail = m40_tr_slice(r, v, m40_tv_int((int64_t)n_left), TV(TV_NONE), TV(TV_NONE));
                struct m40_tlist *line = m40_tlist_new(&r->arena, i - begin + 1);

                for (size_t k = begin; k < i; k++)
                    m40_tr_push(r, line, pieces->items[k]);
                m40_tr_push(r, line, head);
                put_line(r, w, line, 0, line->n, false);
                pieces->items[i] = tail;
                is_first = false;
                continue;
            }
            if (begin == i)
                i++;
            else
                keep_space = break_long; /* the empty beginning of the long word stands behind it */
        }
        put_line(r, w, pieces, begin, i, keep_space);
        is_first = is_first && !w->has_line;
    }
}

FILTER(wordwrap)
{
    struct m40_str text = m40_tstr_view(m40_tr_text(r, self));
    int64_t width = m40_arg_int(r, args, 0, 79);
    bool break_long = m40_arg_bool(args, 1, true), at_hyphens = m40_arg_bool(args, 3, true),
         has_separator = m40_has_arg(args, 2) && args->pos[2].type != TV_NONE;
    struct wrapped w = {.separator = has_separator ? m40_arg_str(r, args, 2, "\n") : m40_str_from("\n")};
    const struct m40_tlist *lines = m40_tr_lines(r, text, false);

    if (self.type != TV_STR)
        m40_tr_fail(r, "wordwrap() needs a string, not %s", m40_tv_type_name(self));
    if (width <= 0)
        m40_tr_fail(r, "wordwrap(): invalid width %lld (must be > 0)", (long long)width);
    for (size_t i = 0; i < lines->n && !r->failed; i++) {
        if (i)
            m40_tr_put(r, &w.buf, w.separator.data, w.separator.n_bytes);
        w.has_line = false;
        wrap_line(r, &w, wrap_pieces(r, m40_tstr_view(lines->items[i].s), at_hyphens), (size_t)width, break_long);
    }
    return m40_tr_take(r, &w.buf);
}

static void put_quoted(struct m40_trun *r, struct m40_buf *buf, struct m40_str text, bool in_query)
{
    char escaped_byte[4];

    for (size_t i = 0; i < text.n_bytes && m40_tr_step(r, 1); i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool is_plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_.-~", c)) || (c == '/' && !in_query);

        snprintf(escaped_byte, sizeof escaped_byte, "%%%02X", c);
        if (in_query && c == ' ')
            m40_tr_put_text(r, buf, "+");
        else if (is_plain)
            m40_tr_put(r, buf, text.data + i, 1);
        else
            m40_tr_put_text(r, buf, escaped_byte);
    }
}

FILTER(urlencode)
{
    struct m40_buf buf = {0};

    NO_ARGS;
    if (self.type == TV_STR || !m40_tv_is_iterable(self)) {
        put_quoted(r, &buf, text_of(r, self), false);
        return m40_tr_take(r, &buf);
    }
    {
        const struct m40_tlist *pairs = self.type == TV_DICT ? m40_tr_dict_items(r, self.dict) : m40_tr_iterate(r, self);

        for (size_t i = 0; i < pairs->n && !r->failed; i++) {
            const struct m40_tlist *pair = m40_tr_iterate(r, pairs->items[i]);

            if (pair->n != 2) {
                m40_tr_fail(r, "urlencode(): not a pair");
                break;
            }
            if (i)
                m40_tr_put_text(r, &buf, "&");
            put_quoted(r, &buf, text_of(r, pair->items[0]), true);
            m40_tr_put_text(r, &buf, "=");
            put_quoted(r, &buf, text_of(r, pair->items[1]), true);
        }
    }
    return m40_tr_take(r, &buf);
}

FILTER(xmlattr)
{
    struct m40_buf buf = {0};

    if (self.type != TV_DICT)
        m40_tr_fail(r, "xmlattr() needs a dict, not %s", m40_tv_type_name(self));
    for (size_t i = 0; !r->failed && i < self.dict->n; i++) {
        const struct m40_tentry *entry = &self.dict->entries[i];
        struct m40_str key = text_of(r, entry->key);

        if (entry->value.type == TV_NONE || entry->value.type == TV_UNDEFINED)
            continue;
        for (size_t k = 0; k < key.n_bytes; k++)
            if (key.data[k] && strchr(" \t\n\v\f\r/>=", key.data[k]))
                m40_tr_fail(r, "invalid character in an attribute's name");
        if (buf.n_bytes || m40_arg_bool(args, 0, true))
            m40_tr_put_text(r, &buf, " ");
        m40_tr_put_escaped(r, &buf, key);
        m40_tr_put_text(r, &buf, "=\"");
        m40_tr_put_escaped(r, &buf, text_of(r, entry->value));
        m40_tr_put_text(r, &buf, "\"");
    }
    return m40_tr_take(r, &buf);
}

FILTER(format)
{
    struct m40_tv values = m40_tr_list(r, TV_TUPLE, args->n_pos);

    for (size_t i = 0; i < args->n_pos && !r->failed; i++)
        m40_tr_push(r, values.list, args->pos[i]);
    if (args->keywords && args->n_pos)
        m40_tr_fail(r, "format(): positional and keyword arguments at the same time");
    if (args->keywords)
        values = (struct m40_tv){.type = TV_DICT, .dict = args->keywords};
    return m40_tr_percent(r, text_of(r, self), values);
}

FILTER(tojson)
{
    struct m40_tjson options = {
        .ensure_ascii = m40_arg_bool(args, 0, false),
        .sort_keys = m40_arg_bool(args, 3, false),
        .has_indent = m40_has_arg(args, 1) && args->pos[1].type != TV_NONE,
        .item_separator = m40_str_from(", "),
        .key_separator = m40_str_from(": "),
    };
    struct m40_buf buf = {0};

    if (options.has_indent) {
        options.item_separator = m40_str_from(",");
        if (args->pos[1].type == TV_STR) {
            options.indent = m40_tstr_view(args->pos[1].s);
        } else {
            int64_t n = m40_arg_int(r, args, 1, 0);

            m40_tr_put_repeat(r, &buf, m40_str_from(" "), n > 0 ? (uint64_t)n : 0);
            options.indent = m40_tstr_view(m40_tr_take(r, &buf).s);
        }
    }
    if (m40_has_arg(args, 2) && args->pos[2].type != TV_NONE) {
        const struct m40_tlist *pair = m40_tr_iterate(r, args->pos[2]);

        if (pair->n != 2 || pair->items[0].type != TV_STR || pair->items[1].type != TV_STR) {
            m40_tr_fail(r, "tojson(): separators must be two strings");
            return self;
        }
        options.item_separator = m40_tstr_view(pair->items[0].s);
        options.key_separator = m40_tstr_view(pair->items[1].s);
    }
    m40_tr_json(r, &buf, self, &options);
    return m40_tr_take(r, &buf);
}

/* ---- numbers ---- */

FILTER(abs)
{
    NO_ARGS;
    if (m40_tv_is_integer(self))
        return m40_tv_as_int(self) < 0 ? m40_tr_unary(r, '-', self) : m40_tv_int(m40_tv_as_int(self));
    if (self.type == TV_FLOAT)
        return m40_tv_float(fabs(self.f));
    m40_tr_fail(r, "bad operand type for abs(): '%s'", m40_tv_type_name(self));
    return self;
}

/* A number that is no integer in 64 bits. */
static struct m40_tv to_int_or_fail(struct m40_trun *r, struct m40_tv v)
{
    int64_t i = 0;

    if (!m40_tr_to_int(v, 10, &i))
        m40_tr_fail(r, "the number does not fit 64 bits");
    return m40_tv_int(i);
}

FILTER(int)
{
    struct m40_tv fallback = m40_has_arg(args, 0) ? args->pos[0] : m40_tv_int(0);
    int64_t i;
    double f;

    if (m40_tr_refuse_undefined(r, self))
        return self;
    if (m40_tr_to_int(self, (int)m40_arg_int(r, args, 1, 10), &i))
        return m40_tv_int(i);
    if (self.type != TV_FLOAT && (!m40_tr_to_float(self, &f) || !isfinite(f)))
        return fallback;
    if (self.type == TV_FLOAT && !isfinite(self.f)) {
        if (isnan(self.f))
            return fallback;
        m40_tr_fail(r, "cannot convert float infinity to integer");
        return fallback;
    }
    return to_int_or_fail(r, self.type == TV_FLOAT ? self : m40_tv_float(f));
}

FILTER(float)
{
    double f;

    if (m40_tr_refuse_undefined(r, self))
        return self;
    if (m40_tr_to_float(self, &f))
        return m40_tv_float(f);
    return m40_has_arg(args, 0) ? args->pos[0] : m40_tv_float(0);
}

/* Python's round: to even in the middle, of the exact value. */
static struct m40_tv round_common(struct m40_trun *r, struct m40_tv v, int64_t precision)
{
    struct m40_buf buf = {0};
    double f, unit;

    if (m40_tv_is_integer(v)) {
        int64_t i = m40_tv_as_int(v), step = 1, rest;

        if (precision >= 0)
            return m40_tv_int(i);
        for (; precision < 0; precision++)
            if (__builtin_mul_overflow(step, 10, &step))
                return m40_tv_int(0);
        rest = i % step;
        if (rest < 0)
            rest += step;
        if (rest > step - rest || (rest == step - rest && ((i - rest) / step) % 2 != 0))
            return m40_tr_binary(r, '+', m40_tv_int(i - rest), m40_tv_int(step));
        return m40_tr_binary(r, '-', m40_tv_int(i), m40_tv_int(rest));
    }
    if (!isfinite(v.f) || precision > 330)
        return v;
    if (precision < 0) {
        unit = pow(10, (double)(precision < -330 ? -330 : precision) * -1);
        return m40_tv_float(isfinite(unit) ? nearbyint(v.f / unit) * unit : copysign(0, v.f));
    }
    if (!m40_double_format(&buf, 'f', false, (int)precision, v.f)) {
        m40_tr_no_memory(r);
        return v;
    }
    if (!m40_double_parse((struct m40_str){buf.data, buf.n_bytes}, &f))
        f = v.f; /* a text of more than 400 bytes */
    m40_buf_free(&buf);
    return m40_tv_float(f);
}

FILTER(round)
{
    int64_t precision = m40_arg_int(r, args, 0, 0);
    struct m40_str method = m40_arg_str(r, args, 1, "common");
    double unit = pow(10, (double)precision);
    bool is_ceil = m40_str_equal(method, m40_str_from("ceil"));

    if (!m40_tv_is_number(self)) {
        m40_tr_fail(r, "round() needs a number, not %s", m40_tv_type_name(self));
        return self;
    }
    if (m40_str_equal(method, m40_str_from("common")))
        return round_common(r, self, precision);
    if (!is_ceil && !m40_str_equal(method, m40_str_from("floor")))
        m40_tr_fail(r, "round(): method must be common, ceil or floor");
    return m40_tv_float((is_ceil ? ceil(m40_tv_as_float(self) * unit) : floor(m40_tv_as_float(self) * unit)) / unit);
}

FILTER(filesizeformat)
{
    static const char units[] = "kMGTPEZY";
    bool is_binary = m40_arg_bool(args, 0, false);
    double base = is_binary ? 1024 : 1000, bytes = 0, unit = base * base;
    struct m40_buf buf = {0};
    int i = 0;

    if (!m40_tr_to_float(self, &bytes) || !isfinite(bytes))
        m40_tr_fail(r, "filesizeformat() needs a number");
    if (r->failed)
        return self;
    if (bytes < base) {
        char text[32];

        snprintf(text, sizeof text, bytes == 1 ? "1 Byte" : "%lld Bytes", (long long)fmax(bytes, -9e18));
        return m40_tr_string(r, text, strlen(text));
    }
    for (; i < 7 && bytes >= unit; i++)
        unit *= base;
    if (!m40_double_format(&buf, 'f', false, 1, base * bytes / unit))
        m40_tr_no_memory(r);
    m40_tr_put_text(r, &buf, " ");
    m40_tr_put(r, &buf, i == 0 && is_binary ? "K" : units + i, 1);
    m40_tr_put_text(r, &buf, is_binary ? "iB" : "B");
    return m40_tr_take(r, &buf);
}

const struct m40_tbuiltin m40_text_filters[] = {
    {"capitalize", filter_capitalize, "", 0},
    {"center", filter_center, "width", 0},
    {"e", filter_escape, "", 0},
    {"escape", filter_escape, "", 0},
    {"forceescape", filter_forceescape, "", 0},
    {"format", filter_format, NULL, 0},
    {"indent", filter_indent, "width first blank", 0},
    {"lower", filter_lower, "", 0},
    {"replace", filter_replace, "old new count", 2},
    {"safe", filter_safe, "", 0},
    {"string", filter_string, "", 0},
    {"striptags", filter_striptags, "", 0},
    {"title", filter_title, "", 0},
    {"tojson", filter_tojson, "ensure_ascii indent separators sort_keys", 0},
    {"trim", filter_trim, "chars", 0},
    {"truncate", filter_truncate, "length killwords end leeway", 0},
    {"upper", filter_upper, "", 0},
    {"urlencode", filter_urlencode, "", 0},
    {"wordcount", filter_wordcount, "", 0},
    {"wordwrap", filter_wordwrap, "width break_long_words wrapstring break_on_hyphens", 0},
    {"xmlattr", filter_xmlattr, "autospace", 0},
    {NULL, NULL, NULL, 0},
};

const struct m40_tbuiltin m40_number_filters[] = {
    {"abs", filter_abs, "", 0},
    {"filesizeformat", filter_filesizeformat, "binary", 0},
    {"float", filter_float, "default", 0},
    {"int", filter_int, "default base", 0},
    {"round", filter_round, "precision method", 0},
    {NULL, NULL, NULL, 0},
};
