/* One rendering: its memory, its bounds, its error, and what all of its parts use.
 *
 * The first error sticks (`failed`): from then on evaluation gives undefined values and every loop ends, so that code goes on without a check after each call. */
#ifndef M40_TOKENIZER_TEMPLATE_RUN_H
#define M40_TOKENIZER_TEMPLATE_RUN_H

#include "tokenizer/template/ast.h"
#include "tokenizer/template/diagnostic.h"
#include "tokenizer/template/template.h"

struct m40_trun {
    struct m40_arena arena;
    const struct m40_template_limits *limits;
    const struct m40_template_time *now;
    struct m40_buf out;  /* where statements write: the rendering, or a block's or macro's text */
    size_t n_held_bytes; /* of begun texts that wait for an inner one: each is bounded, and so must be their sum */
    uint64_t n_steps, n_iterations, start_ns, seed;
    unsigned depth;
    uint32_t line;
    struct m40_tscope *globals; /* the template's own variables; their parent is the context */
    bool failed;
    m40llm_status status;
    m40llm_error *err;
};

/* ---- bounds and errors (run.c) ---- */

void m40_tr_fail(struct m40_trun *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For an allocation that failed, by the bound or because there is no more. */
void m40_tr_no_memory(struct m40_trun *r);
/* Counts n steps and looks at the clock now and then; false: the rendering has failed. */
bool m40_tr_step(struct m40_trun *r, uint64_t n);
/* Around whatever calls itself. leave also after a failed enter. */
bool m40_tr_enter(struct m40_trun *r);
void m40_tr_leave(struct m40_trun *r);

/* ---- texts (run.c) ---- */

/* Appends to a text that is being made. What was begun must come to m40_tr_take or m40_buf_free. */
void m40_tr_put(struct m40_trun *r, struct m40_buf *buf, const char *data, size_t n_bytes);
void m40_tr_put_text(struct m40_trun *r, struct m40_buf *buf, const char *text);
void m40_tr_put_char(struct m40_trun *r, struct m40_buf *buf, uint32_t code);
void m40_tr_put_repeat(struct m40_trun *r, struct m40_buf *buf, struct m40_str text, uint64_t n);
/* The text as a value; buf is freed. */
struct m40_tv m40_tr_take(struct m40_trun *r, struct m40_buf *buf);
/* A copy; and a part of a string, which shares its bytes. */
struct m40_tv m40_tr_string(struct m40_trun *r, const char *data, size_t n_bytes);
struct m40_tv m40_tr_part(struct m40_trun *r, const char *data, size_t n_bytes);
/* The string marked as not to be escaped. */
struct m40_tv m40_tr_markup(struct m40_trun *r, const struct m40_tstr *s);
/* Where `what` first stands in text, from a byte on; SIZE_MAX: nowhere. */
size_t m40_find_bytes(struct m40_str text, struct m40_str what, size_t from);
/* For a use that an undefined value refuses: where v is one, fails with what it says. */
bool m40_tr_refuse_undefined(struct m40_trun *r, struct m40_tv v);
/* An undefined value that says this where it is used. */
struct m40_tv m40_tr_undefined(struct m40_trun *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- lists and dicts (collections.c) ---- */

struct m40_tv m40_tr_list(struct m40_trun *r, enum m40_tv_type type, size_t capacity);
void m40_tr_push(struct m40_trun *r, struct m40_tlist *list, struct m40_tv v);
struct m40_tv m40_tr_pair(struct m40_trun *r, struct m40_tv a, struct m40_tv b); /* a tuple */

struct m40_tdict *m40_tdict_new(struct m40_trun *r);
/* The value, or NULL. Fails where the key cannot be one. */
const struct m40_tv *m40_tdict_get(struct m40_trun *r, const struct m40_tdict *dict, struct m40_tv key);
const struct m40_tv *m40_tdict_get_text(struct m40_trun *r, const struct m40_tdict *dict, struct m40_str key);
void m40_tdict_set(struct m40_trun *r, struct m40_tdict *dict, struct m40_tv key, struct m40_tv value);
struct m40_tlist *m40_tr_dict_items(struct m40_trun *r, const struct m40_tdict *dict); /* of (key, value) */
/* What is gone through in a loop, as a list; uses up a generator. Fails, and gives an empty list, where the value cannot be. */
struct m40_tlist *m40_tr_iterate(struct m40_trun *r, struct m40_tv v);
bool m40_tv_is_iterable(struct m40_tv v);
/* len(); -1: it has none. */
int64_t m40_tv_length(struct m40_tv v);

/* ---- operators (operators.c) ---- */

bool m40_tv_truth(struct m40_tv v);
bool m40_tr_equal(struct m40_trun *r, struct m40_tv a, struct m40_tv b);
/* a < b; fails where they have no order. */
bool m40_tr_less(struct m40_trun *r, struct m40_tv a, struct m40_tv b);
/* op: a token of NODE_OPERAND. */
bool m40_tr_compare(struct m40_trun *r, int op, struct m40_tv a, struct m40_tv b);
bool m40_tr_contains(struct m40_trun *r, struct m40_tv container, struct m40_tv item);
struct m40_tv m40_tr_unary(struct m40_trun *r, int op, struct m40_tv v);
/* op: a token of NODE_BINARY. */
struct m40_tv m40_tr_binary(struct m40_trun *r, int op, struct m40_tv a, struct m40_tv b);

/* ---- attributes and subscripts (access.c) ---- */

/* object.name: a method or property, else the item of that name, else undefined. */
struct m40_tv m40_tr_attribute(struct m40_trun *r, struct m40_tv object, const struct m40_tstr *name);
/* The first of these only: TV_MISSING where there is none. */
struct m40_tv m40_tr_own_attribute(struct m40_trun *r, struct m40_tv object, struct m40_str name);
/* object[key]: the item, else the attribute of that name, else undefined. */
struct m40_tv m40_tr_item(struct m40_trun *r, struct m40_tv object, struct m40_tv key);
/* object[start:stop:step]; TV_NONE where left out. */
struct m40_tv m40_tr_slice(struct m40_trun *r, struct m40_tv object, struct m40_tv start, struct m40_tv stop, struct m40_tv step);

/* ---- texts of values (text.c) ---- */

void m40_tr_print(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v); /* str() */
void m40_tr_repr(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v);
const struct m40_tstr *m40_tr_text(struct m40_trun *r, struct m40_tv v); /* str() as a string */

struct m40_tjson {
    bool ensure_ascii, sort_keys, has_indent;
    struct m40_str indent; /* of one level */
    struct m40_str item_separator, key_separator;
};
void m40_tr_json(struct m40_trun *r, struct m40_buf *buf, struct m40_tv v, const struct m40_tjson *options);

/* ---- calls (call.c) ---- */

/* Calls a builtin with arguments bound to its parameters. */
struct m40_tv m40_tr_call_builtin(struct m40_trun *r, const struct m40_tbuiltin *builtin, struct m40_tv self, const struct m40_targs *args);
/* Calls any value. */
struct m40_tv m40_tr_call(struct m40_trun *r, struct m40_tv callee, const struct m40_targs *args);

/* ---- between the interpreter and what it serves ---- */

struct m40_tbinding {
    const struct m40_tstr *name;
    struct m40_tv value;
};

/* Variables in reach: a scope's own, then its parent's. The outermost is a dict, the context. */
struct m40_tscope {
    struct m40_tscope *parent;
    struct m40_tbinding *bindings;
    size_t n, capacity;
    const struct m40_tdict *context;
};

struct m40_tmacro {
    const struct m40_tnode *node;
    struct m40_tscope *scope; /* where it was defined */
};

struct m40_tloop {
    const struct m40_tnode *node; /* NULL: not recursive */
    struct m40_tscope *scope;     /* around the loop */
    const struct m40_tlist *items;
    size_t index0, depth0;
    struct m40_tv last_changed; /* TV_MISSING: changed() was not called */
};

/* Calls a macro; its text. */
struct m40_tv m40_tr_call_macro(struct m40_trun *r, const struct m40_tmacro *macro, const struct m40_targs *args);
/* Goes through other items with the loop's body; its text. */
struct m40_tv m40_tr_call_loop(struct m40_trun *r, const struct m40_tloop *loop, struct m40_tv items);
/* Renders a tree into r->out. */
void m40_tr_render(struct m40_trun *r, const struct m40_tnode *body, const struct m40_tdict *context);
/* The context's JSON; NULL after an error (INVALID_ARGUMENT). */
struct m40_tdict *m40_tr_context(struct m40_trun *r, const char *text, size_t n_bytes);

#endif
