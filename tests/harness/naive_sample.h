/* "sample" of docs/numerics.md word by word: everything is sorted and added up. */
#ifndef M40_TESTS_NAIVE_SAMPLE_H
#define M40_TESTS_NAIVE_SAMPLE_H

#include "backend/sample.h"

int32_t naive_sample(const float *x, uint32_t n, const struct m40_sample_row *row);

#endif
