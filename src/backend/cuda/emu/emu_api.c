/* The exported functions: argument checks, the lock, and calls into the other files. Prototypes come from the driver table, so that the two cannot differ. */
#define _GNU_SOURCE
#include "backend/cuda/emu/emu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROTOTYPE(field, symbol, params) __attribute__((visibility("default"))) CUresult symbol params;
M40_CUDA_SYMBOLS(PROTOTYPE)
#undef PROTOTYPE

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised;
static _Thread_local struct CUctx_st *stack[8]; /* current contexts; the last one counts */
static _Thread_local unsigned depth;

static struct CUctx_st *current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

/* What keeps any call that needs a context from working. */
static CUresult unusable(void)
{
    if (!initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!current() || !current()->n_retained)
        return CUDA_ERROR_INVALID_CONTEXT;
    return current()->error;
}

/* Calls that would wait for the device are refused while any stream is captured in global mode, which is the only one here. */
static CUresult unusable_in_capture(void)
{
    if (emu_capturing())
        return emu_complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a call that allocates or waits, while a stream is being captured");
    return unusable();
}

#define LOCKED(refused, expression)                                                                                                                  \
    do {                                                                                                                                             \
        CUresult result_;                                                                                                                            \
        pthread_mutex_lock(&lock);                                                                                                                   \
        result_ = (refused);                                                                                                                         \
        if (!result_)                                                                                                                                \
            result_ = (expression);                                                                                                                  \
        pthread_mutex_unlock(&lock);                                                                                                                 \
        return result_;                                                                                                                              \
    } while (0)

static CUresult no_device(CUdevice device)
{
    if (!initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    return device >= 0 && device < emu_settings.n_devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* ---- driver and devices ---- */

static void drop_context(struct CUctx_st *context)
{
    emu_streams_drop(context);
    emu_memory_unmap(&context->arena);
    emu_launch_drop();
    context->error = CUDA_SUCCESS;
    context->n_retained = 0;
}

static __attribute__((destructor)) void unload(void)
{
    for (int i = 0; i < EMU_MAX_DEVICES; i++)
        drop_context(&emu_contexts[i]);
}

CUresult cuInit(unsigned flags)
{
    bool retained = false;

    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < EMU_MAX_DEVICES; i++) {
        retained |= emu_contexts[i].n_retained > 0;
        emu_contexts[i].device = i;
        emu_contexts[i].default_stream.context = &emu_contexts[i];
        emu_contexts[i].default_stream.blocking = true;
    }
    if (!retained)
        emu_settings_read();
    initialised = emu_settings.n_devices > 0;
    pthread_mutex_unlock(&lock);
    return initialised ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
    if (!initialised) /* allowed before cuInit */
        emu_settings_read();
    *version = emu_settings.driver_version;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult result, const char **name)
{
    switch (result) {
#define NAME(number, error_name, text)                                                                                                               \
    case number:                                                                                                                                     \
        *name = #error_name;                                                                                                                         \
        return CUDA_SUCCESS;
        M40_CUDA_RESULTS(NAME)
#undef NAME
    }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult result, const char **text)
{
    switch (result) {
#define TEXT(number, error_name, error_text)                                                                                                         \
    case number:                                                                                                                                     \
        *text = error_text;                                                                                                                          \
        return CUDA_SUCCESS;
        M40_CUDA_RESULTS(TEXT)
#undef TEXT
    }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = emu_settings.n_devices;
    return initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return no_device(ordinal);
}

CUresult cuDeviceGetName(char *name, int n_bytes, CUdevice device)
{
    if (n_bytes > 0)
        snprintf(name, (size_t)n_bytes, "Emulated M40 (CPU)");
    return no_device(device);
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    memcpy(uuid->bytes, "emulated M40   ", 16);
    uuid->bytes[15] = (char)device;
    return no_device(device);
}

CUresult cuDeviceTotalMem_v2(size_t *n_bytes, CUdevice device)
{
    *n_bytes = emu_settings.memory_bytes;
    return no_device(device);
}

static int attribute_value(int attribute, CUdevice device)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
        return EMU_THREADS_PER_BLOCK;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
        return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
        return UINT16_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
        return SIMT_SHARED_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
        return EMU_SHARED_PER_SM;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
        return SIMT_WARP;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        return emu_settings.n_sms;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
        return EMU_THREADS_PER_SM;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        return emu_settings.cc / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        return emu_settings.cc % 10;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: /* the M40's, as a reader of reports expects */
        return 1112000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
        return 3004000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
        return 384;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        return 3 << 20;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        return device + 1;
    default:
        return 0;
    }
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    *value = attribute_value(attribute, device);
    return no_device(device);
}

/* ---- contexts ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    *context = NULL;
    LOCKED(no_device(device), (emu_contexts[device].n_retained++, *context = &emu_contexts[device], CUDA_SUCCESS));
}

static CUresult release(CUdevice device)
{
    struct CUctx_st *context = &emu_contexts[device];

    if (!context->n_retained)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (--context->n_retained == 0)
        drop_context(context);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    LOCKED(no_device(device), release(device));
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    if (!initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!depth)
        depth = 1;
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = current();
    return initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (!context || depth == sizeof stack / sizeof stack[0])
        return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (!depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context)
        *context = stack[depth];
    return CUDA_SUCCESS;
}

static CUresult drain_context(void)
{
    CUresult result = emu_drain(NULL);

    return current()->error ? current()->error : result;
}

CUresult cuCtxSynchronize(void)
{
    LOCKED(unusable_in_capture(), drain_context());
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -1;
    return unusable();
}

/* ---- memory ---- */

CUresult cuMemGetInfo_v2(size_t *n_free, size_t *n_total)
{
    *n_free = *n_total = 0;
    LOCKED(unusable(), (*n_total = emu_settings.memory_bytes, *n_free = *n_total - current()->arena.n_used, CUDA_SUCCESS));
}

CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t n_bytes)
{
    *ptr = 0;
    LOCKED(unusable_in_capture(), emu_memory_alloc(&current()->arena, n_bytes, ptr));
}

CUresult cuMemFree_v2(CUdeviceptr ptr)
{
    if (!ptr)
        return CUDA_SUCCESS;
    LOCKED(unusable_in_capture(), (emu_drain(NULL), emu_memory_free(&current()->arena, ptr))); /* the real one waits, too */
}

CUresult cuMemHostAlloc(void **ptr, size_t n_bytes, unsigned flags)
{
    (void)flags;
    *ptr = NULL;
    if (!n_bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *ptr = aligned_alloc(256, (n_bytes + 255) / 256 * 256);
    if (!*ptr)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*ptr, 0xCD, n_bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *ptr)
{
    LOCKED(initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED,
           (emu_drain(NULL), free(ptr), CUDA_SUCCESS)); /* also after an error: nothing leaks */
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device_ptr, void *ptr, unsigned flags)
{
    *device_ptr = (CUdeviceptr)(uintptr_t)ptr;
    return flags ? CUDA_ERROR_INVALID_VALUE : unusable();
}

static void *as_pointer(CUdeviceptr ptr)
{
    return (void *)(uintptr_t)ptr;
}

static CUresult check_device_range(const char *what, CUdeviceptr ptr, size_t n_bytes)
{
    for (int i = 0; i < emu_settings.n_devices; i++)
        if (emu_memory_contains(&emu_contexts[i].arena, ptr, n_bytes))
            return CUDA_SUCCESS;
    return emu_complain(CUDA_ERROR_INVALID_VALUE, "%s: [%#llx, +%zu) is not inside one device allocation", what, (unsigned long long)ptr, n_bytes);
}

static CUresult resolve(CUstream *stream)
{
    if (!*stream)
        *stream = &current()->default_stream;
    return emu_stream_valid(*stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* One side or both are device memory: to and from are checked where their flag says so. */
struct copy {
    const char *name;
    void *to;
    const void *from;
    size_t n_bytes;
    bool to_device, from_device;
};

static CUresult copy_async(const struct copy *copy, CUstream stream)
{
    CUresult result = resolve(&stream);
    struct emu_op *op;

    if (!result && copy->to_device)
        result = check_device_range(copy->name, (uintptr_t)copy->to, copy->n_bytes);
    if (!result && copy->from_device)
        result = check_device_range(copy->name, (uintptr_t)copy->from, copy->n_bytes);
    if (result || copy->n_bytes == 0)
        return result;
    op = emu_op_new(EMU_OP_COPY, 0);
    if (op) {
        op->to = copy->to;
        op->from = copy->from;
        op->n = copy->n_bytes;
    }
    return emu_stream_push(stream, op);
}

static CUresult copy_now(const struct copy *copy)
{
    CUresult result = copy_async(copy, NULL);

    return result ? result : emu_drain(&current()->default_stream);
}

static struct copy host_to_device(CUdeviceptr to, const void *from, size_t n_bytes)
{
    return (struct copy){"copy to the device", as_pointer(to), from, n_bytes, true, false};
}

static struct copy device_to_host(void *to, CUdeviceptr from, size_t n_bytes)
{
    return (struct copy){"copy to the host", to, as_pointer(from), n_bytes, false, true};
}

static struct copy device_to_device(CUdeviceptr to, CUdeviceptr from, size_t n_bytes)
{
    return (struct copy){"copy on the device", as_pointer(to), as_pointer(from), n_bytes, true, true};
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n_bytes)
{
    struct copy copy = host_to_device(to, from, n_bytes);

    LOCKED(unusable_in_capture(), copy_now(&copy));
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n_bytes)
{
    struct copy copy = device_to_host(to, from, n_bytes);

    LOCKED(unusable_in_capture(), copy_now(&copy));
}

/* Asynchronous to the host even in this form. */
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n_bytes)
{
    struct copy copy = device_to_device(to, from, n_bytes);

    LOCKED(unusable_in_capture(), copy_async(&copy, NULL));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n_bytes, CUstream stream)
{
    struct copy copy = host_to_device(to, from, n_bytes);

    LOCKED(unusable(), copy_async(&copy, stream));
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n_bytes, CUstream stream)
{
    struct copy copy = device_to_host(to, from, n_bytes);

    LOCKED(unusable(), copy_async(&copy, stream));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n_bytes, CUstream stream)
{
    struct copy copy = device_to_device(to, from, n_bytes);

    LOCKED(unusable(), copy_async(&copy, stream));
}

static CUresult set_async(enum emu_op_kind kind, CUdeviceptr to, uint32_t value, size_t n, CUstream stream)
{
    size_t unit = kind == EMU_OP_SET32 ? 4 : 1;
    CUresult result = resolve(&stream);
    struct emu_op *op;

    if (!result && (to % unit || n > SIZE_MAX / unit))
        result = CUDA_ERROR_INVALID_VALUE;
    if (!result)
        result = check_device_range("memset", to, n * unit);
    if (result || n == 0)
        return result;
    op = emu_op_new(kind, 0);
    if (op) {
        op->to = as_pointer(to);
        op->value = value;
        op->n = n;
    }
    return emu_stream_push(stream, op);
}

/* Asynchronous to the host, and on the default stream: work of non-blocking streams does not wait for it. */
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n)
{
    LOCKED(unusable_in_capture(), set_async(EMU_OP_SET8, to, value, n, NULL));
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t n)
{
    LOCKED(unusable_in_capture(), set_async(EMU_OP_SET32, to, value, n, NULL));
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream)
{
    LOCKED(unusable(), set_async(EMU_OP_SET8, to, value, n, stream));
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n, CUstream stream)
{
    LOCKED(unusable(), set_async(EMU_OP_SET32, to, value, n, stream));
}

/* ---- modules and launches ---- */

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    *module = NULL;
    LOCKED(unusable(), emu_module_load(module, image));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n_options, int *options, void **values)
{
    for (unsigned i = 0; i < n_options; i++) { /* no log, and no time was spent */
        if (options[i] == CU_JIT_WALL_TIME)
            memset(&values[i], 0, sizeof(float));
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            values[i] = NULL;
    }
    return cuModuleLoadData(module, image);
}

CUresult cuModuleUnload(CUmodule module)
{
    LOCKED(initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED, emu_module_unload(module));
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    *function = NULL;
    LOCKED(unusable(), emu_module_function(function, module, name));
}

CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = (int)function->kernel->max_threads;
        break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)function->shared_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = emu_settings.cc;
        break;
    default:
        *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks, CUfunction function, int block_dim, size_t dynamic_shared_bytes)
{
    if (block_dim < 1 || block_dim > EMU_THREADS_PER_BLOCK || dynamic_shared_bytes > SIMT_SHARED_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    *n_blocks = (int)emu_blocks_per_sm((uint32_t)block_dim, function->shared_bytes + (uint32_t)dynamic_shared_bytes);
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction f, const unsigned *grid, const unsigned *block, unsigned dynamic_shared_bytes, CUstream stream, void **params)
{
    CUresult result = emu_launch_check(f, grid, block, dynamic_shared_bytes, params);
    struct emu_op *op;

    if (!result)
        result = resolve(&stream);
    if (result)
        return result;
    op = emu_op_new(EMU_OP_LAUNCH, f->kernel->arg_bytes);
    if (op) {
        op->launch.kernel = f->kernel;
        memcpy(op->launch.grid, grid, sizeof op->launch.grid);
        op->launch.block_dim = block[0];
        op->launch.shared_bytes = f->shared_bytes;
        op->launch.dynamic_bytes = dynamic_shared_bytes;
        memcpy(op->args, params[0], f->kernel->arg_bytes);
    }
    return emu_stream_push(stream, op);
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned shared, CUstream stream, void **params, void **extra)
{
    unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};

    if (extra)
        return CUDA_ERROR_NOT_SUPPORTED;
    LOCKED(unusable(), launch(function, grid, block, shared, stream, params));
}

/* ---- streams and events ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    *stream = NULL;
    LOCKED(unusable(), emu_stream_create(stream, current(), !(flags & CU_STREAM_NON_BLOCKING)));
}

/* Priorities are accepted; the seed orders streams more freely than they would. */
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    (void)priority;
    return cuStreamCreate(stream, flags);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    LOCKED(stream && emu_stream_valid(stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE, emu_stream_destroy(stream));
}

static CUresult synchronize(CUstream stream)
{
    CUresult result = resolve(&stream);

    if (!result && stream->capture) {
        stream->capture->broken = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result ? result : emu_drain(stream);
}

CUresult cuStreamSynchronize(CUstream stream)
{
    LOCKED(unusable(), synchronize(stream));
}

static CUresult query(CUstream stream)
{
    CUresult result = resolve(&stream);

    if (result)
        return result;
    emu_progress();
    return stream->ops.head ? CUDA_ERROR_NOT_READY : stream->context->error;
}

CUresult cuStreamQuery(CUstream stream)
{
    LOCKED(unusable(), query(stream));
}

static CUresult wait_event(CUstream stream, CUevent event)
{
    CUresult result = resolve(&stream);

    return result ? result : emu_event_wait(stream, event);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    LOCKED(unusable(), wait_event(stream, event));
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    LOCKED(unusable(), emu_event_create(event, !(flags & CU_EVENT_DISABLE_TIMING)));
}

static CUresult record_event(CUevent event, CUstream stream)
{
    CUresult result = resolve(&stream);

    return result ? result : emu_event_record(event, stream);
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    LOCKED(unusable(), record_event(event, stream));
}

CUresult cuEventQuery(CUevent event)
{
    LOCKED(unusable(), (emu_progress(), event->done < event->recorded ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS));
}

static CUresult synchronize_event(CUevent event)
{
    CUresult result = emu_event_drain(event);

    return current()->error ? current()->error : result;
}

CUresult cuEventSynchronize(CUevent event)
{
    LOCKED(unusable(), synchronize_event(event));
}

static CUresult elapsed(float *ms, CUevent start, CUevent end)
{
    if (!start->timed || !end->timed || !start->recorded || !end->recorded)
        return CUDA_ERROR_INVALID_HANDLE;
    if (start->done < start->recorded || end->done < end->recorded)
        return CUDA_ERROR_NOT_READY;
    *ms = (float)((double)(int64_t)(end->done_ns - start->done_ns) * 1e-6);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    LOCKED(unusable(), elapsed(ms, start, end));
}

CUresult cuEventDestroy_v2(CUevent event)
{
    LOCKED(event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE, (emu_event_destroy(event), CUDA_SUCCESS));
}

/* ---- graphs ---- */

CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    (void)mode;
    LOCKED(unusable(), stream && emu_stream_valid(stream) ? emu_capture_begin(stream) : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    LOCKED(unusable(), stream && emu_stream_valid(stream) ? emu_capture_end(stream, graph) : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    (void)flags;
    LOCKED(unusable(), emu_graph_instantiate(exec, graph));
}

static CUresult launch_graph(CUgraphExec exec, CUstream stream)
{
    CUresult result = resolve(&stream);

    return result ? result : emu_graph_launch(exec, stream);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    LOCKED(unusable(), launch_graph(exec, stream));
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    LOCKED(exec ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE, (emu_queue_free(&exec->ops), free(exec), CUDA_SUCCESS));
}

CUresult cuGraphDestroy(CUgraph graph)
{
    LOCKED(graph ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE, (emu_queue_free(&graph->ops), free(graph), CUDA_SUCCESS));
}
