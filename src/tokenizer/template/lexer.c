#define _GNU_SOURCE /* memmem */
#include "tokenizer/template/lexer.h"

#include "base/mem.h"
#include "tokenizer/template/chars.h"

#include <stdlib.h>

struct lexer {
    struct m40_ttokens *out;
    struct m40_arena *arena;
    const char *p, *end;
    uint32_t line;
    bool at_line_start; /* the last thing read ended with a newline */
    m40llm_error *err;
};

enum { MAX_BRACES = 256 };

/* Where l and err are in reach. */
#define LEX_FAIL_IF(cond, format, ...) M40_FAIL_IF(cond, M40LLM_TEMPLATE, "line %u: " format, l->line, ##__VA_ARGS__)

static m40llm_status push(struct lexer *l, int kind, struct m40_str text, struct m40_tv value)
{
    struct m40_ttokens *out = l->out;

    if (out->n == out->capacity) {
        size_t capacity = out->capacity ? 2 * out->capacity : 256;
        struct m40_ttoken *grown = m40_realloc_array(out->tokens, capacity, sizeof *grown);

        if (!grown)
            return m40_fail(l->err, M40LLM_NO_MEMORY, "template");
        out->tokens = grown;
        out->capacity = capacity;
    }
    out->tokens[out->n++] = (struct m40_ttoken){kind, l->line, text, value};
    return M40LLM_OK;
}

static m40llm_status push_mark(struct lexer *l, int kind, const char *text)
{
    return push(l, kind, m40_str_from(text), TV(TV_NONE));
}

/* Moves over n bytes, counting lines. */
static void advance(struct lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->line += l->p[i] == '\n';
    l->p += n;
    if (n)
        l->at_line_start = l->p[-1] == '\n';
}

static bool looking_at(const struct lexer *l, const char *text)
{
    size_t n = strlen(text);

    return (size_t)(l->end - l->p) >= n && memcmp(l->p, text, n) == 0;
}

static size_t space_ahead(const struct lexer *l)
{
    return m40_space_before((struct m40_str){l->p, (size_t)(l->end - l->p)});
}

/* Behind the two characters that end a block, comment or raw mark: with '-' in front of them all white space goes, with '+' nothing, else one newline. */
static void after_block(struct lexer *l, char sign)
{
    if (sign == '-')
        advance(l, space_ahead(l));
    else if (sign != '+' && looking_at(l, "\n"))
        advance(l, 1);
}

/* Text in front of a mark that begins with a sign ('-', '+' or 0): what the sign, and lstrip_blocks for anything but output, leave of it. */
static size_t strip_before(const struct lexer *l, struct m40_str text, char sign, bool is_output)
{
    size_t line = text.n_bytes;

    if (sign == '-')
        return text.n_bytes - m40_space_behind(text);
    if (sign == '+' || is_output)
        return text.n_bytes;
    while (line > 0 && text.data[line - 1] != '\n')
        line--;
    if (line == 0 && !l->at_line_start)
        return text.n_bytes;
    return m40_space_before((struct m40_str){text.data + line, text.n_bytes - line}) == text.n_bytes - line ? line : text.n_bytes;
}

static m40llm_status push_data(struct lexer *l, struct m40_str text, size_t n_kept)
{
    m40llm_status status = M40LLM_OK;

    if (n_kept)
        status = push(l, TOKEN_DATA, text, m40_tv_of_str(m40_tstr_borrow(l->arena, text.data, n_kept)));
    advance(l, text.n_bytes);
    return status;
}

static char sign_at(const char *p, const char *end)
{
    return p < end && (*p == '-' || *p == '+') ? *p : 0;
}

/* ---- inside of marks ---- */

/* Bytes of the name that begins at p; 0: none does. */
static size_t name_ahead(const char *p, const char *end)
{
    size_t n_bytes = 0;
    unsigned n;

    while (p + n_bytes < end && m40_char_is_word(m40_char_at(p + n_bytes, &n)))
        n_bytes += n;
    return n_bytes;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits with single underscores between them, from p on. */
static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && (is_digit(*p) || (*p == '_' && p + 1 < end && is_digit(p[1]))))
        p++;
    return p;
}

static int digit_value(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static m40llm_status lex_integer(struct lexer *l, const char *end, int base, const char *digits)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    int64_t value = 0;
    bool is_too_large = false;

    for (const char *p = digits; p < end; p++)
        if (*p != '_')
            is_too_large = is_too_large || __builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit_value(*p), &value);
    LEX_FAIL_IF(is_too_large, "the number %.*s does not fit 64 bits", (int)(end - l->p < 40 ? end - l->p : 40), l->p);
    M40_TRY(push(l, TOKEN_INTEGER, (struct m40_str){l->p, (size_t)(end - l->p)}, m40_tv_int(value)));
    advance(l, (size_t)(end - l->p));
fail:
    return status;
}

static m40llm_status lex_number(struct lexer *l)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char *begin = l->p, *end = skip_digits(begin, l->end), *tail = end;
    bool after_dot = l->out->n > 0 && l->out->tokens[l->out->n - 1].kind == '.' && l->out->tokens[l->out->n - 1].text.data + 1 == begin,
         is_float = false;
    char letter = begin + 1 < l->end && *begin == '0' ? begin[1] | 0x20 : 0;
    int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    double value;

    if (base != 10) {
        for (tail = begin + 2; tail < l->end && (digit_value(*tail) < base || (*tail == '_' && tail + 1 < l->end && digit_value(tail[1]) < base));)
            tail++;
        if (tail > begin + 2)
            return lex_integer(l, tail, base, begin + 2);
    }
    if (!after_dot && tail == end) {
        if (tail + 1 < l->end && *tail == '.' && is_digit(tail[1])) {
            tail = skip_digits(tail + 1, l->end);
            is_float = true;
        }
        if (tail + 1 < l->end && (*tail | 0x20) == 'e') {
            const char *digits = tail + 1 + (tail[1] == '+' || tail[1] == '-');

            if (digits < l->end && is_digit(*digits)) {
                tail = skip_digits(digits, l->end);
                is_float = true;
            }
        }
    }
    if (!is_float)
        return lex_integer(l, end, 10, begin);
    LEX_FAIL_IF(!m40_double_parse((struct m40_str){begin, (size_t)(tail - begin)}, &value), "a number that is too long");
    M40_TRY(push(l, TOKEN_FLOAT, (struct m40_str){begin, (size_t)(tail - begin)}, m40_tv_float(value)));
    advance(l, (size_t)(tail - begin));
fail:
    return status;
}

/* A code point written with n hexadecimal digits at p; -1: there are fewer. */
static int64_t hex_escape(const char *p, const char *end, int n)
{
    int64_t code = 0;

    for (int i = 0; i < n; i++) {
        if (p + i >= end || digit_value(p[i]) > 15)
            return -1;
        code = code * 16 + digit_value(p[i]);
    }
    return code;
}

/* One escape sequence at *p (behind the backslash), as Python's string literals have them. */
static m40llm_status lex_escape(struct lexer *l, const char **p, const char *end, struct m40_buf *text)
{
    m40llm_error *err = l->err;
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    m40llm_status status = M40LLM_OK;
    const char c = *(*p)++, *simple = memchr(from, c, sizeof from - 1);
    int n_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    int64_t code = -1;
    char bytes[4];
    unsigned n = 1;

    bytes[0] = c;
    if (simple) {
        bytes[0] = to[simple - from];
    } else if (c == '\n') {
        n = 0;
    } else if (c >= '0' && c <= '7') {
        code = c - '0';
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            code = code * 8 + *(*p)++ - '0';
        n = m40_char_encode((uint32_t)code, bytes);
    } else if (n_hex) {
        code = hex_escape(*p, end, n_hex);
        LEX_FAIL_IF(code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000), "a bad \\%c escape in a string", c);
        *p += n_hex;
        n = m40_char_encode((uint32_t)code, bytes);
    } else {
        LEX_FAIL_IF(c == 'N', "\\N escapes are not supported");
        M40_FAIL_IF(!m40_buf_append(text, "\\", 1), M40LLM_NO_MEMORY, "template"); /* kept, as in Python */
    }
    M40_FAIL_IF(!m40_buf_append(text, bytes, n), M40LLM_NO_MEMORY, "template");
fail:
    return status;
}

static m40llm_status lex_string(struct lexer *l)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char quote = *l->p, *p = l->p + 1, *close = p;
    struct m40_buf text = {0};
    struct m40_tv value;

    while (close < l->end && *close != quote)
        close += *close == '\\' && close + 1 < l->end ? 2 : 1;
    LEX_FAIL_IF(close >= l->end, "a string has no end");
    while (p < close) {
        const char *plain = p;

        while (p < close && *p != '\\')
            p++;
        M40_FAIL_IF(!m40_buf_append(&text, plain, (size_t)(p - plain)), M40LLM_NO_MEMORY, "template");
        if (p++ < close)
            M40_TRY(lex_escape(l, &p, close, &text));
    }
    value = m40_tv_of_str(m40_tstr_copy(l->arena, text.data, text.n_bytes));
    M40_TRY(push(l, TOKEN_STRING, (struct m40_str){l->p, (size_t)(close + 1 - l->p)}, value));
    advance(l, (size_t)(close + 1 - l->p));
fail:
    m40_buf_free(&text);
    return status;
}

/* One operator; braces[*n_braces] are those still open, as what closes them. */
static m40llm_status lex_operator(struct lexer *l, char *braces, unsigned *n_braces)
{
    static const struct {
        char text[3];
        int kind;
    } doubles[] = {{"//", TOKEN_FLOORDIV}, {"**", TOKEN_POW}, {"==", TOKEN_EQ}, {"!=", TOKEN_NE}, {">=", TOKEN_GE}, {"<=", TOKEN_LE}};
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char c = *l->p;
    unsigned n_char;
    int kind = c;
    size_t n = 1;

    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++)
        if (looking_at(l, doubles[i].text)) {
            kind = doubles[i].kind;
            n = 2;
        }
    LEX_FAIL_IF(n == 1 && (unsigned char)c >= 0x80, "unexpected character U+%04X", (unsigned)m40_char_at(l->p, &n_char));
    LEX_FAIL_IF(n == 1 && (c == 0 || !strchr("+-*/%~[](){}<>=.:|,;", c)), "unexpected character '%c'", c);
    if (n == 1 && strchr("({[", c)) {
        LEX_FAIL_IF(*n_braces == MAX_BRACES, "more than %d nested brackets", MAX_BRACES);
        braces[(*n_braces)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (n == 1 && strchr(")}]", c)) {
        LEX_FAIL_IF(*n_braces == 0, "unexpected '%c'", c);
        LEX_FAIL_IF(braces[--*n_braces] != c, "unexpected '%c', expected '%c'", c, braces[*n_braces]);
    }
    M40_TRY(push(l, kind, (struct m40_str){l->p, n}, TV(TV_NONE)));
    advance(l, n);
fail:
    return status;
}

/* The tokens of a block or an output up to its end, which is read too. */
static m40llm_status lex_inside(struct lexer *l, bool is_output)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char *close = is_output ? "}}" : "%}";
    char braces[MAX_BRACES];
    unsigned n_braces = 0;
    size_t n_name;
    uint32_t first_line = l->line;

    for (;;) {
        char sign;

        advance(l, space_ahead(l));
        M40_FAIL_IF(l->p == l->end, M40LLM_TEMPLATE, "line %u: the %s has no end", first_line, is_output ? "{{" : "{%");
        sign = *l->p == '-' || (*l->p == '+' && !is_output) ? *l->p : 0;
        if (n_braces == 0 && (size_t)(l->end - l->p) >= 2u + (sign != 0) && memcmp(l->p + (sign != 0), close, 2) == 0) {
            M40_TRY(push_mark(l, is_output ? TOKEN_OUTPUT_END : TOKEN_BLOCK_END, is_output ? "end of print statement" : "end of statement block"));
            advance(l, 2 + (sign != 0));
            if (!is_output)
                after_block(l, sign);
            else if (sign)
                advance(l, space_ahead(l));
            return status;
        }
        if (is_digit(*l->p)) {
            M40_TRY(lex_number(l));
        } else if ((n_name = name_ahead(l->p, l->end)) > 0) {
            M40_TRY(push(l, TOKEN_NAME, (struct m40_str){l->p, n_name}, TV(TV_NONE)));
            advance(l, n_name);
        } else if (*l->p == '\'' || *l->p == '"') {
            M40_TRY(lex_string(l));
        } else {
            M40_TRY(lex_operator(l, braces, &n_braces));
        }
    }
fail:
    return status;
}

/* ---- outside ---- */

/* Behind "{#" and its sign. */
static m40llm_status lex_comment(struct lexer *l)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char *begin = l->p, *close = memmem(l->p, (size_t)(l->end - l->p), "#}", 2);
    char sign;

    LEX_FAIL_IF(!close, "a comment has no end");
    sign = close > begin ? sign_at(close - 1, close) : 0;
    advance(l, (size_t)(close + 2 - begin));
    after_block(l, sign);
fail:
    return status;
}

/* Whether a block mark with only this word in it begins at p: its length (0: none), and the signs at its ends. */
static size_t match_word_block(const struct lexer *l, const char *p, const char *word, char *first, char *last)
{
    struct lexer at = *l;
    size_t n_word = strlen(word);

    at.p = p + 2;
    *first = sign_at(at.p, at.end);
    at.p += *first != 0;
    at.p += space_ahead(&at);
    if (!looking_at(&at, word))
        return 0;
    at.p += n_word;
    at.p += space_ahead(&at);
    *last = sign_at(at.p, at.end);
    at.p += *last != 0;
    return looking_at(&at, "%}") ? (size_t)(at.p + 2 - p) : 0;
}

/* Behind "{% raw %}": the text up to "{% endraw %}". */
static m40llm_status lex_raw(struct lexer *l)
{
    m40llm_error *err = l->err;
    m40llm_status status = M40LLM_OK;
    const char *p = l->p;
    char first, last;
    size_t n = 0;

    while ((p = memmem(p, (size_t)(l->end - p), "{%", 2)) && (n = match_word_block(l, p, "endraw", &first, &last)) == 0)
        p += 2;
    LEX_FAIL_IF(!p, "a raw block has no end");
    {
        struct m40_str text = {l->p, (size_t)(p - l->p)};

        M40_TRY(push_data(l, text, strip_before(l, text, first, false)));
    }
    advance(l, n);
    after_block(l, last);
fail:
    return status;
}

/* From the text in front of the next mark to the mark's end; at the end of the source only the text. */
static m40llm_status lex_outside(struct lexer *l)
{
    m40llm_status status = M40LLM_OK;
    const char *mark = l->p;
    struct m40_str text;
    char sign, first, last;
    size_t n_raw = 0;

    while ((mark = memchr(mark, '{', (size_t)(l->end - mark))) && (mark + 1 == l->end || !strchr("{%#", mark[1]) || mark[1] == 0))
        mark++;
    if (!mark || mark == l->end)
        return push_data(l, (struct m40_str){l->p, (size_t)(l->end - l->p)}, (size_t)(l->end - l->p));
    sign = sign_at(mark + 2, l->end);
    text = (struct m40_str){l->p, (size_t)(mark - l->p)};
    if (mark[1] == '%')
        n_raw = match_word_block(l, mark, "raw", &first, &last);
    if (n_raw && last == '+') /* not a way to end it: the parser will complain of it */
        n_raw = 0;
    M40_TRY(push_data(l, text, strip_before(l, text, sign, mark[1] == '{')));
    if (n_raw) {
        advance(l, n_raw);
        if (last == '-')
            advance(l, space_ahead(l));
        return lex_raw(l);
    }
    if (mark[1] != '#')
        M40_TRY(push_mark(l, mark[1] == '{' ? TOKEN_OUTPUT_BEGIN : TOKEN_BLOCK_BEGIN,
                          mark[1] == '{' ? "begin of print statement" : "begin of statement block"));
    advance(l, 2 + (sign != 0));
    return mark[1] == '#' ? lex_comment(l) : lex_inside(l, mark[1] == '{');
fail:
    return status;
}

m40llm_status m40_template_lex(struct m40_ttokens *out, struct m40_arena *arena, struct m40_str source, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct lexer l = {
        .out = out, .arena = arena, .p = source.data, .end = source.data + source.n_bytes, .line = 1, .at_line_start = true, .err = err};

    *out = (struct m40_ttokens){0};
    while (l.p < l.end)
        M40_TRY(lex_outside(&l));
    M40_TRY(push_mark(&l, TOKEN_END, "end of template"));
fail:
    return status;
}

void m40_template_tokens_free(struct m40_ttokens *tokens)
{
    m40_free(tokens->tokens);
    *tokens = (struct m40_ttokens){0};
}
