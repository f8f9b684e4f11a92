#include "fs/lock/table.h"

#include "cluster/base/err.h"

#define CIRCLE_OWNERS 256u  /* visited in search of a circle */
#define CIRCLE_STEPS  8192u /* ranges looked at */

struct session {
    struct hnode h;
    uint64_t id;
    uint64_t done; /* every request below is answered */
    size_t range_count;
    size_t waiter_count;
    struct list waiters;
    bool told;
};

struct space {
    struct hnode h;
    struct list busy; /* in the table's list while somebody waits */
    uint64_t ino;
    uint8_t kind;
    struct list ranges;
    size_t range_count;
    struct list waiters; /* in the order in which they came */
};

struct waiter {
    struct list list;       /* of the space */
    struct list of_session; /* of the session */
    struct hnode by_owner;
    struct space *space;
    uint64_t ticket;
    struct lock_range who; /* since_ms: it waits */
};

void lock_table_init(struct lock_table *t, lock_granted_fn *granted, void *arg)
{
    *t = (struct lock_table){ .granted = granted, .arg = arg };
    htab_init(&t->spaces);
    htab_init(&t->sessions);
    htab_init(&t->waiters);
    list_init(&t->busy);
}

void lock_table_fini(struct lock_table *t)
{
    struct hnode *h;

    while ((h = htab_pop(&t->waiters)) != NULL) {
        free(CONTAINER_OF(h, struct waiter, by_owner));
    }
    while ((h = htab_pop(&t->spaces)) != NULL) {
        struct space *s = CONTAINER_OF(h, struct space, h);

        lock_ranges_clear(&s->ranges);
        free(s);
    }
    while ((h = htab_pop(&t->sessions)) != NULL) {
        free(CONTAINER_OF(h, struct session, h));
    }
    htab_fini(&t->spaces);
    htab_fini(&t->sessions);
    htab_fini(&t->waiters);
}

/* ---- finding ---- */

static struct session *session_find(const struct lock_table *t, uint64_t id)
{
    struct hnode *h = htab_find(&t->sessions, htab_mix(id));

    while (h != NULL && CONTAINER_OF(h, struct session, h)->id != id) {
        h = htab_next(h);
    }
    return h != NULL ? CONTAINER_OF(h, struct session, h) : NULL;
}

static uint64_t space_hash(uint64_t ino, uint8_t kind)
{
    return htab_mix(ino * 2 + (kind == LOCK_FLOCK));
}

static struct space *space_find(const struct lock_table *t, uint64_t ino, uint8_t kind)
{
    for (struct hnode *h = htab_find(&t->spaces, space_hash(ino, kind)); h != NULL;
         h = htab_next(h)) {
        struct space *s = CONTAINER_OF(h, struct space, h);

        if (s->ino == ino && s->kind == kind) {
            return s;
        }
    }
    return NULL;
}

static struct space *space_get(struct lock_table *t, uint64_t ino, uint8_t kind)
{
    struct space *s = space_find(t, ino, kind);

    if (s == NULL) {
        s = x_alloc(sizeof(*s));
        s->ino = ino;
        s->kind = kind;
        list_init(&s->busy);
        list_init(&s->ranges);
        list_init(&s->waiters);
        htab_add(&t->spaces, &s->h, space_hash(ino, kind));
    }
    return s;
}

static void space_put(struct lock_table *t, struct space *s)
{
    if (list_empty(&s->waiters)) {
        list_remove(&s->busy);
    }
    if (list_empty(&s->ranges) && list_empty(&s->waiters)) {
        htab_remove(&t->spaces, &s->h);
        free(s);
    }
}

static uint64_t owner_hash(const struct lock_range *r)
{
    return htab_mix(r->session ^ htab_mix(r->owner));
}

static struct waiter *waiter_of(struct list *l)
{
    return CONTAINER_OF(l, struct waiter, list);
}

static struct waiter *waiter_find(const struct session *e, uint64_t ticket)
{
    if (ticket != 0) {
        LIST_FOREACH (l, &e->waiters) {
            struct waiter *w = CONTAINER_OF(l, struct waiter, of_session);

            if (w->ticket == ticket) {
                return w;
            }
        }
    }
    return NULL;
}

/* ---- holding and waiting ---- */

static void change(struct lock_table *t, struct session *e, struct space *s,
                   const struct lock_range *want)
{
    int grown = lock_ranges_set(&s->ranges, want);

    s->range_count += (size_t)grown; /* modulo: grown may be below 0 */
    e->range_count += (size_t)grown;
    t->range_count += (size_t)grown;
}

static bool room_for(const struct lock_table *t, const struct session *e, const struct space *s,
                     size_t n)
{
    return s->range_count + n <= LOCKS_OF_INODE && e->range_count + n <= LOCKS_OF_SESSION &&
           t->range_count + n <= LOCKS_MAX;
}

static void waiter_free(struct lock_table *t, struct session *e, struct waiter *w)
{
    list_remove(&w->list);
    list_remove(&w->of_session);
    htab_remove(&t->waiters, &w->by_owner);
    e->waiter_count--;
    t->waiter_count--;
    free(w);
}

static struct waiter *waiter_new(struct lock_table *t, struct session *e, struct space *s,
                                 const struct lock_ask *a, uint64_t now_ms)
{
    struct waiter *w = x_alloc(sizeof(*w));

    w->space = s;
    w->ticket = a->ticket;
    w->who = a->who;
    w->who.since_ms = now_ms;
    list_init(&w->list);
    list_init(&w->of_session);
    if (list_empty(&s->waiters)) {
        list_push_back(&t->busy, &s->busy);
    }
    list_push_back(&s->waiters, &w->list);
    list_push_back(&e->waiters, &w->of_session);
    htab_add(&t->waiters, &w->by_owner, owner_hash(&w->who));
    e->waiter_count++;
    t->waiter_count++;
    return w;
}

/* Does what r's owner holds here keep w waiting anyway? */
static bool holds_up(const struct space *s, const struct lock_range *r, const struct waiter *w)
{
    for (struct list *l = s->ranges.next; l != &s->ranges; l = l->next) {
        const struct lock_range *held = CONTAINER_OF(l, struct lock_range, list);

        if (lock_same_owner(held, r) && lock_conflict(held, &w->who)) {
            return true;
        }
    }
    return false;
}

/* Is somebody in front who wants what r wants? self: r's own place, NULL: behind all. */
static bool behind(const struct space *s, const struct lock_range *r, const struct waiter *self,
                   uint64_t now_ms)
{
    if (self != NULL && now_ms - self->who.since_ms >= LOCK_FAIR_MS) {
        return false;
    }
    LIST_FOREACH (l, &s->waiters) {
        const struct waiter *w = waiter_of(l);

        if (w == self) {
            break;
        }
        if (lock_conflict(&w->who, r) && !holds_up(s, r, w)) {
            return true;
        }
    }
    return false;
}

/* Grants what can be granted now, in order. */
static void promote(struct lock_table *t, struct space *s, uint64_t now_ms)
{
    if (lock_table_grace(t)) {
        return;
    }
    LIST_FOREACH (l, &s->waiters) {
        struct waiter *w = waiter_of(l);
        struct session *e = session_find(t, w->who.session);
        struct lock_range got = w->who;

        if (lock_ranges_conflict(&s->ranges, &got) != NULL || behind(s, &got, w, now_ms) ||
            !room_for(t, e, s, 2)) {
            continue; /* without room: told so when it asks again */
        }
        waiter_free(t, e, w);
        got.since_ms = now_ms;
        change(t, e, s, &got);
        t->granted(t->arg, got.session, s->ino, got.owner);
    }
}

/* ---- circles ---- */

struct search {
    struct lock_range found[CIRCLE_OWNERS]; /* owners that the asker waits for */
    size_t count;
    size_t steps;
};

/* Those who keep r from being granted are noted; true: `asker` is one of them. */
static bool note_holders(struct search *f, const struct space *s, const struct lock_range *r,
                         const struct lock_range *asker)
{
    for (struct list *l = s->ranges.next; l != &s->ranges && f->steps < CIRCLE_STEPS;
         l = l->next, f->steps++) {
        const struct lock_range *held = CONTAINER_OF(l, struct lock_range, list);
        bool known = false;

        if (!lock_conflict(held, r)) {
            continue;
        }
        if (lock_same_owner(held, asker)) {
            return true;
        }
        for (size_t i = 0; i < f->count && !known; i++) {
            known = lock_same_owner(&f->found[i], held);
        }
        if (!known && f->count < CIRCLE_OWNERS) {
            f->found[f->count++] = *held;
        }
    }
    return false;
}

/* Would r wait for somebody who waits, over any number of others, for r's owner? The search is
 * bounded: a circle that is larger stays one until somebody is interrupted. */
static bool circle(const struct lock_table *t, const struct space *s, const struct lock_range *r)
{
    struct search f = { .count = 0 };
    bool found = note_holders(&f, s, r, r);

    for (size_t i = 0; i < f.count && !found; i++) {
        struct hnode *h = htab_find(&t->waiters, owner_hash(&f.found[i]));

        for (; h != NULL && !found; h = htab_next(h)) {
            const struct waiter *w = CONTAINER_OF(h, struct waiter, by_owner);

            found = w->space->kind == LOCK_POSIX && lock_same_owner(&w->who, &f.found[i]) &&
                    note_holders(&f, w->space, &w->who, r);
        }
    }
    return found;
}

/* ---- sessions ---- */

void lock_table_session(struct lock_table *t, uint64_t session, bool told)
{
    struct session *e = session_find(t, session);

    if (e == NULL) {
        e = x_alloc(sizeof(*e));
        e->id = session;
        e->told = told;
        list_init(&e->waiters);
        htab_add(&t->sessions, &e->h, htab_mix(session));
        t->untold += !told;
    }
}

bool lock_table_grace(const struct lock_table *t)
{
    return t->untold != 0;
}

void lock_table_tick(struct lock_table *t, uint64_t now_ms)
{
    LIST_FOREACH (l, &t->busy) {
        struct space *s = CONTAINER_OF(l, struct space, busy);

        promote(t, s, now_ms);
        space_put(t, s);
    }
}

static void told(struct lock_table *t, struct session *e, uint64_t now_ms)
{
    if (!e->told) {
        e->told = true;
        t->untold--;
        if (t->untold == 0) {
            lock_table_tick(t, now_ms);
        }
    }
}

int lock_table_told(struct lock_table *t, uint64_t session, uint64_t now_ms)
{
    struct session *e = session_find(t, session);

    if (e == NULL) {
        return DFS_ESESSION;
    }
    told(t, e, now_ms);
    return DFS_OK;
}

/* All that the session holds. Spaces where somebody waits are left to a tick. */
static void end_ranges(struct lock_table *t, const struct session *e)
{
    struct space **empty = x_alloc(e->range_count * sizeof(struct space *));
    size_t count = 0;

    HTAB_FOREACH (h, &t->spaces) {
        struct space *s = CONTAINER_OF(h, struct space, h);

        LIST_FOREACH (l, &s->ranges) {
            struct lock_range *r = CONTAINER_OF(l, struct lock_range, list);

            if (r->session == e->id) {
                list_remove(&r->list);
                free(r);
                s->range_count--;
                t->range_count--;
                if (list_empty(&s->ranges) && list_empty(&s->busy)) {
                    empty[count++] = s;
                }
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        space_put(t, empty[i]);
    }
    free(empty);
}

void lock_table_end(struct lock_table *t, uint64_t session, uint64_t now_ms)
{
    struct session *e = session_find(t, session);
    bool had;

    if (e == NULL) {
        return;
    }
    had = e->range_count != 0 || e->waiter_count != 0;
    LIST_FOREACH (l, &e->waiters) {
        waiter_free(t, e, CONTAINER_OF(l, struct waiter, of_session));
    }
    if (e->range_count != 0) {
        end_ranges(t, e);
    }
    t->untold -= !e->told;
    had = had || !e->told;
    htab_remove(&t->sessions, &e->h);
    free(e);
    if (had) {
        lock_table_tick(t, now_ms);
    }
}

/* ---- requests ---- */

static int check(struct lock_table *t, const struct lock_ask *a, struct session **ret)
{
    struct session *e = session_find(t, a->who.session);

    if ((a->kind != LOCK_POSIX && a->kind != LOCK_FLOCK) || a->who.type > LOCK_EXCLUSIVE ||
        a->who.first > a->who.last || a->who.last > LOCK_LAST ||
        (a->kind == LOCK_FLOCK && (a->who.first != 0 || a->who.last != LOCK_LAST))) {
        return DFS_EINVAL;
    }
    if (e == NULL) {
        return DFS_ESESSION;
    }
    if (a->seq < e->done || a->done > a->seq) {
        return DFS_EREPLAYED;
    }
    e->done = MAX(e->done, a->done);
    *ret = e;
    return DFS_OK;
}

/* flock gives up what it has before it waits for something else: two that want more than they
 * share would wait for each other else. */
static void let_go(struct lock_table *t, struct session *e, struct space *s,
                   const struct lock_ask *a, uint64_t now_ms)
{
    struct lock_range none = a->who;

    if (a->kind == LOCK_FLOCK && lock_ranges_touch(&s->ranges, &a->who)) {
        none.type = LOCK_NONE;
        change(t, e, s, &none);
        promote(t, s, now_ms);
    }
}

static int grant(struct lock_table *t, struct session *e, struct space *s, const struct lock_ask *a,
                 struct waiter *w, uint64_t now_ms)
{
    struct lock_range got = a->who;

    if (!lock_ranges_cover(&s->ranges, &got, true)) {
        if (!room_for(t, e, s, 2)) {
            return DFS_ENOLCK;
        }
        got.since_ms = now_ms;
        change(t, e, s, &got);
    }
    if (w != NULL) {
        waiter_free(t, e, w);
    }
    promote(t, s, now_ms); /* it may have been a step down */
    return DFS_OK;
}

static int set(struct lock_table *t, struct session *e, struct space *s, const struct lock_ask *a,
               uint64_t now_ms, uint8_t *ret_state)
{
    struct waiter *w = waiter_find(e, a->ticket);
    bool new = lock_table_grace(t) && !lock_ranges_cover(&s->ranges, &a->who, false);
    bool held = lock_ranges_conflict(&s->ranges, &a->who) != NULL;
    bool waits = a->ticket != 0;
    int err = DFS_OK;

    if (w != NULL && w->space != s) {
        return DFS_EINVAL;
    }
    if (!new && !held && (!waits || !behind(s, &a->who, w, now_ms))) {
        err = grant(t, e, s, a, w, now_ms);
        *ret_state = err == DFS_OK ? LOCK_GRANTED : *ret_state;
        return err;
    }
    if (!new &&w == NULL) {
        let_go(t, e, s, a, now_ms);
    }
    if (!waits) {
        *ret_state = held || !new ? LOCK_BUSY : LOCK_GRACE;
        return DFS_OK;
    }
    if (a->kind == LOCK_POSIX && circle(t, s, &a->who)) {
        if (w != NULL) {
            waiter_free(t, e, w);
            promote(t, s, now_ms);
        }
        return DFS_EDEADLK;
    }
    if (w == NULL && (t->waiter_count >= WAITERS_MAX || e->waiter_count >= WAITERS_OF_SESSION)) {
        return DFS_ENOLCK;
    }
    if (w == NULL) {
        waiter_new(t, e, s, a, now_ms);
    }
    *ret_state = LOCK_WAITING;
    return DFS_OK;
}

int lock_table_set(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms,
                   uint8_t *ret_state)
{
    struct session *e;
    struct space *s;
    int err = check(t, a, &e);

    if (err == DFS_OK && a->who.type == LOCK_NONE) {
        err = DFS_EINVAL;
    }
    if (err == DFS_OK) {
        s = space_get(t, a->ino, a->kind);
        err = set(t, e, s, a, now_ms, ret_state);
        space_put(t, s);
    }
    return err;
}

int lock_table_clear(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms)
{
    struct lock_range none = a->who;
    struct session *e;
    struct space *s;
    int err = check(t, a, &e);

    s = err == DFS_OK ? space_find(t, a->ino, a->kind) : NULL;
    if (s == NULL) {
        return err;
    }
    none.type = LOCK_NONE;
    /* A hole makes two out of one. All of it can always be given back. */
    if (!room_for(t, e, s, 1) && (none.first != 0 || none.last != LOCK_LAST)) {
        return DFS_ENOLCK;
    }
    change(t, e, s, &none);
    promote(t, s, now_ms);
    space_put(t, s);
    return DFS_OK;
}

int lock_table_cancel(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms,
                      bool *ret_granted)
{
    struct session *e;
    struct waiter *w;
    struct space *s;
    int err = check(t, a, &e);

    if (err != DFS_OK) {
        return err;
    }
    w = waiter_find(e, a->ticket);
    if (w != NULL) {
        s = w->space;
        waiter_free(t, e, w);
        promote(t, s, now_ms); /* who waited behind it */
        space_put(t, s);
        *ret_granted = false;
        return DFS_OK;
    }
    s = space_find(t, a->ino, a->kind);
    *ret_granted = s != NULL && lock_ranges_cover(&s->ranges, &a->who, true);
    return DFS_OK;
}

int lock_table_get(struct lock_table *t, const struct lock_ask *a, struct lock_range *ret)
{
    const struct lock_range *r = NULL;
    const struct space *s;
    struct session *e;
    int err = check(t, a, &e);

    if (err != DFS_OK) {
        return err;
    }
    s = space_find(t, a->ino, a->kind);
    r = s != NULL ? lock_ranges_conflict(&s->ranges, &a->who) : NULL;
    if (r == NULL && lock_table_grace(t)) {
        return DFS_EAGAIN;
    }
    *ret = r != NULL ? *r : (struct lock_range){ .type = LOCK_NONE };
    return DFS_OK;
}

int lock_table_claim(struct lock_table *t, const struct lock_ask *a, uint64_t now_ms)
{
    struct session *e;
    struct space *s;
    int err = check(t, a, &e);

    if (err != DFS_OK || a->who.type == LOCK_NONE) {
        return err != DFS_OK ? err : DFS_EINVAL;
    }
    s = space_get(t, a->ino, a->kind);
    err = lock_ranges_conflict(&s->ranges, &a->who) != NULL ? DFS_EBUSY
                                                            : grant(t, e, s, a, NULL, now_ms);
    space_put(t, s);
    return err;
}

/* ---- listing ---- */

static bool each_of(const struct space *s, lock_item_fn *fn, void *arg)
{
    struct lock_item item = { .ino = s->ino, .kind = s->kind };
    bool more = true;

    for (struct list *l = s->ranges.next; more && l != &s->ranges; l = l->next) {
        item.who = CONTAINER_OF(l, struct lock_range, list);
        more = fn(arg, &item);
    }
    item.waits = true;
    for (struct list *l = s->waiters.next; more && l != &s->waiters; l = l->next) {
        item.who = &waiter_of(l)->who;
        more = fn(arg, &item);
    }
    return more;
}

void lock_table_each(const struct lock_table *t, uint64_t ino, lock_item_fn *fn, void *arg)
{
    bool more = true;

    if (ino != 0) {
        for (uint8_t kind = LOCK_POSIX; more && kind <= LOCK_FLOCK; kind++) {
            const struct space *s = space_find(t, ino, kind);

            more = s == NULL || each_of(s, fn, arg);
        }
        return;
    }
    for (struct hnode *h = htab_each(&t->spaces, NULL); more && h != NULL;
         h = htab_each(&t->spaces, h)) {
        more = each_of(CONTAINER_OF(h, struct space, h), fn, arg);
    }
}
