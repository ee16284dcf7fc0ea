#include "tensor/dtype.h"
#include "base/mem.h"

#include <string.h>

static const struct m40_dtype_info types[] = {
#define M40_DTYPE_ROW(number, suffix, name, elems, bytes, readable) {name, number, elems, bytes, readable},
    M40_DTYPE_MAP(M40_DTYPE_ROW)
#undef M40_DTYPE_ROW
};

const struct m40_dtype_info *m40_dtype_info(uint32_t number)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].number == number)
            return &types[i];
    return NULL;
}

const struct m40_dtype_info *m40_dtype_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

bool m40_dtype_row_bytes(const struct m40_dtype_info *type, uint64_t n_elems, uint64_t *out_bytes)
{
    return n_elems % type->block_elems == 0 && m40_mul_u64(n_elems / type->block_elems, type->block_bytes, out_bytes);
}
