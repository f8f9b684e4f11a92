#include "cluster/base/io.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/fault.h"

#define LOCK_TRIES    100
#define LOCK_PAUSE_NS 10000000 /* 10 ms */

#define PATH_BYTES 4096

int io_pread_some(int fd, void *p, size_t n, uint64_t off, size_t *ret_len)
{
    size_t done = 0;

    while (done < n) {
        ssize_t got = pread(fd, (uint8_t *)p + done, n - done, (off_t)(off + done));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_from_errno(errno);
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *ret_len = done;
    return 0;
}

int io_pread(int fd, void *p, size_t n, uint64_t off)
{
    size_t got = 0;
    int err = io_pread_some(fd, p, n, off, &got);

    return err != 0 ? err : got == n ? 0 : DFS_EIO;
}

int io_pwrite(int fd, const void *p, size_t n, uint64_t off)
{
    size_t done = 0;

    while (done < n) {
        ssize_t put = pwrite(fd, (const uint8_t *)p + done, n - done, (off_t)(off + done));

        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? err_from_errno(errno) : DFS_EIO;
        }
        done += (size_t)put;
    }
    return 0;
}

int io_read_some(int fd, void *p, size_t n, size_t *ret_len)
{
    size_t done = 0;

    while (done < n) {
        ssize_t got = read(fd, (uint8_t *)p + done, n - done);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_from_errno(errno);
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *ret_len = done;
    return 0;
}

int io_read(int fd, void *p, size_t n)
{
    size_t got = 0;
    int err = io_read_some(fd, p, n, &got);

    return err != 0 ? err : got == n ? 0 : DFS_EIO;
}

int io_write(int fd, const void *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t put = write(fd, (const uint8_t *)p + done, n - done);

        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? err_from_errno(errno) : DFS_EIO;
        }
        done += (size_t)put;
    }
    return 0;
}

int io_fsync(int fd)
{
    return fsync(fd) == 0 ? 0 : err_from_errno(errno);
}

int io_fdatasync(int fd)
{
    return fdatasync(fd) == 0 ? 0 : err_from_errno(errno);
}

void io_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static int failed(const char *path, int err, struct why *why)
{
    return why_set(why, err, "%s: %s", path, err_text(err));
}

static int failed_errno(const char *path, struct why *why)
{
    int no = errno;

    return why_set(why, err_from_errno(no), "%s: %s", path, strerror(no));
}

static int read_all(int fd, const char *path, size_t max, char **ret, size_t *ret_len,
                    struct why *why)
{
    struct stat st;
    size_t len = 0;
    char *p;
    int err;

    if (fstat(fd, &st) != 0) {
        return failed_errno(path, why);
    }
    if (S_ISDIR(st.st_mode)) {
        return failed(path, DFS_EISDIR, why);
    }
    p = x_alloc(max + 2); /* files of /proc have no size: read until the end */
    err = io_read_some(fd, p, max + 1, &len);
    if (err != 0) {
        free(p);
        return failed(path, err, why);
    }
    if (len > max) {
        free(p);
        return why_set(why, DFS_ETOOBIG, "%s: longer than %zu bytes", path, max);
    }
    p[len] = '\0';
    *ret = x_realloc(p, len + 1);
    if (ret_len != NULL) {
        *ret_len = len;
    }
    return 0;
}

int io_read_file(const char *path, size_t max, char **ret, size_t *ret_len, struct why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int err;

    if (fd < 0) {
        return failed_errno(path, why);
    }
    err = read_all(fd, path, max, ret, ret_len, why);
    io_close(fd);
    return err;
}

int io_sync_dir(const char *path, struct why *why)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err;

    if (fd < 0) {
        return failed_errno(path, why);
    }
    err = FAULT("io.dir.fsync");
    err = err != 0 ? err : io_fsync(fd);
    io_close(fd);
    return err != 0 ? failed(path, err, why) : 0;
}

int io_sync_parent(const char *path, struct why *why)
{
    const char *slash = strrchr(path, '/');
    char *dir;
    int err;

    if (slash == NULL) {
        return io_sync_dir(".", why);
    }
    dir = x_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    err = io_sync_dir(dir, why);
    free(dir);
    return err;
}

/* The temporary file, complete and durable. */
static int write_temporary(const char *temp, const void *p, size_t n, mode_t mode, struct why *why)
{
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    int err;

    if (fd < 0) {
        return failed_errno(temp, why);
    }
    err = io_write(fd, p, n);
    if (err == 0) {
        err = FAULT("io.file.fsync");
    }
    if (err == 0) {
        err = io_fsync(fd);
    }
    io_close(fd);
    return err != 0 ? failed(temp, err, why) : 0;
}

int io_write_file(const char *path, const void *p, size_t n, mode_t mode, struct why *why)
{
    char *temp = x_printf("%s.new", path);
    int err = write_temporary(temp, p, n, mode, why);

    if (err == 0) {
        err = FAULT("io.file.rename");
        if (err != 0) {
            failed(path, err, why);
        } else if (rename(temp, path) != 0) {
            err = failed_errno(path, why);
        }
    }
    if (err != 0) {
        unlink(temp);
    } else {
        err = io_sync_parent(path, why);
    }
    free(temp);
    return err;
}

static int make_one(const char *path, mode_t mode, struct why *why)
{
    struct stat st;

    if (mkdir(path, mode) == 0) {
        return 0;
    }
    if (errno != EEXIST) {
        return failed_errno(path, why);
    }
    if (stat(path, &st) != 0) {
        return failed_errno(path, why);
    }
    return S_ISDIR(st.st_mode) ? 0 : failed(path, DFS_ENOTDIR, why);
}

int io_mkdir_p(const char *path, mode_t mode, struct why *why)
{
    char part[PATH_BYTES];
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(part)) {
        return failed(path, len == 0 ? DFS_EINVAL : DFS_ENAMETOOLONG, why);
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i < len; i++) {
        if (part[i] == '/' && part[i - 1] != '/') {
            int err;

            part[i] = '\0';
            err = make_one(part, mode, why);
            if (err != 0) {
                return err;
            }
            part[i] = '/';
        }
    }
    return make_one(part, mode, why);
}

/* A process that was killed keeps its locks until its last thread is gone: a moment later. */
static bool lock_soon(int fd)
{
    const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };

    for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK || i == LOCK_TRIES) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return true;
}

int io_lock_file(const char *path, int *ret_fd, struct why *why)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        return failed_errno(path, why);
    }
    if (!lock_soon(fd)) {
        int err = errno == EWOULDBLOCK
                      ? why_set(why, DFS_EBUSY, "%s: locked by another process", path)
                      : failed_errno(path, why);

        io_close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

int io_resident(uint64_t *ret_all, uint64_t *ret_files)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    char text[128] = "";
    size_t len = 0;
    unsigned long size, all, files;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    int err = fd >= 0 ? io_read_some(fd, text, sizeof(text) - 1, &len) : DFS_EIO;

    io_close(fd);
    if (err != 0 || sscanf(text, "%lu %lu %lu", &size, &all, &files) != 3) {
        return DFS_EIO;
    }
    *ret_all = all * page;
    *ret_files = files * page;
    return 0;
}
