/* What NVIDIA's management library says about the cards in use. It is opened at run time, and a thread of its own asks it now and then: a call may take long, and no
 * request may wait for it. */
#ifndef M40_SERVER_NVML_H
#define M40_SERVER_NVML_H

#include "m40llm.h"

#include <stdbool.h>

enum nvml_value {
    NVML_TEMPERATURE_C,
    NVML_SM_MHZ,
    NVML_MEMORY_MHZ,
    NVML_POWER_MW,
    NVML_POWER_LIMIT_MW,
    NVML_THROTTLE_BITS, /* enum nvml_throttle */
    NVML_ECC_ENABLED,
    NVML_ECC_CORRECTED,   /* since the driver was loaded */
    NVML_ECC_UNCORRECTED, /* the same */
    NVML_ECC_CORRECTED_EVER,
    NVML_ECC_UNCORRECTED_EVER,
    NVML_MEMORY_TOTAL, /* bytes */
    NVML_MEMORY_USED,
    NVML_MEMORY_FREE,
    NVML_N_VALUES,
};

/* nvmlClocksThrottleReasons: bits, and what they are called here. */
#define NVML_THROTTLE_MAP(X)                                                                                                                         \
    X(0x001, "idle")                                                                                                                                 \
    X(0x002, "application_clocks")                                                                                                                   \
    X(0x004, "power_cap")                                                                                                                            \
    X(0x008, "hw_slowdown")                                                                                                                          \
    X(0x010, "sync_boost")                                                                                                                           \
    X(0x020, "sw_thermal")                                                                                                                           \
    X(0x040, "hw_thermal")                                                                                                                           \
    X(0x080, "hw_power_brake")                                                                                                                       \
    X(0x100, "display_clocks")

struct nvml_sample {
    double values[NVML_N_VALUES]; /* NaN: the card does not tell */
};

struct nvml_watch;

/* Starts the thread. library: the one to open; NULL: libnvidia-ml.so.1. pci: of the n cards ("0000:3b:00.0"). interval_ms: between two samples. That there is no
 * library, or no such card, is no error: the logger hears of it at level info, on that thread, and there are no samples. NULL: no memory or no thread. */
struct nvml_watch *nvml_watch_open(const char *library, const m40llm_logger *logger, const char *const *pci, size_t n, unsigned interval_ms);

/* The last sample of card i. false: there is none that is younger than some intervals. Waits for no call of the library. Any thread. */
bool nvml_watch_get(struct nvml_watch *w, size_t i, struct nvml_sample *out);

/* Ends the thread. One that hangs in the library is left behind after a second. NULL is fine. */
void nvml_watch_close(struct nvml_watch **w);

#endif
