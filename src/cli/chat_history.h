/* Where a chat's history is kept: a file that nobody but its user can read. */
#ifndef M40_CLI_CHAT_STATE_HISTORY_H
#define M40_CLI_CHAT_STATE_HISTORY_H

#include <stdio.h>

enum { CHAT_HISTORY_LINES = 1000, CHAT_HISTORY_MAX_BYTES = 4 << 20 };

/* $XDG_STATE_HOME/m40llm/history, or ~/.local/state/m40llm/history where that is not an absolute path; to be freed. NULL: neither is known, or no memory. */
char *chat_history_path(const char *xdg_state_home, const char *home);

/* Opens the file to read it from its beginning and to append to it; makes it (0600) and the folders on its way (0700) where they are missing. NULL: why says what is wrong: it is not a plain
 * file, belongs to somebody else, is larger than CHAT_HISTORY_MAX_BYTES, or cannot be opened. Others lose the right to read it. */
FILE *chat_history_open(const char *path, char *why, size_t capacity);

/* One entry a line, in which \\n is a newline and \\\\ a backslash. Reads the entries, oldest first; returns how many there are. */
size_t chat_history_read(FILE *file, void (*each)(void *user, const char *text), void *user);
/* Appends an entry. */
void chat_history_add(FILE *file, const char *text);
/* Leaves the last CHAT_HISTORY_LINES / 2 entries of a file with n_entries. */
void chat_history_shorten(FILE *file, size_t n_entries);

#endif
