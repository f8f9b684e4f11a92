/* What operators want of block servers: decommission and maintenance.
 *
 * A wish goes through the log into the server's record, so that it outlives the master; then it is
 * told to members, and repair looks at the server's blocks again. Leaving: repair copies what the
 * server holds elsewhere and drops its copies; the keeper counts what is left, and when nothing is,
 * the state machine itself checks that before it takes down "decommissioned". A wish that cannot be
 * fulfilled is refused with a sentence, before anything has changed.
 */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

#include "fs/role/master_int.h"

#define COUNT_MS    250u
#define COUNT_SLICE 8192u /* records that are counted at a time */
#define ALONE_NAMED 32u   /* blocks without another copy that are named to the operator */

/* ---- through the log ---- */

/* Members learn what the record says: of two changes at a time, what the later one has made. */
static int tell_members(struct master *m, uint32_t node)
{
    struct server_rec rec;
    MDB_txn *txn;
    int err;

    pthread_mutex_lock(&m->map_mu);
    err = kv_read_begin(ns_kv(m->ns), &txn);
    if (err == DFS_OK) {
        err = mapdb_server_get(ns_map(m->ns), txn, node, &rec);
        mdb_txn_abort(txn);
    }
    if (err == DFS_OK &&
        members_intend(&m->members, node, &rec, master_now_ns(m), clock_mono_ms())) {
        master_keeper_scan_node_locked(m, node);
    }
    pthread_mutex_unlock(&m->map_mu);
    if (err == DFS_OK) {
        log_event(LOG_INFO, "master.intent", "node=%u intent=%u maintenance=%u", node, rec.intent,
                  rec.maintenance);
        master_keeper_poke(m);
    }
    return err;
}

/* Sets fields of a server's record. */
static int intend(struct master *m, uint32_t node, uint8_t fields, const struct server_rec *want)
{
    struct map_intent_req req = { .node = node,
                                  .fields = fields,
                                  .intent = want->intent,
                                  .maintenance = want->maintenance,
                                  .until_ns = want->until_ns };
    struct wire_out msg;
    int err;

    wire_out_init(&msg, KIB);
    map_intent_req_put(&msg, &req);
    err = master_core_call(m, RPC_map_intent, wire_out_slice(&msg), NULL);
    wire_out_fini(&msg);
    return err != DFS_OK ? err : tell_members(m, node);
}

int master_ops_stopped(struct master *m, uint32_t node)
{
    struct server_rec want = { .maintenance = MAINTENANCE_STOP };
    const struct member *s;
    bool away;

    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, node);
    away = s == NULL || s->away_until_ms != 0;
    pthread_mutex_unlock(&m->map_mu);
    if (away || m->conf->maintenance_clean_stop == 0) {
        return DFS_OK;
    }
    want.until_ns = master_now_ns(m) + (int64_t)m->conf->maintenance_clean_stop * NS_PER_MS;
    return intend(m, node, INTENT_FIELD_MAINTENANCE, &want);
}

/* ---- what depends on a server ---- */

struct dependence {
    struct master *m;
    uint32_t node;
    uint64_t bytes;
    uint8_t want; /* the most copies that one of its blocks wants */
    uint64_t alone;
    uint64_t named[ALONE_NAMED];
};

/* map_mu is held. Another copy can be read. */
static bool has_other(const struct dependence *d, uint64_t block, const struct block_rec *rec)
{
    for (uint8_t i = 0; i < rec->node_count; i++) {
        const struct member *s = members_get(&d->m->members, rec->nodes[i]);

        if (s != NULL && s->node != d->node && member_state(s) == MEMBER_LIVE &&
            s->away_until_ms == 0 && !repair_is_bad(d->m->repair, block, s->node)) {
            return true;
        }
    }
    return false;
}

static bool add_dependence(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct dependence *d = arg;
    bool other;

    if (rec->state == BLOCK_DELETED) {
        return true;
    }
    pthread_mutex_lock(&d->m->map_mu);
    other = has_other(d, block, rec);
    pthread_mutex_unlock(&d->m->map_mu);
    d->bytes += rec->len;
    d->want = MAX(d->want, block_rec_want(rec));
    if (!other && rec->len != 0) {
        if (d->alone < ALONE_NAMED) {
            d->named[d->alone] = block;
        }
        d->alone++;
    }
    return true;
}

static int depend(struct master *m, uint32_t node, struct dependence *ret)
{
    MDB_txn *txn;
    int err = kv_read_begin(ns_kv(m->ns), &txn);

    *ret = (struct dependence){ .m = m, .node = node };
    if (err != DFS_OK) {
        return err;
    }
    err = mapdb_each_block_of(ns_map(m->ns), txn, node, 0, add_dependence, ret);
    mdb_txn_abort(txn);
    return err;
}

/* map_mu is held. Hosts that would take its blocks, and their space. */
static size_t other_hosts(const struct members *t, uint32_t node, uint64_t *ret_free)
{
    size_t hosts = 0;

    *ret_free = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct member *s = t->all[i];
        bool first = true;

        if (s->node == node || !member_takes(s)) {
            continue;
        }
        *ret_free += s->free;
        for (size_t k = 0; k < i && first; k++) {
            const struct member *o = t->all[k];

            first = o->node == node || !member_takes(o) || strcmp(o->rec.host, s->rec.host) != 0;
        }
        hosts += first;
    }
    return hosts;
}

/* Can the others hold what the server holds? Else a sentence. */
static int check_leave(struct master *m, const struct dependence *d, struct why *why)
{
    char need[TEXT_NUMBER], have[TEXT_NUMBER];
    uint64_t room;
    size_t hosts;

    pthread_mutex_lock(&m->map_mu);
    hosts = other_hosts(&m->members, d->node, &room);
    pthread_mutex_unlock(&m->map_mu);
    if (d->want > hosts) {
        return why_set(why, DFS_ENOSERVERS,
                       "some of its blocks want %u copies, and %zu other host(s) with live servers "
                       "would be left: add a server, or lower the copies with dfs setrep",
                       d->want, hosts);
    }
    if (room < d->bytes) {
        return why_set(why, DFS_ENOSPC,
                       "its blocks need %s, and the other servers have %s free: add a server or a "
                       "volume first",
                       text_bytes(d->bytes, need), text_bytes(room, have));
    }
    return DFS_OK;
}

/* ---- the operator's wish ---- */

struct wish {
    struct server_intent_req q;
    uint32_t node;
    char addr[256];
    uint8_t intent;
    bool away;
    struct dependence d;
    struct why why; /* it is refused */
};

static int decommission(struct master *m, struct wish *w)
{
    const struct server_rec want = { .intent = INTENT_DECOMMISSION };
    int err;

    if (w->intent != INTENT_NONE) {
        return DFS_OK; /* asked for already */
    }
    err = depend(m, w->node, &w->d);
    if (err != DFS_OK || check_leave(m, &w->d, &w->why) != DFS_OK) {
        return err;
    }
    return intend(m, w->node, INTENT_FIELD_INTENT, &want);
}

static int recommission(struct master *m, struct wish *w)
{
    const struct server_rec want = { .intent = INTENT_NONE };

    if (w->intent == INTENT_NONE) {
        why_set(&w->why, DFS_EINVAL, "it is not being decommissioned");
        return DFS_OK;
    }
    return intend(m, w->node, INTENT_FIELD_INTENT, &want);
}

static int maintain(struct master *m, struct wish *w)
{
    const struct server_rec want = { .maintenance = MAINTENANCE_ASKED,
                                     .until_ns =
                                         master_now_ns(m) + (int64_t)w->q.for_ms * NS_PER_MS };
    int err = depend(m, w->node, &w->d);

    if (err != DFS_OK) {
        return err;
    }
    if (w->d.alone != 0 && w->q.force == 0) {
        why_set(&w->why, DFS_EBUSY,
                "%ju blocks have no other live copy and cannot be read while it is away: wait for "
                "repair (dfs status), make more copies (dfs setrep), or use --force",
                (uintmax_t)w->d.alone);
        return DFS_OK;
    }
    return intend(m, w->node, INTENT_FIELD_MAINTENANCE, &want);
}

static int maintain_end(struct master *m, struct wish *w)
{
    const struct server_rec want = { .maintenance = MAINTENANCE_NONE };

    if (!w->away) {
        why_set(&w->why, DFS_EINVAL, "it is not in maintenance");
        return DFS_OK;
    }
    return intend(m, w->node, INTENT_FIELD_MAINTENANCE, &want);
}

static int fulfil(struct master *m, struct wish *w)
{
    switch (w->q.op) {
    case OP_DECOMMISSION:
        return decommission(m, w);
    case OP_RECOMMISSION:
        return recommission(m, w);
    case OP_MAINTENANCE:
        return maintain(m, w);
    case OP_MAINTENANCE_END:
        return maintain_end(m, w);
    default:
        return DFS_EINVAL;
    }
}

static void answer(const struct wish *w, struct wire_out *rep)
{
    struct server_intent_rep out = { .refused = w->why.text[0] != '\0',
                                     .text = slice_str(w->why.text),
                                     .node = w->node,
                                     .addr = slice_str(w->addr),
                                     .alone_count = w->d.alone };
    uint32_t n = (uint32_t)MIN(w->d.alone, ALONE_NAMED);
    struct wire_out alone;

    wire_out_init(&alone, KIB);
    for (uint32_t i = 0; i < n; i++) {
        block_ref_put(&alone, &(struct block_ref){ w->d.named[i] });
    }
    out.alone = wire_out_list(&alone, n);
    server_intent_rep_put(rep, &out);
    wire_out_fini(&alone);
}

int master_ops_intent(struct master *m, struct slice msg, struct wire_out *rep)
{
    struct wish w = { .node = 0 };
    struct member *s;
    int err = server_intent_req_get(msg, &w.q);

    if (err != DFS_OK) {
        return err;
    }
    pthread_mutex_lock(&m->map_mu);
    if (members_find(&m->members, w.q.server, &s, &w.why) == DFS_OK) {
        w.node = s->node;
        w.intent = s->rec.intent;
        w.away = s->away_until_ms != 0;
        memcpy(w.addr, s->rec.addr, sizeof(w.addr));
    }
    pthread_mutex_unlock(&m->map_mu);
    err = w.node != 0 ? fulfil(m, &w) : DFS_OK;
    if (err == DFS_OK) {
        answer(&w, rep);
    }
    return err;
}

/* ---- counting what leaving servers hold ---- */

struct slice_count {
    struct leaving_count *c;
    uint32_t seen;
};

static bool count_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct slice_count *s = arg;

    s->c->blocks++;
    s->c->open += rec->state == BLOCK_OPEN;
    s->c->bytes += rec->len;
    s->c->from = block + 1;
    return ++s->seen < COUNT_SLICE;
}

/* The leaving server behind `node`, by id and round again; 0: there is none. */
static uint32_t next_leaving(struct master *m, uint32_t node)
{
    uint32_t first = 0, next = 0;

    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < m->members.count && next == 0; i++) {
        const struct member *s = m->members.all[i];

        if (member_leaving(s)) {
            first = first != 0 ? first : s->node;
            next = s->node > node ? s->node : 0;
        }
    }
    pthread_mutex_unlock(&m->map_mu);
    return next != 0 ? next : first;
}

/* A server is counted. True: its record should say *ret_intent by that. */
static bool counted(struct master *m, const struct leaving_count *c, uint64_t now_ms,
                    uint8_t *ret_intent)
{
    struct member *s;
    bool change = false;

    pthread_mutex_lock(&m->map_mu);
    s = members_get(&m->members, c->node);
    if (s != NULL && member_leaving(s)) {
        struct member_left *l = &s->left;

        if (!l->known) {
            l->first_bytes = c->bytes;
            l->first_ms = now_ms;
        }
        l->known = true;
        l->blocks = c->blocks;
        l->open = c->open;
        l->bytes = c->bytes;
        l->counted_ms = now_ms;
        *ret_intent = c->blocks == 0 ? INTENT_DECOMMISSIONED : INTENT_DECOMMISSION;
        change = s->rec.intent != *ret_intent;
    }
    pthread_mutex_unlock(&m->map_mu);
    return change;
}

void master_ops_step(struct master *m, uint64_t now_ms)
{
    struct leaving_count *c = &m->keeper.counting;
    struct slice_count s = { .c = c };
    struct server_rec want = { 0 };
    MDB_txn *txn;
    int err;

    if (now_ms < m->keeper.next_count_ms) {
        return;
    }
    m->keeper.next_count_ms = now_ms + COUNT_MS;
    if (c->from == 0) {
        *c = (struct leaving_count){ .node = next_leaving(m, c->node) };
    }
    if (c->node == 0 || kv_read_begin(ns_kv(m->ns), &txn) != DFS_OK) {
        return;
    }
    err = mapdb_each_block_of(ns_map(m->ns), txn, c->node, c->from, count_block, &s);
    mdb_txn_abort(txn);
    if (err != DFS_OK || s.seen == COUNT_SLICE) {
        return; /* goes on from there */
    }
    c->from = 0;
    if (counted(m, c, now_ms, &want.intent)) {
        err = intend(m, c->node, INTENT_FIELD_INTENT | INTENT_FIELD_LEAVING, &want);
        if (err != DFS_OK && err != DFS_EBUSY) {
            log_event(LOG_WARN, "master.intent", "node=%u err=\"%s\"", c->node, err_text(err));
        }
    }
}
