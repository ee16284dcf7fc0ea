/* The device as the kernels see it: one set of names with two bodies, NVIDIA's (the only inline PTX of the project is here) and the emulator's. Kernel files are
 * written in the common subset of C17 and C++, compiled by clang (or nvcc) for the device and by any C compiler for the emulated driver.
 *
 * A kernel:
 *
 *     struct scale_args { float *x; uint32_t n; float factor; };        (kernel_args.h: shared with the host)
 *
 *     SIMT_KERNEL(scale, struct scale_args, 256)                        (at most 256 threads a block)
 *     {
 *         uint32_t i = simt_block_x() * simt_block_dim() + simt_thread();
 *
 *         if (i < args.n)
 *             args.x[i] = args.x[i] * args.factor;
 *     }
 *
 * SIMT_KERNEL_RESIDENT(name, argtype, max_threads, min_blocks) is the same and has the compiler keep to the registers with which min_blocks blocks fit on a multiprocessor.
 *
 * Blocks are one-dimensional, grids up to three. A kernel takes one struct by value and returns nothing. One shared struct a kernel, at most 48 KB:
 *     SIMT_SHARED(struct scale_shared, shared);                         (then shared->..., as a pointer; its content is undefined at first)
 * Every thread of a block reaches every simt_barrier(), and every lane of a warp every shuffle; a thread that has returned counts for neither.
 */
#ifndef M40_CUDA_KERNELS_SIMT_H
#define M40_CUDA_KERNELS_SIMT_H

#include <stdint.h>

#define SIMT_WARP       32
#define SIMT_SHARED_MAX 49152

#ifdef M40_DEVICE_CODE
#include "backend/cuda/kernels/simt_device.h"
#else
#include "backend/cuda/emu/simt_emu.h"
#endif

/* Both bodies define:
 *
 *   uint32_t simt_thread(void), simt_block_dim(void)                      index in the block, threads a block
 *   uint32_t simt_block_x(void), simt_block_y(void), simt_block_z(void)   index in the grid
 *   uint32_t simt_grid_x(void), simt_grid_y(void), simt_grid_z(void)      blocks in the grid
 *   uint32_t simt_lane(void), simt_warp(void)                             thread % 32, thread / 32
 *   void simt_barrier(void)                                               __syncthreads
 *   void simt_warp_barrier(void)                                          __syncwarp: what the lanes of the warp read and wrote before comes before what they read and write then
 *   void simt_hold_loads(void)                                            loads written before it are not put behind what is written behind it; orders nothing between lanes
 *   float simt_shfl_f32(float v, uint32_t lane), uint32_t simt_shfl_u32   v of that lane; all 32 lanes take part
 *   float simt_shfl_xor_f32(float v, uint32_t mask), uint32_t simt_shfl_xor_u32
 *   uint32_t simt_ballot(int predicate)
 *   uint32_t simt_count_ones(uint32_t bits)
 *   uint32_t simt_atomic_add_u32(uint32_t *p, uint32_t v)                 the old value; relaxed; global or shared memory
 *   uint64_t simt_atomic_add_u64(uint64_t *p, uint64_t v)                 the same
 *   uint32_t simt_load_volatile_u32(const uint32_t *p)                    for spinning: always reads memory, and lets other emulated threads run
 *   void simt_fence(void)                                                 __threadfence: earlier writes are seen by the device before later ones
 *   void simt_load_once_u32x4(const void *p, uint32_t *v), simt_load_once_u32x2   16 or 8 aligned bytes of global memory that will not be wanted again: first to leave the caches
 *   float m40_f16_to_f32(uint16_t), uint16_t m40_f32_to_f16(float)        (device; the emulator takes half.h's)
 *   float m40_bf16_to_f32(uint16_t), m40_bits_to_f32(uint32_t), uint32_t m40_f32_to_bits(float)
 *   float simt_sqrt(float)                                                rounded to nearest
 */

#endif
