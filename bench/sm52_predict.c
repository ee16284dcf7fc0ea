/* Whole models on a Tesla M40: what the matmuls of a step take, by sm52_matmul_time. */
#include "bench/sm52_model.h"

#include "backend/cuda/kernels/matmul_args.h"

#include <string.h>

/* The shapes of Llama 3.2 1B, Llama 3.1 8B, Qwen2.5 14B, Qwen3-30B-A3B and gpt-oss-20b. */
const struct sm52_model sm52_models[] = {
    {.name = "1b", 16, 2048, 2048, 512, 8192, 128256, 0, 0},           {.name = "8b", 32, 4096, 4096, 1024, 14336, 128256, 0, 0},
    {.name = "14b", 48, 5120, 5120, 1024, 13824, 152064, 0, 0},        {.name = "qwen3-30b-a3b", 48, 2048, 4096, 512, 768, 151936, 128, 8},
    {.name = "gpt-oss-20b", 24, 2880, 4096, 512, 2880, 201088, 32, 4},
};
/* llama.cpp's mixes give attn_v and ffn_down Q6_K in about half of the layers. */
const struct sm52_mix sm52_mixes[] = {
    {"F16", M40_DTYPE_F16, M40_DTYPE_F16, M40_DTYPE_F16, 0},           {"Q8_0", M40_DTYPE_Q8_0, M40_DTYPE_Q8_0, M40_DTYPE_Q8_0, 0},
    {"Q4_0", M40_DTYPE_Q4_0, M40_DTYPE_Q4_0, M40_DTYPE_Q6_K, 0},       {"Q4_K_M", M40_DTYPE_Q4_K, M40_DTYPE_Q6_K, M40_DTYPE_Q6_K, 0},
    {"Q5_K_M", M40_DTYPE_Q5_K, M40_DTYPE_Q6_K, M40_DTYPE_Q6_K, 0},     {"Q6_K", M40_DTYPE_Q6_K, M40_DTYPE_Q6_K, M40_DTYPE_Q6_K, 0},
    {"IQ4_XS", M40_DTYPE_IQ4_XS, M40_DTYPE_IQ4_XS, M40_DTYPE_Q6_K, 0}, {"MXFP4", M40_DTYPE_Q8_0, M40_DTYPE_Q8_0, M40_DTYPE_Q8_0, M40_DTYPE_MXFP4},
};
const size_t sm52_n_models = sizeof sm52_models / sizeof sm52_models[0], sm52_n_mixes = sizeof sm52_mixes / sizeof sm52_mixes[0];

struct sum {
    const struct sm52_cost *costs;
    size_t n_costs;
    enum sm52_family family;
    uint32_t n_tokens;
    double read_bytes_s;
    struct sm52_prediction *out;
};

static void add_time(const struct sum *sum, double n, const struct sm52_time *time)
{
    sum->out->s += n * time->s;
    sum->out->memory_s += n * time->limit_s[SM52_MEMORY];
    sum->out->issue_s += n * time->limit_s[SM52_ISSUE];
    sum->out->bytes += n * time->limit_s[SM52_MEMORY] * sum->read_bytes_s;
}

/* n matrices of one type and shape; of the GEMM kernels by the fastest. */
static bool add_matrix(const struct sum *sum, uint32_t dtype, double n, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens)
{
    struct sm52_time best = {.s = -1};

    for (size_t i = 0; i < sum->n_costs; i++) {
        const struct sm52_cost *cost = &sum->costs[i];
        struct sm52_time time;

        if (cost->family != sum->family || cost->format->type->number != dtype || (sum->family == SM52_MATVEC && cost->n_tokens != sum->n_tokens) ||
            n_cols % cost->format->type->block_elems)
            continue;
        time = sm52_matmul_time(cost, n_rows, n_cols, n_tokens, sum->read_bytes_s);
        if (best.s < 0 || time.s < best.s)
            best = time;
    }
    if (best.s < 0)
        return false;
    add_time(sum, n, &best);
    return true;
}

/* A launch of the experts' mat-vecs: every pair's matrix passes the pipes, each busy expert's the memory once. Where K is short, blocks have a warp for each of its chunks only. */
static struct sm52_time pairs_time(const struct sm52_cost *cost, uint32_t n_rows, uint32_t n_cols, double n_pairs, double n_busy, double read_bytes_s)
{
    const uint32_t n_chunks = (n_cols + 255) / 256;
    struct sm52_cost own = *cost;
    struct sm52_time time;

    if (n_chunks < MATMUL_GROUP)
        own.occupancy = sm52_occupancy(cost->kernel->n_registers, cost->kernel->n_shared_bytes, n_chunks * 32);
    time = sm52_matmul_time(&own, (uint64_t)(n_rows * n_pairs), n_cols, 1, read_bytes_s);
    time.limit_s[SM52_MEMORY] *= n_busy / n_pairs;
    sm52_pick_bound(&time);
    return time;
}

/* The same of the grouped GEMM: an expert's last block of tokens is half full on average. */
static struct sm52_time blocks_time(const struct sm52_cost *cost, uint32_t n_rows, uint32_t n_cols, double n_pairs, double n_busy,
                                    double read_bytes_s)
{
    const double n_mean = n_pairs / cost->n_tokens + n_busy / 2, n_blocks = n_mean > n_busy ? n_mean : n_busy;
    struct sm52_time time = sm52_matmul_time(cost, (uint64_t)(n_rows * n_blocks), n_cols, cost->n_tokens, read_bytes_s);

    time.limit_s[SM52_MEMORY] *= n_busy / n_blocks;
    sm52_pick_bound(&time);
    return time;
}

/* n_layers layers' experts' matrices of one type and shape. */
static bool add_experts(const struct sum *sum, uint32_t dtype, double n_layers, const struct sm52_model *m, uint32_t n_rows, uint32_t n_cols,
                        uint32_t n_tokens)
{
    const double n_pairs = (double)n_tokens * m->n_used;
    double n_idle = m->n_experts;
    struct sm52_time best = {.s = -1};

    for (uint32_t t = 0; t < n_tokens; t++)
        n_idle *= 1 - (double)m->n_used / m->n_experts;
    for (size_t i = 0; i < sum->n_costs; i++) {
        const struct sm52_cost *cost = &sum->costs[i];
        struct sm52_time time;

        if (cost->family != sum->family || cost->format->type->number != dtype || (sum->family == SM52_MATVEC && cost->n_tokens != 1) ||
            n_cols % cost->format->type->block_elems)
            continue;
        time = (sum->family == SM52_MATVEC ? pairs_time : blocks_time)(cost, n_rows, n_cols, n_pairs, m->n_experts - n_idle, sum->read_bytes_s);
        if (best.s < 0 || time.s < best.s)
            best = time;
    }
    if (best.s < 0)
        return false;
    add_time(sum, n_layers, &best);
    return true;
}

/* The second half of all layers. */
static bool add_feed_forward(const struct sum *sum, const struct sm52_model *m, const struct sm52_mix *mix, double more, uint32_t n_tokens)
{
    const uint32_t base = mix->experts ? mix->experts : mix->base, other = mix->experts ? mix->experts : mix->more;

    if (m->n_experts) /* the routers, whose F32 weights are few, are left out */
        return add_experts(sum, base, m->n_layers, m, 2 * m->n_ffn, m->n_embd, n_tokens) &&
               add_experts(sum, base, m->n_layers - more, m, m->n_embd, m->n_ffn, n_tokens) &&
               add_experts(sum, other, more, m, m->n_embd, m->n_ffn, n_tokens);
    return !mix->experts && add_matrix(sum, base, m->n_layers * 2.0, m->n_ffn, m->n_embd, n_tokens) && /* gate, up */
           add_matrix(sum, base, m->n_layers - more, m->n_embd, m->n_ffn, n_tokens) &&                 /* most down */
           add_matrix(sum, other, more, m->n_embd, m->n_ffn, n_tokens);                                /* other down */
}

/* Layers that llama.cpp's mixes give more bits: the first and the last eighth, and every third between. */
static uint32_t n_more_layers(uint32_t n_layers)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_layers; i++)
        n += i < n_layers / 8 || i >= 7 * n_layers / 8 || (i - n_layers / 8) % 3 == 2;
    return n;
}

bool sm52_predict(const struct sm52_cost *costs, size_t n_costs, const struct sm52_model *m, const struct sm52_mix *mix, enum sm52_family family,
                  uint32_t n_tokens, double read_bytes_s, struct sm52_prediction *out)
{
    const struct sum sum = {costs, n_costs, family, n_tokens, read_bytes_s, out};
    const double layers = m->n_layers, more = n_more_layers(m->n_layers);
    const uint32_t n_outputs = family == SM52_GEMM ? 1 : n_tokens; /* of a prompt only the last token needs logits */

    memset(out, 0, sizeof *out);
    return add_matrix(&sum, mix->base, layers * 2, m->n_q, m->n_embd, n_tokens) &&         /* q, o */
           add_matrix(&sum, mix->base, layers * 2 - more, m->n_kv, m->n_embd, n_tokens) && /* k, most v */
           add_matrix(&sum, mix->more, more, m->n_kv, m->n_embd, n_tokens) &&              /* other v */
           add_feed_forward(&sum, m, mix, more, n_tokens) && add_matrix(&sum, mix->output, 1, m->n_vocab, m->n_embd, n_outputs);
}
