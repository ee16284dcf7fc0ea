/* A chat: what was said, what is set, and what lines do to both. No terminal: what is shown goes to callbacks and a FILE. */
#ifndef M40_CLI_CHAT_STATE_H
#define M40_CLI_CHAT_STATE_H

#include "chat_tokens.h"
#include "conversation.h"
#include "session.h"

/* Where an answer goes as it comes, in whole UTF-8 characters. false: it cannot be shown; the answer is cancelled. */
struct chat_sink {
    bool (*text)(void *user, bool is_thought, const char *text, size_t n_bytes);
    void (*progress)(void *user, uint64_t done, uint64_t total); /* of the prompt's tokens */
    void (*end)(void *user);                                     /* after each answer, one that failed too */
    void *user;
};

/* What came of a message. */
struct chat_answer {
    m40llm_result result;
    struct m40_buf text, thought; /* all of it; to be freed */
    uint64_t seed;
};

enum chat_think { CHAT_THINK_AUTO, CHAT_THINK_ON, CHAT_THINK_OFF };

struct chat {
    struct cli_settings settings; /* /set changes its copy */
    struct conversation conversation;
    struct chat_sink sink;
    FILE *say;             /* replies to commands, statistics, errors */
    bool has_style;        /* of `say` */
    char *path;            /* what /save and /load last used, or NULL */
    enum chat_think think; /* the template's enable_thinking */
    uint64_t seed;         /* of the first answer; each later one has the next */
    uint64_t n_answers;
    struct m40llm_result last; /* of the last answer */
    uint64_t last_seed;
    struct chat_tokens tokens; /* kept by chat_answer */
    /* the model: not looked at but by chat_answer.c, and for /stats */
    const struct cli_session *session;
    const m40llm_template *template_;
};

/* Begins with the settings' system prompt and seed. The session, the template and the sink may be filled in later. */
int chat_open(struct chat *chat, const struct cli_settings *settings);
void chat_close(struct chat *chat);

enum chat_next { CHAT_GO_ON, CHAT_LEAVE };

/* A command, or a message, which is answered. What goes wrong is said, and the conversation is then as it was. Nothing at all for white space. */
enum chat_next chat_line(struct chat *chat, struct m40_str text);

/* The chat template of --chat-template, or of the model; says what is wrong. Needs no session. */
int chat_open_template(const struct cli_settings *settings, m40llm_template **out);

/* The prompt that the template makes of the conversation, to be freed with m40llm_free. A failure is err's. */
m40llm_status chat_render_prompt(const struct chat *chat, char **prompt, size_t *n_bytes, m40llm_error *err);

/* Answers the conversation as it stands, into the sink and *out, which is empty where it fails. CONTEXT_FULL: it does not fit. */
m40llm_status chat_answer(struct chat *chat, uint64_t seed, struct chat_answer *out, m40llm_error *err);

#endif
