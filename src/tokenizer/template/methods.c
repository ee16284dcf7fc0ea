/* Methods of strings, lists, tuples, dicts. */
#include "tokenizer/template/builtins.h"

#define METHOD(name) static struct m40_tv method_##name(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
#define NO_ARGS      (void)args

/* ---- strings: cases and properties ---- */

METHOD(upper)
{
    NO_ARGS;
    return m40_tr_case(r, m40_tstr_view(self.s), CASE_UPPER);
}

METHOD(lower)
{
    NO_ARGS;
    return m40_tr_case(r, m40_tstr_view(self.s), CASE_LOWER);
}

METHOD(swapcase)
{
    NO_ARGS;
    return m40_tr_case(r, m40_tstr_view(self.s), CASE_SWAP);
}

METHOD(casefold)
{
    NO_ARGS;
    return m40_tr_case(r, m40_tstr_view(self.s), CASE_FOLD);
}

METHOD(capitalize)
{
    NO_ARGS;
    return m40_tr_capitalize(r, m40_tstr_view(self.s));
}

static bool is_cased(uint32_t c)
{
    return m40_char_is_upper(c) || m40_char_is_lower(c) || m40_char_is_title(c);
}

/* A letter behind one that has a case is small, any other is large. */
METHOD(title)
{
    struct m40_str text = m40_tstr_view(self.s);
    struct m40_buf buf = {0};
    bool after_cased = false;
    unsigned n;

    NO_ARGS;
    for (size_t at = 0; at < text.n_bytes && m40_tr_step(r, 1); at += n) {
        uint32_t c = m40_char_at(text.data + at, &n);
        const struct m40_tstr *cased = m40_tr_case(r, (struct m40_str){text.data + at, n}, after_cased ? CASE_LOWER : CASE_TITLE).s;

        m40_tr_put(r, &buf, cased->data, cased->n_bytes);
        after_cased = is_cased(c);
    }
    return m40_tr_take(r, &buf);
}

/* Whether all characters are so; of an empty string `of_empty`. */
static struct m40_tv all_are(struct m40_trun *r, struct m40_tv self, bool (*is_so)(uint32_t), bool of_empty)
{
    unsigned n;

    for (size_t at = 0; at < self.s->n_bytes && m40_tr_step(r, 1); at += n)
        if (!is_so(m40_char_at(self.s->data + at, &n)))
            return m40_tv_bool(false);
    return m40_tv_bool(self.s->n_bytes ? true : of_empty);
}

static bool is_ascii(uint32_t c)
{
    return c < 0x80;
}

#define ALL_ARE(name, is_so, of_empty)                                                                                                               \
    METHOD(name)                                                                                                                                     \
    {                                                                                                                                                \
        NO_ARGS;                                                                                                                                     \
        return all_are(r, self, is_so, of_empty);                                                                                                    \
    }

ALL_ARE(isalnum, m40_char_is_alnum, false)
ALL_ARE(isalpha, m40_char_is_alpha, false)
ALL_ARE(isascii, is_ascii, true)
ALL_ARE(isdecimal, m40_char_is_decimal, false)
ALL_ARE(isdigit, m40_char_is_digit, false)
ALL_ARE(isnumeric, m40_char_is_numeric, false)
ALL_ARE(isprintable, m40_char_is_printable, true)
ALL_ARE(isspace, m40_char_is_space, false)

METHOD(isidentifier)
{
    unsigned n;
    uint32_t first = self.s->n_bytes ? m40_char_at(self.s->data, &n) : '0';

    NO_ARGS;
    return m40_tv_bool((first == '_' || m40_char_is_alpha(first)) && all_are(r, self, m40_char_is_word, false).b);
}

METHOD(islower)
{
    return m40_tr_call_builtin(r, m40_find_test(m40_str_from("lower")), self, args);
}

METHOD(isupper)
{
    return m40_tr_call_builtin(r, m40_find_test(m40_str_from("upper")), self, args);
}

METHOD(istitle)
{
    bool after_cased = false, has_one = false;
    unsigned n;

    NO_ARGS;
    for (size_t at = 0; at < self.s->n_bytes && m40_tr_step(r, 1); at += n) {
        uint32_t c = m40_char_at(self.s->data + at, &n);
        bool is_large = m40_char_is_upper(c) || m40_char_is_title(c);

        if ((is_large && after_cased) || (m40_char_is_lower(c) && !after_cased))
            return m40_tv_bool(false);
        after_cased = is_cased(c);
        has_one = has_one || after_cased;
    }
    return m40_tv_bool(has_one);
}

/* ---- strings: ends ---- */

static struct m40_tv strip(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, unsigned sides)
{
    bool has_chars = m40_has_arg(args, 0) && args->pos[0].type != TV_NONE;
    struct m40_str chars = has_chars ? m40_arg_str(r, args, 0, "") : m40_str_from(""), text;

    text = m40_tr_strip(r, m40_tstr_view(self.s), has_chars ? &chars : NULL, sides);
    return m40_tr_part(r, text.data, text.n_bytes);
}

METHOD(strip)
{
    return strip(r, self, args, 3);
}

METHOD(lstrip)
{
    return strip(r, self, args, 1);
}

METHOD(rstrip)
{
    return strip(r, self, args, 2);
}

static bool has_prefix(struct m40_str text, struct m40_str prefix)
{
    return prefix.n_bytes <= text.n_bytes && (prefix.n_bytes == 0 || memcmp(text.data, prefix.data, prefix.n_bytes) == 0);
}

static bool has_suffix(struct m40_str text, struct m40_str suffix)
{
    return suffix.n_bytes <= text.n_bytes &&
           (suffix.n_bytes == 0 || memcmp(text.data + text.n_bytes - suffix.n_bytes, suffix.data, suffix.n_bytes) == 0);
}

/* The part that arguments i and i + 1 (start, end) choose, in characters. *offset_chars: where it begins; -1: start lies behind the end of the text. */
static struct m40_str window(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, size_t i, int64_t *offset_chars)
{
    struct m40_tv start = m40_has_arg(args, i) ? args->pos[i] : TV(TV_NONE), end = m40_has_arg(args, i + 1) ? args->pos[i + 1] : TV(TV_NONE), part;
    int64_t n = (int64_t)self.s->n_chars, from = m40_tv_is_integer(start) ? m40_tv_as_int(start) : 0;

    if (from < 0)
        from = from + n > 0 ? from + n : 0;
    *offset_chars = from > n ? -1 : from;
    part = m40_tr_slice(r, self, start, end, TV(TV_NONE));
    return part.type == TV_STR ? m40_tstr_view(part.s) : m40_str_from("");
}

/* startswith, endswith: of one string or any of a tuple. */
static struct m40_tv has_end(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool (*has)(struct m40_str, struct m40_str))
{
    int64_t offset;
    struct m40_str text = window(r, self, args, 1, &offset);

    if (offset < 0)
        return m40_tv_bool(false);
    if (args->pos[0].type == TV_TUPLE) {
        for (size_t i = 0; i < args->pos[0].list->n && m40_tr_step(r, 1); i++)
            if (args->pos[0].list->items[i].type == TV_STR && has(text, m40_tstr_view(args->pos[0].list->items[i].s)))
                return m40_tv_bool(true);
        return m40_tv_bool(false);
    }
    return m40_tv_bool(has(text, m40_arg_str(r, args, 0, "")));
}

METHOD(startswith)
{
    return has_end(r, self, args, has_prefix);
}

METHOD(endswith)
{
    return has_end(r, self, args, has_suffix);
}

METHOD(removeprefix)
{
    struct m40_str prefix = m40_arg_str(r, args, 0, ""), text = m40_tstr_view(self.s);

    return has_prefix(text, prefix) ? m40_tr_part(r, text.data + prefix.n_bytes, text.n_bytes - prefix.n_bytes) : self;
}

METHOD(removesuffix)
{
    struct m40_str suffix = m40_arg_str(r, args, 0, ""), text = m40_tstr_view(self.s);

    return has_suffix(text, suffix) ? m40_tr_part(r, text.data, text.n_bytes - suffix.n_bytes) : self;
}

static struct m40_tv justify(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, char align)
{
    struct m40_str fill = m40_arg_str(r, args, 1, " ");

    if (m40_tstr_borrow(&r->arena, fill.data, fill.n_bytes)->n_chars != 1)
        m40_tr_fail(r, "the fill character must be exactly one character long");
    return m40_tr_pad(r, self.s, m40_arg_int(r, args, 0, 0), fill, align);
}

METHOD(center)
{
    return justify(r, self, args, '^');
}

METHOD(ljust)
{
    return justify(r, self, args, '<');
}

METHOD(rjust)
{
    return justify(r, self, args, '>');
}

METHOD(zfill)
{
    struct m40_str text = m40_tstr_view(self.s);
    int64_t width = m40_arg_int(r, args, 0, 0);
    size_t n_sign = text.n_bytes && (*text.data == '-' || *text.data == '+');
    struct m40_buf buf = {0};

    m40_tr_put(r, &buf, text.data, n_sign);
    m40_tr_put_repeat(r, &buf, m40_str_from("0"), width > (int64_t)self.s->n_chars ? (uint64_t)width - self.s->n_chars : 0);
    m40_tr_put(r, &buf, text.data + n_sign, text.n_bytes - n_sign);
    return m40_tr_take(r, &buf);
}

METHOD(expandtabs)
{
    int64_t size = m40_arg_int(r, args, 0, 8);
    uint64_t column = 0;
    struct m40_buf buf = {0};
    unsigned n;

    for (size_t at = 0; at < self.s->n_bytes && !r->failed; at += n) {
        uint32_t c = m40_char_at(self.s->data + at, &n);
        uint64_t n_spaces = size > 0 ? (uint64_t)size - column % (uint64_t)size : 0;

        if (c == '\t') {
            m40_tr_put_repeat(r, &buf, m40_str_from(" "), n_spaces);
            column += n_spaces;
            continue;
        }
        m40_tr_put(r, &buf, self.s->data + at, n);
        column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    return m40_tr_take(r, &buf);
}

/* ---- strings: searching ---- */

/* The last place of `what`; SIZE_MAX: nowhere. */
static size_t find_last(struct m40_trun *r, struct m40_str text, struct m40_str what)
{
    for (size_t at = text.n_bytes - what.n_bytes + 1; what.n_bytes <= text.n_bytes && at-- > 0 && m40_tr_step(r, at % 64 == 0);)
        if (what.n_bytes == 0 ||
            (text.data[at] == what.data[0] && m40_tr_step(r, what.n_bytes / 256) && memcmp(text.data + at, what.data, what.n_bytes) == 0))
            return at;
    return SIZE_MAX;
}

static struct m40_tv find(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool is_last, bool must_be)
{
    int64_t offset;
    struct m40_str what = m40_arg_str(r, args, 0, ""), text = window(r, self, args, 1, &offset);
    size_t at = offset < 0 ? SIZE_MAX : is_last ? find_last(r, text, what) : m40_find_bytes(text, what, 0);

    m40_tr_step(r, text.n_bytes / 256);
    if (at == SIZE_MAX) {
        if (must_be)
            m40_tr_fail(r, "substring not found");
        return m40_tv_int(-1);
    }
    return m40_tv_int(offset + (int64_t)m40_tstr_borrow(&r->arena, text.data, at)->n_chars);
}

METHOD(find)
{
    return find(r, self, args, false, false);
}

METHOD(rfind)
{
    return find(r, self, args, true, false);
}

METHOD(index)
{
    return find(r, self, args, false, true);
}

METHOD(rindex)
{
    return find(r, self, args, true, true);
}

METHOD(count)
{
    int64_t offset, n = 0;
    struct m40_str what = m40_arg_str(r, args, 0, ""), text = window(r, self, args, 1, &offset);

    if (offset < 0)
        return m40_tv_int(0);
    if (what.n_bytes == 0)
        return m40_tv_int((int64_t)m40_tstr_borrow(&r->arena, text.data, text.n_bytes)->n_chars + 1);
    m40_tr_step(r, text.n_bytes / 256);
    for (size_t at = 0; (at = m40_find_bytes(text, what, at)) != SIZE_MAX && m40_tr_step(r, 1); at += what.n_bytes)
        n++;
    return m40_tv_int(n);
}

METHOD(replace)
{
    return m40_tr_replace(r, m40_tstr_view(self.s), m40_arg_str(r, args, 0, ""), m40_arg_str(r, args, 1, ""), m40_arg_int(r, args, 2, -1));
}

/* ---- strings: taking apart and together ---- */

static void push_part(struct m40_trun *r, struct m40_tlist *list, const char *data, size_t n_bytes)
{
    m40_tr_push(r, list, m40_tr_part(r, data, n_bytes));
}

/* Words between white space, at most n_max splits, from the left. */
static void split_words(struct m40_trun *r, struct m40_tlist *parts, struct m40_str text, int64_t n_max)
{
    unsigned n;

    for (;; n_max--) {
        size_t end = 0;

        text = m40_tr_strip(r, text, NULL, 1);
        if (text.n_bytes == 0 || r->failed)
            return;
        if (n_max == 0) {
            push_part(r, parts, text.data, text.n_bytes);
            return;
        }
        while (end < text.n_bytes && !m40_char_is_space(m40_char_at(text.data + end, &n)) && m40_tr_step(r, 1))
            end += n;
        push_part(r, parts, text.data, end);
        text.data += end;
        text.n_bytes -= end;
    }
}

/* The same from the right; parts come in reverse. */
static void split_words_back(struct m40_trun *r, struct m40_tlist *parts, struct m40_str text, int64_t n_max)
{
    unsigned n;

    for (;; n_max--) {
        size_t begin;

        text = m40_tr_strip(r, text, NULL, 2);
        if (text.n_bytes == 0 || r->failed)
            return;
        if (n_max == 0) {
            push_part(r, parts, text.data, text.n_bytes);
            return;
        }
        begin = text.n_bytes;
        while (begin > 0 && !m40_char_is_space(m40_char_before(text.data + begin, &n)) && m40_tr_step(r, 1))
            begin -= n;
        push_part(r, parts, text.data + begin, text.n_bytes - begin);
        text.n_bytes = begin;
    }
}

static void reverse(struct m40_tlist *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        struct m40_tv v = list->items[i];

        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = v;
    }
}

static struct m40_tv split(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool from_right)
{
    struct m40_tv parts = m40_tr_list(r, TV_LIST, 0);
    struct m40_str text = m40_tstr_view(self.s), separator;
    bool by_space = !m40_has_arg(args, 0) || args->pos[0].type == TV_NONE;
    int64_t n_max = m40_arg_int(r, args, 1, -1);
    size_t at;

    separator = by_space ? m40_str_from(" ") : m40_arg_str(r, args, 0, " ");
    if (separator.n_bytes == 0)
        m40_tr_fail(r, "empty separator");
    if (r->failed)
        return parts;
    if (by_space) {
        (from_right ? split_words_back : split_words)(r, parts.list, text, n_max);
    } else if (from_right) {
        for (; n_max != 0 && (at = find_last(r, text, separator)) != SIZE_MAX && !r->failed; n_max--) {
            push_part(r, parts.list, text.data + at + separator.n_bytes, text.n_bytes - at - separator.n_bytes);
            text.n_bytes = at;
        }
        push_part(r, parts.list, text.data, text.n_bytes);
    } else {
        for (; n_max != 0 && (at = m40_find_bytes(text, separator, 0)) != SIZE_MAX && !r->failed; n_max--) {
            push_part(r, parts.list, text.data, at);
            text.data += at + separator.n_bytes;
            text.n_bytes -= at + separator.n_bytes;
        }
        push_part(r, parts.list, text.data, text.n_bytes);
    }
    if (from_right)
        reverse(parts.list);
    return parts;
}

METHOD(split)
{
    return split(r, self, args, false);
}

METHOD(rsplit)
{
    return split(r, self, args, true);
}

METHOD(splitlines)
{
    return (struct m40_tv){.type = TV_LIST, .list = m40_tr_lines(r, m40_tstr_view(self.s), m40_arg_bool(args, 0, false))};
}

static struct m40_tv partition(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool from_right)
{
    struct m40_str text = m40_tstr_view(self.s), separator = m40_arg_str(r, args, 0, " ");
    size_t at = from_right ? find_last(r, text, separator) : m40_find_bytes(text, separator, 0);
    struct m40_tv parts = m40_tr_list(r, TV_TUPLE, 3);

    if (separator.n_bytes == 0)
        m40_tr_fail(r, "empty separator");
    if (at == SIZE_MAX) {
        if (!from_right)
            m40_tr_push(r, parts.list, self);
        push_part(r, parts.list, "", 0);
        push_part(r, parts.list, "", 0);
        if (from_right)
            m40_tr_push(r, parts.list, self);
        return parts;
    }
    push_part(r, parts.list, text.data, at);
    push_part(r, parts.list, text.data + at, separator.n_bytes);
    push_part(r, parts.list, text.data + at + separator.n_bytes, text.n_bytes - at - separator.n_bytes);
    return parts;
}

METHOD(partition)
{
    return partition(r, self, args, false);
}

METHOD(rpartition)
{
    return partition(r, self, args, true);
}

METHOD(join)
{
    const struct m40_tlist *items = m40_tr_iterate(r, args->pos[0]);
    struct m40_buf buf = {0};

    for (size_t i = 0; i < items->n && !r->failed; i++) {
        if (i)
            m40_tr_put(r, &buf, self.s->data, self.s->n_bytes);
        if (items->items[i].type == TV_STR)
            m40_tr_put(r, &buf, items->items[i].s->data, items->items[i].s->n_bytes);
        else
            m40_tr_fail(r, "sequence item %zu: expected str instance, %s found", i, m40_tv_type_name(items->items[i]));
    }
    return m40_tr_take(r, &buf);
}

METHOD(format)
{
    return m40_tr_format(r, m40_tstr_view(self.s), args);
}

/* ---- lists, tuples, ranges ---- */

METHOD(list_count)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    int64_t n = 0;

    for (size_t i = 0; i < items->n && m40_tr_step(r, 1); i++)
        n += m40_tr_equal(r, items->items[i], args->pos[0]);
    return m40_tv_int(n);
}

METHOD(list_index)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    int64_t n = (int64_t)items->n, start = m40_arg_int(r, args, 1, 0), end = m40_arg_int(r, args, 2, n);

    start = start < 0 ? (start + n > 0 ? start + n : 0) : start;
    end = end < 0 ? end + n : end > n ? n : end;
    for (int64_t i = start; i < end && m40_tr_step(r, 1); i++)
        if (m40_tr_equal(r, items->items[i], args->pos[0]))
            return m40_tv_int(i);
    m40_tr_fail(r, "the value is not in the list");
    return TV(TV_UNDEFINED);
}

/* Values do not change, so a copy is the value. */
METHOD(copy)
{
    (void)r;
    NO_ARGS;
    return self;
}

/* ---- dicts ---- */

METHOD(get)
{
    const struct m40_tv *found = m40_tdict_get(r, self.dict, args->pos[0]);

    return found ? *found : m40_has_arg(args, 1) ? args->pos[1] : TV(TV_NONE);
}

static struct m40_tv view(struct m40_trun *r, struct m40_tlist *list, const char *name)
{
    (void)r;
    list->name = name;
    return (struct m40_tv){.type = TV_VIEW, .list = list};
}

METHOD(items)
{
    NO_ARGS;
    return view(r, m40_tr_dict_items(r, self.dict), "dict_items");
}

METHOD(keys)
{
    NO_ARGS;
    return view(r, m40_tr_iterate(r, self), "dict_keys");
}

METHOD(values)
{
    struct m40_tlist *values = m40_tlist_new(&r->arena, self.dict->n);

    NO_ARGS;
    for (size_t i = 0; i < self.dict->n && !r->failed; i++)
        m40_tr_push(r, values, self.dict->entries[i].value);
    return view(r, values, "dict_values");
}

/* ---- cyclers ---- */

METHOD(cycler_next)
{
    struct m40_tv v = self.list->items[self.list->pos];

    (void)r;
    NO_ARGS;
    self.list->pos = (self.list->pos + 1) % self.list->n;
    return v;
}

METHOD(cycler_reset)
{
    (void)r;
    NO_ARGS;
    self.list->pos = 0;
    return TV(TV_NONE);
}

/* ---- loops ---- */

METHOD(loop_cycle)
{
    if (args->n_pos == 0) {
        m40_tr_fail(r, "no items for cycling given");
        return TV(TV_UNDEFINED);
    }
    return args->pos[self.loop->index0 % args->n_pos];
}

METHOD(loop_changed)
{
    struct m40_tv values = m40_tr_list(r, TV_TUPLE, args->n_pos);
    bool is_changed;

    for (size_t i = 0; i < args->n_pos && !r->failed; i++)
        m40_tr_push(r, values.list, args->pos[i]);
    is_changed = self.loop->last_changed.type == TV_MISSING || !m40_tr_equal(r, self.loop->last_changed, values);
    self.loop->last_changed = values;
    return m40_tv_bool(is_changed);
}

static const struct m40_tbuiltin string_methods[] = {
    {"capitalize", method_capitalize, "", 0},
    {"casefold", method_casefold, "", 0},
    {"center", method_center, "width fillchar", 1},
    {"count", method_count, "sub start end", 1},
    {"endswith", method_endswith, "suffix start end", 1},
    {"expandtabs", method_expandtabs, "tabsize", 0},
    {"find", method_find, "sub start end", 1},
    {"format", method_format, NULL, 0},
    {"index", method_index, "sub start end", 1},
    {"isalnum", method_isalnum, "", 0},
    {"isalpha", method_isalpha, "", 0},
    {"isascii", method_isascii, "", 0},
    {"isdecimal", method_isdecimal, "", 0},
    {"isdigit", method_isdigit, "", 0},
    {"isidentifier", method_isidentifier, "", 0},
    {"islower", method_islower, "", 0},
    {"isnumeric", method_isnumeric, "", 0},
    {"isprintable", method_isprintable, "", 0},
    {"isspace", method_isspace, "", 0},
    {"istitle", method_istitle, "", 0},
    {"isupper", method_isupper, "", 0},
    {"join", method_join, "iterable", 1},
    {"ljust", method_ljust, "width fillchar", 1},
    {"lower", method_lower, "", 0},
    {"lstrip", method_lstrip, "chars", 0},
    {"partition", method_partition, "sep", 1},
    {"removeprefix", method_removeprefix, "prefix", 1},
    {"removesuffix", method_removesuffix, "suffix", 1},
    {"replace", method_replace, "old new count", 2},
    {"rfind", method_rfind, "sub start end", 1},
    {"rindex", method_rindex, "sub start end", 1},
    {"rjust", method_rjust, "width fillchar", 1},
    {"rpartition", method_rpartition, "sep", 1},
    {"rsplit", method_rsplit, "sep maxsplit", 0},
    {"rstrip", method_rstrip, "chars", 0},
    {"split", method_split, "sep maxsplit", 0},
    {"splitlines", method_splitlines, "keepends", 0},
    {"startswith", method_startswith, "prefix start end", 1},
    {"strip", method_strip, "chars", 0},
    {"swapcase", method_swapcase, "", 0},
    {"title", method_title, "", 0},
    {"upper", method_upper, "", 0},
    {"zfill", method_zfill, "width", 1},
    {NULL, NULL, NULL, 0},
};

static const struct m40_tbuiltin list_methods[] = {{"copy", method_copy, "", 0},
                                                   {"count", method_list_count, "value", 1},
                                                   {"index", method_list_index, "value start stop", 1},
                                                   {NULL, NULL, NULL, 0}};
static const struct m40_tbuiltin dict_methods[] = {{"copy", method_copy, "", 0},     {"get", method_get, "key default", 1},
                                                   {"items", method_items, "", 0},   {"keys", method_keys, "", 0},
                                                   {"values", method_values, "", 0}, {NULL, NULL, NULL, 0}};
static const struct m40_tbuiltin cycler_methods[] = {
    {"next", method_cycler_next, "", 0}, {"reset", method_cycler_reset, "", 0}, {NULL, NULL, NULL, 0}};
static const struct m40_tbuiltin loop_methods[] = {
    {"cycle", method_loop_cycle, NULL, 0}, {"changed", method_loop_changed, NULL, 0}, {NULL, NULL, NULL, 0}};

const struct m40_tbuiltin *m40_find_method(struct m40_tv v, struct m40_str name)
{
    const struct m40_tbuiltin *table;

    switch (v.type) {
    case TV_STR:
        table = string_methods;
        break;
    case TV_LIST:
        table = list_methods;
        break;
    case TV_TUPLE:
    case TV_RANGE:
        table = list_methods + 1; /* they have no copy() */
        break;
    case TV_DICT:
        table = dict_methods;
        break;
    case TV_CYCLER:
        table = cycler_methods;
        break;
    case TV_LOOP:
        table = loop_methods;
        break;
    default:
        return NULL;
    }
    for (; table->name; table++)
        if (m40_str_equal(name, m40_str_from(table->name)))
            return table;
    return NULL;
}

bool m40_is_mutator(struct m40_tv v, struct m40_str name)
{
    static const char *const of_list[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = v.type == TV_LIST ? of_list : v.type == TV_DICT ? of_dict : NULL;

    for (; names && *names; names++)
        if (m40_str_equal(name, m40_str_from(*names)))
            return true;
    return false;
}
