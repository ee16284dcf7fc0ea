/* How models mark their thoughts. A new pair of tags, or another name for a mark, is an entry here. */
#include "thinking.h"

#include <string.h>

const struct thinking_tags thinking_tags[THINKING_N_TAGS] = {
    {"<think>", "</think>"},                    /* Qwen 3, DeepSeek R1, SmolLM 3 and most others */
    {"[THINK]", "[/THINK]"},                    /* Magistral, Ministral 3 */
    {"<|START_THINKING|>", "<|END_THINKING|>"}, /* Command A, Command R7B */
    {"<seed:think>", "</seed:think>"},          /* Seed-OSS */
};

/* Harmony, gpt-oss' format. */
static const struct {
    const char *token;
    enum thinking_mark mark;
} channel_marks[] = {
    {"<|start|>", MARK_START}, {"<|channel|>", MARK_CHANNEL}, {"<|message|>", MARK_MESSAGE},
    {"<|end|>", MARK_END},     {"<|call|>", MARK_END},        {"<|return|>", MARK_END},
};
enum { N_CHANNEL_MARKS = sizeof channel_marks / sizeof *channel_marks, N_NEEDED_CHANNEL_MARKS = 4 };

_Static_assert(2 * THINKING_N_TAGS + N_CHANNEL_MARKS <= THINKING_MAX_MARKERS, "room for all");

/* The control token of this text; -1: there is none. */
static int32_t find_control(const m40llm_tokenizer *tokenizer, const char *text)
{
    int32_t id;
    size_t n_ids, n_bytes;
    char visible[1];

    if (m40llm_tokenize(tokenizer, text, strlen(text), M40LLM_TOKENIZE_SPECIAL, &id, 1, &n_ids, NULL) != M40LLM_OK || n_ids != 1)
        return -1;
    return m40llm_detokenize(tokenizer, &id, 1, 0, visible, sizeof visible, &n_bytes, NULL) == M40LLM_OK && n_bytes == 0 ? id : -1;
}

static bool add(struct thinking_markers *m, const char *text, enum thinking_mark mark)
{
    int32_t id = find_control(m->tokenizer, text);

    if (id < 0)
        return false;
    m->items[m->n].id = id;
    m->items[m->n++].mark = mark;
    return true;
}

void thinking_markers_init(struct thinking_markers *m, const m40llm_tokenizer *tokenizer)
{
    size_t n_found = 0;

    *m = (struct thinking_markers){.tokenizer = tokenizer};
    for (size_t i = 0; i < N_CHANNEL_MARKS; i++)
        n_found += add(m, channel_marks[i].token, channel_marks[i].mark) && i < N_NEEDED_CHANNEL_MARKS;
    m->has_channels = n_found == N_NEEDED_CHANNEL_MARKS;
    if (m->has_channels)
        return;
    m->n = 0; /* Phi has an <|end|>, too */
    for (size_t i = 0; i < THINKING_N_TAGS; i++) {
        add(m, thinking_tags[i].open, MARK_OPEN);
        add(m, thinking_tags[i].close, MARK_CLOSE);
    }
}

enum thinking_mark thinking_mark_of(const struct thinking_markers *m, int32_t id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->items[i].id == id)
            return m->items[i].mark;
    return MARK_NONE;
}
