#include "engine/kv_pages.h"
#include "base/mem.h"

#include <assert.h>

m40llm_status m40_page_pool_init(struct m40_page_pool *pool, uint32_t n_pages, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *pool = (struct m40_page_pool){.n_pages = n_pages};
    pool->free_pages = m40_calloc(n_pages, sizeof *pool->free_pages);
    pool->references = m40_calloc(n_pages, sizeof *pool->references);
    M40_FAIL_IF(!pool->free_pages || !pool->references, M40LLM_NO_MEMORY, "page pool of %u pages", n_pages);
    for (uint32_t i = 0; i < n_pages; i++) /* the lowest id is on top */
        pool->free_pages[i] = (int32_t)(n_pages - 1 - i);
    return M40LLM_OK;
fail:
    m40_page_pool_free(pool);
    return status;
}

void m40_page_pool_free(struct m40_page_pool *pool)
{
    m40_free(pool->free_pages);
    m40_free(pool->references);
    *pool = (struct m40_page_pool){0};
}

int32_t m40_page_take(struct m40_page_pool *pool)
{
    int32_t page;

    if (pool->n_used == pool->n_pages)
        return -1;
    page = pool->free_pages[pool->n_pages - pool->n_used - 1];
    pool->n_used++;
    if (pool->n_used > pool->n_used_max)
        pool->n_used_max = pool->n_used;
    pool->references[page] = 1;
    return page;
}

void m40_page_share(struct m40_page_pool *pool, int32_t page)
{
    assert(pool->references[page] > 0);
    pool->references[page]++;
}

void m40_page_release(struct m40_page_pool *pool, int32_t page)
{
    assert(pool->references[page] > 0);
    if (--pool->references[page] > 0)
        return;
    pool->n_used--;
    pool->free_pages[pool->n_pages - pool->n_used - 1] = page;
}
