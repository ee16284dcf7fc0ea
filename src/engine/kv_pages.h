/* The pool of KV pages: which are free, and how many users each of the others has. Pure bookkeeping; no device calls. */
#ifndef M40_ENGINE_KV_PAGES_H
#define M40_ENGINE_KV_PAGES_H

#include "base/status.h"

struct m40_page_pool {
    uint32_t n_pages, n_used, n_used_max;
    int32_t *free_pages;  /* [n_pages]: a stack of n_pages - n_used ids */
    uint32_t *references; /* [n_pages]; 0: free */
};

m40llm_status m40_page_pool_init(struct m40_page_pool *pool, uint32_t n_pages, m40llm_error *err);
void m40_page_pool_free(struct m40_page_pool *pool);

/* A page with one reference; -1: none is free. */
int32_t m40_page_take(struct m40_page_pool *pool);
/* One more user of a page that is in use. */
void m40_page_share(struct m40_page_pool *pool, int32_t page);
/* One user less; the last one frees the page. */
void m40_page_release(struct m40_page_pool *pool, int32_t page);

#endif
