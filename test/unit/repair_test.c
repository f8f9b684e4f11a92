#include "replication/map/repair.h"

#include "test/unit/tap.h"

/* A cluster in memory: records, and what the servers really hold. */
#define SERVERS 6u
#define BLOCKS  40u
#define LEN     1000u

static struct members t;
static struct repair *r;
static struct rng rng;
static uint64_t now;
static struct block_rec recs[BLOCKS + 1];
static bool gone[BLOCKS + 1]; /* no record any more */
static bool holds[SERVERS + 1][BLOCKS + 1];
static bool rotten[SERVERS + 1][BLOCKS + 1];
static bool up[SERVERS + 1];
static struct repair_change queue[4096];
static size_t queued;
static uint64_t forgets[BLOCKS + 1];
static size_t forget_count;

static int env_get(void *arg, uint64_t block, struct block_rec *ret)
{
    (void)arg;
    if (block > BLOCKS || gone[block] || recs[block].state == 0) {
        return DFS_ENOBLOCK;
    }
    *ret = recs[block];
    return DFS_OK;
}

static void env_change(void *arg, const struct repair_change *c)
{
    (void)arg;
    queue[queued++] = *c;
}

static void env_forget(void *arg, uint64_t block)
{
    (void)arg;
    forgets[forget_count++] = block;
}

static void server_up(uint32_t node)
{
    struct server_rec rec = { .addr = "x:1" };
    struct volume_info v = { .total = 1000 * GIB, .free = 100 * GIB, .state = VOLUME_OK };
    struct wire_out out;
    uint8_t was;

    snprintf(rec.host, sizeof(rec.host), "h%u", node);
    wire_out_init(&out, 4096);
    volume_info_put(&out, &v);
    members_load(&t, node, &rec, now);
    members_register(&t, node, 1, wire_out_list(&out, 1), now, &was);
    wire_out_fini(&out);
    up[node] = true;
}

static void start(uint32_t servers)
{
    const struct members_conf mc = { .suspect_ms = 3000, .dead_ms = 15000, .report_ms = 60000 };
    const struct repair_conf rc = { .streams = 2, .stale_ms = 60000 };
    const struct repair_env env = { env_get, env_change, env_forget, NULL };

    now = 1000;
    queued = forget_count = 0;
    memset(recs, 0, sizeof(recs));
    memset(gone, 0, sizeof(gone));
    memset(holds, 0, sizeof(holds));
    memset(rotten, 0, sizeof(rotten));
    memset(up, 0, sizeof(up));
    members_init(&t, &mc, now);
    r = repair_new(&rc, &env, &t, 9, 77);
    for (uint32_t n = 1; n <= servers; n++) {
        server_up(n);
    }
}

static void stop(void)
{
    repair_free(r);
    members_fini(&t);
}

static void make_block(uint64_t b, uint8_t want, const uint32_t *nodes, uint8_t count)
{
    recs[b] = (struct block_rec){ .state = BLOCK_SEALED, .len = LEN, .node_count = count };
    recs[b].live[want] = LEN;
    for (uint8_t i = 0; i < count; i++) {
        recs[b].nodes[i] = nodes[i];
        holds[nodes[i]][b] = true;
    }
}

static void look(uint64_t b)
{
    repair_look(r, b, &recs[b], now);
}

/* The log takes what is queued. */
static void apply(void)
{
    size_t n = queued;
    struct repair_change batch[ARRAY_LEN(queue)];

    memcpy(batch, queue, n * sizeof(queue[0]));
    queued = 0;
    for (size_t i = 0; i < n; i++) {
        struct block_rec *rec = &recs[batch[i].block];
        uint8_t at = 0;

        while (at < rec->node_count && rec->nodes[at] != batch[i].node) {
            at++;
        }
        if (batch[i].op == REPLICA_ADD && at == rec->node_count) {
            rec->nodes[rec->node_count++] = batch[i].node;
        } else if (batch[i].op == REPLICA_DROP && at < rec->node_count) {
            rec->nodes[at] = rec->nodes[--rec->node_count];
        }
        repair_changed(r, &batch[i], DFS_OK, now);
    }
    for (size_t i = 0; i < forget_count; i++) {
        gone[forgets[i]] = true;
        repair_forgotten(r, forgets[i]);
    }
    forget_count = 0;
}

static int good_copies(uint64_t b)
{
    int n = 0;

    for (uint32_t s = 1; s <= SERVERS; s++) {
        n += holds[s][b] && !rotten[s][b];
    }
    return n;
}

/* Those that the record names. */
static int good_holders(uint64_t b)
{
    int n = 0;

    for (uint8_t i = 0; i < recs[b].node_count; i++) {
        n += holds[recs[b].nodes[i]][b] && !rotten[recs[b].nodes[i]][b];
    }
    return n;
}

static int carry_out(uint32_t node, const struct order *o)
{
    struct wire_in in = wire_in_of(o->nodes.items);
    struct node_addr a;

    if (o->kind == ORDER_DELETE) {
        if (holds[node][o->block] && !rotten[node][o->block] &&
            recs[o->block].state != BLOCK_DELETED && good_copies(o->block) == 1) {
            CHECK(!"the last good copy was ordered to be deleted");
        }
        holds[node][o->block] = rotten[node][o->block] = false;
        return DFS_OK;
    }
    if (o->kind == ORDER_SEAL) {
        return holds[node][o->block] ? DFS_OK : DFS_ENOBLOCK;
    }
    CHECK_INT(node_addr_get(&in, &a), DFS_OK);
    if (!holds[node][o->block]) {
        return DFS_ENOBLOCK;
    }
    if (rotten[node][o->block]) {
        return DFS_ECHECKSUM;
    }
    if (!up[a.node]) {
        return DFS_ECONN;
    }
    CHECK(!holds[a.node][o->block] || rotten[a.node][o->block] || a.node != node);
    holds[a.node][o->block] = true;
    rotten[a.node][o->block] = false;
    return DFS_OK;
}

/* One heartbeat of a server: it does all its orders; report false loses the answer. */
static void beat(uint32_t node, bool report)
{
    struct server_heartbeat_req req = { .node = node, .boot = 1 };
    struct volume_info v = { .total = 1000 * GIB, .free = 100 * GIB, .state = VOLUME_OK };
    struct wire_out vols, out;
    struct wire_in in;
    uint32_t count;

    wire_out_init(&vols, 4096);
    wire_out_init(&out, 1 << 20);
    volume_info_put(&vols, &v);
    req.volumes = wire_out_list(&vols, 1);
    members_heartbeat(&t, &req, now);
    count = repair_put_orders(r, node, 100, &out);
    in = wire_in_of(wire_out_slice(&out));
    for (uint32_t i = 0; i < count; i++) {
        struct order o;
        struct order_done d;
        struct wire_in nodes;
        struct node_addr a = { 0 };

        CHECK_INT(order_get(&in, &o), DFS_OK);
        nodes = wire_in_of(o.nodes.items);
        if (o.kind == ORDER_COPY) {
            node_addr_get(&nodes, &a);
        }
        d = (struct order_done){
            .order = o.order, .kind = o.kind, .block = o.block, .node = a.node, .len = o.len
        };
        d.status = (uint32_t)carry_out(node, &o);
        if (report) {
            repair_done(r, node, &d, now);
        }
    }
    wire_out_fini(&vols);
    wire_out_fini(&out);
}

static void died(void *arg, const struct member *m, uint8_t was)
{
    (void)arg, (void)was;
    if (member_state(m) == MEMBER_DEAD) {
        repair_node_dead(r, m->node, now);
        for (uint64_t b = 1; b <= BLOCKS; b++) {
            if (recs[b].state != 0 && !gone[b]) {
                look(b);
            }
        }
    }
}

static void run(uint64_t ms)
{
    for (uint64_t end = now + ms; now < end; now += 100) {
        members_step(&t, now, died, NULL);
        repair_step(r, 64, now);
        apply();
        for (uint32_t n = 1; now % 1000 == 0 && n <= SERVERS; n++) {
            if (up[n]) {
                beat(n, true);
            }
        }
        apply();
    }
}

static struct repair_counts counts(void)
{
    struct repair_counts c;

    repair_get_counts(r, &c);
    return c;
}

static void test_dead_server(void)
{
    const uint32_t on[] = { 1, 2 };

    start(4);
    for (uint64_t b = 1; b <= 20; b++) {
        make_block(b, 2, on, 2);
        look(b);
    }
    CHECK_INT(counts().under, 0);
    up[2] = false;
    run(10000);
    CHECK_INT(counts().under, 0); /* suspect only */
    run(8000);
    CHECK(counts().under > 0 || good_copies(1) == 3);
    run(20000);
    CHECK_INT(counts().under, 0);
    for (uint64_t b = 1; b <= 20; b++) {
        CHECK_INT(recs[b].node_count, 2);
        CHECK_INT(good_copies(b), 3); /* the dead server's too */
    }
    stop();
}

static void test_danger_first(void)
{
    const uint32_t on[] = { 1, 2, 3 };
    struct wire_out out;
    struct wire_in in;
    struct order o;

    start(3);
    make_block(1, 4, on, 3);
    make_block(2, 4, on, 2);
    make_block(3, 4, on, 1);
    server_up(4);
    for (uint64_t b = 1; b <= 3; b++) {
        look(b);
    }
    CHECK_INT(counts().under, 3);
    repair_step(r, 1, now);
    wire_out_init(&out, 65536);
    CHECK_INT(repair_put_orders(r, 1, 10, &out), 1);
    in = wire_in_of(wire_out_slice(&out));
    order_get(&in, &o);
    CHECK_INT(o.block, 3);
    CHECK_INT(o.kind, ORDER_COPY);
    CHECK_INT(o.len, LEN);
    CHECK(o.order >> 32 == 9);
    wire_out_fini(&out);
    stop();
}

static void test_rate_holds_within_a_step(void)
{
    const uint32_t on[] = { 1 };

    start(6);
    for (uint64_t b = 1; b <= 20; b++) {
        make_block(b, 2, on, 1);
        look(b);
    }
    repair_set_rate(r, LEN * 3 / 2);
    now += 10000; /* the bucket holds one second's worth */
    repair_step(r, 1000, now);
    CHECK_INT(counts().repairing, 2); /* the second one finds the bucket half full */
    stop();
}

/* A block that found all servers busy is looked at again as soon as one has a free stream. */
static void test_busy(void)
{
    const uint32_t on[] = { 1 };
    uint64_t from;

    start(2);
    for (uint64_t b = 1; b <= 3; b++) {
        make_block(b, 2, on, 1);
        recs[b].len = 64 * MIB;
        recs[b].live[2] = 64 * MIB;
        look(b);
    }
    repair_step(r, 10, now);
    CHECK_INT(counts().repairing, 2);
    beat(1, true);
    apply();
    from = now;
    while (counts().repairing == 0 && now - from < 2000) {
        now += 50;
        repair_step(r, 10, now);
    }
    CHECK(now - from <= 150);
    stop();
}

static void test_trim(void)
{
    const uint32_t on[] = { 1, 2, 3 };

    start(4);
    make_block(1, 1, on, 3);
    look(1);
    run(6000);
    CHECK_INT(recs[1].node_count, 1);
    CHECK_INT(good_copies(1), 1);
    recs[1].live[1] = 0;
    recs[1].live[3] = LEN;
    look(1);
    run(8000);
    CHECK_INT(recs[1].node_count, 3);
    CHECK_INT(good_copies(1), 3);
    CHECK_INT(counts().under, 0);
    stop();
}

/* Two servers come back with empty disks, and nobody knows yet. */
static void test_nothing_for_the_unsure(void)
{
    const uint32_t on[] = { 1, 2, 3 };

    start(3);
    make_block(1, 1, on, 3);
    holds[1][1] = holds[2][1] = false;
    members_doubt(&t, 1);
    members_doubt(&t, 2);
    look(1);
    run(6000);
    CHECK_INT(recs[1].node_count, 3);
    repair_stray(r, 1, 3, now); /* nor is a holder's copy a stray */
    members_told(&t, 1, true, false, 1);
    members_told(&t, 2, true, true, 1);
    run(3000);
    CHECK_INT(recs[1].node_count, 3);
    repair_bad(r, 1, 1, DFS_ENOBLOCK, now);
    repair_bad(r, 1, 2, DFS_ENOBLOCK, now);
    members_told_range(&t, 2);
    members_told_range(&t, 1);
    CHECK(members_unsure(&t, 1) && !members_unsure(&t, 2));
    members_told(&t, 1, false, true, 0);
    CHECK(!members_unsure(&t, 1));
    run(6000);
    CHECK_INT(recs[1].node_count, 1);
    CHECK_INT(recs[1].nodes[0], 3);
    CHECK_INT(good_copies(1), 1);
    stop();
}

static void test_damaged(void)
{
    const uint32_t on[] = { 1, 2 };

    start(3);
    make_block(1, 2, on, 2);
    rotten[2][1] = true;
    repair_bad(r, 1, 2, DFS_ECHECKSUM, now);
    CHECK_INT(counts().corrupt, 1);
    CHECK_INT(counts().under, 1);
    for (int i = 0; i < 80 && holds[2][1]; i++) {
        run(100);
        CHECK(holds[2][1] || good_copies(1) == 2); /* not dropped before it is replaced */
    }
    run(2000);
    CHECK_INT(counts().corrupt, 0);
    CHECK_INT(good_copies(1), 2);
    CHECK(!holds[2][1]);
    stop();
    /* Nowhere else to go: the damaged copy makes room. */
    start(2);
    make_block(1, 2, on, 2);
    rotten[2][1] = true;
    repair_bad(r, 1, 2, DFS_ECHECKSUM, now);
    run(12000);
    CHECK_INT(good_copies(1), 2);
    CHECK_INT(counts().corrupt, 0);
    stop();
    /* All are damaged: nothing is dropped. */
    start(3);
    make_block(1, 2, on, 2);
    rotten[1][1] = rotten[2][1] = true;
    repair_bad(r, 1, 1, DFS_ECHECKSUM, now);
    repair_bad(r, 1, 2, DFS_ECHECKSUM, now);
    run(12000);
    CHECK_INT(recs[1].node_count, 2);
    CHECK(holds[1][1] && holds[2][1]);
    CHECK_INT(counts().corrupt, 1);
    stop();
}

static void test_sealed_without_copy(void)
{
    const uint32_t on[] = { 1, 2 };

    start(3);
    make_block(1, 2, on, 2);
    holds[2][1] = false;
    repair_sealed(r, 1, &recs[1], now);
    run(8000);
    CHECK_INT(good_copies(1), 2);
    CHECK_INT(recs[1].node_count, 2);
    stop();
}

static void test_delete(void)
{
    const uint32_t on[] = { 1, 2, 3 };

    start(3);
    make_block(1, 3, on, 3);
    make_block(2, 3, on, 3);
    recs[1].state = recs[2].state = BLOCK_DELETED;
    CHECK(repair_delete(r, 1, &recs[1], now));
    run(3000);
    CHECK(gone[1]);
    CHECK_INT(good_copies(1), 0);
    CHECK_INT(good_copies(2), 3); /* its grace is not over */
    up[3] = false;
    CHECK(repair_delete(r, 2, &recs[2], now));
    run(5000);
    CHECK(!gone[2]); /* 3 may come back in time */
    run(15000);
    CHECK(gone[2]);
    stop();
}

static void test_lost_answer(void)
{
    const uint32_t on[] = { 1 };

    start(2);
    make_block(1, 2, on, 1);
    look(1);
    repair_step(r, 10, now);
    beat(1, false);
    CHECK_INT(good_copies(1), 2);
    CHECK_INT(recs[1].node_count, 1);
    beat(1, true); /* the order came again */
    apply();
    CHECK_INT(recs[1].node_count, 2);
    CHECK_INT(counts().under, 0);
    CHECK_INT(counts().repairing, 0);
    stop();
}

static void test_stray(void)
{
    const uint32_t on[] = { 1, 2 };

    start(3);
    make_block(1, 2, on, 2);
    holds[3][1] = true;
    repair_delete_stray(r, 1, 2, now); /* named by the record: not a stray */
    repair_delete_stray(r, 1, 3, now);
    run(2000);
    CHECK(holds[2][1]);
    CHECK(!holds[3][1]);
    stop();
    /* Needed when its grace is over: it becomes a holder. */
    start(3);
    make_block(1, 2, on, 2);
    holds[3][1] = true;
    up[2] = false;
    run(20000);
    repair_stray(r, 1, 3, now);
    run(1000);
    CHECK(holds[3][1]);
    CHECK_INT(good_holders(1), 2);
    stop();
    /* All that is left of a block: kept. */
    start(3);
    make_block(1, 2, on, 2);
    rotten[3][1] = holds[3][1] = true;
    repair_bad(r, 1, 1, DFS_ECHECKSUM, now);
    repair_bad(r, 1, 2, DFS_ECHECKSUM, now);
    repair_delete_stray(r, 1, 3, now);
    run(3000);
    CHECK(holds[3][1]);
    stop();
}

/* Servers die and come back, copies rot, wants change: never is the last good copy deleted, and in
 * the end everything that has a good copy has as many as it should. */
static void test_random(void)
{
    for (uint64_t seed = 1; seed <= 25; seed++) {
        rng_init(&rng, seed);
        start(SERVERS);
        for (uint64_t b = 1; b <= BLOCKS; b++) {
            uint32_t first = (uint32_t)rng_below(&rng, SERVERS);
            uint32_t on[] = { first + 1, (first + 1) % SERVERS + 1 };

            make_block(b, 2, on, 2);
            look(b);
        }
        for (int i = 0; i < 60; i++) {
            uint32_t n = (uint32_t)rng_below(&rng, SERVERS) + 1;
            uint64_t b = rng_below(&rng, BLOCKS) + 1;
            uint8_t want = (uint8_t)rng_below(&rng, 4) + 1;

            switch (rng_below(&rng, 4)) {
            case 0:
                up[n] = !up[n];
                if (up[n]) {
                    server_up(n);
                    for (uint64_t k = 1; k <= BLOCKS; k++) {
                        look(k);
                    }
                }
                break;
            case 1:
                if (up[n] && holds[n][b] && good_holders(b) > 1) {
                    rotten[n][b] = true;
                    repair_bad(r, b, n, DFS_ECHECKSUM, now);
                }
                break;
            case 2:
                memset(recs[b].live, 0, sizeof(recs[b].live));
                recs[b].live[want] = LEN;
                look(b);
                break;
            default:
                break;
            }
            run(rng_below(&rng, 60) * 100);
        }
        for (uint32_t n = 1; n <= SERVERS; n++) {
            if (!up[n]) {
                server_up(n);
            }
        }
        for (uint64_t b = 1; b <= BLOCKS; b++) {
            look(b);
        }
        run(120000);
        CHECK_INT(counts().under, 0);
        CHECK_INT(counts().missing, 0);
        CHECK_INT(counts().corrupt, 0);
        for (uint64_t b = 1; b <= BLOCKS; b++) {
            CHECK_INT(recs[b].node_count, block_rec_want(&recs[b]));
            for (uint8_t i = 0; i < recs[b].node_count; i++) {
                CHECK(holds[recs[b].nodes[i]][b] && !rotten[recs[b].nodes[i]][b]);
            }
        }
        stop();
    }
}

static void intend(uint32_t node, uint8_t intent)
{
    CHECK(members_intend(&t, node, &(struct server_rec){ .intent = intent }, 0, now));
    for (uint64_t b = 1; b <= BLOCKS; b++) {
        if (recs[b].state != 0) {
            look(b);
        }
    }
}

static int named(uint32_t node)
{
    int n = 0;

    for (uint64_t b = 1; b <= BLOCKS; b++) {
        for (uint8_t i = 0; i < recs[b].node_count; i++) {
            n += recs[b].nodes[i] == node;
        }
    }
    return n;
}

static void test_leaving(void)
{
    const uint32_t on[] = { 1, 2 }, alone[] = { 2 };

    start(4);
    for (uint64_t b = 1; b <= 20; b++) {
        make_block(b, b % 4 == 0 ? 1 : 2, b % 4 == 0 ? alone : on, b % 4 == 0 ? 1 : 2);
    }
    intend(2, INTENT_DECOMMISSION);
    CHECK_INT(counts().under, 0); /* nothing is in danger */
    run(20000);
    CHECK_INT(named(2), 0);
    for (uint64_t b = 1; b <= 20; b++) {
        CHECK_INT(recs[b].node_count, b % 4 == 0 ? 1 : 2);
        CHECK_INT(good_holders(b), recs[b].node_count);
        CHECK(!holds[2][b]);
    }
    /* A copy that turns up there is not taken on while there are others. */
    CHECK(!repair_adopt(r, 1, 2, true, now));
    stop();
}

static void test_leaving_cancelled(void)
{
    const uint32_t on[] = { 1, 2, 3 };

    start(3); /* nowhere to go to */
    for (uint64_t b = 1; b <= 10; b++) {
        make_block(b, 3, on, 3);
    }
    intend(3, INTENT_DECOMMISSION);
    run(10000);
    CHECK_INT(named(3), 10);
    intend(3, INTENT_NONE);
    run(10000);
    CHECK_INT(named(3), 10);
    CHECK_INT(counts().under, 0);
    stop();
}

int main(void)
{
    tap_run("a dead server's blocks are copied", test_dead_server);
    tap_run("the most endangered first", test_danger_first);
    tap_run("one step orders no more than the rate has room for", test_rate_holds_within_a_step);
    tap_run("a block that found no free server waits no longer than that", test_busy);
    tap_run("copies follow the wanted number down and up", test_trim);
    tap_run("no copy is given up for one that was not compared", test_nothing_for_the_unsure);
    tap_run("damaged copies are replaced, then dropped", test_damaged);
    tap_run("a holder that has nothing at the seal is replaced", test_sealed_without_copy);
    tap_run("deleted blocks are deleted everywhere, then forgotten", test_delete);
    tap_run("a lost answer is asked for again", test_lost_answer);
    tap_run("strays are deleted, holders' copies are not", test_stray);
    tap_run("a leaving server is emptied, no copy is missing meanwhile", test_leaving);
    tap_run("a decommission that is cancelled leaves all in place", test_leaving_cancelled);
    tap_run("random failures", test_random);
    return tap_done();
}
