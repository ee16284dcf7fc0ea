#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void m40_log(const m40llm_logger *log, m40llm_log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (!m40_log_wants(log, level))
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log->write(log->user, level, line);
}
