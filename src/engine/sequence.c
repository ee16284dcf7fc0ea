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
    s->tokens = m40_calloc(s->capacity, sizeof *s->tokens);
    M40_FAIL_IF(!s->tokens, M40LLM_NO_MEMORY, "request of %u tokens", s->capacity);
    memcpy(s->tokens, prompt, n_prompt * sizeof *prompt);
fail:
    return status;
}

void m40_sequence_free(struct m40_sequence *s)
{
    m40_sampler_free(&s->sampler);
    m40_answer_free(&s->answer);
    m40_free(s->tokens);
    s->tokens = NULL;
}
