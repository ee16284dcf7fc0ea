#include "tensor/format.h"
#include "base/mem.h"
#include "tensor/formats/all.h"

#include <assert.h>

/* The functions of the table, from those of each format's file. A plain format gives whole rows already, and its values are its weights. */
#define DEFINE_PLAIN_ROWS(suffix, name)                                                                                                              \
    static void name##_dequant(const void *elems, size_t n, float *values)                                                                           \
    {                                                                                                                                                \
        name##_row_values(elems, n, values);                                                                                                         \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_all_weights(const void *elems, size_t n, float *q, float *d, float *m)                                                        \
    {                                                                                                                                                \
        (void)d, (void)m;                                                                                                                            \
        name##_row_values(elems, n, q);                                                                                                              \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_pack(const void *elems, size_t n, uint8_t *tile, unsigned lane)                                                               \
    {                                                                                                                                                \
        name##_row_pack(elems, n, tile, lane);                                                                                                       \
    }

#define DEFINE_BLOCK_ROWS(suffix, name)                                                                                                              \
    static void name##_dequant(const void *blocks, size_t n_blocks, float *values)                                                                   \
    {                                                                                                                                                \
        const struct name##_block *block = blocks;                                                                                                   \
                                                                                                                                                     \
        for (size_t i = 0; i < n_blocks; i++)                                                                                                        \
            name##_block_values(&block[i], values + i * name##_BLOCK);                                                                               \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_all_weights(const void *blocks, size_t n_blocks, float *q, float *d, float *m)                                                \
    {                                                                                                                                                \
        const struct name##_block *block = blocks;                                                                                                   \
        const size_t n_subs = name##_BLOCK / name##_SUB;                                                                                             \
                                                                                                                                                     \
        for (size_t i = 0; i < n_blocks; i++)                                                                                                        \
            name##_block_weights(&block[i], q + i * name##_BLOCK, d + i * n_subs, name##_HAS_OFFSETS ? m + i * n_subs : m);                          \
    }                                                                                                                                                \
                                                                                                                                                     \
    static void name##_pack(const void *blocks, size_t n_blocks, uint8_t *tile, unsigned lane)                                                       \
    {                                                                                                                                                \
        const struct name##_block *block = blocks;                                                                                                   \
                                                                                                                                                     \
        for (size_t i = 0; i < n_blocks; i++)                                                                                                        \
            name##_block_pack(&block[i], (unsigned)i *name##_BLOCK, tile, lane);                                                                     \
    }

M40_PLAIN_FORMAT_MAP(DEFINE_PLAIN_ROWS)
M40_BLOCK_FORMAT_MAP(DEFINE_BLOCK_ROWS)

#define ROW(suffix_, name_)                                                                                                                          \
    [M40_DTYPE_##suffix_] = {                                                                                                                        \
        .type = &m40_dtypes[M40_DTYPE_##suffix_],                                                                                                    \
        .sub = name_##_SUB,                                                                                                                          \
        .bias = name_##_BIAS,                                                                                                                        \
        .has_offsets = name_##_HAS_OFFSETS,                                                                                                          \
        .tile_bytes = name_##_TILE_BYTES,                                                                                                            \
        .dequant = name_##_dequant,                                                                                                                  \
        .weights = name_##_all_weights,                                                                                                              \
        .pack = name_##_pack,                                                                                                                        \
    },

static const struct m40_format formats[M40_DTYPE_LIMIT] = {M40_FORMAT_MAP(ROW)};

/* The files' structs against the sizes that GGUF's types have, and the tile's alignment. */
#define M40_DTYPE_SIZES(number, suffix, name, elems, bytes, readable) enum { suffix##_ELEMS_ = elems, suffix##_BYTES_ = bytes };
M40_DTYPE_MAP(M40_DTYPE_SIZES)
#define CHECK_SIZES(suffix, name)                                                                                                                    \
    static_assert(sizeof(struct name##_block) == suffix##_BYTES_ && (int)name##_BLOCK == (int)suffix##_ELEMS_, "block");                             \
    static_assert(name##_TILE_BYTES % 16 == 0, "tiles follow one another aligned");
M40_FORMAT_MAP(CHECK_SIZES)

const struct m40_format *m40_format(uint32_t dtype)
{
    return dtype < M40_DTYPE_LIMIT && formats[dtype].type ? &formats[dtype] : NULL;
}

/* n / unit, rounded up, for any n. */
static uint64_t divide_up(uint64_t n, uint64_t unit)
{
    return n / unit + (n % unit != 0);
}

bool m40_format_tiled_bytes(const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, uint64_t *out_bytes)
{
    return m40_mul_u64(divide_up(n_rows, M40_TILE_ROWS), divide_up(n_cols, M40_TILE_COLS), out_bytes) &&
           m40_mul_u64(*out_bytes, format->tile_bytes, out_bytes);
}

/* The first n_bytes of a chunk's blocks, and zero blocks behind them; NULL: of a row that does not exist. */
static void pack_chunk(const struct m40_format *format, const uint8_t *blocks, uint64_t n_bytes, uint8_t *tile, unsigned lane)
{
    const uint64_t n_blocks = M40_TILE_COLS / format->type->block_elems, chunk_bytes = n_blocks * format->type->block_bytes;
    uint8_t padded[M40_TILE_COLS * sizeof(float)] = {0};

    assert(chunk_bytes <= sizeof padded);
    if (blocks && n_bytes < chunk_bytes)
        memcpy(padded, blocks, n_bytes);
    format->pack(blocks && n_bytes == chunk_bytes ? blocks : padded, n_blocks, tile, lane);
}

void m40_format_pack_rows(const struct m40_format *format, const void *rows, uint64_t n_rows, uint64_t n_cols, uint64_t first_row_tile,
                          uint64_t n_row_tiles, uint8_t *out)
{
    const uint64_t block_elems = format->type->block_elems, block_bytes = format->type->block_bytes;
    const uint64_t row_bytes = n_cols / block_elems * block_bytes, chunk_bytes = M40_TILE_COLS / block_elems * block_bytes;

    for (uint64_t row_tile = first_row_tile; row_tile < first_row_tile + n_row_tiles; row_tile++) {
        const uint64_t first_row = row_tile * M40_TILE_ROWS;
        const uint64_t rows_left = first_row < n_rows ? n_rows - first_row : 0;
        const unsigned n_lanes = rows_left < M40_TILE_ROWS ? (unsigned)rows_left : M40_TILE_ROWS;

        for (uint64_t at = 0; at < row_bytes; at += chunk_bytes, out += format->tile_bytes) {
            uint64_t n_bytes = row_bytes - at < chunk_bytes ? row_bytes - at : chunk_bytes;

            memset(out, 0, format->tile_bytes);
            for (unsigned lane = 0; lane < M40_TILE_ROWS; lane++)
                pack_chunk(format, lane < n_lanes ? (const uint8_t *)rows + (first_row + lane) * row_bytes + at : NULL, n_bytes, out, lane);
        }
    }
}
