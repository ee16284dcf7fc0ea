/* Random models: the metadata, a list of tensors with their shapes, and their weights (synth_fill.c), made and written piece by piece. */
#include "model/synth.h"

#include "base/mem.h"
#include "gguf/gguf_write.h"
#include "model/synth_fill.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE_SLICES = 128, /* made while the piece before is written */
    PIECE_BYTES = PIECE_SLICES * M40_SYNTH_SLICE_BYTES,
    MAX_LAYER_TENSORS = 24,
    TYPE_NORMAL = 1, /* GGUF's numbers of token types */
    TYPE_CONTROL = 3,
    TYPE_UNUSED = 5,
};

struct shape {
    const char *name, *arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx;
    float rope_base, norm_eps;
    bool is_tied, has_qkv_bias, has_qk_norm;
    uint32_t n_experts, n_used; /* 0: dense; n_ff is an expert's */
    uint32_t dense_dtype;       /* of the matrices that are no experts'; 0: as those */
    bool is_gpt_oss;            /* its biases, sinks, window and YaRN */
};

#define SHAPE_NAMES "tiny 1b 8b 14b tiny-moe qwen3-30b-a3b gpt-oss-20b"

/* clang-format off */
static const struct shape shapes[] = {
    {.name = "tiny", .arch = "llama", .n_layers = 2, .n_embd = 256, .n_ff = 512, .n_heads = 8, .n_kv_heads = 4, .head_dim = 32, .n_vocab = 512,
     .n_ctx = 1024, .rope_base = 10000, .norm_eps = 1e-5f, .is_tied = true},
    {.name = "1b", .arch = "llama", .n_layers = 16, .n_embd = 2048, .n_ff = 8192, .n_heads = 32, .n_kv_heads = 8, .head_dim = 64, .n_vocab = 128256,
     .n_ctx = 131072, .rope_base = 500000, .norm_eps = 1e-5f, .is_tied = true},
    {.name = "8b", .arch = "llama", .n_layers = 32, .n_embd = 4096, .n_ff = 14336, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .n_vocab = 128256,
     .n_ctx = 8192, .rope_base = 500000, .norm_eps = 1e-5f},
    {.name = "14b", .arch = "qwen2", .n_layers = 48, .n_embd = 5120, .n_ff = 13824, .n_heads = 40, .n_kv_heads = 8, .head_dim = 128, .n_vocab = 152064,
     .n_ctx = 32768, .rope_base = 1000000, .norm_eps = 1e-6f, .has_qkv_bias = true},
    {.name = "tiny-moe", .arch = "qwen3moe", .n_layers = 2, .n_embd = 256, .n_ff = 256, .n_heads = 8, .n_kv_heads = 4, .head_dim = 32, .n_vocab = 512,
     .n_ctx = 1024, .rope_base = 10000, .norm_eps = 1e-6f, .is_tied = true, .has_qk_norm = true, .n_experts = 8, .n_used = 2},
    {.name = "qwen3-30b-a3b", .arch = "qwen3moe", .n_layers = 48, .n_embd = 2048, .n_ff = 768, .n_heads = 32, .n_kv_heads = 4, .head_dim = 128,
     .n_vocab = 151936, .n_ctx = 40960, .rope_base = 1000000, .norm_eps = 1e-6f, .has_qk_norm = true, .n_experts = 128, .n_used = 8},
    {.name = "gpt-oss-20b", .arch = "gpt-oss", .n_layers = 24, .n_embd = 2880, .n_ff = 2880, .n_heads = 64, .n_kv_heads = 8, .head_dim = 64,
     .n_vocab = 201088, .n_ctx = 131072, .rope_base = 150000, .norm_eps = 1e-5f, .has_qkv_bias = true, .n_experts = 32, .n_used = 4,
     .dense_dtype = M40_DTYPE_Q8_0, .is_gpt_oss = true},
};
/* clang-format on */

const char *m40_synth_shapes(void)
{
    return SHAPE_NAMES;
}

/* ---- tensors ---- */

enum kind { MATRIX, NORM, BIAS };

struct tensor {
    char name[64];
    enum kind kind;
    uint32_t dtype;
    uint64_t n_cols, n_rows, n_matrices, size_bytes;
};

struct list {
    struct tensor *items;
    size_t n;
    uint64_t n_bytes;
};

static struct tensor *add(struct list *list, const char *prefix, const char *name, enum kind kind, uint32_t dtype, uint64_t n_cols, uint64_t n_rows)
{
    struct tensor *t = &list->items[list->n++];

    *t = (struct tensor){.kind = kind, .dtype = kind == MATRIX ? dtype : M40_DTYPE_F32, .n_cols = n_cols, .n_rows = n_rows, .n_matrices = 1};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    return t;
}

static void add_experts(struct list *list, const struct shape *s, const char *p, uint32_t dtype)
{
    const uint64_t n = s->n_embd, n_ff = s->n_ff;

    add(list, p, "ffn_gate_inp.weight", MATRIX, M40_DTYPE_F32, n, s->n_experts);
    add(list, p, "ffn_gate_exps.weight", MATRIX, dtype, n, n_ff)->n_matrices = s->n_experts;
    add(list, p, "ffn_up_exps.weight", MATRIX, dtype, n, n_ff)->n_matrices = s->n_experts;
    add(list, p, "ffn_down_exps.weight", MATRIX, dtype, n_ff, n)->n_matrices = s->n_experts;
    if (s->is_gpt_oss) {
        add(list, p, "ffn_gate_inp.bias", BIAS, dtype, s->n_experts, 1);
        add(list, p, "ffn_gate_exps.bias", BIAS, dtype, n_ff, s->n_experts);
        add(list, p, "ffn_up_exps.bias", BIAS, dtype, n_ff, s->n_experts);
        add(list, p, "ffn_down_exps.bias", BIAS, dtype, n, s->n_experts);
    }
}

static void add_layer(struct list *list, const struct shape *s, uint32_t dtype, uint32_t layer)
{
    const uint64_t n = s->n_embd, q = (uint64_t)s->n_heads * s->head_dim, kv = (uint64_t)s->n_kv_heads * s->head_dim;
    const uint32_t dense = s->dense_dtype ? s->dense_dtype : dtype;
    char p[32];

    snprintf(p, sizeof p, "blk.%u.", layer);
    add(list, p, "attn_norm.weight", NORM, dense, n, 1);
    add(list, p, "attn_q.weight", MATRIX, dense, n, q);
    add(list, p, "attn_k.weight", MATRIX, dense, n, kv);
    add(list, p, "attn_v.weight", MATRIX, dense, n, kv);
    if (s->has_qkv_bias) {
        add(list, p, "attn_q.bias", BIAS, dense, q, 1);
        add(list, p, "attn_k.bias", BIAS, dense, kv, 1);
        add(list, p, "attn_v.bias", BIAS, dense, kv, 1);
    }
    if (s->has_qk_norm) {
        add(list, p, "attn_q_norm.weight", NORM, dense, s->head_dim, 1);
        add(list, p, "attn_k_norm.weight", NORM, dense, s->head_dim, 1);
    }
    add(list, p, "attn_output.weight", MATRIX, dense, q, n);
    if (s->is_gpt_oss) {
        add(list, p, "attn_output.bias", BIAS, dense, n, 1);
        add(list, p, "attn_sinks.weight", BIAS, dense, s->n_heads, 1);
    }
    add(list, p, s->is_gpt_oss ? "post_attention_norm.weight" : "ffn_norm.weight", NORM, dense, n, 1);
    if (s->n_experts) {
        add_experts(list, s, p, dtype);
        return;
    }
    add(list, p, "ffn_gate.weight", MATRIX, dense, n, s->n_ff);
    add(list, p, "ffn_up.weight", MATRIX, dense, n, s->n_ff);
    add(list, p, "ffn_down.weight", MATRIX, dense, s->n_ff, n);
}

static m40llm_status list_tensors(struct list *list, const struct shape *s, uint32_t dtype, struct m40_gguf_writer *w, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const uint32_t dense = s->dense_dtype ? s->dense_dtype : dtype;

    list->items = m40_calloc(3 + MAX_LAYER_TENSORS * (size_t)s->n_layers, sizeof *list->items);
    M40_FAIL_IF(!list->items, M40LLM_NO_MEMORY, "list of tensors");
    add(list, "", "token_embd.weight", MATRIX, dense, s->n_embd, s->n_vocab);
    for (uint32_t i = 0; i < s->n_layers; i++)
        add_layer(list, s, dtype, i);
    add(list, "", "output_norm.weight", NORM, dense, s->n_embd, 1);
    if (!s->is_tied)
        add(list, "", "output.weight", MATRIX, dense, s->n_embd, s->n_vocab);
    for (size_t i = 0; i < list->n; i++) {
        struct tensor *t = &list->items[i];
        const uint32_t n_dims = t->n_matrices > 1 ? 3 : t->kind == MATRIX || t->n_rows > 1 ? 2 : 1;
        uint64_t row_bytes = 0;

        M40_FAIL_IF(!m40_dtype_row_bytes(m40_dtype_info(t->dtype), t->n_cols, &row_bytes), M40LLM_INVALID_ARGUMENT,
                    "%s has rows of %llu weights, which are no whole blocks of %s", t->name, (unsigned long long)t->n_cols,
                    m40_dtype_info(t->dtype)->name);
        t->size_bytes = row_bytes * t->n_rows * t->n_matrices;
        list->n_bytes += t->size_bytes;
        M40_TRY(m40_gguf_writer_add_tensor(w, t->name, t->dtype, n_dims, (const uint64_t[]){t->n_cols, t->n_rows, t->n_matrices}, err));
    }
fail:
    return status;
}

static void tensor_filling(const struct list *list, size_t i, struct m40_synth_filling *out)
{
    const struct tensor *t = &list->items[i];

    if (t->kind == NORM)
        m40_synth_filling_init_norm(out, i);
    else
        m40_synth_filling_init(out, t->dtype, i, t->kind == MATRIX ? 1.0f / sqrtf((float)t->n_cols) : 0.05f);
}

/* ---- writing: one piece is made by all threads while the one before it is written ---- */

struct piece {
    size_t i_tensor;
    uint64_t offset, n_bytes; /* in the tensor; n_bytes 0: behind the last one */
    struct m40_synth_filling filling;
    uint8_t *bytes; /* [PIECE_BYTES] */
};

/* Sets p to the piece behind `before`. */
static void advance(const struct list *list, struct piece *p, const struct piece *before)
{
    uint64_t left, most;

    p->i_tensor = before->i_tensor;
    p->offset = before->offset + before->n_bytes;
    p->n_bytes = 0;
    if (p->offset == list->items[p->i_tensor].size_bytes) {
        p->i_tensor++;
        p->offset = 0;
    }
    if (p->i_tensor == list->n)
        return;
    tensor_filling(list, p->i_tensor, &p->filling);
    left = list->items[p->i_tensor].size_bytes - p->offset;
    most = PIECE_SLICES * p->filling.slice_bytes;
    p->n_bytes = left < most ? left : most;
}

/* Starts the threads on a piece; `omp taskwait` waits for them. */
static void start(const struct piece *p)
{
    uint64_t slice_bytes = p->filling.slice_bytes;

    for (uint64_t at = 0; at < p->n_bytes; at += slice_bytes) {
        uint64_t n_bytes = p->n_bytes - at < slice_bytes ? p->n_bytes - at : slice_bytes;

#pragma omp task firstprivate(p, at, n_bytes, slice_bytes)
        m40_synth_make_slice(&p->filling, (p->offset + at) / slice_bytes, p->bytes + at, n_bytes);
    }
}

static m40llm_status write_pieces(const struct list *list, struct m40_gguf_writer *w, struct piece *p, struct piece *next,
                                  m40llm_progress_fn progress, void *user, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t done = 0;

    advance(list, p, next);
    start(p);
#pragma omp taskwait
    while (p->n_bytes && status == M40LLM_OK) {
        struct piece *made = p;

        advance(list, next, made);
        start(next);
        status = m40_gguf_writer_data(w, made->bytes, made->n_bytes, err);
#pragma omp taskwait
        done += made->n_bytes;
        if (status == M40LLM_OK && progress && progress(user, done, list->n_bytes))
            status = m40_fail(err, M40LLM_CANCELLED, "writing was cancelled");
        p = next;
        next = made;
    }
    return status;
}

static m40llm_status write_tensors(const struct list *list, struct m40_gguf_writer *w, m40llm_progress_fn progress, void *user, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct piece *pieces = m40_calloc(2, sizeof *pieces);
    uint8_t *bytes = m40_calloc(2, PIECE_BYTES);

    M40_FAIL_IF(!pieces || !bytes, M40LLM_NO_MEMORY, "buffers of %d MiB", 2 * PIECE_BYTES >> 20);
    pieces[0].bytes = bytes;
    pieces[1].bytes = bytes + PIECE_BYTES;
#pragma omp parallel
#pragma omp master
    status = write_pieces(list, w, &pieces[0], &pieces[1], progress, user, err);
fail:
    m40_free(bytes);
    m40_free(pieces);
    return status;
}

/* ---- metadata ---- */

/* The printable character, as UTF-8, that stands for a byte in a byte-level vocabulary: itself where it is printable in Latin-1, otherwise the next of U+0100 and up. */
static void byte_token(unsigned byte, unsigned *n_others, char *out)
{
    bool is_printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    unsigned c = is_printable ? byte : 0x100 + (*n_others)++;

    if (c < 0x80)
        snprintf(out, 4, "%c", (char)c);
    else
        snprintf(out, 4, "%c%c", (char)(0xc0 | c >> 6), (char)(0x80 | (c & 63)));
}

/* 256 bytes, a begin and an end of text, and fillers; no merges. */
static m40llm_status set_tokenizer(struct m40_gguf_writer *w, uint32_t n_vocab, m40llm_error *err)
{
    enum { TEXT_BYTES = 16, BOS = 256, EOS = 257 };
    m40llm_status status = M40LLM_OK;
    char(*texts)[TEXT_BYTES] = m40_calloc(n_vocab, sizeof *texts);
    const char **tokens = m40_calloc(n_vocab, sizeof *tokens);
    int32_t *types = m40_calloc(n_vocab, sizeof *types);
    unsigned n_others = 0;

    M40_FAIL_IF(!texts || !tokens || !types, M40LLM_NO_MEMORY, "vocabulary of %u tokens", n_vocab);
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (i < BOS)
            byte_token(i, &n_others, texts[i]);
        else if (i <= EOS)
            snprintf(texts[i], TEXT_BYTES, "%s", i == BOS ? "<|bos|>" : "<|eos|>");
        else
            snprintf(texts[i], TEXT_BYTES, "[%u]", i);
        tokens[i] = texts[i];
        types[i] = i < BOS ? TYPE_NORMAL : i <= EOS ? TYPE_CONTROL : TYPE_UNUSED;
    }
    M40_TRY(m40_gguf_writer_set_string(w, "tokenizer.ggml.model", "gpt2", err));
    M40_TRY(m40_gguf_writer_set_string(w, "tokenizer.ggml.pre", "llama-bpe", err));
    M40_TRY(m40_gguf_writer_set_string_array(w, "tokenizer.ggml.tokens", tokens, n_vocab, err));
    M40_TRY(m40_gguf_writer_set_i32_array(w, "tokenizer.ggml.token_type", types, n_vocab, err));
    M40_TRY(m40_gguf_writer_set_string_array(w, "tokenizer.ggml.merges", NULL, 0, err));
    M40_TRY(m40_gguf_writer_set_u32(w, "tokenizer.ggml.bos_token_id", BOS, err));
    M40_TRY(m40_gguf_writer_set_u32(w, "tokenizer.ggml.eos_token_id", EOS, err));
    M40_TRY(m40_gguf_writer_set_bool(w, "tokenizer.ggml.add_bos_token", true, err));
fail:
    m40_free(texts);
    m40_free(tokens);
    m40_free(types);
    return status;
}

static m40llm_status set_u32(struct m40_gguf_writer *w, const struct shape *s, const char *key, uint32_t value, m40llm_error *err)
{
    char text[64];

    snprintf(text, sizeof text, "%s.%s", s->arch, key);
    return m40_gguf_writer_set_u32(w, text, value, err);
}

static m40llm_status set_f32(struct m40_gguf_writer *w, const struct shape *s, const char *key, float value, m40llm_error *err)
{
    char text[64];

    snprintf(text, sizeof text, "%s.%s", s->arch, key);
    return m40_gguf_writer_set_f32(w, text, value, err);
}

static m40llm_status set_mixture(struct m40_gguf_writer *w, const struct shape *s, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(set_u32(w, s, "expert_count", s->n_experts, err));
    M40_TRY(set_u32(w, s, "expert_used_count", s->n_used, err));
    M40_TRY(set_u32(w, s, "expert_feed_forward_length", s->n_ff, err));
    M40_TRY(set_u32(w, s, "attention.key_length", s->head_dim, err));
    M40_TRY(set_u32(w, s, "attention.value_length", s->head_dim, err));
    if (!s->is_gpt_oss)
        return M40LLM_OK;
    M40_TRY(set_u32(w, s, "attention.sliding_window", 128, err));
    M40_TRY(m40_gguf_writer_set_string(w, "gpt-oss.rope.scaling.type", "yarn", err));
    M40_TRY(set_f32(w, s, "rope.scaling.factor", 32, err));
    M40_TRY(set_u32(w, s, "rope.scaling.original_context_length", 4096, err));
fail:
    return status;
}

static m40llm_status set_hyper_parameters(struct m40_gguf_writer *w, const struct shape *s, const char *type, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    char text[64];

    M40_TRY(m40_gguf_writer_set_string(w, "general.architecture", s->arch, err));
    snprintf(text, sizeof text, "random weights, %s %s", s->name, type);
    M40_TRY(m40_gguf_writer_set_string(w, "general.name", text, err));
    M40_TRY(set_u32(w, s, "block_count", s->n_layers, err));
    M40_TRY(set_u32(w, s, "context_length", s->n_ctx, err));
    M40_TRY(set_u32(w, s, "embedding_length", s->n_embd, err));
    M40_TRY(set_u32(w, s, "feed_forward_length", s->n_ff, err));
    M40_TRY(set_u32(w, s, "attention.head_count", s->n_heads, err));
    M40_TRY(set_u32(w, s, "attention.head_count_kv", s->n_kv_heads, err));
    M40_TRY(set_u32(w, s, "rope.dimension_count", s->head_dim, err));
    M40_TRY(set_f32(w, s, "attention.layer_norm_rms_epsilon", s->norm_eps, err));
    M40_TRY(set_f32(w, s, "rope.freq_base", s->rope_base, err));
    if (s->n_experts)
        M40_TRY(set_mixture(w, s, err));
    M40_TRY(set_tokenizer(w, s->n_vocab, err));
fail:
    return status;
}

static m40llm_status refuse_type(const char *type, m40llm_error *err)
{
    char names[160] = "";
    size_t n = 0;

    for (size_t i = 0; m40_synth_type_name(i); i++)
        n += (size_t)snprintf(names + n, sizeof names - n, " %s", m40_synth_type_name(i));
    return m40_fail(err, M40LLM_INVALID_ARGUMENT, "type '%.32s' is not known; types:%s", type, names);
}

/* NAME or NAME/LAYERS. */
static bool find_shape(const char *text, struct shape *out)
{
    const size_t n = strcspn(text, "/");
    unsigned long n_layers;
    char *end;

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strlen(shapes[i].name) != n || strncmp(shapes[i].name, text, n) != 0)
            continue;
        *out = shapes[i];
        if (!text[n])
            return true;
        n_layers = strtoul(text + n + 1, &end, 10);
        out->n_layers = (uint32_t)n_layers;
        return text[n + 1] >= '1' && text[n + 1] <= '9' && !*end && n_layers <= shapes[i].n_layers;
    }
    return false;
}

m40llm_status m40_synth_write(const char *shape_name, const char *type, const char *path, m40llm_progress_fn progress, void *user, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_dtype_info *info = m40_dtype_by_name(type);
    struct shape shape;
    struct m40_gguf_writer *w = NULL;
    struct list list = {0};

    M40_FAIL_IF(!find_shape(shape_name, &shape), M40LLM_INVALID_ARGUMENT, "shape '%.32s' is not known; shapes: %s; with fewer layers: NAME/LAYERS",
                shape_name, SHAPE_NAMES);
    if (!info || !m40_synth_can_make(info->number))
        return refuse_type(type, err);
    M40_TRY(m40_gguf_writer_open(&w, path, err));
    M40_TRY(set_hyper_parameters(w, &shape, info->name, err));
    M40_TRY(list_tensors(&list, &shape, info->number, w, err));
    M40_TRY(write_tensors(&list, w, progress, user, err));
    M40_TRY(m40_gguf_writer_finish(w, err));
fail:
    m40_free(list.items);
    m40_gguf_writer_close(&w); /* removes what is not finished */
    return status;
}
