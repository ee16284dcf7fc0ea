/* SentencePiece's BPE. A space is U+2581 in the tokens; neighbours join where the result is a token, the highest score first, of equal scores the
 * leftmost; characters that are no token fall back to the byte tokens <0xNN>. */
#include "tokenizer/tokenizer_internal.h"
#include "tokenizer/utf8.h"

#include "base/mem.h"

#include <stdlib.h>

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581 */
enum { SPACE_MARK_BYTES = 3 };

/* Ordinary text may become it. */
static bool is_piece(const struct m40_vocab *vocab, int32_t id)
{
    uint8_t type = vocab->types[id];

    return type == M40_TOKEN_NORMAL || type == M40_TOKEN_USER_DEFINED || type == M40_TOKEN_UNUSED;
}

static int32_t find_text(const struct m40_vocab *vocab, const char *text, size_t n_bytes)
{
    int32_t id = m40_vocab_find(vocab, (struct m40_str){text, n_bytes});

    return id >= 0 && is_piece(vocab, id) ? id : -1;
}

struct scored {
    float score;
    int32_t id;
};

static int compare_scores(const void *a, const void *b)
{
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;

    return (x < y) - (x > y);
}

/* ranks[id]: how many different scores are higher. */
static m40llm_status rank_tokens(const struct m40_vocab *vocab, uint32_t **out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct scored *order = m40_calloc(vocab->n_tokens, sizeof *order);
    uint32_t *ranks = m40_calloc(vocab->n_tokens, sizeof *ranks);
    uint32_t rank = 0;

    M40_FAIL_IF(!order || !ranks, M40LLM_NO_MEMORY, "token ranks");
    for (size_t i = 0; i < vocab->n_tokens; i++)
        order[i] = (struct scored){vocab->scores[i], (int32_t)i};
    qsort(order, vocab->n_tokens, sizeof *order, compare_scores);
    for (size_t i = 0; i < vocab->n_tokens; i++) {
        if (i > 0 && order[i].score != order[i - 1].score)
            rank++;
        ranks[order[i].id] = rank;
    }
    *out = ranks;
    ranks = NULL;
fail:
    m40_free(order);
    m40_free(ranks);
    return status;
}

/* Every way to cut the token in two that are tokens themselves. Symbols are single characters or what merging made of them, so these are all pairs
 * it can come from (a character that is no token joins nothing: trained vocabularies hold all characters of their tokens). */
static m40llm_status add_rules(struct m40_tokenizer *t, int32_t id, uint32_t rank, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_str text = m40_vocab_text(&t->vocab, id);

    for (size_t at = 0; at < text.n_bytes;) {
        int32_t left, right;

        at += m40_utf8_decode((const uint8_t *)text.data + at, text.n_bytes - at).n_bytes;
        if (at == text.n_bytes)
            break;
        left = find_text(&t->vocab, text.data, at);
        right = left < 0 ? -1 : find_text(&t->vocab, text.data + at, text.n_bytes - at);
        if (right >= 0)
            M40_TRY(m40_merge_rules_add(&t->rules, left, right, rank, id, err)); /* texts are unique: no pair comes twice */
    }
fail:
    return status;
}

/* Whether a space stands behind something else than spaces. */
static bool has_inner_space(struct m40_str text)
{
    bool other = false;

    for (size_t i = 0; i < text.n_bytes;) {
        if (i + SPACE_MARK_BYTES <= text.n_bytes && memcmp(text.data + i, space_mark, SPACE_MARK_BYTES) == 0) {
            if (other)
                return true;
            i += SPACE_MARK_BYTES;
        } else {
            other = true;
            i++;
        }
    }
    return false;
}

static m40llm_status build_rules(struct m40_tokenizer *t, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t *ranks = NULL;

    M40_TRY(rank_tokens(&t->vocab, &ranks, err));
    M40_TRY(m40_merge_rules_open(&t->rules, 2 * t->vocab.n_tokens, err));
    t->splits_at_spaces = true;
    for (size_t i = 0; i < t->vocab.n_tokens; i++) {
        if (!is_piece(&t->vocab, (int32_t)i))
            continue;
        M40_TRY(add_rules(t, (int32_t)i, ranks[i], err));
        if (has_inner_space(m40_vocab_text(&t->vocab, (int32_t)i)))
            t->splits_at_spaces = false;
    }
fail:
    m40_free(ranks);
    return status;
}

static void find_bytes(struct m40_tokenizer *t)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8] = "<0x00>";
        int32_t id;

        text[3] = "0123456789ABCDEF"[byte >> 4];
        text[4] = "0123456789ABCDEF"[byte & 15];
        id = m40_vocab_find(&t->vocab, m40_str_from(text));
        if (id >= 0 && !t->vocab.has_types)
            t->vocab.types[id] = M40_TOKEN_BYTE;
        t->byte_ids[byte] = id >= 0 && t->vocab.types[id] == M40_TOKEN_BYTE ? id : -1;
    }
}

m40llm_status m40_spm_open(struct m40_tokenizer *t, const struct m40_gguf *gguf, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(!t->vocab.scores, M40LLM_BAD_FILE, "tokenizer.ggml.scores is missing");
    t->add_space_prefix = true;
    t->add_bos = true;
    M40_TRY(m40_metadata_bool(gguf, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err));
    find_bytes(t);
    for (unsigned c = 0; c < 128; c++) {
        char text = (char)c;

        t->ascii_ids[c] = c == ' ' ? find_text(&t->vocab, space_mark, SPACE_MARK_BYTES) : find_text(&t->vocab, &text, 1);
    }
    M40_TRY(build_rules(t, err));
fail:
    return status;
}

#define SOURCE_SPACE UINT32_MAX /* a symbol that is a space; others: their byte's place in the text */

/* A symbol without a token: as bytes, or where one of them has no token as one unknown token; nothing where the model has none. */
static void fall_back(struct m40_encoder *e, const char *text, size_t n_bytes, uint32_t source)
{
    const struct m40_tokenizer *t = e->t;
    const char *bytes = source == SOURCE_SPACE ? space_mark : text + source;
    size_t n = source == SOURCE_SPACE ? SPACE_MARK_BYTES : m40_utf8_decode((const uint8_t *)bytes, n_bytes - source).n_bytes;
    bool complete = true;

    for (size_t i = 0; i < n; i++)
        complete = complete && t->byte_ids[(uint8_t)bytes[i]] >= 0;
    for (size_t i = 0; complete && i < n; i++)
        m40_id_sink_push(&e->sink, t->byte_ids[(uint8_t)bytes[i]]);
    if (!complete && t->unk >= 0)
        m40_id_sink_push(&e->sink, t->unk);
}

/* Merges the symbols pushed so far and empties the merger. */
static void flush_word(struct m40_encoder *e, const char *text, size_t n_bytes)
{
    if (e->merger.n_symbols == 0)
        return;
    m40_merger_run(&e->merger, &e->t->rules);
    for (uint32_t i = 0; i != M40_SYMBOL_END; i = e->merger.symbols[i].next) {
        const struct m40_symbol *s = &e->merger.symbols[i];

        if (s->id >= 0)
            m40_id_sink_push(&e->sink, s->id);
        else
            fall_back(e, text, n_bytes, s->source);
    }
    e->merger.n_symbols = 0;
}

/* Pushes the character at text[at]; returns its bytes, 0: no memory. */
static size_t push_character(struct m40_encoder *e, const char *text, size_t n_bytes, size_t at)
{
    const struct m40_tokenizer *t = e->t;
    uint8_t first = (uint8_t)text[at];
    struct m40_utf8 u;
    int32_t id;

    if (first < 128)
        return m40_merger_push(&e->merger, t->ascii_ids[first], first == ' ' ? SOURCE_SPACE : (uint32_t)at) ? 1 : 0;
    u = m40_utf8_decode((const uint8_t *)text + at, n_bytes - at);
    id = u.valid ? find_text(&t->vocab, text + at, u.n_bytes) : -1;
    return m40_merger_push(&e->merger, id, (uint32_t)at) ? u.n_bytes : 0;
}

m40llm_status m40_spm_encode(struct m40_encoder *e, const char *text, size_t n_bytes, bool with_prefix, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    bool after_space = true;

    e->merger.n_symbols = 0;
    if (with_prefix)
        M40_FAIL_IF(!m40_merger_push(&e->merger, e->t->ascii_ids[' '], SOURCE_SPACE), M40LLM_NO_MEMORY, "%zu bytes of text", n_bytes);
    for (size_t at = 0; at < n_bytes;) {
        /* a literal U+2581 is the same symbol as a space */
        bool space = text[at] == ' ' || (n_bytes - at >= SPACE_MARK_BYTES && memcmp(text + at, space_mark, SPACE_MARK_BYTES) == 0);
        size_t n;

        if (space && !after_space && e->t->splits_at_spaces)
            flush_word(e, text, n_bytes);
        after_space = space;
        n = push_character(e, text, n_bytes, at);
        M40_FAIL_IF(n == 0, M40LLM_NO_MEMORY, "%zu bytes of text", n_bytes);
        at += n;
    }
    flush_word(e, text, n_bytes);
fail:
    return status;
}

/* The value of "<0xNN>"; -1: something else. */
static int byte_value(struct m40_str text)
{
    char digits[3] = {0};
    char *end;
    long value;

    if (text.n_bytes != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return -1;
    memcpy(digits, text.data + 3, 2);
    value = strtol(digits, &end, 16);
    return end == digits + 2 ? (int)value : -1;
}

bool m40_spm_decode(const struct m40_tokenizer *t, int32_t id, bool strip_prefix, struct m40_buf *out)
{
    struct m40_str text = m40_vocab_text(&t->vocab, id);
    int byte = t->vocab.types[id] == M40_TOKEN_BYTE ? byte_value(text) : -1;
    char c = (char)byte;

    if (byte >= 0)
        return m40_buf_append(out, &c, 1);
    if (t->vocab.types[id] == M40_TOKEN_CONTROL || t->vocab.types[id] == M40_TOKEN_UNKNOWN)
        return m40_buf_append(out, text.data, text.n_bytes);
    if (!m40_buf_reserve(out, text.n_bytes))
        return false;
    for (size_t i = 0; i < text.n_bytes;) {
        bool space = text.n_bytes - i >= SPACE_MARK_BYTES && memcmp(text.data + i, space_mark, SPACE_MARK_BYTES) == 0;

        if (!space || i > 0 || !strip_prefix)
            m40_buf_append(out, space ? " " : text.data + i, 1); /* within the room reserved above */
        i += space ? SPACE_MARK_BYTES : 1;
    }
    return true;
}
