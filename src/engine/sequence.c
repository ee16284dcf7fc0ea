#include "engine/sequence.h"
#include "base/mem.h"

#include <string.h>

m40llm_status m40_sequence_init(struct m40_sequence *s, const int32_t *prompt, uint32_t n_prompt, uint32_t n_max_tokens, uint32_t n_ctx,
                                m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t capacity = (uint64_t)n_prompt + n_max_tokens;

    s->capacity = (uint32_t)(capacity < n_ctx + 1u ? capacity : n_ctx + 1u); /* the last token of a full context is chosen but not evaluated */
    s->n_prompt = s->n_tokens = n_prompt;
    s->prompt = prompt;
    s->generated = m40_calloc(s->capacity - n_prompt, sizeof *s->generated);
    M40_FAIL_IF(!s->generated, M40LLM_NO_MEMORY, "request of %u tokens", s->capacity);
fail:
    return status;
}

const int32_t *m40_sequence_page(const struct m40_sequence *s, uint32_t i, int32_t *copy)
{
    uint32_t first = i * M40_KV_PAGE, n = s->n_prompt - first;

    if (first + M40_KV_PAGE <= s->n_prompt)
        return s->prompt + first;
    if (first >= s->n_prompt)
        return s->generated + (first - s->n_prompt);
    memcpy(copy, s->prompt + first, n * sizeof *copy);
    memcpy(copy + n, s->generated, (M40_KV_PAGE - n) * sizeof *copy);
    return copy;
}

void m40_sequence_free(struct m40_sequence *s)
{
    m40_sampler_free(&s->sampler);
    m40_answer_free(&s->answer);
    m40_free(s->generated);
    s->generated = NULL;
}
