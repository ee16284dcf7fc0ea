/* What the golden tests run models with: a device chosen on the command line, and sequences fed in any chunking, beside each other, on any pages. */
#ifndef M40_TESTS_GOLDEN_RUNNER_H
#define M40_TESTS_GOLDEN_RUNNER_H

#include "harness/harness.h"

#include "model/model.h"

#define OK(call)                                                                                                                                     \
    do {                                                                                                                                             \
        m40llm_error err = {0};                                                                                                                      \
        if ((call) != M40LLM_OK)                                                                                                                     \
            fail_msg("%s: %s", #call, err.text);                                                                                                     \
    } while (0)

/* From the command line; the environment says what it does not. */
struct options {
    const char *device;       /* "cpu" or "cuda": --device, or $M40LLM_TEST_DEVICE */
    const char *cuda_library; /* $M40LLM_CUDA_LIB */
    m40llm_cpu_level level;   /* --level scalar|avx2, or $M40LLM_TEST_LEVEL */
    const char *models;       /* --models a,b; NULL: all */
    bool is_thin;             /* --thin, or M40LLM_TEST_THIN=1: fewer chunkings, for slow devices */
    bool must_have_device;    /* M40LLM_REQUIRE_GPU=1, or a driver is named */
};
extern struct options options;

/* Fills `options`; false, with a text on stderr, where the command line is wrong. */
bool read_options(int argc, char **argv);
/* Whether --models names this one. */
bool wants_model(const char *name);

/* The device of `options`; NULL, with why in *reason, where there is none and need not be one. */
struct m40_backend *open_device(const char **reason);
/* The CPU at a level. */
struct m40_backend *open_cpu(m40llm_cpu_level level);

/* A model and a forward pass on a backend. */
struct runner {
    struct m40_gguf *gguf;
    struct m40_model *model;
    struct m40_forward *forward;
    uint32_t n_vocab, n_slots, n_slot_pages;
    int32_t *pages; /* [n_slots][n_slot_pages] */
};

enum { RUNNER_STEP_TOKENS = 512 }; /* at most */

/* Room for n_slots sequences of n_ctx positions. page_seed: 0 for pages in order, otherwise they are shuffled, each sequence's among all others'. */
void runner_open(struct runner *r, struct m40_backend *be, const char *path, m40llm_kv_type kv_type, uint32_t n_slots, uint32_t n_ctx,
                 uint64_t page_seed);
void runner_close(struct runner *r);
/* Another order of pages; the cache's content is lost. */
void runner_shuffle_pages(struct runner *r, uint64_t page_seed);

/* One sequence to feed. The first n_prompt ids come in chunks, the others one by one. */
struct sequence {
    const int32_t *ids;
    uint32_t n_prompt, n_total;
    float *logits; /* [n_total][n_vocab]: filled from position first_logits on */
    uint32_t first_logits;
};

/* Feeds sequence i into slot i, all side by side: a step takes up to `chunk` tokens of each, their rows interleaved. */
void runner_feed(struct runner *r, const struct sequence *sequences, uint32_t n_sequences, uint32_t chunk);

int32_t argmax(const float *logits, uint32_t n);

#endif
