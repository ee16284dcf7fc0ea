/* How compiling and rendering say what is wrong. */
#ifndef M40_TOKENIZER_TEMPLATE_DIAGNOSTIC_H
#define M40_TOKENIZER_TEMPLATE_DIAGNOSTIC_H

#include "base/status.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* "line N: " and the text, into err; returns TEMPLATE. Parts of a template or its context may stand in it, cut anywhere: what is then no UTF-8 becomes '?'. */
m40llm_status m40_template_fail(m40llm_error *err, uint32_t line, const char *format, va_list args) __attribute__((format(printf, 3, 0)));

/* How much of a text of n bytes is shown: for "%.*s". */
static inline int m40_shown(size_t n_bytes)
{
    return n_bytes < 80 ? (int)n_bytes : 80;
}

#endif
