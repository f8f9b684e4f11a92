/* Another version of the program in place of this one, under the open files.
 *
 *   SIGUSR2    the program file is run as a new guard (guard.h); nothing has happened yet if it fails
 *   flush      while the workers serve, so that little is left for
 *   quiet      the workers carry their requests to the end and take no more; the kernel keeps those that
 *              come
 *   flush      again; programs that wait for a lock see ENOLCK (the kernel would make of EINTR what it
 *              makes of a signal, and there is none)
 *   leave      session, locks and open files go into the shared memory, this process ends, the guard's new
 *              one goes on
 *
 * When servers do not answer in time, this process serves on, with a new guard.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/log.h"

#include "fs/client/locks.h"
#include "fs/mount/internal.h"

#define TURN_US    2000 /* between looks whether all workers have gone */
#define IDLE_MS    200  /* for the kernel to drop what it was told to */
#define TRIES      20
#define LOCKS_MS   5000 /* for the masters to hear of locks that nobody waits for any more */
#define STATUS_MAX 4096

/* Workers on their way home, which hold no request. */
static struct {
    atomic_bool wanted; /* no more requests are to be taken */
    atomic_uint count;
    atomic_bool over;
} home;

/* libfuse forgets a request that it has read when its session was told to end meanwhile. So workers are
 * caught here, before that is told. */
static ssize_t on_read(int fd, void *p, size_t size, void *userdata UNUSED)
{
    const struct timespec turn = { .tv_nsec = NS_PER_MS };
    ssize_t n;

    do {
        if (atomic_load(&home.wanted)) {
            atomic_fetch_add(&home.count, 1);
            while (!atomic_load(&home.over)) {
                (void)nanosleep(&turn, NULL);
            }
            errno = EINTR;
            return -1;
        }
        work_wait(p, size);
        n = read(fd, p, size);
        work_took(p, n);
    } while (n < 0 && errno == EINTR && atomic_load(&home.wanted));
    return n;
}

static void on_wake(int sig UNUSED)
{
    /* only interrupts what a worker or the main thread waits for */
}

int upgrade_io(struct fuse_session *se)
{
    const struct fuse_custom_io io = { .writev = init_ext_writev, .read = on_read };

    return fuse_session_custom_io(se, &io, fuse_session_fd(se)) == 0 ? 0 : DFS_EINVAL;
}

void upgrade_set_up(void)
{
    struct sigaction wake = { .sa_handler = on_wake };
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    ASSERT(sigaction(SIGUSR1, &wake, NULL) == 0 && pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

void upgrade_listen(bool on)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    ASSERT(pthread_sigmask(on ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL) == 0);
}

/* ---- quiet ---- */

/* Workers, and the main thread, are those that do not block SIGUSR1. */
static bool is_worker(const char *tid)
{
    char path[64], line[256];
    bool worker = false;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", tid);
    f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "SigBlk:", 7) == 0) {
            worker = (strtoull(line + 7, NULL, 16) & UINT64_C(1) << (SIGUSR1 - 1)) == 0;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return worker;
}

/* Those that wait for a request look whether there is to be another one. Returns how many there are. */
static size_t wake_workers(void)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *e;
    size_t count = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        long tid = strtol(e->d_name, NULL, 10);

        if (tid > 0 && tid != (long)getpid() && is_worker(e->d_name)) {
            (void)syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
            count++;
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return count;
}

static void quiet(struct mount *m)
{
    atomic_store(&home.count, 0);
    atomic_store(&home.over, false);
    atomic_store(&home.wanted, true);
    while (wake_workers() != atomic_load(&home.count) && !atomic_load(&m->loop_done)) {
        usleep(TURN_US);
    }
    atomic_store(&m->leaving, true);
    fuse_session_exit(m->se);
    atomic_store(&home.over, true);
}

/* The workers are to take requests again. */
static void serve_on(struct mount *m)
{
    atomic_store(&home.wanted, false);
    atomic_store(&m->leaving, false);
    fuse_session_reset(m->se);
}

void upgrade_begin(struct mount *m)
{
    struct why why = { "" };
    int err = guard_renew(&m->guard, m->o->dir, &m->o->program, &why);

    if (err == 0) {
        err = client_sync(m->client);
        why_set(&why, err, "flush: %s", err_text(err));
    }
    if (err != 0) {
        log_event(LOG_ERROR, "mount.upgrade_failed", "dir=\"%s\" err=\"%s\"", m->o->dir, why.text);
        return;
    }
    log_event(LOG_INFO, "mount.upgrade", "dir=\"%s\"", m->o->dir);
    quiet(m);
}

/* ---- leaving ---- */

/* Nothing is lost with this process, but for what went wrong and nobody was told yet. */
static void leave_handles(struct mount *m)
{
    uint64_t end = handles_end(m->handles);

    for (uint64_t fh = 1; fh < end; fh++) {
        const void *obj = handles_get(m->handles, fh);
        struct handle what;

        if (obj != NULL && handles_look(m->handles, fh, &what) == 0 &&
            (what.flags & O_DIRECTORY) == 0) {
            handles_dirty(m->handles, fh, fileh_owes(obj));
        }
    }
}

/* The kernel may wait for a request that nobody serves now, with a lock that a thread of ours wants. */
static bool wait_for_inval(struct mount *m)
{
    uint64_t until = clock_mono_ms() + IDLE_MS;

    inval_take(m, false);
    while (!inval_idle(m) && clock_mono_ms() < until) {
        usleep(TURN_US);
    }
    if (inval_idle(m)) {
        return true;
    }
    inval_take(m, true);
    return false;
}

bool upgrade_leave(struct mount *m)
{
    struct wire_out left;
    int err = client_sync(m->client);

    if (err == 0 && !client_locks_give_up(m->client, clock_mono_ms() + LOCKS_MS)) {
        err = DFS_ETIMEOUT;
    }
    if (err == 0 && !wait_for_inval(m)) {
        err = DFS_EBUSY;
        if (m->upgrade_tries++ < TRIES) {
            (void)kill(getpid(), SIGUSR2); /* again, behind that request */
        }
    }
    if (err != 0) {
        log_event(LOG_ERROR, "mount.upgrade_failed", "dir=\"%s\" err=\"%s\"", m->o->dir,
                  err_text(err));
        serve_on(m);
        return false;
    }
    mount_stop_threads(m);
    leave_handles(m);
    client_leave(m->client, &left);
    err = left.err != 0 ? left.err : handles_leave(m->handles, wire_out_slice(&left));
    if (err != 0) {
        log_event(LOG_ERROR, "mount.upgrade", "note=\"locks are lost\" err=\"%s\"", err_text(err));
    }
    log_event(LOG_INFO, "mount.left", "dir=\"%s\"", m->o->dir);
    wire_out_fini(&left);
    return true;
}
