#include "engine/embedding.h"

#include <math.h>
#include <string.h>

void m40_embedding_add(m40llm_pooling pooling, float *pooled, const float *rows, uint32_t first, uint32_t n_rows, uint32_t n_embd)
{
    for (uint32_t i = 0; i < n_rows; i++, rows += n_embd) {
        if (pooling == M40LLM_POOLING_LAST || first + i == 0) {
            memcpy(pooled, rows, n_embd * sizeof *pooled);
            continue;
        }
        for (uint32_t c = 0; c < n_embd; c++)
            pooled[c] += rows[c];
    }
}

void m40_embedding_finish(m40llm_pooling pooling, float *pooled, uint32_t n, uint32_t n_embd)
{
    double sum = 0;

    for (uint32_t c = 0; c < n_embd; c++) {
        if (pooling == M40LLM_POOLING_MEAN)
            pooled[c] /= (float)n;
        sum += (double)pooled[c] * (double)pooled[c];
    }
    for (uint32_t c = 0; c < n_embd && sum > 0; c++)
        pooled[c] = (float)((double)pooled[c] / sqrt(sum));
}
