#include "parity/ref64.h"

#include "parity/tolerances.h"

#include <math.h>
#include <stdlib.h>

static void *allocate(size_t n, size_t size)
{
    void *block = calloc(n ? n : 1, size);

    if (!block)
        abort();
    return block;
}

void ref64_matmul(const struct m40_format *format, const void *rows, uint32_t n_rows, uint32_t n_cols, const float *x, const float *bias,
                  const float *residual, uint32_t n_tokens, double *y, double *bound)
{
    const size_t n_blocks = n_cols / format->type->block_elems, row_bytes = n_blocks * format->type->block_bytes;
    float *values = allocate(n_cols, sizeof *values), *q = allocate(n_cols, sizeof *q), *d = allocate(n_cols, sizeof *d),
          *m = allocate(n_cols, sizeof *m);

    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *row = (const uint8_t *)rows + r * row_bytes;

        format->dequant(row, n_blocks, values);  /* what the weights are */
        format->weights(row, n_blocks, q, d, m); /* how large the parts are that they are made of */
        for (uint32_t t = 0; t < n_tokens; t++) {
            double sum = 0, magnitude = 0, added = 0, flushed = 0; /* flushed: what x below 2^-57 may add up to, where the contract takes it for 0 */

            for (uint32_t c = 0; c < n_cols; c++) {
                const uint32_t sub = format->sub ? c / format->sub : 0;
                double scale = format->sub ? fabs((double)d[sub]) : 1, offset = format->has_offsets ? fabs((double)m[sub]) : scale * format->bias;

                sum += (double)values[c] * x[(size_t)t * n_cols + c];
                magnitude += (fabs((double)q[c]) * scale + offset) * fabs((double)x[(size_t)t * n_cols + c]);
                flushed += format->sub ? 0x1p-57 * (fabs((double)q[c]) * scale + offset) : 0;
            }
            added += bias ? (double)bias[r] : 0;
            added += residual ? (double)residual[(size_t)t * n_rows + r] : 0;
            magnitude += (bias ? fabs((double)bias[r]) : 0) + (residual ? fabs((double)residual[(size_t)t * n_rows + r]) : 0);
            y[(size_t)t * n_rows + r] = sum + added;
            bound[(size_t)t * n_rows + r] = TOLERANCE_MATMUL * magnitude + flushed + 2.0 * n_cols * TINY;
        }
    }
    free(values);
    free(q);
    free(d);
    free(m);
}

void ref64_rms_norm(const float *x, const float *weight, const float *residual, uint32_t n_rows, uint32_t n_cols, float eps, double *y, double *bound)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        double sum = 0;

        for (uint32_t c = 0; c < n_cols; c++)
            sum += (double)x[(size_t)row * n_cols + c] * x[(size_t)row * n_cols + c];
        for (uint32_t c = 0; c < n_cols; c++) {
            size_t i = (size_t)row * n_cols + c;

            y[i] = x[i] / sqrt(sum / n_cols + (double)eps) * (double)weight[c];
            /* the product before the weight may be subnormal */
            bound[i] = TOLERANCE_RMS_NORM(n_cols) * fabs(y[i]) + TINY * (1 + fabs((double)weight[c]));
            if (residual) {
                y[i] += residual[i];
                bound[i] += U * fabs(y[i]) + bound[i] * U;
            }
        }
    }
}

void ref64_rope(const float *x, const float *cos_sin, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, enum m40_rope_style style, double *y,
                double *bound)
{
    for (uint32_t h = 0; h < n_heads; h++) {
        size_t head = (size_t)h * head_dim;

        for (uint32_t d = 0; d < head_dim; d++) {
            y[head + d] = x[head + d];
            bound[head + d] = 0;
        }
        for (uint32_t i = 0; i < n_rot / 2; i++) {
            size_t a = head + (style == M40_ROPE_NORM ? 2 * i : i), b = style == M40_ROPE_NORM ? a + 1 : a + n_rot / 2;
            double c = cos_sin[2 * i], s = cos_sin[2 * i + 1], xa = x[a], xb = x[b];

            y[a] = xa * c - xb * s;
            y[b] = xa * s + xb * c;
            bound[a] = TOLERANCE_ROPE * (fabs(xa * c) + fabs(xb * s)) + 2 * TINY;
            bound[b] = TOLERANCE_ROPE * (fabs(xa * s) + fabs(xb * c)) + 2 * TINY;
        }
    }
}

double ref64_attention(const float *q, const float *k, const float *v, size_t stride, uint32_t n, uint32_t head_dim, float scale, float softcap,
                       const float *sink, double *y, double *bound)
{
    double *p = allocate(n, sizeof *p), max = -INFINITY, sum = 0, most = 0, rel;

    for (uint32_t i = 0; i < n; i++) {
        double magnitude = 0;

        for (uint32_t d = 0; d < head_dim; d++) {
            p[i] += (double)scale * q[d] * (double)k[i * stride + d];
            magnitude += fabs((double)scale * q[d] * (double)k[i * stride + d]);
        }
        p[i] = softcap > 0 ? softcap * tanh(p[i] / softcap) : p[i];
        max = p[i] > max ? p[i] : max;
        most = magnitude > most ? magnitude : most;
    }
    for (uint32_t i = 0; i < n; i++) {
        p[i] = exp(p[i] - max);
        sum += p[i];
    }
    rel = TOLERANCE_ATTENTION(head_dim, most, (n + M40_ATTN_PIECE - 1) / M40_ATTN_PIECE);
    if (softcap > 0)
        rel += TOLERANCE_ATTENTION_CAP(most, (double)softcap);
    if (sink) {
        sum += exp(*sink - max);
        rel += TOLERANCE_ATTENTION_SINK(fabs(*sink - max));
    }
    for (uint32_t d = 0; d < head_dim; d++) {
        double magnitude = 0, sum_of_v = 0;

        y[d] = 0;
        for (uint32_t i = 0; i < n; i++) {
            y[d] += p[i] / sum * (double)v[i * stride + d];
            magnitude += p[i] / sum * fabs((double)v[i * stride + d]);
            sum_of_v += fabs((double)v[i * stride + d]);
        }
        bound[d] = (rel < TOLERANCE_ATTENTION_MOST ? rel : TOLERANCE_ATTENTION_MOST) * magnitude +
                   (2.0 * n + 4 * sum_of_v) * TINY; /* an exponential may be subnormal */
    }
    free(p);
    return most;
}

/* What the sigmoid is of, and the other factor. */
static double glu_factors(const struct m40_act_params *act, double *g, double *u)
{
    switch (act->act) {
    case M40_ACT_SILU:
        return *g;
    case M40_ACT_GELU_TANH: /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), with (1 + tanh(z / 2)) / 2 = 1 / (1 + exp(-z)) where tanh would cancel */
        return 2 * sqrt(2 / acos(-1.0)) * (*g + 0.044715 * *g * *g * *g);
    case M40_ACT_SWIGLU_OAI:
        *g = *g > act->limit ? act->limit : *g;
        *u = (*u > act->limit ? act->limit : *u < -act->limit ? -act->limit : *u) + 1;
        return act->alpha * *g;
    }
    return 0;
}

void ref64_glu(const struct m40_act_params *act, const float *gate, const float *up, size_t n, double *y, double *bound)
{
    for (size_t i = 0; i < n; i++) {
        double g = gate[i], u = up[i], z = glu_factors(act, &g, &u);

        y[i] = g / (1 + exp(-z)) * u;
        bound[i] = TOLERANCE_GLU(act->act == M40_ACT_SILU ? 0 : fabs(z)) * fabs(y[i]) + TOLERANCE_GLU_ABS * fabs(u) + TINY * (1 + fabs(u));
        if (fabs(y[i]) > 3.4028235e38)
            y[i] = copysign(INFINITY, y[i]);
    }
}

void ref64_softcap(const float *x, size_t n, float scale, float softcap, double *y, double *bound)
{
    for (size_t i = 0; i < n; i++) {
        double z = (double)scale * x[i];

        y[i] = softcap > 0 ? softcap * tanh(z / softcap) : z;
        bound[i] = TOLERANCE_SOFTCAP * fabs(y[i]) + 2 * TINY * (1 + (double)softcap);
    }
}

double ref64_round_to_f16(double x)
{
    int exponent = x == 0 || isinf(x) || isnan(x) ? 0 : ilogb(x);
    double unit = ldexp(1, (exponent < -14 ? -14 : exponent) - 10), rounded;

    if (isinf(x) || isnan(x))
        return x;
    rounded = nearbyint(x / unit) * unit;
    return fabs(rounded) > 65504 ? copysign(INFINITY, x) : copysign(rounded, x);
}
