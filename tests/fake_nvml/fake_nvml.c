/* An NVML whose one card sits where the emulated driver's first does. Read at every call:
 * M40LLM_FAKE_NVML_FAIL   names of functions, with commas: they fail
 * M40LLM_FAKE_NVML_HANG   a function that takes 3 s
 * M40LLM_FAKE_NVML_HEAT   the card's temperature, instead of 61 */
#define _GNU_SOURCE
#include "server/nvml_api.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

#define DECLARE(field, symbol, params) EXPORT nvmlReturn_t symbol params;
NVML_SYMBOLS(DECLARE)
NVML_QUERIES(DECLARE)
#undef DECLARE

struct nvmlDevice_st {
    int n_calls;
};

static struct nvmlDevice_st card;
static int n_started;

/* What the function must return before it does anything. */
static nvmlReturn_t before(const char *function, nvmlDevice_t device)
{
    const char *fail = getenv("M40LLM_FAKE_NVML_FAIL"), *hang = getenv("M40LLM_FAKE_NVML_HANG");
    const char *at = fail ? strstr(fail, function) : NULL;

    if (hang && strcmp(hang, function) == 0)
        sleep(3);
    if (n_started == 0 || device != &card)
        return 2; /* invalid argument */
    card.n_calls++;
    return at && (at[strlen(function)] == 0 || at[strlen(function)] == ',') ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

/* Returns from the caller where it must. */
#define BEFORE(device)                                                                                                                               \
    do {                                                                                                                                             \
        nvmlReturn_t result = before(__func__, device);                                                                                              \
        if (result != NVML_SUCCESS)                                                                                                                  \
            return result;                                                                                                                           \
    } while (0)

nvmlReturn_t nvmlInit_v2(void)
{
    n_started++;
    return before(__func__, &card);
}

nvmlReturn_t nvmlShutdown(void)
{
    BEFORE(&card);
    n_started--;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pci, nvmlDevice_t *device)
{
    BEFORE(&card);
    if (strcmp(pci, "0000:01:00.0") != 0)
        return NVML_ERROR_NOT_FOUND;
    *device = &card;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius)
{
    const char *heat = getenv("M40LLM_FAKE_NVML_HEAT");

    BEFORE(device);
    *celsius = sensor != NVML_TEMPERATURE_GPU ? 0 : heat && *heat ? (unsigned)atoi(heat) : 61;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int clock, unsigned *mhz)
{
    BEFORE(device);
    *mhz = clock == NVML_CLOCK_SM ? 1113 : clock == NVML_CLOCK_MEM ? 3004 : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
    BEFORE(device);
    *milliwatts = 187654;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts)
{
    BEFORE(device);
    *milliwatts = 250000;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *bits)
{
    BEFORE(device);
    *bits = 0x44; /* power_cap, hw_thermal */
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, int *current, int *pending)
{
    BEFORE(device);
    *current = 1;
    *pending = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int type, int counter, unsigned long long *n)
{
    BEFORE(device);
    *n = (unsigned long long)(1 + type + 10 * counter);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    BEFORE(device);
    *memory = (nvmlMemory_t){.total = 12079136768, .free = 11000000000, .used = 1079136768};
    return NVML_SUCCESS;
}
