#include "fs/role/local_proc.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/limits.h"

#define ARGS_BYTES     (64 * 1024) /* largest .args file */
#define PID_BYTES      32
#define LOG_TAIL_BYTES 4096
#define LOG_TAIL_LINES 8
#define POLL_MS        100

const char *local_role_name(enum local_role role)
{
    static const char *const names[] = { "master", "block", "mount" };

    return names[role];
}

void local_proc_init(struct local_proc *p, const char *dir, enum local_role role, unsigned number)
{
    memset(p, 0, sizeof(*p));
    p->dir = dir;
    p->role = role;
    p->number = number;
    p->pidfd = -1;
    snprintf(p->name, sizeof(p->name), "%s-%u", local_role_name(role), number);
}

static void drop_args(struct local_proc *p)
{
    for (size_t i = 0; i < p->argc; i++) {
        free(p->argv[i]);
        p->argv[i] = NULL;
    }
    p->argc = 0;
}

/* It has ended, or is none of ours. */
static void drop_process(struct local_proc *p)
{
    io_close(p->pidfd);
    p->pidfd = -1;
    p->pid = 0;
}

void local_proc_fini(struct local_proc *p)
{
    if (p != NULL) {
        drop_args(p);
        drop_process(p);
    }
}

void local_proc_arg(struct local_proc *p, const char *fmt, ...)
{
    char text[2 * LIMIT_PATH];
    va_list ap;

    ASSERT(p->argc < LOCAL_ARGS_MAX);
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    p->argv[p->argc++] = x_strdup(text);
}

const char *local_proc_setting(const struct local_proc *p, const char *key)
{
    size_t len = strlen(key);
    const char *found = NULL;

    for (size_t i = 0; i < p->argc; i++) {
        if (strncmp(p->argv[i], key, len) == 0 && p->argv[i][len] == '=') {
            found = p->argv[i] + len + 1;
        }
    }
    return found;
}

const char *local_proc_mountpoint(const struct local_proc *p)
{
    ASSERT(p->role == LOCAL_MOUNT && p->argc > 0);
    return p->argv[p->argc - 1];
}

static char *file_of(const struct local_proc *p, const char *folder, const char *suffix)
{
    return x_printf("%s/%s/%s.%s", p->dir, folder, p->name, suffix);
}

static bool ended_within(int pidfd, int timeout_ms)
{
    struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

    return poll(&pfd, 1, timeout_ms) > 0;
}

/* /proc/PID/cmdline holds the arguments with a zero byte behind each. A process that is about to
 * vanish has none any more, but still its ports and locks: its end is waited for. */
static bool runs_with_args(const struct local_proc *p, pid_t pid, int pidfd)
{
    char *path = x_printf("/proc/%d/cmdline", (int)pid);
    char *text = NULL;
    size_t len = 0;
    size_t at = 0;
    bool same = io_read_file(path, ARGS_BYTES, &text, &len, NULL) == 0;

    if (same && len == 0) {
        same = !ended_within(pidfd, LOCAL_KILL_MS);
    }
    for (size_t i = 0; same && i < p->argc; i++) {
        size_t n = strlen(p->argv[i]) + 1;

        same = len - at >= n && memcmp(text + at, p->argv[i], n) == 0;
        at += n;
    }
    same = same && at == len;
    free(text);
    free(path);
    return same;
}

/* Finds the process of the pid file, if it still is that one. */
static void find_process(struct local_proc *p, pid_t pid)
{
    int pidfd = pid != 0 ? pidfd_open(pid, 0) : -1;

    if (pidfd >= 0 && runs_with_args(p, pid, pidfd) && !ended_within(pidfd, 0)) {
        p->pid = pid;
        p->pidfd = pidfd;
    } else {
        io_close(pidfd);
    }
}

static pid_t read_pid(const struct local_proc *p)
{
    char *path = file_of(p, "run", "pid");
    char *text = NULL;
    long pid = 0;

    if (io_read_file(path, PID_BYTES, &text, NULL, NULL) == 0) {
        pid = strtol(text, NULL, 10);
    }
    free(text);
    free(path);
    return pid > 1 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

int local_proc_load(struct local_proc *p, struct why *why)
{
    char *path = file_of(p, "run", "args");
    char *text = NULL;
    int err = io_read_file(path, ARGS_BYTES, &text, NULL, why);
    char *line = text;

    if (err != 0) {
        goto out;
    }
    drop_args(p);
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (p->argc == LOCAL_ARGS_MAX) {
            err = DFS_EDAMAGED;
            break;
        }
        p->argv[p->argc++] = x_strdup(line);
    }
    if (err != 0 || p->argc < 2 || strcmp(p->argv[1], local_role_name(p->role)) != 0) {
        err = why_set(why, DFS_EDAMAGED, "%s: not the arguments of a %s", path,
                      local_role_name(p->role));
        goto out;
    }
    find_process(p, read_pid(p));
out:
    free(text);
    free(path);
    return err;
}

int local_proc_save(const struct local_proc *p, struct why *why)
{
    char *path = file_of(p, "run", "args");
    char *text = x_alloc(ARGS_BYTES);
    size_t len = 0;
    int err = 0;

    for (size_t i = 0; i < p->argc; i++) {
        int n = snprintf(text + len, ARGS_BYTES - len, "%s\n", p->argv[i]);

        len += (size_t)n;
        if (len >= ARGS_BYTES) {
            err = why_set(why, DFS_ETOOBIG, "%s: arguments are too long", p->name);
            goto out;
        }
    }
    err = io_write_file(path, text, len, 0644, why);
out:
    free(text);
    free(path);
    return err;
}

static void remove_run_file(const struct local_proc *p, const char *suffix)
{
    char *path = file_of(p, "run", suffix);

    unlink(path);
    free(path);
}

void local_proc_forget(const struct local_proc *p)
{
    remove_run_file(p, "pid");
    remove_run_file(p, "args");
}

bool local_proc_running(struct local_proc *p)
{
    if (p->pid != 0 && ended_within(p->pidfd, 0)) {
        if (p->started) {
            waitpid(p->pid, NULL, WNOHANG);
        }
        drop_process(p);
    }
    return p->pid != 0;
}

/* The binary by its name, so that it shows in ps; when it was replaced under us, the one we run. */
static void own_binary(char *path, size_t cap)
{
    ssize_t n = readlink("/proc/self/exe", path, cap - 1);

    if (n > 0) {
        path[n] = '\0';
        if (access(path, X_OK) == 0) {
            return;
        }
    }
    snprintf(path, cap, "/proc/self/exe");
}

/* posix_spawn does the whole of it: own session, plain signal state, three descriptors. */
static int spawn(struct local_proc *p, const char *log, pid_t *ret_pid)
{
    char binary[LIMIT_PATH];
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t files;
    sigset_t none;
    sigset_t all;
    int no;

    own_binary(binary, sizeof(binary));
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawn_file_actions_addchdir_np(&files, "/");
    no = posix_spawn(ret_pid, binary, &files, &attr, p->argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return no;
}

int local_proc_spawn(struct local_proc *p, struct why *why)
{
    char *log = file_of(p, "log", "log");
    char *pid_path = file_of(p, "run", "pid");
    char text[32];
    struct stat st;
    int no;
    int err = 0;

    p->log_start = stat(log, &st) == 0 ? st.st_size : 0;
    no = spawn(p, log, &p->pid);
    if (no == 0 && (p->pidfd = pidfd_open(p->pid, 0)) < 0) {
        no = errno;
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    if (no != 0) {
        p->pid = 0;
        err = why_set(why, err_from_errno(no), "%s: cannot start it: %s", p->name, strerror(no));
        goto out;
    }
    p->started = true;
    p->started_ms = clock_mono_ms();
    snprintf(text, sizeof(text), "%d\n", (int)p->pid);
    err = io_write_file(pid_path, text, strlen(text), 0644, why);
out:
    free(log);
    free(pid_path);
    return err;
}

void local_proc_terminate(struct local_proc *p)
{
    if (local_proc_running(p)) {
        pidfd_send_signal(p->pidfd, SIGTERM, NULL, 0);
    }
}

bool local_proc_wait(struct local_proc *p)
{
    uint64_t deadline = clock_mono_ms() + LOCAL_STOP_MS;
    bool forced = false;

    while (local_proc_running(p)) {
        if (clock_mono_ms() > deadline) {
            if (forced) {
                return false; /* the kernel does not let it go; its pid file stays */
            }
            pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0);
            forced = true;
            deadline += LOCAL_KILL_MS;
        }
        (void)ended_within(p->pidfd, POLL_MS);
    }
    remove_run_file(p, "pid");
    return !forced;
}

void local_proc_print_log(const struct local_proc *p, FILE *to)
{
    char *path = file_of(p, "log", "log");
    char text[LOG_TAIL_BYTES + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = MAX(p->log_start, end - LOG_TAIL_BYTES);
    ssize_t n = fd >= 0 ? pread(fd, text, LOG_TAIL_BYTES, from) : 0;
    int lines = 0;

    if (fd >= 0) {
        close(fd);
    }
    n = MAX(n, 0);
    text[n] = '\0';
    while (n > 0 && text[n - 1] == '\n') {
        text[--n] = '\0';
    }
    while (n > 0 && !(text[n - 1] == '\n' && ++lines == LOG_TAIL_LINES)) {
        n--;
    }
    fprintf(to, "%s:\n", path);
    for (char *line = text + n, *next; line != NULL && *line != '\0'; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        fprintf(to, "    %s\n", line);
    }
    free(path);
}
