/* An answer as a person sees it. */
#ifndef M40_CLI_CHAT_SCREEN_H
#define M40_CLI_CHAT_SCREEN_H

#include <stdbool.h>
#include <stdio.h>

/* Zero it but for what stands first. Thoughts are dimmed, or, without style, put between <think> and </think>. */
struct chat_screen {
    FILE *out;
    bool is_terminal; /* characters that a terminal would obey are left out */
    bool has_style;
    enum { SCREEN_NOTHING, SCREEN_THOUGHT, SCREEN_SAID } part; /* what was shown last */
    bool is_inside_line;
};

/* A piece of UTF-8 text. false: it could not be written. */
bool chat_screen_text(struct chat_screen *screen, bool is_thought, const char *text, size_t n_bytes);
/* Ends the line, and what is open; ready for the next answer. */
bool chat_screen_end(struct chat_screen *screen);

#endif
