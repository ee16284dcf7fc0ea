/* The families of pre-tokenizers: a table of names and regular expressions. A new one is one entry of it. */
#ifndef M40_TOKENIZER_PRETOKENIZE_FAMILIES_H
#define M40_TOKENIZER_PRETOKENIZE_FAMILIES_H

#include "base/status.h"
#include "base/str.h"
#include "tokenizer/pretokenize.h"

enum { M40_SPLIT_MAX_PATTERNS = 6 };

/* The expressions (PCRE2's, with Unicode) are applied one after the other, each to every piece that those before it made; what lies between matches is
 * a piece too. Each matches at least one character. */
struct m40_split_family {
    const char *names; /* of tokenizer.ggml.pre, separated by spaces; the first stands for all where the known ones are listed */
    struct m40_pretokenizer_traits traits;
    const char *patterns[M40_SPLIT_MAX_PATTERNS]; /* NULL behind the last */
};

/* NULL: unknown. */
const struct m40_split_family *m40_split_family_find(struct m40_str name);

/* NO_TOKENIZER, naming it and the families that are known: the error's text is too short for every alias. */
m40llm_status m40_split_family_unknown(struct m40_str name, m40llm_error *err);

#endif
