/* Rotary position embeddings: every variant in one place, as one struct that says how the frequencies of a model's pairs come about. */
#ifndef M40_MODEL_ROPE_H
#define M40_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

enum { M40_ROPE_MAX_PAIRS = 128 }; /* heads have at most 256 elements */

/* f[i] = base^(-2i / n_rot) / divisors[i], then by the scaling; cos and sin are times magnitude. */
struct m40_rope {
    uint32_t n_rot; /* rotated elements of a head, even; 0: the model does not rotate */
    double base;
    double factor; /* linear: f / factor. YaRN: what slow pairs are divided by. 1: neither */
    double magnitude;
    double temperature;         /* queries at pos are longer, by 1 + temperature ln(1 + floor(pos / n_ctx_original)); 0: they are not */
    const float *divisors;      /* [n_rot / 2] in the file's memory, or NULL: rope_freqs.weight (Llama 3) or rope_factors_short.weight (LongRoPE) */
    const float *long_divisors; /* LongRoPE: instead of divisors where the context is longer than n_ctx_original; NULL: none */
    uint32_t n_ctx_original;    /* that the model was trained with before it was stretched */
    /* YaRN (Peng et al., 2023): pairs up to ramp_low keep their f, those from ramp_high on have f / factor, between them it is blended. */
    bool is_yarn;
    double ramp_low, ramp_high;
};

/* Sets is_yarn, ramp_low and ramp_high, from how often a pair turns in the original context: beta_fast times and more, it keeps its f; beta_slow times and fewer, it is slowed down.
 * is_whole: the ramp's ends are rounded outwards to whole pairs. base, n_rot, factor and n_ctx_original are set; base > 1. */
void m40_rope_set_yarn(struct m40_rope *rope, double beta_fast, double beta_slow, bool is_whole);

/* 0.1 multiplier ln(factor) + 1, factor >= 1; with a multiplier of 1 YaRN's customary magnitude. */
double m40_rope_yarn_magnitude(double factor, double multiplier);

/* f[i], i < n_rot / 2, in radians a position, for sequences of at most n_ctx tokens. */
void m40_rope_frequencies(const struct m40_rope *rope, uint32_t n_ctx, double *f);

/* cos and sin for the backend: table[pos][i][2], pos < n_ctx, i < n_rot / 2, in double precision, rounded once. Deterministic on every machine: no libm. for_queries: with temperature. */
void m40_rope_table(const struct m40_rope *rope, uint32_t n_ctx, bool for_queries, float *table);

#endif
