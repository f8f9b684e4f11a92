/* The life of a mount:
 *   a session with the masters; the path resolved to the inode that is the root here; the kernel
 *   mounts; keeper and signal thread start; ready() is told; workers serve; the end.
 * The end comes in two ways. umount(8): the kernel has flushed its pages and hung up, the workers
 * return, what the client still holds is flushed. A signal: the signal thread flushes and takes the
 * mount out of the tree while the workers still serve, which leads to the first way; when open files
 * keep it busy the workers are sent home after a while and these files get errors.
 * A process that takes over (guard.h) finds the mount, the kernel's greeting and the open files.
 * Failures before ready(): what was begun is undone in reverse order and why tells the step.
 */
#include "fs/mount/mount.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/daemon.h"
#include "cluster/base/io.h"
#include "cluster/base/log.h"
#include "cluster/net/metrics_http.h"

#include "fs/client/locks.h"
#include "fs/client/memory.h"
#include "fs/mount/internal.h"
#include "fs/mount/point.h"

#define WORKERS_MAX    1024 /* more than programs that may wait for dead servers: df needs one, too */
#define WORKERS_IDLE   16   /* that stay */
#define BACKGROUND_MAX 64
#define BUSY_WAIT_MS   3000 /* for open files after a signal */
#define WAKE_US        20000
#define WORKER_FILES   8     /* that one may have open: of the kernel, masters, block servers */
#define RENEW_EVERY_MS 10000 /* guards that die */

/* libfuse explains failures in a log callback only, a line in several pieces. */
static struct {
    pthread_mutex_t mu;
    char line[240];
    size_t len;
    bool complete; /* the next piece begins a line */
} fuse_said = { .mu = PTHREAD_MUTEX_INITIALIZER };

PRINTF_LIKE(2, 0)
static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char text[sizeof(fuse_said.line)];
    size_t len;

    if (level > FUSE_LOG_ERR) {
        return;
    }
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    len = strcspn(text, "\n");
    (void)pthread_mutex_lock(&fuse_said.mu);
    if (fuse_said.complete) {
        fuse_said.len = 0;
    }
    fuse_said.complete = text[len] == '\n';
    len = MIN(len, sizeof(fuse_said.line) - 1 - fuse_said.len);
    memcpy(fuse_said.line + fuse_said.len, text, len);
    fuse_said.len += len;
    fuse_said.line[fuse_said.len] = '\0';
    if (fuse_said.complete) {
        log_event(LOG_WARN, "mount.fuse", "message=\"%s\"", fuse_said.line);
    }
    (void)pthread_mutex_unlock(&fuse_said.mu);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct mount *m = userdata;
    /* Listings come with attributes always: left to itself the kernel asks for them in the first part
     * of a large directory only, and then one by one.
     * Pages go stale when a file is opened and was changed since, or its size is seen to change.
     * Not with every change of mtime: our own writes would throw out what they wrote. The kernel
     * takes set-user-id bits away itself, by setattr: it knows who may keep them.
     * The masters take the umask off: a directory's default access list comes instead of it. */
    unsigned off = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                   FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_EXPLICIT_INVAL_DATA |
                   FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_IOCTL_DIR |
                   FUSE_CAP_READDIRPLUS_AUTO;
    unsigned on = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC |
                  FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                  FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK |
                  FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;

    conn->want = ((conn->want & ~off) | on) & conn->capable;
    m->can_expire = (conn->capable & FUSE_CAP_EXPIRE_ONLY) != 0;
    conn->max_write = WRITE_BYTES;
    conn->max_readahead = WRITE_BYTES;
    conn->max_background = BACKGROUND_MAX;
    conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

/* ---- session ---- */

/* Commas and backslashes in a value of -o are written with a backslash. */
static char *escape(const char *text)
{
    char *out = x_alloc(2 * strlen(text) + 1);
    char *to = out;

    for (; *text != '\0'; text++) {
        if (*text == ',' || *text == '\\') {
            *to++ = '\\';
        }
        *to++ = *text;
    }
    return out;
}

static int session_new(struct mount *m, struct why *why)
{
    const struct mount_options *o = m->o;
    struct fuse_lowlevel_ops ops = { .init = op_init };
    char *source = escape(o->source);
    char *text = x_printf("fsname=%s,subtype=dfs,default_permissions%s,%s", source,
                          o->allow_other ? ",allow_other" : "", o->kernel_opts);
    char *argv[] = { x_strdup("dfs"), x_strdup("-o"), text, NULL };
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    char *at = m->guard.resumed ? x_printf("/dev/fd/%d", m->guard.fuse) : x_strdup(o->dir);
    int err = 0;

    ops_add_attr(&ops);
    ops_add_dir(&ops);
    ops_add_file(&ops);
    ops_add_lock(&ops);
    ops_add_name(&ops);
    ops_add_xattr(&ops);
    ops_wrap(&ops);
    fuse_set_log_func(on_fuse_log);
    m->se = fuse_session_new(&args, &ops, sizeof(ops), m);
    if (m->se == NULL) {
        err = why_set(why, DFS_EINVAL, "libfuse: %s", fuse_said.line);
    } else if (fuse_session_mount(m->se, at) != 0) {
        err = why_set(why, DFS_EPERM, "cannot mount on %s: %s", o->dir,
                      fuse_said.len > 0 ? fuse_said.line : strerror(errno));
        fuse_session_destroy(m->se);
        m->se = NULL;
    } else {
        err = upgrade_io(m->se);
        why_set(why, err, "libfuse: %s", fuse_said.line);
    }
    fuse_opt_free_args(&args);
    free(at);
    free(source);
    for (size_t i = 0; i < 3; i++) {
        free(argv[i]);
    }
    return err;
}

static int find_root(struct mount *m, struct attr *ret, struct why *why)
{
    int err = client_resolve(m->client, &cred_root, m->o->path, ret);

    if (err != 0) {
        return why_set(why, err, "%s: %s", m->o->path, err_text(err));
    }
    if (!S_ISDIR(ret->mode)) {
        return why_set(why, DFS_ENOTDIR, "%s in dfs is not a directory", m->o->path);
    }
    m->root = ret->ino;
    return 0;
}

/* ---- signals ---- */

static void signals_set_up(struct mount *m)
{
    sigset_t set;

    m->signals = daemon_signals();
    upgrade_set_up();
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR2);
    ASSERT(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    m->upgrades = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    ASSERT(m->upgrades >= 0);
}

static bool wait_for_loop(struct mount *m, uint64_t ms)
{
    uint64_t deadline = clock_mono_ms() + ms;

    while (!atomic_load(&m->loop_done) && clock_mono_ms() < deadline) {
        usleep(WAKE_US);
    }
    return atomic_load(&m->loop_done);
}

static void end_by_signal(struct mount *m)
{
    int err;

    log_event(LOG_INFO, "mount.stopping", "dir=\"%s\"", m->o->dir);
    err = client_sync(m->client);
    if (err != 0) {
        log_event(LOG_ERROR, "mount.flush_failed", "err=\"%s\"", err_text(err));
    }
    err = point_detach(m->o->dir);
    if (err != 0) {
        log_event(LOG_ERROR, "mount.unmount_failed", "dir=\"%s\" err=\"%s\"", m->o->dir,
                  err_text(err));
    }
    client_locks_end(m->client); /* nobody else ends who waits for a lock */
    if (wait_for_loop(m, BUSY_WAIT_MS)) {
        return;
    }
    log_event(LOG_WARN, "mount.busy", "dir=\"%s\" note=\"files that are open now get errors\"",
              m->o->dir);
    atomic_store(&m->left_busy, err == 0);
    fuse_session_exit(m->se);
    do { /* again and again: the first may come just before the loop sleeps */
        (void)pthread_kill(m->main_thread, SIGUSR1);
    } while (!wait_for_loop(m, 1));
}

/* SIGHUP: the level of the log is the only key of ours that may change. */
static void reload(struct mount *m)
{
    struct conf *c = conf_new();
    struct why why = { "" };
    int err = 0;

    if (m->o->conf_path != NULL) {
        err = conf_load(c, m->o->conf_path, &why);
    }
    if (err == 0) {
        err = log_configure(c->log_level, &why);
    }
    if (err != 0) {
        log_event(LOG_ERROR, "mount.reload_failed", "err=\"%s\"", why.text);
    }
    conf_free(c);
}

/* The guard has died, which does not happen by itself. */
static void replace_guard(struct mount *m)
{
    struct why why = { "" };

    m->renewed_ms = clock_mono_ms();
    if (guard_renew(&m->guard, m->o->dir, &m->o->program, &why) != 0) {
        log_event(LOG_ERROR, "mount.unguarded", "dir=\"%s\" err=\"%s\"", m->o->dir, why.text);
    }
}

/* Waits for a signal, or for the guard's end, if another one may be made. */
static void wait_for_signal(struct mount *m)
{
    uint64_t next = m->renewed_ms != 0 ? m->renewed_ms + RENEW_EVERY_MS : 0;
    uint64_t now = clock_mono_ms();
    struct signalfd_siginfo info;
    struct pollfd p[] = { { .fd = m->signals, .events = POLLIN },
                          { .fd = m->upgrades, .events = POLLIN },
                          { .fd = now < next ? -1 : m->guard.pidfd, .events = POLLIN } };

    (void)poll(p, ARRAY_LEN(p), now < next ? (int)(next - now) : -1);
    if (atomic_load(&m->loop_done)) {
        return;
    }
    if (p[1].revents != 0 && read(m->upgrades, &info, sizeof(info)) > 0) {
        upgrade_begin(m);
    } else if (p[2].revents != 0) {
        replace_guard(m);
    }
}

static void *signal_main(void *arg)
{
    struct mount *m = arg;

    while (!atomic_load(&m->loop_done)) { /* at the end the main thread sends us a signal, too */
        enum daemon_event e;

        wait_for_signal(m);
        e = daemon_next(m->signals);
        if (atomic_load(&m->loop_done)) {
            break;
        }
        if (e == DAEMON_STOP) {
            end_by_signal(m);
        } else if (e == DAEMON_RELOAD) {
            reload(m);
        }
    }
    return NULL;
}

/* ---- serving ---- */

static unsigned workers_max(void)
{
    return (unsigned)MIN(WORKERS_MAX, MAX(daemon_descriptors() / WORKER_FILES, WORKERS_IDLE));
}

/* Serves until the end, or until it is another process's turn: *ret_leave. */
static int serve(struct mount *m, bool *ret_leave, struct why *why)
{
    struct fuse_loop_config *cfg = fuse_loop_cfg_create();
    bool leave = false;
    int err;

    ASSERT(cfg != NULL);
    fuse_loop_cfg_set_clone_fd(cfg, 1);
    fuse_loop_cfg_set_max_threads(cfg, workers_max());
    fuse_loop_cfg_set_idle_threads(
        cfg, (unsigned)MIN(WORKERS_IDLE, memory_places(m->conf->client_cache)));
    do {
        upgrade_listen(true);
        err = fuse_session_loop_mt(m->se, cfg);
        upgrade_listen(false);
        leave = atomic_load(&m->leaving);
    } while (leave && !upgrade_leave(m));
    fuse_loop_cfg_destroy(cfg);
    *ret_leave = leave;
    atomic_store(&m->loop_done, true);
    (void)pthread_kill(m->signal_thread, SIGHUP);
    (void)pthread_join(m->signal_thread, NULL);
    return err >= 0 ? 0 : why_set(why, err_from_errno(-err), "%s: %s", m->o->dir, strerror(-err));
}

static int start_threads(struct mount *m, const struct attr *root, struct why *why)
{
    int err = keeper_start(m, root);

    m->main_thread = pthread_self();
    if (err == 0 && pthread_create(&m->signal_thread, NULL, signal_main, m) != 0) {
        keeper_stop(m);
        err = DFS_ENOMEM;
    }
    return err == 0 ? 0 : why_set(why, err, "cannot start threads");
}

static bool has_option(const char *opts, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = opts; *p != '\0'; p += strcspn(p, ",")) {
        p += strspn(p, ",");
        if (strcspn(p, ",") == len && strncmp(p, name, len) == 0) {
            return true;
        }
    }
    return false;
}

static void collect_metrics(void *arg, struct metrics_out *out)
{
    const struct mount *m = arg;
    struct client_stats s;

    client_get_stats(m->client, &s);
    metrics_tell(out, METRIC_calls, NULL, NULL, (double)s.rpcs);
    metrics_tell(out, METRIC_retries, NULL, NULL, (double)s.rpc_retries);
    metrics_tell(out, METRIC_failovers, NULL, NULL, (double)s.read_failovers);
    metrics_tell(out, METRIC_commits, NULL, NULL, (double)s.commits);
    metrics_tell(out, METRIC_moved, NULL, NULL, (double)s.blocks_sealed_early);
    metrics_tell(out, METRIC_local_read, NULL, NULL, (double)s.local_bytes);
    metrics_tell(out, METRIC_cache_used, NULL, NULL, (double)s.cache_bytes);
}

static int serve_metrics(struct mount *m, struct why *why)
{
    int err = metrics_http_start(m->conf->client_metrics, "", 0, ROLE_MOUNT, collect_metrics, m,
                                 &m->metrics, why);

    if (err != 0) {
        why_prefix(why, "client.metrics");
    }
    return err;
}

void mount_stop_threads(struct mount *m)
{
    takeover_stop(m);
    client_locks_end(m->client);
    metrics_http_stop(m->metrics);
    inval_stop(m);
    keeper_stop(m);
}

/* A start that failed. */
static void give_up(struct mount *m, const struct why *why)
{
    metrics_http_stop(m->metrics);
    if (m->stopped) {
        (void)point_detach(m->o->dir);
    } else if (m->guard.resumed) {
        log_event(LOG_ERROR, "mount.failed", "dir=\"%s\" err=\"%s\"", m->o->dir, why->text);
        _exit(1); /* the guard tries again */
    }
}

/* The open files' numbers, and the client behind them: a new one, or the one that was left behind. */
static int connect_client(struct mount *m, const char *name, struct attr *root, struct why *why)
{
    const char *opts = m->o->kernel_opts;
    int err = handles_open(m->guard.state, &m->handles, why);

    if (err != 0) {
        return err;
    }
    handles_limit(m->handles, memory_files(m->conf->client_cache));
    if (m->guard.resumed) {
        err = takeover_connect(m, name, root, why);
    } else {
        err = client_open(m->conf, name, &m->client, why);
        err = err != 0 ? err : find_root(m, root, why);
    }
    if (err == 0 && (has_option(opts, "noatime") || has_option(opts, "ro"))) {
        client_no_atime(m->client);
    }
    return err;
}

int mount_run(const struct conf *conf, const struct mount_options *o, mount_ready_fn *ready,
              void *arg, struct why *why)
{
    struct mount *m = x_alloc(sizeof(*m));
    char *name = x_printf("mount %s", o->dir);
    bool leave = false;
    struct attr root = { 0 };
    int err;

    m->conf = conf;
    m->o = o;
    (void)daemon_descriptors();
    err = o->called ? guard_take_over(&m->guard, o->dir, why)
                    : guard_start(&m->guard, o->dir, o->background, why);
    if (err != 0) {
        free(name);
        free(m);
        return err;
    }
    if (m->guard.resumed && o->pid_file != NULL) {
        (void)daemon_pidfile_write(o->pid_file, NULL);
    }
    (void)pthread_mutex_init(&m->adopt_mu, NULL);
    m->timeout_s = (double)conf->attr_timeout / 1000;
    xattr_memo_init(&m->memo);
    m->groups = groups_new();
    work_set_up(conf->client_cache);
    signals_set_up(m); /* before any thread */
    err = connect_client(m, name, &root, why);
    if (err == 0) {
        err = session_new(m, why);
    }
    if (err == 0) {
        err = takeover_greet(m, why);
    }
    if (err == 0) {
        err = serve_metrics(m, why);
    }
    if (err == 0) {
        err = start_threads(m, &root, why); /* the last step that can fail: they use all of m */
    }
    if (err == 0) {
        inval_start(m);
        takeover_start(m);
        log_event(LOG_INFO, "mount.ready", "dir=\"%s\" source=\"%s\"", o->dir, o->source);
        ready(arg);
        err = serve(m, &leave, why);
        if (leave) {
            _exit(0); /* the guard makes the next one */
        }
        mount_stop_threads(m);
    } else {
        give_up(m, why);
    }
    if (m->se != NULL) {
        if (!atomic_load(&m->left_busy)) {
            fuse_session_unmount(m->se); /* knows by the connection whether it is gone already */
        }
        fuse_session_destroy(m->se);
    }
    client_close(m->client);
    handles_close(m->handles);
    (void)pthread_mutex_destroy(&m->adopt_mu);
    guard_end(&m->guard);
    log_event(LOG_INFO, "mount.ended", "dir=\"%s\"", o->dir);
    io_close(m->signals);
    io_close(m->upgrades);
    xattr_memo_fini(&m->memo);
    groups_free(m->groups);
    free(name);
    free(m);
    return err;
}
