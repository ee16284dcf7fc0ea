/* simt.h on NVIDIA hardware, for clang without any CUDA header and for nvcc. Only simt.h includes it. Everything here exists on sm_52 and in PTX ISA 6.0; the .sync forms of shuffle and vote are
 * what newer cards need. */
#ifndef M40_CUDA_KERNELS_SIMT_DEVICE_H
#define M40_CUDA_KERNELS_SIMT_DEVICE_H

#define SIMT_INLINE static inline __attribute__((device, always_inline))

#define SIMT_KERNEL(name, argtype, max_threads)                                                                                                      \
    extern "C" __attribute__((global)) __attribute__((launch_bounds(max_threads))) void name(const argtype args)

#define SIMT_KERNEL_RESIDENT(name, argtype, max_threads, min_blocks)                                                                                 \
    extern "C" __attribute__((global)) __attribute__((launch_bounds(max_threads, min_blocks))) void name(const argtype args)

#define SIMT_SHARED(type, name)                                                                                                                      \
    static __attribute__((shared)) type name##_storage;                                                                                              \
    static_assert(sizeof(type) <= SIMT_SHARED_MAX && alignof(type) <= 16, "shared memory of a block");                                               \
    type *const name = &name##_storage

#ifdef __clang__
#define SIMT_SREG(name, clang_builtin, nvcc_variable)                                                                                                \
    SIMT_INLINE uint32_t name(void)                                                                                                                  \
    {                                                                                                                                                \
        return (uint32_t)clang_builtin();                                                                                                            \
    }
#else
#define SIMT_SREG(name, clang_builtin, nvcc_variable)                                                                                                \
    SIMT_INLINE uint32_t name(void)                                                                                                                  \
    {                                                                                                                                                \
        return nvcc_variable;                                                                                                                        \
    }
#endif
SIMT_SREG(simt_thread, __nvvm_read_ptx_sreg_tid_x, threadIdx.x)
SIMT_SREG(simt_block_dim, __nvvm_read_ptx_sreg_ntid_x, blockDim.x)
SIMT_SREG(simt_block_x, __nvvm_read_ptx_sreg_ctaid_x, blockIdx.x)
SIMT_SREG(simt_block_y, __nvvm_read_ptx_sreg_ctaid_y, blockIdx.y)
SIMT_SREG(simt_block_z, __nvvm_read_ptx_sreg_ctaid_z, blockIdx.z)
SIMT_SREG(simt_grid_x, __nvvm_read_ptx_sreg_nctaid_x, gridDim.x)
SIMT_SREG(simt_grid_y, __nvvm_read_ptx_sreg_nctaid_y, gridDim.y)
SIMT_SREG(simt_grid_z, __nvvm_read_ptx_sreg_nctaid_z, gridDim.z)

SIMT_INLINE uint32_t simt_lane(void)
{
    return simt_thread() % SIMT_WARP;
}

SIMT_INLINE uint32_t simt_warp(void)
{
    return simt_thread() / SIMT_WARP;
}

/* As asm, because clang's builtin does not keep it from moving a read of static shared memory across. */
SIMT_INLINE void simt_barrier(void)
{
    asm volatile("bar.sync 0;" ::: "memory");
}

SIMT_INLINE void simt_warp_barrier(void)
{
    asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
}

SIMT_INLINE void simt_hold_loads(void)
{
    simt_warp_barrier();
}

SIMT_INLINE uint32_t simt_shfl_u32(uint32_t v, uint32_t lane)
{
    uint32_t r;

    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
    return r;
}

SIMT_INLINE uint32_t simt_shfl_xor_u32(uint32_t v, uint32_t mask)
{
    uint32_t r;

    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(v), "r"(mask));
    return r;
}

SIMT_INLINE float simt_shfl_f32(float v, uint32_t lane)
{
    float r;

    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(r) : "f"(v), "r"(lane));
    return r;
}

SIMT_INLINE float simt_shfl_xor_f32(float v, uint32_t mask)
{
    float r;

    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(r) : "f"(v), "r"(mask));
    return r;
}

SIMT_INLINE uint32_t simt_ballot(int predicate)
{
    uint32_t r;

    asm volatile("{ .reg .pred p; setp.ne.s32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }" : "=r"(r) : "r"(predicate));
    return r;
}

SIMT_INLINE uint32_t simt_count_ones(uint32_t bits)
{
    uint32_t r;

    asm("popc.b32 %0, %1;" : "=r"(r) : "r"(bits));
    return r;
}

SIMT_INLINE uint32_t simt_atomic_add_u32(uint32_t *p, uint32_t v)
{
#ifdef __clang__
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
#else
    return atomicAdd(p, v);
#endif
}

SIMT_INLINE uint64_t simt_atomic_add_u64(uint64_t *p, uint64_t v)
{
#ifdef __clang__
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
#else
    return atomicAdd((unsigned long long *)p, (unsigned long long)v);
#endif
}

SIMT_INLINE uint32_t simt_load_volatile_u32(const uint32_t *p)
{
    return *(const volatile uint32_t *)p;
}

SIMT_INLINE void simt_fence(void)
{
    asm volatile("membar.gl;" ::: "memory");
}

SIMT_INLINE void simt_load_once_u32x4(const void *p, uint32_t *v)
{
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "l"(p));
}

SIMT_INLINE void simt_load_once_u32x2(const void *p, uint32_t *v)
{
    asm volatile("ld.global.cs.v2.u32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "l"(p));
}

/* (x & mask) | bits in one instruction. */
SIMT_INLINE uint32_t simt_and_or(uint32_t x, uint32_t mask, uint32_t bits)
{
    uint32_t r;

    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
    return r;
}

SIMT_INLINE float m40_f16_to_f32(uint16_t h)
{
    float r;

    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(h));
    return r;
}

SIMT_INLINE uint16_t m40_f32_to_f16(float f)
{
    uint16_t r;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(f));
    return r;
}

SIMT_INLINE float m40_bits_to_f32(uint32_t bits)
{
#ifdef __clang__
    return __builtin_bit_cast(float, bits);
#else
    return __uint_as_float(bits);
#endif
}

SIMT_INLINE uint32_t m40_f32_to_bits(float f)
{
#ifdef __clang__
    return __builtin_bit_cast(uint32_t, f);
#else
    return __float_as_uint(f);
#endif
}

SIMT_INLINE float m40_bf16_to_f32(uint16_t h)
{
    return m40_bits_to_f32((uint32_t)h << 16);
}

SIMT_INLINE float simt_sqrt(float v)
{
#ifdef __clang__
    return __nvvm_sqrt_rn_f(v);
#else
    return __fsqrt_rn(v);
#endif
}

#endif
