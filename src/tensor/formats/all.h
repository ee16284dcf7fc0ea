/* Every format, and their list: X(suffix of the M40_DTYPE, prefix of the names in its file). */
#ifndef M40_TENSOR_FORMATS_ALL_H
#define M40_TENSOR_FORMATS_ALL_H

#include "tensor/formats/f32.h"
#include "tensor/formats/f16.h"
#include "tensor/formats/bf16.h"
#include "tensor/formats/q4_0.h"
#include "tensor/formats/q4_1.h"
#include "tensor/formats/q5_0.h"
#include "tensor/formats/q5_1.h"
#include "tensor/formats/q8_0.h"
#include "tensor/formats/q2_k.h"
#include "tensor/formats/q3_k.h"
#include "tensor/formats/q4_k.h"
#include "tensor/formats/q5_k.h"
#include "tensor/formats/q6_k.h"
#include "tensor/formats/iq4_nl.h"
#include "tensor/formats/iq4_xs.h"
#include "tensor/formats/mxfp4.h"

#define M40_PLAIN_FORMAT_MAP(X)                                                                                                                      \
    X(F32, f32)                                                                                                                                      \
    X(F16, f16)                                                                                                                                      \
    X(BF16, bf16)

#define M40_BLOCK_FORMAT_MAP(X)                                                                                                                      \
    X(Q4_0, q4_0)                                                                                                                                    \
    X(Q4_1, q4_1)                                                                                                                                    \
    X(Q5_0, q5_0)                                                                                                                                    \
    X(Q5_1, q5_1)                                                                                                                                    \
    X(Q8_0, q8_0)                                                                                                                                    \
    X(Q2_K, q2_k)                                                                                                                                    \
    X(Q3_K, q3_k)                                                                                                                                    \
    X(Q4_K, q4_k)                                                                                                                                    \
    X(Q5_K, q5_k)                                                                                                                                    \
    X(Q6_K, q6_k)                                                                                                                                    \
    X(IQ4_NL, iq4_nl)                                                                                                                                \
    X(IQ4_XS, iq4_xs)                                                                                                                                \
    X(MXFP4, mxfp4)

#define M40_FORMAT_MAP(X)                                                                                                                            \
    M40_PLAIN_FORMAT_MAP(X)                                                                                                                          \
    M40_BLOCK_FORMAT_MAP(X)

#endif
