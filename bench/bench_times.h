/* Samples and their quantiles; the processor time of another program's threads. */
#ifndef M40_BENCH_TIMES_H
#define M40_BENCH_TIMES_H

#include <stdbool.h>
#include <stddef.h>

/* Monotonic, in seconds. */
double bench_now(void);

/* Zero it to begin. Without memory the program ends. */
struct bench_times {
    double *values;
    size_t n, capacity;
    bool is_sorted;
};

void bench_times_add(struct bench_times *t, double value);
/* The value below which a part (0 to 1) of them lie; 0: there are none. */
double bench_times_at(struct bench_times *t, double part);
void bench_times_free(struct bench_times *t);

/* Seconds of processor time so far of m40llm serve's threads: those that compute, and those that serve connections, its first thread among them. */
struct bench_cpu {
    double compute_s, other_s;
};

/* Linux alone; zero where /proc does not tell. */
struct bench_cpu bench_cpu_of(int pid);

#endif
