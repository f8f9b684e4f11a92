/* dfs mount, and mount(8)'s helper mount.fuse.dfs.
 *
 * In the background: a child does everything, the parent waits for a line from it. "+" means that
 * the kernel's requests are being served, then the parent looks whether the root answers. Anything
 * else is why it failed. Nothing stays mounted after a failure.
 */
#include "cluster/base/base.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/daemon.h"
#include "cluster/base/err.h"
#include "cluster/base/io.h"
#include "cluster/base/limits.h"
#include "cluster/base/log.h"

#include "fs/cli/cli.h"
#include "fs/cli/mount_upgrade.h"
#include "fs/mount/mount.h"
#include "fs/mount/options.h"
#include "fs/mount/point.h"

#define READY      "+"
#define SILENCE_MS 2000 /* of the process that mounts, before a word is said */

struct plan {
    struct cli *cli;
    struct options o; /* of all -o together */
    char *masters;    /* from the source, or NULL */
    char *source;     /* what /proc/mounts shows */
    char *path;       /* inside dfs */
    char *dir;        /* resolved */
    char *pid_file;   /* absolute, or NULL */
    char *log;        /* a word, an absolute path, or NULL */
    struct guard_program program;
    bool called; /* as another guard of a mount that exists */
    bool upgrade;
    bool keep_pid_file;
    bool foreground;
    int ready_fd; /* where the child reports; -1 in the foreground */
};

static void plan_fini(struct plan *p)
{
    options_fini(&p->o);
    free(p->masters);
    free(p->source);
    free(p->path);
    free(p->dir);
    free(p->pid_file);
    free(p->log);
    guard_program_fini(&p->program);
}

/* ---- what is asked for ---- */

/* The program's own name is kept where mount(8) calls it; the command's name stands there else. */
static bool as_helper(const struct cli *cli, int argc, char **argv)
{
    const char *slash;

    if (cli->man || argc == 0) {
        return false;
    }
    slash = strrchr(argv[0], '/');
    return strncmp(slash != NULL ? slash + 1 : argv[0], "mount.", 6) == 0;
}

static int add_options(struct plan *p, const struct opt_list *list, bool sloppy)
{
    struct why why = { "" };

    for (int i = 0; i < list->count; i++) {
        if (options_add(&p->o, list->item[i], sloppy, &why) != 0) {
            return cli_usage(p->cli, "%s", why.text);
        }
    }
    return 0;
}

static int load_conf(struct plan *p)
{
    struct cli *cli = p->cli;
    struct why why = { "" };
    int err;

    if (p->o.conf_file != NULL) {
        cli->conf_option = p->o.conf_file;
    }
    err = cli_load_conf(cli, &why);
    if (err == 0 && p->masters != NULL) {
        char *set = x_printf("masters=%s", p->masters);

        err = conf_set(cli->conf, set, &why);
        free(set);
    }
    for (size_t i = 0; i < p->o.set_count && err == 0; i++) {
        err = conf_set(cli->conf, p->o.sets[i], &why);
    }
    if (err == 0) {
        err = conf_check(cli->conf, &why);
    }
    if (err != 0) {
        cli_error(cli, "%s", why.text);
        return CLI_USAGE;
    }
    if (cli->verbose == 0) {
        (void)log_configure(cli->conf->log_level, NULL);
    }
    return 0;
}

/* mount.fuse.dfs SOURCE DIR [-sfnv] [-o OPTIONS] */
static int plan_helper(struct plan *p, int argc, char **argv, bool *ret_fake)
{
    struct opt_list list = { 0 };
    bool sloppy = false, no_mtab = false;
    const char *type = NULL, *space = NULL;
    const struct opt opts[] = {
        { "options", 'o', OPT_LIST, &list, "OPTIONS", "Mount options, comma separated." },
        { "sloppy", 's', OPT_FLAG, &sloppy, NULL, "Unknown options are passed over." },
        { "fake", 'f', OPT_FLAG, ret_fake, NULL, "Everything but the mount itself." },
        { "no-mtab", 'n', OPT_FLAG, &no_mtab, NULL, "For mount(8); changes nothing." },
        { "types", 't', OPT_TEXT, &type, "TYPE", "For mount(8); changes nothing." },
        { "namespace", 'N', OPT_TEXT, &space, "NS", "For mount(8); changes nothing." },
        OPT_END,
    };
    struct cli *cli = p->cli;
    struct why why = { "" };
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, 2)) {
        return cli->status;
    }
    status = add_options(p, &list, sloppy);
    if (status != 0) {
        return status;
    }
    if (p->o.remount) {
        return 0;
    }
    if (options_source(cli->args[0], &p->masters, &p->path, &why) != 0) {
        return cli_usage(cli, "%s", why.text);
    }
    p->source = x_strdup(cli->args[0]); /* as it stands in fstab: mount -a compares */
    return load_conf(p);
}

/* dfs mount DIR */
static int plan_command(struct plan *p, int argc, char **argv)
{
    const char *path = "/", *log = NULL, *pid_file = NULL, *cache = NULL;
    struct opt_list list = { 0 };
    bool read_only = false, allow_other = false;
    const struct opt opts[] = {
        { "upgrade", 0, OPT_FLAG, &p->upgrade, NULL,
          "DIR is mounted already: the program's file as it is now takes its process's place, under "
          "open files. Returns when it serves." },
        { "path", 0, OPT_TEXT, &path, "PATH", "Mounts this directory of dfs instead of the root." },
        { "ro", 0, OPT_FLAG, &read_only, NULL, "Mounts read-only." },
        { "options", 'o', OPT_LIST, &list, "OPTIONS",
          "Mount options, comma separated: ro, noatime, nosuid, nodev, noexec, sync, and remount to "
          "change these; nonempty; "
          "allow_other, noallow_other; root_squash, no_root_squash, anonuid=ID, anongid=ID; "
          "attr_timeout=TIME, timeout=TIME, cache=SIZE, read_ahead=SIZE and every other client.* key; "
          "conf=FILE, log=WHERE, pid_file=FILE." },
        { "cache-size", 0, OPT_TEXT, &cache, "SIZE",
          "Memory of the whole mount, 32MiB at least; as -o cache=SIZE." },
        { "foreground", 'f', OPT_FLAG, &p->foreground, NULL,
          "Stays in the foreground and logs to standard error." },
        { "allow-other", 0, OPT_FLAG, &allow_other, NULL,
          "Lets other users in; without saying when root mounts." },
        { "log", 0, OPT_TEXT, &log, "WHERE",
          "Where log lines go: a file, syslog, stderr or none. In the background: syslog." },
        { "pid-file", 0, OPT_TEXT, &pid_file, "FILE",
          "Holds the process id while the mount lives." },
        { "keep-pid-file", 0, OPT_FLAG, &p->keep_pid_file, NULL,
          "Leaves that file where it is at the end." },
        OPT_END,
    };
    struct cli *cli = p->cli;
    char *extra;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 1, 1)) {
        return cli->status;
    }
    if (p->upgrade) {
        return 0;
    }
    status = add_options(p, &list, false);
    if (status != 0) {
        return status;
    }
    if (read_only) {
        (void)options_add(&p->o, "ro", false, NULL);
    }
    if (p->o.remount) {
        return 0;
    }
    if (path[0] != '/') {
        return cli_usage(cli, "--path %s: begin with a slash", path);
    }
    if (cache != NULL) {
        char *text = x_printf("cache=%s", cache);

        (void)options_add(&p->o, text, false, NULL); /* what is wrong with it is told with others */
        free(text);
    }
    p->o.allow_other = p->o.allow_other || allow_other;
    if (log != NULL) {
        free(p->o.log);
        p->o.log = x_strdup(log);
    }
    if (pid_file != NULL) {
        free(p->o.pid_file);
        p->o.pid_file = x_strdup(pid_file);
    }
    status = load_conf(p);
    if (status != 0) {
        return status;
    }
    extra = x_printf("%s:%s", cli->conf->masters, path);
    status = options_source(extra, &p->masters, &p->path, NULL) == 0
                 ? 0
                 : cli_usage(cli, "masters = %s: want HOST:PORT", cli->conf->masters);
    p->source = extra;
    return status;
}

/* ---- log and pid file ---- */

/* Every line is one datagram, as the system's logger takes them. */
static int syslog_open(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        io_close(fd);
        return -1;
    }
    return fd;
}

static int log_open(const struct plan *p, struct why *why)
{
    const char *where = p->log;
    int fd;

    if (where == NULL) {
        if (p->foreground) {
            return 0;
        }
        fd = syslog_open();
        fd = fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
    } else if (strcmp(where, "stderr") == 0) {
        fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); /* the background loses the old one */
    } else if (strcmp(where, "syslog") == 0) {
        fd = syslog_open();
    } else {
        fd = open(strcmp(where, "none") == 0 ? "/dev/null" : where,
                  O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    }
    if (fd < 0) {
        return why_set(why, err_from_errno(errno), "log %s: %s", where != NULL ? where : "",
                       strerror(errno));
    }
    log_to_fd(fd);
    return 0;
}

static bool is_log_word(const char *where)
{
    return strcmp(where, "stderr") == 0 || strcmp(where, "syslog") == 0 ||
           strcmp(where, "none") == 0;
}

/* The background leaves the current directory. */
static char *absolute(const char *path)
{
    char *cwd, *all;

    if (path == NULL) {
        return NULL;
    }
    if (path[0] == '/' || is_log_word(path)) {
        return x_strdup(path);
    }
    cwd = getcwd(NULL, 0);
    all = x_printf("%s/%s", cwd != NULL ? cwd : "", path);
    free(cwd);
    return all;
}

/* ---- serving ---- */

static void report(int fd, const char *text)
{
    (void)io_write(fd, text, strlen(text));
    io_close(fd);
}

static void on_ready(void *arg)
{
    struct plan *p = arg;
    int null;

    if (p->ready_fd < 0) {
        return;
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd <= 2; fd++) {
        (void)dup2(null, fd);
    }
    io_close(null);
    report(p->ready_fd, READY);
    p->ready_fd = -1;
}

static int serve(struct plan *p, struct why *why)
{
    bool root = geteuid() == 0;
    const char *wanted = p->o.kernel != NULL ? p->o.kernel : "";
    /* libfuse says nosuid and nodev to everybody; what root mounts is like any other file system */
    char *kernel_opts =
        x_printf("rw%s%s%s", root ? ",suid,dev" : "", wanted[0] != '\0' ? "," : "", wanted);
    struct mount_options o = {
        .source = p->source,
        .dir = p->dir,
        .path = p->path,
        .kernel_opts = kernel_opts,
        .conf_path = p->cli->conf_path,
        .called = p->called,
        .program = p->program,
        .pid_file = p->pid_file,
        .background = p->ready_fd >= 0,
        .allow_other = p->o.allow_other || (root && !p->o.no_allow_other),
        .root_squash = p->o.root_squash,
        .anon_uid = p->o.anon_uid,
        .anon_gid = p->o.anon_gid,
    };
    int err = log_open(p, why);

    if (err == 0 && p->pid_file != NULL && !p->called) {
        err = daemon_pidfile_write(p->pid_file, why);
    }
    if (err == 0) {
        err = mount_run(p->cli->conf, &o, on_ready, p, why);
        if (p->pid_file != NULL && !p->keep_pid_file) {
            (void)unlink(p->pid_file);
        }
    }
    free(kernel_opts);
    return err;
}

static NORETURN void child(struct plan *p)
{
    struct why why = { "" };
    int err;

    (void)setsid();
    (void)!chdir("/");
    err = serve(p, &why);
    if (p->ready_fd >= 0) {
        report(p->ready_fd, why.text[0] != '\0' ? why.text : err_text(err));
    } else if (err != 0) {
        log_event(LOG_ERROR, "mount.failed", "err=\"%s\"", why.text);
    }
    exit(err == 0 ? CLI_DONE : CLI_FAILED);
}

static bool root_answers(const char *dir)
{
    struct point_info info;
    struct stat st;

    return stat(dir, &st) == 0 && S_ISDIR(st.st_mode) && point_find(dir, &info) == 0 && info.dfs;
}

/* One report, not until the end: the guard has the pipe open for as long as the mount lives. */
static size_t wait_for_report(const struct plan *p, int fd, char *text, size_t max)
{
    struct pollfd ready = { .fd = fd, .events = POLLIN };
    ssize_t n;

    if (poll(&ready, 1, SILENCE_MS) == 0) {
        cli_error(p->cli, "no mount yet; waiting for the masters at %s", p->cli->conf->masters);
    }
    do {
        n = read(fd, text, max);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? (size_t)n : 0;
}

static int background(struct plan *p)
{
    char text[sizeof(struct why)] = "";
    size_t len = 0;
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        return cli_error(p->cli, "pipe: %s", strerror(errno));
    }
    pid = fork();
    if (pid < 0) {
        return cli_error(p->cli, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        io_close(fds[0]);
        p->ready_fd = fds[1];
        child(p);
    }
    io_close(fds[1]);
    len = wait_for_report(p, fds[0], text, sizeof(text) - 1);
    io_close(fds[0]);
    text[len] = '\0';
    if (strcmp(text, READY) == 0) {
        if (root_answers(p->dir)) {
            return CLI_DONE;
        }
        (void)kill(pid, SIGTERM);
        (void)snprintf(text, sizeof(text), "%s is mounted but does not answer", p->dir);
    }
    (void)waitpid(pid, NULL, 0);
    return cli_error(p->cli, "%s", len > 0 ? text : "the mount's process ended without a word");
}

/* The process that serves the mount waits for a word from this one: what fails here goes to its log. */
static int run_called(struct plan *p)
{
    struct why why = { "" };
    int err;

    p->called = true;
    (void)!chdir("/");
    err = serve(p, &why);
    if (err != 0) {
        log_event(LOG_ERROR, "mount.failed", "dir=\"%s\" err=\"%s\"", p->dir, why.text);
    }
    return err == 0 ? CLI_DONE : CLI_FAILED;
}

static int run(struct plan *p)
{
    struct why why = { "" };
    int err;

    p->ready_fd = -1;
    p->pid_file = absolute(p->o.pid_file);
    p->log = absolute(p->o.log);
    guard_program_get(&p->program);
    p->dir = guard_called();
    if (p->dir != NULL) {
        return run_called(p);
    }
    err = point_check(p->cli->args[p->cli->arg_count - 1], p->o.nonempty, &p->dir, &why);

    if (err != 0) {
        return cli_error(p->cli, "%s", why.text);
    }
    if (!p->foreground) {
        return background(p);
    }
    err = serve(p, &why);
    return err == 0 ? CLI_DONE : cli_fail(p->cli, err, &why, "%s", p->dir);
}

static int remount(struct plan *p, const char *dir)
{
    struct why why = { "" };
    int err = point_remount(dir, p->o.kernel != NULL ? p->o.kernel : "", &why);

    return err == 0 ? CLI_DONE : cli_error(p->cli, "%s", why.text);
}

int cmd_mount(struct cli *cli, int argc, char **argv)
{
    struct plan p = { .cli = cli, .o = OPTIONS_INIT, .ready_fd = -1 };
    bool fake = false;
    int status;

    status = as_helper(cli, argc, argv) ? plan_helper(&p, argc, argv, &fake)
                                        : plan_command(&p, argc, argv);
    if (status == 0 && p.upgrade) {
        status = mount_upgrade(cli, cli->args[0]);
    } else if (status == 0 && p.o.remount && !fake) {
        status = remount(&p, cli->args[cli->arg_count - 1]);
    } else if (status == 0 && p.source != NULL &&
               !fake) { /* without a source only help was wanted */
        status = run(&p);
    }
    plan_fini(&p);
    return status;
}
