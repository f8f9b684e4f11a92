/* dfs get: files and trees out of dfs onto this machine. */
#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/err.h"
#include "cluster/base/io.h"

#include "fs/cli/copy.h"

struct get_job {
    char *from;
    char *to;
    struct attr a;
};

/* A directory whose mode and times are set when everything is in it. */
struct made_dir {
    char *to;
    struct attr a;
};

struct get {
    struct copy c;    /* first, so that the jobs' argument is both */
    const char *from; /* of the source being walked */
    const char *to;
    struct made_dir *dirs;
    size_t dir_count, dir_cap;
};

static struct timespec spec_of(int64_t ns)
{
    int64_t rest = ((ns % NS_PER_SEC) + NS_PER_SEC) % NS_PER_SEC;

    return (struct timespec){ .tv_sec = (time_t)((ns - rest) / NS_PER_SEC), .tv_nsec = (long)rest };
}

static int keep_attrs(const struct copy *c, const char *to, const struct attr *a)
{
    const struct timespec times[2] = { spec_of(a->atime), spec_of(a->mtime) };

    if (c->r.cr.uid == 0 && lchown(to, a->uid, a->gid) != 0) {
        return err_from_errno(errno);
    }
    if (!S_ISLNK(a->mode) && chmod(to, a->mode & 07777) != 0) {
        return err_from_errno(errno);
    }
    return utimensat(AT_FDCWD, to, times, AT_SYMLINK_NOFOLLOW) != 0 ? err_from_errno(errno) : 0;
}

struct around {
    uint64_t off;
    uint64_t end; /* of the extent at off */
};

static bool find_end(void *arg, const struct extent *e, const struct block_loc *b UNUSED)
{
    struct around *w = arg;

    if (e->off <= w->off && e->off + e->len > w->off) {
        w->end = e->off + e->len;
    }
    return e->off + e->len <= w->off;
}

/* With --force what cannot be read is left as a hole, and told. Returns where to go on, or 0. */
static uint64_t around_hole(struct copy *c, const struct get_job *j, uint64_t off, int fd, int why)
{
    struct around w = { .off = off };

    if (!c->force || copy_stopped() || client_each_extent(c->r.c, j->a.ino, find_end, &w) != 0 ||
        w.end == 0 || lseek(fd, (off_t)w.end, SEEK_SET) < 0 || ftruncate(fd, (off_t)w.end) != 0) {
        return 0;
    }
    copy_failed(c, why, "cannot read %s from byte %ju to %ju: left as a hole", j->from,
                (uintmax_t)off, (uintmax_t)w.end - 1);
    return w.end;
}

/* *ret_local: the error is of the target. */
static int copy_bytes(struct copy *c, const struct get_job *j, struct file *f, int fd,
                      bool *ret_local)
{
    uint8_t *buf = x_realloc(NULL, COPY_BYTES);
    uint64_t off = 0;
    int err;

    for (;;) {
        size_t n = 0;

        *ret_local = false;
        err = file_read(f, buf, COPY_BYTES, off, &n);
        if (err != 0) {
            off = around_hole(c, j, off, fd, err);
            if (off != 0) {
                continue;
            }
        }
        if (err != 0 || n == 0) {
            break;
        }
        err = io_write(fd, buf, n);
        *ret_local = err != 0;
        if (err != 0) {
            break;
        }
        off += n;
        err = copy_moved(c, n);
        if (err != 0) {
            break;
        }
    }
    free(buf);
    if (err == 0 && c->sync) {
        err = io_fsync(fd);
        *ret_local = err != 0;
    }
    return err;
}

static void get_file(struct copy *c, const struct get_job *j)
{
    char *as = c->force ? x_printf("%s.get-%ld", j->to, (long)getpid()) : x_strdup(j->to);
    int fd = open(as, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, j->a.mode & 0777);
    struct file *f = NULL;
    bool local = true;
    int err = fd < 0 ? err_from_errno(errno) : DFS_OK;

    if (err == 0) {
        err = file_open(c->r.c, &c->r.cr, j->a.ino, O_RDONLY, &f, NULL, NULL);
        local = false;
    }
    err = err != 0 ? err : copy_bytes(c, j, f, fd, &local);
    file_close(f);
    io_close(fd);
    if (err == 0 && c->preserve) {
        err = keep_attrs(c, as, &j->a);
        local = true;
    }
    if (err == 0 && c->force && rename(as, j->to) != 0) {
        err = err_from_errno(errno);
        local = true;
    }
    if (err != 0 && fd >= 0) {
        (void)unlink(as); /* nothing half-made stays */
    }
    if (err == 0) {
        copy_done(c, false);
    } else if (local) {
        copy_failed(c, err, "cannot write %s%s", j->to,
                    err == DFS_EEXIST ? " (-f replaces it)" : "");
    } else {
        copy_failed(c, err, "cannot read %s", j->from);
    }
    free(as);
}

static void run_job(void *arg, void *item)
{
    struct get_job *j = item;

    if (!copy_stopped()) {
        get_file(arg, j);
    }
    free(j->from);
    free(j->to);
    free(j);
}

static void get_symlink(struct copy *c, const char *from, const char *to, const struct attr *a)
{
    char target[LIMIT_SYMLINK + 1];
    size_t n = 0;
    int err = client_readlink(c->r.c, &c->r.cr, a->ino, target, LIMIT_SYMLINK, &n);

    if (err != 0) {
        copy_failed(c, err, "cannot read %s", from);
        return;
    }
    target[n] = '\0';
    if (c->force) {
        (void)unlink(to);
    }
    if (symlink(target, to) != 0) {
        copy_failed(c, err_from_errno(errno), "cannot write %s", to);
        return;
    }
    err = c->preserve ? keep_attrs(c, to, a) : DFS_OK;
    if (err != 0) {
        copy_failed(c, err, "cannot set the attributes of %s", to);
    }
    copy_done(c, false);
}

static void get_directory(struct get *g, const char *to, const struct attr *a)
{
    struct stat st;

    /* Writable for us while it is filled. */
    if (mkdir(to, (a->mode & 0777) | 0700) != 0 &&
        (errno != EEXIST || stat(to, &st) != 0 || !S_ISDIR(st.st_mode))) {
        copy_failed(&g->c, err_from_errno(errno), "cannot make %s", to);
        return;
    }
    if (g->c.preserve) {
        if (g->dir_count == g->dir_cap) {
            g->dir_cap = MAX(64, g->dir_cap * 2);
            g->dirs = x_realloc(g->dirs, g->dir_cap * sizeof(*g->dirs));
        }
        g->dirs[g->dir_count++] = (struct made_dir){ x_strdup(to), *a };
    }
    copy_done(&g->c, true);
}

static int visit(void *arg, const char *path, const struct attr *a)
{
    struct get *g = arg;
    struct copy *c = &g->c;
    const char *rest = path + strlen(g->from);
    char *to =
        rest[0] == '\0' ? x_strdup(g->to) : path_join(g->to, rest[0] == '/' ? rest + 1 : rest);

    if (S_ISREG(a->mode)) {
        struct get_job *j = x_alloc(sizeof(*j));

        *j = (struct get_job){ x_strdup(path), to, *a };
        jobs_add(c->jobs, j);
        return copy_stopped();
    }
    if (S_ISDIR(a->mode)) {
        get_directory(g, to, a);
    } else if (S_ISLNK(a->mode)) {
        get_symlink(c, path, to, a);
    } else {
        copy_failed(c, DFS_ENOTSUP, "%s is no file, directory or symlink", path);
    }
    free(to);
    return copy_stopped();
}

static void unread(void *arg, const char *path, int err)
{
    copy_failed(arg, err, "cannot read %s", path);
}

static void get_one(struct get *g, const char *src, const char *dst, bool into)
{
    struct copy *c = &g->c;
    char *from = path_trim(src);
    char *to = into ? path_join(dst, path_base(from)) : x_strdup(dst);
    struct attr a;
    int err = from[0] != '/' ? DFS_EINVAL : client_resolve(c->r.c, &c->r.cr, from, &a);

    if (err == 0 && S_ISDIR(a.mode) && !c->recursive) {
        copy_failed(c, DFS_EISDIR, "%s (-r copies trees)", from);
    } else if (err != 0) {
        copy_failed(c, err, "%s", from);
    } else {
        g->from = from;
        g->to = into && from[1] == '\0' ? dst : to; /* the root has no name of its own */
        (void)remote_walk(&c->r, from, &a, visit, unread, g);
    }
    /* The walk is over; the jobs have copies of all paths. */
    free(from);
    free(to);
}

static void finish_dirs(struct get *g)
{
    while (g->dir_count > 0) {
        struct made_dir *d = &g->dirs[--g->dir_count];
        int err = keep_attrs(&g->c, d->to, &d->a);

        if (err != 0) {
            copy_failed(&g->c, err, "cannot set the attributes of %s", d->to);
        }
        free(d->to);
    }
    free(g->dirs);
}

int cmd_get(struct cli *cli, int argc, char **argv)
{
    struct get g = { 0 };
    const struct opt opts[] = {
        { "recursive", 'r', OPT_FLAG, &g.c.recursive, NULL,
          "Copy directories with all they hold." },
        { "force", 'f', OPT_FLAG, &g.c.force, NULL,
          "Replace files that are there already, and leave holes where no copy can be read (told, and "
          "the exit status is 1)." },
        { "preserve", 'p', OPT_FLAG, &g.c.preserve, NULL,
          "Keep mode and times, and the owner when run by root." },
        { "sync", 0, OPT_FLAG, &g.c.sync, NULL, "Wait until the files are on disk." },
        OPT_END,
    };
    struct attr a;
    struct stat st;
    uint64_t total = 0;
    const char *dst;
    bool into;
    int status;

    if (!cli_begin(cli, argc, argv, opts, 2, -1)) {
        return cli->status;
    }
    dst = cli->args[cli->arg_count - 1];
    into = stat(dst, &st) == 0 && S_ISDIR(st.st_mode);
    if (!into && cli->arg_count > 2) {
        return cli_fail(cli, DFS_ENOTDIR, NULL, "%s", dst);
    }
    status = remote_open(cli, &g.c.r);
    if (status != CLI_DONE) {
        return status;
    }
    if (cli->arg_count == 2 && client_resolve(g.c.r.c, &g.c.r.cr, cli->args[0], &a) == 0 &&
        S_ISREG(a.mode)) {
        total = a.size;
    }
    copy_begin(&g.c, path_base(cli->args[0]), total, run_job);
    copy_catch_signals();
    for (int i = 0; i < cli->arg_count - 1; i++) {
        get_one(&g, cli->args[i], dst, into);
    }
    jobs_finish(g.c.jobs);
    g.c.jobs = NULL;
    finish_dirs(&g);
    return copy_end(&g.c);
}
