/* How many prompt tokens a step may take beside the answers that are being generated, from how long steps took: such that they lengthen it by no more than a given factor; and
 * how many a step of prompts alone may take, such that it takes no more than a given time, since nothing is cancelled or admitted during a step. Pure: times are passed in. What it decides changes how fast things go, never what comes out.
 *
 * A step's time is no line over its rows: kernels take rows in tiles, so it goes up in stairs, and the first stair may be the highest. So nothing is computed from a price of a row; the times of steps of
 * a few sizes are kept, and a step gets the largest size that is known to keep the bound. Sizes are numbers of all rows, answers and prompts, close enough together that little is given away. A size that
 * was never tried is tried once when those below it fit; one that was too slow is tried again after a while, ever more seldom, or when steps have become faster. */
#ifndef M40_ENGINE_PACE_H
#define M40_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    M40_PACE_LOADS = 40,  /* numbers of answers: 1 to 16, then four to an octave, up to 1024 */
    M40_PACE_SIZES = 112, /* numbers of rows: 1 to 16, then eight to an octave, up to 2^16 */
};

/* The last three times of something. */
struct m40_pace_times {
    float last[3];
    uint8_t n, next;
};

struct m40_pace_size {
    struct m40_pace_times ratios; /* of the time of a step to that of the answers alone */
    uint32_t retry_at;            /* too slow: until the load has seen so many steps */
    uint8_t n_refused;            /* how often it was, one time after the other */
};

/* Steps with so many answers. */
struct m40_pace_load {
    struct m40_pace_times plain; /* ns, without prompts */
    uint32_t n_since;            /* steps with prompts since that was measured */
    uint32_t n_steps;            /* steps with prompts of a whole size */
    uint32_t size;               /* what the next one gets */
    float settled;               /* the ratio that `size` had at first; 0: not known yet */
    struct m40_pace_size sizes[M40_PACE_SIZES];
};

struct m40_pace {
    double growth;     /* above 1 */
    double longest_ns; /* of a step without answers; 0: any time */
    uint32_t n_most;   /* rows of prompts in any step */
    uint32_t n_rows;   /* of the last step beside answers, or what the next one may have */
    uint32_t n_alone;  /* of the next step without answers */
    struct m40_pace_load loads[M40_PACE_LOADS];
};

void m40_pace_init(struct m40_pace *pace, double growth, uint32_t n_most, double longest_ns);
/* Rows of prompts for a step of n_answers rows; 0: this step is to be measured without any. */
uint32_t m40_pace_rows(const struct m40_pace *pace, uint32_t n_answers);
/* A step took so long. */
void m40_pace_measured(struct m40_pace *pace, uint32_t n_answers, uint32_t n_rows, uint64_t ns);

#endif
