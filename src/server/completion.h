/* Endpoints that generate text, and the shapes of their answers. */
#ifndef M40_SERVER_COMPLETION_H
#define M40_SERVER_COMPLETION_H

#include "call.h"

#include <time.h>

struct choice {
    struct thinking thinking;
    struct m40_buf said, thought; /* all of it, or, in a stream, what has not been sent */
    json_t *logprobs;             /* [] of chat, {} of arrays of text completions; of the same tokens. NULL: none */
    size_t n_characters;          /* of the tokens so far */
    int32_t before;               /* the last token */
    m40llm_finish finish;
};

struct completion {
    struct call call;
    char id[40];
    time_t created;
    const char *model;
    struct choice *choices; /* [call.n] */
    struct m40_buf out;     /* of a stream: what is to be sent */
    size_t n_sent;          /* of it */
    bool is_over;           /* the last of the stream is in out */
};

/* answer_json.c: JSON of the whole answer, or of a part of a stream; NULL: no memory. */
json_t *answer_whole(const struct completion *c, const m40llm_result *r);
json_t *answer_role(const struct completion *c, uint32_t choice);
/* What the choice has said, thought and its logprobs, which are then gone from it. */
json_t *answer_delta(struct completion *c, uint32_t choice);
json_t *answer_finish(const struct completion *c, uint32_t choice);
json_t *answer_usage(const struct completion *c, const m40llm_result *r);

/* token_logprobs.c: one token more. false: no memory. */
bool choice_add_logprob(struct choice *choice, enum call_kind kind, const struct server_model *m, const struct event_record *e,
                        const m40llm_token_logprob *top);

#endif
