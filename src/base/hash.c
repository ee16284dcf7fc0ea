#define _GNU_SOURCE /* getrandom */
#include "base/hash.h"
#include "base/clock.h"

#include <sys/random.h>

uint64_t m40_hash_seed(const void *object)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed)
        return seed;
    return m40_hash_mix(m40_now_ns() ^ (uint64_t)(uintptr_t)object << 16);
}
