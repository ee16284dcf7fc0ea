/* Log lines to the caller's m40llm_logger. The text is only made when the level is wanted. */
#ifndef M40_BASE_LOG_H
#define M40_BASE_LOG_H

#include "m40llm.h"

/* Sends one line; nothing happens where log is NULL, has no write(), or wants less. */
void m40_log(const m40llm_logger *log, m40llm_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

static inline int m40_log_wants(const m40llm_logger *log, m40llm_log_level level)
{
    return log && log->write && level <= log->level;
}

#endif
