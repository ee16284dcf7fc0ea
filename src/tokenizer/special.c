#include "tokenizer/special.h"

#include "base/mem.h"

#include <stdlib.h>

struct m40_special {
    struct m40_str text;
    int32_t id;
};

static bool is_special(const struct m40_vocab *vocab, int32_t id, bool control)
{
    uint8_t type = vocab->types[id];

    if (m40_vocab_text(vocab, id).n_bytes == 0)
        return false;
    return type == M40_TOKEN_USER_DEFINED || (control && (type == M40_TOKEN_CONTROL || type == M40_TOKEN_UNKNOWN));
}

static int compare(const void *a, const void *b)
{
    const struct m40_str *x = &((const struct m40_special *)a)->text;
    const struct m40_str *y = &((const struct m40_special *)b)->text;
    size_t n = x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes;
    int order = memcmp(x->data, y->data, n);

    return order ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

m40llm_status m40_specials_open(struct m40_specials *specials, const struct m40_vocab *vocab, bool control, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n = 0;

    for (size_t id = 0; id < vocab->n_tokens; id++)
        n += is_special(vocab, (int32_t)id, control);
    specials->sorted = m40_calloc(n, sizeof *specials->sorted);
    M40_FAIL_IF(!specials->sorted, M40LLM_NO_MEMORY, "%zu special tokens", n);
    for (size_t id = 0; id < vocab->n_tokens; id++)
        if (is_special(vocab, (int32_t)id, control))
            specials->sorted[specials->n++] = (struct m40_special){m40_vocab_text(vocab, (int32_t)id), (int32_t)id};
    if (n)
        qsort(specials->sorted, n, sizeof *specials->sorted, compare);
    for (size_t i = 0; i < n; i++)
        specials->first[(uint8_t)specials->sorted[i].text.data[0] + 1] = i + 1;
    for (size_t b = 1; b <= 256; b++)
        if (specials->first[b] < specials->first[b - 1])
            specials->first[b] = specials->first[b - 1];
fail:
    return status;
}

void m40_specials_free(struct m40_specials *specials)
{
    m40_free(specials->sorted);
    *specials = (struct m40_specials){0};
}

/* In sorted[low, high), which agree in their first `at` bytes and are longer than that: the first whose byte `at` is >= value. */
static size_t lower_bound(const struct m40_specials *specials, size_t low, size_t high, size_t at, unsigned value)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if ((uint8_t)specials->sorted[middle].text.data[at] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token at text; NULL: none. */
static const struct m40_special *longest_at(const struct m40_specials *specials, const char *text, size_t n_bytes)
{
    const struct m40_special *longest = NULL;
    size_t low = specials->first[(uint8_t)text[0]];
    size_t high = specials->first[(uint8_t)text[0] + 1];

    for (size_t at = 1; low < high; at++) {
        unsigned byte;

        if (specials->sorted[low].text.n_bytes == at)
            longest = &specials->sorted[low++];
        if (at == n_bytes)
            break;
        byte = (uint8_t)text[at];
        low = lower_bound(specials, low, high, at, byte);
        high = lower_bound(specials, low, high, at, byte + 1);
    }
    return longest;
}

struct m40_special_match m40_specials_find(const struct m40_specials *specials, const char *text, size_t n_bytes, size_t from)
{
    for (size_t i = from; specials->n && i < n_bytes; i++) {
        const struct m40_special *found;

        if (specials->first[(uint8_t)text[i]] == specials->first[(uint8_t)text[i] + 1])
            continue;
        found = longest_at(specials, text + i, n_bytes - i);
        if (found)
            return (struct m40_special_match){i, i + found->text.n_bytes, found->id};
    }
    return (struct m40_special_match){n_bytes, n_bytes, -1};
}
