/* Attributes, subscripts, slices. */
#include "tokenizer/template/builtins.h"

/* What an attribute that is no method may be. */
static struct m40_tv property(struct m40_trun *r, struct m40_tv v, struct m40_str name)
{
    if (v.type == TV_LOOP) {
        const struct m40_tloop *l = v.loop;
        size_t n = l->items->n, i = l->index0;

        const struct {
            const char *name;
            struct m40_tv value;
        } properties[] = {
            {"index", m40_tv_int((int64_t)i + 1)},
            {"index0", m40_tv_int((int64_t)i)},
            {"revindex", m40_tv_int((int64_t)(n - i))},
            {"revindex0", m40_tv_int((int64_t)(n - i) - 1)},
            {"first", m40_tv_bool(i == 0)},
            {"last", m40_tv_bool(i + 1 == n)},
            {"length", m40_tv_int((int64_t)n)},
            {"depth", m40_tv_int((int64_t)l->depth0 + 1)},
            {"depth0", m40_tv_int((int64_t)l->depth0)},
            {"previtem", i > 0 ? l->items->items[i - 1] : m40_tr_undefined(r, "there is no previous item")},
            {"nextitem", i + 1 < n ? l->items->items[i + 1] : m40_tr_undefined(r, "there is no next item")},
        };

        for (size_t k = 0; k < sizeof properties / sizeof *properties; k++)
            if (m40_str_equal(name, m40_str_from(properties[k].name)))
                return properties[k].value;
    }
    if (v.type == TV_CYCLER && m40_str_equal(name, m40_str_from("current")))
        return v.list->items[v.list->pos];
    if (v.type == TV_TUPLE && v.list->is_group && v.list->n == 2) {
        if (m40_str_equal(name, m40_str_from("grouper")))
            return v.list->items[0];
        if (m40_str_equal(name, m40_str_from("list")))
            return v.list->items[1];
    }
    if (v.type == TV_MACRO && m40_str_equal(name, m40_str_from("name")))
        return v.macro->node->name ? m40_tv_of_str(v.macro->node->name) : TV(TV_NONE);
    if (v.type == TV_RANGE) {
        if (m40_str_equal(name, m40_str_from("start")))
            return m40_tv_int(v.range->start);
        if (m40_str_equal(name, m40_str_from("stop")))
            return m40_tv_int(v.range->stop);
        if (m40_str_equal(name, m40_str_from("step")))
            return m40_tv_int(v.range->step);
    }
    return TV(TV_MISSING);
}

static struct m40_tv unsafe(struct m40_trun *r, struct m40_tv v, struct m40_str name)
{
    return m40_tr_undefined(r, "access to attribute '%.*s' of '%s' object is unsafe.", m40_shown(name.n_bytes), name.data, m40_tv_type_name(v));
}

struct m40_tv m40_tr_own_attribute(struct m40_trun *r, struct m40_tv v, struct m40_str name)
{
    const struct m40_tbuiltin *builtin;
    struct m40_tv result;

    if (v.type == TV_NAMESPACE) {
        const struct m40_tv *value = m40_tdict_get_text(r, v.dict, name);

        return value ? *value : TV(TV_MISSING);
    }
    builtin = m40_find_method(v, name);
    if (builtin) {
        struct m40_tmethod *method = m40_arena_object(&r->arena, sizeof *method, KIND_METHOD);

        *method = (struct m40_tmethod){builtin, v};
        return (struct m40_tv){.type = TV_FUNCTION, .method = method};
    }
    result = property(r, v, name);
    if (result.type != TV_MISSING)
        return result;
    if (m40_is_mutator(v, name))
        return unsafe(r, v, name);
    return TV(TV_MISSING);
}

static bool is_dunder(struct m40_str name)
{
    return name.n_bytes > 4 && memcmp(name.data, "__", 2) == 0 && memcmp(name.data + name.n_bytes - 2, "__", 2) == 0;
}

static struct m40_tv no_attribute(struct m40_trun *r, struct m40_tv v, struct m40_tv key)
{
    const struct m40_tstr *text = m40_tr_text(r, key);
    int n = m40_shown(text->n_bytes);

    if (v.type == TV_NONE)
        return m40_tr_undefined(r, "'None' has no attribute '%.*s'", n, text->data);
    return m40_tr_undefined(r, "'%s object' has no %s '%.*s'", m40_tv_type_name(v), key.type == TV_STR ? "attribute" : "element", n, text->data);
}

/* The item at index i < 0 or >= 0 of n; SIZE_MAX: outside. */
static size_t position(int64_t i, size_t n)
{
    if (i < 0)
        i += (int64_t)n;
    return i >= 0 && (uint64_t)i < n ? (size_t)i : SIZE_MAX;
}

static size_t byte_of_char(const struct m40_tstr *s, size_t n_chars)
{
    size_t at = 0;
    unsigned n;

    if (s->n_bytes == s->n_chars)
        return n_chars;
    for (; n_chars > 0 && at < s->n_bytes; n_chars--, at += n)
        m40_char_at(s->data + at, &n);
    return at;
}

static struct m40_tv char_of(struct m40_trun *r, const struct m40_tstr *s, size_t i)
{
    size_t at = byte_of_char(s, i);
    unsigned n;

    m40_tr_step(r, 1 + at / 256);
    m40_char_at(s->data + at, &n);
    return m40_tr_part(r, s->data + at, n);
}

/* object[key] where the object has items; TV_MISSING: it has none of that key. */
static struct m40_tv own_item(struct m40_trun *r, struct m40_tv v, struct m40_tv key)
{
    size_t i;

    if (v.type == TV_DICT) {
        const struct m40_tv *found = NULL;

        if (key.type != TV_LIST && key.type != TV_DICT && key.type != TV_VIEW) /* those cannot be keys */
            found = m40_tdict_get(r, v.dict, key);
        return found ? *found : TV(TV_MISSING);
    }
    if (!m40_tv_is_integer(key) || m40_tv_length(v) < 0)
        return TV(TV_MISSING);
    i = position(m40_tv_as_int(key), (size_t)m40_tv_length(v));
    if (i == SIZE_MAX)
        return TV(TV_MISSING);
    if (v.type == TV_STR)
        return char_of(r, v.s, i);
    if (v.type == TV_LIST || v.type == TV_TUPLE)
        return v.list->items[i];
    if (v.type == TV_RANGE)
        return m40_tv_int((int64_t)((uint64_t)v.range->start + i * (uint64_t)v.range->step));
    return TV(TV_MISSING);
}

struct m40_tv m40_tr_attribute(struct m40_trun *r, struct m40_tv v, const struct m40_tstr *name)
{
    struct m40_tv result;

    if (r->failed || m40_tr_refuse_undefined(r, v))
        return TV(TV_UNDEFINED);
    result = m40_tr_own_attribute(r, v, m40_tstr_view(name));
    if (result.type == TV_MISSING && v.type == TV_DICT)
        result = own_item(r, v, m40_tv_of_str(name));
    if (result.type == TV_MISSING && is_dunder(m40_tstr_view(name)))
        return unsafe(r, v, m40_tstr_view(name));
    return result.type == TV_MISSING ? no_attribute(r, v, m40_tv_of_str(name)) : result;
}

struct m40_tv m40_tr_item(struct m40_trun *r, struct m40_tv v, struct m40_tv key)
{
    struct m40_tv result;

    if (r->failed || m40_tr_refuse_undefined(r, v))
        return TV(TV_UNDEFINED);
    result = own_item(r, v, key);
    if (result.type == TV_MISSING && key.type == TV_STR) {
        result = m40_tr_own_attribute(r, v, m40_tstr_view(key.s));
        if (result.type == TV_MISSING && is_dunder(m40_tstr_view(key.s)))
            return unsafe(r, v, m40_tstr_view(key.s));
    }
    return result.type == TV_MISSING ? no_attribute(r, v, key) : result;
}

/* One end of a slice within [low, high]. */
static int64_t slice_end(struct m40_trun *r, struct m40_tv end, int64_t fallback, int64_t n, int64_t low, int64_t high)
{
    int64_t i;

    if (end.type == TV_NONE)
        return fallback;
    if (!m40_tv_is_integer(end)) {
        m40_tr_fail(r, "slice indices must be integers or None");
        return fallback;
    }
    i = m40_tv_as_int(end);
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

struct m40_tv m40_tr_slice(struct m40_trun *r, struct m40_tv v, struct m40_tv start_v, struct m40_tv stop_v, struct m40_tv step_v)
{
    int64_t n = m40_tv_length(v), step = m40_tv_is_integer(step_v) ? m40_tv_as_int(step_v) : 1, start, stop;
    struct m40_trange picked;
    uint64_t n_picked;
    struct m40_tv result;

    if (r->failed || m40_tr_refuse_undefined(r, v))
        return TV(TV_UNDEFINED);
    if (v.type != TV_STR && v.type != TV_LIST && v.type != TV_TUPLE && v.type != TV_RANGE) {
        m40_tr_fail(r, "'%s' object cannot be sliced", m40_tv_type_name(v));
        return TV(TV_UNDEFINED);
    }
    if (step == 0 || (step_v.type != TV_NONE && !m40_tv_is_integer(step_v))) {
        m40_tr_fail(r, step == 0 ? "slice step cannot be zero" : "slice indices must be integers or None");
        return TV(TV_UNDEFINED);
    }
    if (step == INT64_MIN)
        step++;
    start = step > 0 ? slice_end(r, start_v, 0, n, 0, n) : slice_end(r, start_v, n - 1, n, -1, n - 1);
    stop = step > 0 ? slice_end(r, stop_v, n, n, 0, n) : slice_end(r, stop_v, -1, n, -1, n - 1);
    picked = (struct m40_trange){start, stop, step};
    n_picked = m40_trange_length(&picked);
    if (v.type == TV_STR && step == 1) {
        size_t from = byte_of_char(v.s, (size_t)start), to = start < stop ? byte_of_char(v.s, (size_t)stop) : from;

        m40_tr_step(r, v.s->n_bytes / 256);
        return m40_tr_part(r, v.s->data + from, to - from);
    }
    if (v.type == TV_STR) {
        struct m40_tlist *chars = m40_tr_iterate(r, v);
        struct m40_buf buf = {0};

        for (uint64_t i = 0; i < n_picked && !r->failed; i++) {
            const struct m40_tstr *c = chars->items[start + (int64_t)i * step].s;

            m40_tr_put(r, &buf, c->data, c->n_bytes);
        }
        return m40_tr_take(r, &buf);
    }
    if (v.type == TV_RANGE) {
        struct m40_trange *range = m40_arena_object(&r->arena, sizeof *range, KIND_RANGE);

        range->start = (int64_t)((uint64_t)v.range->start + (uint64_t)start * (uint64_t)v.range->step);
        range->stop = (int64_t)((uint64_t)v.range->start + (uint64_t)stop * (uint64_t)v.range->step);
        if (__builtin_mul_overflow(v.range->step, step, &range->step))
            range->step = range->step < 0 ? INT64_MIN + 1 : INT64_MAX;
        return (struct m40_tv){.type = TV_RANGE, .range = range};
    }
    result = m40_tr_list(r, v.type, n_picked);
    for (uint64_t i = 0; i < n_picked && !r->failed; i++)
        m40_tr_push(r, result.list, v.list->items[start + (int64_t)i * step]);
    return result;
}
