/* The scheduler, the prefix cache and the pace of steps, without a device: a shadow of the KV cache says what every page holds, so that a row that would read anything but its own prefix is seen. */
#include "harness/harness.h"

#include "engine/scheduler.h"

enum { MAX_SEQUENCES = 256, MAX_TOKENS = 300, MAX_PAGES = 64 };

/* What a position holds: the hash of all ids up to it, 0: nothing yet. */
static uint64_t shadow[MAX_PAGES][M40_KV_PAGE];

static struct m40_sequence sequences[MAX_SEQUENCES];
static int32_t prompts[MAX_SEQUENCES][MAX_TOKENS];
static uint32_t n_sequences;

static struct m40_scheduler_limits limits_of(uint32_t n_slots, uint32_t n_slot_pages, uint32_t n_pages)
{
    return (struct m40_scheduler_limits){
        .n_slots = n_slots, .n_slot_pages = n_slot_pages, .n_pages = n_pages, .n_chunk = 64, .n_all_logits = 8, .step_growth = 2, .has_cache = true};
}

static void open_scheduler(struct m40_scheduler *s, const struct m40_scheduler_limits *limits)
{
    m40llm_error err;

    if (m40_scheduler_init(s, limits, &err) != M40LLM_OK)
        fail_msg("%s", err.text);
    memset(shadow, 0, sizeof shadow);
    memset(sequences, 0, sizeof sequences);
    n_sequences = 0;
}

static void close_scheduler(struct m40_scheduler *s)
{
    assert_int_equal(s->n_running + s->n_waiting, 0);
    assert_int_equal(s->pool.n_used, 0);
    assert_int_equal(s->pool.n_shared, 0);
    for (uint32_t i = 0; i < n_sequences; i++)
        m40_sequence_free(&sequences[i]);
    m40_scheduler_free(s);
}

/* A sequence that is not yet in the scheduler; its ids come from `seed`, so that equal seeds begin alike. */
static struct m40_sequence *new_sequence(uint32_t n_prompt, uint32_t n_answer, uint64_t seed)
{
    int32_t *prompt = prompts[n_sequences];
    struct m40_sequence *q = &sequences[n_sequences++];
    m40llm_error err;

    assert_true(n_sequences <= MAX_SEQUENCES && n_prompt <= MAX_TOKENS);
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (int32_t)(test_random(&seed) % 1000);
    assert_int_equal(m40_sequence_init(q, prompt, n_prompt, n_answer, MAX_TOKENS, &err), M40LLM_OK);
    q->order = n_sequences;
    q->uses_cache = true;
    return q;
}

static struct m40_sequence *add(struct m40_scheduler *s, uint32_t n_prompt, uint32_t n_answer, uint64_t seed)
{
    struct m40_sequence *q = new_sequence(n_prompt, n_answer, seed);

    m40_scheduler_add(s, q);
    return q;
}

static uint64_t prefix_hash(uint64_t before, int32_t id)
{
    return (before ^ ((uint64_t)id + 1)) * 0x100000001b3u + 1;
}

/* The row's own prefix must be in its pages, and the page it writes to nobody else's. */
static void run_row(const struct m40_scheduler *s, const struct m40_sequence *q, uint32_t pos)
{
    uint64_t hash = 0;
    int32_t page;

    for (uint32_t i = 0; i < pos; i++) {
        hash = prefix_hash(hash, m40_sequence_token(q, i));
        assert_true(shadow[q->pages[i / M40_KV_PAGE]][i % M40_KV_PAGE] == hash);
    }
    page = q->pages[pos / M40_KV_PAGE];
    assert_true(pos / M40_KV_PAGE < q->n_pages);
    assert_int_equal(s->pool.references[page], 1);
    assert_false(s->pool.is_kept[page]);
    shadow[page][pos % M40_KV_PAGE] = prefix_hash(hash, m40_sequence_token(q, pos));
}

/* Users counted anew. */
static void check_pages(const struct m40_scheduler *s)
{
    uint32_t references[MAX_PAGES] = {0}, n_used = 0, n_shared = 0, n_idle = 0;

    for (uint32_t i = 0; i < s->n_running; i++)
        for (uint32_t k = 0; k < s->running[i]->n_pages; k++)
            references[s->running[i]->pages[k]]++;
    for (uint32_t p = 0; p < s->pool.n_pages; p++) {
        assert_int_equal(references[p], s->pool.references[p]);
        n_used += references[p] > 0;
        n_shared += references[p] > 1;
        n_idle += references[p] == 0 && s->pool.is_kept[p];
    }
    assert_int_equal(n_used, s->pool.n_used);
    assert_int_equal(n_shared, s->pool.n_shared);
    assert_int_equal(n_idle, s->pool.n_idle);
}

static void check_plan(const struct m40_scheduler *s)
{
    uint32_t n_answers = 0, n_prompts = 0, n_all_logits = 0;

    assert_true(s->n_items > 0 && s->n_items <= s->limits.n_slots);
    for (uint32_t i = 0; i < s->n_items; i++) {
        const struct m40_plan_item *item = &s->items[i];

        assert_int_equal(item->sequence->state, M40_SEQUENCE_RUNNING);
        assert_true(item->n_rows > 0 && item->n_rows <= item->sequence->n_tokens - item->sequence->n_evaluated);
        if (i < s->n_answer_rows)
            n_answers += item->n_rows;
        else
            n_prompts += item->n_rows;
        n_all_logits += i >= s->n_answer_rows && item->sequence->all_logits ? item->n_rows : 0;
        for (uint32_t k = 0; k < i; k++)
            assert_ptr_not_equal(s->items[k].sequence, item->sequence);
    }
    assert_int_equal(n_answers, s->n_answer_rows);
    assert_int_equal(n_prompts, s->n_prompt_rows);
    assert_true(n_prompts <= s->limits.n_chunk && n_all_logits <= s->limits.n_all_logits);
    for (uint32_t i = 1; i < s->n_running; i++)
        assert_true(s->running[i - 1]->key <= s->running[i]->key);
}

/* Ids of answers depend on what they answer: so equal prompts have equal answers. */
static void take_token(struct m40_scheduler *s, struct m40_sequence *q)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < q->n_tokens; i++)
        hash = prefix_hash(hash, m40_sequence_token(q, i));
    if (q->n_tokens < q->capacity)
        m40_sequence_push(q, (int32_t)(hash % 1000));
    q->n_generated++;
    if (q->n_tokens == q->capacity)
        m40_scheduler_remove(s, q);
}

/* One step that takes ns; every sequence whose tokens are all evaluated gets another. */
static void step(struct m40_scheduler *s, uint64_t ns)
{
    m40_scheduler_plan(s);
    check_plan(s);
    check_pages(s);
    for (uint32_t i = 0; i < s->n_items; i++)
        for (uint32_t k = 0; k < s->items[i].n_rows; k++)
            run_row(s, s->items[i].sequence, s->items[i].sequence->n_evaluated + k);
    m40_scheduler_done(s, ns);
    for (uint32_t i = 0; i < s->n_items; i++)
        if (s->items[i].sequence->n_evaluated == s->items[i].sequence->n_tokens)
            take_token(s, s->items[i].sequence);
    check_pages(s);
}

static void run_all(struct m40_scheduler *s)
{
    for (int n = 0; s->n_running + s->n_waiting > 0; n++) {
        assert_true(n < 20000);
        step(s, 1000);
    }
}

/* ---- order ---- */

static void test_first_come_first_served(void **state)
{
    struct m40_scheduler_limits limits = limits_of(2, 4, 16);
    struct m40_scheduler s;
    struct m40_sequence *q[4];

    (void)state;
    open_scheduler(&s, &limits);
    for (int i = 0; i < 4; i++)
        q[i] = new_sequence(20, 5, (uint64_t)i);
    q[3]->key = -1; /* a higher priority */
    for (int i = 0; i < 4; i++)
        m40_scheduler_add(&s, q[i]);
    step(&s, 1000);
    assert_int_equal(q[3]->state, M40_SEQUENCE_RUNNING);
    assert_int_equal(q[0]->state, M40_SEQUENCE_RUNNING);
    assert_int_equal(q[1]->state, M40_SEQUENCE_WAITING);
    while (q[2]->state == M40_SEQUENCE_WAITING) {
        step(&s, 1000);
        assert_true(q[1]->state != M40_SEQUENCE_WAITING || q[2]->state == M40_SEQUENCE_WAITING);
    }
    run_all(&s);
    close_scheduler(&s);
}

static void check_order(const struct m40_waiting *w, uint32_t n)
{
    uint32_t n_found = 0;

    for (uint32_t level = 0; level < M40_WAITING_LEVELS; level++)
        for (const struct m40_sequence *q = w->first[level]; q; q = q->next[level]) {
            assert_true(!q->next[level] || m40_sequence_is_before(q, q->next[level]));
            n_found += level == 0;
        }
    assert_int_equal(n_found, n);
}

/* Very many, in any order, come and go; a list that is searched from one end would take a minute. */
static void test_many_wait(void **state)
{
    enum { N = 60000 };
    struct m40_sequence *q = calloc(N, sizeof *q);
    struct m40_waiting waiting = {{NULL}};
    uint64_t random = test_seed() ^ 9;

    (void)state;
    assert_non_null(q);
    for (uint32_t i = 0; i < N; i++) {
        q[i].key = -(int64_t)(i / 7 % 5000); /* later ones come before, several at a time */
        q[i].order = i % 7 ? i - i % 7 : i;
        q[i].choice = i % 7;
        m40_waiting_add(&waiting, &q[i]);
    }
    check_order(&waiting, N);
    for (uint32_t i = N; i-- > 1;) { /* shuffled */
        uint32_t k = (uint32_t)(test_random(&random) % (i + 1));
        struct m40_sequence *a = &q[i], *b = &q[k];
        int64_t key = a->key;

        if (a == b)
            continue;
        m40_waiting_remove(&waiting, a);
        m40_waiting_remove(&waiting, b);
        a->key = b->key;
        b->key = key;
        m40_waiting_add(&waiting, b);
        m40_waiting_add(&waiting, a);
    }
    check_order(&waiting, N);
    for (uint32_t i = 0; i < N; i += 2)
        m40_waiting_remove(&waiting, &q[i]);
    check_order(&waiting, N / 2);
    for (uint32_t i = 1; i < N; i += 2)
        m40_waiting_remove(&waiting, &q[i]);
    check_order(&waiting, 0);
    free(q);
}

/* A stream of requests of high priority that would fill the only slot for ever: one of low priority gets its turn within the bound. */
static void test_low_priority_does_not_starve(void **state)
{
    struct m40_scheduler_limits limits = limits_of(1, 4, 4);
    struct m40_scheduler s;
    struct m40_sequence *low;
    uint64_t now = 1000000000u;

    (void)state;
    open_scheduler(&s, &limits);
    low = new_sequence(5, 2, 1);
    low->key = m40_scheduler_key(now, -2);
    m40_scheduler_add(&s, low);
    for (int i = 0; i < 100 && low->state != M40_SEQUENCE_ENDED; i++) {
        while (s.n_waiting < 3) {
            struct m40_sequence *high = new_sequence(5, 3, 2);

            high->key = m40_scheduler_key(now, 3);
            m40_scheduler_add(&s, high);
        }
        step(&s, 1000);
        now += 1000000000u;              /* a step a second */
        assert_true(now < 70000000000u); /* 5 steps of priority are 50 s */
    }
    assert_int_equal(low->state, M40_SEQUENCE_ENDED);
    assert_true(now > 40000000000u);
    run_all(&s);
    close_scheduler(&s);
}

/* ---- pages ---- */

static void test_the_youngest_is_preempted(void **state)
{
    struct m40_scheduler_limits limits = limits_of(4, 5, 6);
    struct m40_scheduler s;
    struct m40_sequence *q[3];

    (void)state;
    limits.has_cache = false;
    open_scheduler(&s, &limits);
    for (int i = 0; i < 3; i++)
        q[i] = add(&s, 30, 100, (uint64_t)i);
    run_all(&s);
    assert_int_equal(q[0]->n_preemptions, 0); /* the first never is */
    assert_true(q[2]->n_preemptions > 0);
    assert_true(q[2]->n_preemptions >= q[1]->n_preemptions);
    assert_int_equal(s.n_preemptions, q[1]->n_preemptions + q[2]->n_preemptions);
    assert_true(s.n_recomputed > 0);
    assert_int_equal(s.n_prompt_tokens, 90);
    for (int i = 0; i < 3; i++)
        assert_int_equal(q[i]->n_generated, 100);
    assert_int_equal(m40_pages_available(&s.pool), 6);
    assert_int_equal(s.pool.n_idle, 0);
    close_scheduler(&s);
}

/* What was pre-empted finds its own pages again where nobody needed them meanwhile. */
static void test_waiting_for_pages_is_not_overtaken(void **state)
{
    struct m40_scheduler_limits limits = limits_of(4, 6, 6);
    struct m40_scheduler s;
    struct m40_sequence *large, *small;

    (void)state;
    open_scheduler(&s, &limits);
    add(&s, 100, 3, 1);
    large = add(&s, 150, 3, 2);
    small = add(&s, 10, 3, 3);
    step(&s, 1000);
    step(&s, 1000);
    assert_int_equal(large->state, M40_SEQUENCE_WAITING);
    assert_int_equal(small->state, M40_SEQUENCE_WAITING);
    while (small->state == M40_SEQUENCE_WAITING)
        step(&s, 1000);
    assert_int_not_equal(large->state, M40_SEQUENCE_WAITING);
    run_all(&s);
    close_scheduler(&s);
}

static void test_a_prefix_is_found(void **state)
{
    struct m40_scheduler_limits limits = limits_of(4, 8, 32);
    struct m40_scheduler s;
    struct m40_sequence *a, *b, *c, *d;

    (void)state;
    open_scheduler(&s, &limits);
    a = add(&s, 100, 60, 7);
    run_all(&s);
    assert_int_equal(a->n_cached, 0);
    assert_int_equal(s.pool.n_idle, 159 / 32); /* of the last token nothing is computed */
    b = add(&s, 100, 60, 7);
    c = add(&s, 96, 10, 7); /* the last page is full, but its last token is to be evaluated */
    d = add(&s, 40, 10, 8);
    run_all(&s);
    assert_int_equal(b->n_cached, 96);
    assert_int_equal(c->n_cached, 64);
    assert_int_equal(d->n_cached, 0);
    for (uint32_t i = 0; i < 160; i++)
        assert_int_equal(m40_sequence_token(a, i), m40_sequence_token(b, i));
    a = add(&s, 100, 60, 7); /* and a turn later: the answer's pages as well */
    a->uses_cache = false;
    run_all(&s);
    assert_int_equal(a->n_cached, 0);
    c = new_sequence(160, 5, 7);
    for (uint32_t i = 0; i < 160; i++)
        prompts[c - sequences][i] = m40_sequence_token(a, i);
    m40_scheduler_add(&s, c);
    run_all(&s);
    assert_int_equal(c->n_cached, 128);
    assert_int_equal(s.n_hits, 3);
    assert_int_equal(s.n_lookups, 5);
    assert_int_equal(s.n_cached_tokens, 96 + 64 + 128);
    close_scheduler(&s);
}

/* Two that are computed at the same time end up with the same pages. */
static void test_equal_pages_become_one(void **state)
{
    struct m40_scheduler_limits limits = limits_of(4, 8, 32);
    struct m40_scheduler s;
    struct m40_sequence *a, *b;

    (void)state;
    limits.n_chunk = 200;
    open_scheduler(&s, &limits);
    a = add(&s, 70, 10, 7);
    b = add(&s, 70, 10, 7);
    step(&s, 1000);
    assert_int_equal(b->n_cached, 0);
    assert_int_equal(s.pool.n_used, 2 + 1 + 1);
    assert_int_equal(s.pool.n_shared, 2);
    assert_memory_equal(a->pages, b->pages, 2 * sizeof *a->pages);
    run_all(&s);
    close_scheduler(&s);
}

/* The least recently used go, from their ends. */
static void test_eviction(void **state)
{
    struct m40_scheduler_limits limits = limits_of(1, 4, 6);
    struct m40_scheduler s;
    struct m40_sequence *q;

    (void)state;
    open_scheduler(&s, &limits);
    add(&s, 66, 1, 1);
    run_all(&s);
    add(&s, 66, 1, 2);
    run_all(&s);
    assert_int_equal(s.pool.n_idle, 4);
    add(&s, 66, 1, 1); /* used again: now the others are older */
    run_all(&s);
    q = add(&s, 34, 1, 3);
    run_all(&s);
    assert_int_equal(s.pool.n_evicted, 0);
    q = add(&s, 66, 1, 4); /* takes the last free page, and two of the longest unused */
    run_all(&s);
    assert_int_equal(s.pool.n_evicted, 2);
    q = add(&s, 66, 1, 1);
    run_all(&s);
    assert_int_equal(q->n_cached, 64);
    q = add(&s, 66, 1, 2);
    run_all(&s);
    assert_int_equal(q->n_cached, 0);
    close_scheduler(&s);
}

/* One hash for all: ids and predecessors tell them apart. */
static void test_equal_hashes(void **state)
{
    struct m40_page_pool pool;
    struct m40_prefix_cache cache;
    int32_t ids[3][M40_KV_PAGE] = {{1}, {2}, {3}};

    (void)state;
    assert_int_equal(m40_page_pool_init(&pool, 4, NULL), M40LLM_OK);
    assert_int_equal(m40_prefix_cache_init(&cache, &pool, 1, NULL), M40LLM_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(m40_page_take(&pool), i);
    m40_prefix_add(&cache, 0, 5, -1, ids[0]);
    m40_prefix_add(&cache, 1, 5, -1, ids[1]);
    m40_prefix_add(&cache, 2, 5, 0, ids[0]);
    m40_prefix_add(&cache, 3, 5, 1, ids[0]);
    assert_int_equal(m40_prefix_find(&cache, 5, -1, ids[0]), 0);
    assert_int_equal(m40_prefix_find(&cache, 5, -1, ids[1]), 1);
    assert_int_equal(m40_prefix_find(&cache, 5, 0, ids[0]), 2);
    assert_int_equal(m40_prefix_find(&cache, 5, 1, ids[0]), 3);
    assert_int_equal(m40_prefix_find(&cache, 5, -1, ids[2]), -1);
    assert_int_equal(m40_prefix_find(&cache, 5, 2, ids[0]), -1);
    assert_int_equal(m40_prefix_find(&cache, 6, -1, ids[0]), -1);
    for (int i = 3; i >= 0; i--)
        m40_page_release(&pool, i);
    assert_int_equal(m40_page_take(&pool), 3);
    assert_int_equal(m40_prefix_find(&cache, 5, 1, ids[0]), -1);
    assert_int_equal(m40_prefix_find(&cache, 5, 0, ids[0]), 2);
    m40_page_share(&pool, 0);
    m40_page_share(&pool, 2); /* out of the ring again */
    assert_int_equal(m40_page_take(&pool), 1);
    m40_prefix_cache_free(&cache);
    m40_page_pool_free(&pool);
}

static void test_choices_share_their_prompt(void **state)
{
    struct m40_scheduler_limits limits = limits_of(4, 8, 32);
    struct m40_scheduler s;
    struct m40_sequence *q[3];

    (void)state;
    limits.n_chunk = 100;
    open_scheduler(&s, &limits);
    for (uint32_t i = 0; i < 3; i++) {
        q[i] = new_sequence(150, 20, 7);
        q[i]->uses_cache = false;
        q[i]->order = 1;
        q[i]->choice = i;
        q[i]->leader = i ? q[0] : NULL;
        m40_scheduler_add(&s, q[i]);
    }
    add(&s, 10, 5, 8); /* is not held up */
    step(&s, 1000);
    assert_int_equal(q[0]->n_evaluated, 100);
    step(&s, 1000);
    assert_int_equal(q[1]->state, M40_SEQUENCE_WAITING);
    assert_int_equal(sequences[3].state, M40_SEQUENCE_RUNNING);
    while (q[2]->state == M40_SEQUENCE_WAITING)
        step(&s, 1000);
    assert_int_equal(s.pool.n_shared, 4);
    assert_true(q[0]->pages[3] == q[1]->pages[3] && q[0]->pages[3] == q[2]->pages[3]);
    run_all(&s);
    assert_int_equal(s.n_prompt_tokens, 150 + 2 * 22 + 10);
    close_scheduler(&s);
}

/* Anything may happen: sequences of all kinds come and go; what check_* and the shadow hold is what is tested. */
static void test_at_random(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 30; round++) {
        uint64_t random = test_seed() ^ round * 77;
        uint32_t n_slot_pages = 4 + (uint32_t)(test_random(&random) % 6);
        struct m40_scheduler_limits limits =
            limits_of(1 + (uint32_t)(test_random(&random) % 8), n_slot_pages, n_slot_pages + (uint32_t)(test_random(&random) % 12));
        struct m40_scheduler s;
        uint32_t n_most = n_slot_pages * M40_KV_PAGE;

        limits.has_cache = round % 4 != 0;
        limits.n_chunk = 1 + (uint32_t)(test_random(&random) % 100);
        open_scheduler(&s, &limits);
        for (int i = 0; i < 500; i++) {
            if (n_sequences + 3 < MAX_SEQUENCES && test_random(&random) % 4 == 0) {
                uint32_t n_prompt = 1 + (uint32_t)(test_random(&random) % (n_most - 30)), n_answer = 1 + (uint32_t)(test_random(&random) % 30);
                uint32_t n_choices = test_random(&random) % 5 ? 1 : 3;
                uint64_t seed = test_random(&random) % 3;
                int64_t key = (int64_t)(test_random(&random) % 3);
                bool uses_cache = test_random(&random) % 4 != 0, all_logits = n_choices == 1 && test_random(&random) % 6 == 0;
                struct m40_sequence *leader = NULL;

                for (uint32_t c = 0; c < n_choices; c++) {
                    struct m40_sequence *q = new_sequence(n_prompt, n_answer, seed);

                    q->order -= c;
                    q->choice = c;
                    q->leader = leader;
                    q->key = key;
                    q->uses_cache = uses_cache;
                    q->all_logits = all_logits;
                    m40_scheduler_add(&s, q);
                    if (c == 0)
                        leader = q;
                }
            }
            if (n_sequences > 0 && test_random(&random) % 20 == 0) {
                struct m40_sequence *q = &sequences[test_random(&random) % n_sequences];

                m40_scheduler_remove(&s, q); /* cancelled; perhaps it has ended already */
            }
            if (s.n_running + s.n_waiting > 0)
                step(&s, 1000 + test_random(&random) % 1000);
        }
        run_all(&s);
        close_scheduler(&s);
    }
}

/* ---- the pace ---- */

/* Steps of n_answers answers beside as many prompts as may be, where a step takes plain + n * row (ns); returns the rows of the last step. */
static uint32_t settle(struct m40_pace *pace, uint32_t n_answers, double plain, double row, int n_steps)
{
    uint32_t n = 0;

    for (int i = 0; i < n_steps; i++) {
        n = m40_pace_rows(pace, n_answers);
        m40_pace_measured(pace, n_answers, n, (uint64_t)(plain + n * row));
    }
    return n;
}

static void test_pace_keeps_the_bound(void **state)
{
    struct m40_pace pace;
    uint32_t n;

    (void)state;
    m40_pace_init(&pace, 2, 512, 0);
    assert_int_equal(m40_pace_rows(&pace, 0), 512);
    assert_int_equal(m40_pace_rows(&pace, 4), 0); /* not known yet */
    n = settle(&pace, 4, 1e7, 1e6, 50);
    assert_in_range(n, 9, 10);
    n = settle(&pace, 4, 1e7, 1e5, 50); /* rows become cheaper */
    assert_in_range(n, 90, 100);
    n = settle(&pace, 4, 1e7, 1, 50);
    assert_int_equal(n, 512);
    n = settle(&pace, 4, 1e7, 1e9, 50); /* one always goes on */
    assert_int_equal(n, 1);
    m40_pace_init(&pace, 1.5, 512, 0);
    n = settle(&pace, 1, 2e7, 1e6, 50);
    assert_in_range(n, 9, 10);
    m40_pace_init(&pace, 2, 4, 0);
    assert_int_equal(settle(&pace, 1, 1e7, 1, 50), 4);
}

static void test_pace_of_prompts_alone(void **state)
{
    struct m40_pace pace;
    uint32_t n;

    (void)state;
    m40_pace_init(&pace, 2, 512, 7e8);
    assert_in_range(m40_pace_rows(&pace, 0), 1, 32); /* a slow device must not be given much at once */
    assert_int_equal(settle(&pace, 0, 3e6, 3e5, 3), 512);
    n = settle(&pace, 0, 2e7, 3e6, 10); /* 233 take as long as a step may */
    assert_in_range(n, 128, 233);
    assert_int_equal(n % 64, 0);
    m40_pace_measured(&pace, 0, 1, 20000000); /* a prompt's rest says nothing of more rows */
    assert_int_equal(m40_pace_rows(&pace, 0), n);
    m40_pace_measured(&pace, 0, n, UINT64_C(10000000000)); /* something disturbed one step: that is made good */
    assert_true(m40_pace_rows(&pace, 0) < n);
    assert_int_equal(settle(&pace, 0, 2e7, 3e6, 5), n);
    assert_in_range(settle(&pace, 0, 0, 4e7, 10), 16, 17);
    assert_int_equal(settle(&pace, 0, 1e9, 1e9, 10), 1); /* one always goes on */
    assert_int_equal(settle(&pace, 0, 0, 0, 10), 512);
    m40_pace_init(&pace, 2, 4, 7e8);
    assert_int_equal(settle(&pace, 0, 1, 1, 10), 4);
}

static void test_pace_measures_again(void **state)
{
    struct m40_pace pace;
    uint32_t n_plain = 0;
    uint32_t n;

    (void)state;
    m40_pace_init(&pace, 2, 512, 0);
    for (int i = 0; i < 1000; i++) {
        n = m40_pace_rows(&pace, 3);
        n_plain += n == 0;
        m40_pace_measured(&pace, 3, n, (uint64_t)(1e7 + n * 1e6));
    }
    assert_in_range(n_plain, 10, 20);
    settle(&pace, 3, 4e7, 1e6, 1000); /* contexts have grown: more rows fit */
    assert_in_range(pace.n_rows, 35, 40);
    assert_int_equal(m40_pace_rows(&pace, 1000), 0); /* another number of answers */
}

/* A step that costs the same for up to 32 rows, as tiles of a matrix do. */
static void test_pace_over_stairs(void **state)
{
    struct m40_pace pace;
    uint32_t n = 0;
    double worst = 0;

    (void)state;
    m40_pace_init(&pace, 2, 512, 0);
    for (int i = 0; i < 300; i++) {
        double ns = 1e7;

        n = m40_pace_rows(&pace, 2);
        ns += (n + 31) / 32 * 4e6;
        m40_pace_measured(&pace, 2, n, (uint64_t)ns);
        if (i > 50 && ns > worst)
            worst = ns;
    }
    assert_true(n == 0 || (n >= 32 && n <= 96));
    assert_true(worst <= 2.3e7);
}

/* ms of a step by its rows, as measured on an H200 with an 8B model in a 4-bit format (1, 4, 8 and 16 streams, and a tile of 32): the kernels for 2, 4, 8 and 16 tokens, then tiles of 32. */
static double stairs_ms(uint32_t n_rows)
{
    static const double ms[] = {2.28, 2.9, 3.75, 6.0, 9.5}; /* up to 1 << i rows */

    for (uint32_t i = 0; i < 5; i++)
        if (n_rows <= 1u << i)
            return ms[i];
    return 12 + 3 * ((n_rows - 1) / 32);
}

struct drive {
    uint32_t n_steps, n_mixed, n_over, n_rows; /* steps with prompts, those above the bound, and rows of prompts */
    double ms;
};

/* Steps on a clock of their own; every `disturbed`-th one (0: none) takes five times as long. */
static struct drive drive(struct m40_pace *pace, uint32_t n_answers, uint32_t n_steps, double (*ms_of)(uint32_t n_rows), uint32_t disturbed)
{
    struct drive d = {0};
    double plain = ms_of(n_answers);

    for (; d.n_steps < n_steps; d.n_steps++) {
        uint32_t n = m40_pace_rows(pace, n_answers);
        double ms = ms_of(n_answers + n);
        bool is_disturbed = disturbed && d.n_steps % disturbed == disturbed - 1;

        d.n_mixed += n > 0;
        d.n_over += n > 0 && ms > pace->growth * plain;
        d.n_rows += n;
        d.ms += ms;
        m40_pace_measured(pace, n_answers, n, (uint64_t)(ms * 1e6 * (is_disturbed ? 5 : 1)));
    }
    return d;
}

/* What a step may have at most. */
static uint32_t most_rows(uint32_t n_answers, double (*ms_of)(uint32_t n_rows), double growth)
{
    uint32_t n = 1;

    while (n < 512 && ms_of(n_answers + n + 1) <= growth * ms_of(n_answers))
        n++;
    return n;
}

/* Steps of an H200: from the start on nearly none is above the bound, and nearly as much of the prompt is done as could be. */
static void test_pace_of_a_card(void **state)
{
    (void)state;
    for (uint32_t n_answers = 1; n_answers <= 48; n_answers++) {
        for (int round = 0; round < 2; round++) { /* a steady clock, and a disturbed one */
            uint32_t most = most_rows(n_answers, stairs_ms, 2);
            struct m40_pace pace;
            struct drive first, then;

            m40_pace_init(&pace, 2, 512, 0);
            first = drive(&pace, n_answers, 60, stairs_ms, round ? 29 : 0);
            assert_true(first.n_over <= 4);
            then = drive(&pace, n_answers, 2000, stairs_ms, round ? 29 : 0);
            assert_true(then.n_over * 50 <= then.n_mixed);
            assert_true(then.n_rows >= 0.8 * most * then.n_mixed);
            if (round == 0)
                assert_true(then.ms <= 2 * stairs_ms(n_answers) * then.n_steps);
        }
    }
}

/* Requests come and go: the bound holds for every number of answers at once, and none is learnt from the beginning each time. */
static void test_pace_as_answers_come_and_go(void **state)
{
    struct m40_pace pace;
    uint64_t random = test_seed() ^ 3;
    uint32_t n_over = 0, n_mixed = 0;

    (void)state;
    m40_pace_init(&pace, 2, 512, 0);
    for (int i = 0; i < 400; i++) {
        struct drive d = drive(&pace, 1 + (uint32_t)(test_random(&random) % 12), 1 + (uint32_t)(test_random(&random) % 40), stairs_ms, 0);

        n_over += d.n_over;
        n_mixed += d.n_mixed;
    }
    assert_true(n_over * 25 <= n_mixed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_many_wait),
        cmocka_unit_test(test_low_priority_does_not_starve),
        cmocka_unit_test(test_the_youngest_is_preempted),
        cmocka_unit_test(test_waiting_for_pages_is_not_overtaken),
        cmocka_unit_test(test_a_prefix_is_found),
        cmocka_unit_test(test_equal_pages_become_one),
        cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_equal_hashes),
        cmocka_unit_test(test_choices_share_their_prompt),
        cmocka_unit_test(test_at_random),
        cmocka_unit_test(test_pace_keeps_the_bound),
        cmocka_unit_test(test_pace_of_prompts_alone),
        cmocka_unit_test(test_pace_measures_again),
        cmocka_unit_test(test_pace_over_stairs),
        cmocka_unit_test(test_pace_of_a_card),
        cmocka_unit_test(test_pace_as_answers_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
