#include "engine/kv_pages.h"
#include "base/mem.h"

#include <assert.h>

m40llm_status m40_page_pool_init(struct m40_page_pool *pool, uint32_t n_pages, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    *pool = (struct m40_page_pool){.n_pages = n_pages};
    pool->free_pages = m40_calloc(n_pages, sizeof *pool->free_pages);
    pool->references = m40_calloc(n_pages, sizeof *pool->references);
    pool->is_kept = m40_calloc(n_pages, sizeof *pool->is_kept);
    pool->next = m40_calloc((size_t)n_pages + 1, sizeof *pool->next);
    pool->prev = m40_calloc((size_t)n_pages + 1, sizeof *pool->prev);
    M40_FAIL_IF(!pool->free_pages || !pool->references || !pool->is_kept || !pool->next || !pool->prev, M40LLM_NO_MEMORY, "page pool of %u pages",
                n_pages);
    for (uint32_t i = 0; i < n_pages; i++) /* the lowest id is on top */
        pool->free_pages[i] = (int32_t)(n_pages - 1 - i);
    pool->next[n_pages] = pool->prev[n_pages] = (int32_t)n_pages;
    return M40LLM_OK;
fail:
    m40_page_pool_free(pool);
    return status;
}

void m40_page_pool_free(struct m40_page_pool *pool)
{
    m40_free(pool->free_pages);
    m40_free(pool->references);
    m40_free(pool->is_kept);
    m40_free(pool->next);
    m40_free(pool->prev);
    *pool = (struct m40_page_pool){0};
}

static void leave_ring(struct m40_page_pool *pool, int32_t page)
{
    pool->next[pool->prev[page]] = pool->next[page];
    pool->prev[pool->next[page]] = pool->prev[page];
    pool->n_idle--;
}

static void enter_ring(struct m40_page_pool *pool, int32_t page)
{
    int32_t head = (int32_t)pool->n_pages;

    pool->next[page] = head;
    pool->prev[page] = pool->prev[head];
    pool->next[pool->prev[head]] = page;
    pool->prev[head] = page;
    pool->n_idle++;
}

static void count_use(struct m40_page_pool *pool, int32_t page)
{
    pool->references[page] = 1;
    pool->n_used++;
    if (pool->n_used > pool->n_used_max)
        pool->n_used_max = pool->n_used;
}

int32_t m40_page_take(struct m40_page_pool *pool)
{
    uint32_t n_free = pool->n_pages - pool->n_used - pool->n_idle;
    int32_t page;

    if (n_free > 0) {
        page = pool->free_pages[n_free - 1];
    } else if (pool->n_idle > 0) {
        page = pool->next[pool->n_pages];
        leave_ring(pool, page);
        pool->is_kept[page] = false;
        pool->n_evicted++;
        if (pool->on_evict)
            pool->on_evict(pool->user, page);
    } else {
        return -1;
    }
    count_use(pool, page);
    return page;
}

void m40_page_share(struct m40_page_pool *pool, int32_t page)
{
    assert(pool->references[page] > 0 || pool->is_kept[page]);
    if (pool->references[page] == 0) {
        leave_ring(pool, page);
        count_use(pool, page);
        return;
    }
    pool->n_shared += pool->references[page] == 1;
    pool->references[page]++;
}

void m40_page_release(struct m40_page_pool *pool, int32_t page)
{
    assert(pool->references[page] > 0);
    pool->n_shared -= pool->references[page] == 2;
    if (--pool->references[page] > 0)
        return;
    pool->n_used--;
    if (pool->is_kept[page])
        enter_ring(pool, page);
    else
        pool->free_pages[pool->n_pages - pool->n_used - pool->n_idle - 1] = page;
}

void m40_page_keep(struct m40_page_pool *pool, int32_t page)
{
    assert(pool->references[page] > 0);
    pool->is_kept[page] = true;
}
