/* Requests for locks, on the query loops' threads; operators' list of them, on the control plane's.
 *
 * Locks are the leader's memory. A new leader grants nothing before every session in the database has
 * told what it holds, or has ended (see fs/lock/table.h); clients tell when they see another epoch.
 */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define CLAIM_MAX  65536u /* locks in one request */
#define LIST_MAX   10000u
#define ATTR_BYTES (2 * KIB)

/* locks_mu is held. */
static void on_granted(void *arg, uint64_t session, uint64_t ino, uint64_t owner)
{
    struct master *m = arg;

    events_post(&m->events, session,
                &(struct event){ .kind = EVENT_LOCK, .ino = ino, .arg = owner });
}

void master_locks_init(struct master *m)
{
    pthread_mutex_init(&m->locks_mu, NULL);
    lock_table_init(&m->locks, on_granted, m);
}

void master_locks_fini(struct master *m)
{
    lock_table_fini(&m->locks);
    pthread_mutex_destroy(&m->locks_mu);
}

static void say_grace(struct master *m, bool before)
{
    if (before && !lock_table_grace(&m->locks)) {
        log_event(LOG_INFO, "locks.grace_over", "locks=%zu", m->locks.range_count);
    }
}

void master_locks_session(struct master *m, uint64_t session, bool told)
{
    pthread_mutex_lock(&m->locks_mu);
    lock_table_session(&m->locks, session, told);
    pthread_mutex_unlock(&m->locks_mu);
}

void master_locks_told(struct master *m, uint64_t session)
{
    bool grace;

    pthread_mutex_lock(&m->locks_mu);
    grace = lock_table_grace(&m->locks);
    if (grace) {
        (void)lock_table_told(&m->locks, session, clock_mono_ms());
        say_grace(m, grace);
    }
    pthread_mutex_unlock(&m->locks_mu);
}

void master_locks_end(struct master *m, uint64_t session)
{
    bool grace;

    pthread_mutex_lock(&m->locks_mu);
    grace = lock_table_grace(&m->locks);
    lock_table_end(&m->locks, session, clock_mono_ms());
    say_grace(m, grace);
    pthread_mutex_unlock(&m->locks_mu);
}

void master_locks_tick(struct master *m, uint64_t now_ms)
{
    pthread_mutex_lock(&m->locks_mu);
    lock_table_tick(&m->locks, now_ms);
    pthread_mutex_unlock(&m->locks_mu);
}

/* ---- requests ---- */

static struct lock_ask ask_of(const struct lock_held *h, uint64_t session, uint64_t seq,
                              uint64_t done)
{
    return (struct lock_ask){
        .seq = seq,
        .done = done,
        .ino = h->ino,
        .kind = h->kind,
        .who = { .session = session,
                 .owner = h->owner,
                 .first = h->first,
                 .last = h->last,
                 .pid = h->pid,
                 .type = h->type },
    };
}

static int ask_get(struct slice lock, uint64_t session, uint64_t seq, uint64_t done,
                   struct lock_ask *ret)
{
    struct wire_in in = wire_in_of(lock);
    struct lock_held h;
    int err = lock_held_get(&in, &h);

    if (err == DFS_OK) {
        *ret = ask_of(&h, session, seq, done);
    }
    return err;
}

static void held_put(struct wire_out *out, uint64_t ino, uint8_t kind, const struct lock_range *r)
{
    struct lock_held h = { .ino = ino,
                           .kind = kind,
                           .type = r->type,
                           .owner = r->owner,
                           .first = r->first,
                           .last = r->last,
                           .pid = r->pid };

    lock_held_put(out, &h);
}

/* The inode's attributes, read after the lock was granted: what the holder before committed before it
 * gave the lock back is in them. */
static int attr_after(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                      uint64_t ino, struct wire_out *out, struct slice *ret)
{
    uint8_t ask[16];
    struct wire_out msg = wire_out_over(ask, sizeof(ask));
    struct getattr_rep r;
    int err;

    getattr_req_put(&msg, &(struct getattr_req){ .ino = ino });
    err = ns_query(q->reader, hdr, RPC_getattr, wire_out_slice(&msg), master_query_node_state, m,
                   out);
    err = err != DFS_OK ? err : getattr_rep_get(wire_out_slice(out), &r);
    if (err == DFS_OK) {
        *ret = r.attr;
    }
    return err;
}

static int on_set(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                  struct slice msg)
{
    uint8_t mem[ATTR_BYTES];
    struct wire_out attr = wire_out_over(mem, sizeof(mem));
    struct lock_set_rep rep = { 0 };
    struct lock_set_req req;
    struct lock_ask a;
    int err = lock_set_req_get(msg, &req);

    err = err != DFS_OK ? err : ask_get(req.lock, hdr->session, req.seq, req.done, &a);
    if (err != DFS_OK) {
        return err;
    }
    a.ticket = req.ticket;
    pthread_mutex_lock(&m->locks_mu);
    err = lock_table_set(&m->locks, &a, clock_mono_ms(), &rep.state);
    pthread_mutex_unlock(&m->locks_mu);
    if (err == DFS_OK && rep.state == LOCK_GRANTED) {
        err = attr_after(m, q, hdr, a.ino, &attr, &rep.attr);
        if (err != DFS_OK) { /* the inode is gone */
            pthread_mutex_lock(&m->locks_mu);
            (void)lock_table_clear(&m->locks, &a, clock_mono_ms());
            pthread_mutex_unlock(&m->locks_mu);
        }
    }
    if (err == DFS_OK) {
        lock_set_rep_put(&q->rep, &rep);
    }
    return err;
}

static int on_clear(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                    struct slice msg)
{
    struct lock_clear_rep rep = { 0 };
    struct lock_clear_req req;
    struct lock_ask a;
    int err = lock_clear_req_get(msg, &req);

    err = err != DFS_OK ? err : ask_get(req.lock, hdr->session, req.seq, req.done, &a);
    if (err != DFS_OK) {
        return err;
    }
    pthread_mutex_lock(&m->locks_mu);
    err = lock_table_clear(&m->locks, &a, clock_mono_ms());
    pthread_mutex_unlock(&m->locks_mu);
    lock_clear_rep_put(&q->rep, &rep);
    return err;
}

static int on_cancel(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                     struct slice msg)
{
    struct lock_cancel_rep rep = { 0 };
    struct lock_cancel_req req;
    struct lock_ask a;
    bool granted = false;
    int err = lock_cancel_req_get(msg, &req);

    err = err != DFS_OK ? err : ask_get(req.lock, hdr->session, req.seq, req.done, &a);
    if (err != DFS_OK) {
        return err;
    }
    a.ticket = req.ticket;
    pthread_mutex_lock(&m->locks_mu);
    err = lock_table_cancel(&m->locks, &a, clock_mono_ms(), &granted);
    pthread_mutex_unlock(&m->locks_mu);
    rep.granted = granted;
    lock_cancel_rep_put(&q->rep, &rep);
    return err;
}

static int on_get(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                  struct slice msg)
{
    uint8_t mem[64];
    struct wire_out held = wire_out_over(mem, sizeof(mem));
    struct lock_get_rep rep = { .state = LOCK_GRACE };
    struct lock_range who = { .type = LOCK_NONE };
    struct lock_get_req req;
    struct lock_ask a;
    int err = lock_get_req_get(msg, &req);

    err = err != DFS_OK ? err : ask_get(req.lock, hdr->session, req.seq, req.done, &a);
    if (err != DFS_OK) {
        return err;
    }
    pthread_mutex_lock(&m->locks_mu);
    err = lock_table_get(&m->locks, &a, &who);
    pthread_mutex_unlock(&m->locks_mu);
    if (err == DFS_OK) {
        rep.state = who.type == LOCK_NONE ? LOCK_GRANTED : LOCK_BUSY;
        held_put(&held, a.ino, a.kind, &who);
        rep.lock = wire_out_slice(&held);
        rep.here = who.session == hdr->session;
    } else if (err != DFS_EAGAIN) {
        return err;
    }
    lock_get_rep_put(&q->rep, &rep);
    return DFS_OK;
}

static int on_claim(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                    struct slice msg)
{
    struct lock_claim_rep rep = { 0 };
    struct lock_claim_req req;
    struct wire_in in;
    int err = lock_claim_req_get(msg, &req);

    if (err != DFS_OK || req.locks.count > CLAIM_MAX) {
        return DFS_EMALFORMED;
    }
    if (req.epoch != atomic_load(&m->epoch) || req.session != hdr->session) {
        return DFS_ESTALE;
    }
    in = wire_in_of(req.locks.items);
    pthread_mutex_lock(&m->locks_mu);
    for (uint32_t i = 0; err == DFS_OK && i < req.locks.count; i++) {
        struct lock_held h;

        err = lock_held_get(&in, &h);
        if (err == DFS_OK) {
            struct lock_ask a = ask_of(&h, hdr->session, req.seq, req.done);

            err = lock_table_claim(&m->locks, &a, clock_mono_ms());
        }
        if (err == DFS_EBUSY || err == DFS_ENOLCK) {
            log_event(LOG_WARN, "locks.refused", "session=%ju inode=%ju err=\"%s\"",
                      (uintmax_t)hdr->session, (uintmax_t)h.ino, err_text(err));
            rep.refused++;
            err = DFS_OK;
        }
    }
    pthread_mutex_unlock(&m->locks_mu);
    if (err == DFS_OK && req.last != 0) {
        master_locks_told(m, hdr->session);
    }
    lock_claim_rep_put(&q->rep, &rep);
    return err;
}

int master_locks_query(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                       uint16_t type, struct slice msg)
{
    switch (type) {
    case RPC_lock_set:
        return on_set(m, q, hdr, msg);
    case RPC_lock_clear:
        return on_clear(m, q, hdr, msg);
    case RPC_lock_cancel:
        return on_cancel(m, q, hdr, msg);
    case RPC_lock_get:
        return on_get(m, q, hdr, msg);
    default:
        return on_claim(m, q, hdr, msg);
    }
}

/* ---- operators ---- */

struct listed {
    uint64_t ino;
    struct lock_range who;
    uint8_t kind;
    bool waits;
};

struct listing {
    struct listed *all;
    size_t count, max;
    bool more;
};

static bool list_one(void *arg, const struct lock_item *item)
{
    struct listing *l = arg;

    l->more = l->count == l->max;
    if (!l->more) {
        l->all[l->count++] = (struct listed){ item->ino, *item->who, item->kind, item->waits };
    }
    return !l->more;
}

struct naming {
    uint64_t session;
    struct lock_info *info;
    char text[2][256];
};

static bool name_session(void *arg, uint64_t session, struct slice host, struct slice name)
{
    struct naming *n = arg;

    if (session != n->session) {
        return true;
    }
    host.len = MIN(host.len, sizeof(n->text[0]));
    name.len = MIN(name.len, sizeof(n->text[1]));
    if (host.len != 0) {
        memcpy(n->text[0], host.p, host.len);
    }
    if (name.len != 0) {
        memcpy(n->text[1], name.p, name.len);
    }
    n->info->host = slice_of(n->text[0], host.len);
    n->info->name = slice_of(n->text[1], name.len);
    return false;
}

static void info_put(struct ns_reader *reader, const struct listed *l, uint64_t now_ms,
                     struct naming *n, struct wire_out *out)
{
    uint8_t mem[64];
    struct wire_out held = wire_out_over(mem, sizeof(mem));
    struct lock_info info = { .waits = l->waits,
                              .since_ms = now_ms - MIN(l->who.since_ms, now_ms),
                              .session = l->who.session };

    held_put(&held, l->ino, l->kind, &l->who);
    info.lock = wire_out_slice(&held);
    n->info = &info;
    n->session = l->who.session;
    (void)ns_each_session(reader, name_session, n);
    lock_info_put(out, &info);
}

int master_locks_list(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct locks_rep out = { 0 };
    struct locks_req req;
    struct listing l = { .count = 0 };
    struct naming naming;
    struct ns_reader *reader;
    struct wire_out list;
    int err = locks_req_get(msg, &req);

    if (err != DFS_OK) {
        return err;
    }
    l.max = MIN(req.max, LIST_MAX);
    l.all = x_alloc((l.max + 1) * sizeof(*l.all));
    pthread_mutex_lock(&m->locks_mu);
    lock_table_each(&m->locks, req.ino, list_one, &l);
    out.grace = lock_table_grace(&m->locks);
    pthread_mutex_unlock(&m->locks_mu);
    wire_out_init(&list, LIMIT_MSG - KIB);
    reader = ns_reader_new(m->ns);
    for (size_t i = 0; i < l.count; i++) {
        info_put(reader, &l.all[i], clock_mono_ms(), &naming, &list);
    }
    ns_reader_free(reader);
    out.locks = wire_out_list(&list, (uint32_t)l.count);
    out.more = l.more;
    err = list.err;
    if (err == DFS_OK) {
        locks_rep_put(rep, &out);
    }
    wire_out_fini(&list);
    free(l.all);
    return err;
}
