#include "tensor/dtype.h"
#include "base/mem.h"

#include <string.h>

const struct m40_dtype_info m40_dtypes[M40_DTYPE_LIMIT] = {
#define M40_DTYPE_ROW(number, suffix, name, elems, bytes, readable) [number] = {name, number, elems, bytes, readable},
    M40_DTYPE_MAP(M40_DTYPE_ROW)
#undef M40_DTYPE_ROW
};

const struct m40_dtype_info *m40_dtype_info(uint32_t number)
{
    return number < M40_DTYPE_LIMIT && m40_dtypes[number].name ? &m40_dtypes[number] : NULL;
}

const struct m40_dtype_info *m40_dtype_by_name(const char *name)
{
    for (uint32_t i = 0; i < M40_DTYPE_LIMIT; i++)
        if (m40_dtypes[i].name && strcmp(m40_dtypes[i].name, name) == 0)
            return &m40_dtypes[i];
    return NULL;
}

bool m40_dtype_row_bytes(const struct m40_dtype_info *type, uint64_t n_elems, uint64_t *out_bytes)
{
    return n_elems % type->block_elems == 0 && m40_mul_u64(n_elems / type->block_elems, type->block_bytes, out_bytes);
}
