#include "tokenizer/merge.h"

#include "base/mem.h"
#include "tokenizer/vocab.h"

#include <assert.h>

struct m40_merge_rule {
    int32_t left, right; /* left = -1: free */
    uint32_t rank;
    int32_t merged;
};

static struct m40_merge_rule *find_slot(const struct m40_merge_rules *rules, int32_t left, int32_t right)
{
    size_t mask = rules->n_slots - 1;
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    for (size_t i = m40_hash_mix(pair ^ rules->seed) & mask;; i = (i + 1) & mask) {
        struct m40_merge_rule *slot = &rules->slots[i];

        if (slot->left < 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

static m40llm_status resize(struct m40_merge_rules *rules, size_t n_slots, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_merge_rules old = *rules;
    struct m40_merge_rule *slots = m40_calloc(n_slots, sizeof *slots);

    M40_FAIL_IF(!slots, M40LLM_NO_MEMORY, "merge rules");
    for (size_t i = 0; i < n_slots; i++)
        slots[i].left = -1;
    rules->slots = slots;
    rules->n_slots = n_slots;
    for (size_t i = 0; i < old.n_slots; i++)
        if (old.slots[i].left >= 0)
            *find_slot(rules, old.slots[i].left, old.slots[i].right) = old.slots[i];
    m40_free(old.slots);
fail:
    return status;
}

m40llm_status m40_merge_rules_open(struct m40_merge_rules *rules, size_t n_rules, m40llm_error *err)
{
    size_t n_slots = 16;

    while (n_slots < 2 * n_rules)
        n_slots *= 2;
    rules->seed = m40_hash_seed(rules);
    return resize(rules, n_slots, err);
}

void m40_merge_rules_free(struct m40_merge_rules *rules)
{
    m40_free(rules->slots);
    *rules = (struct m40_merge_rules){0};
}

m40llm_status m40_merge_rules_add(struct m40_merge_rules *rules, int32_t left, int32_t right, uint32_t rank, int32_t merged, m40llm_error *err)
{
    m40llm_status status = M40LLM_OK;
    struct m40_merge_rule *slot;

    assert(left >= 0 && right >= 0 && rank < UINT32_MAX);
    if (2 * (rules->n_rules + 1) > rules->n_slots)
        M40_TRY(resize(rules, 2 * rules->n_slots, err));
    slot = find_slot(rules, left, right);
    if (slot->left >= 0)
        return M40LLM_INVALID_ARGUMENT;
    *slot = (struct m40_merge_rule){left, right, rank, merged};
    rules->n_rules++;
fail:
    return status;
}

void m40_merger_free(struct m40_merger *merger)
{
    m40_free(merger->symbols);
    m40_free(merger->heap);
    *merger = (struct m40_merger){0};
}

static bool grow(struct m40_merger *merger)
{
    size_t capacity = merger->capacity ? 2 * merger->capacity : 64;
    struct m40_symbol *symbols = m40_realloc_array(merger->symbols, capacity, sizeof *symbols);
    uint64_t *heap;

    if (!symbols)
        return false;
    merger->symbols = symbols;
    /* a word of n symbols starts with up to n - 1 candidates, and each of up to n - 1 merges adds up to two */
    heap = m40_realloc_array(merger->heap, 3 * capacity, sizeof *heap);
    if (!heap)
        return false;
    merger->heap = heap;
    merger->capacity = capacity;
    return true;
}

bool m40_merger_push(struct m40_merger *merger, int32_t id, uint32_t source)
{
    uint32_t i = (uint32_t)merger->n_symbols;

    if (merger->n_symbols == merger->capacity && !grow(merger))
        return false;
    merger->symbols[i] =
        (struct m40_symbol){.id = id, .source = source, .prev = i ? i - 1 : M40_SYMBOL_END, .next = M40_SYMBOL_END, .rank = UINT32_MAX};
    if (i)
        merger->symbols[i - 1].next = i;
    merger->n_symbols++;
    return true;
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t key = heap[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= key)
            break;
        heap[i] = heap[child];
    }
    heap[i] = key;
}

static void sift_up(uint64_t *heap, size_t i)
{
    uint64_t key = heap[i];

    for (size_t parent; i > 0 && heap[parent = (i - 1) / 2] > key; i = parent)
        heap[i] = heap[parent];
    heap[i] = key;
}

/* Looks up the rule for symbol i and its successor; puts it at the heap's end and returns true where there is one. */
static bool look_up(struct m40_merger *merger, const struct m40_merge_rules *rules, uint32_t i)
{
    struct m40_symbol *s = &merger->symbols[i];
    const struct m40_merge_rule *rule;

    s->rank = UINT32_MAX;
    if (s->next == M40_SYMBOL_END || s->id < 0 || merger->symbols[s->next].id < 0)
        return false;
    rule = find_slot(rules, s->id, merger->symbols[s->next].id);
    if (rule->left < 0)
        return false;
    s->rank = rule->rank;
    s->merged = rule->merged;
    merger->heap[merger->n_heap++] = (uint64_t)s->rank << 32 | i;
    return true;
}

static uint64_t pop(struct m40_merger *merger)
{
    uint64_t least = merger->heap[0];

    merger->heap[0] = merger->heap[--merger->n_heap];
    if (merger->n_heap)
        sift_down(merger->heap, merger->n_heap, 0);
    return least;
}

void m40_merger_run(struct m40_merger *merger, const struct m40_merge_rules *rules)
{
    struct m40_symbol *symbols = merger->symbols;

    merger->n_heap = 0;
    for (uint32_t i = 0; i + 1 < merger->n_symbols; i++)
        look_up(merger, rules, i);
    for (size_t i = merger->n_heap / 2; i-- > 0;)
        sift_down(merger->heap, merger->n_heap, i);
    while (merger->n_heap) {
        uint64_t key = pop(merger);
        struct m40_symbol *s = &symbols[(uint32_t)key];

        /* An entry is stale when its pair has changed since. The same rank again is as good: the new pair's own entry has the same key. */
        if (s->rank != key >> 32)
            continue;
        symbols[s->next].rank = UINT32_MAX;
        s->id = s->merged;
        s->next = symbols[s->next].next;
        if (s->next != M40_SYMBOL_END)
            symbols[s->next].prev = (uint32_t)key;
        if (look_up(merger, rules, (uint32_t)key))
            sift_up(merger->heap, merger->n_heap - 1);
        if (s->prev != M40_SYMBOL_END && look_up(merger, rules, s->prev))
            sift_up(merger->heap, merger->n_heap - 1);
    }
}
