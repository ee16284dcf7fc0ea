#include "engine/prefix_cache.h"
#include "backend/backend.h"
#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

static void forget(void *user, int32_t page)
{
    struct m40_prefix_cache *c = user;
    int32_t *link = &c->buckets[c->hash[page] & (c->n_buckets - 1)];

    assert(c->n_followers[page] == 0);
    while (*link != page)
        link = &c->next[*link];
    *link = c->next[page];
    if (c->parent[page] >= 0)
        c->n_followers[c->parent[page]]--;
}

m40llm_status m40_prefix_cache_init(struct m40_prefix_cache *c, struct m40_page_pool *pool, uint64_t seed, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    uint32_t n = pool->n_pages;

    *c = (struct m40_prefix_cache){.pool = pool, .seed = seed, .n_buckets = 1};
    while (c->n_buckets < n)
        c->n_buckets *= 2;
    c->buckets = m40_calloc(c->n_buckets, sizeof *c->buckets);
    c->next = m40_calloc(n, sizeof *c->next);
    c->parent = m40_calloc(n, sizeof *c->parent);
    c->hash = m40_calloc(n, sizeof *c->hash);
    c->ids = m40_calloc((size_t)n * M40_KV_PAGE, sizeof *c->ids);
    c->n_followers = m40_calloc(n, sizeof *c->n_followers);
    M40_FAIL_IF(!c->buckets || !c->next || !c->parent || !c->hash || !c->ids || !c->n_followers, M40LLM_NO_MEMORY, "prefix cache of %u pages", n);
    memset(c->buckets, -1, c->n_buckets * sizeof *c->buckets);
    pool->on_evict = forget;
    pool->user = c;
    return M40LLM_OK;
fail:
    m40_prefix_cache_free(c);
    return status;
}

void m40_prefix_cache_free(struct m40_prefix_cache *c)
{
    m40_free(c->buckets);
    m40_free(c->next);
    m40_free(c->parent);
    m40_free(c->hash);
    m40_free(c->ids);
    m40_free(c->n_followers);
    *c = (struct m40_prefix_cache){0};
}

uint64_t m40_prefix_hash(const struct m40_prefix_cache *c, uint64_t before, const int32_t *ids)
{
    uint64_t h = before;

    for (uint32_t i = 0; i < M40_KV_PAGE; i += 2) /* the seed in every step: no two pages agree on the way for all seeds */
        h = m40_hash_mix((h + c->seed) ^ ((uint64_t)(uint32_t)ids[i + 1] << 32 | (uint32_t)ids[i]));
    return h;
}

int32_t m40_prefix_find(const struct m40_prefix_cache *c, uint64_t hash, int32_t parent, const int32_t *ids)
{
    int32_t page = c->buckets[hash & (c->n_buckets - 1)];

    while (page >= 0 &&
           (c->hash[page] != hash || c->parent[page] != parent || memcmp(c->ids + (size_t)page * M40_KV_PAGE, ids, M40_KV_PAGE * sizeof *ids) != 0))
        page = c->next[page];
    return page;
}

void m40_prefix_add(struct m40_prefix_cache *c, int32_t page, uint64_t hash, int32_t parent, const int32_t *ids)
{
    int32_t *bucket = &c->buckets[hash & (c->n_buckets - 1)];

    c->hash[page] = hash;
    c->parent[page] = parent;
    memcpy(c->ids + (size_t)page * M40_KV_PAGE, ids, M40_KV_PAGE * sizeof *ids);
    c->next[page] = *bucket;
    *bucket = page;
    if (parent >= 0)
        c->n_followers[parent]++;
    m40_page_keep(c->pool, page);
}
