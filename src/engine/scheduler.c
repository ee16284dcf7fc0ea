#include "engine/scheduler.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

#define PRIORITY_NS INT64_C(10000000000) /* how much earlier a step of priority makes a request */

int64_t m40_scheduler_key(uint64_t submitted_ns, int priority)
{
    return (int64_t)submitted_ns - priority * PRIORITY_NS;
}

m40llm_status m40_scheduler_init(struct m40_scheduler *s, const struct m40_scheduler_limits *limits, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;

    assert(limits->n_pages >= limits->n_slot_pages);
    *s = (struct m40_scheduler){.limits = *limits};
    m40_pace_init(&s->pace, limits->step_growth, limits->n_chunk, limits->longest_ns);
    M40_TRY(m40_page_pool_init(&s->pool, limits->n_pages, err));
    if (limits->has_cache)
        M40_TRY(m40_prefix_cache_init(&s->cache, &s->pool, limits->hash_seed, err));
    s->page_table = m40_calloc((size_t)limits->n_slots * limits->n_slot_pages, sizeof *s->page_table);
    s->running = m40_calloc(limits->n_slots, sizeof *s->running);
    s->free_slots = m40_calloc(limits->n_slots, sizeof *s->free_slots);
    s->items = m40_calloc(limits->n_slots, sizeof *s->items);
    s->lane_items = m40_calloc(limits->n_slots, sizeof *s->lane_items);
    M40_FAIL_IF(!s->page_table || !s->running || !s->free_slots || !s->items || !s->lane_items, M40LLM_NO_MEMORY, "scheduler of %u sequences",
                limits->n_slots);
    for (uint32_t i = 0; i < limits->n_slots; i++)
        s->free_slots[i] = limits->n_slots - 1 - i;
    return M40LLM_OK;
fail:
    m40_scheduler_free(s);
    return status;
}

void m40_scheduler_free(struct m40_scheduler *s)
{
    m40_prefix_cache_free(&s->cache);
    m40_page_pool_free(&s->pool);
    m40_free(s->page_table);
    m40_free(s->running);
    m40_free(s->free_slots);
    m40_free(s->items);
    m40_free(s->lane_items);
    *s = (struct m40_scheduler){0};
}

/* ---- waiting and running ---- */

void m40_scheduler_add(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    m40_waiting_add(&s->waiting, sequence);
    sequence->state = M40_SEQUENCE_WAITING;
    s->n_waiting++;
}

static void stop_waiting(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    m40_waiting_remove(&s->waiting, sequence);
    s->n_waiting--;
}

static void start_running(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    uint32_t i = s->n_running, slot = s->free_slots[s->limits.n_slots - s->n_running - 1];

    for (; i > 0 && m40_sequence_is_before(sequence, s->running[i - 1]); i--)
        s->running[i] = s->running[i - 1];
    s->running[i] = sequence;
    s->n_running++;
    sequence->state = M40_SEQUENCE_RUNNING;
    sequence->slot = slot;
    sequence->pages = s->page_table + (size_t)slot * s->limits.n_slot_pages;
}

/* Of a sequence's pages the last goes first (kv_pages.h). */
static void stop_running(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    uint32_t i = 0;

    while (sequence->n_pages > 0)
        m40_page_release(&s->pool, sequence->pages[--sequence->n_pages]);
    while (s->running[i] != sequence)
        i++;
    s->n_running--;
    memmove(s->running + i, s->running + i + 1, (s->n_running - i) * sizeof *s->running);
    s->free_slots[s->limits.n_slots - s->n_running - 1] = sequence->slot;
    sequence->pages = NULL;
    sequence->n_evaluated = 0;
    sequence->n_known = 0;
    sequence->hash = 0;
}

void m40_scheduler_remove(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    assert(!sequence->is_in_lane);
    if (sequence->state == M40_SEQUENCE_WAITING)
        stop_waiting(s, sequence);
    else if (sequence->state == M40_SEQUENCE_RUNNING)
        stop_running(s, sequence);
    sequence->state = M40_SEQUENCE_ENDED;
}

static void preempt(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    assert(!sequence->is_in_lane);
    stop_running(s, sequence);
    sequence->n_preemptions++;
    s->n_preemptions++;
    m40_scheduler_add(s, sequence);
}

/* ---- pages ---- */

static void take_page(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    int32_t page = m40_page_take(&s->pool);

    assert(page >= 0 && sequence->n_pages < s->limits.n_slot_pages);
    sequence->pages[sequence->n_pages++] = page;
}

static void share_page(struct m40_scheduler *s, struct m40_sequence *sequence, int32_t page)
{
    m40_page_share(&s->pool, page);
    sequence->pages[sequence->n_pages++] = page;
    sequence->n_evaluated += M40_KV_PAGE;
}

static bool is_searching(const struct m40_scheduler *s, const struct m40_sequence *sequence)
{
    return s->limits.has_cache && sequence->uses_cache && !sequence->all_logits && !sequence->needs_all_rows;
}

/* Full pages that may be shared: the last token is always evaluated, for its logits. */
static uint32_t n_shareable(const struct m40_sequence *sequence)
{
    return (sequence->n_tokens - 1) / M40_KV_PAGE;
}

/* What a sequence would share and take if it were admitted. */
struct need {
    bool from_leader;
    uint32_t n_shared, n_idle; /* pages shared; of those, the ones that count as available */
    uint64_t hash;             /* of the shared ones */
};

static bool leads(const struct m40_sequence *sequence)
{
    const struct m40_sequence *leader = sequence->leader;

    return leader && leader->state == M40_SEQUENCE_RUNNING && sequence->n_tokens == sequence->n_prompt && !sequence->all_logits;
}

/* Its prompt's pages are about to be there for the taking. */
static bool waits_for_leader(const struct m40_sequence *sequence)
{
    const struct m40_sequence *leader = sequence->leader;

    return leader && (leader->state == M40_SEQUENCE_WAITING || (leads(sequence) && leader->n_evaluated < n_shareable(sequence) * M40_KV_PAGE));
}

static struct need find_need(const struct m40_scheduler *s, const struct m40_sequence *sequence)
{
    struct need need = {.from_leader = leads(sequence)};
    int32_t page = -1, copy[M40_KV_PAGE];

    if (need.from_leader) {
        need.n_shared = n_shareable(sequence);
        return need;
    }
    if (!is_searching(s, sequence))
        return need;
    for (uint32_t i = 0; i < n_shareable(sequence); i++) {
        const int32_t *ids = m40_sequence_page(sequence, i, copy);
        uint64_t hash = m40_prefix_hash(&s->cache, need.hash, ids);

        page = m40_prefix_find(&s->cache, hash, page, ids);
        if (page < 0)
            break;
        need.hash = hash;
        need.n_shared++;
        need.n_idle += s->pool.references[page] == 0;
    }
    return need;
}

/* Whether the pages suffice, and leave one for each running sequence that may want another. */
static bool fits(const struct m40_scheduler *s, const struct m40_sequence *sequence, const struct need *need)
{
    uint32_t n_take = m40_pages_of(sequence->n_tokens) - need->n_shared + need->n_idle, n_spare = 0;

    for (uint32_t i = 0; i < s->n_running; i++) {
        const struct m40_sequence *other = s->running[i];

        n_spare += m40_pages_of(other->capacity < s->limits.n_slot_pages * M40_KV_PAGE ? other->capacity : s->limits.n_slot_pages * M40_KV_PAGE) >
                   other->n_pages;
    }
    return n_take + n_spare <= m40_pages_available(&s->pool);
}

static void share_found(struct m40_scheduler *s, struct m40_sequence *sequence, const struct need *need)
{
    int32_t page = -1, copy[M40_KV_PAGE];
    uint64_t hash = 0;

    for (uint32_t i = 0; i < need->n_shared; i++) {
        const int32_t *ids = m40_sequence_page(sequence, i, copy);

        hash = m40_prefix_hash(&s->cache, hash, ids);
        page = m40_prefix_find(&s->cache, hash, page, ids);
        share_page(s, sequence, page);
    }
    sequence->n_known = need->n_shared;
    sequence->hash = hash;
    s->n_lookups++;
    s->n_hits += need->n_shared > 0;
    s->n_cached_tokens += (uint64_t)need->n_shared * M40_KV_PAGE;
    if (sequence->n_seen == 0)
        sequence->n_cached = need->n_shared * M40_KV_PAGE;
}

static void share_with_leader(struct m40_scheduler *s, struct m40_sequence *sequence, const struct need *need)
{
    const struct m40_sequence *leader = sequence->leader;

    for (uint32_t i = 0; i < need->n_shared; i++)
        share_page(s, sequence, leader->pages[i]);
}

static void admit(struct m40_scheduler *s, struct m40_sequence *sequence, const struct need *need)
{
    stop_waiting(s, sequence);
    start_running(s, sequence);
    if (need->from_leader)
        share_with_leader(s, sequence, need);
    else if (is_searching(s, sequence))
        share_found(s, sequence, need);
    while (sequence->n_pages < m40_pages_of(sequence->n_tokens))
        take_page(s, sequence);
    if (sequence->n_seen < sequence->n_evaluated)
        sequence->n_seen = sequence->n_evaluated;
}

/* The next that can be admitted if there are pages; NULL: there is none. Nobody overtakes one that waits for pages. */
static struct m40_sequence *next_waiting(const struct m40_scheduler *s)
{
    struct m40_sequence *sequence = s->waiting.first[0];

    if (s->n_running == s->limits.n_slots)
        return NULL;
    while (sequence && waits_for_leader(sequence))
        sequence = sequence->next[0];
    return sequence;
}

/* false: there are not enough pages. */
static bool try_admit(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    struct need need = find_need(s, sequence);

    if (!fits(s, sequence, &need))
        return false;
    admit(s, sequence, &need);
    return true;
}

/* ---- the plan ---- */

static uint32_t n_left(const struct m40_sequence *sequence)
{
    return sequence->n_tokens - sequence->n_evaluated;
}

static void add_item(struct m40_scheduler *s, struct m40_sequence *sequence, uint32_t n_rows)
{
    s->items[s->n_items++] = (struct m40_plan_item){sequence, n_rows};
}

/* Every sequence with one token left gets a row, and a page for it if it takes the last in the order's. */
static void plan_answers(struct m40_scheduler *s)
{
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct m40_sequence *sequence = s->running[i];

        if (n_left(sequence) != 1 || sequence->is_in_lane)
            continue;
        while (i < s->n_running && sequence->n_pages < m40_pages_of(sequence->n_tokens)) {
            if (m40_pages_available(&s->pool) > 0)
                take_page(s, sequence);
            else
                preempt(s, s->running[s->n_running - 1]); /* perhaps itself: then i == n_running */
        }
        if (i < s->n_running)
            add_item(s, sequence, 1);
    }
    s->n_answer_rows = s->n_items;
}

bool m40_scheduler_may_preempt(const struct m40_scheduler *s)
{
    uint32_t n_wanted = 0;

    for (uint32_t i = 0; i < s->n_running; i++)
        n_wanted += n_left(s->running[i]) == 1 && !s->running[i]->is_in_lane && s->running[i]->n_pages < m40_pages_of(s->running[i]->n_tokens);
    return n_wanted > m40_pages_available(&s->pool);
}

/* What prompts may still add to a step, and to the lane. */
struct budget {
    uint32_t n_rows, n_all_logits, n_lane_rows;
};

/* Those that need nothing but K and V of a prompt's tokens. */
static bool uses_lane(const struct m40_scheduler *s, const struct m40_sequence *sequence)
{
    return s->limits.has_lane && !sequence->all_logits && !sequence->needs_all_rows;
}

/* All but the last token, which is evaluated with the answers. */
static void plan_lane(struct m40_scheduler *s, struct m40_sequence *sequence, struct budget *budget)
{
    uint32_t n = n_left(sequence) - 1;

    if (n > budget->n_lane_rows)
        n = budget->n_lane_rows;
    if (n == 0)
        return;
    budget->n_lane_rows -= n;
    sequence->is_in_lane = true;
    s->lane_items[s->n_lane_items++] = (struct m40_plan_item){sequence, n};
}

static void plan_prompt(struct m40_scheduler *s, struct m40_sequence *sequence, struct budget *budget)
{
    uint32_t n = n_left(sequence);

    if (n > budget->n_rows)
        n = budget->n_rows;
    if (sequence->all_logits) {
        if (n > budget->n_all_logits)
            n = budget->n_all_logits;
        budget->n_all_logits -= n;
    }
    budget->n_rows -= n;
    s->n_prompt_rows += n;
    if (n > 0)
        add_item(s, sequence, n);
}

static void plan_any(struct m40_scheduler *s, struct m40_sequence *sequence, struct budget *budget)
{
    if (uses_lane(s, sequence) && n_left(sequence) > 1)
        plan_lane(s, sequence, budget);
    else
        plan_prompt(s, sequence, budget);
}

void m40_scheduler_plan(struct m40_scheduler *s)
{
    struct budget budget = {.n_all_logits = s->limits.n_all_logits};
    struct m40_sequence *sequence;

    s->n_items = s->n_prompt_rows = 0;
    plan_answers(s);
    budget.n_rows = m40_pace_rows(&s->pace, s->n_answer_rows);
    budget.n_lane_rows = s->n_lane_items == 0 ? s->limits.n_chunk : 0;
    for (uint32_t i = 0; i < s->n_running; i++)
        if (n_left(s->running[i]) > 1 && !s->running[i]->is_in_lane)
            plan_any(s, s->running[i], &budget);
    while ((sequence = next_waiting(s)) != NULL && (uses_lane(s, sequence) ? budget.n_lane_rows : budget.n_rows) > 0 && try_admit(s, sequence))
        plan_any(s, sequence, &budget);
}

/* ---- after the step ---- */

/* A page that has become full is known from now on; where its content was known already, that page takes its place: the numerical contract says that they are equal. */
static void learn_page(struct m40_scheduler *s, struct m40_sequence *sequence)
{
    uint32_t i = sequence->n_known;
    int32_t copy[M40_KV_PAGE];
    const int32_t *ids = m40_sequence_page(sequence, i, copy);
    uint64_t hash = m40_prefix_hash(&s->cache, sequence->hash, ids);
    int32_t parent = i > 0 ? sequence->pages[i - 1] : -1, known = m40_prefix_find(&s->cache, hash, parent, ids);

    if (known < 0) {
        m40_prefix_add(&s->cache, sequence->pages[i], hash, parent, ids);
    } else if (known != sequence->pages[i]) {
        m40_page_share(&s->pool, known);
        m40_page_release(&s->pool, sequence->pages[i]);
        sequence->pages[i] = known;
    }
    sequence->hash = hash;
    sequence->n_known++;
}

/* So many rows more of it are. */
static void note_evaluated(struct m40_scheduler *s, struct m40_sequence *sequence, uint32_t n_rows)
{
    uint32_t end = sequence->n_evaluated + n_rows, prompt_end = end < sequence->n_prompt ? end : sequence->n_prompt;

    if (sequence->n_evaluated < sequence->n_seen)
        s->n_recomputed += (end < sequence->n_seen ? end : sequence->n_seen) - sequence->n_evaluated;
    if (sequence->n_seen < prompt_end)
        s->n_prompt_tokens += prompt_end - sequence->n_seen;
    sequence->n_evaluated = end;
    if (sequence->n_seen < end)
        sequence->n_seen = end;
    while (s->limits.has_cache && sequence->uses_cache && sequence->n_known < end / M40_KV_PAGE)
        learn_page(s, sequence);
}

void m40_scheduler_done(struct m40_scheduler *s, uint64_t ns)
{
    m40_pace_measured(&s->pace, s->n_answer_rows, s->n_prompt_rows, ns);
    for (uint32_t i = 0; i < s->n_items; i++)
        note_evaluated(s, s->items[i].sequence, s->items[i].n_rows);
}

void m40_scheduler_lane_done(struct m40_scheduler *s, bool is_whole)
{
    for (uint32_t i = 0; i < s->n_lane_items; i++) {
        s->lane_items[i].sequence->is_in_lane = false;
        if (is_whole)
            note_evaluated(s, s->lane_items[i].sequence, s->lane_items[i].n_rows);
    }
    s->n_lane_items = 0;
}
