/* The resident loop for models whose matrices have one weight format: a kernel of as many blocks as fit on the card together, which executes the decode steps that the host recorded as programs. An
 * instruction is one launch of a kernel; its blocks are shared out among the loop's, and a barrier of the whole grid ends it. A file resident_<format>.cu defines RESIDENT_MATMUL as the format's kernel
 * file and includes this. */
#include "backend/cuda/kernels/resident_mode.h"

#include "backend/cuda/kernels/act.cu"
#include "backend/cuda/kernels/norm.cu"
#include "backend/cuda/kernels/rope_append.cu"
#include "backend/cuda/kernels/rows.cu"
#include RESIDENT_MATMUL
#include "backend/cuda/kernels/attention.cu"

#pragma pop_macro("SIMT_KERNEL")
#pragma pop_macro("SIMT_KERNEL_RESIDENT")
#undef simt_block_x
#undef simt_block_y
#undef simt_block_z
#undef simt_grid_x
#undef simt_grid_y
#undef simt_grid_z
#undef simt_block_dim
#undef simt_barrier

enum {
    INSTRUCTION_WORDS = sizeof(struct resident_instruction) / 16,
    BARRIER_TRIES = 1 << 26, /* looks at the counter before the grid is given up: many seconds */
    LINE_BYTES = 128,
    RESIDENT_BLOCKS = 2, /* that a multiprocessor shall have the registers for */
};

/* ---- the grid's barrier ---- */

/* All blocks have come here and see what the others wrote before. 0: someone did not come. Every thread calls it. One counter, by measurement: a word for each block, polled by all or gathered by one, and
 * words of their own for the release were slower. */
M40_HD uint32_t grid_barrier(const struct resident_args *args, uint32_t *n_passed)
{
    struct resident_block *block = resident_block();
    const uint32_t all = ++*n_passed * resident_n_blocks();

    resident_barrier();
    if (simt_thread() == 0) {
        uint32_t tries = 0;

        simt_fence();
        simt_atomic_add_u32(args->arrived, 1);
        while ((int32_t)(simt_load_volatile_u32(args->arrived) - all) < 0 && tries < BARRIER_TRIES)
            tries++;
        if (tries == BARRIER_TRIES)
            block->is_going = 0;
        simt_fence();
    }
    resident_barrier();
    return block->is_going;
}

/* ---- instructions ---- */

M40_HD void call(const struct resident_instruction *instruction)
{
    switch (instruction->op) {
#define RESIDENT_CASE(name, args_type)                                                                                                               \
    case RESIDENT_##name:                                                                                                                            \
        name(instruction->args);                                                                                                                     \
        break;
        RESIDENT_OPS(RESIDENT_CASE)
#undef RESIDENT_CASE
#define RESIDENT_CASE(name, args_type)                                                                                                               \
    case RESIDENT_##name:                                                                                                                            \
        MATMUL_NAME(name)(instruction->args);                                                                                                        \
        break;
        RESIDENT_FORMAT_OPS(RESIDENT_CASE)
#undef RESIDENT_CASE
    default:
        break;
    }
}

/* A word of an instruction for each of the block's first threads: loaded while the one before is executed, then put into shared memory. */
M40_HD struct m40_f32x4 fetch(const struct resident_instruction *from)
{
    return m40_load_f32x4((const float *)(const void *)from + 4 * (simt_thread() < INSTRUCTION_WORDS ? simt_thread() : 0));
}

M40_HD void put(struct m40_f32x4 word, uint32_t slot)
{
    if (simt_thread() < INSTRUCTION_WORDS)
        m40_store_f32x4((float *)(void *)&resident_block()->instructions[slot] + 4 * simt_thread(), word);
}

M40_HD void prefetch(const struct resident_instruction *instruction)
{
    for (uint32_t i = resident_block_index() * RESIDENT_THREADS + simt_thread(); i < instruction->n_prefetch;
         i += resident_n_blocks() * RESIDENT_THREADS)
        simt_prefetch(instruction->prefetch + (uint64_t)i * LINE_BYTES);
}

/* This block's share of an instruction. */
M40_HD void execute(const struct resident_instruction *instruction)
{
    struct resident_block *block = resident_block();
    const uint32_t gx = instruction->grid[0], gy = instruction->grid[1], n = gx * gy * instruction->grid[2];

    prefetch(instruction);
    for (uint32_t i = resident_block_index(); i < n; i += resident_n_blocks()) {
        if (i != resident_block_index())
            resident_barrier(); /* the one before is done */
        if (simt_thread() == 0) {
            block->index[0] = i % gx;
            block->index[1] = i / gx % gy;
            block->index[2] = i / gx / gy;
            block->grid[0] = gx;
            block->grid[1] = gy;
            block->grid[2] = instruction->grid[2];
            block->n_threads = instruction->n_threads;
        }
        resident_barrier();
        if (simt_thread() < instruction->n_threads)
            call(instruction);
    }
}

/* ---- commands: block 0 ---- */

/* Waits for a command that is not the one taken last; RESIDENT_NO_PROGRAM: none came, or it is for another launch. */
M40_HD uint32_t await_command(const struct resident_args *args, uint64_t started_ns, uint32_t *taken)
{
    const uint64_t idle_ns = simt_timer_ns();
    uint32_t command, launch, program;

    while ((command = simt_load_volatile_u32(&args->ring->command)) == *taken) {
        uint64_t now_ns = simt_timer_ns();

        if (now_ns - idle_ns > args->idle_ns || now_ns - started_ns > args->life_ns)
            return RESIDENT_NO_PROGRAM;
    }
    simt_fence_system();
    *taken = command;
    launch = simt_load_volatile_u32(&args->ring->launch);
    program = simt_load_volatile_u32(&args->ring->program);
    return launch == args->launch ? program : RESIDENT_NO_PROGRAM;
}

/* Every thread of block 0. What comes is told to all blocks by the control block, before a barrier of the grid. */
M40_HD void take_command(const struct resident_args *args, uint64_t started_ns, uint32_t *taken)
{
    struct resident_ring *ring = args->ring;
    struct resident_control *control = args->control;
    uint32_t index, n_ints;

    if (simt_thread() == 0) {
        resident_block()->program = await_command(args, started_ns, taken);
        control->program = resident_block()->program;
        control->n_tokens = simt_load_volatile_u32(&ring->n_tokens);
        control->command = *taken;
    }
    resident_barrier();
    index = resident_block()->program;
    if (index == RESIDENT_NO_PROGRAM)
        return;
    n_ints = simt_load_volatile_u32(&ring->n_ints);
    for (uint32_t i = simt_thread(); i < n_ints; i += RESIDENT_THREADS)
        args->programs[index].inputs[i] = (int32_t)simt_load_volatile_u32((const uint32_t *)&ring->inputs[i]);
}

/* ---- tokens ---- */

/* What a block keeps while it runs. */
struct resident_state {
    uint64_t started_ns;
    uint32_t n_passed; /* barriers of the grid */
    uint32_t taken;    /* block 0: the last command */
};

/* Makes the row's token and position those of the next step. The block is the one that reads the token first, to embed it. */
M40_HD void advance(const struct resident_program *program)
{
    uint32_t row = resident_block_index();

    if (row < program->n_rows && simt_thread() == 0) {
        program->inputs[row] = program->best[row];
        program->inputs[program->stride + row]++;
    }
    resident_barrier();
}

/* By the grid's last block, which mostly has nothing else to do: gives the host the token before. */
M40_HD void publish(const struct resident_args *args, const struct resident_program *program, uint32_t command, uint32_t token)
{
    struct resident_token *out = &args->ring->tokens[token];

    if (simt_thread() < program->n_rows)
        simt_store_volatile_u32((uint32_t *)&out->ids[simt_thread()], (uint32_t)program->best[simt_thread()]);
    simt_fence_system();
    resident_barrier();
    if (simt_thread() == 0)
        simt_store_volatile_u32(&out->command, command);
}

/* By the grid's last block, while the others work: whether there may be another token after this one. */
M40_HD void look(const struct resident_args *args, uint64_t started_ns, uint32_t command)
{
    if (simt_thread() == 0)
        args->control->go_on = simt_timer_ns() - started_ns < args->life_ns && simt_load_volatile_u32(&args->ring->command) == command;
}

/* A program, over and over. 0: the grid is lost. */
M40_HD uint32_t run_command(const struct resident_args *args, struct resident_state *state, uint32_t n_tokens, uint32_t command)
{
    const struct resident_program *program = &args->programs[simt_load_volatile_u32(&args->control->program)];
    const uint32_t n = program->n_instructions, poll_at = program->poll_at;
    const uint32_t is_last_block = resident_block_index() == resident_n_blocks() - 1;

    put(fetch(program->instructions), 0);
    resident_barrier();
    for (uint32_t token = 0; token < n_tokens; token++) {
        if (token > 0)
            advance(program);
        for (uint32_t i = 0; i < n; i++) {
            struct m40_f32x4 next = fetch(program->instructions + (i + 1 < n ? i + 1 : 0));

            if (is_last_block && i == 0 && token > 0)
                publish(args, program, command, token - 1);
            if (is_last_block && i == poll_at)
                look(args, state->started_ns, command);
            execute(&resident_block()->instructions[(i + token * n) % 2]);
            put(next, (i + token * n + 1) % 2);
            if (!grid_barrier(args, &state->n_passed))
                return 0;
        }
        if (token + 1 < n_tokens && simt_load_volatile_u32(&args->control->go_on))
            continue;
        if (is_last_block)
            publish(args, program, command, token);
        break;
    }
    return 1;
}

RESIDENT_CALL void resident_loop(const struct resident_args *args)
{
    struct resident_state state = {simt_timer_ns(), 0, args->taken};

    if (simt_thread() == 0)
        resident_block()->is_going = 1;

    for (;;) {
        if (resident_block_index() == 0)
            take_command(args, state.started_ns, &state.taken);
        if (!grid_barrier(args, &state.n_passed) || simt_load_volatile_u32(&args->control->program) == RESIDENT_NO_PROGRAM)
            return;
        if (!run_command(args, &state, simt_load_volatile_u32(&args->control->n_tokens), simt_load_volatile_u32(&args->control->command)))
            return;
    }
}

#define RESIDENT_KERNEL(name) SIMT_KERNEL_RESIDENT(name, struct resident_args, RESIDENT_THREADS, RESIDENT_BLOCKS)
RESIDENT_KERNEL(MATMUL_NAME(resident))
{
    resident_loop(&args);
    if (resident_block_index() == 0 && simt_thread() == 0) {
        simt_fence_system();
        simt_store_volatile_u32(&args.ring->ended, args.launch);
    }
}
