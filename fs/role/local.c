/* The happy path of local_start():
 *   lock DIR; read what is remembered; add what is asked for; write dfs.conf and the arguments;
 *   spawn the master, wait until it answers; spawn the block servers, wait until all are registered;
 *   spawn the mounts, wait until each answers.
 * Failures: before the first spawn nothing was changed but empty directories. After it, the process
 * that failed is named with the end of its log, everything that this call spawned is stopped in
 * reverse order, what it added is forgotten and dfs.conf gets its old text back.
 */
#include "fs/role/local.h"

#include <signal.h>
#include <unistd.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/client/client.h"
#include "fs/role/local_dir.h"
#include "fs/role/local_mount.h"

#define START_MS 90000 /* for each of the three steps */
#define POLL_US  20000

static volatile sig_atomic_t interrupted;

static void on_signal(int sig UNUSED)
{
    interrupted = 1;
}

/* So that a start that is interrupted also takes back what it did. */
static void catch_signals(void)
{
    struct sigaction sa = { .sa_handler = on_signal };

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

/* ---- is a step complete? ---- */

static bool registered(const struct local_proc *p, const struct status_rep *rep)
{
    struct wire_in in = wire_in_of(rep->servers.items);
    struct server_info s;

    for (uint32_t i = 0; i < rep->servers.count && server_info_get(&in, &s) == 0; i++) {
        if (slice_eq(s.host, slice_str(p->name)) && s.state == MEMBER_LIVE) {
            return !p->started || s.last_seen_ms <= clock_mono_ms() - p->started_ms;
        }
    }
    return false;
}

/* The first process of the role that is not ready, or NULL. */
static struct local_proc *not_registered(struct local *l, enum local_role role,
                                         const struct conf *conf)
{
    struct local_proc *found = NULL;
    struct status_rep rep;
    struct wire_out out;
    bool answers;

    wire_out_init(&out, LIMIT_MSG);
    answers = client_admin(conf, RPC_status, SLICE_EMPTY, &out, NULL) == 0 &&
              status_rep_get(wire_out_slice(&out), &rep) == 0;
    for (size_t i = 0; i < l->count && found == NULL; i++) {
        struct local_proc *p = &l->procs[i];

        if (p->role == role && !(answers && (role == LOCAL_MASTER || registered(p, &rep)))) {
            found = p;
        }
    }
    wire_out_fini(&out);
    return found;
}

static struct local_proc *not_mounted(struct local *l)
{
    for (size_t i = 0; i < l->count; i++) {
        struct local_proc *p = &l->procs[i];

        if (p->role == LOCAL_MOUNT && !local_mount_answers(local_proc_mountpoint(p))) {
            return p;
        }
    }
    return NULL;
}

/* The configuration for the questions above: they must end soon, a process may have died. */
static int load_conf(const struct local *l, struct conf **ret, struct why *why)
{
    struct conf *conf = conf_new();
    int err = conf_load(conf, l->conf.path, why);

    err = err != 0 ? err : conf_set(conf, "client.timeout=1s", why);
    if (err != 0) {
        conf_free(conf);
        return err;
    }
    *ret = conf;
    return 0;
}

/* ---- start ---- */

static int failed(const struct local_proc *p, const char *how, struct why *why)
{
    local_proc_print_log(p, stderr);
    return why_set(why, DFS_EIO, "%s %s", p->name, how);
}

/* A process that has ended will never be ready, whatever it said before. */
static int wait_ready(struct local *l, enum local_role role, const struct conf *conf,
                      struct why *why)
{
    uint64_t deadline = clock_mono_ms() + START_MS;

    for (;;) {
        const struct local_proc *waiting =
            role == LOCAL_MOUNT ? not_mounted(l) : not_registered(l, role, conf);

        for (size_t i = 0; i < l->count; i++) {
            if (l->procs[i].role <= role && !local_proc_running(&l->procs[i])) {
                return failed(&l->procs[i], "ended while the cluster was starting", why);
            }
        }
        if (waiting == NULL) {
            return 0;
        }
        if (interrupted) {
            return why_set(why, DFS_EINTR, "interrupted");
        }
        if (clock_mono_ms() > deadline) {
            return failed(waiting, "is not ready in time", why);
        }
        usleep(POLL_US);
    }
}

static int spawn_role(struct local *l, enum local_role role, struct why *why)
{
    for (size_t i = 0; i < l->count; i++) {
        struct local_proc *p = &l->procs[i];
        int err;

        if (p->role != role || local_proc_running(p)) {
            continue;
        }
        err = local_proc_spawn(p, why);
        if (err != 0) {
            return err;
        }
        fprintf(stderr, "started %s (pid %d)\n", p->name, (int)p->pid);
    }
    return 0;
}

static int write_files(const struct local *l, struct why *why)
{
    int err = 0;

    static const char *const below[] = { "log", "data" };
    for (size_t i = 0; err == 0 && i < ARRAY_LEN(below); i++) {
        char *path = x_printf("%s/%s", l->dir, below[i]);

        err = io_mkdir_p(path, 0755, why);
        free(path);
    }
    err = err != 0 ? err : local_conf_write(&l->conf, why);
    for (size_t i = 0; err == 0 && i < l->count; i++) {
        if (l->procs[i].added) {
            err = local_proc_save(&l->procs[i], why);
        }
    }
    return err;
}

/* Ends a mount: flushed by the unmount, or by its process when something still uses it. */
static bool stop_mount(struct local_proc *p)
{
    const char *path = local_proc_mountpoint(p);
    bool clean = true;

    if (local_proc_running(p)) {
        if (!local_mount_present(path) || local_mount_leave(path) != 0) {
            local_proc_terminate(p);
        }
        clean = local_proc_wait(p);
    }
    local_mount_detach(path);
    return clean;
}

/* Stops what runs, newest role first; with only_started what this call has started. Returns the
 * first process that had to be killed, or NULL. */
static struct local_proc *stop_procs(struct local *l, bool only_started)
{
    struct local_proc *killed = NULL;

    for (int role = LOCAL_MOUNT; role >= LOCAL_MASTER; role--) {
        for (size_t i = l->count; i-- > 0;) {
            struct local_proc *p = &l->procs[i];

            if ((int)p->role == role && role != LOCAL_MOUNT && (p->started || !only_started)) {
                local_proc_terminate(p);
            }
        }
        for (size_t i = l->count; i-- > 0;) {
            struct local_proc *p = &l->procs[i];
            bool clean = true;

            if ((int)p->role == role && (p->started || !only_started)) {
                clean = role == LOCAL_MOUNT ? stop_mount(p) : local_proc_wait(p);
            }
            killed = clean ? killed : p;
        }
    }
    return killed;
}

static void take_back(struct local *l)
{
    (void)stop_procs(l, true);
    for (size_t i = 0; i < l->count; i++) {
        struct local_proc *p = &l->procs[i];

        if (p->added) {
            local_proc_forget(p);
        }
        if (p->made_mountpoint) {
            rmdir(local_proc_mountpoint(p));
        }
    }
    local_conf_restore(&l->conf);
}

static int start_all(struct local *l, struct why *why)
{
    struct conf *conf = NULL;
    int err = write_files(l, why);

    err = err != 0 ? err : load_conf(l, &conf, why);
    for (int role = LOCAL_MASTER; err == 0 && role <= LOCAL_MOUNT; role++) {
        err = spawn_role(l, (enum local_role)role, why);
        err = err != 0 ? err : wait_ready(l, (enum local_role)role, conf, why);
    }
    conf_free(conf);
    return err;
}

int local_start(const struct local_options *o, struct why *why)
{
    struct local *l = local_new();
    char *run = x_printf("%s/run", o->dir);
    int err;

    catch_signals();
    err = io_mkdir_p(run, 0755, why);
    err = err != 0 ? err : local_open(l, o->dir, true, &interrupted, why);
    if (err == 0) {
        err = local_plan(l, o, why);
        err = err != 0 ? err : start_all(l, why);
        if (err != 0) {
            take_back(l);
        }
    }
    free(run);
    local_free(l);
    return err;
}

/* ---- stop, status ---- */

static int open_existing(struct local *l, const char *dir, bool lock, struct why *why)
{
    char *args = x_printf("%s/run/master-1.args", dir);
    int err = 0;

    if (access(args, F_OK) != 0) {
        err = why_set(why, DFS_ENOENT, "%s: no cluster was started here", dir);
    }
    free(args);
    return err != 0 ? err : local_open(l, dir, lock, NULL, why);
}

int local_stop(const char *dir, struct why *why)
{
    struct local *l = local_new();
    const struct local_proc *killed = NULL;
    int err = open_existing(l, dir, true, why);

    if (err == 0) {
        killed = stop_procs(l, false);
    }
    if (killed != NULL) {
        err = why_set(why, DFS_EBUSY, "%s did not end within %d s and was killed", killed->name,
                      LOCAL_STOP_MS / 1000);
    }
    local_free(l);
    return err;
}

int local_status(const char *dir, local_info_fn *fn, void *arg, struct why *why)
{
    struct local *l = local_new();
    int err = open_existing(l, dir, false, why);

    for (size_t i = 0; err == 0 && i < l->count; i++) {
        struct local_proc *p = &l->procs[i];
        struct local_info info = { .state = LOCAL_STOPPED };
        const char *where = p->role == LOCAL_MOUNT    ? local_proc_mountpoint(p)
                            : p->role == LOCAL_MASTER ? local_proc_setting(p, "master.listen")
                                                      : local_proc_setting(p, "block.listen");

        snprintf(info.name, sizeof(info.name), "%s", p->name);
        snprintf(info.where, sizeof(info.where), "%s", where != NULL ? where : "");
        if (local_proc_running(p)) {
            info.pid = p->pid;
            info.state =
                p->role != LOCAL_MOUNT || local_mount_answers(where) ? LOCAL_RUNNING : LOCAL_STUCK;
        }
        fn(arg, &info);
    }
    local_free(l);
    return err;
}
