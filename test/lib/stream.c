/* Writes and checks a byte stream that is a function of a seed, so that a reader can tell for every
 * prefix whether each byte is right.
 *
 *   stream write FILE SEED ACKLOG [MAX_MIB [RATE]]
 *                                            append pieces of random size, fsync now and then; after
 *                                            each fsync the length goes to ACKLOG (another file
 *                                            system). Ends at the first error or at MAX_MIB.
 *   stream files DIR SEED ACKLOG             small files n0, n1, ...: write, fsync, close, log
 *   stream fill FILE SEED BYTES [RATE]       that many bytes, then close; RATE in MiB/s
 *   stream check FILE SEED [AT_LEAST [RATE]] right, and at least so long; prints the length
 *   stream checkfiles DIR SEED ACKLOG        every logged file is whole
 *   stream again FILE SEED BYTES             check over and over, each time without the kernel's cache
 *
 * STOP=PATH in the environment: write and again end well as soon as it exists. STALL=PATH: at the end
 * of write and again the longest time that one call of read, write or fsync took goes there, in ms.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIECE_MAX (256 * 1024)

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Bytes [off, off + len) of the stream. */
static void stream(uint64_t seed, uint64_t off, unsigned char *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t word = mix(seed ^ mix((off + i) / 8));
        size_t from = (off + i) % 8;
        size_t n = 8 - from < len - i ? 8 - from : len - i;

        memcpy(p + i, (unsigned char *)&word + from, n);
        i += n;
    }
}

static int fail(const char *what, const char *path)
{
    fprintf(stderr, "stream: %s %s: %s\n", what, path, strerror(errno));
    return 1;
}

static uint64_t longest_ns;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void took_since(uint64_t start)
{
    uint64_t ns = now_ns() - start;

    longest_ns = ns > longest_ns ? ns : longest_ns;
}

static int told_to_stop(void)
{
    const char *path = getenv("STOP");

    return path != NULL && access(path, F_OK) == 0;
}

static int tell_stall(void)
{
    const char *path = getenv("STALL");
    FILE *f = path != NULL ? fopen(path, "w") : NULL;

    if (path == NULL) {
        return 0;
    }
    if (f == NULL) {
        return fail("open", path);
    }
    fprintf(f, "%ju\n", (uintmax_t)(longest_ns / 1000000));
    return fclose(f) != 0 ? fail("close", path) : 0;
}

static int put(int fd, const unsigned char *p, size_t len)
{
    while (len > 0) {
        uint64_t start = now_ns();
        ssize_t n = write(fd, p, len);

        took_since(start);
        if (n < 0) {
            return -1;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Waits until so many bytes are due at a rate (0 = at once), counted from the first call. */
static void pace(uint64_t bytes, uint64_t mib_per_s)
{
    static struct timespec start;
    struct timespec due;

    if (mib_per_s == 0) {
        return;
    }
    if (start.tv_sec == 0) {
        clock_gettime(CLOCK_MONOTONIC, &start);
    }
    due = start;
    due.tv_sec += (time_t)(bytes / (mib_per_s << 20));
    due.tv_nsec += (long)(bytes % (mib_per_s << 20) * 1000000000 / (mib_per_s << 20));
    due.tv_sec += due.tv_nsec / 1000000000;
    due.tv_nsec %= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static int synced(int fd)
{
    uint64_t start = now_ns();
    int rc = fsync(fd);

    took_since(start);
    return rc;
}

static int do_write(const char *path, uint64_t seed, const char *log, uint64_t max, uint64_t rate)
{
    static unsigned char buf[PIECE_MAX];
    uint64_t rng = mix(seed ^ (uint64_t)getpid());
    uint64_t off = 0;
    FILE *acks = fopen(log, "a");
    int fd = open(path, O_WRONLY | O_CREAT, 0644);

    if (acks == NULL || fd < 0) {
        return fail("open", fd < 0 ? path : log);
    }
    while (off < max && !told_to_stop()) {
        size_t len;

        rng = mix(rng);
        len = 1 + (rng % 4 == 0 ? rng / 4 % PIECE_MAX : rng / 4 % 5000);
        stream(seed, off, buf, len);
        if (put(fd, buf, len) != 0) {
            return fail("write", path);
        }
        off += len;
        if (rng >> 32 & 1) {
            if (synced(fd) != 0) {
                return fail("fsync", path);
            }
            fprintf(acks, "%ju\n", (uintmax_t)off);
            fflush(acks);
        }
        pace(off, rate);
    }
    return close(fd) != 0 ? fail("close", path) : tell_stall();
}

static size_t file_len(uint64_t seed, uint64_t n)
{
    return mix(seed + n) % 20000;
}

static int do_files(const char *dir, uint64_t seed, const char *log)
{
    static unsigned char buf[20000];
    FILE *acks = fopen(log, "a");

    if (acks == NULL) {
        return fail("open", log);
    }
    for (uint64_t n = 0;; n++) {
        char path[4096];
        size_t len = file_len(seed, n);
        int fd;

        snprintf(path, sizeof(path), "%s/n%ju", dir, (uintmax_t)n);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0) {
            return fail("create", path);
        }
        stream(seed + n, 0, buf, len);
        if (put(fd, buf, len) != 0 || fsync(fd) != 0) {
            return fail("write", path);
        }
        fprintf(acks, "%ju\n", (uintmax_t)n);
        fflush(acks);
        if (close(fd) != 0) {
            return fail("close", path);
        }
    }
}

static int do_fill(const char *path, uint64_t seed, uint64_t bytes, uint64_t rate)
{
    static unsigned char buf[1 << 20];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    for (uint64_t off = 0; fd >= 0 && off < bytes;) {
        size_t len = bytes - off < sizeof(buf) ? (size_t)(bytes - off) : sizeof(buf);

        stream(seed, off, buf, len);
        if (put(fd, buf, len) != 0) {
            return fail("write", path);
        }
        off += len;
        pace(off, rate);
    }
    return fd < 0 || close(fd) != 0 ? fail("close", path) : 0;
}

static ssize_t get(int fd, unsigned char *p, size_t len)
{
    uint64_t start = now_ns();
    ssize_t n = read(fd, p, len);

    took_since(start);
    return n;
}

/* Compares what is there; the length, or -1. */
static int64_t compare(const char *path, uint64_t seed, uint64_t rate)
{
    static unsigned char want[1 << 20];
    static unsigned char got[1 << 20];
    int fd = open(path, O_RDONLY);
    uint64_t off = 0;
    ssize_t n;

    if (fd < 0) {
        fail("open", path);
        return -1;
    }
    while ((n = get(fd, got, sizeof(got))) > 0) {
        stream(seed, off, want, (size_t)n);
        for (ssize_t i = 0; i < n; i++) {
            if (got[i] != want[i]) {
                fprintf(stderr, "stream: %s: wrong byte at %ju\n", path,
                        (uintmax_t)off + (size_t)i);
                close(fd);
                return -1;
            }
        }
        off += (uint64_t)n;
        pace(off, rate);
    }
    close(fd);
    if (n < 0) {
        fail("read", path);
        return -1;
    }
    return (int64_t)off;
}

static int do_check(const char *path, uint64_t seed, int64_t at_least, uint64_t rate)
{
    int64_t len = compare(path, seed, rate);

    if (len >= 0 && len < at_least) {
        fprintf(stderr, "stream: %s: %jd bytes, %jd were acknowledged\n", path, (intmax_t)len,
                (intmax_t)at_least);
        return 1;
    }
    printf("%jd\n", (intmax_t)len);
    return len < 0;
}

static int do_again(const char *path, uint64_t seed, int64_t len)
{
    while (!told_to_stop()) {
        int fd = open(path, O_RDONLY);

        if (fd < 0) {
            return fail("open", path);
        }
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
        if (compare(path, seed, 0) != len) {
            fprintf(stderr, "stream: %s: not %jd bytes\n", path, (intmax_t)len);
            return 1;
        }
    }
    return tell_stall();
}

static int do_checkfiles(const char *dir, uint64_t seed, const char *log)
{
    FILE *acks = fopen(log, "r");
    uintmax_t n;
    unsigned long checked = 0;

    if (acks == NULL) {
        return fail("open", log);
    }
    while (fscanf(acks, "%ju", &n) == 1) {
        char path[4096];
        int64_t len;

        snprintf(path, sizeof(path), "%s/n%ju", dir, n);
        len = compare(path, seed + n, 0);
        if (len != (int64_t)file_len(seed, n)) {
            fprintf(stderr, "stream: %s: %jd bytes of %zu\n", path, (intmax_t)len,
                    file_len(seed, n));
            return 1;
        }
        checked++;
    }
    fclose(acks);
    printf("%lu\n", checked);
    return 0;
}

int main(int argc, char **argv)
{
    const char *cmd = argc > 3 ? argv[1] : "";
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;

    if (strcmp(cmd, "write") == 0 && argc > 4) {
        return do_write(argv[2], seed, argv[4],
                        (argc > 5 ? strtoull(argv[5], NULL, 10) : 1024) << 20,
                        argc > 6 ? strtoull(argv[6], NULL, 10) : 0);
    }
    if (strcmp(cmd, "files") == 0 && argc > 4) {
        return do_files(argv[2], seed, argv[4]);
    }
    if (strcmp(cmd, "fill") == 0 && argc > 4) {
        return do_fill(argv[2], seed, strtoull(argv[4], NULL, 10),
                       argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
    }
    if (strcmp(cmd, "check") == 0) {
        return do_check(argv[2], seed, argc > 4 ? strtoll(argv[4], NULL, 10) : 0,
                        argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
    }
    if (strcmp(cmd, "again") == 0 && argc > 4) {
        return do_again(argv[2], seed, strtoll(argv[4], NULL, 10));
    }
    if (strcmp(cmd, "checkfiles") == 0 && argc > 4) {
        return do_checkfiles(argv[2], seed, argv[4]);
    }
    fprintf(stderr, "usage: see the top of test/lib/stream.c\n");
    return 2;
}
