#include "fs/mount/point.h"

#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/limits.h"

#define READ_AHEAD_KB "1024"

/* mountinfo writes blanks, tabs, newlines and backslashes as \ooo. */
static void unescape(char *s)
{
    char *to = s;

    while (*s != '\0') {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 4;
        } else {
            *to++ = *s++;
        }
    }
    *to = '\0';
}

/* "36 35 98:0 /root /mnt/dir rw,noatime shared:1 - fuse.dfs source rw" */
static bool line_matches(char *line, const char *dir, struct point_info *ret)
{
    char *save = NULL;
    char *field = strtok_r(line, " \n", &save);
    const char *type = NULL;
    unsigned dev_major = 0, dev_minor = 0;

    for (int i = 1; field != NULL; i++, field = strtok_r(NULL, " \n", &save)) {
        if (i == 3) {
            char *colon = NULL;

            dev_major = (unsigned)strtoul(field, &colon, 10);
            if (*colon != ':') {
                return false;
            }
            dev_minor = (unsigned)strtoul(colon + 1, NULL, 10);
        }
        if (i == 5) {
            unescape(field);
            if (strcmp(field, dir) != 0) {
                return false;
            }
        }
        if (i > 6 && strcmp(field, "-") == 0) {
            type = strtok_r(NULL, " \n", &save);
            break;
        }
    }
    if (type == NULL) {
        return false;
    }
    *ret = (struct point_info){ dev_major, dev_minor, strcmp(type, "fuse.dfs") == 0 };
    return true;
}

int point_find_in(FILE *table, const char *dir, struct point_info *ret)
{
    char *line = NULL;
    size_t cap = 0;
    bool found = false;

    while (getline(&line, &cap, table) > 0) {
        found = line_matches(line, dir, ret) || found; /* the last one is on top */
    }
    free(line);
    return found ? 0 : DFS_ENOENT;
}

int point_find(const char *dir, struct point_info *ret)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    int err;

    if (f == NULL) {
        return err_from_errno(errno);
    }
    err = point_find_in(f, dir, ret);
    (void)fclose(f);
    return err;
}

/* realpath() of a mount whose process died fails, so the directory above is what is resolved. */
static char *resolve_above(char *path)
{
    size_t len = strlen(path);
    char *slash, *name, *above, *real, *all = NULL;

    while (len > 1 && path[len - 1] == '/') {
        path[--len] = '\0';
    }
    slash = strrchr(path, '/');
    name = slash != NULL ? slash + 1 : path;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return realpath(path, NULL);
    }
    above = slash == NULL ? x_strdup(".") : x_strndup(path, (size_t)(slash - path) + 1);
    real = realpath(above, NULL);
    if (real != NULL) {
        all = x_printf("%s/%s", strcmp(real, "/") == 0 ? "" : real, name);
    }
    free(above);
    free(real);
    return all;
}

static int resolve(const char *dir, char **ret, struct why *why)
{
    char *copy = x_strdup(dir);
    char *path = resolve_above(copy);
    int no = errno;

    free(copy);
    if (path == NULL) {
        return why_set(why, err_from_errno(no), "mount point %s: %s", dir, strerror(no));
    }
    *ret = path;
    return 0;
}

static int detach_dead(const char *dir, struct why *why)
{
    struct point_info info;
    struct statvfs vfs;

    /* Never answered from the kernel's memory; by a living mount within a second. */
    while (point_find(dir, &info) == 0 && info.dfs) {
        if (statvfs(dir, &vfs) == 0 || (errno != ENOTCONN && errno != ECONNABORTED)) {
            return why_set(why, DFS_EBUSY, "mount point %s: dfs is mounted there already", dir);
        }
        if (point_detach(dir) != 0) {
            return why_set(why, DFS_EBUSY, "mount point %s: cannot take away a dead dfs mount",
                           dir);
        }
    }
    return 0;
}

static int check_empty(const char *dir, struct why *why)
{
    DIR *d = opendir(dir);
    const struct dirent *e;

    if (d == NULL) {
        return why_set(why, err_from_errno(errno), "mount point %s: %s", dir, strerror(errno));
    }
    do {
        e = readdir(d);
    } while (e != NULL && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0));
    (void)closedir(d);
    return e == NULL ? 0
                     : why_set(why, DFS_ENOTEMPTY,
                               "mount point %s is not empty (-o nonempty mounts over it)", dir);
}

int point_check(const char *dir, bool nonempty, char **ret_dir, struct why *why)
{
    char *path = NULL, *real;
    struct stat st;
    int err;

    if (dir[0] == '\0') {
        return why_set(why, DFS_EINVAL, "the mount point's name is empty");
    }
    err = resolve(dir, &path, why);
    if (err != 0) {
        return err;
    }
    err = detach_dead(path, why);
    if (err != 0) {
        goto out;
    }
    real = realpath(path, NULL);
    if (real == NULL || stat(real, &st) != 0) {
        err = why_set(why, err_from_errno(errno), "mount point %s: %s", dir, strerror(errno));
        free(real);
        goto out;
    }
    free(path);
    path = real;
    if (!S_ISDIR(st.st_mode)) {
        err = why_set(why, DFS_ENOTDIR, "mount point %s is not a directory", dir);
        goto out;
    }
    err = detach_dead(path, why); /* the name itself may have been a symlink */
    if (err == 0 && !nonempty) {
        err = check_empty(path, why);
    }
out:
    if (err != 0) {
        free(path);
        return err;
    }
    *ret_dir = path;
    return 0;
}

int point_detach(const char *dir)
{
    char *argv[] = { x_strdup("fusermount3"), x_strdup("-uqz"), x_strdup("--"), x_strdup(dir),
                     NULL };
    int status = -1, err = 0;
    pid_t pid;

    if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
        goto out;
    }
    err = err_from_errno(errno);
    if (err == DFS_EPERM && posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) == 0) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        err = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err;
    }
out:
    for (size_t i = 0; argv[i] != NULL; i++) {
        free(argv[i]);
    }
    return err;
}

/* The later of two that contradict each other counts. */
static unsigned long remount_flags(const char *options)
{
    static const struct {
        const char *name;
        unsigned long set, clear;
    } known[] = {
        { "ro", MS_RDONLY, 0 },         { "rw", 0, MS_RDONLY },       { "nosuid", MS_NOSUID, 0 },
        { "suid", 0, MS_NOSUID },       { "nodev", MS_NODEV, 0 },     { "dev", 0, MS_NODEV },
        { "noexec", MS_NOEXEC, 0 },     { "exec", 0, MS_NOEXEC },     { "sync", MS_SYNCHRONOUS, 0 },
        { "async", 0, MS_SYNCHRONOUS }, { "dirsync", MS_DIRSYNC, 0 }, { "noatime", MS_NOATIME, 0 },
    };
    char *copy = x_strdup(options);
    char *save = NULL;
    unsigned long flags = 0;

    for (char *one = strtok_r(copy, ",", &save); one != NULL; one = strtok_r(NULL, ",", &save)) {
        for (size_t i = 0; i < ARRAY_LEN(known); i++) {
            if (strcmp(one, known[i].name) == 0) {
                flags = (flags & ~known[i].clear) | known[i].set;
            }
        }
    }
    free(copy);
    return flags;
}

int point_remount(const char *dir, const char *options, struct why *why)
{
    char *path = realpath(dir, NULL);
    struct point_info info;
    int err = 0;

    if (path == NULL || point_find(path, &info) != 0 || !info.dfs) {
        err = why_set(why, DFS_ENOENT, "%s: no dfs is mounted there", dir);
    } else if (mount(NULL, path, NULL, MS_REMOUNT | remount_flags(options), NULL) != 0) {
        err = why_set(why, err_from_errno(errno), "%s: %s", dir,
                      errno == EBUSY ? "files are open for writing" : strerror(errno));
    }
    free(path);
    return err;
}

int point_raise_read_ahead(const char *dir)
{
    struct point_info info;
    char path[64];
    int err = point_find(dir, &info);
    int fd;

    if (err != 0) {
        return err;
    }
    (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", info.dev_major,
                   info.dev_minor);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    err = io_write(fd, READ_AHEAD_KB, strlen(READ_AHEAD_KB));
    io_close(fd);
    return err;
}
