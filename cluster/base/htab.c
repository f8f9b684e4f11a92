#include "cluster/base/htab.h"

#define SLOTS_FIRST 64

void htab_init(struct htab *t)
{
    *t = (struct htab){ .slots = x_alloc(SLOTS_FIRST * sizeof(struct hnode *)),
                        .mask = SLOTS_FIRST - 1 };
}

void htab_reserve(struct htab *t, size_t count)
{
    size_t slots = t->mask + 1;

    ASSERT(t->count == 0);
    while (slots < count) {
        slots *= 2;
    }
    free(t->slots);
    t->slots = x_alloc(slots * sizeof(struct hnode *));
    t->mask = slots - 1;
}

void htab_fini(struct htab *t)
{
    free(t->slots);
    *t = (struct htab){ 0 };
}

static void push(struct htab *t, struct hnode *n)
{
    struct hnode **slot = &t->slots[n->hash & t->mask];

    n->next = *slot;
    *slot = n;
    t->first = MIN(t->first, n->hash & t->mask);
}

static void grow(struct htab *t)
{
    struct hnode **old = t->slots;
    size_t old_count = t->mask + 1;

    t->slots = x_alloc(old_count * 2 * sizeof(struct hnode *));
    t->mask = old_count * 2 - 1;
    for (size_t i = 0; i < old_count; i++) {
        struct hnode *reversed = NULL;

        while (old[i] != NULL) { /* turned round twice: the newest stays first */
            struct hnode *n = old[i];

            old[i] = n->next;
            n->next = reversed;
            reversed = n;
        }
        while (reversed != NULL) {
            struct hnode *n = reversed;

            reversed = n->next;
            push(t, n);
        }
    }
    free(old);
}

void htab_add(struct htab *t, struct hnode *n, uint64_t hash)
{
    if (t->count > t->mask) {
        grow(t);
    }
    n->hash = hash;
    push(t, n);
    t->count++;
}

void htab_remove(struct htab *t, struct hnode *n)
{
    struct hnode **at = &t->slots[n->hash & t->mask];

    while (*at != n) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = n->next;
    n->next = NULL;
    t->count--;
}

struct hnode *htab_find(const struct htab *t, uint64_t hash)
{
    struct hnode *n = t->slots[hash & t->mask];

    while (n != NULL && n->hash != hash) {
        n = n->next;
    }
    return n;
}

struct hnode *htab_next(const struct hnode *n)
{
    struct hnode *next = n->next;

    while (next != NULL && next->hash != n->hash) {
        next = next->next;
    }
    return next;
}

struct hnode *htab_each(const struct htab *t, const struct hnode *prev)
{
    size_t slot = 0;

    if (prev != NULL) {
        if (prev->next != NULL) {
            return prev->next;
        }
        slot = (prev->hash & t->mask) + 1;
    }
    for (; slot <= t->mask; slot++) {
        if (t->slots[slot] != NULL) {
            return t->slots[slot];
        }
    }
    return NULL;
}

struct hnode *htab_pop(struct htab *t)
{
    struct hnode *n = NULL;

    while (t->count != 0 && (n = t->slots[t->first]) == NULL) {
        t->first++;
    }
    if (n != NULL) {
        htab_remove(t, n);
    }
    return n;
}
