/* The merging that both kinds of BPE are: of all neighbours that a rule joins, the pair of the lowest rank, and of several such the leftmost,
 * becomes one symbol, until no rule fits. Byte-level BPE takes its rules from the file; for SentencePiece each way to cut a token in two tokens is
 * a rule, ranked by the token's score. */
#ifndef M40_TOKENIZER_MERGE_H
#define M40_TOKENIZER_MERGE_H

#include "base/status.h"

#include <stdbool.h>

/* Rules (left id, right id) -> rank, merged id, in a hash table. */
struct m40_merge_rules {
    struct m40_merge_rule *slots; /* n_slots is a power of two, or 0 */
    size_t n_slots, n_rules;
    uint64_t seed;
};

/* Makes room for about n_rules; it grows as needed. Zero it first. */
m40llm_status m40_merge_rules_open(struct m40_merge_rules *rules, size_t n_rules, m40llm_error *err);
void m40_merge_rules_free(struct m40_merge_rules *rules);
/* Ids >= 0, rank < UINT32_MAX. INVALID_ARGUMENT, with err untouched: the pair has a rule already. */
m40llm_status m40_merge_rules_add(struct m40_merge_rules *rules, int32_t left, int32_t right, uint32_t rank, int32_t merged, m40llm_error *err);

struct m40_symbol {
    int32_t id;          /* -1: no token, joins nothing */
    uint32_t source;     /* the caller's: where it begins */
    uint32_t prev, next; /* M40_SYMBOL_END: none */
    uint32_t rank;       /* of the rule for (this, next); UINT32_MAX: none */
    int32_t merged;      /* what that rule makes */
};

#define M40_SYMBOL_END UINT32_MAX

/* One word's symbols; kept from word to word for its memory. Zero it to begin. */
struct m40_merger {
    struct m40_symbol *symbols;
    size_t n_symbols, capacity;
    uint64_t *heap; /* rank << 32 | index; room for 3 * capacity */
    size_t n_heap;
};

void m40_merger_free(struct m40_merger *merger);
/* false: no memory. */
bool m40_merger_push(struct m40_merger *merger, int32_t id, uint32_t source);
/* Afterwards the symbols left form the list 0, symbols[0].next, ... O(n log n). */
void m40_merger_run(struct m40_merger *merger, const struct m40_merge_rules *rules);

#endif
