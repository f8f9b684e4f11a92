/* What the keeper does by the clock: leases, inodes without a name, deleted blocks, quotas, files whose
 * copies are being changed, balance. */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define SESSIONS_AT_ONCE 64u
#define REAP_MS          1000
#define ORPHANS_PAGE     256u
#define ORPHAN_PAGES     16u
#define REAP_EXTENTS     512u /* freed of one inode by one command */
#define QUOTA_NAMES      512u /* looked at by one command */
#define QUOTA_STEPS      8u   /* in one tick */
#define RECOUNT_EXTENTS  512u /* counted anew of one inode by one command */
#define RECOUNTS_AT_ONCE 16u  /* commands */
#define OFFERS           128u /* blocks that are looked at to be moved, under one lock */
#define MOVES_AT_ONCE    16u

static int call_list(struct master *m, uint16_t type, struct wire_out *msg)
{
    int err = master_core_call(m, type, wire_out_slice(msg), NULL);

    if (err != DFS_OK && err != DFS_ESHUTDOWN) {
        log_event(LOG_WARN, "master.task", "type=0x%x err=\"%s\"", type, err_text(err));
    }
    return err;
}

void master_tasks_expire_sessions(struct master *m, uint64_t now_ms)
{
    uint64_t ids[SESSIONS_AT_ONCE];
    struct session_expire_req req;
    struct wire_out list, msg;
    size_t n;

    pthread_mutex_lock(&m->sessions_mu);
    n = sessions_expired(&m->sessions, now_ms, ids, SESSIONS_AT_ONCE);
    pthread_mutex_unlock(&m->sessions_mu);
    if (n == 0) {
        return;
    }
    wire_out_init(&list, 64 * KIB);
    wire_out_init(&msg, 64 * KIB);
    for (size_t i = 0; i < n; i++) {
        session_ref_put(&list, &(struct session_ref){ ids[i] });
        log_event(LOG_INFO, "session.expired", "session=%ju", (uintmax_t)ids[i]);
    }
    req = (struct session_expire_req){ .sessions = wire_out_list(&list, (uint32_t)n) };
    session_expire_req_put(&msg, &req);
    call_list(m, RPC_session_expire, &msg); /* the core forgets them when it is applied */
    wire_out_fini(&list);
    wire_out_fini(&msg);
}

/* ---- inodes without a name ---- */

/* Those of a page that nobody has open, as a list of ino_ref. */
static uint32_t closed_ones(struct master *m, const uint64_t *inos, size_t n, struct wire_out *list)
{
    uint32_t count = 0;

    pthread_mutex_lock(&m->sessions_mu);
    for (size_t i = 0; i < n; i++) {
        if (!sessions_is_open(&m->sessions, inos[i])) {
            ino_ref_put(list, &(struct ino_ref){ inos[i] });
            count++;
        }
    }
    pthread_mutex_unlock(&m->sessions_mu);
    return count;
}

bool master_tasks_reap(struct master *m, uint64_t now_ms)
{
    struct keeper *k = &m->keeper;
    uint64_t inos[ORPHANS_PAGE];
    struct wire_out list, msg;
    bool reaped = false;
    int err = DFS_OK;

    if (now_ms < k->orphans_from_ms || (!k->reaping && now_ms < k->next_reap_ms)) {
        return false; /* at first clients tell the new leader what they have open */
    }
    k->next_reap_ms = now_ms + REAP_MS;
    wire_out_init(&list, 64 * KIB);
    wire_out_init(&msg, 64 * KIB);
    for (unsigned int page = 0; err == DFS_OK && page < ORPHAN_PAGES; page++) {
        size_t n = ns_orphans(k->reader, k->orphan_after, inos, ORPHANS_PAGE);
        struct ns_reap_req req = { .max_extents = REAP_EXTENTS };
        uint32_t count;

        /* One that was made and lost its name in a batch that is being answered counts as open only
         * when that is done. */
        master_core_wait_answered(m);
        wire_out_reset(&list);
        wire_out_reset(&msg);
        count = closed_ones(m, inos, n, &list);
        if (count != 0) {
            req.inodes = wire_out_list(&list, count);
            ns_reap_req_put(&msg, &req);
            err = call_list(m, RPC_ns_reap, &msg);
            reaped = true;
        }
        k->orphan_after = n < ORPHANS_PAGE ? 0 : inos[n - 1];
        if (n < ORPHANS_PAGE) {
            break; /* from the start in a second */
        }
    }
    wire_out_fini(&list);
    wire_out_fini(&msg);
    k->reaping = err == DFS_OK && reaped && k->orphan_after != 0;
    return k->reaping;
}

/* ---- deleted blocks ---- */

/* What a full server may cut the grace down to. A reader that looked its bytes up before they were
 * deleted and comes later looks them up again. */
#define GRACE_LEAST_MS 2000u

struct due {
    struct master *m;
    MDB_txn *txn;
    uint64_t *blocks;
    size_t count;
    int64_t until_ns;                      /* the grace of those deleted earlier is over */
    uint32_t pressed[LIMIT_BLOCK_SERVERS]; /* servers that need the space */
    size_t pressed_count;
    size_t live;
};

static void find_pressed(struct master *m, struct due *d)
{
    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];

        if (member_state(s) != MEMBER_LIVE) {
            continue;
        }
        d->live++;
        if (master_space_pressed(m, s)) {
            d->pressed[d->pressed_count++] = s->node;
        }
    }
    pthread_mutex_unlock(&m->map_mu);
}

/* One of its copies is where the space is needed. */
static bool is_needed(const struct due *d, uint64_t block)
{
    struct block_rec rec;

    if (mapdb_get(ns_map(d->m->ns), d->txn, block, &rec) != DFS_OK) {
        return false;
    }
    for (uint8_t i = 0; i < rec.node_count; i++) {
        for (size_t k = 0; k < d->pressed_count; k++) {
            if (rec.nodes[i] == d->pressed[k]) {
                return true;
            }
        }
    }
    return false;
}

static bool collect_due(void *arg, uint64_t block, int64_t since_ns)
{
    struct due *d = arg;

    if (since_ns <= d->until_ns || is_needed(d, block)) {
        d->blocks[d->count++] = block;
    }
    return d->count < TASKS_DUE_MAX;
}

/* False: no room for it now. *begun counts those that were not being deleted before. */
static bool delete_one(struct master *m, uint64_t block, uint64_t now_ms, uint64_t *begun)
{
    struct block_rec rec;
    bool room = true;

    pthread_mutex_lock(&m->map_mu);
    if (!repair_is_deleting(m->repair, block) && master_keeper_env_get(m, block, &rec) == DFS_OK &&
        rec.state == BLOCK_DELETED) {
        room = repair_delete(m->repair, block, &rec, now_ms);
        (*begun)++;
    }
    pthread_mutex_unlock(&m->map_mu);
    return room;
}

void master_tasks_delete(struct master *m, uint64_t now_ms)
{
    int64_t now_ns = master_now_ns(m);
    uint64_t least = MIN(m->conf->delete_grace, GRACE_LEAST_MS);
    struct due d = { .m = m,
                     .blocks = m->keeper.due,
                     .until_ns = now_ns - (int64_t)m->conf->delete_grace * NS_PER_MS };
    uint64_t begun = 0;
    bool room = true;
    int err;

    find_pressed(m, &d);
    err = kv_read_begin(ns_kv(m->ns), &d.txn);
    if (err != DFS_OK) {
        return;
    }
    err = mapdb_each_deleted(
        ns_map(m->ns), d.txn,
        d.pressed_count != 0 ? now_ns - (int64_t)least * NS_PER_MS : d.until_ns, collect_due, &d);
    mdb_txn_abort(d.txn);
    /* Servers have more important things to do than to delete: called once a second. */
    for (size_t i = 0;
         err == DFS_OK && room && i < d.count && begun < m->conf->delete_rate * d.live; i++) {
        room = delete_one(m, d.blocks[i], now_ms, &begun);
    }
}

/* ---- quotas ---- */

bool master_tasks_quota(struct master *m)
{
    struct quota_step_req req = { .max = QUOTA_NAMES };
    struct wire_out msg;
    bool more = ns_quota_work(m->keeper.reader) != 0;
    int err = DFS_OK;

    if (!more) {
        return false;
    }
    wire_out_init(&msg, KIB);
    quota_step_req_put(&msg, &req);
    for (unsigned int i = 0; i < QUOTA_STEPS && more && err == DFS_OK; i++) {
        err = call_list(m, RPC_quota_step, &msg);
        more = ns_quota_work(m->keeper.reader) != 0;
    }
    wire_out_fini(&msg);
    return more && err == DFS_OK;
}

/* ---- files between two settings ---- */

bool master_tasks_recount(struct master *m)
{
    struct ns_recount_req req = { .max_extents = RECOUNT_EXTENTS };
    uint64_t ino = ns_next_recount(m->keeper.reader, 0);
    struct wire_out msg;
    int err = DFS_OK;

    wire_out_init(&msg, KIB);
    for (unsigned int i = 0; err == DFS_OK && ino != 0 && i < RECOUNTS_AT_ONCE; i++) {
        req.ino = ino;
        wire_out_reset(&msg);
        ns_recount_req_put(&msg, &req);
        err = call_list(m, RPC_ns_recount, &msg);
        ino = ns_next_recount(m->keeper.reader, 0);
    }
    wire_out_fini(&msg);
    return err == DFS_OK && ino != 0;
}

/* ---- balance ---- */

struct offers {
    struct {
        uint64_t block;
        struct block_rec rec;
    } all[OFFERS];
    size_t count;
};

static bool collect_offer(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct offers *o = arg;

    o->all[o->count].block = block;
    o->all[o->count++].rec = *rec;
    return o->count < OFFERS;
}

/* Offers some blocks of the server that is to give some away. True: a move has begun. */
static bool offer_blocks(struct master *m, uint32_t node, uint64_t from, uint64_t now_ms)
{
    struct offers o = { .count = 0 };
    bool more = true;
    MDB_txn *txn;
    size_t i;

    if (kv_read_begin(ns_kv(m->ns), &txn) != DFS_OK) {
        return false;
    }
    if (mapdb_each_block_of(ns_map(m->ns), txn, node, from, collect_offer, &o) != DFS_OK) {
        o.count = 0;
    }
    mdb_txn_abort(txn);
    pthread_mutex_lock(&m->map_mu);
    for (i = 0; more && i < o.count; i++) {
        more = balance_offer(&m->balance, o.all[i].block, &o.all[i].rec, now_ms);
    }
    if (more && o.count < OFFERS) {
        balance_end_of_blocks(&m->balance, now_ms);
    }
    pthread_mutex_unlock(&m->map_mu);
    return !more;
}

void master_tasks_balance(struct master *m, uint64_t now_ms)
{
    bool begun = true;

    for (unsigned int i = 0; begun && i < MOVES_AT_ONCE && !atomic_load(&m->scanning); i++) {
        uint64_t from = 0;
        uint32_t node;

        pthread_mutex_lock(&m->map_mu);
        node = balance_step(&m->balance, now_ms, &from);
        pthread_mutex_unlock(&m->map_mu);
        begun = node != 0 && offer_blocks(m, node, from, now_ms);
    }
}
