/* A text's hidden states as one vector. */
#ifndef M40_ENGINE_EMBEDDING_H
#define M40_ENGINE_EMBEDDING_H

#include "m40llm.h"

/* Rows [n_rows][n_embd] of hidden states from the text's position `first` on, into `pooled` [n_embd], which position 0 begins anew: MEAN adds them one after the other, so that it does not matter how a
 * text is cut into steps; LAST keeps the last one. */
void m40_embedding_add(m40llm_pooling pooling, float *pooled, const float *rows, uint32_t first, uint32_t n_rows, uint32_t n_embd);
/* Of n tokens, all of which were added: the mean, where it is one, then scaled to length 1; the length's square is added up in double precision, in ascending order. */
void m40_embedding_finish(m40llm_pooling pooling, float *pooled, uint32_t n, uint32_t n_embd);

#endif
