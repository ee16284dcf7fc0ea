/* The NVIDIA driver API, opened at run time: libcuda.so.1, or the emulated driver. No CUDA header or library is needed to build; the types and numbers below are the
 * driver's binary interface (64-bit Linux), under the names that its documentation uses. */
#ifndef M40_CUDA_DRIVER_H
#define M40_CUDA_DRIVER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* ---- types and constants of the driver API ---- */

typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

typedef int CUresult;

/* Results that this project looks at or that the emulated driver gives: number, name, text. */
#define M40_CUDA_RESULTS(X)                                                                                                                          \
    X(0, CUDA_SUCCESS, "no error")                                                                                                                   \
    X(1, CUDA_ERROR_INVALID_VALUE, "invalid argument")                                                                                               \
    X(2, CUDA_ERROR_OUT_OF_MEMORY, "out of memory")                                                                                                  \
    X(3, CUDA_ERROR_NOT_INITIALIZED, "initialization error")                                                                                         \
    X(46, CUDA_ERROR_DEVICE_UNAVAILABLE, "device is busy or unavailable")                                                                            \
    X(100, CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected")                                                                               \
    X(101, CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal")                                                                                      \
    X(200, CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid")                                                                               \
    X(201, CUDA_ERROR_INVALID_CONTEXT, "invalid device context")                                                                                     \
    X(209, CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device")                                                 \
    X(218, CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed")                                                                                   \
    X(221, CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "PTX JIT compiler library not found")                                                                  \
    X(222, CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "the PTX was compiled with an unsupported toolchain")                                                 \
    X(400, CUDA_ERROR_INVALID_HANDLE, "invalid resource handle")                                                                                     \
    X(500, CUDA_ERROR_NOT_FOUND, "named symbol not found")                                                                                           \
    X(600, CUDA_ERROR_NOT_READY, "device not ready")                                                                                                 \
    X(700, CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")                                                                   \
    X(701, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch")                                                            \
    X(702, CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated")                                                                     \
    X(716, CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address")                                                                                      \
    X(719, CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure")                                                                                   \
    X(801, CUDA_ERROR_NOT_SUPPORTED, "operation not supported")                                                                                      \
    X(803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "the kernel's driver and libcuda differ in version")                                                   \
    X(900, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing")                                                \
    X(901, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture")                                         \
    X(999, CUDA_ERROR_UNKNOWN, "unknown error")

enum {
#define M40_CUDA_RESULT_ENUM(number, name, text) name = number,
    M40_CUDA_RESULTS(M40_CUDA_RESULT_ENUM)
#undef M40_CUDA_RESULT_ENUM
};

enum { /* CUdevice_attribute */
       CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 1,
       CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X = 2,
       CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X = 5,
       CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y = 6,
       CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z = 7,
       CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK = 8, /* bytes */
       CU_DEVICE_ATTRIBUTE_WARP_SIZE = 10,
       CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13, /* kHz */
       CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
       CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT = 17,
       CU_DEVICE_ATTRIBUTE_ECC_ENABLED = 32,
       CU_DEVICE_ATTRIBUTE_PCI_BUS_ID = 33,
       CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID = 34,
       CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,       /* kHz */
       CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37, /* bits */
       CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38,           /* bytes */
       CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR = 39,
       CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID = 50,
       CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
       CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
       CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81, /* bytes */
};

enum { /* CUfunction_attribute */
       CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
       CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
       CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
       CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
       CU_FUNC_ATTRIBUTE_PTX_VERSION = 5,
       CU_FUNC_ATTRIBUTE_BINARY_VERSION = 6, /* 52 = machine code for 5.2 */
};

enum {                       /* CUjit_option; a value travels in the void * itself unless it is a buffer */
       CU_JIT_WALL_TIME = 2, /* out: ms, a float in the void *'s storage */
       CU_JIT_INFO_LOG_BUFFER = 3,
       CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES = 4,
       CU_JIT_ERROR_LOG_BUFFER = 5,
       CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};

enum {
    CU_STREAM_NON_BLOCKING = 1,   /* stream flag */
    CU_EVENT_DISABLE_TIMING = 2,  /* event flag */
    CU_MEMHOSTALLOC_PORTABLE = 1, /* host memory flags */
    CU_MEMHOSTALLOC_DEVICEMAP = 2,
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
    CU_STREAM_CAPTURE_MODE_RELAXED = 2,
};

typedef struct CUuuid {
    char bytes[16];
} CUuuid;

/* ---- the table ---- */

/* field, exported symbol, parameters. Every one returns a CUresult and is required. */
#define M40_CUDA_SYMBOLS(X)                                                                                                                          \
    X(DriverGetVersion, cuDriverGetVersion, (int *version))                                                                                          \
    X(Init, cuInit, (unsigned flags))                                                                                                                \
    X(GetErrorName, cuGetErrorName, (CUresult result, const char **name))                                                                            \
    X(GetErrorString, cuGetErrorString, (CUresult result, const char **text))                                                                        \
    X(DeviceGetCount, cuDeviceGetCount, (int *count))                                                                                                \
    X(DeviceGet, cuDeviceGet, (CUdevice * device, int ordinal))                                                                                      \
    X(DeviceGetName, cuDeviceGetName, (char *name, int n_bytes, CUdevice device))                                                                    \
    X(DeviceGetUuid, cuDeviceGetUuid, (CUuuid * uuid, CUdevice device))                                                                              \
    X(DeviceTotalMem, cuDeviceTotalMem_v2, (size_t * n_bytes, CUdevice device))                                                                      \
    X(DeviceGetAttribute, cuDeviceGetAttribute, (int *value, int attribute, CUdevice device))                                                        \
    X(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                                                      \
    X(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                                                      \
    X(CtxSetCurrent, cuCtxSetCurrent, (CUcontext context))                                                                                           \
    X(CtxGetCurrent, cuCtxGetCurrent, (CUcontext * context))                                                                                         \
    X(CtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext context))                                                                                      \
    X(CtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * context))                                                                                      \
    X(CtxSynchronize, cuCtxSynchronize, (void))                                                                                                      \
    X(CtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange, (int *least, int *greatest))                                                           \
    X(MemGetInfo, cuMemGetInfo_v2, (size_t * n_free, size_t * n_total))                                                                              \
    X(MemAlloc, cuMemAlloc_v2, (CUdeviceptr * ptr, size_t n_bytes))                                                                                  \
    X(MemFree, cuMemFree_v2, (CUdeviceptr ptr))                                                                                                      \
    X(MemHostAlloc, cuMemHostAlloc, (void **ptr, size_t n_bytes, unsigned flags))                                                                    \
    X(MemFreeHost, cuMemFreeHost, (void *ptr))                                                                                                       \
    X(MemHostGetDevicePointer, cuMemHostGetDevicePointer_v2, (CUdeviceptr * device_ptr, void *ptr, unsigned flags))                                  \
    X(MemcpyHtoD, cuMemcpyHtoD_v2, (CUdeviceptr to, const void *from, size_t n_bytes))                                                               \
    X(MemcpyDtoH, cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t n_bytes))                                                                     \
    X(MemcpyDtoD, cuMemcpyDtoD_v2, (CUdeviceptr to, CUdeviceptr from, size_t n_bytes))                                                               \
    X(MemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t n_bytes, CUstream stream))                                    \
    X(MemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t n_bytes, CUstream stream))                                          \
    X(MemcpyDtoDAsync, cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t n_bytes, CUstream stream))                                    \
    X(MemsetD8, cuMemsetD8_v2, (CUdeviceptr to, unsigned char value, size_t n))                                                                      \
    X(MemsetD32, cuMemsetD32_v2, (CUdeviceptr to, unsigned value, size_t n))                                                                         \
    X(MemsetD8Async, cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t n, CUstream stream))                                              \
    X(MemsetD32Async, cuMemsetD32Async, (CUdeviceptr to, unsigned value, size_t n, CUstream stream))                                                 \
    X(ModuleLoadData, cuModuleLoadData, (CUmodule * module, const void *image))                                                                      \
    X(ModuleLoadDataEx, cuModuleLoadDataEx, (CUmodule * module, const void *image, unsigned n_options, int *options, void **values))                 \
    X(ModuleUnload, cuModuleUnload, (CUmodule module))                                                                                               \
    X(ModuleGetFunction, cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))                                            \
    X(FuncGetAttribute, cuFuncGetAttribute, (int *value, int attribute, CUfunction function))                                                        \
    X(OccupancyMaxActiveBlocks, cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                                         \
      (int *n_blocks, CUfunction function, int block_dim, size_t dynamic_shared_bytes))                                                              \
    X(LaunchKernel, cuLaunchKernel,                                                                                                                  \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,                 \
       unsigned shared_bytes, CUstream stream, void **params, void **extra))                                                                         \
    X(StreamCreate, cuStreamCreate, (CUstream * stream, unsigned flags))                                                                             \
    X(StreamCreateWithPriority, cuStreamCreateWithPriority, (CUstream * stream, unsigned flags, int priority))                                       \
    X(StreamDestroy, cuStreamDestroy_v2, (CUstream stream))                                                                                          \
    X(StreamSynchronize, cuStreamSynchronize, (CUstream stream))                                                                                     \
    X(StreamQuery, cuStreamQuery, (CUstream stream))                                                                                                 \
    X(StreamWaitEvent, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                                                          \
    X(StreamBeginCapture, cuStreamBeginCapture_v2, (CUstream stream, int mode))                                                                      \
    X(StreamEndCapture, cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                                                      \
    X(EventCreate, cuEventCreate, (CUevent * event, unsigned flags))                                                                                 \
    X(EventRecord, cuEventRecord, (CUevent event, CUstream stream))                                                                                  \
    X(EventQuery, cuEventQuery, (CUevent event))                                                                                                     \
    X(EventSynchronize, cuEventSynchronize, (CUevent event))                                                                                         \
    X(EventElapsedTime, cuEventElapsedTime, (float *ms, CUevent start, CUevent end))                                                                 \
    X(EventDestroy, cuEventDestroy_v2, (CUevent event))                                                                                              \
    X(GraphInstantiate, cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, unsigned long long flags))                                  \
    X(GraphLaunch, cuGraphLaunch, (CUgraphExec exec, CUstream stream))                                                                               \
    X(GraphExecDestroy, cuGraphExecDestroy, (CUgraphExec exec))                                                                                      \
    X(GraphDestroy, cuGraphDestroy, (CUgraph graph))

/* The oldest driver that has all of the symbols: CUDA 11.4, driver 470. */
#define M40_CUDA_DRIVER_MIN 11040

struct m40_cuda_driver {
    void *library;  /* dlopen's handle */
    char path[256]; /* what was opened */
    int version;    /* 1000 * major + 10 * minor of the newest CUDA that it serves, e.g. 12040 */
#define M40_CUDA_FIELD(field, symbol, params) CUresult(*field) params;
    M40_CUDA_SYMBOLS(M40_CUDA_FIELD)
#undef M40_CUDA_FIELD
};

/* Opens the driver library at path (NULL or "": libcuda.so.1), finds every symbol and calls cuInit. Returns NO_DEVICE (no library, no card, or the library says so),
 * DRIVER_TOO_OLD (the text names both versions), DRIVER, NO_MEMORY. */
m40llm_status m40_cuda_driver_open(struct m40_cuda_driver **out, const char *path, m40llm_error *err);
void m40_cuda_driver_close(struct m40_cuda_driver **driver);

/* OK where result is CUDA_SUCCESS; otherwise fills err with "<what>: <CUDA_ERROR_NAME> (<number>): <the driver's text>" and returns OUT_OF_DEVICE_MEMORY, NO_DEVICE, or
 * DRIVER. driver may be NULL (names then come from the table above). */
m40llm_status m40_cuda_status(const struct m40_cuda_driver *driver, CUresult result, m40llm_error *err, const char *what_format, ...)
    __attribute__((format(printf, 4, 5)));

/* For functions written as status.h says: M40_CUDA_TRY(d, d->MemAlloc(&p, n), "allocating %zu bytes", n); goes to fail unless the call succeeds. */
#define M40_CUDA_TRY(driver, call, ...) M40_TRY(m40_cuda_status(driver, call, err, __VA_ARGS__))

#endif
