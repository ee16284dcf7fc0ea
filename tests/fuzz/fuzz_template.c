/* libFuzzer target of chat templates. The input is a template and, behind a NUL, the JSON of its context (without one: a context of every type). Within small bounds a rendering must end, its
 * text must be UTF-8 and no longer than the bound, an error must have a text, and the same again must give the same. */
#include "tokenizer/template/template.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                                                             \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            __builtin_trap();                                                                                                                        \
    } while (0)

static const char all_types[] =
    "{\"n\": 7, \"neg\": -7, \"zero\": 0, \"f\": 2.5, \"yes\": true, \"nil\": null, \"s\": \"Hello, World\", \"e\": \"\", \"u\": \"Gr\xc3\xbc\xc3\x9f"
    "e, \xe4\xb8\x96\xe7\x95\x8c \xf0\x9f\x98\x80\", \"ws\": \" \\t a  b\\n\\n c \\u00a0\", \"lines\": \"one\\ntwo\\r\\nthree\", \"l\": [3, 1, 2], "
    "\"ls\": [\"b\", \"A\", \"c\"], \"el\": [], \"d\": {\"a\": 1, \"b\": [1, 2], \"items\": 3}, \"nested\": {\"k\": {\"m\": [{\"z\": \"deep\"}]}}, "
    "\"html\": \"<a href='x'>T&C</a>\", \"people\": [{\"name\": \"Bob\", \"age\": 30, \"tags\": [\"x\"]}, {\"name\": \"alice\", \"age\": 25, "
    "\"tags\": []}], "
    "\"floats\": [1.0, 0.1, 1e16, -0.0, 5e-324, 1.7976931348623157e308], \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct m40_template_limits limits = {
        .n_steps = 200000, .n_iterations = 5000, .depth = 100, .memory_bytes = 4 << 20, .output_bytes = 1 << 20, .time_ns = 2000000000};
    const struct m40_template_time now = {2026, 1, 15, 12, 0, 0};
    const char *end = size ? memchr(data, 0, size) : NULL, *context = end ? end + 1 : all_types;
    size_t n_template = end ? (size_t)(end - (const char *)data) : size, n_context = end ? size - n_template - 1 : sizeof all_types - 1;
    struct m40_template *t;
    struct m40_buf out[2];
    m40llm_error err[2] = {0};
    m40llm_status status = m40_template_compile(&t, (const char *)data, n_template, &err[0]);

    CHECK((status == M40LLM_OK) == (t != NULL));
    if (status != M40LLM_OK) {
        CHECK(err[0].text[0]);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        status = m40_template_render(t, context, n_context, &now, &limits, &out[i], &err[i]);
        CHECK((status == M40LLM_OK) == (out[i].data != NULL));
        CHECK(status == M40LLM_OK || err[i].text[0]);
    }
    CHECK(out[0].n_bytes == out[1].n_bytes && out[0].n_bytes <= limits.output_bytes && strcmp(err[0].text, err[1].text) == 0);
    for (size_t at = 0; at < out[0].n_bytes;) {
        struct m40_utf8 u = m40_utf8_decode((const uint8_t *)out[0].data + at, out[0].n_bytes - at);

        CHECK(u.valid && out[0].data[at] == out[1].data[at]);
        at += u.n_bytes;
    }
    m40_buf_free(&out[0]);
    m40_buf_free(&out[1]);
    m40_template_free(&t);
    return 0;
}
