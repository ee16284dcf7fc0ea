/* What every test file includes: cmocka with the headers it needs, and small helpers. */
#ifndef M40_TESTS_HARNESS_H
#define M40_TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Path of a file of the test data, e.g. test_data("vocab/ggml-vocab-gpt-2.gguf"); the folder is $M40LLM_TEST_DATA, or tests/data. Valid until the
 * fourth call after it. */
const char *test_data(const char *name);

/* The whole file, NUL-terminated, to be freed with free(); fails the test where it cannot be read. */
char *test_read_file(const char *path, size_t *n_bytes);

/* A folder that is new, empty and private to this process (under $TMPDIR); removed at exit with what is in it. */
const char *test_tmp_dir(void);

/* splitmix64: the tests' random numbers. Seed from test_seed() ^ something of the test's own. */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* $M40LLM_TEST_SEED, or 1. */
uint64_t test_seed(void);

/* Uniform in [-1, 1). */
static inline float test_random_float(uint64_t *state)
{
    return (float)(int32_t)(test_random(state) >> 32) * 0x1p-31f;
}

#endif
