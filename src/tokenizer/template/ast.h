/* The tree that the parser makes and the interpreter walks. */
#ifndef M40_TOKENIZER_TEMPLATE_AST_H
#define M40_TOKENIZER_TEMPLATE_AST_H

#include "tokenizer/template/value.h"

/* What a node's fields mean is said beside its kind; a field not named there is unused. "list": the first of nodes joined by `next`. */
enum m40_tnode_kind {
    /* expressions */
    NODE_CONST,   /* value */
    NODE_NAME,    /* name */
    NODE_LIST,    /* a: list of items */
    NODE_TUPLE,   /* a: list of items */
    NODE_DICT,    /* a: list of NODE_PAIR */
    NODE_PAIR,    /* a: key (in `with`: target), b: value */
    NODE_ATTR,    /* a: object, name */
    NODE_ITEM,    /* a: object, b: subscript */
    NODE_SLICE,   /* a, b, c: start, stop, step; NULL where left out */
    NODE_CALL,    /* a: what is called, b: list of NODE_ARG */
    NODE_ARG,     /* a: value, name: keyword or NULL, op: 0, '*' or '**' (TOKEN_POW) */
    NODE_FILTER,  /* a: input (NULL: the block's text), name, b: list of NODE_ARG, builtin: NULL where there is no such filter */
    NODE_TEST,    /* a: input, name, b: list of NODE_ARG, builtin */
    NODE_UNARY,   /* op: '-' or '+', a */
    NODE_BINARY,  /* op: a token, a, b */
    NODE_CONCAT,  /* a: list */
    NODE_COMPARE, /* a, b: list of NODE_OPERAND */
    NODE_OPERAND, /* op: a token, OP_IN or OP_NOT_IN, a */
    NODE_AND,     /* a, b */
    NODE_OR,      /* a, b */
    NODE_NOT,     /* a */
    NODE_COND,    /* a: condition, b: value, c: else or NULL */
    NODE_NSREF,   /* name: of the namespace, value: the attribute's name; only a target */
    /* statements */
    NODE_DATA,         /* value: a string */
    NODE_OUTPUT,       /* a */
    NODE_IF,           /* a: list of NODE_BRANCH */
    NODE_BRANCH,       /* a: condition (NULL: else), b: body */
    NODE_FOR,          /* a: target, b: iterable, c: body, d: else or NULL, e: filter or NULL, flags: FLAG_RECURSIVE */
    NODE_SET,          /* a: target, b: value */
    NODE_SET_BLOCK,    /* a: target, b: filters (their input is the text) or NULL, c: body */
    NODE_MACRO,        /* name, a: list of NODE_PARAM, c: body, flags: FLAG_CALLER, FLAG_VARARGS, FLAG_KWARGS */
    NODE_PARAM,        /* name, a: default or NULL */
    NODE_CALL_BLOCK,   /* b: NODE_CALL, d: NODE_MACRO without a name */
    NODE_FILTER_BLOCK, /* b: filters, c: body */
    NODE_WITH,         /* a: list of NODE_PAIR, c: body */
    NODE_BLOCK,        /* c: body; sees the template's variables, not those around it */
    NODE_BREAK,
    NODE_CONTINUE,
};

enum { FLAG_RECURSIVE = 1, FLAG_CALLER = 2, FLAG_VARARGS = 4, FLAG_KWARGS = 8 };

struct m40_tnode {
    enum m40_tnode_kind kind;
    int op;
    uint32_t line;
    unsigned flags;
    struct m40_tnode *next;
    struct m40_tnode *a, *b, *c, *d, *e;
    const struct m40_tstr *name;
    const struct m40_tbuiltin *builtin;
    struct m40_tv value;
};

_Static_assert(sizeof(struct m40_tnode) <= M40_ARENA_SCRAP_BYTES, "m40_arena_object");

#endif
