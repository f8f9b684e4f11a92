/* Balance and repair together, on records in memory: servers that differ in how full they are. */
#include "replication/map/balance.h"

#include "test/unit/tap.h"

#define SERVERS  8u
#define BLOCKS   3000u
#define LEN      MIB
#define CAPACITY (4 * GIB)

static struct members t;
static struct repair *r;
static struct balance b;
static struct block_rec recs[BLOCKS + 1];
static struct repair_change queue[4096];
static size_t queued;
static uint64_t now, moved, gets;
static uint64_t used[SERVERS + 1];

static int env_get(void *arg, uint64_t block, struct block_rec *ret)
{
    (void)arg;
    gets++;
    if (block > BLOCKS || recs[block].state == 0) {
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
    (void)block;
}

static void put_volume(uint32_t node, struct wire_out *out)
{
    struct volume_info v = {
        .total = CAPACITY, .used = used[node], .free = CAPACITY - used[node], .state = VOLUME_OK
    };

    wire_out_init(out, 4096);
    volume_info_put(out, &v);
}

static void server_up(uint32_t node, const char *rack)
{
    struct server_rec rec = { .addr = "x:1" };
    struct wire_out out;
    uint8_t was;

    snprintf(rec.host, sizeof(rec.host), "h%u", node);
    snprintf(rec.rack, sizeof(rec.rack), "%s", rack);
    put_volume(node, &out);
    members_load(&t, node, &rec, now);
    members_register(&t, node, 1, wire_out_list(&out, 1), now, &was);
    wire_out_fini(&out);
}

static void start(uint32_t threshold, uint64_t rate)
{
    const struct members_conf mc = { .suspect_ms = 3000, .dead_ms = 15000, .report_ms = 60000 };
    const struct repair_conf rc = { .streams = 4, .stale_ms = 60000 };
    const struct repair_env env = { env_get, env_change, env_forget, NULL };
    const struct balance_conf bc = { .threshold = threshold, .rate = rate, .settle_ms = 3000 };

    now = 100000;
    queued = 0;
    moved = 0;
    memset(recs, 0, sizeof(recs));
    memset(used, 0, sizeof(used));
    members_init(&t, &mc, now);
    r = repair_new(&rc, &env, &t, 9, 77);
    balance_init(&b, &bc, &t, r);
}

static void stop(void)
{
    repair_free(r);
    members_fini(&t);
}

static void make_block(uint64_t id, uint32_t first, uint32_t second)
{
    recs[id] = (struct block_rec){ .state = BLOCK_SEALED, .len = LEN, .node_count = 2 };
    recs[id].live[2] = LEN;
    recs[id].nodes[0] = first;
    recs[id].nodes[1] = second;
    used[first] += LEN;
    used[second] += LEN;
}

static bool holds(const struct block_rec *rec, uint32_t node)
{
    for (uint8_t i = 0; i < rec->node_count; i++) {
        if (rec->nodes[i] == node) {
            return true;
        }
    }
    return false;
}

/* The log takes what is queued; the block has two copies at every moment. */
static void apply(void)
{
    struct repair_change batch[ARRAY_LEN(queue)];
    size_t n = queued;

    memcpy(batch, queue, n * sizeof(queue[0]));
    queued = 0;
    for (size_t i = 0; i < n; i++) {
        struct block_rec *rec = &recs[batch[i].block];

        if (batch[i].op == REPLICA_ADD && !holds(rec, batch[i].node)) {
            rec->nodes[rec->node_count++] = batch[i].node;
            used[batch[i].node] += LEN;
        } else if (batch[i].op == REPLICA_DROP && holds(rec, batch[i].node)) {
            uint8_t at = 0;

            while (rec->nodes[at] != batch[i].node) {
                at++;
            }
            rec->nodes[at] = rec->nodes[--rec->node_count];
            used[batch[i].node] -= LEN;
            moved++;
        }
        CHECK(rec->node_count >= 2);
        repair_changed(r, &batch[i], DFS_OK, now);
    }
}

/* Servers do all they are told, and send heartbeats. */
static void serve(uint32_t servers)
{
    for (uint32_t node = 1; node <= servers; node++) {
        struct server_heartbeat_req hb = { .node = node, .boot = 1 };
        struct wire_out out, vol;
        struct wire_in in;
        uint32_t n;

        wire_out_init(&out, 1 << 20);
        n = repair_put_orders(r, node, 512, &out);
        in = wire_in_of(wire_out_slice(&out));
        for (uint32_t i = 0; i < n; i++) {
            struct order_done d = { .status = DFS_OK };
            struct node_addr to;
            struct wire_in nodes;
            struct order o;

            CHECK_INT(order_get(&in, &o), 0);
            nodes = wire_in_of(o.nodes.items);
            d.order = o.order;
            d.kind = o.kind;
            d.block = o.block;
            d.len = o.len;
            if (o.kind == ORDER_COPY && node_addr_get(&nodes, &to) == 0) {
                d.node = to.node;
            }
            repair_done(r, node, &d, now);
        }
        put_volume(node, &vol);
        hb.volumes = wire_out_list(&vol, 1);
        members_heartbeat(&t, &hb, now);
        wire_out_fini(&vol);
        wire_out_fini(&out);
    }
}

/* As the keeper does it: one tick. */
static void tick(uint32_t servers)
{
    bool begun = true;

    now += 50;
    repair_step(r, 64, now);
    for (int i = 0; begun && i < 16; i++) {
        uint64_t from = 0;
        uint32_t node = balance_step(&b, now, &from);
        bool more = node != 0;

        for (uint64_t id = MAX(from, UINT64_C(1)); more && id <= BLOCKS; id++) {
            if (holds(&recs[id], node)) {
                more = balance_offer(&b, id, &recs[id], now);
            }
        }
        if (more) {
            balance_end_of_blocks(&b, now);
        }
        begun = node != 0 && !more;
    }
    apply();
    serve(servers);
    apply();
}

static double spread(uint32_t servers)
{
    uint64_t least = UINT64_MAX, most = 0;

    for (uint32_t n = 1; n <= servers; n++) {
        least = MIN(least, used[n]);
        most = MAX(most, used[n]);
    }
    return (double)(most - least) / (double)CAPACITY;
}

static void test_new_server_fills(void)
{
    uint64_t after;

    start(5, 0);
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        make_block(id, (uint32_t)(1 + id % 4), (uint32_t)(1 + (id + 1) % 4));
    }
    for (uint32_t n = 1; n <= 5; n++) {
        server_up(n, ""); /* the fifth is new */
    }
    for (int i = 0; i < 4000 && spread(5) > 0.101; i++) {
        tick(5);
    }
    CHECK(spread(5) <= 0.101); /* all within 5 % of the mean */
    for (int i = 0; i < 200; i++) {
        tick(5); /* what is under way */
    }
    after = moved;
    for (int i = 0; i < 2000; i++) {
        tick(5);
    }
    CHECK_INT(moved, after); /* nothing moves to and fro */
    CHECK(moved <= BLOCKS);  /* no detours */
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        CHECK_INT(recs[id].node_count, 2);
        CHECK(recs[id].nodes[0] != recs[id].nodes[1]);
    }
    stop();
}

static const char *rack_of(uint32_t node)
{
    return members_get(&t, node)->rec.rack;
}

static void test_racks_stay(void)
{
    start(5, 0);
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        make_block(id, 1, 2);
    }
    server_up(1, "r1");
    server_up(2, "r2");
    server_up(3, "r1");
    for (int i = 0; i < 4000 && used[3] + LEN < used[1]; i++) {
        tick(3);
    }
    CHECK(used[3] > CAPACITY / 4);
    CHECK_INT(used[2], (uint64_t)BLOCKS * LEN); /* alone in its rack: it keeps all */
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        CHECK(strcmp(rack_of(recs[id].nodes[0]), rack_of(recs[id].nodes[1])) != 0 ||
              recs[id].node_count > 2);
    }
    stop();
}

static void test_rate(void)
{
    start(1, 10 * MIB);
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        make_block(id, 1, 2);
    }
    for (uint32_t n = 1; n <= 4; n++) {
        server_up(n, "");
    }
    for (int i = 0; i < 200; i++) {
        tick(4); /* ten seconds */
    }
    CHECK(moved >= 60 && moved <= 120); /* ten a second, and a second's worth at once */
    stop();
}

static void test_off(void)
{
    start(0, 0);
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        make_block(id, 1, 2);
    }
    for (uint32_t n = 1; n <= 4; n++) {
        server_up(n, "");
    }
    for (int i = 0; i < 200; i++) {
        tick(4);
    }
    CHECK_INT(moved, 0);
    stop();
}

/* While something lacks copies nothing moves. */
static void test_repair_first(void)
{
    start(5, 0);
    for (uint64_t id = 1; id <= BLOCKS; id++) {
        make_block(id, 1, 2);
    }
    recs[7].node_count = 1;
    used[2] -= LEN;
    for (uint32_t n = 1; n <= 4; n++) {
        server_up(n, "");
    }
    repair_look(r, 7, &recs[7], now);
    repair_step(r, 64, now);
    for (int i = 0; i < 20; i++) {
        uint64_t from;

        CHECK_INT(balance_step(&b, now + (uint64_t)i * 100, &from), 0);
    }
    stop();
}

int main(void)
{
    tap_run("a new server fills up, and then nothing moves", test_new_server_fills);
    tap_run("moves keep copies on two racks", test_racks_stay);
    tap_run("one rate for all moves", test_rate);
    tap_run("a threshold of 0 switches it off", test_off);
    tap_run("not while copies are missing", test_repair_first);
    return tap_done();
}
