#define _GNU_SOURCE /* pthread_timedjoin_np */
#include "nvml.h"

#include "nvml_api.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_AGE = 4 /* intervals */, JOIN_S = 1 };

struct library {
    void *handle;
#define FIELD(field, symbol, params) nvmlReturn_t(*field) params;
    NVML_SYMBOLS(FIELD)
    NVML_QUERIES(FIELD)
#undef FIELD
};

struct card {
    char pci[16];
    nvmlDevice_t device; /* the thread's alone; NULL: there is none */
    uint64_t at_ns;      /* of the sample; 0: none */
    struct nvml_sample sample;
};

struct nvml_watch {
    char *path; /* NULL: the usual one */
    m40llm_logger logger;
    unsigned interval_ms;
    size_t n;
    struct card *cards; /* [n] */
    pthread_t thread;
    pthread_mutex_t lock; /* of the samples and of what follows; never held during a call */
    pthread_cond_t wakes;
    bool ends;         /* the thread must */
    bool has_ended;    /* and touches nothing any more */
    bool is_abandoned; /* nobody waits for it: it frees all */
};

static void say(const struct nvml_watch *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct nvml_watch *w, const char *format, ...)
{
    char line[256];
    va_list args;

    if (!w->logger.write || w->logger.level < M40LLM_LOG_INFO)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    w->logger.write(w->logger.user, M40LLM_LOG_INFO, line);
}

static struct timespec after(clockid_t clock, uint64_t ns)
{
    struct timespec t;

    clock_gettime(clock, &t);
    ns += (uint64_t)t.tv_nsec;
    return (struct timespec){t.tv_sec + (time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

static uint64_t now_ns(void)
{
    struct timespec t = after(CLOCK_MONOTONIC, 0);

    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the library ---- */

/* As in POSIX: the bits of an object pointer are those of the function's. */
static void find_symbol(const struct library *l, const char *name, void *function_ptr)
{
    void *symbol = dlsym(l->handle, name);

    memcpy(function_ptr, &symbol, sizeof symbol);
}

static bool open_library(struct library *l, const struct nvml_watch *w)
{
    const char *missing = NULL;
    nvmlReturn_t result;

    *l = (struct library){.handle = dlopen(w->path ? w->path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!l->handle) {
        say(w, "no figures of the card in /metrics: %s", dlerror());
        return false;
    }
#define FIND(field, symbol, params) find_symbol(l, #symbol, &l->field);
    NVML_SYMBOLS(FIND)
    NVML_QUERIES(FIND)
#undef FIND
#define NEED(field, symbol, params)                                                                                                                  \
    if (!l->field && !missing)                                                                                                                       \
        missing = #symbol;
    NVML_SYMBOLS(NEED)
#undef NEED
    result = missing ? 0 : l->Init();
    if (!missing && result == NVML_SUCCESS)
        return true;
    if (missing)
        say(w, "no figures of the card in /metrics: the NVML library lacks %s", missing);
    else
        say(w, "no figures of the card in /metrics: NVML does not start (error %d)", result);
    dlclose(l->handle);
    return false;
}

static bool find_cards(const struct library *l, struct nvml_watch *w)
{
    bool any = false;

    for (size_t i = 0; i < w->n; i++) {
        nvmlReturn_t result = l->DeviceGetHandleByPciBusId(w->cards[i].pci, &w->cards[i].device);

        if (result != NVML_SUCCESS)
            w->cards[i].device = NULL;
        if (!w->cards[i].device)
            say(w, "no figures of the card at %s in /metrics: NVML does not find it (error %d)", w->cards[i].pci, result);
        any = any || w->cards[i].device;
    }
    return any;
}

static void ask(const struct library *l, nvmlDevice_t d, double *v)
{
    static const struct {
        enum nvml_value value;
        int type, counter;
    } errors[] = {{NVML_ECC_CORRECTED, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_VOLATILE_ECC},
                  {NVML_ECC_UNCORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC},
                  {NVML_ECC_CORRECTED_EVER, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_AGGREGATE_ECC},
                  {NVML_ECC_UNCORRECTED_EVER, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_AGGREGATE_ECC}};
    unsigned u;
    unsigned long long wide;
    int current, pending;
    nvmlMemory_t memory;

    if (l->Temperature && l->Temperature(d, NVML_TEMPERATURE_GPU, &u) == NVML_SUCCESS)
        v[NVML_TEMPERATURE_C] = u;
    if (l->ClockInfo && l->ClockInfo(d, NVML_CLOCK_SM, &u) == NVML_SUCCESS)
        v[NVML_SM_MHZ] = u;
    if (l->ClockInfo && l->ClockInfo(d, NVML_CLOCK_MEM, &u) == NVML_SUCCESS)
        v[NVML_MEMORY_MHZ] = u;
    if (l->PowerUsage && l->PowerUsage(d, &u) == NVML_SUCCESS)
        v[NVML_POWER_MW] = u;
    if (l->PowerLimit && l->PowerLimit(d, &u) == NVML_SUCCESS)
        v[NVML_POWER_LIMIT_MW] = u;
    if (l->ThrottleReasons && l->ThrottleReasons(d, &wide) == NVML_SUCCESS)
        v[NVML_THROTTLE_BITS] = (double)wide;
    if (l->EccMode && l->EccMode(d, &current, &pending) == NVML_SUCCESS)
        v[NVML_ECC_ENABLED] = current;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (l->EccErrors && l->EccErrors(d, errors[i].type, errors[i].counter, &wide) == NVML_SUCCESS)
            v[errors[i].value] = (double)wide;
    if (l->MemoryInfo && l->MemoryInfo(d, &memory) == NVML_SUCCESS) {
        v[NVML_MEMORY_TOTAL] = (double)memory.total;
        v[NVML_MEMORY_USED] = (double)memory.used;
        v[NVML_MEMORY_FREE] = (double)memory.free;
    }
}

/* ---- the thread ---- */

static void take_samples(const struct library *l, struct nvml_watch *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct nvml_sample sample;

        if (!w->cards[i].device)
            continue;
        for (int k = 0; k < NVML_N_VALUES; k++)
            sample.values[k] = (double)NAN;
        ask(l, w->cards[i].device, sample.values);
        pthread_mutex_lock(&w->lock);
        w->cards[i].sample = sample;
        w->cards[i].at_ns = now_ns();
        pthread_mutex_unlock(&w->lock);
    }
}

/* false: it is time to end. */
static bool wait_interval(struct nvml_watch *w)
{
    struct timespec until = after(CLOCK_MONOTONIC, (uint64_t)w->interval_ms * 1000000u);
    bool ends;

    pthread_mutex_lock(&w->lock);
    while (!w->ends && pthread_cond_timedwait(&w->wakes, &w->lock, &until) == 0)
        ;
    ends = w->ends;
    pthread_mutex_unlock(&w->lock);
    return !ends;
}

static void free_watch(struct nvml_watch *w)
{
    free(w->path);
    free(w->cards);
    free(w);
}

static void free_all(struct nvml_watch *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wakes);
    free_watch(w);
}

static void watch_cards(struct nvml_watch *w)
{
    struct library l;

    if (!open_library(&l, w))
        return;
    if (find_cards(&l, w))
        do
            take_samples(&l, w);
        while (wait_interval(w));
    l.Shutdown();
    dlclose(l.handle);
}

static void *watch(void *user)
{
    struct nvml_watch *w = user;
    bool is_abandoned;

    watch_cards(w);
    pthread_mutex_lock(&w->lock);
    w->has_ended = true;
    is_abandoned = w->is_abandoned;
    pthread_mutex_unlock(&w->lock);
    if (is_abandoned)
        free_all(w);
    return NULL;
}

/* ---- the outside ---- */

static bool start_thread(struct nvml_watch *w)
{
    pthread_condattr_t attributes;
    bool ok = pthread_condattr_init(&attributes) == 0;

    if (!ok)
        return false;
    ok = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&w->wakes, &attributes) == 0;
    pthread_condattr_destroy(&attributes);
    if (!ok)
        return false;
    pthread_mutex_init(&w->lock, NULL);
    if (pthread_create(&w->thread, NULL, watch, w) == 0)
        return true;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wakes);
    return false;
}

struct nvml_watch *nvml_watch_open(const char *library, const m40llm_logger *logger, const char *const *pci, size_t n, unsigned interval_ms)
{
    struct nvml_watch *w = calloc(1, sizeof *w);

    if (!w)
        return NULL;
    w->path = library && *library ? strdup(library) : NULL;
    w->logger = *logger;
    w->interval_ms = interval_ms;
    w->n = n;
    w->cards = calloc(n + 1, sizeof *w->cards);
    for (size_t i = 0; w->cards && i < n; i++)
        snprintf(w->cards[i].pci, sizeof w->cards[i].pci, "%s", pci[i]);
    if (w->cards && (w->path || !library || !*library) && start_thread(w))
        return w;
    free_watch(w);
    return NULL;
}

bool nvml_watch_get(struct nvml_watch *w, size_t i, struct nvml_sample *out)
{
    uint64_t now = now_ns(), at;

    pthread_mutex_lock(&w->lock);
    at = w->cards[i].at_ns;
    *out = w->cards[i].sample;
    pthread_mutex_unlock(&w->lock);
    return at && (now < at || now - at <= (uint64_t)w->interval_ms * 1000000u * MAX_AGE);
}

void nvml_watch_close(struct nvml_watch **out)
{
    struct nvml_watch *w = *out;
    struct timespec until = after(CLOCK_REALTIME, JOIN_S * (uint64_t)1000000000u);
    pthread_t thread;
    bool has_ended;

    *out = NULL;
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ends = true;
    pthread_cond_signal(&w->wakes);
    pthread_mutex_unlock(&w->lock);
    if (pthread_timedjoin_np(w->thread, NULL, &until) == 0) {
        free_all(w);
        return;
    }
    pthread_mutex_lock(&w->lock); /* it hangs in the library, and may come back */
    has_ended = w->has_ended;
    w->is_abandoned = !has_ended;
    thread = w->thread;
    pthread_mutex_unlock(&w->lock);
    if (has_ended) {
        pthread_join(thread, NULL);
        free_all(w);
    } else {
        pthread_detach(thread);
    }
}
