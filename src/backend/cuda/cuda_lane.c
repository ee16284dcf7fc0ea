/* A lane: a second stream of the same card with the lowest priority, and with buffers of its own, so that what runs on it and what runs on the first one do not know of each other. Kernels and weights
 * are shared. The first stream has the highest priority: blocks of its kernels go first wherever a multiprocessor has room. */
#include "backend/cuda/cuda_internal.h"

#include "base/mem.h"

static void close_lane(struct m40_backend *be)
{
    struct m40_cuda *c = m40_cuda_of(be);

    if (c->stream && m40_cuda_enter(c, NULL) == M40LLM_OK) {
        m40_cuda_wait(c, NULL);
        m40_cuda_memory_close(c);
        c->driver->StreamDestroy(c->stream);
    }
    m40_free(c);
}

m40llm_status m40_cuda_create_stream(struct m40_cuda *c, bool is_urgent, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    int least = 0, greatest = 0;

    M40_TRY(m40_cuda_check(c, c->driver->CtxGetStreamPriorityRange(&least, &greatest), "asking for priorities", err));
    M40_TRY(m40_cuda_check(c, c->driver->StreamCreateWithPriority(&c->stream, CU_STREAM_NON_BLOCKING, is_urgent ? greatest : least),
                           "creating a stream", err));
fail:
    return status;
}

m40llm_status m40_cuda_open_lane(struct m40_backend *be, struct m40_backend **out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_cuda *first = m40_cuda_of(be);
    struct m40_backend *lane = NULL;
    struct m40_cuda *c = m40_calloc(1, sizeof *c);

    *out = NULL;
    M40_FAIL_IF(!c, M40LLM_NO_MEMORY, "a second stream");
    lane = &c->base;
    c->base = first->base;
    c->base.ops.close = close_lane;
    c->base.ops.step_begin = NULL; /* its steps do not come again */
    c->driver = first->driver;
    c->info = first->info;
    c->device = first->device;
    c->context = first->context;
    c->n_sms = first->n_sms;
    c->use_sass = first->use_sass;
    c->kernels = first->kernels;
    c->matmul = first->matmul;
    M40_TRY(m40_cuda_enter(c, err));
    M40_TRY(m40_cuda_create_stream(c, false, err));
    M40_TRY(m40_cuda_memory_open(c, err));
    *out = lane;
    return M40LLM_OK;
fail:
    m40_backend_close(&lane);
    return status;
}

m40llm_status m40_cuda_is_idle(struct m40_backend *be, bool *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    CUresult result;

    *out = false;
    M40_TRY(m40_cuda_enter(c, err));
    result = c->driver->StreamQuery(c->stream);
    if (result == CUDA_ERROR_NOT_READY)
        return M40LLM_OK;
    M40_TRY(m40_cuda_check(c, result, "asking the device", err));
    M40_TRY(m40_cuda_wait(c, err)); /* not at all; but it knows then that nothing is under way */
    *out = true;
fail:
    return status;
}
