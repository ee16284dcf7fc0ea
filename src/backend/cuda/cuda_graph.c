/* Steps that come again: the first time a step is issued as it is, the second time it is captured into a graph, from then on one call issues all of it. Not captured at once because many
 * shapes come only once, and because a driver may still be loading a kernel that never ran. */
#include "backend/cuda/cuda_internal.h"

#include <assert.h>
#include <string.h>

static void forget(struct m40_cuda *c, struct m40_cuda_step *step)
{
    struct m40_cuda_steps *s = &c->steps;

    if (step->exec)
        c->driver->GraphExecDestroy(step->exec);
    m40_cuda_resident_forget(c, step);
    *step = s->items[--s->n];
    s->recording = NULL;
}

void m40_cuda_forget_steps(struct m40_cuda *c)
{
    while (c->steps.n > 0)
        forget(c, &c->steps.items[c->steps.n - 1]);
}

static bool is_same(const struct m40_step_key *a, const struct m40_step_key *b)
{
    return a->owner == b->owner && a->n_tokens == b->n_tokens && a->n_logits == b->n_logits && a->max_pos == b->max_pos &&
           a->is_greedy == b->is_greedy;
}

struct m40_cuda_step *m40_cuda_find_step(struct m40_cuda *c, const struct m40_step_key *key)
{
    for (uint32_t i = 0; i < c->steps.n; i++)
        if (is_same(&c->steps.items[i].key, key))
            return &c->steps.items[i];
    return NULL;
}

void m40_cuda_step_used(struct m40_cuda *c, struct m40_cuda_step *step)
{
    step->last_used = ++c->steps.clock;
}

/* Room for one more: the step that was not used for longest goes. */
static m40llm_status make_room(struct m40_cuda *c, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda_step *oldest = &c->steps.items[0];

    if (c->steps.n < M40_CUDA_N_STEPS)
        return M40LLM_OK;
    for (uint32_t i = 1; i < c->steps.n; i++)
        if (c->steps.items[i].last_used < oldest->last_used)
            oldest = &c->steps.items[i];
    M40_TRY(m40_cuda_sync(&c->base, err)); /* it may be running */
    forget(c, oldest);
fail:
    return status;
}

static m40llm_status launch_step(struct m40_cuda *c, const struct m40_cuda_step *step, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_TRY(m40_cuda_check(c, c->driver->GraphLaunch(step->exec, c->stream), "launching a recorded step", err));
    c->counters.n_graph_launches++;
fail:
    return status;
}

m40llm_status m40_cuda_step_begin(struct m40_backend *be, const struct m40_step_key *key, bool *out_is_issued, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_step *step = m40_cuda_find_step(c, key);

    assert(!c->steps.recording);
    *out_is_issued = false;
    M40_TRY(m40_cuda_enter(c, err));
    if (!step) {
        M40_TRY(make_room(c, err));
        c->steps.items[c->steps.n++] = (struct m40_cuda_step){.key = *key, .last_used = ++c->steps.clock};
        return M40LLM_OK;
    }
    m40_cuda_step_used(c, step);
    if (step->exec) {
        M40_TRY(launch_step(c, step, err));
        *out_is_issued = true;
        return M40LLM_OK;
    }
    M40_TRY(m40_cuda_check(c, c->driver->StreamBeginCapture(c->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "recording a step", err));
    c->steps.recording = step;
    m40_cuda_resident_begin(c);
fail:
    return status;
}

m40llm_status m40_cuda_step_end(struct m40_backend *be, bool is_whole, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_cuda *c = m40_cuda_of(be);
    struct m40_cuda_step *step = c->steps.recording;
    CUgraph graph = NULL;
    CUresult result;

    if (!step)
        return M40LLM_OK;
    M40_TRY(m40_cuda_enter(c, err));
    result = c->driver->StreamEndCapture(c->stream, &graph);
    c->steps.recording = NULL;
    if (is_whole) {
        M40_TRY(m40_cuda_check(c, result, "recording a step", err));
        M40_TRY(m40_cuda_check(c, c->driver->GraphInstantiate(&step->exec, graph, 0), "preparing a recorded step", err));
        M40_TRY(m40_cuda_resident_end(c, step, err));
        M40_TRY(launch_step(c, step, err));
    } else {
        forget(c, step);
    }
    if (graph)
        c->driver->GraphDestroy(graph);
    return M40LLM_OK;
fail:
    if (graph)
        c->driver->GraphDestroy(graph);
    forget(c, step);
    return status;
}
