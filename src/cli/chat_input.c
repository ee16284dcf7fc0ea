#include "chat_input.h"

static const char fence[] = "\"\"\"";

enum { N_FENCE = sizeof fence - 1 };

static bool ends_with_fence(struct m40_str s)
{
    return s.n_bytes >= N_FENCE && memcmp(s.data + s.n_bytes - N_FENCE, fence, N_FENCE) == 0;
}

/* Two at the end are two backslashes, not one that escapes the newline. */
static bool ends_with_backslash(struct m40_str s)
{
    size_t n = 0;

    while (n < s.n_bytes && s.data[s.n_bytes - 1 - n] == '\\')
        n++;
    return n % 2 == 1;
}

enum chat_input_state chat_input_line(struct chat_input *in, struct m40_str line)
{
    bool goes_on = false;

    if (!in->is_block && in->text.n_bytes == 0 && line.n_bytes >= N_FENCE && memcmp(line.data, fence, N_FENCE) == 0) {
        in->is_block = true;
        line = (struct m40_str){line.data + N_FENCE, line.n_bytes - N_FENCE};
        if (line.n_bytes == 0)
            return INPUT_MORE;
    }
    if (in->is_block && ends_with_fence(line)) {
        line.n_bytes -= N_FENCE;
        in->is_block = false;
        if (line.n_bytes == 0 && in->text.n_bytes) /* on a line of its own: the newline before it belongs to it */
            in->text.data[--in->text.n_bytes] = 0;
    } else if (in->is_block) {
        goes_on = true;
    } else if (ends_with_backslash(line)) {
        line.n_bytes--;
        goes_on = true;
    }
    if (!m40_buf_append(&in->text, line.data, line.n_bytes) || (goes_on && !m40_buf_append(&in->text, "\n", 1)))
        return INPUT_NO_MEMORY;
    return goes_on ? INPUT_MORE : INPUT_DONE;
}

void chat_input_reset(struct chat_input *in)
{
    m40_buf_free(&in->text);
    in->is_block = false;
}

static const struct {
    const char *name;
    enum chat_command_id id;
} names[] = {
    {"/help", CHAT_HELP}, {"/?", CHAT_HELP},      {"/system", CHAT_SYSTEM}, {"/set", CHAT_SET},   {"/clear", CHAT_CLEAR},
    {"/new", CHAT_CLEAR}, {"/regen", CHAT_REGEN}, {"/undo", CHAT_UNDO},     {"/show", CHAT_SHOW}, {"/save", CHAT_SAVE},
    {"/load", CHAT_LOAD}, {"/stats", CHAT_STATS}, {"/exit", CHAT_EXIT},     {"/quit", CHAT_EXIT}, {"/bye", CHAT_EXIT},
};

enum { N_NAMES = sizeof names / sizeof *names };

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static struct m40_str trim(struct m40_str s)
{
    while (s.n_bytes && is_space(s.data[0]))
        s = (struct m40_str){s.data + 1, s.n_bytes - 1};
    while (s.n_bytes && is_space(s.data[s.n_bytes - 1]))
        s.n_bytes--;
    return s;
}

struct chat_command chat_read_command(struct m40_str text)
{
    const struct chat_command message = {.id = CHAT_MESSAGE, .argument = text};
    struct chat_command c = {.id = CHAT_UNKNOWN, .name = text};
    char letter = text.n_bytes > 1 && text.data[0] == '/' ? text.data[1] : 0;

    if (letter != '?' && ((letter | 32) < 'a' || (letter | 32) > 'z'))
        return message;
    c.name.n_bytes = 0;
    while (c.name.n_bytes < text.n_bytes && !is_space(text.data[c.name.n_bytes]))
        c.name.n_bytes++;
    c.argument = trim((struct m40_str){text.data + c.name.n_bytes, text.n_bytes - c.name.n_bytes});
    for (int i = 0; i < N_NAMES && c.id == CHAT_UNKNOWN; i++)
        if (m40_str_equal(c.name, m40_str_from(names[i].name)))
            c.id = names[i].id;
    return c.id != CHAT_SYSTEM && memchr(text.data, '\n', text.n_bytes) ? message : c;
}

const char *chat_command_help(void)
{
    return "/help                 this text\n"
           "/system TEXT          set the system prompt; alone: show it; \"\": have none\n"
           "/set NAME VALUE       set temperature, top-k, seed, max-tokens, ...; alone: show all\n"
           "/clear, /new          begin a new conversation; the system prompt stays\n"
           "/regen                answer the last message again\n"
           "/undo                 take the last message and its answer back\n"
           "/show                 show the conversation\n"
           "/save FILE            save it as JSON; /load FILE reads it back\n"
           "/stats                tokens, speed, context and memory\n"
           "/exit, /quit, /bye    leave (so does Ctrl-D)\n"
           "\n"
           "A line that ends with \\ goes on in the next; \"\"\" begins a text of several lines and ends it.\n"
           "Ctrl-C stops an answer. A message that begins with / and a letter needs a space in front.\n";
}

const char *const *chat_command_names(void)
{
    static const char *list[N_NAMES + 1];

    for (int i = 0; i < N_NAMES; i++)
        list[i] = names[i].name;
    return list;
}
