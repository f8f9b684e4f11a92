#include "fs/role/sessions.h"

#define OPENS_MAX (1u << 20) /* inodes of one session */

struct session {
    struct hnode h;
    uint64_t id;
    uint64_t seen_ms;
    struct list opens;
    size_t open_count;
};

struct open_inode {
    struct hnode h;
    struct list list;
    uint64_t ino;
    uint64_t session;
};

void sessions_init(struct sessions *s, uint64_t lease_ms, uint64_t now_ms)
{
    *s = (struct sessions){ .lease_ms = lease_ms, .step_ms = now_ms };
    htab_init(&s->by_id);
    htab_init(&s->opens);
}

void sessions_fini(struct sessions *s)
{
    struct hnode *h;

    while ((h = htab_pop(&s->by_id)) != NULL) {
        free(CONTAINER_OF(h, struct session, h));
    }
    while ((h = htab_pop(&s->opens)) != NULL) {
        free(CONTAINER_OF(h, struct open_inode, h));
    }
    htab_fini(&s->by_id);
    htab_fini(&s->opens);
}

static struct session *find(const struct sessions *s, uint64_t id)
{
    for (struct hnode *h = htab_find(&s->by_id, htab_mix(id)); h != NULL; h = htab_next(h)) {
        struct session *e = CONTAINER_OF(h, struct session, h);

        if (e->id == id) {
            return e;
        }
    }
    return NULL;
}

/* Session 0: of any. */
static struct open_inode *find_open(const struct sessions *s, uint64_t id, uint64_t ino)
{
    for (struct hnode *h = htab_find(&s->opens, htab_mix(ino)); h != NULL; h = htab_next(h)) {
        struct open_inode *o = CONTAINER_OF(h, struct open_inode, h);

        if (o->ino == ino && (id == 0 || o->session == id)) {
            return o;
        }
    }
    return NULL;
}

void sessions_add(struct sessions *s, uint64_t id, uint64_t now_ms)
{
    struct session *e = find(s, id);

    if (e == NULL) {
        e = x_alloc(sizeof(*e));
        e->id = id;
        list_init(&e->opens);
        htab_add(&s->by_id, &e->h, htab_mix(id));
    }
    e->seen_ms = now_ms;
}

bool sessions_ping(struct sessions *s, uint64_t id, uint64_t now_ms)
{
    struct session *e = find(s, id);

    if (e != NULL) {
        e->seen_ms = now_ms;
    }
    return e != NULL;
}

static void drop_open(struct sessions *s, struct session *e, struct open_inode *o)
{
    list_remove(&o->list);
    htab_remove(&s->opens, &o->h);
    e->open_count--;
    free(o);
}

void sessions_end(struct sessions *s, uint64_t id)
{
    struct session *e = find(s, id);

    if (e == NULL) {
        return;
    }
    LIST_FOREACH (l, &e->opens) {
        drop_open(s, e, CONTAINER_OF(l, struct open_inode, list));
    }
    htab_remove(&s->by_id, &e->h);
    free(e);
}

bool sessions_open(struct sessions *s, uint64_t id, uint64_t ino, bool *ret_new)
{
    struct session *e = find(s, id);
    struct open_inode *o = e != NULL ? find_open(s, id, ino) : NULL;

    if (e == NULL || (o == NULL && e->open_count >= OPENS_MAX)) {
        return false;
    }
    if (ret_new != NULL) {
        *ret_new = o == NULL;
    }
    if (o == NULL) {
        o = x_alloc(sizeof(*o));
        o->ino = ino;
        o->session = id;
        list_init(&o->list);
        list_push_back(&e->opens, &o->list);
        htab_add(&s->opens, &o->h, htab_mix(ino));
        e->open_count++;
    }
    return true;
}

void sessions_close(struct sessions *s, uint64_t id, uint64_t ino)
{
    struct session *e = find(s, id);
    struct open_inode *o = e != NULL ? find_open(s, id, ino) : NULL;

    if (o != NULL) {
        drop_open(s, e, o);
    }
}

void sessions_each_open(const struct sessions *s, uint64_t ino, sessions_open_fn *fn, void *arg)
{
    for (struct hnode *h = htab_find(&s->opens, htab_mix(ino)); h != NULL; h = htab_next(h)) {
        const struct open_inode *o = CONTAINER_OF(h, struct open_inode, h);

        if (o->ino == ino) {
            fn(arg, o->session);
        }
    }
}

bool sessions_is_open(const struct sessions *s, uint64_t ino)
{
    return find_open(s, 0, ino) != NULL;
}

size_t sessions_expired(struct sessions *s, uint64_t now_ms, uint64_t *ret, size_t max)
{
    uint64_t slept = now_ms - s->step_ms;
    size_t n = 0;

    s->step_ms = now_ms;
    if (slept <= s->lease_ms / 2) {
        slept = 0;
    }
    HTAB_FOREACH (h, &s->by_id) {
        struct session *e = CONTAINER_OF(h, struct session, h);

        e->seen_ms = slept != 0 ? MIN(e->seen_ms + slept, now_ms) : e->seen_ms;
        if (now_ms >= e->seen_ms + s->lease_ms && n < max) {
            ret[n++] = e->id;
        }
    }
    return n;
}
