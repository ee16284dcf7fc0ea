#include "base/arena.h"
#include "base/mem.h"

#include <string.h>

struct m40_arena_chunk {
    struct m40_arena_chunk *previous;
    _Alignas(16) char data[];
};

/* Under AddressSanitizer each piece has its own block, so that a read beyond it is seen. */
#if defined(__SANITIZE_ADDRESS__)
enum { CHUNK_BYTES = 16 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { CHUNK_BYTES = 16 };
#else
enum { CHUNK_BYTES = 32768 };
#endif
#else
enum { CHUNK_BYTES = 32768 };
#endif

static bool add_chunk(struct m40_arena *arena, size_t n)
{
    const size_t capacity = n > CHUNK_BYTES / 4 ? n : CHUNK_BYTES, total = sizeof(struct m40_arena_chunk) + capacity;
    struct m40_arena_chunk *chunk;

    if (arena->n_bytes > arena->limit_bytes || total < capacity || total > arena->limit_bytes - arena->n_bytes) {
        arena->is_full = true;
        return false;
    }
    chunk = m40_calloc(1, total);
    if (!chunk) {
        arena->is_out = true;
        return false;
    }
    arena->n_bytes += total;
    chunk->previous = arena->chunks;
    arena->chunks = chunk;
    arena->next = chunk->data;
    arena->end = chunk->data + capacity;
    return true;
}

void *m40_arena_alloc(struct m40_arena *arena, size_t n)
{
    size_t rounded = (n + 15) / 16 * 16;
    void *piece;

    if (m40_arena_failed(arena))
        return NULL;
    if (rounded < n) {
        arena->is_full = true;
        return NULL;
    }
    if ((size_t)(arena->end - arena->next) < rounded && !add_chunk(arena, rounded))
        return NULL;
    piece = arena->next;
    arena->next += rounded;
    return piece;
}

void *m40_arena_object(struct m40_arena *arena, size_t n, unsigned kind)
{
    void *object = m40_arena_alloc(arena, n);

    return object ? object : memset(arena->scrap[kind], 0, M40_ARENA_SCRAP_BYTES);
}

void m40_arena_free(struct m40_arena *arena)
{
    while (arena->chunks) {
        struct m40_arena_chunk *previous = arena->chunks->previous;

        m40_free(arena->chunks);
        arena->chunks = previous;
    }
    arena->next = arena->end = NULL;
    arena->n_bytes = 0;
}
