/* Hashes of tables whose keys come from outside. */
#ifndef M40_BASE_HASH_H
#define M40_BASE_HASH_H

#include <stdint.h>

/* A number that nobody can foresee, so that nobody can choose keys that all collide. It changes no result. object: any address, in case the system has no random numbers to give. */
uint64_t m40_hash_seed(const void *object);

static inline uint64_t m40_hash_mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 29;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

#endif
