/* What the machine code of a kernel costs on a Tesla M40: where the hot code is, what it issues, how many blocks fit, which limit binds, and how long that takes.
 *
 * Mat-vec kernels (matvec<T>_<format>): a lane owns a row of each of n_row_tiles tiles, a warp 32 rows x 256 columns of each. GEMM kernels (gemm<T>_<format>): T tokens a block, its
 * rows and threads by GEMM_ROWS_OF and GEMM_THREADS_OF. That, and the stages of x in read_matvec, follow src/backend/cuda/kernels/matmul_args.h and matvec_tmpl.h; bytes a weight are
 * m40_format's.
 *
 * What no public measurement settles: how long a 128-bit load of shared memory takes where all lanes read the same 16 bytes. Here it is one clock of an SM, as bank rules
 * say; were it four (32 words a clock to the registers), mat-vecs of several tokens would be bound by it (column `words'). */
#ifndef M40_BENCH_SM52_MODEL_H
#define M40_BENCH_SM52_MODEL_H

#include "bench/sm52_parse.h"
#include "tensor/format.h"

/* The card. */
#define SM52_SMS            24
#define SM52_CLOCK_HZ       1.11e9
#define SM52_PEAK_BYTES_S   288e9
#define SM52_READ_BYTES_S   248e9  /* a scan near memcpy speed reached 31.0e9 int32/s in and out: 86% of the peak */
#define SM52_ECC_FACTOR     0.88   /* assumed: no measurement of an M40 is known; the check bits take 1/16 of memory and further transactions */
#define SM52_LATENCY_CLOCKS 450    /* assumed: a load from DRAM under load */
#define SM52_LAUNCH_S       3.7e-6 /* back to back, measured on a GTX 980 (clpeak) */

enum sm52_family { SM52_MATVEC, SM52_GEMM, SM52_OTHER };

enum sm52_limit { SM52_BY_REGISTERS, SM52_BY_SHARED, SM52_BY_THREADS, SM52_BY_BLOCKS };

enum sm52_bound { SM52_MEMORY, SM52_ISSUE, SM52_CONVERSION, SM52_SHIFT, SM52_SHARED_BOUND, SM52_LATENCY, SM52_N_BOUNDS };
extern const char *const sm52_bound_names[SM52_N_BOUNDS];

/* Blocks that an SM holds at once, and what limits their number. */
struct sm52_occupancy {
    uint32_t n_blocks, n_warps;
    enum sm52_limit limit;
};

struct sm52_occupancy sm52_occupancy(uint32_t n_registers, uint32_t n_shared_bytes, uint32_t n_threads);

/* Instructions first .. end - 1; a loop's last one branches back to its first. */
struct sm52_region {
    uint32_t first, end;
    bool is_loop;
};

/* The hot code of a kernel: the smallest loop around the straight run of code with the most FFMA, or that run where no loop is around it; for SM52_OTHER the
 * innermost loop that loads most from memory (where none loads, the longest), or all of the code where there is no loop. */
struct sm52_region sm52_hot_region(const struct sm52_kernel *kernel, enum sm52_family family);
/* The smallest loop around a region; false where there is none. */
bool sm52_enclosing_loop(const struct sm52_kernel *kernel, struct sm52_region region, struct sm52_region *loop);

/* Loads from memory on a way through the code, n instructions one after the other. */
struct sm52_flight {
    uint32_t max_bytes;   /* a thread: the most that is under way at once */
    uint32_t wait_clocks; /* latency that a warp on its own would see: each wait, less the slots issued since its load */
};

struct sm52_flight sm52_flight(const struct sm52_kernel *kernel, const uint32_t *insts, size_t n);

/* Weights of a row (lane) that a pass of a mat-vec kernel's hot region takes: a power of two, found in three ways. */
struct sm52_weights {
    uint32_t by_ffma;     /* FFMA / tokens, rounded down: offsets add some */
    uint32_t by_x;        /* words loaded from shared memory / tokens, rounded down, times n_row_tiles */
    uint32_t n_row_tiles; /* that a warp works on at once: each x serves so many weights */
    uint32_t by_bytes;    /* bytes loaded / the format's bytes a weight, to the nearest: a block's head may be loaded outside */
    uint32_t n;           /* what at least two of them say; 0: they all differ */
};

/* One kernel, read. */
struct sm52_cost {
    const struct sm52_kernel *kernel;
    enum sm52_family family;
    const struct m40_format *format; /* NULL: SM52_OTHER */
    uint32_t n_tokens;               /* T */
    struct sm52_occupancy occupancy;
    struct sm52_region hot;
    struct sm52_counts pass;     /* a warp, once through the hot region; of a GEMM the mean over the block's two kinds of warps */
    struct sm52_counts chunk;    /* SM52_MATVEC: a warp from its start to its end: n_row_tiles x 32 rows x 256 columns x T tokens */
    struct sm52_flight flight;   /* SM52_MATVEC: bytes of a pass, waits of the chunk; SM52_GEMM: of a pass of those warps that wait longer */
    struct sm52_weights weights; /* of SM52_MATVEC */
    uint32_t n_passes;           /* of the hot region in a chunk */
};

m40llm_status sm52_cost_read(struct sm52_cost *cost, const struct sm52_kernel *kernel, m40llm_error *err);

/* Slots of the hot region for each weight (of a lane); of the whole chunk: chunk.slots / (256 * n_row_tiles). */
double sm52_hot_slots(const struct sm52_cost *cost);

/* Seconds that each limit would take alone for a matrix of n_rows x n_cols and n_tokens, the greatest of them, and which it is. */
struct sm52_time {
    double limit_s[SM52_N_BOUNDS];
    double s;
    enum sm52_bound bound;
};

/* Sets bound and s by the limits. */
void sm52_pick_bound(struct sm52_time *time);

/* read_bytes_s: SM52_READ_BYTES_S, times SM52_ECC_FACTOR with ECC. SM52_MATVEC: n_tokens is the kernel's. */
struct sm52_time sm52_matmul_time(const struct sm52_cost *cost, uint64_t n_rows, uint64_t n_cols, uint64_t n_tokens, double read_bytes_s);
/* SM52_OTHER: the limit that binds one pass with all SMs busy, and its clocks of an SM, each. */
struct sm52_time sm52_pass_time(const struct sm52_cost *cost);

/* ---- whole models ---- */

struct sm52_model {
    const char *name;
    uint32_t n_layers, n_embd, n_q, n_kv, n_ffn, n_vocab;
    uint32_t n_experts, n_used; /* mixtures: n_ffn is an expert's; n_experts 0: dense */
};

/* A mix of weight types: of most matrices, of attn_v and ffn_down in the layers that get more bits, and of the output matrix. */
struct sm52_mix {
    const char *name;
    uint32_t base, more, output; /* dtypes */
    uint32_t experts;            /* of all matrices of experts; 0 (as F32): base and more */
};

extern const struct sm52_model sm52_models[];
extern const struct sm52_mix sm52_mixes[];
extern const size_t sm52_n_models, sm52_n_mixes;

struct sm52_prediction {
    double bytes;             /* of weights that a step reads */
    double s;                 /* of the step's matmuls */
    double memory_s, issue_s; /* what memory and issue alone would take */
};

/* A step over n_tokens tokens: with the mat-vec kernels of that many tokens (1, 2, 4, 8, 16), or with the GEMM kernels. false: a kernel that it needs was not read, or a row of
 * the model is no whole blocks of the mix. Mixtures: few tokens go through the mat-vec kernel of one, a pair of token and expert at a time; choices are taken for random. */
bool sm52_predict(const struct sm52_cost *costs, size_t n_costs, const struct sm52_model *model, const struct sm52_mix *mix, enum sm52_family family,
                  uint32_t n_tokens, double read_bytes_s, struct sm52_prediction *out);

/* Kernels of a layer that a step of one token launches, for the launch share: norm and QKV, rope_append, attention and its merge, o, norm and gate+up and SwiGLU, down. */
#define SM52_LAUNCHES_PER_LAYER 7
/* Of a mixture: norm, router, route, gate+up and their product, down, combine instead of the last two. */
#define SM52_LAUNCHES_PER_MIXTURE 11

#endif
