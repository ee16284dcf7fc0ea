/* Tokens to the tree. The first error sticks: from then on every token is the end, so that all loops of the parser come to theirs. */
#ifndef M40_TOKENIZER_TEMPLATE_PARSER_H
#define M40_TOKENIZER_TEMPLATE_PARSER_H

#include "tokenizer/template/ast.h"
#include "tokenizer/template/diagnostic.h"
#include "tokenizer/template/lexer.h"

/* The tree of a template into *out (NULL: it is empty). TEMPLATE: "line N: ...". Everything lies in the arena. */
m40llm_status m40_template_parse(struct m40_tnode **out, const struct m40_ttokens *tokens, struct m40_arena *arena, m40llm_error *err);

/* ---- between parser.c and expression.c ---- */

struct m40_tparser {
    const struct m40_ttoken *tokens;
    size_t pos, n_tokens;
    struct m40_arena *arena;
    unsigned depth;       /* of nested statements and expressions */
    unsigned loop_depth;  /* of loops around, within the macro */
    unsigned macro_flags; /* which of caller, varargs, kwargs the macro's body names */
    m40llm_status status;
    m40llm_error *err;
};

/* A list of nodes as it grows. */
struct m40_tnode_list {
    struct m40_tnode *first, *last;
};

void m40_tnode_append(struct m40_tnode_list *list, struct m40_tnode *node);
struct m40_tnode *m40_tnode_new(struct m40_tparser *p, enum m40_tnode_kind kind, uint32_t line);

const struct m40_ttoken *m40_tp_token(const struct m40_tparser *p);
const struct m40_ttoken *m40_tp_next(struct m40_tparser *p); /* the current token; moves on */
bool m40_tp_skip(struct m40_tparser *p, int kind);
bool m40_tp_is_name(const struct m40_tparser *p, const char *name);
bool m40_tp_skip_name(struct m40_tparser *p, const char *name);
const struct m40_ttoken *m40_tp_expect(struct m40_tparser *p, int kind, const char *what);
void m40_tp_fail(struct m40_tparser *p, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Fails with "unexpected ...". */
void m40_tp_unexpected(struct m40_tparser *p, const char *expected);
/* Around whatever calls itself: false (and an error) where it is too deep. */
bool m40_tp_enter(struct m40_tparser *p);
void m40_tp_leave(struct m40_tparser *p);
const struct m40_tstr *m40_tp_name(struct m40_tparser *p, const struct m40_ttoken *token);

struct m40_tnode *m40_parse_expression(struct m40_tparser *p, bool with_condition);
struct m40_tnode *m40_parse_primary(struct m40_tparser *p);
/* Expressions, and where commas stand between them a tuple of them. end_name: a word that ends it too; NULL: none. */
struct m40_tnode *m40_parse_tuple(struct m40_tparser *p, bool with_condition, const char *end_name, bool in_parentheses);
/* A chain of filters behind `input`, which is NULL for a block's text. inline_first: the first has no '|' in front. */
struct m40_tnode *m40_parse_filters(struct m40_tparser *p, struct m40_tnode *input, bool inline_first);

#endif
