/* The one way a function fails: it returns a status and fills the caller's m40llm_error.
 *
 * Every fallible function has `m40llm_status status = M40LLM_OK;` first, a parameter `m40llm_error *err`, and a label `fail:` that
 * releases what was made and returns status. */
#ifndef M40_BASE_STATUS_H
#define M40_BASE_STATUS_H

#include "m40llm.h"

/* Fills err (may be NULL) and returns code. Text longer than err->text is cut; control bytes become '?', so that it stays one line. */
m40llm_status m40_fail(m40llm_error *err, m40llm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* If cond holds: status = code, err = the text, goto fail. */
#define M40_FAIL_IF(cond, code, ...)                                                                                                                 \
    do {                                                                                                                                             \
        if (cond) {                                                                                                                                  \
            status = m40_fail(err, code, __VA_ARGS__);                                                                                               \
            goto fail;                                                                                                                               \
        }                                                                                                                                            \
    } while (0)

/* Calls a function that returns a status and has filled err; goes to fail unless it is OK. */
#define M40_TRY(call)                                                                                                                                \
    do {                                                                                                                                             \
        status = (call);                                                                                                                             \
        if (status != M40LLM_OK)                                                                                                                     \
            goto fail;                                                                                                                               \
    } while (0)

#endif
