/* An answer's text: tokens go in, text that is certain comes out. Held back are the beginnings of characters, and text that may turn out to be the beginning of a stop string. */
#ifndef M40_ENGINE_ANSWER_H
#define M40_ENGINE_ANSWER_H

#include "base/str.h"
#include "tokenizer/tokenizer.h"

/* Stop strings, shared by the answers of a request. */
struct m40_stops {
    struct m40_str *strings; /* [n_strings], in `bytes` */
    uint32_t n_strings;
    char *bytes;
};

/* Copies them. INVALID_ARGUMENT: too many, empty, too long, or not UTF-8. */
m40llm_status m40_stops_init(struct m40_stops *stops, const char *const *strings, size_t n_strings, m40llm_error *err);
void m40_stops_free(struct m40_stops *stops);

/* Zeroed: an answer without text. */
struct m40_answer {
    const struct m40_tokenizer *tokenizer; /* NULL: none */
    struct m40_token_stream *stream;
    const struct m40_stops *stops;
    struct m40_buf held; /* what is not certain yet */
    struct m40_buf out;  /* the text of the last call */
};

/* prompt: what the answer continues. */
m40llm_status m40_answer_init(struct m40_answer *answer, const struct m40_tokenizer *tokenizer, const struct m40_stops *stops, const int32_t *prompt,
                              size_t n_prompt, m40llm_error *err);
void m40_answer_free(struct m40_answer *answer);

/* One token more; is_watched: stop strings count. *text: what is certain now, NUL-terminated, valid until the next call. *is_stopped: the text before a stop string is out, and there will be no more. Of
 * several stop strings the one that is complete first counts, of those the longest: so it does not matter how the text is cut into tokens. Neither a character nor a stop string reaches across a control
 * token: with it comes all that was held back. NO_MEMORY. */
m40llm_status m40_answer_push(struct m40_answer *answer, int32_t id, bool is_watched, struct m40_str *text, bool *is_stopped, m40llm_error *err);
/* What was held back, at an end without a stop string. */
m40llm_status m40_answer_flush(struct m40_answer *answer, struct m40_str *text, m40llm_error *err);

#endif
