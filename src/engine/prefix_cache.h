/* Which full pages hold which tokens, so that a sequence that begins as another did shares its pages. A page is known by its own tokens and the page before it, which is known in turn: so pages that
 * agree are the same text from its beginning on. The hash (of all tokens up to the page's end) only finds candidates; ids are compared.
 *
 * Pages that are in use or idle are known; the pool tells when it evicts one. Whoever uses a page uses the one before it, and releases that later: so a page is never evicted before those that
 * follow it. No device calls. */
#ifndef M40_ENGINE_PREFIX_CACHE_H
#define M40_ENGINE_PREFIX_CACHE_H

#include "engine/kv_pages.h"

struct m40_prefix_cache {
    struct m40_page_pool *pool;
    uint64_t seed;         /* of hashes */
    uint32_t n_buckets;    /* a power of two */
    int32_t *buckets;      /* [n_buckets]: first page, or -1 */
    int32_t *next;         /* [n_pages]: the next page in the bucket, or -1 */
    int32_t *parent;       /* [n_pages]: the page before, or -1 */
    uint64_t *hash;        /* [n_pages] */
    int32_t *ids;          /* [n_pages][M40_KV_PAGE] */
    uint32_t *n_followers; /* [n_pages]: known pages whose parent it is */
};

/* Takes over the pool's on_evict. seed: any number; a secret one keeps others from finding pages whose hashes collide. */
m40llm_status m40_prefix_cache_init(struct m40_prefix_cache *cache, struct m40_page_pool *pool, uint64_t seed, m40llm_error *err);
void m40_prefix_cache_free(struct m40_prefix_cache *cache);

/* The hash of a page whose predecessor has the hash `before` (0: there is none). */
uint64_t m40_prefix_hash(const struct m40_prefix_cache *cache, uint64_t before, const int32_t *ids);
/* The page that holds these M40_KV_PAGE ids behind `parent` (-1: at the beginning); -1: none is known. */
int32_t m40_prefix_find(const struct m40_prefix_cache *cache, uint64_t hash, int32_t parent, const int32_t *ids);
/* Makes a page known, which is in use and full, whose parent is -1 or known, and whose content is not yet known. */
void m40_prefix_add(struct m40_prefix_cache *cache, int32_t page, uint64_t hash, int32_t parent, const int32_t *ids);

#endif
