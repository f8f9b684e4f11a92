/* The extent map against a byte array that says for each byte of a file where it is kept. */
#include "fs/client/extmap.h"

#include "cluster/base/base.h"

#include "test/unit/tap.h"

#define FILE_BYTES 40000u

/* Place of a byte as block * 2^32 + offset; 0 = hole. */
static uint64_t model[FILE_BYTES];
static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % below;
}

static void model_insert(const struct extent *e)
{
    for (uint64_t i = 0; i < e->len; i++) {
        model[e->off + i] = (e->block << 32) + e->block_off + i;
    }
}

static void model_punch(uint64_t off, uint64_t len)
{
    for (uint64_t i = off; i < FILE_BYTES && i - off < len; i++) {
        model[i] = 0;
    }
}

/* Walks the map and compares; also: sorted, no neighbours that could be one, count right. */
static bool same(const struct extmap *m)
{
    uint64_t pos = 0;
    uint64_t bytes = 0;
    size_t count = 0;
    struct extent e = { 0 };
    struct extent last = { 0 };

    while (extmap_find(m, pos, &e)) {
        bytes += e.len;
        if (e.off < pos || e.len == 0) {
            return false;
        }
        for (; pos < e.off; pos++) {
            if (model[pos] != 0) {
                return false;
            }
        }
        for (; pos < e.off + e.len; pos++) {
            if (model[pos] != (e.block << 32) + e.block_off + (pos - e.off)) {
                return false;
            }
        }
        if (count > 0 && last.block == e.block && last.off + last.len == e.off &&
            last.block_off + last.len == e.block_off) {
            return false;
        }
        last = e;
        count++;
    }
    for (; pos < FILE_BYTES; pos++) {
        if (model[pos] != 0) {
            return false;
        }
    }
    return count == m->count && bytes == m->bytes &&
           extmap_end(m) == (count == 0 ? 0 : last.off + last.len);
}

static void random_operations(void)
{
    for (uint64_t s = 1; s <= 8; s++) {
        struct extmap m = { 0 };
        uint32_t appended = 0;

        seed = s;
        memset(model, 0, sizeof(model));
        for (int step = 0; step < 6000; step++) {
            uint32_t off = rnd(FILE_BYTES);
            uint32_t max = rnd(10) == 0 ? 5000 : 20;
            uint32_t want = rnd(max);
            uint32_t len = MIN(want, FILE_BYTES - off);

            if (rnd(100) < 80) {
                struct extent e = { off, len, 1 + rnd(2), rnd(4) == 0 ? rnd(1000) : appended };

                appended = e.block_off + len;
                extmap_insert(&m, &e);
                model_insert(&e);
            } else if (rnd(20) == 0) {
                extmap_punch(&m, FILE_BYTES - 1 - off / 8, UINT64_MAX);
                model_punch(FILE_BYTES - 1 - off / 8, UINT64_MAX);
            } else {
                extmap_punch(&m, off, len);
                model_punch(off, len);
            }
            if (step % 500 == 0 && !same(&m)) {
                printf("# seed %d step %d\n", (int)s, step);
                CHECK(false);
                break;
            }
        }
        CHECK(same(&m));
        extmap_clear(&m);
    }
}

static void appends_merge(void)
{
    struct extmap m = { 0 };

    for (uint32_t i = 0; i < 1000; i++) {
        struct extent e = { i * 128u, 128, 7, 4096 + i * 128u };

        extmap_insert(&m, &e);
    }
    CHECK_INT(m.count, 1);
    struct extent gap = { 1000 * 128, 128, 8, 0 };

    extmap_insert(&m, &gap);
    CHECK_INT(m.count, 2);
    /* The gap in the middle closes and three become one. */
    extmap_punch(&m, 1280, 128);
    CHECK_INT(m.count, 3);
    struct extent fill = { 1280, 128, 7, 4096 + 1280 };

    extmap_insert(&m, &fill);
    CHECK_INT(m.count, 2);
    extmap_clear(&m);
    CHECK_INT(extmap_end(&m), 0);
}

static void overlay_wins(void)
{
    struct extmap a = { 0 };
    struct extmap b = { 0 };
    struct extent e;

    extmap_insert(&a, &(struct extent){ 0, 100, 1, 0 });
    extmap_insert(&b, &(struct extent){ 20, 30, 2, 5 });
    extmap_overlay(&a, &b);
    CHECK(extmap_find(&a, 19, &e) && e.block == 1 && e.len == 20);
    CHECK(extmap_find(&a, 20, &e) && e.block == 2 && e.len == 30 && e.block_off == 5);
    CHECK(extmap_find(&a, 50, &e) && e.block == 1 && e.block_off == 50);
    CHECK(!extmap_find(&a, 100, &e));
    extmap_clear(&a);
    extmap_clear(&b);
}

static void many_extents(void)
{
    struct extmap m = { 0 };
    struct extent e;

    seed = 3;
    for (uint32_t i = 0; i < 200000; i++) {
        struct extent x = { (uint64_t)rnd(1u << 30) * 4096, 4096, 1 + rnd(50), rnd(1000) * 8192 };

        extmap_insert(&m, &x);
    }
    uint64_t pos = 0;
    size_t n = 0;

    while (extmap_find(&m, pos, &e)) {
        pos = e.off + e.len;
        n++;
    }
    CHECK_INT(n, m.count);
    CHECK(n > 190000);
    extmap_clear(&m);
}

static void bytes_beside_another_map_are_counted(void)
{
    struct extmap a = { 0 };
    struct extmap b = { 0 };

    CHECK_INT(extmap_beside(&a, &b), 0);
    extmap_insert(&a, &(struct extent){ 10, 20, 1, 0 });
    extmap_insert(&a, &(struct extent){ 40, 10, 1, 100 });
    CHECK_INT(extmap_beside(&a, &b), 30);
    extmap_insert(&b, &(struct extent){ 0, 15, 2, 0 });
    extmap_insert(&b, &(struct extent){ 20, 5, 3, 0 });
    extmap_insert(&b, &(struct extent){ 45, 100, 2, 50 });
    CHECK_INT(extmap_beside(&a, &b), 30 - 5 - 5 - 5);
    CHECK_INT(extmap_beside(&a, &a), 0);
    extmap_clear(&a);
    extmap_clear(&b);
}

int main(void)
{
    tap_run("bytes beside another map are counted", bytes_beside_another_map_are_counted);
    tap_run("random inserts and punches agree with a byte array", random_operations);
    tap_run("extents that continue each other are one", appends_merge);
    tap_run("an overlaid map wins", overlay_wins);
    tap_run("200,000 extents in random order stay findable", many_extents);
    return tap_done();
}
