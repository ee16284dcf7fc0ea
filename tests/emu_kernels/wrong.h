/* Arguments of the deliberately wrong kernels of wrong.cu. */
#ifndef M40_TESTS_WRONG_H
#define M40_TESTS_WRONG_H

#include <stdint.h>

struct wrong_args {
    uint32_t *out;
    uint32_t n;
};

#endif
