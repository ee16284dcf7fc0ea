#include "engine/waiting.h"
#include "base/hash.h"

#include <assert.h>

bool m40_sequence_is_before(const struct m40_sequence *a, const struct m40_sequence *b)
{
    if (a->key != b->key)
        return a->key < b->key;
    return a->order != b->order ? a->order < b->order : a->choice < b->choice;
}

/* A quarter of all have a second level, a quarter of these a third, ...: always the same ones, so that nothing depends on chance. */
static uint32_t n_levels_of(const struct m40_sequence *sequence)
{
    uint64_t h = m40_hash_mix(sequence->order << 8 ^ sequence->choice);
    uint32_t n = 1;

    for (; n < M40_WAITING_LEVELS && (h & 3) == 0; h >>= 2)
        n++;
    return n;
}

/* On every level the link that leads, or would lead, to the sequence. */
static void find_links(struct m40_waiting *waiting, const struct m40_sequence *sequence, struct m40_sequence **links[M40_WAITING_LEVELS])
{
    struct m40_sequence **nexts = waiting->first;

    for (uint32_t level = M40_WAITING_LEVELS; level-- > 0;) {
        while (nexts[level] && m40_sequence_is_before(nexts[level], sequence))
            nexts = nexts[level]->next;
        links[level] = &nexts[level];
    }
}

void m40_waiting_add(struct m40_waiting *waiting, struct m40_sequence *sequence)
{
    struct m40_sequence **links[M40_WAITING_LEVELS];
    uint32_t n = n_levels_of(sequence);

    find_links(waiting, sequence, links);
    for (uint32_t level = 0; level < n; level++) {
        sequence->next[level] = *links[level];
        *links[level] = sequence;
    }
}

void m40_waiting_remove(struct m40_waiting *waiting, struct m40_sequence *sequence)
{
    struct m40_sequence **links[M40_WAITING_LEVELS];
    uint32_t n = n_levels_of(sequence);

    find_links(waiting, sequence, links);
    for (uint32_t level = 0; level < n; level++) {
        assert(*links[level] == sequence);
        *links[level] = sequence->next[level];
        sequence->next[level] = NULL;
    }
}
