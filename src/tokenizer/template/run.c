#define _GNU_SOURCE /* memmem */
#include "tokenizer/template/run.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tokenizer/template/chars.h"

#include <stdarg.h>
#include <stdio.h>

void m40_tr_fail(struct m40_trun *r, const char *format, ...)
{
    va_list args;

    if (r->failed)
        return;
    va_start(args, format);
    r->status = m40_template_fail(r->err, r->line, format, args);
    va_end(args);
    r->failed = true;
}

void m40_tr_no_memory(struct m40_trun *r)
{
    if (r->arena.is_full)
        m40_tr_fail(r, "the template needs more than %zu bytes of memory", r->limits->memory_bytes);
    if (r->failed)
        return;
    r->failed = true;
    r->status = m40_fail(r->err, M40LLM_NO_MEMORY, "rendering a template");
}

bool m40_tr_step(struct m40_trun *r, uint64_t n)
{
    uint64_t before = r->n_steps;

    if (m40_arena_failed(&r->arena))
        m40_tr_no_memory(r);
    if (r->failed)
        return false;
    r->n_steps += n;
    if (r->n_steps > r->limits->n_steps || r->n_steps < before)
        m40_tr_fail(r, "the template takes more than %llu steps", (unsigned long long)r->limits->n_steps);
    else if (before >> 12 != r->n_steps >> 12 && m40_now_ns() - r->start_ns > r->limits->time_ns)
        m40_tr_fail(r, "the template takes longer than %llu ms", (unsigned long long)(r->limits->time_ns / 1000000));
    return !r->failed;
}

bool m40_tr_enter(struct m40_trun *r)
{
    if (++r->depth > r->limits->depth)
        m40_tr_fail(r, "the template recurses more than %u deep", r->limits->depth);
    return m40_tr_step(r, 1);
}

void m40_tr_leave(struct m40_trun *r)
{
    r->depth--;
}

/* Room for n more bytes of a text; false: the rendering has failed. */
static bool reserve(struct m40_trun *r, struct m40_buf *buf, size_t n_bytes)
{
    const size_t n_begun = r->n_held_bytes + buf->n_bytes; /* both are within the bound, or nearly: no sum of them overflows */

    if (n_bytes > r->limits->output_bytes || n_begun > r->limits->output_bytes - n_bytes)
        m40_tr_fail(r, "the template writes more than %zu bytes", r->limits->output_bytes);
    else if (m40_tr_step(r, 1 + n_bytes / 256) && !m40_buf_reserve(buf, n_bytes))
        m40_tr_no_memory(r);
    return !r->failed;
}

void m40_tr_put(struct m40_trun *r, struct m40_buf *buf, const char *data, size_t n_bytes)
{
    if (reserve(r, buf, n_bytes))
        m40_buf_append(buf, data, n_bytes);
}

void m40_tr_put_text(struct m40_trun *r, struct m40_buf *buf, const char *text)
{
    m40_tr_put(r, buf, text, strlen(text));
}

void m40_tr_put_char(struct m40_trun *r, struct m40_buf *buf, uint32_t code)
{
    char bytes[4];

    m40_tr_put(r, buf, bytes, m40_char_encode(code, bytes));
}

void m40_tr_put_repeat(struct m40_trun *r, struct m40_buf *buf, struct m40_str text, uint64_t n)
{
    uint64_t n_bytes;

    if (!m40_mul_u64(n, text.n_bytes, &n_bytes))
        n_bytes = SIZE_MAX;
    if (n_bytes == 0 || !reserve(r, buf, n_bytes))
        return;
    if (text.n_bytes == 1)
        memset(buf->data + buf->n_bytes, *text.data, n);
    for (uint64_t i = 0; text.n_bytes > 1 && i < n; i++)
        memcpy(buf->data + buf->n_bytes + i * text.n_bytes, text.data, text.n_bytes);
    buf->n_bytes += n_bytes;
    buf->data[buf->n_bytes] = 0;
}

struct m40_tv m40_tr_take(struct m40_trun *r, struct m40_buf *buf)
{
    struct m40_tv v = m40_tr_string(r, buf->data, buf->n_bytes);

    m40_buf_free(buf);
    return v;
}

struct m40_tv m40_tr_string(struct m40_trun *r, const char *data, size_t n_bytes)
{
    return m40_tv_of_str(m40_tstr_copy(&r->arena, data, n_bytes));
}

struct m40_tv m40_tr_part(struct m40_trun *r, const char *data, size_t n_bytes)
{
    m40_tr_step(r, 1 + n_bytes / 256);
    return m40_tv_of_str(m40_tstr_borrow(&r->arena, data, n_bytes));
}

struct m40_tv m40_tr_undefined(struct m40_trun *r, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return (struct m40_tv){.type = TV_UNDEFINED, .s = m40_tstr_copy(&r->arena, text, strlen(text))};
}

struct m40_tv m40_tr_markup(struct m40_trun *r, const struct m40_tstr *s)
{
    struct m40_tstr *marked = m40_arena_object(&r->arena, sizeof *marked, KIND_STR);

    *marked = *s;
    marked->is_markup = true;
    return m40_tv_of_str(marked);
}

size_t m40_find_bytes(struct m40_str text, struct m40_str what, size_t from)
{
    const char *found;

    if (from > text.n_bytes || what.n_bytes > text.n_bytes - from)
        return SIZE_MAX;
    if (what.n_bytes == 0)
        return from;
    found = memmem(text.data + from, text.n_bytes - from, what.data, what.n_bytes);
    return found ? (size_t)(found - text.data) : SIZE_MAX;
}

bool m40_tr_refuse_undefined(struct m40_trun *r, struct m40_tv v)
{
    if (v.type == TV_UNDEFINED && v.s)
        m40_tr_fail(r, "%.*s", (int)v.s->n_bytes, v.s->data);
    else if (v.type == TV_UNDEFINED)
        m40_tr_fail(r, "a value is undefined");
    return v.type == TV_UNDEFINED;
}
