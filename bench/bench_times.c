#define _POSIX_C_SOURCE 200809L
#include "bench/bench_times.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void bench_times_add(struct bench_times *t, double value)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 256;
        t->values = realloc(t->values, t->capacity * sizeof *t->values);
        if (!t->values) {
            fprintf(stderr, "out of memory for %zu samples\n", t->capacity);
            exit(1);
        }
    }
    t->values[t->n++] = value;
    t->is_sorted = false;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_times_at(struct bench_times *t, double part)
{
    if (t->n == 0)
        return 0;
    if (!t->is_sorted)
        qsort(t->values, t->n, sizeof *t->values, compare_doubles);
    t->is_sorted = true;
    return t->values[(size_t)(part * (double)(t->n - 1) + 0.5)];
}

void bench_times_free(struct bench_times *t)
{
    free(t->values);
    *t = (struct bench_times){0};
}

/* The first line of /proc/PID/task/TID/NAME. */
static bool read_task(int pid, const char *tid, const char *name, char *text, size_t n_bytes)
{
    char path[320];
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "/proc/%d/task/%s/%s", pid, tid, name);
    f = fopen(path, "r");
    ok = f && fgets(text, (int)n_bytes, f);
    if (f)
        fclose(f);
    return ok;
}

/* libmicrohttpd gives its threads names that begin with MHD. */
struct bench_cpu bench_cpu_of(int pid)
{
    struct bench_cpu sum = {0};
    char path[64], name[64], times[64];
    const struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    tasks = opendir(path);
    while (tasks && (entry = readdir(tasks)) != NULL) {
        double seconds;

        if (entry->d_name[0] == '.' || !read_task(pid, entry->d_name, "comm", name, sizeof name) ||
            !read_task(pid, entry->d_name, "schedstat", times, sizeof times))
            continue;
        seconds = strtod(times, NULL) * 1e-9;
        *(atoi(entry->d_name) == pid || strncmp(name, "MHD", 3) == 0 ? &sum.other_s : &sum.compute_s) += seconds;
    }
    if (tasks)
        closedir(tasks);
    return sum;
}
