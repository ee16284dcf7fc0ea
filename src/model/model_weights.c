#include "model/model_weights.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct m40_weight_slot embedding_slot =
    {"token_embd.weight", M40_SLOT_MATRIX, false, M40_DIM_VOCAB, M40_DIM_EMBD, M40_DIM_ONE, offsetof(struct m40_model, embedding)};
static const struct m40_weight_slot output_norm_slot =
    {"output_norm.weight", M40_SLOT_VECTOR, false, M40_DIM_ONE, M40_DIM_EMBD, M40_DIM_ONE, offsetof(struct m40_model, output_norm)};
static const struct m40_weight_slot output_slot =
    {"output.weight", M40_SLOT_MATRIX, true, M40_DIM_VOCAB, M40_DIM_EMBD, M40_DIM_ONE, offsetof(struct m40_model, output)};
/* clang-format on */

/* Tensors that some converters write and that say nothing new: "blk.N." is left out. */
static const char *const harmless[] = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", "attn_rot_embd.weight",
                                       "attn_rot_embd",     "attn.rotary_emb.inv_freq"};

struct binder {
    struct m40_weight_list *list;
    const struct m40_gguf *gguf;
    const struct m40_model_config *config;
    const m40llm_logger *log;
    m40llm_error *err;
    bool *is_used; /* [gguf->n_tensors] */
};

static void slot_name(char *out, size_t capacity, const struct m40_weight_slot *slot, int32_t layer)
{
    if (layer < 0)
        snprintf(out, capacity, "%s", slot->name);
    else
        snprintf(out, capacity, "blk.%d.%s", layer, slot->name);
}

/* "[256, 512]", fastest dimension first, as GGUF writes it. */
static void shape_text(char *out, size_t capacity, const struct m40_gguf_tensor *t)
{
    int n = snprintf(out, capacity, "[");

    for (uint32_t i = 0; i < t->n_dims && (size_t)n < capacity; i++)
        n += snprintf(out + n, capacity - (size_t)n, "%s%llu", i ? ", " : "", (unsigned long long)t->dims[i]);
    if ((size_t)n < capacity)
        snprintf(out + n, capacity - (size_t)n, "]");
}

static m40llm_status check_shape(const struct binder *b, const struct m40_weight_slot *slot, const struct m40_gguf_tensor *t, const char *name)
{
    uint64_t cols = m40_arch_dim(b->config, slot->cols), rows = m40_arch_dim(b->config, slot->rows);
    uint64_t count = m40_arch_dim(b->config, slot->count);
    char found[96], expected[72];

    if (t->dims[0] == cols && t->dims[1] == rows && t->dims[2] == count && t->dims[3] == 1)
        return M40LLM_OK;
    shape_text(found, sizeof found, t);
    if (slot->kind == M40_SLOT_VECTOR && rows == 1)
        snprintf(expected, sizeof expected, "[%llu]", (unsigned long long)cols);
    else if (count > 1)
        snprintf(expected, sizeof expected, "[%llu, %llu, %llu]", (unsigned long long)cols, (unsigned long long)rows, (unsigned long long)count);
    else
        snprintf(expected, sizeof expected, "[%llu, %llu]", (unsigned long long)cols, (unsigned long long)rows);
    return m40_fail(b->err, M40LLM_BAD_MODEL, "tensor %s has shape %s, expected %s", name, found, expected);
}

static m40llm_status check_type(const struct binder *b, const struct m40_weight_slot *slot, const struct m40_gguf_tensor *t, const char *name)
{
    if (slot->kind == M40_SLOT_VECTOR && t->type->number != M40_DTYPE_F32 && t->type->number != M40_DTYPE_F16 && t->type->number != M40_DTYPE_BF16)
        return m40_fail(b->err, M40LLM_BAD_MODEL, "tensor %s has type %s, expected f32, f16 or bf16", name, t->type->name);
    if (!m40_format(t->type->number))
        return m40_fail(b->err, M40LLM_UNSUPPORTED, "tensor %s has type %s, which is not supported", name, t->type->name);
    return M40LLM_OK;
}

static void add(struct binder *b, const struct m40_weight_slot *slot, const struct m40_gguf_tensor *t, int32_t layer)
{
    struct m40_weight_list *list = b->list;
    uint64_t device_bytes = m40_round_up(t->n_elements * sizeof(float), 256);

    if (slot->kind == M40_SLOT_MATRIX)
        device_bytes = m40_matrix_device_bytes(m40_format(t->type->number), t->dims[1] * t->dims[2], t->dims[0]);
    list->items[list->n++] = (struct m40_weight){slot, t, layer};
    list->n_elements += t->n_elements;
    if (strstr(slot->name, "_exps.")) {
        list->n_expert_elements += t->n_elements;
        list->expert_bytes += t->size_bytes;
    }
    list->file_bytes += t->size_bytes;
    list->device_bytes += device_bytes;
    b->is_used[t - b->gguf->tensors] = true;
}

/* An optional tensor is in all layers or in none: half a set is a damaged file. */
static m40llm_status check_absence(const struct binder *b, const struct m40_weight_slot *slot, int32_t layer, const char *name, bool is_there)
{
    char first[96];
    bool is_in_first;

    if (!slot->is_optional)
        return is_there ? M40LLM_OK : m40_fail(b->err, M40LLM_BAD_MODEL, "tensor %s is missing", name);
    if (layer <= 0)
        return M40LLM_OK;
    slot_name(first, sizeof first, slot, 0);
    is_in_first = m40_gguf_find_tensor(b->gguf, first);
    if (is_there == is_in_first)
        return M40LLM_OK;
    return m40_fail(b->err, M40LLM_BAD_MODEL, "tensor %s is missing, but %s is there", is_there ? first : name, is_there ? name : first);
}

static m40llm_status bind(struct binder *b, const struct m40_weight_slot *slot, int32_t layer)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_gguf_tensor *t;
    char name[96];

    slot_name(name, sizeof name, slot, layer);
    t = m40_gguf_find_tensor(b->gguf, name);
    M40_TRY(check_absence(b, slot, layer, name, t != NULL));
    if (!t)
        return M40LLM_OK;
    M40_TRY(check_shape(b, slot, t, name));
    M40_TRY(check_type(b, slot, t, name));
    add(b, slot, t, layer);
fail:
    return status;
}

/* The layer of "blk.N.rest" and the rest; -1 and the whole name for any other. */
static int64_t split_name(const char *name, const char **out_rest)
{
    unsigned layer;
    int n = 0;

    *out_rest = name;
    if (sscanf(name, "blk.%9u.%n", &layer, &n) != 1 || n == 0)
        return -1;
    *out_rest = name + n;
    return layer;
}

/* A tensor of a layer that no slot wants (a bias, a norm, an expert) would change the result, so it is refused; anything else that is left over is only said. */
static m40llm_status check_unused(const struct binder *b)
{
    for (size_t i = 0; i < b->gguf->n_tensors; i++) {
        const char *name = b->gguf->tensors[i].name.data, *rest;
        int64_t layer = split_name(name, &rest);
        bool is_harmless = false;

        if (b->is_used[i])
            continue;
        for (size_t j = 0; j < sizeof harmless / sizeof *harmless; j++)
            is_harmless |= !strcmp(rest, harmless[j]);
        if (!is_harmless && layer >= 0 && layer < b->config->n_layers)
            return m40_fail(b->err, M40LLM_UNSUPPORTED, "tensor %s has no place in architecture %s as it is known here", name,
                            b->config->architecture);
        m40_log(b->log, is_harmless ? M40LLM_LOG_DEBUG : M40LLM_LOG_INFO, "tensor %s is not used", name);
    }
    return M40LLM_OK;
}

m40llm_status m40_weight_list_make(struct m40_weight_list *out, const struct m40_gguf *gguf, const struct m40_model_config *config,
                                   const m40llm_logger *log, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_arch *arch = m40_arch_find(config->architecture);
    const struct m40_weight_slot *slots = config->n_experts ? arch->mixture_slots : arch->layer_slots;
    const size_t n_slots = config->n_experts ? arch->n_mixture_slots : arch->n_layer_slots;
    struct binder b = {out, gguf, config, log, err, NULL};

    memset(out, 0, sizeof *out);
    b.is_used = m40_calloc(gguf->n_tensors, sizeof *b.is_used);
    out->items = m40_calloc(3 + config->n_layers * n_slots, sizeof *out->items);
    M40_FAIL_IF(!b.is_used || !out->items, M40LLM_NO_MEMORY, "no memory for the list of weights");
    M40_TRY(bind(&b, &embedding_slot, -1));
    for (uint32_t layer = 0; layer < config->n_layers; layer++)
        for (size_t i = 0; i < n_slots; i++)
            M40_TRY(bind(&b, &slots[i], (int32_t)layer));
    M40_TRY(bind(&b, &output_norm_slot, -1));
    M40_TRY(bind(&b, &output_slot, -1));
    M40_TRY(check_unused(&b));
    m40_free(b.is_used);
    return M40LLM_OK;
fail:
    m40_free(b.is_used);
    m40_weight_list_free(out);
    return status;
}

void m40_weight_list_free(struct m40_weight_list *list)
{
    m40_free(list->items);
    memset(list, 0, sizeof *list);
}
