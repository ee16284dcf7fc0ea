/* What templates may call, by name. */
#ifndef M40_TOKENIZER_TEMPLATE_BUILTINS_H
#define M40_TOKENIZER_TEMPLATE_BUILTINS_H

#include "tokenizer/template/chars.h"
#include "tokenizer/template/run.h"

/* NULL: there is none of that name. */
const struct m40_tbuiltin *m40_find_filter(struct m40_str name);
const struct m40_tbuiltin *m40_find_test(struct m40_str name);
const struct m40_tbuiltin *m40_find_global(struct m40_str name);
/* Of a value's type. */
const struct m40_tbuiltin *m40_find_method(struct m40_tv v, struct m40_str name);
/* Whether it is a method that the sandbox refuses because it changes the value. */
bool m40_is_mutator(struct m40_tv v, struct m40_str name);

/* The tables' parts: each ends with a row without a name. */
extern const struct m40_tbuiltin m40_text_filters[], m40_number_filters[], m40_sequence_filters[];

/* ---- arguments, bound to parameters ---- */

static inline bool m40_has_arg(const struct m40_targs *args, size_t i)
{
    return args->pos[i].type != TV_MISSING;
}

/* The i-th argument, or a default where it was not given; fails where it is of another type. */
int64_t m40_arg_int(struct m40_trun *r, const struct m40_targs *args, size_t i, int64_t fallback);
bool m40_arg_bool(const struct m40_targs *args, size_t i, bool fallback);
struct m40_str m40_arg_str(struct m40_trun *r, const struct m40_targs *args, size_t i, const char *fallback);

/* ---- shared by several ---- */

/* Whether the test `name` (any text: it may not exist) holds of v. */
bool m40_tr_test(struct m40_trun *r, struct m40_tv name, struct m40_tv v, const struct m40_targs *args);
/* int() and float() of a value: false where there is none. */
bool m40_tr_to_int(struct m40_tv v, int base, int64_t *out);
bool m40_tr_to_float(struct m40_tv v, double *out);
/* Appends text with the five characters of HTML escaped. */
void m40_tr_put_escaped(struct m40_trun *r, struct m40_buf *buf, struct m40_str text);
/* A string in upper, lower, ... case: each character by itself; capitalize: the first character, then the rest. */
struct m40_tv m40_tr_case(struct m40_trun *r, struct m40_str text, enum m40_case to);
struct m40_tv m40_tr_capitalize(struct m40_trun *r, struct m40_str text);
/* Centred, or to the left or right (align: '^', '<', '>'), in `width` characters. */
struct m40_tv m40_tr_pad(struct m40_trun *r, const struct m40_tstr *s, int64_t width, struct m40_str fill, char align);
/* All of `old` replaced, or the first n_max (< 0: all). */
struct m40_tv m40_tr_replace(struct m40_trun *r, struct m40_str text, struct m40_str old, struct m40_str new_text, int64_t n_max);
/* Without the characters of `chars` at the ends (NULL: white space). sides: 1 left, 2 right, 3 both. */
struct m40_str m40_tr_strip(struct m40_trun *r, struct m40_str text, const struct m40_str *chars, unsigned sides);
/* Lines without their ends, or with them. */
struct m40_tlist *m40_tr_lines(struct m40_trun *r, struct m40_str text, bool keep_ends);
/* Sorts by keys[i] of items[i], in place, keeping the order of equals. keys->n == items->n */
void m40_tr_sort(struct m40_trun *r, struct m40_tlist *items, struct m40_tlist *keys, bool is_reverse);
/* "text" % values */
struct m40_tv m40_tr_percent(struct m40_trun *r, struct m40_str format, struct m40_tv values);
/* text.format(...) */
struct m40_tv m40_tr_format(struct m40_trun *r, struct m40_str format, const struct m40_targs *args);
/* strftime */
struct m40_tv m40_tr_strftime(struct m40_trun *r, struct m40_str format, const struct m40_template_time *time);

#endif
