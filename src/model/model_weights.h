/* Which tensor of the file fills which weight: found, checked, not yet uploaded. */
#ifndef M40_MODEL_MODEL_WEIGHTS_H
#define M40_MODEL_MODEL_WEIGHTS_H

#include "model/model_arch.h"

struct m40_weight {
    const struct m40_weight_slot *slot;
    const struct m40_gguf_tensor *tensor;
    int32_t layer; /* -1: the slot is in struct m40_model, not in a layer */
};

struct m40_weight_list {
    struct m40_weight *items; /* [n], in the order of the forward pass */
    size_t n;
    uint64_t n_elements;                      /* of all of them */
    uint64_t n_expert_elements, expert_bytes; /* of those that are experts', elements and bytes as stored */
    uint64_t file_bytes;                      /* as stored in the file */
    uint64_t device_bytes;                    /* on a card: tiles, and vectors as F32 */
};

/* Every weight that the architecture wants, with its shape and type checked. BAD_MODEL names the tensor, what was found and what was expected; UNSUPPORTED: a type that is not
 * readable, or a tensor of a layer that the forward pass would leave out. Tensors that are not used are logged. */
m40llm_status m40_weight_list_make(struct m40_weight_list *out, const struct m40_gguf *gguf, const struct m40_model_config *config,
                                   const m40llm_logger *log, m40llm_error *err);
void m40_weight_list_free(struct m40_weight_list *list);

/* Uploads the layer's matrices that read the same input as one, where the backend and their types allow it, and sets their places in is_done [n]; what stays apart costs more launches, nothing
 * else (model_stack.c). weights: the layer's n. */
m40llm_status m40_model_upload_stacks(struct m40_model *model, struct m40_layer_weights *layer, const struct m40_weight *weights, size_t n,
                                      bool *is_done, m40llm_error *err);
/* Afterwards, when the layer's vectors are there: their biases as one. Adds at most one to model->vectors. */
m40llm_status m40_model_stack_biases(struct m40_model *model, struct m40_layer_weights *layer, m40llm_error *err);

#endif
