/* A chat without a terminal and without a model: lines into messages, the conversation, commands, history, what a screen shows. */
#define _GNU_SOURCE
#include "cli/chat_commands.h"
#include "cli/chat_history.h"
#include "cli/chat_screen.h"
#include "cli/terminal.h"
#include "harness/harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a model that answers what it is told ---- */

static struct {
    const char *text, *thought;
    m40llm_status status;
    m40llm_finish finish;
    uint64_t seed; /* of the last call */
    unsigned n_calls;
} model;

m40llm_status chat_answer(struct chat *chat, uint64_t seed, struct chat_answer *out, m40llm_error *err)
{
    *out = (struct chat_answer){.seed = seed, .result = {.finish = model.finish, .n_prompt = 10, .n_generated = 3}};
    model.seed = seed;
    model.n_calls++;
    assert_string_equal(conversation_last_role(&chat->conversation), "user");
    if (model.status != M40LLM_OK) {
        *err = (m40llm_error){model.status, "the reason"};
        return model.status;
    }
    assert_true(m40_buf_append(&out->text, model.text, strlen(model.text)));
    assert_true(m40_buf_append(&out->thought, model.thought, strlen(model.thought)));
    return M40LLM_OK;
}

static void sink_end(void *user)
{
    (void)user;
}

struct session {
    struct chat chat;
    char *said;
    size_t n_said;
};

static void begin(struct session *s, const char *system)
{
    static const char *const argv[] = {"run", "MODEL", NULL};
    static const struct cli_command command = {"run", CMD_RUN, "", "", NULL, 1, 2};
    struct cli_settings settings;

    memset(&model, 0, sizeof model);
    model.text = "Yes.";
    model.thought = "";
    assert_int_equal(cli_parse(&settings, &command, 2, (char **)(uintptr_t)argv), CLI_OK);
    settings.system = system;
    settings.seed = 100;
    settings.has_seed = true;
    assert_int_equal(chat_open(&s->chat, &settings), CLI_OK);
    s->chat.sink.end = sink_end;
    s->chat.say = open_memstream(&s->said, &s->n_said);
}

static void finish(struct session *s)
{
    fclose(s->chat.say);
    free(s->said);
    chat_close(&s->chat);
}

/* Carries the line out; what it said until the next call. */
static const char *say(struct session *s, const char *line)
{
    static char *said;

    rewind(s->chat.say);
    assert_int_equal(chat_line(&s->chat, m40_str_from(line)), CHAT_GO_ON);
    fputc(0, s->chat.say);
    fflush(s->chat.say);
    free(said);
    said = strdup(s->said);
    return said;
}

static void expect_said(struct session *s, const char *line, const char *needle)
{
    const char *said = say(s, line);

    if (!strstr(said, needle))
        fail_msg("'%s' said '%s', not '%s'", line, said, needle);
}

/* The conversation as "role: content|". */
static void expect_conversation(const struct session *s, const char *wanted)
{
    char text[4096] = "";
    json_t *message;
    size_t i, at = 0;

    json_array_foreach(s->chat.conversation.messages, i, message)
    {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s: %s|", json_string_value(json_object_get(message, "role")),
                               json_string_value(json_object_get(message, "content")));
    }
    assert_string_equal(text, wanted);
}

/* ---- lines ---- */

static void lines_become_messages(void **state)
{
    static const struct {
        const char *lines[5];
        const char *message; /* NULL: it is not at its end */
    } cases[] = {
        {{"hello"}, "hello"},
        {{""}, ""},
        {{"a\\", "b"}, "a\nb"},
        {{"a\\\\"}, "a\\\\"},
        {{"a\\\\\\", "b"}, "a\\\\\nb"},
        {{"\\", ""}, "\n"},
        {{"a\\"}, NULL},
        {{"\"\"\"", "a", "b", "\"\"\""}, "a\nb"},
        {{"\"\"\"a", "", "b\\", "c\"\"\""}, "a\n\nb\\\nc"},
        {{"\"\"\"one\"\"\""}, "one"},
        {{"\"\"\"\"\"\""}, ""},
        {{"\"\"\"", "\"\"\""}, ""},
        {{"\"\"\"", "a"}, NULL},
        {{"\"\"\"", "/exit", "\"\"\""}, "/exit"},
        {{"\"\""}, "\"\""},
        {{"say \"\"\"x"}, "say \"\"\"x"},
        {{"pasted\nlines\\\nof text"}, "pasted\nlines\\\nof text"},
        {{"\"\"\"pasted\nlines\"\"\""}, "pasted\nlines"},
        {{"pasted\nlines\\", "more"}, "pasted\nlines\nmore"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_input in = {0};
        enum chat_input_state now = INPUT_MORE;

        for (size_t k = 0; k < 5 && cases[i].lines[k]; k++) {
            assert_int_equal(now, INPUT_MORE);
            now = chat_input_line(&in, m40_str_from(cases[i].lines[k]));
        }
        assert_int_equal(now, cases[i].message ? INPUT_DONE : INPUT_MORE);
        if (cases[i].message) {
            assert_int_equal(in.text.n_bytes, strlen(cases[i].message));
            assert_string_equal(in.text.n_bytes ? in.text.data : "", cases[i].message);
        }
        chat_input_reset(&in);
    }
}

static void commands_are_told_from_messages(void **state)
{
    static const struct {
        const char *text;
        enum chat_command_id id;
        const char *argument;
    } cases[] = {
        {"/help", CHAT_HELP, ""},
        {"/?", CHAT_HELP, ""},
        {"/system  be  brief ", CHAT_SYSTEM, "be  brief"},
        {"/system one\ntwo", CHAT_SYSTEM, "one\ntwo"},
        {"/SET a", CHAT_UNKNOWN, "a"},
        {"/sets", CHAT_UNKNOWN, ""},
        {"/etc/passwd is a file", CHAT_UNKNOWN, "is a file"},
        {"/foo\nbar", CHAT_MESSAGE, "/foo\nbar"},
        {"/exit\nthe ship", CHAT_MESSAGE, "/exit\nthe ship"},
        {"//foo", CHAT_MESSAGE, "//foo"},
        {"/* a comment */", CHAT_MESSAGE, "/* a comment */"},
        {"/", CHAT_MESSAGE, "/"},
        {" /help", CHAT_MESSAGE, " /help"},
        {"/2", CHAT_MESSAGE, "/2"},
        {"", CHAT_MESSAGE, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_command c = chat_read_command(m40_str_from(cases[i].text));

        if (c.id != cases[i].id || !m40_str_equal(c.argument, m40_str_from(cases[i].argument)))
            fail_msg("'%s': command %d, '%.*s'", cases[i].text, c.id, (int)c.argument.n_bytes, c.argument.data);
    }
    for (const char *const *name = chat_command_names(); *name; name++) {
        assert_int_not_equal(chat_read_command(m40_str_from(*name)).id, CHAT_UNKNOWN);
        assert_true(strcmp(*name, "/?") == 0 || strstr(chat_command_help(), *name));
    }
}

/* ---- conversations ---- */

static void a_conversation_grows_and_shrinks(void **state)
{
    struct session s;

    (void)state;
    begin(&s, NULL);
    expect_said(&s, "/undo", "nothing to take back");
    expect_said(&s, "/regen", "no message to answer");
    expect_said(&s, "/show", "Nothing was said");
    expect_said(&s, "Hello", "3 tokens");
    assert_int_equal(model.seed, 100);
    model.text = "No.";
    say(&s, "Really?");
    assert_int_equal(model.seed, 101);
    expect_conversation(&s, "user: Hello|assistant: Yes.|user: Really?|assistant: No.|");
    model.text = "Perhaps.";
    say(&s, "/regen");
    assert_int_equal(model.seed, 102); /* else the same answer came again */
    expect_conversation(&s, "user: Hello|assistant: Yes.|user: Really?|assistant: Perhaps.|");
    expect_said(&s, "/undo", "Really?");
    expect_conversation(&s, "user: Hello|assistant: Yes.|");
    expect_said(&s, "/system Be brief.", "whole conversation");
    expect_conversation(&s, "system: Be brief.|user: Hello|assistant: Yes.|");
    expect_said(&s, "/show", "assistant: Yes.");
    expect_said(&s, "/system", "Be brief.");
    say(&s, "/clear");
    expect_conversation(&s, "system: Be brief.|");
    say(&s, "/system \"\"");
    expect_conversation(&s, "");
    expect_said(&s, "/system", "no system prompt");
    assert_int_equal(chat_line(&s.chat, m40_str_from("/exit")), CHAT_LEAVE);
    finish(&s);
    begin(&s, "From the start.");
    expect_conversation(&s, "system: From the start.|");
    finish(&s);
}

static void nothing_is_lost_when_no_answer_comes(void **state)
{
    struct session s;

    (void)state;
    begin(&s, NULL);
    say(&s, "Hello");
    model.status = M40LLM_CONTEXT_FULL;
    expect_said(&s, "A long one", "left out");
    expect_conversation(&s, "user: Hello|assistant: Yes.|");
    model.status = M40LLM_TEMPLATE;
    expect_said(&s, "Another", "m40llm: the chat template: the reason");
    expect_said(&s, "/regen", "the reason");
    expect_conversation(&s, "user: Hello|assistant: Yes.|");
    model.status = M40LLM_OK;
    model.finish = M40LLM_FINISH_CANCELLED;
    model.text = "";
    expect_said(&s, "Stopped at once", "stopped");
    say(&s, "/regen");
    expect_conversation(&s, "user: Hello|assistant: Yes.|");
    model.text = "Half an";
    expect_said(&s, "Stopped on its way", "stopped");
    expect_conversation(&s, "user: Hello|assistant: Yes.|user: Stopped on its way|assistant: Half an|");
    expect_said(&s, "\xff\xfe", "not UTF-8");
    expect_said(&s, "/system \xff", "not UTF-8");
    expect_conversation(&s, "user: Hello|assistant: Yes.|user: Stopped on its way|assistant: Half an|");
    model.n_calls = 0;
    say(&s, "");
    say(&s, " \n\t");
    assert_int_equal(model.n_calls, 0);
    finish(&s);
}

static void thoughts_are_kept_apart(void **state)
{
    struct session s;
    json_t *answer;

    (void)state;
    begin(&s, NULL);
    model.thought = "Well...";
    say(&s, "Hello");
    expect_conversation(&s, "user: Hello|assistant: Yes.|");
    answer = json_array_get(s.chat.conversation.messages, 1);
    assert_string_equal(json_string_value(json_object_get(answer, "reasoning_content")), "Well...");
    finish(&s);
}

/* ---- settings ---- */

static void settings_are_changed_and_checked(void **state)
{
    struct session s;

    (void)state;
    begin(&s, NULL);
    say(&s, "/set temperature 0.5");
    assert_true(s.chat.settings.temp == 0.5f);
    say(&s, "/set temp=0.25");
    assert_true(s.chat.settings.temp == 0.25f);
    say(&s, "/set top_k 7");
    assert_int_equal(s.chat.settings.top_k, 7);
    expect_said(&s, "/set", "0.25");
    expect_said(&s, "/set", "what the context has room for");
    say(&s, "/set max-tokens 9");
    assert_true(s.chat.settings.has_n && s.chat.settings.n == 9);
    say(&s, "Hello");
    say(&s, "/set seed 7");
    say(&s, "Hello");
    assert_int_equal(model.seed, 7);
    say(&s, "/set think off");
    assert_int_equal(s.chat.think, CHAT_THINK_OFF);
    expect_said(&s, "/set think perhaps", "on, off, or auto");
    expect_said(&s, "/set temperature hot", "not a number");
    expect_said(&s, "/set temperature -1", "from 0");
    expect_said(&s, "/set top-p 2", "to 1");
    expect_said(&s, "/set top-k -1", "whole number");
    expect_said(&s, "/set temperature", "needs a value");
    expect_said(&s, "/set device cuda", "no setting 'device'");
    expect_said(&s, "/set system x", "no setting");
    assert_true(s.chat.settings.temp == 0.25f);
    expect_said(&s, "/stats", "messages");
    expect_said(&s, "/undo 3", "nothing behind it");
    expect_said(&s, "/frobnicate", "'/frobnicate'");
    finish(&s);
}

/* ---- files ---- */

static const char *tmp(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", test_tmp_dir(), name);
    return path;
}

static void conversations_are_saved_and_loaded(void **state)
{
    struct session s;
    struct stat info;
    char line[600];

    (void)state;
    begin(&s, "Be brief.");
    expect_said(&s, "/save", "needs a file's name");
    expect_said(&s, "/load", "needs a file's name");
    expect_said(&s, "/load -", "needs a file's name");
    model.thought = "Hm.";
    say(&s, "Gr\xc3\xbc\xc3\x9f"
            "e\n\"you\"");
    snprintf(line, sizeof line, "/save %s", tmp("chat.json"));
    expect_said(&s, line, "2 messages saved");
    assert_true(stat(tmp("chat.json"), &info) == 0 && (info.st_mode & 0777) == 0600);
    expect_said(&s, "/save", "2 messages saved"); /* its own file */
    say(&s, "/clear");
    say(&s, "/system \"\"");
    expect_said(&s, "/load", "2 messages loaded");
    expect_conversation(&s, "system: Be brief.|user: Gr\xc3\xbc\xc3\x9f"
                            "e\n\"you\"|assistant: Yes.|");
    assert_non_null(json_object_get(json_array_get(s.chat.conversation.messages, 2), "reasoning_content"));
    finish(&s);
    begin(&s, NULL);
    expect_said(&s, line, "not overwritten");
    snprintf(line, sizeof line, "/save %s", tmp("no/such/folder"));
    expect_said(&s, line, "No such file");
    expect_said(&s, "/save /dev/full", "not overwritten");
    snprintf(line, sizeof line, "/load %s", tmp("none.json"));
    say(&s, line); /* cli_read_file says why */
    expect_conversation(&s, "");
    finish(&s);
}

static void bad_conversations_are_refused(void **state)
{
    static const struct {
        const char *json, *why;
    } cases[] = {
        {"", "line 1"},
        {"[", "line 1"},
        {"{}", "no conversation"},
        {"3", "line 1"},
        {"{\"messages\": {}}", "no conversation"},
        {"[3]", "message 1: its role"},
        {"[{\"role\": \"user\"}]", "message 1: its content"},
        {"[{\"role\": \"user\", \"content\": []}]", "message 1: its content"},
        {"[{\"role\": \"tool\", \"content\": \"x\"}]", "message 1: its role is not user or assistant, nor system"},
        {"[{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"system\", \"content\": \"x\"}]", "message 2: its role"},
        {"[{\"role\": \"assistant\", \"content\": \"x\", \"reasoning_content\": 3}]", "message 1: its content"},
        {"[{\"role\": \"user\", \"content\": \"\xff\"}]", "line 1"},
    };
    char *deep = calloc(1, 100001), why[256];
    struct conversation c;

    (void)state;
    assert_true(conversation_open(&c) && conversation_ask(&c, m40_str_from("kept")));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(conversation_read(&c, m40_str_from(cases[i].json), why, sizeof why));
        if (!strstr(why, cases[i].why))
            fail_msg("%s: '%s'", cases[i].json, why);
    }
    memset(deep, '[', 100000);
    assert_false(conversation_read(&c, m40_str_from(deep), why, sizeof why));
    free(deep);
    assert_int_equal(conversation_length(&c), 1);
    assert_true(conversation_read(&c, m40_str_from("[{\"role\": \"user\", \"content\": \"a\", \"name\": 1}]"), why, sizeof why));
    assert_string_equal(conversation_last_role(&c), "user");
    conversation_close(&c);
}

/* ---- history ---- */

struct entries {
    char text[8192];
    size_t n_bytes;
};

static void gather(void *user, const char *text)
{
    struct entries *e = user;

    e->n_bytes += (size_t)snprintf(e->text + e->n_bytes, sizeof e->text - e->n_bytes, "%.50s|", text);
}

static void history_is_private_and_exact(void **state)
{
    char path[600], why[512], *found;
    struct entries e = {0};
    struct stat info;
    FILE *f;

    (void)state;
    found = chat_history_path("/state", "/home/x");
    assert_string_equal(found, "/state/m40llm/history");
    free(found);
    found = chat_history_path("relative", "/home/x");
    assert_string_equal(found, "/home/x/.local/state/m40llm/history");
    free(found);
    assert_null(chat_history_path(NULL, NULL));
    snprintf(path, sizeof path, "%s", tmp("a/b/history"));
    f = chat_history_open(path, why, sizeof why);
    assert_non_null(f);
    chat_history_add(f, "one");
    chat_history_add(f, "two\nlines \\ and \\n");
    fclose(f);
    assert_true(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    assert_true(stat(tmp("a/b"), &info) == 0 && (info.st_mode & 0777) == 0700);
    chmod(path, 0644);
    f = chat_history_open(path, why, sizeof why);
    assert_true(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
    assert_int_equal(chat_history_read(f, gather, &e), 2);
    assert_string_equal(e.text, "one|two\nlines \\ and \\n|");
    chat_history_add(f, "three");
    fclose(f);
    f = chat_history_open(path, why, sizeof why);
    e = (struct entries){0};
    assert_int_equal(chat_history_read(f, gather, &e), 3);
    fclose(f);
}

static void history_is_bounded(void **state)
{
    char path[600], why[512], number[16];
    struct entries e = {0};
    FILE *f;
    size_t n;

    (void)state;
    snprintf(path, sizeof path, "%s", tmp("long"));
    f = chat_history_open(path, why, sizeof why);
    for (int i = 0; i < CHAT_HISTORY_LINES + 5; i++) {
        snprintf(number, sizeof number, "%d", i);
        chat_history_add(f, number);
    }
    n = chat_history_read(f, gather, &e);
    assert_int_equal(n, CHAT_HISTORY_LINES + 5);
    chat_history_shorten(f, n);
    e = (struct entries){0};
    assert_int_equal(chat_history_read(f, gather, &e), CHAT_HISTORY_LINES / 2);
    assert_memory_equal(e.text, "505|506|", 8);
    chat_history_add(f, "last");
    assert_int_equal(chat_history_read(f, gather, &e), CHAT_HISTORY_LINES / 2 + 1);
    fclose(f);
    assert_int_equal(truncate(path, CHAT_HISTORY_MAX_BYTES + 1), 0);
    assert_null(chat_history_open(path, why, sizeof why));
    assert_non_null(strstr(why, "too large"));
    assert_null(chat_history_open(test_tmp_dir(), why, sizeof why));
    assert_null(chat_history_open("/dev/null", why, sizeof why));
    assert_non_null(strstr(why, "not a plain file"));
    assert_int_equal(mkfifo(tmp("pipe"), 0600), 0);
    assert_null(chat_history_open(tmp("pipe"), why, sizeof why));
}

/* ---- the screen ---- */

static void expect_screen(bool is_terminal, bool has_style, const char *const *pieces, const char *wanted)
{
    char *shown;
    size_t n;
    struct chat_screen screen = {.out = open_memstream(&shown, &n), .is_terminal = is_terminal, .has_style = has_style};

    for (; *pieces; pieces++)
        assert_true(chat_screen_text(&screen, **pieces == '?', *pieces + 1, strlen(*pieces) - 1));
    assert_true(chat_screen_end(&screen));
    fclose(screen.out);
    assert_string_equal(shown, wanted);
    free(shown);
}

#define PIECES(...)                                                                                                                                  \
    (const char *const[])                                                                                                                            \
    {                                                                                                                                                \
        __VA_ARGS__, NULL                                                                                                                            \
    }

static void answers_show_as_they_should(void **state)
{
    (void)state;
    expect_screen(true, true, PIECES("=a", "=b"), "ab\n");
    expect_screen(true, true, PIECES("=a\n"), "a\n");
    expect_screen(true, true, PIECES("?hm", "?m", "=yes"), "\033[2mhmm\n\033[0m\nyes\n");
    expect_screen(true, false, PIECES("?hm", "=yes"), "<think>\nhm\n</think>\n\nyes\n");
    expect_screen(true, true, PIECES("?hm"), "\033[2mhm\n\033[0m");
    expect_screen(false, false, PIECES("?hm"), "<think>\nhm\n</think>\n");
    expect_screen(true, true,
                  PIECES("=a\033]0;title\007b\rc\td\xc2\x9b"
                         "e\x7f\xc3\xa9"),
                  "a]0;titlebc\tde\xc3\xa9\n");
    expect_screen(false, false, PIECES("=a\033[1mb"), "a\033[1mb\n"); /* a file gets what the model wrote */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_messages),
        cmocka_unit_test(commands_are_told_from_messages),
        cmocka_unit_test(a_conversation_grows_and_shrinks),
        cmocka_unit_test(nothing_is_lost_when_no_answer_comes),
        cmocka_unit_test(thoughts_are_kept_apart),
        cmocka_unit_test(settings_are_changed_and_checked),
        cmocka_unit_test(conversations_are_saved_and_loaded),
        cmocka_unit_test(bad_conversations_are_refused),
        cmocka_unit_test(history_is_private_and_exact),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(answers_show_as_they_should),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
