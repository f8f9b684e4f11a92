#include "replication/store/store.h"

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "replication/store/store_impl.h"

#define WRITER_WAIT_MS 2000u /* for a writer whose connection is just ending */

/* ---- the index ---- */

struct store_stripe *store_stripe_of(struct store *s, uint64_t block)
{
    return &s->stripes[htab_mix(block) >> 58];
}

struct replica *store_find_locked(struct store_stripe *st, uint64_t block)
{
    for (struct hnode *n = htab_find(&st->index, htab_mix(block)); n != NULL; n = htab_next(n)) {
        struct replica *r = CONTAINER_OF(n, struct replica, node);

        if (r->block == block) {
            return r;
        }
    }
    return NULL;
}

struct replica *store_replica_new(struct store *s, uint64_t block, struct volume *v,
                                  enum rule_state state)
{
    struct replica *r = x_alloc(sizeof(*r));

    r->block = block;
    r->vol = v;
    r->env = &s->env;
    r->lock = &store_stripe_of(s, block)->lock;
    r->refs = 1;
    fd_slot_init(&r->fd);
    list_init(&r->dirty);
    SM_INIT(&r->sm, rule_states, state);
    return r;
}

void store_index_add_locked(struct store_stripe *st, struct replica *r)
{
    htab_add(&st->index, &r->node, htab_mix(r->block));
}

void store_index_remove_locked(struct store_stripe *st, struct replica *r)
{
    htab_remove(&st->index, &r->node);
}

int store_get(struct store *s, uint64_t block, struct replica **ret)
{
    struct store_stripe *st = store_stripe_of(s, block);
    struct replica *r;
    int err = 0;

    pthread_mutex_lock(&st->lock.mu);
    r = store_find_locked(st, block);
    if (r == NULL || r->sm.now == RULE_GONE) {
        err = DFS_ENOBLOCK;
    } else if (atomic_load(&r->vol->failed)) {
        err = DFS_EVOLUME;
    } else {
        r->refs++;
        *ret = r;
    }
    pthread_mutex_unlock(&st->lock.mu);
    return err;
}

void store_put(struct store *s, struct replica *r)
{
    bool last;

    if (r == NULL) {
        return;
    }
    pthread_mutex_lock(&r->lock->mu);
    ASSERT(r->refs > 0);
    last = --r->refs == 0;
    pthread_mutex_unlock(&r->lock->mu);
    if (last) {
        fd_cache_drop(&s->env.fds, &r->fd);
        free(r);
    }
}

void store_remove(struct store *s, struct replica *r)
{
    struct store_stripe *st = store_stripe_of(s, r->block);
    bool indexed;

    if (!replica_unlink(r)) {
        return;
    }
    pthread_mutex_lock(&st->lock.mu);
    indexed = store_find_locked(st, r->block) == r;
    if (indexed) {
        store_index_remove_locked(st, r);
    }
    pthread_cond_broadcast(&st->lock.cv);
    pthread_mutex_unlock(&st->lock.mu);
    if (indexed) {
        store_put(s, r);
    }
}

/* ---- writers ---- */

static bool labelled(const struct volume *v, struct slice label)
{
    return label.len == 0 || slice_eq(slice_str(v->label), label);
}

/* The healthy volume with this label whose turn it is: each gets a share of the replicas in proportion
 * to its free space, one after the other, so that streams that begin together land on different
 * disks. tried: bits of volumes that are out of question. */
static struct volume *choose_volume(struct store *s, struct slice label, uint64_t *tried)
{
    struct volume *best = NULL;
    int64_t sum = 0;
    size_t index = 0;

    pthread_mutex_lock(&s->mu);
    for (size_t i = 0; i < s->volume_count; i++) {
        struct volume *v = s->volumes[i];
        bool out = (*tried >> i & 1) != 0 || !labelled(v, label);
        int64_t share = out ? 0 : (int64_t)(volume_free(v) / MIB);

        if (share == 0) {
            continue;
        }
        sum += share;
        v->turn += share;
        if (best == NULL || v->turn > best->turn) {
            best = v;
            index = i;
        }
    }
    if (best != NULL) {
        best->turn -= sum;
        *tried |= UINT64_C(1) << index;
    }
    pthread_mutex_unlock(&s->mu);
    return best;
}

struct volume *store_choose_volume(struct store *s, struct slice label)
{
    uint64_t tried = 0;
    struct volume *v = choose_volume(s, label, &tried);

    return v != NULL || label.len == 0 ? v : choose_volume(s, SLICE_EMPTY, &tried);
}

static int no_volume(struct store *s)
{
    for (size_t i = 0; i < s->volume_count; i++) {
        if (!volume_is_out(s->volumes[i])) {
            return DFS_ENOSPC;
        }
    }
    return DFS_EVOLUME;
}

/* Out of the index, and its reference back. */
static void forget(struct store *s, struct store_stripe *st, struct replica *r)
{
    pthread_mutex_lock(&st->lock.mu);
    store_index_remove_locked(st, r);
    pthread_cond_broadcast(&st->lock.cv);
    pthread_mutex_unlock(&st->lock.mu);
    store_put(s, r);
}

/* The stripe's lock is held on entry and not on return. The replica is in the index, busy, while its
 * file is made, so that nobody makes a second one. */
static int create_locked(struct store *s, struct store_stripe *st, uint64_t block, bool copy,
                         struct slice label, uint64_t *tried, struct replica **ret)
{
    struct volume *v = choose_volume(s, label, tried);
    struct replica *r;
    int err;

    if (v == NULL && label.len != 0) {
        v = choose_volume(s, SLICE_EMPTY, tried);
    }
    if (v == NULL) {
        pthread_mutex_unlock(&st->lock.mu);
        return no_volume(s);
    }
    r = store_replica_new(s, block, v, copy ? RULE_COPY : RULE_OPEN);
    r->busy = true;
    r->writer = true;
    r->refs++;
    store_index_add_locked(st, r);
    store_unusable_remove_locked(s, block);
    pthread_mutex_unlock(&st->lock.mu);
    err = replica_create(r);
    pthread_mutex_lock(&st->lock.mu);
    r->busy = false;
    if (err != 0) {
        sm_move(&r->sm, RULE_GONE);
        r->writer = false;
    }
    pthread_cond_broadcast(&st->lock.cv);
    pthread_mutex_unlock(&st->lock.mu);
    if (err != 0) {
        forget(s, st, r);
        store_put(s, r);
        return err;
    }
    *ret = r;
    return 0;
}

/* Waits for a change under the stripe's lock. */
static int wait_change_locked(struct store_stripe *st, uint64_t deadline_ms)
{
    struct timespec t = { .tv_sec = (time_t)(deadline_ms / 1000),
                          .tv_nsec = (long)(deadline_ms % 1000 * NS_PER_MS) };

    return pthread_cond_timedwait(&st->lock.cv, &st->lock.mu, &t) == 0 ? 0 : DFS_EBUSY;
}

/* Finds the replica when no other writer has it and it is not being removed; NULL when there is none
 * that counts. *ret_lost: one on a failed volume, out of the index now, for the caller to put: a new
 * copy may be made. */
static int find_for_writer_locked(struct store_stripe *st, uint64_t block, struct replica **ret,
                                  struct replica **ret_lost)
{
    uint64_t deadline = clock_mono_ms() + WRITER_WAIT_MS;
    struct replica *r;

    while ((r = store_find_locked(st, block)) != NULL && (r->writer || r->sm.now == RULE_GONE)) {
        int err = wait_change_locked(st, deadline);

        if (err != 0) {
            return err;
        }
    }
    if (r != NULL && atomic_load(&r->vol->failed)) {
        store_index_remove_locked(st, r);
        *ret_lost = r;
        r = NULL;
    }
    *ret = r;
    return 0;
}

/* One attempt; DFS_EAGAIN when the state has changed under way. */
static int write_begin_once(struct store *s, uint64_t block, uint32_t offset, uint8_t flags,
                            struct slice label, uint64_t *tried, struct replica **ret)
{
    struct store_stripe *st = store_stripe_of(s, block);
    enum rule_open what = RULE_CREATE;
    struct replica *r = NULL, *lost = NULL;
    struct rule_replica view;
    int err;

    pthread_mutex_lock(&st->lock.mu);
    err = find_for_writer_locked(st, block, &r, &lost);
    if (err == 0 && r != NULL) {
        view = replica_look_locked(r);
    }
    if (err == 0) {
        err = rule_open(r != NULL ? &view : NULL, offset, flags, &what);
    }
    if (err == 0 && what == RULE_CREATE) {
        err = create_locked(s, st, block, (flags & WRITE_COPY) != 0, label, tried, ret);
        store_put(s, lost);
        return err;
    }
    if (err == 0 && what == RULE_CONTINUE) {
        r->writer = true;
        r->refs++;
        *ret = r;
    }
    pthread_mutex_unlock(&st->lock.mu);
    store_put(s, lost);
    if (err == 0 && what == RULE_REPLACE) {
        err = store_delete(s, block);
        return err != 0 ? err : DFS_EAGAIN;
    }
    return err;
}

int store_write_begin(struct store *s, uint64_t block, uint32_t offset, uint8_t flags,
                      struct slice label, struct replica **ret)
{
    uint64_t tried = 0;
    int err;

    /* Ends: a volume is tried once, and only an abandoned copy is replaced. */
    do {
        err = write_begin_once(s, block, offset, flags, label, &tried, ret);
    } while (err == DFS_EAGAIN || (tried != 0 && (err == DFS_EVOLUME || err == DFS_ENOSPC) &&
                                   __builtin_popcountll(tried) < (int)s->volume_count));
    return err;
}

void store_write_end(struct store *s, struct replica *r)
{
    struct store_stripe *st = store_stripe_of(s, r->block);
    bool abandoned;

    pthread_mutex_lock(&st->lock.mu);
    abandoned = r->sm.now == RULE_COPY && store_find_locked(st, r->block) == r;
    r->writer = abandoned; /* until it is removed: nobody is to go on with it */
    pthread_cond_broadcast(&st->lock.cv);
    pthread_mutex_unlock(&st->lock.mu);
    if (abandoned) {
        store_remove(s, r);
    }
    store_put(s, r);
}

int store_delete(struct store *s, uint64_t block)
{
    struct store_stripe *st = store_stripe_of(s, block);
    struct replica *r;

    pthread_mutex_lock(&st->lock.mu);
    r = store_find_locked(st, block);
    if (r != NULL) {
        r->refs++;
    }
    store_unusable_remove_locked(s, block);
    pthread_mutex_unlock(&st->lock.mu);
    if (r != NULL) {
        store_remove(s, r);
        store_put(s, r);
    }
    return 0;
}

bool store_hangs(struct store *s, uint64_t block)
{
    struct store_stripe *st = store_stripe_of(s, block);
    const struct replica *r;
    bool hangs;

    pthread_mutex_lock(&st->lock.mu);
    r = store_find_locked(st, block);
    hangs = r != NULL && volume_hangs(r->vol);
    pthread_mutex_unlock(&st->lock.mu);
    return hangs;
}
