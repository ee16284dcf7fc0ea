/* Device memory: one mapped range a device, which the host can touch only while queued work runs. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT 256
#define GUARD     256 /* never allocated bytes between allocations */
#define HUGE      ((size_t)2 << 20)

static size_t rounded(size_t n_bytes)
{
    return (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bool map(struct emu_arena *arena)
{
    size_t n_bytes = emu_settings.memory_bytes;
    uint8_t *range = mmap(NULL, n_bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (range == MAP_FAILED)
        return false;
    arena->base = (uint8_t *)(((uintptr_t)range + HUGE - 1) / HUGE * HUGE);
    munmap(range, (size_t)(arena->base - range));
    munmap(arena->base + n_bytes, HUGE - (size_t)(arena->base - range));
    madvise(arena->base, n_bytes, MADV_HUGEPAGE);
    arena->n_bytes = n_bytes;
    EMU_POISON(arena->base, n_bytes);
    return true;
}

void emu_memory_unmap(struct emu_arena *arena)
{
    if (arena->base) {
        EMU_UNPOISON(arena->base, arena->n_bytes);
        munmap(arena->base, arena->n_bytes);
    }
    free(arena->allocations);
    *arena = (struct emu_arena){0};
}

void emu_memory_show(struct emu_arena *arena)
{
    if (arena->high_water)
        mprotect(arena->base, arena->high_water, PROT_READ | PROT_WRITE);
}

void emu_memory_hide(struct emu_arena *arena)
{
    if (arena->high_water)
        mprotect(arena->base, arena->high_water, PROT_NONE);
}

/* Outside show and hide only. */
static void fill(struct emu_arena *arena, const struct emu_allocation *a)
{
    EMU_UNPOISON(arena->base + a->offset, rounded(a->n_bytes));
    emu_memory_show(arena);
    memset(arena->base + a->offset, 0xCD, a->n_bytes);
    emu_memory_hide(arena);
    EMU_POISON(arena->base + a->offset, rounded(a->n_bytes));
}

/* The first gap that holds need bytes and a guard: its place in the list, and its offset. */
static bool find_gap(const struct emu_arena *arena, size_t need, size_t *index, size_t *offset)
{
    size_t at = 0;

    for (size_t i = 0; i < arena->n_allocations; i++) {
        const struct emu_allocation *a = &arena->allocations[i];

        if (a->offset - at >= need + GUARD) {
            *index = i;
            *offset = at;
            return true;
        }
        at = a->offset + rounded(a->n_bytes) + GUARD;
    }
    *index = arena->n_allocations;
    *offset = at;
    return at <= arena->n_bytes && arena->n_bytes - at >= need;
}

CUresult emu_memory_alloc(struct emu_arena *arena, size_t n_bytes, CUdeviceptr *ptr)
{
    size_t index, offset, need = rounded(n_bytes);
    struct emu_allocation *a;

    if (n_bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (n_bytes > emu_settings.memory_bytes || (!arena->base && !map(arena)) || !find_gap(arena, need, &index, &offset))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (arena->n_allocations == arena->capacity) {
        size_t capacity = arena->capacity ? 2 * arena->capacity : 64;
        void *grown = realloc(arena->allocations, capacity * sizeof *a);

        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        arena->allocations = grown;
        arena->capacity = capacity;
    }
    a = &arena->allocations[index];
    memmove(a + 1, a, (arena->n_allocations - index) * sizeof *a);
    arena->n_allocations++;
    *a = (struct emu_allocation){offset, n_bytes};
    arena->n_used += need;
    if (offset + need > arena->high_water)
        arena->high_water = (offset + need + HUGE - 1) / HUGE * HUGE;
    fill(arena, a);
    EMU_UNPOISON(arena->base + offset, n_bytes);
    *ptr = (CUdeviceptr)(uintptr_t)(arena->base + offset);
    return CUDA_SUCCESS;
}

/* The last allocation that starts at or before ptr, or NULL. */
static struct emu_allocation *find(const struct emu_arena *arena, CUdeviceptr ptr)
{
    size_t low = 0, high = arena->n_allocations, offset = (size_t)(ptr - (uintptr_t)arena->base);

    if (!arena->base || ptr < (uintptr_t)arena->base || offset >= arena->n_bytes)
        return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;

        if (arena->allocations[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &arena->allocations[low - 1] : NULL;
}

bool emu_memory_contains(const struct emu_arena *arena, CUdeviceptr ptr, size_t n_bytes)
{
    const struct emu_allocation *a = find(arena, ptr);
    size_t inside;

    if (!a)
        return false;
    inside = (size_t)(ptr - (uintptr_t)arena->base) - a->offset;
    return inside <= a->n_bytes && n_bytes <= a->n_bytes - inside;
}

CUresult emu_memory_free(struct emu_arena *arena, CUdeviceptr ptr)
{
    struct emu_allocation *a = find(arena, ptr);
    size_t index;

    if (!a || ptr != (uintptr_t)arena->base + a->offset)
        return emu_complain(CUDA_ERROR_INVALID_VALUE, "cuMemFree of %#llx, which is not allocated", (unsigned long long)ptr);
    fill(arena, a);
    arena->n_used -= rounded(a->n_bytes);
    index = (size_t)(a - arena->allocations);
    arena->n_allocations--;
    memmove(a, a + 1, (arena->n_allocations - index) * sizeof *a);
    return CUDA_SUCCESS;
}
