/* The part of NVML's binary interface (64-bit Linux) that is used, under the names that its documentation uses. */
#ifndef M40_SERVER_NVML_API_H
#define M40_SERVER_NVML_API_H

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlMemory_st {
    unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;

enum { NVML_SUCCESS = 0, NVML_ERROR_NOT_SUPPORTED = 3, NVML_ERROR_NOT_FOUND = 6 };
enum { NVML_TEMPERATURE_GPU = 0 };
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };
enum { NVML_MEMORY_ERROR_TYPE_CORRECTED = 0, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1 };
enum { NVML_VOLATILE_ECC = 0, NVML_AGGREGATE_ECC = 1 };

/* X(field, symbol, parameters): without these there is nothing to ask. */
#define NVML_SYMBOLS(X)                                                                                                                              \
    X(Init, nvmlInit_v2, (void))                                                                                                                     \
    X(Shutdown, nvmlShutdown, (void))                                                                                                                \
    X(DeviceGetHandleByPciBusId, nvmlDeviceGetHandleByPciBusId_v2, (const char *pci, nvmlDevice_t *device))

/* The same: each may be absent from an old library. */
#define NVML_QUERIES(X)                                                                                                                              \
    X(Temperature, nvmlDeviceGetTemperature, (nvmlDevice_t device, int sensor, unsigned *celsius))                                                   \
    X(ClockInfo, nvmlDeviceGetClockInfo, (nvmlDevice_t device, int clock, unsigned *mhz))                                                            \
    X(PowerUsage, nvmlDeviceGetPowerUsage, (nvmlDevice_t device, unsigned *milliwatts))                                                              \
    X(PowerLimit, nvmlDeviceGetEnforcedPowerLimit, (nvmlDevice_t device, unsigned *milliwatts))                                                      \
    X(ThrottleReasons, nvmlDeviceGetCurrentClocksThrottleReasons, (nvmlDevice_t device, unsigned long long *bits))                                   \
    X(EccMode, nvmlDeviceGetEccMode, (nvmlDevice_t device, int *current, int *pending))                                                              \
    X(EccErrors, nvmlDeviceGetTotalEccErrors, (nvmlDevice_t device, int type, int counter, unsigned long long *n))                                   \
    X(MemoryInfo, nvmlDeviceGetMemoryInfo, (nvmlDevice_t device, nvmlMemory_t * memory))

#endif
