#include "fs/client/atime.h"

#include "cluster/base/log.h"

#include "fs/client/call.h"

#define DAY_NS (INT64_C(86400) * NS_PER_SEC)

DEFINE_CALL(accessed)

void atimes_init(struct atimes *t)
{
    pthread_mutex_init(&t->telling, NULL);
    pthread_mutex_init(&t->mu, NULL);
    t->slot = x_alloc(ATIME_SLOTS * sizeof(*t->slot));
}

void atimes_fini(struct atimes *t)
{
    pthread_mutex_destroy(&t->telling);
    pthread_mutex_destroy(&t->mu);
    free(t->slot);
}

/* The inode's place; without one the first that may be taken, NULL when there is none. */
static struct atime_slot *find_locked(struct atimes *t, uint64_t ino)
{
    struct atime_slot *room = NULL;

    for (size_t i = 0; i < ATIME_TRIES; i++) {
        struct atime_slot *s = &t->slot[(htab_mix(ino) + i) % ATIME_SLOTS];

        if (s->ino == ino) {
            return s;
        }
        if (room == NULL && (s->ino == 0 || s->told)) {
            room = s;
        }
    }
    return room;
}

static bool is_due(const struct attr *a, int64_t now_ns)
{
    return a->atime <= a->mtime || a->atime <= a->ctime || now_ns - a->atime >= DAY_NS;
}

/* False: there is no room for it. */
static bool note(struct atimes *t, struct attr *a, int64_t now_ns)
{
    struct atime_slot *s;

    pthread_mutex_lock(&t->mu);
    s = find_locked(t, a->ino);
    if (s != NULL && s->ino == a->ino) {
        a->atime = MAX(a->atime, s->atime);
    }
    if (s != NULL && is_due(a, now_ns)) {
        atomic_fetch_add(&t->count, s->ino == 0);
        *s = (struct atime_slot){ .ino = a->ino, .atime = now_ns };
        a->atime = now_ns;
    }
    pthread_mutex_unlock(&t->mu);
    return s != NULL;
}

bool atime_note(struct client *c, struct attr *a)
{
    struct atimes *t = &c->atimes;
    int64_t before = a->atime;
    int64_t now_ns;

    if (t->off) {
        return false;
    }
    now_ns = MAX(clock_wall_ns(), a->ctime + 1); /* the masters' clock may be ahead */
    if (is_due(a, now_ns) && !note(t, a, now_ns)) {
        atime_tell(c);
        (void)note(t, a, now_ns);
    }
    return a->atime != before;
}

void atime_overlay(struct client *c, struct attr *a)
{
    struct atimes *t = &c->atimes;

    if (atomic_load(&t->count) == 0) {
        return;
    }
    pthread_mutex_lock(&t->mu);
    const struct atime_slot *s = find_locked(t, a->ino);

    if (s != NULL && s->ino == a->ino) {
        a->atime = MAX(a->atime, s->atime);
    }
    pthread_mutex_unlock(&t->mu);
}

void atime_drop(struct client *c, uint64_t ino)
{
    struct atimes *t = &c->atimes;

    if (atomic_load(&t->count) == 0) {
        return;
    }
    pthread_mutex_lock(&t->telling);
    pthread_mutex_lock(&t->mu);
    struct atime_slot *s = find_locked(t, ino);

    if (s != NULL && s->ino == ino) {
        *s = (struct atime_slot){ 0 };
        atomic_fetch_sub(&t->count, 1);
    }
    pthread_mutex_unlock(&t->mu);
    pthread_mutex_unlock(&t->telling);
}

/* What was told before leaves; the rest is put into the list. */
static uint32_t collect(struct atimes *t, struct wire_out *list)
{
    uint32_t count = 0;

    pthread_mutex_lock(&t->mu);
    for (size_t i = 0; i < ATIME_SLOTS; i++) {
        struct atime_slot *s = &t->slot[i];

        if (s->ino != 0 && s->told) {
            *s = (struct atime_slot){ 0 };
            atomic_fetch_sub(&t->count, 1);
        } else if (s->ino != 0) {
            s->told = true;
            access_put(list, &(struct access){ .ino = s->ino, .atime = s->atime });
            count++;
        }
    }
    pthread_mutex_unlock(&t->mu);
    return count;
}

void atime_tell(struct client *c)
{
    struct atimes *t = &c->atimes;
    struct accessed_req q = { 0 };
    struct accessed_rep r;
    struct meta_call call;
    struct wire_out list;
    uint32_t count;

    if (atomic_load(&t->count) == 0) {
        return;
    }
    wire_out_init(&list, LIMIT_MSG);
    pthread_mutex_lock(&t->telling);
    count = collect(t, &list);
    q.inodes = wire_out_list(&list, count);
    if (count > 0) {
        int err = call_accessed(c, META_COMMAND, NULL, &call, &q, &r);

        meta_end(&call);
        if (err != 0) {
            log_event(LOG_INFO, "client.atime", "inodes=%u err=%s", count, err_name(err));
        }
    }
    pthread_mutex_unlock(&t->telling);
    wire_out_fini(&list);
}
