#include "fs/mount/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"

#include "fs/mount/handles.h"
#include "fs/mount/point.h"

#define SHORT_LIFE_MS 10000u /* a process that died sooner counts as one that cannot */
#define DEATHS_MAX    8u     /* of these in a row; then the guard gives up */
#define PAUSE_MS      200u   /* before the second of them, growing */
#define END_MS        2000   /* for the guard's end */

#define RENEW_MS 10000 /* for another guard to say that it guards */

#define CALLED "DFS_MOUNT_GUARD" /* in the environment: the mount point */

enum { SAYS_HAND = 'H', SAYS_BYE = 'B', SAYS_HERE = 'G' };
/* Descriptors of a program that is run as a guard. */
enum { FD_SOCK = 3, FD_FUSE, FD_STATE, FD_END };

/* ---- messages between the two ---- */

static int send_fds(int sock, char what, const int fds[2])
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } c = { 0 };
    struct iovec iov = { &what, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)
    };

    c.head.cmsg_level = SOL_SOCKET;
    c.head.cmsg_type = SCM_RIGHTS;
    c.head.cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(&c.head), fds, 2 * sizeof(int));
    return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : err_from_errno(errno);
}

/* What was said, 0 when the other side is gone. fds are set when some came. */
static char receive(int sock, int fds[2])
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } c;
    char what = 0;
    struct iovec iov = { &what, 1 };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)
    };
    ssize_t n;

    do {
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n != 1) {
        return 0;
    }
    if (m.msg_controllen >= CMSG_LEN(2 * sizeof(int)) && c.head.cmsg_type == SCM_RIGHTS) {
        memcpy(fds, CMSG_DATA(&c.head), 2 * sizeof(int));
    }
    return what;
}

/* ---- the guard's process ---- */

struct watch {
    int sock; /* to the process that serves */
    int fds[2];
    const char *dir;
    bool background;
    unsigned deaths;
    uint64_t born_ms;
};

static void ignore_signals(bool ignore)
{
    static const int all[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        (void)signal(all[i], ignore ? SIG_IGN : SIG_DFL);
    }
}

static void leave_standard_descriptors(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; null >= 0 && fd <= 2; fd++) {
        (void)dup2(null, fd);
    }
    io_close(null);
}

/* In a child: it is the one that serves now. */
static void become_server(struct guard *g, const struct watch *w, int sock, int guard_pid)
{
    *g = (struct guard){ .sock = sock,
                         .pidfd = pidfd_open(guard_pid, 0),
                         .resumed = true,
                         .fuse = w->fds[0],
                         .state = w->fds[1] };
    io_close(w->sock);
    ignore_signals(false);
    (void)prctl(PR_SET_NAME, "dfs");
}

/* Returns true in the new process that serves. */
static bool replace(struct watch *w, struct guard *g)
{
    int pair[2];
    int me = (int)getpid();
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return false;
    }
    w->born_ms = clock_mono_ms();
    pid = fork();
    if (pid == 0) {
        io_close(pair[0]);
        become_server(g, w, pair[1], me);
        return true;
    }
    io_close(pair[1]);
    io_close(w->sock);
    w->sock = pair[0];
    log_event(LOG_WARN, "mount.taken_over", "dir=\"%s\" pid=%d", w->dir, (int)pid);
    return false;
}

/* The process that served is dead. False: the mount is given up. */
static bool may_go_on(struct watch *w)
{
    struct point_info info;

    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    if (w->fds[0] < 0 || point_find(w->dir, &info) != 0 || !info.dfs) {
        return false; /* it never served, or somebody has unmounted it */
    }
    w->deaths = clock_mono_ms() - w->born_ms < SHORT_LIFE_MS ? w->deaths + 1 : 1;
    if (w->deaths > DEATHS_MAX) {
        log_event(LOG_ERROR, "mount.given_up", "dir=\"%s\" deaths=%u", w->dir, w->deaths);
        (void)point_detach(w->dir);
        return false;
    }
    if (w->deaths > 1) {
        usleep((w->deaths - 1) * PAUSE_MS * 1000);
    }
    return true;
}

/* Returns only in a process that is to serve. */
static void watch(struct watch *w, struct guard *g)
{
    (void)prctl(PR_SET_NAME, "dfs-guard");
    ignore_signals(true);
    for (;;) {
        char what = receive(w->sock, w->fds);

        if (what == SAYS_BYE) {
            _exit(0);
        }
        if (what == SAYS_HAND && w->background) {
            leave_standard_descriptors();
        }
        if (what == 0) {
            if (!may_go_on(w)) {
                _exit(1);
            }
            if (replace(w, g)) {
                return;
            }
        }
    }
}

/* ---- the process that serves ---- */

int guard_start(struct guard *g, const char *dir, bool background, struct why *why)
{
    struct watch w = { .fds = { -1, -1 }, .dir = dir, .background = background };
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return why_set(why, DFS_ENOMEM, "socketpair: %s", strerror(errno));
    }
    w.born_ms = clock_mono_ms();
    pid = fork();
    if (pid < 0) {
        io_close(pair[0]);
        io_close(pair[1]);
        return why_set(why, DFS_ENOMEM, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        w.sock = pair[0];
        io_close(pair[1]);
        watch(&w, g);
        return 0;
    }
    io_close(pair[0]);
    *g = (struct guard){
        .sock = pair[1], .pidfd = pidfd_open(pid, 0), .pid = (int)pid, .fuse = -1, .state = -1
    };
    return 0;
}

int guard_hand(struct guard *g, int fuse, int state)
{
    const int fds[2] = { fuse, state };

    g->fuse = fuse;
    g->state = state;
    return g->resumed ? 0 : send_fds(g->sock, SAYS_HAND, fds);
}

void guard_end(struct guard *g)
{
    struct pollfd p = { .fd = g->pidfd, .events = POLLIN };

    if (g->sock < 0) {
        return;
    }
    (void)!send(g->sock, &(char){ SAYS_BYE }, 1, MSG_NOSIGNAL);
    if (p.fd >= 0) {
        (void)poll(&p, 1, END_MS);
    }
    if (g->pid != 0) {
        (void)waitpid(g->pid, NULL, WNOHANG);
    }
    io_close(g->sock);
    io_close(g->pidfd);
    g->sock = g->pidfd = -1;
}

/* ---- a program that is run as a guard ---- */

void guard_program_get(struct guard_program *ret)
{
    char path[4096], args[32768];
    size_t len = 0, count = 0;
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

    *ret = (struct guard_program){ .cwd = getcwd(NULL, 0) };
    ret->path = x_strndup(path, n > 0 ? (size_t)n : 0);
    if (fd < 0 || io_read_some(fd, args, sizeof(args) - 1, &len) != 0) {
        len = 0;
    }
    io_close(fd);
    args[len] = '\0';
    for (size_t i = 0; i < len; i += strlen(args + i) + 1) {
        ret->argv = x_realloc(ret->argv, (count + 2) * sizeof(char *));
        ret->argv[count++] = x_strdup(args + i);
        ret->argv[count] = NULL;
    }
}

void guard_program_fini(struct guard_program *p)
{
    for (size_t i = 0; p->argv != NULL && p->argv[i] != NULL; i++) {
        free(p->argv[i]);
    }
    free(p->argv);
    free(p->path);
    free(p->cwd);
}

/* The environment, and which mount it is for; to be freed, the first string too. */
static char **environment(const char *dir)
{
    size_t count = 0;
    char **env;

    while (environ[count] != NULL) {
        count++;
    }
    env = x_alloc((count + 2) * sizeof(char *));
    env[0] = x_printf(CALLED "=%s", dir);
    memcpy(env + 1, environ, (count + 1) * sizeof(char *));
    return env;
}

/* Runs the program with these descriptors from FD_SOCK on, and none of the others. */
static int run(const struct guard_program *p, const char *dir, const int fds[FD_END - FD_SOCK],
               pid_t *ret_pid)
{
    int high[FD_END - FD_SOCK];
    posix_spawn_file_actions_t act;
    posix_spawnattr_t attr;
    char **env = environment(dir);
    sigset_t none, all;
    int no = 0;

    ASSERT(posix_spawn_file_actions_init(&act) == 0 && posix_spawnattr_init(&attr) == 0);
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setsigdefault(&attr, &all);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < FD_END - FD_SOCK; i++) { /* out of the way of each other */
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FD_END);
        no = high[i] < 0 ? errno : no;
        (void)posix_spawn_file_actions_adddup2(&act, high[i], FD_SOCK + i);
    }
    (void)posix_spawn_file_actions_addchdir_np(&act, p->cwd != NULL ? p->cwd : "/");
    no = no != 0 ? no : posix_spawn(ret_pid, p->path, &act, &attr, p->argv, env);
    for (int i = 0; i < FD_END - FD_SOCK; i++) {
        io_close(high[i]);
    }
    (void)posix_spawn_file_actions_destroy(&act);
    (void)posix_spawnattr_destroy(&attr);
    free(env[0]);
    free(env);
    return err_from_errno(no);
}

static bool says_here(int sock)
{
    struct pollfd p = { .fd = sock, .events = POLLIN };
    int none[2];
    int n;

    do {
        n = poll(&p, 1, RENEW_MS);
    } while (n < 0 && errno == EINTR);
    return n == 1 && receive(sock, none) == SAYS_HERE;
}

int guard_renew(struct guard *g, const char *dir, const struct guard_program *program,
                struct why *why)
{
    int pair[2];
    pid_t pid = -1;
    int err;

    if (program->argv == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return why_set(why, DFS_ENOMEM, "a new guard: %s", strerror(errno));
    }
    err = run(program, dir, (const int[]){ pair[1], g->fuse, g->state }, &pid);
    io_close(pair[1]);
    if (err != 0) {
        io_close(pair[0]);
        return why_set(why, err, "cannot run %s: %s", program->path, err_text(err));
    }
    if (!says_here(pair[0])) {
        io_close(pair[0]);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return why_set(why, DFS_EVERSION, "%s did not take the mount over", program->path);
    }
    guard_end(g);
    g->sock = pair[0];
    g->pidfd = pidfd_open(pid, 0);
    g->pid = (int)pid;
    log_event(LOG_INFO, "mount.guard", "dir=\"%s\" pid=%d program=\"%s\"", dir, (int)pid,
              program->path);
    return 0;
}

char *guard_called(void)
{
    const char *dir = getenv(CALLED);

    return dir != NULL ? x_strdup(dir) : NULL;
}

int guard_take_over(struct guard *g, const char *dir, struct why *why)
{
    struct watch w = { .sock = FD_SOCK, .fds = { FD_FUSE, FD_STATE }, .dir = dir };

    (void)unsetenv(CALLED);
    for (int fd = FD_SOCK; fd < FD_END; fd++) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    if (!handles_known(FD_STATE)) {
        return why_set(why, DFS_EVERSION, "not the open files of a mount of this version");
    }
    if (send(w.sock, &(char){ SAYS_HERE }, 1, MSG_NOSIGNAL) != 1) {
        return why_set(why, DFS_ECONN, "the process that serves %s is gone", dir);
    }
    w.born_ms = clock_mono_ms();
    watch(&w, g);
    return 0;
}
