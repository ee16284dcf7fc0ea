#define _DEFAULT_SOURCE /* madvise */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool (*failure_hook)(void *user);
static void *failure_user;

void m40_mem_set_failure_hook(bool (*hook)(void *user), void *user)
{
    failure_hook = hook;
    failure_user = user;
}

static bool must_fail(void)
{
    return failure_hook && failure_hook(failure_user);
}

void *m40_calloc(size_t n, size_t size)
{
    uint64_t total;

    if (!m40_mul_u64(n, size, &total) || must_fail())
        return NULL;
    return calloc(1, total ? total : 1);
}

void *m40_realloc_array(void *block, size_t n, size_t size)
{
    uint64_t total;

    if (!m40_mul_u64(n, size, &total) || must_fail())
        return NULL;
    return realloc(block, total ? total : 1);
}

void *m40_calloc_aligned(size_t n, size_t size)
{
    uint64_t total;
    void *block;

    if (!m40_mul_u64(n, size, &total) || total > SIZE_MAX - 64 || must_fail())
        return NULL;
    total = m40_round_up(total ? total : 1, 64);
    block = aligned_alloc(64, total);
    if (block)
        memset(block, 0, total);
    return block;
}

char *m40_strndup(const char *text, size_t n)
{
    char *copy = m40_realloc_array(NULL, n + 1, 1);

    if (copy) {
        memcpy(copy, text, n);
        copy[n] = 0;
    }
    return copy;
}

void m40_free(void *block)
{
    free(block);
}

void m40_release_file_pages(const void *data, uint64_t n_bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + n_bytes) / page * page;

    if (begin < end)
        madvise((uint8_t *)(uintptr_t)data + (begin - (uintptr_t)data), end - begin, MADV_DONTNEED); /* a hint: it may fail */
}
