/* System calls that a shell cannot make, each as a small check that says what went wrong.
 *
 *   posix rename2 noreplace|exchange A B     exit status 0, or errno's name on stderr
 *   posix unlinked FILE       write, unlink, write on, read back through the open descriptor
 *   posix mmap FILE           shared mapping: written bytes are in the file, read bytes are right
 *   posix map_append FILE     shared mappings of a file that is opened to append; exit status 77 where the
 *                             kernel cannot
 *   posix append FILE N       N processes append lines of 64 bytes through O_APPEND descriptors
 *   posix many DIR N          make N files, several processes at once
 *   posix count DIR           entries that readdir gives; fails when one comes twice
 *   posix seekdir DIR         telldir and seekdir give the same entries again
 *   posix model FILE SEED N   N random writes, truncates and reads, compared with an array
 *   posix hold FILE READY     open it, write "ready" to READY, wait for the end of stdin, then write
 *                             and close
 *   posix excl FILE           O_CREAT|O_EXCL
 *   posix holes FILE          SEEK_DATA, SEEK_HOLE and st_blocks are right before and after fsync,
 *                             through writes, holes punched, ranges zeroed
 *   posix huge FILE           the last bytes of the largest file; nothing behind them
 *   posix copy FROM TO        copy_file_range of a file that was just written to, also by a mapping;
 *                             within one file; overlapping ranges are refused
 *   posix direct FILE         O_DIRECT and O_DSYNC
 *   posix read FILE           one byte of it
 *   posix noatime FILE        one byte of it through O_NOATIME: the access time stays
 *   posix utimens FILE        UTIME_NOW, UTIME_OMIT and nanoseconds; ctime follows
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEED(x)                                                                                \
    do {                                                                                       \
        if (!(x)) {                                                                            \
            fprintf(stderr, "posix: line %d: %s: %s\n", __LINE__, #x, strerrorname_np(errno)); \
            return 1;                                                                          \
        }                                                                                      \
    } while (0)

#define MAKERS 8

static uint64_t rng = 1;

static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static int do_rename2(char **a)
{
    unsigned flags = strcmp(a[0], "exchange") == 0 ? RENAME_EXCHANGE : RENAME_NOREPLACE;

    NEED(renameat2(AT_FDCWD, a[1], AT_FDCWD, a[2], flags) == 0);
    return 0;
}

static int do_unlinked(char **a)
{
    char buf[100000];
    struct stat st;
    int fd = open(a[0], O_RDWR | O_CREAT | O_EXCL, 0644);

    NEED(fd >= 0);
    memset(buf, 'a', sizeof(buf));
    NEED(write(fd, buf, sizeof(buf)) == (ssize_t)sizeof(buf));
    NEED(unlink(a[0]) == 0);
    NEED(access(a[0], F_OK) != 0 && errno == ENOENT);
    memset(buf, 'b', sizeof(buf));
    NEED(write(fd, buf, sizeof(buf)) == (ssize_t)sizeof(buf));
    NEED(fsync(fd) == 0);
    NEED(fstat(fd, &st) == 0);
    NEED(st.st_nlink == 0);
    NEED(st.st_size == 2 * (off_t)sizeof(buf));
    NEED(pread(fd, buf, sizeof(buf), 50000) == (ssize_t)sizeof(buf));
    NEED(buf[0] == 'a' && buf[49999] == 'a' && buf[50000] == 'b' && buf[99999] == 'b');
    NEED(close(fd) == 0);
    return 0;
}

static int do_mmap(char **a)
{
    const size_t len = 300000;
    char *p;
    char c[3];
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

    NEED(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
    NEED(pwrite(fd, "xyz", 3, 4095) == 3);
    p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(p != MAP_FAILED);
    NEED(memcmp(p + 4095, "xyz", 3) == 0 && p[0] == 0 && p[len - 1] == 0);
    memset(p + 100000, 'm', 100000);
    NEED(msync(p, len, MS_SYNC) == 0);
    NEED(munmap(p, len) == 0);
    NEED(close(fd) == 0);
    fd = open(a[0], O_RDONLY);
    NEED(fd >= 0);
    NEED(pread(fd, c, 3, 99999) == 3 && c[0] == 0 && c[1] == 'm' && c[2] == 'm');
    NEED(pread(fd, c, 3, 199999) == 3 && c[0] == 'm' && c[1] == 0);
    p = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    NEED(p != MAP_FAILED && p[150000] == 'm' && p[4096] == 'y');
    return 0;
}

static int do_map_append(char **a)
{
    char c[12];
    char *p;
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0644);
    int in = open(a[0], O_RDONLY | O_APPEND);

    NEED(fd >= 0 && in >= 0 && write(fd, "one", 3) == 3);
    p = mmap(NULL, 8192, PROT_READ, MAP_SHARED, in, 0);
    NEED(p != MAP_FAILED && memcmp(p, "one", 4) == 0 && munmap(p, 8192) == 0 && close(in) == 0);
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED && errno == ENODEV) {
        return 77;
    }
    NEED(p != MAP_FAILED && memcmp(p, "one", 4) == 0);
    NEED(write(fd, "two", 3) == 3);
    NEED(memcmp(p, "onetwo", 7) == 0);
    memcpy(p, "ONE", 3);
    NEED(write(fd, "three", 5) == 5);
    NEED(memcmp(p, "ONEtwothree", 12) == 0);
    NEED(msync(p, 8192, MS_SYNC) == 0 && munmap(p, 8192) == 0);
    NEED(pread(fd, c, sizeof(c), 0) == 11 && memcmp(c, "ONEtwothree", 11) == 0);
    NEED(close(fd) == 0);
    return 0;
}

static int do_append(char **a)
{
    int n = atoi(a[1]);
    int bad = 0;
    int status;

    for (int i = 0; i < n; i++) {
        if (fork() == 0) {
            char line[64];
            int fd = open(a[0], O_WRONLY | O_CREAT | O_APPEND, 0644);

            memset(line, 'a' + i, 63);
            line[63] = '\n';
            for (int k = 0; k < 200; k++) {
                if (write(fd, line, 64) != 64) {
                    _exit(1);
                }
            }
            _exit(fd < 0 || close(fd) != 0);
        }
    }
    while (wait(&status) > 0) {
        bad |= status;
    }
    return bad != 0;
}

static int make_some(const char *path, long from, long to)
{
    int dir = open(path, O_RDONLY | O_DIRECTORY);

    NEED(dir >= 0);
    for (long i = from; i < to; i++) {
        char name[32];
        int fd;

        snprintf(name, sizeof(name), "entry-%ld", i);
        fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
        NEED(fd >= 0);
        NEED(close(fd) == 0);
    }
    return 0;
}

static int do_many(char **a)
{
    long n = atol(a[1]);
    int bad = 0;
    int status;

    for (long i = 0; i < MAKERS; i++) {
        if (fork() == 0) {
            _exit(make_some(a[0], n * i / MAKERS, n * (i + 1) / MAKERS));
        }
    }
    while (wait(&status) > 0) {
        bad |= status;
    }
    return bad != 0;
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

static int do_count(char **a)
{
    size_t n = 0;
    size_t cap = 1024;
    char **names = malloc(cap * sizeof(*names));
    DIR *d = opendir(a[0]);
    struct dirent *e;

    NEED(d != NULL);
    while (errno = 0, (e = readdir(d)) != NULL) {
        if (n == cap) {
            cap *= 2;
            names = realloc(names, cap * sizeof(*names));
        }
        names[n++] = strdup(e->d_name);
    }
    NEED(errno == 0);
    qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            fprintf(stderr, "posix: %s comes twice\n", names[i]);
            return 1;
        }
    }
    printf("%zu\n", n - 2); /* without . and .. */
    return 0;
}

static int do_seekdir(char **a)
{
    DIR *d = opendir(a[0]);
    char *names[50];
    long at[50];
    int n = 0;
    struct dirent *e;

    NEED(d != NULL);
    while (n < 50 && (at[n] = telldir(d), e = readdir(d)) != NULL) {
        names[n++] = strdup(e->d_name);
    }
    for (int i = n - 1; i >= 0; i--) {
        seekdir(d, at[i]);
        e = readdir(d);
        NEED(e != NULL && strcmp(e->d_name, names[i]) == 0);
    }
    rewinddir(d);
    e = readdir(d);
    NEED(e != NULL && strcmp(e->d_name, names[0]) == 0);
    return 0;
}

#define MODEL_BYTES (1 << 20)

static unsigned char model[MODEL_BYTES];

static int compare_with_model(int fd, size_t len)
{
    static unsigned char got[MODEL_BYTES + 1];
    struct stat st;
    size_t at = 0;

    NEED(fstat(fd, &st) == 0 && st.st_size == (off_t)len);
    while (at < len) {
        ssize_t n = pread(fd, got + at, MODEL_BYTES + 1 - at, (off_t)at);

        NEED(n > 0);
        at += (size_t)n;
    }
    NEED(at == len && memcmp(got, model, len) == 0);
    return 0;
}

static int do_model(char **a)
{
    static unsigned char buf[100000];
    long n = atol(a[2]);
    size_t len = 0;
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

    rng = strtoull(a[1], NULL, 10) * 2 + 1;
    NEED(fd >= 0);
    for (long i = 0; i < n; i++) {
        size_t off = rnd() % (MODEL_BYTES - sizeof(buf));
        size_t count = rnd() % 8 == 0 ? rnd() % sizeof(buf) : rnd() % 3000;

        switch (rnd() % 10) {
        case 0: /* shrinks or grows */
            NEED(ftruncate(fd, (off_t)off) == 0);
            if (off < len) {
                memset(model + off, 0, len - off);
            }
            len = off;
            break;
        case 1:
            NEED(fsync(fd) == 0);
            break;
        case 2:
            NEED(close(fd) == 0);
            fd = open(a[0], O_RDWR);
            NEED(fd >= 0);
            break;
        case 3:
            if (compare_with_model(fd, len) != 0) {
                fprintf(stderr, "posix: differs after step %ld\n", i);
                return 1;
            }
            break;
        default:
            memset(buf, (int)(1 + rnd() % 255), count);
            NEED(pwrite(fd, buf, count, (off_t)off) == (ssize_t)count);
            memcpy(model + off, buf, count);
            len = count > 0 && off + count > len ? off + count : len;
        }
    }
    NEED(close(fd) == 0);
    fd = open(a[0], O_RDONLY);
    NEED(fd >= 0);
    return compare_with_model(fd, len);
}

static int do_hold(char **a)
{
    int fd = open(a[0], O_RDWR | O_CREAT, 0644);
    int ready = open(a[1], O_WRONLY | O_CREAT, 0644);
    char c;

    NEED(fd >= 0 && ready >= 0 && write(ready, "ready\n", 6) == 6);
    while (read(0, &c, 1) > 0) {
    }
    NEED(pwrite(fd, "held", 4, 0) == 4);
    NEED(close(fd) == 0);
    return 0;
}

static int do_excl(char **a)
{
    int fd = open(a[0], O_WRONLY | O_CREAT | O_EXCL, 0644);

    NEED(fd >= 0);
    return 0;
}

#define HOLES_SIZE (8 << 20)

/* Data at 1 MiB to 1 MiB + 5000 and at 4 MiB to 4 MiB + 100, the end at 8 MiB. */
static int check_holes(int fd, off_t from, off_t to)
{
    struct stat st;

    NEED(lseek(fd, 0, SEEK_HOLE) == 0);
    NEED(lseek(fd, 0, SEEK_DATA) == from);
    NEED(lseek(fd, from + 1, SEEK_DATA) == from + 1);
    NEED(lseek(fd, from, SEEK_HOLE) == to);
    NEED(lseek(fd, to, SEEK_HOLE) == to);
    NEED(lseek(fd, to, SEEK_DATA) == 4 << 20);
    NEED(lseek(fd, 4 << 20, SEEK_HOLE) == (4 << 20) + 100);
    NEED(lseek(fd, 5 << 20, SEEK_DATA) == -1 && errno == ENXIO);
    NEED(lseek(fd, 5 << 20, SEEK_HOLE) == 5 << 20);
    NEED(lseek(fd, HOLES_SIZE - 1, SEEK_HOLE) == HOLES_SIZE - 1);
    NEED(lseek(fd, HOLES_SIZE, SEEK_HOLE) == -1 && errno == ENXIO);
    NEED(fstat(fd, &st) == 0 && st.st_size == HOLES_SIZE);
    NEED(st.st_blocks == (to - from + 100 + 511) / 512);
    return 0;
}

static int do_holes(char **a)
{
    char buf[5000];
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

    memset(buf, 'd', sizeof(buf));
    NEED(fd >= 0 && ftruncate(fd, HOLES_SIZE) == 0);
    NEED(pwrite(fd, buf, 5000, 1 << 20) == 5000);
    NEED(pwrite(fd, buf, 100, 4 << 20) == 100);
    NEED(check_holes(fd, 1 << 20, (1 << 20) + 5000) == 0);
    NEED(fsync(fd) == 0);
    NEED(check_holes(fd, 1 << 20, (1 << 20) + 5000) == 0);
    NEED(pwrite(fd, buf, 200, 1 << 20) == 200); /* what is there already counts once */
    NEED(check_holes(fd, 1 << 20, (1 << 20) + 5000) == 0);
    NEED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 1000) == 0);
    NEED(check_holes(fd, (1 << 20) + 1000, (1 << 20) + 5000) == 0);
    NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE, (1 << 20) + 3000, 2000) == 0);
    NEED(check_holes(fd, (1 << 20) + 1000, (1 << 20) + 3000) == 0);
    NEED(pread(fd, buf, 5000, 1 << 20) == 5000);
    NEED(buf[0] == 0 && buf[999] == 0 && buf[1000] == 'd' && buf[2999] == 'd' && buf[3000] == 0);
    NEED(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 2 * HOLES_SIZE) == 0);
    NEED(check_holes(fd, (1 << 20) + 1000, (1 << 20) + 3000) == 0);
    NEED(posix_fallocate(fd, 0, HOLES_SIZE) == 0);
    NEED(check_holes(fd, (1 << 20) + 1000, (1 << 20) + 3000) == 0);
    NEED(close(fd) == 0);
    return 0;
}

static int do_huge(char **a)
{
    const off_t max = (off_t)16 << 40;
    char c[4];
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

    NEED(fd >= 0 && ftruncate(fd, max) == 0);
    NEED(ftruncate(fd, max + 1) == -1 && errno == EFBIG);
    NEED(pwrite(fd, "end", 3, max - 3) == 3);
    NEED(pwrite(fd, "x", 1, max) == -1 && errno == EFBIG);
    NEED(lseek(fd, 0, SEEK_DATA) == max - 3 && lseek(fd, max - 3, SEEK_HOLE) == max);
    NEED(fallocate(fd, 0, max - 1, 2) == -1 && errno == EFBIG);
    NEED(posix_fallocate(fd, 0, max) == ENOSPC);
    NEED(pread(fd, c, 4, max - 3) == 3 && memcmp(c, "end", 3) == 0);
    NEED(close(fd) == 0);
    return 0;
}

static int do_copy(char **a)
{
    const size_t len = 3000000;
    char *want = malloc(len + 10);
    char *got = malloc(len + 10);
    int from = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
    int to = open(a[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
    loff_t in = 0;
    loff_t out = 7;
    char *p;

    NEED(want != NULL && got != NULL && from >= 0 && to >= 0);
    for (size_t i = 0; i < len; i++) {
        want[i] = (char)rnd();
    }
    NEED(pwrite(from, want, len, 0) == (ssize_t)len);
    p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, from, 0);
    NEED(p != MAP_FAILED);
    memset(p + 70000, 'm', 9000);
    memset(want + 70000, 'm', 9000);
    NEED(pwrite(to, "before and behind", 17, 0) == 17);
    NEED(copy_file_range(from, &in, to, &out, 2 * len, 0) == (ssize_t)len);
    NEED(copy_file_range(from, &in, to, &out, len, 0) == 0); /* the source's end */
    NEED(pread(to, got, len + 10, 0) == (ssize_t)len + 7);
    NEED(memcmp(got, "before ", 7) == 0 && memcmp(got + 7, want, len) == 0);
    /* what is written to one is not in the other */
    NEED(pwrite(from, "source", 6, 100) == 6 && pwrite(to, "target", 6, 1007) == 6);
    NEED(pread(to, got, 6, 107) == 6 && memcmp(got, want + 100, 6) == 0);
    NEED(pread(from, got, 6, 1000) == 6 && memcmp(got, want + 1000, 6) == 0);
    /* inside of one file */
    in = 70000;
    out = len;
    NEED(copy_file_range(from, &in, from, &out, 9000, 0) == 9000);
    NEED(pread(from, got, 9001, len) == 9000 && memcmp(got, want + 70000, 9000) == 0);
    in = 0;
    out = 10;
    NEED(copy_file_range(from, &in, from, &out, 11, 0) == -1 && errno == EINVAL);
    NEED(munmap(p, len) == 0 && close(from) == 0 && fsync(to) == 0 && close(to) == 0);
    return 0;
}

static int do_direct(char **a)
{
    const size_t len = 1 << 20;
    char *p = aligned_alloc(4096, len);
    char *q = aligned_alloc(4096, len);
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_DSYNC, 0644);
    int other = open(a[0], O_RDONLY);

    NEED(p != NULL && q != NULL && fd >= 0 && other >= 0);
    for (size_t i = 0; i < len; i++) {
        p[i] = (char)rnd();
    }
    NEED(pwrite(fd, p, len, 0) == (ssize_t)len);
    NEED(pread(other, q, len, 0) == (ssize_t)len && memcmp(p, q, len) == 0);
    memset(p + 8192, 'D', 4096);
    NEED(pwrite(fd, p + 8192, 4096, 8192) == 4096); /* under the pages of the other one */
    NEED(pread(other, q, len, 0) == (ssize_t)len && memcmp(p, q, len) == 0);
    memset(q, 0, len);
    NEED(pread(fd, q, len, 0) == (ssize_t)len && memcmp(p, q, len) == 0);
    NEED(close(fd) == 0 && close(other) == 0);
    return 0;
}

static int do_read(char **a)
{
    char c;
    int fd = open(a[0], O_RDONLY);

    NEED(fd >= 0 && read(fd, &c, 1) == 1 && close(fd) == 0);
    return 0;
}

static int do_noatime(char **a)
{
    struct stat before, after;
    char c;
    int fd = open(a[0], O_RDONLY | O_NOATIME);

    NEED(fd >= 0 && fstat(fd, &before) == 0);
    NEED(read(fd, &c, 1) == 1 && fstat(fd, &after) == 0 && close(fd) == 0);
    NEED(after.st_atim.tv_sec == before.st_atim.tv_sec);
    NEED(after.st_atim.tv_nsec == before.st_atim.tv_nsec);
    return 0;
}

static int do_utimens(char **a)
{
    struct timespec t[2] = { { 1000000000, 123456789 }, { 0, UTIME_OMIT } };
    struct stat before;
    struct stat st;
    int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC, 0644);

    NEED(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0 && fstat(fd, &before) == 0);
    NEED(futimens(fd, t) == 0 && fstat(fd, &st) == 0);
    NEED(st.st_atim.tv_sec == 1000000000 && st.st_atim.tv_nsec == 123456789);
    NEED(memcmp(&st.st_mtim, &before.st_mtim, sizeof(st.st_mtim)) == 0);
    NEED(memcmp(&st.st_ctim, &before.st_ctim, sizeof(st.st_ctim)) != 0);
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    NEED(futimens(fd, t) == 0 && fstat(fd, &st) == 0);
    NEED(st.st_atim.tv_sec == 1000000000 && st.st_atim.tv_nsec == 123456789);
    NEED(st.st_mtim.tv_sec >= before.st_mtim.tv_sec);
    NEED(memcmp(&st.st_mtim, &st.st_ctim, sizeof(st.st_mtim)) == 0); /* one clock gave both */
    t[0] = (struct timespec){ (time_t)1 << 40, 5 }; /* later than can be said: the last that can */
    NEED(futimens(fd, t) == 0 && fstat(fd, &st) == 0 && st.st_atim.tv_sec > 9000000000);
    NEED(close(fd) == 0);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int args;
        int (*fn)(char **);
    } commands[] = {
        { "rename2", 3, do_rename2 }, { "unlinked", 1, do_unlinked },
        { "mmap", 1, do_mmap },       { "map_append", 1, do_map_append },
        { "append", 2, do_append },   { "many", 2, do_many },
        { "count", 1, do_count },     { "seekdir", 1, do_seekdir },
        { "model", 3, do_model },     { "hold", 2, do_hold },
        { "excl", 1, do_excl },       { "holes", 1, do_holes },
        { "huge", 1, do_huge },       { "copy", 2, do_copy },
        { "direct", 1, do_direct },   { "read", 1, do_read },
        { "utimens", 1, do_utimens }, { "noatime", 1, do_noatime },
    };

    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 >= commands[i].args) {
            return commands[i].fn(argv + 2);
        }
    }
    fprintf(stderr, "usage: see the top of test/lib/posix.c\n");
    return 2;
}
