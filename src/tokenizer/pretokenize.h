/* The split in front of byte-level BPE: regular expressions cut the text into pieces, and no token crosses a cut. Which expressions is the model's
 * choice, by tokenizer.ggml.pre. */
#ifndef M40_TOKENIZER_PRETOKENIZE_H
#define M40_TOKENIZER_PRETOKENIZE_H

#include "base/status.h"
#include "base/str.h"

struct m40_pretokenizer;

/* What else the name of a pre-tokenizer says about the model. */
struct m40_pretokenizer_traits {
    bool ignore_merges; /* a piece that is a token becomes it at once, whether or not the merges lead there */
    bool adds_bos;      /* unless tokenizer.ggml.add_bos_token says otherwise */
};

/* NO_TOKENIZER: an unknown name; the text lists those that are known. */
m40llm_status m40_pretokenizer_open(struct m40_pretokenizer **out, struct m40_str name, m40llm_error *err);
void m40_pretokenizer_close(struct m40_pretokenizer **pretokenizer);
struct m40_pretokenizer_traits m40_pretokenizer_traits(const struct m40_pretokenizer *pretokenizer);

/* Gets one piece, n_bytes >= 1. Anything but OK ends the split with that status. */
typedef m40llm_status (*m40_piece_fn)(void *user, const char *piece, size_t n_bytes, m40llm_error *err);

/* Calls fn for every piece, in order; together they are the text. A byte that is no part of valid UTF-8 is a piece of its own. Thread-safe. */
m40llm_status m40_pretokenize(const struct m40_pretokenizer *pretokenizer, const char *text, size_t n_bytes, m40_piece_fn fn, void *user,
                              m40llm_error *err);

#endif
