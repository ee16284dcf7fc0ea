/* The language of chat templates: Jinja2 as the usual Python tooling runs it (immutable sandbox, trim_blocks, lstrip_blocks, loop controls, generation blocks, tojson as
 * json.dumps without escaping HTML), compiled once and rendered as often as one likes.
 *
 * lexer.c     text to tokens, whitespace control
 * parser.c    tokens to the tree of ast.h: statements; expression.c: expressions
 * value.c     values: Python's, in the arena of one rendering; collections.c lists and dicts; text.c their texts (str, repr, JSON); chars.c the code points of a string
 * operators.c arithmetic, comparison; access.c attributes, subscripts, slices; call.c calls
 * run.c       a rendering's state, its limits and its error (diagnostic.c); context.c its variables; interpreter.c walks the tree
 * template_gguf.c the template that a model brings
 * filters.c, filters_sequence.c, tests.c, methods.c, globals.c, strings.c, formatting.c, clock_text.c: what templates may call
 *
 * A template can reach nothing but its context: no file, no environment, no memory of the program. Steps, loop iterations, recursion, memory, output and time are bounded. */
#ifndef M40_TOKENIZER_TEMPLATE_TEMPLATE_H
#define M40_TOKENIZER_TEMPLATE_TEMPLATE_H

#include "base/status.h"
#include "base/str.h"

#include <stdint.h>

struct m40_template;

/* Bounds of one rendering; what exceeds one ends it with an error that names the bound. */
struct m40_template_limits {
    uint64_t n_steps;      /* expressions, statements, and elements that filters touch */
    uint64_t n_iterations; /* of all loops together */
    uint32_t depth;        /* of nested evaluation: macros, recursive loops, values in values */
    size_t memory_bytes;   /* of all values */
    size_t output_bytes;   /* of the rendering, and of each text on the way to it; of those begun at the same time together */
    uint64_t time_ns;
};
#define M40_TEMPLATE_LIMITS_DEFAULT                                                                                                                  \
    {                                                                                                                                                \
        .n_steps = 50000000, .n_iterations = 2000000, .depth = 800, .memory_bytes = (size_t)256 << 20, .output_bytes = (size_t)64 << 20,             \
        .time_ns = 10000000000                                                                                                                       \
    }

enum { M40_TEMPLATE_MAX_BYTES = 4 << 20 };

/* Of a rendering's context: bytes of JSON; values; objects and arrays in one another, the context itself counted. */
enum { M40_TEMPLATE_MAX_CONTEXT_BYTES = 16 << 20, M40_TEMPLATE_MAX_CONTEXT_VALUES = 1 << 20, M40_TEMPLATE_MAX_CONTEXT_DEPTH = 200 };

/* What compiling and rendering take of the calling thread's stack at most, however deep templates and contexts are: 375 KiB were measured (gcc -O2). With sanitizers it is several times as much. */
enum { M40_TEMPLATE_STACK_BYTES = 512 << 10 };

/* What strftime_now shows. */
struct m40_template_time {
    int32_t year;                             /* 1 to 9999 */
    uint8_t month, day, hour, minute, second; /* 1-12, 1-31, 0-23, 0-59, 0-60 */
};

/* Reads "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS" (or a space for the T); false: it is something else, or no such day. */
bool m40_template_parse_time(const char *text, struct m40_template_time *out);

/* Compiles a template; text is copied. TEMPLATE: what is wrong with it, beginning with "line N: ". */
m40llm_status m40_template_compile(struct m40_template **out, const char *text, size_t n_bytes, m40llm_error *err);
void m40_template_free(struct m40_template **t);

/* The template of a model: tokenizer.chat_template, or with a name tokenizer.chat_template.NAME. Its renderings know the model's special tokens as bos_token, eos_token and so on.
 * NOT_FOUND: there is none; TEMPLATE as above. */
struct m40_gguf;
m40llm_status m40_template_of_gguf(struct m40_template **out, const struct m40_gguf *gguf, const char *name, m40llm_error *err);

/* A variable that every rendering has unless its context names it. The strings are UTF-8, and copied. Not while another thread renders. */
m40llm_status m40_template_set_default(struct m40_template *t, const char *name, struct m40_str value, m40llm_error *err);

/* Renders with the variables of a JSON object. now may be NULL: strftime_now then shows the local time; limits may be NULL: the defaults. *out (to be freed) holds the text; on failure it is empty.
 * TEMPLATE: "line N: " and what the template ran into, or what it raised itself; INVALID_ARGUMENT: the context is no JSON object, or beyond the bounds above. A compiled template is not changed: several threads
 * may render it. */
m40llm_status m40_template_render(const struct m40_template *t, const char *context, size_t n_bytes, const struct m40_template_time *now,
                                  const struct m40_template_limits *limits, struct m40_buf *out, m40llm_error *err);

#endif
