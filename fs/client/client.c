/* The session's life: start, the two threads behind it, and the end.
 *
 * committer   once a commit interval: sends what lies in buffers for long, commits what is
 *             acknowledged, gives idle streams back, releases blocks that have ended
 * pinger      keeps the session's lease and tells the masters which inodes are open no longer
 */
#include "cluster/base/base.h"

#include <unistd.h>

#include "cluster/base/log.h"

#include "fs/client/client_int.h"
#include "fs/client/commit.h"
#include "fs/client/lent.h"
#include "fs/client/locks.h"
#include "fs/client/memory.h"
#include "fs/client/readahead.h"
#include "fs/client/writer.h"

#define PASS_MS    5000   /* of sending in one pass, with servers that do not answer */
#define HURRY_MS   250    /* from a write to a file that others have open to its commit */
#define CLOSED_MAX 100000 /* inodes in one ping */

/* ---- commits ---- */

/* All dirty nodes, counted. */
static struct node **dirty_nodes(struct client *c, size_t *ret_count)
{
    struct node **nodes = NULL;
    size_t count = 0;

    pthread_mutex_lock(&c->mu);
    LIST_FOREACH (item, &c->dirty) {
        count++;
    }
    nodes = x_alloc((count + 1) * sizeof(struct node *));
    count = 0;
    LIST_FOREACH (item, &c->dirty) {
        struct node *n = CONTAINER_OF(item, struct node, dirty_link);

        n->refs++;
        nodes[count++] = n;
    }
    pthread_mutex_unlock(&c->mu);
    *ret_count = count;
    return nodes;
}

/* Off the list if nothing is left to do. */
static void clean(struct client *c, struct node *n)
{
    bool unlisted = false;

    pthread_mutex_lock(&n->mu);
    if (node_clean_locked(n)) {
        pthread_mutex_lock(&c->mu);
        if (n->dirty_listed) {
            list_remove(&n->dirty_link);
            n->dirty_listed = false;
            unlisted = true;
            writer_slim_locked(n);
        }
        pthread_mutex_unlock(&c->mu);
    }
    pthread_mutex_unlock(&n->mu);
    if (unlisted) {
        node_put(n); /* the list's */
    }
    node_put(n);
}

static void hold(struct ended *e, size_t count, uint64_t block)
{
    size_t lo = 0;
    size_t hi = count;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (e[mid].block == block) {
            e[mid].held = true;
            return;
        }
        if (e[mid].block < block) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
}

static void hold_all(struct ended *e, size_t count, const struct extmap *m)
{
    struct extent x;

    for (uint64_t pos = 0; extmap_find(m, pos, &x); pos = x.off + x.len) {
        hold(e, count, x.block);
    }
}

/* Marks the blocks in which this node has bytes that are not committed. */
static void hold_blocks(struct node *n, struct ended *e, size_t count)
{
    if (count == 0) {
        return;
    }
    pthread_mutex_lock(&n->mu);
    hold_all(e, count, &n->todo);
    hold_all(e, count, &n->flying);
    for (uint32_t i = 0; n->writer != NULL && i < n->writer->core.count; i++) {
        const struct wcore *core = &n->writer->core;

        hold(e, count, core->ring[(core->head + i) % WCORE_PACKETS].block);
    }
    pthread_mutex_unlock(&n->mu);
}

/* Behind those whose turn did not come. */
static void put_last(struct client *c, struct node **nodes, size_t count)
{
    pthread_mutex_lock(&c->mu);
    for (size_t i = 0; i < count; i++) {
        if (nodes[i]->dirty_listed) {
            list_remove(&nodes[i]->dirty_link);
            list_push_back(&c->dirty, &nodes[i]->dirty_link);
        }
    }
    pthread_mutex_unlock(&c->mu);
}

/* Sends what all nodes have, or as much of it as there is time for. */
static int send_all(struct client *c, struct node **nodes, size_t count, bool all)
{
    uint64_t began_ms = clock_mono_ms();
    uint64_t deadline_ms = client_deadline(c);
    int first = DFS_OK;

    for (size_t i = 0; i < count; i++) {
        int err = writer_tick(nodes[i], c->conf->commit_interval, all,
                              all ? deadline_ms : client_deadline(c));

        first = first != 0 ? first : err;
        if (!all && clock_mono_ms() - began_ms > PASS_MS) {
            put_last(c, nodes, i + 1);
            break;
        }
    }
    return first;
}

int client_commit_pass(struct client *c, bool all)
{
    struct ended *ended;
    size_t ended_count = streams_tick(c->streams, &ended);
    size_t count;
    struct node **nodes = dirty_nodes(c, &count);
    int first = send_all(c, nodes, count, all);
    int err;

    err = commit_nodes(nodes, count, client_deadline(c));
    for (size_t i = 0; i < count; i++) {
        hold_blocks(nodes[i], ended, ended_count);
        clean(c, nodes[i]);
    }
    free(nodes);
    streams_release(c->streams, ended, ended_count, client_deadline(c));
    return first != 0 ? first : err;
}

/* Between two passes, for nodes that somebody else may be waiting to see. */
static void commit_shared(struct client *c)
{
    size_t count, shared = 0;
    struct node **nodes = dirty_nodes(c, &count);

    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&nodes[i]->shared)) {
            struct node *n = nodes[i];

            (void)writer_tick(n, 0, false, client_deadline(c));
            nodes[i] = nodes[shared];
            nodes[shared++] = n;
        }
    }
    (void)commit_nodes(nodes, shared, client_deadline(c));
    for (size_t i = 0; i < count; i++) {
        node_put(nodes[i]); /* the next pass tidies up */
    }
    free(nodes);
}

void client_hurry(struct client *c)
{
    pthread_mutex_lock(&c->mu);
    if (c->hurry_ms == 0) {
        c->hurry_ms = clock_mono_ms() + HURRY_MS;
        pthread_cond_broadcast(&c->wake);
    }
    pthread_mutex_unlock(&c->mu);
}

/* Until the next pass, or the end, which is returned. */
static bool wait_for_pass(struct client *c)
{
    uint64_t until_ms = clock_mono_ms() + c->conf->commit_interval;
    bool stopping;

    pthread_mutex_lock(&c->mu);
    while (!c->stopping && clock_mono_ms() < until_ms) {
        uint64_t now_ms = clock_mono_ms();

        if (c->hurry_ms != 0 && now_ms >= c->hurry_ms) {
            c->hurry_ms = 0;
            pthread_mutex_unlock(&c->mu);
            commit_shared(c);
            pthread_mutex_lock(&c->mu);
            continue;
        }
        (void)cond_wait_until(&c->wake, &c->mu,
                              c->hurry_ms != 0 ? MIN(until_ms, c->hurry_ms) : until_ms);
    }
    stopping = c->stopping;
    pthread_mutex_unlock(&c->mu);
    return stopping;
}

static void *committer(void *arg)
{
    struct client *c = arg;
    bool stopping = false;

    while (!stopping) {
        stopping = wait_for_pass(c);
        client_commit_pass(c, false);
        atime_tell(c);
        if (c->lents != NULL) {
            lents_tick(c->lents);
        }
        nodes_tick(c);
        readahead_tick(c->ra);
        bufs_tick(&c->bufs);
    }
    return NULL;
}

int client_sync(struct client *c)
{
    int err = DFS_OK;

    /* A commit that was under way in the first pass may have left something to the second. */
    for (int i = 0; i < 2; i++) {
        int e = client_commit_pass(c, true);

        err = e != DFS_ESESSION ? e : err;
    }
    return err;
}

/* ---- pings ---- */

static int ping(struct client *c, uint64_t *closed, size_t closed_count, uint64_t *opened,
                size_t opened_count, uint64_t epoch, uint64_t *ret_epoch)
{
    struct session_ping_req q = { .epoch = epoch };
    struct session_ping_rep r;
    struct wire_out lists[2];
    struct meta_call call;
    struct slice rep;
    int err = meta_begin(c->meta, META_QUERY, NULL,
                         clock_mono_ms() + MAX(meta_lease_ms(c->meta) / 4, 1000), &call);

    if (err != 0) {
        return err;
    }
    wire_out_init(&lists[0], LIMIT_MSG / 2);
    wire_out_init(&lists[1], LIMIT_MSG / 2);
    for (size_t i = 0; i < closed_count; i++) {
        ino_ref_put(&lists[0], &(struct ino_ref){ .ino = closed[i] });
    }
    for (size_t i = 0; i < opened_count; i++) {
        ino_ref_put(&lists[1], &(struct ino_ref){ .ino = opened[i] });
    }
    q.closed = wire_out_list(&lists[0], (uint32_t)closed_count);
    q.opened = wire_out_list(&lists[1], (uint32_t)opened_count);
    session_ping_req_put(call.out, &q);
    err = meta_run(&call, RPC_session_ping, &rep);
    err = err != 0 ? err : session_ping_rep_get(rep, &r);
    if (err == 0) {
        *ret_epoch = r.epoch;
    }
    meta_end(&call);
    wire_out_fini(&lists[0]);
    wire_out_fini(&lists[1]);
    return err;
}

/* Another master leads, or our session is a new one: it learns of everything that is open here. */
static void tell_opens(struct client *c, uint64_t epoch)
{
    uint64_t session = meta_session(c->meta);
    uint64_t *opened;
    size_t count = 0;
    int err = DFS_OK;

    pthread_mutex_lock(&c->mu);
    opened = x_alloc((c->nodes.count + 1) * sizeof(*opened));
    HTAB_FOREACH (h, &c->nodes) {
        opened[count++] = CONTAINER_OF(h, struct node, by_ino)->ino;
    }
    pthread_mutex_unlock(&c->mu);
    for (size_t i = 0; i < count && err == 0; i += CLOSED_MAX) {
        err = ping(c, NULL, 0, opened + i, MIN(count - i, (size_t)CLOSED_MAX), epoch, &epoch);
    }
    free(opened);
    if (err == 0) {
        c->epoch = epoch;
        c->epoch_session = session;
    }
}

static void keep_session(struct client *c)
{
    uint64_t epoch;
    int err;

    pthread_mutex_lock(&c->mu);
    size_t count = MIN(c->closed_count, (size_t)CLOSED_MAX);
    uint64_t *closed = x_alloc((count + 1) * sizeof(*closed));

    c->closed_count -= count;
    if (count > 0) {
        memcpy(closed, c->closed + c->closed_count, count * sizeof(*closed));
    }
    c->telling = closed;
    c->telling_count = count;
    epoch = c->epoch;
    pthread_mutex_unlock(&c->mu);
    err = ping(c, closed, count, NULL, 0, epoch, &epoch);
    pthread_mutex_lock(&c->mu);
    c->telling = NULL;
    c->telling_count = 0;
    pthread_cond_broadcast(&c->told);
    pthread_mutex_unlock(&c->mu);
    free(closed);
    if (err != 0) {
        log_event(LOG_WARN, "client.ping", "err=%s", err_name(err));
    } else if (epoch != c->epoch || c->epoch_session != meta_session(c->meta)) {
        err = locks_tell(c, epoch); /* first: with the opens the master takes all for told */
        if (err == 0) {
            tell_opens(c, epoch);
        } else {
            log_event(LOG_WARN, "client.locks_told", "err=%s", err_name(err));
        }
    }
}

static void *pinger(void *arg)
{
    struct client *c = arg;

    for (;;) {
        pthread_mutex_lock(&c->mu);
        /* With closed inodes waiting, sooner: what they hold can be freed. */
        uint64_t lease_ms = meta_lease_ms(c->meta);
        uint64_t until_ms = clock_mono_ms() + MAX(MIN(lease_ms / 4, 1000), 50);
        bool stopping;

        while (!c->stopping && cond_wait_until(&c->wake, &c->mu, until_ms) == 0) {
        }
        stopping = c->stopping;
        pthread_mutex_unlock(&c->mu);
        if (stopping) {
            return NULL;
        }
        keep_session(c);
    }
}

void client_reopening(struct client *c, uint64_t ino)
{
    uint64_t deadline_ms = client_deadline(c);
    bool again = true;

    pthread_mutex_lock(&c->mu);
    for (size_t i = c->closed_count; i > 0; i--) {
        if (c->closed[i - 1] == ino) {
            c->closed[i - 1] = c->closed[--c->closed_count];
        }
    }
    while (again) {
        again = false;
        for (size_t i = 0; i < c->telling_count; i++) {
            again = again || c->telling[i] == ino;
        }
        again = again && cond_wait_until(&c->told, &c->mu, deadline_ms) == 0;
    }
    pthread_mutex_unlock(&c->mu);
}

/* ---- start and end ---- */

void client_free(struct client *c)
{
    struct hnode *h;

    atomic_store(&c->ending, true);
    if (c->locks != NULL) {
        client_locks_end(c);
    }
    client_events_free(c->events);
    readahead_stop(c->ra);
    /* Nodes that could not be committed; their errors were logged. */
    while ((h = htab_each(&c->nodes, NULL)) != NULL) {
        struct node *n = CONTAINER_OF(h, struct node, by_ino);

        n->refs = 1;
        node_put(n);
    }
    readahead_free(c->ra);
    streams_free(c->streams);
    meta_close(c->meta);
    locks_fini(c);
    lents_free(c->lents);
    peers_free(c->peers);
    bufs_fini(&c->bufs);
    htab_fini(&c->nodes);
    pthread_mutex_destroy(&c->mu);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->told);
    free(c->closed);
    free(c->seen);
    dir_news_fini(&c->news);
    rooms_fini(&c->rooms);
    atimes_fini(&c->atimes);
    free(c);
}

/* What the process before had not told the masters, and what it knew of them. */
static int take_rest(struct client *c, struct wire_in *in)
{
    c->epoch = wire_get_u64(in);
    c->epoch_session = meta_session(c->meta);
    c->closed_count = c->closed_cap = wire_get_u32(in);
    if (in->err != 0 || c->closed_count > in->left / sizeof(*c->closed)) {
        c->closed_count = 0;
        return DFS_EMALFORMED;
    }
    c->closed = x_alloc((c->closed_count + 1) * sizeof(*c->closed));
    for (size_t i = 0; i < c->closed_count; i++) {
        c->closed[i] = wire_get_u64(in);
    }
    return locks_resume(c, in);
}

int client_open(const struct conf *conf, const char *name, struct client **ret, struct why *why)
{
    return client_start(conf, name, NULL, NULL, ret, why);
}

int client_start(const struct conf *conf, const char *name, const struct meta_left *left,
                 struct wire_in *rest, struct client **ret, struct why *why)
{
    struct client *c = x_alloc(sizeof(*c));
    int err;

    c->conf = conf;
    dir_news_init(&c->news);
    rooms_init(&c->rooms);
    atimes_init(&c->atimes);
    if (gethostname(c->host, sizeof(c->host) - 1) != 0) {
        c->host[0] = '\0';
    }
    pthread_mutex_init(&c->mu, NULL);
    cond_init(&c->wake);
    cond_init(&c->told);
    htab_init(&c->nodes);
    list_init(&c->dirty);
    bufs_init(&c->bufs, conf->client_cache);
    c->seen = x_alloc(SEEN_SLOTS * sizeof(*c->seen));
    err = left != NULL ? meta_resume(conf, c->host, name, left, &c->meta, why)
                       : meta_open(conf, c->host, name, &c->meta, why);
    if (err == 0) {
        locks_init(c);
        err = left != NULL ? take_rest(c, rest) : DFS_OK;
    }
    if (err != 0) {
        client_free(c);
        return err;
    }
    c->events = client_events_new(c->meta);
    c->peers = peers_new(c->host, meta_cluster(c->meta), memory_locs(conf->client_cache));
    c->lents = conf->local_reads != 0 ? lents_new(c) : NULL;
    c->streams = streams_new(c->meta, c->peers, c->host);
    c->ra = readahead_start(c);
    c->threads = pthread_create(&c->committer, NULL, committer, c) == 0 &&
                 pthread_create(&c->pinger, NULL, pinger, c) == 0;
    ASSERT(c->threads);
    *ret = c;
    return DFS_OK;
}

void client_tell(struct client *c)
{
    atime_tell(c);
    keep_session(c);
}

void client_stop(struct client *c)
{
    pthread_mutex_lock(&c->mu);
    c->stopping = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->mu);
    pthread_join(c->committer, NULL);
    pthread_join(c->pinger, NULL);
}

void client_close(struct client *c)
{
    int err;

    if (c == NULL) {
        return;
    }
    client_stop(c);
    err = client_sync(c);
    if (err != 0) {
        log_event(LOG_ERROR, "client.close", "err=%s", err_name(err));
    }
    client_free(c);
}

/* ---- what others do ---- */

static void forget_node(struct node *n, uint64_t data_version)
{
    pthread_mutex_lock(&n->mu);
    if (data_version == 0 || data_version > n->attr.data_version) {
        n->stale = true;
        node_foreign_locked(n);
    }
    pthread_mutex_unlock(&n->mu);
}

static void forget_all(struct client *c)
{
    size_t count;
    struct node **nodes = node_all(c, &count);

    for (size_t i = 0; i < count; i++) {
        forget_node(nodes[i], 0);
        node_put(nodes[i]);
    }
    free(nodes);
}

/* What the library itself remembers. */
static void on_event(void *arg, const struct event *ev)
{
    struct client *c = arg;
    struct node *n;

    switch (ev->kind) {
    case EVENT_ALL:
        dir_news_drop(&c->news, 0);
        forget_all(c);
        return;
    case EVENT_INODE:
        dir_news_drop(&c->news, ev->ino);
        n = ev->arg != 0 ? node_find(c, ev->ino) : NULL;
        if (n != NULL) {
            forget_node(n, ev->arg);
            node_put(n);
        }
        return;
    case EVENT_ENTRY:
        dir_news_drop(&c->news, ev->ino);
        return;
    case EVENT_SHARED:
        n = node_find(c, ev->ino);
        if (n != NULL) {
            atomic_store(&n->shared, true);
            node_put(n);
            client_hurry(c); /* it may have been written to before */
        }
        return;
    default:
        return;
    }
}

void client_on_event(struct client *c, client_event_fn *fn, void *arg)
{
    bool first;

    pthread_mutex_lock(&c->mu);
    first = !c->hears;
    c->hears = true;
    pthread_mutex_unlock(&c->mu);
    if (first) {
        client_events_on(c->events, on_event, c);
    }
    client_events_on(c->events, fn, arg);
}

void client_off_event(struct client *c, client_event_fn *fn, void *arg)
{
    client_events_off(c->events, fn, arg);
}

void client_no_atime(struct client *c)
{
    c->atimes.off = true;
}

void client_on_content(struct client *c, client_content_fn *fn, void *arg)
{
    c->on_content = fn;
    c->on_content_arg = arg;
}

bool client_content_old(struct client *c, uint64_t ino, uint64_t *ret_mark)
{
    struct node *n = node_find(c, ino);
    bool old = false;

    if (n != NULL) {
        pthread_mutex_lock(&n->mu);
        old = n->foreign != n->renewed;
        if (ret_mark != NULL) {
            *ret_mark = n->foreign;
        }
        pthread_mutex_unlock(&n->mu);
        node_put(n);
    }
    return old;
}

void client_content_renewed(struct client *c, uint64_t ino, uint64_t mark)
{
    struct node *n = node_find(c, ino);

    if (n != NULL) {
        pthread_mutex_lock(&n->mu);
        n->renewed = MAX(n->renewed, mark);
        pthread_mutex_unlock(&n->mu);
        node_put(n);
    }
}

void client_get_stats(const struct client *c, struct client_stats *ret)
{
    struct meta_counts m;
    struct bufs *bufs = (struct bufs *)(uintptr_t)&c->bufs;

    meta_count(c->meta, &m);
    *ret = (struct client_stats){
        .rpcs = m.rpcs,
        .rpc_retries = m.retries,
        .packets = atomic_load(&c->packets),
        .read_requests = atomic_load(&c->read_requests),
        .read_failovers = atomic_load(&c->read_failovers),
        .blocks_sealed_early = atomic_load(&c->sealed_early),
        .commits = atomic_load(&c->commits),
        .cache_bytes = bufs_used(bufs),
        .local_bytes = c->lents != NULL ? lents_bytes(c->lents) : 0,
    };
}
