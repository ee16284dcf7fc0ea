/* Lists, dicts, and going through things. */
#include "tokenizer/template/run.h"

#include "tokenizer/template/chars.h"
#include "tokenizer/vocab.h"

#include <math.h>

struct m40_tv m40_tr_list(struct m40_trun *r, enum m40_tv_type type, size_t capacity)
{
    return (struct m40_tv){.type = type, .list = m40_tlist_new(&r->arena, capacity)};
}

void m40_tr_push(struct m40_trun *r, struct m40_tlist *list, struct m40_tv v)
{
    if (m40_tr_step(r, 1)) {
        m40_tlist_push(&r->arena, list, v);
        m40_tr_step(r, 0); /* what could not be added is known at once: nobody may count on it */
    }
}

struct m40_tv m40_tr_pair(struct m40_trun *r, struct m40_tv a, struct m40_tv b)
{
    struct m40_tv pair = m40_tr_list(r, TV_TUPLE, 2);

    m40_tr_push(r, pair.list, a);
    m40_tr_push(r, pair.list, b);
    return pair;
}

/* ---- dicts ---- */

enum { N_WITHOUT_INDEX = 8 };

struct m40_tdict *m40_tdict_new(struct m40_trun *r)
{
    return m40_arena_object(&r->arena, sizeof(struct m40_tdict), KIND_DICT);
}

static uint64_t hash_bytes(const struct m40_trun *r, const char *data, size_t n)
{
    uint64_t h = r->seed ^ n, word;

    for (; n >= 8; n -= 8, data += 8) {
        memcpy(&word, data, 8);
        h = m40_hash_mix(h ^ word);
    }
    word = 0;
    memcpy(&word, data, n);
    return m40_hash_mix(h ^ word);
}

/* Equal keys have equal hashes: 1, 1.0 and true are the same key. */
static uint64_t hash_key(struct m40_trun *r, struct m40_tv key)
{
    uint64_t h = r->seed;

    switch (key.type) {
    case TV_STR:
        m40_tr_step(r, key.s->n_bytes / 256);
        return hash_bytes(r, key.s->data, key.s->n_bytes);
    case TV_NONE:
    case TV_UNDEFINED:
        return m40_hash_mix(h ^ key.type);
    case TV_BOOL:
    case TV_INT:
        return m40_hash_mix(h + (uint64_t)m40_tv_as_int(key));
    case TV_FLOAT:
        if (key.f >= -0x1p63 && key.f < 0x1p63 && floor(key.f) == key.f)
            return m40_hash_mix(h + (uint64_t)(int64_t)key.f);
        return hash_bytes(r, (const char *)&key.f, sizeof key.f);
    case TV_TUPLE:
        if (m40_tr_enter(r))
            for (size_t i = 0; i < key.list->n && m40_tr_step(r, 1); i++)
                h = m40_hash_mix(h + hash_key(r, key.list->items[i]));
        m40_tr_leave(r);
        return h;
    case TV_LIST:
    case TV_DICT:
    case TV_VIEW:
        m40_tr_fail(r, "unhashable type: '%s'", m40_tv_type_name(key));
        return 0;
    default: /* things that are equal to themselves alone */
        return hash_bytes(r, (const char *)&key.list, sizeof key.list);
    }
}

static bool is_entry(struct m40_trun *r, const struct m40_tentry *entry, struct m40_tv key, uint64_t hash)
{
    return entry->hash == hash && m40_tr_equal(r, entry->key, key);
}

/* The key's entry, or NULL; *slot is where it would stand in the index. */
static struct m40_tentry *find_entry(struct m40_trun *r, const struct m40_tdict *dict, struct m40_tv key, uint64_t hash, size_t *slot)
{
    *slot = 0;
    if (!dict->index) {
        for (size_t i = 0; i < dict->n; i++)
            if (is_entry(r, &dict->entries[i], key, hash))
                return &dict->entries[i];
        return NULL;
    }
    for (*slot = hash & (dict->n_index - 1); dict->index[*slot] && m40_tr_step(r, 1); *slot = (*slot + 1) & (dict->n_index - 1))
        if (is_entry(r, &dict->entries[dict->index[*slot] - 1], key, hash))
            return &dict->entries[dict->index[*slot] - 1];
    return NULL;
}

const struct m40_tv *m40_tdict_get(struct m40_trun *r, const struct m40_tdict *dict, struct m40_tv key)
{
    uint64_t hash = hash_key(r, key);
    size_t slot;
    struct m40_tentry *entry = r->failed ? NULL : find_entry(r, dict, key, hash, &slot);

    return entry ? &entry->value : NULL;
}

const struct m40_tv *m40_tdict_get_text(struct m40_trun *r, const struct m40_tdict *dict, struct m40_str key)
{
    struct m40_tstr s = {.data = key.data, .n_bytes = key.n_bytes};

    return m40_tdict_get(r, dict, m40_tv_of_str(&s));
}

static bool grow(struct m40_trun *r, struct m40_tdict *dict)
{
    size_t capacity = dict->capacity ? 2 * dict->capacity : 4;
    struct m40_tentry *entries;
    uint32_t *index = NULL;

    if (capacity > UINT32_MAX / 4)
        return false;
    entries = m40_arena_alloc(&r->arena, capacity * sizeof *entries);
    if (capacity > N_WITHOUT_INDEX)
        index = m40_arena_alloc(&r->arena, 2 * capacity * sizeof *index);
    if (!entries || (capacity > N_WITHOUT_INDEX && !index))
        return false;
    if (dict->n)
        memcpy(entries, dict->entries, dict->n * sizeof *entries);
    dict->entries = entries;
    dict->capacity = capacity;
    dict->index = index;
    dict->n_index = 2 * capacity;
    for (size_t i = 0; index && i < dict->n; i++) {
        size_t slot = entries[i].hash & (dict->n_index - 1);

        while (index[slot])
            slot = (slot + 1) & (dict->n_index - 1);
        index[slot] = (uint32_t)i + 1;
    }
    return true;
}

void m40_tdict_set(struct m40_trun *r, struct m40_tdict *dict, struct m40_tv key, struct m40_tv value)
{
    uint64_t hash = hash_key(r, key);
    struct m40_tentry *entry;
    size_t slot;

    if (!m40_tr_step(r, 1))
        return;
    entry = find_entry(r, dict, key, hash, &slot);
    if (entry) {
        entry->value = value;
        return;
    }
    if (dict->n == dict->capacity) {
        if (!grow(r, dict))
            return;
        find_entry(r, dict, key, hash, &slot);
    }
    if (r->failed)
        return;
    if (dict->index)
        dict->index[slot] = (uint32_t)dict->n + 1;
    dict->entries[dict->n++] = (struct m40_tentry){key, value, hash};
}

struct m40_tlist *m40_tr_dict_items(struct m40_trun *r, const struct m40_tdict *dict)
{
    struct m40_tlist *items = m40_tlist_new(&r->arena, dict->n);

    for (size_t i = 0; i < dict->n && !r->failed; i++)
        m40_tr_push(r, items, m40_tr_pair(r, dict->entries[i].key, dict->entries[i].value));
    return items;
}

/* ---- going through things ---- */

bool m40_tv_is_iterable(struct m40_tv v)
{
    switch (v.type) {
    case TV_UNDEFINED:
    case TV_STR:
    case TV_LIST:
    case TV_TUPLE:
    case TV_DICT:
    case TV_VIEW:
    case TV_GENERATOR:
    case TV_RANGE:
        return true;
    default:
        return false;
    }
}

int64_t m40_tv_length(struct m40_tv v)
{
    switch (v.type) {
    case TV_UNDEFINED:
        return 0;
    case TV_STR:
        return (int64_t)v.s->n_chars;
    case TV_LIST:
    case TV_TUPLE:
    case TV_VIEW:
        return (int64_t)v.list->n;
    case TV_DICT:
        return (int64_t)v.dict->n;
    case TV_RANGE:
        return (int64_t)m40_trange_length(v.range);
    case TV_LOOP:
        return (int64_t)v.loop->items->n;
    default:
        return -1;
    }
}

static struct m40_tlist *chars_of(struct m40_trun *r, const struct m40_tstr *s)
{
    struct m40_tlist *list = m40_tlist_new(&r->arena, s->n_chars);
    unsigned n;

    for (size_t at = 0; at < s->n_bytes && !r->failed; at += n) {
        m40_char_at(s->data + at, &n);
        m40_tr_push(r, list, m40_tr_part(r, s->data + at, n));
    }
    return list;
}

struct m40_tlist *m40_tr_iterate(struct m40_trun *r, struct m40_tv v)
{
    struct m40_tlist *list;

    switch (v.type) {
    case TV_UNDEFINED:
        return m40_tlist_new(&r->arena, 0);
    case TV_STR:
        return chars_of(r, v.s);
    case TV_LIST:
    case TV_TUPLE:
    case TV_VIEW:
        m40_tr_step(r, v.list->n);
        return v.list;
    case TV_GENERATOR:
        list = m40_tlist_new(&r->arena, v.list->n - v.list->pos);
        while (v.list->pos < v.list->n && !r->failed)
            m40_tr_push(r, list, v.list->items[v.list->pos++]);
        return list;
    case TV_DICT:
        list = m40_tlist_new(&r->arena, v.dict->n);
        for (size_t i = 0; i < v.dict->n && !r->failed; i++)
            m40_tr_push(r, list, v.dict->entries[i].key);
        return list;
    case TV_RANGE:
        list = m40_tlist_new(&r->arena, m40_trange_length(v.range));
        for (uint64_t i = 0; i < m40_trange_length(v.range) && !r->failed; i++)
            m40_tr_push(r, list, m40_tv_int((int64_t)((uint64_t)v.range->start + i * (uint64_t)v.range->step)));
        return list;
    default:
        m40_tr_fail(r, "'%s' object is not iterable", m40_tv_type_name(v));
        return m40_tlist_new(&r->arena, 0);
    }
}
