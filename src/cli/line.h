/* Lines from a terminal: line_libedit.c with editing and history where libedit is there at build time, line_getline.c as the terminal gives them where it is not. */
#ifndef M40_CLI_LINE_H
#define M40_CLI_LINE_H

#include <stdbool.h>
#include <stddef.h>

struct line_reader;

enum line_result {
    LINE_TEXT,
    LINE_CANCELLED, /* by Ctrl-C */
    LINE_END,       /* Ctrl-D in an empty line, the terminal is gone, or the program was told to end */
    LINE_FAILED,    /* no memory */
};

/* Reads from standard input, which is a terminal; prompts and what is typed show on standard error, or where that is no terminal, on standard output. history_path: NULL for none; what is wrong with the file is said on standard error once. words: what the
 * tabulator completes at the beginning of a line, NULL-terminated; it and the path must outlive the reader. NULL: no memory. */
struct line_reader *line_open(const char *history_path, const char *const *words);
void line_close(struct line_reader **reader);

/* The next line into *text (valid until the next call, NUL-terminated, without the newline at its end; pasted text may have others inside). For CANCELLED *n_bytes is what was typed. */
enum line_result line_read(struct line_reader *reader, const char *prompt, const char **text, size_t *n_bytes);

/* Adds a text, of one line or more, to the history and its file. */
void line_remember(struct line_reader *reader, const char *text);

#endif
