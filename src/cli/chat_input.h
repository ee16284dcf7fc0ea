/* Lines of a chat into messages and commands. No terminal. */
#ifndef M40_CLI_CHAT_INPUT_H
#define M40_CLI_CHAT_INPUT_H

#include "base/str.h"

/* A message that is being typed. Lines that end with a backslash go on in the next line; so do all lines from one that begins with """ to one that ends with """. Zero it to begin. */
struct chat_input {
    struct m40_buf text; /* what there is so far, without the marks */
    bool is_block;       /* within """ */
};

enum chat_input_state { INPUT_DONE, INPUT_MORE, INPUT_NO_MEMORY };

/* The next line, without the newline at its end; it may hold others (a paste). DONE: in->text is the message, which may be empty. */
enum chat_input_state chat_input_line(struct chat_input *in, struct m40_str line);
/* For the next message; also to free it. */
void chat_input_reset(struct chat_input *in);

enum chat_command_id {
    CHAT_MESSAGE, /* no command: a message for the model */
    CHAT_UNKNOWN,
    CHAT_HELP,
    CHAT_SYSTEM,
    CHAT_SET,
    CHAT_CLEAR,
    CHAT_REGEN,
    CHAT_UNDO,
    CHAT_SHOW,
    CHAT_SAVE,
    CHAT_LOAD,
    CHAT_STATS,
    CHAT_EXIT,
};

struct chat_command {
    enum chat_command_id id;
    struct m40_str name;     /* as typed, with the slash; empty for a message */
    struct m40_str argument; /* without white space around it; of a message the whole text */
};

/* What was typed: a command where it begins with a slash and a letter, unless it has several lines, which only /system takes. Points into text. */
struct chat_command chat_read_command(struct m40_str text);

/* The commands and what they do, one a line. */
const char *chat_command_help(void);
/* Their names, with the slash; NULL ends the list. */
const char *const *chat_command_names(void);

#endif
