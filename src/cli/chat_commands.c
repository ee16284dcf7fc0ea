#define _POSIX_C_SOURCE 200809L
#include "chat_commands.h"
#include "request.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Text from files, models and users as a terminal may show it. */
static void say_text(const struct chat *chat, const char *text, size_t most)
{
    char *copy = strndup(text, most);

    if (copy)
        fwrite(copy, 1, cli_printable(copy, strlen(copy)), chat->say);
    free(copy);
}

static void undo(struct chat *chat)
{
    json_t *answer = conversation_take(&chat->conversation, "assistant"), *question = conversation_take(&chat->conversation, "user");

    if (question) {
        fprintf(chat->say, "Taken back: ");
        say_text(chat, json_string_value(json_object_get(question, "content")), 200);
        fprintf(chat->say, "\n");
    } else {
        fprintf(chat->say, answer ? "Taken back: an answer.\n" : "There is nothing to take back.\n");
    }
    json_decref(answer);
    json_decref(question);
}

static void set_system(struct chat *chat, const char *text)
{
    const char *now = conversation_system(&chat->conversation);

    if (!*text) {
        fprintf(chat->say, now ? "System prompt: " : "There is no system prompt.");
        say_text(chat, now ? now : "", SIZE_MAX);
        fprintf(chat->say, "\n");
    } else if (!conversation_set_system(&chat->conversation, strcmp(text, "\"\"") == 0 ? NULL : text)) {
        fprintf(chat->say, "m40llm: the system prompt is not UTF-8\n");
    } else {
        fprintf(chat->say, "It holds from the next answer on%s.\n", conversation_length(&chat->conversation) ? ", for the whole conversation" : "");
    }
}

static void show(const struct chat *chat)
{
    json_t *message;
    size_t i;

    if (json_array_size(chat->conversation.messages) == 0)
        fprintf(chat->say, "Nothing was said yet.\n");
    json_array_foreach(chat->conversation.messages, i, message)
    {
        fprintf(chat->say, "%s: ", json_string_value(json_object_get(message, "role")));
        say_text(chat, json_string_value(json_object_get(message, "content")), SIZE_MAX);
        fprintf(chat->say, "\n");
    }
}

/* ---- /set ---- */

/* What a chat may set of run's options; other names that people know them by. */
static const struct {
    const char *name, *option;
} settable[] = {
    {"temperature", "temp"},
    {"top-k", "top-k"},
    {"top-p", "top-p"},
    {"min-p", "min-p"},
    {"repeat-penalty", "repeat-penalty"},
    {"repeat-last-n", "repeat-last-n"},
    {"frequency-penalty", "frequency-penalty"},
    {"presence-penalty", "presence-penalty"},
    {"max-tokens", "max-tokens"},
    {"seed", "seed"},
};

enum { N_SETTABLE = sizeof settable / sizeof *settable };

static const char *const think_names[] = {"auto", "on", "off"};

/* "top_p" is "top-p", and "temp" "temperature". NULL: it is none of them. */
static const char *option_named(const char *name)
{
    for (int i = 0; i < N_SETTABLE; i++) {
        const char *a = settable[i].name, *b = name;

        if (strcmp(settable[i].option, name) == 0)
            return settable[i].option;
        while (*a && (*a == *b || (*a == '-' && *b == '_'))) {
            a++;
            b++;
        }
        if (!*a && !*b)
            return settable[i].option;
    }
    return NULL;
}

static void show_settings(const struct chat *chat)
{
    char value[64];

    for (int i = 0; i < N_SETTABLE; i++) {
        if (strcmp(settable[i].option, "seed") == 0)
            snprintf(value, sizeof value, "%" PRIu64, chat->seed + chat->n_answers);
        else if (!cli_get_option(&chat->settings, CMD_RUN, settable[i].option, value, sizeof value) ||
                 (strcmp(settable[i].option, "max-tokens") == 0 && strcmp(value, "0") == 0))
            snprintf(value, sizeof value, "what the context has room for");
        fprintf(chat->say, "%-18s %s\n", settable[i].name, value);
    }
    fprintf(chat->say, "%-18s %s\n", "think", think_names[chat->think]);
}

static void set_think(struct chat *chat, const char *value)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(value, think_names[i]) == 0) {
            chat->think = (enum chat_think)i;
            fprintf(chat->say, "think: %s\n", value);
            return;
        }
    fprintf(chat->say, "think is on, off, or auto: as the model's template has it\n");
}

static void set(struct chat *chat, char *argument)
{
    char why[128], now[64];
    size_t n_name = strcspn(argument, " \t\n=");
    char *value = argument + n_name;
    const char *option;

    if (!*argument) {
        show_settings(chat);
        return;
    }
    value += strspn(value, " \t\n=");
    argument[n_name] = 0;
    option = option_named(argument);
    if (!option && strcmp(argument, "think") != 0) {
        fprintf(chat->say, "There is no setting '%.60s'; /set shows all.\n", argument);
    } else if (!*value) {
        fprintf(chat->say, "/set %s needs a value.\n", argument);
    } else if (!option) {
        set_think(chat, value);
    } else if (!cli_set_option(&chat->settings, CMD_RUN, option, value, why, sizeof why)) {
        fprintf(chat->say, "/set %s %.60s: %s\n", argument, value, why);
    } else {
        if (strcmp(option, "seed") == 0) {
            chat->seed = chat->settings.seed;
            chat->n_answers = 0;
        }
        cli_get_option(&chat->settings, CMD_RUN, option, now, sizeof now);
        fprintf(chat->say, "%s: %s\n", option, now);
    }
}

/* ---- files ---- */

/* The file that a command names, or the one used last; NULL: there is none, and the user was told. */
static const char *choose_file(const struct chat *chat, const char *command, const char *argument)
{
    const char *path = *argument ? argument : chat->path;

    if (path && strcmp(path, "-") != 0)
        return path;
    fprintf(chat->say, "%s needs a file's name.\n", command);
    return NULL;
}

static void remember_file(struct chat *chat, const char *path)
{
    char *copy = path == chat->path ? NULL : strdup(path);

    if (copy) {
        free(chat->path);
        chat->path = copy;
    }
}

/* No file is overwritten but the one that this chat saved or loaded before. */
static void save(struct chat *chat, const char *argument)
{
    const char *path = choose_file(chat, "/save", argument);
    bool is_own = path && chat->path && strcmp(path, chat->path) == 0, ok;
    FILE *file;
    int fd;

    if (!path)
        return;
    errno = 0;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (is_own ? O_TRUNC : O_EXCL), 0600);
    file = fd >= 0 ? fdopen(fd, "w") : NULL;
    ok = file && conversation_write(&chat->conversation, file);
    if (file)
        ok = fclose(file) == 0 && ok;
    if (!ok) {
        fprintf(chat->say, "m40llm: %s: %s\n", path,
                errno == EEXIST ? "there is such a file, and it is not overwritten"
                : errno         ? strerror(errno)
                                : "cannot be written");
        if (fd >= 0 && !is_own)
            unlink(path);
        return;
    }
    remember_file(chat, path);
    fprintf(chat->say, "%zu message%s saved to %s\n", conversation_length(&chat->conversation), &"s"[conversation_length(&chat->conversation) == 1],
            chat -> path ? chat -> path : path);
}

static void load(struct chat *chat, const char *argument)
{
    const char *path = choose_file(chat, "/load", argument);
    char why[256], *text;
    size_t n_bytes;

    if (!path || cli_read_file_within(path, CLI_MAX_JSON_BYTES, &text, &n_bytes) != CLI_OK)
        return;
    if (conversation_read(&chat->conversation, (struct m40_str){text, n_bytes}, why, sizeof why)) {
        remember_file(chat, path);
        fprintf(chat->say, "%zu message%s loaded; /show shows them%s\n", conversation_length(&chat->conversation),
                &"s"[conversation_length(&chat->conversation) == 1],
                strcmp(conversation_last_role(&chat->conversation), "user") == 0 ? ", and /regen answers the last" : "");
    } else {
        cli_say(chat->say, "%s: %s", path, why);
    }
    free(text);
}

/* ---- the others ---- */

static void say_statistics(const struct chat *chat)
{
    const struct cli_session *s = chat->session;
    const m40llm_result *r = &chat->last;
    m40llm_stats stats = M40LLM_STATS_INIT;

    fprintf(chat->say, "conversation   %zu messages\n", conversation_length(&chat->conversation));
    if (r->n_prompt) {
        fprintf(chat->say, "last answer    %u tokens, %.1f tok/s, seed %" PRIu64 "\n", r->n_generated, cli_answer_speed(r), chat->last_seed);
        fprintf(chat->say, "its prompt     %u tokens, %u of them cached, the others %.1f tok/s\n", r->n_prompt, r->n_cached, cli_prompt_speed(r));
    }
    if (!s)
        return;
    fprintf(chat->say, "context        %u of %u tokens (%s)\n", r->n_prompt + r->n_generated, s->engine_info.n_ctx, s->engine_info.n_ctx_why);
    m40llm_engine_get_stats(s->engine, &stats);
    fprintf(chat->say, "this session   %" PRIu64 " prompt tokens evaluated, %" PRIu64 " cached, %" PRIu64 " generated\n", stats.n_prompt_tokens,
            stats.n_cached_tokens, stats.n_generated_tokens);
    fprintf(chat->say, "device         %s: %s, %.0f MiB taken\n", s->device_info.spec, s->device_info.name,
            (double)(s->engine_info.weight_bytes + s->engine_info.kv_bytes + s->engine_info.other_bytes) / 1048576.0);
}

static enum chat_next carry_out(struct chat *chat, enum chat_command_id id, char *argument)
{
    switch (id) {
    case CHAT_HELP:
        fputs(chat_command_help(), chat->say);
        break;
    case CHAT_SYSTEM:
        set_system(chat, argument);
        break;
    case CHAT_SET:
        set(chat, argument);
        break;
    case CHAT_CLEAR:
        conversation_clear(&chat->conversation);
        fprintf(chat->say, "A new conversation%s.\n", conversation_system(&chat->conversation) ? ", with the same system prompt" : "");
        break;
    case CHAT_REGEN:
        chat_regenerate(chat);
        break;
    case CHAT_UNDO:
        undo(chat);
        break;
    case CHAT_SHOW:
        show(chat);
        break;
    case CHAT_SAVE:
        save(chat, argument);
        break;
    case CHAT_LOAD:
        load(chat, argument);
        break;
    case CHAT_STATS:
        say_statistics(chat);
        break;
    case CHAT_EXIT:
        return CHAT_LEAVE;
    case CHAT_MESSAGE:
    case CHAT_UNKNOWN:
        break;
    }
    return CHAT_GO_ON;
}

static bool takes_argument(enum chat_command_id id)
{
    return id == CHAT_SYSTEM || id == CHAT_SET || id == CHAT_SAVE || id == CHAT_LOAD;
}

enum chat_next chat_command(struct chat *chat, const struct chat_command *command)
{
    char *argument = strndup(command->argument.n_bytes ? command->argument.data : "", command->argument.n_bytes);
    enum chat_next next = CHAT_GO_ON;

    if (!argument) {
        fprintf(chat->say, "m40llm: out of memory\n");
    } else if (command->id == CHAT_UNKNOWN) {
        fprintf(chat->say, "There is no command '%.*s'; /help tells them all. A message that begins with / needs a space in front.\n",
                command->name.n_bytes < 60 ? (int)command->name.n_bytes : 60, command->name.data);
    } else if (*argument && !takes_argument(command->id)) {
        fprintf(chat->say, "%.*s takes nothing behind it: '%.60s'\n", (int)command->name.n_bytes, command->name.data, argument);
    } else {
        next = carry_out(chat, command->id, argument);
    }
    free(argument);
    return next;
}
