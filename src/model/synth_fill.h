/* Random weights of every format. A block is filled with random bits, and then only what decides its magnitude is set: its scale (and, where the format has an offset, an offset that centres
 * the values), or the exponents of plain floats. A tensor is made in slices; each is a function of (tensor, slice) alone, so threads may share them in any way. */
#ifndef M40_MODEL_SYNTH_FILL_H
#define M40_MODEL_SYNTH_FILL_H

#include "tensor/dtype.h"

#include <stddef.h>

enum {
    M40_SYNTH_SLICE_BYTES = 1 << 16, /* at most */
    M40_SYNTH_SCALES = 64,           /* different scales of a tensor's blocks */
};

struct m40_synth_recipe;

/* What one tensor's slices are made with. */
struct m40_synth_filling {
    const struct m40_synth_recipe *recipe;
    const struct m40_dtype_info *type;
    uint64_t seed;
    uint64_t keep, add;                                     /* plain floats: word = (random & keep) + add */
    uint16_t d[M40_SYNTH_SCALES], offset[M40_SYNTH_SCALES]; /* blocks: picked by random bits */
    uint64_t slice_bytes;                                   /* whole blocks, and a multiple of 8 */
};

bool m40_synth_can_make(uint32_t dtype);
/* Names of the types that can be made, in order; NULL: no more. */
const char *m40_synth_type_name(size_t i);

/* Weights with a mean near 0 and this standard deviation (to a factor of 1.5); i_tensor makes tensors differ. */
void m40_synth_filling_init(struct m40_synth_filling *f, uint32_t dtype, uint64_t i_tensor, float std);
/* F32 from 1 to 1.125: the weights of a norm. */
void m40_synth_filling_init_norm(struct m40_synth_filling *f, uint64_t i_tensor);

/* n_bytes (slice_bytes, or fewer for a last slice) of slice i into out. */
void m40_synth_make_slice(const struct m40_synth_filling *f, uint64_t i, uint8_t *out, size_t n_bytes);

#endif
