/* The sequences that wait, in order: a skip list, in which any of many thousands finds its place in a few dozen comparisons. */
#ifndef M40_ENGINE_WAITING_H
#define M40_ENGINE_WAITING_H

#include "engine/sequence.h"

/* Zeroed: empty. */
struct m40_waiting {
    struct m40_sequence *first[M40_WAITING_LEVELS]; /* of each level; [0] has all, and its elements' next[0] go through them in order */
};

/* By key, then by order, then by choice: no two are equal. */
bool m40_sequence_is_before(const struct m40_sequence *a, const struct m40_sequence *b);

void m40_waiting_add(struct m40_waiting *waiting, struct m40_sequence *sequence);
/* sequence: one of them. */
void m40_waiting_remove(struct m40_waiting *waiting, struct m40_sequence *sequence);

#endif
