#include "model/model_arch.h"

#include <string.h>

static const struct {
    const char *name;
    const struct m40_arch *arch;
} arches[] = {
#define ARCH_ENTRY(name, family) {name, &m40_arch_##family},
    M40_ARCH_MAP(ARCH_ENTRY)
#undef ARCH_ENTRY
};

const struct m40_arch *m40_arch_find(const char *name)
{
    for (size_t i = 0; i < sizeof arches / sizeof *arches; i++)
        if (!strcmp(arches[i].name, name))
            return arches[i].arch;
    return NULL;
}

const char *m40_arch_names(void)
{
#define ARCH_TEXT(name, family) ", " name
    static const char text[] = M40_ARCH_MAP(ARCH_TEXT);
#undef ARCH_TEXT

    return text + 2; /* behind the first comma */
}

uint64_t m40_arch_dim(const struct m40_model_config *config, enum m40_dim dim)
{
    switch (dim) {
    case M40_DIM_ONE:
        return 1;
    case M40_DIM_EMBD:
        return config->n_embd;
    case M40_DIM_FF:
        return config->n_ff;
    case M40_DIM_VOCAB:
        return config->n_vocab;
    case M40_DIM_Q:
        return (uint64_t)config->n_heads * config->head_dim;
    case M40_DIM_KV:
        return (uint64_t)config->n_kv_heads * config->head_dim;
    case M40_DIM_EXPERTS:
        return config->n_experts;
    case M40_DIM_EXPERT_FF:
        return config->n_expert_ff;
    case M40_DIM_HEAD:
        return config->head_dim;
    case M40_DIM_HEADS:
        return config->n_heads;
    case M40_DIM_QKV:
        return ((uint64_t)config->n_heads + 2 * (uint64_t)config->n_kv_heads) * config->head_dim;
    case M40_DIM_FF_2:
        return 2 * (uint64_t)config->n_ff;
    }
    return 0;
}
