/* What is held, and single questions to the masters. */
#include "fs/client/locks.h"

#include "cluster/base/fault.h"
#include "cluster/base/log.h"

#include "fs/client/locks_int.h"
#include "fs/client/writer.h"

#define GRACE_PAUSE_MS 100
#define CLAIM_MAX      50000u /* locks in one message */
#define HELD_BYTES     64u    /* of an encoded lock_held, at most */

void locks_init(struct client *c)
{
    struct locks *l = x_alloc(sizeof(*l));

    c->locks = l;
    for (size_t i = 0; i < LOCK_STRIPES; i++) {
        pthread_mutex_init(&l->stripe[i], NULL);
    }
    pthread_mutex_init(&l->mu, NULL);
    cond_init(&l->wake);
    htab_init(&l->held);
    list_init(&l->asked);
    list_init(&l->waiting);
}

static void held_free(struct held *h)
{
    struct list *u;

    lock_ranges_clear(&h->ranges);
    while ((u = list_pop_front(&h->users)) != NULL) {
        free(CONTAINER_OF(u, struct held_user, list));
    }
    free(h);
}

void locks_fini(struct client *c)
{
    struct locks *l = c->locks;
    struct hnode *h;

    if (l == NULL) {
        return;
    }
    while ((h = htab_pop(&l->held)) != NULL) {
        held_free(CONTAINER_OF(h, struct held, h));
    }
    htab_fini(&l->held);
    LIST_FOREACH (i, &l->waiting) {
        free(CONTAINER_OF(i, struct lock_call, list));
    }
    for (size_t i = 0; i < LOCK_STRIPES; i++) {
        pthread_mutex_destroy(&l->stripe[i]);
    }
    pthread_mutex_destroy(&l->mu);
    pthread_cond_destroy(&l->wake);
    free(l);
    c->locks = NULL;
}

pthread_mutex_t *locks_stripe(struct client *c, uint64_t ino)
{
    return &c->locks->stripe[htab_mix(ino) % LOCK_STRIPES];
}

/* ---- notes ---- */

static uint64_t held_hash(uint64_t ino, uint8_t kind)
{
    return htab_mix(ino * 2 + (kind == LOCK_FLOCK));
}

static struct held *held_find(struct locks *l, uint64_t ino, uint8_t kind)
{
    for (struct hnode *n = htab_find(&l->held, held_hash(ino, kind)); n != NULL; n = htab_next(n)) {
        struct held *h = CONTAINER_OF(n, struct held, h);

        if (h->ino == ino && h->kind == kind) {
            return h;
        }
    }
    return NULL;
}

static struct held *held_get(struct locks *l, uint64_t ino, uint8_t kind)
{
    struct held *h = held_find(l, ino, kind);

    if (h == NULL) {
        h = x_alloc(sizeof(*h));
        h->ino = ino;
        h->kind = kind;
        list_init(&h->ranges);
        list_init(&h->users);
        htab_add(&l->held, &h->h, held_hash(ino, kind));
        atomic_fetch_add(&l->held_count, 1);
    }
    return h;
}

static struct lock_range range_of(const struct lock_want *w)
{
    return (struct lock_range){
        .owner = w->owner, .first = w->first, .last = w->last, .pid = w->pid, .type = w->type
    };
}

static void user_add(struct held *h, uint64_t owner, uint64_t handle)
{
    struct held_user *n;

    LIST_FOREACH (i, &h->users) {
        const struct held_user *u = CONTAINER_OF(i, struct held_user, list);

        if (u->owner == owner && u->handle == handle) {
            return;
        }
    }
    n = x_alloc(sizeof(*n));
    n->owner = owner;
    n->handle = handle;
    list_init(&n->list);
    list_push_back(&h->users, &n->list);
}

static void users_drop(struct held *h, uint64_t owner)
{
    LIST_FOREACH (i, &h->users) {
        struct held_user *u = CONTAINER_OF(i, struct held_user, list);

        if (u->owner == owner) {
            list_remove(&u->list);
            free(u);
        }
    }
}

void locks_note_set_locked(struct client *c, const struct lock_want *want)
{
    struct locks *l = c->locks;
    struct held *h = held_get(l, want->ino, want->kind);
    struct lock_range r = range_of(want);

    lock_ranges_set(&h->ranges, &r);
    if (want->type != LOCK_NONE && want->kind == LOCK_POSIX) {
        user_add(h, want->owner, want->handle);
    }
    r.first = 0;
    r.last = LOCK_LAST;
    if (!lock_ranges_touch(&h->ranges, &r)) {
        users_drop(h, want->owner);
    }
    if (list_empty(&h->ranges)) {
        htab_remove(&l->held, &h->h);
        held_free(h);
        atomic_fetch_sub(&l->held_count, 1);
    }
}

/* Does want's owner hold some of its range? */
static bool noted(struct client *c, const struct lock_want *want)
{
    struct locks *l = c->locks;
    struct lock_range r = range_of(want);
    const struct held *h;
    bool yes;

    pthread_mutex_lock(&l->mu);
    h = held_find(l, want->ino, want->kind);
    yes = h != NULL && lock_ranges_touch(&h->ranges, &r);
    pthread_mutex_unlock(&l->mu);
    return yes;
}

/* ---- sessions ---- */

static void say_lost(struct client *c, struct htab *lost)
{
    size_t count = lost->count;
    struct hnode *n;

    while ((n = htab_pop(lost)) != NULL) {
        struct held *h = CONTAINER_OF(n, struct held, h);
        struct node *node = node_find(c, h->ino);

        if (node != NULL) {
            pthread_mutex_lock(&node->mu);
            node_fail_locked(node, DFS_EIO);
            node->error_told = true; /* who opens it from now on has lost nothing */
            pthread_mutex_unlock(&node->mu);
            node_put(node);
        }
        held_free(h);
    }
    htab_fini(lost);
    if (count != 0) {
        log_event(LOG_ERROR, "client.locks_lost",
                  "files=%zu note=\"this client was away longer than its lease\"", count);
    }
}

/* An answer came under this session: what was held under an older one is lost. DFS_ESESSION: the
 * answer's own is the older one. */
static int under_session(struct client *c, uint64_t session)
{
    struct locks *l = c->locks;
    struct htab lost;

    htab_init(&lost);
    pthread_mutex_lock(&l->mu);
    if (session != meta_session(c->meta)) {
        pthread_mutex_unlock(&l->mu);
        return DFS_ESESSION;
    }
    if (session != l->session) {
        struct htab none = lost;

        lost = l->held;
        l->held = none;
        atomic_store(&l->held_count, 0);
        l->session = session;
    }
    pthread_mutex_unlock(&l->mu);
    say_lost(c, &lost);
    return DFS_OK;
}

/* ---- questions ---- */

struct op {
    struct lock_op op;
    struct meta_call call;
    uint8_t mem[HELD_BYTES];
    struct slice lock;
};

static int op_begin(struct client *c, const struct lock_want *want, uint64_t deadline_ms,
                    struct op *o)
{
    struct locks *l = c->locks;
    struct wire_out out = wire_out_over(o->mem, sizeof(o->mem));
    int err = FAULT("client.lock.send");

    err = err != 0 ? err : meta_begin(c->meta, META_QUERY, NULL, deadline_ms, &o->call);
    if (err != 0) {
        return err;
    }
    lock_held_put(&out, &(struct lock_held){ .ino = want->ino,
                                             .kind = want->kind,
                                             .type = want->type,
                                             .owner = want->owner,
                                             .first = want->first,
                                             .last = want->last,
                                             .pid = want->pid });
    o->lock = wire_out_slice(&out);
    pthread_mutex_lock(&l->mu);
    o->op.seq = ++l->seq;
    list_init(&o->op.list);
    list_push_back(&l->asked, &o->op.list);
    o->op.done = CONTAINER_OF(l->asked.next, struct lock_op, list)->seq;
    pthread_mutex_unlock(&l->mu);
    return DFS_OK;
}

static int op_end(struct client *c, struct op *o, int err)
{
    uint64_t session = o->call.session;

    meta_end(&o->call);
    pthread_mutex_lock(&c->locks->mu);
    list_remove(&o->op.list);
    pthread_mutex_unlock(&c->locks->mu);
    return err != 0 ? err : under_session(c, session);
}

int locks_ask_set(struct client *c, const struct lock_want *want, uint64_t ticket,
                  uint64_t deadline_ms, uint8_t *ret_state, struct attr *ret_attr)
{
    struct lock_set_req q = { .ticket = ticket };
    struct lock_set_rep r;
    struct slice rep;
    struct op o;
    int err = op_begin(c, want, deadline_ms, &o);

    if (err != 0) {
        return err;
    }
    q.seq = o.op.seq;
    q.done = o.op.done;
    q.lock = o.lock;
    lock_set_req_put(o.call.out, &q);
    err = meta_run(&o.call, RPC_lock_set, &rep);
    err = err != 0 ? err : lock_set_rep_get(rep, &r);
    if (err == 0) {
        struct wire_in in = wire_in_of(r.attr);

        *ret_state = r.state;
        err = r.state == LOCK_GRANTED ? attr_get(&in, ret_attr) : DFS_OK;
    }
    return op_end(c, &o, err);
}

int locks_ask_clear(struct client *c, const struct lock_want *want, uint64_t deadline_ms)
{
    struct lock_clear_req q = { 0 };
    struct lock_clear_rep r;
    struct slice rep;
    struct op o;
    int err = op_begin(c, want, deadline_ms, &o);

    if (err != 0) {
        return err;
    }
    q.seq = o.op.seq;
    q.done = o.op.done;
    q.lock = o.lock;
    lock_clear_req_put(o.call.out, &q);
    err = meta_run(&o.call, RPC_lock_clear, &rep);
    err = err != 0 ? err : lock_clear_rep_get(rep, &r);
    return op_end(c, &o, err);
}

int locks_ask_cancel(struct client *c, const struct lock_want *want, uint64_t ticket,
                     uint64_t deadline_ms, bool *ret_granted)
{
    struct lock_cancel_req q = { .ticket = ticket };
    struct lock_cancel_rep r;
    struct slice rep;
    struct op o;
    int err = op_begin(c, want, deadline_ms, &o);

    if (err != 0) {
        return err;
    }
    q.seq = o.op.seq;
    q.done = o.op.done;
    q.lock = o.lock;
    lock_cancel_req_put(o.call.out, &q);
    err = meta_run(&o.call, RPC_lock_cancel, &rep);
    err = err != 0 ? err : lock_cancel_rep_get(rep, &r);
    if (err == 0) {
        *ret_granted = r.granted != 0;
    }
    return op_end(c, &o, err);
}

static int ask_get(struct client *c, const struct lock_want *want, uint64_t deadline_ms,
                   uint8_t *ret_state, struct lock_want *ret)
{
    struct lock_get_req q = { 0 };
    struct lock_get_rep r;
    struct lock_held h = { 0 };
    struct slice rep;
    struct op o;
    int err = op_begin(c, want, deadline_ms, &o);

    if (err != 0) {
        return err;
    }
    q.seq = o.op.seq;
    q.done = o.op.done;
    q.lock = o.lock;
    lock_get_req_put(o.call.out, &q);
    err = meta_run(&o.call, RPC_lock_get, &rep);
    err = err != 0 ? err : lock_get_rep_get(rep, &r);
    if (err == 0 && r.state != LOCK_GRACE) {
        struct wire_in in = wire_in_of(r.lock);

        err = lock_held_get(&in, &h);
    }
    if (err == 0) {
        *ret_state = r.state;
        *ret = (struct lock_want){ .ino = want->ino,
                                   .kind = want->kind,
                                   .type = h.type,
                                   .first = h.first,
                                   .last = h.last,
                                   .pid = r.here != 0 ? h.pid : 0 };
    }
    return op_end(c, &o, err);
}

/* What want's owner holds in its range, in order; to be freed. */
static struct lock_range *copy_ranges(struct client *c, const struct lock_want *want,
                                      size_t *ret_count)
{
    struct locks *l = c->locks;
    struct lock_range in = range_of(want);
    struct lock_range *all = NULL;
    const struct held *h;
    size_t n = 0;

    pthread_mutex_lock(&l->mu);
    h = held_find(l, want->ino, want->kind);
    for (struct list *i = h != NULL ? h->ranges.next : NULL; h != NULL && i != &h->ranges;
         i = i->next) {
        const struct lock_range *r = CONTAINER_OF(i, struct lock_range, list);

        if (lock_same_owner(r, &in) && r->first <= in.last && in.first <= r->last) {
            all = x_realloc(all, (n + 1) * sizeof(*all));
            all[n] = *r;
            all[n].first = MAX(r->first, in.first);
            all[n++].last = MIN(r->last, in.last);
        }
    }
    pthread_mutex_unlock(&l->mu);
    *ret_count = n;
    return all;
}

int locks_restore(struct client *c, const struct lock_want *want, uint64_t deadline_ms)
{
    struct lock_want part = *want;
    uint64_t next = want->first;
    size_t count;
    struct lock_range *all = copy_ranges(c, want, &count);
    int err = DFS_OK;

    for (size_t i = 0; err == 0 && i < count; i++) {
        uint8_t state;
        struct attr a;

        if (all[i].first > next) {
            part.first = next;
            part.last = all[i].first - 1;
            err = locks_ask_clear(c, &part, deadline_ms);
        }
        part.first = all[i].first;
        part.last = all[i].last;
        part.type = all[i].type;
        err = err != 0 ? err : locks_ask_set(c, &part, 0, deadline_ms, &state, &a);
        next = all[i].last + 1;
    }
    if (err == 0 && next <= want->last) {
        part.first = next;
        part.last = want->last;
        err = locks_ask_clear(c, &part, deadline_ms);
    }
    free(all);
    return err;
}

/* ---- what programs ask for ---- */

bool locks_holds_exclusive(struct client *c, const struct lock_want *want)
{
    size_t count;
    struct lock_range *all = copy_ranges(c, want, &count);
    bool yes = false;

    for (size_t i = 0; i < count; i++) {
        yes = yes || all[i].type == LOCK_EXCLUSIVE;
    }
    free(all);
    return yes;
}

void locks_commit(struct client *c, uint64_t ino, uint64_t deadline_ms)
{
    struct node *n = node_find(c, ino);
    bool dirty;
    int err;

    if (n == NULL) {
        return;
    }
    pthread_mutex_lock(&n->mu);
    dirty = n->writer != NULL && !node_clean_locked(n);
    pthread_mutex_unlock(&n->mu);
    err = dirty ? writer_flush(n, false, deadline_ms) : DFS_OK;
    if (err != 0) {
        log_event(LOG_WARN, "client.unlock_flush", "inode=%ju err=%s", (uintmax_t)ino,
                  err_name(err));
        pthread_mutex_lock(&n->mu);
        node_fail_locked(n, err);
        pthread_mutex_unlock(&n->mu);
    }
    node_put(n);
}

int client_unlock(struct client *c, const struct lock_want *want)
{
    pthread_mutex_t *stripe = locks_stripe(c, want->ino);
    uint64_t deadline_ms = client_deadline(c);
    struct lock_want none = *want;
    int err = DFS_OK;

    if (noted(c, want)) {
        locks_commit(c, want->ino, deadline_ms);
    }
    none.type = LOCK_NONE;
    pthread_mutex_lock(stripe);
    if (noted(c, want)) {
        err = locks_ask_clear(c, &none, deadline_ms);
        if (err != DFS_ENOLCK) {
            pthread_mutex_lock(&c->locks->mu);
            locks_note_set_locked(c, &none);
            pthread_mutex_unlock(&c->locks->mu);
        }
    }
    pthread_mutex_unlock(stripe);
    if (err == DFS_ESESSION) {
        err = DFS_OK; /* it went with its session */
    } else if (err != 0 && err != DFS_ENOLCK) {
        locks_restore_later(c, &none); /* nobody will ask for it again */
    }
    return err;
}

int client_lock_get(struct client *c, const struct lock_want *want, struct lock_want *ret)
{
    pthread_mutex_t *stripe = locks_stripe(c, want->ino);
    uint64_t deadline_ms = client_deadline(c);
    uint8_t state = LOCK_GRACE;
    int err = DFS_OK;

    while (err == 0 && state == LOCK_GRACE) {
        pthread_mutex_lock(stripe);
        err = ask_get(c, want, deadline_ms, &state, ret);
        pthread_mutex_unlock(stripe);
        if (err == 0 && state == LOCK_GRACE && !pause_ms(GRACE_PAUSE_MS, deadline_ms)) {
            err = DFS_ETIMEOUT;
        }
    }
    return err;
}

void client_locks_close(struct client *c, uint64_t ino, uint64_t owner)
{
    struct lock_want all = { .ino = ino, .owner = owner, .last = LOCK_LAST, .kind = LOCK_POSIX };

    if (atomic_load(&c->locks->held_count) != 0 && noted(c, &all)) {
        (void)client_unlock(c, &all);
    }
}

void client_locks_release(struct client *c, uint64_t ino, uint64_t handle)
{
    struct lock_want all = { .ino = ino, .last = LOCK_LAST, .kind = LOCK_POSIX };
    struct locks *l = c->locks;
    bool found = atomic_load(&l->held_count) != 0;

    while (found) {
        const struct held *h;

        found = false;
        pthread_mutex_lock(&l->mu);
        h = held_find(l, ino, LOCK_POSIX);
        for (struct list *i = h != NULL ? h->users.next : NULL;
             h != NULL && i != &h->users && !found; i = i->next) {
            const struct held_user *u = CONTAINER_OF(i, struct held_user, list);

            found = u->handle == handle;
            all.owner = u->owner;
        }
        pthread_mutex_unlock(&l->mu);
        if (found && client_unlock(c, &all) == DFS_ENOLCK) {
            break;
        }
    }
}

/* ---- a new master ---- */

static int claim(struct client *c, uint64_t epoch, const struct wire_out *list, uint32_t count,
                 bool last)
{
    const struct lock_want nothing = { 0 };
    struct lock_claim_req q = { .epoch = epoch, .last = last };
    struct lock_claim_rep r;
    struct slice rep;
    struct op o;
    int err = op_begin(c, &nothing, client_deadline(c), &o);

    if (err != 0) {
        return err;
    }
    q.seq = o.op.seq;
    q.done = o.op.done;
    q.session = c->locks->session;
    q.locks = wire_out_list(list, count);
    lock_claim_req_put(o.call.out, &q);
    err = meta_run(&o.call, RPC_lock_claim, &rep);
    err = err != 0 ? err : lock_claim_rep_get(rep, &r);
    if (err == 0 && r.refused != 0) {
        log_event(LOG_ERROR, "client.locks_refused", "count=%u note=\"others have them\"",
                  r.refused);
    }
    return op_end(c, &o, err);
}

static int claim_all(struct client *c, uint64_t epoch)
{
    struct locks *l = c->locks;
    struct wire_out list;
    uint32_t count = 0;
    int err = DFS_OK;

    wire_out_init(&list, LIMIT_MSG);
    HTAB_FOREACH (n, &l->held) {
        const struct held *h = CONTAINER_OF(n, struct held, h);

        for (struct list *i = h->ranges.next; i != &h->ranges && err == 0; i = i->next) {
            const struct lock_range *r = CONTAINER_OF(i, struct lock_range, list);

            lock_held_put(&list, &(struct lock_held){ .ino = h->ino,
                                                      .kind = h->kind,
                                                      .type = r->type,
                                                      .owner = r->owner,
                                                      .first = r->first,
                                                      .last = r->last,
                                                      .pid = r->pid });
            if (++count == CLAIM_MAX) {
                err = claim(c, epoch, &list, count, false);
                wire_out_reset(&list);
                count = 0;
            }
        }
    }
    err = err != 0 ? err : claim(c, epoch, &list, count, true);
    wire_out_fini(&list);
    return err;
}

int locks_tell(struct client *c, uint64_t epoch)
{
    struct locks *l = c->locks;
    int err;

    for (size_t i = 0; i < LOCK_STRIPES; i++) {
        pthread_mutex_lock(&l->stripe[i]);
    }
    err = under_session(c, meta_session(c->meta));
    /* With all stripes held nobody else touches the notes. */
    err = err != 0 ? err : claim_all(c, epoch);
    for (size_t i = 0; i < LOCK_STRIPES; i++) {
        pthread_mutex_unlock(&l->stripe[i]);
    }
    return err == DFS_EUNKNOWNRPC ? DFS_OK : err; /* a master that knows of no locks */
}
