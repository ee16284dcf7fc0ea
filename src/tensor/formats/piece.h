/* What every format file needs: 16-byte pieces of a tile, and the widening of halves, for host and device. */
#ifndef M40_TENSOR_FORMATS_PIECE_H
#define M40_TENSOR_FORMATS_PIECE_H

#include "base/portable.h"
#include "base/half.h"
#include "base/fmath.h"

#include <stdint.h>

/* One 16-byte piece; on the device a single 128-bit load. */
struct m40_piece {
    uint32_t u[4];
} __attribute__((aligned(16)));

/* Piece `lane` of the plane that starts at `plane` bytes into the tile. */
M40_HD struct m40_piece m40_piece_load(const uint8_t *tile, unsigned plane, unsigned lane)
{
    return *(const struct m40_piece *)(const void *)(tile + plane + lane * 16);
}

#ifndef M40_DEVICE_CODE
#include <string.h>

static inline void m40_piece_store(uint8_t *tile, unsigned plane, unsigned lane, const void *bytes16)
{
    memcpy(tile + plane + lane * 16, bytes16, 16);
}
#endif

#endif
