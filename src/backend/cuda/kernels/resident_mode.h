/* Turns the kernels that are included after it into functions of one kernel (resident_tmpl.h): the same sources, with simt.h's names meaning a virtual block, which a real block of the loop works on. */
#ifndef M40_CUDA_KERNELS_RESIDENT_MODE_H
#define M40_CUDA_KERNELS_RESIDENT_MODE_H

#include "backend/cuda/kernels/resident_args.h"
#include "backend/cuda/kernels/simt.h"
#include "base/portable.h"

/* A block's dynamic shared memory. */
struct resident_block {
    uint32_t index[3], n_threads, grid[3]; /* of the virtual block */
    uint32_t is_going;                     /* the grid's barriers hold */
    uint32_t program;                      /* block 0: of the command */
    uint32_t padding[3];
    struct resident_instruction instructions[2]; /* this one and the next */
    uint8_t body[];                              /* the virtual block's own */
};

/* The real ones. */
M40_HD uint32_t resident_block_index(void)
{
    return simt_block_x();
}

M40_HD uint32_t resident_n_blocks(void)
{
    return simt_grid_x();
}

M40_HD void resident_barrier(void)
{
    simt_barrier();
}

M40_HD struct resident_block *resident_block(void)
{
    return (struct resident_block *)simt_dynamic_shared();
}

#pragma push_macro("SIMT_KERNEL")
#pragma push_macro("SIMT_KERNEL_RESIDENT")
#undef SIMT_KERNEL
#undef SIMT_KERNEL_RESIDENT
#undef SIMT_SHARED

#ifdef M40_DEVICE_CODE
#define RESIDENT_CALL static __attribute__((device, noinline)) /* each with registers of its own */
#else
#define RESIDENT_CALL static __attribute__((unused))
#endif

#define SIMT_KERNEL(name, argtype, max_threads)                                                                                                      \
    M40_HD void name##_body(const argtype args);                                                                                                     \
    RESIDENT_CALL void name(const void *args)                                                                                                        \
    {                                                                                                                                                \
        name##_body(*(const argtype *)args);                                                                                                         \
    }                                                                                                                                                \
    M40_HD void name##_body(const argtype args)
#define SIMT_KERNEL_RESIDENT(name, argtype, max_threads, min_blocks) SIMT_KERNEL(name, argtype, max_threads)
#define SIMT_SHARED(type, name)                                      type *const name = (type *)(void *)resident_block()->body

#define simt_block_x()   (resident_block()->index[0])
#define simt_block_y()   (resident_block()->index[1])
#define simt_block_z()   (resident_block()->index[2])
#define simt_grid_x()    (resident_block()->grid[0])
#define simt_grid_y()    (resident_block()->grid[1])
#define simt_grid_z()    (resident_block()->grid[2])
#define simt_block_dim() (resident_block()->n_threads)
#define simt_barrier()   simt_barrier_part(1, resident_block()->n_threads)

#endif
