#include "fs/role/fs_time.h"

#include "test/unit/tap.h"

#define HOUR_US (UINT64_C(3600) * 1000000)
#define HOUR_NS ((int64_t)HOUR_US * 1000)

static void test_wall(void)
{
    struct fs_time t = { 0 };

    CHECK_INT(fs_time_now(&t, HOUR_NS, 50), HOUR_NS);
    CHECK_INT(fs_time_now(&t, HOUR_NS, 50), HOUR_NS + 1); /* never twice the same */
    CHECK_INT(fs_time_now(&t, HOUR_NS + 5000, 55), HOUR_NS + 5000);
    CHECK_INT(fs_time_now(&t, 9 * HOUR_NS, 60), 9 * HOUR_NS); /* forward it jumps along */
}

static void test_set_back(void)
{
    struct fs_time t = { 0 };
    int64_t before = fs_time_now(&t, 10 * HOUR_NS, HOUR_US), now = 0;

    for (uint64_t h = 1; h <= 6; h++) { /* three hours behind, and half as fast */
        now = fs_time_now(&t, (int64_t)(7 + h) * HOUR_NS, (1 + h) * HOUR_US);
        CHECK(now > before);
        before = now;
    }
    CHECK_INT(now, 13 * HOUR_NS);
    now = fs_time_now(&t, 14 * HOUR_NS, 8 * HOUR_US); /* it has caught up */
    CHECK_INT(now, 14 * HOUR_NS);
}

static void test_earlier_leader(void)
{
    struct fs_time t = { 0 };

    fs_time_reach(&t, 5 * HOUR_NS, 100);
    fs_time_reach(&t, 4 * HOUR_NS, 200);
    CHECK_INT(fs_time_now(&t, HOUR_NS, 100), 5 * HOUR_NS + 1);
    CHECK_INT(fs_time_now(&t, HOUR_NS, 100 + HOUR_US), 5 * HOUR_NS + HOUR_NS / 2 + 1);
}

int main(void)
{
    tap_run("it is the wall clock's", test_wall);
    tap_run("a clock that is set back is waited for at half speed", test_set_back);
    tap_run("times of an earlier leader are not given again", test_earlier_leader);
    return tap_done();
}
