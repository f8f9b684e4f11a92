/* Load for scripts/bench: every command does one timed thing and prints "name<TAB>value<TAB>unit"
 * lines. The same input gives the same bytes and names on every file system.
 *
 *   load touch GIB                          touch memory: a virtual machine whose host took freed
 *                                           memory back pays for the first use, not the file system
 *   load seqwrite|seqread FILE MIB          1 MiB calls; the write ends with fsync and close
 *   load randread FILE MIB SECONDS PROCS    4 KiB reads
 *   load randwrite FILE MIB TOTAL_MIB       4 KiB writes, one fsync at the end
 *   load parwrite|parread DIR MIB PROCS     each process its own file, 1 MiB calls
 *   load make|stat|read|unlink DIR N DIRS PROCS SIZE   small files
 *   load walk DIR                           readdir and lstat of everything
 *   load lat-stat DIR CALLS N DIRS          latencies: of files made by `load make`
 *   load lat-create|lat-fsync|lat-repeat DIR CALLS     create; append 4 KiB and fsync; the same stat
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB   ((size_t)1 << 20)
#define SMALL 4096

static void die(const char *what, const char *path)
{
    fprintf(stderr, "load: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static double cpu_of(int who)
{
    struct rusage u;

    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static uint64_t random_state = UINT64_C(0x2545f4914f6cdd1d);

static uint64_t random_next(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = random_state;

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Bytes that do not compress. */
static unsigned char *buffer(size_t len)
{
    unsigned char *p = malloc(len);

    if (p == NULL) {
        die("malloc", "");
    }
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t r = random_next();

        memcpy(p + i, &r, 8);
    }
    return p;
}

static int open_or_die(const char *path, int flags)
{
    int fd = open(path, flags, 0644);

    if (fd < 0) {
        die("open", path);
    }
    return fd;
}

static void print(const char *name, double value, const char *unit)
{
    printf("%s\t%.3f\t%s\n", name, value, unit);
}

/* ---- one big file ---- */

static void seq_write(const char *path, size_t mib)
{
    unsigned char *p = buffer(MIB);
    int fd = open_or_die(path, O_WRONLY | O_CREAT | O_TRUNC);

    for (uint64_t i = 0; i < mib; i++) {
        memcpy(p, &i, sizeof(i)); /* so that a reader can tell the pieces apart */
        for (size_t at = 0; at < MIB;) {
            ssize_t n = write(fd, p + at, MIB - at);

            if (n < 0) {
                die("write", path);
            }
            at += (size_t)n;
        }
    }
    if (fsync(fd) != 0 || close(fd) != 0) {
        die("sync", path);
    }
    free(p);
}

static void seq_read(const char *path, size_t mib)
{
    unsigned char *p = buffer(MIB);
    int fd = open_or_die(path, O_RDONLY);

    for (uint64_t i = 0; i < mib; i++) {
        uint64_t stamp;

        for (size_t at = 0; at < MIB;) {
            ssize_t n = read(fd, p + at, MIB - at);

            if (n <= 0) {
                die("read", path);
            }
            at += (size_t)n;
        }
        memcpy(&stamp, p, sizeof(stamp));
        if (stamp != i) {
            errno = EILSEQ;
            die("compare", path);
        }
    }
    close(fd);
    free(p);
}

static int cmd_seq(const char *cmd, char **a, int argc)
{
    size_t mib = argc > 1 ? strtoull(a[1], NULL, 10) : 1024;
    double start = now();
    double cpu = cpu_of(RUSAGE_SELF);

    if (strcmp(cmd, "seqwrite") == 0) {
        seq_write(a[0], mib);
    } else {
        seq_read(a[0], mib);
    }
    print("rate", (double)mib / (now() - start), "MiB/s");
    print("cpu", (cpu_of(RUSAGE_SELF) - cpu) * 1024 / (double)mib, "s/GiB");
    return 0;
}

/* ---- several processes that start together ---- */

typedef double worker_fn(int index, void *arg); /* returns how much it did */

/* Runs fn in each process; the sum of what they did a second. */
static double together(int procs, worker_fn *fn, void *arg)
{
    int start_pipe[2];
    int result_pipe[2];
    double begin;
    double sum = 0;
    double did;
    int status;
    int bad = 0;

    if (pipe(start_pipe) != 0 || pipe(result_pipe) != 0) {
        die("pipe", "");
    }
    for (int i = 0; i < procs; i++) {
        pid_t pid = fork();

        if (pid < 0) {
            die("fork", "");
        }
        if (pid == 0) {
            char c;

            close(start_pipe[1]);
            random_state += (uint64_t)i * 1000003;
            if (read(start_pipe[0], &c, 1) != 0) { /* returns when the parent closes its end */
                _exit(1);
            }
            did = fn(i, arg);
            _exit(write(result_pipe[1], &did, sizeof(did)) != (ssize_t)sizeof(did));
        }
    }
    close(start_pipe[0]);
    begin = now();
    close(start_pipe[1]);
    for (int i = 0; i < procs; i++) {
        if (wait(&status) > 0 && status == 0 &&
            read(result_pipe[0], &did, sizeof(did)) == (ssize_t)sizeof(did)) {
            sum += did;
        } else {
            bad++;
        }
    }
    if (bad > 0) {
        fprintf(stderr, "load: %d processes failed\n", bad);
        exit(1);
    }
    return sum / (now() - begin);
}

struct random_job {
    const char *path;
    uint64_t pages;
    double seconds;
    uint64_t writes;
};

static double random_reads(int index, void *arg)
{
    struct random_job *job = arg;
    unsigned char buf[SMALL];
    int fd = open_or_die(job->path, O_RDONLY);
    double end = now() + job->seconds;
    double n = 0;

    (void)index;
    while (now() < end) {
        off_t off = (off_t)(random_next() % job->pages * SMALL);

        if (pread(fd, buf, SMALL, off) != SMALL) {
            die("read", job->path);
        }
        n++;
    }
    close(fd);
    return n;
}

static double random_writes(int index, void *arg)
{
    struct random_job *job = arg;
    unsigned char *p = buffer(SMALL);
    int fd = open_or_die(job->path, O_WRONLY);

    (void)index;
    for (uint64_t i = 0; i < job->writes; i++) {
        off_t off = (off_t)(random_next() % job->pages * SMALL);

        if (pwrite(fd, p, SMALL, off) != SMALL) {
            die("write", job->path);
        }
    }
    if (fsync(fd) != 0 || close(fd) != 0) {
        die("sync", job->path);
    }
    return (double)job->writes;
}

static int cmd_rand(const char *cmd, char **a, int argc)
{
    struct random_job job = { .path = a[0] };
    int procs = argc > 3 ? atoi(a[3]) : 1;

    job.pages = strtoull(a[1], NULL, 10) * (MIB / SMALL);
    if (strcmp(cmd, "randread") == 0) {
        job.seconds = atof(a[2]);
        print("rate", together(procs, random_reads, &job), "IOPS");
    } else {
        job.writes = strtoull(a[2], NULL, 10) * (MIB / SMALL);
        print("rate", together(1, random_writes, &job), "IOPS");
    }
    return 0;
}

struct parallel_job {
    const char *dir;
    size_t mib;
    int write;
};

static double parallel_file(int index, void *arg)
{
    struct parallel_job *job = arg;
    char path[4096];

    snprintf(path, sizeof(path), "%s/par%d", job->dir, index);
    if (job->write) {
        seq_write(path, job->mib);
    } else {
        seq_read(path, job->mib);
    }
    return (double)job->mib;
}

static int cmd_par(const char *cmd, char **a)
{
    struct parallel_job job = { a[0], strtoull(a[1], NULL, 10), strcmp(cmd, "parwrite") == 0 };

    print("rate", together(atoi(a[2]), parallel_file, &job), "MiB/s");
    return 0;
}

/* ---- small files ---- */

struct files_job {
    const char *cmd;
    const char *dir;
    long count;
    int dirs;
    int procs;
    size_t size;
    unsigned char *buf;
};

static void file_path(char *p, size_t cap, const char *dir, long i, long count, int dirs)
{
    snprintf(p, cap, "%s/dir%ld/file%06ld", dir, i * dirs / count, i);
}

static void small_file(const struct files_job *job, const char *path)
{
    struct stat st;
    int fd;

    switch (job->cmd[0]) {
    case 'm':
        fd = open_or_die(path, O_WRONLY | O_CREAT | O_EXCL);
        if (job->size > 0 && write(fd, job->buf, job->size) != (ssize_t)job->size) {
            die("write", path);
        }
        if (close(fd) != 0) {
            die("close", path);
        }
        break;
    case 's':
        if (lstat(path, &st) != 0) {
            die("stat", path);
        }
        break;
    case 'r':
        fd = open_or_die(path, O_RDONLY);
        if (read(fd, job->buf, job->size) != (ssize_t)job->size) {
            die("read", path);
        }
        close(fd);
        break;
    default:
        if (unlink(path) != 0) {
            die("unlink", path);
        }
    }
}

static double small_files(int index, void *arg)
{
    const struct files_job *job = arg;
    char path[4096];
    long from = job->count * index / job->procs;
    long to = job->count * (index + 1) / job->procs;

    for (long i = from; i < to; i++) {
        file_path(path, sizeof(path), job->dir, i, job->count, job->dirs);
        small_file(job, path);
    }
    return (double)(to - from);
}

static void each_dir(const struct files_job *job, int (*fn)(const char *path))
{
    char path[4096];

    for (int i = 0; i < job->dirs; i++) {
        snprintf(path, sizeof(path), "%s/dir%d", job->dir, i);
        if (fn(path) != 0 && errno != EEXIST) {
            die("directory", path);
        }
    }
}

static int make_dir(const char *path)
{
    return mkdir(path, 0755);
}

static int cmd_files(const char *cmd, char **a)
{
    struct files_job job = { .cmd = cmd,
                             .dir = a[0],
                             .count = atol(a[1]),
                             .dirs = atoi(a[2]),
                             .procs = atoi(a[3]),
                             .size = strtoull(a[4], NULL, 10) };
    double rate;

    job.buf = buffer(job.size + 8);
    if (cmd[0] == 'm') {
        mkdir(job.dir, 0755);
        each_dir(&job, make_dir);
    }
    rate = together(job.procs, small_files, &job);
    if (cmd[0] == 'u') {
        each_dir(&job, rmdir);
    }
    print("rate", rate, "files/s");
    return 0;
}

static long walk(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    long n = 0;

    if (d == NULL) {
        die("opendir", path);
    }
    while ((e = readdir(d)) != NULL) {
        char below[4096];
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            die("stat", e->d_name);
        }
        n++;
        if (S_ISDIR(st.st_mode)) {
            snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
            n += walk(below);
        }
    }
    closedir(d);
    return n;
}

static int cmd_walk(char **a)
{
    double start = now();
    long n = walk(a[0]);

    print("rate", (double)n / (now() - start), "entries/s");
    return 0;
}

/* ---- latencies ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void percentiles(double *v, long n)
{
    qsort(v, (size_t)n, sizeof(*v), by_value);
    print("p50", v[n / 2] * 1e6, "us");
    print("p99", v[n * 99 / 100] * 1e6, "us");
    print("max", v[n - 1] * 1e6, "us");
}

static void one_call(char kind, int fd, const char *path, const unsigned char *page)
{
    struct stat st;
    int made;

    switch (kind) {
    case 'c':
        made = open_or_die(path, O_WRONLY | O_CREAT | O_EXCL);
        close(made);
        break;
    case 'f':
        if (write(fd, page, SMALL) != SMALL || fsync(fd) != 0) {
            die("write", path);
        }
        break;
    default:
        if (lstat(path, &st) != 0) {
            die("stat", path);
        }
    }
}

static int cmd_lat(const char *cmd, char **a, int argc)
{
    char kind = cmd[4]; /* s(tat), c(reate), f(sync), r(epeat) */
    const char *dir = a[0];
    long n = atol(a[1]);
    long files = argc > 2 ? atol(a[2]) : 0;
    int dirs = argc > 3 ? atoi(a[3]) : 1;
    double *v = calloc((size_t)n, sizeof(*v));
    unsigned char *page = buffer(SMALL);
    char path[4096];
    int fd = -1;

    snprintf(path, sizeof(path), "%s", dir);
    if (kind == 'f') {
        snprintf(path, sizeof(path), "%s/lat-fsync", dir);
        fd = open_or_die(path, O_WRONLY | O_CREAT | O_TRUNC);
    }
    for (long i = 0; i < n; i++) {
        double start;

        if (kind == 's') {
            long pick = (long)(random_next() % (uint64_t)files);

            file_path(path, sizeof(path), dir, pick, files, dirs);
        } else if (kind == 'c') {
            snprintf(path, sizeof(path), "%s/lat-create%ld", dir, i);
        }
        start = now();
        one_call(kind, fd, path, page);
        v[i] = now() - start;
    }
    for (long i = 0; kind == 'c' && i < n; i++) {
        snprintf(path, sizeof(path), "%s/lat-create%ld", dir, i);
        unlink(path);
    }
    if (fd >= 0) {
        close(fd);
    }
    percentiles(v, n);
    return 0;
}

static int cmd_touch(char **a)
{
    size_t len = strtoull(a[0], NULL, 10) << 30;
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return p == MAP_FAILED;
}

int main(int argc, char **argv)
{
    const char *cmd = argc > 2 ? argv[1] : "";
    char **a = argv + 2;
    int n = argc - 2;

    if (strcmp(cmd, "touch") == 0) {
        return cmd_touch(a);
    }
    if (strncmp(cmd, "seq", 3) == 0) {
        return cmd_seq(cmd, a, n);
    }
    if (strncmp(cmd, "rand", 4) == 0 && n > 2) {
        return cmd_rand(cmd, a, n);
    }
    if (strncmp(cmd, "par", 3) == 0 && n > 2) {
        return cmd_par(cmd, a);
    }
    if (strncmp(cmd, "lat-", 4) == 0 && n > 1) {
        return cmd_lat(cmd, a, n);
    }
    if (strcmp(cmd, "walk") == 0) {
        return cmd_walk(a);
    }
    if ((strcmp(cmd, "make") == 0 || strcmp(cmd, "stat") == 0 || strcmp(cmd, "read") == 0 ||
         strcmp(cmd, "unlink") == 0) &&
        n > 4) {
        return cmd_files(cmd, a);
    }
    fprintf(stderr, "usage: see the top of test/bench/load.c\n");
    return 2;
}
