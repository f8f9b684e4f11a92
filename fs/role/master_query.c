/* Questions of clients: on the query loops' threads, from read transactions. */
#include "cluster/base/clock.h"
#include "cluster/base/metrics.h"

#include "fs/role/master_int.h"

#define PING_LIST_MAX 65536u /* inodes in one ping */

void master_query_init(struct master *m)
{
    size_t n = (size_t)m->conf->query_threads;

    m->queries = x_alloc(n * sizeof(*m->queries));
    for (size_t i = 0; i < n; i++) {
        m->queries[i].reader = ns_reader_new(m->ns);
        wire_out_init(&m->queries[i].rep, LIMIT_MSG);
    }
}

void master_query_fini(struct master *m)
{
    for (size_t i = 0; m->queries != NULL && i < m->conf->query_threads; i++) {
        ns_reader_free(m->queries[i].reader);
        wire_out_fini(&m->queries[i].rep);
    }
    free(m->queries);
    m->queries = NULL;
}

uint8_t master_query_node_state(void *arg, uint32_t node)
{
    struct master *m = arg;
    const struct member *s;
    uint8_t state;

    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, node);
    state = s != NULL ? member_reader_state(s) : (uint8_t)MEMBER_DEAD;
    pthread_mutex_unlock(&m->map_mu);
    return state;
}

/* The inode counts as open before the answer is made: so it is not reaped behind it. */
static int query_open(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                      struct slice msg)
{
    struct open_req req;
    bool fresh = false, known;
    int err = open_req_get(msg, &req);

    if (err != DFS_OK) {
        return err;
    }
    pthread_mutex_lock(&m->sessions_mu);
    known = sessions_open(&m->sessions, hdr->session, req.ino, &fresh);
    if (known) {
        master_events_opened_locked(m, hdr->session, req.ino, fresh);
    }
    pthread_mutex_unlock(&m->sessions_mu);
    if (!known) {
        return DFS_ESESSION;
    }
    err = ns_query(q->reader, hdr, RPC_open, msg, master_query_node_state, m, &q->rep);
    if (err != DFS_OK && fresh) {
        pthread_mutex_lock(&m->sessions_mu);
        sessions_close(&m->sessions, hdr->session, req.ino);
        pthread_mutex_unlock(&m->sessions_mu);
    }
    return err;
}

static int query_ping(struct master *m, struct query_state *q, const struct call_hdr *hdr,
                      struct slice msg)
{
    struct session_ping_rep rep = { .epoch = atomic_load(&m->epoch),
                                    .lease_ms = (uint32_t)m->conf->session_lease };
    struct session_ping_req req;
    struct wire_in closed, opened;
    struct ino_ref r;
    bool known, fresh;
    int err = session_ping_req_get(msg, &req);

    if (err != DFS_OK || req.closed.count > PING_LIST_MAX || req.opened.count > PING_LIST_MAX) {
        return DFS_EMALFORMED;
    }
    closed = wire_in_of(req.closed.items);
    opened = wire_in_of(req.opened.items);
    pthread_mutex_lock(&m->sessions_mu);
    known = sessions_ping(&m->sessions, hdr->session, clock_mono_ms());
    for (uint32_t i = 0; known && i < req.closed.count && ino_ref_get(&closed, &r) == DFS_OK; i++) {
        sessions_close(&m->sessions, hdr->session, r.ino);
    }
    for (uint32_t i = 0; known && i < req.opened.count && ino_ref_get(&opened, &r) == DFS_OK; i++) {
        if (sessions_open(&m->sessions, hdr->session, r.ino, &fresh) && fresh) {
            master_events_opened_locked(m, hdr->session, r.ino, true);
        }
    }
    pthread_mutex_unlock(&m->sessions_mu);
    if (!known) {
        return DFS_ESESSION;
    }
    if (req.epoch == rep.epoch) { /* clients learn the epoch from what they told, locks first */
        master_locks_told(m, hdr->session);
    }
    session_ping_rep_put(&q->rep, &rep);
    return closed.err != 0 ? closed.err : opened.err;
}

/* What the live servers have, and have free. */
static void raw_space(struct master *m, uint64_t *ret_total, uint64_t *ret_free)
{
    *ret_total = *ret_free = 0;
    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];

        if (member_state(s) != MEMBER_DEAD) {
            *ret_total += s->used + s->free;
            *ret_free += s->free;
        }
    }
    pthread_mutex_unlock(&m->map_mu);
}

/* User-visible bytes: a file here takes as many times its size as it has copies. Below a quota
 * directory the tightest limit is the size, and what is free can also be stored. */
static int query_statfs(struct master *m, struct query_state *q, struct slice msg)
{
    struct statfs_rep rep = { .free_files = UINT64_MAX };
    struct ns_counts counts;
    struct ns_space space;
    struct statfs_req req;
    int err = statfs_req_get(msg, &req);

    err = err != DFS_OK ? err : ns_get_space(q->reader, req.ino, &space);
    err = err != DFS_OK ? err : ns_get_counts(q->reader, &counts);
    if (err != DFS_OK) {
        return err;
    }
    space.repl = space.repl != 0 ? space.repl : (uint8_t)atomic_load(&m->replication);
    raw_space(m, &rep.total_bytes, &rep.free_bytes);
    rep.total_bytes /= space.repl;
    rep.free_bytes /= space.repl;
    rep.files = space.quota != 0 ? space.used_inodes : counts.inodes;
    if (space.total_bytes != UINT64_MAX) {
        uint64_t used = space.total_bytes - space.free_bytes;

        rep.free_bytes = MIN(rep.free_bytes, space.free_bytes);
        rep.total_bytes = MIN(space.total_bytes, used + rep.free_bytes);
    }
    if (space.total_inodes != UINT64_MAX) {
        rep.files = space.total_inodes - space.free_inodes;
        rep.free_files = space.free_inodes;
    }
    statfs_rep_put(&q->rep, &rep);
    return DFS_OK;
}

/* *ret_held: the answer comes later. */
static int answer(struct master *m, struct query_state *q, struct rpc_loop *loop,
                  struct rpc_token token, struct slice msg, bool *ret_held)
{
    struct wire_in in = wire_in_of(msg);
    struct call_hdr hdr;
    int err;

    if (!atomic_load(&m->leads)) {
        return DFS_ENOTLEADER;
    }
    err = call_hdr_get(&in, &hdr);
    if (err != DFS_OK) {
        return err;
    }
    msg = slice_of(in.p, in.left);
    master_events_watch(m, hdr.session, token.type, msg);
    switch (token.type) {
    case RPC_open:
        return query_open(m, q, &hdr, msg);
    case RPC_session_ping:
        return query_ping(m, q, &hdr, msg);
    case RPC_session_poll:
        return master_events_poll(m, loop, token, &hdr, msg, &q->rep, ret_held);
    case RPC_statfs:
        return query_statfs(m, q, msg);
    case RPC_lock_set:
    case RPC_lock_clear:
    case RPC_lock_cancel:
    case RPC_lock_get:
    case RPC_lock_claim:
        return master_locks_query(m, q, &hdr, token.type, msg);
    case RPC_quota_list:
        err = master_keep_settle(m);
        return err != DFS_OK ? err
                             : ns_query(q->reader, &hdr, token.type, msg, NULL, NULL, &q->rep);
    default:
        err = ns_query(q->reader, &hdr, token.type, msg, master_query_node_state, m, &q->rep);
        if (err == DFS_OK && token.type == RPC_lookup) {
            master_events_watch_found(m, hdr.session, wire_out_slice(&q->rep));
        }
        return err;
    }
}

void master_query_on(void *arg, struct rpc_loop *loop, struct rpc_token token, struct slice msg)
{
    struct master *m = arg;
    struct query_state *q = &m->queries[rpc_loop_index(loop)];
    bool held = false;
    int err;

    metric_add(METRIC_queries, 1);
    wire_out_reset(&q->rep);
    err = answer(m, q, loop, token, msg, &held);
    if (held) {
        return;
    }
    err = err != DFS_OK ? err : q->rep.err;
    if (err == DFS_EIO && kv_is_lost(ns_kv(m->ns))) {
        err = DFS_ENOTLEADER; /* the process is about to end: the next one knows */
    }
    rpc_reply(loop, token, err, err == DFS_OK ? wire_out_slice(&q->rep) : SLICE_EMPTY);
}
