/* The weight formats. Each is described in one file, src/tensor/formats/NAME.h, which is compiled for the host and for the device; this header is the
 * host's table of them.
 *
 * Three views of one row of weights (docs/numerics.md):
 *  - dequant: the values, bit for bit what ggml gives. For embeddings and for showing a tensor.
 *  - weights: what a matmul multiplies with: quants q, integers of 0 to 255, and for every `sub` elements a scale d and, in some formats, an offset m. The value is d * (q - bias),
 *    or d * q - m. A plain format has only q, its values.
 *  - tile: 32 rows x 256 columns as the device keeps them. A tile is a sequence of planes; a plane holds one piece (16 bytes, or fewer for a last small one) of each of
 *    the 32 rows, side by side, so that a warp whose lane i works on row i loads it coalesced. A short last chunk (n_cols % 256) and missing rows are filled up with blocks of zero bytes.
 *    Tiles of a matrix: [row / 32][column / 256].
 */
#ifndef M40_TENSOR_FORMAT_H
#define M40_TENSOR_FORMAT_H

#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define M40_TILE_ROWS 32
#define M40_TILE_COLS 256 /* = the contract's chunk of K */

struct m40_format {
    const struct m40_dtype_info *type;
    uint32_t sub;        /* elements that share one scale: 32, 16, or 0 where the format has none */
    uint32_t bias;       /* a power of two, or 0 */
    bool has_offsets;    /* there is an m for each scale; bias is 0 */
    uint32_t tile_bytes; /* of one 32 x 256 tile */

    /* n_blocks consecutive blocks -> n_blocks * block_elems values. */
    void (*dequant)(const void *blocks, size_t n_blocks, float *values);
    /* The same blocks -> q[n_blocks * block_elems]; where sub != 0, d[n_blocks * block_elems / sub]; where has_offsets, as many m. What there is none of may be NULL. */
    void (*weights)(const void *blocks, size_t n_blocks, float *q, float *d, float *m);
    /* One row's blocks of one chunk (n_blocks * block_elems <= 256 columns) -> row `lane` of a tile whose bytes are zero. */
    void (*pack)(const void *blocks, size_t n_blocks, uint8_t *tile, unsigned lane);
};

/* NULL where the type is not readable. */
const struct m40_format *m40_format(uint32_t dtype);

/* Bytes of a matrix in tiles; false on overflow. */
bool m40_format_tiled_bytes(const struct m40_format *format, uint64_t n_rows, uint64_t n_cols, uint64_t *out_bytes);

/* Packs rows [first_row_tile * 32, ... ) of a matrix whose rows lie row_bytes apart in `rows` (row 0 of the matrix first): n_row_tiles tiles high, all columns wide.
 * out: n_row_tiles * ceil(n_cols / 256) * tile_bytes bytes. Pure; several threads may pack different parts. */
void m40_format_pack_rows(const struct m40_format *format, const void *rows, uint64_t n_rows, uint64_t n_cols, uint64_t first_row_tile,
                          uint64_t n_row_tiles, uint8_t *out);

#endif
