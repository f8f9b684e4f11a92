/* Holes, clones and access times through the client library: see cluster_rig.h. */
#include "cluster/base/base.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include "cluster/base/clock.h"
#include "cluster/base/rng.h"

#include "test/unit/cluster_rig.h"

#define FILES    2
#define FILE_MAX 60000u /* bytes of a file */
#define STEPS    1200

static const struct cred root;
static struct rng rng;
static bool maps_stay = true;

/* What a file should be: bytes, and which of them are data. */
struct model {
    struct file *f;
    uint8_t byte[FILE_MAX];
    bool data[FILE_MAX];
    uint32_t size;
};

static struct model files[FILES];

static uint32_t below(uint32_t n)
{
    return (uint32_t)rng_below(&rng, n);
}

static struct file *create(struct client *c, const char *name)
{
    struct file *f = NULL;

    CHECK_INT(
        file_create(c, &root, INODE_ROOT, slice_str(name), 0644, O_RDWR | O_EXCL, &f, NULL, NULL),
        0);
    if (f == NULL) {
        exit(1);
    }
    return f;
}

static void hole(struct model *m, uint32_t off, uint32_t len)
{
    memset(m->byte + off, 0, len);
    memset(m->data + off, 0, len);
}

static void step_write(struct model *m, uint32_t off, uint32_t len)
{
    uint8_t *p = x_alloc(len);

    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)below(256);
    }
    CHECK_INT(file_write(m->f, &root, p, len, off), 0);
    memcpy(m->byte + off, p, len);
    memset(m->data + off, 1, len);
    m->size = MAX(m->size, off + len);
    free(p);
}

static void step_truncate(struct client *c, struct model *m, uint32_t size)
{
    struct setattr_req q = { .ino = file_ino(m->f), .valid = SET_SIZE, .size = size };
    struct attr a;

    CHECK_INT(client_setattr(c, &root, &q, &a), 0);
    if (size < m->size) {
        hole(m, size, m->size - size);
    }
    m->size = size;
}

static void step_fallocate(struct model *m, uint32_t off, uint32_t len)
{
    static const uint32_t modes[] = { 0,
                                      FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_ZERO_RANGE,
                                      FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                      FALLOC_FL_COLLAPSE_RANGE,
                                      FALLOC_FL_INSERT_RANGE };
    uint32_t mode = modes[below(ARRAY_LEN(modes))];
    int want = 0;

    if (mode == FALLOC_FL_COLLAPSE_RANGE) {
        want = off + len >= m->size ? DFS_EINVAL : 0;
    } else if (mode == FALLOC_FL_INSERT_RANGE) {
        want = off >= m->size ? DFS_EINVAL : 0;
        if (m->size + len > FILE_MAX) {
            return;
        }
    }
    CHECK_INT(file_fallocate(m->f, &root, mode, off, len), want);
    if (want != 0) {
        return;
    }
    if (mode == FALLOC_FL_COLLAPSE_RANGE) {
        memmove(m->byte + off, m->byte + off + len, FILE_MAX - off - len);
        memmove(m->data + off, m->data + off + len, FILE_MAX - off - len);
        hole(m, FILE_MAX - len, len);
        m->size -= len;
    } else if (mode == FALLOC_FL_INSERT_RANGE) {
        memmove(m->byte + off + len, m->byte + off, FILE_MAX - off - len);
        memmove(m->data + off + len, m->data + off, FILE_MAX - off - len);
        hole(m, off, len);
        m->size += len;
    } else {
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
            hole(m, off, len);
        }
        m->size = (mode & FALLOC_FL_KEEP_SIZE) != 0 ? m->size : MAX(m->size, off + len);
    }
}

static void step_clone(struct model *from, uint32_t off, struct model *to, uint32_t to_off,
                       uint32_t len)
{
    uint32_t n = off < from->size ? MIN(len, from->size - off) : 0;
    bool overlap = from == to && n > 0 && off < to_off + n && to_off < off + n;
    uint64_t done = 0;

    CHECK_INT(file_clone(from->f, off, to->f, &root, to_off, len, &done), overlap ? DFS_EINVAL : 0);
    if (!overlap) {
        CHECK_INT(done, n);
        memcpy(to->byte + to_off, from->byte + off, n);
        memcpy(to->data + to_off, from->data + off, n);
        to->size = n > 0 ? MAX(to->size, to_off + n) : to->size;
    }
}

static void check_bytes(struct model *m, uint32_t off, uint32_t len)
{
    uint8_t *got = x_alloc(len);
    uint32_t want = off < m->size ? MIN(len, m->size - off) : 0;
    size_t n = 0;

    CHECK_INT(file_read(m->f, got, len, off, &n), 0);
    CHECK_INT(n, want);
    CHECK(memcmp(got, m->byte + off, MIN(n, want)) == 0);
    free(got);
}

static void check_seek(struct model *m, uint32_t off)
{
    uint32_t pos = off;
    bool data = below(2) == 0;
    uint64_t got = 0;
    int err = file_seek(m->f, data, off, &got);

    while (pos < m->size && m->data[pos] != data) {
        pos++;
    }
    if (off >= m->size || (data && pos >= m->size)) {
        CHECK_INT(err, DFS_ENOENT);
    } else {
        CHECK_INT(err, 0);
        CHECK_INT(got, MIN(pos, m->size));
    }
}

static void check_attr(struct client *c, struct model *m)
{
    uint64_t bytes = 0;
    struct attr a = { 0 };

    check_bytes(m, 0, 1); /* knows the extents again after a clone: then st_blocks is exact */

    CHECK_INT(client_getattr(c, &root, file_ino(m->f), &a), 0);
    for (uint32_t i = 0; i < FILE_MAX; i++) {
        bytes += m->data[i];
    }
    CHECK_INT(a.size, m->size);
    if (maps_stay) {
        CHECK_INT(a.bytes, bytes);
    } else { /* what is written over may count twice until it is committed */
        CHECK(a.bytes >= bytes);
    }
}

static void one_step(struct client *c)
{
    struct model *m = &files[below(FILES)];
    uint32_t off = below(FILE_MAX - 1);
    uint32_t room = FILE_MAX - off;
    uint32_t most = below(4) == 0 ? 20000 : 700;
    uint32_t len = 1 + below(MIN(room, most));
    uint32_t longer = m->size + below(500);

    switch (below(9)) {
    case 0:
    case 1:
        step_write(m, off, len);
        break;
    case 2:
        step_truncate(c, m, below(3) == 0 ? off : MIN(longer, FILE_MAX));
        break;
    case 3:
    case 4:
        step_fallocate(m, off, len);
        break;
    case 5:
        step_clone(&files[below(FILES)], below(FILE_MAX), m, off, len);
        break;
    case 6:
        check_seek(m, off);
        check_attr(c, m);
        break;
    case 7:
        CHECK_INT(below(3) == 0 ? file_fsync(m->f) : file_flush(m->f), 0);
        break;
    default:
        check_bytes(m, off, len);
    }
}

static void operations(const char *first, const char *second)
{
    struct client *c = cr_client();
    struct client *other = cr_client();

    memset(files, 0, sizeof(files));
    for (int i = 0; i < FILES; i++) {
        files[i].f = create(c, i == 0 ? first : second);
    }
    for (int i = 0; i < STEPS && !tap_case_bad; i++) {
        one_step(c);
        if (tap_case_bad) {
            printf("# at step %d\n", i);
        }
    }
    for (int i = 0; i < FILES; i++) {
        struct model *m = &files[i];
        struct file *f = m->f;

        check_bytes(m, 0, FILE_MAX);
        CHECK_INT(file_flush(f), 0);
        CHECK_INT(file_open(other, &root, file_ino(f), O_RDONLY, &m->f, NULL, NULL), 0);
        check_bytes(m, 0, FILE_MAX);
        check_attr(other, m);
        for (int k = 0; k < 50; k++) {
            check_seek(m, below(FILE_MAX));
        }
        file_close(m->f);
        file_close(f);
    }
    client_close(c);
    client_close(other);
}

static void every_operation_agrees_with_an_array(void)
{
    operations("one", "two");
}

/* Memory for 16 extents: maps are dropped all the time. */
static void so_it_does_without_memory_for_maps(void)
{
    uint64_t before = cr.conf->client_cache;

    cr.conf->client_cache = 8 * KIB;
    maps_stay = false;
    operations("three", "four");
    cr.conf->client_cache = before;
    maps_stay = true;
}

static void a_clone_can_be_synced_and_outlives_its_source(void)
{
    struct client *c = cr_client();
    struct file *a = create(c, "source");
    struct file *b = create(c, "clone");
    uint8_t want[5000];
    uint8_t got[5000];
    uint64_t done = 0;
    size_t n = 0;

    for (size_t i = 0; i < sizeof(want); i++) {
        want[i] = (uint8_t)below(256);
    }
    CHECK_INT(file_write(a, &root, want, sizeof(want), 0), 0);
    CHECK_INT(file_clone(a, 0, b, &root, 0, LIMIT_FILE_SIZE, &done), 0);
    CHECK_INT(done, sizeof(want));
    CHECK_INT(file_fsync(b), 0);
    CHECK_INT(client_unlink(c, &root, INODE_ROOT, slice_str("source"), false), 0);
    file_close(a);
    CHECK_INT(client_sync(c), 0);
    CHECK_INT(file_read(b, got, sizeof(got), 0, &n), 0);
    CHECK_INT(n, sizeof(want));
    CHECK(memcmp(got, want, sizeof(want)) == 0);
    CHECK_INT(file_clone(b, 2500, b, &root, 10000, 9000, &done), 0); /* to where its end was */
    CHECK_INT(done, 2500);
    CHECK_INT(file_clone(b, 0, b, &root, LIMIT_FILE_SIZE - 10, 11, &done), DFS_EFBIG);
    CHECK_INT(file_fallocate(b, &root, 0, 0, CR_FREE), 0);
    CHECK_INT(file_fallocate(b, &root, 0, 0, CR_FREE + 7500), 0); /* that is there */
    CHECK_INT(file_fallocate(b, &root, 0, 0, CR_FREE + 7501), DFS_ENOSPC);
    CHECK_INT(file_fallocate(b, &root, FALLOC_FL_UNSHARE_RANGE, 0, 1), DFS_ENOTSUP);
    CHECK_INT(file_fallocate(b, &root, 0, 0, 0), DFS_EINVAL);
    file_close(b);
    client_close(c);
}

static int64_t atime_of(struct client *c, uint64_t ino)
{
    struct attr a = { 0 };

    CHECK_INT(client_getattr(c, &root, ino, &a), 0);
    return a.atime;
}

static bool told(struct client *c, uint64_t ino, int64_t atime)
{
    uint64_t end = clock_mono_ms() + 10000;
    struct timespec pause = { .tv_nsec = 10 * NS_PER_MS };

    while (atime_of(c, ino) != atime && clock_mono_ms() < end) {
        nanosleep(&pause, NULL);
    }
    return atime_of(c, ino) == atime;
}

static void reads_are_told_later_and_shown_at_once(void)
{
    struct setattr_req set = { .valid = SET_ATIME, .atime = 5 };
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct client *quiet = cr_client();
    struct file *f = create(c, "read");
    uint64_t ino = file_ino(f);
    struct attr a = { 0 };
    int64_t first;
    uint8_t byte;
    size_t n;

    client_no_atime(quiet);
    CHECK_INT(file_write(f, &root, "x", 1, 0), 0);
    CHECK_INT(file_flush(f), 0);
    first = atime_of(c, ino);
    CHECK_INT(file_read(f, &byte, 1, 0, &n), 0);
    CHECK(atime_of(c, ino) > first);
    first = atime_of(c, ino);
    CHECK_INT(file_read(f, &byte, 1, 0, &n), 0);
    CHECK_INT(atime_of(c, ino), first);
    CHECK(told(other, ino, first));
    CHECK(told(c, ino, first));
    set.ino = ino;
    CHECK_INT(client_setattr(c, &root, &set, &a), 0);
    CHECK_INT(a.atime, 5);
    file_close(f);
    CHECK_INT(file_open(quiet, &root, ino, O_RDONLY, &f, NULL, NULL), 0);
    CHECK_INT(file_read(f, &byte, 1, 0, &n), 0);
    CHECK(!file_accessed(f));
    CHECK_INT(atime_of(quiet, ino), 5);
    file_close(f);
    /* a time that somebody sets is not overtaken by a read before it */
    CHECK_INT(file_open(c, &root, ino, O_RDONLY, &f, NULL, NULL), 0);
    CHECK(file_accessed(f));
    CHECK_INT(client_setattr(c, &root, &set, &a), 0);
    CHECK_INT(a.atime, 5);
    file_close(f);
    client_close(c); /* tells what is left */
    CHECK_INT(atime_of(other, ino), 5);
    client_close(other);
    client_close(quiet);
}

int main(void)
{
    struct why why;

    rng_init(&rng, 20261122);
    cr_start(2u << 20, "5s");
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
    tap_run("every operation agrees with an array", every_operation_agrees_with_an_array);
    tap_run("so it does without memory for maps", so_it_does_without_memory_for_maps);
    tap_run("a clone can be synced and outlives its source",
            a_clone_can_be_synced_and_outlives_its_source);
    tap_run("reads are told later and shown at once", reads_are_told_later_and_shown_at_once);
    cr_stop();
    return tap_done();
}
