/* The pool of KV pages. A page is free, used by one sequence or several, or idle: used by none, but kept for what is in it until its place is needed; the page idle for longest goes first. Pure
 * bookkeeping; no device calls. */
#ifndef M40_ENGINE_KV_PAGES_H
#define M40_ENGINE_KV_PAGES_H

#include "base/status.h"

#include <stdbool.h>

struct m40_page_pool {
    uint32_t n_pages, n_used, n_used_max, n_idle;
    uint32_t n_shared; /* pages with more than one user */
    uint64_t n_evicted;
    int32_t *free_pages;  /* [n_pages]: a stack of n_pages - n_used - n_idle ids */
    uint32_t *references; /* [n_pages]; 0: free or idle */
    bool *is_kept;        /* [n_pages]: becomes idle, not free, when its last user goes */
    int32_t *next, *prev; /* [n_pages + 1]: the ring of idle pages, longest idle first; n_pages is its head */
    /* An idle page is about to be used for something else. May be NULL. */
    void (*on_evict)(void *user, int32_t page);
    void *user;
};

m40llm_status m40_page_pool_init(struct m40_page_pool *pool, uint32_t n_pages, m40llm_error *err);
void m40_page_pool_free(struct m40_page_pool *pool);

/* How many times m40_page_take will succeed. */
static inline uint32_t m40_pages_available(const struct m40_page_pool *pool)
{
    return pool->n_pages - pool->n_used;
}

/* A page with one reference; -1: none is free or idle. */
int32_t m40_page_take(struct m40_page_pool *pool);
/* One more user of a page that is used or idle. */
void m40_page_share(struct m40_page_pool *pool, int32_t page);
/* One user less; the last one frees the page, or leaves it idle. Of pages with an order, the last is released first. */
void m40_page_release(struct m40_page_pool *pool, int32_t page);
/* What is in this page, which is used, is worth keeping until it is evicted. */
void m40_page_keep(struct m40_page_pool *pool, int32_t page);

#endif
