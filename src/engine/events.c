#include "engine/events.h"
#include "base/mem.h"

#include <string.h>

static size_t bytes_of(const m40llm_event *event)
{
    return event->n_embedding * sizeof *event->embedding + event->n_top * sizeof *event->top + (event->text ? event->n_text + 1 : 0);
}

struct m40_event_node *m40_event_take_node(struct m40_event_pool *pool, const m40llm_event *event)
{
    struct m40_event_node *node = pool->free;

    if (!node || bytes_of(event) > M40_EVENT_SMALL)
        return NULL;
    pool->free = node->next;
    pool->n--;
    return node;
}

/* Copies n_bytes to *at, which moves on; returns where they are. */
static const void *put(char **at, const void *data, size_t n_bytes)
{
    char *to = *at;

    if (n_bytes)
        memcpy(to, data, n_bytes);
    *at += n_bytes;
    return to;
}

struct m40_event_node *m40_event_fill(struct m40_event_node *node, const m40llm_event *event)
{
    size_t n_bytes = bytes_of(event);
    char *at;

    if (!node) {
        node = m40_calloc(1, sizeof *node + (n_bytes > M40_EVENT_SMALL ? n_bytes : M40_EVENT_SMALL));
        if (!node)
            return NULL;
        node->is_small = n_bytes <= M40_EVENT_SMALL;
    }
    node->next = NULL;
    node->event = *event;
    at = node->more;
    if (event->n_embedding)
        node->event.embedding = put(&at, event->embedding, event->n_embedding * sizeof *event->embedding);
    if (event->n_top)
        node->event.top = put(&at, event->top, event->n_top * sizeof *event->top);
    if (event->text)
        node->event.text = put(&at, event->text, event->n_text + 1);
    return node;
}

void m40_event_append(struct m40_event_list *list, struct m40_event_node *node)
{
    *(list->last ? &list->last->next : &list->first) = node;
    list->last = node;
}

static void give_back(struct m40_event_pool *pool, struct m40_event_node *node)
{
    if (!node)
        return;
    if (!node->is_small || pool->n >= M40_EVENT_POOL_NODES) {
        m40_free(node);
        return;
    }
    node->next = pool->free;
    pool->free = node;
    pool->n++;
}

const m40llm_event *m40_event_take(struct m40_event_list *list, struct m40_event_pool *pool)
{
    give_back(pool, list->shown);
    list->shown = list->first;
    if (!list->first)
        return NULL;
    list->first = list->first->next;
    if (!list->first)
        list->last = NULL;
    return &list->shown->event;
}

static void free_all(struct m40_event_node *node)
{
    while (node) {
        struct m40_event_node *next = node->next;

        m40_free(node);
        node = next;
    }
}

void m40_event_pool_free(struct m40_event_pool *pool)
{
    free_all(pool->free);
    *pool = (struct m40_event_pool){0};
}

void m40_event_list_free(struct m40_event_list *list)
{
    free_all(list->first);
    m40_free(list->shown);
    *list = (struct m40_event_list){0};
}
