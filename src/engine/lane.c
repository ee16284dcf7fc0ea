/* Prompts beside the steps: on a stream of their own that gives way to that of the answers (m40llm_prefill). The lane is given rows that nobody wants anything of but their K and V; while they are under
 * way, steps go on without their sequences. Order between the two comes from the host alone: what the lane reads was done before it is given it, and what it writes is used once it is seen to be done. */
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_internal.h"

m40llm_status m40_engine_open_lane(struct m40_engine *e, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t n_tokens = e->info.n_chunk;

    e->lane_ids = m40_calloc(n_tokens, sizeof *e->lane_ids);
    e->lane_pos = m40_calloc(n_tokens, sizeof *e->lane_pos);
    e->lane_slot = m40_calloc(n_tokens, sizeof *e->lane_slot);
    M40_FAIL_IF(!e->lane_ids || !e->lane_pos || !e->lane_slot, M40LLM_NO_MEMORY, "lane of %u tokens", n_tokens);
    M40_TRY(m40_forward_open_lane(&e->lane, e->forward, n_tokens, err));
    e->info.other_bytes += m40_forward_lane_memory(&e->model->config, &e->limits, n_tokens);
fail:
    return status;
}

void m40_engine_close_lane(struct m40_engine *e)
{
    m40_forward_close(&e->lane);
    m40_free(e->lane_ids);
    m40_free(e->lane_pos);
    m40_free(e->lane_slot);
}

/* All requests that have rows in it: the cache's state is not known. */
static void fail_lane(struct m40_engine *e, const m40llm_error *error)
{
    uint32_t n = e->scheduler.n_lane_items;

    m40_scheduler_lane_done(&e->scheduler, false);
    for (uint32_t i = 0; i < n; i++) {
        struct m40_request *r = e->scheduler.lane_items[i].sequence->request;

        if (r->error.code == M40LLM_OK)
            r->error = *error;
        m40_engine_end_request(e, r, M40LLM_FINISH_ERROR);
    }
}

static void finish_lane(struct m40_engine *e)
{
    uint32_t n = e->scheduler.n_lane_items, n_rows = 0;

    m40_scheduler_lane_done(&e->scheduler, true);
    for (uint32_t i = 0; i < n; i++) {
        n_rows += e->scheduler.lane_items[i].n_rows;
        m40_engine_tell_prefill(e, e->scheduler.lane_items[i].sequence);
    }
    if (!e->lane_had_company)
        return;
    e->working.n_mixed_steps++;
    e->working.n_mixed_prompt_tokens += n_rows;
    e->working.mixed_step_ns += m40_now_ns() - e->lane_start_ns;
}

void m40_engine_settle(struct m40_engine *e, bool wait)
{
    m40llm_error error;
    bool is_done;

    if (!e->is_lane_busy)
        return;
    if (m40_forward_lane_is_done(e->lane, wait, &is_done, &error) != M40LLM_OK) {
        e->is_lane_busy = false;
        fail_lane(e, &error);
    } else if (is_done) {
        e->is_lane_busy = false;
        finish_lane(e);
    }
}

void m40_engine_start_lane(struct m40_engine *e)
{
    struct m40_batch batch = {.ids = e->lane_ids, .pos = e->lane_pos, .slot = e->lane_slot, .pages = e->scheduler.page_table};
    m40llm_error error;
    bool is_done;

    e->lane_start_ns = m40_now_ns();
    for (uint32_t i = 0; i < e->scheduler.n_lane_items; i++) {
        struct m40_sequence *s = e->scheduler.lane_items[i].sequence;

        if (s->started_ns == 0)
            s->started_ns = e->lane_start_ns;
        for (uint32_t k = 0; k < e->scheduler.lane_items[i].n_rows; k++) {
            uint32_t pos = s->n_evaluated + k, row = batch.n_tokens++;

            e->lane_ids[row] = m40_sequence_token(s, pos);
            e->lane_pos[row] = (int32_t)pos;
            e->lane_slot[row] = (int32_t)s->slot;
        }
    }
    e->lane_had_company = false;
    e->is_lane_busy = true;
    if (m40_forward_lane_issue(e->lane, &batch, &error) == M40LLM_OK)
        return;
    e->is_lane_busy = false;
    m40_forward_lane_is_done(e->lane, true, &is_done, NULL); /* some of it may be under way */
    e->n_lane_failed = e->scheduler.n_lane_items;
    for (uint32_t i = 0; i < e->n_lane_failed; i++)
        if (e->scheduler.lane_items[i].sequence->request->error.code == M40LLM_OK)
            e->scheduler.lane_items[i].sequence->request->error = error;
    m40_scheduler_lane_done(&e->scheduler, false);
}
