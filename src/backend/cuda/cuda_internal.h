/* What the files of the CUDA backend share: its object, memory, modules and launches.
 *
 * One thread at a time, but any thread: every function that calls the driver makes the context current first. Everything runs in order on one stream. Operations neither allocate
 * nor wait for the device. There is no second stream but a lane's (cuda_lane.c), which is an object of its own: see cuda_upload.c. */
#ifndef M40_CUDA_INTERNAL_H
#define M40_CUDA_INTERNAL_H

#include "backend/backend.h"
#include "backend/cuda/cuda_driver.h"
#include "backend/cuda/kernels/expert_args.h"
#include "backend/cuda/kernels/kernel_args.h"

enum { M40_CUDA_MAX_THREADS = 256 };     /* a block; what the kernels are compiled for */
enum { M40_CUDA_STAGE_BYTES = 4 << 20 }; /* most that one piece of staged data may have */
enum { M40_CUDA_N_STAGES = 4 };          /* pieces of the ring */
enum { M40_CUDA_READ_BYTES = 1 << 20 };  /* pinned memory that reads pass through, at first; reserve() makes it as large as the workload says */
enum { M40_CUDA_READ_MAX_BYTES = 64 << 20 };
enum {
    M40_CUDA_N_COUNTERS = 32768
};                              /* of scratch.counters: row tiles of the largest matrix that is shared, a vocabulary or all experts of gpt-oss-120b */
enum { M40_CUDA_N_STEPS = 64 }; /* recorded steps that are kept */
enum {
    M40_CUDA_SMALL_TOKENS = 16
}; /* for so many tokens a matmul can always share K among blocks through scratch.partials; for more where it fits */

struct m40_cuda_area {
    m40_addr addr;
    uint64_t n_bytes;
};

/* Scratch memory, sized by reserve(). An operation may use all of it; nothing in it lives on to the next operation, but counters are zero between operations. */
struct m40_cuda_scratch {
    struct m40_cuda_area prepared_x; /* float [n_tokens][n_cols]: what gemm<T>_<format> takes of x */
    struct m40_cuda_area x_sums;     /* float [n_tokens][ceil(n_cols / 16)] */
    struct m40_cuda_area
        partials; /* float: group sums of a matmul, at least [ceil(n_cols / 2048)][min(n_tokens, 16)][n_rows], or pieces of attention, or what sampling knows of its rows */
    struct m40_cuda_area counters; /* uint32 [M40_CUDA_N_COUNTERS]: zero; a kernel that counts leaves zero behind */
};

/* Pinned memory that writes pass through: a ring of stages, each filled from its beginning, sent piece by piece, and used again once the event behind its last copy has passed. */
struct m40_cuda_staging {
    uint8_t *host; /* [M40_CUDA_N_STAGES][M40_CUDA_STAGE_BYTES] */
    CUevent sent[M40_CUDA_N_STAGES];
    bool is_sending[M40_CUDA_N_STAGES]; /* the event was recorded and nobody has waited since */
    uint32_t current;
    uint64_t n_used; /* bytes of the current stage */
};

struct m40_cuda_function {
    CUfunction function;
    char name[64];
};

/* Kernels of the operations that every model needs; loaded at open. */
struct m40_cuda_op_kernels {
    CUfunction rms_norm, rms_norm_residual, rms_norm_short, rope_append, glu, softcap, gather_rows, argmax;
    CUfunction route, expert_plan, combine;
    CUfunction sample_measure, sample_bin, sample_choose;
    CUfunction attention_split[4]; /* by log2 of the query heads a warp takes */
    CUfunction attention_split_f32, attention_near, attention_merge;
    CUfunction attention_fused[2]; /* 64 and 128 elements of a head a block */
};

/* A step that was seen; exec is NULL until it comes for the second time. */
struct m40_cuda_step {
    struct m40_step_key key;
    CUgraphExec exec;
    uint64_t last_used;
};

struct m40_cuda_steps {
    struct m40_cuda_step items[M40_CUDA_N_STEPS];
    uint32_t n;
    uint64_t clock, waited;          /* last_used is a time of this clock; the last time that nothing was under way */
    struct m40_cuda_step *recording; /* the stream is being captured for it; NULL: it is not */
};

/* What was asked of the driver, for tests and measurements. Between steps of decoding only the launches and one synchronisation a step are added. */
struct m40_cuda_counters {
    uint64_t n_launches, n_graph_launches;
    uint64_t n_syncs;  /* calls that wait for the card */
    uint64_t n_allocs; /* calls that allocate or free memory, the card's or pinned */
};

struct m40_cuda {
    struct m40_backend base;
    struct m40_cuda_driver *driver;
    m40llm_device_info info;
    CUdevice device;
    CUcontext context; /* the primary one, retained */
    CUstream stream;
    uint32_t n_sms;
    bool use_sass; /* machine code for sm_52 where it is embedded */

    CUmodule *modules;                   /* [m40_n_kernel_images], NULL: not loaded */
    struct m40_cuda_function *functions; /* every function given out, so that an error can name it */
    size_t n_functions, functions_capacity;
    uint64_t jit_ns, jit_reported_ns; /* time spent loading modules: all, and said in the log */
    uint32_t n_loaded;
    CUfunction last_launched;
    struct m40_cuda_op_kernels kernels;
    struct m40_cuda_matmul *matmul;     /* cuda_launch_matmul.c's own: one block from m40_calloc or NULL; freed with m40_free at close */
    struct m40_cuda_cublas *cublas;     /* cuda_launch_cublas.c's own; NULL: matmuls are ours, whatever the number of tokens */
    struct m40_cuda_upload *upload;     /* cuda_upload.c's own; NULL: no matrices are being made */
    CUfunction repack[M40_DTYPE_LIMIT]; /* by type number; NULL: not looked up */

    struct m40_workload workload;
    struct m40_cuda_scratch scratch;
    struct m40_cuda_staging staging;
    uint8_t *read_buffer; /* pinned */
    uint64_t read_bytes;  /* of it */
    struct m40_cuda_steps steps;
    struct m40_cuda_counters counters;
};

static inline struct m40_cuda *m40_cuda_of(struct m40_backend *be)
{
    return (struct m40_cuda *)be;
}

/* For the arguments of kernels; nothing on the host follows it. */
static inline void *m40_cuda_ptr(m40_addr addr)
{
    return (void *)(uintptr_t)addr;
}

static inline uint32_t m40_cuda_div_up(uint64_t n, uint32_t unit)
{
    return (uint32_t)((n + unit - 1) / unit);
}

/* ---- cuda_module.c ---- */

/* The function `kernel` of the image kernels/<image>.cu; loads the image's module on first use (machine code on sm_52 where embedded, else PTX, which the driver compiles). Slow: for
 * open and matrix_create; the caller keeps the result. */
m40llm_status m40_cuda_kernel(struct m40_cuda *c, const char *image, const char *kernel, CUfunction *out, m40llm_error *err);

/* Issues function over a grid of gx * gy * gz blocks of `threads` threads. args: the kernel's one argument, copied before the return. */
m40llm_status m40_cuda_launch(struct m40_cuda *c, CUfunction function, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t threads, const void *args,
                              m40llm_error *err);

/* As m40_cuda_status; because an error of the device shows up at a later call, the text also names the kernel that was issued last. */
m40llm_status m40_cuda_check(struct m40_cuda *c, CUresult result, const char *call, m40llm_error *err);

/* Makes the context current on this thread. */
m40llm_status m40_cuda_enter(struct m40_cuda *c, m40llm_error *err);

/* Says in the log, at info, how long modules took to load since the last report, if any were. */
void m40_cuda_report_loading(struct m40_cuda *c);
void m40_cuda_unload(struct m40_cuda *c);

/* ---- cuda_memory.c ---- */

/* The operations of the table. */
m40llm_status m40_cuda_alloc(struct m40_backend *be, uint64_t n_bytes, m40_addr *out, m40llm_error *err);
void m40_cuda_free(struct m40_backend *be, m40_addr addr);
m40llm_status m40_cuda_write(struct m40_backend *be, m40_addr dst, const void *src, uint64_t n_bytes, m40llm_error *err);
m40llm_status m40_cuda_read(struct m40_backend *be, void *dst, m40_addr src, uint64_t n_bytes, m40llm_error *err);
m40llm_status m40_cuda_copy(struct m40_backend *be, m40_addr dst, m40_addr src, uint64_t n_bytes, m40llm_error *err);
m40llm_status m40_cuda_sync(struct m40_backend *be, m40llm_error *err);
m40llm_status m40_cuda_reserve(struct m40_backend *be, const struct m40_workload *workload, m40llm_error *err);

/* Pinned host memory. NULL is accepted by free. */
m40llm_status m40_cuda_alloc_pinned(struct m40_cuda *c, uint64_t n_bytes, void **out, m40llm_error *err);
void m40_cuda_free_pinned(struct m40_cuda *c, void *ptr);

/* Wait for all that was issued, or for an event; the only two places that do. */
m40llm_status m40_cuda_wait(struct m40_cuda *c, m40llm_error *err);
m40llm_status m40_cuda_wait_event(struct m40_cuda *c, CUevent event, m40llm_error *err);

/* For data that is made rather than copied: n_bytes <= M40_CUDA_STAGE_BYTES of pinned memory, aligned to 256, the caller's until stage_send(), which issues the copy of its first
 * n_bytes to dst, in order with the operations. Waits where the ring is full. */
m40llm_status m40_cuda_stage(struct m40_cuda *c, uint64_t n_bytes, void **out, m40llm_error *err);
m40llm_status m40_cuda_stage_send(struct m40_cuda *c, m40_addr dst, uint64_t n_bytes, m40llm_error *err);

/* Pinned buffers, made at open. */
m40llm_status m40_cuda_memory_open(struct m40_cuda *c, m40llm_error *err);
void m40_cuda_memory_close(struct m40_cuda *c);

/* ---- cuda_graph.c ---- */

/* The operations of the table. */
m40llm_status m40_cuda_step_begin(struct m40_backend *be, const struct m40_step_key *key, bool *out_is_issued, m40llm_error *err);
m40llm_status m40_cuda_step_end(struct m40_backend *be, bool is_whole, m40llm_error *err);

/* Every recorded step; for what changes addresses that they use. The stream must be idle. */
void m40_cuda_forget_steps(struct m40_cuda *c);

/* ---- cuda_scratch.c ---- */

struct m40_cuda_scratch_sizes {
    uint64_t prepared_x_bytes, x_sums_bytes, partials_bytes, counters_bytes; /* multiples of 256 */
};

/* Of the areas of scratch memory for a workload. */
struct m40_cuda_scratch_sizes m40_cuda_scratch_sizes(const struct m40_workload *workload);

/* ---- cuda_lane.c ---- */

/* The operations of the table. */
m40llm_status m40_cuda_open_lane(struct m40_backend *be, struct m40_backend **out, m40llm_error *err);
m40llm_status m40_cuda_is_idle(struct m40_backend *be, bool *out, m40llm_error *err);

/* c->stream, with the highest priority or the lowest; the context is current. */
m40llm_status m40_cuda_create_stream(struct m40_cuda *c, bool is_urgent, m40llm_error *err);

/* ---- cuda_device.c ---- */

/* The card that options->spec names ("cuda", "cuda:N", "auto" or NULL: the best), with why in out->why. NO_DEVICE says why there is none. */
m40llm_status m40_cuda_choose(struct m40_cuda_driver *driver, const m40llm_device_options *options, CUdevice *out_device, m40llm_device_info *out,
                              m40llm_error *err);

/* ---- cuda_launch_ops.c ---- */

struct kv_view m40_cuda_kv_view(const struct m40_kv_layer *kv, const struct m40_rows *rows);
m40llm_status m40_cuda_load_op_kernels(struct m40_cuda *c, m40llm_error *err);
m40llm_status m40_cuda_rms_norm(struct m40_backend *be, const struct m40_rms_norm_args *args, m40llm_error *err);
m40llm_status m40_cuda_rope_append(struct m40_backend *be, const struct m40_rope_append_args *args, m40llm_error *err);
m40llm_status m40_cuda_glu(struct m40_backend *be, const struct m40_glu_args *args, m40llm_error *err);
m40llm_status m40_cuda_softcap(struct m40_backend *be, const struct m40_softcap_args *args, m40llm_error *err);
m40llm_status m40_cuda_gather_rows(struct m40_backend *be, const struct m40_gather_rows_args *args, m40llm_error *err);
m40llm_status m40_cuda_argmax(struct m40_backend *be, const struct m40_argmax_args *args, m40llm_error *err);

/* ---- cuda_launch_experts.c ---- */

/* Of a matmul's pairs, tokens * experts of a token: how many at most a block of the plan has; 0: each is a mat-vec of its own, and there is no plan. */
uint32_t m40_cuda_expert_tile(uint32_t n_tokens, uint32_t n_used, uint32_t n_experts);

/* Where the parts of a plan are. */
struct m40_cuda_expert_plan {
    m40_addr n_tiles, tiles, small_tiles, pairs; /* as expert_plan_args has them */
    uint32_t max_tiles, max_small_tiles;
    uint32_t small_tile; /* pairs that a tile of the second list has at most; 0: there is no such list */
};
struct m40_cuda_expert_plan m40_cuda_expert_plan(m40_addr plan, uint32_t n_pairs, uint32_t n_experts, uint32_t tile);

m40llm_status m40_cuda_route(struct m40_backend *be, const struct m40_route_args *args, m40llm_error *err);
m40llm_status m40_cuda_combine(struct m40_backend *be, const struct m40_combine_args *args, m40llm_error *err);

/* ---- cuda_launch_sample.c ---- */

m40llm_status m40_cuda_sample(struct m40_backend *be, const struct m40_sample_args *args, m40llm_error *err);
/* Scratch memory (partials) that it needs. */
uint64_t m40_cuda_sample_bytes(const struct m40_workload *workload);

/* ---- cuda_launch_attention.c ---- */

m40llm_status m40_cuda_attention(struct m40_backend *be, const struct m40_attention_args *args, m40llm_error *err);

/* ---- cuda_bandwidth.c ---- */

m40llm_status m40_cuda_measure_bandwidth(struct m40_backend *be, double *out_bytes_per_s, m40llm_error *err);

#endif
