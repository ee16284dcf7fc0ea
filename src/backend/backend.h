/* THE contract between the forward pass and the machines it runs on: memory, weights, and the operations that a forward pass is made of.
 *
 * A backend is single-threaded: one thread at a time. Operations are issued in order and may run later; read() and sync() wait for all that were issued. Every
 * address belongs to the backend that gave it. Tensors are dense, row-major, slowest dimension first; activations are FP32. How each operation rounds, and in which
 * order it adds, is docs/numerics.md; every backend and every variant gives the same bits. A shape that a backend cannot serve is an error (UNSUPPORTED), never a detour.
 */
#ifndef M40_BACKEND_BACKEND_H
#define M40_BACKEND_BACKEND_H

#include "base/act.h"
#include "base/status.h"
#include "tensor/format.h"

#include <stdbool.h>

/* A place in the backend's memory, in bytes; plain arithmetic moves inside one allocation. 0: none. */
typedef uint64_t m40_addr;

/* A weight matrix: n_rows outputs, n_cols inputs (= K). `data` is the file's rows (CPU) or tiles (CUDA). */
struct m40_matrix {
    const struct m40_format *format;
    uint64_t n_rows, n_cols;
    m40_addr data;
    uint64_t size_bytes; /* of device memory that it owns */
};

/* The largest step that will be asked for; sizes the backend's scratch memory, so that no operation allocates. */
struct m40_workload {
    uint32_t n_tokens; /* rows in one step */
    uint32_t n_cols;   /* widest matmul input */
    uint32_t n_rows;   /* widest matmul output */
    uint32_t n_heads, head_dim;
    uint32_t n_ctx;
    uint32_t n_used;        /* experts of a token; 0: there are none */
    uint32_t n_expert_cols; /* widest input of an expert_matmul that has a row for each of a token's experts */
    uint64_t n_weights;     /* of the largest matrix of a matmul; 0: as many as n_rows * n_cols */
    uint64_t read_bytes;    /* that are read at once with one wait; what read() is asked for beyond this, or beyond 64 MiB, may take several */
};

/* Rows of a matrix, one after another, in host memory and in the file's format. */
struct m40_matrix_part {
    const void *rows;
    uint64_t n_rows;
    bool is_file; /* the rows are in a file that is mapped read-only: their pages may be let go when they have been read (m40_release_file_pages) */
};

enum { M40_KV_PAGE = 32 };       /* tokens in a page of the KV cache */
enum { M40_ATTN_PIECE = 64 };    /* positions in a piece of attention's softmax */
enum { M40_MATMUL_CHUNK = 256 }; /* K in a chunk sum */
enum { M40_MATMUL_HALF = 4 };    /* chunks in the sum of half a group */
enum { M40_MATMUL_GROUP = 8 };   /* chunks in a group sum: its first half and its second */
enum { M40_NORM_LANES = 256 };   /* partial sums of a norm */
enum { M40_STACK_ROWS = 32 };    /* see matrix_create_stacked */
enum { M40_MAX_EXPERTS = 512 };
enum { M40_MAX_EXPERTS_USED = 32 }; /* by a token */

/* One layer's KV cache: [n_pages][k, v][n_kv_heads][M40_KV_PAGE][head_dim] of type. head_dim is a multiple of 8. */
struct m40_kv_layer {
    m40_addr base;
    m40llm_kv_type type;
    uint32_t n_pages, n_kv_heads, head_dim;
};

/* The rows of a step: which sequence and position each token has. All addresses are the backend's. */
struct m40_rows {
    uint32_t n_tokens;
    uint32_t max_pos; /* no pos is greater: sizes launches */
    m40_addr pos;     /* int32 [n_tokens] */
    m40_addr slot;    /* int32 [n_tokens]: row of the page table */
    m40_addr pages;   /* int32 [n_slots][n_slot_pages]: page of positions 32 i .. 32 i + 31 of the slot's sequence */
    uint32_t n_slot_pages;
    uint32_t n_single; /* a hint that changes no bit: the first n_single rows are probably the only ones of their sequences, as in decoding */
};

enum m40_rope_style {
    M40_ROPE_NORM, /* pairs (2i, 2i + 1): llama files */
    M40_ROPE_NEOX, /* pairs (i, i + n_rot / 2): qwen and most others */
};

struct m40_embed_args {
    const struct m40_matrix *table; /* [n_vocab][n_cols] */
    m40_addr ids;                   /* int32 [n_tokens], each < n_vocab */
    m40_addr y;                     /* [n_tokens][n_cols] */
    uint32_t n_tokens;
    float scale; /* that every value is multiplied by; 1: as they are */
};

/* y = x / sqrt(mean(x^2) + eps) * weight, then + residual if residual, for each row. y may be x or residual. */
struct m40_rms_norm_args {
    m40_addr x, y;     /* [n_rows] rows of n_cols, stride floats apart */
    m40_addr weight;   /* [n_cols] */
    m40_addr residual; /* as x, or 0 */
    uint32_t n_rows, n_cols;
    uint32_t stride; /* 0: n_cols */
    float eps;
};

/* y[t][r] = sum over c of w[r][c] * x[t][c], then + bias[r] if bias, then + residual[t][r] if residual. y may be residual, never x. */
struct m40_matmul_args {
    const struct m40_matrix *w;
    m40_addr x;        /* [n_tokens][w->n_cols] */
    m40_addr bias;     /* [w->n_rows] or 0 */
    m40_addr residual; /* [n_tokens][w->n_rows] or 0 */
    m40_addr y;        /* [n_tokens][w->n_rows] */
    uint32_t n_tokens;
};

/* What lies between the projections and attention: q and k get an rms_norm of each head, where there is one, and are rotated (the first n_rot elements of a head); then k and v of every row are
 * written to their places in the cache, rounded to its type. q is changed in place; k and v stay as they are. */
struct m40_rope_append_args {
    const struct m40_kv_layer *kv;
    const struct m40_rows *rows;
    m40_addr q;                   /* [n_tokens] rows q_stride apart: [n_heads][head_dim] */
    m40_addr k, v;                /* [n_tokens] rows kv_stride apart: [n_kv_heads][head_dim] */
    uint32_t q_stride, kv_stride; /* floats from one token's row to the next one's */
    m40_addr q_norm, k_norm;      /* [head_dim] weights, or 0: no norm; head_dim is at most M40_NORM_LANES */
    float norm_eps;
    m40_addr table;          /* [n_ctx][n_rot / 2][cos, sin] */
    m40_addr q_table;        /* as table, for q; 0: the same */
    uint32_t n_heads, n_rot; /* n_rot 0: nothing is rotated */
    enum m40_rope_style style;
};

/* Causal attention of every row over positions max(0, pos - window + 1) .. pos (window 0: from 0 on) of its own sequence, whose K and V are already in the cache. Head h reads KV head
 * h / (n_heads / n_kv_heads). A score is scale * (q . k); with a soft-cap softcap * tanh(score / softcap). A sink is one more score of its head, of a position without a V. Pages with no position that a row of the step sees are not read, and their entries in the page table may be anything. */
struct m40_attention_args {
    const struct m40_kv_layer *kv;
    const struct m40_rows *rows;
    m40_addr q;        /* [n_tokens] rows q_stride apart: [n_heads][head_dim] */
    m40_addr y;        /* [n_tokens][n_heads][head_dim]; may not be q; both aligned to 16 bytes */
    uint32_t q_stride; /* floats, a multiple of 4 */
    uint32_t n_heads;
    uint32_t window; /* 0: none */
    float scale;
    float softcap;  /* 0: none */
    m40_addr sinks; /* [n_heads] or 0: none */
};

/* How gate and up become one. */
struct m40_act_params {
    enum m40_act act;
    float alpha, limit; /* of M40_ACT_SWIGLU_OAI */
};

/* y = act(gate, up). Where stride is n_cols, y may be gate or up. */
struct m40_glu_args {
    m40_addr gate, up; /* [n_rows] rows of n_cols, stride floats apart */
    m40_addr y;        /* [n_rows][n_cols] */
    uint32_t n_rows, n_cols, stride;
    struct m40_act_params act;
};

/* x = scale * x; with a soft-cap x = softcap * tanh(scale * x / softcap). In place. */
struct m40_softcap_args {
    m40_addr x; /* [n] */
    uint64_t n;
    float scale;
    float softcap; /* 0: none */
};

/* y[i] = x[rows[i]]: rows of n_cols floats. */
struct m40_gather_rows_args {
    m40_addr x;    /* [..][n_cols] */
    m40_addr rows; /* int32 [n_rows] */
    m40_addr y;    /* [n_rows][n_cols] */
    uint32_t n_rows, n_cols;
};

enum m40_gating {
    M40_GATING_SOFTMAX,
    M40_GATING_SIGMOID,
};

/* Which n_used of n_experts each token goes to, greatest logits first, and with what weights ("route" of docs/numerics.md). A token never goes to an expert twice. */
struct m40_route_args {
    m40_addr logits;                      /* [n_tokens][n_experts] */
    m40_addr selection_bias;              /* [n_experts], added for the choice only; 0: none */
    m40_addr ids;                         /* int32 [n_tokens][n_used], by rank */
    m40_addr weights;                     /* [n_tokens][n_used] */
    m40_addr plan;                        /* m40_expert_plan_bytes of the backend's own notes, aligned to 16, for the expert_matmuls that follow */
    uint32_t n_tokens, n_experts, n_used; /* n_used <= n_experts <= M40_MAX_EXPERTS, n_used <= M40_MAX_EXPERTS_USED */
    enum m40_gating gating;
    bool is_normalised; /* a token's weights add up to scale */
    float scale;
};

/* A matmul for each pair p of a token and one of its experts, p = token * n_used + rank: y[p] = x times the matrix of expert ids[p], + its bias. */
struct m40_expert_matmul_args {
    const struct m40_matrix *
        w; /* the experts' matrices on top of each other, all of n_rows rows, a multiple of M40_STACK_ROWS; where is_gated, made by matrix_create_interleaved */
    m40_addr ids, plan; /* as route left them */
    m40_addr x;         /* a row of w->n_cols for each token, or, where has_pair_rows, for each pair */
    m40_addr bias;      /* [n_experts][rows of y] or 0 */
    m40_addr up_bias;   /* is_gated: that of up, where bias is gate's */
    m40_addr y;         /* [n_tokens * n_used][n_rows]; not x */
    uint32_t n_experts, n_tokens, n_used;
    bool has_pair_rows;
    bool is_gated; /* a matrix is gate and up; y, of half as many columns, is act(gate, up) */
    struct m40_act_params act;
};

/* y[t] = weights[t][0] * x[t][0] + weights[t][1] * x[t][1] ..., then + sigmoid(shared_gate[t]) * shared[t], then + residual[t]. */
struct m40_combine_args {
    m40_addr x;           /* [n_tokens][n_used][n_cols] */
    m40_addr weights;     /* [n_tokens][n_used] */
    m40_addr shared;      /* [n_tokens][n_cols], of an expert that every token goes to; or 0 */
    m40_addr shared_gate; /* [n_tokens], or 0: the shared expert counts in full */
    m40_addr residual;    /* [n_tokens][n_cols] */
    m40_addr y;           /* [n_tokens][n_cols]; may be residual */
    uint32_t n_tokens, n_used, n_cols;
};

/* The column of every row's greatest element: the lowest of several, never a NaN, 0 where all are -inf or NaN. */
struct m40_argmax_args {
    m40_addr x;   /* [n_rows][n_cols] */
    m40_addr ids; /* int32 [n_rows] */
    uint32_t n_rows, n_cols;
};

/* A token for each row, as "sample" of docs/numerics.md chooses it; where that has no candidates, as argmax does. n_cols is at most M40_SAMPLE_MAX_COLS (sample.h). */
struct m40_sample_args {
    m40_addr x;    /* [n_rows][n_cols] */
    m40_addr rows; /* struct m40_sample_row [n_rows] (sample.h): with what parameters */
    m40_addr ids;  /* int32 [n_rows] */
    uint32_t n_rows, n_cols;
};

enum m40_step_end {
    M40_STEP_LOGITS, /* nothing more */
    M40_STEP_ARGMAX,
    M40_STEP_SAMPLE,
};

/* What two steps must have in common to be the same operations with the same arguments; everything else about them is in memory. */
struct m40_step_key {
    m40_addr owner; /* memory of whoever issues the step: tells its steps from another's */
    uint32_t n_tokens, n_logits, max_pos;
    enum m40_step_end end; /* what is done with the logits */
};

struct m40_backend;

/* How operations are named: the table is filled with a baseline and entries are replaced by better variants of the same contract. */
struct m40_backend_ops {
    void (*close)(struct m40_backend *be);
    void (*get_info)(const struct m40_backend *be, m40llm_device_info *out);
    m40llm_status (*measure_bandwidth)(struct m40_backend *be, double *out_bytes_per_s, m40llm_error *err);

    /* n_bytes > 0, aligned to 256; content undefined. OUT_OF_DEVICE_MEMORY says how much was asked for and what is free. */
    m40llm_status (*alloc)(struct m40_backend *be, uint64_t n_bytes, m40_addr *out, m40llm_error *err);
    void (*free)(struct m40_backend *be, m40_addr addr); /* 0 is accepted; waits for operations that may use it */
    /* In order with the operations; src may be changed on return. */
    m40llm_status (*write)(struct m40_backend *be, m40_addr dst, const void *src, uint64_t n_bytes, m40llm_error *err);
    /* Waits for everything issued before. */
    m40llm_status (*read)(struct m40_backend *be, void *dst, m40_addr src, uint64_t n_bytes, m40llm_error *err);
    m40llm_status (*sync)(struct m40_backend *be, m40llm_error *err);

    /* (Re)allocates scratch memory for steps up to the workload. Operations beyond it fail with INVALID_ARGUMENT. */
    m40llm_status (*reserve)(struct m40_backend *be, const struct m40_workload *workload, m40llm_error *err);

    /* Takes a matrix whose rows lie one after another at `rows` (host memory, in the file's format). The CPU uses them in place: they must outlive the matrix.
     * Loads the code that the format needs. */
    m40llm_status (*matrix_create)(struct m40_backend *be, const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, const void *rows,
                                   struct m40_matrix *out, m40llm_error *err);
    void (*matrix_destroy)(struct m40_backend *be, struct m40_matrix *matrix); /* zeroes *matrix; a zeroed one is accepted */
    /* One matrix whose rows are those of the parts, one part after another: one matmul then does the work of several, to the same bits. All parts but the last have a multiple of M40_STACK_ROWS
     * rows. NULL: this backend's matrices stay where they are. */
    m40llm_status (*matrix_create_stacked)(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                           const struct m40_matrix_part *parts, uint32_t n_parts, struct m40_matrix *out, m40llm_error *err);
    /* Two matrices of as many rows, a multiple of M40_STACK_ROWS, as one: M40_STACK_ROWS rows of the first, as many of the second, and so on. NULL where matrix_create_stacked is. */
    m40llm_status (*matrix_create_interleaved)(struct m40_backend *be, const struct m40_format *format, uint64_t n_cols,
                                               const struct m40_matrix_part parts[2], struct m40_matrix *out, m40llm_error *err);
    /* No more matrices for now: releases the memory that is kept from one to the next. May be called at any time; NULL: there is none. */
    void (*matrix_create_end)(struct m40_backend *be);
    m40llm_status (*copy)(struct m40_backend *be, m40_addr dst, m40_addr src, uint64_t n_bytes,
                          m40llm_error *err); /* in order with the operations; no overlap */

    m40llm_status (*embed)(struct m40_backend *be, const struct m40_embed_args *args, m40llm_error *err);
    m40llm_status (*rms_norm)(struct m40_backend *be, const struct m40_rms_norm_args *args, m40llm_error *err);
    m40llm_status (*matmul)(struct m40_backend *be, const struct m40_matmul_args *args, m40llm_error *err);
    /* rms_norm (dense, without a residual), then matmul of what that gives: matmul->x is norm->y, and what norm->y holds afterwards is undefined. NULL: this backend gains nothing by doing both at once. */
    m40llm_status (*norm_matmul)(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *matmul,
                                 m40llm_error *err);
    /* norm_matmul whose result is gate and, behind it, up: y [n_tokens][n_rows / 2] = act(gate, up). matmul has no bias and no residual; what matmul->y holds afterwards is undefined. NULL as above. */
    m40llm_status (*norm_glu)(struct m40_backend *be, const struct m40_rms_norm_args *norm, const struct m40_matmul_args *matmul,
                              const struct m40_act_params *act, m40_addr y, m40llm_error *err);
    m40llm_status (*rope_append)(struct m40_backend *be, const struct m40_rope_append_args *args, m40llm_error *err);
    m40llm_status (*attention)(struct m40_backend *be, const struct m40_attention_args *args, m40llm_error *err);
    m40llm_status (*glu)(struct m40_backend *be, const struct m40_glu_args *args, m40llm_error *err);
    m40llm_status (*softcap)(struct m40_backend *be, const struct m40_softcap_args *args, m40llm_error *err);
    m40llm_status (*gather_rows)(struct m40_backend *be, const struct m40_gather_rows_args *args, m40llm_error *err);
    m40llm_status (*route)(struct m40_backend *be, const struct m40_route_args *args, m40llm_error *err);
    /* is_gated: where the backend has matrix_create_interleaved. */
    m40llm_status (*expert_matmul)(struct m40_backend *be, const struct m40_expert_matmul_args *args, m40llm_error *err);
    m40llm_status (*combine)(struct m40_backend *be, const struct m40_combine_args *args, m40llm_error *err);
    m40llm_status (*argmax)(struct m40_backend *be, const struct m40_argmax_args *args, m40llm_error *err);
    m40llm_status (*sample)(struct m40_backend *be, const struct m40_sample_args *args, m40llm_error *err);

    /* A step that comes again and again costs less when it is recorded and then issued whole. Both NULL: this backend gains nothing by it.
     * step_begin sets *out_is_issued where the step was known: all of it has been issued. Otherwise the caller issues it, operations only, and then calls step_end, after a failure too
     * (is_whole false). free() and reserve() forget every step. */
    m40llm_status (*step_begin)(struct m40_backend *be, const struct m40_step_key *key, bool *out_is_issued, m40llm_error *err);
    m40llm_status (*step_end)(struct m40_backend *be, bool is_whole, m40llm_error *err);

    /* A backend beside this one, on the same device and over the same memory and matrices: its operations run beside this one's, and give way to them. It has scratch memory of its own (reserve), and
     * is closed first. Neither waits for the other: whoever uses memory of both sees to the order. NULL: this backend does one thing at a time. */
    m40llm_status (*open_lane)(struct m40_backend *be, struct m40_backend **out, m40llm_error *err);
    /* Whether all that was issued is done; does not wait. NULL where open_lane is. */
    m40llm_status (*is_idle)(struct m40_backend *be, bool *out, m40llm_error *err);
};

/* First member of every backend's own struct. */
struct m40_backend {
    struct m40_backend_ops ops; /* a copy: variants replace single entries */
    m40llm_logger logger;
    bool is_cuda;
};

/* The CPU backend. options: n_threads, cpu_level, logger. */
m40llm_status m40_backend_open_cpu(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err);
/* A CUDA card: options->spec "cuda" (the best) or "cuda:N", cuda_library, require_sm52, use_cublas, cublas_library, logger. NO_DEVICE, DRIVER, DRIVER_TOO_OLD,
 * NO_CUBLAS. */
m40llm_status m40_backend_open_cuda(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err);
/* By options->spec; "auto" and NULL take the best card and fall to the CPU with a warning in the log that says why. The device and why it was chosen are logged at info. */
m40llm_status m40_backend_open(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err);
void m40_backend_close(struct m40_backend **be);

/* CUDA cards, best first, each with why; reason: 256 bytes, why there is none, or "". Never fails for want of a card. */
m40llm_status m40_cuda_list(const m40llm_device_options *options, m40llm_device_info *out, size_t capacity, size_t *n_out, char *reason,
                            m40llm_error *err);
void m40_cpu_describe(m40llm_device_info *out);

/* Device bytes of a matrix on a card (the CPU keeps none), and of scratch memory for a workload; for estimates made without a device. */
uint64_t m40_matrix_device_bytes(const struct m40_format *format, uint64_t n_rows, uint64_t n_cols);
uint64_t m40_scratch_device_bytes(const struct m40_workload *workload);
/* The bounds of struct m40_route_args; UNSUPPORTED. */
m40llm_status m40_route_check(const struct m40_route_args *args, m40llm_error *err);
/* Of route's plan, on any backend. */
uint64_t m40_expert_plan_bytes(uint32_t n_pairs, uint32_t n_experts);

#endif
