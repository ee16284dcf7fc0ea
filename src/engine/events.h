/* Events that wait to be read: one list a request. Most are small, and their memory goes from hand to hand: a pool keeps what was read for what is told next. All under the engine's lock, but
 * m40_event_fill. */
#ifndef M40_ENGINE_EVENTS_H
#define M40_ENGINE_EVENTS_H

#include "m40llm.h"

#include <stdbool.h>

enum {
    M40_EVENT_SMALL = 256,       /* bytes that an event of the pool may point to */
    M40_EVENT_POOL_NODES = 4096, /* that are kept */
};

/* An event with all that it points to. */
struct m40_event_node {
    struct m40_event_node *next;
    bool is_small; /* belongs to the pool */
    m40llm_event event;
    _Alignas(8) char more[]; /* [M40_EVENT_SMALL], or what it takes */
};

/* Zeroed: empty. */
struct m40_event_pool {
    struct m40_event_node *free;
    uint32_t n;
};

/* Zeroed: empty. */
struct m40_event_list {
    struct m40_event_node *first, *last;
    struct m40_event_node *shown; /* was taken; its pointers are valid until the next is */
};

/* A node of the pool that is large enough for a copy of the event; NULL: there is none, and m40_event_fill makes one. */
struct m40_event_node *m40_event_take_node(struct m40_event_pool *pool, const m40llm_event *event);
/* Copies the event into the node, or, where that is NULL, into a new one. NULL: no memory. */
struct m40_event_node *m40_event_fill(struct m40_event_node *node, const m40llm_event *event);
void m40_event_pool_free(struct m40_event_pool *pool);

void m40_event_append(struct m40_event_list *list, struct m40_event_node *node);
/* The first event, which becomes the one that is shown; the one before goes back to the pool. NULL: there is none, and nothing is shown any more. */
const m40llm_event *m40_event_take(struct m40_event_list *list, struct m40_event_pool *pool);
void m40_event_list_free(struct m40_event_list *list);

#endif
