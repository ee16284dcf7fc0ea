#include "tokenizer/template/diagnostic.h"

#include "tokenizer/utf8.h"

#include <stdio.h>
#include <string.h>

m40llm_status m40_template_fail(m40llm_error *err, uint32_t line, const char *format, va_list args)
{
    char text[236]; /* leaves room for the line in front */
    size_t n;

    vsnprintf(text, sizeof text, format, args);
    n = strlen(text);
    for (size_t at = 0; at < n;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + at, n - at);

        if (!u.valid)
            memset(text + at, '?', u.n_bytes);
        at += u.n_bytes;
    }
    return m40_fail(err, M40LLM_TEMPLATE, "line %u: %s", line, text);
}
