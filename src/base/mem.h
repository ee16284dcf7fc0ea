/* Checked allocation. Every allocation of the library goes through here, so that tests can make any of them fail. */
#ifndef M40_BASE_MEM_H
#define M40_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n * size bytes, zeroed; NULL when the product overflows or memory is out. n * size == 0 gives a valid pointer. */
void *m40_calloc(size_t n, size_t size);
/* Grows or shrinks to n * size bytes; NULL on failure, the old block is then untouched. New bytes are not initialised. */
void *m40_realloc_array(void *block, size_t n, size_t size);
/* Zeroed and aligned to 64 bytes; freed with m40_free as the others are. */
void *m40_calloc_aligned(size_t n, size_t size);
/* Copy of n bytes with a NUL behind them. */
char *m40_strndup(const char *text, size_t n);
void m40_free(void *block);

/* The whole pages among the n_bytes leave the process's memory until they are read again. Only for a read-only mapping of a file: pages of any other memory would lose what is in them. */
void m40_release_file_pages(const void *data, uint64_t n_bytes);

/* Tests: called before each allocation; returning true makes it fail. NULL: off. Not for use with several threads allocating. */
void m40_mem_set_failure_hook(bool (*hook)(void *user), void *user);

/* a * b and a + b into *out; false on overflow. */
static inline bool m40_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool m40_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* The least multiple of `unit` that is >= n. The caller knows that it does not overflow. */
static inline uint64_t m40_round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

#endif
