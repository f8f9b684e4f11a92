/* Reading from files that block servers have lent: see cluster_rig.h. */
#include "cluster/base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/fault.h"
#include "cluster/base/rng.h"

#include "replication/store/layout.h"

#include "test/unit/cluster_rig.h"

#define SIZE (5u << 20)

static const struct cred root;
static uint8_t bytes[SIZE];
static struct rng rng;

static struct client *client(const char *local_reads)
{
    struct why why;

    CHECK_INT(conf_set(cr.conf, "client.read_ahead=0", &why), 0);
    CHECK_INT(conf_set(cr.conf, local_reads, &why), 0);
    return cr_client();
}

static uint64_t local_bytes(const struct client *c)
{
    struct client_stats s;

    client_get_stats(c, &s);
    return s.local_bytes;
}

static struct file *make_file(struct client *c, const char *name, size_t size)
{
    struct file *f = NULL;

    CHECK_INT(
        file_create(c, &root, INODE_ROOT, slice_str(name), 0644, O_RDWR | O_EXCL, &f, NULL, NULL),
        0);
    CHECK_INT(file_write(f, &root, bytes, size, 0), 0);
    return f;
}

/* Made by one client and sealed; opened by another. */
static struct file *sealed_file(struct client *reader, const char *name, size_t size)
{
    struct client *c = client("client.local_reads=1");
    struct file *f = make_file(c, name, size);
    uint64_t ino = file_ino(f);

    CHECK_INT(file_fsync(f), 0);
    file_close(f);
    client_close(c);
    CHECK_INT(file_open(reader, &root, ino, O_RDONLY, &f, NULL, NULL), 0);
    return f;
}

static bool same(struct file *f, size_t off, size_t len)
{
    static uint8_t got[SIZE];
    size_t n = 0;

    memset(got, 0xee, len);
    return file_read(f, got, len, off, &n) == 0 && n == len && memcmp(got, bytes + off, len) == 0;
}

static void test_whole_file(void)
{
    struct client *c = client("client.local_reads=1");
    struct file *f = sealed_file(c, "whole", SIZE);
    struct client_stats s;

    CHECK(same(f, 0, SIZE));
    client_get_stats(c, &s);
    CHECK_INT(s.local_bytes, SIZE);
    CHECK_INT(s.read_requests, 0);
    file_close(f);
    client_close(c);
}

static void test_any_range(void)
{
    struct client *c = client("client.local_reads=1");
    struct file *f = sealed_file(c, "any", SIZE - 1234);
    bool good = true;

    for (int i = 0; i < 3000 && good; i++) {
        size_t len = 1 + (size_t)rng_below(&rng, i % 3 == 0 ? 2 * PACKET_BYTES : 3 * CHUNK_BYTES);
        size_t off = (size_t)rng_below(&rng, SIZE - 1234);

        /* Often at an edge of a chunk, a group or a block. */
        off = i % 2 == 0 ? off / CHUNK_BYTES * CHUNK_BYTES : off;
        len = MIN(len, SIZE - 1234 - off);
        good = same(f, off, len);
    }
    CHECK(good);
    CHECK(local_bytes(c) > 100u << 20);
    file_close(f);
    client_close(c);
}

static void test_switched_off(void)
{
    struct client *c = client("client.local_reads=0");
    struct file *f = sealed_file(c, "off", SIZE);

    CHECK(same(f, 0, SIZE));
    CHECK_INT(local_bytes(c), 0);
    file_close(f);
    client_close(c);
}

/* Flips a bit of the data at an offset of the block in every file that is as large as a full one. */
static int damage(const char *dir, uint32_t at)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int count = 0;

    CHECK(d != NULL);
    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[512];
        uint8_t byte;
        int fd;

        if (e->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_type == DT_DIR) {
            count += damage(path, at);
            continue;
        }
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && pread(fd, &byte, 1, (off_t)layout_data_at(at)) == 1) {
            byte ^= 1;
            CHECK_INT(pwrite(fd, &byte, 1, (off_t)layout_data_at(at)), 1);
            count++;
        }
        close(fd);
    }
    closedir(d);
    return count;
}

static void test_damage(void)
{
    struct client *c = client("client.local_reads=1");
    struct file *f = sealed_file(c, "bad", SIZE);
    struct client_stats s;
    char dir[128];

    CHECK(same(f, 0, SIZE)); /* the files are lent */
    snprintf(dir, sizeof(dir), "%s/s1", tap_tmp());
    CHECK(damage(dir, 50000) > 0);
    CHECK(same(f, 0, SIZE));
    client_get_stats(c, &s);
    CHECK(s.read_requests > 0);
    CHECK(s.local_bytes < 2 * SIZE);
    file_close(f);
    client_close(c);
}

/* No file, or none that can be believed: the servers are asked. */
static void test_refused(void)
{
    static const char *const faults[] = { "blk.lend=IO", "client.lent.check=IO" };

    for (size_t i = 0; i < ARRAY_LEN(faults) && FAULTS_BUILT_IN; i++) {
        struct client *c = client("client.local_reads=1");
        struct file *f = sealed_file(c, faults[i], SIZE);
        struct client_stats s;

        CHECK_INT(fault_arm(faults[i], NULL), 0);
        CHECK(same(f, 0, SIZE));
        CHECK_INT(fault_arm("", NULL), 0);
        client_get_stats(c, &s);
        CHECK_INT(s.local_bytes, 0);
        CHECK(s.read_requests > 0);
        file_close(f);
        client_close(c);
    }
}

/* A block that is being written: what is committed is read, however much comes behind it. */
static void test_open_block(void)
{
    struct client *w = client("client.local_reads=1");
    struct client *c = client("client.local_reads=1");
    struct file *f = make_file(w, "open", 100000);
    struct file *r = NULL;
    size_t size = 100000;

    for (int i = 0; i < 50; i++) {
        CHECK_INT(file_flush(f), 0);
        CHECK_INT(file_open(c, &root, file_ino(f), O_RDONLY, &r, NULL, NULL), 0);
        CHECK(same(r, 0, size));
        file_close(r);
        CHECK_INT(file_write(f, &root, bytes + size, 3001, size), 0);
        size += 3001;
    }
    CHECK(local_bytes(c) > 0);
    file_close(f);
    client_close(w);
    client_close(c);
}

/* A file that was removed is not held for long. */
static void test_given_back(void)
{
    struct client *c = client("client.local_reads=1");
    struct file *f = sealed_file(c, "back", 1000 * 1000);
    uint64_t until_ms = clock_mono_ms() + 20000;
    char link[256], path[64];
    bool held = true;

    CHECK(same(f, 0, 1000 * 1000));
    file_close(f);
    while (held && clock_mono_ms() < until_ms) {
        held = false;
        for (int fd = 3; fd < 200; fd++) {
            ssize_t n;

            snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
            n = readlink(path, link, sizeof(link) - 1);
            link[n > 0 ? n : 0] = '\0';
            held = held || (strstr(link, tap_tmp()) != NULL && strstr(link, "/s") != NULL &&
                            (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY &&
                            (fcntl(fd, F_GETFL) & O_DIRECTORY) == 0);
        }
        usleep(50000);
    }
    CHECK(!held);
    client_close(c);
}

int main(void)
{
    rng_init(&rng, 20261130);
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)rng_below(&rng, 256);
    }
    cr_start(2u << 20, "5s");
    tap_run("what is in the page cache is read without the server", test_whole_file);
    tap_run("any range of it agrees with what was written", test_any_range);
    tap_run("it can be switched off", test_switched_off);
    tap_run("a damaged file is read around", test_damage);
    tap_run("what is not lent, or not right, is asked of servers", test_refused);
    tap_run("a block that is being written is read up to what is known", test_open_block);
    tap_run("files are given back soon after their last use", test_given_back);
    cr_stop();
    return tap_done();
}
