#include "engine/pace.h"

#include <string.h>

enum {
    FIRST_ROWS = 16,    /* of a step without answers that must not take too long */
    TILE_ROWS = 64,     /* matrices are multiplied in tiles of so many rows or a part of that */
    MEASURE_AFTER = 64, /* steps with prompts: what answers take alone changes with their contexts */
    RETRY_AFTER = 64,   /* steps, the first time */
    MAX_DOUBLINGS = 3,  /* of that */
};

/* What a ratio's excess over 1 must fall to, for sizes that were too slow to be tried again at once. */
static const float faster = 0.7f;

/* ---- times ---- */

static void add_time(struct m40_pace_times *t, float value)
{
    t->last[t->next] = value;
    t->next = (uint8_t)((t->next + 1) % 3);
    t->n += t->n < 3;
}

/* What disturbs a step makes it longer: of two the shorter, of three the one in the middle. */
static float typical(const struct m40_pace_times *t)
{
    float a = t->last[0], b = t->last[1], c = t->last[2];

    if (t->n < 3)
        return t->n == 2 && b < a ? b : a;
    if ((a <= b && b <= c) || (c <= b && b <= a))
        return b;
    return (b <= a && a <= c) || (c <= a && a <= b) ? a : c;
}

/* ---- loads and sizes ---- */

/* Its place in pace->loads. */
static uint32_t load_of(uint32_t n_answers)
{
    uint32_t n = n_answers - 1, k = 4;

    if (n >= 16) {
        while (n >> (k + 1) && k < 9)
            k++;
        n = 16 + (k - 4) * 4 + (n >> (k - 2) & 3);
    }
    return n;
}

/* All rows of a step of this size. */
static uint32_t rows_in_all(uint32_t size)
{
    uint32_t octave = (size - 16) / 8;

    return size < 16 ? size + 1 : (16u << octave) + ((size - 16) % 8 + 1) * (2u << octave);
}

/* Of prompts. */
static uint32_t rows_of(const struct m40_pace *pace, uint32_t size, uint32_t n_answers)
{
    uint32_t n = rows_in_all(size);

    if (n <= n_answers)
        return 1; /* sizes are far apart there: less than the smallest */
    return n - n_answers < pace->n_most ? n - n_answers : pace->n_most;
}

/* The largest size with at most n rows of prompts, or the smallest there is. */
static uint32_t size_for(const struct m40_pace *pace, double n, uint32_t n_answers)
{
    uint32_t size = 0;

    while (rows_in_all(size) <= n_answers)
        size++;
    while (size + 1 < M40_PACE_SIZES && rows_of(pace, size, n_answers) < pace->n_most && rows_of(pace, size + 1, n_answers) <= n)
        size++;
    return size;
}

/* ---- what the next step gets ---- */

void m40_pace_init(struct m40_pace *pace, double growth, uint32_t n_most, double longest_ns)
{
    memset(pace, 0, sizeof *pace);
    pace->growth = growth;
    pace->longest_ns = longest_ns;
    pace->n_most = n_most;
    pace->n_rows = 1;
    pace->n_alone = longest_ns > 0 && n_most > FIRST_ROWS ? FIRST_ROWS : n_most;
}

uint32_t m40_pace_rows(const struct m40_pace *pace, uint32_t n_answers)
{
    const struct m40_pace_load *load;

    if (n_answers == 0)
        return pace->n_alone;
    load = &pace->loads[load_of(n_answers)];
    if (load->plain.n == 0 || load->n_since >= MEASURE_AFTER)
        return 0;
    return rows_of(pace, load->size, n_answers);
}

/* Rows that keep the bound if rows cost the same each. */
static double fitting_rows(const struct m40_pace *pace, double n_rows, double ratio)
{
    return ratio > 1 ? n_rows * (pace->growth - 1) / (ratio - 1) : pace->n_most;
}

static bool is_refused(const struct m40_pace_load *load, uint32_t size)
{
    return load->sizes[size].n_refused > 0 && load->n_steps < load->sizes[size].retry_at;
}

/* Too slow: down to what should fit, and not up again for a while. */
static void refuse(struct m40_pace *pace, struct m40_pace_load *load, uint32_t n_answers, double ratio)
{
    uint32_t size = load->size, n_rows = rows_of(pace, size, n_answers), down = size_for(pace, fitting_rows(pace, n_rows, ratio), n_answers);
    struct m40_pace_size *s = &load->sizes[size];

    s->retry_at = load->n_steps + (RETRY_AFTER << (s->n_refused < MAX_DOUBLINGS ? s->n_refused : MAX_DOUBLINGS));
    s->n_refused += s->n_refused < MAX_DOUBLINGS;
    s->ratios.n = s->ratios.next = 0; /* old by then */
    load->settled = 0;
    if (down >= size)
        down = size_for(pace, n_rows > 1 ? n_rows - 1 : 1, n_answers);
    load->size = down;
}

/* It fits: up to what should fit too, at most to twice as many rows, and below any size that is refused. */
static void grow(struct m40_pace *pace, struct m40_pace_load *load, uint32_t n_answers, double ratio)
{
    uint32_t size = load->size, n_rows = rows_of(pace, size, n_answers);
    double fit = fitting_rows(pace, n_rows, ratio);
    uint32_t up = size_for(pace, fit < 2.0 * n_rows ? fit : 2.0 * n_rows, n_answers);

    if (n_rows >= pace->n_most || size + 1 == M40_PACE_SIZES)
        return;
    if (up == size) /* the next one may be on the same stair */
        up = size + 1;
    for (uint32_t i = size + 1; i <= up; i++)
        if (is_refused(load, i))
            up = i - 1;
    if (up != size)
        load->settled = 0;
    load->size = up;
}

/* Steps of the size that is in use have become much faster: what was too slow may not be any more. */
static void look_again(struct m40_pace_load *load, float ratio)
{
    if (load->settled != 0 && ratio - 1 < faster * (load->settled - 1)) {
        for (uint32_t i = 0; i < M40_PACE_SIZES; i++)
            load->sizes[i].n_refused = 0;
        load->settled = 0;
    }
    if (load->settled == 0)
        load->settled = ratio;
}

static void take_mixed(struct m40_pace *pace, struct m40_pace_load *load, uint32_t n_answers, uint32_t n_rows, double ns)
{
    struct m40_pace_size *s = &load->sizes[load->size];
    float ratio;

    load->n_since++;
    if (n_rows != rows_of(pace, load->size, n_answers))
        return; /* the end of a prompt */
    load->n_steps++;
    add_time(&s->ratios, (float)(ns / (double)typical(&load->plain)));
    ratio = typical(&s->ratios);
    if ((double)ratio > pace->growth) {
        refuse(pace, load, n_answers, (double)ratio);
    } else {
        s->n_refused = 0;
        if (s->ratios.n == 3)
            look_again(load, ratio);
        grow(pace, load, n_answers, (double)ratio);
    }
    pace->n_rows = rows_of(pace, load->size, n_answers);
}

/* Time for what a step costs without any rows is in ns, too: so a step of more rows is shorter than this says, and the next tells how much. */
static void adapt_alone(struct m40_pace *pace, uint32_t n_rows, double ns)
{
    double fit = n_rows * pace->longest_ns / (ns < 1 ? 1 : ns);

    if (n_rows < pace->n_alone && ns <= pace->longest_ns) /* too few to say how many more there may be */
        return;
    pace->n_alone = fit < 1 ? 1 : fit > pace->n_most ? pace->n_most : (uint32_t)fit;
    if (pace->n_alone > TILE_ROWS && pace->n_alone < pace->n_most)
        pace->n_alone -= pace->n_alone % TILE_ROWS;
}

void m40_pace_measured(struct m40_pace *pace, uint32_t n_answers, uint32_t n_rows, uint64_t ns)
{
    struct m40_pace_load *load;

    if (n_answers == 0) {
        if (n_rows > 0 && pace->longest_ns > 0)
            adapt_alone(pace, n_rows, (double)ns);
        return;
    }
    load = &pace->loads[load_of(n_answers)];
    if (n_rows == 0) {
        if (load->plain.n == 0) /* from half of what other loads have come to */
            load->size = size_for(pace, (pace->n_rows + 1) / 2, n_answers);
        add_time(&load->plain, (float)ns);
        load->n_since = 0;
    } else if (load->plain.n > 0) {
        take_mixed(pace, load, n_answers, n_rows, (double)ns);
    }
}
