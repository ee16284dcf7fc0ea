/* Opening and closing a CUDA card, and its table of operations. */
#include "backend/cuda/cuda_internal.h"
#include "backend/cuda/cuda_launch_cublas.h"
#include "backend/cuda/cuda_launch_matmul.h"
#include "backend/cuda/cuda_upload.h"
#include "backend/cuda/kernel_images.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static void close_backend(struct m40_backend *be)
{
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_driver *driver = c->driver;

    if (c->context) {
        driver->CtxSetCurrent(c->context);
        m40_cuda_matrix_create_end(be);
        if (c->stream)
            m40_cuda_wait(c, NULL);
        m40_cuda_forget_steps(c);
        m40_cuda_memory_close(c);
        m40_cuda_cublas_close(c);
        m40_cuda_unload(c);
        if (c->stream)
            driver->StreamDestroy(c->stream);
        driver->CtxSetCurrent(NULL);
        driver->DevicePrimaryCtxRelease(c->device);
    }
    m40_free(c->modules);
    m40_free(c->matmul);
    m40_cuda_driver_close(&c->driver);
    m40_free(c);
}

static void get_info(const struct m40_backend *be, m40llm_device_info *out)
{
    const struct m40_cuda *c = (const struct m40_cuda *)be;
    size_t n_free = 0, n_total = 0;

    *out = c->info;
    if (c->cublas)
        snprintf(out->code + strlen(out->code), sizeof out->code - strlen(out->code), ", cuBLAS %s", c->cublas->library->version);
    if (c->driver->CtxSetCurrent(c->context) == CUDA_SUCCESS && c->driver->MemGetInfo(&n_free, &n_total) == CUDA_SUCCESS)
        out->memory_free_bytes = n_free;
}

static const struct m40_backend_ops cuda_ops = {
    .close = close_backend,
    .get_info = get_info,
    .measure_bandwidth = m40_cuda_measure_bandwidth,
    .alloc = m40_cuda_alloc,
    .free = m40_cuda_free,
    .write = m40_cuda_write,
    .read = m40_cuda_read,
    .sync = m40_cuda_sync,
    .reserve = m40_cuda_reserve,
    .matrix_create = m40_cuda_matrix_create,
    .matrix_destroy = m40_cuda_matrix_destroy,
    .matrix_create_stacked = m40_cuda_matrix_create_stacked,
    .matrix_create_interleaved = m40_cuda_matrix_create_interleaved,
    .matrix_create_end = m40_cuda_matrix_create_end,
    .copy = m40_cuda_copy,
    .embed = m40_cuda_embed,
    .rms_norm = m40_cuda_rms_norm,
    .norm_matmul = m40_cuda_norm_matmul,
    .norm_glu = m40_cuda_norm_glu,
    .matmul = m40_cuda_matmul,
    .rope_append = m40_cuda_rope_append,
    .attention = m40_cuda_attention,
    .glu = m40_cuda_glu,
    .softcap = m40_cuda_softcap,
    .gather_rows = m40_cuda_gather_rows,
    .route = m40_cuda_route,
    .expert_matmul = m40_cuda_expert_matmul,
    .combine = m40_cuda_combine,
    .argmax = m40_cuda_argmax,
    .sample = m40_cuda_sample,
    .step_begin = m40_cuda_step_begin,
    .step_end = m40_cuda_step_end,
    .open_lane = m40_cuda_open_lane,
    .is_idle = m40_cuda_is_idle,
};

/* A context, a stream, and what launches need to know of the card. */
static m40llm_status start_device(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_driver *d = c->driver;
    int n_sms = 0;

    M40_CUDA_TRY(d, d->DevicePrimaryCtxRetain(&c->context, c->device), "opening %s (%s)", c->info.spec, c->info.name);
    M40_TRY(m40_cuda_enter(c, err));
    M40_TRY(m40_cuda_create_stream(c, true, err));
    M40_TRY(m40_cuda_check(c, d->DeviceGetAttribute(&n_sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, c->device), "counting multiprocessors", err));
    c->n_sms = (uint32_t)n_sms;
    c->use_sass = c->info.cc_major == 5 && c->info.cc_minor == 2 && m40_n_kernel_images > 0 && m40_kernel_images[0].cubin;
    snprintf(c->info.code, sizeof c->info.code, "%s", c->use_sass ? "SASS sm_52" : "PTX compute_52");
fail:
    return status;
}

m40llm_status m40_backend_open_cuda(struct m40_backend **out, const m40llm_device_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_backend *be = NULL;
    struct m40_cuda *c = m40_calloc(1, sizeof *c);

    *out = NULL;
    M40_FAIL_IF(!c, M40LLM_NO_MEMORY, "CUDA backend");
    be = &c->base;
    c->base.ops = cuda_ops;
    if (options->no_graphs)
        c->base.ops.step_begin = NULL;
    c->base.logger = options->logger;
    c->base.is_cuda = true;
    c->modules = m40_calloc(m40_n_kernel_images, sizeof *c->modules);
    M40_FAIL_IF(!c->modules, M40LLM_NO_MEMORY, "table of modules");
    M40_TRY(m40_cuda_driver_open(&c->driver, options->cuda_library, err));
    M40_TRY(m40_cuda_choose(c->driver, options, &c->device, &c->info, err));
    M40_TRY(start_device(c, err));
    M40_TRY(m40_cuda_memory_open(c, err));
    M40_TRY(m40_cuda_load_op_kernels(c, err));
    if (options->use_cublas)
        M40_TRY(m40_cuda_cublas_open(c, options, err));
    *out = be;
    return M40LLM_OK;
fail:
    m40_backend_close(&be);
    return status;
}
