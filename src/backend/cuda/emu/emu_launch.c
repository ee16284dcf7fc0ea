/* One kernel launch. Each thread of a resident block is a fiber, but a thread that never waits costs only a call: the fiber that it ran on starts the next one. Whoever waits picks who
 * goes on, by the seed; blocks that cannot all be resident start as others end. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARTS         16 /* barriers of a block; 0 is the one of all threads */
#define WARPS         (EMU_THREADS_PER_BLOCK / SIMT_WARP)
#define SHARED_POISON 0x7FE5A5A5u /* a NaN */
/* Turns of spinning threads, with nothing else happening, after which no one is believed to come any more. */
#define SPIN_LIMIT 4000000
/* Turns after which the host gets one: it may be the one who is waited for. */
#define SPINS_A_TURN 2000

struct warp {
    uint32_t n_live; /* lanes that have not returned, started or not */
    uint32_t n_waiting;
    enum simt_exchange_kind kind;
    uint32_t turn;       /* which of the two slot sets the next exchange uses */
    uint32_t present[2]; /* lanes that brought a value */
    uint32_t slots[2][SIMT_WARP];
    struct emu_fiber *waiting[SIMT_WARP];
};

/* A barrier of some of a block's threads. */
struct part {
    uint32_t n_waiting, n_threads;
    struct emu_fiber *waiting[EMU_THREADS_PER_BLOCK];
};

struct emu_block {
    struct emu_block *next_free;
    uint32_t index; /* in emu_run.resident */
    uint32_t position[3];
    void *shared;
    uint32_t n_live, n_unstarted, next_start;
    uint32_t start_warp; /* whose lanes are being started */
    struct emu_order warp_order, lane_order;
    uint32_t n_ready, n_at_barrier;
    struct emu_fiber *ready[EMU_THREADS_PER_BLOCK];
    struct emu_fiber *at_barrier[EMU_THREADS_PER_BLOCK];
    struct part parts[PARTS];
    struct warp warps[WARPS];
};

struct simt_now simt_now;

static struct simt_kernel *kernels;
static struct emu_block *free_blocks;

/* A launch that has begun. */
struct emu_run {
    const struct emu_launch *launch;
    const void *args;
    CUresult error;
    struct emu_block *block; /* the current thread's */
    struct emu_fiber *fiber;
    bool move; /* let another block go on */
    uint32_t n_spins;
    uint64_t n_blocks, n_opened;
    struct emu_order block_order;
    uint32_t n_resident, max_resident;
    struct emu_block **resident;
};
static struct emu_run *run; /* the one whose threads run now */
static uint32_t n_suspended;

void simt_register(struct simt_kernel *kernel)
{
    kernel->next = kernels;
    kernels = kernel;
}

const struct simt_kernel *emu_kernel_find(const char *name)
{
    for (const struct simt_kernel *k = kernels; k; k = k->next)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

uint32_t emu_blocks_per_sm(uint32_t block_dim, uint32_t shared_bytes)
{
    uint32_t n_warps = (block_dim + SIMT_WARP - 1) / SIMT_WARP;
    uint32_t n = EMU_THREADS_PER_SM / SIMT_WARP / n_warps;

    if (n > EMU_BLOCKS_PER_SM)
        n = EMU_BLOCKS_PER_SM;
    if (shared_bytes && n > EMU_SHARED_PER_SM / shared_bytes)
        n = EMU_SHARED_PER_SM / shared_bytes;
    return n;
}

/* ---- failure ---- */

/* Ends the launch from inside one of its threads; the fibers stay as they are until the device is reset. */
static void give_up(CUresult error)
{
    run->error = error;
    emu_fiber_switch(run->fiber, &emu_main_fiber);
    abort(); /* no one comes back here */
}

static void report_deadlock(const struct emu_block *b)
{
    emu_complain(CUDA_ERROR_LAUNCH_FAILED, "%s, block (%u,%u,%u): deadlock: of %u live threads %u wait at a barrier", run->launch->kernel->name,
                 b->position[0], b->position[1], b->position[2], b->n_live, b->n_at_barrier);
    for (uint32_t i = 1; i < PARTS; i++)
        if (b->parts[i].n_waiting)
            emu_complain(CUDA_ERROR_LAUNCH_FAILED, "    %u of %u threads wait at barrier %u", b->parts[i].n_waiting, b->parts[i].n_threads, i);
    for (uint32_t i = 0; i < WARPS && i * SIMT_WARP < run->launch->block_dim; i++)
        if (b->warps[i].n_waiting)
            emu_complain(CUDA_ERROR_LAUNCH_FAILED, "    warp %u: %u of %u live lanes wait at a shuffle or ballot", i, b->warps[i].n_waiting,
                         b->warps[i].n_live);
    run->error = CUDA_ERROR_LAUNCH_FAILED;
}

/* ---- blocks ---- */

static struct emu_block *block_open(void)
{
    struct emu_block *b = free_blocks ? free_blocks : calloc(1, sizeof *b);
    uint32_t dim = run->launch->block_dim, n_warps = (dim + SIMT_WARP - 1) / SIMT_WARP;
    uint64_t at = emu_order_at(&run->block_order, run->n_opened);

    if (!b) {
        run->error = emu_complain(CUDA_ERROR_OUT_OF_MEMORY, "no host memory for a block");
        return NULL;
    }
    if (b == free_blocks)
        free_blocks = b->next_free;
    run->n_opened++;
    b->position[0] = (uint32_t)(at % run->launch->grid[0]);
    b->position[1] = (uint32_t)(at / run->launch->grid[0] % run->launch->grid[1]);
    b->position[2] = (uint32_t)(at / run->launch->grid[0] / run->launch->grid[1]);
    b->n_live = b->n_unstarted = dim;
    b->next_start = b->n_ready = b->n_at_barrier = 0;
    for (uint32_t i = 0; i < PARTS; i++)
        b->parts[i].n_waiting = 0;
    b->warp_order = emu_order_draw(n_warps);
    b->lane_order = emu_order_draw(SIMT_WARP);
    for (uint32_t i = 0; i < n_warps; i++) {
        struct warp *w = &b->warps[i];

        w->n_live = dim - i * SIMT_WARP < SIMT_WARP ? dim - i * SIMT_WARP : SIMT_WARP;
        w->n_waiting = w->turn = w->present[0] = w->present[1] = 0;
    }
    b->index = run->n_resident;
    run->resident[run->n_resident++] = b;
    return b;
}

static void block_retire(struct emu_block *b)
{
    struct emu_block *last = run->resident[--run->n_resident];

    run->resident[b->index] = last;
    last->index = b->index;
    free(b->shared);
    b->shared = NULL;
    b->next_free = free_blocks;
    free_blocks = b;
}

void *simt_shared_slow(size_t n_bytes)
{
    struct emu_block *b = run->block;
    uint32_t poison = SHARED_POISON;

    b->shared = malloc(n_bytes);
    if (!b->shared)
        give_up(emu_complain(CUDA_ERROR_OUT_OF_MEMORY, "no host memory for a block"));
    for (size_t i = 0; i < n_bytes; i += 4)
        memcpy((uint8_t *)b->shared + i, &poison, n_bytes - i < 4 ? n_bytes - i : 4);
    simt_now.shared = b->shared;
    return b->shared;
}

void *simt_dynamic_shared(void)
{
    return simt_now.shared ? simt_now.shared : simt_shared_slow(run->launch->dynamic_bytes);
}

/* ---- who goes on ---- */

/* Another resident block or a new one; NULL: all have ended. */
static struct emu_block *other_block(void)
{
    bool can_open = run->n_opened < run->n_blocks && run->n_resident < run->max_resident;

    if (can_open && (run->n_resident == 0 || emu_chance(2)))
        return block_open();
    return run->n_resident ? run->resident[emu_random_below(run->n_resident)] : NULL;
}

static uint32_t next_thread(struct emu_block *b)
{
    uint32_t thread;

    do {
        uint32_t k = b->next_start++;

        if (k % SIMT_WARP == 0)
            b->start_warp = (uint32_t)emu_order_at(&b->warp_order, k / SIMT_WARP);
        thread = b->start_warp * SIMT_WARP + (uint32_t)(b->lane_order.first + k % SIMT_WARP * b->lane_order.stride) % SIMT_WARP;
    } while (thread >= run->launch->block_dim);
    b->n_unstarted--;
    return thread;
}

static void thread_loop(void);

/* The fiber to go on with: a waiting one that may, or `idle` (NULL: one from the pool) with a thread to start, or the main fiber where nothing is left or an error was found. */
static struct emu_fiber *pick(struct emu_fiber *idle)
{
    struct emu_block *b = run->block;
    struct emu_fiber *fiber;

    if (b->n_live == 0) {
        block_retire(b);
        b = other_block();
    } else if (run->move) {
        b = other_block();
    }
    run->move = false;
    run->block = b;
    if (!b)
        return &emu_main_fiber;
    if (b->n_ready && (!b->n_unstarted || !emu_chance(8))) {
        uint32_t i = emu_random_below(b->n_ready);

        fiber = b->ready[i];
        b->ready[i] = b->ready[--b->n_ready];
        return fiber;
    }
    if (!b->n_unstarted) { /* only threads of the block itself could release it */
        report_deadlock(b);
        return &emu_main_fiber;
    }
    fiber = idle ? idle : emu_fiber_take(thread_loop);
    if (!fiber) {
        run->error = emu_complain(CUDA_ERROR_OUT_OF_MEMORY, "no host memory for another thread's stack");
        return &emu_main_fiber;
    }
    fiber->block = b;
    fiber->thread = next_thread(b);
    return fiber;
}

/* Makes fiber the one that runs, as far as kernels can see. */
static void set_now(struct emu_fiber *fiber)
{
    struct emu_block *b = fiber->block;

    run->fiber = fiber;
    simt_now.thread = fiber->thread;
    memcpy(simt_now.block, b->position, sizeof simt_now.block);
    simt_now.shared = b->shared;
}

/* Suspends the running thread, which whoever releases it will find in a list. */
static void wait_turn(void)
{
    struct emu_fiber *self = run->fiber, *next = pick(NULL);

    if (next == self)
        return;
    if (next != &emu_main_fiber)
        set_now(next);
    emu_fiber_switch(self, next);
}

/* ---- barriers and warps ---- */

static void make_ready(struct emu_block *b, struct emu_fiber **fibers, uint32_t n)
{
    memcpy(b->ready + b->n_ready, fibers, n * sizeof *fibers);
    b->n_ready += n;
    run->n_spins = 0;
}

static void barrier_release(struct emu_block *b)
{
    make_ready(b, b->at_barrier, b->n_at_barrier);
    b->n_at_barrier = 0;
    run->move = run->n_blocks > 1 && emu_chance(8);
}

static void warp_release(struct emu_block *b, struct warp *w)
{
    make_ready(b, w->waiting, w->n_waiting);
    w->n_waiting = 0;
    w->turn ^= 1;
    w->present[w->turn] = 0; /* read by all by now: none could have come here otherwise */
}

void simt_barrier(void)
{
    struct emu_block *b = run->block;

    b->at_barrier[b->n_at_barrier++] = run->fiber;
    if (b->n_at_barrier == b->n_live)
        barrier_release(b);
    wait_turn();
}

void simt_barrier_part(uint32_t number, uint32_t n_threads)
{
    struct emu_block *b = run->block;
    struct part *part = &b->parts[number % PARTS];

    if (number < 1 || number >= PARTS || n_threads % SIMT_WARP || (part->n_waiting && part->n_threads != n_threads))
        give_up(emu_complain(CUDA_ERROR_LAUNCH_FAILED, "%s: barrier %u of %u threads, where %u wait for %u", run->launch->kernel->name, number,
                             n_threads, part->n_waiting, part->n_threads));
    part->n_threads = n_threads;
    part->waiting[part->n_waiting++] = run->fiber;
    if (part->n_waiting == n_threads) {
        make_ready(b, part->waiting, n_threads);
        part->n_waiting = 0;
    }
    wait_turn();
}

uint32_t simt_exchange(enum simt_exchange_kind kind, uint32_t value, uint32_t source)
{
    struct emu_block *b = run->block;
    struct warp *w = &b->warps[simt_now.thread / SIMT_WARP];
    uint32_t lane = simt_now.thread % SIMT_WARP, turn = w->turn, bits = 0;

    if (w->n_waiting && w->kind != kind)
        give_up(
            emu_complain(CUDA_ERROR_LAUNCH_FAILED, "%s: lanes of one warp meet at different kinds of shuffle or ballot", run->launch->kernel->name));
    w->kind = kind;
    w->slots[turn][lane] = value;
    w->present[turn] |= 1u << lane;
    w->waiting[w->n_waiting++] = run->fiber;
    if (w->n_waiting == w->n_live)
        warp_release(b, w);
    wait_turn();
    if (kind != SIMT_BALLOT)
        return w->present[turn] >> source & 1 ? w->slots[turn][source] : SHARED_POISON;
    for (lane = 0; lane < SIMT_WARP; lane++)
        if (w->present[turn] >> lane & 1 && w->slots[turn][lane])
            bits |= 1u << lane;
    return bits;
}

/* ---- memory that threads talk through ---- */

/* Lets others run; whoever only spins, with nobody else doing anything, is stopped at last. */
static void yield_thread(void)
{
    struct emu_block *b = run->block;
    struct emu_fiber *self = run->fiber;

    if (++run->n_spins % SPINS_A_TURN == 0)
        emu_fiber_switch(self, &emu_main_fiber); /* emu_launch_run comes back */
    if (run->n_spins > SPIN_LIMIT)
        give_up(emu_complain(CUDA_ERROR_LAUNCH_TIMEOUT, "%s: threads spin for something that does not come (%u of %u blocks are resident)",
                             run->launch->kernel->name, run->n_resident, (unsigned)run->n_blocks));
    b->ready[b->n_ready++] = run->fiber;
    run->move = true;
    wait_turn();
}

static void check_aligned(const uint32_t *p)
{
    if ((uintptr_t)p % sizeof *p)
        give_up(emu_complain(CUDA_ERROR_MISALIGNED_ADDRESS, "%s: misaligned 32-bit access at %p", run->launch->kernel->name, (const void *)p));
}

uint32_t simt_load_volatile_u32(const uint32_t *p)
{
    check_aligned(p);
    yield_thread();
    return *(const volatile uint32_t *)p;
}

uint32_t simt_atomic_add_u32(uint32_t *p, uint32_t v)
{
    uint32_t old;

    check_aligned(p);
    if (emu_chance(16))
        yield_thread();
    old = *p;
    *p = old + v;
    return old;
}

uint64_t simt_timer_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- the launch ---- */

static void thread_ended(struct emu_fiber *self)
{
    struct emu_block *b = self->block;
    struct warp *w = &b->warps[self->thread / SIMT_WARP];

    w->n_live--;
    b->n_live--;
    run->n_spins = 0;
    if (w->n_waiting && w->n_waiting == w->n_live)
        warp_release(b, w);
    if (b->n_at_barrier && b->n_at_barrier == b->n_live)
        barrier_release(b);
}

/* What a fiber does: it runs the thread it was given, then starts others as long as that is what comes next. */
static void thread_loop(void)
{
    struct emu_fiber *self = run->fiber, *next;

    emu_fiber_begin(self);
    for (;;) {
        run->launch->kernel->entry(run->args);
        thread_ended(self);
        next = pick(self);
        if (next != &emu_main_fiber)
            set_now(next);
        if (next == self)
            continue;
        emu_fiber_put(self);
        emu_fiber_switch(self, next);
    }
}

void emu_launch_drop(void)
{
    while (free_blocks) {
        struct emu_block *b = free_blocks;

        free_blocks = b->next_free;
        free(b);
    }
    emu_fibers_drop();
}

/* After an error blocks are left with threads in the middle of something. */
static void launch_clean(void)
{
    while (run->n_resident)
        block_retire(run->resident[run->n_resident - 1]);
    free(run->resident);
    if (run->error && n_suspended == 0) /* another launch's threads stand on the same fibers */
        emu_launch_drop();
}

void emu_launch_abandon(struct emu_run *suspended)
{
    run = suspended;
    n_suspended--;
    launch_clean();
    free(run);
    run = NULL;
}

static struct emu_run *run_open(const struct emu_launch *launch, const void *args)
{
    struct emu_run *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->launch = launch;
    r->args = args;
    r->n_blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    r->block_order = emu_order_draw(r->n_blocks);
    r->max_resident = emu_blocks_per_sm(launch->block_dim, launch->shared_bytes + launch->dynamic_bytes) * (uint32_t)emu_settings.n_sms;
    r->resident = calloc(r->max_resident, sizeof *r->resident);
    if (r->resident)
        return r;
    free(r);
    return NULL;
}

/* The fiber to begin or to go on with. */
static struct emu_fiber *run_begin(void)
{
    if (run->fiber)
        return run->fiber;
    run->block = block_open();
    return run->block ? pick(NULL) : &emu_main_fiber;
}

CUresult emu_launch_run(const struct emu_launch *launch, const void *args, struct emu_run **suspended)
{
    struct emu_fiber *next;
    CUresult error;

    n_suspended -= *suspended != NULL;
    run = *suspended ? *suspended : run_open(launch, args);
    *suspended = NULL;
    if (!run)
        return CUDA_ERROR_OUT_OF_MEMORY;
    simt_now.block_dim = launch->block_dim;
    memcpy(simt_now.grid, launch->grid, sizeof simt_now.grid);
    next = run_begin();
    if (next != &emu_main_fiber) {
        set_now(next);
        emu_fiber_switch(&emu_main_fiber, next);
    }
    if (run->n_resident && !run->error) { /* blocks are left: someone spins */
        *suspended = run;
        n_suspended++;
        return CUDA_SUCCESS;
    }
    error = run->error;
    launch_clean();
    free(run);
    run = NULL;
    return error;
}
