/* prepare_<format>: x as gemm<T>_<format> and matvec8 and 16 take it, and its sums over sub-blocks. Included by matmul_tmpl.h. A block has PREPARE_SUBS sub-blocks of one token: it brings them to shared
 * memory, coalesced; then one lane sums each, in order. */
#ifndef MATMUL_FORMAT_IS_PLAIN

struct MATMUL_NAME(prepare_shared) {
    float x[PREPARE_SUBS][MATMUL_SUB + 1]; /* the lanes that sum are on different banks */
};

MATMUL_KERNEL(MATMUL_NAME(prepare), struct prepare_kernel_args, PREPARE_THREADS)
{
    SIMT_SHARED(struct MATMUL_NAME(prepare_shared), shared);
    const uint32_t first_sub = simt_block_y() * PREPARE_SUBS, first_col = first_sub * MATMUL_SUB, n_subs = args.n_cols / MATMUL_SUB;
    const uint32_t n_left = args.n_cols - first_col, n_cols = n_left < PREPARE_SUBS * MATMUL_SUB ? n_left : PREPARE_SUBS * MATMUL_SUB;
    const float *in = args.x + (uint64_t)simt_block_x() * args.n_cols + first_col;
    float *out = args.prepared + (uint64_t)simt_block_x() * args.token_stride + (uint64_t)first_col * args.col_stride;

    float x[PREPARE_SUBS * MATMUL_SUB / PREPARE_THREADS];

    M40_UNROLL
    for (uint32_t i = 0; i < PREPARE_SUBS * MATMUL_SUB / PREPARE_THREADS; i++) {
        const uint32_t c = i * PREPARE_THREADS + simt_thread();

        x[i] = in[c < n_cols ? c : n_cols - 1];
    }
    M40_UNROLL
    for (uint32_t i = 0; i < PREPARE_SUBS * MATMUL_SUB / PREPARE_THREADS; i++) {
        const uint32_t c = i * PREPARE_THREADS + simt_thread();

        x[i] = matmul_prepare(x[i], c);
        shared->x[c / MATMUL_SUB][c % MATMUL_SUB] = x[i];
        if (c < n_cols)
            out[(uint64_t)c * args.col_stride] = x[i];
    }
    simt_barrier();
    if (simt_thread() < PREPARE_SUBS && first_sub + simt_thread() < n_subs) {
        const float *own = shared->x[simt_thread()];
        float sum = 0.0f;

        M40_UNROLL
        for (uint32_t c = 0; c < MATMUL_SUB; c++)
            sum = matmul_sum_link(sum, own[c], c);
        args.sums[(uint64_t)simt_block_x() * args.sum_token_stride + (uint64_t)(first_sub + simt_thread()) * args.col_stride] = matmul_sum_end(sum);
    }
}

#endif
