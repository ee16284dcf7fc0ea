/* What bench-kernels times: one call makes the data of an operation, times it for every size asked for, and hands each result to the report. */
#ifndef M40_BENCH_CASES_H
#define M40_BENCH_CASES_H

#include "bench/bench_device.h"

/* The attention of an 8B model, and the widths of its other operations. */
enum {
    BENCH_KV_HEADS = 8,
    BENCH_HEADS = 32,
    BENCH_HEAD_DIM = 128,
    BENCH_HIDDEN = 4096,
    BENCH_FFN = 14336,
    BENCH_VOCAB = 128256,
    BENCH_SAMPLING_ROWS = 8
};
enum {
    BENCH_KV_WIDTH = BENCH_KV_HEADS * BENCH_HEAD_DIM,
    BENCH_QKV = BENCH_HIDDEN + 2 * BENCH_KV_WIDTH
}; /* floats of k, and of q, k and v, of a token */

/* One line of the table. Fields that mean nothing for an operation are 0 or NULL. */
struct bench_row {
    const char *op, *type;
    uint32_t n_rows, n_cols, n_tokens, n_ctx;
    double n_bytes, n_flops; /* read and written once; operations */
    struct bench_time time;
};

/* Called for every result. */
struct bench_sink {
    m40llm_status (*row)(void *user, const struct bench_row *row, m40llm_error *err);
    void *user;
};

struct bench_sizes {
    const uint32_t *values;
    size_t n;
};

/* A weight matrix of n_rows x n_cols (multiples of the format's block), with as many tokens as each of `tokens` says, by our kernels or (cuBLAS is on) by cuBLAS, whatever their number. */
m40llm_status bench_matmul(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct bench_sizes tokens,
                           bool by_cublas, const struct bench_sink *sink, m40llm_error *err);
/* cublasSgemm alone: its weights are FP32 already. cuBLAS is on. */
m40llm_status bench_sgemm(struct bench_device *d, uint32_t n_rows, uint32_t n_cols, struct bench_sizes tokens, const struct bench_sink *sink,
                          m40llm_error *err);
/* One sequence with FP16 K and V: its last token at each context; or (prefill) all of it at once. */
m40llm_status bench_attention(struct bench_device *d, bool is_prefill, struct bench_sizes contexts, const struct bench_sink *sink, m40llm_error *err);
m40llm_status bench_norm(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err);
m40llm_status bench_rope(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err);
m40llm_status bench_silu(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err);
/* Mixtures of experts of well-known shapes (bench_experts.c): route, gate and up of the chosen experts, their down, combine; for random choices. */
m40llm_status bench_experts(struct bench_device *d, struct bench_sizes tokens, const struct bench_sink *sink, m40llm_error *err);
/* What they need of scratch memory, but for the tokens. */
void bench_experts_reserve(const struct bench_device *d, struct m40_workload *workload);
/* From logits that are there already, on the host (one row) and on the device (one row, and BENCH_SAMPLING_ROWS): greedy, and with several cuts at temperature 0.8. */
m40llm_status bench_sampling(struct bench_device *d, uint32_t n_vocab, const struct bench_sink *sink, m40llm_error *err);

/* Pinned memory to the card and back (bench_load.c). */
m40llm_status bench_copy(struct bench_device *d, const struct bench_sink *sink, m40llm_error *err);
/* A matrix of 65536 x 4096 from host memory to tiles on the card, allocation included; the time is the host's, the bytes are the file's. */
m40llm_status bench_load(struct bench_device *d, const struct m40_format *format, const struct bench_sink *sink, m40llm_error *err);

uint32_t bench_max(struct bench_sizes sizes);

/* Device memory of n floats in [-1, 1). */
m40llm_status bench_numbers(struct bench_device *d, uint64_t n, m40_addr *out, m40llm_error *err);
/* A matrix of random weights that repeat; the caller frees out->data, after a failure too. */
m40llm_status bench_weights(struct bench_device *d, const struct m40_format *format, uint32_t n_rows, uint32_t n_cols, struct m40_matrix *out,
                            m40llm_error *err);

#endif
