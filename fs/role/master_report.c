/* What a server says it has, against the records: digests, then lists where they differ. */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define AGAIN_MS  60000             /* to the next report when something differed */
#define SETTLE_NS (60 * NS_PER_SEC) /* a block sealed this lately may not be in the server's list */

/* ---- digests ---- */

struct digesting {
    struct reconcile_digest digest;
    uint64_t last; /* range */
};

static bool add_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct digesting *d = arg;

    if (block / RANGE_BLOCKS > d->last) {
        return false;
    }
    reconcile_digest_add(&d->digest, block, rec->len);
    return true;
}

int master_report_digests(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct digesting d = { { 0 }, 0 };
    struct server_digests_rep out = { 0 };
    struct server_digests_req q;
    struct wire_out differ;
    struct member *s;
    MDB_txn *txn;
    int err = server_digests_req_get(msg, &q);

    if (err != DFS_OK || q.first > q.last || q.first > UINT64_MAX / RANGE_BLOCKS) {
        return DFS_EMALFORMED;
    }
    if (!master_control_boot_known(m, q.node, q.boot)) {
        return DFS_ENOENT;
    }
    err = kv_read_begin(ns_kv(m->ns), &txn);
    if (err != DFS_OK) {
        return err;
    }
    d.last = q.last;
    err = mapdb_each_block_of(ns_map(m->ns), txn, q.node, q.first * RANGE_BLOCKS, add_block, &d);
    mdb_txn_abort(txn);
    wire_out_init(&differ, LIMIT_REPLY);
    if (err == DFS_OK) {
        uint32_t n = reconcile_differ(&d.digest, q.digests, q.first, q.last, &differ);

        out.differ = wire_out_list(&differ, n);
        err = differ.err;
    }
    if (err == DFS_OK) {
        server_digests_rep_put(rep, &out);
        pthread_mutex_lock(&m->map_mu);
        s = members_get(&m->members, q.node);
        s->report = false;
        members_told(&m->members, q.node, q.first == 0, q.last == UINT64_MAX, out.differ.count);
        s->report_ms = clock_mono_ms();
        if (out.differ.count != 0) {
            s->report_ms -= m->members.conf.report_ms - AGAIN_MS;
        }
        pthread_mutex_unlock(&m->map_mu);
    }
    wire_out_fini(&differ);
    reconcile_digest_fini(&d.digest);
    return err;
}

/* ---- one range ---- */

struct known {
    uint64_t block;
    struct block_rec rec;
    bool listed; /* the record names the server */
    bool exists;
    bool has; /* the server has a replica */
    struct replica_info have;
};

struct range {
    struct known *all; /* by block: those that the server should have, then those it has beyond */
    size_t count, cap;
    uint64_t end; /* first block behind the range */
    uint64_t next_block;
    uint64_t future; /* the greatest id of those that were never given; 0: there are none */
};

static struct known *range_add(struct range *r, uint64_t block)
{
    if (r->count == r->cap) {
        r->cap = MAX(r->cap * 2, 256);
        r->all = x_realloc(r->all, r->cap * sizeof(*r->all));
    }
    r->all[r->count] = (struct known){ .block = block };
    return &r->all[r->count++];
}

static bool add_listed(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct range *r = arg;
    struct known *k;

    if (block >= r->end) {
        return false;
    }
    k = range_add(r, block);
    k->rec = *rec;
    k->listed = k->exists = true;
    return true;
}

static int by_block(const void *a, const void *b)
{
    uint64_t x = ((const struct known *)a)->block, y = ((const struct known *)b)->block;

    return x < y ? -1 : x > y;
}

/* Records and replicas of the range, joined. */
static int range_load(struct master *m, MDB_txn *txn, const struct server_range_req *q,
                      struct range *r)
{
    struct wire_in in = wire_in_of(q->replicas.items);
    size_t listed;
    int err;

    r->end = (q->range + 1) * RANGE_BLOCKS;
    err = mapdb_each_block_of(ns_map(m->ns), txn, q->node, q->range * RANGE_BLOCKS, add_listed, r);
    listed = r->count;
    for (uint32_t i = 0; err == DFS_OK && i < q->replicas.count; i++) {
        struct replica_info have;
        struct known key = { 0 }, *k = NULL;

        if (replica_info_get(&in, &have) != DFS_OK || have.block / RANGE_BLOCKS != q->range) {
            return DFS_EMALFORMED;
        }
        key.block = have.block;
        if (listed != 0) {
            k = bsearch(&key, r->all, listed, sizeof(key), by_block);
        }
        if (k == NULL) {
            k = range_add(r, have.block);
            err = mapdb_get(ns_map(m->ns), txn, have.block, &k->rec);
            k->exists = err == DFS_OK;
            err = err == DFS_ENOBLOCK ? DFS_OK : err;
        }
        k->has = true;
        k->have = have;
    }
    return err;
}

/* map_mu is held. */
static void act(struct master *m, uint32_t node, const struct known *k, enum verdict v,
                uint64_t now)
{
    switch (v) {
    case VERDICT_SEAL:
        repair_seal_copy(m->repair, k->block, node, k->rec.len, now);
        break;
    case VERDICT_SHORT:
        repair_bad(m->repair, k->block, node, DFS_EOFFSET, now);
        break;
    case VERDICT_ADOPT:
    case VERDICT_RESCUE:
        if (!repair_adopt(m->repair, k->block, node, v == VERDICT_ADOPT, now)) {
            strays_note(&m->strays, k->block, node, now);
        }
        break;
    case VERDICT_STRAY:
        strays_note(&m->strays, k->block, node, now);
        break;
    case VERDICT_LOST:
        if (master_now_ns(m) - k->rec.changed_ns > SETTLE_NS) {
            repair_bad(m->repair, k->block, node, DFS_ENOBLOCK, now);
        }
        break;
    case VERDICT_FINE:
    case VERDICT_FUTURE:
        break;
    }
}

static void judge_all(struct master *m, const struct server_range_req *q, struct range *r)
{
    static const char *const names[] = { "fine",   "seal",  "short", "adopt",
                                         "rescue", "stray", "lost",  "future" };
    uint64_t now = clock_mono_ms();

    for (size_t i = 0; i < r->count; i++) {
        const struct known *k = &r->all[i];
        enum verdict v = reconcile_judge(k->block, k->exists ? &k->rec : NULL, k->listed,
                                         k->has ? &k->have : NULL, r->next_block);

        if (v == VERDICT_STRAY && !k->exists && master_restored_keeps(m, k->block)) {
            v = VERDICT_FUTURE;
        }
        if (v == VERDICT_FUTURE) {
            log_event(LOG_WARN, "replica.future",
                      "node=%u block=%ju next=%ju err=\"an id that was never given: kept\"",
                      q->node, (uintmax_t)k->block, (uintmax_t)r->next_block);
            r->future = MAX(r->future, k->block);
        } else if (v != VERDICT_FINE) {
            log_event(LOG_INFO, "replica.differs", "node=%u block=%ju verdict=%s", q->node,
                      (uintmax_t)k->block, names[v]);
        }
        /* One at a time: the core waits for this lock too. */
        pthread_mutex_lock(&m->map_mu);
        act(m, q->node, k, v, now);
        pthread_mutex_unlock(&m->map_mu);
    }
}

int master_report_range(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct server_range_rep out = { 0 };
    struct server_range_req q;
    struct ns_reader *reader;
    struct ns_counts counts;
    struct range r = { 0 };
    MDB_txn *txn;
    int err = server_range_req_get(msg, &q);

    if (err != DFS_OK || q.range >= UINT64_MAX / RANGE_BLOCKS || q.replicas.count > RANGE_BLOCKS) {
        return DFS_EMALFORMED;
    }
    if (!master_control_boot_known(m, q.node, q.boot)) {
        return DFS_ENOENT;
    }
    /* The next id is read first: blocks that are given meanwhile count as future, and are kept. */
    reader = ns_reader_new(m->ns);
    err = ns_get_counts(reader, &counts);
    ns_reader_free(reader);
    err = err != DFS_OK ? err : kv_read_begin(ns_kv(m->ns), &txn);
    if (err != DFS_OK) {
        return err;
    }
    r.next_block = counts.next_block;
    err = range_load(m, txn, &q, &r);
    mdb_txn_abort(txn);
    if (err == DFS_OK) {
        judge_all(m, &q, &r);
        err = r.future != 0 ? master_restored_seen(m, q.node, r.future) : DFS_OK;
    }
    if (err == DFS_OK) {
        pthread_mutex_lock(&m->map_mu);
        members_told_range(&m->members, q.node);
        pthread_mutex_unlock(&m->map_mu);
        server_range_rep_put(rep, &out);
        master_keeper_poke(m);
    }
    free(r.all);
    return err;
}
