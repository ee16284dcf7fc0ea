#include "tokenizer/template/value.h"

const char *m40_tv_type_name(struct m40_tv v)
{
    static const char *const names[] = {
        [TV_MISSING] = "missing",   [TV_UNDEFINED] = "Undefined", [TV_NONE] = "NoneType",   [TV_BOOL] = "bool",
        [TV_INT] = "int",           [TV_FLOAT] = "float",         [TV_STR] = "str",         [TV_LIST] = "list",
        [TV_TUPLE] = "tuple",       [TV_DICT] = "dict",           [TV_VIEW] = "dict_items", [TV_GENERATOR] = "generator",
        [TV_RANGE] = "range",       [TV_LOOP] = "LoopContext",    [TV_MACRO] = "Macro",     [TV_NAMESPACE] = "Namespace",
        [TV_FUNCTION] = "function", [TV_CYCLER] = "Cycler",       [TV_JOINER] = "Joiner",
    };

    return v.type == TV_VIEW ? v.list->name : names[v.type];
}

static size_t count_chars(const char *data, size_t n_bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < n_bytes; i++)
        n += ((unsigned char)data[i] & 0xc0) != 0x80;
    return n;
}

const struct m40_tstr *m40_tstr_borrow(struct m40_arena *arena, const char *data, size_t n_bytes)
{
    struct m40_tstr *s = m40_arena_object(arena, sizeof *s, KIND_STR);

    *s = (struct m40_tstr){data, n_bytes, count_chars(data, n_bytes), false};
    return s;
}

const struct m40_tstr *m40_tstr_copy(struct m40_arena *arena, const char *data, size_t n_bytes)
{
    char *copy = n_bytes ? m40_arena_alloc(arena, n_bytes) : NULL;

    if (!copy)
        return m40_tstr_borrow(arena, "", 0);
    memcpy(copy, data, n_bytes);
    return m40_tstr_borrow(arena, copy, n_bytes);
}

struct m40_tlist *m40_tlist_new(struct m40_arena *arena, size_t capacity)
{
    struct m40_tlist *list = m40_arena_object(arena, sizeof *list, KIND_LIST);

    if (capacity > 0 && capacity <= SIZE_MAX / sizeof *list->items)
        list->items = m40_arena_alloc(arena, capacity * sizeof *list->items);
    list->capacity = list->items ? capacity : 0;
    return list;
}

void m40_tlist_push(struct m40_arena *arena, struct m40_tlist *list, struct m40_tv v)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 4;
        struct m40_tv *items = capacity <= SIZE_MAX / sizeof *items ? m40_arena_alloc(arena, capacity * sizeof *items) : NULL;

        if (!items)
            return;
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = v;
}

uint64_t m40_trange_length(const struct m40_trange *range)
{
    if (range->step > 0 && range->start < range->stop)
        return ((uint64_t)range->stop - (uint64_t)range->start - 1) / (uint64_t)range->step + 1;
    if (range->step < 0 && range->start > range->stop)
        return ((uint64_t)range->start - (uint64_t)range->stop - 1) / (0 - (uint64_t)range->step) + 1;
    return 0;
}
