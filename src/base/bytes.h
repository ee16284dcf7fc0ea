/* A little-endian cursor over bytes that nobody vouches for. Reading past the end sets `failed`, which sticks; reads then give zeros. So a parser may
 * read several fields and check once, as long as it checks before it uses a count or a length. */
#ifndef M40_BASE_BYTES_H
#define M40_BASE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct m40_bytes {
    const uint8_t *data;
    uint64_t n_bytes;
    uint64_t pos;
    bool failed;
};

static inline uint64_t m40_bytes_left(const struct m40_bytes *b)
{
    return b->failed ? 0 : b->n_bytes - b->pos;
}

/* The next n bytes, or NULL (and failed) where there are fewer. */
static inline const uint8_t *m40_bytes_take(struct m40_bytes *b, uint64_t n)
{
    const uint8_t *p;

    if (b->failed || n > b->n_bytes - b->pos) {
        b->failed = true;
        return NULL;
    }
    p = b->data + b->pos;
    b->pos += n;
    return p;
}

static inline uint8_t m40_bytes_u8(struct m40_bytes *b)
{
    const uint8_t *p = m40_bytes_take(b, 1);

    return p ? *p : 0;
}

static inline uint32_t m40_bytes_u32(struct m40_bytes *b)
{
    const uint8_t *p = m40_bytes_take(b, 4);
    uint32_t v = 0;

    if (p)
        memcpy(&v, p, 4);
    return v;
}

static inline uint64_t m40_bytes_u64(struct m40_bytes *b)
{
    const uint8_t *p = m40_bytes_take(b, 8);
    uint64_t v = 0;

    if (p)
        memcpy(&v, p, 8);
    return v;
}

#endif
