#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

const char *m40llm_status_text(m40llm_status status)
{
    switch (status) {
#define M40_STATUS_CASE(number, name, text)                                                                                                          \
    case M40LLM_##name:                                                                                                                              \
        return text;
        M40LLM_STATUS_MAP(M40_STATUS_CASE)
#undef M40_STATUS_CASE
    }
    return "unknown status";
}

m40llm_status m40_fail(m40llm_error *err, m40llm_status code, const char *format, ...)
{
    va_list args;

    if (!err)
        return code;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    for (char *p = err->text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return code;
}
