/* Volumes that come and go while the store is open. */
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"

#include "replication/store/store.h"
#include "replication/store/volume_list.h"

#include "test/unit/tap.h"

#define BLOCKS 12u
#define LEN    (3 * CHUNK_BYTES + 100)

static const uint8_t cluster[CLUSTER_ID_BYTES] = "0123456789abcdef";
static char dir[256], a[256], b[256], c[256];

static struct store *open_store(const char *volumes)
{
    const struct store_conf conf = { .dir = dir, .volumes = volumes };
    struct store_found found;
    struct store *s = NULL;
    struct why why;

    if (store_open(&conf, &s, &found, &why) != 0 || store_adopt(s, cluster, 7, &why) != 0) {
        printf("# %s\n", why.text);
        exit(1);
    }
    return s;
}

static void add_block(struct store *s, uint64_t block)
{
    static uint8_t data[LEN];
    uint32_t sums[LAYOUT_SUMS_OF(LEN)];
    struct replica *r;

    memset(data, (int)block, sizeof(data));
    rule_make_sums(0, slice_of(data, LEN), sums);
    CHECK_INT(store_write_begin(s, block, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(replica_append(r, 0, slice_of(data, LEN), sums), 0);
    CHECK_INT(replica_seal(r, LEN), 0);
    store_write_end(s, r);
}

/* Whole and right. */
static bool reads(struct store *s, uint64_t block)
{
    static uint8_t got[LEN + 2 * CHUNK_BYTES];
    uint32_t sums[LAYOUT_SUMS_OF(LEN)];
    struct replica_range g = { 0 };
    struct replica *r;
    bool ok = store_get(s, block, &r) == 0;

    if (!ok) {
        return false;
    }
    ok = replica_read(r, 0, LEN, got, sums, &g) == 0 && g.len == LEN && got[0] == (uint8_t)block &&
         rule_check_sums(0, slice_of(got, LEN), sums) == 0;
    store_put(s, r);
    return ok;
}

static bool read_all(struct store *s)
{
    bool ok = true;

    for (uint64_t i = 1; i <= BLOCKS; i++) {
        ok = ok && reads(s, i);
    }
    return ok;
}

/* The volume at this path, or blocks = -1. */
static long blocks_on(struct store *s, const char *path, enum volume_state *ret_state)
{
    static struct store_volume v[LIMIT_VOLUMES];
    size_t n = store_volumes(s, v);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(v[i].path, path) == 0) {
            *ret_state = v[i].state;
            return v[i].blocks;
        }
    }
    return -1;
}

static bool gone_within(struct store *s, const char *path, uint64_t ms)
{
    enum volume_state state;

    for (uint64_t end = clock_mono_ms() + ms; blocks_on(s, path, &state) >= 0;) {
        if (clock_mono_ms() > end) {
            return false;
        }
        CHECK(read_all(s)); /* all the time */
        usleep(20000);
    }
    return true;
}

static void test_come_and_go(void)
{
    char *both = x_printf("%s,%s", a, b);
    struct store *s = open_store(both);
    enum volume_state state;
    struct why why;

    for (uint64_t i = 1; i <= BLOCKS; i++) {
        add_block(s, i);
    }
    CHECK(blocks_on(s, a, &state) > 0 && blocks_on(s, b, &state) > 0);
    CHECK_INT(store_volume_add(s, "relative", &why), DFS_EINVAL);
    CHECK_INT(store_volume_add(s, a, &why), DFS_EEXIST);
    CHECK_INT(store_volume_remove(s, c, &why), DFS_ENOENT);
    CHECK_INT(store_volume_keep(s, b, &why), DFS_EINVAL);
    CHECK_INT(store_volume_add(s, c, &why), 0);
    CHECK_INT(blocks_on(s, c, &state), 0);
    CHECK_INT(state, VOLUME_OK);
    /* Emptied into the others. */
    CHECK_INT(store_volume_remove(s, b, &why), 0);
    CHECK(gone_within(s, b, 30000));
    CHECK(read_all(s));
    CHECK_INT(blocks_on(s, a, &state) + blocks_on(s, c, &state), BLOCKS);
    store_close(s);
    /* The same after a restart, whatever the configuration says. */
    s = open_store(both);
    CHECK_INT(blocks_on(s, b, &state), -1);
    CHECK_INT(blocks_on(s, a, &state) + blocks_on(s, c, &state), BLOCKS);
    CHECK(read_all(s));
    /* One that went may come again. */
    CHECK_INT(store_volume_add(s, b, &why), 0);
    CHECK_INT(store_volume_remove(s, c, &why), 0);
    CHECK(gone_within(s, c, 30000));
    store_close(s);
    s = open_store(both);
    CHECK_INT(blocks_on(s, c, &state), -1);
    CHECK_INT(blocks_on(s, a, &state) + blocks_on(s, b, &state), BLOCKS);
    CHECK(read_all(s));
    store_close(s);
    s = open_store(a); /* what was moved to b is there no more, but the store opens */
    CHECK_INT(store_volume_remove(s, a, &why), DFS_EINVAL);
    CHECK(strstr(why.text, "only volume") != NULL);
    store_close(s);
    free(both);
}

/* What goes wrong at the disk that takes a replica is no word about the replica. */
static void test_target_fails(void)
{
    char *all = x_printf("%s-1,%s-2,%s-3", a, a, a);
    char *first = x_printf("%s-1", a);
    struct store *s = open_store(all);
    static struct store_volume v[LIMIT_VOLUMES];
    enum volume_state state;
    struct replica_bad bad;
    unsigned failed = 0;
    struct why why;
    size_t n;

    for (uint64_t i = 1; i <= BLOCKS && FAULTS_BUILT_IN; i++) {
        add_block(s, i);
    }
    CHECK_INT(fault_arm("replica.move.sync=IO times=1", NULL), 0);
    CHECK_INT(store_volume_remove(s, first, &why), 0);
    for (uint64_t end = clock_mono_ms() + 30000; blocks_on(s, first, &state) >= 0;) {
        CHECK(clock_mono_ms() < end);
        usleep(5000);
    }
    CHECK_INT(fault_arm("", NULL), 0);
    CHECK_INT(store_bad(s, &bad, 1), 0);
    n = store_volumes(s, v);
    for (size_t i = 0; i < n; i++) {
        failed += v[i].state == VOLUME_FAILED;
    }
    CHECK_INT(n, 2);
    CHECK_INT(failed, FAULTS_BUILT_IN ? 1 : 0);
    store_close(s);
    free(first);
    free(all);
}

/* Without block.volumes there is one inside block.data, whatever that is called. */
static void test_own_volume(void)
{
    char *own, *more = x_printf("%s/more", tap_tmp()), *last = x_printf("%s/last", tap_tmp());
    enum volume_state state;
    struct store *s;
    struct why why;

    snprintf(dir, sizeof(dir), "%s/own,[x] #2", tap_tmp());
    own = x_printf("%s/volume", dir);
    s = open_store("");
    CHECK_INT(blocks_on(s, own, &state), 0);
    CHECK_INT(store_volume_add(s, more, &why), 0);
    CHECK_INT(store_volume_remove(s, own, &why), 0);
    for (uint64_t end = clock_mono_ms() + 30000; blocks_on(s, own, &state) >= 0;) {
        if (clock_mono_ms() > end) {
            CHECK(!"the volume is still there");
            break;
        }
        usleep(20000);
    }
    store_close(s);
    /* Removed for good, not only until the list is written again. */
    s = open_store("");
    CHECK_INT(store_volume_add(s, last, &why), 0);
    store_close(s);
    s = open_store("");
    CHECK_INT(blocks_on(s, own, &state), -1);
    CHECK_INT(blocks_on(s, more, &state), 0);
    store_close(s);
    free(own);
    free(more);
    free(last);
}

static void test_list(void)
{
    struct volume_list l = { .count = 0 };
    struct why why;

    CHECK_INT(volume_list_parse("", &l, &why), DFS_EDAMAGED);
    CHECK_INT(volume_list_parse("format 2\n", &l, &why), DFS_EVERSION);
    CHECK_INT(volume_list_parse("format 1\nlost /d\n", &l, &why), DFS_EDAMAGED);
    CHECK_INT(volume_list_parse("format 1\nadded \n", &l, &why), DFS_EDAMAGED);
    CHECK_INT(volume_list_parse("format 1\nadded [ssd]/d 1\nremoved /e\n", &l, &why), 0);
    CHECK(volume_list_has(&l, NOTE_ADDED, "/d 1"));
    CHECK(volume_list_has(&l, NOTE_REMOVED, "[hdd]/e"));
    CHECK(!volume_list_has(&l, NOTE_ADDED, "/e"));
    volume_list_drop(&l, NOTE_ADDED, "/d 1");
    CHECK_INT(l.count, 1);
    volume_list_fini(&l);
}

static void test_specs(void)
{
    static const struct {
        const char *volumes, *label, *why; /* of DFS_ECONFIG; NULL: fine */
    } cases[] = {
        { "", "", NULL },
        { "/a,[ssd]/b/, [hdd] /c", "any-word", NULL },
        { "/a,/b/,/a/", "", "block.volumes: /a is listed twice" },
        { "/a,[ssd]/a", "", "block.volumes: /a is listed twice" },
        { "[ssd/a", "", "block.volumes: \"[ssd/a\": no ] behind the label" },
        { "[a b]/a", "", "\"a b\": not a label: " },
        { "/a", "strict", "block.label: \"strict\": not a label: " },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct why why = { "" };
        int err = volume_spec_check(cases[i].volumes, cases[i].label, &why);

        CHECK_INT(err, cases[i].why != NULL ? DFS_ECONFIG : DFS_OK);
        CHECK(cases[i].why == NULL || strncmp(why.text, cases[i].why, strlen(cases[i].why)) == 0);
    }
}

int main(void)
{
    snprintf(dir, sizeof(dir), "%s/data", tap_tmp());
    snprintf(a, sizeof(a), "%s/a", tap_tmp());
    snprintf(b, sizeof(b), "%s/b", tap_tmp());
    snprintf(c, sizeof(c), "%s/c", tap_tmp());
    tap_run("the list of volumes that came and went", test_list);
    tap_run("a disk that fails as the target of a move condemns no replica", test_target_fails);
    tap_run("volumes as a configuration names them", test_specs);
    tap_run("volumes are added, emptied and let go under readers", test_come_and_go);
    tap_run("a server's own volume", test_own_volume);
    return tap_done();
}
