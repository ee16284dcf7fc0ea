/* Data types: GGUF's numbers, names and sizes. */
#ifndef M40_TENSOR_DTYPE_H
#define M40_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* number, enum suffix, name, elements a block, bytes a block, readable (a format exists: src/tensor/formats/) */
#define M40_DTYPE_MAP(X)                                                                                                                             \
    X(0, F32, "f32", 1, 4, 1)                                                                                                                        \
    X(1, F16, "f16", 1, 2, 1)                                                                                                                        \
    X(2, Q4_0, "q4_0", 32, 18, 1)                                                                                                                    \
    X(3, Q4_1, "q4_1", 32, 20, 1)                                                                                                                    \
    X(6, Q5_0, "q5_0", 32, 22, 1)                                                                                                                    \
    X(7, Q5_1, "q5_1", 32, 24, 1)                                                                                                                    \
    X(8, Q8_0, "q8_0", 32, 34, 1)                                                                                                                    \
    X(9, Q8_1, "q8_1", 32, 36, 0)                                                                                                                    \
    X(10, Q2_K, "q2_k", 256, 84, 1)                                                                                                                  \
    X(11, Q3_K, "q3_k", 256, 110, 1)                                                                                                                 \
    X(12, Q4_K, "q4_k", 256, 144, 1)                                                                                                                 \
    X(13, Q5_K, "q5_k", 256, 176, 1)                                                                                                                 \
    X(14, Q6_K, "q6_k", 256, 210, 1)                                                                                                                 \
    X(15, Q8_K, "q8_k", 256, 292, 0)                                                                                                                 \
    X(16, IQ2_XXS, "iq2_xxs", 256, 66, 0)                                                                                                            \
    X(17, IQ2_XS, "iq2_xs", 256, 74, 0)                                                                                                              \
    X(18, IQ3_XXS, "iq3_xxs", 256, 98, 0)                                                                                                            \
    X(19, IQ1_S, "iq1_s", 256, 50, 0)                                                                                                                \
    X(20, IQ4_NL, "iq4_nl", 32, 18, 1)                                                                                                               \
    X(21, IQ3_S, "iq3_s", 256, 110, 0)                                                                                                               \
    X(22, IQ2_S, "iq2_s", 256, 82, 0)                                                                                                                \
    X(23, IQ4_XS, "iq4_xs", 256, 136, 1)                                                                                                             \
    X(24, I8, "i8", 1, 1, 0)                                                                                                                         \
    X(25, I16, "i16", 1, 2, 0)                                                                                                                       \
    X(26, I32, "i32", 1, 4, 0)                                                                                                                       \
    X(27, I64, "i64", 1, 8, 0)                                                                                                                       \
    X(28, F64, "f64", 1, 8, 0)                                                                                                                       \
    X(29, IQ1_M, "iq1_m", 256, 56, 0)                                                                                                                \
    X(30, BF16, "bf16", 1, 2, 1)                                                                                                                     \
    X(34, TQ1_0, "tq1_0", 256, 54, 0)                                                                                                                \
    X(35, TQ2_0, "tq2_0", 256, 66, 0)                                                                                                                \
    X(39, MXFP4, "mxfp4", 32, 17, 1)                                                                                                                 \
    X(40, NVFP4, "nvfp4", 64, 36, 0)                                                                                                                 \
    X(41, Q1_0, "q1_0", 128, 18, 0)                                                                                                                  \
    X(42, Q2_0, "q2_0", 64, 18, 0)

enum m40_dtype {
#define M40_DTYPE_ENUM(number, suffix, name, elems, bytes, readable) M40_DTYPE_##suffix = number,
    M40_DTYPE_MAP(M40_DTYPE_ENUM)
#undef M40_DTYPE_ENUM
};

struct m40_dtype_info {
    const char *name;
    uint32_t number; /* enum m40_dtype */
    uint32_t block_elems, block_bytes;
    bool is_readable;
};

/* By number; a number that no type has gives a row without a name. */
#define M40_DTYPE_LIMIT 43
extern const struct m40_dtype_info m40_dtypes[M40_DTYPE_LIMIT];

/* NULL: no type has this number, or this name. */
const struct m40_dtype_info *m40_dtype_info(uint32_t number);
const struct m40_dtype_info *m40_dtype_by_name(const char *name);

/* Bytes of a row of n_elems; false where n_elems is no multiple of the block, or on overflow. */
bool m40_dtype_row_bytes(const struct m40_dtype_info *type, uint64_t n_elems, uint64_t *out_bytes);

#endif
