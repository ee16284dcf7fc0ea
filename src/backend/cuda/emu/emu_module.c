/* Modules: PTX text in which kernels are looked up by name; what runs is the kernel of that name that was compiled into this library. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <stdlib.h>
#include <string.h>

struct CUmod_st {
    char *ptx;
    struct CUfunc_st *functions;
};

CUresult emu_module_load(CUmodule *module, const char *image)
{
    const char *target = NULL;
    CUmodule m;

    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    if (strncmp(image, "\177ELF", 4) == 0) /* machine code: the caller is to take the PTX */
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (strstr(image, ".version "))
        target = strstr(image, ".target sm_");
    if (!target)
        return emu_complain(CUDA_ERROR_INVALID_IMAGE, "the module is not PTX");
    if (atoi(target + strlen(".target sm_")) > emu_settings.cc)
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    m = calloc(1, sizeof *m);
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->ptx = strdup(image);
    if (!m->ptx) {
        free(m);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *module = m;
    return CUDA_SUCCESS;
}

CUresult emu_module_unload(CUmodule module)
{
    emu_drain(NULL);
    while (module->functions) {
        CUfunction f = module->functions;

        module->functions = f->next;
        free(f);
    }
    free(module->ptx);
    free(module);
    return CUDA_SUCCESS;
}

/* Where ".entry name(" stands in the PTX, or NULL. */
static const char *find_entry(const char *ptx, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = ptx; (at = strstr(at, ".entry ")) != NULL;) {
        at += strlen(".entry ");
        if (strncmp(at, name, n) == 0 && (at[n] == '(' || at[n] == '\n' || at[n] == ' '))
            return at;
    }
    return NULL;
}

/* The bytes that an entry's body declares in .shared variables. */
static uint32_t shared_bytes(const char *entry)
{
    const char *end = strstr(entry, ".entry ");
    uint32_t sum = 0;

    for (const char *at = entry; (at = strstr(at, "\t.shared .align ")) != NULL && (!end || at < end); at++) {
        const char *line_end = strchr(at, ';'), *bracket = strchr(at, '[');

        if (line_end && bracket && bracket < line_end)
            sum += (uint32_t)strtoul(bracket + 1, NULL, 10);
    }
    return sum;
}

CUresult emu_module_function(CUfunction *function, CUmodule module, const char *name)
{
    const char *entry = find_entry(module->ptx, name);
    const struct simt_kernel *kernel = emu_kernel_find(name);
    CUfunction f;

    if (!entry)
        return CUDA_ERROR_NOT_FOUND;
    if (!kernel)
        return emu_complain(CUDA_ERROR_NOT_FOUND, "%s is in the PTX but was not compiled into the emulator", name);
    f = calloc(1, sizeof *f);
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    f->kernel = kernel;
    f->shared_bytes = shared_bytes(entry);
    f->has_dynamic = strstr(module->ptx, ".extern .shared ") != NULL;
    f->next = module->functions;
    module->functions = f;
    *function = f;
    return CUDA_SUCCESS;
}

CUresult emu_launch_check(CUfunction f, const unsigned *grid, const unsigned *block, unsigned dynamic_shared_bytes, void **params)
{
    const char *name = f->kernel->name;

    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > INT32_MAX || grid[1] > UINT16_MAX || grid[2] > UINT16_MAX)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: a grid of %ux%ux%u blocks", name, grid[0], grid[1], grid[2]);
    if (!block[0] || block[1] != 1 || block[2] != 1 || block[0] > EMU_THREADS_PER_BLOCK)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: blocks of %ux%ux%u threads (blocks are one-dimensional here)", name, block[0], block[1],
                            block[2]);
    if (block[0] > f->kernel->max_threads)
        return emu_complain(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: %u threads a block, made for at most %u", name, block[0],
                            f->kernel->max_threads);
    if (!params)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: one struct of arguments, please", name);
    if (dynamic_shared_bytes && !f->has_dynamic)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of dynamic shared memory, for which it has no use", name, dynamic_shared_bytes);
    if (f->shared_bytes + dynamic_shared_bytes > SIMT_SHARED_MAX)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of shared memory", name, f->shared_bytes + dynamic_shared_bytes);
    return CUDA_SUCCESS;
}
