/* Splits an answer into what the model thought and what it says. Models mark their thoughts in one of three ways (thinking_markers.c has the tables):
 * - by tags that are text, <think> and </think> and their like, at the answer's beginning;
 * - by such tags that are control tokens, which give no text;
 * - by channels (gpt-oss): the answer is several messages <|start|>assistant<|channel|>NAME<|message|>TEXT<|end|>, in control tokens, and NAME tells thoughts ("analysis") from the rest. */
#ifndef M40_SERVER_THINKING_H
#define M40_SERVER_THINKING_H

#include "base/str.h"
#include "m40llm.h"

#include <stdbool.h>

/* A pair of tags. */
struct thinking_tags {
    const char *open, *close;
};
enum { THINKING_N_TAGS = 4 };
extern const struct thinking_tags thinking_tags[THINKING_N_TAGS]; /* the first is <think> */

enum thinking_mark { MARK_NONE, MARK_OPEN, MARK_CLOSE, MARK_START, MARK_CHANNEL, MARK_MESSAGE, MARK_END };

enum { THINKING_MAX_MARKERS = 2 * THINKING_N_TAGS + 6 };

/* Those of a model's control tokens that are marks. Zeroed: none. */
struct thinking_markers {
    const m40llm_tokenizer *tokenizer;
    struct {
        int32_t id;
        enum thinking_mark mark;
    } items[THINKING_MAX_MARKERS];
    size_t n;
    bool has_channels;
};

/* The tokenizer must outlive them. */
void thinking_markers_init(struct thinking_markers *markers, const m40llm_tokenizer *tokenizer);
enum thinking_mark thinking_mark_of(const struct thinking_markers *markers, int32_t id);

struct thinking {
    enum {
        THINKING_MAYBE,   /* only white space has come, or a part of an opening tag */
        THINKING_YES,     /* until the closing tag */
        THINKING_OVER,    /* no more than white space has come behind it */
        THINKING_NO,      /* what the model says */
        THINKING_HEADER,  /* channels: no message has begun, or one has, but not its text */
        THINKING_CHANNEL, /* channels: the text of a thought */
        THINKING_MESSAGE  /* channels: another message's */
    } state;
    size_t tags;                            /* THINKING_YES: by which of thinking_tags; meaningless where is_marked */
    bool is_marked;                         /* THINKING_YES: a control token began it, and only one ends it */
    bool has_thought, has_said;             /* something of it has been given out */
    bool has_marks;                         /* channels: the answer has had some */
    bool is_next;                           /* channels: this message's text begins, behind another's of its kind */
    size_t n_of_prompt;                     /* THINKING_HEADER: what of it stands in the prompt */
    struct m40_buf held;                    /* text that may be, or stand before, a tag; or a header */
    const struct thinking_markers *markers; /* NULL: none */
};

/* What the answer to a prompt begins with: a prompt may end with an opening tag, or within a message's header. markers: must outlive *t. *t is zeroed, or begun before. false: no memory. */
bool thinking_begin(struct thinking *t, const struct thinking_markers *markers, const int32_t *prompt, size_t n_prompt);

/* The answer goes on with these bytes; what is certain is appended to *thought and *said. White space around a tagged thought belongs to neither; of several messages of one kind each is a new line.
 * At `end` all that is held back is given out. false: no memory. */
bool thinking_push(struct thinking *t, const char *text, size_t n_bytes, bool end, struct m40_buf *thought, struct m40_buf *said);

/* The same for a token and the text that its event has, which is of the tokens before it where it is a control token. */
bool thinking_push_token(struct thinking *t, int32_t id, const char *text, size_t n_bytes, struct m40_buf *thought, struct m40_buf *said);

#endif
