/* The compiled kernels, embedded at build time: one image for each file kernels/NAME.cu. */
#ifndef M40_CUDA_KERNEL_IMAGES_H
#define M40_CUDA_KERNEL_IMAGES_H

#include <stddef.h>

struct m40_kernel_image {
    const char *name;  /* NAME, e.g. "selftest" */
    const char *ptx;   /* for compute_52, NUL-terminated */
    size_t ptx_bytes;  /* with the NUL */
    const void *cubin; /* sm_52 machine code, or NULL where no ptxas that knows sm_52 was there at build time */
    size_t cubin_bytes;
};

/* Ordered by name. Not hidden, so that test programs can share one libm40-kernels.so; libm40llm.so does not export them (src/api/exports.map). */
#define M40_KERNEL_IMAGES_SHARED __attribute__((visibility("default")))
extern M40_KERNEL_IMAGES_SHARED const struct m40_kernel_image m40_kernel_images[];
extern M40_KERNEL_IMAGES_SHARED const size_t m40_n_kernel_images;

#endif
