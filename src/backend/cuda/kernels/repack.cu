/* Rows as a file has them to tiles: what m40_format_pack_rows does on the host, by the same packing functions, so that a weight passes the bus as the file stores it and no host core
 * touches its bits. A warp brings the 32 rows' pieces of a chunk to shared memory, coalesced; then each lane packs a row. */
#include "backend/cuda/kernels/simt.h"
#include "backend/cuda/kernels/kernel_args.h"
#include "tensor/formats/all.h"

enum { REPACK_ROWS = 32, REPACK_COLS = 256, REPACK_AT_ONCE = 8 /* rows whose bytes are under way together */ };

/* A row's place in shared memory: aligned for any block, and an odd number of words, so that lanes which read the same byte of their rows read from different banks. */
#define REPACK_PITCH(chunk_bytes) ((((chunk_bytes) + 3) / 4 | 1) * 4)

/* The block's 32 rows of its chunk, with zeros where the matrix has no such row or column. */
M40_HD void repack_fetch(const struct repack_args *args, uint32_t chunk_bytes, uint32_t pitch, uint8_t *out)
{
    const uint32_t first_row = simt_block_x() / args->n_chunks * REPACK_ROWS, first_byte = simt_block_x() % args->n_chunks * chunk_bytes;
    const uint32_t n_left = args->row_bytes - first_byte, n_bytes = n_left < chunk_bytes ? n_left : chunk_bytes;

    M40_ROLLED
    for (uint32_t row = 0; row < REPACK_ROWS; row += REPACK_AT_ONCE) {
        const uint8_t *from = args->rows + (uint64_t)(first_row + row) * args->row_bytes + first_byte;

        M40_ROLLED
        for (uint32_t i = simt_lane(); i < chunk_bytes; i += SIMT_WARP) {
            uint8_t bytes[REPACK_AT_ONCE];

            M40_UNROLL
            for (uint32_t j = 0; j < REPACK_AT_ONCE; j++)
                bytes[j] = i < n_bytes && first_row + row + j < args->n_rows ? from[(uint64_t)j * args->row_bytes + i] : 0;
            M40_UNROLL
            for (uint32_t j = 0; j < REPACK_AT_ONCE; j++)
                out[(row + j) * pitch + i] = bytes[j];
        }
    }
    simt_barrier();
}

/* A kernel's name and its struct for shared memory; `put` packs the lane's row. */
#define REPACK_KERNEL(name, put)                                                                                                                     \
    enum { name##_CHUNK_BYTES = REPACK_COLS / name##_BLOCK * sizeof(struct name##_block), name##_PITCH = REPACK_PITCH(name##_CHUNK_BYTES) };         \
    struct name##_rows {                                                                                                                             \
        uint8_t bytes[REPACK_ROWS * name##_PITCH];                                                                                                   \
    } __attribute__((aligned(16)));                                                                                                                  \
    SIMT_KERNEL(repack_##name, struct repack_args, SIMT_WARP)                                                                                        \
    {                                                                                                                                                \
        const uint32_t row_tile = simt_block_x() / args.n_chunks * args.tile_step;                                                                   \
        uint8_t *tile = args.tiles + ((uint64_t)row_tile * args.n_chunks + simt_block_x() % args.n_chunks) * name##_TILE_BYTES;                      \
        SIMT_SHARED(struct name##_rows, rows);                                                                                                       \
                                                                                                                                                     \
        repack_fetch(&args, name##_CHUNK_BYTES, name##_PITCH, rows->bytes);                                                                          \
        put(name, (const struct name##_block *)(const void *)(rows->bytes + simt_lane() * name##_PITCH));                                            \
    }

/* A plain format's row is cut into pieces as it is. As words and whole pieces, because a compiler makes single bytes of a copy whose source it knows nothing of. */
M40_HD void repack_plain(const m40_piece4 *row, uint32_t n_pieces, uint8_t *plane_row)
{
    M40_ROLLED
    for (uint32_t i = 0; i < n_pieces; i++) {
        struct m40_piece piece = {{row[i * 4], row[i * 4 + 1], row[i * 4 + 2], row[i * 4 + 3]}};

        *(struct m40_piece *)(void *)(plane_row + i * M40_PLANE_BYTES) = piece;
    }
}

#define REPACK_PLAIN_ROW(name, elems)                                                                                                                \
    repack_plain((const m40_piece4 *)(const void *)(elems), name##_CHUNK_BYTES / 16, tile + name##_ELEMS + simt_lane() * 16)

#define REPACK_BLOCK_ROW(name, blocks)                                                                                                               \
    M40_ROLLED                                                                                                                                       \
    for (uint32_t i = 0; i < REPACK_COLS / name##_BLOCK; i++)                                                                                        \
    name##_block_pack(&(blocks)[i], i *name##_BLOCK, tile, simt_lane())

#define REPACK_PLAIN(suffix, name) REPACK_KERNEL(name, REPACK_PLAIN_ROW)
#define REPACK_BLOCK(suffix, name) REPACK_KERNEL(name, REPACK_BLOCK_ROW)

M40_PLAIN_FORMAT_MAP(REPACK_PLAIN)
M40_BLOCK_FORMAT_MAP(REPACK_BLOCK)
