/* Fibers: stacks from a pool and a switch of ten instructions. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <stdlib.h>
#include <sys/mman.h>

#ifndef __x86_64__
#error "the emulated driver's fibers are written for x86-64"
#endif

#define PAGE 4096
#if EMU_ASAN
#define STACK_BYTES (256 * 1024)
#else
#define STACK_BYTES (64 * 1024)
#endif

struct emu_fiber emu_main_fiber;

/* Every fiber that was ever made, in blocks,. */
struct fiber_block {
    struct fiber_block *next;
    uint8_t *stacks;
    struct emu_fiber fibers[64];
};
static struct fiber_block *fiber_blocks;
static struct emu_fiber *free_fibers;
static struct emu_fiber *switched_from;

/* void switch_stacks(void **save_sp, void *to_sp): callee-saved registers go onto the stack, and come back from the other one. */
void switch_stacks(void **save_sp, void *to_sp) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".hidden switch_stacks\n"
        ".type switch_stacks, @function\n"
        ".p2align 4\n"
        "switch_stacks:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size switch_stacks, .-switch_stacks\n");

/* After a switch, on the new stack: the sanitizer tells where the old one lies, which is how the main stack's place is learnt. */
void emu_fiber_begin(struct emu_fiber *self)
{
#if EMU_ASAN
    const void *stack;

    __sanitizer_finish_switch_fiber(self->fake_stack, &stack, &switched_from->stack_bytes);
    switched_from->stack = (uint8_t *)(uintptr_t)stack;
#else
    (void)self;
#endif
}

void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to)
{
    switched_from = from;
#if EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    switch_stacks(&from->sp, to->sp);
    emu_fiber_begin(from);
}

static bool make_fibers(void)
{
    size_t n = sizeof fiber_blocks->fibers / sizeof fiber_blocks->fibers[0];
    struct fiber_block *block = calloc(1, sizeof *block);

    if (!block)
        return false;
    block->stacks = mmap(NULL, n * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block->stacks == MAP_FAILED) {
        free(block);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct emu_fiber *fiber = &block->fibers[i];

        mprotect(block->stacks + i * STACK_BYTES, PAGE, PROT_NONE); /* best effort: mappings are limited */
        fiber->stack = block->stacks + i * STACK_BYTES + PAGE;
        /* Tops differ in their last address bits, so that the stacks' hot lines do not share a few cache sets. */
        fiber->stack_bytes = STACK_BYTES - PAGE - i * 192 % PAGE / 64 * 64;
        emu_fiber_put(fiber);
    }
    block->next = fiber_blocks;
    fiber_blocks = block;
    return true;
}

struct emu_fiber *emu_fiber_take(void (*function)(void))
{
    struct emu_fiber *fiber;

    if (!free_fibers && !make_fibers())
        return NULL;
    fiber = free_fibers;
    free_fibers = fiber->next_free;
    if (!fiber->sp) { /* never ran: six registers, the function, and a return address that is never used */
        void **top = (void **)((uintptr_t)(fiber->stack + fiber->stack_bytes) / 16 * 16);

        top[-1] = NULL;
        top[-2] = (void *)(uintptr_t)function;
        fiber->sp = top - 8;
    }
    return fiber;
}

void emu_fiber_put(struct emu_fiber *fiber)
{
    fiber->next_free = free_fibers;
    free_fibers = fiber;
}

void emu_fibers_drop(void)
{
    size_t n = sizeof fiber_blocks->fibers / sizeof fiber_blocks->fibers[0];

    while (fiber_blocks) {
        struct fiber_block *block = fiber_blocks;

        fiber_blocks = block->next;
        EMU_UNPOISON(block->stacks, n * STACK_BYTES);
        munmap(block->stacks, n * STACK_BYTES);
        free(block);
    }
    free_fibers = NULL;
}
