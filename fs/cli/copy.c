#include "fs/cli/copy.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>

#include "cluster/base/clock.h"
#include "cluster/base/err.h"
#include "cluster/base/json.h"
#include "cluster/base/rng.h"

void copy_begin(struct copy *c, const char *what, uint64_t total, job_fn *fn)
{
    pthread_mutex_init(&c->mu, NULL);
    c->start_ms = clock_mono_ms();
    progress_begin(&c->progress, what, total);
    c->jobs = jobs_start(c->recursive ? COPY_THREADS : 1, fn, c);
}

static atomic_int stopped_by; /* the signal, or 0 */

static void on_signal(int sig)
{
    atomic_store(&stopped_by, sig);
}

void copy_catch_signals(void)
{
    static const int all[] = { SIGINT, SIGTERM, SIGHUP };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
        struct sigaction was;

        if (sigaction(all[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN) {
            (void)sigaction(all[i], &sa, NULL);
        }
    }
}

bool copy_stopped(void)
{
    return atomic_load(&stopped_by) != 0;
}

int copy_end(struct copy *c)
{
    jobs_finish(c->jobs);
    progress_end(&c->progress);
    pthread_mutex_destroy(&c->mu);
    remote_close(&c->r);
    if (c->r.cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_num(&j, "files", c->files);
        json_num(&j, "directories", c->dirs);
        json_num(&j, "bytes", c->bytes);
        json_num(&j, "failed", c->failed);
        json_real(&j, "seconds", (double)(clock_mono_ms() - c->start_ms) / 1000);
        json_end(&j);
    }
    if (copy_stopped()) {
        (void)fflush(stdout);
        (void)signal(stopped_by, SIG_DFL);
        (void)raise(stopped_by);
    }
    return c->failed == 0 ? CLI_DONE : CLI_FAILED;
}

int copy_moved(struct copy *c, uint64_t n)
{
    pthread_mutex_lock(&c->mu);
    c->bytes += n;
    progress_add(&c->progress, n);
    pthread_mutex_unlock(&c->mu);
    return copy_stopped() ? DFS_EINTR : DFS_OK;
}

void copy_done(struct copy *c, bool dir)
{
    pthread_mutex_lock(&c->mu);
    c->dirs += dir;
    c->files += !dir;
    pthread_mutex_unlock(&c->mu);
}

void copy_failed(struct copy *c, int err, const char *fmt, ...)
{
    char text[LIMIT_PATH + 256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&c->mu);
    c->failed++;
    if (!copy_stopped() || err != DFS_EINTR) { /* whoever stopped it knows */
        progress_end(&c->progress);
        (void)cli_fail(c->r.cli, err, NULL, "%s", text);
    }
    pthread_mutex_unlock(&c->mu);
}

int copy_make(struct copy *c, uint64_t dir, struct slice name, uint32_t mode, copy_fill_fn *fill,
              void *arg)
{
    struct client *cl = c->r.c;
    const struct cred *cr = &c->r.cr;
    struct slice as = name;
    struct file *f = NULL;
    char temp[32];
    struct attr a;
    int err = file_create(cl, cr, dir, as, mode & 0777, O_WRONLY | O_EXCL, &f, &a, NULL);

    if (err == DFS_EEXIST && c->force) {
        (void)snprintf(temp, sizeof(temp), ".put-%016" PRIx64, rng_system_u64());
        as = slice_str(temp);
        err = file_create(cl, cr, dir, as, mode & 0777, O_WRONLY | O_EXCL, &f, &a, NULL);
    }
    if (err != 0) {
        return err;
    }
    err = fill(arg, f, a.ino);
    file_close(f);
    if (err == 0 && !slice_eq(as, name)) {
        err = client_rename(cl, cr, dir, as, dir, name, 0);
    }
    if (err != 0) {
        (void)client_unlink(cl, cr, dir, as, false);
    }
    return err;
}

int copy_keep(struct copy *c, uint64_t ino, const struct attr *from)
{
    struct setattr_req q = { .ino = ino,
                             .valid = SET_MODE | SET_ATIME | SET_MTIME,
                             .mode = from->mode & 07777,
                             .atime = from->atime,
                             .mtime = from->mtime };
    struct attr a;

    if (c->r.cr.uid == 0) {
        q.valid |= SET_UID | SET_GID;
        q.uid = from->uid;
        q.gid = from->gid;
    }
    return client_setattr(c->r.c, &c->r.cr, &q, &a);
}

/* ---- paths ---- */

char *path_trim(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    return x_strndup(path, len);
}

char *path_join(const char *dir, const char *name)
{
    size_t len = strlen(dir);

    return x_printf("%s%s%s", dir, len > 0 && dir[len - 1] == '/' ? "" : "/", name);
}

const char *path_base(const char *trimmed)
{
    const char *slash = strrchr(trimmed, '/');

    return slash != NULL && slash[1] != '\0' ? slash + 1 : trimmed;
}

int path_parent(const struct remote *r, const char *trimmed, struct attr *ret_dir,
                struct slice *ret_name)
{
    const char *base = path_base(trimmed);
    char *dir;
    int err;

    if (trimmed[0] != '/' || trimmed[1] == '\0') {
        return DFS_EINVAL;
    }
    dir = x_strndup(trimmed, (size_t)(base - trimmed));
    err = client_resolve(r->c, &r->cr, dir, ret_dir);
    free(dir);
    if (err == 0 && !S_ISDIR(ret_dir->mode)) {
        err = DFS_ENOTDIR;
    }
    if (err == 0) {
        *ret_name = slice_str(base);
    }
    return err;
}

int path_target(const struct remote *r, const char *dst, int sources, char **ret_path,
                bool *ret_into)
{
    struct attr a;
    int err;

    if (dst[0] != '/') {
        return cli_usage(r->cli, "%s: a path in dfs begins with a slash", dst);
    }
    err = client_resolve(r->c, &r->cr, dst, &a);
    if (err != 0 && err != DFS_ENOENT) {
        return cli_fail(r->cli, err, NULL, "%s", dst);
    }
    *ret_into = err == 0 && S_ISDIR(a.mode);
    if (!*ret_into && (sources > 1 || dst[strlen(dst) - 1] == '/')) {
        return cli_fail(r->cli, err != 0 ? err : DFS_ENOTDIR, NULL, "%s", dst);
    }
    *ret_path = path_trim(dst);
    return CLI_DONE;
}
