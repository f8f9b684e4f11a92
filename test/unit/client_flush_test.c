/* Flushes of one file by many at once, and beside a master that does not answer: see cluster_rig.h. */
#include "cluster/base/base.h"

#include <fcntl.h>
#include <limits.h>

#include "test/unit/cluster_rig.h"

#define THREADS 24
#define ROUNDS  150
#define BYTES   512u
#define LARGE   1500000u /* more than a packet, less than a block */

static const struct cred root;

static struct file *create(struct client *c, const char *name)
{
    struct file *f = NULL;

    CHECK_INT(
        file_create(c, &root, INODE_ROOT, slice_str(name), 0644, O_RDWR | O_EXCL, &f, NULL, NULL),
        0);
    return f;
}

static struct file *reopen(struct client *c, uint64_t ino, int flags)
{
    struct file *f = NULL;

    CHECK_INT(file_open(c, &root, ino, flags, &f, NULL, NULL), 0);
    return f;
}

struct worker {
    struct client *c;
    uint64_t ino;
    uint32_t number;
    int err;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct file *f = reopen(w->c, w->ino, O_RDWR);
    uint8_t buf[BYTES];

    memset(buf, 'a' + (int)w->number, sizeof(buf));
    for (uint32_t i = 0; i < ROUNDS && w->err == 0; i++) {
        w->err =
            file_write(f, &root, buf, sizeof(buf), (uint64_t)BYTES * (i * THREADS + w->number));
        w->err = w->err != 0 ? w->err : i % 8 != 0 ? file_flush(f) : file_fsync(f);
    }
    file_close(f);
    return NULL;
}

static void many_flush_one_file(void)
{
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "shared");
    struct worker w[THREADS];
    pthread_t t[THREADS];
    uint8_t buf[BYTES];
    size_t n = 0;

    for (uint32_t i = 0; i < THREADS; i++) {
        w[i] = (struct worker){ c, file_ino(f), i, 0 };
        CHECK_INT(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK_INT(pthread_join(t[i], NULL), 0);
        CHECK_INT(w[i].err, 0);
    }
    struct file *g = reopen(other, file_ino(f), O_RDONLY);

    for (uint32_t i = 0; i < THREADS * ROUNDS; i++) {
        CHECK_INT(file_read(g, buf, BYTES, (uint64_t)BYTES * i, &n), 0);
        CHECK(n == BYTES && buf[0] == 'a' + (int)(i % THREADS) && buf[BYTES - 1] == buf[0]);
    }
    file_close(g);
    file_close(f);
    client_close(c);
    client_close(other);
}

static void failed_append_keeps_writes(void)
{
    struct client *c = cr_client();
    struct client *other = cr_client();
    struct file *f = create(c, "log");
    struct file *g = reopen(c, file_ino(f), O_WRONLY | O_APPEND);
    uint8_t *buf = x_alloc(LARGE);
    uint8_t *got = x_alloc(LARGE);
    size_t n = 0;

    for (uint32_t i = 0; i < LARGE; i++) {
        buf[i] = (uint8_t)(i * 7 + i / 251);
    }
    CHECK_INT(file_write(f, &root, buf, LARGE, 0), 0);
    atomic_store(&cr.not_leader, INT_MAX);
    CHECK(file_write(g, &root, "behind", 6, 0) != 0);
    atomic_store(&cr.not_leader, 0);
    CHECK_INT(file_fsync(f), 0);
    struct file *h = reopen(other, file_ino(f), O_RDONLY);

    CHECK_INT(file_read(h, got, LARGE, 0, &n), 0);
    CHECK(n == LARGE && memcmp(got, buf, LARGE) == 0);
    CHECK_INT(file_read(h, got, 6, LARGE, &n), 0);
    CHECK_INT(n, 0);
    file_close(h);
    file_close(g);
    file_close(f);
    free(buf);
    free(got);
    client_close(c);
    client_close(other);
}

int main(void)
{
    struct why why;

    cr_start(2u << 20, "2s");
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=60s", &why), 0);
    tap_run("an append that fails takes nothing along that was written",
            failed_append_keeps_writes);
    CHECK_INT(conf_set(cr.conf, "client.commit_interval=100ms", &why), 0);
    CHECK_INT(conf_set(cr.conf, "client.timeout=30s", &why), 0);
    tap_run("many flush one file at once", many_flush_one_file);
    cr_stop();
    return tap_done();
}
