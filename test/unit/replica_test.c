/* Replica files: the format's bytes, appending and reading, what a start makes of torn files. */
#include "replication/store/replica.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cluster/base/crc32c.h"
#include "cluster/base/err.h"
#include "cluster/base/fault.h"
#include "cluster/base/io.h"

#include "replication/store/recover.h"
#include "replication/store/scrub.h"
#include "replication/store/store.h"

#include "test/unit/tap.h"

static uint8_t cluster[CLUSTER_ID_BYTES] = "0123456789abcdef";
static struct store *store;
static char dir[128];

static void pattern(uint8_t *p, uint32_t off, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)((off + i) * 7 + (off + i) / 4096 + 1);
    }
}

static void reopen(void)
{
    struct store_conf conf = { .dir = dir };
    struct store_found found;
    struct why why = { "" };
    int err;

    store_close(store);
    store = NULL;
    err = store_open(&conf, &store, &found, &why);
    CHECK_INT(err, 0);
    if (err != 0) {
        printf("# %s\n", why.text);
        exit(1);
    }
    CHECK_INT(store_adopt(store, cluster, 1, &why), 0);
}

static int append(struct replica *r, uint32_t off, uint32_t len)
{
    uint8_t *p = x_alloc(len);
    uint32_t *sums = x_alloc(LAYOUT_SUMS_OF(len) * sizeof(*sums));
    int err;

    pattern(p, off, len);
    rule_make_sums(off, slice_of(p, len), sums);
    err = replica_append(r, off, slice_of(p, len), sums);
    free(p);
    free(sums);
    return err;
}

/* Everything from 0 to len is there, matches the sums and the pattern. */
static bool holds(struct replica *r, uint32_t len)
{
    static uint8_t got[PACKET_BYTES + 2 * CHUNK_BYTES], want[PACKET_BYTES + 2 * CHUNK_BYTES];
    uint32_t sums[LAYOUT_SUMS_OF(PACKET_BYTES)];
    struct replica_range g = { .replica_len = len };
    uint32_t done = 0;

    do {
        if (replica_read(r, done, PACKET_BYTES, got, sums, &g) != 0 || g.replica_len != len) {
            return false;
        }
        pattern(want, g.offset, g.len);
        if (memcmp(got, want, g.len) != 0 ||
            rule_check_sums(g.offset, slice_of(got, g.len), sums) != 0) {
            return false;
        }
        done += g.len;
    } while (done < len);
    return done == len && scrub_replica(r, NULL, NULL) == 0;
}

/* ---- the format ---- */

static void test_golden(void)
{
    static const uint8_t want[LAYOUT_RECORD_BYTES] = {
        'D', 'F', 'S', 'R', 'E', 'P', 'L', '1', 1,   0,   0,   0,   2,    0,    0,    0,
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c',  'd',  'e',  'f',
        8,   7,   6,   5,   4,   3,   2,   1,   0,   0,   16,  0,   0x5b, 0xe0, 0x7c, 0x4d,
    };
    struct layout_header h = { .state = LAYOUT_SEALED,
                               .block = UINT64_C(0x0102030405060708),
                               .sealed_len = 1 << 20 };
    struct layout_mark m = { .number = 3, .len = 5000, .sum = 0xe3069283 };
    uint8_t got[LAYOUT_RECORD_BYTES], mark[LAYOUT_MARK_BYTES];
    struct layout_header back;
    struct layout_mark mback;

    memcpy(h.cluster, cluster, sizeof(h.cluster));
    layout_header_put(got, &h);
    CHECK(memcmp(got, want, sizeof(want)) == 0);
    CHECK_INT(layout_header_get(got, &back), 0);
    CHECK(back.block == h.block && back.state == h.state && back.sealed_len == h.sealed_len);
    for (unsigned i = 0; i < sizeof(got); i++) {
        got[i] ^= 0x10;
        CHECK_INT(layout_header_get(got, &back), DFS_EDAMAGED);
        got[i] ^= 0x10;
    }
    layout_mark_put(mark, &m);
    CHECK(memcmp(mark, "\3\0\0\0\x88\x13\0\0\x83\x92\x06\xe3", 12) == 0);
    CHECK_INT(layout_mark_get(mark, &mback), 0);
    CHECK_INT(mback.len, 5000);
    memset(mark, 0, sizeof(mark));
    CHECK_INT(layout_mark_get(mark, &mback), DFS_EDAMAGED);
}

static void test_places(void)
{
    static const uint32_t lens[] = {
        0, 1, 4095, 4096, 4097, 4 << 20, 4194303u, 4194305u, (4 << 20) + 4096, 64 << 20, 1 << 30
    };

    CHECK_INT(layout_data_at(0), 8192);
    CHECK_INT(layout_data_at(4194303), 8192 + 4194303);
    CHECK_INT(layout_data_at(4194304), 8192 + 4194304 + 4096);
    CHECK_INT(layout_sum_at(0), 4096);
    CHECK_INT(layout_sum_at(1023), 4096 + 4092);
    CHECK_INT(layout_sum_at(1024), 4096 + 4194304 + 4096);
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        CHECK_INT(layout_len_of_file(layout_file_bytes(lens[i])), lens[i]);
    }
    CHECK_INT(layout_len_of_file(10), 0);
    CHECK_INT(layout_len_of_file(5000), 0);
    CHECK_INT(layout_chunks_touched(4095, 2), 2);
    CHECK_INT(layout_chunks_touched(4096, 4096), 1);
    CHECK_INT(layout_chunks_touched(5, 0), 0);
}

/* ---- appending and reading ---- */

static void test_append(void)
{
    static const uint32_t sizes[] = { 1, 4094, 1, 1, 4096, 100000, 4 << 20, 3, 5000000 };
    struct replica_range g;
    struct replica *r;
    uint8_t chunk[3 * CHUNK_BYTES];
    uint32_t sums[3];
    uint32_t len = 0;

    CHECK_INT(store_write_begin(store, 1, 0, 0, SLICE_EMPTY, &r), 0);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        CHECK_INT(append(r, len, sizes[i]), 0);
        len += sizes[i];
        CHECK(holds(r, len));
    }
    CHECK_INT(append(r, len - 1, 10), DFS_EOFFSET);
    CHECK_INT(append(r, len + 1, 10), DFS_EOFFSET);
    CHECK_INT(replica_read(r, 5000, 10, chunk, sums, &g), 0);
    CHECK_INT(g.offset, 4096);
    CHECK_INT(g.len, 4096);
    CHECK_INT(g.sum_count, 1);
    CHECK_INT(replica_read(r, 4095, 2, chunk, sums, &g), 0);
    CHECK_INT(g.len, 8192);
    CHECK_INT(replica_read(r, len, 10, chunk, sums, &g), 0);
    CHECK_INT(g.offset + g.len, len);
    CHECK_INT(replica_read(r, len + 1, 10, chunk, sums, &g), DFS_EOFFSET);
    CHECK_INT(replica_sync(r, len), 0);
    CHECK_INT(replica_sync(r, len + 1), DFS_EOFFSET);
    CHECK_INT(replica_seal(r, len + 1), DFS_EOFFSET);
    CHECK_INT(replica_seal(r, len), 0);
    CHECK_INT(replica_seal(r, len), 0);
    CHECK_INT(append(r, len, 1), DFS_ESEALED);
    store_write_end(store, r);
    reopen();
    CHECK_INT(store_get(store, 1, &r), 0);
    CHECK(holds(r, len));
    CHECK_INT(replica_look(r).state, RULE_SEALED);
    store_put(store, r);
}

static unsigned much_count;

static void count_much(void *arg UNUSED, struct replica *r UNUSED)
{
    much_count++;
}

static void leave_dirty(void *arg UNUSED, struct replica *r UNUSED)
{
}

/* The disk is told to begin when a good part is not on it, again and again, and not after a sync. */
static void test_much(void)
{
    struct replica *r;
    uint32_t len = 0;

    CHECK_INT(store_write_begin(store, 60, 0, 0, SLICE_EMPTY, &r), 0);
    void (*dirty)(void *, struct replica *) = r->env->dirty;
    void (*much)(void *, struct replica *) = r->env->much;

    CHECK(replica_sync(r, 0) == 0 && replica_clean(r));
    r->env->dirty = leave_dirty; /* nobody syncs but this test */
    r->env->much = count_much;
    for (; len < 7 * MIB; len += MIB) {
        CHECK_INT(append(r, len, MIB), 0);
    }
    CHECK_INT(much_count, 0);
    for (; len < 10 * MIB; len += MIB) {
        CHECK_INT(append(r, len, MIB), 0);
    }
    CHECK_INT(much_count, 3);
    CHECK_INT(replica_sync(r, len), 0);
    CHECK_INT(append(r, len, MIB), 0);
    CHECK_INT(much_count, 3);
    r->env->dirty = dirty;
    r->env->much = much;
    CHECK(replica_sync(r, len + MIB) == 0 && replica_clean(r));
    store_write_end(store, r);
}

static void test_cut(void)
{
    static const uint32_t cuts[] = { 12000, 8193, 8192, 8191, 4097, 1, 0 };
    struct replica *r;

    for (unsigned i = 0; i < ARRAY_LEN(cuts); i++) {
        CHECK_INT(store_write_begin(store, 100 + i, 0, 0, SLICE_EMPTY, &r), 0);
        CHECK_INT(append(r, 0, 12001), 0);
        CHECK_INT(replica_seal(r, cuts[i]), 0);
        CHECK(holds(r, cuts[i]));
        store_write_end(store, r);
    }
    reopen();
    for (unsigned i = 0; i < ARRAY_LEN(cuts); i++) {
        CHECK_INT(store_get(store, 100 + i, &r), 0);
        CHECK(holds(r, cuts[i]));
        CHECK_INT(replica_look(r).state, RULE_SEALED);
        /* Shorter once more, although it is sealed and was found by a start. */
        CHECK_INT(replica_seal(r, cuts[i] / 2), 0);
        CHECK(holds(r, cuts[i] / 2));
        store_put(store, r);
    }
}

/* ---- threads ---- */

struct reader {
    struct replica *r;
    _Atomic bool stop;
    _Atomic unsigned bad, reads;
};

static void *read_on(void *arg)
{
    uint8_t *got = x_alloc(64 * KIB + 2 * CHUNK_BYTES), *want = x_alloc(66 * KIB + 8 * KIB);
    uint32_t sums[LAYOUT_SUMS_OF(64 * KIB)];
    struct reader *a = arg;
    struct replica_range g;

    while (!atomic_load(&a->stop)) {
        uint32_t len = replica_look(a->r).len;
        uint32_t from = len > 64 * KIB ? len - (uint32_t)(64 * KIB) : 0;

        if (replica_read(a->r, from, 64 * KIB, got, sums, &g) != 0) {
            continue; /* cut meanwhile */
        }
        pattern(want, g.offset, g.len);
        if (memcmp(got, want, g.len) != 0 ||
            rule_check_sums(g.offset, slice_of(got, g.len), sums) != 0) {
            atomic_fetch_add(&a->bad, 1);
        }
        atomic_fetch_add(&a->reads, 1);
    }
    free(got);
    free(want);
    return NULL;
}

static void test_read_during_append(void)
{
    struct reader a = { 0 };
    struct replica *r;
    pthread_t t[2];
    uint32_t len = 0;

    CHECK_INT(store_write_begin(store, 200, 0, 0, SLICE_EMPTY, &r), 0);
    a.r = r;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&t[i], NULL, read_on, &a), 0);
    }
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t n = 1 + i * 37 % 5000;

        CHECK_INT(append(r, len, n), 0);
        len += n;
    }
    while (atomic_load(&a.reads) < 10) {
        sched_yield();
    }
    CHECK_INT(replica_seal(r, len - 3000), 0);
    for (uint32_t cut = 3001; cut < 100000; cut += 3001) {
        CHECK_INT(replica_seal(r, len - cut), 0);
    }
    atomic_store(&a.stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
    }
    CHECK_INT(atomic_load(&a.bad), 0);
    store_write_end(store, r);
}

static void *read_all(void *arg)
{
    return holds(arg, 9000) ? arg : NULL;
}

/* A reader is held up between looking at the length and reading, and the cut comes in between. */
static void test_cut_under_reader(void)
{
    struct replica *r;
    pthread_t t;
    void *ok;

    if (!FAULTS_BUILT_IN) {
        return;
    }
    CHECK_INT(store_write_begin(store, 202, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 12000), 0);
    CHECK_INT(fault_arm("replica.read=delay:100 times=1", NULL), 0);
    CHECK_INT(pthread_create(&t, NULL, read_all, r), 0);
    usleep(30000);
    CHECK_INT(replica_seal(r, 9000), 0);
    pthread_join(t, &ok);
    CHECK(ok == r);
    CHECK_INT(fault_arm("", NULL), 0);
    store_write_end(store, r);
}

static void *sync_one(void *arg)
{
    struct replica *r = arg;

    return replica_sync(r, 5000) == 0 ? arg : NULL;
}

static void test_sync_together(void)
{
    struct replica *r;
    pthread_t t[8];
    void *ok;

    CHECK_INT(store_write_begin(store, 201, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 5000), 0);
    for (int i = 0; i < 8; i++) {
        CHECK_INT(pthread_create(&t[i], NULL, sync_one, r), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], &ok);
        CHECK(ok == r);
    }
    /* A mark for the bytes of the last chunk, and one is enough for all who waited. */
    CHECK_INT(r->mark, 1);
    store_write_end(store, r);
}

/* ---- torn files ---- */

static uint8_t *image;
static size_t image_len;

/* An open replica of len bytes as a file image. sync_at: synced at that length on the way. */
static void make_image(uint64_t block, uint32_t len, uint32_t sync_at)
{
    char path[REPLICA_PATH_MAX];
    struct replica *r;

    CHECK_INT(store_write_begin(store, block, 0, 0, SLICE_EMPTY, &r), 0);
    if (sync_at != 0) {
        CHECK_INT(append(r, 0, sync_at), 0);
        CHECK_INT(replica_sync(r, sync_at), 0);
    }
    CHECK_INT(append(r, sync_at, len - sync_at), 0);
    free(image);
    CHECK_INT(io_read_file(volume_replica_path(r->vol, block, path), 64 << 20, (char **)&image,
                           &image_len, NULL),
              0);
    store_write_end(store, r);
    CHECK_INT(store_delete(store, block), 0);
}

/* Recovers a file with these bytes; it must be usable afterwards. Returns the length or -1. */
static long recover(const uint8_t *p, size_t n, uint64_t block, struct recovered *ret)
{
    char path[256];
    struct recovered again;
    int fd, err;

    snprintf(path, sizeof(path), "%s/torn", tap_tmp());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_INT(io_pwrite(fd, p, n, 0), 0);
    err = recover_replica(fd, block, cluster, ret);
    if (err == 0 && ret->verdict == RECOVER_KEEP && ret->state == RULE_OPEN) {
        /* What was made of it is found the same the next time. */
        CHECK_INT(recover_replica(fd, block, cluster, &again), 0);
        CHECK_INT(again.len, ret->len);
        CHECK_INT(again.tail_sum, ret->tail_sum);
        CHECK_INT(again.cut, 0);
    }
    close(fd);
    return err == 0 ? (long)ret->len : -1;
}

static void test_torn_everywhere(void)
{
    const uint32_t len = 2 * CHUNK_BYTES + 3000;
    struct recovered f;

    make_image(300, len, 0);
    CHECK_INT(image_len, layout_file_bytes(len));
    CHECK_INT(recover(image, image_len, 300, &f), len);
    /* The file ends anywhere in the last chunk: its sum covers more than there is. */
    for (uint32_t cut = 1; cut <= 3000; cut++) {
        CHECK_INT(recover(image, image_len - cut, 300, &f), 2 * CHUNK_BYTES);
    }
    /* Or the bytes are longer than what the sum says: an append that had not come to its sum. */
    for (uint32_t have = 1; have < 3000; have += 7) {
        uint32_t sum = crc32c(0, image + layout_data_at(2 * CHUNK_BYTES), have);

        memcpy(image + layout_sum_at(2), &sum, 4);
        CHECK_INT(recover(image, image_len, 300, &f), 2 * CHUNK_BYTES + have);
        CHECK_INT(f.cut, 3000 - have);
        CHECK_INT(f.tail_sum, sum);
    }
}

static void test_lost_sums(void)
{
    const uint32_t len = 5 * CHUNK_BYTES + 10;
    struct recovered f;

    make_image(301, len, 0);
    for (uint32_t c = 0; c < 6; c++) {
        uint8_t *copy = x_alloc(image_len);

        memcpy(copy, image, image_len);
        memset(copy + layout_sum_at(c), 0, 4);
        CHECK_INT(recover(copy, image_len, 301, &f), c * CHUNK_BYTES);
        memcpy(copy, image, image_len);
        copy[layout_data_at(c * CHUNK_BYTES) + 5] ^= 1;
        CHECK_INT(recover(copy, image_len, 301, &f), c * CHUNK_BYTES);
        free(copy);
    }
    CHECK_INT(recover(image, LAYOUT_HEADER_BYTES, 301, &f), 0);
    CHECK_INT(f.verdict, RECOVER_KEEP);
    CHECK_INT(recover(image, 20, 301, &f), 0);
    CHECK_INT(f.verdict, RECOVER_REMOVE);
    CHECK_INT(recover(image, image_len, 302, &f), -1);
    image[16] ^= 1;
    CHECK_INT(recover(image, image_len, 301, &f), -1);
}

static void test_sync_mark(void)
{
    const uint32_t synced = CHUNK_BYTES + 100, len = CHUNK_BYTES + 2000;
    struct recovered f;

    make_image(303, len, synced);
    CHECK_INT(recover(image, image_len, 303, &f), len);
    /* Power went: the new sum is on disk, the new bytes are not. What was synced is there. */
    memset(image + layout_data_at(synced), 0, len - synced);
    CHECK_INT(recover(image, image_len, 303, &f), synced);
    CHECK_INT(f.mark, 1);
    /* The same with the file as short as it was. */
    CHECK_INT(recover(image, layout_file_bytes(synced), 303, &f), synced);
    /* And a mark whose bytes did not come to the disk does not count. */
    memset(image + layout_data_at(CHUNK_BYTES + 50), 0, len - CHUNK_BYTES - 50);
    CHECK_INT(recover(image, image_len, 303, &f), CHUNK_BYTES);
}

static void test_power_at_cut(void)
{
    const uint32_t len = 2 * CHUNK_BYTES + 3000, end = CHUNK_BYTES + 500;
    char path[REPLICA_PATH_MAX];
    struct recovered f;
    struct replica *r;
    uint8_t *cut;
    size_t cut_len;

    CHECK_INT(store_write_begin(store, 309, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, len), 0);
    CHECK_INT(replica_sync(r, len), 0);
    volume_replica_path(r->vol, 309, path);
    free(image);
    CHECK_INT(io_read_file(path, 64 << 20, (char **)&image, &image_len, NULL), 0);
    CHECK_INT(replica_seal(r, end), 0);
    CHECK_INT(io_read_file(path, 64 << 20, (char **)&cut, &cut_len, NULL), 0);
    store_write_end(store, r);
    CHECK_INT(recover(cut, cut_len, 309, &f), end);
    /* The page of sums is as old as the last sync, that of the header is not. */
    memcpy(cut + LAYOUT_HEADER_BYTES, image + LAYOUT_HEADER_BYTES, LAYOUT_SUMS_BYTES);
    CHECK_INT(recover(cut, cut_len, 309, &f), end);
    CHECK_INT(f.missing, 0);
    /* Or the other way round. */
    memcpy(image + LAYOUT_HEADER_BYTES, cut + LAYOUT_HEADER_BYTES, LAYOUT_SUMS_BYTES);
    CHECK(recover(image, image_len, 309, &f) >= (long)end);
    free(cut);
}

static void test_append_after_recovery(void)
{
    char path[REPLICA_PATH_MAX];
    struct replica *r;
    int fd;

    CHECK_INT(store_write_begin(store, 304, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 3 * CHUNK_BYTES), 0);
    volume_replica_path(r->vol, 304, path);
    store_write_end(store, r);
    store_close(store);
    store = NULL;
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_INT(ftruncate(fd, (off_t)layout_file_bytes(2 * CHUNK_BYTES + 17)), 0);
    close(fd);
    reopen();
    CHECK_INT(store_write_begin(store, 304, 3 * CHUNK_BYTES, 0, SLICE_EMPTY, &r), DFS_EOFFSET);
    CHECK_INT(store_write_begin(store, 304, 2 * CHUNK_BYTES, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 2 * CHUNK_BYTES, 5000), 0);
    CHECK(holds(r, 2 * CHUNK_BYTES + 5000));
    store_write_end(store, r);
}

static void test_short_sealed(void)
{
    char path[REPLICA_PATH_MAX];
    struct replica *r;
    int fd;

    CHECK_INT(store_write_begin(store, 305, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 10000), 0);
    CHECK_INT(replica_seal(r, 10000), 0);
    CHECK_INT(replica_sync(r, 10000), 0);
    volume_replica_path(r->vol, 305, path);
    store_write_end(store, r);
    store_close(store);
    store = NULL;
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_INT(ftruncate(fd, (off_t)layout_file_bytes(9000)), 0);
    close(fd);
    reopen();
    CHECK_INT(store_get(store, 305, &r), 0);
    CHECK_INT(replica_look(r).len, 9000);
    CHECK_INT(replica_look(r).state, RULE_SEALED);
    store_put(store, r);
}

static void test_cut_while_open(void)
{
    static uint8_t data[4 * CHUNK_BYTES];
    static uint32_t sums[8];
    struct store_volume v[LIMIT_VOLUMES];
    struct replica_range g;
    char path[REPLICA_PATH_MAX];
    struct replica *r;

    CHECK_INT(store_write_begin(store, 306, 0, 0, SLICE_EMPTY, &r), 0);
    CHECK_INT(append(r, 0, 10000), 0);
    volume_replica_path(r->vol, 306, path);
    CHECK_INT(truncate(path, LAYOUT_HEADER_BYTES), 0);
    for (int i = 0; i < 20; i++) { /* more often than a volume may have errors */
        CHECK_INT(replica_read(r, 0, 4096, data, sums, &g), DFS_ECHECKSUM);
    }
    CHECK(store_volumes(store, v) >= 1);
    CHECK_INT(v[0].state, VOLUME_OK);
    store_write_end(store, r);
}

int main(void)
{
    snprintf(dir, sizeof(dir), "%s/store", tap_tmp());
    reopen();
    tap_run("header and sync mark have the bytes that the format says", test_golden);
    tap_run("every byte and sum has its place", test_places);
    tap_run("appends of any size are read back, sealed and found again", test_append);
    tap_run("a lot that is not on disk yet is told of", test_much);
    tap_run("a seal cuts at any length, also a sealed replica", test_cut);
    tap_run("reads match their sums while an append runs and bytes are cut",
            test_read_during_append);
    tap_run("a read that a cut overtakes is made again", test_cut_under_reader);
    tap_run("threads that sync together share a sync", test_sync_together);
    tap_run("a tail torn at any byte is cut to what the sums cover", test_torn_everywhere);
    tap_run("a lost sum or byte ends the replica there; foreign headers are refused",
            test_lost_sums);
    tap_run("synced bytes survive a power cut in the next append", test_sync_mark);
    tap_run("a cut survives a power cut", test_power_at_cut);
    tap_run("a cut replica takes appends at its new end", test_append_after_recovery);
    tap_run("a sealed replica that is too short tells its real length", test_short_sealed);
    tap_run("a file that somebody cut is damaged, its volume is not", test_cut_while_open);
    store_close(store);
    free(image);
    return tap_done();
}
