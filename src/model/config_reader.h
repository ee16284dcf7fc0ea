/* Metadata keys of one architecture, each checked as it is read. What model_config.c and rope_config.c share. */
#ifndef M40_MODEL_CONFIG_READER_H
#define M40_MODEL_CONFIG_READER_H

#include "model/model_arch.h"

struct m40_config_reader {
    const struct m40_gguf *gguf;
    const struct m40_arch *arch;
    struct m40_model_config *config; /* what has been read so far */
    m40llm_error *err;
    char key[128]; /* the key that was looked up last, in full */
};

/* "<architecture>.<key>", or NULL. */
const struct m40_gguf_kv *m40_config_find(struct m40_config_reader *r, const char *key);

/* An integer key in [min, max]; where it is absent, *out stays what it is if may_lack. BAD_MODEL names the key, what was found and what was expected. */
m40llm_status m40_config_u32(struct m40_config_reader *r, const char *key, bool may_lack, uint32_t min, uint32_t max, uint32_t *out);
/* The same for a real number; NaN is outside every range. */
m40llm_status m40_config_f64(struct m40_config_reader *r, const char *key, bool may_lack, double min, double max, double *out);

m40llm_status m40_config_bool(struct m40_config_reader *r, const char *key, bool may_lack, bool *out);

/* Copies a string value, cut to the buffer at a character's border, control bytes made visible. */
void m40_config_copy_text(struct m40_str text, char *out, size_t capacity);

/* Mixtures of experts; n_embd and n_ff have been read (expert_config.c). UNSUPPORTED: none are known of the architecture, or more than the backends serve, or each expert has tensors of its own. */
m40llm_status m40_config_read_experts(struct m40_config_reader *r);

/* How q and k are rotated; heads and layers have been read (rope_config.c). UNSUPPORTED: a scaling that is not known, with the list of those that are. */
m40llm_status m40_config_read_rope(struct m40_config_reader *r);

#endif
