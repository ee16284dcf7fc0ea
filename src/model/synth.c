/* Random models: the metadata, a list of tensors with their shapes, and their weights (synth_fill.c), made and written piece by piece. */
#include "model/synth.h"

#include "base/mem.h"
#include "gguf/gguf_write.h"
#include "model/synth_fill.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    PIECE_SLICES = 128, /* made while the piece before is written */
    PIECE_BYTES = PIECE_SLICES * M40_SYNTH_SLICE_BYTES,
    TYPE_NORMAL = 1, /* GGUF's numbers of token types */
    TYPE_CONTROL = 3,
    TYPE_UNUSED = 5,
};

struct shape {
    const char *name, *arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, n_vocab, n_ctx;
    float rope_base, norm_eps;
    bool is_tied, has_qkv_bias;
};

#define SHAPE_NAMES "tiny 1b 8b 14b"

static const struct shape shapes[] = {
    {"tiny", "llama", 2, 256, 512, 8, 4, 512, 1024, 10000, 1e-5f, true, false},
    {"1b", "llama", 16, 2048, 8192, 32, 8, 128256, 131072, 500000, 1e-5f, true, false},
    {"8b", "llama", 32, 4096, 14336, 32, 8, 128256, 8192, 500000, 1e-5f, false, false},
    {"14b", "qwen2", 48, 5120, 13824, 40, 8, 152064, 32768, 1000000, 1e-6f, false, true},
};

const char *m40_synth_shapes(void)
{
    return SHAPE_NAMES;
}

/* ---- tensors ---- */

enum kind { MATRIX, NORM, BIAS };

struct tensor {
    char name[40];
    enum kind kind;
    uint32_t dtype;
    uint64_t n_cols, n_rows, size_bytes;
};

struct list {
    struct tensor *items;
    size_t n;
    uint64_t n_bytes;
};

static void add(struct list *list, const char *prefix, const char *name, enum kind kind, uint32_t dtype, uint64_t n_cols, uint64_t n_rows)
{
    struct tensor *t = &list->items[list->n++];
    uint64_t row_bytes = 0;

    *t = (struct tensor){.kind = kind, .dtype = kind == MATRIX ? dtype : M40_DTYPE_F32, .n_cols = n_cols, .n_rows = n_rows};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    m40_dtype_row_bytes(m40_dtype_info(t->dtype), n_cols, &row_bytes); /* the shapes are multiples of 256 */
    t->size_bytes = row_bytes * n_rows;
    list->n_bytes += t->size_bytes;
}

static void add_layer(struct list *list, const struct shape *s, uint32_t dtype, uint32_t layer)
{
    uint64_t n = s->n_embd, kv = n / s->n_heads * s->n_kv_heads;
    char p[24];

    snprintf(p, sizeof p, "blk.%u.", layer);
    add(list, p, "attn_norm.weight", NORM, dtype, n, 1);
    add(list, p, "attn_q.weight", MATRIX, dtype, n, n);
    add(list, p, "attn_k.weight", MATRIX, dtype, n, kv);
    add(list, p, "attn_v.weight", MATRIX, dtype, n, kv);
    if (s->has_qkv_bias) {
        add(list, p, "attn_q.bias", BIAS, dtype, n, 1);
        add(list, p, "attn_k.bias", BIAS, dtype, kv, 1);
        add(list, p, "attn_v.bias", BIAS, dtype, kv, 1);
    }
    add(list, p, "attn_output.weight", MATRIX, dtype, n, n);
    add(list, p, "ffn_norm.weight", NORM, dtype, n, 1);
    add(list, p, "ffn_gate.weight", MATRIX, dtype, n, s->n_ff);
    add(list, p, "ffn_up.weight", MATRIX, dtype, n, s->n_ff);
    add(list, p, "ffn_down.weight", MATRIX, dtype, s->n_ff, n);
}

static m40llm_status list_tensors(struct list *list, const struct shape *s, uint32_t dtype, struct m40_gguf_writer *w, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    list->items = m40_calloc(3 + 12 * (size_t)s->n_layers, sizeof *list->items);
    M40_FAIL_IF(!list->items, M40LLM_NO_MEMORY, "list of tensors");
    add(list, "", "token_embd.weight", MATRIX, dtype, s->n_embd, s->n_vocab);
    for (uint32_t i = 0; i < s->n_layers; i++)
        add_layer(list, s, dtype, i);
    add(list, "", "output_norm.weight", NORM, dtype, s->n_embd, 1);
    if (!s->is_tied)
        add(list, "", "output.weight", MATRIX, dtype, s->n_embd, s->n_vocab);
    for (size_t i = 0; i < list->n; i++) {
        const struct tensor *t = &list->items[i];

        M40_TRY(m40_gguf_writer_add_tensor(w, t->name, t->dtype, t->kind == MATRIX ? 2 : 1, (const uint64_t[]){t->n_cols, t->n_rows}, err));
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

static m40llm_status set_hyper_parameters(struct m40_gguf_writer *w, const struct shape *s, const char *type, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {
        {"block_count", s->n_layers},
        {"context_length", s->n_ctx},
        {"embedding_length", s->n_embd},
        {"feed_forward_length", s->n_ff},
        {"attention.head_count", s->n_heads},
        {"attention.head_count_kv", s->n_kv_heads},
        {"rope.dimension_count", s->n_embd / s->n_heads},
    };
    char text[64];

    M40_TRY(m40_gguf_writer_set_string(w, "general.architecture", s->arch, err));
    snprintf(text, sizeof text, "random weights, %s %s", s->name, type);
    M40_TRY(m40_gguf_writer_set_string(w, "general.name", text, err));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(text, sizeof text, "%s.%s", s->arch, numbers[i].key);
        M40_TRY(m40_gguf_writer_set_u32(w, text, numbers[i].value, err));
    }
    snprintf(text, sizeof text, "%s.attention.layer_norm_rms_epsilon", s->arch);
    M40_TRY(m40_gguf_writer_set_f32(w, text, s->norm_eps, err));
    snprintf(text, sizeof text, "%s.rope.freq_base", s->arch);
    M40_TRY(m40_gguf_writer_set_f32(w, text, s->rope_base, err));
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

m40llm_status m40_synth_write(const char *shape_name, const char *type, const char *path, m40llm_progress_fn progress, void *user, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_dtype_info *info = m40_dtype_by_name(type);
    const struct shape *shape = NULL;
    struct m40_gguf_writer *w = NULL;
    struct list list = {0};

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, shape_name) == 0)
            shape = &shapes[i];
    M40_FAIL_IF(!shape, M40LLM_INVALID_ARGUMENT, "shape '%.32s' is not known; shapes: %s", shape_name, SHAPE_NAMES);
    if (!info || !m40_synth_can_make(info->number))
        return refuse_type(type, err);
    M40_TRY(m40_gguf_writer_open(&w, path, err));
    M40_TRY(set_hyper_parameters(w, shape, info->name, err));
    M40_TRY(list_tensors(&list, shape, info->number, w, err));
    M40_TRY(write_tensors(&list, w, progress, user, err));
    M40_TRY(m40_gguf_writer_finish(w, err));
fail:
    m40_free(list.items);
    m40_gguf_writer_close(&w); /* removes what is not finished */
    return status;
}
