#define _GNU_SOURCE
/* Watching a card through NVML: a fake library (tests/fake_nvml) that may fail, hang, or not be there. */
#include "harness/harness.h"
#include "server/nvml.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { INTERVAL_MS = 20 };

static const char *const here[] = {"0000:01:00.0"}, *const elsewhere[] = {"0000:02:00.0"};

struct log {
    pthread_mutex_t lock;
    char text[1024];
};

static void write_log(void *user, m40llm_log_level level, const char *line)
{
    struct log *log = user;

    assert_int_equal(level, M40LLM_LOG_INFO);
    pthread_mutex_lock(&log->lock);
    snprintf(log->text + strlen(log->text), sizeof log->text - strlen(log->text), "%s\n", line);
    pthread_mutex_unlock(&log->lock);
}

static bool has_said(struct log *log, const char *words)
{
    bool said;

    pthread_mutex_lock(&log->lock);
    said = strstr(log->text, words) != NULL;
    pthread_mutex_unlock(&log->lock);
    return said;
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void wait_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static const char *fake(void)
{
    static char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);

    assert_true(n > 0);
    path[n] = 0;
    *strrchr(path, '/') = 0;
    strcpy(strrchr(path, '/'), "/libnvidia-ml-fake.so");
    return path;
}

/* They stay in the environment, which must not move while the library reads it. */
static int reset(void **state)
{
    (void)state;
    setenv("M40LLM_FAKE_NVML_FAIL", "", 1);
    setenv("M40LLM_FAKE_NVML_HANG", "", 1);
    setenv("M40LLM_FAKE_NVML_HEAT", "", 1);
    return 0;
}

static struct nvml_watch *open_watch(const char *library, struct log *log, const char *const *pci)
{
    const m40llm_logger logger = {write_log, log, M40LLM_LOG_INFO};
    struct nvml_watch *w;

    pthread_mutex_init(&log->lock, NULL);
    log->text[0] = 0;
    w = nvml_watch_open(library, &logger, pci, 1, INTERVAL_MS);
    assert_non_null(w);
    return w;
}

/* In ten seconds at most. */
static void wait_for_sample(struct nvml_watch *w, struct nvml_sample *s)
{
    for (int i = 0; i < 1000 && !nvml_watch_get(w, 0, s); i++)
        wait_ms(10);
    assert_true(nvml_watch_get(w, 0, s));
}

static void test_a_card(void **state)
{
    static const double expected[NVML_N_VALUES] = {[NVML_TEMPERATURE_C] = 61,        [NVML_SM_MHZ] = 1113,
                                                   [NVML_MEMORY_MHZ] = 3004,         [NVML_POWER_MW] = 187654,
                                                   [NVML_POWER_LIMIT_MW] = 250000,   [NVML_THROTTLE_BITS] = 0x44,
                                                   [NVML_ECC_ENABLED] = 1,           [NVML_ECC_CORRECTED] = 1,
                                                   [NVML_ECC_UNCORRECTED] = 2,       [NVML_ECC_CORRECTED_EVER] = 11,
                                                   [NVML_ECC_UNCORRECTED_EVER] = 12, [NVML_MEMORY_TOTAL] = 12079136768,
                                                   [NVML_MEMORY_USED] = 1079136768,  [NVML_MEMORY_FREE] = 11000000000};
    struct nvml_sample s;
    struct log log;
    struct nvml_watch *w = open_watch(fake(), &log, here);

    (void)state;
    wait_for_sample(w, &s);
    for (int i = 0; i < NVML_N_VALUES; i++)
        assert_true(s.values[i] == expected[i]);
    nvml_watch_close(&w);
    assert_null(w);
    assert_string_equal(log.text, "");
    nvml_watch_close(&w);
}

static void test_it_looks_again(void **state)
{
    struct nvml_sample s;
    struct log log;
    struct nvml_watch *w = open_watch(fake(), &log, here);

    (void)state;
    wait_for_sample(w, &s);
    setenv("M40LLM_FAKE_NVML_HEAT", "95", 1);
    for (int i = 0; i < 1000 && (!nvml_watch_get(w, 0, &s) || s.values[NVML_TEMPERATURE_C] < 95); i++)
        wait_ms(10);
    assert_true(s.values[NVML_TEMPERATURE_C] == 95);
    nvml_watch_close(&w);
}

static void test_what_the_card_does_not_tell(void **state)
{
    struct nvml_sample s;
    struct log log;
    struct nvml_watch *w;

    (void)state;
    setenv("M40LLM_FAKE_NVML_FAIL", "nvmlDeviceGetTotalEccErrors,nvmlDeviceGetEccMode,nvmlDeviceGetPowerUsage", 1);
    w = open_watch(fake(), &log, here);
    wait_for_sample(w, &s);
    assert_true(isnan(s.values[NVML_ECC_ENABLED]) && isnan(s.values[NVML_ECC_CORRECTED]) && isnan(s.values[NVML_ECC_UNCORRECTED_EVER]));
    assert_true(isnan(s.values[NVML_POWER_MW]) && s.values[NVML_POWER_LIMIT_MW] == 250000 && s.values[NVML_TEMPERATURE_C] == 61);
    nvml_watch_close(&w);
}

/* A note, no sample, no failure. */
static void test_absent(void **state)
{
    static const struct {
        const char *library, *fails, *says;
        const char *const *pci;
    } cases[] = {{"/nonexistent/libnvidia-ml.so.1", "", "/nonexistent/libnvidia-ml.so.1", here},
                 {"libm.so.6", "", "lacks nvmlInit_v2", here},
                 {NULL, "nvmlInit_v2", "does not start (error 3)", here},
                 {NULL, "nvmlDeviceGetHandleByPciBusId_v2", "does not find it (error 3)", here},
                 {NULL, "", "card at 0000:02:00.0", elsewhere}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nvml_sample s;
        struct log log;
        struct nvml_watch *w;

        setenv("M40LLM_FAKE_NVML_FAIL", cases[i].fails, 1);
        w = open_watch(cases[i].library ? cases[i].library : fake(), &log, cases[i].pci);
        for (int k = 0; k < 1000 && !has_said(&log, cases[i].says); k++)
            wait_ms(10);
        assert_true(has_said(&log, cases[i].says));
        assert_false(nvml_watch_get(w, 0, &s));
        nvml_watch_close(&w);
        assert_true(strchr(log.text, '\n') == strrchr(log.text, '\n'));
    }
}

/* Nobody waits for it: neither who reads, nor who ends; and what it last said is not true for ever. */
static void test_it_hangs(void **state)
{
    struct nvml_sample s;
    struct log log;
    struct nvml_watch *w = open_watch(fake(), &log, here);
    uint64_t start;

    (void)state;
    wait_for_sample(w, &s);
    setenv("M40LLM_FAKE_NVML_HANG", "nvmlDeviceGetPowerUsage", 1);
    wait_ms(INTERVAL_MS * 10);
    start = now_ms();
    assert_false(nvml_watch_get(w, 0, &s));
    assert_true(now_ms() - start < 500);
    nvml_watch_close(&w);
    assert_true(now_ms() - start < 2500);
    wait_ms(2500); /* it comes back, and finds what it needs */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_a_card, reset), cmocka_unit_test_setup(test_it_looks_again, reset),
                                       cmocka_unit_test_setup(test_what_the_card_does_not_tell, reset), cmocka_unit_test_setup(test_absent, reset),
                                       cmocka_unit_test_setup(test_it_hangs, reset)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
