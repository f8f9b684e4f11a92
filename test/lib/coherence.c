/* Two mounts of one cluster, from one process: what is done below A is looked for below B.
 *
 *   coherence overwrite A B N     the same bytes written over, N times: read() and a mapping of B, both
 *                                 opened before, follow
 *   coherence follow A B N        B follows a file of N lines that grows below A, as tail -f does, by
 *                                 several readers while others ask for its size: no byte that was not
 *                                 written is ever seen
 *   coherence extend A B N        A writes and syncs N records while B cuts and extends behind them
 *   coherence dirty A B           B truncates what A has written and not synced
 *   coherence append A WHO N      N lines of 64 bytes, each another one, to A/log
 *   coherence list A B N          B lists a directory of N names, and seeks in it, while A makes and
 *                                 removes others there
 *   coherence names A B           the longest name, path and symbolic link
 *   coherence both A B            A and B append to one file, and read it while they do
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NEED(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "coherence: line %d: %s: %s\n", __LINE__, #x, strerrorname_np(errno)); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#define PATIENCE_S   60
#define LINE         100

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void nap(int ms)
{
    poll(NULL, 0, ms);
}

static int open_at(const char *dir, const char *name, int flags)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, flags, 0644);
    NEED(fd >= 0);
    return fd;
}

static pid_t child(void)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    return pid;
}

static void wait_for(pid_t pid)
{
    int status;

    NEED(waitpid(pid, &status, 0) == pid);
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- overwrite ---- */

#define OVER 10000

static void wait_bytes(const char *what, const uint8_t *map, int fd, uint8_t want)
{
    double end = now() + PATIENCE_S;
    uint8_t buf[OVER];

    for (;;) {
        size_t same = 0;

        if (map == NULL) {
            NEED(pread(fd, buf, OVER, 0) == OVER);
        }
        for (size_t i = 0; i < OVER; i++) {
            same += (map != NULL ? map[i] : buf[i]) == want;
        }
        if (same == OVER) {
            return;
        }
        if (now() > end) {
            fprintf(stderr, "coherence: %s: %zu of %d bytes are new\n", what, same, OVER);
            exit(1);
        }
        nap(1);
    }
}

static int do_overwrite(char **a)
{
    int w = open_at(a[0], "over", O_RDWR | O_CREAT | O_TRUNC), r;
    uint8_t buf[OVER];
    uint8_t *map;

    memset(buf, 1, OVER);
    NEED(write(w, buf, OVER) == OVER && fsync(w) == 0);
    r = open_at(a[1], "over", O_RDONLY);
    map = mmap(NULL, OVER, PROT_READ, MAP_SHARED, r, 0);
    NEED(map != MAP_FAILED && map[OVER - 1] == 1);
    for (int i = 0; i < atoi(a[2]); i++) {
        memset(buf, 2 + i % 200, OVER);
        NEED(pwrite(w, buf, OVER, 0) == OVER);
        NEED(i % 2 == 0 || fsync(w) == 0); /* it gets there without, too */
        wait_bytes("read", NULL, r, buf[0]);
        wait_bytes("mapping", map, r, buf[0]);
    }
    return 0;
}

/* ---- follow ---- */

static void line_of(uint64_t i, char line[LINE + 1])
{
    snprintf(line, LINE + 1, "%-*ju\n", LINE - 1, (uintmax_t)i);
}

static void follower(const char *dir, uint64_t lines)
{
    int fd = open_at(dir, "grows", O_RDONLY);
    double end = now() + PATIENCE_S;
    char buf[3 * LINE], line[LINE + 1];
    uint64_t at = 0;

    while (at < lines * LINE) {
        ssize_t n = read(fd, buf, sizeof(buf));

        NEED(n >= 0);
        for (ssize_t k = 0; k < n; k++, at++) {
            line_of(at / LINE, line);
            if (buf[k] != line[at % LINE]) {
                fprintf(stderr, "coherence: byte %ju is %d, not %d\n", (uintmax_t)at, buf[k],
                        line[at % LINE]);
                exit(1);
            }
        }
        end = n > 0 ? now() + PATIENCE_S : end;
        if (now() > end) {
            fprintf(stderr, "coherence: nothing new behind byte %ju\n", (uintmax_t)at);
            exit(1);
        }
        nap(n > 0 ? 0 : 1);
    }
    exit(0);
}

/* Asks for the size all the time, until killed. */
static void asker(const char *dir)
{
    int fd = open_at(dir, "grows", O_RDONLY);
    struct stat st;

    for (;;) {
        NEED(fstat(fd, &st) == 0);
        nap(1);
    }
}

static int do_follow(char **a)
{
    uint64_t lines = strtoull(a[2], NULL, 10);
    int fd = open_at(a[0], "grows", O_WRONLY | O_CREAT | O_TRUNC);
    pid_t readers[4], askers[2];
    char line[LINE + 1];

    for (int i = 0; i < 4; i++) {
        readers[i] = child();
        if (readers[i] == 0) {
            follower(a[i == 3 ? 0 : 1], lines); /* one on the writer's mount */
        }
    }
    for (int i = 0; i < 2; i++) {
        askers[i] = child();
        if (askers[i] == 0) {
            asker(a[1]);
        }
    }
    for (uint64_t i = 0; i < lines; i++) {
        line_of(i, line);
        NEED(write(fd, line, LINE) == LINE);
        if (i % 3 == 0) {
            NEED(fsync(fd) == 0);
        }
    }
    for (int i = 0; i < 4; i++) {
        wait_for(readers[i]);
    }
    for (int i = 0; i < 2; i++) {
        kill(askers[i], 9);
        waitpid(askers[i], NULL, 0);
    }
    return 0;
}

/* ---- extend ---- */

#define RECORD 700
#define KEPT   (64 * 1024)

static int do_extend(char **a)
{
    int n = atoi(a[2]), w = open_at(a[0], "ext", O_RDWR | O_CREAT | O_TRUNC), r;
    static uint8_t want[KEPT], got[KEPT];
    pid_t other;

    NEED(write(w, want, KEPT) == KEPT && fsync(w) == 0);
    other = child();
    if (other == 0) {
        int fd = open_at(a[1], "ext", O_RDWR);

        for (unsigned i = 0;; i++) {
            NEED(ftruncate(fd, KEPT + (off_t)(i * 7919 % 200000)) == 0);
        }
    }
    for (int i = 0; i < n; i++) {
        size_t off = (size_t)i * 7907 % (KEPT - RECORD);

        memset(want + off, i + 1, RECORD);
        NEED(pwrite(w, want + off, RECORD, (off_t)off) == RECORD && fsync(w) == 0);
    }
    kill(other, 9);
    waitpid(other, NULL, 0);
    NEED(pread(w, got, KEPT, 0) == KEPT && memcmp(got, want, KEPT) == 0);
    r = open_at(a[1], "ext", O_RDONLY);
    NEED(pread(r, got, KEPT, 0) == KEPT && memcmp(got, want, KEPT) == 0);
    return 0;
}

/* ---- dirty ---- */

static size_t whole(const char *dir, const char *name, char *buf, size_t cap)
{
    int fd = open_at(dir, name, O_RDONLY);
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, buf + len, cap - len)) > 0) {
        len += (size_t)n;
    }
    NEED(n == 0);
    close(fd);
    return len;
}

#define DIRTY 300000

static int do_dirty(char **a)
{
    static char x[DIRTY], y[2 * DIRTY], z[2 * DIRTY];
    int w = open_at(a[0], "dirty", O_RDWR | O_CREAT | O_TRUNC);
    int other = open_at(a[1], "dirty", O_RDWR);
    struct stat st;
    size_t n, k;

    memset(x, 'x', DIRTY);
    NEED(write(w, x, DIRTY) == DIRTY && fsync(w) == 0);
    memset(x, 'y', DIRTY);
    NEED(write(w, x, DIRTY) == DIRTY); /* not there yet when it is cut */
    NEED(ftruncate(other, 10) == 0);
    NEED(pwrite(w, "z", 1, 2 * DIRTY - 1) == 1);
    NEED(fsync(w) == 0 && fstat(w, &st) == 0);
    n = whole(a[0], "dirty", y, sizeof(y));
    k = whole(a[1], "dirty", z, sizeof(z));
    NEED(n == (size_t)st.st_size && n == k && memcmp(y, z, n) == 0);
    NEED(n == 2 * DIRTY && y[n - 1] == 'z'); /* what fsync promised */
    for (size_t i = 0; i < n; i++) {
        NEED(y[i] == (i < 10 ? 'x' : i < DIRTY ? '\0' : y[i]));
        NEED(i < DIRTY || i == n - 1 || y[i] == 'y' || y[i] == '\0');
    }
    return 0;
}

/* ---- append ---- */

static int do_append(char **a)
{
    int fd = open_at(a[0], "log", O_WRONLY | O_CREAT | O_APPEND);
    char line[65];

    for (int i = 0; i < atoi(a[2]); i++) {
        snprintf(line, sizeof(line), "%-10s%053d\n", a[1], i);
        NEED(write(fd, line, 64) == 64);
    }
    NEED(close(fd) == 0);
    return 0;
}

/* ---- list ---- */

/* Makes and removes names that are nobody's, until killed. */
static void churn(int dir)
{
    char name[32];

    for (unsigned i = 0;; i++) {
        snprintf(name, sizeof(name), "x%u", i * 7919 % 1000);
        if (unlinkat(dir, name, 0) != 0) {
            int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);

            NEED(fd >= 0 && close(fd) == 0);
        }
    }
}

static void list_once(const char *path, int n, uint8_t *seen, long *at)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int found = 0;
    long pos;

    NEED(d != NULL);
    memset(seen, 0, (size_t)n);
    while (pos = telldir(d), errno = 0, (e = readdir(d)) != NULL) {
        if (e->d_name[0] == 'n') {
            int k = atoi(e->d_name + 1);

            NEED(k < n && seen[k]++ == 0); /* never twice */
            at[k] = pos;
            found++;
        }
    }
    NEED(errno == 0 && found == n);
    for (int k = 0; k < n; k += 1 + n / 50) { /* back to where it was */
        seekdir(d, at[k]);
        while ((e = readdir(d)) != NULL && e->d_name[0] != 'n') {
        }
        NEED(e != NULL && atoi(e->d_name + 1) == k);
    }
    closedir(d);
}

static int do_list(char **a)
{
    int n = atoi(a[2]), dir;
    char name[32], path[4096];
    uint8_t *seen = calloc(1, (size_t)n);
    long *at = calloc((size_t)n, sizeof(*at));
    pid_t other;

    snprintf(path, sizeof(path), "%s/list", a[0]);
    NEED(mkdir(path, 0755) == 0);
    dir = open(path, O_RDONLY | O_DIRECTORY);
    NEED(dir >= 0);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        NEED(mknodat(dir, name, S_IFREG | 0644, 0) == 0);
    }
    other = child();
    if (other == 0) {
        churn(dir);
    }
    snprintf(path, sizeof(path), "%s/list", a[1]);
    for (int i = 0; i < 3; i++) {
        list_once(path, n, seen, at);
    }
    kill(other, 9);
    waitpid(other, NULL, 0);
    return 0;
}

/* ---- names ---- */

static int do_names(char **a)
{
    char path[8192], target[4096], got[4096];
    char name[257];
    int dir, below;
    size_t len;
    struct stat st;

    memset(name, 'n', 256);
    name[256] = '\0';
    dir = open(a[0], O_RDONLY | O_DIRECTORY);
    below = open(a[1], O_RDONLY | O_DIRECTORY);
    NEED(dir >= 0 && below >= 0);
    NEED(mkdirat(dir, name, 0755) != 0 && errno == ENAMETOOLONG);
    name[255] = '\0';
    NEED(mkdirat(dir, name, 0755) == 0 && fstatat(below, name, &st, 0) == 0);
    memset(target, 't', 4095);
    target[4095] = '\0';
    NEED(symlinkat(target, dir, "link") == 0);
    NEED(readlinkat(below, "link", got, sizeof(got)) == 4095 && memcmp(got, target, 4095) == 0);
    /* A path of 4095 bytes and its end, as PATH_MAX has it; made step by step. */
    NEED(chdir(a[0]) == 0);
    strcpy(path, ".");
    for (len = 1; len + 256 < 4095 - 2; len += 256) {
        NEED(len == 1 || mkdir(name, 0755) == 0);
        NEED(chdir(name) == 0);
        strcat(strcat(path, "/"), name);
    }
    memset(name, 'z', 4095 - len - 1);
    name[4095 - len - 1] = '\0';
    NEED(mkdir(name, 0755) == 0);
    strcat(strcat(path, "/"), name);
    NEED(strlen(path) == 4095);
    NEED(chdir(a[1]) == 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode));
    strcat(path, "z");
    NEED(stat(path, &st) != 0 && errno == ENAMETOOLONG);
    return 0;
}

/* ---- both ---- */

#define APPENDS 100

static void appender(const char *dir, char who)
{
    int fd = open_at(dir, "both", O_WRONLY | O_APPEND);
    char line[LINE];

    for (int i = 0; i < APPENDS; i++) {
        memset(line, who, LINE - 1);
        line[LINE - 1] = '\n';
        NEED(write(fd, line, LINE) == LINE);
    }
    exit(0);
}

/* Lines are whole, and what was read stays where it is. */
static void watcher(const char *dir, size_t size)
{
    int fd = open_at(dir, "both", O_RDONLY);
    double end = now() + PATIENCE_S;
    char *seen = calloc(1, size), *again = calloc(1, size);
    size_t len = 0;

    while (len < size) {
        ssize_t n = pread(fd, again, size, 0);

        NEED(n >= 0);
        for (size_t i = 0; i < MAX_OF(len, (size_t)n); i++) {
            char want = i < len ? seen[i] : i % LINE == LINE - 1 ? '\n' : again[i - i % LINE];

            if (i >= (size_t)n || again[i] != want ||
                (want != '\n' && want != 'a' && want != 'b')) {
                fprintf(stderr, "coherence: %s: byte %zu of %zd is %d, not %d; seen before: %zu\n",
                        dir, i, n, again[i], want, len);
                exit(1);
            }
        }
        memcpy(seen, again, (size_t)n);
        len = (size_t)n;
        NEED(now() < end);
        nap(1);
    }
    exit(0);
}

static int do_both(char **a)
{
    pid_t p[4];

    close(open_at(a[0], "both", O_WRONLY | O_CREAT | O_EXCL));
    for (int i = 0; i < 4; i++) {
        p[i] = child();
        if (p[i] == 0 && i < 2) {
            watcher(a[i], 2 * APPENDS * LINE);
        } else if (p[i] == 0) {
            appender(a[i - 2], i == 2 ? 'a' : 'b');
        }
    }
    for (int i = 0; i < 4; i++) {
        wait_for(p[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int args;
        int (*run)(char **a);
    } all[] = { { "overwrite", 3, do_overwrite }, { "follow", 3, do_follow },
                { "extend", 3, do_extend },       { "dirty", 2, do_dirty },
                { "append", 3, do_append },       { "list", 3, do_list },
                { "names", 2, do_names },         { "both", 2, do_both } };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (argc - 2 == all[i].args && strcmp(argv[1], all[i].name) == 0) {
            return all[i].run(argv + 2);
        }
    }
    fprintf(stderr, "usage: see the head of coherence.c\n");
    return 2;
}
