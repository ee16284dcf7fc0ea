/* simt.h on the emulated driver: kernels become C functions of the emulator's library. Only simt.h includes it. */
#ifndef M40_CUDA_EMU_SIMT_EMU_H
#define M40_CUDA_EMU_SIMT_EMU_H

#include "base/half.h"

#include <stddef.h>

/* Where the running thread stands; written by the scheduler (emu_launch.c) whenever another thread goes on. */
struct simt_now {
    uint32_t thread, block_dim;
    uint32_t block[3], grid[3];
    void *shared; /* the block's, or NULL while no thread of it has asked */
};
extern struct simt_now simt_now;

/* A kernel as its constructor registers it. */
struct simt_kernel {
    const char *name;
    void (*entry)(const void *args);
    size_t arg_bytes;
    uint32_t max_threads;
    struct simt_kernel *next;
};
void simt_register(struct simt_kernel *kernel);

#define SIMT_KERNEL(name, argtype, max_threads)                                                                                                      \
    static inline __attribute__((always_inline)) void name##_body(const argtype args);                                                               \
    static void name##_entry(const void *args)                                                                                                       \
    {                                                                                                                                                \
        name##_body(*(const argtype *)args);                                                                                                         \
    }                                                                                                                                                \
    static struct simt_kernel name##_kernel = {#name, name##_entry, sizeof(argtype), max_threads, NULL};                                             \
    static __attribute__((constructor)) void name##_register(void)                                                                                   \
    {                                                                                                                                                \
        simt_register(&name##_kernel);                                                                                                               \
    }                                                                                                                                                \
    static inline void name##_body(const argtype args)

#define SIMT_KERNEL_RESIDENT(name, argtype, max_threads, min_blocks) SIMT_KERNEL(name, argtype, max_threads)

/* The block's shared memory: exactly n_bytes, filled with NaNs at the block's start. */
void *simt_shared_slow(size_t n_bytes);

#define SIMT_SHARED(type, name)                                                                                                                      \
    _Static_assert(sizeof(type) <= SIMT_SHARED_MAX && _Alignof(type) <= 16, "shared memory of a block");                                             \
    type *const name = (type *)(simt_now.shared ? simt_now.shared : simt_shared_slow(sizeof(type)))

enum simt_exchange_kind { SIMT_SHFL, SIMT_SHFL_XOR, SIMT_BALLOT };

/* Waits for all live lanes of the warp, then gives what lane `source` brought (SIMT_BALLOT: the bits of all lanes whose value is not 0). */
uint32_t simt_exchange(enum simt_exchange_kind kind, uint32_t value, uint32_t source);

void simt_barrier(void);
uint32_t simt_atomic_add_u32(uint32_t *p, uint32_t v);
uint64_t simt_atomic_add_u64(uint64_t *p, uint64_t v);
uint32_t simt_load_volatile_u32(const uint32_t *p);

static inline uint32_t simt_thread(void)
{
    return simt_now.thread;
}

static inline uint32_t simt_block_dim(void)
{
    return simt_now.block_dim;
}

static inline uint32_t simt_block_x(void)
{
    return simt_now.block[0];
}

static inline uint32_t simt_block_y(void)
{
    return simt_now.block[1];
}

static inline uint32_t simt_block_z(void)
{
    return simt_now.block[2];
}

static inline uint32_t simt_grid_x(void)
{
    return simt_now.grid[0];
}

static inline uint32_t simt_grid_y(void)
{
    return simt_now.grid[1];
}

static inline uint32_t simt_grid_z(void)
{
    return simt_now.grid[2];
}

static inline uint32_t simt_lane(void)
{
    return simt_now.thread % SIMT_WARP;
}

static inline uint32_t simt_warp(void)
{
    return simt_now.thread / SIMT_WARP;
}

static inline void simt_warp_barrier(void)
{
    (void)simt_exchange(SIMT_BALLOT, 0, 0);
}

static inline void simt_hold_loads(void)
{
}

static inline uint32_t simt_shfl_u32(uint32_t v, uint32_t lane)
{
    return simt_exchange(SIMT_SHFL, v, lane % SIMT_WARP);
}

static inline uint32_t simt_shfl_xor_u32(uint32_t v, uint32_t mask)
{
    return simt_exchange(SIMT_SHFL_XOR, v, (simt_lane() ^ mask) % SIMT_WARP);
}

static inline float simt_shfl_f32(float v, uint32_t lane)
{
    return m40_bits_to_f32(simt_shfl_u32(m40_f32_to_bits(v), lane));
}

static inline float simt_shfl_xor_f32(float v, uint32_t mask)
{
    return m40_bits_to_f32(simt_shfl_xor_u32(m40_f32_to_bits(v), mask));
}

static inline uint32_t simt_ballot(int predicate)
{
    return simt_exchange(SIMT_BALLOT, predicate != 0, 0);
}

static inline uint32_t simt_count_ones(uint32_t bits)
{
    return (uint32_t)__builtin_popcount(bits);
}

/* One emulated thread runs at a time, so memory is always in order; the compiler is kept from moving accesses across. */
static inline void simt_fence(void)
{
    __asm__ volatile("" ::: "memory");
}

static inline void simt_load_once_u32x4(const void *p, uint32_t *v)
{
    const uint32_t *from = p;

    for (unsigned i = 0; i < 4; i++)
        v[i] = from[i];
}

static inline void simt_load_once_u32x2(const void *p, uint32_t *v)
{
    const uint32_t *from = p;

    v[0] = from[0];
    v[1] = from[1];
}

static inline float simt_sqrt(float v)
{
    return __builtin_sqrtf(v);
}

#endif
