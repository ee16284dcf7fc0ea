/* A template's text as tokens, whitespace control done. */
#ifndef M40_TOKENIZER_TEMPLATE_LEXER_H
#define M40_TOKENIZER_TEMPLATE_LEXER_H

#include "base/status.h"
#include "tokenizer/template/value.h"

/* An operator of one character is that character. */
enum m40_ttoken_kind {
    TOKEN_END,
    TOKEN_DATA = 256,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_OUTPUT_BEGIN,
    TOKEN_OUTPUT_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_FLOORDIV,
    TOKEN_POW,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_GE,
    TOKEN_LE,
    OP_IN, /* two words, made by the parser */
    OP_NOT_IN,
};

struct m40_ttoken {
    int kind;
    uint32_t line;
    struct m40_str text; /* of a name; of an operator, for errors */
    struct m40_tv value; /* of data, a string, a number */
};

struct m40_ttokens {
    struct m40_ttoken *tokens; /* ends with TOKEN_END */
    size_t n, capacity;
};

/* source: newlines are "\n" alone, and the one at the end is gone; it must outlive the tokens. The values go into the arena. Free `out` in any case. TEMPLATE: "line N: ...". */
m40llm_status m40_template_lex(struct m40_ttokens *out, struct m40_arena *arena, struct m40_str source, m40llm_error *err);
void m40_template_tokens_free(struct m40_ttokens *tokens);

#endif
