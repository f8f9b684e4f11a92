#include "replication/map/placement.h"

#include "test/unit/tap.h"

static struct members t;
static struct rng rng;

static void add(uint32_t node, const char *host, const char *rack, uint64_t free_bytes)
{
    struct server_rec rec = { .addr = "x:1" };
    struct volume_info v = { .total = 1000 * GIB, .free = free_bytes, .state = VOLUME_OK };
    struct wire_out out;
    uint8_t was;

    snprintf(rec.host, sizeof(rec.host), "%s", host);
    snprintf(rec.rack, sizeof(rec.rack), "%s", rack);
    wire_out_init(&out, 4096);
    volume_info_put(&out, &v);
    members_load(&t, node, &rec, 0);
    members_register(&t, node, 1, wire_out_list(&out, 1), 0, &was);
    wire_out_fini(&out);
}

static void start(void)
{
    const struct members_conf conf = { .suspect_ms = 3000, .dead_ms = 15000, .report_ms = 60000 };

    members_init(&t, &conf, 0);
    rng_init(&rng, 42);
}

static size_t pick(uint32_t copies, const char *host, uint32_t ret[LIMIT_REPLICATION], int *err)
{
    struct placement_ask ask = { .copies = copies, .bytes = 64 * MIB, .host = slice_str(host) };
    size_t n = 0;

    *err = placement_pick(&t, &ask, &rng, ret, &n);
    return n;
}

static void test_distinct(void)
{
    uint32_t n[LIMIT_REPLICATION];
    int err;

    start();
    add(1, "a", "", 10 * GIB);
    add(2, "b", "", 10 * GIB);
    add(3, "c", "", 10 * GIB);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(pick(3, "", n, &err), 3);
        CHECK(n[0] != n[1] && n[1] != n[2] && n[0] != n[2]);
    }
    CHECK_INT(pick(5, "", n, &err), 3);
    CHECK_INT(err, DFS_OK);
    members_fini(&t);
}

static void test_hosts(void)
{
    uint32_t n[LIMIT_REPLICATION];
    int err;

    start();
    add(1, "a", "", 10 * GIB);
    add(2, "a", "", 10 * GIB);
    add(3, "a", "", 10 * GIB);
    add(4, "b", "", GIB);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(pick(2, "", n, &err), 2);
        CHECK(n[0] == 4 || n[1] == 4);      /* two hosts, though little space on one */
        CHECK_INT(pick(3, "", n, &err), 2); /* never two on one host */
        CHECK(n[0] == 4 || n[1] == 4);
    }
    members_fini(&t);
}

static void test_racks(void)
{
    uint32_t n[LIMIT_REPLICATION];
    int err;

    start();
    for (uint32_t i = 1; i <= 6; i++) {
        char host[2] = { (char)('a' + i), 0 };

        add(i, host, i <= 5 ? "r1" : "r2", 10 * GIB);
    }
    for (int i = 0; i < 100; i++) {
        CHECK_INT(pick(2, "", n, &err), 2);
        CHECK(n[0] == 6 || n[1] == 6);
        CHECK_INT(pick(3, "b", n, &err), 3);
        CHECK_INT(n[0], 1);
        CHECK_INT(n[1], 6);
    }
    members_fini(&t);
}

static void test_local_and_excluded(void)
{
    uint32_t avoid[] = { 1, 3 }, have[] = { 2 }, n[LIMIT_REPLICATION];
    struct placement_ask ask = { .copies = 3,
                                 .bytes = MIB,
                                 .host = slice_str("c"),
                                 .avoid = avoid,
                                 .avoid_count = 2,
                                 .have = have,
                                 .have_count = 1 };
    size_t count;
    int err;

    start();
    for (uint32_t i = 1; i <= 4; i++) {
        char host[2] = { (char)('a' + i - 1), 0 };

        add(i, host, "", 10 * GIB);
    }
    for (int i = 0; i < 50; i++) {
        CHECK_INT(pick(2, "c", n, &err), 2);
        CHECK_INT(n[0], 3);
    }
    CHECK_INT(placement_pick(&t, &ask, &rng, n, &count), DFS_OK);
    CHECK_INT(count, 1);
    CHECK_INT(n[0], 4);
    members_fini(&t);
}

static void test_full_and_none(void)
{
    uint32_t n[LIMIT_REPLICATION];
    int err;

    start();
    CHECK_INT(pick(2, "", n, &err), 0);
    CHECK_INT(err, DFS_ENOSERVERS);
    add(1, "a", "", 1000);
    add(2, "b", "", 1000);
    CHECK_INT(pick(2, "a", n, &err), 0);
    CHECK_INT(err, DFS_ENOSPC);
    add(3, "c", "", 8 * MIB); /* not enough for a whole block, but for most */
    CHECK_INT(pick(2, "", n, &err), 1);
    CHECK_INT(n[0], 3);
    add(4, "d", "", GIB);
    CHECK_INT(pick(1, "", n, &err), 1);
    CHECK_INT(n[0], 4);
    members_fini(&t);
}

static void ignore(void *arg, const struct member *m, uint8_t was)
{
    (void)arg, (void)m, (void)was;
}

static void test_suspect(void)
{
    uint32_t n[LIMIT_REPLICATION];
    int err;

    start();
    add(1, "a", "", GIB);
    for (uint64_t now = 0; now <= 4000; now += 1000) {
        members_step(&t, now, ignore, NULL);
    }
    CHECK_INT(pick(1, "a", n, &err), 0);
    CHECK_INT(err, DFS_ENOSERVERS);
    members_fini(&t);
}

static void test_spread(void)
{
    uint32_t n[LIMIT_REPLICATION], got[4] = { 0 };
    int err;

    start();
    add(1, "a", "", 30 * GIB);
    add(2, "b", "", 30 * GIB);
    add(3, "c", "", 3 * GIB);
    for (int i = 0; i < 2000; i++) {
        pick(1, "", n, &err);
        got[n[0]]++;
        if (i % 100 == 99) {
            for (uint32_t k = 1; k <= 3; k++) {
                members_get(&t, k)->promised = 0;
            }
        }
    }
    CHECK(got[3] > 0 && got[3] < got[1] && got[3] < got[2]);
    CHECK(got[1] > got[2] * 3 / 4 && got[2] > got[1] * 3 / 4);
    members_get(&t, 1)->writers = 1000;
    got[1] = 0;
    for (int i = 0; i < 300; i++) {
        pick(1, "", n, &err);
        got[n[0]]++;
    }
    CHECK(got[1] < 120); /* both draws have to fall on the busy one */
    members_fini(&t);
}

static void test_excess(void)
{
    uint32_t nodes[] = { 1, 2, 3, 4 };
    bool keep[4] = { false };

    start();
    add(1, "a", "r1", 500 * GIB);
    add(2, "b", "r1", 100 * GIB);
    add(3, "c", "r2", 50 * GIB);
    add(4, "c", "r2", 90 * GIB);
    CHECK_INT(placement_excess(&t, nodes, keep, 4, NULL, 4 - 1),
              2); /* host c has two, 3 is the fuller */
    CHECK_INT(placement_excess(&t, nodes, keep, 3, NULL, 3 - 1),
              1); /* r1 has two, 2 is the fuller */
    keep[1] = true;
    CHECK_INT(placement_excess(&t, nodes, keep, 3, NULL, 3 - 1), 0);
    keep[0] = keep[2] = true;
    CHECK_INT(placement_excess(&t, nodes, keep, 3, NULL, 3 - 1), 3);
    members_fini(&t);
}

int main(void)
{
    tap_run("copies are on distinct servers", test_distinct);
    tap_run("distinct hosts as long as there are some", test_hosts);
    tap_run("two racks when there are two", test_racks);
    tap_run("the writer's host first; excluded servers and holders never", test_local_and_excluded);
    tap_run("full servers last, then an error that says so", test_full_and_none);
    tap_run("suspect servers get nothing", test_suspect);
    tap_run("spread by free space and load", test_spread);
    tap_run("the copy that is needed least", test_excess);
    return tap_done();
}
