#include "base/str.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

bool m40_buf_reserve(struct m40_buf *buf, size_t n_more)
{
    size_t need = buf->n_bytes + n_more + 1;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    char *data;

    if (need <= n_more)
        return false;
    if (need <= buf->capacity)
        return true;
    while (capacity < need)
        capacity += capacity / 2;
    data = m40_realloc_array(buf->data, capacity, 1);
    if (!data)
        return false;
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

bool m40_buf_append(struct m40_buf *buf, const void *data, size_t n_bytes)
{
    if (!m40_buf_reserve(buf, n_bytes))
        return false;
    if (n_bytes)
        memcpy(buf->data + buf->n_bytes, data, n_bytes);
    buf->n_bytes += n_bytes;
    buf->data[buf->n_bytes] = 0;
    return true;
}

bool m40_buf_printf(struct m40_buf *buf, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !m40_buf_reserve(buf, (size_t)n))
        return false;
    va_start(args, format);
    vsnprintf(buf->data + buf->n_bytes, (size_t)n + 1, format, args);
    va_end(args);
    buf->n_bytes += (size_t)n;
    return true;
}

void m40_buf_free(struct m40_buf *buf)
{
    m40_free(buf->data);
    *buf = (struct m40_buf){0};
}
