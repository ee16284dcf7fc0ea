/* Tokens that are looked for in the text before anything else splits it: <|im_start|> and its like. */
#ifndef M40_TOKENIZER_SPECIAL_H
#define M40_TOKENIZER_SPECIAL_H

#include "tokenizer/vocab.h"

struct m40_specials {
    struct m40_special *sorted; /* [n] by bytes, so that all with the same beginning lie side by side */
    size_t n;
    size_t first[257]; /* those that begin with byte b: [first[b], first[b + 1]) */
};

struct m40_special_match {
    size_t begin, end; /* begin == end == n_bytes: none */
    int32_t id;
};

/* User-defined tokens, and with control also the control and unknown ones. Texts stay the vocabulary's. */
m40llm_status m40_specials_open(struct m40_specials *specials, const struct m40_vocab *vocab, bool control, m40llm_error *err);
void m40_specials_free(struct m40_specials *specials);

/* The first special token at or after `from`, the longest of those that begin there. At most M40_TOKEN_MAX_BYTES steps a byte, whatever the number
 * of tokens. */
struct m40_special_match m40_specials_find(const struct m40_specials *specials, const char *text, size_t n_bytes, size_t from);

#endif
