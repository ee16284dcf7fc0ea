#include "engine/sequence.h"
#include "backend/backend.h"
#include "base/mem.h"

#include <string.h>

m40llm_status m40_sequence_start(struct m40_sequence *s, uint64_t id, const int32_t *prompt, size_t n_prompt, uint32_t n_ctx, size_t n_vocab,
                                 const m40llm_request_options *options, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint64_t capacity = (uint64_t)n_prompt + options->n_max_tokens;

    s->options = *options;
    s->capacity = (uint32_t)(capacity < n_ctx + 1u ? capacity : n_ctx + 1u); /* the last token of a full context is chosen but not evaluated */
    s->n_prompt = s->n_tokens = (uint32_t)n_prompt;
    s->n_evaluated = s->n_generated = s->n_pages = 0;
    s->finish = M40LLM_FINISH_NONE;
    s->started_ns = s->first_token_ns = s->last_token_ns = 0;
    s->tokens = m40_calloc(s->capacity, sizeof *s->tokens);
    M40_FAIL_IF(!s->tokens, M40LLM_NO_MEMORY, "request of %u tokens", s->capacity);
    memcpy(s->tokens, prompt, n_prompt * sizeof *prompt);
    M40_TRY(m40_sampler_init(&s->sampler, &options->sampling, n_vocab, err));
    atomic_store(&s->cancel_id, 0);
    atomic_store(&s->id, id);
    return M40LLM_OK;
fail:
    m40_sequence_forget(s);
    return status;
}

bool m40_sequence_grow(struct m40_sequence *s, struct m40_page_pool *pool, uint32_t n_tokens)
{
    while (s->n_pages * M40_KV_PAGE < n_tokens) {
        int32_t page = m40_page_take(pool);

        if (page < 0)
            return false;
        s->pages[s->n_pages++] = page;
    }
    return true;
}

void m40_sequence_end(struct m40_sequence *s, struct m40_page_pool *pool, m40llm_finish finish)
{
    while (s->n_pages > 0)
        m40_page_release(pool, s->pages[--s->n_pages]);
    s->finish = finish;
}

void m40_sequence_forget(struct m40_sequence *s)
{
    atomic_store(&s->id, 0);
    m40_sampler_free(&s->sampler);
    m40_free(s->tokens);
    s->tokens = NULL;
}
