#include "fs/role/sessions.h"

#include "test/unit/tap.h"

static struct sessions s;

static void test_leases(void)
{
    uint64_t ids[4];

    sessions_init(&s, 30000, 1000);
    sessions_add(&s, 5, 1000);
    sessions_add(&s, 6, 1000);
    CHECK(!sessions_ping(&s, 7, 1000));
    for (uint64_t now = 2000; now <= 30000; now += 1000) {
        CHECK_INT(sessions_expired(&s, now, ids, 4), 0);
    }
    CHECK(sessions_ping(&s, 6, 20000));
    CHECK_INT(sessions_expired(&s, 31000, ids, 4), 1);
    CHECK_INT(ids[0], 5);
    CHECK_INT(sessions_expired(&s, 32000, ids, 4), 1); /* until it is ended */
    sessions_end(&s, 5);
    CHECK_INT(sessions_expired(&s, 33000, ids, 4), 0);
    CHECK_INT(sessions_expired(&s, 50000, ids, 0), 0);
    CHECK_INT(sessions_expired(&s, 51000, ids, 4), 0); /* the pause was ours */
    CHECK_INT(sessions_expired(&s, 66000, ids, 4), 0);
    CHECK_INT(sessions_expired(&s, 67000, ids, 4), 1);
    sessions_fini(&s);
}

static void test_opens(void)
{
    bool fresh = false;

    sessions_init(&s, 30000, 0);
    sessions_add(&s, 1, 0);
    sessions_add(&s, 2, 0);
    CHECK(!sessions_open(&s, 3, 100, &fresh));
    CHECK(sessions_open(&s, 1, 100, &fresh));
    CHECK(fresh);
    CHECK(sessions_open(&s, 1, 100, &fresh));
    CHECK(!fresh);
    CHECK(sessions_open(&s, 2, 100, NULL));
    CHECK(sessions_open(&s, 2, 200, NULL));
    CHECK(sessions_is_open(&s, 100));
    sessions_close(&s, 1, 100);
    sessions_close(&s, 1, 100);
    sessions_close(&s, 1, 200); /* not its own */
    CHECK(sessions_is_open(&s, 100));
    CHECK(sessions_is_open(&s, 200));
    sessions_end(&s, 2);
    CHECK(!sessions_is_open(&s, 100));
    CHECK(!sessions_is_open(&s, 200));
    sessions_open(&s, 1, 7, NULL);
    sessions_fini(&s);
}

int main(void)
{
    tap_run("leases end after silence, not after our own pause", test_leases);
    tap_run("inodes are open as long as some session has them", test_opens);
    return tap_done();
}
