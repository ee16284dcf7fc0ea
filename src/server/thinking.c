#include "thinking.h"

#include <string.h>

enum { MAX_HEADER_BYTES = 512, N_TAIL_IDS = 24, TAIL_BYTES = 1024 };

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

/* ---- tags ---- */

/* Whether the text begins as `tag` does: with all of it, or, where the text ends there, with a part of it. */
static bool begins_as(const char *text, size_t n_bytes, const char *tag, bool *is_whole)
{
    size_t n_tag = strlen(tag), n = n_bytes < n_tag ? n_bytes : n_tag;

    *is_whole = n == n_tag;
    return memcmp(text, tag, n) == 0;
}

/* Where the first `tag` is, or could begin that has not come to its end; n_bytes: nowhere. */
static size_t find_tag(const struct m40_buf *b, const char *tag, bool *is_whole)
{
    for (size_t i = 0; i < b->n_bytes; i++)
        if (begins_as(b->data + i, b->n_bytes - i, tag, is_whole))
            return i;
    *is_whole = false;
    return b->n_bytes;
}

/* Each returns whether the state has changed, so that what is held may say more. */
static bool look_for_start(struct thinking *t, bool end)
{
    size_t spaces = n_leading_spaces(&t->held);
    bool is_whole, may_come = spaces == t->held.n_bytes;

    for (size_t i = 0; i < THINKING_N_TAGS && spaces < t->held.n_bytes; i++) {
        if (!begins_as(t->held.data + spaces, t->held.n_bytes - spaces, thinking_tags[i].open, &is_whole))
            continue;
        may_come = true;
        if (!is_whole)
            continue;
        drop(&t->held, spaces + strlen(thinking_tags[i].open));
        t->tags = i;
        t->state = THINKING_YES;
        return true;
    }
    if (!may_come || end)
        t->state = THINKING_NO;
    return t->state != THINKING_MAYBE;
}

static bool look_for_end(struct thinking *t, bool end, struct m40_buf *thought, bool *ok)
{
    const char *close = thinking_tags[t->tags].close;
    bool is_whole = false;
    size_t at, n;

    if (!t->has_thought)
        drop(&t->held, n_leading_spaces(&t->held));
    at = t->is_marked ? t->held.n_bytes : find_tag(&t->held, close, &is_whole);
    n = end && !is_whole ? t->held.n_bytes : at;
    while (n > 0 && is_space(t->held.data[n - 1]))
        n--;
    t->has_thought = t->has_thought || n > 0;
    *ok = give(&t->held, n, thought);
    if (is_whole) {
        drop(&t->held, at - n + strlen(close));
        t->state = THINKING_OVER;
    }
    return is_whole;
}

static bool push_tagged(struct thinking *t, bool end, struct m40_buf *thought, struct m40_buf *said)
{
    bool ok = true;

    if (t->state == THINKING_MAYBE && !look_for_start(t, end))
        return ok;
    if (t->state == THINKING_YES && !look_for_end(t, end, thought, &ok))
        return ok;
    if (ok && t->state == THINKING_OVER) {
        drop(&t->held, n_leading_spaces(&t->held));
        if (t->held.n_bytes)
            t->state = THINKING_NO;
    }
    return ok && (t->state != THINKING_NO || give(&t->held, t->held.n_bytes, said));
}

/* A control token begins a thought. */
static bool open_thought(struct thinking *t, struct m40_buf *thought, struct m40_buf *said)
{
    bool ok = push_tagged(t, t->state == THINKING_MAYBE && n_leading_spaces(&t->held) < t->held.n_bytes, thought, said);

    if (t->state == THINKING_YES)
        return ok;
    drop(&t->held, t->held.n_bytes);
    if (t->has_thought)
        ok = ok && m40_buf_append(thought, "\n", 1);
    t->has_thought = false;
    t->is_marked = true;
    t->state = THINKING_YES;
    return ok;
}

/* ... and one ends it. */
static bool close_thought(struct thinking *t, struct m40_buf *thought)
{
    bool ok = true;

    if (t->state != THINKING_YES)
        return ok;
    look_for_end(t, true, thought, &ok);
    drop(&t->held, t->held.n_bytes);
    t->is_marked = false;
    t->state = THINKING_OVER;
    return ok;
}

/* ---- channels ---- */

/* "analysis", and what may follow it: " to=python code" */
static bool is_thoughts_header(const struct m40_buf *b)
{
    static const char name[] = "analysis";
    size_t at = n_leading_spaces(b), n = sizeof name - 1;

    return b->n_bytes - at >= n && memcmp(b->data + at, name, n) == 0 && (b->n_bytes - at == n || is_space(b->data[at + n]));
}

static bool give_message(struct thinking *t, bool *is_another, struct m40_buf *to)
{
    bool ok = true;

    if (t->held.n_bytes == 0)
        return ok;
    if (t->is_next && *is_another)
        ok = m40_buf_append(to, "\n", 1);
    t->is_next = false;
    *is_another = true;
    return ok && give(&t->held, t->held.n_bytes, to);
}

static bool push_channels(struct thinking *t, bool end, struct m40_buf *thought, struct m40_buf *said)
{
    /* text where there should be a header: the model does not keep to the format */
    if (t->state == THINKING_HEADER && (t->held.n_bytes > MAX_HEADER_BYTES || (end && !t->has_marks))) {
        drop(&t->held, t->n_of_prompt);
        t->n_of_prompt = 0;
        t->state = THINKING_MESSAGE;
    }
    if (t->state == THINKING_HEADER)
        return true;
    return t->state == THINKING_CHANNEL ? give_message(t, &t->has_thought, thought) : give_message(t, &t->has_said, said);
}

static void take_mark(struct thinking *t, enum thinking_mark mark)
{
    t->state = THINKING_HEADER;
    if (mark == MARK_MESSAGE) {
        t->state = is_thoughts_header(&t->held) ? THINKING_CHANNEL : THINKING_MESSAGE;
        t->is_next = true;
    }
    t->has_marks = true;
    t->n_of_prompt = 0;
    drop(&t->held, t->held.n_bytes);
}

/* ---- both ---- */

static bool has_channels(const struct thinking *t)
{
    return t->state >= THINKING_HEADER;
}

bool thinking_push(struct thinking *t, const char *text, size_t n_bytes, bool end, struct m40_buf *thought, struct m40_buf *said)
{
    if (n_bytes && !m40_buf_append(&t->held, text, n_bytes))
        return false;
    return has_channels(t) ? push_channels(t, end, thought, said) : push_tagged(t, end, thought, said);
}

bool thinking_push_token(struct thinking *t, int32_t id, const char *text, size_t n_bytes, struct m40_buf *thought, struct m40_buf *said)
{
    enum thinking_mark mark = t->markers ? thinking_mark_of(t->markers, id) : MARK_NONE;

    if (!thinking_push(t, text, n_bytes, false, thought, said))
        return false;
    if (mark == MARK_OPEN)
        return open_thought(t, thought, said);
    if (mark == MARK_CLOSE)
        return close_thought(t, thought);
    if (mark != MARK_NONE)
        take_mark(t, mark);
    return true;
}

/* ---- what the prompt has begun ---- */

/* The last message that the prompt begins: what follows goes on with it. */
static bool begin_in_channels(struct thinking *t, const int32_t *prompt, size_t n_prompt)
{
    size_t i = n_prompt, n_bytes;
    char text[64]; /* longer tokens are in no header */

    t->state = THINKING_MESSAGE;
    while (i > 0 && thinking_mark_of(t->markers, prompt[i - 1]) != MARK_START)
        i--;
    for (i = i > 0 ? i - 1 : n_prompt; i < n_prompt; i++) {
        enum thinking_mark mark = thinking_mark_of(t->markers, prompt[i]);

        if (mark != MARK_NONE)
            take_mark(t, mark);
        else if (t->state == THINKING_HEADER && t->held.n_bytes < MAX_HEADER_BYTES &&
                 m40llm_detokenize(t->markers->tokenizer, &prompt[i], 1, 0, text, sizeof text, &n_bytes, NULL) == M40LLM_OK &&
                 !m40_buf_append(&t->held, text, n_bytes))
            return false;
    }
    t->n_of_prompt = t->held.n_bytes;
    t->has_marks = t->is_next = false;
    return true;
}

/* Whether the prompt ends with an opening tag, and white space. */
static void begin_with_tag(struct thinking *t, const int32_t *prompt, size_t n_prompt)
{
    char text[TAIL_BYTES];
    size_t n = 0, n_ids = n_prompt < N_TAIL_IDS ? n_prompt : N_TAIL_IDS;
    const int32_t *ids = n_ids ? prompt + n_prompt - n_ids : prompt;

    while (n_ids && m40llm_detokenize(t->markers->tokenizer, ids, n_ids, M40LLM_DETOKENIZE_SPECIAL, text, sizeof text, &n, NULL) != M40LLM_OK) {
        ids += (n_ids + 1) / 2; /* tokens of unusual length */
        n_ids -= (n_ids + 1) / 2;
        n = 0;
    }
    while (n > 0 && is_space(text[n - 1]))
        n--;
    for (size_t i = 0; i < THINKING_N_TAGS; i++) {
        size_t n_tag = strlen(thinking_tags[i].open);

        if (n < n_tag || memcmp(text + n - n_tag, thinking_tags[i].open, n_tag) != 0)
            continue;
        t->state = THINKING_YES;
        t->tags = i;
    }
    for (size_t i = 0; i < n_ids && t->state == THINKING_YES; i++)
        t->is_marked = thinking_mark_of(t->markers, ids[i]) == MARK_OPEN || (t->is_marked && thinking_mark_of(t->markers, ids[i]) != MARK_CLOSE);
}

bool thinking_begin(struct thinking *t, const struct thinking_markers *markers, const int32_t *prompt, size_t n_prompt)
{
    m40_buf_free(&t->held);
    *t = (struct thinking){.markers = markers};
    if (markers->has_channels)
        return begin_in_channels(t, prompt, n_prompt);
    begin_with_tag(t, prompt, n_prompt);
    return true;
}
