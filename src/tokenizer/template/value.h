/* The values of the template language: Python's, as far as templates meet them. All live in an arena and are freed with it; a compiled template's constants live in its own. */
#ifndef M40_TOKENIZER_TEMPLATE_VALUE_H
#define M40_TOKENIZER_TEMPLATE_VALUE_H

#include "base/arena.h"
#include "base/str.h"

#include <stdint.h>

enum m40_tv_type {
    TV_MISSING, /* an argument that was not given; never seen by a template */
    TV_UNDEFINED,
    TV_NONE,
    TV_BOOL,
    TV_INT,
    TV_FLOAT,
    TV_STR,
    TV_LIST,
    TV_TUPLE,
    TV_DICT,
    TV_VIEW,      /* dict.keys(), values(), items() */
    TV_GENERATOR, /* what lazy filters give: gone through once */
    TV_RANGE,
    TV_NAMESPACE,
    TV_LOOP,
    TV_MACRO,
    TV_FUNCTION, /* a builtin, with the value it is a method of */
    TV_CYCLER,
    TV_JOINER,
};

/* UTF-8, valid, immutable. */
struct m40_tstr {
    const char *data;
    size_t n_bytes, n_chars;
    bool is_markup; /* made by safe or escape: `+` escapes what it is joined with */
};

struct m40_tv {
    enum m40_tv_type type;
    union {
        bool b;
        int64_t i;
        double f;
        const struct m40_tstr *s; /* of TV_UNDEFINED: what to say where it is used; may be NULL */
        struct m40_tlist *list;   /* LIST, TUPLE, VIEW, GENERATOR, CYCLER */
        struct m40_tdict *dict;   /* DICT, NAMESPACE */
        struct m40_trange *range;
        struct m40_tloop *loop;
        struct m40_tmacro *macro;
        struct m40_tmethod *method;
        struct m40_tjoiner *joiner;
    };
};

struct m40_tlist {
    struct m40_tv *items;
    size_t n, capacity;
    size_t pos;       /* GENERATOR: items before it are gone; CYCLER: the current one */
    const char *name; /* of a view: "dict_keys", "dict_values", "dict_items" */
    bool is_group;    /* a tuple that has .grouper and .list */
};

struct m40_tentry {
    struct m40_tv key, value;
    uint64_t hash;
};

/* Keeps the order of insertion. */
struct m40_tdict {
    struct m40_tentry *entries;
    size_t n, capacity;
    uint32_t *index; /* open addressing: entry + 1, 0 is free; NULL while there are few */
    size_t n_index;
};

struct m40_trange {
    int64_t start, stop, step;
};

/* For m40_arena_object. */
enum m40_tkind { KIND_STR, KIND_LIST, KIND_DICT, KIND_RANGE, KIND_LOOP, KIND_MACRO, KIND_METHOD, KIND_JOINER, KIND_SCOPE, KIND_NODE };

struct m40_trun;
struct m40_targs;
typedef struct m40_tv (*m40_tfunction)(struct m40_trun *r, struct m40_tv self, const struct m40_targs *args);

/* A thing templates call. params: the names of its parameters, separated by spaces; arguments arrive in their order, TV_MISSING where not given. NULL: it takes what comes. */
struct m40_tbuiltin {
    const char *name;
    m40_tfunction call;
    const char *params;
    uint8_t n_required;
};

struct m40_tmethod {
    const struct m40_tbuiltin *builtin;
    struct m40_tv self;
};

struct m40_tjoiner {
    struct m40_tv separator;
    bool is_used;
};

struct m40_targs {
    const char *name; /* of what is called, for errors */
    const struct m40_tv *pos;
    size_t n_pos;
    struct m40_tdict *keywords; /* NULL: none; always NULL for a builtin with params */
};

#define TV(type_) ((struct m40_tv){.type = (type_)})

static inline struct m40_tv m40_tv_bool(bool b)
{
    return (struct m40_tv){.type = TV_BOOL, .b = b};
}

static inline struct m40_tv m40_tv_int(int64_t i)
{
    return (struct m40_tv){.type = TV_INT, .i = i};
}

static inline struct m40_tv m40_tv_float(double f)
{
    return (struct m40_tv){.type = TV_FLOAT, .f = f};
}

static inline struct m40_tv m40_tv_of_str(const struct m40_tstr *s)
{
    return (struct m40_tv){.type = TV_STR, .s = s};
}

static inline struct m40_str m40_tstr_view(const struct m40_tstr *s)
{
    return (struct m40_str){s->data, s->n_bytes};
}

static inline bool m40_tv_is_number(struct m40_tv v)
{
    return v.type == TV_INT || v.type == TV_FLOAT || v.type == TV_BOOL;
}

static inline bool m40_tv_is_integer(struct m40_tv v)
{
    return v.type == TV_INT || v.type == TV_BOOL;
}

/* Of an integer or a bool. */
static inline int64_t m40_tv_as_int(struct m40_tv v)
{
    return v.type == TV_BOOL ? v.b : v.i;
}

static inline double m40_tv_as_float(struct m40_tv v)
{
    return v.type == TV_FLOAT ? v.f : (double)m40_tv_as_int(v);
}

static inline bool m40_tv_is_text(struct m40_tv v, const char *text)
{
    return v.type == TV_STR && m40_str_equal(m40_tstr_view(v.s), m40_str_from(text));
}

/* Python's name of the type: "str", "int", "NoneType", ... */
const char *m40_tv_type_name(struct m40_tv v);

/* A string object around bytes that live as long as the arena; around a copy of them. */
const struct m40_tstr *m40_tstr_borrow(struct m40_arena *arena, const char *data, size_t n_bytes);
const struct m40_tstr *m40_tstr_copy(struct m40_arena *arena, const char *data, size_t n_bytes);

struct m40_tlist *m40_tlist_new(struct m40_arena *arena, size_t capacity);
void m40_tlist_push(struct m40_arena *arena, struct m40_tlist *list, struct m40_tv v);

/* Number of elements of a range. */
uint64_t m40_trange_length(const struct m40_trange *range);

#endif
