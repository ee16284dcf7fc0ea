/* Memory that is given out in pieces and freed at once. */
#ifndef M40_BASE_ARENA_H
#define M40_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

enum { M40_ARENA_KINDS = 16, M40_ARENA_SCRAP_BYTES = 192 };

/* Set limit_bytes, zero the rest. */
struct m40_arena {
    struct m40_arena_chunk *chunks;
    char *next, *end;
    size_t n_bytes, limit_bytes; /* taken from the system so far, and at most */
    bool is_full, is_out;        /* an allocation failed: over the limit; no memory */
    _Alignas(16) char scrap[M40_ARENA_KINDS][M40_ARENA_SCRAP_BYTES];
};

/* n bytes, zeroed, aligned to 16; NULL (and is_full or is_out is set) where there are no more. */
void *m40_arena_alloc(struct m40_arena *arena, size_t n);
/* The same for an object of a kind (< M40_ARENA_KINDS, chosen by the caller) and n <= M40_ARENA_SCRAP_BYTES, but never NULL: after a failure all objects of a kind lie in the same place, zeroed
 * anew each time. So a caller may fill what it gets and find out later that memory has run out, and a pointer never leads to an object of another kind. */
void *m40_arena_object(struct m40_arena *arena, size_t n, unsigned kind);

static inline bool m40_arena_failed(const struct m40_arena *arena)
{
    return arena->is_full || arena->is_out;
}

void m40_arena_free(struct m40_arena *arena);

#endif
