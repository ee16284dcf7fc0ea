/* The golden models' GGUF files, generated at test time: tests/data/golden/NAME.json has a recipe in which every weight is a function of a seed. */
#ifndef M40_TESTS_GOLDEN_GGUF_H
#define M40_TESTS_GOLDEN_GGUF_H

/* The path of a golden model's file, e.g. golden_gguf_path("llama"), to be freed with free(). The file is made where it is not there already, in $M40LLM_GOLDEN_CACHE if
 * that is set, otherwise in test_tmp_dir(), and has the SHA-256 that the recipe names; anything else fails the test. */
char *golden_gguf_path(const char *name);

#endif
