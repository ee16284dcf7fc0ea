/* A step in flight, and what the files share that issue its operations: forward.c the whole, forward_attention.c, forward_ffn.c and forward_moe.c the halves of a layer. What a family lacks is 0 or false in the
 * model's config and weights: nothing here asks for its name. */
#ifndef M40_MODEL_FORWARD_STEP_H
#define M40_MODEL_FORWARD_STEP_H

#include "model/forward.h"

struct m40_step {
    struct m40_forward *f;
    const struct m40_batch *batch;
    struct m40_rows rows;
    m40_addr ids, logit_rows, sampling;
    enum m40_step_end end;
    const struct m40_sample_row *params; /* [n_logits], with M40_STEP_SAMPLE */
    m40llm_error *err;
};

/* ---- forward_ops.c: operations, with what is the same in every call left out ---- */

m40llm_status m40_step_norm(const struct m40_step *s, m40_addr x, m40_addr weight, m40_addr residual, m40_addr y, uint32_t n_rows);
m40llm_status m40_step_matmul(const struct m40_step *s, const struct m40_matrix *w, m40_addr x, m40_addr bias, m40_addr residual, m40_addr y,
                              uint32_t n_rows);
/* matmul of the norm of x, which may be left in f->normed; weight 0: of x as it is. */
m40llm_status m40_step_norm_matmul(const struct m40_step *s, m40_addr x, m40_addr weight, const struct m40_matrix *w, m40_addr bias, m40_addr y,
                                   uint32_t n_rows);
/* The norm of the residual stream, in f->normed, or where weight is 0 the stream: sets *out to where it is. */
m40llm_status m40_step_input(const struct m40_step *s, m40_addr weight, m40_addr *out);
/* The end of a half: its last matrix, of x, then the norm post_norm of that, where there is one, is added to the residual stream. */
m40llm_status m40_step_add(const struct m40_step *s, const struct m40_matrix *w, m40_addr x, m40_addr bias, m40_addr post_norm);

/* ---- the halves ---- */

m40llm_status m40_step_attention(const struct m40_step *s, uint32_t layer);
m40llm_status m40_step_feed_forward(const struct m40_step *s, uint32_t layer);
m40llm_status m40_step_mixture(const struct m40_step *s, uint32_t layer);

/* act(gate, up) of x, into f->act. */
m40llm_status m40_step_gate_up(const struct m40_step *s, const struct m40_layer_weights *w, m40_addr x);

#endif
