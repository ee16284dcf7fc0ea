/* Inside the emulated driver. It is a test tool: unlike the library it reads the environment (at cuInit) and explains misuse on stderr.
 *
 *   M40LLM_EMU_SEED     orders threads, blocks and asynchronous work (default 1)
 *   M40LLM_EMU_DEVICES  0 to 8 (default 1)
 *   M40LLM_EMU_MEMORY   MiB a device (default 512)
 *   M40LLM_EMU_DRIVER   what cuDriverGetVersion says (default 12040)
 *   M40LLM_EMU_CC       compute capability (default 52)
 *   M40LLM_EMU_SMS      multiprocessors (default 4)
 *
 * Every exported function runs under one lock, so state here needs none of its own. */
#ifndef M40_CUDA_EMU_H
#define M40_CUDA_EMU_H

#include "backend/cuda/cuda_driver.h"
#include "backend/cuda/kernels/simt.h"

#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifndef EMU_ASAN
#define EMU_ASAN 0
#endif

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#define EMU_POISON(ptr, n_bytes)   __asan_poison_memory_region(ptr, n_bytes)
#define EMU_UNPOISON(ptr, n_bytes) __asan_unpoison_memory_region(ptr, n_bytes)
#else
#define EMU_POISON(ptr, n_bytes)   ((void)0)
#define EMU_UNPOISON(ptr, n_bytes) ((void)0)
#endif

#define EMU_MAX_DEVICES 8
/* What sm_52 has. */
#define EMU_THREADS_PER_BLOCK 1024
#define EMU_THREADS_PER_SM    2048
#define EMU_BLOCKS_PER_SM     32
#define EMU_SHARED_PER_SM     98304

/* ---- settings, chance, complaints: emu_base.c ---- */

struct emu_settings {
    uint64_t seed;
    int n_devices, driver_version, cc, n_sms;
    size_t memory_bytes;
};
extern struct emu_settings emu_settings;

void emu_settings_read(void);
uint64_t emu_random(void);
/* n > 0 */
static inline uint32_t emu_random_below(uint32_t n)
{
    return (uint32_t)((emu_random() >> 32) * n >> 32);
}
static inline bool emu_chance(uint32_t one_in)
{
    return emu_random_below(one_in) == 0;
}

/* A permutation of 0..n-1, drawn by the seed: its k-th element is (first + k * stride) % n. */
struct emu_order {
    uint64_t n, first, stride;
};
struct emu_order emu_order_draw(uint64_t n);
static inline uint64_t emu_order_at(const struct emu_order *order, uint64_t k)
{
    return (order->first + k * order->stride) % order->n;
}

/* Says on stderr what the caller did wrong. */
CUresult emu_complain(CUresult result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- device memory: emu_memory.c ---- */

struct emu_allocation {
    size_t offset, n_bytes;
};

struct emu_arena {
    uint8_t *base; /* mapped on first use */
    size_t n_bytes, n_used;
    size_t high_water;                  /* nothing was ever allocated behind it */
    struct emu_allocation *allocations; /* by offset */
    size_t n_allocations, capacity;
};

CUresult emu_memory_alloc(struct emu_arena *arena, size_t n_bytes, CUdeviceptr *ptr);
CUresult emu_memory_free(struct emu_arena *arena, CUdeviceptr ptr);
void emu_memory_unmap(struct emu_arena *arena);
/* Whether [ptr, ptr + n_bytes) lies inside one live allocation. */
bool emu_memory_contains(const struct emu_arena *arena, CUdeviceptr ptr, size_t n_bytes);
/* Host code cannot touch device memory; work done between show and hide can. */
void emu_memory_show(struct emu_arena *arena);
void emu_memory_hide(struct emu_arena *arena);

/* ---- kernels: emu_launch.c, on emu_fiber.c ---- */

struct emu_launch {
    const struct simt_kernel *kernel;
    uint32_t grid[3], block_dim;
    uint32_t shared_bytes; /* static, as the PTX says */
    uint32_t dynamic_bytes;
};

struct emu_run;

const struct simt_kernel *emu_kernel_find(const char *name);
uint32_t emu_blocks_per_sm(uint32_t block_dim, uint32_t shared_bytes);
/* Runs all blocks to the end, unless threads spin for long, perhaps for the host: then *suspended is set, and the next call with it goes on. args: the kernel's struct; it and launch stay. */
CUresult emu_launch_run(const struct emu_launch *launch, const void *args, struct emu_run **suspended);
/* Forgets one that is suspended. */
void emu_launch_abandon(struct emu_run *suspended);
/* Frees the pools; between launches. */
void emu_launch_drop(void);

/* ---- modules: emu_module.c ---- */

struct CUfunc_st {
    struct CUfunc_st *next;
    const struct simt_kernel *kernel;
    uint32_t shared_bytes;
    bool has_dynamic; /* it takes dynamic shared memory */
};

/* image: PTX, which is copied. */
CUresult emu_module_load(CUmodule *module, const char *image);
/* After all work that may use it. */
CUresult emu_module_unload(CUmodule module);
CUresult emu_module_function(CUfunction *function, CUmodule module, const char *name);
/* grid and block: three numbers each. */
CUresult emu_launch_check(CUfunction f, const unsigned *grid, const unsigned *block, unsigned dynamic_shared_bytes, void **params);

/* ---- fibers: emu_fiber.c ---- */

/* A host thread's context (the scheduler's) or an emulated thread's stack. */
struct emu_fiber {
    void *sp;
    uint8_t *stack; /* lowest byte */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    struct emu_fiber *next_free;
    struct emu_block *block;
    uint32_t thread;
};
extern struct emu_fiber emu_main_fiber;

/* A fiber from the pool; its function starts, or returns from emu_fiber_switch, when it is next switched to. NULL: no memory. */
struct emu_fiber *emu_fiber_take(void (*function)(void));
void emu_fiber_put(struct emu_fiber *fiber);
/* Suspends `from`, which is running, and goes on with `to`. */
void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to);
/* The first thing a fiber's function calls. */
void emu_fiber_begin(struct emu_fiber *self);
/* Forgets all fibers, also those in the middle of something. */
void emu_fibers_drop(void);

/* ---- streams, events, graphs: emu_stream.c ---- */

enum emu_op_kind { EMU_OP_COPY, EMU_OP_SET8, EMU_OP_SET32, EMU_OP_LAUNCH, EMU_OP_RECORD, EMU_OP_WAIT };

struct emu_op {
    struct emu_op *next;
    enum emu_op_kind kind;
    void *to;
    const void *from;
    size_t n; /* bytes, or words of SET32 */
    uint32_t value;
    CUevent event;
    uint64_t ticket; /* RECORD: its number; WAIT: the number waited for */
    struct emu_launch launch;
    struct emu_run *suspended; /* where it stands, or NULL */
    size_t arg_bytes;
    _Alignas(16) uint8_t args[];
};

struct emu_queue {
    struct emu_op *head, *last;
};

struct CUevent_st {
    bool timed, destroyed;
    uint32_t n_refs;         /* operations that name it */
    uint64_t recorded, done; /* tickets: of the last record queued, of the last one executed */
    uint64_t done_ns;
    CUgraph captured; /* where its last record was captured, or NULL */
};

struct CUgraph_st {
    struct emu_queue ops; /* in the order of capture, which is a legal one */
    bool broken;
};

struct CUgraphExec_st {
    struct emu_queue ops;
};

struct CUstream_st {
    struct CUstream_st *next;
    struct CUctx_st *context;
    bool blocking; /* ordered with the default stream */
    struct emu_queue ops;
    CUgraph capture; /* where operations go instead, or NULL */
    bool capture_origin;
};

struct CUctx_st {
    int device;
    uint32_t n_retained;
    CUresult error; /* sticks until the context is gone, as on a real card */
    struct emu_arena arena;
    struct CUstream_st default_stream;
};
extern struct CUctx_st emu_contexts[EMU_MAX_DEVICES];

CUresult emu_stream_create(CUstream *out, struct CUctx_st *context, bool blocking);
bool emu_stream_valid(CUstream stream);
CUresult emu_stream_destroy(CUstream stream);

/* An operation with room for args; NULL: no memory. */
struct emu_op *emu_op_new(enum emu_op_kind kind, size_t arg_bytes);
/* Takes op (NULL: OUT_OF_MEMORY) into the stream, or into the graph that is being captured from it. */
CUresult emu_stream_push(CUstream stream, struct emu_op *op);

/* Executes at least what the stream holds (NULL: what every stream holds), and others' work by chance. */
CUresult emu_drain(CUstream stream);
/* Executes a few operations of any streams, or none, by chance. */
void emu_progress(void);
/* Drops the context's streams and what they hold. */
void emu_streams_drop(struct CUctx_st *context);

CUresult emu_event_create(CUevent *out, bool timed);
void emu_event_destroy(CUevent event);
CUresult emu_event_record(CUevent event, CUstream stream);
CUresult emu_event_wait(CUstream stream, CUevent event);
CUresult emu_event_drain(CUevent event);

/* Whether any stream is being captured: then calls that would synchronise are refused. */
bool emu_capturing(void);
CUresult emu_capture_begin(CUstream stream);
CUresult emu_capture_end(CUstream stream, CUgraph *out);
CUresult emu_graph_instantiate(CUgraphExec *out, CUgraph graph);
CUresult emu_graph_launch(CUgraphExec exec, CUstream stream);
void emu_queue_free(struct emu_queue *queue);

#endif
