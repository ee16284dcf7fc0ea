/* Any bytes as a GGUF file: they are refused, or everything that the result points to lies inside them and can be asked for. */
#include "gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define CHECK(cond)                                                                                                                                  \
    do {                                                                                                                                             \
        if (!(cond)) {                                                                                                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                                                               \
            abort();                                                                                                                                 \
        }                                                                                                                                            \
    } while (0)

struct span {
    const uint8_t *begin, *end;
};

static int lies_inside(struct span span, const void *data, uint64_t n_bytes)
{
    const uint8_t *p = data;

    return p >= span.begin && p <= span.end && n_bytes <= (uint64_t)(span.end - p);
}

static void check_kv(const struct m40_gguf *g, const struct m40_gguf_kv *kv, struct span input)
{
    struct m40_gguf_cursor strings = {0}, numbers = {0};
    struct m40_str text;
    uint64_t u, n = 0;
    int64_t i;
    double f;
    bool b;
    char buffer[64];
    size_t n_text = m40_gguf_kv_text(kv, 3, buffer, sizeof buffer);

    CHECK(lies_inside(input, kv->data, kv->n_bytes));
    CHECK(m40_gguf_find_kv(g, kv->key.data) == kv);
    CHECK(strlen(kv->key.data) == kv->key.n_bytes);
    CHECK(memchr(buffer, 0, sizeof buffer) != NULL);
    CHECK(m40_gguf_kv_text(kv, 3, NULL, 0) == n_text);
    if (m40_gguf_kv_u64(kv, &u) && m40_gguf_kv_i64(kv, &i))
        CHECK(u == (uint64_t)i);
    m40_gguf_kv_f64(kv, &f);
    m40_gguf_kv_bool(kv, &b);
    if (m40_gguf_kv_string(kv, &text))
        CHECK(lies_inside(input, text.data, text.n_bytes));
    while (m40_gguf_next_string(kv, &strings, &text)) {
        CHECK(lies_inside(input, text.data, text.n_bytes));
        n++;
    }
    while (m40_gguf_next_number(kv, &numbers, &f))
        n++;
    if (kv->type == M40LLM_VALUE_ARRAY && kv->element_type != M40LLM_VALUE_ARRAY)
        CHECK(n == kv->n_elements && strings.offset_bytes + numbers.offset_bytes == kv->n_bytes);
    else
        CHECK(n == 0);
}

static void check_tensor(const struct m40_gguf *g, const struct m40_gguf_tensor *t, struct span input)
{
    uint64_t n_elements = 1;

    for (int d = 0; d < 4; d++)
        n_elements *= t->dims[d];
    CHECK(m40_gguf_find_tensor(g, t->name.data) == t);
    CHECK(n_elements == t->n_elements && n_elements > 0);
    CHECK(t->size_bytes == n_elements / t->type->block_elems * t->type->block_bytes);
    CHECK(lies_inside(input, t->data, t->size_bytes));
    CHECK((uint64_t)(t->data - input.begin) % g->alignment == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const struct span input = {data, data + n_bytes};
    struct m40_gguf *g;
    m40llm_error err = {0};
    m40llm_status status = m40_gguf_parse(&g, data, n_bytes, "input", &err);

    if (status != M40LLM_OK) {
        CHECK(status == M40LLM_BAD_FILE && !g && strncmp(err.text, "input: ", 7) == 0);
        return 0;
    }
    for (size_t i = 0; i < g->n_kvs; i++)
        check_kv(g, &g->kvs[i], input);
    for (size_t i = 0; i < g->n_tensors; i++)
        check_tensor(g, &g->tensors[i], input);
    m40_gguf_close(&g);
    return 0;
}
