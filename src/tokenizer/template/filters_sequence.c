/* Filters of lists, dicts and anything else that can be gone through; and the ones of any value. */
#include "tokenizer/template/builtins.h"

#define FILTER(name) static struct m40_tv filter_##name(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args)
#define NO_ARGS      (void)args

/* ---- what several share ---- */

/* Parts of a string have no NUL behind them. */
static bool is_digits(struct m40_str text)
{
    size_t n = 0;

    while (n < text.n_bytes && text.data[n] >= '0' && text.data[n] <= '9')
        n++;
    return n > 0 && n == text.n_bytes;
}

/* Follows "a.b.0" (or one index) from a value; `fallback` stands for what is undefined on the way, where it is not missing. */
static struct m40_tv follow(struct m40_trun *r, struct m40_tv v, struct m40_tv path, struct m40_tv fallback)
{
    struct m40_str rest;

    if (path.type == TV_NONE || path.type == TV_MISSING)
        return v;
    if (path.type != TV_STR) {
        v = m40_tr_item(r, v, path);
        return v.type == TV_UNDEFINED && fallback.type != TV_MISSING ? fallback : v;
    }
    rest = m40_tstr_view(path.s);
    for (;;) {
        size_t dot = m40_find_bytes(rest, m40_str_from("."), 0);
        struct m40_str part = {rest.data, dot == SIZE_MAX ? rest.n_bytes : dot};
        struct m40_tv key = m40_tr_part(r, part.data, part.n_bytes);
        int64_t i;

        if (is_digits(part) && m40_tr_to_int(key, 10, &i))
            key = m40_tv_int(i);
        v = m40_tr_item(r, v, key);
        if (v.type == TV_UNDEFINED && fallback.type != TV_MISSING)
            v = fallback;
        if (dot == SIZE_MAX || r->failed)
            return v;
        rest.data += dot + 1;
        rest.n_bytes -= dot + 1;
    }
}

static struct m40_tv folded(struct m40_trun *r, struct m40_tv v, bool case_sensitive)
{
    return case_sensitive || v.type != TV_STR ? v : m40_tr_case(r, m40_tstr_view(v.s), CASE_LOWER);
}

/* The keys to sort by: of the attribute or, where it names several with commas, tuples of them. */
static struct m40_tlist *sort_keys(struct m40_trun *r, const struct m40_tlist *items, struct m40_tv attribute, bool case_sensitive)
{
    struct m40_tlist *keys = m40_tlist_new(&r->arena, items->n);
    bool is_several = attribute.type == TV_STR && m40_find_bytes(m40_tstr_view(attribute.s), m40_str_from(","), 0) != SIZE_MAX;

    for (size_t i = 0; i < items->n && !r->failed; i++) {
        struct m40_tv key = m40_tr_list(r, TV_LIST, 0);
        struct m40_str rest;

        if (!is_several) {
            m40_tr_push(r, keys, folded(r, follow(r, items->items[i], attribute, TV(TV_MISSING)), case_sensitive));
            continue;
        }
        rest = m40_tstr_view(attribute.s);
        while (!r->failed) {
            size_t comma = m40_find_bytes(rest, m40_str_from(","), 0);
            struct m40_tv path = m40_tr_part(r, rest.data, comma == SIZE_MAX ? rest.n_bytes : comma);

            m40_tr_push(r, key.list, folded(r, follow(r, items->items[i], path, TV(TV_MISSING)), case_sensitive));
            if (comma == SIZE_MAX)
                break;
            rest.data += comma + 1;
            rest.n_bytes -= comma + 1;
        }
        m40_tr_push(r, keys, key);
    }
    return keys;
}

static struct m40_tlist *copy_list(struct m40_trun *r, const struct m40_tlist *list)
{
    struct m40_tlist *copy = m40_tlist_new(&r->arena, list->n);

    for (size_t i = 0; i < list->n && !r->failed; i++)
        m40_tr_push(r, copy, list->items[i]);
    return copy;
}

static struct m40_tv as_value(enum m40_tv_type type, struct m40_tlist *list)
{
    return (struct m40_tv){.type = type, .list = list};
}

static struct m40_tv arg_or(const struct m40_targs *args, size_t i, struct m40_tv fallback)
{
    return m40_has_arg(args, i) ? args->pos[i] : fallback;
}

/* ---- of any value ---- */

FILTER(default)
{
    bool is_replaced = self.type == TV_UNDEFINED || (m40_arg_bool(args, 1, false) && !m40_tv_truth(self));

    return is_replaced ? arg_or(args, 0, m40_tr_string(r, "", 0)) : self;
}

FILTER(attr)
{
    struct m40_str name = m40_arg_str(r, args, 0, "");
    struct m40_tv found;

    if (m40_tr_refuse_undefined(r, self))
        return self;
    found = m40_tr_own_attribute(r, self, name);
    if (found.type != TV_MISSING)
        return found;
    return m40_tr_undefined(r, "'%s object' has no attribute '%.*s'", m40_tv_type_name(self), m40_shown(name.n_bytes), name.data);
}

FILTER(length)
{
    int64_t n = m40_tv_length(self);

    NO_ARGS;
    if (n < 0)
        m40_tr_fail(r, "object of type '%s' has no len()", m40_tv_type_name(self));
    return m40_tv_int(n);
}

/* ---- elements ---- */

FILTER(list)
{
    NO_ARGS;
    return as_value(TV_LIST, copy_list(r, m40_tr_iterate(r, self)));
}

FILTER(first)
{
    const struct m40_tlist *items;

    NO_ARGS;
    if (self.type == TV_GENERATOR && self.list->pos < self.list->n)
        return self.list->items[self.list->pos++];
    items = m40_tr_iterate(r, self);
    return items->n ? items->items[0] : m40_tr_undefined(r, "No first item, sequence was empty.");
}

FILTER(last)
{
    const struct m40_tlist *items;

    NO_ARGS;
    if (self.type == TV_GENERATOR) {
        m40_tr_fail(r, "'generator' object is not reversible");
        return TV(TV_UNDEFINED);
    }
    items = m40_tr_iterate(r, self);
    return items->n ? items->items[items->n - 1] : m40_tr_undefined(r, "No last item, sequence was empty.");
}

FILTER(reverse)
{
    struct m40_tv reversed;
    const struct m40_tlist *items;

    NO_ARGS;
    if (self.type == TV_STR)
        return m40_tr_slice(r, self, TV(TV_NONE), TV(TV_NONE), m40_tv_int(-1));
    reversed = m40_tr_list(r, self.type == TV_GENERATOR ? TV_LIST : TV_GENERATOR, 0);
    items = m40_tr_iterate(r, self);
    for (size_t i = items->n; i-- > 0 && !r->failed;)
        m40_tr_push(r, reversed.list, items->items[i]);
    return reversed;
}

FILTER(join)
{
    const struct m40_tstr *separator = m40_has_arg(args, 0) ? m40_tr_text(r, args->pos[0]) : m40_tr_string(r, "", 0).s;
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    struct m40_buf buf = {0};

    for (size_t i = 0; i < items->n && !r->failed; i++) {
        if (i)
            m40_tr_put(r, &buf, separator->data, separator->n_bytes);
        m40_tr_print(r, &buf, follow(r, items->items[i], arg_or(args, 1, TV(TV_MISSING)), TV(TV_MISSING)));
    }
    return m40_tr_take(r, &buf);
}

FILTER(items)
{
    NO_ARGS;
    if (self.type == TV_UNDEFINED)
        return m40_tr_list(r, TV_GENERATOR, 0);
    if (self.type != TV_DICT) {
        m40_tr_fail(r, "Can only get item pairs from a mapping.");
        return self;
    }
    return as_value(TV_GENERATOR, m40_tr_dict_items(r, self.dict));
}

FILTER(batch)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    struct m40_tv batches = m40_tr_list(r, TV_GENERATOR, 0), batch = TV(TV_UNDEFINED), fill = arg_or(args, 1, TV(TV_NONE));
    int64_t n = m40_arg_int(r, args, 0, 1);

    for (size_t i = 0; i < items->n && !r->failed; i++) {
        if (i == 0 || (int64_t)batch.list->n == n) {
            batch = m40_tr_list(r, TV_LIST, 0);
            m40_tr_push(r, batches.list, batch);
        }
        m40_tr_push(r, batch.list, items->items[i]);
    }
    while (items->n && fill.type != TV_NONE && !r->failed && (int64_t)batch.list->n < n)
        m40_tr_push(r, batch.list, fill);
    return batches;
}

FILTER(slice)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    struct m40_tv slices = m40_tr_list(r, TV_GENERATOR, 0), fill = arg_or(args, 1, TV(TV_NONE));
    int64_t n = m40_arg_int(r, args, 0, 1);
    size_t at = 0;

    if (n == 0)
        m40_tr_fail(r, "slice(): division by zero");
    for (int64_t k = 0; k < n && !r->failed; k++) {
        size_t extra = items->n % (size_t)n, n_here = items->n / (size_t)n + ((size_t)k < extra);
        struct m40_tv slice = m40_tr_list(r, TV_LIST, 0);

        for (size_t i = 0; i < n_here && !r->failed; i++)
            m40_tr_push(r, slice.list, items->items[at++]);
        if (fill.type != TV_NONE && (size_t)k >= extra)
            m40_tr_push(r, slice.list, fill);
        m40_tr_push(r, slices.list, slice);
    }
    return slices;
}

/* ---- order ---- */

FILTER(sort)
{
    struct m40_tlist *items = copy_list(r, m40_tr_iterate(r, self));

    m40_tr_sort(r, items, sort_keys(r, items, arg_or(args, 2, TV(TV_NONE)), m40_arg_bool(args, 1, false)), m40_arg_bool(args, 0, false));
    return as_value(TV_LIST, items);
}

FILTER(dictsort)
{
    struct m40_str by = m40_arg_str(r, args, 1, "key");
    bool by_value = m40_str_equal(by, m40_str_from("value"));
    struct m40_tlist *items, *keys;

    if (!by_value && !m40_str_equal(by, m40_str_from("key")))
        m40_tr_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (self.type != TV_DICT)
        m40_tr_fail(r, "dictsort() needs a dict, not %s", m40_tv_type_name(self));
    if (r->failed)
        return self;
    items = m40_tr_dict_items(r, self.dict);
    keys = m40_tlist_new(&r->arena, items->n);
    for (size_t i = 0; i < items->n && !r->failed; i++)
        m40_tr_push(r, keys, folded(r, by_value ? self.dict->entries[i].value : self.dict->entries[i].key, m40_arg_bool(args, 0, false)));
    m40_tr_sort(r, items, keys, m40_arg_bool(args, 2, false));
    return as_value(TV_LIST, items);
}

FILTER(groupby)
{
    struct m40_tlist *items = copy_list(r, m40_tr_iterate(r, self)), *keys = m40_tlist_new(&r->arena, items->n);
    struct m40_tv groups = m40_tr_list(r, TV_LIST, 0), members = TV(TV_UNDEFINED), fallback = arg_or(args, 1, TV(TV_NONE));
    bool case_sensitive = m40_arg_bool(args, 2, false);

    if (fallback.type == TV_NONE)
        fallback = TV(TV_MISSING);
    for (size_t i = 0; i < items->n && !r->failed; i++)
        m40_tr_push(r, keys, folded(r, follow(r, items->items[i], args->pos[0], fallback), case_sensitive));
    m40_tr_sort(r, items, keys, false);
    for (size_t i = 0; i < items->n && !r->failed; i++) {
        if (i == 0 || !m40_tr_equal(r, keys->items[i - 1], keys->items[i])) {
            struct m40_tv group;

            members = m40_tr_list(r, TV_LIST, 0);
            group = m40_tr_pair(r, follow(r, items->items[i], args->pos[0], fallback), members);
            group.list->is_group = true;
            m40_tr_push(r, groups.list, group);
        }
        m40_tr_push(r, members.list, items->items[i]);
    }
    return groups;
}

FILTER(unique)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    struct m40_tv kept = m40_tr_list(r, TV_GENERATOR, 0);
    struct m40_tdict *seen = m40_tdict_new(r);

    for (size_t i = 0; i < items->n && !r->failed; i++) {
        struct m40_tv key = folded(r, follow(r, items->items[i], arg_or(args, 1, TV(TV_NONE)), TV(TV_MISSING)), m40_arg_bool(args, 0, false));

        if (m40_tdict_get(r, seen, key))
            continue;
        m40_tdict_set(r, seen, key, TV(TV_NONE));
        m40_tr_push(r, kept.list, items->items[i]);
    }
    return kept;
}

static struct m40_tv extreme(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool is_max)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self), *keys;
    size_t best = 0;

    if (items->n == 0)
        return m40_tr_undefined(r, "No aggregated item, sequence was empty.");
    keys = sort_keys(r, items, arg_or(args, 1, TV(TV_NONE)), m40_arg_bool(args, 0, false));
    for (size_t i = 1; i < items->n && !r->failed; i++)
        if (is_max ? m40_tr_less(r, keys->items[best], keys->items[i]) : m40_tr_less(r, keys->items[i], keys->items[best]))
            best = i;
    return items->items[best];
}

FILTER(min)
{
    return extreme(r, self, args, false);
}

FILTER(max)
{
    return extreme(r, self, args, true);
}

FILTER(sum)
{
    const struct m40_tlist *items = m40_tr_iterate(r, self);
    struct m40_tv sum = arg_or(args, 1, m40_tv_int(0));

    if (sum.type == TV_STR)
        m40_tr_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < items->n && !r->failed; i++)
        sum = m40_tr_binary(r, '+', sum, follow(r, items->items[i], arg_or(args, 0, TV(TV_NONE)), TV(TV_MISSING)));
    return sum;
}

/* ---- each element ---- */

static struct m40_targs rest_of(const struct m40_targs *args, size_t n)
{
    struct m40_targs rest = *args;

    n = n < args->n_pos ? n : args->n_pos;
    rest.pos = n ? rest.pos + n : rest.pos;
    rest.n_pos -= n;
    return rest;
}

FILTER(map)
{
    struct m40_tv mapped = m40_tr_list(r, TV_GENERATOR, 0), fallback = TV(TV_MISSING);
    const struct m40_tv *attribute = args->keywords && args->n_pos == 0 ? m40_tdict_get_text(r, args->keywords, m40_str_from("attribute")) : NULL,
                        *given;
    const struct m40_tbuiltin *filter = NULL;
    struct m40_targs rest = rest_of(args, 1);
    const struct m40_tlist *items;

    if (!m40_tv_truth(self))
        return mapped;
    if (attribute) {
        given = m40_tdict_get_text(r, args->keywords, m40_str_from("default"));
        if (given && given->type != TV_NONE)
            fallback = *given;
        if (args->keywords->n != 1u + (given != NULL))
            m40_tr_fail(r, "map(): unexpected keyword argument");
    } else if (args->n_pos == 0 || args->pos[0].type != TV_STR) {
        m40_tr_fail(r, "map requires a filter argument");
    } else {
        filter = m40_find_filter(m40_tstr_view(args->pos[0].s));
        if (!filter)
            m40_tr_fail(r, "there is no filter '%.*s'", m40_shown(args->pos[0].s->n_bytes), args->pos[0].s->data);
    }
    items = m40_tr_iterate(r, self);
    for (size_t i = 0; i < items->n && !r->failed; i++)
        m40_tr_push(r, mapped.list,
                    attribute ? follow(r, items->items[i], *attribute, fallback) : m40_tr_call_builtin(r, filter, items->items[i], &rest));
    return mapped;
}

/* Those of which a test (or, without one, their truth) is `wanted`; of the attribute that the first argument names, where `by_attribute`. */
static struct m40_tv choose(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args, bool wanted, bool by_attribute)
{
    struct m40_tv kept = m40_tr_list(r, TV_GENERATOR, 0);
    size_t n_taken = by_attribute;
    struct m40_targs rest = rest_of(args, n_taken + 1);
    const struct m40_tlist *items;

    if (!m40_tv_truth(self))
        return kept;
    if (args->n_pos < n_taken)
        m40_tr_fail(r, "%s(): missing parameter for attribute name", args->name);
    items = m40_tr_iterate(r, self);
    for (size_t i = 0; i < items->n && !r->failed; i++) {
        struct m40_tv v = by_attribute ? follow(r, items->items[i], args->pos[0], TV(TV_MISSING)) : items->items[i];
        bool holds = args->n_pos > n_taken ? m40_tr_test(r, args->pos[n_taken], v, &rest) : m40_tv_truth(v);

        if (holds == wanted)
            m40_tr_push(r, kept.list, items->items[i]);
    }
    return kept;
}

FILTER(select)
{
    return choose(r, self, args, true, false);
}

FILTER(reject)
{
    return choose(r, self, args, false, false);
}

FILTER(selectattr)
{
    return choose(r, self, args, true, true);
}

FILTER(rejectattr)
{
    return choose(r, self, args, false, true);
}

const struct m40_tbuiltin m40_sequence_filters[] = {
    {"attr", filter_attr, "name", 1},
    {"batch", filter_batch, "linecount fill_with", 1},
    {"count", filter_length, "", 0},
    {"d", filter_default, "default_value boolean", 0},
    {"default", filter_default, "default_value boolean", 0},
    {"dictsort", filter_dictsort, "case_sensitive by reverse", 0},
    {"first", filter_first, "", 0},
    {"groupby", filter_groupby, "attribute default case_sensitive", 1},
    {"items", filter_items, "", 0},
    {"join", filter_join, "d attribute", 0},
    {"last", filter_last, "", 0},
    {"length", filter_length, "", 0},
    {"list", filter_list, "", 0},
    {"map", filter_map, NULL, 0},
    {"max", filter_max, "case_sensitive attribute", 0},
    {"min", filter_min, "case_sensitive attribute", 0},
    {"reject", filter_reject, NULL, 0},
    {"rejectattr", filter_rejectattr, NULL, 0},
    {"reverse", filter_reverse, "", 0},
    {"select", filter_select, NULL, 0},
    {"selectattr", filter_selectattr, NULL, 0},
    {"slice", filter_slice, "slices fill_with", 1},
    {"sort", filter_sort, "reverse case_sensitive attribute", 0},
    {"sum", filter_sum, "attribute start", 0},
    {"unique", filter_unique, "case_sensitive attribute", 0},
    {NULL, NULL, NULL, 0},
};

const struct m40_tbuiltin *m40_find_filter(struct m40_str name)
{
    static const struct m40_tbuiltin *const tables[] = {m40_text_filters, m40_number_filters, m40_sequence_filters};

    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct m40_tbuiltin *b = tables[t]; b->name; b++)
            if (m40_str_equal(name, m40_str_from(b->name)))
                return b;
    return NULL;
}
