/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. PCRE2 is no stricter, so what passes here may skip its own
 * check. */
#ifndef M40_TOKENIZER_UTF8_H
#define M40_TOKENIZER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct m40_utf8 {
    uint32_t code;   /* the code point, where valid */
    uint8_t n_bytes; /* of the sequence; of an invalid one, the bytes that one U+FFFD stands for: the longest beginning of a valid sequence, or 1 */
    bool valid;
    bool incomplete; /* invalid only because the bytes end here */
};

/* The sequence at p; n_bytes >= 1 bytes are there. */
static inline struct m40_utf8 m40_utf8_decode(const uint8_t *p, size_t n_bytes)
{
    struct m40_utf8 u = {.code = p[0], .n_bytes = 1, .valid = true};
    unsigned need = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    /* the second byte's range carries the rules against overlong forms, surrogates and too great values */
    uint8_t low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;

    if (need == 1)
        return u;
    u.valid = false;
    if (need == 0)
        return u;
    u.code = p[0] & (0x7fu >> need);
    for (unsigned i = 1; i < need; i++) {
        if (i == n_bytes) {
            u.incomplete = true;
            return u;
        }
        if (p[i] < low || p[i] > high)
            return u;
        u.code = u.code << 6 | (p[i] & 0x3f);
        u.n_bytes = (uint8_t)(i + 1);
        low = 0x80;
        high = 0xbf;
    }
    u.valid = true;
    return u;
}

/* Whether all of text is. */
static inline bool m40_utf8_is_valid(const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)text + i, n_bytes - i);

        if (!u.valid)
            return false;
        i += u.n_bytes;
    }
    return true;
}

/* Unicode's White_Space. */
static inline bool m40_utf8_is_white_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* code < 0x800 as one or two bytes; returns how many. */
static inline size_t m40_utf8_encode_short(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

#endif
