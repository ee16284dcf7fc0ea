#include "thinking.h"

static const char open_tag[] = "<think>", close_tag[] = "</think>";

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t n_leading_spaces(const struct m40_buf *b)
{
    size_t n = 0;

    while (n < b->n_bytes && is_space(b->data[n]))
        n++;
    return n;
}

/* Where the first `tag` is, or could begin that has not come to its end; n_bytes: nowhere. */
static size_t find_tag(const struct m40_buf *b, const char *tag, bool *is_whole)
{
    size_t n_tag = strlen(tag);

    *is_whole = false;
    for (size_t i = 0; i < b->n_bytes; i++) {
        size_t n = b->n_bytes - i < n_tag ? b->n_bytes - i : n_tag;

        if (memcmp(b->data + i, tag, n) != 0)
            continue;
        *is_whole = n == n_tag;
        return i;
    }
    return b->n_bytes;
}

static void drop(struct m40_buf *b, size_t n)
{
    b->n_bytes -= n;
    if (n)
        memmove(b->data, b->data + n, b->n_bytes);
}

static bool give(struct m40_buf *b, size_t n, struct m40_buf *to)
{
    bool ok = n == 0 || m40_buf_append(to, b->data, n);

    drop(b, n);
    return ok;
}

/* Each returns whether the state has changed, so that what is held may say more. */
static bool look_for_start(struct thinking *t, bool end)
{
    size_t spaces = n_leading_spaces(&t->held), at;
    bool is_whole;

    if (spaces == t->held.n_bytes && !end)
        return false;
    at = find_tag(&t->held, open_tag, &is_whole);
    if (at == spaces && is_whole) {
        drop(&t->held, spaces + strlen(open_tag));
        t->state = THINKING_YES;
    } else if (at != spaces || end) {
        t->state = THINKING_NO;
    }
    return t->state != THINKING_MAYBE;
}

static bool look_for_end(struct thinking *t, bool end, struct m40_buf *thought, bool *ok)
{
    size_t at, n;
    bool is_whole;

    if (!t->has_thought)
        drop(&t->held, n_leading_spaces(&t->held));
    at = find_tag(&t->held, close_tag, &is_whole);
    n = end && !is_whole ? t->held.n_bytes : at;
    while (n > 0 && is_space(t->held.data[n - 1]))
        n--;
    t->has_thought = t->has_thought || n > 0;
    *ok = give(&t->held, n, thought);
    if (is_whole) {
        drop(&t->held, at - n + strlen(close_tag));
        t->state = THINKING_OVER;
    }
    return is_whole;
}

bool thinking_push(struct thinking *t, const char *text, size_t n_bytes, bool end, struct m40_buf *thought, struct m40_buf *said)
{
    bool ok = n_bytes == 0 || m40_buf_append(&t->held, text, n_bytes);

    if (ok && t->state == THINKING_MAYBE && !look_for_start(t, end))
        return ok;
    if (ok && t->state == THINKING_YES && !look_for_end(t, end, thought, &ok))
        return ok;
    if (ok && t->state == THINKING_OVER) {
        drop(&t->held, n_leading_spaces(&t->held));
        if (t->held.n_bytes)
            t->state = THINKING_NO;
    }
    return ok && (t->state != THINKING_NO || give(&t->held, t->held.n_bytes, said));
}
