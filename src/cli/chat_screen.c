#include "chat_screen.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

static bool show(struct chat_screen *screen, const char *text, size_t n_bytes)
{
    if (n_bytes == 0)
        return true;
    screen->is_inside_line = text[n_bytes - 1] != '\n';
    return fwrite(text, 1, n_bytes, screen->out) == n_bytes;
}

static bool end_line(struct chat_screen *screen)
{
    return !screen->is_inside_line || show(screen, "\n", 1);
}

static bool begin_part(struct chat_screen *screen, bool is_thought)
{
    bool was_thought = screen->part == SCREEN_THOUGHT, is_first = screen->part == SCREEN_NOTHING;

    screen->part = is_thought ? SCREEN_THOUGHT : SCREEN_SAID;
    if (is_thought && !was_thought)
        return end_line(screen) && fputs(screen->has_style ? "\033[2m" : "<think>\n", screen->out) >= 0;
    if (is_thought || is_first)
        return true;
    return !was_thought || (end_line(screen) && fputs(screen->has_style ? "\033[0m\n" : "</think>\n\n", screen->out) >= 0);
}

bool chat_screen_text(struct chat_screen *screen, bool is_thought, const char *text, size_t n_bytes)
{
    char *copy = NULL;
    bool ok = begin_part(screen, is_thought);

    if (ok && screen->is_terminal) {
        copy = malloc(n_bytes + 1);
        if (copy)
            memcpy(copy, text, n_bytes);
        ok = copy && show(screen, copy, cli_printable(copy, n_bytes));
        free(copy);
    } else if (ok) {
        ok = show(screen, text, n_bytes);
    }
    return fflush(screen->out) == 0 && ok;
}

bool chat_screen_end(struct chat_screen *screen)
{
    bool ok = end_line(screen);

    if (screen->part == SCREEN_THOUGHT)
        ok = fputs(screen->has_style ? "\033[0m" : "</think>\n", screen->out) >= 0 && ok;
    screen->part = SCREEN_NOTHING;
    return fflush(screen->out) == 0 && ok;
}
