#include "replication/map/mapdb.h"

#include "cluster/store/kv.h"

#include "test/unit/tap.h"

#define NOW INT64_C(1000)
#define ME  7 /* a session */

static const char *const names[] = { "blocks", "node_blocks", "servers", "deleted" };
static struct kv *kv;
static struct mapdb m;
static MDB_txn *t;
static uint64_t next_block;

/* events seen since the last look */
static int events;
static uint8_t event_state;

static void on_change(void *arg, uint64_t block, const struct block_rec *rec)
{
    (void)arg;
    (void)block;
    events++;
    event_state = rec->state;
}

static const struct mapdb_events ev = { .block_changed = on_change };

static int seen(void)
{
    int n = events;

    events = 0;
    return n;
}

static void start(void)
{
    struct why why = { "" };
    char dir[100];

    snprintf(dir, sizeof(dir), "%s/map", tap_tmp());
    if (kv_open(dir, UINT64_C(64) << 20, names, 4, &kv, &why) != 0) {
        printf("# %s\n", why.text);
        exit(1);
    }
    m = (struct mapdb){ kv_dbi(kv, 0), kv_dbi(kv, 1), kv_dbi(kv, 2), kv_dbi(kv, 3) };
    CHECK_INT(kv_write_begin(kv, &t), 0);
}

/* An open block of session ME on nodes 1, 2, 3. */
static uint64_t fresh(void)
{
    static const uint32_t nodes[] = { 1, 2, 3 };

    CHECK_INT(mapdb_alloc(&m, t, ++next_block, BLOCK_STREAM, 3, 0, ME, nodes, 3, NOW), 0);
    return next_block;
}

static struct block_rec get(uint64_t block)
{
    struct block_rec r = { 0 };

    CHECK_INT(mapdb_get(&m, t, block, &r), 0);
    return r;
}

static bool count_block(void *arg, uint64_t block, const struct block_rec *r)
{
    uint64_t *last_and_count = arg;

    (void)r;
    last_and_count[0] = block;
    last_and_count[1]++;
    return true;
}

static uint64_t count_of(uint32_t node, uint64_t from)
{
    uint64_t found[2] = { 0 };

    CHECK_INT(mapdb_each_block_of(&m, t, node, from, count_block, found), 0);
    return found[1];
}

static bool indexed(uint32_t node, uint64_t block)
{
    return count_of(node, block) == count_of(node, block + 1) + 1;
}

static void alloc_makes_an_open_block(void)
{
    static const uint32_t nodes[] = { 1 };
    struct block_rec r = get(fresh());

    CHECK_INT(r.state, BLOCK_OPEN);
    CHECK_INT(r.node_count, 3);
    CHECK_INT(r.session, ME);
    CHECK_INT(block_rec_want(&r), 3);
    CHECK_INT(block_rec_live(&r), 0);
    CHECK(indexed(1, next_block) && indexed(2, next_block) && indexed(3, next_block));
    CHECK(!indexed(4, next_block));
    CHECK_INT(mapdb_alloc(&m, t, next_block, BLOCK_STREAM, 1, 0, ME, nodes, 1, NOW), DFS_EEXIST);
    CHECK_INT(mapdb_get(&m, t, 999999, &r), DFS_ENOBLOCK);
}

static void commit_raises_the_length_of_ones_own_block(void)
{
    uint64_t b = fresh();

    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME + 1, 10, false, NOW), DFS_ESESSION);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 100, false, NOW), 0);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 50, false, NOW), 0); /* late: no harm */
    CHECK_INT(get(b).len, 100);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 99, true, NOW), DFS_EINVAL);
    CHECK_INT(get(b).state, BLOCK_OPEN);
    CHECK_INT(seen(), 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 3, 0, 100, NOW), 0);
    seen();
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 120, true, NOW + 1), 0);
    CHECK_INT(get(b).state, BLOCK_SEALED);
    CHECK_INT(get(b).len, 120);
    CHECK_INT(get(b).session, 0);
    CHECK_INT(get(b).changed_ns, NOW + 1);
    CHECK_INT(seen(), 1);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 120, true, NOW), 0); /* again */
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 121, true, NOW), DFS_ESEALED);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 121, false, NOW), DFS_ESEALED);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 110, false, NOW), 0);
    CHECK_INT(mapdb_commit(&m, t, &ev, 999999, ME, 1, false, NOW), DFS_ENOBLOCK);
    CHECK_INT(seen(), 0);
}

static void a_seal_drops_the_bad_but_never_all(void)
{
    static const uint32_t bad[] = { 2, 9 };
    static const uint32_t all[] = { 1, 2, 3 };
    uint64_t b = fresh();

    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 100, false, NOW), 0);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 99, bad, 2, NOW), DFS_EINVAL);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME + 1, 150, bad, 2, NOW), DFS_ESESSION);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 150, bad, 2, NOW), 0);
    CHECK_INT(get(b).len, 150);
    CHECK_INT(get(b).node_count, 2);
    CHECK_INT(get(b).nodes[0], 1);
    CHECK_INT(get(b).nodes[1], 3);
    CHECK(!indexed(2, b));
    CHECK_INT(get(b).state, BLOCK_SEALED); /* without live bytes, but its session may commit */
    CHECK_INT(get(b).session, ME);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 150, all, 3, NOW), 0); /* again: nothing */
    CHECK_INT(get(b).node_count, 2);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 160, all, 3, NOW), DFS_ESEALED);

    b = fresh();
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 10, all, 3, NOW), 0);
    CHECK_INT(get(b).node_count, 3); /* somebody of them must have the bytes */
    b = fresh();
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 0, all, 3, NOW), 0);
    CHECK_INT(get(b).node_count, 0);
    seen();
}

static void wanted_copies_follow_live_bytes(void)
{
    uint64_t b = fresh();
    struct block_rec r;

    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 1000, NOW), 0);
    CHECK_INT(seen(), 1); /* 3 as allocated -> 2 */
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 500, NOW), 0);
    CHECK_INT(seen(), 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 5, 0, 1, NOW), 0);
    CHECK_INT(seen(), 1);
    r = get(b);
    CHECK_INT(block_rec_want(&r), 5);
    CHECK_INT(block_rec_live(&r), 1501);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 5, 0, -1, NOW), 0);
    r = get(b);
    CHECK_INT(block_rec_want(&r), 2);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, -1501, NOW), DFS_EDAMAGED);
    CHECK_INT(get(b).live[2], 1500);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, -1500, NOW), 0);
    r = get(b);
    CHECK_INT(r.state, BLOCK_OPEN); /* open blocks stay */
    CHECK_INT(block_rec_want(&r), 3);
    seen();
}

struct dead {
    uint64_t block;
    int64_t since;
    int count;
};

static bool on_deleted(void *arg, uint64_t block, int64_t since_ns)
{
    struct dead *d = arg;

    d->block = block;
    d->since = since_ns;
    d->count++;
    return true;
}

static void a_block_without_bytes_is_deleted_and_forgotten(void)
{
    struct dead d = { 0 };
    uint64_t b = fresh();

    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 10, NOW), 0);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 10, true, NOW), 0);
    CHECK_INT(mapdb_forget(&m, t, b), DFS_EBUSY);
    seen();
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, -10, NOW + 5), 0);
    CHECK_INT(seen(), 1);
    CHECK_INT(event_state, BLOCK_DELETED);
    CHECK_INT(get(b).state, BLOCK_DELETED);
    CHECK_INT(mapdb_each_deleted(&m, t, NOW + 4, on_deleted, &d), 0);
    CHECK_INT(d.count, 0);
    CHECK_INT(mapdb_each_deleted(&m, t, NOW + 5, on_deleted, &d), 0);
    CHECK_INT(d.count, 1);
    CHECK_INT(d.block, b);
    CHECK_INT(d.since, NOW + 5);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 10, NOW), DFS_ENOBLOCK); /* no way back */
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 10, true, NOW), DFS_ENOBLOCK);
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 10, NULL, 0, NOW), DFS_ENOBLOCK);
    CHECK_INT(mapdb_seal_orphan(&m, t, &ev, b, NOW), 0);
    CHECK_INT(mapdb_replica(&m, t, &ev, b, 1, REPLICA_DROP), 0);
    CHECK_INT(mapdb_forget(&m, t, b), 0);
    CHECK(!indexed(2, b));
    CHECK_INT(mapdb_forget(&m, t, b), DFS_ENOBLOCK);
    d.count = 0;
    CHECK_INT(mapdb_each_deleted(&m, t, INT64_MAX, on_deleted, &d), 0);
    CHECK_INT(d.count, 0);
    seen();
}

static void a_sealed_block_waits_for_its_session(void)
{
    static const uint32_t none[] = { 0 };
    uint64_t b = fresh();

    /* sealed early: bytes acknowledged, not committed; another file's bytes come and go */
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 100, none, 0, NOW), 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 10, NOW), 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, -10, NOW), 0);
    CHECK_INT(get(b).state, BLOCK_SEALED);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, 100, NOW), 0);
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 100, true, NOW), 0); /* released */
    CHECK_INT(get(b).session, 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 2, 0, -100, NOW), 0);
    CHECK_INT(get(b).state, BLOCK_DELETED);

    b = fresh();
    CHECK_INT(mapdb_seal(&m, t, &ev, b, ME, 100, none, 0, NOW), 0);
    CHECK_INT(mapdb_seal_orphan(&m, t, &ev, b, NOW), 0); /* the session ended */
    CHECK_INT(get(b).state, BLOCK_DELETED);

    b = fresh();
    CHECK_INT(mapdb_commit(&m, t, &ev, b, ME, 64, false, NOW), 0);
    CHECK_INT(mapdb_live(&m, t, &ev, b, 1, 0, 64, NOW), 0);
    CHECK_INT(mapdb_seal_orphan(&m, t, &ev, b, NOW), 0);
    CHECK_INT(get(b).state, BLOCK_SEALED);
    CHECK_INT(get(b).len, 64);
    CHECK_INT(get(b).session, 0);
    seen();
}

static void replicas_come_and_go(void)
{
    uint64_t b = fresh();

    CHECK_INT(mapdb_replica(&m, t, &ev, b, 3, REPLICA_ADD), 0);
    CHECK_INT(seen(), 0); /* it was there */
    CHECK_INT(mapdb_replica(&m, t, &ev, b, 4, REPLICA_ADD), 0);
    CHECK_INT(mapdb_replica(&m, t, &ev, b, 1, REPLICA_DROP), 0);
    CHECK_INT(mapdb_replica(&m, t, &ev, b, 1, REPLICA_DROP), 0);
    CHECK_INT(seen(), 2);
    CHECK_INT(get(b).node_count, 3);
    CHECK_INT(get(b).nodes[0], 2);
    CHECK_INT(get(b).nodes[2], 4);
    CHECK(indexed(4, b) && !indexed(1, b));
    for (uint32_t node = 10; node < 23; node++) {
        CHECK_INT(mapdb_replica(&m, t, &ev, b, node, REPLICA_ADD), 0);
    }
    CHECK_INT(get(b).node_count, LIMIT_REPLICATION);
    CHECK_INT(mapdb_replica(&m, t, &ev, b, 30, REPLICA_ADD), DFS_ETOOBIG);
    CHECK_INT(mapdb_replica(&m, t, &ev, 999999, 1, REPLICA_ADD), DFS_ENOBLOCK);
    seen();
}

static void servers_keep_their_ids(void)
{
    struct server_rec a = { .uuid = { 1 }, .addr = "a:1", .host = "a", .rack = "r1" };
    struct server_rec b = { .uuid = { 2 }, .addr = "b:1" };
    struct server_rec got;
    uint32_t node = 0;

    CHECK_INT(mapdb_server_put(&m, t, 0, &a, &node), 0);
    CHECK_INT(node, 1);
    CHECK_INT(mapdb_server_put(&m, t, 0, &b, &node), 0);
    CHECK_INT(node, 2);
    strcpy(a.addr, "a:2");
    CHECK_INT(mapdb_server_put(&m, t, 0, &a, &node), 0); /* known by its uuid */
    CHECK_INT(node, 1);
    CHECK_INT(mapdb_server_get(&m, t, 1, &got), 0);
    CHECK(strcmp(got.addr, "a:2") == 0 && strcmp(got.rack, "r1") == 0);
    CHECK_INT(mapdb_server_put(&m, t, 2, &a, &node), DFS_EEXIST);
    CHECK_INT(mapdb_server_put(&m, t, 2, &b, &node), 0);
    CHECK_INT(mapdb_server_get(&m, t, 3, &got), DFS_ENOENT);
}

static bool stop_at_two(void *arg, uint64_t block, const struct block_rec *r)
{
    int *n = arg;

    (void)block;
    (void)r;
    return ++*n < 2;
}

static void operators_wishes_are_kept(void)
{
    struct server_rec r = { .uuid = { 77 }, .addr = "a:1", .host = "h", .rack = "r" };
    struct server_rec want = { .intent = INTENT_DECOMMISSION }, got;
    uint8_t buf[1024];
    struct wire_out out = wire_out_over(buf, sizeof(buf));
    uint64_t block = fresh();
    uint32_t node;

    CHECK_INT(mapdb_server_intend(&m, t, 4711, INTENT_FIELD_INTENT, &want), DFS_ENOENT);
    CHECK_INT(mapdb_server_put(&m, t, 500, &r, &node), 0);
    CHECK_INT(mapdb_replica(&m, t, &ev, block, node, REPLICA_ADD), 0);
    /* Only while it is leaving, and only when nothing is left. */
    want.intent = INTENT_DECOMMISSIONED;
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_INTENT | INTENT_FIELD_LEAVING, &want),
              DFS_EBUSY);
    want.intent = INTENT_DECOMMISSION;
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_INTENT, &want), 0);
    want.intent = INTENT_DECOMMISSIONED;
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_INTENT, &want), DFS_EBUSY);
    CHECK_INT(mapdb_server_get(&m, t, node, &got), 0);
    CHECK_INT(got.intent, INTENT_DECOMMISSION);
    CHECK_INT(mapdb_replica(&m, t, &ev, block, node, REPLICA_DROP), 0);
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_INTENT, &want), 0);
    /* A clean stop's maintenance ends with the next registration, an operator's does not. */
    want = (struct server_rec){ .maintenance = MAINTENANCE_STOP, .until_ns = 5 };
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_MAINTENANCE, &want), 0);
    CHECK_INT(mapdb_server_put(&m, t, 0, &r, &node), 0);
    CHECK_INT(mapdb_server_get(&m, t, node, &got), 0);
    CHECK_INT(got.intent, INTENT_DECOMMISSIONED);
    CHECK_INT(got.maintenance, MAINTENANCE_NONE);
    want.maintenance = MAINTENANCE_ASKED;
    CHECK_INT(mapdb_server_intend(&m, t, node, INTENT_FIELD_MAINTENANCE, &want), 0);
    CHECK_INT(mapdb_server_put(&m, t, 0, &r, &node), 0);
    CHECK_INT(mapdb_server_get(&m, t, node, &got), 0);
    CHECK_INT(got.maintenance, MAINTENANCE_ASKED);
    CHECK_INT(got.until_ns, 5);
    /* A record of before there were wishes. */
    server_rec_put(&out, &got);
    CHECK_INT(server_rec_get(slice_of(buf, out.len - 10), &got), 0);
    CHECK_INT(got.intent, INTENT_NONE);
    CHECK_INT(server_rec_get(slice_of(buf, out.len - 9), &got), DFS_EDAMAGED);
}

static void scans_go_in_slices(void)
{
    uint64_t all[2] = { 0 };
    uint64_t rest[2] = { 0 };
    int n = 0;

    CHECK_INT(mapdb_each_block(&m, t, 0, count_block, all), 0);
    CHECK(all[1] > 5);
    CHECK_INT(all[0], next_block);
    CHECK_INT(mapdb_each_block(&m, t, next_block, count_block, rest), 0);
    CHECK_INT(rest[1], 1);
    CHECK_INT(mapdb_each_block(&m, t, 0, stop_at_two, &n), 0);
    CHECK_INT(n, 2);
    n = 0;
    CHECK_INT(mapdb_each_block_of(&m, t, 2, 0, stop_at_two, &n), 0);
    CHECK_INT(n, 2);
    rest[1] = 0;
    CHECK_INT(mapdb_each_block_of(&m, t, 77, 0, count_block, rest), 0);
    CHECK_INT(rest[1], 0);
}

static void records_are_stable_and_refuse_damage(void)
{
    static const uint8_t golden[] = {
        1,    2,    1, 3,                   /* format, sealed, stream, as allocated */
        0x00, 0x10, 0, 0,                   /* len */
        9,    0,    0, 0, 0, 0, 0, 0,       /* session */
        0x2a, 0,    0, 0, 0, 0, 0, 0,       /* changed */
        2,    5,    0, 0, 0, 6, 0, 0, 0,    /* nodes */
        1,    2,    0, 4, 0, 0, 0, 0, 0, 0, /* live: 1024 bytes at 2 */
    };
    struct block_rec r = { .state = BLOCK_SEALED,
                           .kind = BLOCK_STREAM,
                           .alloc_want = 3,
                           .node_count = 2,
                           .len = 4096,
                           .session = 9,
                           .changed_ns = 42,
                           .live = { [2] = 1024 },
                           .nodes = { 5, 6 } };
    struct block_rec got;
    struct wire_out out;
    uint8_t bad[sizeof(golden)];

    wire_out_init(&out, 1024);
    block_rec_put(&out, &r);
    CHECK(slice_eq(wire_out_slice(&out), slice_of(golden, sizeof(golden))));
    CHECK_INT(block_rec_get(slice_of(golden, sizeof(golden)), &got), 0);
    CHECK(memcmp(&got, &r, sizeof(r)) == 0);
    for (size_t n = 0; n < sizeof(golden); n++) {
        CHECK_INT(block_rec_get(slice_of(golden, n), &got), DFS_EDAMAGED);
    }
    memcpy(bad, golden, sizeof(bad));
    bad[0] = 2; /* a newer format */
    CHECK_INT(block_rec_get(slice_of(bad, sizeof(bad)), &got), DFS_EDAMAGED);
    memcpy(bad, golden, sizeof(bad));
    bad[1] = 4; /* no such state */
    CHECK_INT(block_rec_get(slice_of(bad, sizeof(bad)), &got), DFS_EDAMAGED);
    memcpy(bad, golden, sizeof(bad));
    bad[34] = 17; /* no such level */
    CHECK_INT(block_rec_get(slice_of(bad, sizeof(bad)), &got), DFS_EDAMAGED);
    wire_out_fini(&out);
}

int main(void)
{
    start();
    tap_run("records are stable and refuse damage", records_are_stable_and_refuse_damage);
    tap_run("alloc makes an open block", alloc_makes_an_open_block);
    tap_run("commit raises the length of one's own block",
            commit_raises_the_length_of_ones_own_block);
    tap_run("a seal drops the bad but never all", a_seal_drops_the_bad_but_never_all);
    tap_run("wanted copies follow live bytes", wanted_copies_follow_live_bytes);
    tap_run("a block without bytes is deleted and forgotten",
            a_block_without_bytes_is_deleted_and_forgotten);
    tap_run("a sealed block waits for its session", a_sealed_block_waits_for_its_session);
    tap_run("replicas come and go", replicas_come_and_go);
    tap_run("servers keep their ids", servers_keep_their_ids);
    tap_run("operators' wishes are kept", operators_wishes_are_kept);
    tap_run("scans go in slices", scans_go_in_slices);
    kv_abort(kv);
    kv_close(kv);
    return tap_done();
}
