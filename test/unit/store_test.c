/* The store: several volumes, who they belong to, full and broken ones, reports. */
#include "replication/store/store.h"

#include <fcntl.h>
#include <pthread.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/scrub.h"

#include "test/unit/tap.h"

static uint8_t cluster[CLUSTER_ID_BYTES] = "0123456789abcdef";
static uint8_t other[CLUSTER_ID_BYTES] = "fedcba9876543210";

/* A store in <tmp>/<name>; volumes: names below it, comma separated. */
static int open_in(const char *name, const char *volumes, uint64_t reserve, struct store **ret,
                   struct why *why)
{
    char dir[128], list[512] = "";
    struct store_conf conf = { .dir = dir, .volumes = list, .reserve = reserve };
    struct store_found found;
    char *copy = x_strdup(volumes), *save = NULL;

    snprintf(dir, sizeof(dir), "%s/%s", tap_tmp(), name);
    for (char *v = strtok_r(copy, ",", &save); v != NULL; v = strtok_r(NULL, ",", &save)) {
        size_t n = strlen(list);

        snprintf(list + n, sizeof(list) - n, "%s%s/%s", n != 0 ? ", " : "", tap_tmp(), v);
    }
    free(copy);
    why->text[0] = '\0';
    return store_open(&conf, ret, &found, why);
}

static struct store *open_ok(const char *name, const char *volumes)
{
    struct store *s = NULL;
    struct why why;
    int err = open_in(name, volumes, 0, &s, &why);

    CHECK_INT(err, 0);
    if (err != 0) {
        printf("# %s\n", why.text);
        exit(1);
    }
    CHECK_INT(store_adopt(s, cluster, 7, &why), 0);
    return s;
}

static int append(struct replica *r, uint32_t off, uint32_t len)
{
    uint8_t *p = x_alloc(len);
    uint32_t *sums = x_alloc(LAYOUT_SUMS_OF(len) * sizeof(*sums));
    int err;

    memset(p, (int)r->block, len);
    rule_make_sums(off, slice_of(p, len), sums);
    err = replica_append(r, off, slice_of(p, len), sums);
    free(p);
    free(sums);
    return err;
}

static int add(struct store *s, uint64_t block, uint32_t len)
{
    struct replica *r;
    int err = store_write_begin(s, block, 0, 0, SLICE_EMPTY, &r);

    if (err != 0) {
        return err;
    }
    err = append(r, 0, len);
    if (err == 0) {
        err = replica_seal(r, len);
    }
    store_write_end(s, r);
    return err;
}

static long length(struct store *s, uint64_t block)
{
    struct replica *r;
    long len;

    if (store_get(s, block, &r) != 0) {
        return -1;
    }
    len = replica_look(r).len;
    store_put(s, r);
    return len;
}

static void shell(const char *line)
{
    char *cmd = x_printf("cd '%s' && %s", tap_tmp(), line);

    CHECK_INT(system(cmd), 0);
    free(cmd);
}

/* ---- volumes ---- */

static void test_several(void)
{
    struct store_volume v[LIMIT_VOLUMES];
    struct store *s = open_ok("several", "va,vb,vc");

    for (uint64_t b = 1; b <= 30; b++) {
        CHECK_INT(add(s, b, 1000 + (uint32_t)b), 0);
    }
    CHECK_INT(store_volumes(s, v), 3);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(v[i].blocks, 10);
        CHECK_INT(v[i].state, VOLUME_OK);
        CHECK(v[i].used > 10000 && v[i].total > v[i].free_bytes);
    }
    CHECK_INT(store_delete(s, 3), 0);
    CHECK_INT(store_delete(s, 3), 0);
    store_close(s);
    s = open_ok("several", "va,vb,vc");
    CHECK_INT(length(s, 3), -1);
    CHECK_INT(length(s, 4), 1004);
    CHECK_INT(store_identity(s)->node, 7);
    store_close(s);
}

static void refused(const char *name, const char *volumes, uint64_t reserve, int want,
                    const char *words)
{
    struct store *s = NULL;
    struct why why;

    CHECK_INT(open_in(name, volumes, reserve, &s, &why), want);
    CHECK(s == NULL);
    if (strstr(why.text, words) == NULL) {
        printf("# \"%s\" in \"%s\"\n", words, why.text);
        CHECK(strstr(why.text, words) != NULL);
    }
}

static void test_refused(void)
{
    struct store *s = open_ok("owner", "owned");
    struct why why;

    refused("owner", "owned", 0, DFS_EBUSY, "a running block server uses it");
    refused("thief", "owned", 0, DFS_EBUSY, "owned: a running block server uses it");
    CHECK_INT(store_adopt(s, other, 7, &why), DFS_EWRONGCLUSTER);
    store_close(s);
    s = open_ok("thief", "thiefs");
    store_close(s);
    shell("sed -i 's/^cluster .*/cluster -/' owned/dfs-volume");
    refused("thief", "thiefs,owned", 0, DFS_EWRONGCLUSTER, "belongs to another block server");
    shell("sed -i 's/^cluster .*/cluster 00000000000000000000000000000000/' owned/dfs-volume");
    refused("owner", "owned", 0, DFS_EWRONGCLUSTER, "belongs to another cluster");
    refused("twice", "vt,vt", 0, DFS_ECONFIG, "listed twice");
    refused("full", "vf", UINT64_C(1) << 60, DFS_ENOSPC, "full");
    shell("touch file");
    refused("nodir", "file", 0, DFS_ENOTDIR, "file");
    shell("echo nonsense > thiefs/dfs-volume");
    refused("thief", "thiefs", 0, DFS_EDAMAGED, "dfs-volume");
    shell("sed -i 's/^format 1/format 2/' thief/dfs-server");
    refused("thief", "thiefs", 0, DFS_EVERSION, "newer");
}

static void test_moved(void)
{
    struct store *s = open_ok("from", "vm1,vm2");
    uint8_t was[UUID_BYTES];

    memcpy(was, store_identity(s)->server, UUID_BYTES);
    for (uint64_t b = 1; b <= 10; b++) {
        CHECK_INT(add(s, b, 1000), 0);
    }
    store_close(s);
    s = open_ok("to", "vt1");
    CHECK(memcmp(was, store_identity(s)->server, UUID_BYTES) != 0);
    CHECK_INT(add(s, 100, 1000), 0);
    store_close(s);
    /* With all that is on it, once and for all. */
    s = open_ok("to", "vt1,vm2");
    CHECK(memcmp(was, store_identity(s)->server, UUID_BYTES) != 0);
    CHECK_INT(length(s, 100), 1000);
    CHECK_INT((length(s, 1) == 1000) + (length(s, 2) == 1000), 1);
    store_close(s);
    s = open_ok("from", "vm1"); /* goes on with what it has */
    CHECK_INT((length(s, 1) == 1000) + (length(s, 2) == 1000), 1);
    store_close(s);
}

/* Opens without its first volume, and writes nothing to where that should be. */
static void without_first(void)
{
    struct store_volume v[LIMIT_VOLUMES];
    struct store *s = open_ok("gone", "vg1,vg2");

    CHECK_INT(store_volumes(s, v), 2);
    CHECK_INT(v[0].state, VOLUME_FAILED);
    CHECK(strstr(v[0].failure.text, "is its disk mounted?") != NULL);
    CHECK_INT(v[1].state, VOLUME_OK);
    for (uint64_t b = 1; b <= 10; b++) {
        CHECK_INT((length(s, b) == 1000) + (length(s, b) < 0), 1);
    }
    CHECK_INT((length(s, 1) == 1000) + (length(s, 2) == 1000), 1);
    CHECK_INT(add(s, 100, 10), 0);
    CHECK_INT(store_delete(s, 100), 0);
    store_close(s);
    shell("! ls vg1/* 2>/dev/null");
}

static void test_unmounted(void)
{
    struct store *s = open_ok("gone", "vg1,vg2");

    for (uint64_t b = 1; b <= 10; b++) {
        CHECK_INT(add(s, b, 1000), 0);
    }
    store_close(s);
    shell("mv vg1 vg1.away && mkdir vg1");
    without_first();
    shell("rmdir vg1");
    without_first();
    shell("mv vg2 vg2.away");
    refused("gone", "vg1,vg2", 0, DFS_ENOENT, "is its disk mounted?");
    shell("mv vg2.away vg2; mv vg1.away vg1");
    s = open_ok("gone", "vg1,vg2");
    for (uint64_t b = 1; b <= 10; b++) {
        CHECK_INT(length(s, b), 1000);
    }
    store_close(s);
    /* A new one is a word of those who start it. */
    shell("touch vg3");
    refused("gone", "vg1,vg2,vg3", 0, DFS_ENOTDIR, "vg3");
}

static void test_lost_identity(void)
{
    uint8_t uuid[UUID_BYTES];
    struct store *s = open_ok("lost", "vl");

    memcpy(uuid, store_identity(s)->server, sizeof(uuid));
    CHECK_INT(add(s, 5, 500), 0);
    store_close(s);
    shell("rm lost/dfs-server");
    s = open_ok("lost", "vl");
    CHECK(memcmp(uuid, store_identity(s)->server, sizeof(uuid)) == 0);
    CHECK_INT(length(s, 5), 500);
    store_close(s);
}

/* ---- full and failed ---- */

static void test_reserve(void)
{
    struct store *s = open_ok("reserve", "vr");
    struct replica *r;
    struct why why;

    CHECK_INT(add(s, 1, 100), 0);
    store_close(s);
    s = NULL;
    /* The same volume, with a reserve that is larger than the disk: it serves and takes nothing. */
    CHECK_INT(open_in("reserve", "vr", UINT64_C(1) << 60, &s, &why), 0);
    CHECK_INT(length(s, 1), 100);
    CHECK_INT(store_write_begin(s, 2, 0, 0, SLICE_EMPTY, &r), DFS_ENOSPC);
    CHECK_INT(length(s, 2), -1);
    store_close(s);
}

static void test_full_under_way(void)
{
    struct store *s = open_ok("fills", "vfull");
    struct replica *r;

    if (!FAULTS_BUILT_IN) {
        store_close(s);
        return;
    }
    CHECK_INT(store_write_begin(s, 1, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 5000), 0);
    CHECK_INT(fault_arm("replica.append.sums=NOSPC times=1", NULL), 0);
    CHECK_INT(append(r, 5000, 5000), DFS_ENOSPC);
    CHECK_INT(replica_look(r).len, 5000);
    CHECK_INT(append(r, 5000, 100), 0);
    CHECK_INT(replica_sync(r, 5100), 0);
    store_write_end(s, r);
    store_close(s);
    s = open_ok("fills", "vfull");
    CHECK_INT(length(s, 1), 5100);
    store_close(s);
}

static void test_failed_volume(void)
{
    static const char *const points[] = { "replica.append.data", "replica.sync",
                                          "replica.seal.header", "replica.create.header" };
    struct store_volume v[LIMIT_VOLUMES];

    for (unsigned i = 0; i < ARRAY_LEN(points) && FAULTS_BUILT_IN; i++) {
        char name[16], volumes[64], spec[64];
        struct range_digest *d;
        struct replica *r;
        struct store *s;
        unsigned failed = 0, left = 0;

        snprintf(name, sizeof(name), "fail%u", i);
        snprintf(volumes, sizeof(volumes), "vf%ua,vf%ub", i, i);
        snprintf(spec, sizeof(spec), "%s=IO times=1", points[i]);
        s = open_ok(name, volumes);
        for (uint64_t b = 1; b <= 10; b++) {
            CHECK_INT(add(s, b, 4000), 0);
        }
        CHECK_INT(fault_arm(spec, NULL), 0);
        if (i == 3) {
            /* A creation goes on to the other volume. */
            CHECK_INT(add(s, 11, 10), 0);
        } else {
            CHECK_INT(store_write_begin(s, 11, 0, 0, SLICE_EMPTY, &r), 0);
            CHECK_INT(append(r, 0, 10), i == 0 ? DFS_EVOLUME : 0);
            CHECK_INT(replica_sync(r, 10), i < 2 ? DFS_EVOLUME : 0);
            CHECK_INT(replica_seal(r, 0), DFS_EVOLUME);
            store_write_end(s, r);
        }
        CHECK_INT(fault_arm("", NULL), 0);
        CHECK_INT(store_volumes(s, v), 2);
        for (unsigned k = 0; k < 2; k++) {
            failed += v[k].state == VOLUME_FAILED ? 1 : 0;
            CHECK((v[k].state == VOLUME_FAILED) == (v[k].failure.text[0] != '\0'));
        }
        CHECK_INT(failed, 1);
        CHECK_INT(store_digests(s, &d), 1);
        CHECK_INT(d[0].count, i == 3 ? 6 : 5);
        free(d);
        for (uint64_t b = 1; b <= 10; b++) {
            left += length(s, b) == 4000 ? 1 : 0;
            /* What is lost here can be copied back to the volume that is left. */
            if (length(s, b) < 0) {
                CHECK_INT(add(s, b, 4000), 0);
            }
        }
        CHECK_INT(left, 5);
        store_close(s);
    }
}

static void test_unreadable(void)
{
    uint8_t data[PACKET_BYTES];
    uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    struct store_volume v[LIMIT_VOLUMES];
    struct replica_range g;
    struct replica *r;
    struct store *s = open_ok("unread", "vu");

    if (!FAULTS_BUILT_IN) {
        store_close(s);
        return;
    }
    CHECK_INT(add(s, 1, 4000), 0);
    CHECK_INT(store_get(s, 1, &r), 0);
    CHECK_INT(fault_arm("replica.read=IO", NULL), 0);
    CHECK_INT(replica_read(r, 0, 100, data, sums, &g), DFS_EIO);
    CHECK_INT(store_volumes(s, v), 1);
    CHECK_INT(v[0].state, VOLUME_OK);
    CHECK_INT(v[0].errors, 1);
    /* Its reader comes again and again. */
    for (int i = 0; i < 10; i++) {
        CHECK_INT(replica_read(r, 0, 100, data, sums, &g), DFS_EIO);
    }
    CHECK_INT(store_volumes(s, v), 1);
    CHECK_INT(v[0].state, VOLUME_OK);
    store_put(s, r);
    for (uint64_t b = 2; b <= 10; b++) {
        CHECK_INT(add(s, b, 4000), b <= 8 ? 0 : DFS_EVOLUME);
        if (b <= 8) {
            CHECK_INT(store_get(s, b, &r), 0);
            CHECK(replica_read(r, 0, 100, data, sums, &g) != 0);
            store_put(s, r);
        }
    }
    CHECK_INT(fault_arm("", NULL), 0);
    CHECK_INT(store_volumes(s, v), 1);
    CHECK_INT(v[0].state, VOLUME_FAILED);
    store_close(s);
}

/* ---- writers, copies, reports ---- */

static void *leave_later(void *arg)
{
    struct replica **r = arg;

    usleep(50000);
    store_write_end((struct store *)r[1], r[0]);
    return NULL;
}

static void test_one_writer(void)
{
    struct store *s = open_ok("writers", "vw");
    struct replica *a[2], *b;
    pthread_t t;

    CHECK_INT(store_write_begin(s, 1, 5, 0, SLICE_EMPTY, &b), DFS_ENOBLOCK);
    CHECK_INT(store_write_begin(s, 1, 0, 0, SLICE_EMPTY, &a[0]), 0);
    CHECK_INT(append(a[0], 0, 10), 0);
    a[1] = (struct replica *)s;
    CHECK_INT(pthread_create(&t, NULL, leave_later, a), 0);
    /* Waits for the first to leave. */
    CHECK_INT(store_write_begin(s, 1, 10, 0, SLICE_EMPTY, &b), 0);
    pthread_join(t, NULL);
    CHECK_INT(replica_seal(b, 10), 0);
    store_write_end(s, b);
    CHECK_INT(store_write_begin(s, 1, 10, 0, SLICE_EMPTY, &b), DFS_ESEALED);
    CHECK_INT(store_write_begin(s, 1, 0, WRITE_COPY, SLICE_EMPTY, &b), DFS_EEXIST);
    store_close(s);
}

static void *delete_two(void *arg)
{
    CHECK_INT(store_delete(arg, 2), 0);
    return NULL;
}

static void test_copies(void)
{
    struct store *s = open_ok("copies", "vc1");
    struct range_digest *d = NULL;
    struct replica *r;

    CHECK_INT(store_write_begin(s, 1, 0, WRITE_COPY, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 10), 0);
    CHECK_INT(store_digests(s, &d), 0);
    free(d);
    store_write_end(s, r);
    CHECK_INT(length(s, 1), -1);
    CHECK_INT(store_write_begin(s, 1, 0, WRITE_COPY, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 10), 0);
    CHECK_INT(replica_seal(r, 10), 0);
    store_write_end(s, r);
    CHECK_INT(length(s, 1), 10);
    store_close(s);
}

/* The file of the one that goes has the name of the one that comes. */
static void test_copy_after_copy(void)
{
    struct store *s = open_ok("again", "va1");
    struct replica *a[2], *b;
    pthread_t t;

    CHECK_INT(store_write_begin(s, 1, 0, WRITE_COPY, SLICE_EMPTY, &a[0]), 0);
    a[1] = (struct replica *)s;
    CHECK_INT(fault_arm("replica.unlink=delay:200 times=2", NULL), 0);
    CHECK_INT(pthread_create(&t, NULL, leave_later, a), 0);
    CHECK_INT(store_write_begin(s, 1, 0, WRITE_COPY, SLICE_EMPTY, &b), 0);
    CHECK_INT(append(b, 0, 10), 0);
    CHECK_INT(replica_seal(b, 10), 0);
    CHECK_INT(replica_sync(b, 10), 0);
    store_write_end(s, b);
    pthread_join(t, NULL);
    /* Deleted and made anew. */
    CHECK_INT(add(s, 2, 10), 0);
    CHECK_INT(pthread_create(&t, NULL, delete_two, s), 0);
    while (length(s, 2) >= 0) {
        usleep(1000);
    }
    CHECK_INT(add(s, 2, 20), 0);
    pthread_join(t, NULL);
    CHECK_INT(fault_arm("", NULL), 0);
    store_close(s);
    s = open_ok("again", "va1");
    CHECK_INT(length(s, 1), 10);
    CHECK_INT(length(s, 2), 20);
    store_close(s);
}

static void test_reports(void)
{
    struct replica_info *info = x_alloc(sizeof(*info) * RANGE_BLOCKS);
    struct replica_bad bad[4];
    struct range_digest *d;
    struct replica *r;
    struct store *s = open_ok("reports", "vrep");

    CHECK_INT(add(s, 5000, 77), 0);
    CHECK_INT(add(s, 3, 30), 0);
    CHECK_INT(add(s, 1, 10), 0);
    CHECK_INT(store_write_begin(s, 1023, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 20), 0);
    store_write_end(s, r);
    CHECK_INT(store_digests(s, &d), 2);
    CHECK_INT(d[0].range, 0);
    CHECK_INT(d[0].count, 3);
    CHECK(d[0].sum == (replica_mix(1, 10) ^ replica_mix(3, 30) ^ replica_mix(1023, 20)));
    CHECK_INT(d[1].range, 4);
    CHECK(d[1].sum == replica_mix(5000, 77));
    free(d);
    CHECK_INT(store_range(s, 0, info), 3);
    CHECK_INT(info[1].block, 3);
    CHECK_INT(info[1].state, REPLICA_SEALED);
    CHECK_INT(info[2].state, REPLICA_OPEN);
    CHECK_INT(store_range(s, 1, info), 0);
    CHECK_INT(store_range(s, UINT64_MAX, info), 0);
    store_report_bad(s, 3, DFS_ECHECKSUM);
    store_report_bad(s, 3, DFS_ECHECKSUM);
    store_report_bad(s, 1, DFS_EIO);
    CHECK_INT(store_bad(s, bad, 4), 2);
    store_bad_told(s, 1);
    CHECK_INT(store_bad(s, bad, 4), 1);
    CHECK_INT(bad[0].block, 1);
    free(info);
    store_close(s);
}

/* One of two files goes when the other one was found right. */
static void check_spare(struct store *s, uint64_t block)
{
    struct store_volume v[LIMIT_VOLUMES];
    struct replica *r;
    uint64_t spare = 0;

    CHECK(store_next_spare(s, &spare));
    CHECK_INT(spare, block);
    CHECK(!store_next_spare(s, &spare));
    shell("test -e vo1/blocks/11/0000000000000111 -a -e vo2/blocks/11/0000000000000111");
    CHECK_INT(store_get(s, block, &r), 0);
    CHECK_INT(scrub_replica(r, NULL, NULL), 0);
    store_checked(s, r);
    store_put(s, r);
    shell("test $(ls vo?/blocks/11/0000000000000111 | wc -l) = 1");
    CHECK_INT(length(s, block), 100);
    CHECK_INT(store_volumes(s, v), 2);
    CHECK_INT(v[0].blocks + v[1].blocks, 2);
    CHECK_INT(v[0].used + v[1].used, 200);
}

static void test_scan_oddities(void)
{
    struct store *s = open_ok("odd", "vo1,vo2");
    struct replica_bad bad[4];

    CHECK_INT(add(s, 0x111, 100), 0);
    CHECK_INT(add(s, 0x222, 100), 0);
    store_close(s);
    shell("mkdir -p vo1/blocks/33 vo1/blocks/44 vo1/blocks/11 vo2/blocks/11");
    shell("head -c 9000 /dev/urandom > vo1/blocks/33/0000000000000333");
    shell(": > vo1/blocks/44/0000000000000444");
    shell(": > vo1/blocks/44/0000000000000555");
    shell("touch vo1/blocks/44/notes");
    /* The same block in both volumes. */
    shell("cp vo?/blocks/11/0000000000000111 odd/ && cp odd/0000000000000111 vo1/blocks/11/ && "
          "cp odd/0000000000000111 vo2/blocks/11/");
    s = open_ok("odd", "vo1,vo2");
    CHECK_INT(length(s, 0x111), 100);
    CHECK_INT(length(s, 0x222), 100);
    check_spare(s, 0x111);
    CHECK_INT(length(s, 0x333), -1);
    CHECK_INT(length(s, 0x444), -1);
    CHECK_INT(store_bad(s, bad, 4), 1);
    CHECK_INT(bad[0].block, 0x333);
    CHECK_INT(bad[0].status, DFS_EDAMAGED);
    /* A new copy takes the damaged one's place. */
    CHECK_INT(add(s, 0x333, 10), 0);
    store_close(s);
    shell("test ! -e vo1/blocks/44/0000000000000444");
    shell("test -e vo1/blocks/44/0000000000000555");
}

int main(void)
{
    tap_run("replicas are spread over volumes and found again", test_several);
    tap_run("volumes of others, in use, full or damaged are refused with a reason", test_refused);
    tap_run("a volume of another server of the cluster is taken over", test_moved);
    tap_run("a known volume that is not there has failed; the others serve", test_unmounted);
    tap_run("a server that lost its identity takes its volumes'", test_lost_identity);
    tap_run("the reserve is kept", test_reserve);
    tap_run("a disk that fills under way leaves the replica as it was", test_full_under_way);
    tap_run("a volume that fails takes its replicas with it, not the server", test_failed_volume);
    tap_run("one unreadable replica is not a failed volume, many are", test_unreadable);
    tap_run("a block has one writer at a time", test_one_writer);
    tap_run("an abandoned repair copy is removed, a complete one stays", test_copies);
    tap_run("a copy that comes is not removed with the one that goes", test_copy_after_copy);
    tap_run("digests, ranges and damaged copies are reported", test_reports);
    tap_run("a start copes with damaged, empty, foreign and doubled files", test_scan_oddities);
    return tap_done();
}
