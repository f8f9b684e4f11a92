/* Space: the census of all blocks, and compaction. Part of the keeper.
 *
 * The census walks all block records in slices, counts what their copies hold, and collects blocks of
 * which little is used. When they are worth it, a round begins: all extents are walked in slices
 * (there is no way back from a block to its files), those of the blocks are sorted and taken in
 * groups that fill a new block each:
 *   compact_begin through the log      the new block exists and belongs to nobody
 *   a task for a server that has them  it copies the bytes to all servers of the new block, on disk
 *   compact_switch through the log     extents that have not changed meanwhile name the new block
 * The old blocks die when nothing names them. Whatever fails: compact_drop, and the new block dies; one
 * that an earlier leader left is found by the census. One task at a time, no faster than
 * compact.rate, and none while blocks lack copies.
 */
#include "cluster/base/clock.h"
#include "cluster/base/log.h"

#include "fs/role/master_int.h"

#define CENSUS_BLOCKS 2048u /* in one tick */
#define CENSUS_MS     3000  /* between two, at least */
#define CENSUS_SHARE  20u   /* of the time at most one part in it */
#define SCAN_EXTENTS  8192u /* in one tick */
#define PAUSE_MS      5000  /* when nothing can be done */
#define PATIENCE_MS   60000 /* with a task, and four times what its rate would take */
#define STALE_MAX     64u

enum { RESTING, SCANNING, READY, ORDERED };

struct space {
    /* census */
    uint64_t from;
    uint64_t began_ms, next_ms;
    bool counting;
    struct compact_census sum;
    uint64_t total; /* bytes of all blocks, one copy of each */
    struct compact_round found;
    uint64_t stale[STALE_MAX]; /* blocks that nobody compacts into any more */
    uint32_t stale_count;
    size_t left; /* in this slice */
    int64_t now_ns;
    /* compaction */
    int state;
    struct compact_round round;
    struct ns_place at;
    struct compact_group group;
    uint64_t block; /* the new one; 0: none */
    uint64_t ready_ms;
    uint64_t deadline_ms;
    bool full; /* items did not fit */
    /* guarded by: map_mu */
    struct compact_census told;
    uint64_t task; /* 0: none */
    uint64_t last_task;
    struct wire_out nodes, ranges;
    uint32_t node_count;
    struct compact_done done; /* of the task, when its task is that one */
};

void master_space_init(struct master *m)
{
    struct space *s = x_alloc(sizeof(*s));

    wire_out_init(&s->nodes, 64 * KIB);
    wire_out_init(&s->ranges, LIMIT_REPLY);
    s->found = s->round = (struct compact_round){ 0 };
    m->space = s;
}

void master_space_fini(struct master *m)
{
    struct space *s = m->space;

    wire_out_fini(&s->nodes);
    wire_out_fini(&s->ranges);
    compact_fini(&s->found);
    compact_fini(&s->round);
    free(s);
}

void master_space_census(struct master *m, struct compact_census *ret)
{
    *ret = m->space->told;
}

/* ---- pressure ---- */

bool master_space_pressed(const struct master *m, const struct member *s)
{
    return s->free < (s->used + s->free) / 16 || s->roomiest < 2 * m->conf->block_size;
}

static bool any_pressed(struct master *m)
{
    bool pressed = false;

    pthread_mutex_lock(&m->map_mu);
    for (size_t i = 0; i < m->members.count; i++) {
        const struct member *s = m->members.all[i];

        pressed = pressed || (member_state(s) == MEMBER_LIVE && master_space_pressed(m, s));
    }
    pthread_mutex_unlock(&m->map_mu);
    return pressed;
}

/* ---- the census ---- */

static bool count_block(void *arg, uint64_t block, const struct block_rec *rec)
{
    struct master *m = arg;
    struct space *s = m->space;
    uint64_t gain = compact_gain(rec, m->conf->compact_threshold, s->now_ns);

    compact_count(&s->sum, rec);
    s->total += rec->len;
    if (gain != 0) {
        (void)!compact_add_block(&s->found, block, gain);
    }
    if (rec->session == NS_COMPACTOR && block != s->block && s->stale_count < STALE_MAX) {
        s->stale[s->stale_count++] = block;
    }
    s->from = block + 1;
    return --s->left != 0;
}

static void drop_blocks(struct master *m, const uint64_t *blocks, uint32_t n)
{
    struct compact_drop_req req;
    struct wire_out list, msg;

    wire_out_init(&list, 4 * KIB);
    wire_out_init(&msg, 4 * KIB);
    for (uint32_t i = 0; i < n; i++) {
        block_ref_put(&list, &(struct block_ref){ blocks[i] });
    }
    req = (struct compact_drop_req){ .blocks = wire_out_list(&list, n) };
    compact_drop_req_put(&msg, &req);
    (void)!master_core_call(m, RPC_compact_drop, wire_out_slice(&msg), NULL);
    wire_out_fini(&list);
    wire_out_fini(&msg);
}

static void census_done(struct master *m, uint64_t now_ms)
{
    struct space *s = m->space;

    pthread_mutex_lock(&m->map_mu);
    s->told = s->sum;
    pthread_mutex_unlock(&m->map_mu);
    s->counting = false;
    s->next_ms = now_ms + MAX((now_ms - s->began_ms) * CENSUS_SHARE, CENSUS_MS);
    if (s->stale_count != 0) {
        drop_blocks(m, s->stale, s->stale_count);
    }
    if (s->state == RESTING && now_ms >= s->ready_ms &&
        compact_is_worth(&s->found, s->total, any_pressed(m))) {
        struct compact_round swap = s->round;

        s->round = s->found;
        s->found = swap;
        s->round.count = 0;
        s->at = (struct ns_place){ 0, 0 };
        s->full = false;
        s->state = SCANNING;
        log_event(LOG_INFO, "compact.round", "blocks=%zu garbage=%ju of=%ju", s->round.block_count,
                  (uintmax_t)s->round.garbage, (uintmax_t)s->total);
    }
}

static void census_step(struct master *m, uint64_t now_ms)
{
    struct space *s = m->space;
    MDB_txn *txn;
    int err;

    if (!s->counting && now_ms < s->next_ms) {
        return;
    }
    if (!s->counting) {
        s->counting = true;
        s->began_ms = now_ms;
        s->from = s->total = 0;
        s->sum = (struct compact_census){ 0 };
        s->stale_count = 0;
        compact_reset(&s->found);
    }
    s->left = CENSUS_BLOCKS;
    s->now_ns = master_now_ns(m);
    err = kv_read_begin(ns_kv(m->ns), &txn);
    if (err == DFS_OK) {
        err = mapdb_each_block(ns_map(m->ns), txn, s->from, count_block, m);
        mdb_txn_abort(txn);
    }
    if (err == DFS_OK && s->left != 0) {
        census_done(m, now_ms);
    }
}

/* ---- a round ---- */

static bool wanted(void *arg, uint64_t block)
{
    const struct space *s = arg;

    return compact_has_block(&s->round, block);
}

static void take_extent(void *arg, const struct attr *file, const struct extent *e)
{
    struct space *s = arg;
    struct compact_item item = { .ino = file->ino,
                                 .off = e->off,
                                 .from = e->block,
                                 .from_off = e->block_off,
                                 .len = (uint32_t)e->len,
                                 .repl = file->repl,
                                 .rule = file->storage };

    s->full = s->full || !compact_add_item(&s->round, &item);
}

static void scan_step(struct master *m)
{
    struct space *s = m->space;
    bool end = false;
    int err = ns_each_extent(m->keeper.reader, &s->at, SCAN_EXTENTS, wanted, take_extent, s, &end);

    if (err != DFS_OK) {
        log_event(LOG_ERROR, "compact.scan", "err=\"%s\"", err_text(err));
        s->state = RESTING;
    } else if (end || s->full) {
        compact_sort(&s->round);
        s->state = READY;
    }
}

struct holding {
    struct master *m;
    uint64_t block; /* the last one looked up */
    struct block_rec rec;
    int err;
};

/* compact_holder_fn; map_mu is held. */
static uint32_t holder(void *arg, uint64_t block, uint32_t node)
{
    struct holding *h = arg;

    if (h->block != block) {
        h->block = block;
        h->err = master_keeper_env_get(h->m, block, &h->rec);
    }
    if (h->err != DFS_OK || h->rec.state != BLOCK_SEALED) {
        return 0;
    }
    for (uint8_t i = 0; i < h->rec.node_count; i++) {
        uint32_t n = h->rec.nodes[i];

        if ((node == 0 || n == node) && members_state(&h->m->members, n) == MEMBER_LIVE &&
            !repair_is_bad(h->m->repair, block, n)) {
            return n;
        }
    }
    return 0;
}

/* The new block in the log. map_mu is not held. */
static int begin_block(struct master *m, const uint32_t *nodes, size_t n)
{
    struct space *s = m->space;
    struct compact_begin_req req = { .want = s->group.repl, .rule = s->group.rule };
    struct compact_begin_rep rep;
    struct wire_out list, msg, reply;
    int err;

    wire_out_init(&list, KIB);
    wire_out_init(&msg, 4 * KIB);
    wire_out_init(&reply, KIB);
    for (size_t i = 0; i < n; i++) {
        node_ref_put(&list, &(struct node_ref){ nodes[i] });
    }
    req.nodes = wire_out_list(&list, (uint32_t)n);
    compact_begin_req_put(&msg, &req);
    err = master_core_call(m, RPC_compact_begin, wire_out_slice(&msg), &reply);
    err = err != DFS_OK ? err : compact_begin_rep_get(wire_out_slice(&reply), &rep);
    if (err == DFS_OK) {
        s->block = rep.block;
    }
    wire_out_fini(&list);
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    return err;
}

/* map_mu is held. */
static void order_task(struct master *m, const uint32_t *nodes, size_t n, uint64_t now_ms)
{
    struct space *s = m->space;
    const struct rule *rule = repair_rule(m->repair, s->group.rule);

    wire_out_reset(&s->nodes);
    wire_out_reset(&s->ranges);
    for (size_t i = 0; i < n; i++) {
        const struct member *t = members_get(&m->members, nodes[i]);
        struct node_addr a = { .label = slice_str(rule_label(rule, i)),
                               .node = nodes[i],
                               .state = member_state(t),
                               .addr = slice_str(t->rec.addr),
                               .host = slice_str(t->rec.host) };

        node_addr_put(&s->nodes, &a);
    }
    s->node_count = (uint32_t)n;
    for (size_t i = 0; i < s->group.range_count; i++) {
        compact_range_put(&s->ranges, &s->group.ranges[i]);
    }
    s->last_task = MAX(s->last_task + 1, (atomic_load(&m->epoch) << 32) + 1);
    s->task = s->last_task;
    s->done = (struct compact_done){ 0 };
    s->ready_ms = now_ms + (uint64_t)s->group.bytes * 1000 / m->conf->compact_rate;
    s->deadline_ms = now_ms + PATIENCE_MS + (s->ready_ms - now_ms) * 4;
    s->state = ORDERED;
}

static void begin_task(struct master *m, uint64_t now_ms)
{
    struct space *s = m->space;
    struct holding h = { .m = m };
    struct placement_ask ask = { 0 };
    uint32_t nodes[LIMIT_REPLICATION];
    struct repair_counts rc;
    size_t n = 0;
    int err = DFS_EAGAIN;

    pthread_mutex_lock(&m->map_mu);
    repair_get_counts(m->repair, &rc);
    if (rc.under == 0) {
        compact_take(&s->round, (uint32_t)m->conf->block_size, holder, &h, &s->group);
        ask.copies = MAX(s->group.repl, 1);
        ask.rule = repair_rule(m->repair, s->group.rule);
        ask.bytes = s->group.bytes;
        err = s->group.count != 0 ? placement_pick(&m->members, &ask, &m->space_rng, nodes, &n)
                                  : DFS_OK;
    }
    pthread_mutex_unlock(&m->map_mu);
    if (err == DFS_EAGAIN) {
        s->ready_ms = now_ms + PAUSE_MS; /* repair comes first */
        return;
    }
    if (err != DFS_OK || s->group.count == 0 || n < ask.copies) {
        s->state = RESTING; /* nothing is left, or there is no room */
        s->ready_ms = now_ms + PAUSE_MS;
        return;
    }
    if (begin_block(m, nodes, n) == DFS_OK) {
        pthread_mutex_lock(&m->map_mu);
        order_task(m, nodes, n, now_ms);
        pthread_mutex_unlock(&m->map_mu);
    } else {
        s->ready_ms = now_ms + PAUSE_MS;
    }
}

static void switch_extents(struct master *m)
{
    struct space *s = m->space;
    struct compact_switch_req req = { .block = s->block, .len = s->group.bytes };
    struct compact_switch_rep rep = { 0 };
    struct wire_out list, msg, reply;
    int err;

    wire_out_init(&list, LIMIT_BATCH_BYTES);
    wire_out_init(&msg, LIMIT_BATCH_BYTES);
    wire_out_init(&reply, KIB);
    for (size_t i = 0; i < s->group.count; i++) {
        const struct compact_item *it = &s->group.items[i];
        struct compact_move mv = { it->ino, it->off, it->len, it->from, it->from_off, it->to_off };

        compact_move_put(&list, &mv);
    }
    req.moves = wire_out_list(&list, (uint32_t)s->group.count);
    compact_switch_req_put(&msg, &req);
    err = master_core_call(m, RPC_compact_switch, wire_out_slice(&msg), &reply);
    err = err != DFS_OK ? err : compact_switch_rep_get(wire_out_slice(&reply), &rep);
    log_event(err == DFS_OK ? LOG_INFO : LOG_WARN, "compact.switched",
              "block=%ju bytes=%u extents=%zu moved=%u err=\"%s\"", (uintmax_t)s->block,
              s->group.bytes, s->group.count, rep.moved, err_text(err));
    wire_out_fini(&list);
    wire_out_fini(&msg);
    wire_out_fini(&reply);
    if (err != DFS_OK) {
        drop_blocks(m, &s->block, 1);
    }
}

static void end_task(struct master *m, uint64_t now_ms)
{
    struct space *s = m->space;
    struct compact_done done;
    bool lost;

    pthread_mutex_lock(&m->map_mu);
    done = s->done;
    lost = now_ms >= s->deadline_ms || members_state(&m->members, s->group.node) == MEMBER_DEAD;
    if (done.task != 0 || lost) {
        s->task = 0;
    }
    pthread_mutex_unlock(&m->map_mu);
    if (done.task == 0 && !lost) {
        return;
    }
    if (done.task != 0 && done.status == DFS_OK && done.len == s->group.bytes) {
        switch_extents(m);
    } else {
        log_event(LOG_INFO, "compact.dropped", "block=%ju node=%u err=\"%s\"", (uintmax_t)s->block,
                  s->group.node, done.task != 0 ? err_text((int)done.status) : "no answer");
        drop_blocks(m, &s->block, 1);
    }
    s->block = 0;
    s->state = READY;
}

void master_space_step(struct master *m, uint64_t now_ms)
{
    struct space *s = m->space;

    census_step(m, now_ms);
    if (s->state == SCANNING) {
        scan_step(m);
    } else if (s->state == READY && now_ms >= s->ready_ms) {
        begin_task(m, now_ms);
    } else if (s->state == ORDERED) {
        end_task(m, now_ms);
    }
}

/* ---- the server's side; map_mu is held ---- */

uint32_t master_space_put_task(struct master *m, uint32_t node, struct wire_out *out)
{
    struct space *s = m->space;
    struct compact_task t = { .task = s->task, .rate = m->conf->compact_rate };

    if (s->task == 0 || s->done.task != 0 || s->group.node != node) {
        return 0;
    }
    t.block = s->block;
    t.nodes = wire_out_list(&s->nodes, s->node_count);
    t.ranges = wire_out_list(&s->ranges, (uint32_t)s->group.range_count);
    compact_task_put(out, &t);
    return 1;
}

int master_space_done(struct master *m, uint32_t node, struct wire_list list)
{
    struct wire_in in = wire_in_of(list.items);
    struct space *s = m->space;
    struct compact_done d;
    int err = DFS_OK;

    for (uint32_t i = 0; err == DFS_OK && i < list.count; i++) {
        err = compact_done_get(&in, &d);
        if (err == DFS_OK && s->task != 0 && d.task == s->task && node == s->group.node) {
            s->done = d;
        }
    }
    return err;
}
