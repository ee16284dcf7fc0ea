/* The resident loop: greedy decode steps run by one kernel that stays on the card (kernels/resident_tmpl.h), goes on to the next token by itself, and talks to the host through a ring in pinned memory.
 *
 * A step's launches are noted while it is recorded, and kept as a program in device memory. A command starts a program with its inputs and lets it run ahead, to the end of the page that a row is in: after
 * a token the loop makes the next step's inputs itself. Where the host's next step turns out to be just that, its tokens are there or on their way; where it is anything else, a new command cuts the old
 * one short. What the loop did too much is in positions that no sequence has: they are written again before they are read.
 *
 * Any other use of the backend ends the loop first (m40_cuda_enter): its kernel is the head of the stream. It also ends by itself when it is idle, or old: a card's watchdog would end it otherwise. */
#include "backend/cuda/cuda_internal.h"

#include "backend/cuda/kernels/resident_args.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_INSTRUCTIONS = 4096,
    POLLS_A_QUERY = 512,     /* looks at the ring between two questions whether the kernel lives */
    SHARED_HEAD_BYTES = 512, /* of struct resident_block before its body, rounded up */
    LINE_BYTES = 128,
    FEW_BLOCKS = 16, /* of an instruction that leaves most of the loop idle */
};

/* A recorded step as the device has it. */
struct program {
    m40_addr instructions; /* 0: this place is free */
    uint32_t width;        /* blocks of its widest instruction */
    CUfunction kernel;
};

struct m40_cuda_resident {
    struct resident_ring *ring;
    m40_addr ring_on_device, control, programs, arrived;
    struct program slots[M40_CUDA_N_STEPS];

    struct resident_instruction *noted; /* [MAX_INSTRUCTIONS], of the step being recorded */
    uint32_t n_noted;
    bool is_whole;         /* all launches could be noted */
    char format[16];       /* of the weights; "": none met yet */
    uint32_t shared_bytes; /* of a block of the loop */
    uint64_t prefetch_bytes;

    bool is_running;
    CUfunction kernel; /* that runs */
    uint32_t launch, command;
    uint32_t program, n_tokens, n_taken; /* of the command: index, how many it may make, how many the host has */
    int32_t *expected;                   /* inputs of the step that the loop does next: n_expected ints */
    uint32_t n_expected;
};

static const char *const op_names[N_RESIDENT_OPS] = {
#define OP_NAME(name, args_type) #name,
    RESIDENT_OPS(OP_NAME) RESIDENT_FORMAT_OPS(OP_NAME)
#undef OP_NAME
};

static const size_t op_arg_bytes[N_RESIDENT_OPS] = {
#define OP_BYTES(name, args_type) sizeof(args_type),
    RESIDENT_OPS(OP_BYTES) RESIDENT_FORMAT_OPS(OP_BYTES)
#undef OP_BYTES
};

#define ASSERT_FITS(name, args_type) static_assert(sizeof(args_type) <= RESIDENT_ARG_BYTES, #name);
RESIDENT_OPS(ASSERT_FITS)
RESIDENT_FORMAT_OPS(ASSERT_FITS)

static m40llm_status alloc_zeroed(struct m40_cuda *c, uint64_t n_bytes, m40_addr *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(m40_cuda_alloc(&c->base, n_bytes, out, err));
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(*out, 0, n_bytes, c->stream), "clearing memory", err));
fail:
    return status;
}

m40llm_status m40_cuda_resident_open(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = m40_calloc(1, sizeof *r);
    void *host = NULL;
    int l2_bytes = 0;

    M40_FAIL_IF(!r, M40LLM_NO_MEMORY, "resident loop");
    c->resident = r;
    r->launch = 1; /* the ring's `ended` begins with 0 */
    c->resident_timing = (struct m40_cuda_resident_timing){.idle_ns = 1000000, .life_ns = 500000000, .timeout_ns = 10000000000};
    r->noted = m40_calloc(MAX_INSTRUCTIONS, sizeof *r->noted);
    r->expected = m40_calloc(RESIDENT_MAX_INTS, sizeof *r->expected);
    M40_FAIL_IF(!r->noted || !r->expected, M40LLM_NO_MEMORY, "resident loop");
    M40_TRY(m40_cuda_check(c, c->driver->MemHostAlloc(&host, sizeof *r->ring, CU_MEMHOSTALLOC_DEVICEMAP), "pinned memory for the ring", err));
    memset(host, 0, sizeof *r->ring);
    r->ring = host;
    M40_TRY(m40_cuda_check(c, c->driver->MemHostGetDevicePointer(&r->ring_on_device, host, 0), "mapping the ring", err));
    M40_TRY(alloc_zeroed(c, sizeof(struct resident_control), &r->control, err));
    M40_TRY(m40_cuda_alloc(&c->base, sizeof(uint32_t), &r->arrived, err));
    M40_TRY(alloc_zeroed(c, M40_CUDA_N_STEPS * sizeof(struct resident_program), &r->programs, err));
    M40_TRY(m40_cuda_check(c, c->driver->DeviceGetAttribute(&l2_bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, c->device), "size of the L2 cache", err));
    r->prefetch_bytes = (uint64_t)l2_bytes / 2;
fail:
    return status;
}

void m40_cuda_resident_close(struct m40_cuda *c)
{
    struct m40_cuda_resident *r = c->resident;

    if (!r)
        return;
    m40_cuda_free(&c->base, r->control);
    m40_cuda_free(&c->base, r->programs);
    m40_cuda_free(&c->base, r->arrived);
    if (r->ring)
        c->driver->MemFreeHost(r->ring);
    m40_free(r->noted);
    m40_free(r->expected);
    m40_free(r);
    c->resident = NULL;
}

/* ---- recording ---- */

void m40_cuda_resident_begin(struct m40_cuda *c)
{
    if (!c->resident)
        return;
    c->resident->n_noted = 0;
    c->resident->is_whole = true;
}

/* The op that a kernel is, and for those of a weight format its name; N_RESIDENT_OPS: none. */
static uint32_t find_op(const char *kernel, const char **out_format)
{
    *out_format = NULL;
    for (uint32_t op = 0; op < N_RESIDENT_OPS; op++) {
        size_t n = strlen(op_names[op]);

        if (op < RESIDENT_embed ? strcmp(kernel, op_names[op]) == 0 : strncmp(kernel, op_names[op], n) == 0 && kernel[n] == '_') {
            *out_format = op < RESIDENT_embed ? NULL : kernel + n + 1;
            return op;
        }
    }
    return N_RESIDENT_OPS;
}

/* Whether the loop has kernels of that format: that of the first model that comes. */
static bool has_format(struct m40_cuda *c, const char *format)
{
    struct m40_cuda_resident *r = c->resident;

    if (!format || strcmp(r->format, format) == 0)
        return true;
    if (r->format[0])
        return false;
    snprintf(r->format, sizeof r->format, "%s", format);
    return true;
}

void m40_cuda_resident_note(struct m40_cuda *c, CUfunction function, const char *name, const uint32_t *grid, uint32_t n_threads, const void *args)
{
    struct m40_cuda_resident *r = c->resident;
    struct resident_instruction *to;
    const char *format;
    uint32_t op;
    int n_bytes = 0;

    if (!r || !r->is_whole)
        return;
    op = find_op(name, &format);
    if (op == N_RESIDENT_OPS || !has_format(c, format) || r->n_noted == MAX_INSTRUCTIONS ||
        c->driver->FuncGetAttribute(&n_bytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function) != CUDA_SUCCESS) {
        m40_log(&c->base.logger, M40LLM_LOG_DEBUG, "%s: the resident loop has no %s: steps with it run as graphs", c->info.spec, name);
        r->is_whole = false;
        return;
    }
    to = &r->noted[r->n_noted++];
    *to = (struct resident_instruction){.op = op, .n_threads = n_threads};
    memcpy(to->grid, grid, sizeof to->grid);
    memcpy(to->args, args, op_arg_bytes[op]);
    if (r->shared_bytes < SHARED_HEAD_BYTES + (uint32_t)n_bytes)
        r->shared_bytes = SHARED_HEAD_BYTES + (uint32_t)n_bytes;
}

/* What lies between two matmuls leaves the memory idle: the weights of the next one are brought into the L2 cache meanwhile, as much as fits. */
static void plan_prefetch(struct m40_cuda_resident *r, uint32_t tile_bytes)
{
    uint32_t first = 0;

    for (uint32_t i = 0; i < r->n_noted; i++) {
        struct matmul_kernel_args args;
        uint64_t n_bytes;

        if (r->noted[i].op <= RESIDENT_embed)
            continue;
        memcpy(&args, r->noted[i].args, sizeof args);
        n_bytes = (uint64_t)m40_cuda_div_up(args.n_rows, MATMUL_TILE) * m40_cuda_div_up(args.n_cols, MATMUL_CHUNK) * tile_bytes;
        if (n_bytes > r->prefetch_bytes)
            n_bytes = r->prefetch_bytes;
        if (first < i) {
            r->noted[first].prefetch = args.tiles;
            r->noted[first].n_prefetch = (uint32_t)(n_bytes / LINE_BYTES);
        }
        first = i + 1;
    }
}

/* The last instruction that most blocks have no part in. */
static uint32_t idle_instruction(const struct m40_cuda_resident *r)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < r->n_noted; i++)
        if ((uint64_t)r->noted[i].grid[0] * r->noted[i].grid[1] * r->noted[i].grid[2] <= FEW_BLOCKS)
            found = i;
    return found;
}

static uint32_t tile_bytes_of(const char *format)
{
    for (uint32_t number = 0; number < M40_DTYPE_LIMIT; number++) {
        const struct m40_format *f = m40_format(number);

        if (f && strcmp(f->type->name, format) == 0)
            return f->tile_bytes;
    }
    return 0;
}

static uint32_t width_of(const struct m40_cuda_resident *r)
{
    uint64_t width = 1;

    for (uint32_t i = 0; i < r->n_noted; i++) {
        uint64_t n = (uint64_t)r->noted[i].grid[0] * r->noted[i].grid[1] * r->noted[i].grid[2];

        width = n > width ? n : width;
    }
    return width < UINT32_MAX ? (uint32_t)width : UINT32_MAX;
}

static m40llm_status keep_program(struct m40_cuda *c, uint32_t slot, CUfunction kernel, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = c->resident;
    uint64_t n_bytes = r->n_noted * sizeof *r->noted;
    m40_addr instructions = 0;

    plan_prefetch(r, tile_bytes_of(r->format));
    M40_TRY(m40_cuda_alloc(&c->base, n_bytes, &instructions, err));
    M40_TRY(m40_cuda_write(&c->base, instructions, r->noted, n_bytes, err));
    r->slots[slot] = (struct program){instructions, width_of(r), kernel};
    return M40LLM_OK;
fail:
    if (instructions)
        c->driver->MemFree(instructions);
    return status;
}

m40llm_status m40_cuda_resident_end(struct m40_cuda *c, struct m40_cuda_step *step, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = c->resident;
    char name[32];
    CUfunction kernel;
    uint32_t slot = 0;

    if (!r || !r->is_whole || !r->format[0] || !step->key.is_greedy || r->n_noted == 0)
        return M40LLM_OK;
    while (slot < M40_CUDA_N_STEPS && r->slots[slot].instructions)
        slot++;
    assert(slot < M40_CUDA_N_STEPS); /* as many as steps */
    snprintf(name, sizeof name, "resident_%s", r->format);
    if (m40_cuda_kernel(c, name, name, &kernel, NULL) != M40LLM_OK) {
        m40_log(&c->base.logger, M40LLM_LOG_WARN, "%s: no resident loop for %s weights: steps run as graphs", c->info.spec, r->format);
        return M40LLM_OK;
    }
    M40_TRY(keep_program(c, slot, kernel, err));
    step->program = slot + 1;
    step->n_instructions = r->n_noted;
    step->poll_at = idle_instruction(r);
fail:
    return status;
}

void m40_cuda_resident_forget(struct m40_cuda *c, struct m40_cuda_step *step)
{
    if (!step->program)
        return;
    c->driver->MemFree(c->resident->slots[step->program - 1].instructions);
    c->resident->slots[step->program - 1].instructions = 0;
    step->program = 0;
}

/* ---- running ---- */

static uint32_t load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void post(struct m40_cuda_resident *r, uint32_t program, uint32_t n_tokens, uint32_t n_ints)
{
    struct resident_ring *ring = r->ring;

    ring->launch = r->launch;
    ring->program = program;
    ring->n_tokens = n_tokens;
    ring->n_ints = n_ints;
    __atomic_store_n(&ring->command, ++r->command, __ATOMIC_RELEASE);
}

void m40_cuda_resident_stop(struct m40_cuda *c)
{
    struct m40_cuda_resident *r = c->resident;

    if (!r || !r->is_running)
        return;
    r->is_running = false;
    r->launch++; /* what is posted from now on is for the next one */
    post(r, RESIDENT_NO_PROGRAM, 0, 0);
}

static m40llm_status start(struct m40_cuda *c, CUfunction kernel, uint32_t width, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = c->resident;
    int n_blocks = 0;
    uint32_t grid;
    struct resident_args args = {
        .control = m40_cuda_ptr(r->control),
        .programs = m40_cuda_ptr(r->programs),
        .arrived = m40_cuda_ptr(r->arrived),
        .taken = r->command - 1, /* it finds one waiting */
        .launch = r->launch,
        .idle_ns = c->resident_timing.idle_ns,
        .life_ns = c->resident_timing.life_ns,
    };
    void *params[1] = {&args};

    args.ring = m40_cuda_ptr(r->ring_on_device);
    M40_TRY(m40_cuda_check(c, c->driver->OccupancyMaxActiveBlocks(&n_blocks, kernel, RESIDENT_THREADS, r->shared_bytes), "sizing the resident loop",
                           err));
    M40_FAIL_IF(n_blocks < 1, M40LLM_UNSUPPORTED, "the resident loop does not fit on a multiprocessor");
    grid = (uint32_t)n_blocks * c->n_sms;
    grid = grid > width ? width : grid;
    M40_TRY(m40_cuda_check(c, c->driver->MemsetD8Async(r->arrived, 0, sizeof(uint32_t), c->stream), "clearing memory", err));
    M40_TRY(m40_cuda_check(c, c->driver->LaunchKernel(kernel, grid, 1, 1, RESIDENT_THREADS, 1, 1, r->shared_bytes, c->stream, params, NULL),
                           "launching the resident loop", err));
    c->counters.n_loop_launches++;
    c->last_launched = kernel;
    r->is_running = true;
    r->kernel = kernel;
fail:
    return status;
}

/* A new command: the step with its inputs, and as many after it as its pages have room for. */
static m40llm_status command(struct m40_cuda *c, const struct m40_cuda_step *step, const struct m40_loop_args *args, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = c->resident;
    CUfunction kernel = r->slots[step->program - 1].kernel;
    uint32_t n_tokens = RESIDENT_MAX_AHEAD;

    for (uint32_t row = 0; row < args->key.n_tokens; row++) {
        uint32_t n = M40_KV_PAGE - (uint32_t)args->inputs[args->stride + row] % M40_KV_PAGE;

        n_tokens = n < n_tokens ? n : n_tokens;
    }
    if (r->is_running && r->kernel != kernel)
        m40_cuda_resident_stop(c);
    memcpy(r->ring->inputs, args->inputs, args->n_ints * sizeof *args->inputs);
    r->program = step->program - 1;
    r->n_tokens = n_tokens;
    r->n_taken = 0;
    post(r, r->program, n_tokens, args->n_ints);
    if (!r->is_running)
        M40_TRY(start(c, kernel, r->slots[step->program - 1].width, err));
    c->counters.n_loop_commands++;
fail:
    return status;
}

/* Whether the loop has done, or is at, just this step. */
static bool is_expected(const struct m40_cuda_resident *r, const struct m40_cuda_step *step, const struct m40_loop_args *args)
{
    return r->is_running && r->program == step->program - 1 && r->n_taken < r->n_tokens && r->n_expected == args->n_ints &&
           memcmp(r->expected, args->inputs, args->n_ints * sizeof *args->inputs) == 0;
}

/* Waits for token n_taken of the command. *out_has_ended: the loop ended before. */
static m40llm_status await(struct m40_cuda *c, uint64_t begin_ns, bool *out_has_ended, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_resident *r = c->resident;
    const struct resident_token *token = &r->ring->tokens[r->n_taken];

    *out_has_ended = false;
    for (uint32_t polls = 1; load(&token->command) != r->command; polls++) {
        CUresult result;

        if (load(&r->ring->ended) == r->launch && load(&token->command) != r->command) {
            *out_has_ended = true;
            return M40LLM_OK;
        }
        if (polls % POLLS_A_QUERY)
            continue;
        result = c->driver->StreamQuery(c->stream);
        if (result != CUDA_ERROR_NOT_READY)
            M40_TRY(m40_cuda_check(c, result, "the resident loop", err));
        M40_FAIL_IF(m40_now_ns() - begin_ns > c->resident_timing.timeout_ns, M40LLM_DRIVER, "%s: no token from the resident loop for %.1f s",
                    c->info.spec, (double)c->resident_timing.timeout_ns * 1e-9);
    }
fail:
    return status;
}

static void take_token(struct m40_cuda_resident *r, const struct m40_loop_args *args)
{
    const struct resident_token *token = &r->ring->tokens[r->n_taken++];

    memcpy(args->ids, token->ids, args->key.n_tokens * sizeof *args->ids);
    if (r->n_expected != args->n_ints || r->n_taken == 1)
        memcpy(r->expected, args->inputs, args->n_ints * sizeof *args->inputs);
    r->n_expected = args->n_ints;
    for (uint32_t row = 0; row < args->key.n_tokens; row++) {
        r->expected[row] = token->ids[row];
        r->expected[args->stride + row] = args->inputs[args->stride + row] + 1;
    }
}

m40llm_status m40_cuda_loop_step(struct m40_backend *be, const struct m40_loop_args *args, bool *out_is_done, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_resident *r = c->resident;
    struct m40_cuda_step *step = m40_cuda_find_step(c, &args->key);
    uint64_t begin_ns = m40_now_ns();
    bool has_ended = false;

    *out_is_done = false;
    if (!step || !step->program || args->n_ints > RESIDENT_MAX_INTS || args->key.n_tokens > RESIDENT_MAX_ROWS)
        return M40LLM_OK;
    m40_cuda_step_used(c, step);
    M40_TRY(m40_cuda_check(c, c->driver->CtxSetCurrent(c->context), "making the context current", err));
    if (!step->is_described) {
        struct resident_program program = {
            .instructions = m40_cuda_ptr(r->slots[step->program - 1].instructions),
            .inputs = m40_cuda_ptr(args->inputs_at),
            .best = m40_cuda_ptr(args->best),
            .n_instructions = step->n_instructions,
            .n_rows = args->key.n_tokens,
            .stride = args->stride,
            .poll_at = step->poll_at,
        };

        M40_TRY(m40_cuda_write(be, r->programs + (step->program - 1) * sizeof program, &program, sizeof program, err));
        step->is_described = true;
    }
    if (!is_expected(r, step, args))
        M40_TRY(command(c, step, args, err));
    M40_TRY(await(c, begin_ns, &has_ended, err));
    while (has_ended) { /* idle, old, or before it saw the command */
        r->is_running = false;
        r->launch++;
        M40_TRY(command(c, step, args, err));
        M40_TRY(await(c, begin_ns, &has_ended, err));
    }
    take_token(r, args);
    c->counters.n_syncs++;
    c->counters.n_loop_tokens++;
    *out_is_done = true;
fail:
    return status;
}
