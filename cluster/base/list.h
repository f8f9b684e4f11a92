/* A doubly linked ring through members of the things in it: queues, LRU orders.
 *
 * struct list is both the head (list_init) and the member. A member that is in no list has been
 * initialised by list_init too, so list_remove() on it does nothing. No memory is managed.
 */
#ifndef DFS_CLUSTER_BASE_LIST_H
#define DFS_CLUSTER_BASE_LIST_H

#include "cluster/base/base.h"

struct list {
    struct list *prev;
    struct list *next;
};

/* The thing around a member. */
#define CONTAINER_OF(member_ptr, type, member) \
    ((type *)(void *)((char *)(member_ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
    l->prev = l;
    l->next = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Puts an item that is in no list between at and what follows at. */
static inline void list_insert_after(struct list *at, struct list *item)
{
    item->prev = at;
    item->next = at->next;
    at->next->prev = item;
    at->next = item;
}

static inline void list_push_front(struct list *head, struct list *item)
{
    list_insert_after(head, item);
}

static inline void list_push_back(struct list *head, struct list *item)
{
    list_insert_after(head->prev, item);
}

static inline void list_remove(struct list *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    list_init(item);
}

/* The first or last item, or NULL when the list is empty. */
static inline struct list *list_first(const struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head)
{
    return list_empty(head) ? NULL : head->prev;
}

/* Takes the first item out; NULL when empty. */
static inline struct list *list_pop_front(struct list *head)
{
    struct list *item = list_first(head);

    if (item != NULL) {
        list_remove(item);
    }
    return item;
}

/* Every item; the current one may be removed in the body. */
#define LIST_FOREACH(item, head)                                                      \
    for (struct list *item = (head)->next, *item##_next = item->next; item != (head); \
         item = item##_next, item##_next = item->next)

#endif
