/* What filters and methods of strings share. */
#include "tokenizer/template/builtins.h"

void m40_tr_put_escaped(struct m40_trun *r, struct m40_buf *buf, struct m40_str text)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    size_t plain = 0;

    for (size_t at = 0; at < text.n_bytes && !r->failed; at++) {
        const char *found = text.data[at] ? strchr(from, text.data[at]) : NULL;

        if (!found)
            continue;
        m40_tr_put(r, buf, text.data + plain, at - plain);
        m40_tr_put_text(r, buf, to[found - from]);
        plain = at + 1;
    }
    m40_tr_put(r, buf, text.data + plain, text.n_bytes - plain);
}

/* Sigma at a word's end has its own lower case: letters stand before it, and none behind. */
static bool is_final_sigma(struct m40_str text, size_t at, unsigned n)
{
    unsigned n_other;

    if (at == 0 || !m40_char_is_alpha(m40_char_before(text.data + at, &n_other)))
        return false;
    return at + n == text.n_bytes || !m40_char_is_alpha(m40_char_at(text.data + at + n, &n_other));
}

static void put_case(struct m40_trun *r, struct m40_buf *buf, struct m40_str text, size_t from, size_t end, enum m40_case to)
{
    unsigned n;

    for (size_t at = from; at < end && m40_tr_step(r, 1); at += n) {
        uint32_t c = m40_char_at(text.data + at, &n);

        if (c == 0x3a3 && (to == CASE_LOWER || to == CASE_SWAP))
            m40_tr_put_char(r, buf, is_final_sigma(text, at, n) ? 0x3c2 : 0x3c3);
        else if (!m40_char_append_case(buf, c, to))
            m40_tr_no_memory(r);
        else if (buf->n_bytes > r->limits->output_bytes)
            m40_tr_put(r, buf, "", 0); /* says what was exceeded */
    }
}

struct m40_tv m40_tr_case(struct m40_trun *r, struct m40_str text, enum m40_case to)
{
    struct m40_buf buf = {0};

    put_case(r, &buf, text, 0, text.n_bytes, to);
    return m40_tr_take(r, &buf);
}

struct m40_tv m40_tr_capitalize(struct m40_trun *r, struct m40_str text)
{
    struct m40_buf buf = {0};
    unsigned n = 0;

    if (text.n_bytes)
        m40_char_at(text.data, &n);
    put_case(r, &buf, text, 0, n, CASE_TITLE);
    put_case(r, &buf, text, n, text.n_bytes, CASE_LOWER);
    return m40_tr_take(r, &buf);
}

struct m40_tv m40_tr_pad(struct m40_trun *r, const struct m40_tstr *s, int64_t width, struct m40_str fill, char align)
{
    uint64_t n = width > 0 && (uint64_t)width > s->n_chars ? (uint64_t)width - s->n_chars : 0;
    /* Python's center() leaves the odd space at the left where the width is odd */
    uint64_t left = align == '<' ? 0 : align == '>' ? n : n / 2 + (n & (uint64_t)width & 1);
    struct m40_buf buf = {0};

    m40_tr_put_repeat(r, &buf, fill, left);
    m40_tr_put(r, &buf, s->data, s->n_bytes);
    m40_tr_put_repeat(r, &buf, fill, n - left);
    return m40_tr_take(r, &buf);
}

struct m40_tv m40_tr_replace(struct m40_trun *r, struct m40_str text, struct m40_str old, struct m40_str new_text, int64_t n_max)
{
    struct m40_buf buf = {0};
    size_t at = 0, found;
    unsigned n;

    if (old.n_bytes == 0) { /* between all characters, and at both ends */
        for (; n_max != 0 && !r->failed; n_max--) {
            m40_tr_put(r, &buf, new_text.data, new_text.n_bytes);
            if (at == text.n_bytes)
                break;
            m40_char_at(text.data + at, &n);
            m40_tr_put(r, &buf, text.data + at, n);
            at += n;
        }
    } else {
        for (; n_max != 0 && (found = m40_find_bytes(text, old, at)) != SIZE_MAX && !r->failed; n_max--) {
            m40_tr_put(r, &buf, text.data + at, found - at);
            m40_tr_put(r, &buf, new_text.data, new_text.n_bytes);
            at = found + old.n_bytes;
        }
    }
    m40_tr_put(r, &buf, text.data + at, text.n_bytes - at);
    return m40_tr_take(r, &buf);
}

/* Whether a character is to be stripped: n bytes at p. */
static bool is_stripped(const struct m40_str *chars, const char *p, unsigned n, uint32_t code)
{
    if (!chars)
        return m40_char_is_space(code);
    return m40_find_bytes(*chars, (struct m40_str){p, n}, 0) != SIZE_MAX;
}

struct m40_str m40_tr_strip(struct m40_trun *r, struct m40_str text, const struct m40_str *chars, unsigned sides)
{
    const uint64_t cost = 1 + (chars ? chars->n_bytes / 256 : 0);
    unsigned n;

    while ((sides & 1) && text.n_bytes) {
        uint32_t c = m40_char_at(text.data, &n);

        if (!is_stripped(chars, text.data, n, c) || !m40_tr_step(r, cost))
            break;
        text.data += n;
        text.n_bytes -= n;
    }
    while ((sides & 2) && text.n_bytes) {
        uint32_t c = m40_char_before(text.data + text.n_bytes, &n);

        if (!is_stripped(chars, text.data + text.n_bytes - n, n, c) || !m40_tr_step(r, cost))
            break;
        text.n_bytes -= n;
    }
    return text;
}

struct m40_tlist *m40_tr_lines(struct m40_trun *r, struct m40_str text, bool keep_ends)
{
    struct m40_tlist *lines = m40_tlist_new(&r->arena, 0);
    size_t begin = 0, at = 0;
    unsigned n;

    while (at < text.n_bytes && !r->failed) {
        uint32_t c = m40_char_at(text.data + at, &n);
        size_t end = at;

        at += n;
        if (!m40_char_is_line_end(c))
            continue;
        if (c == '\r' && at < text.n_bytes && text.data[at] == '\n')
            at++;
        m40_tr_push(r, lines, m40_tr_part(r, text.data + begin, (keep_ends ? at : end) - begin));
        begin = at;
    }
    if (begin < text.n_bytes)
        m40_tr_push(r, lines, m40_tr_part(r, text.data + begin, text.n_bytes - begin));
    return lines;
}

/* Merges the sorted halves of [begin, end) of both lists. */
static void merge(struct m40_trun *r, struct m40_tv *items, struct m40_tv *keys, struct m40_tv *space, size_t begin, size_t middle, size_t end,
                  bool is_reverse)
{
    struct m40_tv *space_keys = space + (end - begin);
    size_t a = begin, b = middle, n = 0;

    while (a < middle || b < end) {
        bool takes_b = a == middle;

        if (a < middle && b < end && m40_tr_step(r, 1))
            takes_b = is_reverse ? m40_tr_less(r, keys[a], keys[b]) : m40_tr_less(r, keys[b], keys[a]);
        space_keys[n] = keys[takes_b ? b : a];
        space[n++] = items[takes_b ? b++ : a++];
    }
    memcpy(items + begin, space, n * sizeof *space);
    memcpy(keys + begin, space_keys, n * sizeof *space);
}

void m40_tr_sort(struct m40_trun *r, struct m40_tlist *items, struct m40_tlist *keys, bool is_reverse)
{
    size_t n = items->n;
    struct m40_tv *space = n > 1 && n == keys->n ? m40_arena_alloc(&r->arena, 2 * n * sizeof *space) : NULL;

    for (size_t width = 1; space && width < n && !r->failed; width *= 2)
        for (size_t begin = 0; begin + width < n && !r->failed; begin += 2 * width)
            merge(r, items->items, keys->items, space, begin, begin + width, begin + 2 * width < n ? begin + 2 * width : n, is_reverse);
}
