#ifndef M40_TESTS_PARITY_RANDOM_WEIGHTS_H
#define M40_TESTS_PARITY_RANDOM_WEIGHTS_H

#include "tensor/format.h"

/* n_elems weights of a format as a file would have them: quants and small scales of any bits, the block's own scales between 2^-12 and 2^-4 of either sign, one in sixteen
 * subnormal and one in sixteen a zero. n_elems: a multiple of the block. To be freed with free(). */
void *random_weights(uint64_t *random, const struct m40_format *format, uint64_t n_elems);

#endif
