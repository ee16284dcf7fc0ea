/* A view of bytes, a buffer that grows, and a switch in words. */
#ifndef M40_BASE_STR_H
#define M40_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Bytes owned by someone else; not NUL-terminated. */
struct m40_str {
    const char *data;
    size_t n_bytes;
};

static inline struct m40_str m40_str_from(const char *text)
{
    return (struct m40_str){text, strlen(text)};
}

static inline bool m40_str_equal(struct m40_str a, struct m40_str b)
{
    return a.n_bytes == b.n_bytes && (a.n_bytes == 0 || memcmp(a.data, b.data, a.n_bytes) == 0);
}

/* "0" or "1" into *out; NULL leaves it as it is. false: any other text. For switches in the environment. */
static inline bool m40_parse_switch(const char *text, bool *out)
{
    if (text && strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return false;
    if (text)
        *out = *text == '1';
    return true;
}

/* Zero it to begin; data is NUL-terminated once anything was appended. A failed append (false: no memory) leaves it as it was. */
struct m40_buf {
    char *data;
    size_t n_bytes;
    size_t capacity;
};

bool m40_buf_reserve(struct m40_buf *buf, size_t n_more);
bool m40_buf_append(struct m40_buf *buf, const void *data, size_t n_bytes);
bool m40_buf_printf(struct m40_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void m40_buf_free(struct m40_buf *buf);

#endif
