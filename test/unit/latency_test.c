#include "replication/store/latency.h"

#include "test/unit/tap.h"

#define MS UINT64_C(1000)

static void test_means(void)
{
    struct latency l = { 0 };
    struct latency_op op;
    uint64_t now = 1000 * MS;

    CHECK_INT(latency_mean_us(&l, LATENCY_READ, now), 0);
    for (int i = 0; i < 50; i++) {
        op = latency_begin(&l, now);
        now += 2 * MS;
        latency_end(&l, LATENCY_READ, &op, now);
    }
    CHECK_INT(latency_mean_us(&l, LATENCY_READ, now), 2000);
    CHECK_INT(latency_mean_us(&l, LATENCY_WRITE, now), 0);
    for (int i = 0; i < 50; i++) {
        op = latency_begin(&l, now);
        now += 100 * MS;
        latency_end(&l, LATENCY_READ, &op, now);
    }
    CHECK(latency_mean_us(&l, LATENCY_READ, now) > 90000);
    CHECK_INT(latency_mean_us(&l, LATENCY_READ, now + LATENCY_FADE_US), 0);
}

static void test_stuck(void)
{
    struct latency l = { 0 };
    struct latency_op first, others[LATENCY_OPS];

    first = latency_begin(&l, 10 * MS);
    for (uint32_t i = 0; i < LATENCY_OPS; i++) { /* the last one is not followed */
        others[i] = latency_begin(&l, 20 * MS);
    }
    CHECK_INT(others[LATENCY_OPS - 1].slot, LATENCY_OPS);
    CHECK_INT(latency_stuck_us(&l, 500 * MS), 490 * MS);
    latency_end(&l, LATENCY_SYNC, &first, 500 * MS);
    CHECK_INT(latency_stuck_us(&l, 520 * MS), 500 * MS);
    for (uint32_t i = 0; i < LATENCY_OPS; i++) {
        latency_end(&l, LATENCY_SYNC, &others[i], 600 * MS);
    }
    CHECK_INT(latency_stuck_us(&l, 700 * MS), 0);
}

int main(void)
{
    tap_run("means follow, and fade", test_means);
    tap_run("the oldest operation that has not ended", test_stuck);
    return tap_done();
}
