/* The texts of values: str(), repr(), JSON. */
#include "tokenizer/template/builtins.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static void put_int(struct m40_trun *r, struct m40_buf *buf, int64_t i)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, i);
    m40_tr_put_text(r, buf, text);
}

static void put_float(struct m40_trun *r, struct m40_buf *buf, double f)
{
    char text[32];

    m40_double_text(f, text);
    m40_tr_put_text(r, buf, text);
}

static void put_code(struct m40_trun *r, struct m40_buf *buf, const char *format, uint32_t code)
{
    char text[16];

    snprintf(text, sizeof text, format[0] == 'x' ? "\\x%02x" : format[0] == 'u' ? "\\u%04x" : "\\U%08x", code);
    m40_tr_put_text(r, buf, text);
}

static void repr_string(struct m40_trun *r, struct m40_buf *buf, const struct m40_tstr *s)
{
    const char quote = s->n_bytes && memchr(s->data, '\'', s->n_bytes) && !memchr(s->data, '"', s->n_bytes) ? '"' : '\'';
    size_t plain = 0, at = 0; /* [plain, at) stands as it is */
    unsigned n;

    m40_tr_put(r, buf, &quote, 1);
    for (; at < s->n_bytes && !r->failed; at += n) {
        uint32_t c = m40_char_at(s->data + at, &n);
        bool is_escaped = c == '\\' || c == (uint32_t)quote || !m40_char_is_printable(c);

        if (!is_escaped)
            continue;
        m40_tr_put(r, buf, s->data + plain, at - plain);
        plain = at + n;
        if (c == '\n' || c == '\r' || c == '\t')
            m40_tr_put_text(r, buf, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (c < 0x80 && c >= 0x20 && c != 0x7f)
            m40_tr_put(r, buf, (const char[]){'\\', (char)c}, 2);
        else
            put_code(r, buf, c < 0x100 ? "x" : c < 0x10000 ? "u" : "U", c);
    }
    m40_tr_put(r, buf, s->data + plain, at - plain);
    m40_tr_put(r, buf, &quote, 1);
}

static void repr_items(struct m40_trun *r, struct m40_buf *buf, const struct m40_tlist *list)
{
    for (size_t i = 0; i < list->n && !r->failed; i++) {
        if (i)
            m40_tr_put_text(r, buf, ", ");
        m40_tr_repr(r, buf, list->items[i]);
    }
}

static void repr_dict(struct m40_trun *r, struct m40_buf *buf, const struct m40_tdict *dict)
{
    m40_tr_put_text(r, buf, "{");
    for (size_t i = 0; i < dict->n && !r->failed; i++) {
        if (i)
            m40_tr_put_text(r, buf, ", ");
        m40_tr_repr(r, buf, dict->entries[i].key);
        m40_tr_put_text(r, buf, ": ");
        m40_tr_repr(r, buf, dict->entries[i].value);
    }
    m40_tr_put_text(r, buf, "}");
}

static void repr_range(struct m40_trun *r, struct m40_buf *buf, const struct m40_trange *range)
{
    char text[80];

    snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, range->start, range->stop);
    m40_tr_put_text(r, buf, text);
    snprintf(text, sizeof text, range->step == 1 ? ")" : ", %" PRId64 ")", range->step);
    m40_tr_put_text(r, buf, text);
}

static void repr_object(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v)
{
    char text[80];

    switch (v.type) {
    case TV_NAMESPACE:
        m40_tr_put_text(r, buf, "<Namespace ");
        repr_dict(r, buf, v.dict);
        m40_tr_put_text(r, buf, ">");
        return;
    case TV_MACRO:
        m40_tr_put_text(r, buf, "<Macro ");
        if (v.macro->node->name)
            repr_string(r, buf, v.macro->node->name);
        else
            m40_tr_put_text(r, buf, "anonymous");
        m40_tr_put_text(r, buf, ">");
        return;
    case TV_LOOP:
        snprintf(text, sizeof text, "<LoopContext %zu/%zu>", v.loop->index0 + 1, v.loop->items->n);
        m40_tr_put_text(r, buf, text);
        return;
    case TV_FUNCTION:
        snprintf(text, sizeof text, "<function %s>", v.method->builtin->name);
        m40_tr_put_text(r, buf, text);
        return;
    default:
        snprintf(text, sizeof text, "<%s object>", m40_tv_type_name(v));
        m40_tr_put_text(r, buf, text);
        return;
    }
}

static void repr_value(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v)
{
    switch (v.type) {
    case TV_MISSING:
    case TV_UNDEFINED:
        m40_tr_put_text(r, buf, "Undefined");
        return;
    case TV_NONE:
        m40_tr_put_text(r, buf, "None");
        return;
    case TV_BOOL:
        m40_tr_put_text(r, buf, v.b ? "True" : "False");
        return;
    case TV_INT:
        put_int(r, buf, v.i);
        return;
    case TV_FLOAT:
        put_float(r, buf, v.f);
        return;
    case TV_STR:
        if (v.s->is_markup)
            m40_tr_put_text(r, buf, "Markup(");
        repr_string(r, buf, v.s);
        if (v.s->is_markup)
            m40_tr_put_text(r, buf, ")");
        return;
    case TV_VIEW:
        m40_tr_put_text(r, buf, v.list->name);
        m40_tr_put_text(r, buf, "([");
        repr_items(r, buf, v.list);
        m40_tr_put_text(r, buf, "])");
        return;
    case TV_LIST:
    case TV_TUPLE:
        m40_tr_put_text(r, buf, v.type == TV_LIST ? "[" : "(");
        repr_items(r, buf, v.list);
        m40_tr_put_text(r, buf, v.type == TV_LIST ? "]" : v.list->n == 1 ? ",)" : ")");
        return;
    case TV_DICT:
        repr_dict(r, buf, v.dict);
        return;
    case TV_RANGE:
        repr_range(r, buf, v.range);
        return;
    default:
        repr_object(r, buf, v);
        return;
    }
}

void m40_tr_repr(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v)
{
    if (m40_tr_enter(r))
        repr_value(r, buf, v);
    m40_tr_leave(r);
}

void m40_tr_print(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v)
{
    if (v.type == TV_STR)
        m40_tr_put(r, buf, v.s->data, v.s->n_bytes);
    else if (v.type != TV_UNDEFINED)
        m40_tr_repr(r, buf, v);
}

const struct m40_tstr *m40_tr_text(struct m40_trun *r, struct m40_tv v)
{
    struct m40_buf buf = {0};

    if (v.type == TV_STR)
        return v.s;
    m40_tr_print(r, &buf, v);
    return m40_tr_take(r, &buf).s;
}

/* ---- JSON ---- */

static void json_string(struct m40_trun *r, struct m40_buf *buf, const struct m40_tstr *s, bool ensure_ascii)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    size_t plain = 0, at = 0;
    unsigned n;

    m40_tr_put_text(r, buf, "\"");
    for (; at < s->n_bytes && !r->failed; at += n) {
        uint32_t c = m40_char_at(s->data + at, &n);
        const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;

        if (!simple && c >= 0x20 && (c < 0x7f || !ensure_ascii || c == 0x7f))
            continue;
        m40_tr_put(r, buf, s->data + plain, at - plain);
        plain = at + n;
        if (simple) {
            m40_tr_put(r, buf, (const char[]){'\\', to[simple - from]}, 2);
        } else if (c >= 0x10000) { /* a surrogate pair */
            put_code(r, buf, "u", 0xd800 + ((c - 0x10000) >> 10));
            put_code(r, buf, "u", 0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
            put_code(r, buf, "u", c);
        }
    }
    m40_tr_put(r, buf, s->data + plain, at - plain);
    m40_tr_put_text(r, buf, "\"");
}

static void json_newline(struct m40_trun *r, struct m40_buf *buf, const struct m40_tjson *o, unsigned level)
{
    if (!o->has_indent)
        return;
    m40_tr_put_text(r, buf, "\n");
    m40_tr_put_repeat(r, buf, o->indent, level);
}

static void json_value(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v, const struct m40_tjson *o, unsigned level);

static void json_list(struct m40_trun *r, struct m40_buf *buf, const struct m40_tlist *list, const struct m40_tjson *o, unsigned level)
{
    m40_tr_put_text(r, buf, "[");
    for (size_t i = 0; i < list->n && !r->failed; i++) {
        if (i)
            m40_tr_put(r, buf, o->item_separator.data, o->item_separator.n_bytes);
        json_newline(r, buf, o, level + 1);
        json_value(r, buf, list->items[i], o, level + 1);
    }
    if (list->n)
        json_newline(r, buf, o, level);
    m40_tr_put_text(r, buf, "]");
}

/* A key as a string; numbers and constants are written as values are. */
static void json_key(struct m40_trun *r, struct m40_buf *buf, struct m40_tv key, const struct m40_tjson *o)
{
    bool is_text = key.type == TV_STR;

    if (!is_text && key.type != TV_NONE && !m40_tv_is_number(key)) {
        m40_tr_fail(r, "keys must be str, int, float, bool or None, not %s", m40_tv_type_name(key));
        return;
    }
    if (!is_text)
        m40_tr_put_text(r, buf, "\"");
    json_value(r, buf, key, o, 0);
    if (!is_text)
        m40_tr_put_text(r, buf, "\"");
}

static void json_dict(struct m40_trun *r, struct m40_buf *buf, const struct m40_tdict *dict, const struct m40_tjson *o, unsigned level)
{
    struct m40_tlist *order = m40_tlist_new(&r->arena, dict->n), *keys = m40_tlist_new(&r->arena, dict->n);

    for (size_t i = 0; i < dict->n && !r->failed; i++) {
        m40_tr_push(r, order, m40_tv_int((int64_t)i));
        m40_tr_push(r, keys, dict->entries[i].key);
    }
    if (o->sort_keys)
        m40_tr_sort(r, order, keys, false);
    m40_tr_put_text(r, buf, "{");
    for (size_t i = 0; i < dict->n && !r->failed; i++) {
        const struct m40_tentry *entry = &dict->entries[order->items[i].i];

        if (i)
            m40_tr_put(r, buf, o->item_separator.data, o->item_separator.n_bytes);
        json_newline(r, buf, o, level + 1);
        json_key(r, buf, entry->key, o);
        m40_tr_put(r, buf, o->key_separator.data, o->key_separator.n_bytes);
        json_value(r, buf, entry->value, o, level + 1);
    }
    if (dict->n)
        json_newline(r, buf, o, level);
    m40_tr_put_text(r, buf, "}");
}

static void json_value(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v, const struct m40_tjson *o, unsigned level)
{
    if (!m40_tr_enter(r)) {
        m40_tr_leave(r);
        return;
    }
    switch (v.type) {
    case TV_NONE:
        m40_tr_put_text(r, buf, "null");
        break;
    case TV_BOOL:
        m40_tr_put_text(r, buf, v.b ? "true" : "false");
        break;
    case TV_INT:
        put_int(r, buf, v.i);
        break;
    case TV_FLOAT:
        if (isfinite(v.f))
            put_float(r, buf, v.f);
        else
            m40_tr_put_text(r, buf, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
        break;
    case TV_STR:
        json_string(r, buf, v.s, o->ensure_ascii);
        break;
    case TV_LIST:
    case TV_TUPLE:
        json_list(r, buf, v.list, o, level);
        break;
    case TV_DICT:
        json_dict(r, buf, v.dict, o, level);
        break;
    default:
        m40_tr_fail(r, "Object of type %s is not JSON serializable", m40_tv_type_name(v));
        break;
    }
    m40_tr_leave(r);
}

void m40_tr_json(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v, const struct m40_tjson *options)
{
    json_value(r, buf, v, options, 0);
}
