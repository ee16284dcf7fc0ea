/* A tokenizer's tokens: their texts as the file has them, types, scores, and the way from a text to its id. */
#ifndef M40_TOKENIZER_VOCAB_H
#define M40_TOKENIZER_VOCAB_H

#include "base/hash.h"
#include "gguf/gguf.h"

#include <limits.h>

enum m40_token_type { /* GGUF's numbers */
                      M40_TOKEN_NORMAL = 1,
                      M40_TOKEN_UNKNOWN = 2,
                      M40_TOKEN_CONTROL = 3,
                      M40_TOKEN_USER_DEFINED = 4,
                      M40_TOKEN_UNUSED = 5,
                      M40_TOKEN_BYTE = 6,
};

enum { M40_TOKEN_MAX_BYTES = 1024 }; /* of one token's text; the longest known are runs of 128 spaces in 256 bytes */

struct m40_vocab {
    size_t n_tokens;
    char *bytes;     /* all texts, one behind the other */
    size_t *offsets; /* [n_tokens + 1] into bytes */
    uint8_t *types;  /* [n_tokens] enum m40_token_type */
    float *scores;   /* [n_tokens]; NULL: the file has none */
    bool has_types;  /* false: the file has none, all are normal */
    size_t longest_bytes;
    uint64_t seed;
    struct m40_vocab_slot *slots; /* open addressing; n_slots is a power of two */
    size_t n_slots;
};

/* Reads tokenizer.ggml.tokens, token_type and scores. BAD_FILE names the key: wrong types or lengths, a text that occurs twice or is longer than
 * M40_TOKEN_MAX_BYTES, a type that is no number of enum m40_token_type, a score that is not a number. Empty texts are allowed (some models have
 * gaps) and never match. On failure the vocabulary still has to be freed. */
m40llm_status m40_vocab_read(struct m40_vocab *vocab, const struct m40_gguf *gguf, m40llm_error *err);
void m40_vocab_free(struct m40_vocab *vocab);

/* id < n_tokens */
static inline struct m40_str m40_vocab_text(const struct m40_vocab *vocab, int32_t id)
{
    return (struct m40_str){vocab->bytes + vocab->offsets[id], vocab->offsets[id + 1] - vocab->offsets[id]};
}

/* The id of a text; -1: no token. */
int32_t m40_vocab_find(const struct m40_vocab *vocab, struct m40_str text);

#endif
