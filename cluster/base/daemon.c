#include "cluster/base/daemon.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#define PIDFILE_MAX 32
#define DESCRIPTORS 1024 /* the usual limit */

static void wanted(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

int daemon_signals(void)
{
    sigset_t set;
    int fd;

    wanted(&set);
    ASSERT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    ASSERT(fd >= 0);
    return fd;
}

enum daemon_event daemon_next(int fd)
{
    struct signalfd_siginfo info;

    if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return DAEMON_NONE;
    }
    return info.ssi_signo == SIGHUP ? DAEMON_RELOAD : DAEMON_STOP;
}

enum daemon_event daemon_wait(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1 ? daemon_next(fd) : DAEMON_NONE;
}

void daemon_signals_reset(void)
{
    sigset_t set;

    wanted(&set);
    signal(SIGPIPE, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Whoever starts a process may write the file too, at the same moment: each has a temporary name of
 * its own. Not synced: after a power failure the process is gone as well. */
int daemon_pidfile_write(const char *path, struct why *why)
{
    char *temp = x_printf("%s.%d", path, (int)getpid());
    FILE *f = fopen(temp, "we");
    int err = 0;

    if (f == NULL || fprintf(f, "%d\n", (int)getpid()) < 0 || fflush(f) != 0 ||
        rename(temp, path) != 0) {
        err = why_set(why, err_from_errno(errno), "%s: %s", path, strerror(errno));
        (void)unlink(temp);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    free(temp);
    return err;
}

int daemon_pidfile_read(const char *path, int *ret_pid, struct why *why)
{
    char *text, *end;
    long pid;
    int err = io_read_file(path, PIDFILE_MAX, &text, NULL, why);

    if (err != 0) {
        return err;
    }
    pid = strtol(text, &end, 10);
    if (end == text || *end != '\n' || pid <= 1 || pid > INT32_MAX) {
        err = why_set(why, DFS_ENOENT, "%s: no process id in it", path);
    } else if (kill((pid_t)pid, 0) != 0 && errno == ESRCH) {
        err = why_set(why, DFS_ENOENT, "%s: process %ld is gone", path, pid);
    } else {
        *ret_pid = (int)pid;
    }
    free(text);
    return err;
}

uint64_t daemon_descriptors(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) != 0) {
        return DESCRIPTORS;
    }
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l);
    return getrlimit(RLIMIT_NOFILE, &l) == 0 ? l.rlim_cur : DESCRIPTORS;
}

void daemon_background_thread(void)
{
    /* ioprio_set(2) has no wrapper: 1 is a thread, 2 << 13 the usual class, 7 its last level. Both are
     * wishes: a system that does not know them goes on without. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
    (void)syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 7);
}
