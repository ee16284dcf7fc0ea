/* The part of GET /metrics that tells of the cards. */
#include "server_internal.h"

#include <math.h>

/* Rows of one name stand together. labels: behind the device's. */
static const struct {
    const char *name, *type, *help, *labels;
    enum nvml_value value;
    double unit;
} rows[] = {
    {"gpu_temperature_celsius", "gauge", "Temperature of the card's chip.", "", NVML_TEMPERATURE_C, 1},
    {"gpu_clock_hertz", "gauge", "Clocks of the multiprocessors and of the memory.", ",clock=\"sm\"", NVML_SM_MHZ, 1e6},
    {"gpu_clock_hertz", NULL, NULL, ",clock=\"memory\"", NVML_MEMORY_MHZ, 1e6},
    {"gpu_power_watts", "gauge", "Power that the card draws.", "", NVML_POWER_MW, 1e-3},
    {"gpu_power_limit_watts", "gauge", "Power that it may draw.", "", NVML_POWER_LIMIT_MW, 1e-3},
    {"gpu_ecc_enabled", "gauge", "1: the card's memory corrects errors.", "", NVML_ECC_ENABLED, 1},
    {"gpu_ecc_errors_total", "counter", "Memory errors since the driver was loaded, and ever.", ",kind=\"corrected\",since=\"load\"",
     NVML_ECC_CORRECTED, 1},
    {"gpu_ecc_errors_total", NULL, NULL, ",kind=\"uncorrected\",since=\"load\"", NVML_ECC_UNCORRECTED, 1},
    {"gpu_ecc_errors_total", NULL, NULL, ",kind=\"corrected\",since=\"ever\"", NVML_ECC_CORRECTED_EVER, 1},
    {"gpu_ecc_errors_total", NULL, NULL, ",kind=\"uncorrected\",since=\"ever\"", NVML_ECC_UNCORRECTED_EVER, 1},
    {"gpu_memory_bytes", "gauge", "The card's memory, whoever uses it.", ",state=\"total\"", NVML_MEMORY_TOTAL, 1},
    {"gpu_memory_bytes", NULL, NULL, ",state=\"used\"", NVML_MEMORY_USED, 1},
    {"gpu_memory_bytes", NULL, NULL, ",state=\"free\"", NVML_MEMORY_FREE, 1},
};

enum { N_ROWS = sizeof rows / sizeof *rows };

static const struct {
    unsigned bit;
    const char *name;
} reasons[] = {
#define REASON(bit, name) {bit, name},
    NVML_THROTTLE_MAP(REASON)
#undef REASON
};

static bool add_head(struct m40_buf *b, const char *name, const char *type, const char *help)
{
    return m40_buf_printf(b, "# HELP m40llm_%s %s\n# TYPE m40llm_%s %s\n", name, help, name, type);
}

static bool add_throttling(struct m40_buf *b, const char *device, double bits)
{
    bool ok = isnan(bits) || add_head(b, "gpu_throttled", "gauge", "1: the card's clocks are held down for this reason.");

    for (size_t i = 0; !isnan(bits) && i < sizeof reasons / sizeof *reasons; i++)
        ok = ok && m40_buf_printf(b, "m40llm_gpu_throttled{device=\"%s\",reason=\"%s\"} %d\n", device, reasons[i].name,
                                  ((unsigned long long)bits & reasons[i].bit) != 0);
    return ok;
}

bool metrics_add_gpu(struct m40_buf *b, struct server *s)
{
    const char *device = s->model.device_info.spec, *head = NULL;
    struct nvml_sample sample;
    bool ok = true;

    if (!s->gpu || !nvml_watch_get(s->gpu, 0, &sample))
        return true;
    for (int i = 0, first = 0; i < N_ROWS && ok; i++) {
        double value = sample.values[rows[i].value];

        first = rows[i].help ? i : first;
        if (isnan(value))
            continue;
        if (head != rows[first].name)
            ok = add_head(b, rows[first].name, rows[first].type, rows[first].help);
        head = rows[first].name;
        ok = ok && m40_buf_printf(b, "m40llm_%s{device=\"%s\"%s} %.15g\n", rows[i].name, device, rows[i].labels, value * rows[i].unit);
    }
    return ok && add_throttling(b, device, sample.values[NVML_THROTTLE_BITS]);
}
