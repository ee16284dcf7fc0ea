#include "chat_tokens.h"

#include <stdlib.h>

static m40llm_status no_memory(m40llm_error *err)
{
    *err = (m40llm_error){M40LLM_NO_MEMORY, "out of memory"};
    return M40LLM_NO_MEMORY;
}

static bool is_control(const m40llm_tokenizer *tokenizer, int32_t id)
{
    char text[1024];
    size_t n_plain = 0, n_all = 0;

    return m40llm_detokenize(tokenizer, &id, 1, 0, text, sizeof text, &n_plain, NULL) == M40LLM_OK && n_plain == 0 &&
           m40llm_detokenize(tokenizer, &id, 1, M40LLM_DETOKENIZE_SPECIAL, text, sizeof text, &n_all, NULL) == M40LLM_OK && n_all > 0;
}

static bool reserve(struct chat_tokens *t, size_t n_more)
{
    size_t capacity = t->n_ids_capacity ? t->n_ids_capacity : 1024;
    int32_t *grown;

    while (capacity < t->n_ids + n_more)
        capacity *= 2;
    if (capacity == t->n_ids_capacity)
        return true;
    grown = realloc(t->ids, capacity * sizeof *grown);
    if (!grown)
        return false;
    t->ids = grown;
    t->n_ids_capacity = capacity;
    return true;
}

bool chat_tokens_add(struct chat_tokens *t, int32_t id, struct m40_str text)
{
    if ((id >= 0 && !reserve(t, 1)) || (text.n_bytes && !m40_buf_append(&t->text, text.data, text.n_bytes)))
        return false;
    if (id >= 0)
        t->ids[t->n_ids++] = id;
    return true;
}

bool chat_tokens_mark(struct chat_tokens *t)
{
    struct chat_mark *grown = realloc(t->marks, (t->n_marks + 1) * sizeof *grown);

    if (!grown)
        return false;
    t->marks = grown;
    t->marks[t->n_marks++] = (struct chat_mark){t->text.n_bytes, t->n_ids};
    return true;
}

static void go_back(struct chat_tokens *t, struct chat_mark to)
{
    t->text.n_bytes = to.n_bytes;
    t->n_ids = to.n_ids;
    while (t->n_marks && t->marks[t->n_marks - 1].n_bytes > to.n_bytes)
        t->n_marks--;
}

/* Appends the ids of the prompt's rest behind the mark; *fits: it may be tokenized by itself. */
static m40llm_status try_rest(struct chat_tokens *t, const m40llm_tokenizer *tokenizer, struct m40_str prompt, struct chat_mark mark, bool *fits,
                              m40llm_error *err)
{
    const size_t n_rest = prompt.n_bytes - mark.n_bytes;
    m40llm_status status;
    size_t n_new = 0;

    t->n_ids = mark.n_ids;
    if (!reserve(t, n_rest + 8))
        return no_memory(err);
    status = m40llm_tokenize(tokenizer, prompt.data + mark.n_bytes, n_rest, M40LLM_TOKENIZE_SPECIAL, t->ids + t->n_ids, n_rest + 8, &n_new, err);
    *fits = mark.n_bytes == 0 || n_rest == 0 || (status == M40LLM_OK && n_new && is_control(tokenizer, t->ids[t->n_ids]));
    if (status == M40LLM_OK && *fits)
        t->n_ids += n_new;
    return status;
}

m40llm_status chat_tokens_prompt(struct chat_tokens *t, const m40llm_tokenizer *tokenizer, struct m40_str prompt, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    size_t n_same = 0;
    bool fits = false;

    while (n_same < prompt.n_bytes && n_same < t->text.n_bytes && prompt.data[n_same] == t->text.data[n_same])
        n_same++;
    while (t->n_marks && t->marks[t->n_marks - 1].n_bytes > n_same)
        t->n_marks--;
    while (status == M40LLM_OK && !fits) {
        struct chat_mark mark = t->n_marks ? t->marks[t->n_marks - 1] : (struct chat_mark){0};

        status = try_rest(t, tokenizer, prompt, mark, &fits, err);
        if (status == M40LLM_OK && fits)
            t->text.n_bytes = mark.n_bytes;
        else if (t->n_marks)
            t->n_marks--;
    }
    if (status == M40LLM_OK &&
        (!chat_tokens_add(t, -1, (struct m40_str){prompt.data + t->text.n_bytes, prompt.n_bytes - t->text.n_bytes}) || !chat_tokens_mark(t)))
        status = no_memory(err);
    if (status != M40LLM_OK)
        go_back(t, (struct chat_mark){0});
    return status;
}

void chat_tokens_free(struct chat_tokens *t)
{
    m40_buf_free(&t->text);
    free(t->ids);
    free(t->marks);
    *t = (struct chat_tokens){0};
}
