#include "fs/role/local_mount.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"

#include "fs/mount/point.h"

#define ANSWER_MS  5000 /* a mount answers from memory after 1 s when no master does */
#define POLL_US    1000
#define DETACH_MAX 16 /* mounts stacked on one path */

bool local_mount_present(const char *path)
{
    struct point_info info;

    return point_find(path, &info) == 0 && info.dfs;
}

/* All through one descriptor: a dead mount may be taken away between two questions, and the directory
 * below it would answer the second. */
static bool answers(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    struct statfs fs;

    return fd >= 0 && fstat(fd, &st) == 0 && fstatfs(fd, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;
}

bool local_mount_answers(const char *path)
{
    uint64_t deadline = clock_mono_ms() + ANSWER_MS;
    int status = -1;
    pid_t pid;

    if (!local_mount_present(path)) {
        return false;
    }
    pid = fork();
    if (pid == 0) {
        _exit(answers(path) ? 0 : 1);
    }
    if (pid < 0) {
        return false;
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (clock_mono_ms() > deadline) {
            kill(pid, SIGKILL); /* a request that waits for a mount's process may be killed */
        }
        usleep(POLL_US);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int local_mount_leave(const char *path)
{
    return umount2(path, UMOUNT_NOFOLLOW) == 0 ? 0 : err_from_errno(errno);
}

void local_mount_detach(const char *path)
{
    for (int i = 0; i < DETACH_MAX && local_mount_present(path); i++) {
        if (point_detach(path) != 0) {
            return;
        }
    }
}
