/* Splits an answer into what the model thought, between <think> and </think>, and what it says. */
#ifndef M40_SERVER_THINKING_H
#define M40_SERVER_THINKING_H

#include "base/str.h"

struct thinking {
    enum { THINKING_MAYBE, THINKING_YES, THINKING_OVER, THINKING_NO } state; /* MAYBE: only white space has come, or a part of <think> */
    bool has_thought;                                                        /* something of it has been given out */
    struct m40_buf held;                                                     /* text that may be, or stand before, a tag */
};

/* The answer goes on with these bytes; what is certain is appended to *thought and *said. White space around a thought belongs to neither. At `end` all that is
 * held back is given out. false: no memory. */
bool thinking_push(struct thinking *t, const char *text, size_t n_bytes, bool end, struct m40_buf *thought, struct m40_buf *said);

#endif
