/* Random models: files with the dimensions of well-known models and random weights, for speed measurements and tests. */
#ifndef M40_MODEL_SYNTH_H
#define M40_MODEL_SYNTH_H

#include "base/status.h"

/* As m40llm_synth_write. INVALID_ARGUMENT: no such shape or type (the text lists those there are). A write that fails or is cancelled leaves no file.
 * The bytes do not depend on the number of threads. */
m40llm_status m40_synth_write(const char *shape, const char *type, const char *path, m40llm_progress_fn progress, void *user, m40llm_error *err);

/* The names of the shapes, separated by spaces. */
const char *m40_synth_shapes(void);

#endif
