/* How far the scalar CPU backend may be from the same operation in doubles. Each bound follows from counting the roundings that a term goes through; U is the largest
 * relative error of one. Where terms can cancel, the bound is relative to the sum of their magnitudes, not to the result. */
#ifndef M40_TESTS_PARITY_TOLERANCES_H
#define M40_TESTS_PARITY_TOLERANCES_H

#define U 0x1p-24 /* half an ulp, relative */

/* An fma, a product or a quotient that ends below 2^-126 is off by at most this much instead. */
#define TINY 0x1p-150

/* A term goes through at most 256 fmas of its chunk, 16 for offsets, 8 additions of chunks, one for each of K / 2048 groups (3 here), bias and residual; an offset's
 * sum of x through 32 before that; the weight itself may be rounded once (Q6_K). */
#define TOLERANCE_MATMUL (320 * U)

/* By cuBLAS: n products and sums in any order, and the roundings of the weight (its offset, its scale), alpha, beta, bias and residual. 1e-3 is promised: this is less for every n of the
 * grid, so that TF32, whose inputs are off by 2^-11, shows where n is small. */
#define TOLERANCE_CUBLAS(n)     (((double)(n) + 8) * U)
#define TOLERANCE_CUBLAS_ABS(n) ((2 * (double)(n) + 8) * TINY)

/* All terms of the sum of squares are positive: n / 256 + 8 roundings for n columns, halved by the square root; then division, root, reciprocal and two products. */
#define TOLERANCE_RMS_NORM(n) (((double)(n) / 512 + 4 + 6) * U)

/* Two roundings; relative to |a c| + |b s|. */
#define TOLERANCE_ROPE (2 * U)

/* Relative to the weighted sum of |v|. A score is off by head_dim + 1 roundings of the sum of |q k|, and by as much as the exponential's argument is rounded (one of
 * the largest score's magnitude): an error of exp's argument is a relative error of a weight, which counts twice, in O and in L. Then 64 fmas of a piece, 3 roundings for each
 * further piece, 2 ulp of every exponential (two of them for a late piece), the division. */
#define TOLERANCE_ATTENTION(head_dim, score_magnitude, n_pieces)                                                                                     \
    (2 * ((double)(head_dim) + 3) * (score_magnitude)*U + 2 * (64 + 8 + 3 * (double)(n_pieces)) * U)
/* With a soft-cap a score has one more rounding, of scale / cap, and tanh's 2.5 ulp and a product's half, both of at most the cap. */
#define TOLERANCE_ATTENTION_CAP(score_magnitude, cap) (2 * ((score_magnitude) + 6 * (cap)) * U)
/* A sink's exponential: its argument rounded once, 2 ulp, and an addition. */
#define TOLERANCE_ATTENTION_SINK(argument) (((argument) + 6) * U)
/* No case may be so badly conditioned that its bound says nothing. */
#define TOLERANCE_ATTENTION_MOST 1e-3

/* 2 ulp of exp, then addition, division and product; and 6 roundings of exp's argument where that is not g itself (constants and polynomial of gelu, u + 1). */
#define TOLERANCE_GLU(argument) ((9 + 6 * ((argument) < 90 ? (argument) : 90)) * U)
/* Below -88.72 exp(-z) is infinite and the result is -0, where the exact value is at most 88.73 exp(-88.72) = 2.6e-37. */
#define TOLERANCE_GLU_ABS 2.7e-37

/* Roundings of scale / cap and of its product with x, which tanh does not magnify relative to itself, 2.5 ulp of tanh, a product. */
#define TOLERANCE_SOFTCAP (8 * U)

/* A weight of an expert: 2 ulp of its exponential, whose argument is rounded once (400 at most, within which exp is not 0), the sum of up to 16 of a lane and 5 levels, or of 32; a quotient, a product. */
#define TOLERANCE_ROUTE     ((2 * 2 + 2 * 104 + 32 + 2) * U)
#define TOLERANCE_ROUTE_ABS 1e-37

/* An fma for each expert and one for the shared one, the gate's 8 roundings, the residual. */
#define TOLERANCE_COMBINE(n_used) (((double)(n_used) + 1 + 8 + 1) * U)

#endif
