#ifndef M40_BASE_CLOCK_H
#define M40_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic time in nanoseconds; only differences mean anything. */
uint64_t m40_now_ns(void);

#endif
