#include "fs/lock/range.h"

static bool overlap(const struct lock_range *a, const struct lock_range *b)
{
    return a->first <= b->last && b->first <= a->last;
}

bool lock_conflict(const struct lock_range *a, const struct lock_range *b)
{
    return !lock_same_owner(a, b) && overlap(a, b) &&
           (a->type == LOCK_EXCLUSIVE || b->type == LOCK_EXCLUSIVE);
}

static struct lock_range *range_of(struct list *l)
{
    return CONTAINER_OF(l, struct lock_range, list);
}

static void insert(struct list *ranges, const struct lock_range *r)
{
    struct lock_range *n = x_alloc(sizeof(*n));
    struct list *at = ranges->prev;

    *n = *r;
    list_init(&n->list);
    while (at != ranges && range_of(at)->first > r->first) {
        at = at->prev;
    }
    list_insert_after(at, &n->list);
}

static void drop(struct lock_range *r)
{
    list_remove(&r->list);
    free(r);
}

/* What is left of r outside of cut stays. Returns how many ranges came or went. */
static int carve(struct list *ranges, struct lock_range *r, const struct lock_range *cut)
{
    struct lock_range right = *r;
    bool has_left = r->first < cut->first;
    bool has_right = r->last > cut->last;

    if (has_left) {
        r->last = cut->first - 1;
    } else {
        drop(r);
    }
    if (has_right) {
        right.first = cut->last + 1;
        insert(ranges, &right);
    }
    return has_left + has_right - 1;
}

int lock_ranges_set(struct list *ranges, const struct lock_range *want)
{
    struct lock_range all = *want;
    int grown = 0;

    LIST_FOREACH (l, ranges) {
        struct lock_range *r = range_of(l);

        if (want->last != LOCK_LAST && r->first > want->last + 1) {
            break;
        }
        if (!lock_same_owner(r, want)) {
            continue;
        }
        if (r->type == want->type && (r->last == LOCK_LAST || r->last + 1 >= want->first)) {
            all.first = MIN(all.first, r->first);
            all.last = MAX(all.last, r->last);
            all.since_ms = MIN(all.since_ms, r->since_ms);
            drop(r);
            grown--;
        } else if (overlap(r, want)) {
            grown += carve(ranges, r, want);
        }
    }
    if (want->type != LOCK_NONE) {
        insert(ranges, &all);
        grown++;
    }
    return grown;
}

const struct lock_range *lock_ranges_conflict(const struct list *ranges,
                                              const struct lock_range *want)
{
    for (struct list *l = ranges->next; l != ranges && range_of(l)->first <= want->last;
         l = l->next) {
        if (lock_conflict(range_of(l), want)) {
            return range_of(l);
        }
    }
    return NULL;
}

bool lock_ranges_cover(const struct list *ranges, const struct lock_range *want, bool exact)
{
    uint64_t next = want->first;

    for (struct list *l = ranges->next; l != ranges && range_of(l)->first <= next; l = l->next) {
        const struct lock_range *r = range_of(l);

        if (!lock_same_owner(r, want) || r->last < next ||
            (exact ? r->type != want->type : r->type < want->type)) {
            continue;
        }
        if (r->last >= want->last) {
            return true;
        }
        next = r->last + 1;
    }
    return false;
}

bool lock_ranges_touch(const struct list *ranges, const struct lock_range *want)
{
    for (struct list *l = ranges->next; l != ranges && range_of(l)->first <= want->last;
         l = l->next) {
        if (lock_same_owner(range_of(l), want) && overlap(range_of(l), want)) {
            return true;
        }
    }
    return false;
}

void lock_ranges_clear(struct list *ranges)
{
    LIST_FOREACH (l, ranges) {
        drop(range_of(l));
    }
}
