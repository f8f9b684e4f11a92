/* The happy path: take a link, write header and request, send, receive, decode, give it back.
 *
 * What can fail:
 *   no connection, a lost one, no answer in STEP_MS   the next master; the same bytes again
 *   NOTLEADER                                          the next master
 *   SHUTDOWN, AGAIN                                    the same bytes again after a pause
 *   SESSION      a new session; queries, and commands that were sent only once, go again under it.
 *                A command that may have been carried out under the old one fails: nobody can tell.
 *   the deadline DFS_ETIMEOUT; a command may be carried out later all the same
 */
#include "fs/client/meta.h"

#include "cluster/base/base.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/addr.h"
#include "cluster/base/clock.h"
#include "cluster/base/limits.h"
#include "cluster/base/log.h"
#include "cluster/net/conn.h"

#include "fs/client/silence.h"
#include "fs/client/wait.h"

#define STEP_MS      5000 /* for one answer */
#define CONNECT_MS   3000
#define PAUSE_MS     20 /* doubled up to PAUSE_MAX_MS */
#define PAUSE_MAX_MS 500
#define CLOSE_MS     2000
#define KEEP_BYTES   (64u << 10) /* of memory for requests, by a link that is not used */
#define HDR_SESSION  0           /* offsets in an encoded call_hdr */
#define HDR_SEQ      12

struct link {
    struct link *next;
    struct conn *conn;
    int master; /* that conn goes to */
    bool command;
    uint32_t slot; /* of commands */
    uint64_t seq;  /* of the last command */
    struct wire_out out;
};

struct meta {
    const struct conf *conf;
    char *host;
    char *name;
    char **masters;
    int master_count;
    atomic_int leader; /* index of the master that answered last */
    _Atomic uint64_t session;
    _Atomic uint32_t lease_ms;
    uint32_t block_size;
    uint8_t cluster[CLUSTER_ID_BYTES];
    bool cluster_known;
    bool left;          /* the session goes on elsewhere */
    uint64_t seq_base;  /* of slots that are not used yet */
    pthread_mutex_t mu; /* guards the lists and the count */
    pthread_cond_t freed;
    struct link *idle[2]; /* last used first: queries, commands */
    uint32_t count[2];
    pthread_mutex_t renew_mu; /* one thread opens a new session */
    struct link renew;        /* guarded by: renew_mu */
    _Atomic uint64_t rpcs;
    _Atomic uint64_t retries;
};

/* ---- links ---- */

static int link_take(struct meta *m, bool command, uint64_t deadline_ms, struct link **ret)
{
    struct link *l;
    int err = DFS_OK;

    pthread_mutex_lock(&m->mu);
    while (m->idle[command] == NULL && m->count[command] == LIMIT_SLOTS && err == 0) {
        err = cond_wait_until(&m->freed, &m->mu, deadline_ms);
    }
    l = m->idle[command];
    if (l != NULL) {
        m->idle[command] = l->next;
        err = DFS_OK;
    } else if (err == 0) {
        l = x_alloc(sizeof(*l));
        l->command = command;
        l->slot = m->count[command]++;
        l->seq = m->seq_base;
        wire_out_init(&l->out, LIMIT_MSG);
    }
    pthread_mutex_unlock(&m->mu);
    if (err == 0) {
        *ret = l;
    }
    return err;
}

static void link_give(struct meta *m, struct link *l)
{
    if (l->out.cap > KEEP_BYTES) {
        wire_out_fini(&l->out);
    }
    wire_out_reset(&l->out);
    if (l->conn != NULL) {
        conn_slim(l->conn);
    }
    pthread_mutex_lock(&m->mu);
    l->next = m->idle[l->command];
    m->idle[l->command] = l;
    pthread_cond_signal(&m->freed);
    pthread_mutex_unlock(&m->mu);
}

static void link_fini(struct link *l)
{
    conn_close(l->conn);
    wire_out_fini(&l->out);
}

static void link_close(struct link *l)
{
    conn_close(l->conn);
    l->conn = NULL;
}

/* This master is no use; the next one is asked by everybody. */
static void next_master(struct meta *m, struct link *l)
{
    int mine = l->master;

    link_close(l);
    atomic_compare_exchange_strong(&m->leader, &mine, (mine + 1) % m->master_count);
}

static int link_connect(struct meta *m, struct link *l, uint64_t deadline_ms, struct why *why)
{
    struct slice cluster = m->cluster_known ? meta_cluster(m) : SLICE_EMPTY;

    l->master = atomic_load(&m->leader);
    return conn_open_hello(m->masters[l->master], l->command ? HELLO_COMMAND : HELLO_QUERY, cluster,
                           MIN(deadline_ms, clock_mono_ms() + CONNECT_MS), &l->conn, NULL, why);
}

int meta_connect(struct meta *m, uint64_t deadline_ms, struct conn **ret)
{
    return conn_open_hello(m->masters[atomic_load(&m->leader)], HELLO_QUERY, meta_cluster(m),
                           deadline_ms, ret, NULL, NULL);
}

/* ---- one call ---- */

static void patch_u64(struct wire_out *out, size_t at, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        out->p[at + (size_t)i] = (uint8_t)(v >> (8 * i));
    }
}

/* *ret_answered: the error is a master's word, not the connection's. *sent counts. */
static int attempt(struct meta *m, struct link *l, uint16_t type, uint64_t deadline_ms,
                   struct slice *ret_rep, bool *ret_answered, int *sent, struct why *why)
{
    struct slice rep = SLICE_EMPTY;
    int err = DFS_OK;

    *ret_answered = false;
    if (l->conn != NULL && l->master != atomic_load(&m->leader)) {
        link_close(l);
    }
    if (l->conn == NULL) {
        err = link_connect(m, l, deadline_ms, why);
        if (err == DFS_EVERSION || err == DFS_EWRONGCLUSTER || err == DFS_EINVAL) {
            *ret_answered = true;
        }
    }
    if (err != 0) {
        l->master = atomic_load(&m->leader);
        return err;
    }
    ++*sent;
    err = conn_call(l->conn, type, wire_out_slice(&l->out), &rep,
                    MIN(deadline_ms, clock_mono_ms() + STEP_MS));
    *ret_answered = rep.p != NULL && !conn_broken(l->conn);
    if (*ret_answered) {
        *ret_rep = rep;
    } else {
        why_set(why, err, "%s", conn_peer(l->conn));
    }
    return err;
}

static int insist(struct meta *m, struct link *l, uint16_t type, uint64_t deadline_ms,
                  struct slice *ret_rep, int *sent, struct why *why)
{
    uint64_t began_ms = clock_mono_ms();
    uint64_t pause = PAUSE_MS;

    for (;;) {
        bool answered;
        int err = attempt(m, l, type, deadline_ms, ret_rep, &answered, sent, why);

        if (err == DFS_EINTR) {
            return err;
        }
        if (answered && err != DFS_ENOTLEADER && err != DFS_ESHUTDOWN && err != DFS_EAGAIN) {
            return err;
        }
        if (!answered || err == DFS_ENOTLEADER) {
            next_master(m, l);
        }
        atomic_fetch_add(&m->retries, 1);
        /* A connection that was idle too long is no reason to wait. */
        if ((answered || *sent != 1) && !pause_ms(pause, deadline_ms)) {
            return DFS_ETIMEOUT;
        }
        if (cancel_now(began_ms, clock_mono_ms())) {
            return DFS_EINTR;
        }
        if (clock_mono_ms() >= deadline_ms) {
            return DFS_ETIMEOUT;
        }
        pause = MIN(pause * 2, PAUSE_MAX_MS);
    }
}

/* Sends what is in the link until some master gives a final answer. */
static int converse(struct meta *m, struct link *l, uint16_t type, uint64_t deadline_ms,
                    struct slice *ret_rep, int *sent, struct why *why)
{
    int err;

    if (l->out.err != 0) {
        return l->out.err;
    }
    atomic_fetch_add(&m->rpcs, 1);
    silence_begin();
    err = insist(m, l, type, deadline_ms, ret_rep, sent, why);
    silence_end(err);
    return err;
}

/* ---- sessions ---- */

/* Called with renew_mu held, or before there are other threads. */
static int session_start(struct meta *m, uint64_t deadline_ms, struct why *why)
{
    struct call_hdr hdr = { 0 };
    struct session_open_req q = { .host = slice_str(m->host), .name = slice_str(m->name) };
    struct session_open_rep r;
    struct slice rep;
    int sent = 0;
    int err;

    wire_out_reset(&m->renew.out);
    call_hdr_put(&m->renew.out, &hdr);
    session_open_req_put(&m->renew.out, &q);
    err = converse(m, &m->renew, RPC_session_open, deadline_ms, &rep, &sent, why);
    if (err == 0) {
        err = session_open_rep_get(rep, &r);
    }
    if (err == 0 && (r.cluster.len != CLUSTER_ID_BYTES || r.session == 0 || r.block_size == 0)) {
        err = DFS_EMALFORMED;
    }
    if (err != 0) {
        return err;
    }
    if (!m->cluster_known) {
        memcpy(m->cluster, r.cluster.p, CLUSTER_ID_BYTES);
        m->block_size = r.block_size;
        m->cluster_known = true;
    }
    atomic_store(&m->lease_ms, r.lease_ms);
    atomic_store(&m->session, r.session);
    return DFS_OK;
}

static int session_renew(struct meta *m, uint64_t old, uint64_t deadline_ms)
{
    int err = DFS_OK;

    pthread_mutex_lock(&m->renew_mu);
    if (atomic_load(&m->session) == old) {
        err = session_start(m, deadline_ms, NULL);
        log_event(LOG_WARN, "client.session", "lost=%ju now=%ju err=%s", (uintmax_t)old,
                  (uintmax_t)atomic_load(&m->session), err_name(err));
    }
    pthread_mutex_unlock(&m->renew_mu);
    return err;
}

static int read_masters(struct meta *m, struct why *why)
{
    char text[ADDR_TEXT];
    char *list;
    int err = addr_masters(m->conf->masters, MASTER_CLIENTS, &list, why);

    if (err != 0) {
        return err;
    }
    for (int i = 0; addr_nth(list, i, text) != NULL; i++) {
        m->masters = x_realloc(m->masters, (size_t)(i + 1) * sizeof(*m->masters));
        m->masters[i] = x_strdup(text);
        m->master_count = i + 1;
    }
    free(list);
    return DFS_OK;
}

static void meta_free(struct meta *m)
{
    for (int k = 0; k < 2; k++) {
        for (struct link *l = m->idle[k], *next; l != NULL; l = next) {
            next = l->next;
            link_fini(l);
            free(l);
        }
    }
    link_fini(&m->renew);
    for (int i = 0; i < m->master_count; i++) {
        free(m->masters[i]);
    }
    free(m->masters);
    free(m->host);
    free(m->name);
    pthread_mutex_destroy(&m->mu);
    pthread_mutex_destroy(&m->renew_mu);
    pthread_cond_destroy(&m->freed);
    free(m);
}

static struct meta *meta_new(const struct conf *conf, const char *host, const char *name)
{
    struct meta *m = x_alloc(sizeof(*m));

    m->conf = conf;
    m->host = x_strdup(host);
    m->name = x_strdup(name);
    pthread_mutex_init(&m->mu, NULL);
    pthread_mutex_init(&m->renew_mu, NULL);
    cond_init(&m->freed);
    m->renew.command = true;
    wire_out_init(&m->renew.out, LIMIT_MSG);
    return m;
}

int meta_resume(const struct conf *conf, const char *host, const char *name,
                const struct meta_left *left, struct meta **ret, struct why *why)
{
    struct meta *m = meta_new(conf, host, name);
    int err = read_masters(m, why);

    if (err != 0) {
        meta_free(m);
        return err;
    }
    memcpy(m->cluster, left->cluster, CLUSTER_ID_BYTES);
    m->cluster_known = true;
    m->block_size = left->block_size;
    m->seq_base = left->seq;
    atomic_store(&m->lease_ms, left->lease_ms);
    atomic_store(&m->session, left->session);
    *ret = m;
    return DFS_OK;
}

void meta_leave(struct meta *m, struct meta_left *ret)
{
    *ret = (struct meta_left){ .session = meta_session(m),
                               .seq = m->seq_base,
                               .lease_ms = meta_lease_ms(m),
                               .block_size = m->block_size };
    memcpy(ret->cluster, m->cluster, CLUSTER_ID_BYTES);
    for (const struct link *l = m->idle[1]; l != NULL; l = l->next) {
        ret->seq = MAX(ret->seq, l->seq);
    }
    m->left = true;
}

int meta_open(const struct conf *conf, const char *host, const char *name, struct meta **ret,
              struct why *why)
{
    struct meta *m = meta_new(conf, host, name);
    int err = read_masters(m, why);

    if (err == 0) {
        err = session_start(m, clock_mono_ms() + conf->client_timeout, why);
        if (err != 0) {
            why_prefix(why, "no session with the masters at %s", conf->masters);
        }
    }
    if (err != 0) {
        meta_free(m);
        return err;
    }
    *ret = m;
    return DFS_OK;
}

void meta_close(struct meta *m)
{
    struct meta_call call;
    struct session_close_req q = { 0 };
    struct slice rep;

    if (m == NULL) {
        return;
    }
    if (!m->left && meta_begin(m, META_BOUND, NULL, clock_mono_ms() + CLOSE_MS, &call) == 0) {
        session_close_req_put(call.out, &q);
        meta_run(&call, RPC_session_close, &rep);
        meta_end(&call);
    }
    meta_free(m);
}

uint64_t meta_session(const struct meta *m)
{
    return atomic_load(&m->session);
}

uint32_t meta_lease_ms(const struct meta *m)
{
    return atomic_load(&m->lease_ms);
}

uint32_t meta_block_size(const struct meta *m)
{
    return m->block_size;
}

struct slice meta_cluster(const struct meta *m)
{
    return slice_of(m->cluster, sizeof(m->cluster));
}

void meta_count(const struct meta *m, struct meta_counts *ret)
{
    ret->rpcs = atomic_load(&m->rpcs);
    ret->retries = atomic_load(&m->retries);
}

/* ---- calls ---- */

int meta_begin(struct meta *m, enum meta_kind kind, const struct cred *cr, uint64_t deadline_ms,
               struct meta_call *ret)
{
    struct call_hdr hdr = { .session = meta_session(m) };
    uint8_t groups[LIMIT_GROUPS * 4];
    struct link *l;
    int err = link_take(m, kind != META_QUERY, deadline_ms, &l);

    if (err != 0) {
        return err;
    }
    if (kind != META_QUERY) {
        hdr.slot = l->slot;
        hdr.seq = ++l->seq;
    }
    if (cr != NULL) {
        uint32_t n = MIN(cr->group_count, (uint32_t)LIMIT_GROUPS);

        for (uint32_t i = 0; i < n * 4; i++) {
            groups[i] = (uint8_t)(cr->groups[i / 4] >> (8 * (i % 4)));
        }
        hdr.uid = cr->uid;
        hdr.gid = cr->gid;
        hdr.groups = slice_of(groups, n * 4);
    }
    call_hdr_put(&l->out, &hdr);
    *ret = (struct meta_call){ .m = m,
                               .link = l,
                               .out = &l->out,
                               .kind = kind,
                               .deadline_ms = deadline_ms,
                               .session = hdr.session };
    return DFS_OK;
}

int meta_run(struct meta_call *call, uint16_t type, struct slice *ret_rep)
{
    struct meta *m = call->m;
    struct link *l = call->link;

    for (int renewals = 0;; renewals++) {
        int sent = 0;
        int err = converse(m, l, type, call->deadline_ms, ret_rep, &sent, NULL);

        if (err != DFS_ESESSION || renewals == 3) {
            return err;
        }
        err = session_renew(m, call->session, call->deadline_ms);
        if (err != 0) {
            return err;
        }
        if (call->kind == META_BOUND || (call->kind == META_COMMAND && sent > 1)) {
            return DFS_ESESSION;
        }
        call->session = meta_session(m);
        patch_u64(&l->out, HDR_SESSION, call->session);
        if (call->kind == META_COMMAND) {
            patch_u64(&l->out, HDR_SEQ, ++l->seq);
        }
    }
}

void meta_end(struct meta_call *call)
{
    if (call->link != NULL) {
        link_give(call->m, call->link);
        call->link = NULL;
    }
}
