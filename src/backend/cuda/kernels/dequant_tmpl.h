/* dequant_<format>: weights' values as FP32 rows, for a matrix product that is not ours. Included by matmul_tmpl.h. A block widens one tile: a warp a sub-block of 32 columns, a lane a
 * row, into shared memory, from where whole rows go out in 128-bit words. */

struct MATMUL_NAME(dequant_shared) {
    float w[MATMUL_TILE][MATMUL_CHUNK + GEMM_PAD];
} __attribute__((aligned(16)));

MATMUL_KERNEL(MATMUL_NAME(dequant), struct dequant_kernel_args, DEQUANT_THREADS)
{
    SIMT_SHARED(struct MATMUL_NAME(dequant_shared), shared);
    const uint32_t lane = simt_lane(), sub_block = simt_warp(), n_words = MATMUL_CHUNK / 4, first_col = simt_block_y() * MATMUL_CHUNK;
    const uint8_t *tile = matmul_tile(args.tiles, args.n_cols, args.first_row_tile + simt_block_x(), simt_block_y());
    float *rows = args.w + (uint64_t)simt_block_x() * MATMUL_TILE * args.stride + first_col;
    float *mine = &shared->w[lane][sub_block * MATMUL_TILE];
    struct FORMAT_NAME(lane) state;
    struct FORMAT_NAME(quants) quants;
    float w[MATMUL_TILE];

    FORMAT_NAME(open)(&state, tile, lane);
    FORMAT_NAME(load)(&quants, tile, lane, sub_block);
    FORMAT_NAME(values)(&state, &quants, sub_block, w);
    M40_UNROLL
    for (uint32_t i = 0; i < MATMUL_TILE; i += 4)
        matmul_store4(mine + i, w[i], w[i + 1], w[i + 2], w[i + 3]);
    simt_barrier();
    for (uint32_t i = simt_thread(); i < MATMUL_TILE * n_words; i += DEQUANT_THREADS) {
        const uint32_t row = i / n_words, col = i % n_words * 4;
        const struct matmul_vec4 four = matmul_load4(&shared->w[row][col]);

        if (first_col + col < args.stride)
            matmul_store4(rows + (uint64_t)row * args.stride + col, four.v[0], four.v[1], four.v[2], four.v[3]);
    }
}
