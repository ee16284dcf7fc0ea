#include "bench/bench_report.h"

#include <stdio.h>
#include <string.h>

/* What a point and a step by one token may reach. */
#define CURVE_RATIO 1.75
#define CURVE_STEP  1.10

double bench_dequant_slots(uint32_t dtype)
{
    switch (dtype) {
    case M40_DTYPE_F32:
        return 0;
    case M40_DTYPE_F16:
    case M40_DTYPE_BF16:
        return 1.6;
    case M40_DTYPE_Q8_0:
        return 2.5;
    case M40_DTYPE_Q4_0:
    case M40_DTYPE_Q4_1:
    case M40_DTYPE_Q4_K:
    case M40_DTYPE_IQ4_NL:
        return 3.0;
    case M40_DTYPE_IQ4_XS:
    case M40_DTYPE_MXFP4:
        return 3.4;
    default:
        return 4.2;
    }
}

static double percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

static void begin_table(const struct bench_device *d)
{
    printf("%s, driver %s, %s, %u SMs, L2 cache %.1f MiB. Measured: %.0f GB/s read, %.2f TFLOP/s FP32.\n", d->info.name, d->info.driver, d->info.code,
           d->cuda->n_sms, (double)d->l2_bytes / 0x1p20, d->read_bytes_s / 1e9, d->fma_flop_s / 1e12);
    printf("us: median of a launch; +-: 90th percentile less 10th, of the median; GB/s: everything read and written once, and its share of the read "
           "bandwidth; TFLOP/s and share of the FP32 peak.\n\n");
    printf("%-20s %-7s %-13s %6s %7s %11s %6s %7s %5s %8s %5s\n", "operation", "type", "shape", "tokens", "context", "us", "+-", "GB/s", "%",
           "TFLOP/s", "%");
}

/* Text of the driver may hold anything. */
static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < 0x20 ? ' ' : *text);
    }
    putchar('"');
}

void bench_report_begin(struct bench_report *r)
{
    const struct bench_device *d = r->device;

    if (r->form == BENCH_TABLE) {
        begin_table(d);
    } else if (r->form == BENCH_CURVE) {
        printf("tokens,us,spread,model_us,ratio,step\n");
    } else {
        printf("{\"device\":");
        print_json_string(d->info.name);
        printf(",\"driver\":");
        print_json_string(d->info.driver);
        printf(",\"code\":");
        print_json_string(d->info.code);
        printf(",\"sms\":%u,\"l2_bytes\":%llu,\"read_bytes_per_s\":%.0f,\"fma_flop_per_s\":%.0f,\"results\":[\n", d->cuda->n_sms,
               (unsigned long long)d->l2_bytes, d->read_bytes_s, d->fma_flop_s);
    }
}

/* Notes a point, in ascending order of tokens. Returns its time over that of the point before, or 0 where that is not of one token less. */
static double add_to_curve(struct bench_curve *c, uint32_t n_tokens, double seconds, double model_s)
{
    const double ratio = rate(seconds, model_s), step = n_tokens == c->last_tokens + 1 ? rate(seconds, c->last_s) : 0;

    c->n_points++;
    c->n_far += ratio > CURVE_RATIO;
    if (ratio > c->worst_ratio) {
        c->worst_ratio = ratio;
        c->worst_ratio_tokens = n_tokens;
    }
    c->n_steps += step > 0;
    c->n_high += step > CURVE_STEP;
    if (step > c->worst_step) {
        c->worst_step = step;
        c->worst_step_tokens = n_tokens;
    }
    c->last_s = seconds;
    c->last_tokens = n_tokens;
    return step;
}

static void end_curve(const struct bench_curve *c)
{
    printf("# %u of %u points above %.2f x the model; the farthest %.2f x, at %u tokens\n", c->n_far, c->n_points, CURVE_RATIO, c->worst_ratio,
           c->worst_ratio_tokens);
    printf("# %u of %u steps by one token above %.2f; the highest %.2f, to %u tokens\n", c->n_high, c->n_steps, CURVE_STEP, c->worst_step,
           c->worst_step_tokens);
}

void bench_report_end(struct bench_report *r)
{
    if (r->form == BENCH_JSON)
        printf("]}\n");
    else if (r->form == BENCH_CURVE)
        end_curve(&r->curve);
}

static void print_table_row(const struct bench_report *r, const struct bench_row *row)
{
    const double s = row->time.median_s, bytes_s = rate(row->n_bytes, s), flop_s = rate(row->n_flops, s);
    const bool is_on_host = strstr(row->op, "(host)") != NULL;
    char shape[32] = "", context[16] = "";

    if (row->n_rows)
        snprintf(shape, sizeof shape, "%ux%u", row->n_rows, row->n_cols);
    else if (row->n_cols)
        snprintf(shape, sizeof shape, "%u", row->n_cols);
    if (row->n_ctx)
        snprintf(context, sizeof context, "%u", row->n_ctx);
    printf("%-20s %-7s %-13s %6u %7s %11.2f %5.1f%%", row->op, row->type ? row->type : "", shape, row->n_tokens, context, s * 1e6,
           row->time.spread * 100);
    if (!is_on_host)
        printf(" %7.0f %4.0f%%", bytes_s / 1e9, percent(bytes_s, r->device->read_bytes_s));
    if (row->n_flops > 0)
        printf(" %8.2f %4.0f%%", flop_s / 1e12, percent(flop_s, r->device->fma_flop_s));
    printf("\n");
}

static void print_json_row(const struct bench_report *r, const struct bench_row *row)
{
    printf("%s{\"op\":\"%s\",\"type\":\"%s\",\"rows\":%u,\"cols\":%u,\"tokens\":%u,\"context\":%u,\"us\":%.4f,\"us_min\":%.4f,\"spread\":%.4f,"
           "\"samples\":%u,\"repetitions\":%u,\"bytes\":%.0f,\"flop\":%.0f,\"bandwidth_percent\":%.2f,\"peak_percent\":%.2f}",
           r->n_rows_printed ? ",\n" : "", row->op, row->type ? row->type : "", row->n_rows, row->n_cols, row->n_tokens, row->n_ctx,
           row->time.median_s * 1e6, row->time.min_s * 1e6, row->time.spread, row->time.n_samples, row->time.n_repetitions, row->n_bytes,
           row->n_flops, percent(rate(row->n_bytes, row->time.median_s), r->device->read_bytes_s),
           percent(rate(row->n_flops, row->time.median_s), r->device->fma_flop_s));
}

/* model: the larger of bytes / bandwidth and (tokens + dequantisation slots) x weights / lane rate, a lane doing one multiply-add a clock. */
static void print_curve_row(struct bench_report *r, const struct bench_row *row)
{
    const double s = row->time.median_s, n_weights = (double)row->n_rows * row->n_cols, lanes_s = r->device->fma_flop_s / 2;
    const double slots = row->n_tokens + bench_dequant_slots(m40_dtype_by_name(row->type)->number);
    const double memory_s = rate(row->n_bytes, r->device->read_bytes_s), lane_s = rate(slots * n_weights, lanes_s);
    const double model_s = memory_s > lane_s ? memory_s : lane_s, step = add_to_curve(&r->curve, row->n_tokens, s, model_s);
    char step_text[16] = "";

    if (step > 0)
        snprintf(step_text, sizeof step_text, "%.4f", step);
    printf("%u,%.3f,%.4f,%.3f,%.3f,%s\n", row->n_tokens, s * 1e6, row->time.spread, model_s * 1e6, rate(s, model_s), step_text);
}

m40llm_status bench_report_row(void *user, const struct bench_row *row, m40llm_error *err)
{
    struct bench_report *r = user;

    (void)err;
    switch (r->form) {
    case BENCH_TABLE:
        print_table_row(r, row);
        break;
    case BENCH_JSON:
        print_json_row(r, row);
        break;
    case BENCH_CURVE:
        print_curve_row(r, row);
        break;
    }
    r->n_rows_printed++;
    fflush(stdout);
    return M40LLM_OK;
}
