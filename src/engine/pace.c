#include "engine/pace.h"

enum {
    FIRST_ROWS = 16,
    TILE_ROWS = 64,     /* matrices are multiplied in tiles of so many rows or a part of that */
    MEASURE_AFTER = 64, /* mixed steps: what answers take alone changes with their contexts */
};

static uint32_t size_of(uint32_t n_answers)
{
    uint32_t i = 0;

    while (n_answers >> (i + 1) && i + 1 < M40_PACE_SIZES)
        i++;
    return i;
}

void m40_pace_init(struct m40_pace *pace, double growth, uint32_t n_most, double longest_ns)
{
    uint32_t n_first = n_most < FIRST_ROWS ? n_most : FIRST_ROWS;

    *pace = (struct m40_pace){
        .growth = growth, .longest_ns = longest_ns, .n_most = n_most, .n_rows = n_first, .n_alone = longest_ns > 0 ? n_first : n_most};
}

uint32_t m40_pace_rows(const struct m40_pace *pace, uint32_t n_answers)
{
    uint32_t size = size_of(n_answers);

    if (n_answers == 0)
        return pace->n_alone;
    if (pace->plain_ns[size] == 0 || pace->n_mixed[size] >= MEASURE_AFTER)
        return 0;
    return pace->n_rows;
}

/* Rows cost the same each as far as this goes; where they do not, the next steps tell. */
static void adapt(struct m40_pace *pace, uint32_t n_rows, double plain, double ns)
{
    double budget = (pace->growth - 1) * plain, extra = ns - plain;
    double fit = extra * 2 * pace->n_most > budget * n_rows ? n_rows * budget / extra : 2.0 * pace->n_most;
    double least = pace->n_rows / 2, most = 2.0 * pace->n_rows;

    if (extra <= budget && n_rows < pace->n_rows) /* too few to say how many more there may be */
        return;
    fit = fit < least ? least : fit > most ? most : fit;
    pace->n_rows = fit < 1 ? 1 : fit > pace->n_most ? pace->n_most : (uint32_t)fit;
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
    uint32_t size = size_of(n_answers);
    double *plain = &pace->plain_ns[size];

    if (n_answers == 0) {
        if (n_rows > 0 && pace->longest_ns > 0)
            adapt_alone(pace, n_rows, (double)ns);
        return;
    }
    if (n_rows == 0) {
        double change = (double)ns - *plain;

        *plain = *plain == 0 ? (double)ns : *plain + change / (change < 0 ? 2 : 4); /* what disturbs a step makes it longer */
        pace->n_mixed[size] = 0;
    } else if (*plain > 0) {
        pace->n_mixed[size]++;
        adapt(pace, n_rows, *plain, (double)ns);
    }
}
