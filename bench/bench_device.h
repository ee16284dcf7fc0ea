/* The card under bench-kernels: opened, its two yardsticks measured, and operations timed on its stream with events. */
#ifndef M40_BENCH_DEVICE_H
#define M40_BENCH_DEVICE_H

#include "backend/cuda/cuda_internal.h"

struct bench_device {
    struct m40_backend *backend;
    struct m40_cuda *cuda; /* the same */
    m40llm_device_info info;
    CUevent events[2];
    uint64_t l2_bytes;
    double read_bytes_s; /* measured */
    double fma_flop_s;   /* measured: two a fused multiply-add */
    bool is_quick;       /* few samples, each of few repetitions: shows that everything runs, not how fast */
};

/* Of one operation. spread: 90th percentile less 10th, over the median. */
struct bench_time {
    double median_s, min_s, spread;
    uint32_t n_samples, n_repetitions;
};

/* issue() is called with i = 0, 1, ...: the copy of the data to work on is i % n_copies, so that caches do not serve it. */
struct bench_work {
    m40llm_status (*issue)(struct m40_backend *be, const void *args, uint32_t i, m40llm_error *err);
    const void *args;
    uint32_t n_copies;
};

/* options: spec, cuda_library. Takes a second or two: opening and measuring. */
m40llm_status bench_open(struct bench_device *d, const m40llm_device_options *options, bool is_quick, m40llm_error *err);
void bench_close(struct bench_device *d);

/* Times work: warmed up, then at least 20 samples, each a graph of as many repetitions as fill 2 ms (at least one of every copy) between two events. */
m40llm_status bench_time(struct bench_device *d, const struct bench_work *work, struct bench_time *out, m40llm_error *err);
/* The median and the rest of n seconds; sorts them. */
void bench_summarise(double *seconds, uint32_t n, struct bench_time *out);

/* Copies of n_bytes that exceed the L2 cache twice over; 1 where one does. */
uint32_t bench_n_copies(const struct bench_device *d, uint64_t n_bytes);

/* n_bytes of device memory that repeat `seed` (n_seed_bytes). Free it with the backend's free(). */
m40llm_status bench_upload(struct bench_device *d, const void *seed, uint64_t n_seed_bytes, uint64_t n_bytes, m40_addr *out, m40llm_error *err);
/* The first n_seed_bytes at addr, again and again up to n_bytes. */
m40llm_status bench_repeat(struct bench_device *d, m40_addr addr, uint64_t n_seed_bytes, uint64_t n_bytes, m40llm_error *err);

#endif
