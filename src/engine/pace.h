/* How many prompt tokens a step may take, from how long steps took. Beside answers that are being generated: such that they lengthen it by no more than a given factor. Alone: such that it takes no more
 * than a given time, since nothing is cancelled or admitted during a step. Pure: times are passed in. What it decides changes how fast things go, never what comes out. */
#ifndef M40_ENGINE_PACE_H
#define M40_ENGINE_PACE_H

#include <stdint.h>

enum { M40_PACE_SIZES = 17 };

struct m40_pace {
    double growth;                    /* above 1 */
    double longest_ns;                /* of a step without answers; 0: any time */
    uint32_t n_most;                  /* rows of prompts in any step */
    uint32_t n_rows;                  /* what a step beside answers may have now */
    uint32_t n_alone;                 /* and one without answers */
    double plain_ns[M40_PACE_SIZES];  /* a step of 2^i answers and more alone, smoothed; 0: not known */
    uint32_t n_mixed[M40_PACE_SIZES]; /* steps with prompts since that was measured */
};

void m40_pace_init(struct m40_pace *pace, double growth, uint32_t n_most, double longest_ns);
/* Rows of prompts for a step of n_answers rows; 0: this step is to be measured without any. */
uint32_t m40_pace_rows(const struct m40_pace *pace, uint32_t n_answers);
/* A step took so long. */
void m40_pace_measured(struct m40_pace *pace, uint32_t n_answers, uint32_t n_rows, uint64_t ns);

#endif
