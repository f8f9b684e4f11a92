#include "replication/map/members.h"

#include "test/unit/tap.h"

static const struct members_conf conf = { .suspect_ms = 3000,
                                          .dead_ms = 15000,
                                          .report_ms = 60000 };
static struct members t;
static int changes;
static uint8_t last_was, last_now;

static void on_change(void *arg, const struct member *m, uint8_t was)
{
    (void)arg;
    changes++;
    last_was = was;
    last_now = member_state(m);
}

static void volumes(struct wire_out *out, uint32_t count, uint64_t free_bytes, uint8_t state)
{
    wire_out_reset(out);
    for (uint32_t i = 0; i < count; i++) {
        char uuid[16];
        struct volume_info v = { .total = 100 * MIB,
                                 .free = free_bytes,
                                 .used = 7,
                                 .blocks = 3,
                                 .state = state,
                                 .path = slice_str("/v") };

        snprintf(uuid, sizeof(uuid), "v%u", i);
        v.uuid = slice_str(uuid);
        volume_info_put(out, &v);
    }
}

static int register_at(uint32_t node, uint64_t boot, uint64_t now, uint32_t count, uint8_t state)
{
    struct wire_out out;
    uint8_t was;
    int err;

    wire_out_init(&out, 65536);
    volumes(&out, count, 50 * MIB, state);
    err = members_register(&t, node, boot, wire_out_list(&out, count), now, &was);
    wire_out_fini(&out);
    return err;
}

static int beat(uint32_t node, uint64_t boot, uint64_t now, uint32_t count, uint8_t state)
{
    struct server_heartbeat_req req = { .node = node, .boot = boot, .writers = 2 };
    struct wire_out out;
    int err;

    wire_out_init(&out, 65536);
    volumes(&out, count, 40 * MIB, state);
    req.volumes = wire_out_list(&out, count);
    err = members_heartbeat(&t, &req, now);
    wire_out_fini(&out);
    return err;
}

static void steps(uint64_t from, uint64_t to)
{
    for (uint64_t now = from; now <= to; now += 500) {
        members_step(&t, now, on_change, NULL);
    }
}

static void start(void)
{
    struct server_rec rec = { .addr = "a:1", .host = "h1", .rack = "r1" };

    changes = 0;
    members_init(&t, &conf, 1000);
    CHECK_INT(members_load(&t, 7, &rec, 1000), DFS_OK);
    CHECK_INT(members_load(&t, 3, &rec, 1000), DFS_OK);
}

static void test_states(void)
{
    start();
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    CHECK_INT(members_state(&t, 99), MEMBER_DEAD);
    CHECK_INT(register_at(99, 1, 1000, 1, VOLUME_OK), DFS_ENOENT);
    CHECK_INT(beat(7, 5, 1000, 1, VOLUME_OK), DFS_ENOENT); /* never registered */
    CHECK_INT(register_at(7, 5, 1000, 2, VOLUME_OK), DFS_OK);
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    CHECK_INT(beat(7, 6, 1100, 2, VOLUME_OK), DFS_ENOENT); /* another start */
    CHECK_INT(beat(7, 5, 1200, 2, VOLUME_OK), DFS_OK);
    CHECK_INT(members_get(&t, 7)->writers, 2);
    steps(1500, 4100);
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    steps(4500, 4500);
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    CHECK(members_counts(&t, 7));
    CHECK_INT(beat(7, 5, 4600, 2, VOLUME_OK), DFS_OK);
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    steps(5000, 19500);
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    CHECK_INT(members_state(&t, 3), MEMBER_DEAD); /* never heard */
    steps(20000, 20000);
    CHECK_INT(members_state(&t, 7), MEMBER_DEAD);
    CHECK(!members_counts(&t, 7));
    CHECK_INT(last_was, MEMBER_SUSPECT);
    CHECK_INT(last_now, MEMBER_DEAD);
    CHECK_INT(beat(7, 5, 20100, 2, VOLUME_OK), DFS_ENOENT); /* has to register */
    CHECK_INT(register_at(7, 5, 20100, 2, VOLUME_OK), DFS_OK);
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    members_fini(&t);
}

static void test_sleep_is_no_silence(void)
{
    start();
    register_at(7, 5, 1000, 1, VOLUME_OK);
    steps(1500, 2000);
    members_step(&t, 3600000, on_change, NULL);
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    steps(3600500, 3602000);
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    members_fini(&t);
}

static void test_space(void)
{
    const struct member *m;

    start();
    register_at(7, 5, 1000, 3, VOLUME_OK);
    m = members_get(&t, 7);
    CHECK_INT(m->total, 300 * MIB);
    CHECK_INT(m->free, 150 * MIB);
    CHECK_INT(m->roomiest, 50 * MIB);
    CHECK_INT(m->blocks, 9);
    CHECK_INT(beat(7, 5, 1100, 3, VOLUME_FULL), DFS_OK);
    CHECK_INT(m->roomiest, 0);
    CHECK_INT(m->free, 120 * MIB);
    CHECK_INT(beat(7, 5, 1200, 3, VOLUME_FAILED), DFS_OK);
    CHECK_INT(m->total, 0);
    members_fini(&t);
}

static void test_reports(void)
{
    struct member *m;

    start();
    register_at(7, 5, 1000, 2, VOLUME_OK);
    m = members_get(&t, 7);
    CHECK(m->report);
    m->report = false;
    m->report_ms = 1000;
    beat(7, 5, 1100, 2, VOLUME_OK);
    CHECK(!m->report);
    beat(7, 5, 1200, 2, VOLUME_FULL);
    CHECK(!m->report);
    beat(7, 5, 1300, 2, VOLUME_FAILED);
    CHECK(m->report);
    m->report = false;
    beat(7, 5, 1400, 1, VOLUME_FAILED);
    CHECK(m->report);
    m->report = false;
    beat(7, 5, 61000, 1, VOLUME_FAILED);
    CHECK(m->report);
    members_fini(&t);
}

static void test_bye_and_expected(void)
{
    start();
    CHECK(members_expected(&t, 2000));
    register_at(7, 5, 1000, 1, VOLUME_OK);
    CHECK(members_expected(&t, 2000));
    register_at(3, 5, 1000, 1, VOLUME_OK);
    CHECK(!members_expected(&t, 2000));
    CHECK(!members_bye(&t, 7, 4));
    CHECK_INT(members_state(&t, 7), MEMBER_LIVE);
    CHECK(members_bye(&t, 7, 5));
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    CHECK_INT(beat(7, 5, 1100, 1, VOLUME_OK), DFS_ENOENT);
    members_fini(&t);
    start();
    CHECK(!members_expected(&t, 4000));
    members_fini(&t);
}

/* What the record says, at wall-clock time 0 = monotonic time now. */
static bool intend(uint32_t node, uint8_t intent, uint8_t maintenance, int64_t for_ms, uint64_t now)
{
    struct server_rec rec = { .intent = intent,
                              .maintenance = maintenance,
                              .until_ns = for_ms * NS_PER_MS };

    return members_intend(&t, node, &rec, 0, now);
}

static void test_maintenance(void)
{
    start();
    register_at(7, 5, 1000, 1, VOLUME_OK);
    CHECK(member_takes(members_get(&t, 7)));
    CHECK(intend(7, INTENT_NONE, MAINTENANCE_ASKED, 60000, 1000));
    CHECK(!intend(7, INTENT_NONE, MAINTENANCE_ASKED, 60000, 1000));
    CHECK(!intend(99, INTENT_NONE, MAINTENANCE_ASKED, 60000, 1000));
    CHECK(!member_takes(members_get(&t, 7)));
    CHECK_INT(member_reader_state(members_get(&t, 7)), MEMBER_SUSPECT);
    steps(1500, 60500); /* silent all the time */
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    CHECK_INT(members_state(&t, 3), MEMBER_DEAD);
    steps(61000, 61500);
    CHECK_INT(members_state(&t, 7), MEMBER_DEAD);
    /* Back in time: nothing is left of it. */
    register_at(7, 6, 62000, 1, VOLUME_OK);
    CHECK(intend(7, INTENT_NONE, MAINTENANCE_STOP, 60000, 62000));
    CHECK(intend(7, INTENT_NONE, MAINTENANCE_NONE, 0, 62000));
    CHECK(member_takes(members_get(&t, 7)));
    /* One that is over does not begin again at a start of the master. */
    CHECK(!intend(7, INTENT_NONE, MAINTENANCE_ASKED, 0, 62000));
    members_fini(&t);
}

static void test_leaving(void)
{
    struct server_rec rec = { .addr = "b:2", .host = "h1" };

    start();
    register_at(7, 5, 1000, 1, VOLUME_OK);
    CHECK(intend(7, INTENT_DECOMMISSION, MAINTENANCE_NONE, 0, 1000));
    CHECK(members_leaving(&t, 7));
    CHECK(!members_leaving(&t, 3));
    CHECK(!member_takes(members_get(&t, 7)));
    CHECK(members_counts(&t, 7));                       /* a source of copies */
    CHECK_INT(members_load(&t, 7, &rec, 1000), DFS_OK); /* another address, the same wish */
    CHECK(members_leaving(&t, 7));
    members_fini(&t);
}

static void test_find(void)
{
    struct server_rec rec = { .addr = "b:2", .host = "h2" };
    struct member *m = NULL;
    struct why why;

    start();
    CHECK_INT(members_load(&t, 12, &rec, 1000), DFS_OK);
    CHECK_INT(members_find(&t, slice_str("12"), &m, &why), DFS_OK);
    CHECK_INT(m->node, 12);
    CHECK_INT(members_find(&t, slice_str("h2"), &m, &why), DFS_OK);
    CHECK_INT(m->node, 12);
    CHECK_INT(members_find(&t, slice_str("b:2"), &m, &why), DFS_OK);
    CHECK_INT(m->node, 12);
    CHECK_INT(members_find(&t, slice_str("h1"), &m, &why), DFS_EINVAL); /* two of them */
    CHECK(strstr(why.text, "a:1") != NULL);
    CHECK_INT(members_find(&t, slice_str(""), &m, &why), DFS_ENOENT);
    CHECK_INT(members_find(&t, slice_str("99999999999999999999999"), &m, &why), DFS_ENOENT);
    members_fini(&t);
}

/* Heartbeats of eight servers with one volume each; the last one is as told. */
static void beat_all(uint64_t now, uint32_t write_us, uint32_t stuck_ms)
{
    for (uint32_t n = 1; n <= 8; n++) {
        struct server_heartbeat_req req = { .node = n, .boot = 1 };
        struct volume_info v = { .total = GIB, .free = GIB, .state = VOLUME_OK, .write_us = 20000 };
        struct wire_out out;

        if (n == 8) {
            v.write_us = write_us;
            v.stuck_ms = stuck_ms;
        }
        wire_out_init(&out, 4096);
        volume_info_put(&out, &v);
        req.volumes = wire_out_list(&out, 1);
        CHECK_INT(members_heartbeat(&t, &req, now), DFS_OK);
        wire_out_fini(&out);
    }
    members_step(&t, now, on_change, NULL);
}

static void test_trouble(void)
{
    const struct members_conf c = {
        .suspect_ms = 3000, .dead_ms = 15000, .report_ms = 600000, .hung_ms = 5000
    };
    struct server_rec rec = { .addr = "a:1", .host = "h" };
    const struct member *last;
    uint64_t now = 10000;

    members_init(&t, &c, now);
    for (uint32_t n = 1; n <= 8; n++) {
        CHECK_INT(members_load(&t, n, &rec, now), DFS_OK);
        CHECK_INT(register_at(n, 1, now, 1, VOLUME_OK), DFS_OK);
    }
    last = members_get(&t, 8);
    for (int i = 0; i < 20; i++) { /* slower, but not by far */
        beat_all(now += 1000, 100000, 4000);
    }
    CHECK_INT(last->trouble, TROUBLE_NONE);
    for (int i = 0; i < 4; i++) {
        beat_all(now += 1000, 500000, 0);
    }
    CHECK_INT(last->trouble, TROUBLE_NONE); /* not yet */
    beat_all(now += 1000, 500000, 0);
    CHECK_INT(last->trouble, TROUBLE_SLOW);
    CHECK(!member_takes(last));
    CHECK_INT(member_reader_state(last), MEMBER_SUSPECT);
    CHECK_INT(member_state(last), MEMBER_LIVE);
    CHECK(member_takes(members_get(&t, 1)));
    for (int i = 0; i < 29; i++) {
        beat_all(now += 1000, 0, 0);
    }
    CHECK_INT(last->trouble, TROUBLE_SLOW);
    beat_all(now += 1000, 20000, 0);
    CHECK_INT(last->trouble, TROUBLE_NONE);
    CHECK(member_takes(last));
    beat_all(now += 1000, 20000, 5000);
    CHECK_INT(last->trouble, TROUBLE_HUNG);
    CHECK(!member_takes(last));
    for (int i = 0; i < 9; i++) {
        beat_all(now += 1000, 20000, 0);
    }
    CHECK_INT(last->trouble, TROUBLE_HUNG);
    beat_all(now += 1000, 20000, 0);
    CHECK_INT(last->trouble, TROUBLE_NONE);
    members_fini(&t);
}

static void test_bad_volumes(void)
{
    struct wire_list junk = { 3, slice_str("abc") };
    uint8_t was;

    start();
    CHECK_INT(members_register(&t, 7, 5, junk, 1000, &was), DFS_EMALFORMED);
    junk.count = LIMIT_VOLUMES + 1;
    CHECK_INT(members_register(&t, 7, 5, junk, 1000, &was), DFS_EMALFORMED);
    CHECK_INT(members_state(&t, 7), MEMBER_SUSPECT);
    members_fini(&t);
}

static void test_twin(void)
{
    struct server_rec rec = { .uuid = "0123456789abcde", .addr = "a:1", .host = "h1" };
    struct server_rec twin = rec;

    members_init(&t, &conf, 1000);
    CHECK_INT(members_load(&t, 7, &rec, 1000), DFS_OK);
    snprintf(twin.addr, sizeof(twin.addr), "b:1");
    CHECK(members_twin(&t, &twin, 6) == NULL); /* nobody has come yet */
    CHECK_INT(register_at(7, 5, 1000, 1, VOLUME_OK), DFS_OK);
    CHECK(members_twin(&t, &twin, 6) == members_get(&t, 7));
    CHECK(members_twin(&t, &twin, 5) == NULL); /* the same start */
    CHECK(members_twin(&t, &rec, 6) == NULL);  /* the port is its own: it was started again */
    twin.uuid[0]++;
    CHECK(members_twin(&t, &twin, 6) == NULL);
    twin.uuid[0]--;
    CHECK_INT(t.silent, 0);
    steps(1500, 4000);
    CHECK_INT(t.silent, 1);
    CHECK(members_twin(&t, &twin, 6) == NULL); /* silent: it has moved */
    CHECK_INT(register_at(7, 5, 4000, 1, VOLUME_OK), DFS_OK);
    CHECK(members_bye(&t, 7, 5));
    CHECK(members_twin(&t, &twin, 6) == NULL);
    members_fini(&t);
}

int main(void)
{
    tap_run("two servers with one identity", test_twin);
    tap_run("silence makes suspect, then dead; registering revives", test_states);
    tap_run("a pause of this process is not silence of the servers", test_sleep_is_no_silence);
    tap_run("space is summed over volumes that work", test_space);
    tap_run("replicas are asked for when volumes change and now and then", test_reports);
    tap_run("goodbye, and servers that are expected", test_bye_and_expected);
    tap_run("maintenance: not dead before its end", test_maintenance);
    tap_run("a leaving server gets nothing new and stays a source", test_leaving);
    tap_run("operators name servers by id, address or host", test_find);
    tap_run("disks that hang or are slow: by clear rules, and back again", test_trouble);
    tap_run("malformed volumes change nothing", test_bad_volumes);
    return tap_done();
}
