/* Properties and cases are utf8proc's; what Python adds to them is here. */
#include "tokenizer/template/chars.h"

#include "tokenizer/utf8.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

uint32_t m40_char_at(const char *p, unsigned *n_bytes)
{
    const uint8_t first = (uint8_t)*p;
    struct m40_utf8 u = m40_utf8_decode((const uint8_t *)p, first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);

    *n_bytes = u.n_bytes;
    return u.code;
}

uint32_t m40_char_before(const char *p, unsigned *n_bytes)
{
    const char *begin = p - 1;

    while (((unsigned char)*begin & 0xc0) == 0x80)
        begin--;
    return m40_char_at(begin, n_bytes);
}

unsigned m40_char_encode(uint32_t code, char *out)
{
    return (unsigned)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)out);
}

bool m40_char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool m40_char_is_line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool m40_char_is_printable(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool m40_char_is_alpha(uint32_t c)
{
    utf8proc_category_t k = category(c);

    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT || k == UTF8PROC_CATEGORY_LM ||
           k == UTF8PROC_CATEGORY_LO;
}

bool m40_char_is_decimal(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool m40_char_is_digit(uint32_t c)
{
    return m40_char_is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}

bool m40_char_is_numeric(uint32_t c)
{
    utf8proc_category_t k = category(c);

    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool m40_char_is_alnum(uint32_t c)
{
    return m40_char_is_alpha(c) || m40_char_is_numeric(c);
}

bool m40_char_is_upper(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LU;
}

bool m40_char_is_lower(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba;
}

bool m40_char_is_title(uint32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_LT;
}

/* Code points whose other case is several (Unicode's SpecialCasing.txt, the rows without conditions that occur in running text). */
static const struct {
    uint32_t code;
    const char *upper, *title;
} special_cases[] = {
    {0xdf, "SS", "Ss"},
    {0x149, "\xca\xbcN", "\xca\xbcN"},
    {0x1f0, "J\xcc\x8c", "J\xcc\x8c"},
    {0xfb00, "FF", "Ff"},
    {0xfb01, "FI", "Fi"},
    {0xfb02, "FL", "Fl"},
    {0xfb03, "FFI", "Ffi"},
    {0xfb04, "FFL", "Ffl"},
    {0xfb05, "ST", "St"},
    {0xfb06, "ST", "St"},
};

bool m40_char_append_case(struct m40_buf *out, uint32_t code, enum m40_case to)
{
    utf8proc_int32_t folded[8] = {(utf8proc_int32_t)code};
    char bytes[4];
    int boundary = 0;
    utf8proc_ssize_t n = 1;

    if (to == CASE_SWAP)
        to = m40_char_is_upper(code) ? CASE_LOWER : m40_char_is_lower(code) ? CASE_UPPER : CASE_SWAP;
    if (to == CASE_UPPER || to == CASE_TITLE)
        for (size_t i = 0; code > 0x7f && i < sizeof special_cases / sizeof *special_cases; i++)
            if (special_cases[i].code == code) {
                const char *text = to == CASE_UPPER ? special_cases[i].upper : special_cases[i].title;

                return m40_buf_append(out, text, strlen(text));
            }
    if (to == CASE_LOWER && code == 0x130)
        return m40_buf_append(out, "i\xcc\x87", 3);
    if (to == CASE_UPPER)
        folded[0] = utf8proc_toupper(folded[0]);
    else if (to == CASE_LOWER)
        folded[0] = utf8proc_tolower(folded[0]);
    else if (to == CASE_TITLE)
        folded[0] = utf8proc_totitle(folded[0]);
    else if (to == CASE_FOLD)
        n = utf8proc_decompose_char((utf8proc_int32_t)code, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        if (!m40_buf_append(out, bytes, m40_char_encode((uint32_t)folded[i], bytes)))
            return false;
    return true;
}

size_t m40_space_before(struct m40_str text)
{
    size_t at = 0;
    unsigned n;

    while (at < text.n_bytes && m40_char_is_space(m40_char_at(text.data + at, &n)))
        at += n;
    return at;
}

size_t m40_space_behind(struct m40_str text)
{
    size_t end = text.n_bytes;
    unsigned n;

    while (end > 0 && m40_char_is_space(m40_char_before(text.data + end, &n)))
        end -= n;
    return text.n_bytes - end;
}

/* What the C library writes between the digits, which depends on the locale: *n bytes, and a NUL, in `space`. */
static const char *decimal_point(char *space, size_t *n)
{
    int n_written = snprintf(space, 16, "%.1f", 0.5);

    *n = n_written > 2 && n_written < 16 ? (size_t)n_written - 2 : 0;
    space[1 + *n] = 0;
    return space + 1;
}

bool m40_double_format(struct m40_buf *out, char conversion, bool alternate, int precision, double value)
{
    const char format[] = {'%', alternate ? '#' : '.', alternate ? '.' : '*', alternate ? '*' : conversion, alternate ? conversion : 0, 0};
    char space[16];
    size_t n_point, start = out->n_bytes;
    const char *point = decimal_point(space, &n_point);
    int n = snprintf(NULL, 0, format, precision, value);
    char *text, *found;

    if (n < 0 || !m40_buf_reserve(out, (size_t)n + 1))
        return false;
    text = out->data + start;
    snprintf(text, (size_t)n + 1, format, precision, value);
    out->n_bytes += (size_t)n;
    found = n_point ? strstr(text, point) : NULL;
    if (found && (n_point > 1 || *found != '.')) {
        *found = '.';
        memmove(found + 1, found + n_point, strlen(found + n_point) + 1);
        out->n_bytes -= n_point - 1;
    }
    return true;
}

/* The first n_digits significant digits (without trailing zeros) and the exponent of the first; returns how many digits there are. */
static int round_to_digits(double value, int n_digits, char *digits, int *exponent)
{
    char text[64];
    const char *p = text;
    int n = 0;

    snprintf(text, sizeof text, "%.*e", n_digits - 1, value);
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    *exponent = *p ? atoi(p + 1) : 0;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = 0;
    return n;
}

void m40_double_text(double value, char *out)
{
    char digits[32], text[96];
    int exponent = 0, n = 0;
    double back = 0;

    if (isnan(value) || isinf(value)) {
        strcpy(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(value))
        *out++ = '-';
    value = fabs(value);
    /* what has at most 15 digits reads back, but for subnormal numbers, which have fewer bits */
    for (int n_digits = value < DBL_MIN ? 1 : 15; n_digits <= 17; n_digits++) {
        n = round_to_digits(value, n_digits, digits, &exponent);
        snprintf(text, sizeof text, "%se%d", digits, exponent - n + 1);
        if (m40_double_parse(m40_str_from(text), &back) && back == value)
            break;
    }
    if (exponent < -4 || exponent >= 16)
        snprintf(text, sizeof text, "%c%s%se%c%02d", digits[0], n > 1 ? "." : "", digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        snprintf(text, sizeof text, "0.%.*s%s", -exponent - 1, "000", digits);
    else if (n <= exponent + 1)
        snprintf(text, sizeof text, "%s%.*s.0", digits, exponent + 1 - n, "000000000000000");
    else
        snprintf(text, sizeof text, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    strcpy(out, text); /* 17 digits, a point and an exponent at the most */
}

bool m40_double_parse(struct m40_str text, double *out)
{
    char number[512], space[16], *end;
    size_t n = 0, n_point, before = m40_space_before(text);
    const char *point = decimal_point(space, &n_point);
    bool has_digit = false, has_point = false;

    text.data += before;
    text.n_bytes -= before;
    text.n_bytes -= m40_space_behind(text);
    if (text.n_bytes == 0 || text.n_bytes > 400)
        return false;
    for (size_t i = 0; i < text.n_bytes; i++) {
        char c = text.data[i];
        bool is_digit = c >= '0' && c <= '9';

        if (c == '_') { /* between digits only */
            char next = i + 1 < text.n_bytes ? text.data[i + 1] : 0;

            if (i == 0 || text.data[i - 1] < '0' || text.data[i - 1] > '9' || next < '0' || next > '9')
                return false;
            continue;
        }
        if (c == 'x' || c == 'X' || c == '(' || c == 'p' || c == 'P') /* what C reads and Python does not */
            return false;
        has_digit = has_digit || is_digit;
        if (c == '.') {
            if (has_point) /* `number` has room for one in any locale */
                return false;
            has_point = true;
            memcpy(number + n, point, n_point);
            n += n_point;
        } else {
            number[n++] = c;
        }
    }
    number[n] = 0;
    *out = strtod(number, &end);
    return *end == 0 && (has_digit || !isfinite(*out));
}
