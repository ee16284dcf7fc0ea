/* How bench-kernels prints its results: a table, one JSON object, or a CSV of time over the number of tokens. */
#ifndef M40_BENCH_REPORT_H
#define M40_BENCH_REPORT_H

#include "bench/bench_cases.h"

enum bench_form { BENCH_TABLE, BENCH_JSON, BENCH_CURVE };

/* What is asked of a curve: how far it lies above the model, and how it steps from one number of tokens to the next. */
struct bench_curve {
    uint32_t n_points, n_far;                       /* far: above CURVE_RATIO x the model */
    uint32_t n_steps, n_high;                       /* from n to n + 1 tokens; high: above CURVE_STEP */
    double worst_ratio, worst_step;                 /* 0: none */
    uint32_t worst_ratio_tokens, worst_step_tokens; /* the step's end */
    double last_s;
    uint32_t last_tokens;
};

struct bench_report {
    const struct bench_device *device;
    enum bench_form form;
    struct bench_curve curve;
    uint32_t n_rows_printed;
};

/* What stands before the rows and behind them, on stdout. */
void bench_report_begin(struct bench_report *r);
void bench_report_end(struct bench_report *r);
/* A struct bench_sink's row(); user: the report. */
m40llm_status bench_report_row(void *user, const struct bench_row *row, m40llm_error *err);

/* Issue slots that turning a weight into FP32 may take on the M40, beside the multiplication: what the mat-vec kernels aim at. */
double bench_dequant_slots(uint32_t dtype);

#endif
