/* The parity grid: the operations of every backend on awkward shapes and inputs, with two verdicts.
 *
 *  - A variant (cpu-avx2, cpu-avx512, cuda) must give the bits of the scalar CPU backend; NaN equals NaN.
 *  - The scalar CPU backend must be near a computation in double precision (ref64.h), within the bounds of tolerances.h.
 *
 * Where cuBLAS is switched on ($M40LLM_ENABLE_CUBLAS=1), all matmuls of the card go through it, and only have to be near the doubles, within TOLERANCE_CUBLAS.
 *
 * A test makes cases. A case is a list of buffers and a function that issues one operation on them; parity_run() runs it on every target in memory of the target's own,
 * with outputs poisoned before and guard bands around every buffer checked after. The test then checks the scalar target's outputs against doubles.
 */
#ifndef M40_TESTS_PARITY_H
#define M40_TESTS_PARITY_H

#include "backend/backend.h"
#include "harness/harness.h"

enum { PARITY_MAX_TARGETS = 4, PARITY_MAX_BUFFERS = 12, PARITY_MAX_BLOCKS = 24 };

/* Targets[0] is always the scalar CPU backend; its verdict is the one against doubles. */
struct parity_target {
    const char *name;
    struct m40_backend *backend; /* NULL: skipped */
    char why_not[256];
    bool is_wanted;  /* its verdict is; the scalar backend runs in any case */
    bool has_cublas; /* its matmuls are near, not bit-equal */
    struct m40_workload reserved;
    unsigned n_checks, n_failed; /* of the test that is running */
};

struct parity {
    struct parity_target targets[PARITY_MAX_TARGETS];
    unsigned n_targets;
    uint64_t random; /* state of test_random(); every test starts from the same seed, so that choosing tests does not change their inputs */
    bool is_thin, is_verbose;
};

enum parity_use { PARITY_IN, PARITY_OUT, PARITY_IN_OUT };
enum parity_element { PARITY_F32, PARITY_F16 }; /* decides what a NaN is */

struct parity_buffer {
    const void *data; /* content at first; NULL: an output */
    size_t n_bytes;
    enum parity_use use;
    enum parity_element element;
    void *result[PARITY_MAX_TARGETS]; /* content afterwards, of outputs */
};

struct parity_case {
    char name[160];
    bool is_matmul; /* need.n_cols is its K */
    struct m40_workload need;
    struct parity_buffer buffers[PARITY_MAX_BUFFERS];
    unsigned n_buffers;
    /* at[i]: where buffer i is */
    m40llm_status (*issue)(struct m40_backend *be, const m40_addr *at, const void *args, m40llm_error *err);
    const void *args;
    void *blocks[PARITY_MAX_BLOCKS]; /* freed with the case */
    unsigned n_blocks;
};

/* Memory that lives as long as the case. */
void *parity_alloc(struct parity_case *c, size_t n_bytes);
/* Both return the buffer's index. data must outlive the case. */
unsigned parity_in(struct parity_case *c, const void *data, size_t n_bytes);
unsigned parity_out(struct parity_case *c, size_t n_bytes);

/* Runs the case on every target and gives the verdict of every variant. */
void parity_run(struct parity *p, struct parity_case *c);
/* The scalar target's output against doubles: |y[i] - expected[i]| <= bound[i]; infinities and NaNs must be the same. With cuBLAS a target's matmuls, too, within TOLERANCE_CUBLAS instead of
 * TOLERANCE_MATMUL. */
void parity_check_doubles(struct parity *p, const struct parity_case *c, unsigned buffer, const double *expected, const double *bound);
/* n_bytes of a's output from offset_bytes on must be all of b's output, on every target; but for matmuls by cuBLAS. */
void parity_check_same(struct parity *p, const struct parity_case *a, unsigned a_buffer, size_t offset_bytes, const struct parity_case *b,
                       unsigned b_buffer);
/* One check of target i that holds or not. */
void parity_check(struct parity *p, unsigned target, bool holds, const char *what, ...) __attribute__((format(printf, 4, 5)));
void parity_case_free(struct parity_case *c);

/* Inputs. PARITY_RANDOM: uniform in [-1, 1). The others are worst cases: neighbours that nearly cancel; subnormals and the least normals; signed zeros and
 * powers of two from 2^-30 to 2^20. */
enum parity_input { PARITY_RANDOM, PARITY_CANCELLING, PARITY_SUBNORMAL, PARITY_POWERS, PARITY_N_INPUTS };
/* Half of all cases are random, the rest worst cases in turn. */
enum parity_input parity_input(unsigned case_number);
float *parity_floats(struct parity *p, struct parity_case *c, size_t n, enum parity_input input);
static inline uint32_t parity_below(struct parity *p, uint32_t n)
{
    return (uint32_t)(test_random(&p->random) % n);
}

/* The tests. dtype, kv type and style where there are several. */
void parity_embed(struct parity *p, uint32_t dtype);
void parity_matmul(struct parity *p, uint32_t dtype);
void parity_norm_matmul(struct parity *p, uint32_t dtype);
void parity_matmul_alone(struct parity *p, uint32_t dtype);
void parity_matmul_edges(struct parity *p, uint32_t dtype);
void parity_rms_norm(struct parity *p, uint32_t unused);
void parity_rope_append_norm(struct parity *p, uint32_t kv_type);
void parity_rope_append_neox(struct parity *p, uint32_t kv_type);
void parity_attention_decode(struct parity *p, uint32_t kv_type);
void parity_attention_prefill(struct parity *p, uint32_t kv_type);
void parity_attention_alone(struct parity *p, uint32_t kv_type);
void parity_attention_window(struct parity *p, uint32_t kv_type);
void parity_attention_scores(struct parity *p, uint32_t kv_type);
void parity_glu(struct parity *p, uint32_t unused);
void parity_softcap(struct parity *p, uint32_t unused);
void parity_gather_rows(struct parity *p, uint32_t unused);
void parity_route(struct parity *p, uint32_t unused);
void parity_expert_matmul(struct parity *p, uint32_t dtype);
void parity_expert_alone(struct parity *p, uint32_t dtype);
void parity_combine(struct parity *p, uint32_t unused);
void parity_argmax(struct parity *p, uint32_t unused);
void parity_sample(struct parity *p, uint32_t unused);
void parity_limits(struct parity *p, uint32_t unused);
void parity_no_memory(struct parity *p, uint32_t unused); /* the CPU's targets only */

#endif
