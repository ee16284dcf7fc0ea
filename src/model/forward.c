/* One step of the decoder, written once as backend operations: prefill and decode are both rows. Nothing is allocated here. */
#include "model/forward_step.h"

#include "backend/sample.h"
#include "base/half.h"

#include <string.h>

/* Steps of at most this many tokens come again in the same shape: they are decoding. */
enum { MAX_RECORDED_TOKENS = 16 };

/* ---- the batch: trusted only after this ---- */

static m40llm_status check_rows(struct m40_forward *f, const struct m40_batch *b, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t n_vocab = f->model->config.n_vocab, n_ctx = f->limits.n_slot_pages * M40_KV_PAGE;

    M40_FAIL_IF(b->n_tokens < 1 || b->n_tokens > f->limits.n_tokens, M40LLM_INVALID_ARGUMENT, "a batch of %u tokens, expected 1 to %u", b->n_tokens,
                f->limits.n_tokens);
    for (uint32_t i = 0; i < f->limits.n_slots; i++)
        f->last_pos[i] = -1;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        int32_t id = b->ids[i], pos = b->pos[i], slot = b->slot[i];

        M40_FAIL_IF(id < 0 || (uint32_t)id >= n_vocab, M40LLM_INVALID_ARGUMENT, "token id %d at row %u is outside the vocabulary of %u", id, i,
                    n_vocab);
        M40_FAIL_IF(pos < 0 || (uint32_t)pos >= n_ctx, M40LLM_INVALID_ARGUMENT, "position %d at row %u is outside the context of %u", pos, i, n_ctx);
        M40_FAIL_IF(slot < 0 || (uint32_t)slot >= f->limits.n_slots, M40LLM_INVALID_ARGUMENT, "sequence %d at row %u, expected 0 to %u", slot, i,
                    f->limits.n_slots - 1);
        M40_FAIL_IF(f->last_pos[slot] >= 0 && pos != f->last_pos[slot] + 1, M40LLM_INVALID_ARGUMENT, "position %d of sequence %d follows position %d",
                    pos, slot, f->last_pos[slot]);
        f->last_pos[slot] = pos;
    }
fail:
    return status;
}

static m40llm_status check_pages(const struct m40_forward *f, const struct m40_batch *b, m40llm_error *err)
{
    for (uint32_t slot = 0; slot < f->limits.n_slots; slot++) {
        const int32_t *pages = b->pages + (uint64_t)slot * f->limits.n_slot_pages;

        for (int32_t i = 0; f->last_pos[slot] >= 0 && i <= f->last_pos[slot] / M40_KV_PAGE; i++)
            if (pages[i] < 0 || (uint32_t)pages[i] >= f->limits.n_pages)
                return m40_fail(err, M40LLM_INVALID_ARGUMENT, "page %d of sequence %u, expected 0 to %u", pages[i], slot, f->limits.n_pages - 1);
    }
    return M40LLM_OK;
}

static m40llm_status check_logit_rows(const struct m40_forward *f, const struct m40_batch *b, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    M40_FAIL_IF(b->n_logits > f->limits.n_logits, M40LLM_INVALID_ARGUMENT, "logits of %u rows, expected at most %u", b->n_logits, f->limits.n_logits);
    for (uint32_t i = 0; i < b->n_logits; i++) {
        int32_t row = b->logit_rows[i], before = i ? b->logit_rows[i - 1] : -1;

        M40_FAIL_IF(row <= before || (uint32_t)row >= b->n_tokens, M40LLM_INVALID_ARGUMENT, "logits of row %d after row %d in a batch of %u", row,
                    before, b->n_tokens);
    }
fail:
    return status;
}

/* For steps that are recorded: a bound that stays the same for a while. Pieces of attention are counted 1 to 8 one by one, then in steps of a quarter of the power of two below; where prompts go on,
 * in powers of two, since they move on fast, and recording takes as long as several steps. */
static uint32_t round_up_pos(const struct m40_forward *f, uint32_t max_pos, bool has_prompts)
{
    uint32_t n_pieces = max_pos / M40_ATTN_PIECE + 1, unit = 1, n_ctx = f->limits.n_slot_pages * M40_KV_PAGE;

    while (n_pieces > (has_prompts ? 1 : 8) * unit)
        unit *= 2;
    n_pieces = (n_pieces + unit - 1) / unit * unit;
    return n_pieces * M40_ATTN_PIECE < n_ctx ? n_pieces * M40_ATTN_PIECE - 1 : n_ctx - 1;
}

/* Rows at the beginning whose sequences have no row beside them: those that decode. */
static uint32_t leading_single_rows(const struct m40_batch *b)
{
    uint32_t n = 0;

    while (n < b->n_tokens && (n + 1 == b->n_tokens || b->slot[n + 1] != b->slot[n]))
        n++;
    return n;
}

static bool is_recorded(const struct m40_step *s)
{
    return s->f->backend->ops.step_begin && s->batch->n_tokens <= MAX_RECORDED_TOKENS && !s->batch->wants_hidden;
}

/* The step's integers go up in one piece, as far as the highest slot in use; of each slot only the pages that are read are taken from the caller. */
static m40llm_status upload_inputs(struct m40_step *s)
{
    struct m40_forward *f = s->f;
    const struct m40_batch *b = s->batch;
    uint64_t stride = f->limits.n_tokens, n_slot_pages = f->limits.n_slot_pages;
    uint64_t pages = 4 * stride + f->limits.n_logits * sizeof *s->params / 4, n_ints = pages;
    uint32_t n_single = leading_single_rows(b);
    int32_t max_pos = 0;

    memcpy(f->staging, b->ids, 4 * (size_t)b->n_tokens);
    memcpy(f->staging + stride, b->pos, 4 * (size_t)b->n_tokens);
    memcpy(f->staging + 2 * stride, b->slot, 4 * (size_t)b->n_tokens);
    if (b->n_logits)
        memcpy(f->staging + 3 * stride, b->logit_rows, 4 * (size_t)b->n_logits);
    if (s->end == M40_STEP_SAMPLE)
        memcpy(f->staging + 4 * stride, s->params, b->n_logits * sizeof *s->params);
    for (uint32_t slot = 0; slot < f->limits.n_slots; slot++) {
        uint64_t at = pages + slot * n_slot_pages;

        if (f->last_pos[slot] < 0)
            continue;
        memcpy(f->staging + at, b->pages + slot * n_slot_pages, 4 * ((size_t)f->last_pos[slot] / M40_KV_PAGE + 1));
        n_ints = at + n_slot_pages;
        if (f->last_pos[slot] > max_pos)
            max_pos = f->last_pos[slot];
    }
    s->ids = f->inputs;
    s->logit_rows = f->inputs + 12 * stride;
    s->sampling = f->inputs + 16 * stride;
    s->rows = (struct m40_rows){
        .n_tokens = b->n_tokens,
        .max_pos = is_recorded(s) ? round_up_pos(f, (uint32_t)max_pos, n_single < b->n_tokens) : (uint32_t)max_pos,
        .pos = f->inputs + 4 * stride,
        .slot = f->inputs + 8 * stride,
        .pages = f->inputs + 4 * pages,
        .n_slot_pages = f->limits.n_slot_pages,
        .n_single = n_single,
    };
    return f->backend->ops.write(f->backend, f->inputs, f->staging, 4 * n_ints, s->err);
}

/* ---- issuing ---- */

/* Only the rows whose logits are wanted go on to the output matrix. */
static m40llm_status output(const struct m40_step *s)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    struct m40_backend *be = f->backend;
    const struct m40_model_config *c = &f->model->config;
    uint32_t n = s->batch->n_logits;

    if (n == 0)
        return M40LLM_OK;
    M40_TRY(be->ops.gather_rows(be, &(struct m40_gather_rows_args){f->x, s->logit_rows, f->normed, n, c->n_embd}, err));
    M40_TRY(m40_step_norm_matmul(s, f->normed, f->model->output_norm, &f->model->output, 0, f->logits, n));
    if (c->logit_softcap > 0 || c->logit_scale != 1)
        M40_TRY(be->ops.softcap(be, &(struct m40_softcap_args){f->logits, (uint64_t)n * c->n_vocab, c->logit_scale, c->logit_softcap}, err));
    if (s->end == M40_STEP_ARGMAX)
        M40_TRY(be->ops.argmax(be, &(struct m40_argmax_args){f->logits, f->tokens, n, c->n_vocab}, err));
    else if (s->end == M40_STEP_SAMPLE)
        M40_TRY(be->ops.sample(be, &(struct m40_sample_args){f->logits, s->sampling, f->tokens, n, c->n_vocab}, err));
fail:
    return status;
}

static m40llm_status issue(const struct m40_step *s)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    struct m40_backend *be = f->backend;

    M40_TRY(be->ops.embed(be, &(struct m40_embed_args){&f->model->embedding, s->ids, f->x, s->batch->n_tokens, f->model->config.embed_scale}, err));
    for (uint32_t layer = 0; layer < f->model->config.n_layers; layer++) {
        M40_TRY(m40_step_attention(s, layer));
        M40_TRY(f->model->config.n_experts ? m40_step_mixture(s, layer) : m40_step_feed_forward(s, layer));
    }
    M40_TRY(output(s));
    if (s->batch->wants_hidden)
        M40_TRY(m40_step_norm(s, f->x, f->model->output_norm, 0, f->normed, s->batch->n_tokens));
fail:
    return status;
}

static m40llm_status issue_recorded(const struct m40_step *s)
{
    m40llm_status status = M40LLM_OK, issued;
    m40llm_error *err = s->err;
    struct m40_backend *be = s->f->backend;
    struct m40_step_key key = {s->f->inputs, s->batch->n_tokens, s->batch->n_logits, s->rows.max_pos, s->end};
    bool is_issued;

    M40_TRY(be->ops.step_begin(be, &key, &is_issued, err));
    if (is_issued)
        return M40LLM_OK;
    issued = issue(s);
    status = be->ops.step_end(be, issued == M40LLM_OK, issued == M40LLM_OK ? err : NULL);
    if (issued != M40LLM_OK)
        status = issued;
fail:
    return status;
}

static m40llm_status check_and_issue(struct m40_step *s)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;

    M40_TRY(check_rows(s->f, s->batch, err));
    M40_TRY(check_pages(s->f, s->batch, err));
    M40_TRY(check_logit_rows(s->f, s->batch, err));
    M40_TRY(upload_inputs(s));
    M40_TRY(is_recorded(s) ? issue_recorded(s) : issue(s));
fail:
    return status;
}

/* Runs the step, then brings n_bytes of what it left at `from`. */
static m40llm_status run(struct m40_step *s, m40_addr from, void *out, uint64_t n_bytes)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_backend *be = s->f->backend;

    M40_TRY(check_and_issue(s));
    M40_TRY(n_bytes ? be->ops.read(be, out, from, n_bytes, err) : be->ops.sync(be, err));
fail:
    return status;
}

m40llm_status m40_forward_step(struct m40_forward *forward, const struct m40_batch *batch, float *logits, m40llm_error *err)
{
    struct m40_step s = {.f = forward, .batch = batch, .err = err};

    return run(&s, forward->logits, logits, 4 * (uint64_t)batch->n_logits * forward->model->config.n_vocab);
}

m40llm_status m40_forward_step_greedy(struct m40_forward *forward, const struct m40_batch *batch, int32_t *ids, m40llm_error *err)
{
    struct m40_step s = {.f = forward, .batch = batch, .end = M40_STEP_ARGMAX, .err = err};

    return run(&s, forward->tokens, ids, 4 * (uint64_t)batch->n_logits);
}

m40llm_status m40_forward_step_sample(struct m40_forward *forward, const struct m40_batch *batch, const struct m40_sample_row *params, int32_t *ids,
                                      m40llm_error *err)
{
    struct m40_step s = {.f = forward, .batch = batch, .end = M40_STEP_SAMPLE, .params = params, .err = err};

    return run(&s, forward->tokens, ids, 4 * (uint64_t)batch->n_logits);
}

m40llm_status m40_forward_lane_issue(struct m40_forward *lane, const struct m40_batch *batch, m40llm_error *err)
{
    struct m40_step s = {.f = lane, .batch = batch, .err = err};

    return check_and_issue(&s);
}

m40llm_status m40_forward_lane_is_done(struct m40_forward *lane, bool wait, bool *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *out = wait;
    M40_TRY(wait ? lane->backend->ops.sync(lane->backend, err) : lane->backend->ops.is_idle(lane->backend, out, err));
fail:
    return status;
}

m40llm_status m40_forward_read_logits(struct m40_forward *forward, uint32_t first, uint32_t n, float *logits, m40llm_error *err)
{
    const uint64_t row_bytes = 4 * (uint64_t)forward->model->config.n_vocab;

    if (n == 0 || first >= forward->limits.n_logits || n > forward->limits.n_logits - first)
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "logits of %u rows from %u on, of %u", n, first, forward->limits.n_logits);
    return forward->backend->ops.read(forward->backend, logits, forward->logits + first * row_bytes, n * row_bytes, err);
}

m40llm_status m40_forward_read_hidden(struct m40_forward *forward, uint32_t first, uint32_t n, float *hidden, m40llm_error *err)
{
    const uint64_t row_bytes = 4 * (uint64_t)forward->model->config.n_embd;

    if (n == 0 || first >= forward->limits.n_tokens || n > forward->limits.n_tokens - first)
        return m40_fail(err, M40LLM_INVALID_ARGUMENT, "hidden states of %u rows from %u on, of %u", n, first, forward->limits.n_tokens);
    return forward->backend->ops.read(forward->backend, hidden, forward->normed + first * row_bytes, n * row_bytes, err);
}

/* ---- debug ---- */

/* One head's row of the cache as floats. */
static m40llm_status read_row(struct m40_forward *f, m40_addr from, float *out, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t n = f->model->config.head_dim;
    uint16_t half[256];

    if (f->limits.kv_type == M40LLM_KV_F32)
        return f->backend->ops.read(f->backend, out, from, 4 * (uint64_t)n, err);
    M40_TRY(f->backend->ops.read(f->backend, half, from, 2 * (uint64_t)n, err));
    for (uint32_t i = 0; i < n; i++)
        out[i] = m40_f16_to_f32(half[i]);
fail:
    return status;
}

m40llm_status m40_forward_read_kv(struct m40_forward *forward, uint32_t layer, uint32_t page, uint32_t token_in_page, float *k, float *v,
                                  m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    const struct m40_model_config *c = &forward->model->config;
    uint64_t row_bytes = c->head_dim * m40_kv_element_bytes(forward->limits.kv_type), head_bytes = M40_KV_PAGE * row_bytes;

    M40_FAIL_IF(layer >= c->n_layers || page >= forward->limits.n_pages || token_in_page >= M40_KV_PAGE, M40LLM_INVALID_ARGUMENT,
                "no token %u in page %u of layer %u", token_in_page, page, layer);
    for (uint32_t head = 0; head < c->n_kv_heads; head++) {
        m40_addr k_row = forward->kv[layer].base + (2 * (uint64_t)page * c->n_kv_heads + head) * head_bytes + token_in_page * row_bytes;

        M40_TRY(read_row(forward, k_row, k + (uint64_t)head * c->head_dim, err));
        M40_TRY(read_row(forward, k_row + c->n_kv_heads * head_bytes, v + (uint64_t)head * c->head_dim, err));
    }
fail:
    return status;
}
