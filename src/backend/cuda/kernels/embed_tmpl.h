/* embed_<format>: row ids[block] of the matrix, as exact values, times a scale. Included by matmul_tmpl.h. A thread widens one sub-block of 32 columns. */

MATMUL_KERNEL(MATMUL_NAME(embed), struct embed_kernel_args, EMBED_THREADS)
{
    const uint32_t id = (uint32_t)args.ids[simt_block_x()], lane = id % MATMUL_TILE;
    float *y = args.y + (uint64_t)simt_block_x() * args.n_cols;

    for (uint32_t first = simt_thread() * MATMUL_TILE; first < args.n_cols; first += EMBED_THREADS * MATMUL_TILE) {
        const uint8_t *tile = matmul_tile(args.tiles, args.n_cols, id / MATMUL_TILE, first / MATMUL_CHUNK);
        struct FORMAT_NAME(lane) state;
        struct FORMAT_NAME(quants) quants;
        float values[MATMUL_TILE];

        FORMAT_NAME(open)(&state, tile, lane);
        FORMAT_NAME(load)(&quants, tile, lane, first % MATMUL_CHUNK / MATMUL_TILE);
        FORMAT_NAME(values)(&state, &quants, first % MATMUL_CHUNK / MATMUL_TILE, values);
        M40_UNROLL
        for (uint32_t i = 0; i < MATMUL_TILE; i++) {
            if (first + i < args.n_cols)
                y[first + i] = values[i] * args.scale;
        }
    }
}
