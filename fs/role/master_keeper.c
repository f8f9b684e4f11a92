/* The keeper: the leader's tasks, on a thread of its own.
 *
 * Twenty times a second, and when poked: blocks that changed are looked at, silent servers and
 * clients are moved on, scans go on, and what repair wants is ordered or put through the log. Works
 * in slices, because the core waits for map_mu when it places blocks.
 */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"
#include "cluster/store/trim.h"

#include "fs/role/master_int.h"

#define TICK_MS          50
#define TRIM_MS          2000
#define TRIM_BYTES       (48 * MIB) /* of the database mapped in, code included */
#define SECOND_MS        1000
#define EVENTS_MAX       (1u << 20)
#define SLICE            256u /* blocks that are looked at under one lock */
#define SCAN_SLICES      16u  /* in one tick */
#define REPAIR_LOOKS     64u
#define CHANGES_MAX      512u /* in one command */
#define ANSWERS_AT_ONCE  64u  /* under one lock */
#define SEALED_LATELY_NS (600 * NS_PER_SEC)
#define STRAYS_AT_ONCE   256u

void master_keeper_init(struct master *m)
{
    struct keeper *k = &m->keeper;
    pthread_condattr_t attr;

    pthread_mutex_init(&k->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->cond, &attr);
    pthread_condattr_destroy(&attr);
}

void master_keeper_fini(struct master *m)
{
    struct keeper *k = &m->keeper;

    free(k->events);
    free(k->due);
    pthread_cond_destroy(&k->cond);
    pthread_mutex_destroy(&k->mu);
}

void master_keeper_poke(struct master *m)
{
    struct keeper *k = &m->keeper;

    pthread_mutex_lock(&k->mu);
    k->poked = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->mu);
}

void master_keeper_blocks_changed(struct master *m, const struct block_event *events, size_t count)
{
    struct keeper *k = &m->keeper;

    pthread_mutex_lock(&k->mu);
    if (!k->running) {
        count = 0; /* replay: the first scan sees it */
    } else if (k->event_count + count > EVENTS_MAX) {
        k->rescan = true;
        count = 0;
    } else if (k->event_count + count > k->event_cap) {
        k->event_cap = MAX(k->event_cap * 2, k->event_count + count);
        k->events = x_realloc(k->events, k->event_cap * sizeof(*k->events));
    }
    if (count != 0) {
        memcpy(k->events + k->event_count, events, count * sizeof(*events));
        k->event_count += count;
    }
    pthread_mutex_unlock(&k->mu); /* the next tick is soon enough */
}

/* ---- what repair asks for ---- */

int master_keeper_env_get(void *arg, uint64_t block, struct block_rec *ret)
{
    struct master *m = arg;
    MDB_txn *txn;
    int err = kv_read_begin(ns_kv(m->ns), &txn);

    if (err != DFS_OK) {
        return err;
    }
    err = mapdb_get(ns_map(m->ns), txn, block, ret);
    mdb_txn_abort(txn);
    return err;
}

void master_keeper_env_change(void *arg, const struct repair_change *c)
{
    struct master *m = arg;
    struct wishes *w = &m->wishes;

    if (w->change_count == w->change_cap) {
        w->change_cap = MAX(w->change_cap * 2, 64);
        w->changes = x_realloc(w->changes, w->change_cap * sizeof(*w->changes));
    }
    w->changes[w->change_count++] = *c;
}

void master_keeper_env_forget(void *arg, uint64_t block)
{
    struct master *m = arg;
    struct wishes *w = &m->wishes;

    if (w->forget_count == w->forget_cap) {
        w->forget_cap = MAX(w->forget_cap * 2, 64);
        w->forgets = x_realloc(w->forgets, w->forget_cap * sizeof(*w->forgets));
    }
    w->forgets[w->forget_count++] = block;
}

static int send_changes(struct master *m, const struct repair_change *c, size_t n)
{
    struct map_replicas_req req;
    struct wire_out list, msg;
    int err;

    wire_out_init(&list, LIMIT_BATCH_BYTES);
    wire_out_init(&msg, LIMIT_BATCH_BYTES);
    for (size_t i = 0; i < n; i++) {
        struct replica_change rc = { .block = c[i].block, .node = c[i].node, .op = c[i].op };

        replica_change_put(&list, &rc);
        log_event(LOG_INFO, c[i].op == REPLICA_ADD ? "replica.added" : "replica.dropped",
                  "block=%ju node=%u", (uintmax_t)c[i].block, c[i].node);
    }
    req = (struct map_replicas_req){ .changes = wire_out_list(&list, (uint32_t)n) };
    map_replicas_req_put(&msg, &req);
    err = master_core_call(m, RPC_map_replicas, wire_out_slice(&msg), NULL);
    wire_out_fini(&list);
    wire_out_fini(&msg);
    return err;
}

static int send_forgets(struct master *m, const uint64_t *blocks, size_t n)
{
    struct map_forget_req req;
    struct wire_out list, msg;
    int err;

    wire_out_init(&list, LIMIT_BATCH_BYTES);
    wire_out_init(&msg, LIMIT_BATCH_BYTES);
    for (size_t i = 0; i < n; i++) {
        block_ref_put(&list, &(struct block_ref){ blocks[i] });
    }
    req = (struct map_forget_req){ .blocks = wire_out_list(&list, (uint32_t)n) };
    map_forget_req_put(&msg, &req);
    err = master_core_call(m, RPC_map_forget, wire_out_slice(&msg), NULL);
    wire_out_fini(&list);
    wire_out_fini(&msg);
    return err;
}

/* Puts what repair wants through the log and tells it the outcome. */
static void grant_wishes(struct master *m)
{
    struct wishes w;

    pthread_mutex_lock(&m->map_mu);
    w = m->wishes;
    m->wishes = (struct wishes){ 0 };
    pthread_mutex_unlock(&m->map_mu);
    for (size_t at = 0; at < w.change_count; at += CHANGES_MAX) {
        size_t n = MIN(w.change_count - at, CHANGES_MAX);
        int err = send_changes(m, w.changes + at, n);

        for (size_t i = 0; i < n; i++) {
            if (i % ANSWERS_AT_ONCE == 0) {
                pthread_mutex_lock(&m->map_mu);
            }
            repair_changed(m->repair, &w.changes[at + i], err, clock_mono_ms());
            if ((i + 1) % ANSWERS_AT_ONCE == 0 || i + 1 == n) {
                pthread_mutex_unlock(&m->map_mu);
            }
        }
    }
    for (size_t at = 0; at < w.forget_count; at += CHANGES_MAX) {
        size_t n = MIN(w.forget_count - at, CHANGES_MAX);

        send_forgets(m, w.forgets + at, n); /* a failure is found again among the deleted */
        pthread_mutex_lock(&m->map_mu);
        for (size_t i = 0; i < n; i++) {
            repair_forgotten(m->repair, w.forgets[at + i]);
        }
        pthread_mutex_unlock(&m->map_mu);
    }
    free(w.changes);
    free(w.forgets);
}

/* ---- looking at blocks ---- */

struct looked {
    uint64_t block;
    struct block_rec rec;
};

struct slice_of_blocks {
    struct looked all[SLICE];
    size_t count;
};

static bool collect(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct slice_of_blocks *s = arg;

    s->all[s->count++] = (struct looked){ block, *rec };
    return s->count < SLICE;
}

static void look_at(struct master *m, const struct slice_of_blocks *s, int64_t sealed_since_ns)
{
    uint64_t now = clock_mono_ms();

    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < s->count; i++) {
        if (s->all[i].rec.state == BLOCK_SEALED && s->all[i].rec.changed_ns >= sealed_since_ns) {
            repair_sealed(m->repair, s->all[i].block, &s->all[i].rec, now);
        }
        repair_look(m->repair, s->all[i].block, &s->all[i].rec, now);
    }
    pthread_mutex_unlock(&m->map_mu);
}

/* Blocks of one server (0: all), a slice from *from on. *from becomes UINT64_MAX at the end. */
static int scan_slice(struct master *m, uint32_t node, uint64_t *from)
{
    struct slice_of_blocks s = { .count = 0 };
    MDB_txn *txn;
    int err = kv_read_begin(ns_kv(m->ns), &txn);

    if (err != DFS_OK) {
        return err;
    }
    err = node == 0 ? mapdb_each_block(ns_map(m->ns), txn, *from, collect, &s)
                    : mapdb_each_block_of(ns_map(m->ns), txn, node, *from, collect, &s);
    mdb_txn_abort(txn);
    if (err == DFS_OK) {
        /* An earlier leader's orders to seal may not have arrived. */
        look_at(m, &s, node == 0 ? m->keeper.sealed_since_ns : INT64_MAX);
        *from = s.count < SLICE ? UINT64_MAX : s.all[s.count - 1].block + 1;
    }
    return err;
}

void master_keeper_scan_node_locked(struct master *m, uint32_t node)
{
    struct node_scan *n;

    LIST_FOREACH (l, &m->scans) {
        n = CONTAINER_OF(l, struct node_scan, list);
        if (n->node == node) {
            n->from = 0;
            return;
        }
    }
    n = x_alloc(sizeof(*n));
    n->node = node;
    list_init(&n->list);
    list_push_back(&m->scans, &n->list);
}

static bool next_node_scan(struct master *m, uint32_t *ret_node, uint64_t *ret_from)
{
    struct list *l;

    pthread_mutex_lock(&m->map_mu);
    l = list_first(&m->scans);
    if (l != NULL) {
        struct node_scan *n = CONTAINER_OF(l, struct node_scan, list);

        *ret_node = n->node;
        *ret_from = n->from;
        n->from = UINT64_MAX; /* unless it is asked for again meanwhile */
    }
    pthread_mutex_unlock(&m->map_mu);
    return l != NULL;
}

static void node_scanned(struct master *m, uint32_t node, uint64_t from)
{
    pthread_mutex_lock(&m->map_mu);
    LIST_FOREACH (l, &m->scans) {
        struct node_scan *n = CONTAINER_OF(l, struct node_scan, list);

        if (n->node == node && n->from == UINT64_MAX) {
            n->from = from;
            if (from == UINT64_MAX) {
                list_remove(&n->list);
                free(n);
            }
        }
    }
    pthread_mutex_unlock(&m->map_mu);
}

/* Some slices of what there is to scan; true when there is more. */
static bool scan(struct master *m)
{
    struct keeper *k = &m->keeper;
    uint64_t from;
    uint32_t node;
    int err = DFS_OK;

    pthread_mutex_lock(&m->map_mu);
    if (repair_wants_scan(m->repair)) {
        k->scan_from = 0;
    }
    pthread_mutex_unlock(&m->map_mu);
    for (unsigned int i = 0; err == DFS_OK && i < SCAN_SLICES; i++) {
        if (next_node_scan(m, &node, &from)) {
            err = scan_slice(m, node, &from);
            node_scanned(m, node, from);
        } else if (k->scan_from != UINT64_MAX) {
            atomic_store(&m->scanning, true);
            err = scan_slice(m, 0, &k->scan_from);
        } else {
            atomic_store(&m->scanning, false);
            return false;
        }
    }
    if (err != DFS_OK) {
        log_event(LOG_ERROR, "master.scan", "err=\"%s\"", err_text(err));
    }
    return err == DFS_OK;
}

static void take_events(struct master *m)
{
    struct keeper *k = &m->keeper;
    struct block_event *events;
    size_t count;

    pthread_mutex_lock(&k->mu);
    events = k->events;
    count = k->event_count;
    k->events = NULL;
    k->event_count = k->event_cap = 0;
    k->scan_from = k->rescan ? 0 : k->scan_from;
    k->rescan = false;
    pthread_mutex_unlock(&k->mu);
    for (size_t i = 0; i < count; i++) {
        struct block_rec rec = { .state = BLOCK_DELETED }; /* forgotten since */
        uint64_t now = clock_mono_ms();
        int err = master_keeper_env_get(m, events[i].block, &rec);

        if (err != DFS_OK && err != DFS_ENOBLOCK) {
            continue;
        }
        pthread_mutex_lock(&m->map_mu);
        if (events[i].sealed && rec.state == BLOCK_SEALED) {
            repair_sealed(m->repair, events[i].block, &rec, now);
        }
        repair_look(m->repair, events[i].block, &rec, now);
        pthread_mutex_unlock(&m->map_mu);
    }
    free(events);
}

/* ---- ticks ---- */

static void on_member(void *arg, const struct member *s, uint8_t was)
{
    struct master *m = arg;

    (void)was;
    log_event(member_state(s) == MEMBER_DEAD ? LOG_WARN : LOG_INFO, "master.member",
              "node=%u addr=%s state=%s", s->node, s->rec.addr, sm_name(&s->sm));
    if (member_state(s) == MEMBER_DEAD) {
        repair_node_dead(m->repair, s->node, clock_mono_ms());
        master_keeper_scan_node_locked(m, s->node);
    }
}

static void delete_strays(struct master *m, uint64_t now)
{
    uint64_t block;
    uint32_t node;

    for (unsigned int i = 0;
         i < STRAYS_AT_ONCE && strays_due(&m->strays, now, m->conf->delete_grace, &block, &node);
         i++) {
        log_event(LOG_INFO, "replica.stray", "node=%u block=%ju", node, (uintmax_t)block);
        repair_stray(m->repair, block, node, now);
    }
}

/* True when there is more to do at once. */
static bool tick(struct master *m)
{
    struct keeper *k = &m->keeper;
    uint64_t now = clock_mono_ms();
    bool more;

    take_events(m);
    more = scan(m);
    pthread_mutex_lock(&m->map_mu);
    members_step(&m->members, now, on_member, m);
    delete_strays(m, now);
    more = repair_step(m->repair, REPAIR_LOOKS, now) || more;
    pthread_mutex_unlock(&m->map_mu);
    master_tasks_expire_sessions(m, now);
    more = master_tasks_quota(m) || more;
    more = master_tasks_recount(m) || more;
    more = master_tasks_reap(m, now) || more;
    master_tasks_balance(m, now);
    master_locks_tick(m, now);
    master_space_step(m, now);
    master_room_step(m, now);
    if (now >= k->next_second_ms) {
        k->next_second_ms = now + SECOND_MS;
        master_tasks_delete(m, now);
        events_tick(&m->events, now);
    }
    master_ops_step(m, now);
    if (now >= k->next_trim_ms) {
        k->next_trim_ms = now + TRIM_MS;
        trim(ns_kv(m->ns), TRIM_BYTES);
    }
    grant_wishes(m);
    return more;
}

static void wait_for_work(struct keeper *k)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * NS_PER_MS;
    until.tv_sec += until.tv_nsec / NS_PER_SEC;
    until.tv_nsec %= NS_PER_SEC;
    while (!k->stop && !k->poked && pthread_cond_timedwait(&k->cond, &k->mu, &until) != ETIMEDOUT) {
    }
    k->poked = false;
}

static void *keeper_main(void *arg)
{
    struct master *m = arg;
    struct keeper *k = &m->keeper;
    bool more = true;

    pthread_mutex_lock(&k->mu);
    while (!k->stop) {
        pthread_mutex_unlock(&k->mu);
        more = tick(m);
        pthread_mutex_lock(&k->mu);
        if (!more) {
            wait_for_work(k);
        }
    }
    pthread_mutex_unlock(&k->mu);
    return NULL;
}

void master_keeper_start(struct master *m)
{
    struct keeper *k = &m->keeper;

    k->reader = ns_reader_new(m->ns);
    k->due = x_alloc(TASKS_DUE_MAX * sizeof(*k->due));
    k->scan_from = 0;
    k->sealed_since_ns = master_now_ns(m) - SEALED_LATELY_NS;
    k->next_second_ms = clock_mono_ms();
    k->orphans_from_ms = k->next_second_ms + m->conf->session_lease;
    atomic_store(&m->scanning, true);
    pthread_mutex_lock(&k->mu);
    k->running = true;
    pthread_mutex_unlock(&k->mu);
    if (pthread_create(&k->thread, NULL, keeper_main, m) != 0) {
        assert_failed(__FILE__, __LINE__, "a thread can be created");
    }
}

void master_keeper_stop(struct master *m)
{
    struct keeper *k = &m->keeper;

    if (!k->running) {
        return;
    }
    pthread_mutex_lock(&k->mu);
    k->stop = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->mu);
    pthread_join(k->thread, NULL);
    ns_reader_free(k->reader);
    k->running = false;
}
