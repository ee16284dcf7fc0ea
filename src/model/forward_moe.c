/* The second half of a layer, where it is a mixture of experts: the router's logits, the choice, what the chosen experts and the shared one make of the token, and their sum. */
#include "model/forward_step.h"

#include "base/mem.h"

static uint64_t round_up(uint64_t n_bytes)
{
    return m40_round_up(n_bytes, 256);
}

/* The next n_rows rows of n_cols words, behind *end. */
static uint64_t take(uint64_t *end, uint64_t n_rows, uint64_t n_cols)
{
    const uint64_t at = *end;

    *end += round_up(4 * n_rows * n_cols);
    return at;
}

void m40_mixture_places(struct m40_mixture_places *out, const struct m40_model_config *c, uint32_t n_tokens)
{
    const uint64_t n = n_tokens, n_pairs = n * c->n_used, shared_cols = c->has_shared_expert ? c->n_ff : 0;
    uint64_t end = 0;

    /* gate, up and act of the shared expert, where a dense layer has them */
    end = round_up(3 * 4 * n * shared_cols);
    out->logits = take(&end, n, c->n_experts);
    out->ids = take(&end, n_pairs, 1);
    out->weights = take(&end, n_pairs, 1);
    out->plan = take(&end, 1, m40_expert_plan_bytes((uint32_t)n_pairs, c->n_experts) / 4 + 1);
    out->shared = take(&end, c->has_shared_expert ? n : 0, c->n_embd);
    out->shared_gate = take(&end, c->has_shared_expert ? n : 0, 1);
    out->act = take(&end, n_pairs, c->n_expert_ff);
    out->out = out->gate = end; /* gate and up are not needed any more when the experts' output is made */
    out->up = out->gate + round_up(4 * n_pairs * c->n_expert_ff);
    end = out->up + round_up(4 * n_pairs * c->n_expert_ff);
    if (end < out->out + round_up(4 * n_pairs * c->n_embd))
        end = out->out + round_up(4 * n_pairs * c->n_embd);
    out->n_bytes = end;
}

/* The expert that every token goes to, of x: its output and its gate. */
static m40llm_status shared_expert(const struct m40_step *s, const struct m40_layer_weights *w, m40_addr x, const struct m40_mixture_places *at)
{
    m40llm_status status = M40LLM_OK;
    struct m40_forward *f = s->f;
    uint32_t n = s->rows.n_tokens;

    M40_TRY(m40_step_gate_up(s, w, x));
    M40_TRY(m40_step_matmul(s, &w->down, f->act, 0, 0, f->work + at->shared, n));
    if (w->shared_gate.n_rows)
        M40_TRY(m40_step_matmul(s, &w->shared_gate, x, 0, 0, f->work + at->shared_gate, n));
fail:
    return status;
}

static m40llm_status expert_matmul(const struct m40_step *s, struct m40_expert_matmul_args *args, const struct m40_matrix *w, m40_addr bias,
                                   uint64_t y)
{
    args->w = w;
    args->bias = bias;
    args->y = s->f->work + y;
    return s->f->backend->ops.expert_matmul(s->f->backend, args, s->err);
}

/* act(gate, up) of the chosen experts, then down: to at->out. */
static m40llm_status experts(const struct m40_step *s, const struct m40_layer_weights *w, m40_addr x, const struct m40_mixture_places *at)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    const struct m40_model_config *c = &f->model->config;
    struct m40_expert_matmul_args args = {
        .ids = f->work + at->ids,
        .plan = f->work + at->plan,
        .x = x,
        .up_bias = w->up_exps_bias,
        .n_experts = c->n_experts,
        .n_tokens = s->rows.n_tokens,
        .n_used = c->n_used,
        .is_gated = w->gate_up_exps.n_rows != 0,
        .act = c->act,
    };
    const struct m40_glu_args glu = {
        .gate = f->work + at->gate,
        .up = f->work + at->up,
        .y = f->work + at->act,
        .n_rows = s->rows.n_tokens * c->n_used,
        .n_cols = c->n_expert_ff,
        .stride = c->n_expert_ff,
        .act = c->act,
    };

    if (args.is_gated) {
        M40_TRY(expert_matmul(s, &args, &w->gate_up_exps, w->gate_exps_bias, at->act));
    } else {
        M40_TRY(expert_matmul(s, &args, &w->gate_exps, w->gate_exps_bias, at->gate));
        M40_TRY(expert_matmul(s, &args, &w->up_exps, w->up_exps_bias, at->up));
        M40_TRY(f->backend->ops.glu(f->backend, &glu, err));
    }
    args.is_gated = false;
    args.has_pair_rows = true;
    args.x = f->work + at->act;
    M40_TRY(expert_matmul(s, &args, &w->down_exps, w->down_exps_bias, at->out));
fail:
    return status;
}

m40llm_status m40_step_mixture(const struct m40_step *s, uint32_t layer)
{
    m40llm_status status = M40LLM_OK;
    m40llm_error *err = s->err;
    struct m40_forward *f = s->f;
    struct m40_backend *be = f->backend;
    const struct m40_model_config *c = &f->model->config;
    const struct m40_layer_weights *w = &f->model->layers[layer];
    const struct m40_mixture_places *at = &f->mixture;
    const struct m40_route_args route = {
        .logits = f->work + at->logits,
        .ids = f->work + at->ids,
        .weights = f->work + at->weights,
        .plan = f->work + at->plan,
        .n_tokens = s->rows.n_tokens,
        .n_experts = c->n_experts,
        .n_used = c->n_used,
        .gating = c->gating,
        .is_normalised = c->normalises_experts,
        .scale = c->expert_scale,
    };
    const struct m40_combine_args combine = {
        .x = f->work + at->out,
        .weights = f->work + at->weights,
        .shared = c->has_shared_expert ? f->work + at->shared : 0,
        .shared_gate = w->shared_gate.n_rows ? f->work + at->shared_gate : 0,
        .residual = f->x,
        .y = f->x,
        .n_tokens = s->rows.n_tokens,
        .n_used = c->n_used,
        .n_cols = c->n_embd,
    };
    m40_addr x;

    M40_TRY(m40_step_input(s, w->ffn_norm, &x));
    M40_TRY(m40_step_matmul(s, &w->router, x, w->router_bias, 0, f->work + at->logits, s->rows.n_tokens));
    M40_TRY(be->ops.route(be, &route, err));
    if (c->has_shared_expert)
        M40_TRY(shared_expert(s, w, x, at));
    M40_TRY(experts(s, w, x, at));
    M40_TRY(be->ops.combine(be, &combine, err));
fail:
    return status;
}
