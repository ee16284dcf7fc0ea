/* A tile's planes as the format files read them, on host and device: pieces of 16 bytes, one per row, and the smaller pieces of a last short plane. */
#ifndef M40_TENSOR_FORMATS_PIECE_H
#define M40_TENSOR_FORMATS_PIECE_H

#include "base/portable.h"
#include "base/half.h"
#include "base/fmath.h"

#include <stdint.h>

#define M40_PLANE_BYTES 512 /* 32 rows x 16 bytes */

/* One 16-byte piece; on the device a single 128-bit load. */
struct m40_piece {
    uint32_t u[4];
} __attribute__((aligned(16), may_alias));

/* Half a piece: of a plane of 8 bytes a row. */
struct m40_piece8 {
    uint32_t u[2];
} __attribute__((aligned(8), may_alias));

typedef uint32_t m40_piece4 __attribute__((may_alias));
typedef uint16_t m40_piece2 __attribute__((may_alias));

/* Piece `lane` of the plane that starts at `plane` bytes into the tile. */
M40_HD struct m40_piece m40_piece_load(const uint8_t *tile, unsigned plane, unsigned lane)
{
    return *(const struct m40_piece *)(const void *)(tile + plane + lane * 16);
}

M40_HD struct m40_piece8 m40_piece8_load(const uint8_t *tile, unsigned plane, unsigned lane)
{
    return *(const struct m40_piece8 *)(const void *)(tile + plane + lane * 8);
}

M40_HD uint32_t m40_piece4_load(const uint8_t *tile, unsigned plane, unsigned lane)
{
    return *(const m40_piece4 *)(const void *)(tile + plane + lane * 4);
}

M40_HD uint16_t m40_piece2_load(const uint8_t *tile, unsigned plane, unsigned lane)
{
    return *(const m40_piece2 *)(const void *)(tile + plane + lane * 2);
}

/* Word i (0..3, known at run time only) by selects: an indexed array would live in local memory. */
M40_HD uint32_t m40_piece_word(const struct m40_piece *piece, unsigned i)
{
    uint32_t lower = i & 1 ? piece->u[1] : piece->u[0];
    uint32_t upper = i & 1 ? piece->u[3] : piece->u[2];

    return i & 2 ? upper : lower;
}

/* Word i (0..7) of two pieces. */
M40_HD uint32_t m40_pieces_word(const struct m40_piece *pieces, unsigned i)
{
    uint32_t first = m40_piece_word(&pieces[0], i), second = m40_piece_word(&pieces[1], i);

    return i & 4 ? second : first;
}

/* 16-bit field i, 0..7. */
M40_HD uint16_t m40_piece_half(const struct m40_piece *piece, unsigned i)
{
    return (uint16_t)(m40_piece_word(piece, i / 2) >> i % 2 * 16 & 0xffff);
}

#endif
