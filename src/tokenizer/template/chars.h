/* Code points of valid UTF-8, with Python's notions of them. */
#ifndef M40_TOKENIZER_TEMPLATE_CHARS_H
#define M40_TOKENIZER_TEMPLATE_CHARS_H

#include "base/str.h"

#include <stdint.h>

/* The code point at p, and its length. */
uint32_t m40_char_at(const char *p, unsigned *n_bytes);
/* The one that ends before p. */
uint32_t m40_char_before(const char *p, unsigned *n_bytes);
/* Returns the length, at most 4. code <= 0x10ffff */
unsigned m40_char_encode(uint32_t code, char *out);

bool m40_char_is_space(uint32_t code);
bool m40_char_is_line_end(uint32_t code); /* where splitlines splits */
bool m40_char_is_printable(uint32_t code);
bool m40_char_is_alpha(uint32_t code);
bool m40_char_is_decimal(uint32_t code);
bool m40_char_is_digit(uint32_t code);
bool m40_char_is_numeric(uint32_t code);
bool m40_char_is_alnum(uint32_t code);
bool m40_char_is_upper(uint32_t code);
bool m40_char_is_lower(uint32_t code);
bool m40_char_is_title(uint32_t code);
static inline bool m40_char_is_word(uint32_t code)
{
    return code == '_' || m40_char_is_alnum(code);
}

/* Appends the code point in another case (which may be several). false: no memory. */
enum m40_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_FOLD, CASE_SWAP };
bool m40_char_append_case(struct m40_buf *out, uint32_t code, enum m40_case to);

/* Bytes of white space at the beginning and at the end. */
size_t m40_space_before(struct m40_str text);
size_t m40_space_behind(struct m40_str text);

/* A double as Python writes it: the shortest text that reads back as the same. At most 32 bytes, NUL-terminated. */
void m40_double_text(double value, char *out);
/* printf of one double with a precision: "%.*f", "%.*e", "%.*g" (with '#' or not), whatever the locale. Appends. */
bool m40_double_format(struct m40_buf *out, char conversion, bool alternate, int precision, double value);
/* Reads a number of Python's float(): false where the text is something else. */
bool m40_double_parse(struct m40_str text, double *out);

#endif
