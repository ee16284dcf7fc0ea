/* Frequencies, and the table of RoPE's cosines and sines, computed with nothing but IEEE double +, -, *, / in a written order: libm's pow, sin and cos differ between machines, these do not.
 *
 * Frequencies, f = base^(-2i / n_rot) / divisor / factor: the power as exp(-2i / n_rot * ln base) in double-double (pairs hi + lo, about 100 bits; Dekker, "A floating-point technique for
 * extending the available precision", 1971), so that it is right to the last bit of a double in all but a handful of cases; there are few of them and they need not be fast.
 *
 * Angles: pos * f, rounded to double; reduced to |r| <= pi/4 by subtracting n * pi/2 in parts of 26 bits, whose products with n < 2^26 are exact (Cody and Waite); then Taylor
 * polynomials of degree 17 and 18, whose tails are below 1e-18. The result is within about one unit of a double, and is rounded to float once. */
#include "model/rope.h"

/* ---- double-double ---- */

struct dd {
    double hi, lo;
};

static struct dd two_sum(double a, double b)
{
    double s = a + b, t = s - a;

    return (struct dd){s, (a - (s - t)) + (b - t)};
}

/* The upper 26 bits of a; a minus them is exact. */
static double upper_half(double a)
{
    double t = a * 134217729.0; /* 2^27 + 1 */

    return t - (t - a);
}

static struct dd two_product(double a, double b)
{
    double p = a * b, ah = upper_half(a), bh = upper_half(b), al = a - ah, bl = b - bh;

    return (struct dd){p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
}

static struct dd dd_add(struct dd a, struct dd b)
{
    struct dd s = two_sum(a.hi, b.hi);

    return two_sum(s.hi, s.lo + (a.lo + b.lo));
}

static struct dd dd_mul(struct dd a, struct dd b)
{
    struct dd p = two_product(a.hi, b.hi);

    return two_sum(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static struct dd dd_div(struct dd a, double b)
{
    double q = a.hi / b;
    struct dd p = two_product(q, b);

    return two_sum(q, ((a.hi - p.hi) - p.lo + a.lo) / b);
}

static const struct dd ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};

/* ln x for 1 <= x <= 1e15: x = m 2^k with m in [3/4, 3/2), ln m = 2 (z + z^3/3 + z^5/5 + ...), z = (m - 1) / (m + 1), |z| <= 1/5. */
static struct dd dd_log(double x)
{
    struct dd z, z2, power, sum;
    int k = 0;

    while (x >= 1.5) {
        x *= 0.5;
        k++;
    }
    z = dd_div((struct dd){x - 1.0, 0.0}, x + 1.0);
    /* x + 1 may have been rounded: what was lost is exact, and 1 / (d + e) = 1/d (1 - e/d + ...) */
    z = dd_add(z, (struct dd){-z.hi * (two_sum(x, 1.0).lo / (x + 1.0)), 0.0});
    z2 = dd_mul(z, z);
    power = z;
    sum = z;
    for (int n = 3; n <= 45; n += 2) {
        power = dd_mul(power, z2);
        sum = dd_add(sum, dd_div(power, n));
    }
    sum = dd_add(sum, sum);
    return dd_add(sum, dd_mul(ln2, (struct dd){k, 0.0}));
}

/* e^y for -36 <= y <= 0: y = r - k ln2 with -0.5 <= r < 0.2, the Taylor series of e^r, k halvings. */
static double dd_exp(struct dd y)
{
    struct dd term = {1.0, 0.0}, sum = {1.0, 0.0};
    int k = 0;

    while (y.hi < -0.5) {
        y = dd_add(y, ln2);
        k++;
    }
    for (int n = 1; n <= 28; n++) {
        term = dd_div(dd_mul(term, y), n);
        sum = dd_add(sum, term);
    }
    for (; k > 0; k--)
        sum.hi *= 0.5; /* exact; sum.lo is below half a unit of sum.hi */
    return sum.hi;
}

/* ---- frequencies ---- */

/* ln x for any x > 0 that is no further from 1 than 1e15. */
static double log_of(double x)
{
    return x < 1.0 ? -dd_log(1.0 / x).hi : dd_log(x).hi;
}

double m40_rope_yarn_magnitude(double factor, double multiplier)
{
    return 0.1 * multiplier * log_of(factor) + 1.0;
}

/* The pair, as a real number, that turns n_turns times in the original context. */
static double pair_of_turns(const struct m40_rope *rope, double n_turns)
{
    const double two_pi = 6.283185307179586;

    return rope->n_rot * log_of(rope->n_ctx_original / (n_turns * two_pi)) / (2.0 * log_of(rope->base));
}

static double round_down(double x)
{
    double whole = (double)(int64_t)x;

    return whole > x ? whole - 1.0 : whole;
}

void m40_rope_set_yarn(struct m40_rope *rope, double beta_fast, double beta_slow, bool is_whole)
{
    double low = pair_of_turns(rope, beta_fast), high = pair_of_turns(rope, beta_slow);

    if (is_whole) {
        low = round_down(low);
        high = -round_down(-high);
    }
    rope->is_yarn = true;
    rope->ramp_low = low > 0.0 ? low : 0.0;
    rope->ramp_high = high < rope->n_rot - 1.0 ? high : rope->n_rot - 1.0;
    if (rope->ramp_high < rope->ramp_low + 0.001)
        rope->ramp_high = rope->ramp_low + 0.001;
}

/* f with YaRN's scaling. */
static double blend(const struct m40_rope *rope, double f, uint32_t i)
{
    double ramp = (i - rope->ramp_low) / (rope->ramp_high - rope->ramp_low);

    ramp = ramp < 0.0 ? 0.0 : ramp > 1.0 ? 1.0 : ramp;
    return f / rope->factor * ramp + f * (1.0 - ramp);
}

void m40_rope_frequencies(const struct m40_rope *rope, uint32_t n_ctx, double *f)
{
    const float *divisors = rope->long_divisors && n_ctx > rope->n_ctx_original ? rope->long_divisors : rope->divisors;
    struct dd log_base = dd_log(rope->base);

    for (uint32_t i = 0; i < rope->n_rot / 2; i++) {
        f[i] = dd_exp(dd_div(dd_mul(log_base, (struct dd){-2.0 * i, 0.0}), rope->n_rot));
        if (divisors)
            f[i] /= (double)divisors[i];
        f[i] = rope->is_yarn ? blend(rope, f[i], i) : f[i] / rope->factor;
    }
}

/* ---- sine and cosine ---- */

/* x - n pi/2, |n| < 2^26, as hi + lo with about 2^-80 of error. */
static struct dd reduce(double x, double n)
{
    static const double part[4] = {0x1.921fb5p+0, 0x1.110b46p-26, 0x1.1a6263p-54, 0x1.8a2e03707344ap-81};
    struct dd a = {x - n * part[0], 0.0}; /* exact */
    struct dd b = two_sum(a.hi, -(n * part[1]));
    struct dd c = two_sum(b.hi, -(n * part[2]));

    return two_sum(c.hi, c.lo + b.lo - n * part[3]);
}

/* r - r^3/3! + ... + r^17/17!; r.lo enters to first order. */
static double sin_series(struct dd r)
{
    double x = r.hi, x2 = x * x, p = 1.0 / 355687428096000.0;

    p = p * x2 - 1.0 / 1307674368000.0;
    p = p * x2 + 1.0 / 6227020800.0;
    p = p * x2 - 1.0 / 39916800.0;
    p = p * x2 + 1.0 / 362880.0;
    p = p * x2 - 1.0 / 5040.0;
    p = p * x2 + 1.0 / 120.0;
    p = p * x2 - 1.0 / 6.0;
    return x + (p * (x2 * x) + r.lo);
}

/* 1 - r^2/2! + ... - r^18/18! */
static double cos_series(struct dd r)
{
    double x = r.hi, x2 = x * x, p = -1.0 / 6402373705728000.0;

    p = p * x2 + 1.0 / 20922789888000.0;
    p = p * x2 - 1.0 / 87178291200.0;
    p = p * x2 + 1.0 / 479001600.0;
    p = p * x2 - 1.0 / 3628800.0;
    p = p * x2 + 1.0 / 40320.0;
    p = p * x2 - 1.0 / 720.0;
    p = p * x2 + 1.0 / 24.0;
    return 1.0 - (0.5 * x2 - (p * (x2 * x2) - x * r.lo));
}

/* cos and sin of x, 0 <= x < 2^26, times magnitude. */
static void cos_sin(double x, double magnitude, float *out)
{
    const double magic = 0x1.8p52; /* adding it rounds to an integer, nearest even */
    double n = (x * 0x1.45f306dc9c883p-1 + magic) - magic, s, c;
    struct dd r = reduce(x, n);

    s = sin_series(r) * magnitude;
    c = cos_series(r) * magnitude;
    switch ((unsigned)n % 4) {
    case 0:
        out[0] = (float)c, out[1] = (float)s;
        break;
    case 1:
        out[0] = (float)-s, out[1] = (float)c;
        break;
    case 2:
        out[0] = (float)-c, out[1] = (float)-s;
        break;
    default:
        out[0] = (float)s, out[1] = (float)-c;
    }
}

void m40_rope_table(const struct m40_rope *rope, uint32_t n_ctx, bool for_queries, float *table)
{
    uint32_t n_pairs = rope->n_rot / 2;
    double f[M40_ROPE_MAX_PAIRS];

    m40_rope_frequencies(rope, n_ctx, f);
    for (uint32_t pos = 0; pos < n_ctx; pos++) {
        double magnitude = rope->magnitude;

        if (for_queries && rope->temperature > 0 && pos >= rope->n_ctx_original)
            magnitude *= 1.0 + rope->temperature * log_of(1.0 + pos / rope->n_ctx_original);
        for (uint32_t i = 0; i < n_pairs; i++)
            cos_sin((double)pos * f[i], magnitude, table + 2 * ((uint64_t)pos * n_pairs + i));
    }
}
