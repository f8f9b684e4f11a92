/* The scrub: pace on virtual time, what counts as damage, and the threads that do it. */
#include "replication/store/scrub.h"

#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "replication/store/scrub_file.h"
#include "replication/store/scrub_plan.h"
#include "replication/store/scrubber.h"

#include "test/unit/tap.h"

static uint8_t cluster[CLUSTER_ID_BYTES] = "0123456789abcdef";

/* ---- pace ---- */

#define DAY_MS UINT64_C(86400000)

/* Virtual ms that a pass over `bytes` takes, in reads of 1 MiB. */
static uint64_t run_pass(struct scrub_plan *p, uint64_t bytes, uint64_t began_ms, uint64_t now_ms)
{
    uint64_t left = bytes;

    while (left != 0) {
        uint64_t rate = scrub_plan_rate(p, now_ms - began_ms, left);
        uint64_t ms = scrub_plan_wait(p, now_ms, rate);

        if (ms != 0) {
            now_ms += ms;
            continue;
        }
        scrub_plan_took(p, (uint32_t)MIN(left, MIB));
        left -= MIN(left, MIB);
    }
    return now_ms - began_ms;
}

static void test_pass_length(void)
{
    static const uint64_t sizes[] = { 10 * MIB, 1 * GIB, 300 * GIB, 16384 * GIB };

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct scrub_plan p;
        uint64_t took;

        scrub_plan_init(&p, 14 * DAY_MS, 1, 5000);
        took = run_pass(&p, sizes[i], 5000, 5000);
        CHECK(took <= 7 * DAY_MS);
        CHECK(took >= 5 * DAY_MS);
    }
}

static void test_pass_after_a_pause(void)
{
    struct scrub_plan p;

    /* off for six of seven days: the rest is read in the last one */
    scrub_plan_init(&p, 14 * DAY_MS, 1, 6 * DAY_MS);
    CHECK(run_pass(&p, 100 * GIB, 0, 6 * DAY_MS) <= 7 * DAY_MS);
    /* off for a year: as soon as possible, but not at once */
    scrub_plan_init(&p, 14 * DAY_MS, 1, 365 * DAY_MS);
    CHECK(run_pass(&p, 100 * GIB, 0, 365 * DAY_MS) - 365 * DAY_MS <= DAY_MS / 2);
    CHECK(scrub_plan_rate(&p, 365 * DAY_MS, 100 * GIB) < 10 * MIB);
}

static void test_ordered(void)
{
    struct scrub_plan p;
    uint64_t took;

    scrub_plan_init(&p, 14 * DAY_MS, 100 * MIB, 0);
    p.ordered = true;
    took = run_pass(&p, 10 * GIB, 0, 0);
    CHECK(took >= 100000 && took <= 110000);
}

static void test_extremes(void)
{
    struct scrub_plan p;

    scrub_plan_init(&p, 1000, UINT64_MAX, 0);
    CHECK_INT(scrub_plan_rate(&p, 0, 0), 1);
    CHECK(scrub_plan_rate(&p, UINT64_MAX, UINT64_MAX / 2) > GIB);
    p.ordered = true;
    CHECK_INT(scrub_plan_wait(&p, 1, scrub_plan_rate(&p, 0, 1)), 0);
    CHECK_INT(scrub_plan_wait(&p, 0, 1), 0); /* a clock that goes back */
    scrub_plan_took(&p, UINT32_MAX);
    CHECK(scrub_plan_wait(&p, 1, 1) <= 60000);
}

/* ---- what is remembered ---- */

static void test_file(void)
{
    struct scrub_state s = { 1, 2, 3, 4, 5, UINT64_MAX, 1 }, got;
    static const char *const wrong[] = {
        "",
        "format 2\n",
        "format 1\ncursor x\n",
        "format 1\ncursor 1",
        "format 1\nother 1\n",
        "format 1\ncursor 99999999999999999999999\n",
        "format 1\ncursor 1 \n",
    };

    CHECK_INT(scrub_file_save(tap_tmp(), &s, NULL), 0);
    scrub_file_load(tap_tmp(), &got);
    CHECK(memcmp(&s, &got, sizeof(s)) == 0);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        CHECK(!scrub_file_parse(wrong[i], &got));
    }
    scrub_file_load("/nowhere", &got);
    CHECK_INT(got.cursor, 0);
    CHECK(scrub_file_parse("format 1\n", &got));
}

/* ---- on a real store ---- */

static struct store *open_store(const char *name)
{
    char *dir = x_printf("%s/%s", tap_tmp(), name);
    struct store_conf conf = { .dir = dir, .volumes = "" };
    struct store_found found;
    struct store *s = NULL;
    struct why why = { "" };
    int err = store_open(&conf, &s, &found, &why);

    CHECK_INT(err, 0);
    CHECK_INT(store_adopt(s, cluster, 7, &why), 0);
    free(dir);
    return s;
}

/* A replica of len bytes; sealed and on disk, or left open with its writer. */
static struct replica *make(struct store *s, uint64_t block, uint32_t len, bool sealed)
{
    uint8_t *p = x_alloc(MAX(len, 1));
    uint32_t *sums = x_alloc(LAYOUT_SUMS_OF(len) * sizeof(*sums));
    struct replica *r = NULL;

    memset(p, (int)block, len);
    CHECK_INT(store_write_begin(s, block, 0, 0, SLICE_EMPTY, &r), 0);
    rule_make_sums(0, slice_of(p, len), sums);
    if (len != 0) {
        CHECK_INT(replica_append(r, 0, slice_of(p, len), sums), 0);
    }
    if (sealed) {
        CHECK_INT(replica_seal(r, len), 0);
    }
    CHECK_INT(replica_sync(r, len), 0);
    free(sums);
    free(p);
    if (sealed) {
        store_write_end(s, r);
        r = NULL;
        CHECK_INT(store_get(s, block, &r), 0);
    }
    return r;
}

static void flip(const struct replica *r, uint64_t at)
{
    char path[REPLICA_PATH_MAX];
    int fd = open(volume_replica_path(r->vol, r->block, path), O_RDWR | O_CLOEXEC);
    uint8_t b;

    CHECK_INT(io_pread(fd, &b, 1, at), 0);
    b ^= 4;
    CHECK_INT(io_pwrite(fd, &b, 1, at), 0);
    io_close(fd);
}

/* Every byte of the file has a meaning or is known to be zero. */
static void test_damage(void)
{
    struct store *s = open_store("damage");
    struct replica *r = make(s, 1, LAYOUT_GROUP_BYTES + 10000, true);
    uint64_t size = layout_file_bytes(r->len);
    static const uint64_t where[] = { 0,   9,    12,   40,   47,   48,   511,  512,   527,
                                      600, 1024, 1536, 4095, 4096, 8191, 8192, 100000 };
    char path[REPLICA_PATH_MAX];

    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(where) + 3; i++) {
        uint64_t at = i < ARRAY_LEN(where) ? where[i]
                      : i == ARRAY_LEN(where)
                          ? size - 1
                          : layout_sum_at(LAYOUT_GROUP_CHUNKS) + (i - ARRAY_LEN(where)) * 8;

        flip(r, at);
        CHECK_INT(scrub_replica(r, NULL, NULL), DFS_ECHECKSUM);
        flip(r, at);
    }
    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    volume_replica_path(r->vol, r->block, path);
    CHECK_INT(truncate(path, (off_t)size + 1), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_EOFFSET);
    CHECK_INT(truncate(path, (off_t)size - 1), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_EOFFSET);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_ENOBLOCK);
    store_put(s, r);
    r = make(s, 2, 0, true);
    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    store_put(s, r);
    store_close(s);
}

static void test_open_one(void)
{
    struct store *s = open_store("open");
    struct replica *r = make(s, 1, 10000, false);

    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    flip(r, layout_data_at(9000)); /* in the chunk that may still grow: nobody's business yet */
    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    flip(r, layout_data_at(9000));
    flip(r, layout_data_at(5000));
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_ECHECKSUM);
    flip(r, layout_data_at(5000));
    CHECK_INT(replica_seal(r, 4097), 0); /* cut: what is behind is cleared */
    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    CHECK_INT(store_delete(s, 1), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_EAGAIN);
    store_write_end(s, r);
    store_close(s);
}

/* A volume whose disk went away is failed; it does not lose its replicas one by one. */
static void test_unmounted(void)
{
    struct store *s = open_store("unmounted");
    struct replica *r = make(s, 1, 5000, true);
    char path[REPLICA_PATH_MAX];

    CHECK_INT(unlink(volume_replica_path(r->vol, r->block, path)), 0);
    snprintf(path, sizeof(path), "%s/dfs-volume", r->vol->path);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), DFS_EVOLUME);
    CHECK(atomic_load(&r->vol->failed));
    store_put(s, r);
    store_close(s);
}

static bool resting(struct scrubber *sc, uint64_t order)
{
    struct scrub_progress p[LIMIT_VOLUMES];

    return scrubber_progress(sc, p) == 1 && p[0].resting && p[0].order >= order;
}

static bool wait_resting(struct scrubber *sc, uint64_t order)
{
    uint64_t end = clock_mono_ms() + 20000;

    while (!resting(sc, order) && clock_mono_ms() < end) {
        usleep(5000);
    }
    return resting(sc, order);
}

static void test_passes(void)
{
    struct store *s = open_store("passes");
    struct scrubber_conf conf = { .store = s, .period_ms = 14 * DAY_MS, .ceiling = GIB };
    struct scrubber *sc;
    struct scrub_progress p[LIMIT_VOLUMES];
    struct replica *r = NULL;
    struct replica_bad bad[4];

    for (uint64_t block = 1; block <= 40; block++) {
        r = make(s, block, 20000, true);
        if (block == 17) {
            flip(r, 9000);
        }
        store_put(s, r);
    }
    sc = scrubber_start(&conf);
    scrubber_order(sc, 5);
    CHECK(wait_resting(sc, 5));
    CHECK_INT(scrubber_progress(sc, p), 1);
    CHECK_INT(p[0].found, 1);
    CHECK(p[0].done == 40 * layout_file_bytes(20000) && p[0].ended_ms != 0);
    CHECK_INT(store_bad(s, bad, 4), 1);
    CHECK(bad[0].block == 17 && bad[0].status == DFS_ECHECKSUM);
    store_bad_told(s, 1);
    store_tell_damaged(s); /* to a master that started anew */
    CHECK_INT(store_bad(s, bad, 4), 1);
    store_bad_told(s, 1);
    CHECK_INT(store_get(s, 33, &r), 0);
    flip(r, 9000);
    store_put(s, r);
    scrubber_order(sc, 5); /* that order again */
    CHECK(resting(sc, 5));
    CHECK(scrubber_check(sc, 33));
    while (scrubber_waiting(sc) != 0) {
        usleep(1000);
    }
    CHECK_INT(store_bad(s, bad, 4), 1);
    CHECK_INT(bad[0].block, 33);
    scrubber_stop(sc);
    scrubber_free(sc);
    sc = scrubber_start(&conf); /* the pass stays done */
    CHECK(resting(sc, 5));
    CHECK_INT(scrubber_progress(sc, p), 1);
    CHECK(p[0].ended_ms != 0 && p[0].found >= 2);
    scrubber_stop(sc);
    scrubber_free(sc);
    store_close(s);
}

/* One that was let go is not waited for, and not told twice when it comes again. */
static void test_volume_goes(void)
{
    struct store *s = open_store("goes");
    struct scrubber_conf conf = { .store = s, .period_ms = 14 * DAY_MS, .ceiling = GIB };
    struct scrubber *sc = scrubber_start(&conf);
    char *more = x_printf("%s/more", tap_tmp());
    struct scrub_progress p[LIMIT_VOLUMES];
    uint64_t end = clock_mono_ms() + 20000;
    struct why why;

    for (int i = 0; i < 2; i++) {
        CHECK_INT(store_volume_add(s, more, &why), 0);
        scrubber_look(sc);
        CHECK_INT(scrubber_progress(sc, p), 2);
        CHECK_INT(store_volume_remove(s, more, &why), 0);
        while (scrubber_progress(sc, p) != 1 && clock_mono_ms() < end) {
            usleep(5000);
        }
        CHECK_INT(scrubber_progress(sc, p), 1);
    }
    scrubber_order(sc, 5);
    CHECK(wait_resting(sc, 5));
    scrubber_stop(sc);
    scrubber_free(sc);
    store_close(s);
    free(more);
}

int main(void)
{
    tap_run("a pass takes no more than half the period, however much there is", test_pass_length);
    tap_run("time that a server was off is made up for", test_pass_after_a_pause);
    tap_run("an ordered pass keeps to its ceiling", test_ordered);
    tap_run("nothing overflows", test_extremes);
    tap_run("the position survives, a damaged file costs a pass", test_file);
    tap_run("every flipped bit, lost file and wrong length is found", test_damage);
    tap_run("of an open replica what may change is left alone", test_open_one);
    tap_run("an unmounted volume fails as a whole", test_unmounted);
    tap_run("passes find damage, rest, take orders and go on after a restart", test_passes);
    tap_run("a volume that was let go is not waited for", test_volume_goes);
    return tap_done();
}
