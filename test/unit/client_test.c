/* The client library against a cluster in this process: see cluster_rig.h. */
#include "cluster/base/base.h"

#include <fcntl.h>

#include "cluster/base/clock.h"

#include "test/unit/cluster_rig.h"

#define BIG (5u << 20)

static const struct cred root;
static uint8_t *big;

static uint64_t seed = 1;

static uint32_t rnd(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33) % below;
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(p + i, &seed, 8);
    }
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

static struct file *reopen(struct client *c, uint64_t ino, int flags)
{
    struct file *f = NULL;

    CHECK_INT(file_open(c, &root, ino, flags, &f, NULL, NULL), 0);
    if (f == NULL) {
        exit(1);
    }
    return f;
}

static bool same(struct file *f, const uint8_t *want, size_t size, size_t step)
{
    uint8_t *got = x_alloc(step);
    size_t off = 0;
    bool good = true;

    while (good && off < size) {
        size_t n = 0;

        good = file_read(f, got, step, off, &n) == 0 && n == MIN(step, size - off) &&
               memcmp(got, want + off, n) == 0;
        off += n;
    }
    if (good) {
        size_t n = 1;

        good = file_read(f, got, step, size, &n) == 0 && n == 0;
    }
    free(got);
    return good;
}

static void small_files(void)
{
    struct client *c = cr_client();
    struct client *other = cr_client();
    uint64_t ino[50];
    uint8_t buf[5000];

    fill(buf, sizeof(buf));
    for (uint32_t i = 0; i < 50; i++) {
        char name[16];
        struct file *f;

        snprintf(name, sizeof(name), "s%u", i);
        f = create(c, name);
        CHECK_INT(file_write(f, &root, buf, 100 * i, 0), 0);
        CHECK_INT(file_flush(f), 0);
        ino[i] = file_ino(f);
        file_close(f);
    }
    for (uint32_t i = 0; i < 50; i++) {
        struct file *f = reopen(i % 2 ? c : other, ino[i], O_RDONLY);

        CHECK(same(f, buf, 100 * i, i % 3 ? 4096 : 77));
        file_close(f);
    }
    /* They share blocks. */
    CHECK(atomic_load(&cr.allocs) <= 2);
    client_close(c);
    client_close(other);
}

static void large_file(void)
{
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "big");
    struct file *g;
    struct attr a;

    for (size_t off = 0; off < BIG; off += 100000) {
        CHECK_INT(file_write(f, &root, big + off, MIN(100000, BIG - off), off), 0);
    }
    CHECK(same(f, big, BIG, 300000)); /* before it is all sent */
    CHECK_INT(client_getattr(c, &root, file_ino(f), &a), 0);
    CHECK_INT(a.size, BIG);
    CHECK_INT(file_fsync(f), 0);
    g = reopen(other, file_ino(f), O_RDONLY);
    CHECK(same(g, big, BIG, 128 << 10));
    CHECK(same(g, big, BIG, 1 << 20));
    CHECK(same(f, big, BIG, 1 << 20));
    file_close(g);
    file_close(f);
    client_close(c);
    client_close(other);
}

static pthread_t reviver;
static bool reviving;

static void *revive(void *arg)
{
    struct timespec t = { .tv_nsec = 100 * NS_PER_MS };

    nanosleep(&t, NULL);
    cr_server_start((uint32_t)(uintptr_t)arg);
    return NULL;
}

static void all_up(void)
{
    if (reviving) {
        pthread_join(reviver, NULL);
        reviving = false;
    }
}

/* A server dies and comes back a little later, or the session ends. */
static void make_trouble(void)
{
    uint32_t victim = rnd(CR_SERVERS);

    if (rnd(6) == 0) {
        cr_expire_sessions(1, 500);
        return;
    }
    all_up();
    cr_server_stop(victim);
    reviving = pthread_create(&reviver, NULL, revive, (void *)(uintptr_t)victim) == 0;
}

/* Random writes, truncates, reads and reopenings, against an array; trouble in 1000 steps. */
static void random_story(struct client *c, const char *name, uint32_t steps, uint32_t trouble)
{
    const uint32_t max = 3u << 20;
    uint8_t *model = x_alloc(max);
    uint8_t *got = x_alloc(max);
    uint32_t size = 0;
    struct file *f = create(c, name);
    uint64_t ino = file_ino(f);

    for (uint32_t i = 0; i < steps && !tap_case_bad; i++) {
        uint32_t off = rnd(max);
        uint32_t any = 1 + rnd(rnd(4) == 0 ? 200000 : 3000);
        uint32_t len = MIN(any, max - off);
        uint32_t what = rnd(100);

        if (rnd(1000) < trouble) {
            make_trouble();
        }
        if (what < 60) {
            off = rnd(3) == 0 ? MIN(size, max - len) : off;
            CHECK_INT(file_write(f, &root, big + off % 1000 + i, len, off), 0);
            memcpy(model + off, big + off % 1000 + i, len);
            size = MAX(size, off + len);
        } else if (what < 80) {
            size_t n = 0;

            CHECK_INT(file_read(f, got, len, off, &n), 0);
            CHECK_INT(n, off >= size ? 0 : MIN(len, size - off));
            CHECK(memcmp(got, model + off, n) == 0);
        } else if (what < 85) {
            struct setattr_req q = { .ino = ino, .valid = SET_SIZE, .size = off };
            struct attr a;

            CHECK_INT(client_setattr(c, &root, &q, &a), 0);
            CHECK_INT(a.size, off);
            if (off < size) {
                memset(model + off, 0, size - off);
            }
            size = off;
        } else if (what < 90) {
            CHECK_INT(what % 2 ? file_fsync(f) : file_flush(f), 0);
        } else if (what < 93) {
            if (what % 2) {
                CHECK_INT(file_flush(f), 0);
            }
            file_close(f);
            f = reopen(c, ino, O_RDWR);
        } else if (what < 95) {
            struct attr a;

            CHECK_INT(client_getattr(c, &root, ino, &a), 0);
            CHECK_INT(a.size, size);
        }
        if (tap_case_bad) {
            printf("# step %u what %u off %u len %u size %u\n", i, what, off, len, size);
        }
    }
    CHECK(same(f, model, size, 1 << 20));
    CHECK_INT(file_flush(f), 0);
    file_close(f);
    all_up();

    struct client *other = cr_client();

    f = reopen(other, ino, O_RDONLY);
    CHECK(same(f, model, size, 200000));
    file_close(f);
    client_close(other);
    free(model);
    free(got);
}

static void random_writes(void)
{
    struct client *c = cr_client();

    random_story(c, "random", 600, 0);
    client_close(c);
}

static void random_trouble(void)
{
    for (uint64_t s = 1; s <= 2 && !tap_case_bad; s++) {
        struct client *c = cr_client();
        char name[32];

        seed = s;
        snprintf(name, sizeof(name), "trouble-%d", (int)s);
        random_story(c, name, 150, 40);
        client_close(c);
        if (tap_case_bad) {
            printf("# seed %d\n", (int)s);
        }
    }
}

static void append_and_holes(void)
{
    struct client *c = cr_client();
    struct file *f = create(c, "log");
    struct file *g = reopen(c, file_ino(f), O_WRONLY | O_APPEND);
    uint8_t buf[64];
    size_t n = 0;

    CHECK_INT(file_write(g, &root, "abc", 3, 999), 0);
    CHECK_INT(file_write(f, &root, "def", 3, 3), 0);
    CHECK_INT(file_write(g, &root, "ghi", 3, 0), 0);
    CHECK_INT(file_read(f, buf, sizeof(buf), 0, &n), 0);
    CHECK_INT(n, 9);
    CHECK(memcmp(buf, "abcdefghi", 9) == 0);
    CHECK_INT(file_write(f, &root, "x", 1, 40), 0);
    CHECK_INT(file_flush(f), 0);
    CHECK_INT(file_read(f, buf, sizeof(buf), 8, &n), 0);
    CHECK_INT(n, 33);
    CHECK(buf[0] == 'i' && buf[1] == 0 && buf[31] == 0 && buf[32] == 'x');
    CHECK_INT(file_write(f, &root, "x", 1, UINT64_C(1) << 50), DFS_EFBIG);
    file_close(g);
    file_close(f);
    client_close(c);
}

static void timed_commit(void)
{
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "timed");
    uint64_t until = clock_mono_ms() + 4000;
    struct attr a = { 0 };

    CHECK_INT(file_write(f, &root, "hello", 5, 0), 0);
    CHECK_INT(client_getattr(other, &root, file_ino(f), &a), 0);
    CHECK_INT(a.size, 0);
    while (a.size == 0 && clock_mono_ms() < until) {
        CHECK_INT(client_getattr(other, &root, file_ino(f), &a), 0);
    }
    CHECK_INT(a.size, 5);
    file_close(f);
    client_close(c);
    client_close(other);
}

static void server_dies_in_a_write(void)
{
    struct client *c = cr_client();
    struct client_stats stats;
    struct file *f;

    pthread_mutex_lock(&cr.mu);
    cr.ns.head.repl_default = CR_SERVERS; /* so that every chain has the one that dies */
    pthread_mutex_unlock(&cr.mu);
    f = create(c, "dies");
    pthread_mutex_lock(&cr.mu);
    cr.ns.head.repl_default = 2;
    pthread_mutex_unlock(&cr.mu);

    for (size_t off = 0; off < BIG; off += 1 << 18) {
        if (off == 5u << 18) { /* in the middle of a block */
            cr_server_stop(0);
        }
        CHECK_INT(file_write(f, &root, big + off, 1 << 18, off), 0);
    }
    CHECK_INT(file_fsync(f), 0);
    CHECK(same(f, big, BIG, 1 << 20));
    client_get_stats(c, &stats);
    CHECK(stats.blocks_sealed_early > 0);
    file_close(f);
    client_close(c);
    cr_server_start(0);
}

static void server_dies_in_a_read(void)
{
    struct client *c = cr_client();
    struct file *f = create(c, "read");
    uint64_t ino = file_ino(f);

    CHECK_INT(file_write(f, &root, big, BIG, 0), 0);
    CHECK_INT(file_flush(f), 0);
    file_close(f);
    for (uint32_t down = 0; down < CR_SERVERS; down++) {
        uint8_t *got = x_alloc(BIG);

        f = reopen(c, ino, O_RDONLY);
        for (size_t off = 0; off < BIG; off += 1 << 17) {
            size_t n = 0;

            if (off == BIG / 4) {
                cr_server_stop(down);
            }
            CHECK_INT(file_read(f, got + off, 1 << 17, off, &n), 0);
            CHECK_INT(n, 1 << 17);
        }
        CHECK(memcmp(got, big, BIG) == 0);
        free(got);
        file_close(f);
        cr_server_start(down);
    }
    client_close(c);
}

static void no_server_at_all(void)
{
    struct why why;
    int set = conf_set(cr.conf, "client.timeout=1s", &why);
    struct client *c = cr_client();
    struct file *f = create(c, "none");
    struct file *g;
    uint64_t start = clock_mono_ms();
    size_t n;
    uint8_t b;

    CHECK_INT(set, 0);
    atomic_store(&cr.no_servers, true);
    CHECK_INT(file_write(f, &root, "hello", 5, 0), 0);
    g = reopen(c, file_ino(f), O_RDWR);
    CHECK_INT(file_flush(f), DFS_ENOSERVERS);
    CHECK(clock_mono_ms() - start < 4000);
    CHECK_INT(file_flush(f), 0);              /* told once ... */
    CHECK_INT(file_flush(g), DFS_ENOSERVERS); /* ... to each */
    CHECK_INT(file_flush(g), 0);
    CHECK_INT(file_read(f, &b, 1, 0, &n), 0);
    CHECK_INT(n, 0);
    atomic_store(&cr.no_servers, false);
    CHECK_INT(file_write(f, &root, "hello", 5, 0), 0);
    CHECK_INT(file_flush(f), 0);
    file_close(f);
    file_close(g);
    client_close(c);
    CHECK_INT(conf_set(cr.conf, "client.timeout=5s", &why), 0);
}

/* In more pieces than one command has room for: all the same within a commit interval. */
static void many_pieces(void)
{
    struct why why;
    int set = conf_set(cr.conf, "client.commit_interval=1s", &why);
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "pieces");
    const uint64_t pieces = 5 * LIMIT_COMMIT_EXTENTS;
    uint64_t until;
    struct attr a = { 0 };

    CHECK_INT(set, 0);
    for (uint64_t i = 0; i < pieces; i++) {
        CHECK_INT(file_write(f, &root, big + i, 100, i * 200), 0);
    }
    until = clock_mono_ms() + 3500; /* sent after one interval, committed after another at most */
    while (a.size < pieces * 200 - 100 && clock_mono_ms() < until) {
        CHECK_INT(client_getattr(other, &root, file_ino(f), &a), 0);
    }
    CHECK_INT(a.size, pieces * 200 - 100);
    file_close(f);
    client_close(c);
    client_close(other);
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
}

/* Nobody waits for what the committing thread sends: it goes on for as long as it takes. */
static void servers_away_for_long(void)
{
    struct why why;
    int set = conf_set(cr.conf, "client.timeout=1s", &why);
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "patient");
    uint64_t until = clock_mono_ms() + 10000;
    struct timespec t = { .tv_sec = 3 };
    struct attr a = { 0 };

    CHECK_INT(set, 0);
    atomic_store(&cr.no_servers, true);
    CHECK_INT(file_write(f, &root, "hello", 5, 0), 0);
    nanosleep(&t, NULL); /* several times the timeout */
    atomic_store(&cr.no_servers, false);
    while (a.size == 0 && clock_mono_ms() < until) {
        CHECK_INT(client_getattr(other, &root, file_ino(f), &a), 0);
    }
    CHECK_INT(a.size, 5);
    CHECK_INT(file_fsync(f), 0);
    file_close(f);
    client_close(c);
    client_close(other);
    CHECK_INT(conf_set(cr.conf, "client.timeout=5s", &why), 0);
}

/* An error that no handle has told yet concerns who opens the file now, too: it may be the one to
 * sync what others wrote. */
static void errors_are_told(void)
{
    struct client *c = cr_client();
    struct file *f = create(c, "told");
    struct file *g;
    struct file *h;

    CHECK_INT(file_write(f, &root, "hello", 5, 0), 0);
    CHECK_INT(file_flush(f), 0);
    file_adopted(f, true);
    g = reopen(c, file_ino(f), O_RDWR);
    CHECK_INT(file_fsync(g), DFS_EIO);
    CHECK_INT(file_fsync(g), 0);
    h = reopen(c, file_ino(f), O_RDWR);
    CHECK_INT(file_fsync(h), 0);
    CHECK_INT(file_fsync(f), DFS_EIO);
    CHECK_INT(file_fsync(f), 0);
    file_close(f);
    file_close(g);
    file_close(h);
    client_close(c);
}

/* What was written by others before an append that fails is not the append's to drop. */
static void failed_append(void)
{
    struct why why;
    int set = conf_set(cr.conf, "client.commit_interval=1m", &why);
    struct client *c;
    struct file *f;
    struct file *g;

    CHECK_INT(set, 0);
    CHECK_INT(conf_set(cr.conf, "client.timeout=1s", &why), 0);
    c = cr_client();
    f = create(c, "append-fails");
    g = reopen(c, file_ino(f), O_WRONLY | O_APPEND);
    CHECK_INT(file_write(f, &root, big, 1u << 20, 0), 0); /* sent at once, not committed */
    atomic_store(&cr.not_leader, 1000000);
    CHECK_INT(file_write(g, &root, "abc", 3, 0), DFS_ETIMEOUT);
    atomic_store(&cr.not_leader, 0);
    CHECK_INT(file_flush(f), 0);
    CHECK(same(f, big, 1u << 20, 1 << 20));
    CHECK_INT(file_write(g, &root, "abc", 3, 0), 0);
    file_close(g);
    file_close(f);
    client_close(c);
    CHECK_INT(conf_set(cr.conf, "client.timeout=5s", &why), 0);
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
}

static void leader_trouble(void)
{
    struct client *c = cr_client();
    struct attr a;
    struct client_stats stats;

    /* The command is carried out and the answer lost; sent again it gets the first answer. */
    atomic_store(&cr.not_leader, 3);
    CHECK_INT(
        client_make(c, &root, INODE_ROOT, slice_str("dir"), S_IFDIR | 0755, 0, SLICE_EMPTY, &a), 0);
    client_get_stats(c, &stats);
    CHECK(stats.rpc_retries >= 3);
    CHECK_INT(
        client_make(c, &root, INODE_ROOT, slice_str("dir"), S_IFDIR | 0755, 0, SLICE_EMPTY, &a),
        DFS_EEXIST);
    client_close(c);
}

static void lost_session(void)
{
    struct client *c = cr_client();
    struct file *f = create(c, "lost");
    struct attr a;
    uint64_t ino = file_ino(f);

    CHECK_INT(file_write(f, &root, big, 3u << 20, 0), 0);
    CHECK_INT(file_flush(f), 0);
    CHECK_INT(file_write(f, &root, big + (3u << 20), 1u << 20, 3u << 20), 0);
    cr_expire_sessions(1, 200);
    CHECK_INT(file_write(f, &root, big + (4u << 20), 1u << 20, 4u << 20), 0);
    CHECK_INT(file_fsync(f), 0);
    CHECK(same(f, big, BIG, 1 << 20));
    file_close(f);
    CHECK_INT(
        client_make(c, &root, INODE_ROOT, slice_str("after"), S_IFDIR | 0755, 0, SLICE_EMPTY, &a),
        0);
    client_close(c);
    c = cr_client();
    f = reopen(c, ino, O_RDONLY);
    CHECK(same(f, big, BIG, 1 << 20));
    file_close(f);
    client_close(c);
}

/* Acknowledged and not committed when the session ends: read back and written again. */
static void lost_uncommitted(void)
{
    struct client *c;
    struct file *f;
    struct why why;

    CHECK_INT(conf_set(cr.conf, "client.commit_interval=1m", &why), 0);
    c = cr_client();
    f = create(c, "rescued");
    CHECK_INT(file_write(f, &root, big, 4u << 20, 0), 0);
    cr_expire_sessions(1, 200);
    CHECK_INT(file_flush(f), 0);
    CHECK(same(f, big, 4u << 20, 1 << 20));
    file_close(f);
    client_close(c);
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
}

static uint64_t noted;

static void on_content(void *arg, uint64_t ino)
{
    (void)arg;
    noted = ino;
}

static void note(void *arg)
{
    ++*(int *)arg;
}

static void changed_by_another(void)
{
    uint64_t mark = 0;
    int ended = 0;
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "shared");
    struct file *g;
    uint8_t buf[8] = { 0 };
    size_t n = 0;
    bool changed = true;
    uint64_t ino = file_ino(f);
    struct attr a;

    client_on_content(c, on_content, NULL);
    CHECK_INT(file_write(f, &root, "one", 3, 0), 0);
    CHECK_INT(file_flush(f), 0);
    file_close(f);
    CHECK_INT(file_open(c, &root, ino, O_RDONLY, &f, NULL, &changed), 0);
    CHECK(!changed);
    CHECK_INT(file_read(f, buf, 8, 0, &n), 0);
    file_close(f);
    g = reopen(other, ino, O_RDWR);
    CHECK_INT(file_write(g, &root, "twoo", 4, 0), 0);
    CHECK_INT(file_flush(g), 0);
    file_close(g);
    CHECK_INT(file_open(c, &root, ino, O_RDONLY, &f, NULL, &changed), 0);
    CHECK(changed);
    CHECK_INT(file_read(f, buf, 8, 0, &n), 0);
    CHECK_INT(n, 4);
    CHECK(memcmp(buf, "twoo", 4) == 0);
    /* While it is open, too, once new attributes were seen. */
    g = reopen(other, ino, O_RDWR | O_APPEND);
    CHECK_INT(file_write(g, &root, "!", 1, 0), 0);
    CHECK_INT(file_flush(g), 0);
    file_close(g);
    (void)client_content_old(c, ino, &mark);
    client_content_renewed(c, ino, mark);
    CHECK(!client_content_old(c, ino, NULL));
    CHECK(file_ends_at(f, 4, note, &ended)); /* as far as is known here */
    CHECK_INT(client_getattr(c, &root, ino, &a), 0);
    CHECK_INT(a.size, 5);
    CHECK(!file_ends_at(f, 4, note, &ended));
    CHECK_INT(ended, 1);
    CHECK_INT(file_read(f, buf, 8, 0, &n), 0);
    CHECK_INT(n, 5);
    CHECK(memcmp(buf, "twoo!", 5) == 0);
    /* What is cached above is old until somebody says that it was renewed, or opens it again. */
    CHECK(client_content_old(c, ino, &mark));
    CHECK_INT(noted, ino);
    g = reopen(c, ino, O_RDONLY);
    file_close(g);
    CHECK_INT(file_open(c, &root, ino, O_RDONLY, &g, NULL, &changed), 0);
    CHECK(changed);
    client_content_renewed(c, ino, mark);
    CHECK(!client_content_old(c, ino, NULL));
    file_close(g);
    CHECK_INT(file_open(c, &root, ino, O_RDONLY, &g, NULL, &changed), 0);
    CHECK(!changed);
    /* Our own changes are no news. */
    CHECK_INT(client_setattr(c, &root, &(struct setattr_req){ .ino = ino, .valid = SET_SIZE }, &a),
              0);
    CHECK(!client_content_old(c, ino, NULL));
    file_close(g);
    file_close(f);
    client_close(c);
    client_close(other);
}

struct worker {
    struct client *c;
    int number;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    uint8_t buf[3000];

    for (int i = 0; i < 40; i++) {
        char name[32];
        struct file *f;
        size_t n = 0;

        snprintf(name, sizeof(name), "w%d-%d", w->number, i);
        f = create(w->c, name);
        CHECK_INT(file_write(f, &root, big + i, sizeof(buf), 0), 0);
        CHECK_INT(i % 4 ? file_flush(f) : file_fsync(f), 0);
        CHECK_INT(file_read(f, buf, sizeof(buf), 0, &n), 0);
        CHECK(n == sizeof(buf) && memcmp(buf, big + i, n) == 0);
        file_close(f);
    }
    return NULL;
}

static void many_threads(void)
{
    struct client *c = cr_client();
    struct worker w[8];
    pthread_t t[8];

    for (int i = 0; i < 8; i++) {
        w[i] = (struct worker){ c, i };
        pthread_create(&t[i], NULL, work, &w[i]);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], NULL);
    }
    CHECK_INT(client_sync(c), 0);
    client_close(c);
}

int main(void)
{
    struct why why;

    big = x_alloc(BIG + 4096);
    fill(big, BIG);
    cr_start(2u << 20, "5s");
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
    tap_run("small files share blocks and are read back", small_files);
    tap_run("a large file spans blocks", large_file);
    tap_run("random writes, truncates and reads agree with an array", random_writes);
    tap_run("the same while servers and sessions come and go", random_trouble);
    tap_run("appends go behind everybody's writes; holes are zeros", append_and_holes);
    tap_run("unsynced data is committed after a while", timed_commit);
    tap_run("a server that dies in a write costs nothing", server_dies_in_a_write);
    tap_run("a server that dies in a read costs nothing", server_dies_in_a_read);
    tap_run("without servers a write fails in time, and is told once", no_server_at_all);
    tap_run("a file in many pieces is committed as soon as others", many_pieces);
    tap_run("what nobody waits for is sent when servers are back", servers_away_for_long);
    tap_run("who opens a file hears of errors that nobody was told", errors_are_told);
    tap_run("an append that fails leaves what others wrote", failed_append);
    tap_run("commands find the leader", leader_trouble);
    tap_run("a lost session is replaced and its data written again", lost_session);
    tap_run("what was acknowledged but not committed is rescued", lost_uncommitted);
    tap_run("an open sees what another client has committed", changed_by_another);
    tap_run("many threads write small files", many_threads);
    cr_stop();
    free(big);
    return tap_done();
}
